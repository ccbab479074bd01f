//! What can go wrong in a call to an upstream, in classes that decide the condition, the metric and the retry.

use std::{fmt, time::Duration};

use crate::net::{HttpError, HttpErrorKind};

/// What a call is for. The name is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Read one registration.
    Read,
    /// Read the list, or one page of it.
    List,
    /// Make a registration.
    Create,
    /// Change a registration.
    Update,
    /// Switch a registration off or on.
    Switch,
    /// Remove a registration.
    Delete,
    /// Start the upstream's test.
    Test,
    /// Ask how a test goes.
    Poll,
    /// Make an organisation or key use the registration, or stop.
    Use,
}

impl Operation {
    /// Lower-case name for logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Switch => "switch",
            Self::Delete => "delete",
            Self::Test => "test",
            Self::Poll => "poll",
            Self::Use => "use",
        }
    }

    /// Whether the call may change something at the upstream.
    #[must_use]
    pub const fn mutates(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Switch | Self::Delete | Self::Test | Self::Use => true,
            Self::Read | Self::List | Self::Poll => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Error classes: a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The credentials are wrong (401, or 403 where the upstream cannot tell them apart).
    Unauthorized,
    /// The credentials are right and lack a permission.
    Forbidden,
    /// What the webhook hangs on does not exist (application, topic).
    TargetNotFound,
    /// There is already one (409).
    AlreadyExists,
    /// The upstream refuses what was sent (400, 422 and other 4xx): no retry helps.
    Rejected,
    /// Too many calls (429).
    RateLimited,
    /// No answer in time.
    Timeout,
    /// Connection refused, reset, name not resolved, TLS failed, or 5xx.
    Unreachable,
    /// The address may not be called.
    BlockedAddress,
    /// The upstream has no such call.
    Unsupported,
    /// An answer that cannot be understood.
    Unexpected,
    /// The operator must not call now (lease lost, shutting down, provider waiting, waited for too long); not the
    /// upstream's fault.
    Held,
}

impl ErrorClass {
    /// Name for metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TargetNotFound => "target_not_found",
            Self::AlreadyExists => "already_exists",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::BlockedAddress => "blocked_address",
            Self::Unsupported => "unsupported",
            Self::Unexpected => "unexpected",
            Self::Held => "held",
        }
    }
}

/// Whether a failed call may have changed something at the upstream all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It certainly has not: never sent, or refused.
    None,
    /// It may have: the answer was lost, or says nothing certain.
    Unknown,
}

/// A failed call. Its text may enter a status, an Event or a log: it is made of our own words, numbers, and
/// scheme, host and port of the upstream, never of a credential or of bytes that the upstream sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// Its class.
    pub class: ErrorClass,
    /// What the call was for.
    pub operation: Operation,
    /// Whether it may have changed something.
    pub effect: Effect,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// How long the upstream asked to wait, at most 1 h.
    pub retry_after: Option<Duration>,
    /// What to tell the user: what is wrong and what to do.
    pub message: String,
}

impl ProviderError {
    /// An error without an HTTP answer behind it, or one that says more than the status alone.
    #[must_use]
    pub fn new(class: ErrorClass, operation: Operation, effect: Effect, message: impl Into<String>) -> Self {
        Self {
            class,
            operation,
            effect,
            status: None,
            retry_after: None,
            message: message.into(),
        }
    }

    /// An answer of this operation that does not have the documented shape. `what` says what is missing, in our
    /// words.
    #[must_use]
    pub fn unexpected(operation: Operation, what: &str) -> Self {
        Self::new(
            ErrorClass::Unexpected,
            operation,
            if operation.mutates() {
                Effect::Unknown
            } else {
                Effect::None
            },
            format!("the upstream's answer to {operation} was not understood: {what}; it is tried again"),
        )
    }

    /// A call that this upstream does not have. Nothing was sent.
    #[must_use]
    pub fn no_such_call(operation: Operation) -> Self {
        let message = format!("the upstream has no call to {operation}");
        Self::new(ErrorClass::Unsupported, operation, Effect::None, message)
    }

    /// Same error with another class and message.
    #[must_use]
    pub fn reclass(self, class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            ..self
        }
    }

    /// The class that a status has at any of the upstreams, unless its file knows better. `None`: 2xx.
    #[must_use]
    pub fn from_status(operation: Operation, status: u16, retry_after: Option<Duration>) -> Option<Self> {
        let (class, effect, message) = match status {
            200..=299 => return None,
            401 => (
                ErrorClass::Unauthorized,
                Effect::None,
                "the upstream refused the credentials (401); correct the provider's credentials Secret"
                    .to_owned(),
            ),
            403 => (
                ErrorClass::Forbidden,
                Effect::None,
                format!("the upstream forbids {operation} (403); give the credentials this permission"),
            ),
            404 | 410 => (
                ErrorClass::TargetNotFound,
                Effect::None,
                format!("the upstream has nothing there to {operation} ({status})"),
            ),
            405 | 501 => (
                ErrorClass::Unsupported,
                Effect::None,
                format!("the upstream has no call to {operation} ({status})"),
            ),
            408 | 425 => (
                ErrorClass::Timeout,
                Effect::Unknown,
                format!("the upstream gave up waiting ({status})"),
            ),
            409 => (
                ErrorClass::AlreadyExists,
                Effect::None,
                "the upstream already has one (409)".to_owned(),
            ),
            429 => (
                ErrorClass::RateLimited,
                Effect::None,
                "the upstream asks for fewer calls (429); the whole provider waits".to_owned(),
            ),
            400..=499 => (
                ErrorClass::Rejected,
                Effect::None,
                format!("the upstream refused to {operation} ({status}); correct the Webhook's spec"),
            ),
            300..=399 => (
                ErrorClass::Unexpected,
                Effect::Unknown,
                format!(
                    "the upstream redirects ({status}), which is never followed; correct the provider's baseUrl"
                ),
            ),
            _ => (
                ErrorClass::Unreachable,
                Effect::Unknown,
                format!("the upstream failed ({status}); it is tried again"),
            ),
        };
        // A read changes nothing, whatever became of it.
        let effect = if operation.mutates() { effect } else { Effect::None };
        Some(Self {
            class,
            operation,
            effect,
            status: Some(status),
            retry_after,
            message,
        })
    }

    /// A call that got no (whole) answer.
    #[must_use]
    pub fn from_http(operation: Operation, error: &HttpError) -> Self {
        let class = match error.kind() {
            HttpErrorKind::Blocked(_) => ErrorClass::BlockedAddress,
            HttpErrorKind::InvalidRequest => ErrorClass::Rejected,
            HttpErrorKind::Timeout => ErrorClass::Timeout,
            HttpErrorKind::Resolve
            | HttpErrorKind::Connect(_)
            | HttpErrorKind::Tls(_)
            | HttpErrorKind::Reset => ErrorClass::Unreachable,
            HttpErrorKind::Protocol | HttpErrorKind::BodyTooLarge(_) | HttpErrorKind::Decode => {
                ErrorClass::Unexpected
            }
        };
        let effect = if operation.mutates() && error.may_have_reached_upstream() {
            Effect::Unknown
        } else {
            Effect::None
        };
        let message = match class {
            ErrorClass::Timeout | ErrorClass::Unreachable => {
                let cause = error.public_message();
                format!(
                    "{cause}; it is tried again; if it lasts, check the provider's spec.baseUrl and the way to it"
                )
            }
            _ => error.public_message(),
        };
        Self::new(class, operation, effect, message)
    }
}
