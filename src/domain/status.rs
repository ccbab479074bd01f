//! What the user sees: the outcome of a pass as conditions, and the rest of the status. Pure; the same inputs
//! give the same status, so that nothing is written when nothing changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    bounds::{self, clip},
    check::{Problem, ProblemKind, in_words},
    desired::Desired,
    remote::RemoteId,
    testing::start_over,
};
use crate::{
    api::{
        conditions::{
            self, ConditionType, ReadyReason, Reason, ReconcilingReason, SecretReason, StalledReason,
            SyncedReason, TestedReason,
        },
        webhook_status::{DeactivatedBy, Drift, State, WebhookStatus},
    },
    provider::{ErrorClass, Operation, ProviderError},
};

/// A reason with its message.
pub type Said<R> = (R, String);

/// What `Ready` says of a registration that is switched off for its failed tests.
const FAILED_TOO_OFTEN: &str = "switched off at the upstream because its tests kept failing, see Tested; it is switched on and tested again when the spec changes, when a test is asked for (annotation webhook-operator.dev/test-requested-at), or when a probe passes";

/// What becomes of a condition that may be absent or stay as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aspect<R> {
    /// This pass learned nothing about it.
    Keep,
    /// It does not apply.
    Absent,
    /// It is this.
    Is(R, String),
}

/// The conditions of one outcome.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// `Ready`.
    pub ready: Said<ReadyReason>,
    /// `Synced`.
    pub synced: Aspect<SyncedReason>,
    /// `Tested`.
    pub tested: Aspect<TestedReason>,
    /// `SecretReady`.
    pub secret: Aspect<SecretReason>,
    /// `Reconciling`.
    pub reconciling: Option<Said<ReconcilingReason>>,
    /// `Stalled`.
    pub stalled: Option<Said<StalledReason>>,
}

impl Assessment {
    /// Only `Ready` is known; the other conditions stay as they were.
    #[must_use]
    pub fn ready(reason: ReadyReason, message: impl Into<String>) -> Self {
        Self {
            ready: (reason, message.into()),
            synced: Aspect::Keep,
            tested: Aspect::Keep,
            secret: Aspect::Keep,
            reconciling: None,
            stalled: None,
        }
    }

    /// The Webhook (or its provider) is suspended.
    #[must_use]
    pub fn suspended(by_provider: bool) -> Self {
        let message = if by_provider {
            "the provider is suspended: no call is made; set its spec.suspend to false to go on"
        } else {
            "suspended: no call is made; set spec.suspend to false to go on"
        };
        Self::ready(ReadyReason::Suspended, message)
    }

    /// The spec cannot be carried out.
    #[must_use]
    pub fn problems(problems: &[Problem]) -> Self {
        let invalid = problems
            .iter()
            .any(|problem| problem.kind == ProblemKind::InvalidSpec);
        let message = in_words(problems).unwrap_or_default();
        let (ready, stalled) = if invalid {
            (ReadyReason::InvalidSpec, StalledReason::InvalidSpec)
        } else {
            (ReadyReason::UnsupportedField, StalledReason::UnsupportedField)
        };
        Self {
            stalled: Some((stalled, message.clone())),
            ..Self::ready(ready, message)
        }
    }

    /// The provider is missing, not allowed, or cannot be used.
    #[must_use]
    pub fn provider_not_ready(message: impl Into<String>) -> Self {
        Self::ready(ReadyReason::ProviderNotReady, message)
    }

    /// The signing secret, or another referenced Secret.
    #[must_use]
    pub fn secret(reason: SecretReason, signing: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        let (ready, stalled) = match reason {
            SecretReason::NotFound | SecretReason::KeyMissing => (ReadyReason::SecretNotFound, None),
            SecretReason::TooShort | SecretReason::TooLong => {
                (ReadyReason::InvalidSpec, Some(StalledReason::InvalidSpec))
            }
            SecretReason::NotOwned => (ReadyReason::Conflict, Some(StalledReason::Conflict)),
            SecretReason::NotRecoverable => (ReadyReason::UpstreamError, Some(StalledReason::NotRecoverable)),
            SecretReason::Resolved | SecretReason::Published => (ReadyReason::Progressing, None),
        };
        Self {
            secret: if signing {
                Aspect::Is(reason, message.clone())
            } else {
                Aspect::Keep
            },
            stalled: stalled.map(|reason| (reason, message.clone())),
            ..Self::ready(ready, message)
        }
    }

