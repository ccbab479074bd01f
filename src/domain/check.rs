//! A spec against what its upstream can do: the same function for the operator and for the offline check.
//!
//! What the schema already refuses is not repeated here, except where a manifest may have passed an older schema
//! and a wrong value would do harm.

use super::{
    capabilities::{Capabilities, SecretRule, TargetRule},
    testing::Tester,
};
use crate::api::{
    Unread,
    webhook::{
        DeletionPolicy, OnTestFailure, OnUpstreamDeactivation, SecretSource, TestMode, TestSpec, WebhookSpec,
    },
};

/// What kind of problem it is; the name is the reason of `Ready` and `Stalled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The value cannot be.
    InvalidSpec,
    /// The upstream has no such thing, or this version of the operator does not have it yet.
    UnsupportedField,
}

/// One problem of a spec: which field, what is wrong with it, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// Path of the field below `spec`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "spec.{}: {}", self.field, self.message)
    }
}

/// Collects problems; `upstream` is the name that messages use.
struct Findings<'a> {
    upstream: &'a str,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn invalid(&mut self, field: &str, message: impl Into<String>) {
        let (kind, field) = (ProblemKind::InvalidSpec, field.to_owned());
        self.problems.push(Problem {
            kind,
            field,
            message: message.into(),
        });
    }

    fn unsupported(&mut self, field: &str) {
        let message = format!("{} has no such thing; remove it", self.upstream);
        self.problems.push(Problem {
            kind: ProblemKind::UnsupportedField,
            field: field.to_owned(),
            message,
        });
    }

    fn not_yet(&mut self, field: &str) {
        let message = "this version of the operator does not have it yet; remove it".to_owned();
        self.problems.push(Problem {
            kind: ProblemKind::UnsupportedField,
            field: field.to_owned(),
            message,
        });
    }
}

/// What cannot be read of a spec. It comes before [`check`]: what is read of such a spec is not what it says.
#[must_use]
pub fn check_unread(unread: &[Unread]) -> Vec<Problem> {
    unread
        .iter()
        .map(|unread| Problem {
            kind: ProblemKind::UnsupportedField,
            field: unread.field.clone(),
            message: unread.to_string(),
        })
        .collect()
}

