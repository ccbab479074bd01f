//! The end of the process, and who takes over: SIGTERM with calls in flight, SIGKILL with a standby replica.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use serde_json::json;
use upstream_doubles::Fault;
use webhook_operator::{
    api::{CREATE_PENDING, ID_ANNOTATION, conditions::ReadyReason, provider::ProviderType},
    lease::{DURATION, LEASE_NAME},
};

use crate::{
    operator::Operator,
    world::{World, sent},
};

/// Longer than it takes to send the signal, shorter than what the process has to finish its work.
const SLOW: Duration = Duration::from_secs(3);

/// What the process promises.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// How many creates are in flight: what the provider of the tests lets through at once.
const IN_FLIGHT: usize = 4;

async fn holder(world: &World) -> Option<String> {
    let own = world.operator.identity().namespace();
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), own);
    let lease = leases.get(LEASE_NAME).await.expect("read the Lease");
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty())
}

#[tokio::test]
async fn sigterm_lets_creates_in_flight_end_and_be_recorded() {
    let world = World::alone("stop", &["--leader-elect", "true"]).await;
    assert!(holder(&world).await.is_some(), "it leads");
    world.provider(ProviderType::Thulium).await;
    world
        .doubles
        .thulium()
        .set_fault(Fault::delay(SLOW).method("POST"));
    // More than can be in flight: the rest waits for its turn and must not begin any more.
    let names: Vec<String> = (0..IN_FLIGHT * 2)
        .map(|number| format!("slow-{number}"))
        .collect();
    for name in &names {
        let url = format!("https://hooks.example.com/{name}");
        let spec = json!({"url": url, "events": ["TICKET_CREATED"]});
        world.webhook(name, ProviderType::Thulium, spec).await;
    }
    let posts = || sent(world.doubles.thulium(), &world.namespace, "POST").len();
    world
        .eventually("creates in flight", || posts() >= IN_FLIGHT)
        .await;

    let began = Instant::now();
    let ended = world.operator.terminate(STOP_LIMIT).await;
    assert_eq!(ended.code(), Some(0), "{}", world.operator.log_tail(""));
    assert!(began.elapsed() < STOP_LIMIT, "{:?}", began.elapsed());
    assert_eq!(holder(&world).await, None, "the Lease is given back");
    let begun = posts();
    assert!(
        begun <= IN_FLIGHT + 1,
        "{begun} creates: work was begun after the signal"
    );
    let mut recorded = 0;
    for name in &names {
        let webhook = world.get(name).await;
        assert!(
            !webhook.annotations().contains_key(CREATE_PENDING),
            "{name} has its mark still"
        );
        recorded += usize::from(webhook.annotations().contains_key(ID_ANNOTATION));
    }
    assert_eq!(recorded, begun, "what was created is recorded");

    world.doubles.thulium().clear_faults();
    world.operator.go().await;
    for name in &names {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    assert_eq!(world.doubles.thulium().objects().len(), names.len());
    assert_eq!(posts(), names.len(), "none was created again");
    assert_eq!(world.doubles.thulium().duplicates(), []);
}

/// Waits until a path answers 200.
async fn wait_for_ok(operator: &Operator, path: &str) -> String {
    let began = Instant::now();
    loop {
        let (status, body) = operator.ask(path).await;
        if status == 200 {
            return body;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{path}: {status} {body}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn leads(metrics: &str) -> bool {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("webhook_operator_leader "));
    line.expect("the metric is there").ends_with(" 1")
}

#[tokio::test]
async fn a_standby_is_live_and_ready_and_takes_over_from_a_dead_leader() {
    let world = World::alone("standby", &["--leader-elect", "true"]).await;
    let args = [
        "--leader-elect",
        "true",
        "--namespace",
        &world.namespace,
        "--lease-namespace",
        world.operator.identity().namespace(),
    ];
    let standby = Operator::standby(world.operator.identity(), &args).await;
    for operator in [&world.operator, &standby] {
        wait_for_ok(operator, "/livez").await;
        wait_for_ok(operator, "/readyz").await;
    }
    assert!(leads(&world.operator.metrics().await));
    assert!(!leads(&standby.metrics().await) && !standby.works());
    let first = holder(&world).await.expect("somebody leads");

    world.provider(ProviderType::Thulium).await;
    let spec = |name: &str| json!({"url": format!("https://hooks.example.com/{name}"), "events": ["TICKET_CREATED"]});
    world
        .webhook("before", ProviderType::Thulium, spec("before"))
        .await;
    world.wait_ready("before", ReadyReason::Available).await;
    let calls = world.doubles.thulium().counts().total;

    let killed = Instant::now();
    world.operator.kill();
    world.webhook("after", ProviderType::Thulium, spec("after")).await;
    standby.wait_until_working().await;
    let took = killed.elapsed();
    assert!(took < DURATION + Duration::from_secs(5), "{took:?}");
    assert_ne!(holder(&world).await.expect("somebody leads"), first);
    assert!(leads(&standby.metrics().await));
    world.wait_ready("after", ReadyReason::Available).await;
    let calls = world.doubles.thulium().counts().total - calls;
    assert!(calls <= 4, "{calls} calls: the takeover alone causes none");
    assert_eq!(world.doubles.thulium().objects().len(), 2);

    let ended = standby.terminate(STOP_LIMIT).await;
    assert_eq!(ended.code(), Some(0));
    assert_eq!(holder(&world).await, None, "the Lease is given back");
}
