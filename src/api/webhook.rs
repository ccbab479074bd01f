//! Kind `Webhook`: what a user asks for. The state of affairs is in [`super::webhook_status`].
//!
//! Doc comments of fields are what `kubectl explain` shows, so they speak to users and give unit, default
//! and limits. Defaults stand in the schema and in serde alike: a value read from a minimal manifest equals
//! the one that the apiserver serves. Rules that need the provider's abilities are not here.
//!
//! Enums that stand in an `Option` somewhere have an empty description in the schema, because kube would let
//! it replace that of the field.

#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns repeat `type_` and `priority`, each inside its own `printcolumn`"
)]

use std::fmt;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::api::{
    ApiDuration, Unread, WebhookStatus,
    schema::{
        data_key, duration_between, each_one_line, http_url, immutable, immutable_optional, object_name,
        one_line, rule, rule_at,
    },
    unread::Spec,
};

pub use crate::api::webhook_delivery::{Backoff, BackoffType, OnTestFailure, Retry, TestMode, TestSpec};

/// What a Webhook asks for: one registration at one upstream.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "webhook-operator.dev",
    version = "v1alpha1",
    kind = "Webhook",
    doc = "A Webhook is one registration at one upstream: the operator registers `spec.url` there, keeps the registration in step with this manifest, tests it, and takes it away when the Webhook is deleted.",
    namespaced,
    status = "WebhookStatus",
    derive = "PartialEq",
    shortname = "wh",
    category = "webhook-operator",
    printcolumn(
        name = "PROVIDER",
        type_ = "string",
        json_path = ".spec.providerRef.name",
        description = "Account at the upstream"
    ),
    printcolumn(
        name = "TARGET",
        type_ = "string",
        json_path = ".spec.target",
        description = "What the webhook hangs on at the upstream"
    ),
    printcolumn(
        name = "STATE",
        type_ = "string",
        json_path = ".status.state",
        description = "State of the registration: new, valid, invalid or deactivated"
    ),
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the upstream is as the spec says and the test passed"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is ready or not"
    ),
    printcolumn(
        name = "TESTED",
        type_ = "date",
        json_path = ".status.test.lastTime",
        description = "Time since the last test"
    ),
    printcolumn(
        name = "AGE",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    ),
    printcolumn(
        name = "ID",
        type_ = "string",
        json_path = ".status.id",
        priority = 1,
        description = "The upstream's id"
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".spec.url",
        priority = 1,
        description = "Where deliveries go"
    ),
    printcolumn(
        name = "EVENTS",
        type_ = "string",
        json_path = ".spec.events",
        priority = 1,
        description = "Which events are delivered"
    )
)]
// Written and read by what is derived, except that it is read in any case: see `unread`.
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("x-kubernetes-validations" = [immutable_optional("target")]))]
pub struct WebhookSpec {
    /// The account at the upstream that the webhook is registered with. Immutable.
    pub provider_ref: ProviderRef,

    /// What the webhook hangs on at the upstream. Conpeek: the application id, required. Autocosmos: the
    /// topic, required. Ricloud: empty, `organisation`, `key` or `key:<id>`, made effective there once the
    /// webhook is valid. Thulium: not used. Up to 253 characters. Immutable, adding and removing included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = [one_line("target")]))]
    pub target: Option<String>,