    /// Somebody else holds the registration.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            synced: Aspect::Is(SyncedReason::Conflict, message.clone()),
            stalled: Some((StalledReason::Conflict, message.clone())),
            ..Self::ready(ReadyReason::Conflict, message)
        }
    }

    /// A create was sent and its outcome is not known yet.
    #[must_use]
    pub fn create_outcome_unknown() -> Self {
        let message = "a registration was sent and its answer got lost; the upstream is asked again before anything is sent twice";
        Self {
            synced: Aspect::Is(SyncedReason::CreateOutcomeUnknown, message.to_owned()),
            reconciling: Some((ReconcilingReason::Progressing, message.to_owned())),
            ..Self::ready(ReadyReason::Progressing, message)
        }
    }

    /// A call failed.
    #[must_use]
    pub fn failed(error: &ProviderError) -> Self {
        let message = error.message.clone();
        let (synced, ready, stalled) = match error.class {
            ErrorClass::Unauthorized => (SyncedReason::Unauthorized, ReadyReason::ProviderNotReady, None),
            ErrorClass::Forbidden => (SyncedReason::Forbidden, ReadyReason::UpstreamError, None),
            ErrorClass::TargetNotFound => (SyncedReason::TargetNotFound, ReadyReason::UpstreamError, None),
            ErrorClass::Rejected => (
                SyncedReason::Rejected,
                ReadyReason::UpstreamError,
                Some(StalledReason::Rejected),
            ),
            ErrorClass::RateLimited => (SyncedReason::RateLimited, ReadyReason::UpstreamError, None),
            ErrorClass::Timeout => (SyncedReason::Timeout, ReadyReason::UpstreamError, None),
            ErrorClass::Unreachable => (SyncedReason::Unreachable, ReadyReason::UpstreamError, None),
            ErrorClass::BlockedAddress => (SyncedReason::BlockedAddress, ReadyReason::UpstreamError, None),
            ErrorClass::Unsupported if error.operation == Operation::Update => {
                (SyncedReason::UpdateUnsupported, ReadyReason::UpstreamError, None)
            }
            // A call that any such upstream has: the base URL leads somewhere else.
            ErrorClass::Unsupported => (SyncedReason::UnexpectedResponse, ReadyReason::UpstreamError, None),
            ErrorClass::AlreadyExists | ErrorClass::Held => {
                (SyncedReason::Pending, ReadyReason::Progressing, None)
            }
            ErrorClass::Unexpected => (SyncedReason::UnexpectedResponse, ReadyReason::UpstreamError, None),
        };
        let reconciling = stalled
            .is_none()
            .then(|| (ReconcilingReason::Retrying, message.clone()));
        Self {
            synced: Aspect::Is(synced, message.clone()),
            reconciling,
            stalled: stalled.map(|reason| (reason, message.clone())),
            ..Self::ready(ready, message)
        }
    }

    /// It is being switched off for its failed tests.
    #[must_use]
    pub fn failed_too_often() -> Self {
        Self::ready(ReadyReason::TestFailed, FAILED_TOO_OFTEN)
    }

    /// Being deleted, and it takes longer than one pass.
    #[must_use]
    pub fn deleting(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            reconciling: Some((ReconcilingReason::Retrying, message.clone())),
            ..Self::ready(ReadyReason::Deleting, message)
        }
    }

    /// The provider's limit holds the removal back.
    #[must_use]
    pub fn deletion_held(message: impl Into<String>) -> Self {
        Self::ready(ReadyReason::DeletionHeld, message)
    }

    /// A test by the operator has ended; nothing else was looked at, and stays as it is in `old`.
    #[must_use]
    pub fn tested(old: &WebhookStatus, reason: TestedReason, message: &str) -> Self {
        let there = |type_| conditions::find(&old.conditions, type_);
        let ready = there(ConditionType::Ready).and_then(|ready| {
            let reason = ReadyReason::ALL
                .iter()
                .find(|known| known.as_str() == ready.reason)?;
            Some((*reason, ready.message.clone()))
        });
        let by_test = ready_by_test(&(reason, message.to_owned()));
        let (ready, waiting) = match ready {
            // It is off, or something else keeps it from being Ready.
            Some((reason, message))
                if old.deactivated_by.is_some()
                    || !matches!(
                        reason,
                        ReadyReason::Available | ReadyReason::NotYetTested | ReadyReason::TestFailed
                    ) =>
            {
                ((reason, message), None)
            }
            _ => by_test,
        };
        let retrying = there(ConditionType::Reconciling).and_then(|condition| {
            let reason = ReconcilingReason::ALL
                .iter()
                .find(|known| known.as_str() == condition.reason)?;
            (*reason != ReconcilingReason::WaitingForTest).then(|| (*reason, condition.message.clone()))
        });
        Self {
            tested: Aspect::Is(reason, message.to_owned()),
            reconciling: retrying.or(waiting),
            ..Self::ready(ready.0, ready.1)
        }
    }

    /// The registration is known.
    #[must_use]
    pub fn registered(facts: &Registered<'_>) -> Self {
        let synced = if facts.drift.is_empty() {
            let message = match facts.how {
                SyncedReason::Applied => "written to the upstream".to_owned(),
                SyncedReason::DriftCorrected => {
                    format!(
                        "the upstream had been changed and was put right: {}",
                        facts.corrected.join(", ")
                    )
                }
                _ => "the upstream agrees with the spec".to_owned(),
            };
            Aspect::Is(facts.how, message)
        } else {
            let message = format!(
                "the upstream differs from the spec in {}; driftPolicy Report leaves it so",
                facts.drift.join(", ")
            );
            Aspect::Is(SyncedReason::DriftDetected, message)
        };
        let tested = facts.tested.clone();
        let (ready, reconciling) = registered_ready(facts);
        Self {
            ready,
            synced,
            tested: Aspect::Is(tested.0, tested.1),
            secret: facts.secret.clone(),
            reconciling,
            stalled: None,
        }
    }
}

