//! When a registration is read back: at a fixed phase of the wall clock, from the object's uid and its interval.
//! It is the same after a restart, so a restart causes neither a burst nor starvation.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// A number that is spread evenly over all uids.
#[must_use]
pub fn seed(uid: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(uid.as_bytes()).into();
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The first read-back strictly after `after`.
#[must_use]
pub fn next(uid: &str, interval: Duration, after: Timestamp) -> Timestamp {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let phase = i64::try_from(seed(uid) % interval.unsigned_abs()).unwrap_or(0);
    let after = after.as_millisecond();
    let since = (after - phase).rem_euclid(interval);
    Timestamp::from_millisecond(after.saturating_add(interval - since)).unwrap_or(Timestamp::MAX)
}

/// Whether a read-back time has passed since `last`.
#[must_use]
pub fn is_due(uid: &str, interval: Duration, last: Timestamp, now: Timestamp) -> bool {
    next(uid, interval, last) <= now
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn times_are_one_interval_apart_and_do_not_depend_on_when_one_asks() {
        let first = next("uid-1", INTERVAL, at(0));
        assert!(first > at(0) && first <= at(600));
        assert_eq!(
            next("uid-1", INTERVAL, first),
            first.checked_add(INTERVAL).unwrap()
        );
        assert_eq!(
            next("uid-1", INTERVAL, at(-1)),
            next("uid-1", INTERVAL, first.checked_sub(INTERVAL).unwrap())
        );
        assert!(!is_due(
            "uid-1",
            INTERVAL,
            at(0),
            first.checked_sub(Duration::from_millis(1)).unwrap()
        ));
        assert!(is_due("uid-1", INTERVAL, at(0), first));
    }

    #[test]
    fn objects_are_spread_over_the_interval() {
        let buckets: BTreeSet<_> = (0..1000)
            .map(|n| (next(&format!("uid-{n}"), INTERVAL, at(0)).as_second() - at(0).as_second()) / 60)
            .collect();
        assert_eq!(buckets.len(), 10);
    }
}
