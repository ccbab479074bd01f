//! A test that ended, and how it is noted in the status: the one way there, whoever tested.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        conditions::{Reason, TestedReason},
        webhook::TestMode,
        webhook_status::{TestRecord, TestResult, TestStatus, WebhookStatus},
    },
    domain::{
        bounds::{self, clip},
        gaps,
    },
};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Upstream` or `Probe`.
    pub mode: TestMode,
    /// [`TestedReason::Passed`], or what is broken.
    pub reason: TestedReason,
    /// Status that the receiver answered with, where one is known.
    pub http_status: Option<u16>,
    /// From sending the test to the answer, where it is known.
    pub latency: Option<Duration>,
    /// What happened and what to do about it, for people. No credential, header value or text of an answer.
    pub message: String,
    /// Whether the receiver took a wrongly signed delivery; `None`: none was sent.
    pub forged_accepted: Option<bool>,
    /// When the test ended.
    pub time: Timestamp,
}

impl Verdict {
    /// A verdict of which no more is known than its reason.
    #[must_use]
    pub fn new(mode: TestMode, reason: TestedReason, message: impl Into<String>, time: Timestamp) -> Self {
        Self {
            mode,
            reason,
            http_status: None,
            latency: None,
            message: message.into(),
            forged_accepted: None,
            time,
        }
    }

    /// Whether the test passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.reason == TestedReason::Passed
    }

    /// The word in status and metrics.
    #[must_use]
    pub fn result(&self) -> TestResult {
        if self.passed() {
            TestResult::Passed
        } else {
            TestResult::Failed
        }
    }
}

/// Notes a test that ended, for who knows of nothing else than the test: as [`record`], and what the test says about
/// deliveries opens or ends a gap.
pub fn note_test(status: &mut WebhookStatus, verdict: &Verdict, history_limit: i32) {
    gaps::note_test(status, verdict.reason, verdict.time);
    record(status, verdict, history_limit);
}

/// Notes a test that ended: the last test, the failures in a row, and the history, newest first, of at most
/// `history_limit` tests (`spec.test.historyLimit`; 0: none, and below that as 0).
pub fn record(status: &mut WebhookStatus, verdict: &Verdict, history_limit: i32) {
    let before = status.test.take().unwrap_or_default();
    let consecutive_failures = if verdict.passed() {
        0
    } else {
        before.consecutive_failures.saturating_add(1)
    };
    let record = TestRecord {
        time: Time(verdict.time),
        result: verdict.result(),
        mode: verdict.mode,
        reason: verdict.reason.as_str().to_owned(),
        http_status: verdict.http_status.map(i32::from),
        latency_milliseconds: verdict
            .latency
            .map(|latency| i64::try_from(latency.as_millis()).unwrap_or(i64::MAX)),
    };
    let history = std::iter::once(record.clone())
        .chain(before.history)
        .take(history_limit.try_into().unwrap_or(0))
        .collect();
    status.test = Some(TestStatus {
        last_time: Some(record.time),
        result: Some(record.result),
        mode: Some(record.mode),
        reason: Some(record.reason),
        http_status: record.http_status,
        latency_milliseconds: record.latency_milliseconds,
        message: Some(clip(&verdict.message, bounds::MESSAGE)),
        consecutive_failures,
        forged_accepted: verdict.forged_accepted,
        history,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn failed(seconds: i64) -> Verdict {
        Verdict {
            http_status: Some(503),
            latency: Some(Duration::from_millis(120)),
            forged_accepted: Some(true),
            ..Verdict::new(
                TestMode::Probe,
                TestedReason::HttpStatus,
                "the receiver answered 503; look into its log",
                at(seconds),
            )
        }
    }

    #[test]
    fn each_test_replaces_the_last_one_and_stands_first_in_the_history() {
        let mut status = WebhookStatus::default();
        note_test(&mut status, &failed(1), 10);
        note_test(
            &mut status,
            &Verdict::new(TestMode::Upstream, TestedReason::Passed, "taken", at(2)),
            10,
        );
        let test = status.test.unwrap();
        assert_eq!(test.last_time, Some(Time(at(2))));
        assert_eq!(test.result, Some(TestResult::Passed));
        assert_eq!(test.mode, Some(TestMode::Upstream));
        assert_eq!(test.message.as_deref(), Some("taken"));
        // What only the probe knew is not the upstream's.
        assert_eq!(
            (test.http_status, test.latency_milliseconds, test.forged_accepted),
            (None, None, None)
        );
        let short: Vec<_> = test
            .history
            .iter()
            .map(|it| {
                (
                    it.time.0,
                    it.result,
                    it.reason.as_str(),
                    it.http_status,
                    it.latency_milliseconds,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                (at(2), TestResult::Passed, "Passed", None, None),
                (at(1), TestResult::Failed, "HttpStatus", Some(503), Some(120)),
            ]
        );
    }

    #[test]
    fn failures_in_a_row_are_counted_until_one_passes() {
        let mut status = WebhookStatus::default();
        for second in 1..=4 {
            note_test(&mut status, &failed(second), 0);
            let failures = status.test.as_ref().unwrap().consecutive_failures;
            assert_eq!(i64::from(failures), second);
        }
        let passed = Verdict::new(TestMode::Probe, TestedReason::Passed, "", at(5));
        note_test(&mut status, &passed, 0);
        assert_eq!(status.test.unwrap().consecutive_failures, 0);
    }

    #[test]
    fn the_history_is_as_long_as_the_spec_says_and_shrinks_with_it() {
        let mut status = WebhookStatus::default();
        let mut length = |second: i64, limit| {
            note_test(&mut status, &failed(second), limit);
            let history = &status.test.as_ref().unwrap().history;
            assert!(history.first().is_none_or(|first| first.time == Time(at(second))));
            history.len()
        };
        for second in 1..=20 {
            length(second, 20);
        }
        assert_eq!(
            [length(21, 20), length(22, 3), length(23, 0), length(24, -1)],
            [20, 3, 0, 0]
        );
    }
}
