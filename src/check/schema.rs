//! What the apiserver checks of an object's form: fields, types, limits, words, sets, and the names in metadata.
//!
//! Knows the keywords that the project's own definitions use, in the apiserver's words; a test fails when a
//! definition uses another. A general validator of JSON Schema would know neither list types nor the messages.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

/// A field's path and what is wrong with it.
pub(super) type Violation = (String, String);

/// Sets what the definition says is there when it is left out.
pub(super) fn set_defaults(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, child) in schema.properties.iter().flatten() {
                if let Some(default) = &child.default
                    && fields.get(name).is_none_or(Value::is_null)
                {
                    fields.insert(name.clone(), default.0.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    set_defaults(child, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = item_schema(schema) {
                items.iter_mut().for_each(|item| set_defaults(schema, item));
            }
        }
        _ => {}
    }
}

/// Takes out what is null, which is as good as left out.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// What is wrong with the form of an object, `metadata` and `status` left out.
pub(super) fn violations(schema: &JSONSchemaProps, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(fields) = object.as_object() else {
        return found;
    };
    // The apiserver judges metadata by itself, and takes the status out of what users send.
    let own: Map<String, Value> = fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    visit(schema, "", &Value::Object(own), &mut found);
    found
}

/// What is wrong with an object's metadata.
pub(super) fn metadata(object: &Value) -> Vec<Violation> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let mut found = Vec::new();
    let mut wrong = |field: &str, message: &str| found.push((field.to_owned(), message.to_owned()));
    match (text("/metadata/name"), text("/metadata/generateName")) {
        (None | Some(""), None | Some("")) => {
            wrong(
                "metadata.name",
                "Required value: name or generateName is required",
            );
        }
        (Some(name), _) if !name.is_empty() && !is_subdomain(name) => wrong(
            "metadata.name",
            "Invalid value: a name has at most 253 of the characters a-z, 0-9, - and ., and begins and ends with a letter or digit",
        ),
        _ => {}
    }
    for field in ["labels", "annotations"] {
        for (name, value) in object
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if !value.is_string() {
                wrong(
                    &format!("metadata.{field}.{name}"),
                    "Invalid value: must be a string; put it into quotes",
                );
            }
        }
    }
    found
}

/// A DNS subdomain (RFC 1123), as names of objects are.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            label.bytes().all(|byte| plain(byte) || byte == b'-')
                && label.bytes().next().is_some_and(plain)
                && label.bytes().last().is_some_and(plain)
        })
}

fn visit(schema: &JSONSchemaProps, path: &str, value: &Value, found: &mut Vec<Violation>) {
    let mut wrong = |message: String| found.push((path.to_owned(), message));
    if value.is_null() && schema.nullable != Some(true) {
        // As good as left out, unless it is required: that the object around it says.
        return;
    }
    let wanted = schema.type_.as_deref().unwrap_or_default();
    if !has_type(wanted, value) {
        return wrong(format!(
            "Invalid value: {:?}: must be of type {wanted}: {:?}",
            type_of(value),
            type_of(value)
        ));
    }
    if let Some(words) = &schema.enum_
        && !words.iter().any(|word| word.0 == *value)
    {
        let words: Vec<String> = words.iter().map(|word| word.0.to_string()).collect();
        wrong(format!(
            "Unsupported value: {value}: supported values: {}",
            words.join(", ")
        ));
    }
    match value {
        Value::String(text) => check_text(schema, text, &mut wrong),
        Value::Number(number) => check_number(schema, number.as_f64(), &mut wrong),
        Value::Array(items) => check_list(schema, path, items, found),
        Value::Object(fields) => check_object(schema, path, fields, found),
        Value::Bool(_) | Value::Null => {}
    }
}

fn has_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_i64().is_some() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn check_text(schema: &JSONSchemaProps, text: &str, wrong: &mut impl FnMut(String)) {
    // Counted in characters, although the message says bytes: so does the apiserver.
    let length = size(text.chars().count());
    if let Some(most) = schema.max_length.filter(|most| length > *most) {
        wrong(format!("Too long: may not be more than {most} bytes"));
    }
    if let Some(least) = schema.min_length.filter(|least| length < *least) {
        wrong(format!(
            "Invalid value: {text:?}: should be at least {least} chars long"
        ));
    }
}

fn check_number(schema: &JSONSchemaProps, number: Option<f64>, wrong: &mut impl FnMut(String)) {
    let Some(number) = number else { return };
    if let Some(least) = schema.minimum.filter(|least| number < *least) {
        wrong(format!(
            "Invalid value: {number}: should be greater than or equal to {least}"
        ));
    }
    if let Some(most) = schema.maximum.filter(|most| number > *most) {
        wrong(format!(
            "Invalid value: {number}: should be less than or equal to {most}"
        ));
    }
}

fn item_schema(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(schema),
        _ => None,
    }
}

fn check_list(schema: &JSONSchemaProps, path: &str, items: &[Value], found: &mut Vec<Violation>) {
    if let Some(most) = schema.max_items.filter(|most| size(items.len()) > *most) {
        let message = format!("Too many: {}: must have at most {most} items", items.len());
        found.push((path.to_owned(), message));
    }
    if let Some(least) = schema.min_items.filter(|least| size(items.len()) < *least) {
        let message = format!("Invalid value: should have at least {least} items");
        found.push((path.to_owned(), message));
    }
    let keys = schema.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let identity = |item: &Value| -> Option<Value> {
        match schema.x_kubernetes_list_type.as_deref() {
            Some("set") => Some(item.clone()),
            Some("map") => Some(keys.iter().map(|key| item.get(key).cloned()).collect()),
            _ => None,
        }
    };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(identity) = identity(item) {
            if seen.contains(&identity) {
                found.push((path.clone(), format!("Duplicate value: {identity}")));
            }
            seen.push(identity);
        }
        if let Some(schema) = item_schema(schema) {
            visit(schema, &path, item, found);
        }
    }
}

fn check_object(
    schema: &JSONSchemaProps,
    path: &str,
    fields: &Map<String, Value>,
    found: &mut Vec<Violation>,
) {
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for name in schema.required.iter().flatten() {
        if fields.get(name).is_none_or(Value::is_null) {
            found.push((join(name), "Required value".to_owned()));
        }
    }
    if let Some(most) = schema.max_properties.filter(|most| size(fields.len()) > *most) {
        let message = format!("Too many: must have at most {most} items");
        found.push((path.to_owned(), message));
    }
    for (name, value) in fields {
        let known = schema.properties.as_ref().and_then(|known| known.get(name));
        match (known, &schema.additional_properties) {
            (Some(schema), _) => visit(schema, &join(name), value, found),
            (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => visit(schema, &join(name), value, found),
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _) => {
                let path = join(name);
                let message = format!("unknown field {path:?}; is it a typing error?");
                found.push((path, message));
            }
        }
    }
}
