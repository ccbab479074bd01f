//! Conpeek's JSON: the body of a `PUT`, and its answers read in every form that they may have.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::Style;
use crate::{
    domain::{
        desired::{Desired, Header, Retry},
        remote::{Remote, RemoteId},
    },
    net::SecretText,
    provider::{Effect, ErrorClass, Operation, ProviderError},
};

/// The body of a `PUT`: always the complete object, because nothing says whether fields left out are kept.
pub(super) fn body(operation: Operation, want: &Desired, style: Style) -> Result<Vec<u8>, ProviderError> {
    #[derive(Serialize)]
    struct Flat<'a> {
        url: &'a str,
        retry_enabled: u8,
        retry_config: Redelivery,
        headers: HeaderMap<'a>,
    }
    #[derive(Serialize)]
    struct Redelivery {
        retry_value: u64,
        max_retries: u32,
        backoff_type: &'static str,
        backoff_value: u32,
    }
    #[derive(Serialize)]
    struct Wrapped<'a> {
        data: Flat<'a>,
    }
    struct HeaderMap<'a>(&'a [Header]);
    impl Serialize for HeaderMap<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|header| (&header.name, header.value.expose())))
        }
    }

    let retry = want.retry.unwrap_or_default();
    let flat = Flat {
        url: &want.url,
        retry_enabled: u8::from(retry.enabled),
        retry_config: Redelivery {
            // Whole seconds (an assumption: the page names no unit), rounded up so that no wait is shortened.
            retry_value: u64::try_from(retry.initial_delay.as_millis().div_ceil(1000)).unwrap_or(u64::MAX),
            max_retries: retry.max_retries,
            backoff_type: MULTIPLIER,
            backoff_value: retry.factor,
        },
        headers: HeaderMap(&want.headers),
    };
    let bytes = match style {
        Style::Flat => serde_json::to_vec(&flat),
        Style::Wrapped => serde_json::to_vec(&Wrapped { data: flat }),
    };
    bytes.map_err(|_| {
        let message = "the configuration cannot be written as JSON";
        ProviderError::new(ErrorClass::Rejected, operation, Effect::None, message)
    })
}

/// The only backoff that the page names.
const MULTIPLIER: &str = "multiplier";

/// An answer to `PUT` or `GET`: `{"success", "data": {..}}`, or the configuration bare. Holds header values, so
/// it has no `Debug`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) success: Option<Flag>,
    data: Option<Config>,
    #[serde(deserialize_with = "shown_text")]
    url: Option<String>,
    retry_enabled: Option<Flag>,
    retry_config: Option<RetryConfig>,
    #[serde(deserialize_with = "shown_headers")]
    headers: Option<Vec<Header>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    #[serde(deserialize_with = "shown_text")]
    pub(super) url: Option<String>,
    retry_enabled: Option<Flag>,
    retry_config: Option<RetryConfig>,
    #[serde(deserialize_with = "shown_headers")]
    headers: Option<Vec<Header>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RetryConfig {
    retry_value: Option<Amount>,
    max_retries: Option<Amount>,
    backoff_type: Option<String>,
    backoff_value: Option<Amount>,
}

impl Answer {
    pub(super) fn parse(operation: Operation, body: &[u8]) -> Result<Self, ProviderError> {
        let unexpected = |what| ProviderError::unexpected(operation, what);
        // serde skips the bytes of unknown strings unread.
        let text = std::str::from_utf8(body).map_err(|_| unexpected("it is not UTF-8"))?;
        // serde would take an array for a struct, field by field.
        if !text.trim_start().starts_with('{') {
            return Err(unexpected("it is no JSON object"));
        }
        // The library's own message quotes what it found, so it is dropped.
        serde_json::from_str(text).map_err(|_| unexpected("it is no configuration in JSON"))
    }

    /// The configuration, from wherever it stands.
    pub(super) fn config(self) -> Config {
        let Self {
            data,
            url,
            retry_enabled,
            retry_config,
            headers,
            ..
        } = self;
        data.unwrap_or(Config {
            url,
            retry_enabled,
            retry_config,
            headers,
        })
    }
}

impl Config {
    pub(super) fn remote(self, id: &RemoteId) -> Remote {
        let retry = self.retry();
        Remote {
            headers: self.headers,
            retry,
            ..Remote::new(id.0.clone(), self.url.unwrap_or_default())
        }
    }

    /// `None` unless the whole of it is shown. A backoff that our schema has no words for becomes the factor 0,
    /// which is never wanted and so always a difference.
    fn retry(&self) -> Option<Retry> {
        let config = self.retry_config.as_ref()?;
        let Flag(enabled) = self.retry_enabled?;
        let known = config
            .backoff_type
            .as_deref()
            .is_none_or(|name| name == MULTIPLIER);
        Some(Retry {
            enabled,
            initial_delay: Duration::from_secs_f64(config.retry_value?.0),
            max_retries: whole(config.max_retries?).unwrap_or(u32::MAX),
            factor: whole(config.backoff_value?).filter(|_| known).unwrap_or(0),
        })
    }
}

/// A flag: `true`, `1` or `"1"`, and the like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flag")
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Flag, E> {
                match number {
                    0 => Ok(Flag(false)),
                    1 => Ok(Flag(true)),
                    _ => Err(E::custom("no flag")),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Flag, E> {
                match text {
                    "0" | "false" => Ok(Flag(false)),
                    "1" | "true" => Ok(Flag(true)),
                    _ => Err(E::custom("no flag")),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A number that is not negative and fits a duration in seconds, also as text. Only whole ones are documented.
#[derive(Clone, Copy)]
struct Amount(f64);

/// Larger ones are nonsense in every field, and `Duration` would not take all of them.
const LARGEST: f64 = 1e15;

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        let number = match Form::deserialize(deserializer)? {
            Form::Number(number) => number,
            Form::Text(text) => text.parse().map_err(de::Error::custom)?,
        };
        if (0.0..=LARGEST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(de::Error::custom("out of range"))
        }
    }
}

/// The number, if it is whole and fits.
fn whole(Amount(number): Amount) -> Option<u32> {
    let fits = number.fract() == 0.0 && number <= f64::from(u32::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "just checked; never negative"
    )]
    fits.then_some(number as u32)
}

/// A text that is there; `null` is shown as empty, and so differs from one that is left out.
fn shown_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

/// Headers by name. `null` and `[]` (how PHP writes an empty map) are none; a repeated name is an error, because
/// which of the two counts cannot be known.
fn shown_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Header>>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Vec<Header>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("headers by name")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            match seq.next_element::<de::IgnoredAny>()? {
                None => Ok(Vec::new()),
                Some(_) => Err(de::Error::custom("no names")),
            }
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut headers, mut names) = (Vec::new(), BTreeSet::new());
            while let Some((name, HeaderValue(value))) = map.next_entry::<String, HeaderValue>()? {
                if !names.insert(name.to_ascii_lowercase()) {
                    return Err(de::Error::custom("repeated name"));
                }
                headers.push(Header { name, value });
            }
            Ok(headers)
        }
    }
    deserializer.deserialize_any(Reader).map(Some)
}

/// A header's value; PHP may write one that looks like a number as one.
struct HeaderValue(SecretText);

impl<'de> Deserialize<'de> for HeaderValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Number(serde_json::Number),
            Nothing(()),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Number(number) => number.to_string().into(),
            Form::Nothing(()) => SecretText::default(),
        }))
    }
}
