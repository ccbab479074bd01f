//! Kinds `WebhookProvider` and `ClusterWebhookProvider`: an account at an upstream.
//!
//! Both manifests are flat and differ only in that the cluster kind names namespaces. What they share is
//! [`ProviderSettings`]; the rest is reached through the same methods of both specs, so that code that does
//! not care about the kind can take the [`AnyProviderSpec`] trait.

#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns repeat `type_` and `priority`, each inside its own `printcolumn`"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    CustomResource,
    core::{Selector, SelectorExt},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use serde_path_to_error::Path;

use crate::api::{
    ProviderStatus, Unread,
    schema::{data_key, immutable_optional, namespace_name, object_name, rule, rule_at},
    unread::{Spec, path_of_fault},
};

pub use crate::api::provider_settings::{
    AutocosmosSettings, BodyStyle, ConpeekSettings, DeletionLimit, DeliverySignature, EffectiveRateLimit,
    ProviderSettings, ProviderType, RateLimit, SignatureEncoding, UndocumentedCalls,
};

/// An account at an upstream, for the Webhooks of one namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "webhook-operator.dev",
    version = "v1alpha1",
    kind = "WebhookProvider",
    doc = "A WebhookProvider is an account at an upstream, for the Webhooks of its own namespace: which product, where, with which credentials and limits.",
    namespaced,
    status = "ProviderStatus",
    derive = "PartialEq",
    shortname = "whp",
    category = "webhook-operator",
    printcolumn(
        name = "TYPE",
        type_ = "string",
        json_path = ".spec.type",
        description = "Product at the upstream"
    ),
    printcolumn(
        name = "BASE URL",
        type_ = "string",
        json_path = ".spec.baseUrl",
        description = "Where its API is; empty: where the product's public API is"
    ),
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the account can be used"
    ),
    printcolumn(
        name = "WEBHOOKS",
        type_ = "integer",
        json_path = ".status.webhooks.total",
        description = "Webhooks that use it"
    ),
    printcolumn(
        name = "AGE",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
// Written and read by what is derived, except that it is read in any case: see `unread`.
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("x-kubernetes-validations" = provider_rules()))]
pub struct WebhookProviderSpec {
    /// What both kinds of providers share.
    #[serde(flatten)]
    pub settings: ProviderSettings,

    /// Secret with the credentials, in the namespace of the provider. Its keys by type: Conpeek `apiKey`;
    /// Thulium `username` and `password`; Ricloud `token`; Autocosmos `appKey` and `appSecret`.
    pub credentials_ref: LocalCredentialsRef,

    /// Extra trust roots for the upstream's TLS certificate, beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<LocalCaBundleRef>,
}

/// An account at an upstream, shared with the namespaces that it names.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "webhook-operator.dev",
    version = "v1alpha1",
    kind = "ClusterWebhookProvider",
    doc = "A ClusterWebhookProvider is an account at an upstream, shared with the namespaces that `spec.allowedNamespaces` names.",
    status = "ProviderStatus",
    derive = "PartialEq",
    shortname = "cwhp",
    category = "webhook-operator",
    printcolumn(
        name = "TYPE",
        type_ = "string",
        json_path = ".spec.type",
        description = "Product at the upstream"
    ),
    printcolumn(
        name = "BASE URL",
        type_ = "string",
        json_path = ".spec.baseUrl",
        description = "Where its API is; empty: where the product's public API is"
    ),
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the account can be used"
    ),
    printcolumn(
        name = "WEBHOOKS",
        type_ = "integer",
        json_path = ".status.webhooks.total",
        description = "Webhooks that use it"
    ),
    printcolumn(
        name = "AGE",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
// Written and read by what is derived, except that it is read in any case: see `unread`.
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("x-kubernetes-validations" = provider_rules()))]
pub struct ClusterWebhookProviderSpec {
    /// What both kinds of providers share.
    #[serde(flatten)]
    pub settings: ProviderSettings,

