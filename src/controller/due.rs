//! Whether a pass needs the upstream at all, how urgently, and when the next one is due.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::{
    act::Pass,
    generated,
    publish::{self, Journal, write_journal, write_status},
    reconcile::{Next, PassError},
    resolve::{self, ResolveError},
};
use crate::{
    api::{
        RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT, Webhook, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason},
        webhook_status::State,
    },
    clock::elapsed,
    domain::{
        bounds,
        capabilities::{ReadRule, SecretRule},
        desired::Desired,
        hash::Applied,
        recorded::{Origin, Recorded, made_of},
        schedule,
        status::{Assessment, is_settled},
        testing::Tester,
    },
    provider::{Finding, Learned, Priority, Provider},
};

/// How long the watch of Secrets may take to show what was just written.
const WATCH_LAG: Duration = Duration::from_secs(5);

/// Upstreams that cannot be read are written again, but not more often than this.
const REWRITE_INTERVAL: Duration = Duration::from_secs(3600);

/// What a pass has to do.
pub(super) enum Due {
    /// Nothing: neither the object nor the upstream needs a call.
    Nothing,
    /// An earlier attempt failed, and nothing that it depended on has changed.
    Held(Option<Instant>),
    /// A referenced Secret does not resolve.
    Secret(Assessment),
    /// The upstream.
    Act(Priority),
}

/// Whether the upstream is needed, and how urgently. Fills in what is wanted.
pub(super) async fn due(pass: &mut Pass) -> Result<Due, PassError> {
    let inputs = resolve::inputs(&pass.ctx, &pass.webhook);
    let known = pass
        .memory
        .with(|memory| memory.wanted.clone())
        .filter(|(of, _)| *of == inputs);
    match known {
        Some((_, wanted)) => pass.wanted = wanted,
        None => match pass.want().await {
            Ok(_) if pass.has_read(&inputs) => pass
                .memory
                .with(|memory| memory.wanted = Some((inputs.clone(), pass.wanted.clone()))),
            Ok(_) => pass.memory.with(|memory| memory.wanted = None),
            Err(ResolveError::Kube(error)) => return Err(error.into()),
            Err(ResolveError::Random(error)) => return Err(error.into()),
            Err(ResolveError::Signing(reason, message)) => {
                return Ok(Due::Secret(Assessment::secret(reason, true, message)));
            }
            Err(ResolveError::Other(reason, message)) => {
                return Ok(Due::Secret(Assessment::secret(reason, false, message)));
            }
        },
    }
    let carried_out = pass.is_carried_out();
    pass.inherit_doubt(carried_out);
    pass.in_doubt = pass
        .memory
        .with(|memory| memory.in_doubt.is_some_and(|until| until <= Instant::now()));
    if carried_out {
        pass.probe().await?;
    }
    let held = pass
        .memory
        .with(|memory| memory.hold.clone())
        .filter(|(_, of)| *of == pass.hold_inputs(&inputs));
    let (now, ctx) = (pass.ctx.clock.now(), Arc::clone(&pass.ctx));
    let read_back = pass.memory.with(|memory| memory.read_back);
    let read_back_due = schedule::is_due(&pass.uid(), pass.interval(), read_back, now);
    if let Some((until, _)) = held {
        match until {
            Some(until) if until > Instant::now() => return Ok(Due::Held(Some(until))),
            None => return Ok(Due::Held(None)),
            Some(_) => {}
        }
    }
    let look = pass.rotate(&inputs).await?;
    if !pass.is_carried_out() || pass.memory.with(|memory| memory.unfinished) {
        return Ok(Due::Act(Priority::Change));
    }
    if look {
        return Ok(Due::Act(Priority::Test));
    }
    if !pass.recorded.annotated && pass.applied() == Applied::Same {
        // Somebody wiped or copied annotations over; the status still knows.
        if let Some(id) = pass.recorded.trusted_id().cloned() {
            let journal = Journal::Recorded {
                id,
                origin: Origin::Adopted,
                retire: None,
                made_of: None,
            };
            pass.webhook = write_journal(&ctx, &pass.memory, &pass.webhook, &journal).await?;
            pass.recorded = Recorded::read(&pass.webhook, &ctx.key);
        }
    }
    Ok(if test_due(pass) {
        Due::Act(Priority::Test)
    } else if read_back_due || pass.in_doubt {
        Due::Act(Priority::ReadBack)
    } else {
        Due::Nothing
    })
}

