//! Talks to the upstream: reads, plans, carries out at most one change, and records what came of it before anything
//! else happens.

mod steps;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use tokio::time::Instant;

use super::{
    conclude::Finding as Found,
    context::{Context, ProviderObject, SecretContent},
    memory::MemoryCell,
    publish::{self, Journal, PublishError, write_journal, write_status},
    reconcile::{Next, PassError},
    released,
    resolve::ResolveError,
    rivals::{self, SameAccount},
};
use crate::{
    api::{Webhook, conditions::SyncedReason},
    clock::elapsed,
    domain::{
        backoff,
        capabilities::Identity,
        desired::Desired,
        plan::{self, ById, Sight, Situation, Step},
        recorded::Recorded,
        remote::{RemoteId, Seen},
        retry::Retry,
        schedule,
        status::{Assessment, is_settled},
    },
    provider::{Account, ErrorClass, Finding, Learned, Provider, ProviderError, Standing, Upstream},
};

/// What a mark outlives a call's timeout by: the upstream may still be working on it.
pub(super) const MARK_GRACE: Duration = Duration::from_secs(30);

/// A read-back may use a list that another object asked for this long ago.
const LIST_SHARING: Duration = Duration::from_secs(10);

/// How long a cache that shows the past is given to catch up; what it delivers wakes the object before.
const BEHIND: Duration = Duration::from_secs(10);

/// One pass that needs the upstream.
pub(super) struct Pass {
    pub(super) ctx: Arc<Context>,
    pub(super) memory: MemoryCell,
    pub(super) webhook: Arc<Webhook>,
    pub(super) provider: ProviderObject,
    pub(super) account: Arc<Account>,
    pub(super) upstream: Upstream,
    pub(super) recorded: Recorded,
    /// Hash of what is wanted.
    pub(super) wanted: String,
    /// What is wanted, once it is resolved.
    pub(super) want: Option<Arc<Desired>>,
    /// The Secret with a signing secret that the operator makes, as it was read for `want`.
    pub(super) made: Option<SecretContent>,
    /// The upstream was changed in this pass.
    pub(super) mutated: bool,
    /// A write of unknown outcome can take effect no more since before this pass: what is read now stays.
    pub(super) in_doubt: bool,
}

/// Carries out what is due.
///
/// # Errors
///
/// Those of the API server; the upstream's are published.
pub(super) async fn act(mut pass: Box<Pass>) -> Result<Next, PassError> {
    let want = match pass.want().await {
        Ok(want) => want,
        Err(ResolveError::Kube(error)) => return Err(error.into()),
        Err(ResolveError::Random(error)) => return Err(error.into()),
        // It was there a moment ago: the next pass says what is missing.
        Err(ResolveError::Signing(..) | ResolveError::Other(..)) => return Ok(Some(Duration::ZERO)),
    };
    let want = pass.goal(want);
    let same = rivals::same_account(&pass.ctx, &pass.account).await;
    let settled = pass.is_settled();
    let ctx = Arc::clone(&pass.ctx);
    let claim = (!settled).then(|| rivals::claim(&ctx, &pass.webhook, &same, pass.upstream.capabilities()));
    // Until the end of the pass.
    let _claim = match claim.transpose() {
        Ok(claim) => claim,
        Err(message) => return Ok(Some(pass.refuse(Assessment::conflict(message)).await?)),
    };
    let account = Arc::clone(&pass.account);
    // A settled object may look at what others have just seen; a change must see what is there now.
    let sharing = if settled && !pass.in_doubt {
        LIST_SHARING
    } else {
        Duration::ZERO
    };
    let fresh_after = Instant::now().checked_sub(sharing).unwrap_or_else(Instant::now);
    let fresh_after = pass
        .memory
        .with(|memory| memory.wrote.map_or(fresh_after, |wrote| wrote.max(fresh_after)));
    let failures = pass.memory.with(|memory| memory.failures);
    let call = ctx.call(&account, fresh_after, failures);
    let mut sight = Sight::default();
    // Look by id, look at all, adopt, look again: never more than this.
    for _ in 0..8 {
        let step = pass.plan(&want, &sight, &same);
        match step {
            Step::Look(look) => match pass.upstream.look(&call, &look).await {
                Ok(seen) => note(&mut sight, seen),
                Err(error) => return pass.failed(&error, settled).await,
            },
            Step::LookAgain(after) => {
                pass.memory
                    .with(|memory| memory.absent_since.get_or_insert_with(Instant::now).elapsed());
                return Ok(Some(after));
            }
            Step::WaitForMark(left) => return pass.wait_for_mark(left).await,
            Step::Conflict(kind) => {
                return Ok(Some(pass.refuse(Assessment::conflict(kind.message())).await?));
            }
            Step::Adopt {
                remote,
                origin,
                replaces,
                rest,
            } => {
                pass.adopt(*remote, origin, replaces, &rest, &mut sight).await?;
            }
            Step::Create { replaces } => return pass.create(&call, &want, replaces).await,
            Step::Update {
                id,
                there,
                fields,
                why,
            } => {
                // Nothing but a look asks for it, and it looked for what the cache shows. After a restart that may be
                // the last spec but one, and what is there may be what the last one made of it.
                if settled && !publish::is_current(&pass.ctx, &pass.webhook).await? {
                    return Ok(Some(BEHIND));
                }
                return pass
                    .update(&call, &want, &id, there.as_deref(), &fields, why)
                    .await;
            }
            Step::Retire(old) => return pass.retire(&call, &want, &old).await,
            Step::Done {
                remote,
                drift,
                deactivated_by,
            } => {
                let found = Found {
                    remote: remote.map(|remote| *remote),
                    how: SyncedReason::InSync,
                    corrected: Vec::new(),
                    drift,
                    deactivated_by,
                    lapse: None,
                };
                return pass.conclude(&call, &want, found).await;
            }
        }
    }
    tracing::warn!(
        name = pass.webhook.name_any(),
        "the plan did not come to an end; it is made again later"
    );
    Ok(Some(backoff::MAX))
}

