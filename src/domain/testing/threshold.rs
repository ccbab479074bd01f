//! Failed tests in a row that switch a registration off (`test.onFailure: Deactivate`), and what brings it back: a
//! change of the spec, a request, or a test that passes although it is off.
//!
//! The status is the journal of it: `deactivatedBy: TestFailure` stands there before the upstream is called, and
//! `state: deactivated` once it is done. A death in between leaves work to be done or recorded, and the switch is never
//! taken for somebody else's.

use crate::api::{
    webhook::{OnTestFailure, WebhookSpec},
    webhook_status::{DeactivatedBy, State, WebhookStatus},
};

/// What decides whether failed tests keep a registration switched off.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'a> {
    /// The spec as it is now.
    pub spec: &'a WebhookSpec,
    /// The status as it was written last.
    pub status: &'a WebhookStatus,
    /// The spec's generation.
    pub generation: Option<i64>,
    /// A test is asked for that is not handled yet.
    pub requested: bool,
}

impl Tally<'_> {
    /// Whether the registration shall be off because its tests fail.
    #[must_use]
    pub fn is_tripped(&self) -> bool {
        self.spec.active && !self.requested && self.speaks_of_this_spec() && self.is_full()
    }

    /// Who switched the registration off, as far as the status knows. A switch that was made for an older spec and not
    /// recorded would look like somebody else's.
    #[must_use]
    pub fn recorded_switch(&self) -> Option<DeactivatedBy> {
        match self.status.deactivated_by {
            Some(DeactivatedBy::TestFailure) if self.is_tripped() && !self.is_off() => None,
            Some(DeactivatedBy::TestFailure) => Some(DeactivatedBy::TestFailure),
            by if self.speaks_of_this_spec() => by,
            _ => Some(DeactivatedBy::Spec),
        }
    }

    /// What is recorded does not fit what shall be: a registration is to be switched off or on again.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let begun = self.status.deactivated_by == Some(DeactivatedBy::TestFailure);
        if self.is_tripped() {
            !(begun && self.is_off())
        } else {
            begun && self.spec.active
        }
    }

    fn is_off(&self) -> bool {
        self.status.state == Some(State::Deactivated)
    }

    /// It was switched on again: failures are counted anew.
    pub fn forgive(&self, status: &mut WebhookStatus) {
        if !self.is_tripped() && self.is_full() {
            start_over(status);
        }
    }

    fn is_full(&self) -> bool {
        let failures = self
            .status
            .test
            .as_ref()
            .map_or(0, |test| test.consecutive_failures);
        self.spec.test.on_failure == OnTestFailure::Deactivate
            && failures >= self.spec.test.failure_threshold.max(1)
    }

    fn speaks_of_this_spec(&self) -> bool {
        self.status.observed_generation == self.generation
    }
}

/// Failures are counted under one spec.
pub fn start_over(status: &mut WebhookStatus) {
    if let Some(test) = &mut status.test {
        test.consecutive_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        webhook::{ProviderKind, ProviderRef},
        webhook_status::TestStatus,
    };

    fn spec(threshold: i32) -> WebhookSpec {
        let provider = ProviderRef {
            kind: ProviderKind::WebhookProvider,
            name: "p".into(),
        };
        let mut spec = WebhookSpec::new(provider, "https://a.example/");
        spec.test.on_failure = OnTestFailure::Deactivate;
        spec.test.failure_threshold = threshold;
        spec
    }

    fn failed(times: i32, deactivated_by: Option<DeactivatedBy>) -> WebhookStatus {
        let state = if deactivated_by.is_some() {
            State::Deactivated
        } else {
            State::Invalid
        };
        WebhookStatus {
            observed_generation: Some(4),
            state: Some(state),
            deactivated_by,
            test: Some(TestStatus {
                consecutive_failures: times,
                ..TestStatus::default()
            }),
            ..WebhookStatus::default()
        }
    }

    fn tally<'a>(spec: &'a WebhookSpec, status: &'a WebhookStatus) -> Tally<'a> {
        Tally {
            spec,
            status,
            generation: Some(4),
            requested: false,
        }
    }

    #[test]
    fn it_takes_as_many_failures_as_the_spec_says_and_a_spec_that_says_so() {
        let spec = spec(3);
        assert!(!tally(&spec, &failed(2, None)).is_tripped());
        assert!(tally(&spec, &failed(3, None)).is_tripped());
        assert!(!tally(&spec, &WebhookStatus::default()).is_tripped());
        let mut only_said = spec.clone();
        only_said.test.on_failure = OnTestFailure::None;
        assert!(!tally(&only_said, &failed(9, None)).is_tripped());
        let off = WebhookSpec {
            active: false,
            ..spec
        };
        assert!(!tally(&off, &failed(9, None)).is_tripped());
    }

    #[test]
    fn a_request_a_changed_spec_and_a_passed_test_bring_it_back() {
        let (spec, off) = (spec(3), failed(3, Some(DeactivatedBy::TestFailure)));
        let still = tally(&spec, &off);
        assert!(still.is_tripped() && !still.is_due());
        for again in [
            Tally {
                requested: true,
                ..still
            },
            Tally {
                generation: Some(5),
                ..still
            },
            Tally {
                status: &failed(0, Some(DeactivatedBy::TestFailure)),
                ..still
            },
        ] {
            assert!(!again.is_tripped() && again.is_due());
            assert_eq!(again.recorded_switch(), Some(DeactivatedBy::TestFailure));
        }
    }

    #[test]
    fn a_switch_that_has_only_begun_is_still_due_and_never_somebody_elses() {
        let spec = spec(3);
        let begun = WebhookStatus {
            state: Some(State::Invalid),
            ..failed(3, Some(DeactivatedBy::TestFailure))
        };
        assert!(tally(&spec, &begun).is_due());
        assert_eq!(tally(&spec, &begun).recorded_switch(), None);
        for (generation, status) in [
            (Some(5), begun.clone()),
            (
                Some(4),
                WebhookStatus {
                    test: None,
                    ..begun.clone()
                },
            ),
        ] {
            let back = Tally {
                generation,
                ..tally(&spec, &status)
            };
            assert!(back.is_due());
            assert_eq!(back.recorded_switch(), Some(DeactivatedBy::TestFailure));
        }
        // Of an older spec nobody knows what was sent last.
        let on = failed(3, None);
        let changed = Tally {
            generation: Some(5),
            ..tally(&spec, &on)
        };
        assert_eq!(changed.recorded_switch(), Some(DeactivatedBy::Spec));
    }

    #[test]
    fn what_was_switched_on_again_starts_with_no_failure() {
        let (spec, off) = (spec(3), failed(3, Some(DeactivatedBy::TestFailure)));
        let count = |tally: Tally<'_>| {
            let mut status = off.clone();
            tally.forgive(&mut status);
            status.test.unwrap().consecutive_failures
        };
        assert_eq!(count(tally(&spec, &off)), 3);
        let asked = Tally {
            requested: true,
            ..tally(&spec, &off)
        };
        assert_eq!(count(asked), 0);
    }
}
