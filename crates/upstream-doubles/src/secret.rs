//! A text that must not be printed by accident.
//!
//! Only `Debug` is guarded: the doubles hand secrets out on purpose, in their answers and on the admin port,
//! because their users have to compare them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A credential or signing secret. `Debug` prints `***`; [`Secret::reveal`] and serialisation give the text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty, which several of these APIs use for "not set".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        assert_eq!(format!("{:?}", Secret::from("hunter2-hunter2")), "***");
    }
}
