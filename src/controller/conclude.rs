//! What follows once it is known what is registered: the secret that the upstream made, what uses the
//! registration, its test, and the status.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use super::{
    act::Pass,
    generated,
    publish::{self, Journal, event, write_journal, write_status},
    reconcile::{Next, PassError},
    signing::{self, Holder},
};
use crate::{
    api::{
        RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason, SecretReason, SyncedReason, TestedReason},
        webhook::{SecretSource, TestMode},
        webhook_status::{DeactivatedBy, State},
    },
    clock::elapsed,
    domain::{
        bounds,
        capabilities::{Identity, SecretRule, TargetRule},
        desired::Desired,
        hash::Applied,
        recorded::{Origin, Recorded},
        remote::{Remote, RemoteId, differences},
        status::{Aspect, Assessment, Registered, Said, note_drift, note_registration, state_of},
        testing::{TestSituation, TestStep, Tester, Verdict, next_test, note_test},
    },
    provider::{Call, ErrorClass, Provider, TestProgress, Usage},
};

/// What a pass has found out about the registration.
pub(super) struct Finding {
    /// What is there; `None` where it cannot be read and was not just written.
    pub remote: Option<Remote>,
    /// `InSync`, `Applied` or `DriftCorrected`.
    pub how: SyncedReason,
    /// Fields that were put right.
    pub corrected: Vec<&'static str>,
    /// Fields that differ and are only reported.
    pub drift: Vec<&'static str>,
    /// Who switched it off.
    pub deactivated_by: Option<DeactivatedBy>,
}

impl Finding {
    /// After a write.
    pub(super) fn written(
        remote: Remote,
        want: &Desired,
        how: SyncedReason,
        corrected: Vec<&'static str>,
    ) -> Self {
        let deactivated_by = (!want.active).then_some(DeactivatedBy::Spec);
        Self {
            remote: Some(remote),
            how,
            corrected,
            drift: Vec::new(),
            deactivated_by,
        }
    }
}

/// The usage that a ricloud target stands for.
pub(super) fn usage(target: Option<&str>) -> Option<Usage> {
    match target? {
        "organisation" => Some(Usage::Organisation),
        "key" => Some(Usage::OwnKey),
        other => other.strip_prefix("key:").map(|id| Usage::Key(id.to_owned())),
    }
}

/// What is known about the test after this pass.
struct TestOutcome {
    said: Said<TestedReason>,
    /// A verdict that is not recorded yet.
    verdict: Option<Verdict>,
    /// The request annotation is handled.
    handled: bool,
}

impl Pass {
    /// Ends the pass: does what is left to do for a known registration and publishes.
    pub(super) async fn conclude(
        mut self: Box<Self>,
        call: &Call<'_>,
        want: &Desired,
        found: Finding,
    ) -> Result<Next, PassError> {
        let remote_differs = found.drift.is_empty()
            && found.remote.as_ref().is_some_and(|remote| {
                found.deactivated_by != Some(DeactivatedBy::Upstream) && !differences(want, remote).is_empty()
            });
        if self.mutated
            && remote_differs
            && found.how == SyncedReason::Applied
            && self.recorded.mark.is_none()
        {
            // A create cannot set everything at once everywhere (ricloud: switched off). The next pass goes on.
            return Ok(Some(Duration::ZERO));
        }
        if self.mutated
            && self.recorded.mark.is_some()
            && self.upstream.capabilities().identity == Identity::Assigned
        {
            // A replacement is half done: the status names the old one until that is gone.
            return Ok(Some(Duration::ZERO));
        }
        let secret = match self.secret(call, want, found.remote.as_ref()).await? {
            SecretOutcome::Known(aspect) => aspect,
            SecretOutcome::Ends(next) => return Ok(next),
        };
        let used = self.make_effective(call, want, found.remote.as_ref()).await?;
        let test = self.test(call, &found).await?;
        // Where the target is the id nobody leaves a mark: somebody else did.
        if !self.recorded.annotated || self.recorded.mark.is_some() {
            let id = self.registration_id(want, found.remote.as_ref());
            let journal = Journal::Recorded {
                id,
                origin: self.origin(),
                retire: None,
            };
            self.webhook = write_journal(&self.ctx, &self.memory, &self.webhook, &journal).await?;
            self.recorded = Recorded::read(&self.webhook, &self.ctx.key);
        }
        self.memory.with(|memory| {
            memory.failures = 0;
            memory.hold = None;
            memory.absent_since = None;
            memory.removed = false;
            memory.read_back = self.ctx.clock.now();
            memory.unfinished = !used;
        });
        self.publish(want, &found, secret, test).await?;
        Ok(if used { self.next() } else { Some(Duration::ZERO) })
    }