/// Problems in one text; `None`: there are none.
#[must_use]
pub fn in_words(problems: &[Problem]) -> Option<String> {
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// All problems of a spec at an upstream with these capabilities, in the order of the spec's fields. `upstream` is
/// the provider's type.
#[must_use]
pub fn check(spec: &WebhookSpec, capabilities: &Capabilities, upstream: &str) -> Vec<Problem> {
    let mut found = Findings {
        upstream,
        problems: Vec::new(),
    };
    // An empty one is as good as left out.
    check_target(spec.target(), capabilities.target, &mut found);
    check_url(&spec.url, capabilities.max_url, &mut found);
    check_events(spec, capabilities, &mut found);
    check_texts(spec, capabilities, &mut found);
    check_secret(spec, capabilities, &mut found);
    check_headers(spec, capabilities, &mut found);
    check_switch(spec, capabilities, &mut found);
    check_test(&spec.test, capabilities, &mut found);
    check_forgery(spec, capabilities, &mut found);
    found.problems
}

fn check_target(target: Option<&str>, rule: TargetRule, found: &mut Findings<'_>) {
    match (rule, target) {
        (TargetRule::Unsupported, Some(_)) => found.unsupported("target"),
        (TargetRule::PositiveInteger | TargetRule::Opaque, None) => {
            found.invalid(
                "target",
                "it is required: it names what the webhook hangs on at the upstream; set it",
            );
        }
        (TargetRule::PositiveInteger, Some(text)) => {
            let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
            if !plain || text.parse::<u64>().is_err() {
                found.invalid(
                    "target",
                    "it must be the application's id, a positive whole number such as \"9\"",
                );
            }
        }
        (TargetRule::Opaque, Some(text)) => {
            // As path segments these would mean another path.
            if text.is_empty() || text == "." || text == ".." || text.chars().any(char::is_control) {
                found.invalid(
                    "target",
                    "it must be the name of a topic, not empty, \".\" or \"..\"",
                );
            }
        }
        (TargetRule::Use, Some(text)) => {
            let key = text.strip_prefix("key:");
            if !matches!(text, "organisation" | "key") && key.is_none_or(str::is_empty) {
                found.invalid("target", "it must be organisation, key or key:<id>, or left out");
            }
        }
        (TargetRule::Unsupported | TargetRule::Use, None) => {}
    }
}

fn check_url(text: &str, longest: usize, found: &mut Findings<'_>) {
    let length = text.chars().count();
    if length > longest {
        let upstream = found.upstream;
        found.invalid(
            "url",
            format!("{upstream} takes at most {longest} characters, this has {length}; shorten it"),
        );
    }
    let sound = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if !sound {
        found.invalid(
            "url",
            "it must be absolute, http or https, without user name and password",
        );
    }
}

fn check_events(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    if !capabilities.events {
        if !spec.events.is_empty() {
            found.unsupported("events");
        }
        return;
    }
    if spec.events.is_empty() {
        found.invalid("events", "at least one is required; name the events to receive");
    }
    let sound = |event: &String| {
        event.starts_with(|first: char| first.is_ascii_uppercase())
            && event
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if let Some(at) = spec.events.iter().position(|event| !sound(event)) {
        found.invalid(
            &format!("events[{at}]"),
            "it must be written as the upstream writes it: capitals, digits and underscores, such as TICKET_CREATED",
        );
    }
}

fn check_texts(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    if let Some(text) = spec.description.as_deref().filter(|text| !text.is_empty()) {
        let length = text.chars().count();
        match capabilities.max_description {
            0 => found.unsupported("description"),
            longest if length > longest => {
                found.invalid(
                    "description",
                    format!("at most {longest} characters, this has {length}; shorten it"),
                );
            }
            _ => {}
        }
    }
    if spec.basic_auth_ref.is_some() && !capabilities.basic_auth {
        found.unsupported("basicAuthRef");
    }
    if spec.retry.is_some() && !capabilities.retry {
        found.unsupported("retry");
    }
}

fn check_secret(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    let source = spec.secret_policy.as_ref().and_then(|policy| policy.source);
    match capabilities.secret {
        SecretRule::None => {
            if spec.secret_ref.is_some() {
                found.unsupported("secretRef");
            }
            if source.is_some() {
                found.unsupported("secretPolicy.source");
            }
        }
        SecretRule::Given { .. } => match source {
            Some(SecretSource::Existing) if spec.secret_ref.is_none() => found.invalid(
                "secretPolicy.source",
                "Existing needs the Secret to read; set secretRef, or use Generate to have one made",
            ),
            None | Some(SecretSource::Existing | SecretSource::Generate) => {}
            Some(SecretSource::Upstream) => found.unsupported("secretPolicy.source"),
        },
        SecretRule::MadeByUpstream => match source {
            None | Some(SecretSource::Upstream) => {}
            Some(SecretSource::Existing | SecretSource::Generate) => found.invalid(
                "secretPolicy.source",
                "the upstream makes the secret, and the operator writes it into secretRef; remove the source",
            ),
        },
    }
}

fn check_headers(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    let count = spec.headers.len();
    match capabilities.max_headers {
        0 if count > 0 => found.unsupported("headers"),
        most if count > most => {
            let upstream = found.upstream;
            found.invalid(
                "headers",
                format!("{upstream} takes at most {most}, this has {count}; remove some"),
            );
        }
        _ => {}
    }
    for (at, header) in spec.headers.iter().enumerate() {
        let name = header.name.to_ascii_lowercase();
        if capabilities
            .reserved_headers
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            found.invalid(
                &format!("headers[{at}].name"),
                "the upstream sets this header itself; use another name",
            );
        }
    }
}

fn check_switch(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    if capabilities.switch {
        return;
    }
    let upstream = found.upstream;
    if spec.on_upstream_deactivation == OnUpstreamDeactivation::Reactivate {
        found.unsupported("onUpstreamDeactivation");
    }
    if !spec.active {
        let message =
            format!("{upstream} cannot switch a webhook off; set it to true, or delete the Webhook");
        let field = "active".to_owned();
        found.problems.push(Problem {
            kind: ProblemKind::UnsupportedField,
            field,
            message,
        });
    }
    if spec.deletion_policy == DeletionPolicy::Deactivate {
        let message = format!("{upstream} cannot switch a webhook off; use Delete or Orphan");
        let field = "deletionPolicy".to_owned();
        found.problems.push(Problem {
            kind: ProblemKind::UnsupportedField,
            field,
            message,
        });
    }
}

fn check_test(test: &TestSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    match test.mode {
        TestMode::Auto | TestMode::Probe | TestMode::None => {}
        TestMode::Upstream if capabilities.upstream_test => {}
        TestMode::Upstream => {
            let message = format!(
                "{} has no test of its own; use Probe, which the operator sends, or Auto",
                found.upstream
            );
            found.problems.push(Problem {
                kind: ProblemKind::UnsupportedField,
                field: "test.mode".to_owned(),
                message,
            });
        }
    }
    let by_upstream = Tester::of(test.mode, capabilities.upstream_test) == Tester::Upstream;
    if test.interval.is_some() && by_upstream {
        found.not_yet("test.interval");
    }
    if test.on_failure == OnTestFailure::Deactivate && !capabilities.switch {
        let message = format!("{} cannot switch a webhook off; remove it", found.upstream);
        let field = "test.onFailure".to_owned();
        found.problems.push(Problem {
            kind: ProblemKind::UnsupportedField,
            field,
            message,
        });
    }
}

/// Only what is signed can be forged, and only the operator forges.
fn check_forgery(spec: &WebhookSpec, capabilities: &Capabilities, found: &mut Findings<'_>) {
    const FIELD: &str = "test.checkForgery";
    if !spec.test.check_forgery {
        return;
    }
    let why = match capabilities.secret {
        SecretRule::None => return found.unsupported(FIELD),
        SecretRule::Given { .. } if spec.secret_ref.is_none() => {
            "without secretRef nothing is signed, so nothing can be forged; set secretRef, or remove it"
        }
        _ if Tester::of(spec.test.mode, capabilities.upstream_test) == Tester::Upstream => {
            "the upstream's own test is never forged; set test.mode to Probe, or remove it"
        }
        SecretRule::Given { .. } | SecretRule::MadeByUpstream => return,
    };
    found.problems.push(Problem {
        kind: ProblemKind::UnsupportedField,
        field: FIELD.to_owned(),
        message: why.to_owned(),
    });
}

#[cfg(test)]
mod tests;
