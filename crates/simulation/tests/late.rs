//! Writes that arrive after newer ones: their callers gave them up, or died.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use simulation::{
    Operator, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
    wire::{self, Call, CallKind, Fate, Peer},
};
use tokio::time::sleep;
use webhook_operator::api::provider::ProviderType;

/// Longest time for a call of the provider below, and what the upstream may take beyond that.
const LONGEST: Duration = Duration::from_secs(20 + 30);

/// How late the write comes: just before nobody reckons with it any more.
const LATE: Duration = Duration::from_secs(45);

/// A world with one Webhook at an upstream, registered at rest, and its operator.
async fn settled(provider: ProviderType, base: &str, spec: &Value) -> (World, Operator) {
    let world = World::new(1);
    for manifest in manifests::provider("apps", provider, base, &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    for (name, secret) in [
        ("first", "the-first-signing-secret"),
        ("second", "the-second-signing-secret"),
    ] {
        let secret = manifests::secret("apps", name, &[("secret", secret)]);
        world.api().create(&secret).unwrap();
    }
    let mut whole = json!({ "interval": "24h" });
    manifests::overlay(&mut whole, spec);
    world
        .api()
        .create(&manifests::webhook("apps", "a", provider, &whole))
        .unwrap();
    let operator = Operator::start(&world, options(&[]));
    sleep(Duration::from_secs(300)).await;
    (world, operator)
}

/// The next write at an upstream comes late; the flag says that it was sent.
fn one_write_comes_late(world: &World) -> Arc<AtomicBool> {
    let sent = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&sent);
    world.wire().set_course(Box::new(move |_, call: &Call| {
        let counts = call.peer == Peer::Upstream && call.kind == CallKind::Write;
        let late = counts && !seen.swap(counts || seen.load(Ordering::Relaxed), Ordering::Relaxed);
        wire::passage(call, if late { Fate::Late(LATE) } else { Fate::Arrives })
    }));
    sent
}

fn edit(world: &World, spec: &Value) {
    let id = Id::new("webhooks", "apps", "a");
    world.api().patch(&id, &json!({ "spec": spec })).unwrap();
}

fn synced(world: &World) -> Value {
    let webhook = world.api().get(&Id::new("webhooks", "apps", "a")).unwrap();
    let conditions = webhook["status"]["conditions"].as_array().unwrap().clone();
    let synced = conditions.iter().find(|condition| condition["type"] == "Synced");
    let (synced, generation) = (synced.unwrap(), &webhook["metadata"]["generation"]);
    assert_eq!(&synced["observedGeneration"], generation);
    synced["status"].clone()
}

fn upstream_calls(world: &World) -> String {
    let mut made = world.wire().made();
    made.retain(|made| made.call.peer == Peer::Upstream);
    made.iter().map(|made| format!("{made}\n")).collect()
}

/// The last of two edits counts, although the write of the first one comes after that of the second.
async fn the_last_edit_wins(
    provider: ProviderType,
    base: &str,
    [before, first, second]: [Value; 3],
    is_second: impl Fn(&World) -> bool,
) {
    for deaths in 0..=2 {
        let (world, mut operator) = settled(provider, base, &before).await;
        let sent = one_write_comes_late(&world);
        edit(&world, &first);
        sleep(Duration::from_secs(5)).await;
        assert!(sent.load(Ordering::Relaxed));
        if deaths > 0 {
            operator.kill().await;
            operator = Operator::start(&world, options(&[]));
        }
        edit(&world, &second);
        if deaths > 1 {
            sleep(Duration::from_secs(10)).await;
            assert!(is_second(&world), "{}", upstream_calls(&world));
            // This one finds nothing left to do.
            operator.kill().await;
            operator = Operator::start(&world, options(&[]));
        }
        // It is not known before the end of its call that the first one has no answer.
        sleep(Duration::from_secs(30)).await;
        assert_eq!(synced(&world), "True", "{}", upstream_calls(&world));
        assert!(is_second(&world), "{}", upstream_calls(&world));
        sleep(LATE + LONGEST).await;
        let calls = upstream_calls(&world);
        assert_eq!(synced(&world), "True", "{calls}");
        assert!(is_second(&world), "deaths: {deaths}\n{calls}");
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(upstream_calls(&world), calls, "one look is enough");
        operator.stop().await.unwrap();
    }
}

fn urls() -> [Value; 3] {
    ["before", "first", "second"].map(|name| json!({ "url": format!("https://hooks.example/{name}") }))
}

#[tokio::test(start_paused = true)]
async fn a_late_update_at_conpeek() {
    let base = World::new(1).upstreams().conpeek().url();
    the_last_edit_wins(ProviderType::Conpeek, &base, urls(), |world| {
        let there = world.upstreams().conpeek().objects();
        there[0].url.as_deref() == Some("https://hooks.example/second")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_update_at_thulium() {
    let base = World::new(1).upstreams().thulium().url();
    the_last_edit_wins(ProviderType::Thulium, &base, urls(), |world| {
        let there = world.upstreams().thulium().objects();
        there.len() == 1 && there[0].subscription_url == "https://hooks.example/second"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_update_at_ricloud() {
    let base = World::new(1).upstreams().ricloud().url();
    the_last_edit_wins(ProviderType::Ricloud, &base, urls(), |world| {
        let there = world.upstreams().ricloud().objects();
        there.len() == 1 && there[0].url == "https://hooks.example/second"
    })
    .await;
}

/// Only the secret changes, which nobody can read back.
#[tokio::test(start_paused = true)]
async fn a_late_secret_at_autocosmos() {
    let base = World::new(1).upstreams().autocosmos().url();
    let specs = [
        json!({ "url": "https://hooks.example/a" }),
        json!({ "secretRef": { "name": "first" } }),
        json!({ "secretRef": { "name": "second" } }),
    ];
    the_last_edit_wins(ProviderType::Autocosmos, &base, specs, |world| {
        let there = world.upstreams().autocosmos().objects();
        there[0].secret.as_ref().map(upstream_doubles::Secret::reveal) == Some("the-second-signing-secret")
    })
    .await;
}

/// What was deleted stays switched off, although an update that switches it on comes late.
#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_a_late_update() {
    let base = World::new(1).upstreams().autocosmos().url();
    let (world, operator) = settled(ProviderType::Autocosmos, &base, &urls()[0]).await;
    one_write_comes_late(&world);
    edit(&world, &urls()[1]);
    sleep(Duration::from_secs(25)).await;
    world.api().delete(&Id::new("webhooks", "apps", "a")).unwrap();
    sleep(LATE + LONGEST).await;
    let calls = upstream_calls(&world);
    assert!(
        world.api().get(&Id::new("webhooks", "apps", "a")).is_none(),
        "{calls}"
    );
    assert!(!world.upstreams().autocosmos().objects()[0].activo, "{calls}");
    operator.stop().await.unwrap();
}
