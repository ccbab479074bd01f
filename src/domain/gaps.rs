//! Spans in which deliveries cannot have arrived (`status.gaps`), so that somebody can ask the vendor for a replay.
//!
//! What counts: the registration was off without the spec's wanting it, was gone, led to another URL, or a test that
//! had passed before failed in a way that a delivery would have failed too. What does not: a registration that never
//! worked yet, one that the spec switched off, an upstream that the operator could not ask, a probe that the operator
//! was not allowed to send. A failed test is seen from where the test came from: the operator, or the upstream.
//!
//! A span begins when everything was last known to be right, which is up to one interval before it was found wrong,
//! and ends when it is right again: registered, on, and tested where it is tested. While one is open no other is
//! opened, whatever else goes wrong; it keeps the reason that it began with.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    conditions::{self, ConditionType, Reason, SyncedReason, TestedReason},
    webhook_status::{DeactivatedBy, Gap, TestResult, WebhookStatus},
};

/// How many are kept.
const MOST: usize = 5;

/// Why deliveries cannot arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody switched the registration off.
    DeactivatedUpstream,
    /// It was switched off for its failed tests.
    TestFailure,
    /// It was gone.
    NotRegistered,
    /// It led to another URL.
    UrlChanged,
    /// A test failed.
    Test(TestedReason),
}

impl Cause {
    /// The word in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeactivatedUpstream => "DeactivatedUpstream",
            Self::TestFailure => "TestFailure",
            Self::NotRegistered => "NotRegistered",
            Self::UrlChanged => "UrlChanged",
            Self::Test(reason) => reason.as_str(),
        }
    }
}

/// Whether deliveries can arrive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliveries {
    /// As far as anybody knows; or none are wanted.
    Arrive,
    /// A test has to say.
    Unknown,
    /// They cannot.
    Cannot(Cause),
}

/// What a test says about deliveries.
#[must_use]
pub const fn of_test(reason: TestedReason) -> Deliveries {
    match reason {
        TestedReason::Passed | TestedReason::NotRun | TestedReason::ForgeryAccepted => Deliveries::Arrive,
        // A network that only the operator may not reach says nothing about the upstream.
        TestedReason::Pending | TestedReason::TestTimeout | TestedReason::BlockedAddress => {
            Deliveries::Unknown
        }
        TestedReason::DnsFailed
        | TestedReason::ConnectFailed
        | TestedReason::TlsFailed
        | TestedReason::Timeout
        | TestedReason::Redirected
        | TestedReason::HttpStatus
        | TestedReason::SignatureRejected
        | TestedReason::UpstreamReportedInvalid => Deliveries::Cannot(Cause::Test(reason)),
    }
}

/// What a read-back says about deliveries: who switched the registration off, which fields differ, what its test
/// says.
#[must_use]
pub fn of_registration(
    deactivated_by: Option<DeactivatedBy>,
    drift: &[&str],
    tested: TestedReason,
) -> Deliveries {
    match deactivated_by {
        Some(DeactivatedBy::Spec) => Deliveries::Arrive,
        Some(DeactivatedBy::Upstream) => Deliveries::Cannot(Cause::DeactivatedUpstream),
        Some(DeactivatedBy::TestFailure) => Deliveries::Cannot(Cause::TestFailure),
        None if drift.contains(&"url") => Deliveries::Cannot(Cause::UrlChanged),
        None => of_test(tested),
    }
}

/// Notes a span that is found to have begun, unless one is open. `good`: when everything was last known to be right;
/// without it the span begins now.
pub fn open(status: &mut WebhookStatus, cause: Cause, good: Option<Timestamp>, now: Timestamp) {
    let last = status.gaps.last();
    if last.is_some_and(|gap| gap.to.is_none()) {
        return;
    }
    let after = last
        .and_then(|gap| gap.to.as_ref())
        .map_or(Timestamp::MIN, |to| to.0);
    let from = good.unwrap_or(now).max(after).min(now);
    status.gaps.push(Gap {
        from: Time(from),
        to: None,
        reason: cause.as_str().to_owned(),
    });
    let excess = status.gaps.len().saturating_sub(MOST);
    status.gaps.drain(..excess);
}

