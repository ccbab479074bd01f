//! What the user sees of a provider, when it is tried again, and who holds its finalizer. Pure; the same inputs
//! give the same status, so that nothing is written when nothing changed.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    backoff,
    capabilities::{self, Identity, RemovalRule, SecretRule, TargetRule},
    status::Said,
};
use crate::{
    api::{
        IN_USE_FINALIZER,
        conditions::{self, ConditionType, ProviderReason, Reason},
        provider::{ProviderType, SecretLocation},
        provider_status::{
            Capabilities, DeleteSupport, DeletionWindow, Finding, ProviderStatus, Support, WebhookCounts,
        },
        webhook::SecretSource,
    },
    provider::{Credentials, ErrorClass, ProviderError, Standing},
};

/// Shortest time between two writes that only bring the numbers of Webhooks up to date.
pub const COUNTS_INTERVAL: Duration = Duration::from_secs(10);
/// How often a provider is looked at without any event, and tried again when nothing says otherwise.
pub const RESYNC: Duration = Duration::from_secs(600);
/// How long a missing Secret or key waits when no event of the Secret comes.
pub const SECRET_RETRY: Duration = Duration::from_secs(300);

/// Whether a provider of this type is verified by its list of webhooks. The others have no list: their first
/// accepted call verifies them.
#[must_use]
pub const fn has_list(provider_type: ProviderType) -> bool {
    match provider_type {
        ProviderType::Thulium | ProviderType::Ricloud => true,
        ProviderType::Conpeek | ProviderType::Autocosmos => false,
    }
}

/// What Webhooks of a provider can use, as its status shows it. `undocumented`: whether calls may be made that
/// the upstream's public documents do not show.
#[must_use]
pub fn capabilities(of: &capabilities::Capabilities, undocumented: bool) -> Capabilities {
    let limit = |most: usize| i32::try_from(most).unwrap_or(i32::MAX);
    Capabilities {
        target: match of.target {
            TargetRule::Unsupported => Support::Unsupported,
            TargetRule::PositiveInteger | TargetRule::Opaque => Support::Required,
            TargetRule::Use => Support::Optional,
        },
        // Where events are selected at least one is.
        events: if of.events {
            Support::Required
        } else {
            Support::Unsupported
        },
        secret: match of.secret {
            SecretRule::None => None,
            SecretRule::Given { .. } => Some(SecretSource::Existing),
            SecretRule::MadeByUpstream => Some(SecretSource::Upstream),
        },
        max_headers: limit(of.max_headers),
        max_url_length: limit(of.max_url),
        max_description_length: limit(of.max_description),
        retry: of.retry,
        basic_auth: of.basic_auth,
        deactivate: of.switch,
        upstream_test: of.upstream_test,
        delete: match (of.removal, of.identity) {
            (RemovalRule::LeftInPlace, _) => DeleteSupport::LeftInPlace,
            (RemovalRule::UndocumentedDelete, _) if undocumented => DeleteSupport::Undocumented,
            (RemovalRule::UndocumentedDelete, _) => DeleteSupport::LeftInPlace,
            (RemovalRule::DeleteOrSwitchOff, Identity::Assigned) => DeleteSupport::Deleted,
            // What is named by its target is there for as long as the target: it can only be switched off.
            (RemovalRule::DeleteOrSwitchOff, Identity::ByTarget) => DeleteSupport::SwitchedOff,
        },
    }
}

/// What a failed verification says about the provider. `None`: nothing, the operator may not call now.
#[must_use]
pub fn judge(error: &ProviderError) -> Option<Said<ProviderReason>> {
    let reason = match error.class {
        ErrorClass::Unauthorized => ProviderReason::Unauthorized,
        ErrorClass::BlockedAddress => ProviderReason::BlockedAddress,
        ErrorClass::Unreachable | ErrorClass::Timeout => ProviderReason::Unreachable,
        // There is something, but not this API.
        ErrorClass::TargetNotFound | ErrorClass::Unsupported => {
            let message = format!("{}; check the provider's spec.baseUrl", error.message);
            return Some((ProviderReason::Unreachable, message));
        }
        // The credentials may still be good for what Webhooks need: this holds none of them up.
        ErrorClass::Forbidden
        | ErrorClass::AlreadyExists
        | ErrorClass::Rejected
        | ErrorClass::RateLimited
        | ErrorClass::Unexpected => {
            let message = format!("verification failed: {}", error.message);
            return Some((ProviderReason::NotVerified, message));
        }
        ErrorClass::Held => return None,
    };
    Some((reason, error.message.clone()))
}

