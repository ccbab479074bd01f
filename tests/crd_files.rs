//! The files in `crds/` and `docs/reference.md` are what the code says. `cargo xtask crds` (this test with
//! `UPDATE_CRDS=1`) rewrites them.
//!
//! Also checks, without an apiserver, what the apiserver would refuse or a user would miss: structural
//! schemas, descriptions on every field, bounds on everything that a rule reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

#[path = "crd_files/reference.rs"]
mod reference;

use std::{collections::BTreeSet, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Value, json};
use webhook_operator::{
    api::{
        ClusterWebhookProviderSpec, WebhookProviderSpec, WebhookSpec,
        provider::{ProviderSettings, ProviderType},
        schema,
        webhook::{ProviderKind, ProviderRef, Retry},
    },
    yaml,
};

/// Stands at the top of each file.
const HEADER: &str = "# Generated from src/api by `cargo xtask crds`. Do not edit.\n";

/// Where the files are: for people, and for the chart, which can only read what is inside of it.
const FOLDERS: [&str; 2] = ["crds", "charts/webhook-operator/files/crds"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(folder: &str, crd: &CustomResourceDefinition) -> PathBuf {
    root()
        .join(folder)
        .join(format!("{}.yaml", crd.spec.names.plural))
}

/// Whether the files are to be written anew before they are compared.
fn updates() -> bool {
    std::env::var_os("UPDATE_CRDS").is_some_and(|value| value == "1")
}

#[test]
fn the_files_are_what_the_code_says() {
    let crds = schema::crds();
    for (folder, crd) in FOLDERS
        .iter()
        .flat_map(|folder| crds.iter().map(move |crd| (folder, crd)))
    {
        let (path, wanted) = (
            file(folder, crd),
            format!("{HEADER}{}", yaml::to_string(crd).unwrap()),
        );
        if updates() {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path)
            .unwrap_or_default()
            .replace("\r\n", "\n");
        assert!(
            found == wanted,
            "{} is not what src/api says; run `cargo xtask crds`",
            path.display()
        );
    }
}

#[test]
fn the_folders_hold_nothing_else() {
    for folder in FOLDERS {
        let mut found: Vec<_> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let mut wanted: Vec<_> = schema::crds().iter().map(|crd| file(folder, crd)).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}

/// What a list of rules grants: each group, resource and verb.
fn grants(rules: &Value) -> BTreeSet<[String; 3]> {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let words = rule[field].as_array().unwrap();
        words
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let mut grants = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    grants.insert([group.clone(), resource.clone(), verb]);
                }
            }
        }
    }
    grants
}

#[test]
fn the_chart_grants_what_the_plain_manifests_grant() {
    let plain = fs::read_to_string(root().join("config/rbac.yaml")).unwrap();
    let plain: Vec<Value> = yaml::parse_all(&plain).unwrap();
    let role = plain
        .iter()
        .find(|object| object["kind"] == "ClusterRole")
        .unwrap();
    let chart = root().join("charts/webhook-operator/templates");
    let helpers = fs::read_to_string(chart.join("_helpers.tpl")).unwrap();
    let (_, rules) = helpers
        .split_once("{{- define \"webhook-operator.rules\" -}}")
        .unwrap();
    let (everywhere, _) = rules.split_once("{{- end }}").unwrap();
    let rbac = fs::read_to_string(chart.join("rbac.yaml")).unwrap();
    let (_, rules) = rbac
        .split_once("{{- include \"webhook-operator.rules\" . | nindent 2 }}\n")
        .unwrap();
    let (cluster, _) = rules.split_once("---").unwrap();
    let mut granted = grants(&yaml::parse(everywhere).unwrap());
    granted.extend(grants(&yaml::parse(cluster).unwrap()));
    assert_eq!(granted, grants(&role["rules"]));
}

#[test]
fn the_printed_crds_are_the_same_objects() {
    let printed: Vec<CustomResourceDefinition> =
        yaml::parse_all(&schema::to_yaml(&schema::crds()).unwrap()).unwrap();
    assert_eq!(printed, schema::crds());
}

