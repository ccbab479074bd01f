//! Status of both kinds of providers. Written by the operator only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{readable, schema};

/// What is known about an account at an upstream. Absent fields are unknown or do not apply.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderStatus {
    /// Generation of the spec that this status speaks of; -1 before the operator has looked at the provider.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub observed_generation: Option<i64>,

    /// What Webhooks of this provider can use. A field that is not supported is refused when set.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub capabilities: Option<Capabilities>,

    /// What was learned about calls that the upstream's public documents do not show. Forgotten after an hour
    /// and when the provider changes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["subject"]
    ))]
    pub findings: Vec<Finding>,

    /// How many Webhooks use this provider. Written at most every 10 seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub webhooks: Option<WebhookCounts>,

    /// The running window of `spec.deletionLimit`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub deletions: Option<DeletionWindow>,

    /// Value of the annotation `webhook-operator.dev/confirm-deletions` that was handled last.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_handled_confirm_deletions: Option<String>,

    /// Ready: whether the account can be used.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What Webhooks of a provider can use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether `spec.target` is used.
    pub target: Support,

    /// Whether `spec.events` is used.
    pub events: Support,

    /// Who makes the signing secret: `Existing` the user, `Upstream` the upstream. Absent: deliveries are not
    /// signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<super::webhook::SecretSource>,

    /// Most headers of a Webhook; 0 for none.
    pub max_headers: i32,

    /// Most characters of `spec.url`.
    pub max_url_length: i32,

    /// Most characters of `spec.description`; 0 for no description.
    pub max_description_length: i32,

    /// Whether `spec.retry` is used.
    pub retry: bool,

    /// Whether `spec.basicAuthRef` is used.
    pub basic_auth: bool,

    /// Whether a registration can be switched off (`spec.active: false`).
    pub deactivate: bool,

    /// Whether the upstream tests deliveries itself.
    pub upstream_test: bool,

    /// What deleting a Webhook does at the upstream.
    pub delete: DeleteSupport,
}

/// How a field is used by an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Support {
    /// Refused when set.
    Unsupported,
    /// May be set.
    Optional,
    /// Must be set.
    Required,
}

/// What deleting a Webhook does at an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum DeleteSupport {
    /// The registration is deleted.
    Deleted,
    /// The registration is deleted by a call that public documents do not show; where it is missing, the
    /// registration is left in place.
    Undocumented,
    /// The registration is switched off and stays.
    SwitchedOff,
    /// The registration is left in place.
    LeftInPlace,
}

/// Something learned about an upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was tried: the call `Read`, `Update` or `Delete`, or the `BodyStyle` of answers.
    pub subject: FindingSubject,

    /// What came out: the call `Works` or is `Missing`; the body is `Flat` or `Wrapped`.
    pub result: FindingResult,

    /// When it was learned.
    pub time: Time,
}

/// What can be learned about an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FindingSubject {
    /// Reading a registration back.
    Read,
    /// Changing a registration.
    Update,
    /// Deleting a registration.
    Delete,
    /// How bodies look.
    BodyStyle,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FindingResult {
    /// The call is there.
    Works,
    /// The call is not there.
    Missing,
    /// Bodies hold the fields directly.
    Flat,
    /// Bodies hold the fields inside one more object.
    Wrapped,
}

/// How many Webhooks use a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCounts {
    /// All Webhooks that name this provider.
    pub total: i32,

    /// Those of them that are Ready.
    pub ready: i32,
}

/// The running window of a deletion limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletionWindow {
    /// Removals that count towards the limit, oldest first; those of about a sixtieth of the window stand together.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub recent: Vec<RecentRemovals>,

    /// Webhooks whose removal is held back now. Written at most every 10 seconds.
    #[serde(deserialize_with = "readable::part")]
    pub held: i32,
}

/// Removals of about the same time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentRemovals {
    /// The latest time at which they were made. They are counted before they are made, so it may lie a little ahead.
    pub time: Time,

    /// How many.
    pub removals: i32,
}