/// When to verify again after the `failures`th failure in a row (≥ 1).
#[must_use]
pub fn recheck(error: &ProviderError, failures: u32, seed: u64) -> Duration {
    let delay = match error.class {
        ErrorClass::Unauthorized => crate::provider::account::UNAUTHORIZED_RETRY,
        // Only somebody's action, or a change in the DNS, helps.
        ErrorClass::BlockedAddress => backoff::SLOW,
        ErrorClass::Forbidden
        | ErrorClass::TargetNotFound
        | ErrorClass::Unsupported
        | ErrorClass::AlreadyExists
        | ErrorClass::Rejected => RESYNC,
        ErrorClass::Unreachable
        | ErrorClass::Timeout
        | ErrorClass::RateLimited
        | ErrorClass::Unexpected
        | ErrorClass::Held => backoff::delay(failures, seed),
    };
    delay.max(error.retry_after.unwrap_or_default())
}

/// What decides `Ready` of a provider.
#[derive(Clone, Debug)]
pub struct Health<'a> {
    /// `spec.suspend`.
    pub suspended: bool,
    /// What keeps the account from being made.
    pub problem: Option<Said<ProviderReason>>,
    /// What the calls of this account said about the credentials.
    pub standing: Standing,
    /// What the last verification said, or what an earlier process or account with the same credentials knew.
    pub verdict: Option<Said<ProviderReason>>,
    /// Which upstream.
    pub provider_type: ProviderType,
    /// Where the credentials are.
    pub credentials: &'a SecretLocation,
}

/// `Ready` of a provider.
#[must_use]
pub fn ready(health: Health<'_>) -> Said<ProviderReason> {
    let Health {
        suspended,
        problem,
        standing,
        verdict,
        provider_type,
        credentials,
    } = health;
    if suspended {
        let message =
            "suspended: no call is made for any of its Webhooks; set spec.suspend to false to go on";
        return (ProviderReason::Suspended, message.to_owned());
    }
    if let Some(problem) = problem {
        return problem;
    }
    match (standing, verdict) {
        (Standing::Accepted, _) => verified(),
        (Standing::Refused { .. }, _) => unauthorized(provider_type, credentials),
        (Standing::Unknown, Some((ProviderReason::Unauthorized, _))) => {
            unauthorized(provider_type, credentials)
        }
        (Standing::Unknown, Some(verdict)) => verdict,
        (Standing::Unknown, None) => {
            let message = "no call has been accepted or refused yet; the first call for a Webhook verifies the credentials";
            (ProviderReason::NotVerified, message.to_owned())
        }
    }
}

/// `Ready` of a provider whose credentials work.
#[must_use]
pub fn verified() -> Said<ProviderReason> {
    (
        ProviderReason::Verified,
        "the upstream accepted a call with the credentials".to_owned(),
    )
}

fn unauthorized(provider_type: ProviderType, credentials: &SecretLocation) -> Said<ProviderReason> {
    let keys = Credentials::keys(provider_type).join(", ");
    let SecretLocation { namespace, name } = credentials;
    let message = format!(
        "the upstream refused the credentials of Secret {name:?} in namespace {namespace:?} (keys {keys}); correct them: they are tried at once when the Secret changes, else every 5 minutes"
    );
    (ProviderReason::Unauthorized, message)
}

