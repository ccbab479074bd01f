//! The operator's own test of a receiver, as far as a pass has to do with it: when one is due, what is sent, and the
//! verdict in the status. Neither needs the upstream. Sending is [`super::prober`]'s.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use super::{
    act::Pass,
    conclude::Finding,
    prober::{self, Kind, Purpose},
    publish::{self, write_status},
    reconcile::PassError,
    resolve::ResolveError,
    signing::{self, Holder},
    upstream_test::TestOutcome,
};
use crate::{
    api::{
        TEST_REQUESTED_AT,
        conditions::{self, ConditionType, Reason, SyncedReason, TestedReason},
        provider::ProviderType,
        webhook::TestMode,
        webhook_status::{DeactivatedBy, State},
    },
    clock::elapsed,
    domain::{
        capabilities::SecretRule,
        desired::Desired,
        hash::Applied,
        status::{Assessment, Said},
        testing::{ProbeSituation, Tester, Verdict, next_probe, note_test, state_after},
    },
    net::{CheckedUrl, SecretText},
    probe::{Probe, Signing},
    provider::Provider,
};

/// What is due and cannot be done now is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);

impl Pass {
    /// Who tests.
    pub(super) fn tester(&self) -> Tester {
        Tester::of(
            self.webhook.test_mode(),
            self.upstream.capabilities().upstream_test,
        )
    }

    /// Records the verdict of a probe that has landed, and sends one that is due. For an object that is carried out:
    /// what is tested is what is registered.
    pub(super) async fn probe(&mut self) -> Result<(), PassError> {
        if self.tester() != Tester::Operator {
            return Ok(());
        }
        self.record_verdict().await?;
        let due = self.next_probe();
        let left = due.map(|due| elapsed(self.ctx.clock.now(), due));
        let next = match left {
            Some(left) if left.is_zero() => self.send_probe().await?,
            left => left,
        };
        let next = next.map(|next| Instant::now() + next);
        self.memory.with(|memory| memory.probe.next = next);
        Ok(())
    }

    /// What the conditions say after a pass that found (or made) the registration as `found`.
    pub(super) fn probe_outcome(&self, found: &Finding) -> TestOutcome {
        if matches!(
            found.deactivated_by,
            Some(DeactivatedBy::Spec | DeactivatedBy::Upstream)
        ) {
            let message = "switched off, so there is nothing to test".to_owned();
            return TestOutcome {
                said: (TestedReason::NotRun, message),
                verdict: None,
                handled: self.request(TEST_REQUESTED_AT),
            };
        }
        let status = self.webhook.status.as_ref();
        let same_spec =
            status.is_some_and(|status| status.observed_generation == self.webhook.metadata.generation);
        let was_off = status.is_some_and(|status| status.deactivated_by.is_some());
        // A create whose outcome was not known is found by a look, which changes nothing.
        let first = status.is_none_or(|status| status.id.is_none());
        // What failed tests switched off keeps their verdict; the next one is due by plan.
        let changed = found.deactivated_by.is_none()
            && (!same_spec
                || first
                || was_off
                || self.mutated && found.how == SyncedReason::Applied
                || matches!(self.applied(), Applied::Never | Applied::Changed));
        let said = if changed {
            let message = "the operator sends a test to the receiver now".to_owned();
            (TestedReason::Pending, message)
        } else {
            self.present_tested().unwrap_or_else(|| {
                let message = "not changed since the operator can test it; ask for a test with the annotation webhook-operator.dev/test-requested-at";
                (TestedReason::NotRun, message.to_owned())
            })
        };
        TestOutcome {
            said,
            verdict: None,
            // By the verdict.
            handled: None,
        }
    }

    /// The state word after a test by the operator; the upstream's own where it has one.
    pub(super) fn state_by_probe(&self, upstream: State, tested: TestedReason) -> State {
        if self.tester() == Tester::Operator
            && upstream == State::New
            && !self.upstream.capabilities().upstream_test
        {
            state_after(tested)
        } else {
            upstream
        }
    }

