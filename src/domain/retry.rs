//! Whether a failed call to an upstream helps when it is made again, and when.

use std::time::Duration;

use crate::provider::{ErrorClass, Operation, ProviderError};

/// When a call that failed is made again, unless something changes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not by itself: what was sent is refused as often as it is sent.
    OnChange,
    /// After [`super::backoff::delay`], which grows with each failure.
    Growing,
    /// The same, and not sooner than the upstream asked for.
    NotBefore(Duration),
    /// After [`super::backoff::SLOW`] (its upper half): only somebody's action there helps.
    Slow,
    /// When the account lets one call through to see whether its credentials are accepted again.
    Credentials,
}

impl Retry {
    /// What the class of `error`, and whether its call changes something, ask for.
    #[must_use]
    pub fn after(error: &ProviderError) -> Self {
        match error.class {
            ErrorClass::Unauthorized => Self::Credentials,
            // What is tested or only looked at is not of the user's making: its refusal may pass.
            ErrorClass::Rejected if error.operation.mutates() && error.operation != Operation::Test => {
                Self::OnChange
            }
            ErrorClass::Rejected
            | ErrorClass::Forbidden
            | ErrorClass::TargetNotFound
            | ErrorClass::BlockedAddress
            | ErrorClass::Unsupported => Self::Slow,
            ErrorClass::RateLimited => error.retry_after.map_or(Self::Growing, Self::NotBefore),
            ErrorClass::Timeout
            | ErrorClass::Unreachable
            | ErrorClass::Unexpected
            | ErrorClass::AlreadyExists
            | ErrorClass::Held => Self::Growing,
        }
    }
}
