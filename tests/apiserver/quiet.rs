//! A settled operator does nothing: no write, no call to an upstream, no test of a receiver, neither by the passing of
//! time before a read-back is due, nor by a restart, nor by what happens to objects that are not its own.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};
use webhook_operator::{
    api::{
        Webhook,
        conditions::{ProviderReason, ReadyReason},
        provider::ProviderType,
    },
    domain::schedule,
};

use crate::{
    audit::Audit,
    world::{World, uid},
};

/// How many Webhooks.
const WEBHOOKS: usize = 20;

/// How often a foreign Secret changes.
const ROUNDS: usize = 20;

/// How long nothing may happen. `cargo xtask bench` looks longer, at more Webhooks.
const WINDOW: Duration = Duration::from_secs(12);

/// Longer than the test. Each object still has its own phase of the wall clock, which may fall into a window.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Longer than a test takes.
const TEST_LIMIT: SignedDuration = SignedDuration::from_mins(5);

fn spec(provider: ProviderType, number: usize, receiver: &str) -> Value {
    let url = format!("{receiver}/ok/{number}");
    let mut spec = match provider {
        ProviderType::Conpeek => json!({"target": (number + 1).to_string(), "url": url}),
        ProviderType::Thulium => json!({"url": url, "events": ["TICKET_CREATED"]}),
        ProviderType::Ricloud => json!({"url": url}),
        ProviderType::Autocosmos => {
            json!({"target": format!("t{number}"), "url": url, "secretRef": {"name": "signing"}})
        }
    };
    spec["test"] = json!({"mode": "Auto"});
    spec
}

/// Four providers and their Webhooks, all Ready, and everything that follows from that written.
async fn settled(prefix: &str) -> World {
    let world = World::alone(prefix, &[]).await;
    world.doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.verdict = upstream_doubles::Verdict::AlwaysValid;
    });
    world.doubles.autocosmos().change_behaviour(|behaviour| {
        behaviour.replay_rule = upstream_doubles::ReplayRule::Off;
    });
    world
        .secret("signing", &[("secret", "a-signing-secret-of-some-length")])
        .await;
    for provider in ProviderType::ALL {
        // Autocosmos too: its default of one request a second is not what is tested here.
        world.provider(provider).await;
    }
    for number in 0..WEBHOOKS {
        quiet_webhook(&world, number).await;
    }
    for number in 0..WEBHOOKS {
        world
            .wait_ready(&format!("quiet-{number}"), ReadyReason::Available)
            .await;
    }
    for provider in ProviderType::ALL {
        world
            .wait_provider(&provider.as_str().to_lowercase(), ProviderReason::Verified)
            .await;
    }
    // The number of Webhooks in a provider's status is written at most once in 10 s.
    tokio::time::sleep(Duration::from_secs(11)).await;
    world
}

/// A Webhook that is not read back while the test runs: one whose phase falls into it is made again.
async fn quiet_webhook(world: &World, number: usize) {
    let provider = ProviderType::ALL[number % ProviderType::ALL.len()];
    let mut spec = spec(provider, number, &world.doubles.receiver().url());
    spec["interval"] = json!(format!("{}s", INTERVAL.as_secs()));
    let name = format!("quiet-{number}");
    loop {
        world.webhook(&name, provider, spec.clone()).await;
        let now = Timestamp::now();
        let next = schedule::next(&uid(&world.get(&name).await), INTERVAL, now);
        if next.duration_since(now) > TEST_LIMIT {
            return;
        }
        world.delete_and_wait(&name).await;
    }
}

/// What has happened at the upstreams so far, and at the receiver.
fn calls(world: &World) -> [u64; 5] {
    let doubles = &world.doubles;
    let probes = doubles.receiver().received().len();
    [
        doubles.conpeek().counts().total,
        doubles.thulium().counts().total,
        doubles.ricloud().counts().total,
        doubles.autocosmos().counts().total,
        u64::try_from(probes).unwrap(),
    ]
}

/// Versions of all Webhooks.
async fn versions(world: &World) -> Vec<(String, Option<String>)> {
    let webhooks = world
        .api::<Webhook>()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let mut versions: Vec<_> = webhooks
        .iter()
        .map(|webhook| (webhook.name_any(), webhook.resource_version()))
        .collect();
    versions.sort();
    versions
}

/// Lets something happen, waits, and finds that nothing was written and no upstream called.
async fn assert_nothing(world: &World, what: &str, during: impl AsyncFnOnce()) {
    let before = (calls(world), versions(world).await);
    let mut audit = Audit::begin(world);
    during().await;
    tokio::time::sleep(WINDOW).await;
    let writes = audit.writes().await;
    assert!(writes.is_empty(), "{what}: written: {writes:#?}");
    assert_eq!(
        calls(world),
        before.0,
        "{what}: calls to upstreams; {}",
        world.operator.log_tail("call")
    );
    assert_eq!(versions(world).await, before.1, "{what}: versions");
}

#[tokio::test]
async fn settled_webhooks_cost_nothing_at_rest_and_over_a_restart() {
    let world = settled("quiet").await;
    assert_eq!(
        world.doubles.conpeek().objects().len(),
        WEBHOOKS / 4,
        "the doubles were used"
    );
    // By their paths: one that was made again for its phase's sake may have been probed in its first life as well.
    let probed: BTreeSet<String> = world
        .doubles
        .receiver()
        .received()
        .into_iter()
        .map(|probe| probe.path)
        .collect();
    assert_eq!(
        probed.len(),
        WEBHOOKS - WEBHOOKS / 4,
        "all but ricloud's were probed, which is told not to deliver: {probed:?}"
    );
    assert_nothing(&world, "at rest", async || {}).await;
    assert_nothing(&world, "over a restart", async || {
        let ended = world.operator.terminate(Duration::from_secs(25)).await;
        assert!(ended.success(), "{ended}");
        world.operator.go().await;
    })
    .await;
    assert_nothing(&world, "over a crash", async || {
        world.operator.crash_and_restart().await
    })
    .await;
    an_own_secret_still_wakes(&world).await;
}

/// The control: the same window sees something as soon as there is something to do.
async fn an_own_secret_still_wakes(world: &World) {
    let before = calls(world);
    world
        .secret("signing", &[("secret", "another-signing-secret-of-some-length")])
        .await;
    world
        .eventually("the new signing secret at the upstream", || {
            calls(world)[3] > before[3]
        })
        .await;
}

#[tokio::test]
async fn foreign_secrets_cause_nothing() {
    let world = settled("quiet-foreign").await;
    let before = (calls(&world), versions(&world).await);
    let mut audit = Audit::begin(&world);
    for round in 0..ROUNDS {
        world
            .secret("foreign", &[("key", &format!("value-{round}"))])
            .await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut requests = audit.requests().await;
    requests.retain(|request| request.resource != "leases");
    let strange: Vec<_> = requests
        .iter()
        .filter(|request| request.verb != "watch")
        .collect();
    assert!(strange.is_empty(), "nobody read it: {strange:#?}");
    assert_eq!(calls(&world), before.0, "calls to upstreams");
    assert_eq!(versions(&world).await, before.1, "versions of Webhooks");
    an_own_secret_still_wakes(&world).await;
    assert!(
        audit
            .requests()
            .await
            .iter()
            .any(|request| request.name == "signing"),
        "the count sees what the operator reads"
    );
}
