//! How long a deletion is tried: attempts, and the time that counts towards its deadline.
//!
//! What counts is what the upstream takes and what lies between two attempts. Waiting in the operator's own queue and
//! for its own budget does not, nor does a wait that the upstream asked for; downtime cannot, because none of this is
//! written down. What an attempt is and what follows from the end are the caller's.

use std::time::Duration;

/// Attempts that are made in any case.
const LEAST_ATTEMPTS: u32 = 3;

/// How often the removal of one registration has failed, and how much of its deadline is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    attempts: u32,
    used: Duration,
}

impl Patience {
    /// One more attempt has failed, in which the upstream was waited for this long. The time begins with the first
    /// failure, so what that took does not count.
    pub fn fail(&mut self, calls: Duration) {
        if self.attempts > 0 {
            self.used = self.used.saturating_add(calls);
        }
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Failed attempts so far.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether it was tried for long enough and often enough.
    #[must_use]
    pub fn is_over(&self, deadline: Duration) -> bool {
        self.attempts >= LEAST_ATTEMPTS && self.used >= deadline
    }

    /// How long to wait until the next attempt: `delay`, but not beyond the deadline, on which the last attempt
    /// falls; at least what the upstream has `asked` for. What it did not ask for counts.
    pub fn wait(&mut self, delay: Duration, asked: Option<Duration>, deadline: Duration) -> Duration {
        let asked = asked.unwrap_or_default();
        let own = delay.saturating_sub(asked);
        let own = if self.attempts >= LEAST_ATTEMPTS {
            own.min(deadline.saturating_sub(self.used))
        } else {
            own
        };
        self.used = self.used.saturating_add(own);
        asked.saturating_add(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_upstreams_time_and_the_pauses_count_from_the_first_failure_on() {
        let mut patience = Patience::default();
        patience.fail(seconds(20));
        assert_eq!(patience.wait(seconds(10), None, DEADLINE), seconds(10));
        patience.fail(seconds(20));
        assert_eq!(patience.wait(seconds(10), None, DEADLINE), seconds(10));
        patience.fail(seconds(19));
        assert!(!patience.is_over(DEADLINE), "59 s");
        // The last attempt falls on the deadline.
        assert_eq!(patience.wait(seconds(40), None, DEADLINE), seconds(1));
        patience.fail(Duration::ZERO);
        assert!(patience.is_over(DEADLINE));
    }

    #[test]
    fn it_is_tried_three_times_whatever_the_deadline() {
        let mut patience = Patience::default();
        for attempt in 1..=3 {
            assert!(!patience.is_over(Duration::ZERO), "{attempt}");
            patience.fail(seconds(1000));
            patience.wait(seconds(1), None, Duration::ZERO);
        }
        assert!(patience.is_over(Duration::ZERO));
        assert_eq!(patience.attempts(), 3);
    }

    #[test]
    fn what_the_upstream_asks_for_is_waited_and_does_not_count() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            patience.fail(Duration::ZERO);
            assert_eq!(
                patience.wait(seconds(1), Some(seconds(3600)), DEADLINE),
                seconds(3600)
            );
        }
        assert!(!patience.is_over(DEADLINE));
        // Only the part of a longer pause that it did not ask for.
        assert_eq!(
            patience.wait(seconds(90), Some(seconds(30)), DEADLINE),
            seconds(90)
        );
        assert!(patience.is_over(DEADLINE));
    }
}