    /// A status id without proof was recorded by an operator with another key; nobody knows who made it.
    fn origin(&self) -> Origin {
        if self.recorded.is_own_making() {
            Origin::Created
        } else {
            Origin::Adopted
        }
    }

    fn registration_id(&self, want: &Desired, remote: Option<&Remote>) -> RemoteId {
        remote
            .map(|remote| remote.id.clone())
            .or_else(|| self.recorded.trusted_id().cloned())
            .unwrap_or_else(|| RemoteId(want.target.clone().unwrap_or_default()))
    }

    async fn secret(
        &mut self,
        call: &Call<'_>,
        want: &Desired,
        remote: Option<&Remote>,
    ) -> Result<SecretOutcome, PassError> {
        let known = |reason, message: String| Ok(SecretOutcome::Known(Aspect::Is(reason, message)));
        match (self.upstream.capabilities().secret, remote) {
            (SecretRule::None, _) | (SecretRule::MadeByUpstream, None) => {
                Ok(SecretOutcome::Known(Aspect::Absent))
            }
            (rule @ SecretRule::Given { .. }, _) => match rule.source(&self.webhook.spec) {
                Some(SecretSource::Generate) => {
                    known(SecretReason::Published, generated::describe(&self.webhook))
                }
                Some(SecretSource::Existing | SecretSource::Upstream) => known(
                    SecretReason::Resolved,
                    format!("read from Secret {:?}", self.webhook.signing_secret().name),
                ),
                None => Ok(SecretOutcome::Known(Aspect::Absent)),
            },
            (SecretRule::MadeByUpstream, Some(remote)) => {
                let reference = self.webhook.signing_secret();
                let published = format!("the upstream's secret is in Secret {:?}", reference.name);
                if let Some(secret) = &remote.secret {
                    return match signing::publish(&self.ctx, &self.webhook, &remote.id, secret).await? {
                        Ok(_) => {
                            self.memory.with(|memory| memory.published = Some(Instant::now()));
                            known(SecretReason::Published, published)
                        }
                        Err((reason, message)) => {
                            let assessment = Assessment::secret(reason, true, message);
                            Ok(SecretOutcome::Ends(Some(self.refuse(assessment).await?)))
                        }
                    };
                }
                match signing::inspect(&self.ctx, &self.webhook).await? {
                    Holder::Ours {
                        id, value: Some(_), ..
                    } if id.as_deref() == Some(remote.id.0.as_str()) => {
                        known(SecretReason::Published, published)
                    }
                    _ => Ok(SecretOutcome::Ends(self.secret_lost(call, want, remote).await?)),
                }
            }
        }
    }

