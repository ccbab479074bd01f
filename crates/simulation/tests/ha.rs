//! Two replicas, an API server that fails, shows the past or forgets, and clocks that disagree: nothing is registered
//! twice, nothing is done on the strength of what is no longer true, and nothing runs hot.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulation::{
    Operator, Rest, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
    wire::{self, Call, CallKind, Course, Fate, Made, Passage, Peer},
};
use tokio::time::{Instant, sleep};
use webhook_operator::{
    api::{CREATE_PENDING, FINALIZER, ID_ANNOTATION, provider::ProviderType},
    clock::Clock,
};

const SILENCE: Duration = Duration::from_secs(120);
const LONGEST: Duration = Duration::from_secs(1800);

/// A world with a provider of this type in `apps`.
fn world(provider: ProviderType) -> World {
    let world = World::new(1);
    let upstreams = world.upstreams();
    let base = match provider {
        ProviderType::Conpeek => upstreams.conpeek().url(),
        ProviderType::Thulium => upstreams.thulium().url(),
        ProviderType::Ricloud => upstreams.ricloud().url(),
        ProviderType::Autocosmos => upstreams.autocosmos().url(),
    };
    for manifest in manifests::provider("apps", provider, &base, &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    world
}

/// A Webhook that nothing but its own changes and the API server's troubles wakes for a day.
fn apply(world: &World, name: &str) {
    let webhook = manifests::webhook("apps", name, ProviderType::Thulium, &json!({ "interval": "24h" }));
    world.api().create(&webhook).unwrap();
    world.wire().stir();
}

fn id(name: &str) -> Id {
    Id::new("webhooks", "apps", name)
}

fn webhook(world: &World, name: &str) -> Value {
    world.api().get(&id(name)).unwrap()
}

fn is_ready(webhook: &Value) -> bool {
    let conditions = webhook["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn assert_all_ready(world: &World, label: &str) {
    for webhook in world.api().list("webhooks") {
        assert!(is_ready(&webhook), "{label}: {webhook:#}\n{}", told(world));
    }
}

/// The URLs that Thulium has, sorted.
fn registered(world: &World) -> Vec<String> {
    let objects = world.upstreams().thulium().objects();
    let mut urls: Vec<String> = objects
        .into_iter()
        .map(|object| object.subscription_url)
        .collect();
    urls.sort();
    urls
}

/// What the Webhooks want, sorted.
fn wanted(world: &World) -> Vec<String> {
    let webhooks = world.api().list("webhooks");
    let urls = webhooks
        .iter()
        .map(|webhook| webhook["spec"]["url"].as_str().unwrap().to_owned());
    let mut urls: Vec<String> = urls.collect();
    urls.sort();
    urls
}

fn events(world: &World, reason: &str) -> Vec<String> {
    let events = world.api().list("events");
    let of_reason = events.iter().filter(|event| event["reason"] == reason);
    of_reason
        .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn calls(world: &World, picked: impl Fn(&Made) -> bool) -> Vec<Made> {
    let mut made = world.wire().made();
    made.retain(picked);
    made
}

fn told(world: &World) -> String {
    let made = world.wire().made();
    let lines: Vec<String> = made.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn upstream(made: &Made) -> bool {
    made.call.peer == Peer::Upstream
}

fn changes_upstream(made: &Made) -> bool {
    upstream(made) && made.call.kind == CallKind::Write
}

fn api_write(made: &Made) -> bool {
    made.call.peer == Peer::ApiServer && made.call.kind == CallKind::Write
}

/// Whether it is a call of the election.
fn of_lease(made: &Made) -> bool {
    made.call.text.contains("leases/")
}

async fn settle(world: &World, operator: &Operator) {
    let rest = world.rest(operator, SILENCE, LONGEST).await;
    assert_eq!(rest, Rest::Quiet, "{}", told(world));
}

/// A course on which each create of a registration takes this long to be answered, or never is.
fn slow_posts(answer: Duration, fate: Fate) -> Course {
    Box::new(move |_, call| {
        let post = call.peer == Peer::Upstream && call.text.starts_with("POST");
        let usual = wire::passage(call, if post { fate } else { Fate::Arrives });
        Passage {
            back: if post { answer } else { usual.back },
            ..usual
        }
    })
}

/// What a replica does that has taken over, has not found the create of the one before, and has made its own.
fn take_over(world: &World, name: &str) -> u64 {
    let thulium = world.upstreams().thulium();
    let mut copy = thulium.objects()[0].clone();
    copy.id = 0;
    let made = thulium.upstream().insert(copy);
    let annotations = json!({ CREATE_PENDING: null, ID_ANNOTATION: made.to_string() });
    world
        .api()
        .patch(&id(name), &json!({ "metadata": { "annotations": annotations } }))
        .unwrap();
    made
}

#[tokio::test(start_paused = true)]
async fn a_create_that_lands_after_the_hand_over_is_told_and_not_removed() {
    for (fate, names_both) in [(Fate::Arrives, true), (Fate::AnswerLost, false)] {
        let world = world(ProviderType::Thulium);
        world.wire().set_course(slow_posts(Duration::from_secs(10), fate));
        let operator = Operator::start(&world, options(&[]));
        apply(&world, "a");
        sleep(Duration::from_secs(5)).await;
        let first = world.upstreams().thulium().objects()[0].id;
        let second = take_over(&world, "a");
        sleep(Duration::from_secs(60)).await;
        let told = events(&world, "Duplicates");
        assert!(!told.is_empty(), "{fate:?}: {}", self::told(&world));
        assert_eq!(
            told[0].contains(&format!("registration {first} ")),
            names_both,
            "{told:?}"
        );
        assert!(told[0].contains(&format!("recorded {second}")), "{told:?}");
        assert_eq!(registered(&world).len(), 2, "nothing is removed blindly");
        assert!(calls(&world, |made| made.call.text.starts_with("DELETE")).is_empty());
        operator.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_object_went_meanwhile_is_told() {
    let world = world(ProviderType::Thulium);
    world
        .wire()
        .set_course(slow_posts(Duration::from_secs(10), Fate::Arrives));
    let operator = Operator::start(&world, options(&[]));
    apply(&world, "a");
    sleep(Duration::from_secs(5)).await;
    let made = world.upstreams().thulium().objects()[0].id;
    let finalizers = webhook(&world, "a")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!([FINALIZER]));
    world
        .api()
        .patch(&id("a"), &json!({ "metadata": { "finalizers": null } }))
        .unwrap();
    world.api().delete(&id("a")).unwrap();
    sleep(Duration::from_secs(60)).await;
    let told = events(&world, "LeftInPlace");
    assert_eq!(told.len(), 1, "{}", self::told(&world));
    assert!(told[0].contains(&format!("registration {made} ")), "{told:?}");
    operator.stop().await.unwrap();
}

/// Writes to the Lease by one process.
fn renewals(world: &World, process: usize) -> usize {
    calls(world, |made| {
        api_write(made) && of_lease(made) && made.process == process && made.fate == Fate::Arrives
    })
    .len()
}

/// When the status says that its conditions last changed.
fn transitions(webhook: &Value) -> Vec<(String, String)> {
    let conditions = webhook["status"]["conditions"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    conditions
        .iter()
        .map(|condition| (text(&condition["type"]), text(&condition["lastTransitionTime"])))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn clocks_that_disagree_steal_no_lease_and_register_nothing_twice() {
    for ahead in [-3600, -60, 60, 3600_i64] {
        let world = world(ProviderType::Thulium);
        let now = world.clock().now();
        let skewed = now.checked_add(SignedDuration::from_secs(ahead)).unwrap();
        let first = Operator::contend(&world, options(&[]));
        sleep(Duration::from_secs(5)).await;
        let second = Operator::contend_on(&world, options(&[]), Clock::starting_at(skewed));
        for name in ["a", "b", "c"] {
            apply(&world, name);
        }
        sleep(Duration::from_secs(120)).await;
        let label = format!("{ahead} s ahead");
        assert_all_ready(&world, &label);
        assert_eq!(renewals(&world, second.line().process()), 0, "{label}: stolen");
        let before = transitions(&webhook(&world, "a"));
        let posts = |made: &Made| made.call.text.starts_with("POST");
        let created = calls(&world, posts).len();

        first.kill().await;
        let died = Instant::now();
        let led = loop {
            sleep(Duration::from_millis(100)).await;
            if renewals(&world, second.line().process()) > 0 {
                break died.elapsed();
            }
        };
        assert!(led <= Duration::from_secs(17), "{label}: {led:?}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(calls(&world, posts).len(), created, "{label}: {}", told(&world));
        let other = json!({ "spec": { "url": "https://hooks.example/other" } });
        world.api().patch(&id("a"), &other).unwrap();
        apply(&world, "d");
        sleep(Duration::from_secs(120)).await;
        assert_all_ready(&world, &label);
        assert_eq!(registered(&world), wanted(&world), "{label}");
        for ((type_, then), (_, now)) in before.iter().zip(transitions(&webhook(&world, "a"))) {
            assert!(*then <= now, "{label}: {type_} went back from {then} to {now}");
        }
        assert_eq!(renewals(&world, second.line().process()).min(2), 2, "it renews");
        second.stop().await.unwrap();
    }
}

/// How often a call of the API server may be tried in any one second: five tries to store a new id, and those of the
/// next pass.
const HOT: usize = 10;

/// No object is written more often than that.
fn assert_nothing_hot(world: &World) {
    let mut times: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    for made in calls(world, |made| {
        made.call.peer == Peer::ApiServer && made.call.kind != CallKind::Read
    }) {
        times
            .entry(format!("{} {}", made.process, made.call.text))
            .or_default()
            .push(made.at);
    }
    for (call, times) in times {
        for window in times.windows(HOT + 1) {
            let took = window[HOT] - window[0];
            assert!(
                took >= Duration::from_secs(1),
                "{call}: {} times in {took:?}",
                HOT + 1
            );
        }
    }
}

/// From `begin` until `end` the API server refuses everything.
fn outage(begin: Instant, end: Instant) -> Course {
    Box::new(move |_, call: &Call| {
        let now = Instant::now();
        let out = call.peer == Peer::ApiServer && now >= begin && now < end;
        wire::passage(call, if out { Fate::Fails(503) } else { Fate::Arrives })
    })
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_comes_back_costs_no_upstream_call() {
    for seconds in [60, 300] {
        let world = world(ProviderType::Thulium);
        let mut operator = Operator::contend(&world, options(&[]));
        for name in ["a", "b", "c", "d", "e"] {
            apply(&world, name);
        }
        sleep(Duration::from_secs(60)).await;
        assert_all_ready(&world, "before");
        let end = Instant::now() + Duration::from_secs(seconds);
        world.wire().set_course(outage(Instant::now(), end));
        world.api().freeze(world.api().version(), end);
        world.api().mute();
        let mut restarts = 0;
        while Instant::now() < end + Duration::from_secs(600) {
            sleep(Duration::from_millis(100)).await;
            // As Kubernetes does with a container that has ended.
            if operator.has_ended() {
                restarts += 1;
                sleep(Duration::from_secs(10)).await;
                operator = Operator::contend(&world, options(&[]));
            }
        }
        assert!(restarts <= 1, "{seconds} s: {restarts} restarts");
        let upstream = calls(&world, upstream);
        assert_eq!(upstream.len(), 0, "{seconds} s: {upstream:#?}");
        let writes = calls(&world, |made| {
            api_write(made) && !of_lease(made) && made.fate == Fate::Arrives
        });
        assert_eq!(writes.len(), 0, "{seconds} s: {writes:#?}");
        assert_nothing_hot(&world);
        let attempts = calls(&world, |made| made.fate != Fate::Arrives).len();
        println!(
            "API server away for {seconds} s: {attempts} attempts, {restarts} restarts, 0 upstream calls"
        );
        let back = Instant::now();
        apply(&world, "f");
        while !is_ready(&webhook(&world, "f")) {
            sleep(Duration::from_millis(100)).await;
            assert!(back.elapsed() < Duration::from_secs(30), "{}", told(&world));
        }
        operator.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_forgotten_cost_a_list_and_no_upstream_call() {
    let world = world(ProviderType::Thulium);
    let operator = Operator::start(&world, options(&[]));
    for name in ["a", "b", "c"] {
        apply(&world, name);
    }
    settle(&world, &operator).await;
    assert_all_ready(&world, "before");
    world.wire().set_course(wire::calm());
    for _ in 0..5 {
        world.api().touch(&id("a"));
        world.api().compact();
        sleep(Duration::from_secs(70)).await;
    }
    let lists = calls(&world, |made| made.call.text == "list webhooks").len();
    assert!((1..=10).contains(&lists), "{lists} lists");
    assert_eq!(calls(&world, upstream).len(), 0);
    assert_eq!(calls(&world, api_write).len(), 0);
    // What happens in the gap is seen all the same, an end included.
    world.api().delete(&id("b")).unwrap();
    apply(&world, "d");
    world.api().compact();
    settle(&world, &operator).await;
    assert_all_ready(&world, "after");
    assert_eq!(registered(&world), wanted(&world));
    assert_nothing_hot(&world);
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_watch_is_noticed_within_65_seconds() {
    let world = world(ProviderType::Thulium);
    let operator = Operator::start(&world, options(&[]));
    apply(&world, "a");
    settle(&world, &operator).await;
    for _ in 0..3 {
        world.api().mute();
        let changed = Instant::now();
        let url = format!("https://hooks.example/{:?}", world.api().version());
        world
            .api()
            .patch(&id("a"), &json!({ "spec": { "url": url } }))
            .unwrap();
        while registered(&world) != wanted(&world) {
            sleep(Duration::from_millis(100)).await;
            assert!(changed.elapsed() < Duration::from_secs(67), "{}", told(&world));
        }
        sleep(Duration::from_secs(13)).await;
    }
    operator.stop().await.unwrap();
}

/// What becomes of writes to the API server: 30 % conflict, 10 % fail, of 10 % the answer is lost.
fn rough(seed: u64) -> Course {
    let mut dice = fastrand::Rng::with_seed(seed);
    Box::new(move |_, call| {
        let written = call.peer == Peer::ApiServer && call.kind == CallKind::Write;
        let fate = match dice.u8(..100) {
            _ if !written => Fate::Arrives,
            0..30 => Fate::Conflicts,
            30..35 => Fate::Fails(500),
            35..40 => Fate::Fails(503),
            40..50 => Fate::AnswerLost,
            _ => Fate::Arrives,
        };
        wire::passage(call, fate)
    })
}

/// The writes to the API server that it takes to bring 30 Webhooks to Ready and away again.
async fn come_and_go(course: Course, label: &str) -> usize {
    let world = world(ProviderType::Thulium);
    world.wire().set_course(course);
    let operator = Operator::start(&world, options(&[]));
    for number in 0..30 {
        apply(&world, &format!("a{number}"));
    }
    settle(&world, &operator).await;
    assert_all_ready(&world, label);
    assert_eq!(registered(&world), wanted(&world), "{label}");
    for webhook in world.api().list("webhooks") {
        let mark = &webhook["metadata"]["annotations"][CREATE_PENDING];
        assert!(mark.is_null(), "{label}: {webhook:#}");
    }
    for number in 0..30 {
        world.api().delete(&id(&format!("a{number}"))).unwrap();
    }
    world.wire().stir();
    settle(&world, &operator).await;
    assert_eq!(world.api().list("webhooks").len(), 0, "{label}");
    assert_eq!(registered(&world).len(), 0, "{label}");
    assert_nothing_hot(&world);
    operator.stop().await.unwrap();
    calls(&world, |made| {
        api_write(made) && made.call.text.contains("webhooks/")
    })
    .len()
}

#[tokio::test(start_paused = true)]
async fn half_of_the_writes_going_wrong_costs_a_bounded_number_of_writes() {
    let usual = come_and_go(wire::calm(), "calm").await;
    let mut all = 0;
    for seed in 0..5 {
        let writes = come_and_go(rough(seed), &format!("seed {seed}")).await;
        println!("seed {seed}: {writes} writes instead of {usual}");
        all += writes;
    }
    assert!(2 * all <= 5 * 5 * usual, "{all} writes instead of {}", 5 * usual);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_or_removed_on_the_strength_of_a_stale_list() {
    let world = world(ProviderType::Thulium);
    for name in ["registered", "deleted", "recreated"] {
        apply(&world, name);
    }
    // None of them is registered at this version.
    let past = world.api().version();
    let operator = Operator::start(&world, options(&[]));
    settle(&world, &operator).await;
    world.api().delete(&id("deleted")).unwrap();
    world.api().delete(&id("recreated")).unwrap();
    world.wire().stir();
    settle(&world, &operator).await;
    apply(&world, "recreated");
    settle(&world, &operator).await;
    operator.kill().await;
    assert_eq!(registered(&world), wanted(&world));
    let before = world.upstreams().thulium().objects().len();

    let end = Instant::now() + Duration::from_secs(60);
    world.api().freeze(past, end);
    world.wire().set_course(wire::calm());
    let operator = Operator::start(&world, options(&[]));
    sleep(Duration::from_secs(59)).await;
    let made = calls(&world, changes_upstream);
    assert_eq!(made.len(), 0, "{}", told(&world));
    assert_nothing_hot(&world);
    world.wire().stir();
    settle(&world, &operator).await;
    assert_eq!(world.upstreams().thulium().objects().len(), before);
    assert_eq!(registered(&world), wanted(&world));
    assert_all_ready(&world, "after");
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_from_before_a_deletion_was_taken_back_removes_nothing() {
    let world = world(ProviderType::Thulium);
    let operator = Operator::start(&world, options(&[]));
    apply(&world, "a");
    settle(&world, &operator).await;
    operator.kill().await;
    world.api().delete(&id("a")).unwrap();
    let past = world.api().version();
    // Its end, and another of that name: what the frozen list shows as going is not there any more.
    world
        .api()
        .patch(&id("a"), &json!({ "metadata": { "finalizers": null } }))
        .unwrap();
    apply(&world, "a");
    let operator = Operator::start(&world, options(&[]));
    settle(&world, &operator).await;
    operator.kill().await;
    let there = world.upstreams().thulium().objects();
    assert_eq!(there.len(), 1);

    let end = Instant::now() + Duration::from_secs(60);
    world.api().freeze(past, end);
    world.wire().set_course(wire::calm());
    let operator = Operator::start(&world, options(&[]));
    sleep(Duration::from_secs(59)).await;
    let made = calls(&world, changes_upstream);
    assert_eq!(made.len(), 0, "{}", told(&world));
    world.wire().stir();
    settle(&world, &operator).await;
    assert_eq!(world.upstreams().thulium().objects()[0].id, there[0].id);
    assert_all_ready(&world, "after");
    operator.stop().await.unwrap();
}