    /// Where deliveries go: an absolute http or https URL without user info, 1 to 2048 characters.
    /// Registered at the upstream as written.
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = http_url("url", "https://hooks.example.com/orders"))
    )]
    pub url: String,

    /// Which events are delivered, in the upstream's words (Thulium: actions). A set of up to 128 names of 1
    /// to 128 characters. Only for upstreams that let one choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        inner(length(min = 1, max = 128)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = [each_one_line("events")])
    )]
    pub events: Vec<String>,

    /// A text shown at the upstream where it has a place for it. Up to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-validations" = [one_line("description")]))]
    pub description: Option<String>,

    /// Whether the upstream delivers. `false`: registered but switched off at the upstream. Default: true.
    #[serde(default = "yes")]
    pub active: bool,

    /// The signing secret, a Secret in the namespace of the Webhook. Read where the user gives the secret
    /// (Autocosmos), written where the upstream (Ricloud) or the operator (`secretPolicy`) makes it; one written
    /// without this field is named `<webhook>-signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Where the signing secret comes from and how it is rotated. Default: what is natural for the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_policy: Option<SecretPolicy>,

    /// User name and password that the upstream sends as Basic authentication with each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth_ref: Option<BasicAuthRef>,

    /// Headers sent with each delivery, up to 32, their names unique ignoring case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [rule(
                "self.all(h, self.exists_one(g, g.name.lowerAscii() == h.name.lowerAscii()))",
                "headers must have unique names, upper and lower case being the same; remove the duplicate"
            )]
        )
    )]
    pub headers: Vec<Header>,

    /// How the upstream redelivers what was not accepted. Left out: the upstream's own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// What becomes of the registration when the Webhook is deleted. `Delete`: the upstream's delete; where
    /// it has none, switched off. `Deactivate`: switched off and kept. `Orphan`: left untouched. Default:
    /// Delete.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// What to do with a registration that is already there at the upstream. `Never`: a conflict.
    /// `IfMatching`: taken over if it has the same content and nobody else holds it. `Always`: taken over
    /// and changed. Default: IfMatching.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// What to do when somebody changed the registration at the upstream. `Correct`: put right. `Report`:
    /// only said in the status. Default: Correct.
    #[serde(default)]
    pub drift_policy: DriftPolicy,

    /// What to do when somebody else switched the registration off at the upstream. `Report`: only said in
    /// the status. `Reactivate`: switched on again. Default: Report.
    #[serde(default)]
    pub on_upstream_deactivation: OnUpstreamDeactivation,

    /// How often the upstream is read back: a duration from 30s to 24h. Default: 10m.
    #[serde(default = "default_interval")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("interval", "30s", "24h")]))]
    pub interval: ApiDuration,

    /// Stops the operator's calls to the upstream for this Webhook. A Webhook deleted while suspended leaves
    /// its registration behind, as with `deletionPolicy: Orphan`. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// How deliveries are tested.
    #[serde(default)]
    pub test: TestSpec,

    /// What this version of the operator cannot read, and so has left out. Empty: the spec is whole.
    #[serde(skip)]
    pub unread: Vec<Unread>,
}

/// The provider of a Webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRef {
    /// Kind of the provider: `WebhookProvider` in the namespace of the Webhook, or `ClusterWebhookProvider`.
    /// Immutable. Default: WebhookProvider.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [immutable("providerRef.kind")]))]
    pub kind: ProviderKind,

    /// Name of the provider. Immutable.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [immutable("providerRef.name"), object_name("providerRef.name")])
    )]
    pub name: String,
}

/// Kinds of providers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum ProviderKind {
    /// In the namespace of the Webhook.
    #[default]
    WebhookProvider,
    /// Shared by namespaces.
    ClusterWebhookProvider,
}

/// A key of a Secret in the namespace of the Webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("secretRef.name")])
    )]
    pub name: String,

    /// Key of the signing secret in the Secret's data. While a secret is rotated, `<key>.next` and
    /// `<key>.previous` stand beside it. Up to 244 characters. Default: secret.
    #[serde(default = "default_secret_key")]
    #[schemars(
        // Leaves room for the suffixes within the 253 characters that Kubernetes gives a key.
        length(min = 1, max = 244),
        extend("x-kubernetes-validations" = [data_key("secretRef.key")])
    )]
    pub key: String,
}

/// Where the signing secret comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule_at(
    ".rotation",
    "!has(self.rotation) || (has(self.source) && self.source == 'Generate')",
    "secretPolicy.rotation works only with secrets that the operator makes; set secretPolicy.source to Generate or remove rotation"
)]))]
pub struct SecretPolicy {
    /// `Existing`: the user writes the Secret. `Generate`: the operator makes the secret if it is missing; only
    /// where the user gives it (Autocosmos). `Upstream`: the upstream makes it and the operator writes it to the
    /// Secret (Ricloud). Default: what is natural for the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SecretSource>,

