//! What an upstream can do, as data. One constant of this type stands in each provider's file; the table of
//! the design and of `docs/providers` is this type in prose.

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