    /// The upstream made a secret, shows it no more, and it is in no Secret.
    async fn secret_lost(
        &mut self,
        call: &Call<'_>,
        want: &Desired,
        remote: &Remote,
    ) -> Result<Next, PassError> {
        if !self.recorded.is_own_making() {
            let message = "the upstream does not show the secret of this registration, which was there before; remove the registration there, so that it can be made anew".to_owned();
            let assessment = Assessment::secret(SecretReason::NotRecoverable, true, message);
            return Ok(Some(self.refuse(assessment).await?));
        }
        if self.mutated {
            return Ok(Some(Duration::ZERO));
        }
        self.mutated = true;
        match self.upstream.remove(call, &remote.id, Some(want)).await {
            Ok(_) => {
                let note = "the signing secret was lost and the upstream does not show it again; registered anew with a new secret";
                event(
                    &self.ctx,
                    &self.webhook,
                    EventType::Warning,
                    "SecretLost",
                    note,
                    "Create",
                )
                .await;
                self.memory.with(|memory| {
                    memory.removed = true;
                    memory.wrote = Some(Instant::now());
                });
                Ok(Some(Duration::ZERO))
            }
            Err(error) => self.failed(&error, false).await,
        }
    }

    /// ricloud's `target`: what shall use the registration once it is valid. `false`: there is one more call to
    /// make, in a pass of its own.
    async fn make_effective(
        &mut self,
        call: &Call<'_>,
        want: &Desired,
        remote: Option<&Remote>,
    ) -> Result<bool, PassError> {
        let usage = (self.upstream.capabilities().target == TargetRule::Use)
            .then(|| usage(want.target.as_deref()))
            .flatten();
        let (Some(usage), Some(remote)) = (usage, remote) else {
            return Ok(true);
        };
        if remote.state != Some(State::Valid) {
            return Ok(true);
        }
        let used = match self.upstream.is_used(call, &remote.id, &usage).await {
            Ok(used) => used,
            Err(error) => return self.usage_failed(&error.message).await,
        };
        if used {
            return Ok(true);
        }
        if self.mutated {
            return Ok(false);
        }
        self.mutated = true;
        match self.upstream.use_it(call, &remote.id, &usage).await {
            Ok(()) => {
                let note = format!(
                    "{} uses this registration now",
                    want.target.as_deref().unwrap_or_default()
                );
                event(
                    &self.ctx,
                    &self.webhook,
                    EventType::Normal,
                    "MadeEffective",
                    &note,
                    "Use",
                )
                .await;
                Ok(true)
            }
            Err(error) => self.usage_failed(&error.message).await,
        }
    }

    /// The registration itself is fine; what shall use it is looked at again with the next read-back.
    async fn usage_failed(&self, why: &str) -> Result<bool, PassError> {
        let note = format!("spec.target: the registration could not be made effective: {why}");
        event(
            &self.ctx,
            &self.webhook,
            EventType::Warning,
            "NotEffective",
            &note,
            "Use",
        )
        .await;
        Ok(true)
    }