/// Whether a test of the upstream has to be asked about, repeated or taken up again after a restart.
fn test_due(pass: &Pass) -> bool {
    let status = pass.webhook.status.as_ref();
    if pass.tester() != Tester::Upstream {
        return false;
    }
    match pass.memory.with(|memory| memory.test.next) {
        Some(next) => next <= Instant::now(),
        None => {
            let waiting = status
                .and_then(|status| conditions::find(&status.conditions, ConditionType::Ready))
                .is_some_and(|ready| ready.reason == ReadyReason::NotYetTested.as_str());
            waiting || status.and_then(|status| status.state) == Some(State::Invalid)
        }
    }
}

impl Pass {
    /// What is wanted, with every reference resolved. Reads the Secrets once per pass.
    pub(super) async fn want(&mut self) -> Result<Arc<Desired>, ResolveError> {
        if let Some(want) = &self.want {
            return Ok(Arc::clone(want));
        }
        let capabilities = self.upstream.capabilities();
        if self.made.is_none() {
            self.made = generated::ensure(&self.ctx, &self.webhook, capabilities.secret).await?;
        }
        let made = self.made.clone();
        let made = made.map(|secret| (self.webhook.signing_secret().name, secret));
        let want = Arc::new(resolve::resolve(&self.ctx, &self.webhook, capabilities, made).await?);
        self.wanted = self.ctx.key.applied(&want);
        self.want = Some(Arc::clone(&want));
        Ok(want)
    }

    /// Whether `inputs` is what was read. A Secret that the operator has just written is newer than what the cache
    /// knows; and if it were gone again before the cache has seen it, it would look as if it had never been.
    fn has_read(&self, inputs: &str) -> bool {
        let written = self.made.as_ref().is_some_and(|secret| {
            let known = self
                .ctx
                .secret_version(&self.namespace(), &self.webhook.signing_secret().name);
            known.as_ref() != Some(&secret.version)
        });
        !written && resolve::inputs(&self.ctx, &self.webhook) == inputs
    }

    /// The status says that everything wanted was done, and nothing has been asked for since.
    pub(super) fn is_carried_out(&self) -> bool {
        let webhook = &self.webhook;
        let Some(status) = &webhook.status else {
            return false;
        };
        let handled = |annotation: &str, handled: Option<&String>| {
            webhook
                .annotations()
                .get(annotation)
                .is_none_or(|asked| Some(&bounds::request(asked)) == handled)
        };
        let lost = self.secret_missing_for() == Some(Duration::ZERO);
        // The operator's own test takes no look at the upstream.
        let probed = self.tester() == Tester::Operator && status.deactivated_by.is_none();
        is_settled(status, webhook.metadata.generation.unwrap_or_default())
            && matches!(self.applied(), Applied::Same | Applied::OtherKey)
            && self.recorded.mark.is_none()
            && handled(RECONCILE_REQUESTED_AT, status.last_handled_reconcile_at.as_ref())
            && (probed || handled(TEST_REQUESTED_AT, status.last_handled_test_at.as_ref()))
            && !self.switch_is_due()
            && !lost
    }

    /// How the recorded hash relates to what is wanted.
    pub(super) fn applied(&self) -> Applied {
        let recorded = self
            .webhook
            .status
            .as_ref()
            .and_then(|status| status.applied_hash.as_deref());
        if recorded.is_none()
            && self.recorded.made_of.is_some()
            && self.recorded.made_of == Some(self.made_of())
        {
            // The process that made it died before it could say so in the status.
            return Applied::Same;
        }
        self.ctx.key.compare(recorded, &self.wanted)
    }

    /// What a registration that is made now is made of.
    pub(super) fn made_of(&self) -> String {
        let generation = self.webhook.metadata.generation.unwrap_or_default();
        made_of(&self.ctx.key, &self.uid(), generation, &self.wanted)
    }