/// What changes with the Webhooks of a provider rather than with the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Webhooks that refer to it.
    pub counts: WebhookCounts,
    /// Webhooks that keep it from going while it is being deleted.
    pub holders: usize,
    /// Webhooks whose removal its limit holds back.
    pub held: usize,
}

/// Everything a status is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Generation of the spec that was looked at.
    pub generation: Option<i64>,
    /// What `Ready` says.
    pub ready: Said<ProviderReason>,
    /// What its Webhooks can use, if its type is known.
    pub capabilities: Option<Capabilities>,
    /// What was learned. `None`: there is no account that could know; what the status says stays.
    pub findings: Option<Vec<Finding>>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has a `deletionLimit`.
    pub limited: bool,
    /// Value of the annotation `confirm-deletions`.
    pub confirmation: Option<String>,
}

/// The new status.
#[must_use]
pub fn next_status(old: &ProviderStatus, facts: &Facts, usage: Usage, now: Timestamp) -> ProviderStatus {
    let mut status = old.clone();
    let (reason, mut message) = facts.ready.clone();
    if facts.deleting && usage.holders > 0 {
        let holders = usage.holders;
        message.push_str(&format!(
            "; being deleted: it stays until the {holders} Webhook(s) that use it are gone, so that their registrations can be removed"
        ));
    }
    let ready = reason.condition(facts.generation, message, now);
    status.conditions = conditions::merge(&old.conditions, [ready]);
    status.capabilities.clone_from(&facts.capabilities);
    if let Some(findings) = &facts.findings {
        status.findings.clone_from(findings);
    } else if old.observed_generation != facts.generation {
        status.findings.clear();
    }
    // What was removed is counted where it is removed.
    status.deletions = facts.limited.then(|| DeletionWindow {
        held: i32::try_from(usage.held).unwrap_or(i32::MAX),
        ..old.deletions.clone().unwrap_or_default()
    });
    if facts.confirmation.is_some() {
        status
            .last_handled_confirm_deletions
            .clone_from(&facts.confirmation);
    }
    status.webhooks = Some(usage.counts);
    status.observed_generation = facts.generation;
    status
}

/// The reason of `Ready` in a status.
#[must_use]
pub fn reason_of(status: &ProviderStatus) -> Option<ProviderReason> {
    let ready = conditions::find(&status.conditions, ConditionType::Ready)?;
    ProviderReason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == ready.reason)
}

/// What is known of an object that may carry the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded<'a> {
    /// Its finalizers.
    pub finalizers: &'a [String],
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is needed: Webhooks use the provider, or a provider that is used reads the Secret.
    pub needed: bool,
    /// Whether the finalizer holds it back from a deletion that has begun. A provider: as long as it is needed.
    /// A Secret: only while its namespace goes with everything in it; who deletes a Secret by hand means it.
    pub holds: bool,
}

/// What becomes of the finalizer on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It is as it should be, or nothing can be done.
    Keep,
    /// It is set: the object's finalizers with it.
    Set(Vec<String>),
    /// It is taken off: the object's finalizers without it.
    Release(Vec<String>),
}

/// What becomes of the finalizer on an object. `enabled`: `--protect-credentials`.
#[must_use]
pub fn protection(enabled: bool, guarded: Guarded<'_>) -> Protection {
    let Guarded {
        finalizers,
        deleting,
        needed,
        holds,
    } = guarded;
    let there = finalizers.iter().any(|finalizer| finalizer == IN_USE_FINALIZER);
    // The API server takes no new finalizer on an object that is being deleted.
    let wanted = enabled && needed && if deleting { holds && there } else { true };
    match (there, wanted) {
        (true, true) | (false, false) => Protection::Keep,
        (false, true) => Protection::Set(
            finalizers
                .iter()
                .cloned()
                .chain([IN_USE_FINALIZER.to_owned()])
                .collect(),
        ),
        (true, false) => {
            let others = finalizers
                .iter()
                .filter(|finalizer| *finalizer != IN_USE_FINALIZER);
            Protection::Release(others.cloned().collect())
        }
    }
}

#[cfg(test)]
mod tests;
