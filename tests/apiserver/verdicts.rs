//! What follows from a verdict: failed tests that switch a registration off and what brings it back, what an upstream
//! decides by itself, and the spans in which nothing can have arrived.

use std::time::Duration;

use serde_json::json;
use upstream_doubles::{ConfigState, Verdict};
use webhook_operator::api::{
    TEST_REQUESTED_AT, Webhook,
    conditions::{ConditionType, ReadyReason, SyncedReason, TestedReason},
    provider::ProviderType::Ricloud,
    webhook_status::{DeactivatedBy, State},
};

use crate::world::{World, condition, has_reason, message, status};

/// A ricloud registration `w` that is tested by the double's own word.
async fn registered(prefix: &str, test: serde_json::Value) -> World {
    let world = World::new(prefix).await;
    world.provider(Ricloud).await;
    let spec = json!({ "url": world.ricloud_receiver("w"), "test": test });
    world.webhook("w", Ricloud, spec).await;
    world.wait_ready("w", ReadyReason::Available).await;
    world
}

fn decide(world: &World, verdict: Verdict) {
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = verdict);
}

/// Asks for a test and waits for its end.
async fn test_now(world: &World, value: &str) -> Webhook {
    world.annotate("w", TEST_REQUESTED_AT, value).await;
    world
        .wait("w", "the test to be over", |webhook| {
            status(webhook).last_handled_test_at.as_deref() == Some(value)
        })
        .await
}

/// The upstream's own state of the only registration.
fn there(world: &World) -> ConfigState {
    world.doubles.ricloud().objects()[0].state
}

/// Somebody changes the only registration at the upstream; read back at once.
async fn by_hand(world: &World, change: impl Fn(&mut upstream_doubles::WebhookConfig)) {
    let id = world.doubles.ricloud().objects()[0].id.to_string();
    assert!(world.doubles.ricloud().edit(&id, change));
    world.ask_read_back("w").await;
}

async fn count_events(world: &World, reason: &str) -> usize {
    let events = world.events("w").await;
    events.iter().filter(|(_, of, _)| of == reason).count()
}

#[tokio::test]
async fn what_keeps_failing_is_switched_off_and_each_way_back_tests_it_again() {
    let test = json!({ "failureThreshold": 2, "onFailure": "Deactivate" });
    let world = registered("ver-off", test).await;
    decide(&world, Verdict::AlwaysInvalid);
    let once = test_now(&world, "1").await;
    assert_eq!(status(&once).test.unwrap().consecutive_failures, 1);
    assert_eq!(there(&world), ConfigState::Invalid, "one failure is one too few");

    test_now(&world, "2").await;
    let off = world
        .wait("w", "to be switched off", |webhook| {
            status(webhook).state == Some(State::Deactivated)
        })
        .await;
    assert_eq!(there(&world), ConfigState::Deactivated);
    assert_eq!(status(&off).deactivated_by, Some(DeactivatedBy::TestFailure));
    assert!(has_reason(&off, ReadyReason::TestFailed));
    assert!(
        has_reason(&off, TestedReason::UpstreamReportedInvalid),
        "why it is off"
    );
    assert!(message(&off, ConditionType::Ready).contains("test-requested-at"));
    let (type_, note) = world.wait_event("w", "DeactivatedByTests").await;
    assert_eq!(type_, "Warning");
    assert!(note.contains("2 failed tests in a row"), "{note}");

    // A read-back changes nothing about it.
    let same = world.read_back("w").await;
    assert_eq!(
        condition(&same, ConditionType::Ready),
        condition(&off, ConditionType::Ready)
    );
    assert_eq!(status(&same).deactivated_by, Some(DeactivatedBy::TestFailure));

    // Asked for: switched on, tested, and counted anew.
    let failed = test_now(&world, "3").await;
    assert_eq!(status(&failed).state, Some(State::Invalid));
    assert_eq!(status(&failed).deactivated_by, None);
    assert_eq!(status(&failed).test.unwrap().consecutive_failures, 1);
    test_now(&world, "4").await;
    world
        .wait("w", "to be switched off again", |webhook| {
            status(webhook).deactivated_by == Some(DeactivatedBy::TestFailure)
                && status(webhook).state == Some(State::Deactivated)
        })
        .await;

    // The spec changed: the same.
    decide(&world, Verdict::AlwaysValid);
    world
        .change("w", json!({ "url": world.ricloud_receiver("other") }))
        .await;
    let back = world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(there(&world), ConfigState::Valid);
    assert_eq!(status(&back).deactivated_by, None);
    assert_eq!(status(&back).test.unwrap().consecutive_failures, 0);
    assert_eq!(world.doubles.ricloud().objects().len(), 1);
}