    /// `Tested` as it stands.
    fn present_tested(&self) -> Option<Said<TestedReason>> {
        let status = self.webhook.status.as_ref()?;
        let tested = conditions::find(&status.conditions, ConditionType::Tested)?;
        let reason = TestedReason::ALL
            .iter()
            .find(|reason| reason.as_str() == tested.reason)?;
        Some((*reason, tested.message.clone()))
    }

    fn purpose(&self) -> Purpose {
        let made_by_upstream = self.upstream.capabilities().secret == SecretRule::MadeByUpstream;
        let secret = made_by_upstream.then(|| {
            let name = self.webhook.signing_secret().name;
            self.ctx.secret_version(&self.namespace(), &name)
        });
        Purpose {
            generation: self.webhook.metadata.generation.unwrap_or_default(),
            wanted: self.wanted.clone(),
            secret: secret.flatten(),
            request: self.request(TEST_REQUESTED_AT),
        }
    }

    /// When a test is due. `None`: only after a change, a request, or when the one on its way has landed.
    fn next_probe(&self) -> Option<jiff::Timestamp> {
        let purpose = self.purpose();
        let status = self.webhook.status.as_ref()?;
        let (served, first_seen) = self
            .memory
            .with(|memory| (memory.probe.is_served(&purpose), memory.first_seen_at));
        if served {
            return None;
        }
        next_probe(&ProbeSituation {
            uid: &self.uid(),
            deactivated_by: status.deactivated_by,
            pending: self
                .present_tested()
                .is_some_and(|(reason, _)| reason == TestedReason::Pending),
            requested: self.test_is_requested(),
            last: status.test.as_ref(),
            interval: self
                .webhook
                .spec
                .test
                .interval
                .as_ref()
                .map(|interval| interval.get()),
            first_seen,
        })
    }

    /// Hands a probe over. Returns when to look again, if it could not be.
    async fn send_probe(&mut self) -> Result<Option<Duration>, PassError> {
        if self.ctx.fence.remaining().is_none() {
            return Ok(Some(AGAIN));
        }
        let want = match self.want().await {
            Ok(want) => want,
            Err(ResolveError::Kube(error)) => return Err(error.into()),
            Err(ResolveError::Random(error)) => return Err(error.into()),
            // It was there a moment ago: the next pass says what is missing.
            Err(ResolveError::Signing(..) | ResolveError::Other(..)) => return Ok(Some(AGAIN)),
        };
        if self.applied() == Applied::Changed {
            // The receiver is not told of what the upstream does not know yet.
            return Ok(Some(AGAIN));
        }
        let Some(signing) = self.signing(&want).await? else {
            return Ok(Some(AGAIN));
        };
        let object = ObjectRef::from_obj(self.webhook.as_ref());
        let purpose = self.purpose();
        let url = match CheckedUrl::parse(&want.url) {
            Ok(url) => url,
            Err(problem) => {
                let message = format!(
                    "spec.url: {problem}, so the operator cannot test it; correct it, or set spec.test.mode to None"
                );
                let verdict = Verdict::new(
                    TestMode::Probe,
                    TestedReason::ConnectFailed,
                    message,
                    self.ctx.clock.now(),
                );
                prober::conclude(&self.ctx, object, &self.memory, purpose, verdict);
                return Ok(None);
            }
        };
        let probe = self.probe_of(&want, url, signing);
        prober::launch(&self.ctx, object, &self.memory, Kind::Test, purpose, probe);
        Ok(None)
    }

    fn probe_of(&self, want: &Desired, url: CheckedUrl, signing: Signing) -> Probe {
        let test = &self.webhook.spec.test;
        Probe {
            webhook: format!("{}/{}", self.namespace(), self.webhook.name_any()),
            uid: self.uid(),
            url,
            headers: want.headers.clone(),
            basic_auth: want.basic_auth.clone(),
            signing,
            timeout: test.timeout.get(),
            check_forgery: test.check_forgery,
        }
    }

