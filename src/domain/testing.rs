//! When to ask an upstream for its own test, when to ask how it goes, and what its verdict is; when the operator
//! probes a receiver itself ([`next_probe`]). How a test that ended is noted is in [`note_test`].

mod probe;
mod threshold;
mod verdict;

use std::time::Duration;

pub use self::{
    probe::{ProbeSituation, next_probe, regular_test, state_after},
    threshold::{Tally, start_over},
    verdict::{Verdict, note_test, record},
};
use super::backoff;
use crate::api::{
    webhook::TestMode,
    webhook_status::{State, TestStatus},
};

/// After this the implicit test of a create or update is taken for lost, and an explicit one is asked for.
pub const IMPLICIT_TEST_LOST: Duration = Duration::from_secs(60);

/// After this a test is taken for lost.
pub const TEST_DEADLINE: Duration = Duration::from_secs(300);

/// Who tests, after `Auto` is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tester {
    /// The upstream.
    Upstream,
    /// The operator, by a probe.
    Operator,
    /// Nobody.
    Nobody,
}

impl Tester {
    /// Resolves `test.mode`.
    #[must_use]
    pub const fn of(mode: TestMode, upstream_test: bool) -> Self {
        match mode {
            TestMode::Auto | TestMode::Upstream if upstream_test => Self::Upstream,
            TestMode::Auto | TestMode::Probe => Self::Operator,
            // `Upstream` at one that has no test is refused beforehand.
            TestMode::Upstream | TestMode::None => Self::Nobody,
        }
    }
}

/// Everything that the plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct TestSituation<'a> {
    /// Who tests.
    pub tester: Tester,
    /// The upstream's state word now.
    pub state: State,
    /// A new value of the request annotation.
    pub requested: bool,
    /// What is recorded of the last test.
    pub last: Option<&'a TestStatus>,
    /// Since the last test ended.
    pub since_last: Option<Duration>,
    /// Since the create or update, or the start of this process, whichever is later.
    pub since_change: Duration,
    /// A task runs: since when.
    pub task_since: Option<Duration>,
    /// How often this test was asked about.
    pub polls: u32,
    /// The state may be a verdict on another URL, or none at all.
    pub verdict_doubtful: bool,
    /// Tests in a row that did not end in time.
    pub timeouts: u32,
    /// Time left of the wait after one that did not end in time.
    pub hold: Duration,
}

/// What to do about tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestStep {
    /// Nothing; the time until something is due, if anything is.
    Idle(Option<Duration>),
    /// A test runs: ask again after this time.
    Poll(Duration),
    /// Ask the upstream for a test.
    Start,
    /// No verdict in time; ask for another test after this time.
    TimedOut(Duration),
}

/// What to do about tests now.
#[must_use]
pub fn next_test(s: &TestSituation<'_>) -> TestStep {
    if s.tester != Tester::Upstream || s.state == State::Deactivated {
        return TestStep::Idle(None);
    }
    if let Some(since) = s.task_since {
        return if since < TEST_DEADLINE {
            TestStep::Poll(backoff::poll(s.polls))
        } else {
            let tries = failures(s).saturating_add(s.timeouts).saturating_add(1);
            TestStep::TimedOut(backoff::retest(tries))
        };
    }
    if s.requested {
        return TestStep::Start;
    }
    if !s.hold.is_zero() {
        return TestStep::Idle(Some(s.hold));
    }
    if s.verdict_doubtful {
        return TestStep::Start;
    }
    match s.state {
        State::New if s.since_change < IMPLICIT_TEST_LOST => TestStep::Poll(backoff::poll(s.polls)),
        State::New => TestStep::Start,
        State::Invalid => {
            let wait = backoff::retest(failures(s)).saturating_sub(s.since_last.unwrap_or_default());
            if wait.is_zero() {
                TestStep::Start
            } else {
                TestStep::Idle(Some(wait))
            }
        }
        State::Valid | State::Deactivated => TestStep::Idle(None),
    }
}

