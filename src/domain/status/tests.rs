//! Tests of what the user sees: which reasons an outcome has, and that nothing is written when nothing changed.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    api::{
        conditions::ConditionStatus,
        webhook::TestMode,
        webhook_status::{Gap, RotationPhase, RotationStatus},
    },
    domain::{
        desired::{BasicAuth, Header},
        testing::{Verdict, note_test},
    },
    provider::{Effect, Operation},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// `Type=Status/Reason` of each condition.
fn words(status: &WebhookStatus) -> Vec<String> {
    status
        .conditions
        .iter()
        .map(|it| format!("{}={}/{}", it.type_, it.status, it.reason))
        .collect()
}

fn after(assessment: Assessment) -> WebhookStatus {
    next_status(&WebhookStatus::default(), 3, at(0), assessment, |_| {})
}

fn facts() -> Registered<'static> {
    Registered {
        how: SyncedReason::InSync,
        corrected: &[],
        drift: &[],
        deactivated_by: None,
        tested: (TestedReason::NotRun, "not tested".to_owned()),
        test_counts: false,
        secret: Aspect::Absent,
    }
}

fn error(class: ErrorClass) -> ProviderError {
    ProviderError::new(
        class,
        Operation::Update,
        Effect::None,
        "what is wrong; what to do",
    )
}

const CLASSES: [ErrorClass; 12] = [
    ErrorClass::Unauthorized,
    ErrorClass::Forbidden,
    ErrorClass::TargetNotFound,
    ErrorClass::AlreadyExists,
    ErrorClass::Rejected,
    ErrorClass::RateLimited,
    ErrorClass::Timeout,
    ErrorClass::Unreachable,
    ErrorClass::BlockedAddress,
    ErrorClass::Unsupported,
    ErrorClass::Unexpected,
    ErrorClass::Held,
];

#[test]
fn each_error_has_its_reason_and_only_a_refusal_stalls() {
    for (class, synced) in [
        (ErrorClass::Unauthorized, "False/Unauthorized"),
        (ErrorClass::Forbidden, "False/Forbidden"),
        (ErrorClass::TargetNotFound, "False/TargetNotFound"),
        (ErrorClass::AlreadyExists, "Unknown/Pending"),
        (ErrorClass::Rejected, "False/Rejected"),
        (ErrorClass::RateLimited, "False/RateLimited"),
        (ErrorClass::Timeout, "False/Timeout"),
        (ErrorClass::Unreachable, "False/Unreachable"),
        (ErrorClass::BlockedAddress, "False/BlockedAddress"),
        (ErrorClass::Unsupported, "False/UpdateUnsupported"),
        (ErrorClass::Unexpected, "Unknown/UnexpectedResponse"),
        (ErrorClass::Held, "Unknown/Pending"),
    ] {
        let words = words(&after(Assessment::failed(&error(class))));
        assert!(words.contains(&format!("Synced={synced}")), "{words:?}");
        let stalled = words.contains(&"Stalled=True/Rejected".to_owned());
        assert_eq!(stalled, class == ErrorClass::Rejected, "{words:?}");
        assert_eq!(
            words.contains(&"Reconciling=True/Retrying".to_owned()),
            !stalled,
            "{words:?}"
        );
        let ready = match class {
            ErrorClass::Unauthorized => "Ready=False/ProviderNotReady",
            ErrorClass::AlreadyExists | ErrorClass::Held => "Ready=Unknown/Progressing",
            _ => "Ready=False/UpstreamError",
        };
        assert_eq!(words[0], ready);
    }
}

#[test]
fn a_registration_is_ready_by_its_test_where_that_counts() {
    let with = |reason, test_counts| {
        let facts = Registered {
            tested: (reason, "m".to_owned()),
            test_counts,
            ..facts()
        };
        words(&after(Assessment::registered(&facts))).remove(0)
    };
    assert_eq!(with(TestedReason::Passed, true), "Ready=True/Available");
    assert_eq!(with(TestedReason::NotRun, true), "Ready=True/Available");
    assert_eq!(with(TestedReason::Pending, true), "Ready=Unknown/NotYetTested");
    assert_eq!(
        with(TestedReason::TestTimeout, true),
        "Ready=Unknown/NotYetTested"
    );
    for reason in TestedReason::ALL {
        assert_eq!(with(*reason, false), "Ready=True/Available");
        if reason.status() == ConditionStatus::False {
            assert_eq!(with(*reason, true), "Ready=False/TestFailed");
        }
    }
}

