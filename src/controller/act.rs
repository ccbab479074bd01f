//! Talks to the upstream: reads, plans, carries out at most one change, and records what came of it before anything
//! else happens.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use super::{
    breaker::{self, Verdict},
    conclude::Finding as Found,
    context::{Context, ProviderObject, SecretContent},
    memory::MemoryCell,
    publish::{self, Journal, PublishError, event, write_journal, write_status},
    reconcile::{Next, PassError},
    released,
    resolve::ResolveError,
    rivals::{self, SameAccount},
    signing::{self, Holder},
};
use crate::{
    api::{
        Webhook, WebhookStatus,
        conditions::{SecretReason, SyncedReason},
    },
    clock::elapsed,
    domain::{
        backoff,
        capabilities::{Identity, SecretRule},
        desired::Desired,
        hash::Applied,
        plan::{self, ById, Sight, Situation, Step, Why},
        recorded::{Mark, Origin, Recorded},
        remote::{Remote, RemoteId, Seen},
        retry::Retry,
        schedule,
        status::{Assessment, is_settled},
    },
    provider::{
        Account, Call, Effect, ErrorClass, Finding, Learned, Operation, Provider, ProviderError, Removal,
        Standing, Upstream,
    },
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
    if !settled
        && let Some(message) = rivals::conflict(&pass.ctx, &pass.webhook, &same, pass.upstream.capabilities())
    {
        return Ok(Some(pass.refuse(Assessment::conflict(message)).await?));
    }
    let ctx = Arc::clone(&pass.ctx);
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

    async fn adopt(
        &mut self,
        remote: Remote,
        origin: Origin,
        replaces: Option<RemoteId>,
        rest: &[RemoteId],
        sight: &mut Sight,
    ) -> Result<(), PassError> {
        super::providers::protect(&self.ctx, &self.provider).await?;
        let id = remote.id.clone();
        // The marked create made it; an older one that is only recorded again it did not make.
        // What is off is another one's that was switched off, or not as it was made: it is written.
        let by_mark = origin == Origin::Created && remote.is_on() && self.recorded.trusted_id() != Some(&id);
        let mark = self.recorded.mark.as_ref().filter(|_| by_mark);
        let made_of = mark.and_then(|mark| mark.made_of.clone());
        self.journal(Journal::Recorded {
            id: id.clone(),
            origin,
            retire: replaces,
            made_of,
        })
        .await?;
        if !rest.is_empty() {
            let ids: Vec<&str> = rest.iter().map(|id| id.0.as_str()).collect();
            let note = format!(
                "took over registration {id}; the upstream has others with the same content, which deliver everything once more: {}; remove them there",
                ids.join(", ")
            );
            event(
                &self.ctx,
                &self.webhook,
                EventType::Warning,
                "Duplicates",
                &note,
                "Adopt",
            )
            .await;
        } else if origin == Origin::Adopted {
            let note = format!("took over registration {id}, which was there already");
            event(
                &self.ctx,
                &self.webhook,
                EventType::Normal,
                "Adopted",
                &note,
                "Adopt",
            )
            .await;
        }
        sight.by_id = Some(ById::Present(Box::new(remote)));
        Ok(())
    }

    async fn create(
        mut self: Box<Self>,
        call: &Call<'_>,
        want: &Desired,
        replaces: Option<RemoteId>,
    ) -> Result<Next, PassError> {
        if let Some(next) = self.secret_not_ours().await? {
            return Ok(next);
        }
        // What is replaced is removed afterwards. Where that would be held back nothing is begun, or everything would
        // be delivered twice; what this operator has removed already is not asked for again.
        if replaces.is_some()
            && !self.memory.with(|memory| memory.removed)
            && let Err(next) = self.removing(call).await?
        {
            return Ok(next);
        }
        super::providers::protect(&self.ctx, &self.provider).await?;
        let by_target = self.upstream.capabilities().identity == Identity::ByTarget;
        let claimed_before = self.recorded.trusted_id().is_some();
        if by_target {
            let id = RemoteId(want.target.clone().unwrap_or_default());
            if !self.recorded.annotated || !self.recorded.may_have_written {
                self.journal(Journal::Recorded {
                    id,
                    origin: Origin::Created,
                    retire: None,
                    made_of: None,
                })
                .await?;
            }
        } else {
            let hash = self.ctx.key.content(&want.url, &want.events);
            let mark = Mark {
                hash,
                time: self.ctx.clock.now(),
                replaces: replaces.clone(),
                retire: None,
                made_of: Some(self.made_of()),
            };
            self.journal(Journal::Pending(mark)).await?;
        }
        self.mutated = true;
        let created = self.upstream.create(call, want).await;
        self.memory.with(|memory| memory.wrote = Some(Instant::now()));
        match created {
            Ok(remote) => {
                if let Some(secret) = &remote.secret
                    && let Err(error) = signing::publish(&self.ctx, &self.webhook, &remote.id, secret).await
                {
                    // It can be read again, and the next pass does.
                    tracing::warn!(name = self.webhook.name_any(), %error, "the signing secret could not be published yet");
                }
                if !by_target {
                    self.record_created(&remote, replaces.clone()).await?;
                }
                let mut found = Found::written(remote, self.off(want), SyncedReason::Applied);
                found.lapse = self.was_lost(replaces.is_some());
                self.conclude(call, want, found).await
            }
            Err(error) if error.effect == Effect::None => {
                // Nothing was written, so nothing has to be removed if the object goes.
                if by_target && !claimed_before {
                    self.journal(Journal::Unclaimed).await?;
                } else if !by_target {
                    self.journal(Journal::Withdrawn).await?;
                }
                self.failed(&error, false).await
            }
            Err(error) if by_target => {
                self.doubt(&error);
                self.failed(&error, false).await
            }
            Err(error) => {
                tracing::debug!(name = self.webhook.name_any(), %error, "a create was sent and its outcome is not known");
                self.still_marked().await?;
                self.wait_for_mark(Duration::from_secs(1)).await
            }
        }
    }

    /// A secret that the upstream makes has nowhere to go: then nothing is created.
    async fn secret_not_ours(&self) -> Result<Option<Next>, PassError> {
        if self.upstream.capabilities().secret != SecretRule::MadeByUpstream {
            return Ok(None);
        }
        match signing::inspect(&self.ctx, &self.webhook).await? {
            Holder::Absent | Holder::Ours { .. } => Ok(None),
            Holder::Foreign(message) => {
                let assessment = Assessment::secret(SecretReason::NotOwned, true, message);
                Ok(Some(Some(self.refuse(assessment).await?)))
            }
        }
    }

    /// The call with which one registration may be removed now, as far as the provider's limit is concerned; else
    /// when to ask again.
    pub(super) async fn removing<'a>(&self, call: &Call<'a>) -> Result<Result<Call<'a>, Next>, PassError> {
        match breaker::ask(&self.ctx, &self.provider, &self.webhook, &self.memory, 1).await? {
            Verdict::Go(not_after) => Ok(Ok(Call { not_after, ..*call })),
            Verdict::Held(held) => {
                let change = |status: &mut WebhookStatus| status.deletion_held = Some(held.status);
                let wait = self
                    .refuse_with(Assessment::deletion_held(held.message), change)
                    .await?;
                Ok(Err(Some(wait)))
            }
        }
    }

    /// Whether an update switches off what delivers. What this object has just made, to be switched off, never did
    /// for anybody.
    fn switches_off(&self, there: Option<&Remote>, want: &Desired) -> bool {
        let unfinished = self.recorded.is_own_making() && self.applied() == Applied::Never;
        self.upstream.capabilities().switch && !want.active && there.is_none_or(Remote::is_on) && !unfinished
    }

    async fn update(
        mut self: Box<Self>,
        call: &Call<'_>,
        want: &Desired,
        id: &RemoteId,
        there: Option<&Remote>,
        fields: &[&'static str],
        why: Why,
    ) -> Result<Next, PassError> {
        let mut call = *call;
        let off = self.switches_off(there, want);
        if off {
            call = match self.removing(&call).await? {
                Ok(call) => call,
                Err(next) => return Ok(next),
            };
        }
        if !self.recorded.may_have_written {
            // The finalizer was taken off by hand.
            self.journal(Journal::Recorded {
                id: id.clone(),
                origin: Origin::Adopted,
                retire: None,
                made_of: None,
            })
            .await?;
        }
        if why == Why::TestFailure {
            self.begin_switch_off().await?;
        }
        self.mutated = true;
        let updated = self.upstream.update(&call, id, there, want).await;
        self.memory.with(|memory| memory.wrote = Some(Instant::now()));
        if off && updated.is_ok() {
            breaker::spent(&self.memory);
        }
        if let Err(error) = &updated {
            self.doubt(error);
        }
        let remote = match updated {
            Ok(remote) => remote,
            // It was there a moment ago: look again rather than wait.
            Err(error) if error.class == ErrorClass::TargetNotFound && there.is_some() => {
                let gone = error.reclass(
                    ErrorClass::Unreachable,
                    "the registration has just gone; it is looked for again",
                );
                return self.failed(&gone, false).await;
            }
            Err(error) => return self.failed(&error, false).await,
        };
        match (want.active, remote.is_on()) {
            (true, false) => {
                self.memory.with(|memory| memory.cannot_reactivate = true);
                return Ok(Some(Duration::ZERO));
            }
            (false, true) => {
                let error = ProviderError::unexpected(Operation::Switch, "the registration stays on");
                return self.failed(&error, false).await;
            }
            _ => {}
        }
        let found = self.written(remote, want, fields, why).await;
        let call = Call {
            not_after: None,
            ..call
        };
        self.conclude(&call, want, found).await
    }

    /// Second half of a replacement.
    async fn retire(
        mut self: Box<Self>,
        call: &Call<'_>,
        want: &Desired,
        old: &RemoteId,
    ) -> Result<Next, PassError> {
        let mut call = *call;
        if !self.memory.with(|memory| memory.removed) {
            call = match self.removing(&call).await? {
                Ok(call) => call,
                Err(next) => return Ok(next),
            };
        }
        match self.upstream.remove(&call, old, Some(want)).await {
            Ok(Removal::LeftInPlace) => {
                let note = format!(
                    "registration {old} was replaced and cannot be removed; remove it at the upstream by hand, or it delivers everything twice"
                );
                event(
                    &self.ctx,
                    &self.webhook,
                    EventType::Warning,
                    "LeftInPlace",
                    &note,
                    "Replace",
                )
                .await;
                self.ctx
                    .metrics
                    .left_in_place(self.account.provider_type.as_str());
            }
            Ok(Removal::Removed | Removal::AlreadyGone | Removal::SwitchedOff) => {}
            Err(error) => return self.failed(&error, false).await,
        }
        breaker::spent(&self.memory);
        self.memory.with(|memory| memory.cannot_reactivate = false);
        self.journal(Journal::Retired).await?;
        Ok(Some(Duration::ZERO))
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