/// Ends the open span, if there is one.
pub fn close(status: &mut WebhookStatus, now: Timestamp) {
    if let Some(gap) = status.gaps.last_mut().filter(|gap| gap.to.is_none()) {
        gap.to = Some(Time(now));
    }
}

/// Notes what a pass found: `lapse` is what it found wrong and has put right, `good` when everything was last known
/// to be right.
pub fn note(
    status: &mut WebhookStatus,
    lapse: Option<Cause>,
    deliveries: Deliveries,
    good: Option<Timestamp>,
    now: Timestamp,
) {
    if let Some(lapse) = lapse {
        open(status, lapse, good, now);
    }
    match deliveries {
        Deliveries::Arrive => close(status, now),
        Deliveries::Unknown => {}
        // A test that never passed has not lost anything yet.
        Deliveries::Cannot(Cause::Test(_)) if good.is_none() => {}
        Deliveries::Cannot(cause) => open(status, cause, good, now),
    }
}

/// Notes what a test that ended says, whoever noted what else there is: a registration that is off, gone or leads
/// elsewhere takes nothing in, even if its receiver is well. Called before the test is noted itself.
pub fn note_test(status: &mut WebhookStatus, reason: TestedReason, now: Timestamp) {
    match of_test(reason) {
        Deliveries::Arrive if status.deactivated_by.is_none() && !leads_elsewhere(status) => {
            close(status, now);
        }
        Deliveries::Cannot(cause) => {
            if let Some(passed) = last_passed(status) {
                open(status, cause, Some(passed), now);
            }
        }
        Deliveries::Arrive | Deliveries::Unknown => {}
    }
}

/// The upstream has another URL, and `driftPolicy: Report` leaves it so.
fn leads_elsewhere(status: &WebhookStatus) -> bool {
    let reported = conditions::find(&status.conditions, ConditionType::Synced)
        .is_some_and(|synced| synced.reason == SyncedReason::DriftDetected.as_str());
    let drift = status.drift.as_ref();
    reported && drift.is_some_and(|drift| drift.fields.iter().any(|field| field == "url"))
}