    /// What a probe signed with the next secret is sent for. `print`: that secret's keyed hash.
    pub(super) fn next_secret_purpose(&self, print: &str) -> Purpose {
        Purpose {
            generation: self.webhook.metadata.generation.unwrap_or_default(),
            wanted: print.to_owned(),
            secret: None,
            request: None,
        }
    }

    /// Hands a probe over that is signed with another secret than the one that is registered. `false`: none can be
    /// made.
    pub(super) async fn probe_next_secret(
        &mut self,
        secret: SecretText,
        print: &str,
    ) -> Result<bool, PassError> {
        let want = match self.want().await {
            Ok(want) => Desired {
                secret: Some(secret),
                ..want.as_ref().clone()
            },
            Err(ResolveError::Kube(error)) => return Err(error.into()),
            Err(ResolveError::Random(error)) => return Err(error.into()),
            Err(ResolveError::Signing(..) | ResolveError::Other(..)) => return Ok(false),
        };
        let (Ok(url), Some(signing)) = (CheckedUrl::parse(&want.url), self.signing(&want).await?) else {
            return Ok(false);
        };
        let probe = Probe {
            check_forgery: false,
            ..self.probe_of(&want, url, signing)
        };
        let object = ObjectRef::from_obj(self.webhook.as_ref());
        let purpose = self.next_secret_purpose(print);
        prober::launch(&self.ctx, object, &self.memory, Kind::NextSecret, purpose, probe);
        Ok(true)
    }

    /// How the upstream would sign. `None`: the secret that it made is not in its Secret now.
    async fn signing(&self, want: &Desired) -> Result<Option<Signing>, PassError> {
        let settings = self.provider.settings();
        Ok(match settings.type_ {
            ProviderType::Conpeek | ProviderType::Thulium => Some(Signing::None),
            ProviderType::Ricloud => match signing::inspect(&self.ctx, &self.webhook).await? {
                Holder::Ours {
                    value: Some(value), ..
                } => Some(Signing::Ricloud(value)),
                Holder::Ours { value: None, .. } | Holder::Absent | Holder::Foreign(_) => None,
            },
            ProviderType::Autocosmos => {
                let style = settings.autocosmos.clone().unwrap_or_default().delivery_signature;
                Some(Signing::Autocosmos {
                    secret: want.secret.clone(),
                    topic: want.target.clone(),
                    separator: style.separator,
                    encoding: style.encoding,
                })
            }
        })
    }

    /// Writes the verdict that has landed: one status write, whatever the test was for.
    async fn record_verdict(&mut self) -> Result<(), PassError> {
        let purpose = self.purpose();
        let landed = self.memory.with(|memory| memory.probe.verdict(&purpose));
        let Some((purpose, verdict)) = landed else {
            return Ok(());
        };
        if self.ctx.fence.remaining().is_none() {
            // Whoever leads now tests by itself.
            self.memory.with(|memory| memory.probe.recorded());
            return Ok(());
        }
        let ctx = Arc::clone(&self.ctx);
        let status = self.webhook.status.clone().unwrap_or_default();
        let assessment = Assessment::tested(&status, verdict.reason, &verdict.message);
        let state = status
            .state
            .filter(|state| *state == State::Deactivated || self.upstream.capabilities().upstream_test)
            .unwrap_or_else(|| state_after(verdict.reason));
        let limit = self.webhook.spec.test.history_limit;
        let change = |status: &mut crate::api::WebhookStatus| {
            status.state = Some(state);
            if purpose.request.is_some() {
                status.last_handled_test_at = purpose.request;
            }
            note_test(status, &verdict, limit);
        };
        let written = write_status(&ctx, &self.memory, &self.webhook, assessment, change).await?;
        self.memory.with(|memory| memory.probe.recorded());
        ctx.metrics.test_result(
            self.account.provider_type.as_str(),
            verdict.mode.as_str(),
            verdict.result().as_str(),
        );
        publish::sample(&ctx, &written, self.account.provider_type.as_str());
        self.webhook = written;
        Ok(())
    }
}
