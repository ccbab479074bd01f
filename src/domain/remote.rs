//! What an upstream says is registered, in our words.

use std::{collections::BTreeSet, fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::desired::{Desired, Header, Retry};
use crate::{api::webhook_status::State, net::SecretText};

/// The upstream's id of a registration, or the target for upstreams keyed by target. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemoteId(pub String);

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Handle of a test that runs at the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(pub String);

/// One registration as the upstream shows it. A field that the upstream does not show is `None`, and is then
/// never a difference. Its `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its id there.
    pub id: RemoteId,
    /// Delivery URL; may be empty.
    pub url: String,
    /// Selected events.
    pub events: Option<BTreeSet<String>>,
    /// Description; `Some("")`: none there.
    pub description: Option<String>,
    /// Headers, in the upstream's order.
    pub headers: Option<Vec<Header>>,
    /// Redelivery.
    pub retry: Option<Retry>,
    /// User name of the Basic authentication; `Some("")`: none there.
    pub basic_auth_user: Option<String>,
    /// The upstream's own state word. `None`: it has none and the registration is on.
    pub state: Option<State>,
    /// Secret made by the upstream, where it shows one.
    pub secret: Option<SecretText>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl Remote {
    /// A registration of which only the id and the URL are known.
    #[must_use]
    pub fn new(id: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            id: RemoteId(id.into()),
            url: url.into(),
            events: None,
            description: None,
            headers: None,
            retry: None,
            basic_auth_user: None,
            state: None,
            secret: None,
            created: None,
        }
    }

    /// Whether it is switched on, as far as the upstream says.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state != Some(State::Deactivated)
    }
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The registration with this id (or of this target).
    ById(RemoteId),
    /// All of the account; `inactive`: those that are switched off and hidden by default as well.
    All {
        /// Ask for hidden, switched off ones too.
        inactive: bool,
    },
}

/// What was read.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The answer to [`Look::ById`]; `None`: the upstream says that it is not there.
    One(Option<Box<Remote>>),
    /// The answer to [`Look::All`]: every page of it.
    All(Arc<Vec<Remote>>),
    /// The upstream cannot be read.
    CannotKnow,
}

/// Two URLs are the same registration when they differ at most in the case of scheme and host. A trailing
/// slash, an explicit default port or an escape may matter to a receiver, so they count.
#[must_use]
pub fn same_url(a: &str, b: &str) -> bool {
    a == b || normal_url(a) == normal_url(b)
}

/// The URL with scheme and host in lower case: two are the [`same_url`] if and only if this is equal.
#[must_use]
pub fn normal_url(url: &str) -> String {
    let (head, rest) = split_authority(url);
    head.to_ascii_lowercase() + rest
}

/// Scheme and authority on one side, path and query on the other.
fn split_authority(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url
        .char_indices()
        .skip_while(|(at, _)| *at < after_scheme)
        .find(|(_, c)| matches!(c, '/' | '?' | '#'))
        .map_or(url.len(), |(at, _)| at);
    url.split_at(end)
}

/// Names of the spec's fields in which the upstream differs from what is wanted, in a fixed order. Secrets and
/// passwords are never compared: what was written of them is known by its hash.
#[must_use]
pub fn differences(want: &Desired, there: &Remote) -> Vec<&'static str> {
    let mut fields = Vec::new();
    let mut note = |differs: bool, name: &'static str| {
        if differs {
            fields.push(name);
        }
    };
    note(!same_url(&want.url, &there.url), "url");
    note(
        there.events.as_ref().is_some_and(|events| *events != want.events),
        "events",
    );
    note(
        there
            .description
            .as_ref()
            .is_some_and(|text| text.as_str() != want.description.as_deref().unwrap_or("")),
        "description",
    );
    note(
        there
            .headers
            .as_ref()
            .is_some_and(|headers| !same_headers(&want.headers, headers)),
        "headers",
    );
    note(
        there
            .retry
            .is_some_and(|retry| !same_retry(want.retry.unwrap_or_default(), retry)),
        "retry",
    );
    note(
        there.basic_auth_user.as_ref().is_some_and(|user| {
            user.as_str() != want.basic_auth.as_ref().map_or("", |auth| auth.username.as_str())
        }),
        "basicAuthRef",
    );
    note(want.active != there.is_on(), "active");
    fields
}

/// Order and the case of names do not matter.
fn same_headers(want: &[Header], there: &[Header]) -> bool {
    let normal = |headers: &[Header]| {
        headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), header.value.expose().to_owned()))
            .collect::<BTreeSet<_>>()
    };
    want.len() == there.len() && normal(want) == normal(there)
}

/// Upstreams count in whole seconds, rounded up.
fn same_retry(want: Retry, there: Retry) -> bool {
    let seconds = |retry: Retry| retry.initial_delay.as_millis().div_ceil(1000);
    seconds(want) == seconds(there)
        && Retry {
            initial_delay: there.initial_delay,
            ..want
        } == there
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn scheme_and_host_ignore_case_and_nothing_else_does() {
        assert!(same_url("https://Example.pl/A", "HTTPS://example.PL/A"));
        assert!(!same_url("https://example.pl", "https://example.pl/"));
        assert!(!same_url("https://example.pl/a", "https://example.pl/A"));
        assert!(!same_url("https://example.pl?x=A", "https://example.pl?x=a"));
    }

    #[test]
    fn what_is_not_shown_is_no_difference() {
        let want = Desired {
            url: "https://a.example/".into(),
            active: true,
            ..Desired::default()
        };
        assert!(differences(&want, &Remote::new("1", "https://a.example/")).is_empty());
    }

    #[test]
    fn each_shown_field_can_differ() {
        let want = Desired {
            url: "https://a.example/".into(),
            active: true,
            ..Desired::default()
        };
        let there = Remote {
            events: Some(BTreeSet::from(["X".to_owned()])),
            description: Some("other".into()),
            headers: Some(vec![Header {
                name: "X-A".into(),
                value: "1".to_owned().into(),
            }]),
            retry: Some(Retry {
                max_retries: 3,
                ..Retry::default()
            }),
            basic_auth_user: Some("bob".into()),
            state: Some(State::Deactivated),
            ..Remote::new("1", "https://b.example/")
        };
        assert_eq!(
            differences(&want, &there),
            [
                "url",
                "events",
                "description",
                "headers",
                "retry",
                "basicAuthRef",
                "active"
            ]
        );
    }

    #[test]
    fn a_delay_is_rounded_up_to_whole_seconds() {
        let retry = |ms| Retry {
            initial_delay: Duration::from_millis(ms),
            ..Retry::default()
        };
        assert!(same_retry(retry(1500), retry(2000)));
        assert!(!same_retry(retry(2500), retry(2000)));
    }
}