#[tokio::test]
async fn what_the_spec_or_somebody_else_switched_off_is_not_switched_on_by_a_request() {
    let test = json!({ "failureThreshold": 1, "onFailure": "Deactivate" });
    let world = registered("ver-whose", test).await;
    by_hand(&world, |config| config.state = ConfigState::Deactivated).await;
    world.wait_ready("w", ReadyReason::DeactivatedUpstream).await;
    let asked = test_now(&world, "1").await;
    assert_eq!(status(&asked).deactivated_by, Some(DeactivatedBy::Upstream));
    assert_eq!(there(&world), ConfigState::Deactivated);

    world.change("w", json!({ "active": false })).await;
    world.wait_ready("w", ReadyReason::Deactivated).await;
    let asked = test_now(&world, "2").await;
    assert_eq!(status(&asked).deactivated_by, Some(DeactivatedBy::Spec));
    assert_eq!(there(&world), ConfigState::Deactivated);
}

#[tokio::test]
async fn an_upstream_that_changes_its_mind_is_seen_at_the_next_read_back() {
    let world = registered("ver-mind", json!({})).await;
    by_hand(&world, |config| config.state = ConfigState::Invalid).await;
    let failed = world.wait_ready("w", ReadyReason::TestFailed).await;
    assert!(has_reason(&failed, TestedReason::UpstreamReportedInvalid));
    assert_eq!(status(&failed).state, Some(State::Invalid));
    let test = status(&failed).test.unwrap();
    assert_eq!((test.consecutive_failures, test.history.len()), (1, 2));
    world.wait_event("w", "TestFailed").await;

    by_hand(&world, |config| config.state = ConfigState::Valid).await;
    let passed = world.wait_ready("w", ReadyReason::Available).await;
    let status = status(&passed);
    assert_eq!(status.test.unwrap().consecutive_failures, 0);
    // From the read-back before, or the first test, to when it was seen to be well again.
    let gap = &status.gaps[0];
    assert_eq!(
        (status.gaps.len(), gap.reason.as_str()),
        (1, "UpstreamReportedInvalid")
    );
    assert!(gap.to.as_ref().is_some_and(|to| *to >= gap.from), "{gap:?}");
}

#[tokio::test]
async fn the_spans_in_which_nothing_arrives_are_noted_and_ended() {
    let world = registered("ver-gaps", json!({})).await;
    let before = world.read_back("w").await;
    assert_eq!(status(&before).gaps, []);

    // Switched off by somebody, a while after that read-back. Times in a status are whole seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    by_hand(&world, |config| config.state = ConfigState::Deactivated).await;
    let off = world.wait_ready("w", ReadyReason::DeactivatedUpstream).await;
    let gap = status(&off).gaps[0].clone();
    assert_eq!((gap.reason.as_str(), &gap.to), ("DeactivatedUpstream", &None));
    let ready = condition(&off, ConditionType::Ready).unwrap();
    assert!(
        gap.from < ready.last_transition_time,
        "it begins when it was last seen to be well: {gap:?}"
    );
    let metrics = world.operator.metrics().await;
    assert!(
        metrics.contains(r#"webhook_operator_deactivated_upstream{provider_type="Ricloud"}"#),
        "{metrics}"
    );
    // Seen again: no further Event, and the span stays as it is.
    let again = world.read_back("w").await;
    assert_eq!(status(&again).gaps, vec![gap.clone()]);
    assert_eq!(count_events(&world, "DeactivatedUpstream").await, 1);
    world
        .change("w", json!({ "onUpstreamDeactivation": "Reactivate" }))
        .await;
    let on = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&on, TestedReason::Passed), "it was tested again");
    let ended = status(&on).gaps[0].clone();
    assert!(ended.from == gap.from && ended.to.is_some_and(|to| to > gap.from));

    // Switched off and, by the policy, on again in one pass.
    by_hand(&world, |config| config.state = ConfigState::Deactivated).await;
    let reasons = |webhook: &Webhook| -> Vec<String> {
        let gaps = status(webhook).gaps;
        gaps.iter()
            .filter(|gap| gap.to.is_some())
            .map(|gap| gap.reason.clone())
            .collect()
    };
    let ends = |count: usize| move |webhook: &Webhook| reasons(webhook).len() == count;
    world.wait("w", "the second span", ends(2)).await;

    // Led elsewhere.
    by_hand(&world, |config| {
        config.url = "https://elsewhere.example/".to_owned();
    })
    .await;
    let third = world.wait("w", "the third span", ends(3)).await;
    assert!(has_reason(&third, SyncedReason::DriftCorrected));

    assert_eq!(
        reasons(&third),
        ["DeactivatedUpstream", "DeactivatedUpstream", "UrlChanged"]
    );
    // What the spec switches off is wanted.
    world.change("w", json!({ "active": false })).await;
    world.wait_ready("w", ReadyReason::Deactivated).await;
    assert_eq!(status(&world.read_back("w").await).gaps.len(), 3);
}