    /// Asks for a test, asks how it goes, or takes the verdict.
    async fn test(&mut self, call: &Call<'_>, found: &Finding) -> Result<TestOutcome, PassError> {
        let tester = Tester::of(
            self.webhook.test_mode(),
            self.upstream.capabilities().upstream_test,
        );
        let (Tester::Upstream, Some(remote)) = (tester, found.remote.as_ref()) else {
            let why = match self.webhook.test_mode() {
                TestMode::None => "spec.test.mode is None",
                _ => "the upstream has no test of its own",
            };
            return Ok(TestOutcome {
                said: (TestedReason::NotRun, why.to_owned()),
                verdict: None,
                handled: true,
            });
        };
        if self.mutated && matches!(found.how, SyncedReason::Applied | SyncedReason::DriftCorrected) {
            let doubtful = !matches!(remote.state, Some(State::New | State::Deactivated));
            self.memory.with(|memory| {
                memory.test = super::memory::TestMemory {
                    doubtful,
                    ..Default::default()
                };
            });
        }
        let ended = self.poll_task(call).await;
        let status = self.webhook.status.clone().unwrap_or_default();
        let now = self.ctx.clock.now();
        let asked = self.request(TEST_REQUESTED_AT);
        let requested = asked.is_some() && asked != status.last_handled_test_at && !ended;
        let since_sync = status.last_sync_time.as_ref().map(|time| elapsed(time.0, now));
        let memory = self.memory.with(|memory| memory.clone());
        let state = state_of(remote.state, found.deactivated_by);
        let last_test = status
            .test
            .as_ref()
            .and_then(|test| test.last_time.as_ref())
            .map(|time| time.0);
        // A new verdict: the state moved, a test that was asked for ended, or it is the first after a write.
        let settled_state = matches!(state, State::Valid | State::Invalid) && !memory.test.doubtful;
        let unrecorded = status.state != Some(state)
            || ended
            || status
                .last_sync_time
                .as_ref()
                .is_some_and(|sync| last_test.is_none_or(|last| last < sync.0));
        let verdict = (settled_state && unrecorded && memory.test.task.is_none()).then(|| {
            let (reason, message) = self.word_of_upstream(state);
            Verdict::new(TestMode::Upstream, reason, message, now)
        });
        let mut after = status.clone();
        if let Some(verdict) = &verdict {
            note_test(&mut after, verdict, 0);
        }
        let since_change = match memory.wrote {
            Some(wrote) => wrote.elapsed(),
            None => memory
                .first_seen
                .elapsed()
                .min(since_sync.unwrap_or(Duration::MAX)),
        };
        let step = next_test(&TestSituation {
            tester,
            state,
            requested,
            last: after.test.as_ref(),
            since_last: after
                .test
                .as_ref()
                .and_then(|test| test.last_time.as_ref())
                .map(|time| elapsed(time.0, now)),
            since_change,
            task_since: memory.test.task.as_ref().map(|(_, since)| since.elapsed()),
            polls: memory.test.polls,
            verdict_doubtful: memory.test.doubtful,
        });
        let said = self.take_test_step(call, step, state, &remote.id).await;
        let started = self.memory.with(|memory| memory.test.task.is_some());
        Ok(TestOutcome {
            said,
            verdict,
            handled: !requested || state == State::Deactivated || started,
        })
    }

