//! When the operator tests a receiver itself.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    api::{
        conditions::TestedReason,
        webhook_status::{DeactivatedBy, State, TestResult, TestStatus},
    },
    domain::{backoff, schedule},
};

const SECOND: Duration = Duration::from_secs(1);

/// Everything that the plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSituation<'a> {
    /// Uid of the Webhook: its tests have a phase of the wall clock of their own.
    pub uid: &'a str,
    /// Who switched the registration off, if it is off.
    pub deactivated_by: Option<DeactivatedBy>,
    /// The status says that a test is due: something was changed.
    pub pending: bool,
    /// A new value of the request annotation.
    pub requested: bool,
    /// What is recorded of the last test.
    pub last: Option<&'a TestStatus>,
    /// `spec.test.interval`.
    pub interval: Option<Duration>,
    /// When this process first saw the Webhook: what should have been tested before is not made up for, so a start
    /// causes no burst.
    pub first_seen: Timestamp,
}

/// When a test is due; `None`: only after a change or a request. A time that has passed means now.
#[must_use]
pub fn next_probe(s: &ProbeSituation<'_>) -> Option<Timestamp> {
    // What failing tests switched off comes back by a test that passes.
    if matches!(
        s.deactivated_by,
        Some(DeactivatedBy::Spec | DeactivatedBy::Upstream)
    ) {
        return None;
    }
    if s.pending || s.requested {
        return Some(Timestamp::MIN);
    }
    let last = s.last.filter(|last| last.last_time.is_some());
    let tested = last.and_then(|last| last.last_time.as_ref()).map(|time| time.0);
    let again = last
        .filter(|last| last.result == Some(TestResult::Failed))
        .map(|last| {
            let failures = u32::try_from(last.consecutive_failures).unwrap_or(0);
            let wait = backoff::retest(failures);
            let failed = tested.unwrap_or(s.first_seen);
            failed.saturating_add(wait).unwrap_or(Timestamp::MAX)
        });
    let regular = s.interval.map(|interval| {
        // A status keeps whole seconds: the time of this very test may lie up to one before its phase.
        let tested = tested.map(|tested| tested.saturating_add(SECOND).unwrap_or(Timestamp::MAX));
        let since = tested.map_or(s.first_seen, |tested| tested.max(s.first_seen));
        regular_test(s.uid, interval, since)
    });
    [again, regular].into_iter().flatten().min()
}

/// The first regular test (`spec.test.interval`) strictly after `after`: a phase of the wall clock that is the Webhook's
/// own, and not that of its read-backs, because the two need not meet.
#[must_use]
pub fn regular_test(uid: &str, interval: Duration, after: Timestamp) -> Timestamp {
    schedule::next(&format!("test {uid}"), interval, after)
}

/// The state word of a registration that the operator tests, at an upstream without a word of its own.
#[must_use]
pub fn state_after(tested: TestedReason) -> State {
    match tested {
        TestedReason::Passed => State::Valid,
        TestedReason::Pending | TestedReason::NotRun | TestedReason::TestTimeout => State::New,
        TestedReason::DnsFailed
        | TestedReason::BlockedAddress
        | TestedReason::ConnectFailed
        | TestedReason::TlsFailed
        | TestedReason::Timeout
        | TestedReason::Redirected
        | TestedReason::HttpStatus
        | TestedReason::SignatureRejected
        | TestedReason::ForgeryAccepted
        | TestedReason::UpstreamReportedInvalid => State::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn base() -> ProbeSituation<'static> {
        ProbeSituation {
            uid: "uid-1",
            deactivated_by: None,
            pending: false,
            requested: false,
            last: None,
            interval: None,
            first_seen: at(-100_000),
        }
    }

    fn tested(result: TestResult, consecutive_failures: i32) -> TestStatus {
        TestStatus {
            last_time: Some(Time(at(0))),
            result: Some(result),
            consecutive_failures,
            ..TestStatus::default()
        }
    }

    #[test]
    fn changes_and_requests_are_tested_at_once_and_old_objects_are_left_alone() {
        assert_eq!(next_probe(&base()), None, "settled before there was a probe");
        let passed = tested(TestResult::Passed, 0);
        for (pending, requested) in [(true, false), (false, true)] {
            for last in [None, Some(&passed)] {
                let situation = ProbeSituation {
                    pending,
                    requested,
                    last,
                    ..base()
                };
                assert_eq!(next_probe(&situation), Some(Timestamp::MIN));
            }
        }
    }

    #[test]
    fn a_failed_test_is_repeated_by_plan_and_a_passed_one_is_not() {
        for (failures, minutes) in [(1, 1), (2, 5), (3, 15), (40, 15)] {
            let failed = tested(TestResult::Failed, failures);
            let next = next_probe(&ProbeSituation {
                last: Some(&failed),
                ..base()
            });
            assert_eq!(next, Some(at(60 * minutes)), "{failures}");
        }
        let passed = tested(TestResult::Passed, 0);
        let next = next_probe(&ProbeSituation {
            last: Some(&passed),
            ..base()
        });
        assert_eq!(next, None);
    }

    #[test]
    fn regular_tests_keep_their_phase_and_a_start_makes_up_for_none() {
        let passed = tested(TestResult::Passed, 0);
        let regular = |last, first_seen| {
            next_probe(&ProbeSituation {
                last,
                interval: Some(10 * MINUTE),
                first_seen,
                ..base()
            })
            .unwrap()
        };
        let next = regular(Some(&passed), at(-1));
        assert!(next > at(0) && next <= at(600));
        // After a night without the operator: the next time of the same phase, not now.
        let later = regular(Some(&passed), at(36_000));
        assert!(later > at(36_000) && later <= at(36_600));
        assert_eq!(later.duration_since(next).as_secs() % 600, 0);
        // Never tested, and asked for by an interval only.
        assert_eq!(regular(None, at(36_000)), later);
        // A status keeps whole seconds, so what was tested at its phase seems to have been tested before it.
        let tested_at_phase = TestStatus {
            last_time: Some(Time(Timestamp::from_second(next.as_second()).unwrap())),
            ..passed.clone()
        };
        let after = regular(Some(&tested_at_phase), at(-1));
        assert_eq!(after, next.checked_add(10 * MINUTE).unwrap());
        // Failures come round sooner than a long interval, and a short interval sooner than them.
        let failed = tested(TestResult::Failed, 3);
        assert!(regular(Some(&failed), at(-1)) <= at(600));
    }

    #[test]
    fn what_is_off_is_not_tested_unless_tests_switched_it_off() {
        let off = |by| {
            next_probe(&ProbeSituation {
                deactivated_by: Some(by),
                requested: true,
                ..base()
            })
        };
        assert_eq!(off(DeactivatedBy::Spec), None);
        assert_eq!(off(DeactivatedBy::Upstream), None);
        assert_eq!(off(DeactivatedBy::TestFailure), Some(Timestamp::MIN));
    }

    #[test]
    fn each_reason_has_its_state() {
        use crate::api::conditions::Reason;
        for reason in TestedReason::ALL {
            let state = match reason.status().as_str() {
                "True" => State::Valid,
                "False" => State::Invalid,
                _ => State::New,
            };
            assert_eq!(state_after(*reason), state);
        }
    }
}
