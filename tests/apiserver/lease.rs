//! Leader election against a real apiserver: that it takes what is written, checks versions as assumed, and that
//! the lead moves in time. The clock runs for real here; its corner cases are in the unit tests of the module.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use kube::{Api, Client};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use webhook_operator::lease::{DURATION, LEASE_NAME, Lease, LeaseFence, RENEW_EVERY};

use crate::harness::cluster;

/// How late a takeover may be, and some time for a busy machine.
const LATENESS: Duration = Duration::from_secs(4);

struct Replica {
    fence: Arc<LeaseFence>,
    leading: watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(client: &Client, namespace: &str, identity: &str) -> Self {
        let lease = Lease::new(client.clone(), namespace, identity);
        let (stop, stopped) = oneshot::channel::<()>();
        let (fence, leading) = (lease.fence(), lease.leading());
        let task = tokio::spawn(lease.run(async { stopped.await.unwrap_or(()) }));
        Self {
            fence,
            leading,
            stop: Some(stop),
            task,
        }
    }

    async fn wait_until_leading(&mut self, limit: Duration) {
        timeout(limit, self.leading.wait_for(|leads| *leads))
            .await
            .expect("leads in time")
            .unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn spec(client: &Client, namespace: &str) -> LeaseSpec {
    let api: Api<LeaseObject> = Api::namespaced(client.clone(), namespace);
    api.get(LEASE_NAME).await.unwrap().spec.unwrap()
}

#[tokio::test]
async fn the_lead_is_handed_over_when_its_holder_stops() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "lease-release").await;
    let mut a = Replica::start(&client, &namespace, "a");
    a.wait_until_leading(LATENESS).await;
    let mut b = Replica::start(&client, &namespace, "b");
    let first = spec(&client, &namespace).await;
    assert_eq!(first.holder_identity.as_deref(), Some("a"));
    assert_eq!(
        (first.lease_duration_seconds, first.lease_transitions),
        (Some(15), Some(0))
    );

    sleep(RENEW_EVERY).await;
    let renewed = spec(&client, &namespace).await;
    assert!(renewed.renew_time > first.renew_time);
    assert_eq!(renewed.acquire_time, first.acquire_time);
    assert!(!*b.leading.borrow() && b.fence.remaining().is_none());

    a.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(5), &mut a.task)
        .await
        .unwrap()
        .unwrap();
    assert!(a.fence.remaining().is_none());
    b.wait_until_leading(LATENESS).await;
    let taken = spec(&client, &namespace).await;
    assert_eq!(taken.holder_identity.as_deref(), Some("b"));
    assert_eq!(taken.lease_transitions, Some(1));
    assert!(b.fence.remaining().is_some());
}

#[tokio::test]
async fn a_dead_holder_is_outlived_and_no_sooner() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "lease-expiry").await;
    let mut a = Replica::start(&client, &namespace, "a");
    a.wait_until_leading(LATENESS).await;
    let acquired = Instant::now();
    let mut b = Replica::start(&client, &namespace, "b");
    // Well before the first renewal: the Lease stays as it was written.
    a.task.abort();
    b.wait_until_leading(DURATION + LATENESS).await;
    // The fence of a replica whose task is merely stuck would have closed two seconds earlier.
    assert!(
        acquired.elapsed() > DURATION - Duration::from_secs(1),
        "{:?}",
        acquired.elapsed()
    );
    assert_eq!(
        spec(&client, &namespace).await.holder_identity.as_deref(),
        Some("b")
    );
}

#[tokio::test]
async fn of_many_that_start_together_one_leads() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "lease-race").await;
    let names = ["a", "b", "c", "d", "e"];
    let replicas = names.map(|name| Replica::start(&client, &namespace, name));
    let end = Instant::now() + Duration::from_secs(4);
    let mut ever = 0;
    while Instant::now() < end {
        let open = replicas
            .iter()
            .filter(|replica| replica.fence.remaining().is_some())
            .count();
        assert!(open <= 1, "{open} leaders");
        ever = ever.max(open);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ever, 1);
}
