//! Two replicas of which one leads: a leader that is frozen past its Lease and goes on, and leaders that are killed one
//! after the other; what they start at the upstream, as the upstream's journal tells it. What the election does on a
//! clock of its own is tested in `crates/simulation`.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use webhook_operator::{
    api::{WebhookProvider, conditions::ReadyReason, provider::ProviderType},
    lease::DURATION,
};

use crate::{
    operator::Operator,
    world::{World, sent},
};

/// How many Webhooks wait to be registered when the leader freezes.
const WAITING: usize = 24;

/// How many of its calls the provider lets through at once: what may be between the check and the sending.
const AT_ONCE: usize = 4;

/// How long the thawed one is watched while the other is frozen, so that all calls are its own.
const WINDOW: Duration = Duration::from_secs(3);

fn millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.expect("a time after 1970").as_millis()).expect("a time before the year 584 million")
}

/// How many leaders are killed.
const KILLED: usize = 3;

/// How long each of them leads.
const REIGN: Duration = Duration::from_secs(5);

/// A second replica beside the world's own operator.
async fn second(world: &World) -> Arc<Operator> {
    let identity = world.operator.identity();
    let args = [
        "--leader-elect",
        "true",
        "--namespace",
        world.namespace.as_str(),
        "--lease-namespace",
        identity.namespace(),
    ];
    Operator::standby(identity, &args).await
}

/// Webhooks that wait for their turn at a provider that lets two through in a second.
async fn waiting(world: &World) -> Vec<String> {
    let slow = json!({"requestsPerSecond": 2, "burst": 2, "maxConcurrent": AT_ONCE});
    let spec = json!({"rateLimit": slow, "timeout": "5s"});
    world.provider_with(ProviderType::Thulium, spec).await;
    let names: Vec<String> = (0..WAITING).map(|number| format!("waiting-{number}")).collect();
    for name in &names {
        let url = format!("https://hooks.example.com/{name}");
        let spec = json!({"url": url, "events": ["TICKET_CREATED"], "test": {"mode": "None"}});
        world.webhook(name, ProviderType::Thulium, spec).await;
    }
    let posts = || sent(world.doubles.thulium(), &world.account, "POST");
    world
        .eventually("creates are under way", || posts().len() >= 2)
        .await;
    names
}

/// The provider lets everything through, all get Ready, and nothing is registered twice.
async fn all_registered_once(world: &World, names: &[String]) {
    let quick = json!({"requestsPerSecond": 1000, "burst": 1000, "maxConcurrent": AT_ONCE});
    let patch = json!({"spec": {"rateLimit": quick}});
    world.patch::<WebhookProvider>("thulium", &patch).await;
    for name in names {
        let ready = |webhook: &_| crate::world::has_reason(webhook, ReadyReason::Available);
        world
            .wait_within(Duration::from_secs(60), name, "Ready", ready)
            .await;
    }
    assert_eq!(world.doubles.thulium().objects().len(), WAITING);
    assert_eq!(world.doubles.thulium().duplicates(), []);
}

#[tokio::test]
async fn leaders_that_are_killed_one_after_the_other_register_nothing_twice() {
    let world = World::alone("killed", &["--leader-elect", "true"]).await;
    let other = second(&world).await;
    let names = waiting(&world).await;
    let pair = [&world.operator, &other];
    for round in 0..KILLED {
        tokio::time::sleep(REIGN).await;
        let leading: Vec<usize> = (0..pair.len()).filter(|one| pair[*one].works()).collect();
        assert_eq!(leading.len(), 1, "one leads, round {round}: {leading:?}");
        let killed = Instant::now();
        // At once there are two again, as a Deployment sees to it; either of them may be the next.
        pair[leading[0]].kill();
        pair[leading[0]].launch();
        world
            .eventually("one leads again", || pair.iter().any(|one| one.works()))
            .await;
        let took = killed.elapsed();
        println!("round {round}: led again after {took:?}");
        assert!(took < DURATION + Duration::from_secs(5), "{took:?}");
    }
    all_registered_once(&world, &names).await;
    // Only what was on its way when a leader died may be sent again.
    let posts = sent(world.doubles.thulium(), &world.account, "POST").len();
    assert!(posts <= WAITING + KILLED * AT_ONCE, "{posts} creates sent");
}

#[tokio::test]
async fn a_leader_that_was_frozen_past_its_lease_starts_no_write() {
    let world = World::alone("frozen", &["--leader-elect", "true"]).await;
    let other = second(&world).await;
    let names = waiting(&world).await;

    let frozen = Instant::now();
    world.operator.freeze();
    other.wait_until_working().await;
    let took = frozen.elapsed();
    assert!(took < DURATION + Duration::from_secs(5), "{took:?}");

    other.freeze();
    // What the other has sent before is on its way for longer than it takes to arrive on this machine.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let thawed = millis();
    world.operator.thaw();
    tokio::time::sleep(WINDOW).await;
    let late: Vec<u64> = world
        .doubles
        .thulium()
        .requests_where(|seen| seen.method != "GET" && seen.at_millis >= thawed)
        .iter()
        .map(|seen| seen.at_millis - thawed)
        .collect();
    println!(
        "frozen for {:?}; writes after the thaw, in ms: {late:?}",
        frozen.elapsed()
    );
    assert!(late.len() <= AT_ONCE, "{late:?}");
    assert!(
        late.iter().all(|after| *after < 500),
        "begun after the check: {late:?}"
    );
    world
        .eventually("the one that lost its Lease ends", || {
            world.operator.ended().is_some()
        })
        .await;
    other.thaw();

    all_registered_once(&world, &names).await;
}
