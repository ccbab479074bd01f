//! What of a spec this version of the operator cannot read.
//!
//! Lists and watches of the API server come as a whole: one object whose spec has a word, or a form of a value, that only a
//! newer version knows would keep this one from seeing any object of the kind. After a rollback that keeps the newer kinds
//! that is what is there. So a spec is read in any case: what cannot be read counts as left out, and is listed in
//! [`Unread`]. Whoever acts on a spec asks for that list first; the object itself stays there for everybody who counts it.

use std::{fmt, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_path_to_error::{Path, Segment, Track};

use super::{ClusterWebhookProviderSpec, WebhookProviderSpec, WebhookSpec, schema};

/// Places that are listed one by one; what more there is goes with the field of the spec that it is in.
const MOST: usize = 32;

/// Longest word that a message shows.
const LONGEST_WORD: usize = 64;

/// A field of a spec that cannot be read. Its text says why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Path of the field below `spec`, such as `test.mode`.
    pub field: String,
    /// What stands there, if the field takes one of some words. Other values are not shown: they may be secret.
    pub word: Option<String>,
    /// The words that this version knows; none: the field does not take one of some words.
    pub known: Vec<String>,
    /// Whether the API server lets nobody change it.
    pub immutable: bool,
}

impl Unread {
    /// Whether it is this field of the spec, or a part of it.
    #[must_use]
    pub fn is_in(&self, field: &str) -> bool {
        self.field
            .strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// Why it cannot be read.
    #[must_use]
    pub fn fault(&self) -> String {
        match &self.word {
            Some(word) => format!("{word:?} is not known to this version of the operator"),
            None => "this version of the operator cannot read its value".to_owned(),
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.known.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => "another value".to_owned(),
        };
        let fault = self.fault();
        if self.immutable {
            write!(
                f,
                "{fault}; run the version that wrote it, or create the object anew with {words}"
            )
        } else {
            write!(f, "{fault}; use {words}, or run the version that wrote it")
        }
    }
}

/// A spec of one of the kinds.
pub(super) trait Spec: Sized {
    /// The kind.
    const KIND: &'static str;

    /// A spec of what is required and no more, all of it without meaning.
    fn least() -> Value;

    /// Reads a spec of which everything can be read.
    fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    /// Where something cannot be read of what is flattened into the spec: reading the whole does not show the place.
    fn fault_in_flattened(_: &Value) -> Option<Path> {
        None
    }

    /// Takes the list of what cannot be read.
    fn set_unread(&mut self, unread: Vec<Unread>);
}

fn fault<S: Spec>(value: &Value) -> Option<Path> {
    S::fault_in_flattened(value).or_else(|| path_of_fault(value, |deserializer| S::strict(deserializer)))
}

/// Where `read` fails.
pub(super) fn path_of_fault<'v, T>(
    value: &'v Value,
    read: impl FnOnce(serde_path_to_error::Deserializer<'_, '_, &'v Value>) -> Result<T, serde_json::Error>,
) -> Option<Path> {
    let mut track = Track::new();
    let failed = read(serde_path_to_error::Deserializer::new(value, &mut track)).is_err();
    failed.then(|| track.path())
}

/// Specs are written as is derived for them, and read so unless something in them cannot be read.
macro_rules! read_in_any_case {
    ($($spec:ty),+) => {$(
        impl<'de> Deserialize<'de> for $spec {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer)
            }
        }

        impl Serialize for $spec {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // What is derived goes before what is implemented here.
                <$spec>::serialize(self, serializer)
            }
        }
    )+};
}

read_in_any_case!(WebhookSpec, WebhookProviderSpec, ClusterWebhookProviderSpec);

/// Reads a spec in any case.
fn read<'de, D, S>(deserializer: D) -> Result<S, D::Error>
where
    D: Deserializer<'de>,
    S: Spec,
{
    let mut value = Value::deserialize(deserializer)?;
    if let Ok(spec) = S::strict(&value) {
        return Ok(spec);
    }
    let unread = take_out::<S>(&mut value);
    let mut spec = S::strict(&value).map_err(serde::de::Error::custom)?;
    spec.set_unread(unread);
    Ok(spec)
}