fn note(sight: &mut Sight, seen: Seen) {
    match seen {
        Seen::One(Some(remote)) => sight.by_id = Some(ById::Present(remote)),
        Seen::One(None) => sight.by_id = Some(ById::Absent),
        Seen::CannotKnow => sight.by_id = Some(ById::CannotKnow),
        Seen::All(all) => sight.all = Some(all),
    }
}

impl Pass {
    pub(super) fn uid(&self) -> String {
        self.webhook.uid().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> String {
        self.webhook.namespace().unwrap_or_default()
    }

    /// Whether the status says that this generation was carried out.
    fn is_settled(&self) -> bool {
        let generation = self.webhook.metadata.generation.unwrap_or_default();
        self.webhook
            .status
            .as_ref()
            .is_some_and(|status| is_settled(status, generation))
            && self.recorded.mark.is_none()
    }

    fn plan(&self, want: &Desired, sight: &Sight, same: &SameAccount) -> Step {
        let spec = &self.webhook.spec;
        let now = self.ctx.clock.now();
        let held = |id: &RemoteId| rivals::is_held_by_others(&self.ctx, &self.webhook, same, id);
        let learned = |finding| self.account.findings.get(finding, now);
        let (deactivated_by, tripped) =
            self.with_tally(|tally| (tally.recorded_switch(), tally.is_tripped()));
        let status = self.webhook.status.as_ref();
        let last_sync = status
            .and_then(|status| status.last_sync_time.as_ref())
            .map(|time| elapsed(time.0, now));
        let (wrote, absent_since, cannot_reactivate, removed) = self.memory.with(|memory| {
            (
                memory.wrote,
                memory.absent_since,
                memory.cannot_reactivate,
                memory.removed,
            )
        });
        let wrote = wrote
            .map(|wrote| wrote.elapsed())
            .into_iter()
            .chain(last_sync)
            .min();
        let update_missing = learned(Finding::ThuliumUpdate) == Some(Learned::Unsupported)
            && learned(Finding::ThuliumDelete) == Some(Learned::Supported);
        // A death in the middle of an update is only suspected after a start: that is worth a write where one is sure
        // to be possible, and elsewhere a look.
        let by_target = self.upstream.capabilities().identity == Identity::ByTarget;
        let doubts_itself = self.memory.with(|memory| memory.doubts_itself);
        plan::plan(
            &Situation {
                capabilities: self.upstream.capabilities(),
                want,
                recorded: &self.recorded,
                applied: self.applied(),
                took_another: self.took_another(),
                key: &self.ctx.key,
                adoption: spec.adoption_policy,
                drift: spec.drift_policy,
                on_deactivation: spec.on_upstream_deactivation,
                deactivated_by,
                tripped,
                held_by_others: &held,
                released_urls: &self.released(want, sight),
                now,
                mark_grace: self.account.timeout + MARK_GRACE,
                wrote,
                absent_since: absent_since.map(|since| since.elapsed()),
                replace_instead_of_update: update_missing || cannot_reactivate,
                given_up: removed,
                in_doubt: self.in_doubt && (by_target || doubts_itself),
                looks_first: self.ctx.settings.looks_first,
            },
            sight,
        )
    }

    /// Whether the status still tells of another registration than the one that is recorded.
    fn took_another(&self) -> bool {
        let told = self
            .webhook
            .status
            .as_ref()
            .and_then(|status| status.id.as_deref());
        let recorded = self.recorded.trusted_id();
        told.zip(recorded)
            .is_some_and(|(told, recorded)| told != recorded.0)
    }

    /// The URL that is there now, if a Webhook of this cluster has left it there.
    fn released(&self, want: &Desired, sight: &Sight) -> BTreeSet<String> {
        match (&sight.by_id, &want.target) {
            (Some(ById::Present(remote)), Some(target))
                if self.upstream.capabilities().identity == Identity::ByTarget
                    && released::was_left(&self.ctx, &self.provider, target, &remote.url) =>
            {
                BTreeSet::from([remote.url.clone()])
            }
            _ => BTreeSet::new(),
        }
    }

    /// Writes the journal and takes the object as it is then.
    pub(super) async fn journal(&mut self, journal: Journal) -> Result<(), PublishError> {
        self.webhook = write_journal(&self.ctx, &self.memory, &self.webhook, &journal).await?;
        self.recorded = Recorded::read(&self.webhook, &self.ctx.key);
        if matches!(journal, Journal::Recorded { .. }) {
            // What was given up is replaced now: the new one is not to be made anew again.
            self.memory.with(|memory| memory.removed = false);
        }
        Ok(())
    }

    async fn wait_for_mark(&self, left: Duration) -> Result<Next, PassError> {
        let assessment = Assessment::create_outcome_unknown();
        write_status(&self.ctx, &self.memory, &self.webhook, assessment, |_| {}).await?;
        let polls = self.memory.with(|memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        });
        Ok(Some(left.min(
            backoff::delay(polls, schedule::seed(&self.uid())).max(Duration::from_secs(1)),
        )))
    }