/// `Ready` and `Reconciling` of a known registration.
fn registered_ready(facts: &Registered<'_>) -> (Said<ReadyReason>, Option<Said<ReconcilingReason>>) {
    let said = |reason, message: &str| (reason, message.to_owned());
    if !facts.drift.is_empty() {
        let message = format!("the upstream differs from the spec in {}", facts.drift.join(", "));
        return ((ReadyReason::Drifted, message), None);
    }
    match facts.deactivated_by {
        Some(DeactivatedBy::Spec) => {
            return (
                said(
                    ReadyReason::Deactivated,
                    "switched off at the upstream, as the spec wants",
                ),
                None,
            );
        }
        Some(DeactivatedBy::TestFailure) => {
            return (said(ReadyReason::TestFailed, FAILED_TOO_OFTEN), None);
        }
        Some(DeactivatedBy::Upstream) => {
            let message = "somebody switched it off at the upstream; switch it on there, change the spec, or set onUpstreamDeactivation to Reactivate";
            return (said(ReadyReason::DeactivatedUpstream, message), None);
        }
        None => {}
    }
    if !facts.test_counts {
        return (said(ReadyReason::Available, "registered"), None);
    }
    ready_by_test(&facts.tested)
}

/// What a test makes of a registration with which nothing else is wrong.
fn ready_by_test(tested: &Said<TestedReason>) -> (Said<ReadyReason>, Option<Said<ReconcilingReason>>) {
    let said = |reason, message: &str| (reason, message.to_owned());
    let (reason, message) = tested;
    match reason {
        TestedReason::Passed => (said(ReadyReason::Available, "registered and tested"), None),
        TestedReason::NotRun => (said(ReadyReason::Available, "registered"), None),
        TestedReason::Pending | TestedReason::TestTimeout => (
            (ReadyReason::NotYetTested, message.clone()),
            Some((ReconcilingReason::WaitingForTest, message.clone())),
        ),
        TestedReason::DnsFailed
        | TestedReason::BlockedAddress
        | TestedReason::ConnectFailed
        | TestedReason::TlsFailed
        | TestedReason::Timeout
        | TestedReason::Redirected
        | TestedReason::HttpStatus
        | TestedReason::SignatureRejected
        | TestedReason::ForgeryAccepted
        | TestedReason::UpstreamReportedInvalid => ((ReadyReason::TestFailed, message.clone()), None),
    }
}

/// What is known of a registration after a pass.
#[derive(Clone, Debug)]
pub struct Registered<'a> {
    /// `InSync`, `Applied` or `DriftCorrected`.
    pub how: SyncedReason,
    /// Fields that were put right.
    pub corrected: &'a [&'static str],
    /// Fields that differ and are only reported.
    pub drift: &'a [&'static str],
    /// Who switched it off, if it is off.
    pub deactivated_by: Option<DeactivatedBy>,
    /// What the last test said.
    pub tested: Said<TestedReason>,
    /// Whether `Ready` waits for the test.
    pub test_counts: bool,
    /// The signing secret.
    pub secret: Aspect<SecretReason>,
}

