//! Texts that others write (users, upstreams, receivers' troubles) go into a status only up to a length, so that no
//! object outgrows what the apiserver stores or what people like to read. Lengths are those of the stored JSON.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longest message of a condition or test, in bytes of JSON. With it a status in which everything is at its longest
/// stays under 16 KiB.
pub const MESSAGE: usize = 800;

/// Longest URL that is shown, in bytes of JSON: the longest that the schema takes, with room for what is escaped.
pub const URL: usize = 3072;

/// Longest copy of a request annotation, in bytes of JSON.
const REQUEST: usize = 256;

/// The text, or its beginning with an ellipsis where its JSON is longer than `longest` bytes. Cut between characters.
#[must_use]
pub fn clip(text: &str, longest: usize) -> String {
    const ELLIPSIS: char = '…';
    let (mut length, mut cut) = (0, 0);
    for (at, c) in text.char_indices() {
        length += json_length(c);
        if length > longest {
            return text.get(..cut).unwrap_or_default().to_owned() + "…";
        }
        if length + json_length(ELLIPSIS) <= longest {
            cut = at + c.len_utf8();
        }
    }
    text.to_owned()
}

/// The value of a request annotation as it is noted when it is handled. What somebody makes very long is noted by its
/// beginning and a digest: still the same for the same value and another for another one.
#[must_use]
pub fn request(value: &str) -> String {
    if value.chars().map(json_length).sum::<usize>() <= REQUEST {
        return value.to_owned();
    }
    let digest: [u8; 32] = Sha256::digest(value.as_bytes()).into();
    digest
        .iter()
        .take(16)
        .fold(clip(value, REQUEST - 32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes of a character in JSON as the apiserver writes it, which escapes what HTML and JavaScript know.
const fn json_length(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        c if (c as u32) < 0x20 => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_by_its_length_in_json() {
        assert_eq!(clip("as it is", 8), "as it is");
        assert_eq!(clip("too long", 7), "too …");
        assert_eq!(clip("żółw", 6), "ż…");
        assert_eq!(clip("\u{1}\u{1}\u{1}", 12), "\u{1}…");
        assert_eq!(clip("<<", 12), "<<");
        assert_eq!(clip("<<<", 12), "<…");
    }

    #[test]
    fn a_long_request_is_noted_short_and_stays_told_apart() {
        assert_eq!(request("2026-11-22T03:00:00Z"), "2026-11-22T03:00:00Z");
        let (one, other) = ("x".repeat(5000), "x".repeat(5001));
        assert!(request(&one).len() <= REQUEST);
        assert_eq!(request(&one), request(&one));
        assert_ne!(request(&one), request(&other));
    }
}
