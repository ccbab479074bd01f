//! The steps of a plan that change something: what is there is taken over, made, changed or removed, and what came of it
//! is recorded before anything else happens.

use std::time::Duration;

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use super::Pass;
use crate::{
    api::{
        WebhookStatus,
        conditions::{SecretReason, SyncedReason},
    },
    controller::{
        breaker::{self, Verdict},
        conclude::Finding as Found,
        providers,
        publish::{Journal, event},
        reconcile::{Next, PassError},
        signing::{self, Holder},
    },
    domain::{
        capabilities::{Identity, SecretRule},
        desired::Desired,
        hash::Applied,
        plan::{ById, Sight, Why},
        recorded::{Mark, Origin},
        remote::{Remote, RemoteId},
        status::Assessment,
    },
    provider::{Call, Effect, ErrorClass, Operation, Provider, ProviderError, Removal},
};

impl Pass {
    pub(super) async fn adopt(
        &mut self,
        remote: Remote,
        origin: Origin,
        replaces: Option<RemoteId>,
        rest: &[RemoteId],
        sight: &mut Sight,
    ) -> Result<(), PassError> {
        providers::protect(&self.ctx, &self.provider).await?;
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

    pub(super) async fn create(
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
        providers::protect(&self.ctx, &self.provider).await?;
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
                // What is made delivers: where it shall not, there is more to do, and that is no drift.
                made_of: want.active.then(|| self.made_of()),
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
    pub(in crate::controller) async fn removing<'a>(
        &self,
        call: &Call<'a>,
    ) -> Result<Result<Call<'a>, Next>, PassError> {
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

    pub(super) async fn update(
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
    pub(super) async fn retire(
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
}
