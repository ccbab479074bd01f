//! Tables of what a provider's status says, when it is tried again, and who holds the finalizer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    api::provider_status::{DeletionWindow, FindingResult, FindingSubject, RecentRemovals},
    provider::{Effect, Operation, Provider as _, Upstream},
};

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn secret() -> SecretLocation {
    SecretLocation {
        namespace: "ns".into(),
        name: "credentials".into(),
    }
}

fn error(class: ErrorClass) -> ProviderError {
    ProviderError::new(class, Operation::List, Effect::None, "what is wrong")
}

fn shown(provider_type: ProviderType, undocumented: bool) -> Capabilities {
    capabilities(Upstream::from(provider_type).capabilities(), undocumented)
}

/// The table of providers in the documentation, row by row.
#[test]
fn capabilities_are_those_of_the_documented_table() {
    let json = |provider_type| serde_json::to_value(shown(provider_type, true)).unwrap();
    assert_eq!(
        json(ProviderType::Conpeek),
        json!({
            "target": "Required", "events": "Unsupported", "maxHeaders": json(ProviderType::Conpeek)["maxHeaders"],
            "maxUrlLength": 2048, "maxDescriptionLength": 0, "retry": true, "basicAuth": false,
            "deactivate": false, "upstreamTest": false, "delete": "LeftInPlace",
        })
    );
    assert!(shown(ProviderType::Conpeek, true).max_headers > 0);
    assert_eq!(
        json(ProviderType::Thulium),
        json!({
            "target": "Unsupported", "events": "Required", "maxHeaders": 0, "maxUrlLength": 2048,
            "maxDescriptionLength": 0, "retry": false, "basicAuth": true, "deactivate": false,
            "upstreamTest": false, "delete": "Undocumented",
        })
    );
    assert_eq!(
        json(ProviderType::Ricloud),
        json!({
            "target": "Optional", "events": "Unsupported", "secret": "Upstream", "maxHeaders": 0,
            "maxUrlLength": 2048, "maxDescriptionLength": 0, "retry": false, "basicAuth": false,
            "deactivate": true, "upstreamTest": true, "delete": "Deleted",
        })
    );
    assert_eq!(
        json(ProviderType::Autocosmos),
        json!({
            "target": "Required", "events": "Unsupported", "secret": "Existing", "maxHeaders": 3,
            "maxUrlLength": 1024, "maxDescriptionLength": 256, "retry": false, "basicAuth": false,
            "deactivate": true, "upstreamTest": false, "delete": "SwitchedOff",
        })
    );
}

#[test]
fn without_undocumented_calls_thulium_leaves_registrations_in_place() {
    assert_eq!(
        shown(ProviderType::Thulium, false).delete,
        DeleteSupport::LeftInPlace
    );
    assert_eq!(shown(ProviderType::Ricloud, false).delete, DeleteSupport::Deleted);
}

#[test]
fn every_error_class_has_a_reason_and_a_time() {
    use ErrorClass as C;
    use ProviderReason as R;
    for (class, reason, seconds) in [
        (C::Unauthorized, Some(R::Unauthorized), 300..=300),
        (C::BlockedAddress, Some(R::BlockedAddress), 900..=900),
        (C::Unreachable, Some(R::Unreachable), 2..=4),
        (C::Timeout, Some(R::Unreachable), 2..=4),
        (C::TargetNotFound, Some(R::Unreachable), 600..=600),
        (C::Unsupported, Some(R::Unreachable), 600..=600),
        (C::Forbidden, Some(R::NotVerified), 600..=600),
        (C::Rejected, Some(R::NotVerified), 600..=600),
        (C::AlreadyExists, Some(R::NotVerified), 600..=600),
        (C::RateLimited, Some(R::NotVerified), 2..=4),
        (C::Unexpected, Some(R::NotVerified), 2..=4),
        (C::Held, None, 2..=4),
    ] {
        let error = error(class);
        let judged = judge(&error);
        assert_eq!(judged.as_ref().map(|(reason, _)| *reason), reason, "{class:?}");
        assert!(judged.is_none_or(|(_, message)| message.contains("what is wrong")));
        let delay = recheck(&error, 3, 7);
        assert!(seconds.contains(&delay.as_secs()), "{class:?} {delay:?}");
        let asked = ProviderError {
            retry_after: Some(HOUR),
            ..error
        };
        assert_eq!(recheck(&asked, 3, 7), HOUR, "{class:?}");
    }
}