    /// Whether a test that was asked for has ended.
    async fn poll_task(&self, call: &Call<'_>) -> bool {
        let Some((task, _)) = self.memory.with(|memory| memory.test.task.clone()) else {
            return false;
        };
        let ended = match self.upstream.poll_test(call, &task).await {
            Ok(TestProgress::Running) => false,
            Ok(TestProgress::Done | TestProgress::Vanished) => true,
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "the test could not be asked about");
                false
            }
        };
        if ended {
            self.memory
                .with(|memory| memory.test = super::memory::TestMemory::default());
        }
        ended
    }

    async fn take_test_step(
        &mut self,
        call: &Call<'_>,
        step: TestStep,
        state: State,
        id: &RemoteId,
    ) -> Said<TestedReason> {
        let mut timed_out = false;
        let next = match step {
            TestStep::Idle(next) => next,
            TestStep::Poll(after) => {
                self.memory
                    .with(|memory| memory.test.polls = memory.test.polls.saturating_add(1));
                Some(after)
            }
            TestStep::TimedOut(after) => {
                timed_out = true;
                self.memory
                    .with(|memory| memory.test = super::memory::TestMemory::default());
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
        let doubtful = self.memory.with(|memory| memory.test.doubtful);
        if timed_out {
            let message = "the upstream's test did not end within 5 minutes; another one is asked for later; check the receiver";
            return (TestedReason::TestTimeout, message.to_owned());
        }
        // What is there may be of another URL.
        let doubtful = doubtful && state != State::Deactivated;
        self.word_of_upstream(if doubtful { State::New } else { state })
    }

    /// What the upstream's state says about its test.
    fn word_of_upstream(&self, state: State) -> Said<TestedReason> {
        match state {
            State::New => (
                TestedReason::Pending,
                "the upstream's test has no verdict yet".to_owned(),
            ),
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

    /// A request annotation, as it is noted once it is handled.
    fn request(&self, annotation: &str) -> Option<String> {
        self.webhook
            .annotations()
            .get(annotation)
            .map(|value| bounds::request(value))
    }

    async fn start_test(&self, call: &Call<'_>, id: &RemoteId) -> Duration {
        match self.upstream.start_test(call, id).await {
            Ok(task) => {
                self.memory.with(|memory| {
                    memory.test = super::memory::TestMemory {
                        task: Some((task, Instant::now())),
                        ..Default::default()
                    };
                });
                Duration::from_secs(1)
            }
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "the test could not be started");
                match error.class {
                    ErrorClass::RateLimited => error.retry_after.unwrap_or(Duration::from_secs(60)),
                    _ => Duration::from_secs(60),
                }
            }
        }
    }

    /// `Ready` as it stands, if it speaks of a registration.
    pub(super) fn present_ready(&self) -> Option<Said<ReadyReason>> {
        let status = self.webhook.status.as_ref()?;
        let ready = conditions::find(&status.conditions, ConditionType::Ready)?;
        let reason = ReadyReason::ALL
            .iter()
            .find(|reason| reason.as_str() == ready.reason)?;
        Some((*reason, ready.message.clone()))
    }

    async fn publish(
        &mut self,
        want: &Desired,
        found: &Finding,
        secret: Aspect<SecretReason>,
        test: TestOutcome,
    ) -> Result<(), PassError> {
        let (ctx, now) = (Arc::clone(&self.ctx), self.ctx.clock.now());
        let old = self.webhook.status.clone().unwrap_or_default();
        let generation = self.webhook.metadata.generation;
        let mut assessment = Assessment::registered(&Registered {
            how: found.how,
            corrected: &found.corrected,
            drift: &found.drift,
            deactivated_by: found.deactivated_by,
            tested: test.said,
            test_counts: self.webhook.test_mode() != TestMode::None,
            secret,
        });
        // A read-back that agrees is no news: "Applied" stays what it was.
        let synced_before = conditions::find(&old.conditions, ConditionType::Synced);
        if found.how == SyncedReason::InSync
            && found.drift.is_empty()
            && synced_before.is_some_and(|s| s.status == "True" && s.observed_generation == generation)
        {
            assessment.synced = Aspect::Keep;
        }
        let id = self.registration_id(want, found.remote.as_ref());
        let url = found
            .remote
            .as_ref()
            .map_or(want.url.clone(), |remote| remote.url.clone());
        let hash = (self.applied() != Applied::Same).then(|| self.wanted.clone());
        let wrote = self.mutated && found.how != SyncedReason::InSync || !found.corrected.is_empty();
        let found_new_drift =
            !found.drift.is_empty() && old.drift.as_ref().is_none_or(|drift| drift.fields != found.drift);
        let (reconcile_request, test_request) = (
            self.request(RECONCILE_REQUESTED_AT),
            self.request(TEST_REQUESTED_AT),
        );
        let limit = self.webhook.spec.test.history_limit;
        let state = state_of(
            found.remote.as_ref().and_then(|remote| remote.state),
            found.deactivated_by,
        );
        let change = |status: &mut WebhookStatus| {
            note_registration(status, &id, &url, hash, wrote || found_new_drift, now);
            status.state = Some(state);
            status.deactivated_by = found.deactivated_by;
            status.last_handled_reconcile_at = reconcile_request;
            if test.handled {
                status.last_handled_test_at = test_request;
            }
            if !found.corrected.is_empty() {
                note_drift(status, &found.corrected, true, now);
            } else if !found.drift.is_empty() {
                note_drift(status, &found.drift, false, now);
            }
            if let Some(verdict) = &test.verdict {
                note_test(status, verdict, limit);
            }
        };
        let written = write_status(&ctx, &self.memory, &self.webhook, assessment, change).await?;
        if let Some(verdict) = &test.verdict {
            ctx.metrics.test_result(
                self.account.provider_type.as_str(),
                verdict.mode.as_str(),
                verdict.result().as_str(),
            );
        }
        publish::sample(&ctx, &written, self.account.provider_type.as_str());
        self.webhook = written;
        Ok(())
    }
}

/// What became of the signing secret.
enum SecretOutcome {
    Known(Aspect<SecretReason>),
    /// The pass ends here.
    Ends(Next),
}