    /// Everything on which the success of an attempt may depend.
    pub(super) fn hold_inputs(&self, inputs: &str) -> String {
        let asked = |name: &str| {
            self.webhook
                .annotations()
                .get(name)
                .map(String::as_str)
                .unwrap_or_default()
        };
        // The account is made anew when the provider or its credentials change.
        let account = Arc::as_ptr(&self.account) as usize;
        format!(
            "{inputs} {account} {} {} {}",
            asked(RECONCILE_REQUESTED_AT),
            asked(TEST_REQUESTED_AT),
            self.ctx.breakers.confirmation(&self.provider).unwrap_or_default()
        )
    }

    /// The spec's interval; longer where an upstream cannot be read and is written again instead.
    pub(super) fn interval(&self) -> Duration {
        let interval = self.webhook.spec.interval.get();
        let unread = self.upstream.capabilities().read == ReadRule::UndocumentedOne
            && (!self.account.undocumented
                || self
                    .account
                    .findings
                    .get(Finding::ConpeekRead, self.ctx.clock.now())
                    == Some(Learned::Unsupported));
        if unread {
            interval.max(REWRITE_INTERVAL)
        } else {
            interval
        }
    }

    /// The Secret with the secret that the upstream made is not there: for how long that may still be the watch,
    /// which has not delivered our own write yet. `None`: it is there, or there is no such Secret.
    fn secret_missing_for(&self) -> Option<Duration> {
        let published = self.upstream.capabilities().secret == SecretRule::MadeByUpstream
            && self
                .ctx
                .secret_version(&self.namespace(), &self.webhook.signing_secret().name)
                .is_none();
        let since = self.memory.with(|memory| memory.published);
        published.then(|| since.map_or(Duration::ZERO, |since| WATCH_LAG.saturating_sub(since.elapsed())))
    }

    /// Time until something is due that no change announces.
    pub(super) fn next(&self) -> Next {
        let read_back = until_read_back(&self.webhook, self.interval(), self.ctx.clock.now());
        let test = self.memory.with(|memory| memory.test.next);
        let test = test.map(|next| next.saturating_duration_since(Instant::now()));
        let doubt = self.memory.with(|memory| memory.in_doubt);
        let doubt = doubt.map(|until| until.saturating_duration_since(Instant::now()));
        let secret = self
            .secret_missing_for()
            .map(|left| if left.is_zero() { WATCH_LAG } else { left });
        let rotation = self.memory.with(|memory| memory.rotation.next);
        let rotation = rotation.map(|next| elapsed(self.ctx.clock.now(), next));
        [test, doubt, secret, rotation]
            .into_iter()
            .flatten()
            .chain([read_back])
            .min()
    }

    /// Publishes why there is no attempt, and when there will be one: at the next read-back, or when something
    /// changes.
    pub(super) async fn refuse(&self, assessment: Assessment) -> Result<Duration, PassError> {
        self.refuse_with(assessment, |_| {}).await
    }

    /// The same, with a change of what is no condition.
    pub(super) async fn refuse_with(
        &self,
        assessment: Assessment,
        change: impl FnOnce(&mut WebhookStatus),
    ) -> Result<Duration, PassError> {
        let written = write_status(&self.ctx, &self.memory, &self.webhook, assessment, change).await?;
        publish::sample(&self.ctx, &written, self.account.provider_type.as_str());
        let wait = until_read_back(
            &self.webhook,
            self.webhook.spec.interval.get(),
            self.ctx.clock.now(),
        );
        self.hold(Some(wait));
        Ok(wait)
    }

    /// No further attempt for this time (`None`: at all), unless something changes.
    pub(super) fn hold(&self, wait: Option<Duration>) {
        let inputs = self.hold_inputs(&resolve::inputs(&self.ctx, &self.webhook));
        self.memory
            .with(|memory| memory.hold = Some((wait.map(|wait| Instant::now() + wait), inputs)));
    }
}

/// Time until the next read-back.
pub(super) fn until_read_back(webhook: &Webhook, interval: Duration, now: Timestamp) -> Duration {
    let uid = webhook.uid().unwrap_or_default();
    elapsed(now, schedule::next(&uid, interval, now))
}