#[test]
fn ready_goes_by_suspension_then_problem_then_calls_then_verification() {
    use ProviderReason as R;
    let refused = Standing::Refused {
        since: Instant::now(),
        next_try: Instant::now(),
    };
    let said = |reason| Some((reason, "m".to_owned()));
    let location = secret();
    for (suspended, problem, standing, verdict, expected) in [
        (
            true,
            said(R::KeyMissing),
            Standing::Accepted,
            said(R::Verified),
            R::Suspended,
        ),
        (
            false,
            said(R::KeyMissing),
            Standing::Accepted,
            None,
            R::KeyMissing,
        ),
        (false, None, Standing::Accepted, said(R::Unreachable), R::Verified),
        (false, None, refused, said(R::Verified), R::Unauthorized),
        (
            false,
            None,
            Standing::Unknown,
            said(R::Unreachable),
            R::Unreachable,
        ),
        (false, None, Standing::Unknown, said(R::Verified), R::Verified),
        (false, None, Standing::Unknown, None, R::NotVerified),
    ] {
        let health = Health {
            suspended,
            problem,
            standing,
            verdict,
            provider_type: ProviderType::Thulium,
            credentials: &location,
        };
        let shown = format!("{health:?}");
        let (reason, message) = ready(health);
        assert_eq!(reason, expected, "{shown}");
        assert!(!message.is_empty());
        if reason == R::Unauthorized {
            let named = ["\"credentials\"", "\"ns\"", "username, password"];
            assert!(named.iter().all(|name| message.contains(name)), "{message}");
        }
    }
}

fn facts(reason: ProviderReason) -> Facts {
    Facts {
        generation: Some(2),
        ready: (reason, "m".to_owned()),
        capabilities: Some(shown(ProviderType::Ricloud, true)),
        findings: Some(Vec::new()),
        deleting: false,
        limited: false,
        confirmation: None,
    }
}

fn usage(total: i32, ready: i32) -> Usage {
    Usage {
        counts: WebhookCounts { total, ready },
        holders: usize::try_from(total).unwrap(),
        held: 0,
    }
}

#[test]
fn a_status_made_twice_of_the_same_is_the_same() {
    let first = next_status(
        &ProviderStatus::default(),
        &facts(ProviderReason::NotVerified),
        usage(3, 1),
        at(1),
    );
    assert_eq!(first.observed_generation, Some(2));
    assert_eq!(first.webhooks, Some(WebhookCounts { total: 3, ready: 1 }));
    assert_eq!(reason_of(&first), Some(ProviderReason::NotVerified));
    assert_eq!(
        next_status(&first, &facts(ProviderReason::NotVerified), usage(3, 1), at(9)),
        first
    );

    let verified = next_status(&first, &facts(ProviderReason::Verified), usage(3, 1), at(9));
    assert_eq!(verified.conditions.len(), 1);
    assert_eq!(verified.conditions[0].last_transition_time, Time(at(9)));
    assert_eq!(verified.conditions[0].observed_generation, Some(2));
}

#[test]
fn what_was_removed_stays_and_what_is_held_is_shown_while_there_is_a_limit() {
    let recent = vec![RecentRemovals {
        time: Time(at(1)),
        removals: 2,
    }];
    let old = ProviderStatus {
        deletions: Some(DeletionWindow {
            recent: recent.clone(),
            held: 1,
        }),
        ..ProviderStatus::default()
    };
    let limited = Facts {
        limited: true,
        ..facts(ProviderReason::Verified)
    };
    let held = |held| Usage { held, ..usage(0, 0) };
    let new = next_status(&old, &limited, held(3), at(9));
    assert_eq!(new.deletions, Some(DeletionWindow { recent, held: 3 }));
    assert_eq!(
        next_status(&old, &facts(ProviderReason::Verified), held(0), at(9)).deletions,
        None
    );
    let first = next_status(&ProviderStatus::default(), &limited, held(0), at(9));
    assert_eq!(first.deletions, Some(DeletionWindow::default()));
}

