//! Every condition reason has a test that makes the real operator say it, or stands here with why it belongs to a
//! later version. The table is checked against the code: a new reason without a line fails, and so does a line
//! whose test is gone.

use std::collections::BTreeSet;

use serde_json::json;
use upstream_doubles::{ImplicitTest, TaskCourse};
use webhook_operator::api::conditions::{
    ConditionType, ProviderReason, ReadyReason, Reason, ReconcilingReason, SecretReason, StalledReason,
    SyncedReason, TestedReason,
};
use webhook_operator::api::provider::ProviderType::{Conpeek, Ricloud};

use crate::world::{World, has_reason};

/// Where a reason is produced.
enum Said {
    /// By this test.
    By(&'static str),
    /// Not yet: what it waits for.
    Later(&'static str),
}

use Said::{By, Later};

/// What keeps a delivery from its receiver.
const WAY: Said = By("hops::what_keeps_a_delivery_from_the_receiver_is_named");

/// What a receiver answers.
const ANSWER: Said = By("hops::what_a_receiver_answers_is_judged_and_not_shown");

fn of_ready(reason: ReadyReason) -> Said {
    match reason {
        ReadyReason::Available => By("registers::conpeek_gets_the_golden_body_and_is_read_back"),
        ReadyReason::Deactivated => By("changes::every_field_of_autocosmos_is_updated"),
        ReadyReason::Progressing => {
            By("failures::a_request_that_never_arrived_is_sent_again_only_when_it_cannot_arrive_any_more")
        }
        ReadyReason::NotYetTested => By("reasons::a_test_that_does_not_end_is_waited_for"),
        ReadyReason::Deleting => {
            By("deletes::an_upstream_that_is_down_holds_a_deletion_up_only_until_the_deadline")
        }
        ReadyReason::Suspended => By("changes::nothing_is_called_for_what_is_suspended"),
        ReadyReason::TestFailed => By("changes::ricloud_is_updated_and_tested_again"),
        ReadyReason::DeactivatedUpstream => {
            By("changes::what_somebody_switched_off_is_reported_or_switched_on_again")
        }
        ReadyReason::DeletionHeld => {
            By("breaker::a_pruned_repository_does_not_take_everything_down_in_one_sync")
        }
        ReadyReason::Drifted => By("changes::what_is_changed_by_hand_is_only_reported_where_that_is_wanted"),
        ReadyReason::Conflict => {
            By("conflicts::a_registration_with_the_same_content_is_taken_over_unless_forbidden")
        }
        ReadyReason::ProviderNotReady => {
            By("failures::a_wrong_key_is_told_and_the_right_one_goes_on_at_once")
        }
        ReadyReason::SecretNotFound => By("failures::a_webhook_s_secrets_are_waited_for_and_judged"),
        ReadyReason::InvalidSpec | ReadyReason::UnsupportedField => {
            By("failures::fields_that_an_upstream_lacks_are_refused_and_nothing_is_called")
        }
        ReadyReason::UpstreamError => By("failures::an_upstream_that_asks_for_fewer_calls_is_given_the_time"),
    }
}

fn of_synced(reason: SyncedReason) -> Said {
    match reason {
        SyncedReason::InSync => By("reasons::what_is_taken_over_as_it_is_agrees"),
        SyncedReason::Applied => By("changes::every_field_of_conpeek_is_updated"),
        SyncedReason::DriftCorrected => By("changes::what_is_changed_by_hand_is_put_right_and_named"),
        SyncedReason::Pending => By("reasons::what_cannot_begin_is_pending"),
        SyncedReason::UnexpectedResponse => By("failures::an_answer_that_is_not_understood_is_tried_again"),
        SyncedReason::CreateOutcomeUnknown => {
            By("failures::a_request_that_never_arrived_is_sent_again_only_when_it_cannot_arrive_any_more")
        }
        SyncedReason::DriftDetected => {
            By("changes::what_is_changed_by_hand_is_only_reported_where_that_is_wanted")
        }
        SyncedReason::Unauthorized => By("reasons::a_key_that_is_refused_at_the_first_call_is_unauthorized"),
        SyncedReason::Forbidden => By("failures::what_the_credentials_do_not_allow_is_the_webhook_s_trouble"),
        SyncedReason::TargetNotFound => By("failures::a_target_that_does_not_exist_is_named"),
        SyncedReason::Rejected => By("failures::what_is_refused_waits_for_a_change"),
        SyncedReason::RateLimited => By("failures::an_upstream_that_asks_for_fewer_calls_is_given_the_time"),
        SyncedReason::Timeout => By("failures::an_upstream_that_does_not_answer_is_tried_again"),
        SyncedReason::Unreachable => By("failures::an_upstream_that_is_down_is_tried_again"),
        SyncedReason::BlockedAddress => By("failures::an_address_that_may_not_be_reached_is_not_reached"),
        SyncedReason::UpdateUnsupported => {
            By("changes::thulium_without_an_update_call_is_replaced_only_where_removal_is_known_to_work")
        }
        SyncedReason::Conflict => {
            By("conflicts::a_registration_with_the_same_content_is_taken_over_unless_forbidden")
        }
    }
}

fn of_tested(reason: TestedReason) -> Said {
    match reason {
        TestedReason::Passed => By("registers::ricloud_s_secret_is_published_and_verifies_its_test_delivery"),
        TestedReason::Pending => By("reasons::a_test_that_does_not_end_is_waited_for"),
        TestedReason::NotRun => By("registers::conpeek_gets_the_golden_body_and_is_read_back"),
        TestedReason::TestTimeout => {
            Later("five minutes of waiting; domain::testing covers it with a clock of its own")
        }
        TestedReason::UpstreamReportedInvalid => By("changes::ricloud_is_tested_again_on_request"),
        TestedReason::DnsFailed
        | TestedReason::BlockedAddress
        | TestedReason::ConnectFailed
        | TestedReason::TlsFailed => WAY,
        TestedReason::Timeout
        | TestedReason::Redirected
        | TestedReason::HttpStatus
        | TestedReason::SignatureRejected
        | TestedReason::ForgeryAccepted => ANSWER,
    }
}

fn of_secret(reason: SecretReason) -> Said {
    match reason {
        SecretReason::Published => {
            By("registers::ricloud_s_secret_is_published_and_verifies_its_test_delivery")
        }
        SecretReason::Resolved
        | SecretReason::NotFound
        | SecretReason::KeyMissing
        | SecretReason::TooShort
        | SecretReason::TooLong => By("failures::a_webhook_s_secrets_are_waited_for_and_judged"),
        SecretReason::NotOwned => {
            By("conflicts::a_signing_secret_of_somebody_else_stays_untouched_and_nothing_is_created")
        }
        SecretReason::NotRecoverable => {
            By("conflicts::a_secret_that_cannot_be_read_again_makes_an_adoption_not_recoverable")
        }
    }
}

fn of_reconciling(reason: ReconcilingReason) -> Said {
    match reason {
        ReconcilingReason::Progressing => {
            By("failures::a_request_that_never_arrived_is_sent_again_only_when_it_cannot_arrive_any_more")
        }
        ReconcilingReason::Retrying => {
            By("deletes::an_upstream_that_is_down_holds_a_deletion_up_only_until_the_deadline")
        }
        ReconcilingReason::WaitingForTest => By("reasons::a_test_that_does_not_end_is_waited_for"),
    }
}

fn of_stalled(reason: StalledReason) -> Said {
    match reason {
        StalledReason::InvalidSpec | StalledReason::UnsupportedField => {
            By("failures::fields_that_an_upstream_lacks_are_refused_and_nothing_is_called")
        }
        StalledReason::Rejected => By("failures::what_is_refused_waits_for_a_change"),
        StalledReason::Conflict => {
            By("conflicts::a_registration_with_the_same_content_is_taken_over_unless_forbidden")
        }
        StalledReason::NotRecoverable => {
            By("conflicts::a_secret_that_cannot_be_read_again_makes_an_adoption_not_recoverable")
        }
    }
}

fn of_provider(reason: ProviderReason) -> Said {
    match reason {
        ProviderReason::Verified => By("registers::autocosmos_gets_the_golden_body"),
        ProviderReason::SecretNotFound | ProviderReason::KeyMissing => {
            By("failures::credentials_that_are_missing_or_incomplete_are_told")
        }
        ProviderReason::Unauthorized => By("failures::a_wrong_key_is_told_and_the_right_one_goes_on_at_once"),
        ProviderReason::BlockedAddress => By("failures::an_address_that_may_not_be_reached_is_not_reached"),
        ProviderReason::Suspended => By("changes::nothing_is_called_for_what_is_suspended"),
        ProviderReason::NotVerified | ProviderReason::Unreachable | ProviderReason::InvalidSpec => {
            By("failures::a_provider_of_a_wrong_address_says_so")
        }
    }
}

/// The sources of the tests that the table may name.
const SOURCES: [(&str, &str); 8] = [
    ("breaker", include_str!("breaker.rs")),
    ("registers", include_str!("registers.rs")),
    ("changes", include_str!("changes.rs")),
    ("conflicts", include_str!("conflicts.rs")),
    ("deletes", include_str!("deletes.rs")),
    ("failures", include_str!("failures.rs")),
    ("hops", include_str!("hops.rs")),
    ("reasons", include_str!("reasons.rs")),
];

/// Checks one type's lines: the test is there and names the reason. Counts those that are produced.
fn check<R: Reason>(of: impl Fn(R) -> Said, wrong: &mut Vec<String>) -> usize {
    let type_name = std::any::type_name::<R>().rsplit("::").next().unwrap_or_default();
    let mut produced = 0;
    for reason in R::ALL {
        let variant = format!("{type_name}::{}", reason.as_str());
        match of(*reason) {
            Later(why) => assert!(!why.is_empty()),
            By(test) => {
                produced += 1;
                let (module, name) = test.split_once("::").unwrap();
                let source = SOURCES
                    .iter()
                    .find(|(of, _)| *of == module)
                    .map(|(_, source)| *source);
                let body = source.and_then(|source| source.split_once(&format!("async fn {name}()")));
                let body = body.map(|(_, rest)| rest.split("#[tokio::test]").next().unwrap_or_default());
                if !body.is_some_and(|body| body.contains(&variant)) {
                    wrong.push(format!("{variant}: {test}"));
                }
            }
        }
    }
    produced
}

#[test]
fn every_reason_has_its_test() {
    let mut wrong = Vec::new();
    let produced = [
        check(of_ready, &mut wrong),
        check(of_synced, &mut wrong),
        check(of_tested, &mut wrong),
        check(of_secret, &mut wrong),
        check(of_reconciling, &mut wrong),
        check(of_stalled, &mut wrong),
        check(of_provider, &mut wrong),
    ];
    assert!(
        wrong.is_empty(),
        "no such test, or it does not name the reason: {wrong:#?}"
    );
    assert_eq!(produced, [16, 17, 13, 8, 3, 5, 9]);
    let types: BTreeSet<&str> = ConditionType::ALL.iter().map(|type_| type_.as_str()).collect();
    let covered = [
        "Ready",
        "Synced",
        "Tested",
        "SecretReady",
        "Reconciling",
        "Stalled",
    ];
    assert_eq!(
        types,
        covered.into_iter().collect(),
        "a condition type without a table"
    );
}

#[tokio::test]
async fn a_test_that_does_not_end_is_waited_for() {
    let world = World::new("why-test").await;
    world.doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.implicit_test = ImplicitTest::Lost;
        behaviour.tasks = TaskCourse::Hangs;
    });
    world.provider(Ricloud).await;
    world
        .webhook("w", Ricloud, json!({ "url": world.ricloud_receiver("w") }))
        .await;
    let waiting = world.wait_ready("w", ReadyReason::NotYetTested).await;
    assert!(has_reason(&waiting, TestedReason::Pending));
    assert!(has_reason(&waiting, ReconcilingReason::WaitingForTest));
    assert!(
        has_reason(&waiting, SecretReason::Published),
        "the receiver may need it for the test"
    );
    // Nobody who does not want a test waits for one.
    world.change("w", json!({ "test": { "mode": "None" } })).await;
    let ready = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&ready, TestedReason::NotRun));
}