    /// Secret with the credentials. Its keys by type: Conpeek `apiKey`; Thulium `username` and `password`;
    /// Ricloud `token`; Autocosmos `appKey` and `appSecret`.
    pub credentials_ref: ClusterCredentialsRef,

    /// Extra trust roots for the upstream's TLS certificate, beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<ClusterCaBundleRef>,

    /// The namespaces whose Webhooks may use this provider. Left out: none. A Webhook in a namespace taken
    /// off the list can still be deleted, its registration included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// A Secret in the namespace of the provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalCredentialsRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("credentialsRef.name")])
    )]
    pub name: String,
}

/// A Secret in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCredentialsRef {
    /// Namespace of the Secret.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = [namespace_name("credentialsRef.namespace")])
    )]
    pub namespace: String,

    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("credentialsRef.name")])
    )]
    pub name: String,
}

/// Trust roots in the namespace of the provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalCaBundleRef {
    /// `ConfigMap` or `Secret`. Default: ConfigMap.
    #[serde(default)]
    pub kind: CaBundleKind,

    /// Name of the ConfigMap or Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("caBundleRef.name")])
    )]
    pub name: String,

    /// Key of the certificates, in PEM, in its data. Default: ca.crt.
    #[serde(default = "default_ca_key")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [data_key("caBundleRef.key")])
    )]
    pub key: String,
}

/// Trust roots in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCaBundleRef {
    /// Namespace of the ConfigMap or Secret.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = [namespace_name("caBundleRef.namespace")])
    )]
    pub namespace: String,

    /// `ConfigMap` or `Secret`. Default: ConfigMap.
    #[serde(default)]
    pub kind: CaBundleKind,

    /// Name of the ConfigMap or Secret.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [object_name("caBundleRef.name")])
    )]
    pub name: String,

    /// Key of the certificates, in PEM, in its data. Default: ca.crt.
    #[serde(default = "default_ca_key")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [data_key("caBundleRef.key")])
    )]
    pub key: String,
}

/// Kinds of objects that can hold trust roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CaBundleKind {
    /// A ConfigMap, because certificates are public.
    #[default]
    ConfigMap,
    /// A Secret.
    Secret,
}

/// The namespaces whose Webhooks may use a cluster provider; exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "[has(self.all), has(self.names), has(self.selector)].exists_one(given, given)",
    "allowedNamespaces needs exactly one of all, names and selector; remove the others, or leave allowedNamespaces out to allow none"
)]))]
pub struct AllowedNamespaces {
    /// `true`: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "self",
        "allowedNamespaces.all can only be true; to allow no namespace leave allowedNamespaces out"
    )]))]
    pub all: Option<bool>,

    /// These namespaces, up to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 63)),
        extend(
            "x-kubernetes-list-type" = "set",
            "x-kubernetes-validations" = [rule(
                "self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
                "allowedNamespaces.names must be names of namespaces: lower-case letters, digits and '-', first and last a letter or digit"
            )]
        )
    )]
    pub names: Option<Vec<String>>,

    /// Namespaces whose labels match. An empty selector matches every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub selector: Option<LabelSelector>,
}

impl AllowedNamespaces {
    /// Whether Webhooks of a namespace with these labels may use the provider. A selector that Kubernetes
    /// would not take matches nothing.
    #[must_use]
    pub fn allows(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let named = self
            .names
            .as_ref()
            .is_some_and(|names| names.iter().any(|name| name == namespace));
        let selected = || {
            let selector = self
                .selector
                .clone()
                .and_then(|selector| Selector::try_from(selector).ok());
            selector.is_some_and(|selector| selector.matches(labels))
        };
        self.all == Some(true) || named || selected()
    }
}

impl ClusterWebhookProviderSpec {
    /// Whether Webhooks of a namespace with these labels may use the provider.
    #[must_use]
    pub fn allows(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.allowed_namespaces
            .as_ref()
            .is_some_and(|allowed| allowed.allows(namespace, labels))
    }
}

