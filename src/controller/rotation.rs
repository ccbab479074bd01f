//! Carries out the rotation of a signing secret that the operator makes: reads the Secret when something is due, writes
//! what the plan says, and tells the user. The plan is [`crate::domain::rotation`]'s; that the upstream gets what
//! stands under the key is the ordinary update's.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::Patch, runtime::events::EventType};
use serde_json::{Map, Value, json};

use super::{
    act::Pass,
    context::{Context, SecretContent},
    generated,
    publish::{event, params, replace_status},
    reconcile::PassError,
    resolve::ResolveError,
    signing::{self, Ownership},
};
use crate::{
    api::{
        ROTATE_REQUESTED_AT, ROTATION_ANNOTATION, Webhook, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason, SecretReason},
        webhook::{SecretRef, SecretSource},
        webhook_status::{DeactivatedBy, RotationPhase, RotationStatus},
    },
    domain::{
        capabilities::SecretRule,
        hash::{Applied, HashKey},
        rotation::{
            Candidate, Change, Journal, Keys, Policy, Put, Situation, Step, change, make, next_key,
            next_status, next_step, previous_key,
        },
        schedule,
    },
    net::SecretText,
    provider::Provider,
};

/// Others may write the Secret between a read and a write of ours; and one look may lead to more than one write.
const ATTEMPTS: usize = 6;

/// The API server refused a write: what could help may be something that is not watched.
const REFUSED: Duration = Duration::from_secs(300);

/// What a Secret holds of a signing secret, for the plan.
pub(super) struct Book {
    reference: SecretRef,
    keys: Keys,
    journal: Journal,
}

impl Book {
    /// That of a Secret which does not exist.
    pub(super) fn empty(reference: &SecretRef) -> Self {
        Self {
            reference: reference.clone(),
            keys: Keys::default(),
            journal: Journal::default(),
        }
    }

    /// Reads a Secret. The upstream takes secrets of `min` to `max` characters.
    pub(super) fn read(
        key: &HashKey,
        reference: &SecretRef,
        secret: &SecretContent,
        (min, max): (usize, usize),
    ) -> Self {
        let value = |key: &str| secret.data.get(key).filter(|value| !value.is_empty());
        let (next, previous) = (next_key(&reference.key), previous_key(&reference.key));
        let exists = |key: &str| secret.data.contains_key(key) || secret.binary.contains(key);
        let usable = value(&next).filter(|value| (min..=max).contains(&value.len_chars()));
        let annotations = secret.metadata.annotations.as_ref();
        let journal = annotations.and_then(|annotations| annotations.get(ROTATION_ANNOTATION));
        Self {
            keys: Keys {
                current: value(&reference.key).map(|value| print(key, value)),
                next: match usable {
                    Some(value) => Some(Candidate::Usable(print(key, value))),
                    None => exists(&next).then_some(Candidate::Unusable),
                },
                previous: exists(&previous),
            },
            journal: Journal::from_text(journal.map(String::as_str)),
            reference: reference.clone(),
        }
    }

    /// The write that makes a secret where there is none.
    pub(super) fn make(&self, webhook: &Webhook, now: Timestamp, fresh: &str) -> Change {
        let situation = Situation {
            key: &self.reference.key,
            keys: &self.keys,
            journal: &self.journal,
            policy: Policy::of(&webhook.spec),
            status: webhook
                .status
                .as_ref()
                .and_then(|status| status.rotation.as_ref()),
            handled: None,
            asked: None,
            applied: false,
            free: false,
            looked: None,
            probe: None,
            seed: 0,
            now,
        };
        make(&situation, fresh)
    }
}

/// By which a value is known without being kept.
pub(super) fn print(key: &HashKey, value: &SecretText) -> String {
    key.fingerprint("signing secret", value.expose())
}

/// Writes the Secret as it was read, changed.
///
/// # Errors
///
/// Those of the API server; 409 where somebody else wrote it meanwhile.
pub(super) async fn write(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
    change: &Change,
    fresh: Option<&SecretText>,
) -> Result<SecretContent, kube::Error> {
    let (next, previous) = (next_key(&reference.key), previous_key(&reference.key));
    let mut data = Map::new();
    for (key, put) in [
        (&reference.key, change.current),
        (&next, change.next),
        (&previous, change.previous),
    ] {
        let value = match put {
            Put::Keep => continue,
            Put::Remove => None,
            Put::Fresh => fresh,
            Put::Current => secret.data.get(&reference.key),
            Put::Next => secret.data.get(&next),
        };
        data.insert(key.clone(), value.map_or(Value::Null, generated::encode));
    }
    for key in change
        .forget
        .iter()
        .flat_map(|key| [next_key(key), previous_key(key)])
    {
        data.entry(key).or_insert(Value::Null);
    }
    let mut metadata = json!({
        "resourceVersion": secret.version,
        "annotations": { ROTATION_ANNOTATION: change.journal.to_text() },
    });
    if signing::ownership(&secret.metadata, webhook) == Ownership::Stale
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.insert(
            "ownerReferences".to_owned(),
            json!(signing::owners(&secret.metadata, webhook)),
        );
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &webhook.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": metadata, "data": data }));
    let written = api.patch(&reference.name, &params(), &patch).await?;
    Ok(SecretContent::from(written))
}