    /// Makes a new secret at regular times; only with source `Generate`. Left out: rotated only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// Who makes a signing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(description = "")]
pub enum SecretSource {
    /// The user.
    Existing,
    /// The operator.
    Generate,
    /// The upstream.
    Upstream,
}

/// Regular rotation of the signing secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How old a secret may become: a duration from 1m to 8784h.
    #[schemars(extend("x-kubernetes-validations" = [duration_between("rotation.interval", "1m", "8784h")]))]
    pub interval: ApiDuration,

    /// How long the old secret stays in the Secret under `<key>.previous`, for receivers to accept both: a
    /// duration from 0s to 8784h. Default: 24h.
    #[serde(default = "default_overlap")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("rotation.overlap", "0s", "8784h")]))]
    pub overlap: ApiDuration,

    /// How long the new secret stands in the Secret under `<key>.next` before the upstream signs with it, for
    /// receivers to learn it: a duration from 0s to 24h. Default: 2m.
    #[serde(default = "default_settle")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("rotation.settle", "0s", "24h")]))]
    pub settle: ApiDuration,
}

/// A Secret with a user name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuthRef {
    /// Name of a Secret of type `kubernetes.io/basic-auth` in the namespace of the Webhook.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("basicAuthRef.name")])
    )]
    pub name: String,
}

/// A header of each delivery.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "has(self.value) != has(self.valueFrom)",
        "headers: each header needs exactly one of value and valueFrom; set one and remove the other"
    ),
    rule_at(
        ".value",
        "!has(self.value) || !(self.name.lowerAscii() in ['authorization', 'cookie', 'x-api-key'])",
        "headers: a value of Authorization, Cookie or X-Api-Key is a credential; put it into a Secret and use valueFrom.secretKeyRef"
    )
]))]
pub struct Header {
    /// Name of the header, 1 to 128 characters that HTTP allows in header names. Not `Host`,
    /// `Content-Length`, `Connection` or `Transfer-Encoding`, which belong to the connection.
    #[schemars(
        length(min = 1, max = 128),
        extend("x-kubernetes-validations" = [
            rule(
                r#"self.matches(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")"#,
                "headers: name must be an HTTP header name: letters, digits and !#$%&'*+-.^_`|~ without spaces or colons"
            ),
            rule(
                "!(self.lowerAscii() in ['host', 'content-length', 'connection', 'transfer-encoding'])",
                "headers: name must not be Host, Content-Length, Connection or Transfer-Encoding, which belong to the connection; remove the header"
            )
        ])
    )]
    pub name: String,

    /// The value, up to 4096 characters without line breaks. Everybody who may read the Webhook can read it.
    /// Not together with `valueFrom`; not for `Authorization`, `Cookie` and `X-Api-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 4096),
        extend("x-kubernetes-validations" = [rule(
            r#"!self.matches(r"[\x00-\x08\x0a-\x1f\x7f]")"#,
            "headers: value must not hold line breaks or other control characters; write it on one line"
        )])
    )]
    pub value: Option<String>,

    /// Takes the value from a Secret. Not together with `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderValueFrom>,
}

/// Hides the value: people put tokens into headers of any name.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("name", &self.name)
            .field("value", &self.value.as_ref().map(|_| format_args!("***")))
            .field("value_from", &self.value_from)
            .finish()
    }
}

/// Where the value of a header comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderValueFrom {
    /// A key of a Secret in the namespace of the Webhook.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret in the namespace of the Webhook, both named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("secretKeyRef.name")])
    )]
    pub name: String,

    /// Key in the Secret's data.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [data_key("secretKeyRef.key")])
    )]
    pub key: String,
}

/// What becomes of the registration when its Webhook is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Deleted; where the upstream cannot, switched off.
    #[default]
    Delete,
    /// Switched off and kept.
    Deactivate,
    /// Untouched.
    Orphan,
}