/// Where a Secret is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretLocation {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
}

/// Where trust roots are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaBundleLocation {
    /// Whether it is a ConfigMap or a Secret.
    pub in_secret: bool,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Key in its data.
    pub key: String,
}

/// What code that does not care about the kind of a provider needs of its spec.
pub trait AnyProviderSpec {
    /// What both kinds share.
    fn settings(&self) -> &ProviderSettings;

    /// Where the credentials are. `own_namespace` is the provider's, ignored by the cluster kind.
    fn credentials(&self, own_namespace: &str) -> SecretLocation;

    /// Where extra trust roots are. `own_namespace` is the provider's, ignored by the cluster kind.
    fn ca_bundle(&self, own_namespace: &str) -> Option<CaBundleLocation>;
}

impl AnyProviderSpec for WebhookProviderSpec {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn credentials(&self, own_namespace: &str) -> SecretLocation {
        SecretLocation {
            namespace: own_namespace.to_owned(),
            name: self.credentials_ref.name.clone(),
        }
    }

    fn ca_bundle(&self, own_namespace: &str) -> Option<CaBundleLocation> {
        self.ca_bundle_ref.as_ref().map(|bundle| CaBundleLocation {
            in_secret: bundle.kind == CaBundleKind::Secret,
            namespace: own_namespace.to_owned(),
            name: bundle.name.clone(),
            key: bundle.key.clone(),
        })
    }
}

impl AnyProviderSpec for ClusterWebhookProviderSpec {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn credentials(&self, _: &str) -> SecretLocation {
        let reference = &self.credentials_ref;
        SecretLocation {
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
        }
    }

    fn ca_bundle(&self, _: &str) -> Option<CaBundleLocation> {
        self.ca_bundle_ref.as_ref().map(|bundle| CaBundleLocation {
            in_secret: bundle.kind == CaBundleKind::Secret,
            namespace: bundle.namespace.clone(),
            name: bundle.name.clone(),
            key: bundle.key.clone(),
        })
    }
}

/// Both kinds of providers are read alike, but for what they require.
macro_rules! provider_spec {
    ($spec:ty, $kind:literal, $credentials:tt) => {
        impl Spec for $spec {
            const KIND: &'static str = $kind;

            fn least() -> Value {
                json!({ "type": "Conpeek", "credentialsRef": $credentials })
            }

            fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }

            fn fault_in_flattened(value: &Value) -> Option<Path> {
                path_of_fault(value, |deserializer| ProviderSettings::deserialize(deserializer))
            }

            fn set_unread(&mut self, unread: Vec<Unread>) {
                self.settings.unread = unread;
            }
        }
    };
}

provider_spec!(WebhookProviderSpec, "WebhookProvider", { "name": "" });
provider_spec!(ClusterWebhookProviderSpec, "ClusterWebhookProvider", { "namespace": "", "name": "" });

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}

/// Rules across the fields of both specs.
fn provider_rules() -> Vec<Value> {
    vec![
        immutable_optional("baseUrl"),
        rule_at(
            ".baseUrl",
            "has(self.baseUrl) || !(self.type in ['Conpeek', 'Thulium'])",
            "baseUrl is required for types Conpeek and Thulium; set the address of the API, such as https://<system>.thulium.com/api",
        ),
        rule_at(
            ".conpeek",
            "!has(self.conpeek) || self.type == 'Conpeek'",
            "conpeek holds settings of type Conpeek only; remove it",
        ),
        rule_at(
            ".autocosmos",
            "!has(self.autocosmos) || self.type == 'Autocosmos'",
            "autocosmos holds settings of type Autocosmos only; remove it",
        ),
    ]
}

