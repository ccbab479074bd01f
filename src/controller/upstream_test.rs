//! The upstream's own test of a registration: asks for one, asks how it goes, takes the verdict. When which of these
//! is due is decided in [`crate::domain::testing`]; what becomes of a verdict in `conclude.rs`.

use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;

use super::{act::Pass, conclude::Finding, memory::TestMemory};
use crate::{
    api::{
        TEST_REQUESTED_AT, WebhookStatus,
        conditions::{self, ConditionType, Reason, SyncedReason, TestedReason},
        webhook::TestMode,
        webhook_status::{DeactivatedBy, State},
    },
    clock::elapsed,
    domain::{
        bounds,
        remote::{Look, Remote, RemoteId, Seen},
        status::{Said, state_of},
        testing::{Tally, TestSituation, TestStep, Tester, Verdict, next_test, record},
    },
    provider::{Call, ErrorClass, Provider, TestProgress},
};

/// How long to wait before a test that could not be started is tried again.
const START_AGAIN: Duration = Duration::from_secs(60);

/// What is known about the test after this pass.
pub(super) struct TestOutcome {
    /// What `Tested` says.
    pub said: Said<TestedReason>,
    /// A verdict that is not recorded yet.
    pub verdict: Option<Verdict>,
    /// The request that is handled now.
    pub handled: Option<String>,
}

impl Pass {
    /// A test is asked for that is not handled yet.
    pub(super) fn test_is_requested(&self) -> bool {
        let asked = self.request(TEST_REQUESTED_AT);
        let status = self.webhook.status.as_ref();
        asked.is_some() && asked.as_ref() != status.and_then(|status| status.last_handled_test_at.as_ref())
    }

    /// Failed tests ask for a switch that is not made yet.
    pub(super) fn switch_is_due(&self) -> bool {
        self.with_tally(|tally| tally.is_due())
    }