/// What to do with a registration that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// A conflict.
    Never,
    /// Taken over if it has the same content.
    #[default]
    IfMatching,
    /// Taken over and changed.
    Always,
}

/// What to do when the registration was changed at the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum DriftPolicy {
    /// Put right.
    #[default]
    Correct,
    /// Only said in the status.
    Report,
}

/// What to do when somebody else switched the registration off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum OnUpstreamDeactivation {
    /// Only said in the status.
    #[default]
    Report,
    /// Switched on again.
    Reactivate,
}

const fn yes() -> bool {
    true
}

fn default_secret_key() -> String {
    "secret".to_owned()
}

const fn default_interval() -> ApiDuration {
    ApiDuration::from_secs(10 * 60)
}

const fn default_overlap() -> ApiDuration {
    Rotation::OVERLAP
}

const fn default_settle() -> ApiDuration {
    Rotation::SETTLE
}

impl Rotation {
    /// Default of `overlap`.
    pub const OVERLAP: ApiDuration = ApiDuration::from_secs(24 * 3600);

    /// Default of `settle`.
    pub const SETTLE: ApiDuration = ApiDuration::from_secs(2 * 60);
}

impl WebhookSpec {
    /// A spec with everything but provider and URL at its default.
    #[must_use]
    pub fn new(provider_ref: ProviderRef, url: impl Into<String>) -> Self {
        Self {
            provider_ref,
            target: None,
            url: url.into(),
            events: Vec::new(),
            description: None,
            active: true,
            secret_ref: None,
            secret_policy: None,
            basic_auth_ref: None,
            headers: Vec::new(),
            retry: None,
            deletion_policy: DeletionPolicy::default(),
            adoption_policy: AdoptionPolicy::default(),
            drift_policy: DriftPolicy::default(),
            on_upstream_deactivation: OnUpstreamDeactivation::default(),
            interval: default_interval(),
            suspend: false,
            test: TestSpec::default(),
            unread: Vec::new(),
        }
    }

    /// The target, with the empty one taken for none.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref().filter(|target| !target.is_empty())
    }

    /// What cannot be read and keeps a removal from being decided: which registration it is, or what becomes of it.
    #[must_use]
    pub fn undecided(&self) -> Option<&Unread> {
        const DECIDING: [&str; 6] = [
            "providerRef",
            "target",
            "url",
            "events",
            "deletionPolicy",
            "suspend",
        ];
        let decides = |unread: &&Unread| DECIDING.iter().any(|field| unread.is_in(field));
        self.unread.iter().find(decides)
    }
}

impl Spec for WebhookSpec {
    const KIND: &'static str = "Webhook";

    fn least() -> Value {
        json!({ "providerRef": { "name": "" }, "url": "" })
    }

    fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn set_unread(&mut self, unread: Vec<Unread>) {
        self.unread = unread;
        if self.undecided().is_some() {
            // What does the least harm.
            self.deletion_policy = DeletionPolicy::Orphan;
        }
        if self.unread.iter().any(|unread| unread.is_in("providerRef")) {
            // A provider that has the name by chance is another one.
            self.provider_ref.name.clear();
        }
    }
}

impl Webhook {
    /// The provider that this Webhook names.
    #[must_use]
    pub fn provider_ref(&self) -> &ProviderRef {
        &self.spec.provider_ref
    }

    /// Who tests.
    #[must_use]
    pub fn test_mode(&self) -> TestMode {
        self.spec.test.mode
    }

    /// Name and key of the Secret that a signing secret is written to: `secretRef`, or `<webhook>-signing`
    /// with the default key.
    #[must_use]
    pub fn signing_secret(&self) -> SecretRef {
        self.spec.secret_ref.clone().unwrap_or_else(|| SecretRef {
            name: format!("{}-signing", self.metadata.name.as_deref().unwrap_or_default()),
            key: default_secret_key(),
        })
    }
}