#[test]
fn a_confirmation_is_handled_once_and_stays_when_the_annotation_goes() {
    let confirmed = |value: Option<&str>| Facts {
        confirmation: value.map(str::to_owned),
        ..facts(ProviderReason::Verified)
    };
    let first = next_status(
        &ProviderStatus::default(),
        &confirmed(Some("1")),
        usage(0, 0),
        at(9),
    );
    assert_eq!(first.last_handled_confirm_deletions.as_deref(), Some("1"));
    assert_eq!(next_status(&first, &confirmed(None), usage(0, 0), at(9)), first);
    let second = next_status(&first, &confirmed(Some("2")), usage(0, 0), at(9));
    assert_eq!(second.last_handled_confirm_deletions.as_deref(), Some("2"));
}

#[test]
fn findings_outlive_the_account_but_not_the_generation() {
    let finding = Finding {
        subject: FindingSubject::Delete,
        result: FindingResult::Works,
        time: Time(at(1)),
    };
    let old = ProviderStatus {
        observed_generation: Some(2),
        findings: vec![finding],
        ..ProviderStatus::default()
    };
    let without = |generation| Facts {
        generation: Some(generation),
        findings: None,
        ..facts(ProviderReason::Suspended)
    };
    assert_eq!(
        next_status(&old, &without(2), usage(0, 0), at(9)).findings,
        old.findings
    );
    assert_eq!(next_status(&old, &without(3), usage(0, 0), at(9)).findings, []);
    assert_eq!(
        next_status(&old, &facts(ProviderReason::Verified), usage(0, 0), at(9)).findings,
        []
    );
}

#[test]
fn a_provider_that_is_being_deleted_says_what_it_waits_for() {
    let message = |deleting, holders| {
        let facts = Facts {
            deleting,
            ..facts(ProviderReason::Verified)
        };
        let usage = Usage {
            holders,
            ..usage(5, 5)
        };
        let status = next_status(&ProviderStatus::default(), &facts, usage, at(1));
        status.conditions[0].message.clone()
    };
    assert!(message(true, 3).contains("3 Webhook(s)"));
    assert_eq!(message(true, 0), "m");
    assert_eq!(message(false, 3), "m");
}

/// Every case: whether the option is on, the finalizer there, the object being deleted, needed, held in deletion.
#[test]
fn the_finalizer_is_there_exactly_while_it_protects() {
    #[derive(Debug, PartialEq)]
    enum Outcome {
        Keep,
        Set,
        Release,
    }
    use Outcome::{Keep, Release, Set};
    const ON: bool = true;
    for (enabled, there, deleting, needed, holds, expected) in [
        // In use: set once.
        (ON, false, false, true, false, Set),
        (ON, true, false, true, false, Keep),
        // No longer in use: taken off.
        (ON, true, false, false, true, Release),
        (ON, false, false, false, true, Keep),
        // Being deleted: kept only where it holds, and never set any more.
        (ON, true, true, true, true, Keep),
        (ON, true, true, true, false, Release),
        (ON, true, true, false, true, Release),
        (ON, false, true, true, true, Keep),
        (ON, false, true, true, false, Keep),
        (ON, false, true, false, false, Keep),
        // Switched off: never set, and taken off whatever the case.
        (false, false, false, true, true, Keep),
        (false, true, false, true, true, Release),
        (false, true, true, true, true, Release),
        (false, true, true, false, false, Release),
    ] {
        let mut finalizers = vec!["example.com/other".to_owned()];
        if there {
            finalizers.insert(0, IN_USE_FINALIZER.to_owned());
        }
        let guarded = Guarded {
            finalizers: &finalizers,
            deleting,
            needed,
            holds,
        };
        let outcome = match protection(enabled, guarded) {
            Protection::Keep => Keep,
            Protection::Set(after) => {
                assert_eq!(after, ["example.com/other", IN_USE_FINALIZER]);
                Set
            }
            Protection::Release(after) => {
                assert_eq!(after, ["example.com/other"]);
                Release
            }
        };
        assert_eq!(outcome, expected, "{enabled} {guarded:?}");
    }
}