    /// Looks at what failed tests ask for.
    pub(super) fn with_tally<R>(&self, look: impl FnOnce(&Tally<'_>) -> R) -> R {
        let nothing = WebhookStatus::default();
        look(&Tally {
            spec: &self.webhook.spec,
            status: self.webhook.status.as_ref().unwrap_or(&nothing),
            generation: self.webhook.metadata.generation,
            requested: self.test_is_requested(),
        })
    }

    /// Asks for a test, asks how it goes, or takes the verdict.
    pub(super) async fn test(&mut self, call: &Call<'_>, found: &mut Finding) -> TestOutcome {
        let tester = self.tester();
        if tester == Tester::Operator {
            return self.probe_outcome(found);
        }
        let (Tester::Upstream, Some(remote)) = (tester, found.remote.as_mut()) else {
            return TestOutcome {
                said: (TestedReason::NotRun, "spec.test.mode is None".to_owned()),
                verdict: None,
                handled: self.request(TEST_REQUESTED_AT),
            };
        };
        if self.mutated && matches!(found.how, SyncedReason::Applied | SyncedReason::DriftCorrected) {
            // An answer that does not say `new` shows the verdict on what was there before.
            let doubtful = !matches!(remote.state, Some(State::New | State::Deactivated));
            self.memory.with(|memory| {
                memory.test = TestMemory {
                    doubtful,
                    ..TestMemory::default()
                };
            });
        }
        let ended = self.poll_task(call, remote).await;
        self.judge(call, remote, found.deactivated_by, ended).await
    }

    /// `ended`: a test that was asked for has ended, with the request that it answers.
    async fn judge(
        &mut self,
        call: &Call<'_>,
        remote: &Remote,
        deactivated_by: Option<DeactivatedBy>,
        ended: Option<Option<String>>,
    ) -> TestOutcome {
        let status = self.webhook.status.clone().unwrap_or_default();
        let now = self.ctx.clock.now();
        let state = state_of(remote.state, deactivated_by);
        let doubtful = ended.is_none() && self.is_doubtful(&status, remote);
        let running = self.memory.with(|memory| memory.test.task.is_some());
        let verdict = (!doubtful && !running && is_news(&status, state, ended.is_some())).then(|| {
            let (reason, message) = self.word_of_upstream(state);
            Verdict::new(TestMode::Upstream, reason, message, now)
        });
        let mut after = status.clone();
        if let Some(verdict) = &verdict {
            record(&mut after, verdict, 0);
        }
        let answered = ended.flatten();
        let asked = self.request(TEST_REQUESTED_AT);
        let memory = self.memory.with(|memory| memory.clone());
        let since_sync = status.last_sync_time.as_ref().map(|time| elapsed(time.0, now));
        let step = next_test(&TestSituation {
            tester: Tester::Upstream,
            state,
            requested: self.test_is_requested() && asked != answered,
            since_last: after
                .test
                .as_ref()
                .and_then(|test| test.last_time.as_ref())
                .map(|time| elapsed(time.0, now)),
            last: after.test.as_ref(),
            since_change: match memory.wrote {
                Some(wrote) => wrote.elapsed(),
                None => memory
                    .first_seen
                    .elapsed()
                    .min(since_sync.unwrap_or(Duration::MAX)),
            },
            task_since: memory.test.task.as_ref().map(|(_, since)| since.elapsed()),
            polls: memory.test.polls,
            verdict_doubtful: doubtful,
            timeouts: memory.test.timeouts,
            hold: memory
                .test
                .not_before
                .map(|time| time.saturating_duration_since(Instant::now()))
                .unwrap_or_default(),
        });
        self.take_test_step(call, step, &remote.id).await;
        let timed_out = matches!(step, TestStep::TimedOut(_));
        let handled = if timed_out || state == State::Deactivated {
            // Of one that did not end as of one that cannot be made there will be no more news.
            asked
        } else {
            answered
        };
        let said = if deactivated_by == Some(DeactivatedBy::TestFailure) {
            // Why it is off.
            recorded_word(&status).unwrap_or_else(|| self.word_of_upstream(State::Invalid))
        } else if timed_out || (verdict.is_none() && says(&status, TestedReason::TestTimeout) && asks(state))
        {
            let message = "the upstream's test did not end within 5 minutes; another one is asked for later; check the receiver";
            (TestedReason::TestTimeout, message.to_owned())
        } else {
            self.word_of_upstream(if doubtful && asks(state) {
                State::New
            } else {
                state
            })
        };
        TestOutcome {
            said,
            verdict,
            handled,
        }
    }

    /// The state that the upstream shows may be the verdict on another URL: on the one before a change that this
    /// process has just made, or that was made right before a death. As long as the status says so, a verdict is
    /// waited for, also after a restart.
    fn is_doubtful(&self, status: &WebhookStatus, remote: &Remote) -> bool {
        if self.memory.with(|memory| memory.test.doubtful) {
            return true;
        }
        let judged = matches!(status.state, Some(State::Valid | State::Invalid));
        let unjudged = says(status, TestedReason::Pending) || says(status, TestedReason::TestTimeout);
        let elsewhere = status
            .url
            .as_ref()
            .is_some_and(|url| *url != bounds::clip(&remote.url, bounds::URL));
        (judged && unjudged) || (elsewhere && !self.mutated)
    }

    /// Whether a test that was asked for has ended: then with the request that it answers, if there was one.
    async fn poll_task(&self, call: &Call<'_>, remote: &mut Remote) -> Option<Option<String>> {
        let (task, _) = self.memory.with(|memory| memory.test.task.clone())?;
        match self.upstream.poll_test(call, &task).await {
            Ok(TestProgress::Running) => return None,
            // One that is not known any more may have ended or not; the registration's own state says.
            Ok(TestProgress::Done | TestProgress::Vanished) => {}
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "the test could not be asked about");
                return None;
            }
        }
        // What this pass has read may be older than the end of the test.
        match self.upstream.look(call, &Look::ById(remote.id.clone())).await {
            Ok(Seen::One(Some(now))) if now.is_on() && now.state.is_some() => remote.state = now.state,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "the verdict could not be read");
                return None;
            }
        }
        Some(
            self.memory
                .with(|memory| std::mem::take(&mut memory.test).answers),
        )
    }

    async fn take_test_step(&mut self, call: &Call<'_>, step: TestStep, id: &RemoteId) {
        let next = match step {
            TestStep::Idle(next) => next,
            TestStep::Poll(after) => {
                self.memory
                    .with(|memory| memory.test.polls = memory.test.polls.saturating_add(1));
                Some(after)
            }
            TestStep::TimedOut(after) => {
                self.memory.with(|memory| {
                    memory.test = TestMemory {
                        timeouts: memory.test.timeouts.saturating_add(1),
                        not_before: Some(Instant::now() + after),
                        doubtful: memory.test.doubtful,
                        ..TestMemory::default()
                    };
                });
                Some(after)
            }
            TestStep::Start if self.mutated => Some(Duration::from_secs(1)),
            TestStep::Start => {
                self.mutated = true;
                Some(self.start_test(call, id).await)
            }
        };
        self.memory
            .with(|memory| memory.test.next = next.map(|next| Instant::now() + next));
    }

    async fn start_test(&self, call: &Call<'_>, id: &RemoteId) -> Duration {
        match self.upstream.start_test(call, id).await {
            Ok(task) => {
                let answers = self
                    .test_is_requested()
                    .then(|| self.request(TEST_REQUESTED_AT))
                    .flatten();
                self.memory.with(|memory| {
                    memory.test = TestMemory {
                        task: Some((task, Instant::now())),
                        answers,
                        timeouts: memory.test.timeouts,
                        doubtful: memory.test.doubtful,
                        ..TestMemory::default()
                    };
                });
                Duration::from_secs(1)
            }
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "the test could not be started");
                self.memory
                    .with(|memory| memory.test.trouble = Some(error.message.clone()));
                match error.class {
                    ErrorClass::RateLimited => error.retry_after.unwrap_or(START_AGAIN),
                    _ => START_AGAIN,
                }
            }
        }
    }

    /// What the upstream's state says about its test.
    fn word_of_upstream(&self, state: State) -> Said<TestedReason> {
        match state {
            State::New => {
                let trouble = self.memory.with(|memory| memory.test.trouble.clone());
                let message = match trouble {
                    Some(trouble) => {
                        format!("the upstream's test could not be started, and is asked for again: {trouble}")
                    }
                    None => "the upstream's test has no verdict yet".to_owned(),
                };
                (TestedReason::Pending, message)
            }
            State::Valid => (
                TestedReason::Passed,
                "the upstream's test delivery was accepted".to_owned(),
            ),
            State::Invalid => {
                let secret = self.webhook.signing_secret().name;
                let message = format!(
                    "the upstream's test delivery was not accepted; check that the receiver answers 2xx, takes a path segment behind its URL, and verifies with Secret {secret:?}; it is tested again after 1, 5 and 15 minutes"
                );
                (TestedReason::UpstreamReportedInvalid, message)
            }
            State::Deactivated => (
                TestedReason::NotRun,
                "switched off, so there is nothing to test".to_owned(),
            ),
        }
    }
}

