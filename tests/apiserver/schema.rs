//! The schemas on a real apiserver: every rule accepts and refuses what it should, with a message a user can
//! act on. What is served after that is in `served`.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{Client, core::Status};
use serde_json::Value;
use webhook_operator::api::{ClusterWebhookProvider, Webhook, WebhookProvider, schema};

use crate::{
    harness::cluster,
    manifests::{Case, cases},
    raw::{create, replace},
};

#[tokio::test]
async fn accepts_what_it_should() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "accepted").await;
    let mut refused = Vec::new();
    for case in cases("accepted") {
        assert!(
            case.expect.is_none(),
            "{}: an accepted manifest expects no message",
            case.title
        );
        let mut answer = create(&client, &namespace, &case.object).await;
        if let (Ok(created), Some(update)) = (&answer, &case.update) {
            answer = replace(&client, &namespace, created, update).await;
        }
        match answer {
            Ok(served) => check_readable(&case.title, served),
            Err(status) => refused.push(format!("{}: {}", case.title, status.message)),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// What the apiserver accepted the operator can read: one object that it cannot parse would stop its watch.
fn check_readable(title: &str, served: Value) {
    let read = match served["kind"].as_str().unwrap() {
        "Webhook" => serde_json::from_value::<Webhook>(served).map(drop),
        "WebhookProvider" => serde_json::from_value::<WebhookProvider>(served).map(drop),
        "ClusterWebhookProvider" => serde_json::from_value::<ClusterWebhookProvider>(served).map(drop),
        other => panic!("{title}: kind {other}"),
    };
    read.unwrap_or_else(|error| panic!("{title}: {error}"));
}

#[tokio::test]
async fn refuses_what_it_should_with_the_message_and_leaves_no_rule_untried() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "refused").await;
    let mut wrong = Vec::new();
    let mut seen: Vec<(String, String, String)> = Vec::new();
    for case in cases("refused") {
        match refusal(&client, &namespace, &case).await {
            Ok(()) => wrong.push(format!("{}: accepted", case.title)),
            Err(status) => {
                let expect = case
                    .expect
                    .as_deref()
                    .unwrap_or_else(|| panic!("{}: no `# expect:`", case.title));
                // A rule that fails to evaluate tells a user nothing; it must answer false instead.
                let understood =
                    !status.message.contains("evaluation") && !status.message.contains("overload");
                if !status.message.contains(expect) || !understood {
                    wrong.push(format!(
                        "{}\n  want: {expect}\n  have: {}",
                        case.title, status.message
                    ));
                }
                let kind = case.object["kind"].as_str().unwrap().to_owned();
                for cause in status.details.into_iter().flat_map(|details| details.causes) {
                    seen.push((kind.clone(), without_indexes(&cause.field), cause.message));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    let untried: Vec<_> = checks()
        .into_iter()
        .filter(|check| {
            !seen.iter().any(|(kind, field, message)| {
                *kind == check.kind && *field == check.field && message.contains(&check.message)
            })
        })
        .collect();
    assert!(untried.is_empty(), "no refused manifest tries {untried:#?}");
}

/// The refusal of a case, at the update where there is one.
async fn refusal(client: &Client, namespace: &str, case: &Case) -> Result<(), Box<Status>> {
    let created = create(client, namespace, &case.object).await;
    let Some(update) = &case.update else {
        return created.map(drop);
    };
    let created = created.unwrap_or_else(|status| panic!("{}: {}", case.title, status.message));
    replace(client, namespace, &created, update).await.map(drop)
}

/// `spec.headers[2].name` as `spec.headers[].name`; a key of a map as the schema's path shows it.
fn without_indexes(field: &str) -> String {
    let mut path = String::new();
    let mut inside = false;
    for c in field.chars() {
        inside = (inside || c == '[') && c != ']';
        if !inside || c == '[' {
            path.push(c);
        }
    }
    match path.rsplit_once("matchLabels.") {
        Some((before, _)) => format!("{before}matchLabels{{}}"),
        None => path,
    }
}

/// Something that the schema refuses, and where and how it says so.
#[derive(Debug)]
struct Check {
    kind: String,
    field: String,
    message: String,
}

/// Calls `visit` with the path of every node of a kind's spec.
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

fn each_spec_node(mut visit: impl FnMut(&str, &str, &JSONSchemaProps)) {
    for crd in schema::crds() {
        let root = crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let kind = crd.spec.names.kind.clone();
        walk(
            "spec",
            &root.properties.as_ref().unwrap()["spec"],
            &mut |path, node| visit(&kind, path, node),
        );
    }
}

/// Everything that the schemas refuse in a spec, types aside.
fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    each_spec_node(|kind, path, node| {
        let mut check = |field: &str, message: String| {
            checks.push(Check {
                kind: kind.to_owned(),
                field: field.to_owned(),
                message,
            });
        };
        for name in node.required.iter().flatten() {
            check(&format!("{path}.{name}"), "Required value".to_owned());
        }
        if node.enum_.is_some() {
            check(path, "Unsupported value".to_owned());
        }
        if let Some(least) = node.minimum {
            check(path, format!("should be greater than or equal to {least}"));
        }
        if let Some(most) = node.maximum {
            check(path, format!("should be less than or equal to {most}"));
        }
        if let Some(least) = node.min_length {
            check(path, format!("should be at least {least} chars long"));
        }
        if let Some(most) = node.max_length {
            check(path, format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(most) = node.max_items {
            check(path, format!("must have at most {most} items"));
        }
        if let Some(most) = node.max_properties {
            check(path, format!("must have at most {most} "));
        }
        if matches!(node.x_kubernetes_list_type.as_deref(), Some("set" | "map")) {
            check(&format!("{path}[]"), "Duplicate value".to_owned());
        }
        for rule in node.x_kubernetes_validations.iter().flatten() {
            let field = format!("{path}{}", rule.field_path.as_deref().unwrap_or_default());
            check(&field, rule.message.clone().unwrap());
        }
    });
    assert!(
        checks.len() > 200,
        "only {} checks found: does the walk still reach them?",
        checks.len()
    );
    checks
}

/// All values at the path of each node, over all accepted manifests of a kind.
fn values_by_path() -> BTreeMap<(String, String), Vec<Value>> {
    fn collect(path: &str, value: &Value, into: &mut impl FnMut(String, &Value)) {
        into(path.to_owned(), value);
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let step = if path.ends_with("matchLabels") {
                        "{}".to_owned()
                    } else {
                        format!(".{name}")
                    };
                    collect(&format!("{path}{step}"), value, into);
                }
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| collect(&format!("{path}[]"), item, into)),
            _ => {}
        }
    }
    let mut found: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for case in cases("accepted") {
        for object in case.documents() {
            let kind = object["kind"].as_str().unwrap();
            collect("spec", &object["spec"], &mut |path, value| {
                found
                    .entry((kind.to_owned(), path))
                    .or_default()
                    .push(value.clone());
            });
        }
    }
    found
}

/// The accepted manifests stand right at the edge of every limit: one step less and a limit would refuse what
/// the documentation promises.
#[test]
fn accepted_manifests_reach_every_field_word_and_limit() {
    let values = values_by_path();
    let mut missing = Vec::new();
    each_spec_node(|kind, path, node| {
        let found: &[Value] = values
            .get(&(kind.to_owned(), path.to_owned()))
            .map_or(&[], Vec::as_slice);
        let mut need = |what: String, is: &dyn Fn(&Value) -> bool| {
            if !found.iter().any(is) {
                missing.push(format!("{kind}.{path}: {what}"));
            }
        };
        need("any value".to_owned(), &|value| !value.is_null());
        for word in node.enum_.iter().flatten() {
            need(format!("{}", word.0), &|value| *value == word.0);
        }
        for limit in [node.minimum, node.maximum].into_iter().flatten() {
            need(format!("{limit}"), &|value| value.as_f64() == Some(limit));
        }
        if let Some(most) = node.max_items {
            need(format!("{most} items"), &|value| {
                value.as_array().is_some_and(|items| items.len() as i64 == most)
            });
        }
        if let Some(most) = node.max_properties {
            need(format!("{most} keys"), &|value| {
                value.as_object().is_some_and(|keys| keys.len() as i64 == most)
            });
        }
        let rules = node
            .x_kubernetes_validations
            .iter()
            .flatten()
            .map(|rule| rule.rule.as_str());
        let rules = rules.collect::<Vec<_>>().join(" ");
        // The limits of durations are those of their rule, and the shortest URL is longer than one character.
        if rules.contains("duration(") {
            return;
        }
        let length = |value: &Value| value.as_str().map(|text| text.chars().count() as i64);
        if let Some(most) = node.max_length {
            need(format!("{most} characters"), &|value| length(value) == Some(most));
        }
        if let Some(least) = node.min_length.filter(|_| !rules.contains("isURL(")) {
            need(format!("{least} characters"), &|value| {
                length(value) == Some(least)
            });
        }
    });
    assert!(missing.is_empty(), "no accepted manifest has {missing:#?}");
}
