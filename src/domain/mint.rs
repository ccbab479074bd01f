//! The text of a signing secret that the operator makes, from random bytes.

use crate::net::SecretText;

/// Letters, digits, `-` and `_`: a text that needs no quoting in a header, URL, shell or YAML file.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Six bits each: 258 bits, more than HMAC-SHA256 can use.
const LENGTH: usize = 43;

/// How many characters a new secret has where the upstream takes `min` to `max`.
#[must_use]
pub fn length(min: usize, max: usize) -> usize {
    LENGTH.max(min).min(max)
}

/// A secret of as many characters as there are bytes. Each character is one of 64, equally likely if the bytes are
/// random.
#[must_use]
pub fn spell(bytes: &[u8]) -> SecretText {
    let text: String = bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 64)))
        .map(|byte| char::from(*byte))
        .collect();
    SecretText::from(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_secret_fits_between_the_limits() {
        assert_eq!(length(16, 256), 43);
        assert_eq!(length(64, 256), 64);
        assert_eq!(length(1, 20), 20);
        assert_eq!(spell(&[0; 43]).len_chars(), 43);
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let all: Vec<u8> = (0..=255).collect();
        let mut counts = BTreeMap::<char, usize>::new();
        for character in spell(&all).expose().chars() {
            *counts.entry(character).or_default() += 1;
        }
        assert_eq!(counts.len(), 64);
        assert!(counts.values().all(|count| *count == 4));
        assert!(
            counts
                .keys()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        );
    }
}