/// What a status says of rotation: `status.rotation` and the request that was handled last.
pub(super) type Told = (RotationStatus, Option<String>);

/// Puts it into a status. `None`: nothing is rotated.
pub(super) fn note(status: &mut WebhookStatus, told: Option<Told>) {
    match told {
        Some((rotation, handled)) => {
            status.rotation = Some(rotation);
            status.last_handled_rotate_at = handled;
        }
        None => status.rotation = None,
    }
}

impl Pass {
    /// The lengths that the upstream takes, if the operator makes the secret.
    fn makes_secret(&self) -> Option<(usize, usize)> {
        let rule = self.upstream.capabilities().secret;
        match (rule, rule.source(&self.webhook.spec)) {
            (SecretRule::Given { min, max }, Some(SecretSource::Generate)) => Some((min, max)),
            _ => None,
        }
    }

    /// Does what is due about the rotation of the signing secret, which may change what is wanted. `true`: the
    /// upstream has to be looked at before it goes on. `inputs`: what all references are read from.
    pub(super) async fn rotate(&mut self, inputs: &str) -> Result<bool, PassError> {
        let Some(bounds) = self.makes_secret() else {
            self.memory.with(|memory| memory.rotation.next = None);
            self.refuse_rotation().await?;
            return Ok(false);
        };
        let now = self.ctx.clock.now();
        let rotation = self.memory.with(|memory| memory.rotation.clone());
        let due = rotation.next.is_some_and(|next| next <= now);
        if rotation.of == self.rotation_inputs(inputs) && !due || self.ctx.fence.remaining().is_none() {
            return Ok(false);
        }
        let next = self.rotate_now(bounds, due).await?;
        let of = self.rotation_inputs(inputs);
        let look = next == Next::Look;
        self.memory.with(|memory| {
            memory.rotation.of = of;
            memory.rotation.next = match next {
                Next::At(next) => next,
                Next::Look => Some(now),
            };
        });
        Ok(look)
    }

    /// Everything but time that the next step depends on.
    fn rotation_inputs(&self, inputs: &str) -> String {
        let status = self.webhook.status.as_ref();
        let told = status.and_then(|status| status.rotation.as_ref());
        format!(
            "{inputs} {:?} {} {:?} {told:?}",
            self.applied(),
            self.may_rotate(),
            self.request(ROTATE_REQUESTED_AT)
        )
    }

    /// Whether nothing else is to be done, and nothing speaks against writing the registration: an update would
    /// switch on again what somebody switched off, and put right what is to be reported only.
    fn may_rotate(&self) -> bool {
        let Some(status) = &self.webhook.status else {
            return false;
        };
        let drifted = conditions::find(&status.conditions, ConditionType::Ready)
            .is_some_and(|ready| ready.reason == ReadyReason::Drifted.as_str());
        let off = matches!(
            status.deactivated_by,
            Some(DeactivatedBy::Upstream | DeactivatedBy::TestFailure)
        );
        let unfinished = self.memory.with(|memory| memory.unfinished);
        self.is_carried_out() && !unfinished && !drifted && !off
    }

