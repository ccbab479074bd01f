//! Every field of every spec with something else in it, as the schemas name them: a new field, or a new set of words, is
//! tried without being named here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrBool::Schema;
use kube::core::ObjectList;
use serde_json::json;

use super::*;
use crate::api::{
    ClusterWebhookProvider, Webhook, WebhookProvider,
    provider::{AnyProviderSpec, ProviderType},
    webhook::DeletionPolicy,
};

const KINDS: [&str; 3] = ["Webhook", "WebhookProvider", "ClusterWebhookProvider"];

/// The one set of words that belongs to Kubernetes and is read as it is: a selector with another one matches nothing.
const SELECTOR: &str = "allowedNamespaces.selector.matchExpressions[0].operator";

/// The schema of the spec of a kind.
fn spec_schema(crds: &[CustomResourceDefinition], kind: &str) -> JSONSchemaProps {
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap();
    let root = schema.open_api_v3_schema.as_ref().unwrap();
    root.properties.as_ref().unwrap()["spec"].clone()
}

/// A value with every field that there is. `1m` is a name as well as a duration.
fn full(schema: &JSONSchemaProps) -> Value {
    if let Some(words) = &schema.enum_ {
        return words[0].0.clone();
    }
    match schema.type_.as_deref().unwrap() {
        "string" => json!("1m"),
        "integer" => json!(schema.minimum.unwrap_or(1.0) as i64),
        "boolean" => json!(true),
        "array" => match schema.items.as_ref().unwrap() {
            JSONSchemaPropsOrArray::Schema(items) => json!([full(items)]),
            JSONSchemaPropsOrArray::Schemas(_) => panic!("tuples are not used"),
        },
        "object" => {
            let own = schema.properties.iter().flatten();
            let mut fields: serde_json::Map<_, _> =
                own.map(|(name, field)| (name.clone(), full(field))).collect();
            if let Some(Schema(values)) = &schema.additional_properties {
                fields.insert("key".to_owned(), full(values));
            }
            Value::Object(fields)
        }
        other => panic!("{other} is not used"),
    }
}

