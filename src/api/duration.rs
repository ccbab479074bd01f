//! Durations as users write them in manifests: `10s`, `5m`, `1h30m`, `250ms`.
//!
//! The grammar is the part of Go's `time.ParseDuration` that people use: whole numbers with the units
//! `h`, `m`, `s` and `ms`. The schema checks the same grammar with CEL, so
//! that [`PATTERN`] is the one place that says it; ranges belong to the fields, not to this type.

use std::{borrow::Cow, fmt, ops::Deref, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest text of a duration, in characters. Together with six digits a number it keeps every accepted
/// text inside the 64-bit nanoseconds of CEL and Go.
pub const MAX_LENGTH: usize = 20;

/// Most digits of one number.
const MAX_DIGITS: usize = 6;

/// The grammar as a regular expression, for CEL and for people.
pub const PATTERN: &str = "^([0-9]{1,6}(h|m|s|ms))+$";

/// A duration of a manifest.
///
/// Prints in a canonical form: largest unit first, zero parts left out (`90s` prints as `1m30s`), zero as
/// `0s`. What a user wrote stays as written in the apiserver, because the operator never writes a `spec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiDuration(Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write whole numbers with the units h, m, s or ms, such as 30s, 5m or 1h30m"
)]
pub struct ParseDurationError {
    text: String,
}

impl ApiDuration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The duration for the standard library.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for ApiDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

/// Parts below a millisecond are cut off when printed; manifests cannot express them.
impl From<Duration> for ApiDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<ApiDuration> for Duration {
    fn from(duration: ApiDuration) -> Self {
        duration.0
    }
}

impl FromStr for ApiDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| ParseDurationError {
            text: text.chars().take(40).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return None;
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        if number.is_empty() || number.len() > MAX_DIGITS {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        // `ms` stands before `m`, or `5ms` would read as five minutes and a stray `s`.
        let (part, tail) = if let Some(tail) = tail.strip_prefix("ms") {
            (Duration::from_millis(number), tail)
        } else if let Some(tail) = tail.strip_prefix('s') {
            (Duration::from_secs(number), tail)
        } else if let Some(tail) = tail.strip_prefix('m') {
            (Duration::from_secs(number.checked_mul(60)?), tail)
        } else if let Some(tail) = tail.strip_prefix('h') {
            (Duration::from_secs(number.checked_mul(3600)?), tail)
        } else {
            return None;
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

impl fmt::Display for ApiDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let parts = [
            (secs / 3600, "h"),
            (secs % 3600 / 60, "m"),
            (secs % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        if parts.iter().all(|(number, _)| *number == 0) {
            return f.write_str("0s");
        }
        parts
            .iter()
            .filter(|(number, _)| *number != 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

impl Serialize for ApiDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ApiDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_users_write_and_prints_it_canonically() {
        for (text, millis, printed) in [
            ("10s", 10_000, "10s"),
            ("5m", 300_000, "5m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("90s", 90_000, "1m30s"),
            ("24h", 86_400_000, "24h"),
            ("1h0m0s", 3_600_000, "1h"),
            ("0s", 0, "0s"),
            ("1s500ms", 1_500, "1s500ms"),
            ("1m1m", 120_000, "2m"),
            ("999999h999999h99999h", 2_099_997 * 3_600_000, "2099997h"),
        ] {
            let duration: ApiDuration = text.parse().unwrap();
            assert_eq!(duration.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "10",
            "s",
            "-5s",
            "+5s",
            "1.5h",
            "5 m",
            " 5m",
            "5m ",
            "5d",
            "5M",
            "5us",
            "ten",
            "1234567s",
            "m5",
            "999999h999999h999999h",
            "５s",
            "5é",
        ] {
            let error = text.parse::<ApiDuration>().unwrap_err();
            assert!(error.to_string().contains("write whole numbers"), "{text}");
        }
    }

    #[test]
    fn canonical_text_reads_back_to_the_same_value() {
        for millis in (0..200_000_000u64).step_by(7_777_777) {
            let duration = ApiDuration::from(Duration::from_millis(millis));
            assert_eq!(duration.to_string().parse::<ApiDuration>().unwrap(), duration);
        }
    }

    #[test]
    fn is_a_string_in_json() {
        assert_eq!(
            serde_json::to_string(&ApiDuration::from_secs(600)).unwrap(),
            "\"10m\""
        );
        let read: ApiDuration = serde_json::from_str("\"1h30m\"").unwrap();
        assert_eq!(read, ApiDuration::from_secs(5400));
        assert!(serde_json::from_str::<ApiDuration>("10").is_err());
        let error = serde_json::from_str::<ApiDuration>("\"soon\"").unwrap_err();
        assert!(
            error.to_string().contains("\"soon\" is not a duration"),
            "{error}"
        );
    }
}
