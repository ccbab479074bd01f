//! Defaults of the operator's kinds, from the CRDs that it ships.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;
use webhook_operator::api::schema::crds;

/// Schemas by plural.
static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    crds()
        .into_iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .map(|crd| {
            let plural = crd["spec"]["names"]["plural"].as_str().unwrap().to_owned();
            (plural, schema(&crd))
        })
        .collect()
});

/// Whether it is one of the operator's kinds, which have a status of their own and generations.
pub(super) fn is_custom(plural: &str) -> bool {
    SCHEMAS.contains_key(plural)
}

/// Drops the status of a new object and sets what its manifest leaves out.
pub(super) fn fill_in_new(plural: &str, object: &mut Value) {
    if let (true, Some(object)) = (is_custom(plural), object.as_object_mut()) {
        object.remove("status");
    }
    fill_in(plural, object);
}

/// Sets what a manifest leaves out.
pub(super) fn fill_in(plural: &str, object: &mut Value) {
    if let Some(schema) = SCHEMAS.get(plural) {
        apply(schema, object);
    }
}

fn apply(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let (false, Some(default)) = (fields.contains_key(name), schema.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    apply(schema, field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| apply(&schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_crds() {
        let mut webhook = json!({"spec": {"url": "https://a.example"}, "status": {"state": "valid"}});
        fill_in_new("webhooks", &mut webhook);
        assert_eq!(webhook["status"], json!({"observedGeneration": -1}));
        assert_eq!(webhook["spec"]["deletionPolicy"], "Delete");
        assert_eq!(webhook["spec"]["test"]["mode"], "Auto");
        let before = webhook.clone();
        fill_in("webhooks", &mut webhook);
        assert_eq!(webhook, before);
        assert!(!is_custom("secrets"));
    }
}