fn failures(s: &TestSituation<'_>) -> u32 {
    s.last
        .map_or(0, |last| last.consecutive_failures.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> TestSituation<'static> {
        TestSituation {
            tester: Tester::Upstream,
            state: State::New,
            requested: false,
            last: None,
            since_last: None,
            since_change: Duration::ZERO,
            task_since: None,
            polls: 0,
            verdict_doubtful: false,
            timeouts: 0,
            hold: Duration::ZERO,
        }
    }

    #[test]
    fn the_implicit_test_is_awaited_and_replaced_when_lost() {
        assert_eq!(next_test(&base()), TestStep::Poll(Duration::from_secs(1)));
        assert_eq!(
            next_test(&TestSituation { polls: 3, ..base() }),
            TestStep::Poll(Duration::from_secs(8))
        );
        assert_eq!(
            next_test(&TestSituation {
                since_change: IMPLICIT_TEST_LOST,
                ..base()
            }),
            TestStep::Start
        );
    }

    #[test]
    fn a_task_is_polled_until_its_deadline() {
        let running = |seconds| TestSituation {
            task_since: Some(Duration::from_secs(seconds)),
            polls: 9,
            ..base()
        };
        assert_eq!(next_test(&running(10)), TestStep::Poll(Duration::from_secs(30)));
        assert_eq!(
            next_test(&running(300)),
            TestStep::TimedOut(Duration::from_secs(60))
        );
    }

    #[test]
    fn after_one_that_did_not_end_there_is_a_pause_that_grows_and_that_a_request_ends() {
        let hung = |timeouts| {
            next_test(&TestSituation {
                task_since: Some(TEST_DEADLINE),
                timeouts,
                ..base()
            })
        };
        let minutes = |minutes: u64| TestStep::TimedOut(Duration::from_secs(60 * minutes));
        assert_eq!(
            [0, 1, 2, 3].map(hung),
            [minutes(1), minutes(5), minutes(15), minutes(15)]
        );
        let hold = Duration::from_secs(40);
        for state in [State::New, State::Valid, State::Invalid] {
            let held = TestSituation {
                state,
                since_change: TEST_DEADLINE,
                verdict_doubtful: true,
                hold,
                ..base()
            };
            assert_eq!(next_test(&held), TestStep::Idle(Some(hold)));
            assert_eq!(
                next_test(&TestSituation {
                    requested: true,
                    ..held
                }),
                TestStep::Start
            );
            assert_eq!(
                next_test(&TestSituation {
                    hold: Duration::ZERO,
                    ..held
                }),
                TestStep::Start
            );
        }
    }

    #[test]
    fn a_failed_test_is_repeated_by_plan_and_a_passed_one_is_not() {
        let last = TestStatus {
            consecutive_failures: 2,
            ..TestStatus::default()
        };
        let invalid = |minutes: u64| TestSituation {
            state: State::Invalid,
            last: Some(&last),
            since_last: Some(Duration::from_secs(minutes * 60)),
            ..base()
        };
        assert_eq!(
            next_test(&invalid(1)),
            TestStep::Idle(Some(Duration::from_secs(240)))
        );
        assert_eq!(next_test(&invalid(5)), TestStep::Start);
        let valid = TestSituation {
            state: State::Valid,
            since_change: TEST_DEADLINE,
            ..base()
        };
        assert_eq!(next_test(&valid), TestStep::Idle(None));
        assert_eq!(
            next_test(&TestSituation {
                requested: true,
                ..valid
            }),
            TestStep::Start
        );
        assert_eq!(
            next_test(&TestSituation {
                verdict_doubtful: true,
                ..valid
            }),
            TestStep::Start
        );
    }

    #[test]
    fn nobody_tests_what_is_switched_off_or_not_to_be_tested() {
        for (tester, state) in [
            (Tester::Nobody, State::New),
            (Tester::Operator, State::New),
            (Tester::Upstream, State::Deactivated),
        ] {
            assert_eq!(
                next_test(&TestSituation {
                    tester,
                    state,
                    requested: true,
                    ..base()
                }),
                TestStep::Idle(None)
            );
        }
    }
}
