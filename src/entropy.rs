//! The operator's only source of randomness for secrets, so that tests and simulations can replace it. Jitter and
//! names, which nobody has to guess, come from elsewhere.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes from the operating system")]
pub struct NoEntropy;

/// Fills a slice.
type Source = dyn Fn(&mut [u8]) -> Result<(), NoEntropy> + Send + Sync;

/// Gives random bytes. Cheap to clone; all clones draw from the same source.
#[derive(Clone)]
pub struct Entropy(Arc<Source>);

impl Entropy {
    /// The operating system's, as the TLS library draws it for its keys.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|bytes| {
            rustls::crypto::ring::default_provider()
                .secure_random
                .fill(bytes)
                .map_err(|_| NoEntropy)
        }))
    }

    /// The same bytes for the same seed. Not secret: for tests and simulations only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let source = Mutex::new(fastrand::Rng::with_seed(seed));
        Self(Arc::new(move |bytes| {
            // A panic elsewhere leaves the generator whole: it has only one state.
            source.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
            Ok(())
        }))
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`].
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        (self.0)(bytes)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(source: &Entropy) -> [u8; 32] {
        let mut bytes = [0; 32];
        source.fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_systems_bytes_do_not_repeat_and_seeded_ones_do() {
        let system = Entropy::system();
        assert_ne!(draw(&system), draw(&system));
        assert_ne!(draw(&system), draw(&Entropy::system()));
        let seeded = Entropy::seeded(7);
        let first = draw(&seeded);
        assert_ne!(first, draw(&seeded));
        assert_eq!(first, draw(&Entropy::seeded(7)));
        assert_ne!(first, draw(&Entropy::seeded(8)));
    }
}