#[test]
fn drift_goes_before_a_switch_and_a_switch_before_a_test() {
    let with = |drift: &'static [&'static str], deactivated_by| {
        let tested = (TestedReason::UpstreamReportedInvalid, "m".to_owned());
        let facts = Registered {
            drift,
            deactivated_by,
            tested,
            test_counts: true,
            ..facts()
        };
        words(&after(Assessment::registered(&facts)))
    };
    assert_eq!(
        with(&["url"], Some(DeactivatedBy::Upstream))[..2],
        ["Ready=False/Drifted", "Synced=False/DriftDetected"]
    );
    assert_eq!(
        with(&[], Some(DeactivatedBy::Upstream))[0],
        "Ready=False/DeactivatedUpstream"
    );
    assert_eq!(with(&[], Some(DeactivatedBy::Spec))[0], "Ready=True/Deactivated");
    assert_eq!(with(&[], None)[0], "Ready=False/TestFailed");
}

#[test]
fn a_secret_problem_says_what_kind_it_is() {
    for (reason, ready, stalled) in [
        (SecretReason::NotFound, "Ready=False/SecretNotFound", None),
        (SecretReason::KeyMissing, "Ready=False/SecretNotFound", None),
        (
            SecretReason::TooShort,
            "Ready=False/InvalidSpec",
            Some("Stalled=True/InvalidSpec"),
        ),
        (
            SecretReason::TooLong,
            "Ready=False/InvalidSpec",
            Some("Stalled=True/InvalidSpec"),
        ),
        (
            SecretReason::NotOwned,
            "Ready=False/Conflict",
            Some("Stalled=True/Conflict"),
        ),
        (
            SecretReason::NotRecoverable,
            "Ready=False/UpstreamError",
            Some("Stalled=True/NotRecoverable"),
        ),
    ] {
        let words = words(&after(Assessment::secret(reason, true, "m")));
        assert_eq!(words[0], ready);
        assert!(
            words.contains(&format!("SecretReady=False/{reason}")),
            "{words:?}"
        );
        assert_eq!(
            words
                .iter()
                .find(|word| word.starts_with("Stalled"))
                .map(String::as_str),
            stalled
        );
        let other = self::words(&after(Assessment::secret(reason, false, "m")));
        assert!(
            !other.iter().any(|word| word.starts_with("SecretReady")),
            "{other:?}"
        );
    }
}

#[test]
fn what_a_pass_did_not_learn_stays_and_goes_on_speaking_of_its_own_generation() {
    let old = after(Assessment::registered(&facts()));
    let new = next_status(&old, 4, at(9), Assessment::suspended(false), |_| {});
    assert_eq!(
        words(&new),
        [
            "Ready=False/Suspended",
            "Synced=True/InSync",
            "Tested=Unknown/NotRun"
        ]
    );
    assert_eq!(new.observed_generation, Some(4));
    let generations: Vec<_> = new
        .conditions
        .iter()
        .map(|it| it.observed_generation.unwrap())
        .collect();
    assert_eq!(generations, [4, 3, 3]);
}

#[test]
fn stalled_and_reconciling_go_when_they_no_longer_hold() {
    let stalled = after(Assessment::conflict("m"));
    assert!(words(&stalled).contains(&"Stalled=True/Conflict".to_owned()));
    let ready = next_status(&stalled, 3, at(9), Assessment::registered(&facts()), |_| {});
    assert_eq!(
        words(&ready),
        [
            "Ready=True/Available",
            "Synced=True/InSync",
            "Tested=Unknown/NotRun"
        ]
    );
}

#[test]
fn an_invalid_spec_goes_before_an_unsupported_field_and_a_huge_message_is_cut() {
    let problem = |kind| Problem {
        kind,
        field: "url".into(),
        message: "é".repeat(900),
    };
    let both = [
        problem(ProblemKind::UnsupportedField),
        problem(ProblemKind::InvalidSpec),
    ];
    let status = after(Assessment::problems(&both));
    assert_eq!(words(&status)[0], "Ready=False/InvalidSpec");
    let length = status.conditions[0].message.len();
    assert!(
        (bounds::MESSAGE - 3..=bounds::MESSAGE).contains(&length),
        "{length}"
    );
    assert!(status.conditions[0].message.ends_with('…'));
    let status = after(Assessment::problems(&both[..1]));
    assert_eq!(words(&status)[0], "Ready=False/UnsupportedField");
}