/// Takes out of a spec what cannot be read, one place after the other, and puts in what is required.
fn take_out<S: Spec>(value: &mut Value) -> Vec<Unread> {
    let mut unread: Vec<Unread> = Vec::new();
    // Each turn takes something out, or puts in something that can be read.
    while let Some(path) = fault::<S>(value) {
        let place = Place::of(value, &path, unread.len() >= MOST);
        let taken = place.as_ref().and_then(|place| place.take(value));
        let noted = match (place, taken) {
            // As good as left out.
            (Some(_), Some(Value::Null)) => Vec::new(),
            (Some(place), Some(taken)) => vec![(place.field, taken)],
            _ => put_in(value, S::least()),
        };
        for (field, taken) in noted {
            // A field whose part was taken out before goes as a whole where that part was required.
            if !unread.iter().any(|earlier| earlier.is_in(&field)) {
                unread.push(describe(S::KIND, field, &taken));
            }
        }
    }
    unread
}

/// Puts in what is required and missing; where nothing is, all is given up.
fn put_in(value: &mut Value, least: Value) -> Vec<(String, Value)> {
    let mut noted = Vec::new();
    if let (Some(fields), Value::Object(least)) = (value.as_object_mut(), &least) {
        for (name, replacement) in least {
            if !fields.contains_key(name) {
                fields.insert(name.clone(), replacement.clone());
                noted.push((name.clone(), Value::Null));
            }
        }
    }
    if noted.is_empty() {
        let names = least.as_object().into_iter().flat_map(|least| least.keys());
        noted = names.map(|name| (name.clone(), Value::Null)).collect();
        *value = least;
    }
    noted
}

/// A field in a spec.
struct Place {
    /// JSON pointer of the object that has it.
    parent: String,
    name: String,
    /// Its path as people write it.
    field: String,
}

impl Place {
    /// The innermost field on the way to a fault. Not an item of a list: half a list is another list.
    fn of(value: &Value, path: &Path, outermost: bool) -> Option<Self> {
        let mut found = None;
        let (mut pointer, mut field) = (String::new(), String::new());
        for segment in path {
            let parent = pointer.clone();
            match segment {
                Segment::Map { key } => {
                    pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                    let dot = if field.is_empty() { "" } else { "." };
                    field = format!("{field}{dot}{key}");
                    if value.pointer(&pointer).is_none() {
                        break;
                    }
                    found = Some(Self {
                        parent,
                        name: key.clone(),
                        field: field.clone(),
                    });
                }
                Segment::Seq { index } => {
                    pointer = format!("{pointer}/{index}");
                    field = format!("{field}[{index}]");
                }
                Segment::Enum { .. } | Segment::Unknown => break,
            }
            if outermost {
                break;
            }
        }
        found
    }

    fn take(&self, value: &mut Value) -> Option<Value> {
        value
            .pointer_mut(&self.parent)?
            .as_object_mut()?
            .remove(&self.name)
    }
}

/// What people are told of a field whose value was taken out.
fn describe(kind: &str, field: String, taken: &Value) -> Unread {
    static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(schema::crds);
    let schema = schema_of(&CRDS, kind, &field);
    let words = schema.and_then(|schema| schema.enum_.as_ref());
    let known: Vec<String> = words
        .into_iter()
        .flatten()
        .filter_map(|word| word.0.as_str().map(str::to_owned))
        .collect();
    let word = taken.as_str().filter(|_| !known.is_empty());
    let rules = schema.and_then(|schema| schema.x_kubernetes_validations.as_ref());
    Unread {
        word: word.map(|word| word.chars().take(LONGEST_WORD).collect()),
        immutable: rules
            .into_iter()
            .flatten()
            .any(|rule| rule.rule == schema::IMMUTABLE),
        field,
        known,
    }
}

/// The schema of a field of a spec.
fn schema_of<'a>(
    crds: &'a [CustomResourceDefinition],
    kind: &str,
    field: &str,
) -> Option<&'a JSONSchemaProps> {
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind)?;
    let root = crd.spec.versions.first()?.schema.as_ref()?;
    let mut schema = root
        .open_api_v3_schema
        .as_ref()?
        .properties
        .as_ref()?
        .get("spec")?;
    for name in field.split('.') {
        let (name, index) = name
            .split_once('[')
            .map_or((name, false), |(name, _)| (name, true));
        let own = schema.properties.as_ref().and_then(|fields| fields.get(name));
        schema = match (own, &schema.additional_properties) {
            (Some(own), _) => own,
            (None, Some(JSONSchemaPropsOrBool::Schema(values))) => values,
            (None, _) => return None,
        };
        if let (true, Some(JSONSchemaPropsOrArray::Schema(items))) = (index, &schema.items) {
            schema = items;
        }
    }
    Some(schema)
}

#[cfg(test)]
mod tests;
