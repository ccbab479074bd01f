//! JSON schemas of all kinds that an apiserver serves, made from its OpenAPI document, in the form that kubeconform
//! reads: a file for each kind.
//!
//! The document says what is served and in which form, but not that nothing else may be there: it is for clients, which
//! must bear more fields than they know. A manifest with a field that nobody reads is wrong, so the schemas that are
//! written here allow none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Map, Value, json};

use crate::{kubectl::Kubectl, progress::Failure};

/// Where schemas of one document refer to each other.
const COMPONENTS: &str = "#/components/schemas/";

/// The pattern of the files' names, in the words of kubeconform.
pub(super) const NAMES: &str = "{{.Group}}-{{.ResourceAPIVersion}}-{{.ResourceKind}}.json";

/// Writes a file for each kind that is served now; returns their group, version and kind in lower case.
pub(super) async fn write(kubectl: &Kubectl, folder: &Path) -> Result<BTreeSet<String>, Failure> {
    let index: Value = raw(kubectl, "/openapi/v3").await?;
    let paths = index.get("paths").and_then(Value::as_object);
    let mut written = BTreeSet::new();
    for (path, place) in paths.into_iter().flatten() {
        let url = place.get("serverRelativeURL").and_then(Value::as_str);
        // Others are not of kinds: `version`, `.well-known`, groups without their version.
        let (true, Some(url)) = (path.starts_with("api"), url) else {
            continue;
        };
        let mut document = raw(kubectl, url).await?;
        let Some(Value::Object(mut schemas)) = document.pointer_mut("/components/schemas").map(Value::take)
        else {
            continue;
        };
        schemas.values_mut().for_each(close);
        for (name, schema) in &schemas {
            if let Some(kind) = kind(schema) {
                let file = folder.join(format!("{kind}.json"));
                fs::write(file, with_all_it_needs(name, &schemas).to_string())?;
                written.insert(kind);
            }
        }
    }
    Ok(written)
}

async fn raw(kubectl: &Kubectl, path: &str) -> Result<Value, Failure> {
    Ok(serde_json::from_str(
        &kubectl.run(&["get", "--raw", path]).await?,
    )?)
}

/// Which kind a schema describes, as [`NAMES`] names its file. One that stands for many kinds (`DeleteOptions`) is none.
fn kind(schema: &Value) -> Option<String> {
    let kinds = schema.get("x-kubernetes-group-version-kind")?.as_array()?;
    let [kind] = kinds.as_slice() else { return None };
    let text = |name: &str| kind.get(name).and_then(Value::as_str);
    let version = text("version")?;
    let group = text("group").filter(|group| !group.is_empty()).unwrap_or(version);
    Some(format!("{group}-{version}-{}", text("kind")?.to_lowercase()))
}

/// Lets an object have only the fields that are named, and makes a value that may be null one in JSON schema's words.
/// Not within `oneOf` and the like, which narrow what stands beside them.
fn close(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    let open = schema.contains_key("additionalProperties")
        || schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    let mut children: Vec<&mut Value> = Vec::new();
    let named = schema.contains_key("properties");
    if named && !open {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if schema.get("nullable") == Some(&json!(true))
        && let Some(type_) = schema.get("type").cloned()
    {
        schema.insert("type".to_owned(), json!([type_, "null"]));
    }
    for (word, value) in schema {
        match (word.as_str(), value) {
            ("properties", Value::Object(properties)) => children.extend(properties.values_mut()),
            ("items" | "additionalProperties", value) => children.push(value),
            _ => {}
        }
    }
    children.into_iter().for_each(close);
}

/// The schema of this name with those that it refers to, as a document of its own.
fn with_all_it_needs(name: &str, schemas: &Map<String, Value>) -> Value {
    let mut needed = BTreeMap::new();
    let mut next = vec![name.to_owned()];
    while let Some(name) = next.pop() {
        if let Some(schema) = schemas.get(&name)
            && !needed.contains_key(&name)
        {
            references(schema, &mut next);
            needed.insert(name, schema);
        }
    }
    json!({
        "allOf": [{ "$ref": format!("{COMPONENTS}{name}") }],
        "components": { "schemas": needed },
    })
}

/// Adds the names of the schemas that this one refers to.
fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(words) => {
            for (word, value) in words {
                match value.as_str().and_then(|to| to.strip_prefix(COMPONENTS)) {
                    Some(name) if word == "$ref" => names.push(name.to_owned()),
                    _ => references(value, names),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_only_the_fields_that_are_named() {
        let mut schema = json!({
            "properties": {
                "list": {"items": {"properties": {"a": {"type": "string", "nullable": true}}}},
                "map": {"additionalProperties": {"properties": {"b": {}}}},
                "any": {"x-kubernetes-preserve-unknown-fields": true, "properties": {"c": {}}},
            },
            "anyOf": [{"properties": {"d": {}}}],
        });
        close(&mut schema);
        let closed = |path: &str| schema.pointer(path) == Some(&json!(false));
        assert!(closed("/additionalProperties"), "{schema}");
        assert!(closed("/properties/list/items/additionalProperties"), "{schema}");
        assert!(
            closed("/properties/map/additionalProperties/additionalProperties"),
            "{schema}"
        );
        assert_eq!(schema.pointer("/properties/any/additionalProperties"), None);
        assert_eq!(schema.pointer("/anyOf/0/additionalProperties"), None);
        let nullable = schema.pointer("/properties/list/items/properties/a/type");
        assert_eq!(nullable, Some(&json!(["string", "null"])));
    }

    #[test]
    fn a_schema_brings_what_it_refers_to_once() {
        let reference = |name: &str| json!({ "$ref": format!("{COMPONENTS}{name}") });
        let schemas = json!({"a": {"items": reference("b")}, "b": {"allOf": [reference("a")]}, "c": {}});
        let schemas = schemas.as_object().cloned().unwrap_or_default();
        let whole = with_all_it_needs("a", &schemas);
        let names: Vec<&str> = whole["components"]["schemas"]
            .as_object()
            .map(|schemas| schemas.keys().map(String::as_str).collect())
            .unwrap_or_default();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn files_are_named_after_group_version_and_kind() {
        let of = |group: &str| {
            kind(
                &json!({"x-kubernetes-group-version-kind": [{"group": group, "version": "v1", "kind": "Role"}]}),
            )
        };
        assert_eq!(of("apps").as_deref(), Some("apps-v1-role"));
        assert_eq!(of("").as_deref(), Some("v1-v1-role"));
        assert_eq!(kind(&json!({"x-kubernetes-group-version-kind": []})), None);
    }
}
