//! How long to wait after a failure.

use std::time::Duration;

/// First delay.
pub const BASE: Duration = Duration::from_secs(1);
/// Longest delay.
pub const MAX: Duration = Duration::from_secs(300);
/// Delay after an answer that only somebody's action can change: a missing target, a permission.
pub const SLOW: Duration = Duration::from_secs(900);

/// Delay before try number `failures + 1` (`failures` ≥ 1): 1 s doubling to 5 min, uniform in its upper half by
/// `seed`, so that objects that failed together do not come back together.
#[must_use]
pub fn delay(failures: u32, seed: u64) -> Duration {
    let full = BASE
        .saturating_mul(1_u32 << failures.saturating_sub(1).min(16))
        .min(MAX);
    upper_half(full, seed.wrapping_add(u64::from(failures)))
}

/// A time between half of `full` and `full`, chosen by `seed`.
#[must_use]
pub fn upper_half(full: Duration, seed: u64) -> Duration {
    // SplitMix64: neighbouring seeds give unrelated fractions.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let fraction = f64::from(u32::try_from(mixed >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    full.mul_f64(0.5 + fraction / 2.0)
}

/// Delay before the next test after `failures` failed ones in a row: 1, 5, 15 minutes, then every 15.
#[must_use]
pub const fn retest(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::from_secs(60),
        2 => Duration::from_secs(300),
        _ => Duration::from_secs(900),
    }
}

/// Delay before poll number `polls + 1` of a running test: 1, 2, 4 … 30 s.
#[must_use]
pub fn poll(polls: u32) -> Duration {
    Duration::from_secs(1 << polls.min(5)).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_one_second_to_five_minutes_in_the_upper_half() {
        for (failures, full) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 256),
            (10, 300),
            (40, 300),
            (u32::MAX, 300),
        ] {
            for seed in 0..200 {
                let delay = delay(failures, seed).as_secs_f64();
                assert!(
                    delay >= f64::from(full) / 2.0 && delay <= f64::from(full),
                    "{failures} {seed} {delay}"
                );
            }
        }
    }

    #[test]
    fn is_spread_over_the_half() {
        let slots: std::collections::BTreeSet<_> = (0..500)
            .map(|seed| (delay(10, seed).as_secs() - 150) / 15)
            .collect();
        assert_eq!(slots.len(), 10);
    }

    #[test]
    fn polls_and_retests_follow_their_plans() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 60].map(|polls| poll(polls).as_secs()),
            [1, 2, 4, 8, 16, 30, 30]
        );
        assert_eq!(
            [1, 2, 3, 9].map(|failures| retest(failures).as_secs() / 60),
            [1, 5, 15, 15]
        );
    }
}