/// When the last test ended, if it passed.
#[must_use]
pub fn last_passed(status: &WebhookStatus) -> Option<Timestamp> {
    let test = status.test.as_ref()?;
    let passed = test.result == Some(TestResult::Passed);
    passed.then_some(test.last_time.as_ref()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        webhook::TestMode,
        webhook_status::{Drift, TestStatus},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn gaps(status: &WebhookStatus) -> Vec<(i64, Option<i64>, &str)> {
        let second = |time: &Time| time.0.as_second() - at(0).as_second();
        status
            .gaps
            .iter()
            .map(|gap| {
                (
                    second(&gap.from),
                    gap.to.as_ref().map(second),
                    gap.reason.as_str(),
                )
            })
            .collect()
    }

    fn passed(seconds: i64) -> WebhookStatus {
        WebhookStatus {
            test: Some(TestStatus {
                last_time: Some(Time(at(seconds))),
                result: Some(TestResult::Passed),
                mode: Some(TestMode::Probe),
                ..TestStatus::default()
            }),
            ..WebhookStatus::default()
        }
    }

    const OFF: Deliveries = Deliveries::Cannot(Cause::DeactivatedUpstream);

    #[test]
    fn a_span_begins_when_all_was_well_and_ends_when_it_is_again() {
        let mut status = WebhookStatus::default();
        note(&mut status, None, OFF, Some(at(5)), at(20));
        note(&mut status, None, OFF, Some(at(5)), at(30));
        assert_eq!(gaps(&status), [(5, None, "DeactivatedUpstream")]);
        // On again, but nobody knows yet whether deliveries pass.
        note(&mut status, None, Deliveries::Unknown, None, at(40));
        assert_eq!(gaps(&status), [(5, None, "DeactivatedUpstream")]);
        note(&mut status, None, Deliveries::Arrive, None, at(50));
        note(&mut status, None, Deliveries::Arrive, None, at(60));
        assert_eq!(gaps(&status), [(5, Some(50), "DeactivatedUpstream")]);
    }

    #[test]
    fn what_was_put_right_at_once_is_a_span_too() {
        let mut status = WebhookStatus::default();
        let lapse = Some(Cause::NotRegistered);
        note(&mut status, lapse, Deliveries::Arrive, Some(at(5)), at(20));
        // Nobody knows since when; and no span overlaps the one before.
        note(
            &mut status,
            Some(Cause::UrlChanged),
            Deliveries::Arrive,
            None,
            at(40),
        );
        note(
            &mut status,
            Some(Cause::UrlChanged),
            Deliveries::Unknown,
            Some(at(30)),
            at(50),
        );
        assert_eq!(
            gaps(&status),
            [
                (5, Some(20), "NotRegistered"),
                (40, Some(40), "UrlChanged"),
                (40, None, "UrlChanged")
            ]
        );
    }

    #[test]
    fn five_are_kept_the_oldest_first() {
        let mut status = WebhookStatus::default();
        for second in 0..8 {
            let lapse = Some(Cause::NotRegistered);
            note(&mut status, lapse, Deliveries::Arrive, None, at(second));
        }
        let from: Vec<i64> = gaps(&status).iter().map(|gap| gap.0).collect();
        assert_eq!(from, [3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_failed_test_counts_only_after_one_that_passed() {
        let mut status = WebhookStatus::default();
        note_test(&mut status, TestedReason::HttpStatus, at(5));
        assert_eq!(gaps(&status), []);
        let failed = Deliveries::Cannot(Cause::Test(TestedReason::HttpStatus));
        note(&mut status, None, failed, None, at(5));
        assert_eq!(gaps(&status), []);
        let mut status = passed(3);
        note_test(&mut status, TestedReason::HttpStatus, at(5));
        note_test(&mut status, TestedReason::TlsFailed, at(6));
        assert_eq!(gaps(&status), [(3, None, "HttpStatus")]);
        note_test(&mut status, TestedReason::Passed, at(9));
        assert_eq!(gaps(&status), [(3, Some(9), "HttpStatus")]);
    }

    #[test]
    fn what_says_nothing_about_deliveries_opens_and_ends_nothing() {
        for reason in [TestedReason::BlockedAddress, TestedReason::ForgeryAccepted] {
            let mut status = passed(3);
            note_test(&mut status, reason, at(5));
            assert_eq!(gaps(&status), [], "{reason:?}");
        }
        // A receiver that is well does not help while nothing is sent there.
        let differs = |field: &str, synced: SyncedReason| {
            let mut status = passed(3);
            status.conditions = vec![synced.condition(None, "", at(4))];
            status.drift = Some(Drift {
                fields: vec![field.to_owned()],
                ..Drift::default()
            });
            status
        };
        let ends = |mut status: WebhookStatus| {
            open(&mut status, Cause::UrlChanged, None, at(4));
            note_test(&mut status, TestedReason::Passed, at(5));
            status.gaps[0].to.is_some()
        };
        assert!(!ends(WebhookStatus {
            deactivated_by: Some(DeactivatedBy::Upstream),
            ..passed(3)
        }));
        assert!(!ends(differs("url", SyncedReason::DriftDetected)));
        assert!(ends(differs("events", SyncedReason::DriftDetected)));
        assert!(ends(differs("url", SyncedReason::DriftCorrected)));
    }

    #[test]
    fn a_switch_that_the_spec_wants_is_no_gap_and_every_other_is() {
        let of = |by, drift: &[&str], tested| of_registration(by, drift, tested);
        let passed = TestedReason::Passed;
        assert_eq!(
            of(Some(DeactivatedBy::Spec), &["url"], passed),
            Deliveries::Arrive
        );
        assert_eq!(of(Some(DeactivatedBy::Upstream), &[], passed), OFF);
        assert_eq!(
            of(Some(DeactivatedBy::TestFailure), &[], passed),
            Deliveries::Cannot(Cause::TestFailure)
        );
        assert_eq!(
            of(None, &["events", "url"], passed),
            Deliveries::Cannot(Cause::UrlChanged)
        );
        assert_eq!(of(None, &["events"], passed), Deliveries::Arrive);
        assert_eq!(of(None, &[], TestedReason::Pending), Deliveries::Unknown);
    }
}