    /// A call failed: says so, and when the next attempt is.
    pub(super) async fn failed(&self, error: &ProviderError, settled: bool) -> Result<Next, PassError> {
        let failures = self.memory.with(|memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        });
        let growing = backoff::delay(failures, schedule::seed(&self.uid()));
        let wait = match Retry::after(error) {
            Retry::OnChange => None,
            Retry::Growing => Some(growing),
            Retry::NotBefore(asked) => Some(asked.max(growing)),
            Retry::Slow => Some(backoff::upper_half(backoff::SLOW, schedule::seed(&self.uid()))),
            Retry::Credentials => match self.account.standing() {
                Standing::Refused { next_try, .. } => {
                    Some(next_try.saturating_duration_since(Instant::now()))
                }
                _ => Some(growing),
            },
        };
        self.hold(wait);
        // What was carried out stays so while the upstream is only away: not every hiccup is news.
        let passing = matches!(
            error.class,
            ErrorClass::Timeout | ErrorClass::Unreachable | ErrorClass::Unexpected | ErrorClass::RateLimited
        ) && failures < 3;
        let silent = (settled && (passing || error.class == ErrorClass::Unauthorized))
            || error.class == ErrorClass::Held;
        if !silent {
            let mut assessment = Assessment::failed(error);
            if error.class == ErrorClass::Unauthorized {
                let key = self.provider.key();
                assessment.ready.1 = format!("{} {:?}: {}", key.kind_name(), key.name, error.message);
            }
            if settled && error.class != ErrorClass::Forbidden {
                // What is registered still is, as far as anybody knows.
                if let Some(ready) = self.present_ready() {
                    assessment.ready = ready;
                }
            }
            let written = write_status(&self.ctx, &self.memory, &self.webhook, assessment, |_| {}).await?;
            publish::sample(&self.ctx, &written, self.account.provider_type.as_str());
        }
        Ok(wait)
    }
}