/// Every field in a value, from the outside in: JSON pointer, and path as people write it.
fn fields(value: &Value) -> Vec<(String, String)> {
    fn visit(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
        let mut inside = |name: &str, path: String, value: &Value| {
            let pointer = format!("{pointer}/{name}");
            found.push((pointer.clone(), path.clone()));
            visit(value, &pointer, &path, found);
        };
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    inside(name, format!("{path}{dot}{name}"), value);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    inside(&index.to_string(), format!("{path}[{index}]"), value);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    visit(value, "", "", &mut found);
    found
}

/// Reads a list of two objects of a kind as the API server sends it. Of the first: what of it cannot be read, and its
/// spec as it is read. `None`: the list cannot be read, or the second is not what it was.
fn listed(kind: &str, odd: &Value, sound: &Value) -> Option<(Vec<Unread>, Value)> {
    let item = |name: &str, spec: &Value| {
        json!({
            "apiVersion": "webhook-operator.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        })
    };
    let list = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": format!("{kind}List"), "metadata": {},
        "items": [item("odd", odd), item("sound", sound)],
    });
    let specs: Vec<(Vec<Unread>, Value)> = match kind {
        "Webhook" => serde_json::from_value::<ObjectList<Webhook>>(list)
            .ok()?
            .into_iter()
            .map(|it| (it.spec.unread.clone(), json!(it.spec)))
            .collect(),
        "WebhookProvider" => serde_json::from_value::<ObjectList<WebhookProvider>>(list)
            .ok()?
            .into_iter()
            .map(|it| (it.spec.settings().unread.clone(), json!(it.spec)))
            .collect(),
        _ => serde_json::from_value::<ObjectList<ClusterWebhookProvider>>(list)
            .ok()?
            .into_iter()
            .map(|it| (it.spec.settings().unread.clone(), json!(it.spec)))
            .collect(),
    };
    let [odd, second] = <[_; 2]>::try_from(specs).ok()?;
    (second == (Vec::new(), sound.clone())).then_some(odd)
}

/// A spec of each kind with every field that there is.
fn specs() -> Vec<(&'static str, Value)> {
    let crds = schema::crds();
    KINDS
        .into_iter()
        .map(|kind| (kind, full(&spec_schema(&crds, kind))))
        .collect()
}

#[test]
fn a_spec_of_every_field_is_whole() {
    for (kind, spec) in specs() {
        let (unread, read) = listed(kind, &spec, &spec).unwrap();
        assert_eq!((unread, read), (Vec::new(), spec), "{kind}");
    }
}

#[test]
fn an_unknown_word_is_named_and_hides_nothing_else() {
    let crds = schema::crds();
    let mut tried = Vec::new();
    for (kind, sound) in specs() {
        for (pointer, field) in fields(&sound) {
            let schema = schema_of(&crds, kind, &field).unwrap_or_else(|| panic!("{kind} {field}"));
            let Some(words) = &schema.enum_ else { continue };
            tried.push(field.clone());
            let mut odd = sound.clone();
            *odd.pointer_mut(&pointer).unwrap() = json!("Archive");
            let (unread, read) = listed(kind, &odd, &sound).unwrap_or_else(|| panic!("{kind} {field}"));
            if field == SELECTOR {
                assert_eq!((unread, read), (Vec::new(), odd));
                continue;
            }
            assert_eq!(unread.len(), 1, "{kind} {field}: {unread:?}");
            assert_eq!(
                (&unread[0].field, unread[0].word.as_deref()),
                (&field, Some("Archive"))
            );
            let words: Vec<&str> = words.iter().map(|word| word.0.as_str().unwrap()).collect();
            assert_eq!(unread[0].known, words, "{kind} {field}");
            let text = unread[0].to_string();
            assert!(
                words.iter().all(|word| text.contains(word))
                    && text.contains("run the version that wrote it"),
                "{text}"
            );
            // All else is as it was, but for what is put in its place or kept from harm.
            for (pointer, other) in fields(&sound) {
                let apart = other.starts_with(&field)
                    || field.starts_with(&other)
                    || other.starts_with("providerRef") && field.starts_with("providerRef")
                    || other == "deletionPolicy";
                assert!(
                    apart || read.pointer(&pointer) == sound.pointer(&pointer),
                    "{kind} {field} and {other}"
                );
            }
        }
    }
    tried.sort();
    tried.dedup();
    for one in [
        "deletionPolicy",
        "providerRef.kind",
        "test.mode",
        "type",
        "caBundleRef.kind",
        SELECTOR,
    ] {
        assert!(tried.iter().any(|field| field == one), "{one}: {tried:?}");
    }
    assert!(tried.len() >= 15, "{tried:?}");
}

#[test]
fn whatever_stands_in_a_field_hides_no_object() {
    for (kind, sound) in specs() {
        for (pointer, field) in fields(&sound) {
            for value in [
                json!("of another version"),
                json!({"of": {"another": 1}}),
                json!([{"of": 1}, 2]),
                json!(7.5),
                json!(1_u64 << 40),
                json!(true),
                Value::Null,
            ] {
                let mut odd = sound.clone();
                *odd.pointer_mut(&pointer).unwrap() = value.clone();
                let (unread, read) =
                    listed(kind, &odd, &sound).unwrap_or_else(|| panic!("{kind} {field}: {value}"));
                let named = |it: &Unread| it.is_in(&field) || field.starts_with(&it.field);
                assert!(unread.iter().all(named), "{kind} {field}: {value}: {unread:?}");
                // What cannot be read is said; null is as good as left out, which some must not be.
                assert!(
                    !unread.is_empty() || value.is_null() || read.pointer(&pointer) == Some(&value)
                        // An object without any of its fields, all of which have defaults.
                        || value.is_object(),
                    "{kind} {field}: {value}: {read}"
                );
            }
        }
    }
}

#[test]
fn any_number_of_odd_fields_is_read() {
    let crds = schema::crds();
    for (kind, sound) in specs() {
        let mut odd = sound.clone();
        let mut count = 0;
        for (pointer, field) in fields(&sound) {
            if field != SELECTOR && schema_of(&crds, kind, &field).is_some_and(|it| it.enum_.is_some()) {
                *odd.pointer_mut(&pointer).unwrap() = json!("Archive");
                count += 1;
            }
        }
        assert_eq!(listed(kind, &odd, &sound).unwrap().0.len(), count, "{kind}");
        for nothing in [json!({}), json!("words"), json!(7), json!([])] {
            let (unread, _) = listed(kind, &nothing, &sound).unwrap();
            assert!(unread.len() >= 2, "{kind} {nothing}: {unread:?}");
        }
    }
    let (_, sound) = specs().swap_remove(0);
    let mut odd = sound.clone();
    odd["headers"] = (0..5000)
        .map(|_| json!({"name": "a", "valueFrom": "elsewhere"}))
        .collect();
    odd["events"] = (0..5000).map(|number| json!({"name": number})).collect();
    odd["deletionPolicy"] = json!("Archive");
    let (unread, _) = listed("Webhook", &odd, &sound).unwrap();
    assert!(unread.len() <= MOST + 3, "{}", unread.len());
    for field in ["headers", "events", "deletionPolicy"] {
        assert!(unread.iter().any(|it| it.is_in(field)), "{field}: {unread:?}");
    }
}

/// A webhook whose spec has these fields.
fn webhook(over: Value) -> Webhook {
    let mut spec = json!({"providerRef": {"name": "p"}, "url": "https://a.example", "target": "9"});
    for (name, value) in over.as_object().unwrap() {
        spec[name] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
}

#[test]
fn what_is_not_understood_is_not_removed() {
    for (over, decided) in [
        (json!({}), true),
        (json!({"test": {"mode": "Dream"}}), true),
        (json!({"deletionPolicy": "Archive"}), false),
        (json!({"suspend": "Sundays"}), false),
        (json!({"events": [{"name": "A"}]}), false),
        (json!({"target": 9}), false),
        (json!({"providerRef": {"kind": "Elsewhere", "name": "p"}}), false),
    ] {
        let spec = webhook(over.clone()).spec;
        assert_eq!(spec.undecided().is_none(), decided, "{over}");
        assert_eq!(spec.deletion_policy == DeletionPolicy::Delete, decided, "{over}");
        let known = over.get("providerRef").is_none();
        assert_eq!(spec.provider_ref.name == "p", known, "{over}");
    }
}

#[test]
fn messages_name_the_word_and_the_cure() {
    let text = |over: Value| {
        let unread = webhook(over).spec.unread;
        assert_eq!(unread.len(), 1);
        format!("{}: {}", unread[0].field, unread[0])
    };
    assert_eq!(
        text(json!({"deletionPolicy": "Archive"})),
        r#"deletionPolicy: "Archive" is not known to this version of the operator; use Delete, Deactivate or Orphan, or run the version that wrote it"#
    );
    assert_eq!(
        text(json!({"deletionPolicy": {"archive": "7d"}})),
        "deletionPolicy: this version of the operator cannot read its value; use Delete, Deactivate or Orphan, or run the version that wrote it"
    );
    assert_eq!(
        text(json!({"retry": {"backoff": {"type": "Fibonacci"}}})),
        r#"retry.backoff.type: "Fibonacci" is not known to this version of the operator; use Multiplier, or run the version that wrote it"#
    );
    // What may be secret is not shown.
    let header = text(json!({"headers": [{"name": "X-Token", "value": ["topsecret"]}]}));
    assert_eq!(
        header,
        "headers[0].value: this version of the operator cannot read its value; use another value, or run the version that wrote it"
    );
    let long = text(json!({"deletionPolicy": format!("\n{}", "x".repeat(500))}));
    assert!(long.len() < 300 && long.contains(r"\nxxx"), "{long}");
    let provider: WebhookProvider = serde_json::from_value(json!({
        "metadata": {"name": "p"}, "spec": {"type": "Pigeon", "credentialsRef": {"name": "c"}},
    }))
    .unwrap();
    let settings = provider.spec.settings();
    assert_eq!(
        settings.unread[0].to_string(),
        r#""Pigeon" is not known to this version of the operator; run the version that wrote it, or create the object anew with Conpeek, Thulium, Ricloud or Autocosmos"#
    );
    assert_eq!(settings.type_name(), "unknown");
    let known = ProviderType::ALL.iter().map(|type_| type_.as_str());
    assert!(known.eq(settings.unread[0].known.iter().map(String::as_str)));
}