/// Calls `visit` with the dotted path of every node.
fn walk(path: &str, node: &JSONSchemaProps, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
    visit(path, node);
    for (name, child) in node.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &node.items {
        walk(&format!("{path}[]"), items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &node.additional_properties {
        walk(&format!("{path}{{}}"), values, visit);
    }
}

/// Schema of the one version.
fn schema_of(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
    let validation = crd.spec.versions[0].schema.as_ref().unwrap();
    validation.open_api_v3_schema.as_ref().unwrap()
}

fn each_node(mut visit: impl FnMut(&str, &JSONSchemaProps)) {
    for crd in schema::crds() {
        let root = schema_of(&crd);
        for part in ["spec", "status"] {
            walk(
                &format!("{}.{part}", crd.spec.names.kind),
                &root.properties.as_ref().unwrap()[part],
                &mut visit,
            );
        }
    }
}

#[test]
fn every_field_explains_itself_to_users() {
    let mut bad = Vec::new();
    each_node(|path, node| {
        // Values of lists and maps are explained by the field that holds them.
        let needs_text = !path.ends_with(['}', ']']);
        let text = node.description.as_deref().unwrap_or_default();
        if needs_text && !text.ends_with('.') {
            bad.push(format!("{path}: {text:?}"));
        }
        // Words of rustdoc and serde mean nothing in `kubectl explain`.
        if ["[`", "`]", "Option", "Self", "serde"]
            .iter()
            .any(|word| text.contains(word))
        {
            bad.push(format!("{path}: {text:?}"));
        }
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_node_is_structural() {
    let mut bad = Vec::new();
    each_node(|path, node| {
        let combined =
            node.any_of.is_some() || node.one_of.is_some() || node.all_of.is_some() || node.not.is_some();
        if node.type_.is_none() || node.ref_path.is_some() || combined || node.nullable.is_some() {
            bad.push(path.to_owned());
        }
        if node.x_kubernetes_preserve_unknown_fields.is_some() {
            bad.push(format!("{path}: keeps unknown fields"));
        }
        if matches!(node.format.as_deref(), Some(format) if !["int32", "int64", "date-time"].contains(&format))
        {
            bad.push(format!(
                "{path}: format {:?} is unknown to the apiserver",
                node.format
            ));
        }
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The apiserver estimates the cost of each rule from these bounds and refuses the CRD when one is missing.
#[test]
fn everything_in_a_spec_is_bounded() {
    let mut bad = Vec::new();
    each_node(|path, node| {
        if !path.contains(".spec") {
            return;
        }
        let bounded = match node.type_.as_deref() {
            Some("string") => node.max_length.is_some() || node.enum_.is_some(),
            Some("array") => node.max_items.is_some() && node.x_kubernetes_list_type.is_some(),
            Some("integer") => node.minimum.is_some() && node.maximum.is_some(),
            Some("object") => node.properties.is_some() || node.max_properties.is_some(),
            _ => true,
        };
        if !bounded {
            bad.push(path.to_owned());
        }
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_rule_has_a_message_that_names_its_field() {
    let mut rules = 0;
    each_node(|path, node| {
        for rule in node.x_kubernetes_validations.iter().flatten() {
            rules += 1;
            let message = rule.message.as_deref().unwrap_or_default();
            // `X.spec.test.interval` must be spoken of as `interval`; a rule at another field names that one.
            let field = rule
                .field_path
                .as_deref()
                .unwrap_or(path)
                .rsplit('.')
                .next()
                .unwrap();
            let field = field.trim_end_matches(['[', ']']);
            assert!(message.contains(field), "{path}: {message}");
            assert!(!message.ends_with('.') && message.len() > 20, "{path}: {message}");
        }
    });
    assert!(
        rules > 60,
        "only {rules} rules found: does the walk still reach them?"
    );
}

#[test]
fn statuses_begin_as_never_observed() {
    for crd in schema::crds() {
        let (version, root) = (&crd.spec.versions[0], schema_of(&crd));
        let status = &root.properties.as_ref().unwrap()["status"];
        assert_eq!(
            status.default.as_ref().unwrap().0,
            serde_json::json!({ "observedGeneration": -1 })
        );
        assert!(version.subresources.as_ref().unwrap().status.is_some());
    }
}

#[test]
fn names_and_columns_are_the_documented_ones() {
    let rows: Vec<String> = schema::crds()
        .iter()
        .map(|crd| {
            let names = &crd.spec.names;
            let columns = crd.spec.versions[0].additional_printer_columns.iter().flatten();
            let (wide, narrow): (Vec<_>, Vec<_>) = columns.partition(|column| column.priority.is_some_and(|p| p > 0));
            let list = |columns: Vec<&_>| {
                let name = |column: &&k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition| {
                    column.name.clone()
                };
                columns.iter().map(name).collect::<Vec<_>>().join(",")
            };
            format!(
                "{} {} {} {} {} | {} | {}",
                crd.metadata.name.as_deref().unwrap(),
                names.kind,
                crd.spec.scope,
                names.short_names.as_ref().unwrap().join(","),
                names.categories.as_ref().unwrap().join(","),
                list(narrow),
                list(wide),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            "webhooks.webhook-operator.dev Webhook Namespaced wh webhook-operator | PROVIDER,TARGET,STATE,READY,REASON,TESTED,AGE | ID,URL,EVENTS",
            "webhookproviders.webhook-operator.dev WebhookProvider Namespaced whp webhook-operator | TYPE,BASE URL,READY,WEBHOOKS,AGE | ",
            "clusterwebhookproviders.webhook-operator.dev ClusterWebhookProvider Cluster cwhp webhook-operator | TYPE,BASE URL,READY,WEBHOOKS,AGE | ",
        ]
    );
}

/// Fills in defaults as the apiserver does: a missing field with a default gets it, then its own fields.
fn fill_in(node: &JSONSchemaProps, value: &mut Value) {
    for (name, child) in node.properties.iter().flatten() {
        let Some(object) = value.as_object_mut() else {
            return;
        };
        if let (false, Some(default)) = (object.contains_key(name), &child.default) {
            object.insert(name.clone(), default.0.clone());
        }
        if let Some(value) = object.get_mut(name) {
            fill_in(child, value);
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(items)), Some(values)) = (&node.items, value.as_array_mut()) {
        values.iter_mut().for_each(|value| fill_in(items, value));
    }
}

/// A value read from `spec` equals the one read after the apiserver filled in defaults, and both print the
/// same: nothing in the code depends on who filled them in.
fn defaults_agree<T>(kind: &str, spec: Value) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let crd = schema::crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    let root = schema_of(&crd).clone();
    let mut served = spec.clone();
    fill_in(&root.properties.unwrap()["spec"], &mut served);

    let mine: T = serde_json::from_value(spec).unwrap();
    assert_eq!(serde_json::from_value::<T>(served.clone()).unwrap(), mine);
    assert_eq!(serde_json::to_value(&mine).unwrap(), served);
    mine
}

#[test]
fn defaults_are_the_same_in_schema_and_code() {
    let webhook: WebhookSpec = defaults_agree(
        "Webhook",
        json!({ "providerRef": { "name": "p" }, "url": "https://hooks.example.com/a" }),
    );
    let provider = ProviderRef {
        kind: ProviderKind::WebhookProvider,
        name: "p".to_owned(),
    };
    assert_eq!(webhook, WebhookSpec::new(provider, "https://hooks.example.com/a"));

    let nested: WebhookSpec = defaults_agree(
        "Webhook",
        json!({
            "providerRef": { "name": "p" }, "url": "https://hooks.example.com/a",
            "secretRef": { "name": "s" }, "retry": {}, "test": {},
            "secretPolicy": { "source": "Generate", "rotation": { "interval": "720h" } },
        }),
    );
    assert_eq!(nested.retry, Some(Retry::default()));

    let provider: WebhookProviderSpec = defaults_agree(
        "WebhookProvider",
        json!({ "type": "Ricloud", "credentialsRef": { "name": "c" } }),
    );
    assert_eq!(provider.settings, ProviderSettings::new(ProviderType::Ricloud));

    let _: ClusterWebhookProviderSpec = defaults_agree(
        "ClusterWebhookProvider",
        json!({
            "type": "Autocosmos", "credentialsRef": { "namespace": "n", "name": "c" },
            "autocosmos": {}, "caBundleRef": { "namespace": "n", "name": "ca" }, "rateLimit": {},
        }),
    );
}

/// The documented defaults, spelled out: a default changed by accident is a changed contract.
#[test]
fn documented_defaults() {
    let provider = ProviderRef {
        kind: ProviderKind::WebhookProvider,
        name: "p".to_owned(),
    };
    let spec = WebhookSpec {
        retry: Some(Retry::default()),
        ..WebhookSpec::new(provider, "u")
    };
    assert_eq!(
        serde_json::to_value(spec).unwrap(),
        json!({
            "providerRef": { "kind": "WebhookProvider", "name": "p" }, "url": "u", "active": true,
            "retry": {
                "enabled": true, "initialDelay": "10s", "maxRetries": 2,
                "backoff": { "type": "Multiplier", "factor": 2 },
            },
            "deletionPolicy": "Delete", "adoptionPolicy": "IfMatching", "driftPolicy": "Correct",
            "onUpstreamDeactivation": "Report", "interval": "10m", "suspend": false,
            "test": {
                "mode": "Auto", "timeout": "10s", "failureThreshold": 3, "onFailure": "None",
                "checkForgery": false, "historyLimit": 10,
            },
        })
    );
    assert_eq!(
        serde_json::to_value(ProviderSettings::new(ProviderType::Conpeek)).unwrap(),
        json!({ "type": "Conpeek", "timeout": "20s", "undocumentedCalls": "Allow", "suspend": false })
    );
    let limits = |type_| {
        let limit = ProviderSettings::new(type_).rate_limit();
        (limit.requests_per_second, limit.burst, limit.max_concurrent)
    };
    assert_eq!(
        ProviderType::ALL.map(limits),
        [(5, 10, 4), (5, 10, 4), (5, 10, 4), (1, 1, 1)]
    );
}

#[test]
fn values_of_headers_stay_out_of_debug_output() {
    let header: webhook_operator::api::webhook::Header =
        serde_json::from_value(json!({ "name": "X-Token", "value": "hunter2" })).unwrap();
    assert_eq!(
        format!("{header:?}"),
        r#"Header { name: "X-Token", value: Some(***), value_from: None }"#
    );
}
