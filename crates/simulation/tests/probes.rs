//! When the operator tests receivers, to the second, over hours that pass at once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::time::Duration;

use serde_json::{Value, json};
use simulation::{
    Operator, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
    wire::{self, Fate, Made},
};
use tokio::time::{Instant, sleep};
use webhook_operator::api::provider::ProviderType;

const MINUTE: Duration = Duration::from_secs(60);

/// A world with a Conpeek account and one Webhook at it, tested by the operator.
fn world(spec: &Value) -> World {
    let world = World::new(1);
    let base = world.upstreams().conpeek().url();
    for manifest in manifests::provider("apps", ProviderType::Conpeek, &base, &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    let mut whole = json!({ "interval": "24h", "test": { "mode": "Auto" } });
    manifests::overlay(&mut whole, spec);
    world
        .api()
        .create(&manifests::webhook("apps", "a", ProviderType::Conpeek, &whole))
        .unwrap();
    world
}

fn webhook(world: &World) -> Value {
    world.api().get(&Id::new("webhooks", "apps", "a")).unwrap()
}

fn state(world: &World) -> Value {
    webhook(world)["status"]["state"].clone()
}

fn made(world: &World, text: &str) -> Vec<Made> {
    let mut made = world.wire().made();
    made.retain(|made| made.call.text.starts_with(text));
    made
}

fn probes(world: &World) -> Vec<Instant> {
    made(world, "probe ").iter().map(|made| made.at).collect()
}

fn status_writes(world: &World) -> usize {
    made(world, "patch webhooks/apps/a/status").len()
}

/// Whole seconds between neighbours.
fn gaps(times: &[Instant]) -> Vec<u64> {
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis().div_ceil(1000) as u64)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_is_tested_after_1_5_15_15_minutes_with_one_write_each() {
    let world = world(&json!({ "url": "https://hooks.example/status/503" }));
    let operator = Operator::start(&world, options(&[]));
    sleep(60 * MINUTE).await;
    let times = probes(&world);
    let waits: Vec<u64> = gaps(&times).iter().map(|seconds| seconds / 60).collect();
    assert_eq!(waits, [1, 5, 15, 15, 15], "{:?}", gaps(&times));
    assert!(
        gaps(&times).iter().all(|seconds| seconds % 60 <= 1),
        "{:?}",
        gaps(&times)
    );
    assert_eq!(state(&world), "invalid");
    let test = &webhook(&world)["status"]["test"];
    assert_eq!(test["consecutiveFailures"], 6);
    assert_eq!(test["history"].as_array().unwrap().len(), 6);
    // One to say that it is registered, and one for each test.
    assert_eq!(status_writes(&world), 7);
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_passed_test_is_repeated_by_its_interval_only_and_across_restarts_at_the_same_phase() {
    let world = world(&json!({ "test": { "interval": "10m" } }));
    let operator = Operator::start(&world, options(&[]));
    sleep(35 * MINUTE).await;
    let first = probes(&world);
    assert!(
        first.len() >= 4,
        "one after the create, then regular ones: {first:?}"
    );
    assert_eq!(gaps(&first[1..]), [600, 600][..gaps(&first[1..]).len()]);
    operator.stop().await.unwrap();
    // Two and a half rounds are missed, and not made up for.
    sleep(25 * MINUTE).await;
    let before = world.wire().made().len();
    let operator = Operator::start(&world, options(&[]));
    let restarted = Instant::now();
    sleep(35 * MINUTE).await;
    let all = probes(&world);
    let later = &all[first.len()..];
    assert!((3..=4).contains(&later.len()), "{later:?}");
    assert!(
        later[0] > restarted + Duration::from_secs(1),
        "no burst at the start"
    );
    let phase = (later[0] - first[1]).as_secs_f64() % 600.0;
    assert!(!(1.0..=599.0).contains(&phase), "another phase: {phase}");
    // Each took one write of the status and no call of the upstream.
    let calls = &world.wire().made()[before..];
    let writes = calls
        .iter()
        .filter(|made| made.call.text.starts_with("patch webhooks/apps/a"))
        .count();
    assert_eq!(writes, later.len());
    let upstream = calls
        .iter()
        .filter(|made| made.call.text.contains("conpeek.example"))
        .count();
    assert_eq!(upstream, 0, "{calls:#?}");
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_passed_test_without_an_interval_is_not_repeated_and_a_restart_sends_none() {
    let world = world(&json!({}));
    let operator = Operator::start(&world, options(&[]));
    sleep(5 * MINUTE).await;
    operator.stop().await.unwrap();
    let operator = Operator::start(&world, options(&[]));
    sleep(12 * 60 * MINUTE).await;
    assert_eq!(probes(&world).len(), 1);
    assert_eq!(state(&world), "valid");
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_before_there_were_tests_waits_for_its_next_change() {
    let world = world(&json!({ "test": { "mode": "None" } }));
    let operator = Operator::start(&world, options(&[]));
    sleep(5 * MINUTE).await;
    operator.stop().await.unwrap();
    // As an older operator, to which Auto meant nobody here, would have left it.
    let id = Id::new("webhooks", "apps", "a");
    let auto = json!({ "spec": { "test": { "mode": "Auto" } } });
    let generation = world.api().patch(&id, &auto).unwrap()["metadata"]["generation"].clone();
    let mut status = webhook(&world)["status"].clone();
    status["observedGeneration"] = generation.clone();
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition["observedGeneration"] = generation.clone();
    }
    world
        .api()
        .patch_status(&id, &json!({ "status": status }))
        .unwrap();
    let before = world.wire().made().len();
    let operator = Operator::start(&world, options(&[]));
    sleep(60 * MINUTE).await;
    assert!(probes(&world).is_empty());
    let writes = world.wire().made()[before..]
        .iter()
        .filter(|made| made.call.text.starts_with("patch webhooks"))
        .count();
    assert_eq!(writes, 0, "an upgrade is no reason to write");
    world
        .api()
        .patch(&id, &json!({ "spec": { "url": "https://hooks.example/other" } }))
        .unwrap();
    sleep(MINUTE).await;
    assert_eq!(probes(&world).len(), 1);
    assert_eq!(state(&world), "valid");
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crash_around_a_probe_sends_it_again_and_records_it_once() {
    for fate in [Fate::DiesBefore, Fate::DiesAfter] {
        for text in ["probe ", "patch webhooks/apps/a/status"] {
            let world = world(&json!({}));
            let mut seen = 0;
            world.wire().set_course(Box::new(move |_, call| {
                // The second write of the status is the verdict's.
                let counts = call.text.starts_with(text);
                seen += usize::from(counts);
                let nth = if text == "probe " { 1 } else { 2 };
                wire::passage(
                    call,
                    if counts && seen == nth {
                        fate
                    } else {
                        Fate::Arrives
                    },
                )
            }));
            let operator = Operator::start(&world, options(&[]));
            operator.line().cut().await;
            operator.kill().await;
            let operator = Operator::start(&world, options(&[]));
            sleep(5 * MINUTE).await;
            let label = format!("{fate:?} {text}: {:#?}", made(&world, ""));
            assert_eq!(state(&world), "valid", "{label}");
            let history = webhook(&world)["status"]["test"]["history"].clone();
            assert_eq!(history.as_array().unwrap().len(), 1, "{label}");
            assert!(probes(&world).len() <= 2, "{label}");
            operator.stop().await.unwrap();
        }
    }
}