#[test]
fn reported_drift_is_noted_once_and_its_end_is_no_drift() {
    let mut status = WebhookStatus::default();
    note_drift(&mut status, &[], false, at(0));
    assert_eq!(status.drift, None);
    note_drift(&mut status, &["url"], false, at(1));
    note_drift(&mut status, &["url"], false, at(2));
    let drift = status.drift.clone().unwrap();
    assert_eq!(
        (drift.fields.len(), drift.last_time, drift.corrections),
        (1, Some(Time(at(1))), 0)
    );
    note_drift(&mut status, &["url"], true, at(3));
    let drift = status.drift.clone().unwrap();
    assert_eq!((drift.last_time, drift.corrections), (Some(Time(at(3))), 1));
    note_drift(&mut status, &[], false, at(4));
    let drift = status.drift.unwrap();
    assert_eq!(
        (drift.fields.len(), drift.last_time, drift.corrections),
        (0, Some(Time(at(3))), 1)
    );
}

/// Every text at its longest, every list full, all six conditions at once.
#[test]
fn a_status_with_everything_full_stays_under_16_kib() {
    let long = || "\"ż<".repeat(9000);
    let assessment = Assessment {
        ready: (ReadyReason::DeactivatedUpstream, long()),
        synced: Aspect::Is(SyncedReason::CreateOutcomeUnknown, long()),
        tested: Aspect::Is(TestedReason::UpstreamReportedInvalid, long()),
        secret: Aspect::Is(SecretReason::NotRecoverable, long()),
        reconciling: Some((ReconcilingReason::WaitingForTest, long())),
        stalled: Some((StalledReason::UnsupportedField, long())),
    };
    let verdict = Verdict {
        http_status: Some(599),
        latency: Some(Duration::from_secs(30)),
        forged_accepted: Some(false),
        ..Verdict::new(
            TestMode::Upstream,
            TestedReason::UpstreamReportedInvalid,
            long(),
            Timestamp::MAX,
        )
    };
    let fields = [
        "url",
        "events",
        "description",
        "headers",
        "retry",
        "basicAuthRef",
        "active",
    ];
    let full = |status: &mut WebhookStatus| {
        note_registration(
            status,
            &RemoteId("ż".repeat(253)),
            &format!("https://a.example/{}", long()),
            Some("k".repeat(80)),
            true,
            Timestamp::MAX,
        );
        note_drift(status, &fields, true, Timestamp::MAX);
        for _ in 0..25 {
            note_test(status, &verdict, 20);
        }
        status.state = Some(State::Deactivated);
        status.deactivated_by = Some(DeactivatedBy::TestFailure);
        let request = bounds::request(&long());
        status.last_handled_reconcile_at = Some(request.clone());
        status.last_handled_test_at = Some(request.clone());
        status.last_handled_rotate_at = Some(request);
        let gap = Gap {
            from: Time(Timestamp::MAX),
            to: Some(Time(Timestamp::MAX)),
            reason: "UpstreamReportedInvalid".to_owned(),
        };
        status.gaps = vec![gap; 5];
        status.rotation = Some(RotationStatus {
            phase: RotationPhase::Overlapping,
            last_time: Some(Time(Timestamp::MAX)),
            previous_expires: Some(Time(Timestamp::MAX)),
        });
    };
    let status = next_status(
        &WebhookStatus::default(),
        i64::MAX,
        Timestamp::MAX,
        assessment,
        full,
    );
    assert_eq!(status.conditions.len(), 6);
    assert_eq!(status.test.as_ref().unwrap().history.len(), 20);
    // The apiserver stores it with these escaped.
    let json = serde_json::to_string(&status).unwrap().replace('<', "\\u003c");
    assert!(
        (12 * 1024..16 * 1024).contains(&json.len()),
        "{} bytes",
        json.len()
    );
}

#[test]
fn the_state_is_the_upstreams_own_unless_it_is_off() {
    assert_eq!(state_of(None, None), State::New);
    assert_eq!(state_of(Some(State::Valid), None), State::Valid);
    assert_eq!(
        state_of(Some(State::Valid), Some(DeactivatedBy::Spec)),
        State::Deactivated
    );
}

#[test]
fn settled_is_this_generation_with_an_id_and_nothing_under_way() {
    let mut status = after(Assessment::registered(&facts()));
    assert!(!is_settled(&status, 3));
    note_registration(
        &mut status,
        &RemoteId("5".into()),
        "https://a.example/",
        None,
        false,
        at(0),
    );
    assert!(is_settled(&status, 3));
    assert!(!is_settled(&status, 4));
    for class in CLASSES {
        let failed = next_status(&status, 3, at(1), Assessment::failed(&error(class)), |_| {});
        assert!(!is_settled(&failed, 3), "{class:?}");
    }
}

