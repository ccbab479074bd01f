//! Carries out the rotation of a signing secret that the operator makes: reads the Secret when something is due, writes
//! what the plan says, and tells the user. The plan is [`crate::domain::rotation`]'s; that the upstream gets what
//! stands under the key is the ordinary update's.

mod book;
mod proof;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::runtime::events::EventType;

pub(super) use self::book::{Book, print, write};
use super::{
    act::Pass,
    context::SecretContent,
    generated,
    publish::{event, replace_status},
    reconcile::PassError,
    resolve::ResolveError,
    signing::{self, Ownership},
};
use crate::{
    api::{
        ROTATE_REQUESTED_AT, Webhook, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason, SecretReason, TestedReason},
        webhook::{SecretRef, SecretSource},
        webhook_status::{DeactivatedBy, RotationPhase, RotationStatus},
    },
    domain::{
        capabilities::SecretRule,
        hash::Applied,
        rotation::{Policy, Situation, Step, change, next_key, next_status, next_step, previous_key},
        schedule,
        testing::Tester,
    },
    provider::Provider,
};

/// Others may write the Secret between a read and a write of ours; and one look may lead to more than one write.
const ATTEMPTS: usize = 6;

/// The API server refused a write: what could help may be something that is not watched.
const REFUSED: Duration = Duration::from_secs(300);

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
        let landed = rotation.sent && !rotation.probe.is_flying();
        let due = landed || rotation.next.is_some_and(|next| next <= now);
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
            "{inputs} {} {} {:?} {told:?}",
            self.is_confirmed(),
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

    /// Whether the upstream has everything that is wanted, and nothing older can arrive there any more.
    fn is_confirmed(&self) -> bool {
        self.applied() == Applied::Same && self.memory.with(|memory| memory.in_doubt.is_none())
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
            self.take_proof(&book);
            self.tell_rotation(&book).await?;
            let asked = self.request(ROTATE_REQUESTED_AT);
            let situation = self.situation(&book, asked.as_deref(), self.is_confirmed());
            let step = next_step(&situation);
            let fresh = match step {
                Step::Rest(next) => {
                    let probe = self.prove(&book, secret).await?;
                    return Ok(Next::At([next, probe].into_iter().flatten().min()));
                }
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
                    self.tell_step(step, &book).await;
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
            probe: self.proof(book).and_then(|proof| proof.probed()),
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
        let failure = self.proof(book).and_then(|proof| proof.failure());
        let message = describe(&self.webhook, &told.0, failure);
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
        let proof = self.memory.with(|memory| memory.rotation.proof.clone());
        let failure = proof.and_then(|(_, proof)| proof.failure());
        describe(&self.webhook, &told.unwrap_or_default(), failure)
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

    async fn tell_step(&self, step: Step, book: &Book) {
        let SecretRef { name, key } = &book.reference;
        let (next, previous) = (next_key(key), previous_key(key));
        let (type_, reason, note) = match step {
            Step::Publish => {
                let settle = Policy::of(&self.webhook.spec).settle.as_secs();
                let note = if self.tester() == Tester::Operator {
                    format!(
                        "a new signing secret is in Secret {name:?} under the key {next:?}; the upstream is given it when the receiver has shown that it takes it, at the latest after {settle} seconds"
                    )
                } else {
                    format!(
                        "a new signing secret is in Secret {name:?} under the key {next:?}; the upstream is given it after {settle} seconds"
                    )
                };
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
            Step::Promote => {
                let Some(failure) = self.proof(book).and_then(|proof| proof.failure()) else {
                    return;
                };
                let note = format!(
                    "the receiver has not taken what is signed with the new secret ({}), and the time for that is over; the upstream is given it now; let the receiver read Secret {name:?} again, and take {key:?} and {previous:?}",
                    failure.as_str()
                );
                (EventType::Warning, "RotationUnproven", note)
            }
            Step::Rest(_) | Step::Make | Step::Note | Step::Look => return,
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

fn describe(webhook: &Webhook, rotation: &RotationStatus, failure: Option<TestedReason>) -> String {
    let SecretRef { name, key } = webhook.signing_secret();
    let made = format!("made by the operator; it is in Secret {name:?} under the key {key:?}");
    match (rotation.phase, &rotation.previous_expires) {
        (RotationPhase::Settling, _) => {
            let refused = failure.map_or_else(String::new, |failure| {
                format!(", which the receiver does not take yet ({})", failure.as_str())
            });
            format!(
                "{made}; the upstream is given the one under {:?} next{refused}",
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
