//! JSON merge patches (RFC 7386) that say only what changes. Whoever sends one adds the resource version that
//! it was made against.

use serde_json::{Map, Value};

/// The patch that makes `old` equal to `new`; `None`: they are equal. What `new` lacks is set to null, lists are
/// replaced whole.
#[must_use]
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(previous) => {
                if let Some(difference) = merge_diff(previous, value) {
                    patch.insert(key.clone(), difference);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What an API server does with a merge patch: the algorithm of RFC 7386, section 2.
    fn apply(target: &Value, patch: &Value) -> Value {
        let Value::Object(changes) = patch else {
            return patch.clone();
        };
        let mut object = target.as_object().cloned().unwrap_or_default();
        for (key, change) in changes {
            if change.is_null() {
                object.remove(key);
            } else {
                let merged = apply(object.get(key).unwrap_or(&Value::Null), change);
                object.insert(key.clone(), merged);
            }
        }
        Value::Object(object)
    }

    #[test]
    fn says_only_what_changes() {
        for (old, new, patch) in [
            (json!({}), json!({}), None),
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({}), json!({"a": {"b": 1}}), Some(json!({"a": {"b": 1}}))),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": 1, "c": 3}}),
                Some(json!({"a": {"c": 3}})),
            ),
            (json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]}))),
            (json!({"a": {"b": 1}}), json!({"a": [1]}), Some(json!({"a": [1]}))),
            (
                json!({"a": "x"}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"b": 1}})),
            ),
        ] {
            assert_eq!(merge_diff(&old, &new), patch, "{old} -> {new}");
        }
    }

    #[test]
    fn a_patch_applied_gives_the_new_value() {
        let values = [
            json!({}),
            json!({"a": 1}),
            json!({"a": {"b": 1, "c": [1, {"d": 2}]}}),
            json!({"a": {"b": 2, "c": [1]}, "e": "f"}),
            json!({"a": {"c": {"d": false}}, "e": {}}),
        ];
        for old in &values {
            for new in &values {
                let patched = merge_diff(old, new).map_or_else(|| old.clone(), |patch| apply(old, &patch));
                assert_eq!(&patched, new, "from {old}");
            }
        }
    }
}