/// The new status. `change` sets what is not a condition.
#[must_use]
pub fn next_status(
    old: &WebhookStatus,
    generation: i64,
    now: Timestamp,
    assessment: Assessment,
    change: impl FnOnce(&mut WebhookStatus),
) -> WebhookStatus {
    let mut status = old.clone();
    let of = Some(generation);
    if old.observed_generation != of {
        start_over(&mut status);
    }
    change(&mut status);
    let mut new: Vec<Condition> =
        vec![
            assessment
                .ready
                .0
                .condition(of, clip(&assessment.ready.1, bounds::MESSAGE), now),
        ];
    let pending = SyncedReason::Pending.condition(of, "nothing has been written or read yet", now);
    new.extend(aspect(&old.conditions, assessment.synced, of, now).or(Some(pending)));
    let pending = TestedReason::NotRun.condition(of, "not tested", now);
    new.extend(aspect(&old.conditions, assessment.tested, of, now).or(Some(pending)));
    new.extend(aspect(&old.conditions, assessment.secret, of, now));
    new.extend(
        assessment
            .reconciling
            .map(|(reason, message)| reason.condition(of, clip(&message, bounds::MESSAGE), now)),
    );
    new.extend(
        assessment
            .stalled
            .map(|(reason, message)| reason.condition(of, clip(&message, bounds::MESSAGE), now)),
    );
    status.conditions = conditions::merge(&old.conditions, new);
    status.observed_generation = of;
    status
}

fn aspect<R: Reason>(
    old: &[Condition],
    aspect: Aspect<R>,
    of: Option<i64>,
    now: Timestamp,
) -> Option<Condition> {
    match aspect {
        // It still speaks of the generation that it was found for.
        Aspect::Keep => conditions::find(old, R::TYPE).cloned(),
        Aspect::Absent => None,
        Aspect::Is(reason, message) => Some(reason.condition(of, clip(&message, bounds::MESSAGE), now)),
    }
}

/// Notes what is registered now. `wrote`: something was written, or found different, at the upstream.
pub fn note_registration(
    status: &mut WebhookStatus,
    id: &RemoteId,
    url: &str,
    hash: Option<String>,
    wrote: bool,
    now: Timestamp,
) {
    status.id = Some(id.0.clone());
    status.url = Some(clip(url, bounds::URL));
    if hash.is_some() {
        status.applied_hash = hash;
    }
    if wrote {
        status.last_sync_time = Some(Time(now));
    }
}

/// Notes a difference that was found, and whether it was put right; without fields, that there is none any more.
pub fn note_drift(status: &mut WebhookStatus, fields: &[&'static str], corrected: bool, now: Timestamp) {
    if fields.is_empty() && status.drift.is_none() {
        return;
    }
    let drift = status.drift.get_or_insert_with(Drift::default);
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    // A difference that is only reported is noted once, not at each read-back; and its end is no difference.
    if !fields.is_empty() && (corrected || drift.fields != fields) {
        drift.last_time = Some(Time(now));
    }
    let corrected = corrected && !fields.is_empty();
    drift.fields = fields;
    if corrected {
        drift.corrections = drift.corrections.saturating_add(1);
    }
}

/// The state word: the upstream's own where it has one, else `new` or `deactivated`.
#[must_use]
pub fn state_of(remote: Option<State>, deactivated_by: Option<DeactivatedBy>) -> State {
    match (deactivated_by, remote) {
        (Some(_), _) => State::Deactivated,
        (None, Some(state)) => state,
        (None, None) => State::New,
    }
}

/// Whether the status says that this generation was carried out and nothing is under way.
#[must_use]
pub fn is_settled(status: &WebhookStatus, generation: i64) -> bool {
    const SETTLED: [ReadyReason; 6] = [
        ReadyReason::Available,
        ReadyReason::Deactivated,
        ReadyReason::DeactivatedUpstream,
        ReadyReason::Drifted,
        ReadyReason::TestFailed,
        ReadyReason::NotYetTested,
    ];
    status.observed_generation == Some(generation)
        && status.id.is_some()
        && conditions::find(&status.conditions, ConditionType::Ready)
            .is_some_and(|ready| SETTLED.iter().any(|reason| reason.as_str() == ready.reason))
}

/// What a Webhook of this want would be called in an Event or log, without its secrets.
#[must_use]
pub fn describe(want: &Desired) -> String {
    match &want.target {
        Some(target) => format!("{} (target {target})", want.url),
        None => want.url.clone(),
    }
}

#[cfg(test)]
mod tests;
