//! The wanted registration, in normal form and with every reference resolved.

use std::{collections::BTreeSet, time::Duration};

use crate::net::SecretText;

/// Basic authentication that the upstream shall send with each delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// User name.
    pub username: String,
    /// Password; never compared with the upstream, which may mask it.
    pub password: SecretText,
}

/// A header that the upstream shall send with each delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name as the user wrote it; unique ignoring case.
    pub name: String,
    /// Value, which may come from a Secret.
    pub value: SecretText,
}

/// Redelivery by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Whether a failed delivery is tried again.
    pub enabled: bool,
    /// Wait before the first retry. Upstreams that count in seconds round up.
    pub initial_delay: Duration,
    /// Most retries.
    pub max_retries: u32,
    /// Each further wait is the previous one times this.
    pub factor: u32,
}

impl Default for Retry {
    /// The defaults of the schema (`retry: {}`), which upstreams that want the whole object get as well.
    fn default() -> Self {
        Self {
            enabled: true,
            initial_delay: Duration::from_secs(10),
            max_retries: 2,
            factor: 2,
        }
    }
}

/// What the user wants to be registered. Its `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// What the webhook hangs on at the upstream; `None` where it needs nothing.
    pub target: Option<String>,
    /// Where deliveries go, as written.
    pub url: String,
    /// Which events; empty where the upstream has no selection.
    pub events: BTreeSet<String>,
    /// Text shown at the upstream.
    pub description: Option<String>,
    /// Whether it shall be switched on.
    pub active: bool,
    /// Signing secret given by the user; `None` where there is none or the upstream makes it.
    pub secret: Option<SecretText>,
    /// Basic authentication of deliveries.
    pub basic_auth: Option<BasicAuth>,
    /// Headers in the order of the manifest.
    pub headers: Vec<Header>,
    /// Redelivery; `None`: not set by the user.
    pub retry: Option<Retry>,
}