/// Schema of a label selector with the limits and the operators that Kubernetes' own lacks.
fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that a namespace must have, all of them.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "Requirements that a namespace must meet, all of them.",
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "description": "One requirement.",
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The label.",
                            "type": "string", "minLength": 1, "maxLength": 317,
                        },
                        "operator": {
                            "description": "In, NotIn, Exists or DoesNotExist.",
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values for In and NotIn; empty for the other two.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                    "x-kubernetes-validations": [rule(
                        "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                        "selector.matchExpressions: operators In and NotIn need values, Exists and DoesNotExist must have none",
                    )],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allows(allowed: Value, namespace: &str, labels: &[(&str, &str)]) -> bool {
        let mut spec = json!({ "type": "Ricloud", "credentialsRef": { "namespace": "n", "name": "c" } });
        spec["allowedNamespaces"] = allowed;
        let spec: ClusterWebhookProviderSpec = serde_json::from_value(spec).unwrap();
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        spec.allows(namespace, &labels)
    }

    #[test]
    fn namespaces_are_allowed_only_when_named() {
        assert!(
            !allows(Value::Null, "shop", &[("team", "shop")]),
            "left out: none"
        );
        assert!(allows(json!({ "all": true }), "shop", &[]));
        assert!(allows(json!({ "names": ["other", "shop"] }), "shop", &[]));
        assert!(!allows(json!({ "names": ["other"] }), "shop", &[]));
        assert!(!allows(json!({ "names": [] }), "shop", &[]));
    }

    #[test]
    fn selectors_match_as_everywhere_in_kubernetes() {
        let team = json!({ "selector": { "matchLabels": { "team": "shop" } } });
        assert!(allows(team.clone(), "any", &[("team", "shop"), ("a", "b")]));
        assert!(!allows(team, "shop", &[("team", "other")]));
        let team_not_prod = json!({ "selector": { "matchExpressions": [
            { "key": "env", "operator": "NotIn", "values": ["prod"] },
            { "key": "team", "operator": "Exists" },
        ] } });
        assert!(allows(
            team_not_prod.clone(),
            "shop",
            &[("team", "x"), ("env", "dev")]
        ));
        assert!(!allows(
            team_not_prod.clone(),
            "shop",
            &[("team", "x"), ("env", "prod")]
        ));
        assert!(!allows(team_not_prod, "shop", &[("env", "dev")]));
        assert!(
            allows(json!({ "selector": {} }), "shop", &[]),
            "an empty selector matches every namespace"
        );
        let odd = json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "Like", "values": ["b"] }] } });
        assert!(!allows(odd, "shop", &[("a", "b")]));
    }

    #[test]
    fn references_of_the_cluster_kind_name_their_namespace() {
        let spec: WebhookProviderSpec = serde_json::from_value(json!({
            "type": "Ricloud", "credentialsRef": { "name": "c" }, "caBundleRef": { "kind": "Secret", "name": "ca" },
        }))
        .unwrap();
        let bundle = spec.ca_bundle("own").unwrap();
        assert_eq!(
            spec.credentials("own"),
            SecretLocation {
                namespace: "own".to_owned(),
                name: "c".to_owned()
            }
        );
        assert_eq!(
            (bundle.in_secret, bundle.namespace.as_str(), bundle.key.as_str()),
            (true, "own", "ca.crt")
        );

        let spec: ClusterWebhookProviderSpec = serde_json::from_value(json!({
            "type": "Ricloud", "credentialsRef": { "namespace": "n", "name": "c" },
            "caBundleRef": { "namespace": "m", "name": "ca", "key": "k" },
        }))
        .unwrap();
        let bundle = spec.ca_bundle("own").unwrap();
        assert_eq!(
            spec.credentials("own"),
            SecretLocation {
                namespace: "n".to_owned(),
                name: "c".to_owned()
            }
        );
        assert_eq!(
            (bundle.in_secret, bundle.namespace.as_str(), bundle.key.as_str()),
            (false, "m", "k")
        );
    }
}
