//! What the dialects share in reading answers and writing paths: ids that come as numbers or strings, names in any
//! case, ids and targets as path segments, and which fields of the spec a refusal names.
//!
//! Nothing here knows an upstream, does I/O, or puts a byte that an upstream sent into a message.

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, value::RawValue};

use super::{Effect, ErrorClass, Operation, ProviderError};
use crate::net::{Limit, Response};

/// Far beyond any id that was seen; an annotation could hold a thousand times as much.
const LONGEST_ID: usize = 253;

/// Most registrations of an account that are listed; far beyond any that was seen.
pub(super) const MOST_LISTED: usize = 20_000;

/// Most values in the JSON of a list, counted by the commas between them: in memory the smallest of them, such as an
/// empty name of an event, is many times as long as on the wire.
const MOST_VALUES: usize = 250_000;

/// What one list may still bring, all its pages together: whoever answers must not be able to fill the memory that all
/// accounts share.
pub(super) struct Room {
    bytes: usize,
    values: usize,
}

impl Room {
    /// That of a list that is just begun.
    pub(super) const fn new() -> Self {
        Self {
            bytes: Limit::List.bytes(),
            values: MOST_VALUES,
        }
    }

    /// The largest answer for the next page.
    pub(super) const fn limit(&self) -> Limit {
        Limit::Bytes(self.bytes)
    }

    /// Takes the room of a page that has come, before it is read.
    ///
    /// # Errors
    ///
    /// It has more values than there is room for.
    pub(super) fn take(&mut self, page: &[u8]) -> Result<(), ProviderError> {
        let commas = page.iter().filter(|byte| **byte == b',').count();
        self.bytes = self.bytes.saturating_sub(page.len());
        self.values = self
            .values
            .checked_sub(commas)
            .ok_or_else(|| ProviderError::unexpected(Operation::List, "its list has too many values"))?;
        Ok(())
    }
}

/// The error of a list that has become too long; `None`: it is not.
pub(super) fn too_long(listed: usize) -> Option<ProviderError> {
    (listed > MOST_LISTED).then(|| {
        let what = format!("its list has more than {MOST_LISTED} entries");
        ProviderError::unexpected(Operation::List, &what)
    })
}

/// An id as an upstream writes it, number or string, kept as text: `7` and `"7"` are the same. Numbers keep all
/// their digits, because two long ids must not become one by rounding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WireId(pub(super) String);

impl WireId {
    /// `None`: neither a whole number nor a string of 1 to [`LONGEST_ID`] bytes of letters, digits and punctuation.
    /// An id goes into an annotation, Events and logs: one that does not fit there, or that would break a line or
    /// turn its direction, is none.
    pub(super) fn read(raw: &str) -> Option<Self> {
        let fits = |c: char| c.is_alphanumeric() || c.is_ascii_punctuation();
        let (text, fits) = if raw.starts_with('"') {
            let text = serde_json::from_str::<String>(raw).ok()?;
            let fits = !text.is_empty() && text.chars().all(fits);
            (text, fits)
        } else {
            (raw.to_owned(), is_whole_number(raw))
        };
        (fits && text.len() <= LONGEST_ID).then_some(Self(text))
    }
}

impl<'de> Deserialize<'de> for WireId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::read(raw.get()).ok_or_else(|| de::Error::custom("not an id"))
    }
}

/// Digits in canonical form, with a sign or without.
fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits == "0" || !digits.starts_with('0');
    !digits.is_empty() && canonical && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// An id for a JSON body. Whether it was a number or a string on the wire is not remembered, so text that is a
/// whole number goes as a number. (Assumption: an upstream whose string ids look like numbers takes either.)
pub(super) fn id_json(id: &str) -> Value {
    if is_whole_number(id) {
        // Beyond 64 bits it stays a string, which at least keeps the digits.
        if let Ok(number) = id.parse::<u64>() {
            return Value::from(number);
        }
        if let Ok(number) = id.parse::<i64>() {
            return Value::from(number);
        }
    }
    Value::from(id)
}

