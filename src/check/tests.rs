//! The check as a whole; its agreement with the apiserver is tested in `tests/apiserver/check.rs`.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::{report::Format, *};

const PROVIDER: &str = "apiVersion: webhook-operator.dev/v1alpha1
kind: WebhookProvider
metadata: {name: p, namespace: shop}
spec: {type: Thulium, baseUrl: 'https://acme.thulium.com', credentialsRef: {name: account}}
---
";

const WEBHOOK: &str = "apiVersion: webhook-operator.dev/v1alpha1
kind: Webhook
metadata: {name: w, namespace: shop}
spec:
  providerRef: {name: p}
  url: https://hooks.example.com/
  events: [TICKET_CREATED]
  description: orders
---
";

fn verdict(text: &str, assume: Option<ProviderType>) -> Verdict {
    let documents = input::parse("m.yaml", text).unwrap();
    Judge::new().unwrap().judge(&documents, assume)
}

fn only(verdict: &Verdict) -> &Finding {
    assert_eq!(verdict.findings.len(), 1, "{verdict:#?}");
    &verdict.findings[0]
}

#[test]
fn a_webhook_is_judged_by_its_provider_wherever_that_stands() {
    for text in [format!("{PROVIDER}{WEBHOOK}"), format!("{WEBHOOK}{PROVIDER}")] {
        let verdict = verdict(&text, None);
        let finding = only(&verdict);
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(finding.field, "spec.description");
        assert_eq!(finding.object, "shop/w");
        assert!(
            finding.message.contains("Thulium has no such thing"),
            "{finding:?}"
        );
        assert!(!verdict.is_clean());
        let line = text
            .lines()
            .position(|line| line.contains("description:"))
            .unwrap()
            + 1;
        assert_eq!(finding.line, line);
    }
}

#[test]
fn an_unknown_provider_is_a_note_unless_its_type_is_said() {
    let elsewhere = format!(
        "{}{WEBHOOK}",
        PROVIDER.replace("namespace: shop", "namespace: other")
    );
    for text in [WEBHOOK, elsewhere.as_str()] {
        let noted = verdict(text, None);
        assert_eq!(only(&noted).severity, Severity::Note);
        assert!(noted.is_clean());
        assert!(only(&noted).message.contains("--provider-type"));
    }
    assert!(!verdict(WEBHOOK, Some(ProviderType::Thulium)).is_clean());
    // What is said does not overrule what is there.
    let autocosmos = PROVIDER.replace("type: Thulium, ", "type: Conpeek, ");
    let verdict = verdict(&format!("{autocosmos}{WEBHOOK}"), Some(ProviderType::Autocosmos));
    assert!(only_message(&verdict).contains("Conpeek"), "{verdict:#?}");
}

fn only_message(verdict: &Verdict) -> String {
    verdict
        .findings
        .iter()
        .map(|finding| finding.message.clone())
        .collect()
}

#[test]
fn other_kinds_and_other_groups_are_passed_over() {
    let text = "kind: Secret\napiVersion: v1\n---\nkind: Webhook\napiVersion: other.example/v1\n";
    let verdict = verdict(text, None);
    assert_eq!((verdict.checked, verdict.others), (0, 2));
    assert!(verdict.findings.is_empty());
}

#[test]
fn a_version_that_is_not_served_is_named() {
    let verdict = verdict(&WEBHOOK.replace("v1alpha1", "v1"), None);
    assert!(
        only(&verdict).message.contains("webhook-operator.dev/v1alpha1"),
        "{verdict:#?}"
    );
}

#[test]
fn metadata_is_judged_too() {
    let unnamed = WEBHOOK.replace("name: w, ", "");
    assert_eq!(only(&verdict(&unnamed, None)).field, "metadata.name");
    let upper = WEBHOOK.replace("name: w,", "name: Shop_W,");
    assert_eq!(only(&verdict(&upper, None)).field, "metadata.name");
    let number = WEBHOOK.replace("name: w,", "name: w, labels: {cost: 42},");
    assert_eq!(only(&verdict(&number, None)).field, "metadata.labels.cost");
}

#[test]
fn is_printed_for_people_programs_and_github() {
    let verdict = verdict(&format!("{PROVIDER}{WEBHOOK}"), None);
    let printed = |format| {
        let mut out = Vec::new();
        report::print(&verdict, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = printed(Format::Text);
    assert!(
        text.starts_with("m.yaml:13: error: Webhook shop/w: spec.description: "),
        "{text}"
    );
    assert!(text.contains("2 objects checked, 1 error;"), "{text}");
    assert!(text.contains("immutable"), "{text}");
    let github = printed(Format::Github);
    assert!(
        github.starts_with("::error file=m.yaml,line=13,title=Webhook shop/w::spec.description: "),
        "{github}"
    );
    assert_eq!(github.lines().count(), 1);
    let json: Value = serde_json::from_str(&printed(Format::Json)).unwrap();
    assert_eq!(json["findings"][0]["line"], 13);
    assert_eq!(json["checked"], 2);
    assert!(!json["skippedRules"].as_array().unwrap().is_empty());
}

/// The keywords that `schema` and `rules` know.
const KNOWN: &[&str] = &[
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "nullable",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

fn keywords(schema: &JSONSchemaProps, status: bool, found: &mut BTreeSet<String>) {
    let own = serde_json::to_value(schema).unwrap();
    found.extend(own.as_object().unwrap().keys().cloned());
    for (name, child) in schema.properties.iter().flatten() {
        if !status || name != "status" {
            keywords(child, false, found);
        }
    }
    if let Some(
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema(
            items,
        ),
    ) = &schema.items
    {
        keywords(items, false, found);
    }
}

#[test]
fn the_definitions_use_no_keyword_that_is_not_judged() {
    let mut found = BTreeSet::new();
    for crd in crds() {
        let schema = crd.spec.versions[0].schema.clone().unwrap();
        keywords(&schema.open_api_v3_schema.unwrap(), true, &mut found);
    }
    let unknown: Vec<_> = found
        .iter()
        .filter(|keyword| !KNOWN.contains(&keyword.as_str()))
        .collect();
    assert!(unknown.is_empty(), "teach src/check/schema.rs {unknown:?}");
}