/// A registration in this state can be tested.
fn asks(state: State) -> bool {
    state != State::Deactivated
}

/// Whether the state is a verdict that is not recorded yet: it moved, a test that was asked for ended, or it is the
/// first after a write.
fn is_news(status: &WebhookStatus, state: State, ended: bool) -> bool {
    let last_test = status
        .test
        .as_ref()
        .and_then(|test| test.last_time.as_ref())
        .map(|time| time.0);
    let after_a_write = status
        .last_sync_time
        .as_ref()
        .is_some_and(|sync| last_test.is_none_or(|last| last < sync.0));
    matches!(state, State::Valid | State::Invalid) && (status.state != Some(state) || ended || after_a_write)
}

/// Whether `Tested` says this.
fn says(status: &WebhookStatus, reason: TestedReason) -> bool {
    conditions::find(&status.conditions, ConditionType::Tested)
        .is_some_and(|tested| tested.reason == reason.as_str())
}

/// What `Tested` says.
fn recorded_word(status: &WebhookStatus) -> Option<Said<TestedReason>> {
    let tested = conditions::find(&status.conditions, ConditionType::Tested)?;
    let reason = TestedReason::ALL
        .iter()
        .find(|reason| reason.as_str() == tested.reason)?;
    Some((*reason, tested.message.clone()))
}