#[test]
fn a_registration_that_agreed_is_noted_without_a_time_and_keeps_the_hash() {
    let mut status = WebhookStatus::default();
    let id = RemoteId("5".into());
    note_registration(
        &mut status,
        &id,
        "https://a.example/",
        Some("k:1".into()),
        true,
        at(1),
    );
    note_registration(&mut status, &id, "https://a.example/", None, false, at(2));
    assert_eq!(
        (status.last_sync_time, status.applied_hash.as_deref()),
        (Some(Time(at(1))), Some("k:1"))
    );
}

fn any_assessment() -> impl Strategy<Value = Assessment> {
    let failed = prop::sample::select(CLASSES.to_vec()).prop_map(|class| Assessment::failed(&error(class)));
    let secret = (prop::sample::select(SecretReason::ALL.to_vec()), any::<bool>())
        .prop_map(|(reason, signing)| Assessment::secret(reason, signing, "m"));
    let by = prop::sample::select(vec![
        None,
        Some(DeactivatedBy::Spec),
        Some(DeactivatedBy::Upstream),
    ]);
    let tested = prop::sample::select(TestedReason::ALL.to_vec());
    let how = prop::sample::select(vec![
        SyncedReason::InSync,
        SyncedReason::Applied,
        SyncedReason::DriftCorrected,
    ]);
    let registered = (by, tested, how, any::<(bool, bool)>()).prop_map(
        |(deactivated_by, tested, how, (drifted, test_counts))| {
            let drift: &[&str] = if drifted { &["url"] } else { &[] };
            let tested = (tested, "m".to_owned());
            Assessment::registered(&Registered {
                how,
                drift,
                deactivated_by,
                tested,
                test_counts,
                ..facts()
            })
        },
    );
    prop_oneof![
        failed,
        secret,
        registered,
        any::<bool>().prop_map(Assessment::suspended),
        "[a-z]{0,9}".prop_map(Assessment::provider_not_ready),
        "[a-z]{0,9}".prop_map(Assessment::conflict),
        "[a-z]{0,9}".prop_map(Assessment::deleting),
        Just(Assessment::create_outcome_unknown()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_outcome_later_changes_nothing(
        before in prop::collection::vec(any_assessment(), 0..3),
        last in any_assessment(),
        drift in any::<bool>(),
    ) {
        let fields: &[&str] = if drift { &["url"] } else { &[] };
        let step = |old: &WebhookStatus, second, assessment| {
            next_status(old, 3, at(second), assessment, |status| {
                note_registration(status, &RemoteId("5".into()), "https://a.example/", None, false, at(second));
                note_drift(status, fields, false, at(second));
            })
        };
        let mut status = WebhookStatus::default();
        for (second, assessment) in (0..).zip(before) {
            status = step(&status, second, assessment);
        }
        let once = step(&status, 100, last.clone());
        prop_assert_eq!(step(&once, 200, last), once);
    }

    #[test]
    fn ready_stands_first_and_no_status_is_both_stalled_and_reconciling(assessment in any_assessment()) {
        let words = words(&after(assessment));
        prop_assert!(words[0].starts_with("Ready="));
        let has = |name: &str| words.iter().any(|word| word.starts_with(name));
        prop_assert!(has("Synced=") && has("Tested="));
        prop_assert!(!(has("Stalled=") && has("Reconciling=")), "{:?}", words);
        prop_assert!(!(has("Stalled=") && words[0].starts_with("Ready=True")), "{:?}", words);
    }

    #[test]
    fn no_text_about_a_want_holds_one_of_its_secrets(canary in "[a-z0-9]{12,32}") {
        let secret = || format!("Zq{canary}").into();
        let want = Desired {
            target: Some("9".into()),
            url: "https://a.example/".into(),
            events: BTreeSet::from(["A".to_owned()]),
            secret: Some(secret()),
            basic_auth: Some(BasicAuth { username: "u".into(), password: secret() }),
            headers: vec![Header { name: "X".into(), value: secret() }],
            retry: Some(crate::domain::desired::Retry { initial_delay: Duration::from_secs(1), ..Default::default() }),
            ..Desired::default()
        };
        let drift = crate::domain::remote::differences(&want, &crate::domain::remote::Remote {
            headers: Some(Vec::new()),
            basic_auth_user: Some(String::new()),
            ..crate::domain::remote::Remote::new("9", "https://b.example/")
        });
        prop_assert!(drift.contains(&"headers"));
        let status = after(Assessment::registered(&Registered { drift: &drift, ..facts() }));
        for text in [describe(&want), format!("{want:?}"), format!("{status:?}")] {
            prop_assert!(!text.contains(&format!("Zq{canary}")), "{}", text);
        }
    }
}