/// One percent-encoded path segment: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
///
/// # Errors
///
/// An empty segment, `.` and `..`, escaped or not, would address something else: no call may be made with them.
pub(super) fn segment(operation: Operation, text: &str) -> Result<String, ProviderError> {
    if matches!(text, "" | "." | "..") {
        let message = "the id or target is empty, '.' or '..', which cannot stand in the path of a call; correct the target";
        return Err(ProviderError::new(
            ErrorClass::Rejected,
            operation,
            Effect::None,
            message,
        ));
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            const HEX: [char; 16] = [
                '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
            ];
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
    Ok(out)
}

/// The member of this name; one that differs only in case counts where there is no exact one.
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

/// Names of our spec's fields that a refusal is about: those members of the answer's object `container` that are
/// in `known` (their name, our field). Nothing else of the answer is looked at.
pub(super) fn named_fields(
    response: &Response,
    container: &str,
    known: &[(&str, &'static str)],
) -> Vec<&'static str> {
    let Ok(Value::Object(body)) = serde_json::from_slice(response.body()) else {
        return Vec::new();
    };
    let Some(Value::Object(named)) = member(&body, container) else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (theirs, ours) in known {
        if member(named, theirs).is_some() && !fields.contains(ours) {
            fields.push(*ours);
        }
    }
    fields
}

/// The same refusal with the fields in its message, if any are named.
pub(super) fn with_fields(error: ProviderError, fields: &[&str]) -> ProviderError {
    match error.status {
        Some(status) if error.class == ErrorClass::Rejected && !fields.is_empty() => {
            let message = format!(
                "the upstream refused to {} ({status}) because of: {}; correct the Webhook's spec",
                error.operation,
                fields.join(", ")
            );
            error.reclass(ErrorClass::Rejected, message)
        }
        _ => error,
    }
}

/// Whether the body of a 2xx is what an API would send: nothing, or JSON. A page of HTML comes from something in
/// between, and then nothing is known of what the upstream did.
///
/// # Errors
///
/// [`ErrorClass::Unexpected`].
pub(super) fn json_or_nothing(operation: Operation, response: &Response) -> Result<(), ProviderError> {
    let body = response.body().trim_ascii();
    if body.is_empty() || serde_json::from_slice::<de::IgnoredAny>(body).is_ok() {
        return Ok(());
    }
    Err(ProviderError::unexpected(operation, "the body is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_list_share_its_room() {
        let mut room = Room::new();
        assert_eq!(room.limit(), Limit::Bytes(8 << 20));
        room.take(&vec![b'x'; 5 << 20]).unwrap();
        assert_eq!(room.limit(), Limit::Bytes(3 << 20));
        room.take(&vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(room.limit(), Limit::Bytes(0));

        let mut room = Room::new();
        room.take(&vec![b','; MOST_VALUES - 1]).unwrap();
        room.take(b"[1,2]").unwrap();
        let error = room.take(b"[1,2]").unwrap_err();
        assert_eq!(error.class, ErrorClass::Unexpected);
        assert!(error.message.contains("too many values"), "{error}");
    }

    #[test]
    fn a_list_has_a_longest() {
        assert!(too_long(MOST_LISTED).is_none());
        let error = too_long(MOST_LISTED + 1).unwrap();
        assert!(error.message.contains("20000 entries"), "{error}");
    }

    #[test]
    fn ids_are_numbers_or_strings_and_keep_their_digits() {
        let read = |raw: &str| serde_json::from_str::<WireId>(raw).ok().map(|id| id.0);
        for (raw, id) in [
            ("7", "7"),
            ("\"7\"", "7"),
            ("-3", "-3"),
            ("0", "0"),
            ("\"cfg-77\"", "cfg-77"),
            ("\"caf\\u00e9\"", "café"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(read(raw).as_deref(), Some(id), "{raw}");
        }
        for raw in [
            "null",
            "\"\"",
            "\" \"",
            "1.5",
            "1e3",
            "true",
            "[]",
            "{}",
            "{\"id\":1}",
            r#""a b""#,
            r#""a\n2026-01-01 INFO forged""#,
            r#""\u001b[31mred""#,
            r#""\u202egnp.exe""#,
            r#""a\u0000""#,
        ] {
            assert_eq!(read(raw), None, "{raw}");
        }
        for (length, id) in [(LONGEST_ID, true), (LONGEST_ID + 1, false)] {
            assert_eq!(read(&"7".repeat(length)).is_some(), id, "{length}");
            assert_eq!(
                read(&format!("\"{}\"", "x".repeat(length))).is_some(),
                id,
                "{length}"
            );
        }
    }

    #[test]
    fn an_id_goes_back_as_a_number_only_if_it_is_one() {
        for (id, json) in [
            ("7", "7"),
            ("-3", "-3"),
            ("007", "\"007\""),
            ("cfg-77", "\"cfg-77\""),
            ("-", "\"-\""),
        ] {
            assert_eq!(id_json(id).to_string(), json);
        }
        assert_eq!(
            id_json("18446744073709551615").to_string(),
            "18446744073709551615"
        );
        assert_eq!(
            id_json("18446744073709551616").to_string(),
            "\"18446744073709551616\""
        );
    }

    #[test]
    fn a_segment_is_one_segment() {
        let encode = |text| segment(Operation::Read, text);
        assert_eq!(encode("invitaciones").unwrap(), "invitaciones");
        assert_eq!(encode("a/b?c#d%2e é~").unwrap(), "a%2Fb%3Fc%23d%252e%20%C3%A9~");
        for bad in ["", ".", ".."] {
            assert_eq!(encode(bad).unwrap_err().class, ErrorClass::Rejected, "{bad:?}");
        }
        assert_eq!(encode("...").unwrap(), "...");
    }

    #[test]
    fn only_known_names_reach_the_message() {
        let body = r#"{"errors":{"_":["x"],"SECRET":["kr0kodil"],"Callback":["kr0kodil"],"kr0kodil":["x"]}}"#;
        let response = Response::new(400, Vec::new(), body);
        let known = [("Callback", "url"), ("Secret", "secretRef"), ("Activo", "active")];
        let fields = named_fields(&response, "Errors", &known);
        assert_eq!(fields, ["url", "secretRef"]);
        let error = with_fields(
            ProviderError::from_status(Operation::Create, 400, None).unwrap(),
            &fields,
        );
        assert_eq!(
            error.to_string(),
            "the upstream refused to create (400) because of: url, secretRef; correct the Webhook's spec"
        );
        for body in ["", "[]", "{\"Errors\":3}", "<html>"] {
            assert!(named_fields(&Response::new(400, Vec::new(), body), "Errors", &known).is_empty());
        }
    }

    #[test]
    fn a_page_of_html_is_no_confirmation() {
        let judge = |body: &str| json_or_nothing(Operation::Delete, &Response::new(200, Vec::new(), body));
        assert!(judge("").is_ok() && judge(" \n").is_ok() && judge("{}").is_ok() && judge("null").is_ok());
        let error = judge("<html>sign in</html>").unwrap_err();
        assert_eq!(
            (error.class, error.effect),
            (ErrorClass::Unexpected, Effect::Unknown)
        );
    }
}
