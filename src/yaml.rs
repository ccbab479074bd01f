//! YAML in and out: reads manifests of several documents, prints objects.
//!
//! The only user of the YAML crate, so that replacing it stays a matter of one file.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why a text is not the YAML that was asked for, or a value has no YAML form.
#[derive(Debug, thiserror::Error)]
#[error("{inner}")]
pub struct Error {
    /// The crate's own message, which names line and column.
    inner: serde_yaml::Error,
}

impl From<serde_yaml::Error> for Error {
    fn from(inner: serde_yaml::Error) -> Self {
        Self { inner }
    }
}

/// Reads every document of `text`; empty documents, such as a comment between two separators, are left out.
///
/// # Errors
///
/// The first document that is not YAML or does not fit `T`; its message names line and column.
pub fn parse_all<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_yaml::Value::deserialize(document)?;
        if !value.is_null() {
            documents.push(serde_yaml::from_value(value)?);
        }
    }
    Ok(documents)
}

/// Reads every document of `text`, empty ones included, so that they can be counted.
///
/// # Errors
///
/// As [`parse_all`].
pub fn parse_all_with_empty<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Ok(T::deserialize(document)?))
        .collect()
}

/// Reads one document.
///
/// # Errors
///
/// `text` is not YAML, holds several documents, or does not fit `T`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    Ok(serde_yaml::from_str(text)?)
}

/// Prints one document, with a line end at its end and without a separator.
///
/// # Errors
///
/// `value` has no YAML form, for example a map with keys that are maps.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, Error> {
    Ok(serde_yaml::to_string(value)?)
}

/// Prints several documents, each opened by `---`.
///
/// # Errors
///
/// As [`to_string`].
pub fn to_string_all<T: Serialize>(values: &[T]) -> Result<String, Error> {
    values.iter().try_fold(String::new(), |text, value| {
        Ok(text + "---\n" + &to_string(value)?)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn reads_every_document_and_skips_empty_ones() {
        let text = "# first\n---\na: 1\n---\n# only a comment\n---\nb: [x, 'y']\n";
        assert_eq!(
            parse_all::<Value>(text).unwrap(),
            [json!({"a": 1}), json!({"b": ["x", "y"]})]
        );
        assert!(parse_all::<Value>("").unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_place() {
        let error = parse_all::<Value>("a: 1\nb: [").unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
    }

    #[test]
    fn prints_what_it_reads() {
        let values = [json!({"a": "yes"}), json!({"b": [1, true, null]})];
        let text = to_string_all(&values).unwrap();
        assert!(
            text.starts_with("---\na: 'yes'\n---\n") || text.starts_with("---\na: yes\n---\n"),
            "{text}"
        );
        assert_eq!(parse_all::<Value>(&text).unwrap(), values);
        assert_eq!(
            parse::<Value>(&to_string(&values[0]).unwrap()).unwrap(),
            values[0]
        );
    }
}
