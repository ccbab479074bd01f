//! The CEL rules of the definitions, evaluated as the apiserver does.
//!
//! The crate `cel` has the language; the functions that Kubernetes adds and our rules use are here: `isURL`, `url`,
//! `getScheme`, `getHostname`, `lowerAscii`, and `duration` (as whole milliseconds, which compare as durations do).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cel::{Context, ExecutionError, Program, Value as Cel, extractors::This};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use serde_json::Value;
use url::Url;

use super::schema::Violation;
use crate::api::duration::ApiDuration;

/// The rules of a kind that compare with what was there before, as the user reads them.
pub(super) fn with_old_self(crd: &CustomResourceDefinition) -> Vec<String> {
    let mut found = Vec::new();
    let schemas = crd
        .spec
        .versions
        .iter()
        .filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    for schema in schemas {
        visit_schema(schema, &mut |rule| {
            if needs_old(rule) {
                let message = rule.message.as_deref().unwrap_or(&rule.rule);
                found.push(format!("{}: {message}", crd.spec.names.kind));
            }
        });
    }
    found.sort();
    found.dedup();
    found
}

fn needs_old(rule: &ValidationRule) -> bool {
    rule.rule.contains("oldSelf")
}

fn visit_schema(schema: &JSONSchemaProps, visit: &mut impl FnMut(&ValidationRule)) {
    schema
        .x_kubernetes_validations
        .iter()
        .flatten()
        .for_each(&mut *visit);
    for child in schema.properties.iter().flat_map(|children| children.values()) {
        visit_schema(child, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        visit_schema(items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        visit_schema(values, visit);
    }
}

/// The rules of the definitions, read once.
pub(super) struct Rules {
    /// By the rule's text; or why it cannot be read.
    programs: BTreeMap<String, Result<Program, String>>,
    functions: Context<'static, 'static>,
}

impl Rules {
    /// Reads all rules of these definitions.
    ///
    /// # Errors
    ///
    /// The CEL crate has a function of ours already.
    pub(super) fn new(crds: &[CustomResourceDefinition]) -> Result<Self, String> {
        let mut functions = Context::default();
        declare(&mut functions).map_err(|error| error.to_string())?;
        let mut programs = BTreeMap::new();
        let schemas = crds
            .iter()
            .flat_map(|crd| &crd.spec.versions)
            .filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        for schema in schemas {
            visit_schema(schema, &mut |rule| {
                if !needs_old(rule) && !programs.contains_key(&rule.rule) {
                    let program = Program::compile(&rule.rule).map_err(|error| error.to_string());
                    programs.insert(rule.rule.clone(), program);
                }
            });
        }
        Ok(Self { programs, functions })
    }

    /// Which rules an object breaks. Its form is right already, and it holds no null.
    pub(super) fn violations(&self, schema: &JSONSchemaProps, object: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        self.visit("", schema, object, &mut found);
        found
    }

    fn visit(&self, path: &str, schema: &JSONSchemaProps, value: &Value, found: &mut Vec<Violation>) {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            if !needs_old(rule)
                && let Err(message) = self.holds(rule, value)
            {
                let below = rule.field_path.as_deref().unwrap_or_default();
                let field = format!("{path}{below}").trim_start_matches('.').to_owned();
                found.push((field, format!("Invalid value: {message}")));
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| *name != "status") {
                    let known = schema.properties.as_ref().and_then(|known| known.get(name));
                    let child = match (known, &schema.additional_properties) {
                        (Some(schema), _) => Some(schema),
                        (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => Some(&**schema),
                        _ => None,
                    };
                    let separator = if path.is_empty() { "" } else { "." };
                    if let Some(child) = child {
                        self.visit(&format!("{path}{separator}{name}"), child, value, found);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                    for (index, item) in items.iter().enumerate() {
                        self.visit(&format!("{path}[{index}]"), schema, item, found);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a rule holds; else its message. What cannot be evaluated does not hold: silence would be a clean bill.
    fn holds(&self, rule: &ValidationRule, value: &Value) -> Result<(), String> {
        let message = || rule.message.clone().unwrap_or_else(|| rule.rule.clone());
        let offline = |error: &dyn std::fmt::Display| {
            format!("{} (the rule cannot be evaluated offline: {error})", message())
        };
        let program = match self.programs.get(&rule.rule) {
            Some(Ok(program)) => program,
            Some(Err(error)) => return Err(offline(error)),
            None => return Err(offline(&"it is not one of the definitions'")),
        };
        let mut scope = self.functions.new_inner_scope();
        scope.add_variable_from_value("self", convert(value));
        match program.execute(&scope) {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) => Err(message()),
            Err(error) => Err(offline(&error)),
        }
    }
}

/// A value as CEL sees it: whole numbers are `int`, whatever their size.
fn convert(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(bool) => Cel::Bool(*bool),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(convert).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, Cel> = fields
                .iter()
                .map(|(name, value)| (name.clone(), convert(value)))
                .collect();
            fields.into()
        }
    }
}

fn declare(context: &mut Context<'_, '_>) -> Result<(), cel::DeclarationError> {
    context.add_function("isURL", |text: Arc<String>| is_url(&text))?;
    context.add_function("url", |text: Arc<String>| text)?;
    context.add_function("getScheme", |This(text): This<Arc<String>>| {
        parsed(&text).map(|url| Arc::new(url.scheme().to_owned()))
    })?;
    context.add_function("getHostname", |This(text): This<Arc<String>>| {
        Arc::new(hostname(&text).to_owned())
    })?;
    context.add_function("lowerAscii", |This(text): This<Arc<String>>| {
        Arc::new(text.to_ascii_lowercase())
    })?;
    context.add_function("duration", |text: Arc<String>| duration(&text))
}

/// `isURL` of Kubernetes: an absolute URL that Go can read.
fn is_url(text: &str) -> bool {
    // Go refuses what browsers put right.
    let plain = !text
        .chars()
        .any(|c| c.is_ascii_control() || matches!(c, ' ' | '\\'));
    let scheme = text.split_once("://").is_some();
    plain && scheme && Url::parse(text).is_ok()
}

fn parsed(text: &str) -> Result<Url, ExecutionError> {
    Url::parse(text).map_err(|error| ExecutionError::function_error("url", error))
}

/// The host between `//` and the path, without user and port. Not asked of the `url` crate, which takes the first
/// part of the path for the host where there is none.
fn hostname(text: &str) -> &str {
    let (_, rest) = text.split_once("//").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn duration(text: &str) -> Result<i64, ExecutionError> {
    let error = |reason: String| ExecutionError::function_error("duration", reason);
    let duration: ApiDuration = text
        .parse()
        .map_err(|reason: crate::api::duration::ParseDurationError| error(reason.to_string()))?;
    i64::try_from(duration.get().as_millis()).map_err(|reason| error(reason.to_string()))
}
