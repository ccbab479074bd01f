//! What the derived schemas lack, and the one function that builds the final CRDs.
//!
//! Two things live here. First, building blocks that the types in this folder put on their fields: CEL rules
//! with messages a user can act on, and list types. Second, [`crds`], which takes the derived CRDs and
//! adjusts what no attribute can say. The rules themselves stand beside the fields they guard.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::{
    api::{ClusterWebhookProvider, Webhook, WebhookProvider, duration},
    yaml,
};

/// The three CRDs in the order Webhook, WebhookProvider, ClusterWebhookProvider, ready to be applied.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        Webhook::crd(),
        WebhookProvider::crd(),
        ClusterWebhookProvider::crd(),
    ]
    .map(finish)
    .into()
}

/// CRDs as one YAML text of several documents, as `webhook-operator crds` prints it.
///
/// # Errors
///
/// A CRD has no YAML form, which would be a defect of the derived types.
pub fn to_yaml(crds: &[CustomResourceDefinition]) -> Result<String, yaml::Error> {
    yaml::to_string_all(crds)
}

/// Adjusts a derived CRD: no `nullable`, flowing descriptions, the default of `status`.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            adjust(root);
            let status = root
                .properties
                .as_mut()
                .and_then(|properties| properties.get_mut("status"));
            if let Some(status) = status {
                // kstatus takes an object without `observedGeneration` for done; -1 says "never looked at".
                status.default = Some(JSON(json!({ "observedGeneration": -1 })));
            }
        }
    }
    crd
}

/// Walks the whole schema and repairs each node.
fn adjust(schema: &mut JSONSchemaProps) {
    // An explicit null of a field that is not nullable is dropped by the apiserver, or replaced by the
    // default. So `field:` with nothing behind it means "not set" and no CEL rule ever meets a null.
    schema.nullable = None;
    schema.title = None;
    schema.description = schema.description.take().map(|text| flow(&text));
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(adjust);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => adjust(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(adjust),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        adjust(values);
    }
}

/// Joins the lines of a doc comment to paragraphs: source line breaks mean nothing in `kubectl explain`.
fn flow(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// A CEL rule. `message` names the field, the problem and the cure.
pub(super) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A CEL rule of an object that is reported at one of its fields; `path` is relative, such as `.target`.
pub(super) fn rule_at(path: &str, rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message, "fieldPath": path })
}

/// Rule of a required or defaulted field that never changes.
pub(super) const IMMUTABLE: &str = "self == oldSelf";

/// The rule that a required or defaulted field never changes.
pub(super) fn immutable(field: &str) -> Value {
    rule(
        IMMUTABLE,
        &format!("{field} is immutable; delete the object and create it anew"),
    )
}

/// The rule on the surrounding object that an optional field never changes, adding and removing included.
pub(super) fn immutable_optional(field: &str) -> Value {
    rule_at(
        &format!(".{field}"),
        &format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
        &format!("{field} is immutable, adding and removing included; delete the object and create it anew"),
    )
}

/// Rule of a duration field: the grammar of [`crate::api::duration`] and a range, both ends included.
pub(super) fn duration_between(field: &str, least: &str, most: &str) -> Value {
    rule(
        &format!(
            "self.matches('{}') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
            duration::PATTERN
        ),
        &format!(
            "{field} must be a duration from {least} to {most}, whole numbers with the units h, m, s or ms, such as 90s or 1h30m"
        ),
    )
}

/// Rule of a duration field with a least value only.
pub(super) fn duration_from(field: &str, least: &str) -> Value {
    rule(
        &format!(
            "self.matches('{}') && duration(self) >= duration('{least}')",
            duration::PATTERN
        ),
        &format!(
            "{field} must be a duration of at least {least}, whole numbers with the units h, m, s or ms, such as 90s or 1h30m"
        ),
    )
}

/// Rules of an address field: absolute `http` or `https` with a host, no user info, no blank, no fragment.
pub(super) fn http_url(field: &str, example: &str) -> Vec<Value> {
    vec![
        rule(
            "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
            &format!("{field} must be an absolute http or https URL such as {example}"),
        ),
        rule(
            "!self.matches('^[^/?#]*//[^/?#]*@')",
            &format!("{field} must not hold user info (user:password@); credentials belong in a Secret"),
        ),
        // Go, and so `isURL`, takes a blank in a path; HTTP does not.
        rule(
            "!self.contains(' ')",
            &format!("{field} must not hold blanks; write them as %20"),
        ),
        rule(
            "!self.contains('#')",
            &format!("{field} must not hold a fragment (#...); remove it"),
        ),
    ]
}

/// [`http_url`] without a query, for addresses that paths are appended to.
pub(super) fn base_url(field: &str, example: &str) -> Vec<Value> {
    let mut rules = http_url(field, example);
    rules.push(rule(
        "!self.contains('?')",
        &format!("{field} must not hold a query (?...); remove it"),
    ));
    rules
}

/// What no text may hold that people read in lists and logs: control characters, and marks that turn the direction of
/// writing, by which one text can look like another.
const CONFUSING: &str = r"r'[\p{Cc}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]'";

/// Rule of a text without [`CONFUSING`] characters.
pub(super) fn one_line(field: &str) -> Value {
    rule(&format!("!self.matches({CONFUSING})"), &not_one_line(field))
}

/// The same of each text of a list.
pub(super) fn each_one_line(field: &str) -> Value {
    rule(
        &format!("self.all(text, !text.matches({CONFUSING}))"),
        &not_one_line(field),
    )
}

fn not_one_line(field: &str) -> String {
    format!(
        "{field} must not hold line breaks, other control characters or marks of writing direction; write plain text on one line"
    )
}

/// Rule of a field that names an object, such as a Secret.
pub(super) fn object_name(field: &str) -> Value {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        &format!(
            "{field} must be the name of an object: lower-case letters, digits, '-' and '.', first and last a letter or digit"
        ),
    )
}

/// Rule of a field that names a namespace.
pub(super) fn namespace_name(field: &str) -> Value {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        &format!(
            "{field} must be the name of a namespace: lower-case letters, digits and '-', first and last a letter or digit"
        ),
    )
}

/// Rule of a field that names a key of a Secret or ConfigMap.
pub(super) fn data_key(field: &str) -> Value {
    rule(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        &format!(
            "{field} must be a key of the Secret's or ConfigMap's data: letters, digits, '-', '_' and '.'"
        ),
    )
}

/// Schema of `status.conditions`: the fields and limits of Kubernetes' own conditions, a map by `type`.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the object's state.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When `status` of this condition last changed.",
                    "type": "string", "format": "date-time",
                },
                "message": {
                    "description": "What is the matter, and what to do where something is to be done.",
                    "type": "string", "maxLength": 32768,
                },
                "observedGeneration": {
                    "description": "Generation of the object that this condition speaks of.",
                    "type": "integer", "format": "int64", "minimum": 0,
                },
                "reason": {
                    "description": "The cause in one PascalCase word, for scripts and alerts.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "True, False or Unknown.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "What the condition is about, such as Ready.",
                    "type": "string", "maxLength": 316,
                },
            },
        },
    })
}
