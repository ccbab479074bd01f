//! Text that must not be seen: credentials, signing secrets, secret header values.
//!
//! Guards against printing by accident and against lingering in freed memory. It does not protect against code
//! that asks for the text, and copies made by others (a header handed to the HTTP library) are theirs to forget.

use std::fmt;

use zeroize::Zeroize;

/// A string that prints as `***`, has no serialisation, and is overwritten when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text itself. Name the reason where you call it; never pass the result to a formatter.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in characters (not bytes), the unit of the upstreams' limits on secrets.
    #[must_use]
    pub fn len_chars(&self) -> usize {
        self.0.chars().count()
    }

    /// Whether there is no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_formatter_shows_the_text() {
        let secret = SecretText::from("kr0kodil".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?} {:>9}", secret),
            "*** *** *** ***"
        );
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        assert_eq!(secret.expose(), "kr0kodil");
    }

    #[test]
    fn length_counts_characters() {
        assert_eq!(SecretText::from("zażółć").len_chars(), 6);
        assert_eq!(SecretText::default().len_chars(), 0);
        assert!(SecretText::default().is_empty());
        assert!(!SecretText::from(" ").is_empty());
    }
}