    async fn rotate_now(&mut self, bounds: (usize, usize), reread: bool) -> Result<Next, PassError> {
        let reference = self.webhook.signing_secret();
        let mut read = self.made.clone().filter(|_| !reread);
        for _ in 0..ATTEMPTS {
            let secret = match read.take() {
                Some(secret) => secret,
                None => match self.ctx.read_secret(&self.namespace(), &reference.name).await? {
                    Some(secret) => secret,
                    // It has just gone: the watch says so.
                    None => return Ok(Next::At(None)),
                },
            };
            if signing::ownership(&secret.metadata, &self.webhook) == Ownership::Foreign {
                return Ok(Next::At(None));
            }
            let book = Book::read(&self.ctx.key, &reference, &secret, bounds);
            self.tell_rotation(&book).await?;
            let asked = self.request(ROTATE_REQUESTED_AT);
            let situation = self.situation(&book, asked.as_deref(), self.applied() == Applied::Same);
            let step = next_step(&situation);
            let fresh = match step {
                Step::Rest(next) => return Ok(Next::At(next)),
                Step::Look => return Ok(Next::Look),
                // That is done where the secret is read for the upstream.
                Step::Make => return Ok(Next::At(None)),
                Step::Publish => Some(generated::fresh(&self.ctx, bounds.0, bounds.1)?),
                Step::Note | Step::Withdraw | Step::Promote | Step::Expire => None,
            };
            let fingerprint = fresh.as_ref().map(|fresh| print(&self.ctx.key, fresh));
            let Some(change) = change(&situation, step, &fingerprint.unwrap_or_default()) else {
                return Ok(Next::At(None));
            };
            match write(
                &self.ctx,
                &self.webhook,
                &reference,
                &secret,
                &change,
                fresh.as_ref(),
            )
            .await
            {
                Ok(written) => {
                    self.tell_step(step, &reference).await;
                    self.read_again(written.clone()).await?;
                    read = Some(written);
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                    return Ok(Next::At(Some(self.tell_refusal(status.code, &reference).await)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Next::At(Some(self.ctx.clock.now() + Duration::from_secs(1))))
    }

    /// The Secret is another one: so is, perhaps, what is wanted.
    async fn read_again(&mut self, secret: SecretContent) -> Result<(), PassError> {
        self.made = Some(secret);
        self.want = None;
        self.memory.with(|memory| memory.wanted = None);
        match self.want().await {
            Ok(_) => Ok(()),
            Err(ResolveError::Kube(error)) => Err(error.into()),
            Err(ResolveError::Random(error)) => Err(error.into()),
            // It was there a moment ago: the next pass says what is missing.
            Err(ResolveError::Signing(..) | ResolveError::Other(..)) => Ok(()),
        }
    }

    fn situation<'a>(&'a self, book: &'a Book, asked: Option<&'a str>, applied: bool) -> Situation<'a> {
        let status = self.webhook.status.as_ref();
        Situation {
            key: &book.reference.key,
            keys: &book.keys,
            journal: &book.journal,
            policy: Policy::of(&self.webhook.spec),
            status: status.and_then(|status| status.rotation.as_ref()),
            handled: status.and_then(|status| status.last_handled_rotate_at.as_deref()),
            asked,
            applied,
            free: self.may_rotate(),
            looked: self.memory.with(|memory| memory.rotation.looked),
            probe: None,
            seed: schedule::seed(&self.uid()),
            now: self.ctx.clock.now(),
        }
    }

    /// What the status is to say once the upstream has what is wanted in this pass.
    pub(super) fn rotation_confirmed(&self) -> Option<Told> {
        let (bounds, secret) = (self.makes_secret()?, self.made.as_ref()?);
        let book = Book::read(&self.ctx.key, &self.webhook.signing_secret(), secret, bounds);
        Some(self.told(&book, true))
    }

    fn told(&self, book: &Book, applied: bool) -> Told {
        let asked = self.request(ROTATE_REQUESTED_AT);
        let situation = self.situation(book, asked.as_deref(), applied);
        (
            next_status(&situation),
            situation.next_handled().map(str::to_owned),
        )
    }

    /// Writes what the status says of rotation, once what is wanted is carried out.
    async fn tell_rotation(&mut self, book: &Book) -> Result<(), PassError> {
        if !self.is_carried_out() || self.applied() != Applied::Same {
            return Ok(());
        }
        let Some(old) = self.webhook.status.clone() else {
            return Ok(());
        };
        let told = self.told(book, true);
        let mut new = old.clone();
        let message = describe(&self.webhook, &told.0);
        note(&mut new, Some(told));
        if let Some(ready) = new.conditions.iter_mut().find(|condition| {
            condition.type_ == ConditionType::SecretReady.as_str()
                && condition.reason == SecretReason::Published.as_str()
        }) {
            ready.message = message;
        }
        self.webhook = replace_status(&self.ctx, &self.memory, &self.webhook, &new).await?;
        self.announce_rotation(&old).await;
        Ok(())
    }

    /// `SecretReady` of a secret that the operator makes.
    pub(super) fn describe_rotation(&self) -> String {
        let told = self.rotation_confirmed().map(|(rotation, _)| rotation);
        describe(&self.webhook, &told.unwrap_or_default())
    }

    /// One Event and one count for each secret that took the place of another one.
    pub(super) async fn announce_rotation(&self, old: &WebhookStatus) {
        let new = self
            .webhook
            .status
            .as_ref()
            .and_then(|status| status.rotation.as_ref());
        let old = old.rotation.as_ref();
        let Some(new) = new.filter(|new| new.previous_expires.is_some()) else {
            return;
        };
        if old.is_none_or(|old| old.last_time == new.last_time) {
            return;
        }
        let reference = self.webhook.signing_secret();
        let until = new
            .previous_expires
            .as_ref()
            .map(|time| time.0)
            .unwrap_or_default();
        let note = format!(
            "the upstream signs with the new secret; the one before stays in Secret {:?} under the key {:?} until {until:.0}",
            reference.name,
            previous_key(&reference.key)
        );
        self.ctx
            .metrics
            .secret_rotated(self.account.provider_type.as_str());
        self.rotation_event(EventType::Normal, "SecretRotated", &note)
            .await;
    }

    async fn tell_step(&self, step: Step, reference: &SecretRef) {
        let (name, key) = (&reference.name, &reference.key);
        let (next, previous) = (next_key(key), previous_key(key));
        let (type_, reason, note) = match step {
            Step::Publish => {
                let settle = Policy::of(&self.webhook.spec).settle.as_secs();
                let note = format!(
                    "a new signing secret is in Secret {name:?} under the key {next:?}; the upstream signs with it after {settle} seconds"
                );
                (EventType::Normal, "RotationStarted", note)
            }
            Step::Withdraw => {
                let note = format!(
                    "what somebody put into Secret {name:?} under the key {next:?} cannot be a new signing secret and was taken away"
                );
                (EventType::Warning, "RotationWithdrawn", note)
            }
            Step::Expire => {
                let note = format!(
                    "the signing secret of before is gone from Secret {name:?}, where it was under the key {previous:?}"
                );
                (EventType::Normal, "RotationCompleted", note)
            }
            Step::Rest(_) | Step::Make | Step::Note | Step::Look | Step::Promote => return,
        };
        self.rotation_event(type_, reason, &note).await;
    }

    /// Returns when it is tried again.
    async fn tell_refusal(&self, code: u16, reference: &SecretRef) -> Timestamp {
        let note = format!(
            "Secret {:?} could not be written, so its signing secret is not rotated: the API server refused it ({code}); see whether the Secret is immutable, and the operator's rights",
            reference.name
        );
        self.rotation_event(EventType::Warning, "RotationRefused", &note)
            .await;
        self.ctx.clock.now() + REFUSED
    }

    /// A rotation of a secret that the operator does not make was asked for: said once.
    async fn refuse_rotation(&mut self) -> Result<(), PassError> {
        let Some(mut status) = self.webhook.status.clone() else {
            return Ok(());
        };
        let asked = self.request(ROTATE_REQUESTED_AT);
        if asked.is_none() || asked == status.last_handled_rotate_at || !self.is_carried_out() {
            return Ok(());
        }
        status.last_handled_rotate_at = asked;
        self.webhook = replace_status(&self.ctx, &self.memory, &self.webhook, &status).await?;
        let note = match self.upstream.capabilities().secret {
            SecretRule::None => "a rotation was asked for, but this upstream does not sign",
            SecretRule::MadeByUpstream => {
                "a rotation was asked for, but the upstream makes the secret; make the Webhook anew to have another one"
            }
            SecretRule::Given { .. } => {
                "a rotation was asked for, but the secret is not made by the operator; set spec.secretPolicy.source to Generate, or write another one into the Secret"
            }
        };
        self.rotation_event(EventType::Warning, "RotationUnsupported", note)
            .await;
        Ok(())
    }

    async fn rotation_event(&self, type_: EventType, reason: &str, note: &str) {
        event(
            &self.ctx,
            &Arc::clone(&self.webhook),
            type_,
            reason,
            note,
            "Rotate",
        )
        .await;
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Then; `None`: when something changes.
    At(Option<Timestamp>),
    /// When the upstream was read.
    Look,
}

fn describe(webhook: &Webhook, rotation: &RotationStatus) -> String {
    let SecretRef { name, key } = webhook.signing_secret();
    let made = format!("made by the operator; it is in Secret {name:?} under the key {key:?}");
    match (rotation.phase, &rotation.previous_expires) {
        (RotationPhase::Settling, _) => {
            format!(
                "{made}; the upstream is given the one under {:?} next",
                next_key(&key)
            )
        }
        (RotationPhase::Overlapping, Some(until)) => format!(
            "{made}; the one before is under {:?} until {:.0}",
            previous_key(&key),
            until.0
        ),
        (RotationPhase::Overlapping | RotationPhase::Idle, _) => made,
    }
}
