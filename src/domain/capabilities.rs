//! What an upstream can do, as data. One constant of this type stands in each provider's file; the table of
//! the design and of `docs/providers` is this type in prose.

use crate::api::webhook::{SecretSource, WebhookSpec};

/// How a registration is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The upstream makes the id when the registration is created: a second create makes a second object.
    Assigned,
    /// The id is the target of the spec: there is one registration per target, a second create overwrites it
    /// or is refused.
    ByTarget,
}

/// What `spec.target` may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRule {
    /// The upstream has no such thing: it must be left out.
    Unsupported,
    /// Required, a positive whole number (Conpeek's application id).
    PositiveInteger,
    /// Required, any text (Autocosmos' topic); sent as one percent-encoded path segment.
    Opaque,
    /// Optional: `organisation`, `key` or `key:<id>` (ricloud): what uses the registration once it is valid.
    Use,
}

/// Who makes the signing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRule {
    /// Deliveries are not signed.
    None,
    /// The user gives it; lengths in characters.
    Given {
        /// Shortest accepted.
        min: usize,
        /// Longest accepted.
        max: usize,
    },
    /// The upstream makes it; the operator writes it into the Secret.
    MadeByUpstream,
}

impl SecretRule {
    /// Who makes the signing secret of a spec, with what is left out resolved. `None`: there is no signing secret.
    /// Only for a spec that [`check`](super::check::check) has nothing against.
    #[must_use]
    pub fn source(self, spec: &WebhookSpec) -> Option<SecretSource> {
        let asked = spec.secret_policy.as_ref().and_then(|policy| policy.source);
        match (self, asked) {
            (Self::None, _) => None,
            (Self::MadeByUpstream, _) => Some(SecretSource::Upstream),
            (Self::Given { .. }, Some(SecretSource::Generate)) => Some(SecretSource::Generate),
            (Self::Given { .. }, _) => spec.secret_ref.as_ref().map(|_| SecretSource::Existing),
        }
    }
}

/// What becomes of a registration whose Webhook is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalRule {
    /// The upstream has no way: it is left in place, with an Event.
    LeftInPlace,
    /// A delete call that the public documents do not show; whether it works is learned.
    UndocumentedDelete,
    /// A delete call, or switching off where that is refused.
    DeleteOrSwitchOff,
}

/// What can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRule {
    /// A read of one object that the public documents do not show; whether it works is learned.
    UndocumentedOne,
    /// Only the list of all.
    ListOnly,
    /// One by id, and the list.
    OneAndList,
    /// One by its key, no list.
    OneByKey,
}

/// What one upstream can do. All limits are the upstream's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How a registration is found again.
    pub identity: Identity,
    /// What `spec.target` may hold.
    pub target: TargetRule,
    /// Who makes the signing secret.
    pub secret: SecretRule,
    /// Whether events are selected: then at least one is required.
    pub events: bool,
    /// Most headers that can be sent with a delivery; 0: none.
    pub max_headers: usize,
    /// Header names (in lower case, matched as prefixes) that the upstream sets itself.
    pub reserved_headers: &'static [&'static str],
    /// Whether redelivery can be configured.
    pub retry: bool,
    /// Whether deliveries may carry Basic authentication.
    pub basic_auth: bool,
    /// Longest description in characters; 0: none.
    pub max_description: usize,
    /// Longest URL in characters.
    pub max_url: usize,
    /// Whether a registration can be switched off and on again (`active: false`).
    pub switch: bool,
    /// Whether the upstream has a test of its own.
    pub upstream_test: bool,
    /// What can be read back.
    pub read: ReadRule,
    /// What becomes of it on deletion.
    pub removal: RemovalRule,
    /// Whether some of what is written can never be read back, so that it is compared by hash only.
    pub write_only_values: bool,
    /// Requests per second, burst and calls at once where the provider object sets none.
    pub default_rate: (u32, u32, u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::webhook::{ProviderKind, ProviderRef, SecretPolicy, SecretRef};

    #[test]
    fn what_is_left_out_of_the_policy_is_what_is_natural_for_the_upstream() {
        let given = SecretRule::Given { min: 16, max: 256 };
        let spec = |named: bool, source: Option<SecretSource>| {
            let provider = ProviderRef {
                kind: ProviderKind::WebhookProvider,
                name: "p".into(),
            };
            let reference = SecretRef {
                name: "s".into(),
                key: "secret".into(),
            };
            WebhookSpec {
                secret_ref: named.then_some(reference),
                secret_policy: source.map(|source| SecretPolicy {
                    source: Some(source),
                    rotation: None,
                }),
                ..WebhookSpec::new(provider, "https://a.example/")
            }
        };
        let (generate, existing) = (Some(SecretSource::Generate), Some(SecretSource::Existing));
        for (rule, named, asked, source) in [
            (given, false, None, None),
            (given, true, None, existing),
            (given, true, existing, existing),
            (given, true, generate, generate),
            // It has a name of its own then.
            (given, false, generate, generate),
            (
                SecretRule::MadeByUpstream,
                false,
                None,
                Some(SecretSource::Upstream),
            ),
            (
                SecretRule::MadeByUpstream,
                true,
                None,
                Some(SecretSource::Upstream),
            ),
            (SecretRule::None, false, None, None),
        ] {
            assert_eq!(
                rule.source(&spec(named, asked)),
                source,
                "{rule:?} {named} {asked:?}"
            );
        }
    }
}
