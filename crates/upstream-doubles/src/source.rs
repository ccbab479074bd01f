//! Where the upstreams take time and chance from: the machine's, or a simulation's.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use uuid::Uuid;

use crate::lock;

/// Tells the time and makes random values. All clones share one clock and one sequence.
#[derive(Clone)]
pub struct Source {
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// `None`: the operating system's randomness.
    random: Option<Arc<Mutex<fastrand::Rng>>>,
}

impl Default for Source {
    fn default() -> Self {
        Self::real()
    }
}

impl Source {
    /// The machine's clock and the operating system's randomness.
    pub fn real() -> Self {
        Self {
            now: Arc::new(SystemTime::now),
            random: None,
        }
    }

    /// A clock of the caller's, and values that follow from `seed` and from the order in which they are asked for.
    pub fn simulated(now: impl Fn() -> SystemTime + Send + Sync + 'static, seed: u64) -> Self {
        Self {
            now: Arc::new(now),
            random: Some(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)))),
        }
    }

    /// The time now.
    pub(crate) fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// The time now, in milliseconds since 1970.
    pub(crate) fn unix_millis(&self) -> u64 {
        let since: Duration = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// `2024-05-01T12:00:00Z`.
    pub(crate) fn iso_now(&self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2024-05-01T12:00:00.123456Z`.
    pub(crate) fn iso_now_micros(&self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// A random UUID.
    pub(crate) fn uuid(&self) -> Uuid {
        match &self.random {
            None => Uuid::new_v4(),
            Some(random) => {
                let mut bytes = [0; 16];
                lock(random).fill(&mut bytes);
                uuid::Builder::from_random_bytes(bytes).into_uuid()
            }
        }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::try_from(self.now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.random.is_some() {
            "simulated"
        } else {
            "real"
        };
        write!(f, "Source({kind})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_iso;

    #[test]
    fn iso_times_can_be_read_back() {
        let text = Source::real().iso_now_micros();
        assert_eq!(text.len(), "2024-05-01T12:00:00.123456Z".len());
        assert!(parse_iso(&text).is_some());
        assert_eq!(Source::real().iso_now().len(), "2024-05-01T12:00:00Z".len());
    }

    #[test]
    fn a_simulated_source_repeats_itself() {
        let at = UNIX_EPOCH + Duration::from_millis(1_714_564_800_123);
        let make = || Source::simulated(move || at, 7);
        let (one, other) = (make(), make());
        let first = (one.uuid(), one.uuid());
        assert_eq!(first, (other.uuid(), other.uuid()));
        assert_ne!(first.0, first.1);
        assert_eq!(one.iso_now_micros(), "2024-05-01T12:00:00.123000Z");
        assert_eq!(one.unix_millis(), 1_714_564_800_123);
        assert_ne!(Source::real().uuid(), Source::real().uuid());
    }
}
