//! What follows once it is known what is registered: the secret that the upstream made, what uses the
//! registration, and the status. Its test is in `upstream_test.rs`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{events::EventType, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{
    act::Pass,
    breaker,
    publish::{self, Journal, event, write_journal, write_status},
    reconcile::{Next, PassError},
    rotation,
    signing::{self, Holder},
    upstream_test::TestOutcome,
};
use crate::{
    api::{
        RECONCILE_REQUESTED_AT, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason, SecretReason, SyncedReason},
        webhook::{SecretSource, TestMode},
        webhook_status::{DeactivatedBy, State},
    },
    domain::{
        bounds,
        capabilities::{Identity, SecretRule, TargetRule},
        desired::Desired,
        gaps::{self, Deliveries},
        recorded::{Origin, Recorded},
        remote::{Remote, RemoteId, differences},
        status::{Aspect, Assessment, Registered, Said, note_drift, note_registration, state_of},
        testing::{Tally, record},
    },
    provider::{Call, Provider, Usage},
};

/// How long the cache is given to show whether an object goes.
const LEAVING_RECHECK: Duration = Duration::from_secs(5);

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
    /// What had kept deliveries away and is put right now.
    pub lapse: Option<gaps::Cause>,
}

impl Finding {
    /// After a write. `off`: who switched it off, if it shall be off.
    pub(super) fn written(remote: Remote, off: Option<DeactivatedBy>, how: SyncedReason) -> Self {
        Self {
            remote: Some(remote),
            how,
            corrected: Vec::new(),
            drift: Vec::new(),
            deactivated_by: off,
            lapse: None,
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

impl Pass {
    /// Ends the pass: does what is left to do for a known registration and publishes.
    pub(super) async fn conclude(
        mut self: Box<Self>,
        call: &Call<'_>,
        want: &Desired,
        mut found: Finding,
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
        let test = self.test(call, &mut found).await;
        // Where the target is the id nobody leaves a mark: somebody else did.
        if !self.recorded.annotated || self.recorded.mark.is_some() {
            let id = self.registration_id(want, found.remote.as_ref());
            let journal = Journal::Recorded {
                id,
                origin: self.origin(),
                retire: None,
                made_of: None,
            };
            self.webhook = write_journal(&self.ctx, &self.memory, &self.webhook, &journal).await?;
            self.recorded = Recorded::read(&self.webhook, &self.ctx.key);
        }
        self.memory.with(|memory| {
            memory.failures = 0;
            memory.hold = None;
            memory.absent_since = None;
            memory.removed = false;
            if self.in_doubt {
                memory.in_doubt = None;
            }
            memory.read_back = self.ctx.clock.now();
            memory.unfinished = !used;
            memory.rotation.looked = Some(self.ctx.clock.now());
        });
        self.publish(want, &found, secret, test).await?;
        // The verdict may have been the one too many.
        let more = !used || self.switch_is_due();
        if !more {
            self.probe().await?;
        }
        Ok(if more { Some(Duration::ZERO) } else { self.next() })
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
                Some(SecretSource::Generate) => known(SecretReason::Published, self.describe_rotation()),
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
        if self.is_leaving().await? {
            return Ok(Some(LEAVING_RECHECK));
        }
        let call = match self.removing(call).await? {
            Ok(call) => call,
            Err(next) => return Ok(next),
        };
        self.mutated = true;
        match self.upstream.remove(&call, &remote.id, Some(want)).await {
            Ok(_) => {
                breaker::spent(&self.memory);
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

    /// Whether the object may be on its way out, of which the cache need not know yet. When a namespace is deleted, the
    /// Secrets in it go at once: a secret that is missing then is not lost, and what is registered is for the policy to
    /// keep or to remove.
    async fn is_leaving(&self) -> Result<bool, PassError> {
        let name = self.webhook.namespace().unwrap_or_default();
        let namespace = self.ctx.caches.namespaces.get(&ObjectRef::new(&name));
        let ends = namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
        Ok(ends || !publish::is_current(&self.ctx, &self.webhook).await?)
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
            Err(error) => {
                self.doubt(&error);
                self.usage_failed(&error.message).await
            }
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

    /// A request annotation, as it is noted once it is handled.
    pub(super) fn request(&self, annotation: &str) -> Option<String> {
        self.webhook
            .annotations()
            .get(annotation)
            .map(|value| bounds::request(value))
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
        let tested = test.said.0;
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
        let hash = (old.applied_hash.as_deref() != Some(self.wanted.as_str())).then(|| self.wanted.clone());
        let wrote = self.mutated && found.how != SyncedReason::InSync || !found.corrected.is_empty();
        let found_new_drift =
            !found.drift.is_empty() && old.drift.as_ref().is_none_or(|drift| drift.fields != found.drift);
        let reconcile_request = self.request(RECONCILE_REQUESTED_AT);
        let deliveries = gaps::of_registration(found.deactivated_by, &found.drift, tested);
        let good = self.last_known_good(&old);
        let limit = self.webhook.spec.test.history_limit;
        let state = state_of(
            found.remote.as_ref().and_then(|remote| remote.state),
            found.deactivated_by,
        );
        let state = self.state_by_probe(state, tested);
        let rotation = self.rotation_confirmed();
        let tally = Tally {
            spec: &self.webhook.spec,
            status: &old,
            generation,
            requested: self.test_is_requested(),
        };
        let change = |status: &mut WebhookStatus| {
            tally.forgive(status);
            note_registration(status, &id, &url, hash, wrote || found_new_drift, now);
            status.state = Some(state);
            status.deactivated_by = found.deactivated_by;
            status.deletion_held = None;
            status.last_handled_reconcile_at = reconcile_request;
            if test.handled.is_some() {
                status.last_handled_test_at = test.handled;
            }
            rotation::note(status, rotation);
            if !found.corrected.is_empty() {
                note_drift(status, &found.corrected, true, now);
            } else if !found.drift.is_empty() {
                note_drift(status, &found.drift, false, now);
            }
            gaps::note(status, found.lapse, deliveries, good, now);
            if let Some(verdict) = &test.verdict {
                record(status, verdict, limit);
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
        if deliveries == Deliveries::Arrive && found.deactivated_by.is_none() {
            self.memory.with(|memory| memory.good = Some(now));
        }
        publish::sample(&ctx, &written, self.account.provider_type.as_str());
        self.webhook = written;
        self.announce_rotation(&old).await;
        Ok(())
    }

    /// When the registration was last known to be as it should be, and its receiver too where the upstream tests it.
    fn last_known_good(&self, status: &WebhookStatus) -> Option<Timestamp> {
        let seen = self.memory.with(|memory| memory.good);
        let test = status.test.as_ref();
        let judged = test
            .is_some_and(|test| test.mode == Some(TestMode::Upstream))
            .then(|| gaps::last_passed(status))
            .flatten();
        let ready = conditions::find(&status.conditions, ConditionType::Ready);
        let written = ready
            .filter(|ready| ready.status == "True")
            .and(status.last_sync_time.as_ref())
            .map(|time| time.0);
        [seen, judged, written].into_iter().flatten().max()
    }
}

/// What became of the signing secret.
enum SecretOutcome {
    Known(Aspect<SecretReason>),
    /// The pass ends here.
    Ends(Next),
}
