//! Status of a `Webhook`: what the operator found and did. Written by the operator only.
//!
//! The schema is deliberately loose (no limits beyond types): a status the apiserver refuses would hide the
//! very problem it wants to tell. Enums have an empty description in the schema for the reason given in
//! [`super::webhook`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{readable, schema, webhook::TestMode};

/// What is known about a registration. Absent fields are unknown or do not apply.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookStatus {
    /// Generation of the spec that this status speaks of; -1 before the operator has looked at the Webhook.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub observed_generation: Option<i64>,

    /// State of the registration. `new`: registered, not yet tested. `valid`: the last test passed.
    /// `invalid`: the last test failed. `deactivated`: switched off at the upstream.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub state: Option<State>,

    /// Who switched the registration off, while it is: `Spec` (`spec.active: false`), `TestFailure`
    /// (`spec.test.onFailure`) or `Upstream` (somebody else).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub deactivated_by: Option<DeactivatedBy>,

    /// The upstream's id of the registration, or the target for upstreams keyed by target.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub id: Option<String>,

    /// The URL that is registered at the upstream now.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub url: Option<String>,

    /// When something was last written at the upstream or found different there.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_sync_time: Option<Time>,

    /// Value of the annotation `webhook-operator.dev/reconcile-requested-at` that was handled last.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_handled_reconcile_at: Option<String>,

    /// Value of the annotation `webhook-operator.dev/test-requested-at` that was handled last.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_handled_test_at: Option<String>,

    /// Value of the annotation `webhook-operator.dev/rotate-requested-at` that was handled last.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_handled_rotate_at: Option<String>,

    /// Keyed hash of what was applied at the upstream, secrets included. Never the values themselves.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub applied_hash: Option<String>,

    /// What was found changed at the upstream.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub drift: Option<Drift>,

    /// The last 5 spans in which deliveries cannot have arrived, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub gaps: Vec<Gap>,

    /// Since when the provider's `deletionLimit` holds a removal back. It stays until that removal is done.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub deletion_held: Option<DeletionHeld>,

    /// How the rotation of the signing secret stands.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub rotation: Option<RotationStatus>,

    /// The last test and those before it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub test: Option<TestStatus>,

    /// Ready, Synced, Tested, SecretReady, and while they hold Reconciling and Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// State of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "")]
pub enum State {
    /// Registered, not yet tested.
    New,
    /// The last test passed.
    Valid,
    /// The last test failed.
    Invalid,
    /// Switched off at the upstream.
    Deactivated,
}

impl State {
    /// Every state, for metrics that report the count of each.
    pub const ALL: [Self; 4] = [Self::New, Self::Valid, Self::Invalid, Self::Deactivated];

    /// The word in status, column and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Deactivated => "deactivated",
        }
    }
}

/// Who switched a registration off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(description = "")]
pub enum DeactivatedBy {
    /// `spec.active: false`.
    Spec,
    /// Failed tests and `spec.test.onFailure: Deactivate`.
    TestFailure,
    /// Somebody else.
    Upstream,
}

/// A removal that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionHeld {
    /// Since when.
    pub since: Time,

    /// The provider's `lastHandledConfirmDeletions` at that time. As soon as it has another value the removal goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<String>,
}

/// What was found changed at the upstream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drift {
    /// The fields of the spec that the upstream did not agree with when it was last found different.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub fields: Vec<String>,

    /// When the upstream was last found different.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_time: Option<Time>,

    /// How often the upstream was put right since the Webhook was created.
    #[serde(deserialize_with = "readable::part")]
    pub corrections: i64,
}

/// A span in which deliveries cannot have arrived.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When deliveries were last known to arrive, or when the cause was first seen.
    pub from: Time,

    /// When deliveries could arrive again; absent while they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,

    /// The cause in one PascalCase word: `DeactivatedUpstream`, `TestFailure`, `NotRegistered`, `UrlChanged`, or the
    /// reason of the condition Tested with which a test failed.
    pub reason: String,
}

/// How the rotation of the signing secret stands.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RotationStatus {
    /// `Idle`: no rotation under way. `Settling`: the new secret is in `<key>.next`, at last in `<key>`, and the
    /// upstream still signs with the old one. `Overlapping`: the upstream signs with the new one, the old one is
    /// in `<key>.previous`.
    #[serde(deserialize_with = "readable::part")]
    pub phase: RotationPhase,

    /// When the upstream began to sign with the secret that it has.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_time: Option<Time>,

    /// When the old secret leaves `<key>.previous`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub previous_expires: Option<Time>,
}

/// Steps of a rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RotationPhase {
    /// No rotation under way.
    #[default]
    Idle,
    /// The new secret is published, the upstream signs with the old one.
    Settling,
    /// The new secret signs, the old one is still published.
    Overlapping,
}

/// The last test and those before it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TestStatus {
    /// When the last test ended.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub last_time: Option<Time>,

    /// Whether it passed.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub result: Option<TestResult>,

    /// Who tested: `Upstream` or `Probe`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub mode: Option<TestMode>,

    /// Why it ended as it did: a reason of the condition Tested.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub reason: Option<String>,

    /// HTTP status that the receiver answered with, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub http_status: Option<i32>,

    /// Time from sending the test to the answer, in milliseconds, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub latency_milliseconds: Option<i64>,

    /// What happened, for people.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub message: Option<String>,

    /// Failed tests in a row, since the last passed one, the last change of the spec, or since the registration was
    /// switched on again after failed tests.
    #[serde(deserialize_with = "readable::part")]
    pub consecutive_failures: i32,

    /// Whether the receiver accepted a wrongly signed probe; absent if none was sent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "readable::part")]
    pub forged_accepted: Option<bool>,

    /// The last tests, newest first, as many as `spec.test.historyLimit` says.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "readable::items")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<TestRecord>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(description = "")]
pub enum TestResult {
    /// The receiver took the delivery.
    Passed,
    /// It did not.
    Failed,
}

impl TestResult {
    /// The word in status and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Failed => "Failed",
        }
    }
}

/// One test of the past.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestRecord {
    /// When the test ended.
    pub time: Time,

    /// Whether it passed.
    pub result: TestResult,

    /// Who tested: `Upstream` or `Probe`.
    pub mode: TestMode,

    /// Why it ended as it did: a reason of the condition Tested.
    pub reason: String,

    /// HTTP status that the receiver answered with, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i32>,

    /// Time from sending the test to the answer, in milliseconds, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_milliseconds: Option<i64>,
}