#[tokio::test]
async fn what_is_taken_over_as_it_is_agrees() {
    let world = World::new("why-insync").await;
    world.provider(Ricloud).await;
    let spec = json!({ "url": world.ricloud_receiver("w"), "deletionPolicy": "Orphan" });
    world.webhook("first", Ricloud, spec.clone()).await;
    world.wait_ready("first", ReadyReason::Available).await;
    world.delete_and_wait("first").await;
    world.webhook("second", Ricloud, spec).await;
    let adopted = world.wait_ready("second", ReadyReason::Available).await;
    assert!(has_reason(&adopted, SyncedReason::InSync));
}

#[tokio::test]
async fn what_cannot_begin_is_pending() {
    let world = World::new("why-pending").await;
    world
        .webhook(
            "w",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    let blocked = world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    assert!(has_reason(&blocked, SyncedReason::Pending));
    // The provider that was missing is all that it takes.
    world.provider(Conpeek).await;
    world.wait_ready("w", ReadyReason::Available).await;
}

#[tokio::test]
async fn a_key_that_is_refused_at_the_first_call_is_unauthorized() {
    let world = World::new("why-401").await;
    // Conpeek has nothing to verify a key by but the first call for a Webhook.
    world.provider(Conpeek).await;
    world
        .secret("conpeek-account", &[("apiKey", "certainly-the-wrong-one")])
        .await;
    world
        .webhook(
            "w",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    let refused = world.wait_reason("w", SyncedReason::Unauthorized).await;
    assert!(has_reason(&refused, ReadyReason::ProviderNotReady));
}
