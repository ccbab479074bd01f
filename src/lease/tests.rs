//! The election on a paused clock, against a Lease server in memory that checks versions as the real one does.

use std::collections::BTreeSet;

use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;

/// What one replica's connection does to its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Line {
    #[default]
    Works,
    /// Every request is answered with this status, nothing is done.
    Refuses(u16),
    /// No request is ever answered, nothing is done.
    Hangs,
    /// The next write is done, its answer is lost.
    LosesNextAnswer,
}

/// The one Lease, as an apiserver keeps it.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    /// When each accepted write came, and the holder that it left.
    writes: Vec<(Instant, String)>,
    reads: usize,
}

impl Server {
    fn store(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        lease["metadata"]["namespace"] = json!("ops");
        let holder = lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.writes.push((Instant::now(), holder));
        self.lease = Some(lease.clone());
        lease
    }

    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        match *method {
            Method::GET => {
                self.reads += 1;
                self.lease
                    .clone()
                    .map_or_else(|| refusal(404), |lease| (200, lease))
            }
            Method::POST if self.lease.is_some() => refusal(409),
            Method::POST => (201, self.store(serde_json::from_slice(body).unwrap())),
            Method::PUT => {
                let new: Value = serde_json::from_slice(body).unwrap();
                let Some(old) = &self.lease else {
                    return refusal(404);
                };
                assert!(
                    new["metadata"]["resourceVersion"].is_string(),
                    "an unconditional write"
                );
                if old["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"] {
                    return refusal(409);
                }
                // A write that changes nothing does not change the version.
                if *old == new {
                    (200, new)
                } else {
                    (200, self.store(new))
                }
            }
            _ => refusal(405),
        }
    }

    fn holder(&self) -> Option<String> {
        self.lease.as_ref()?["spec"]["holderIdentity"]
            .as_str()
            .map(str::to_owned)
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": reason});
    (code, status)
}

type Shared<T> = Arc<Mutex<T>>;

fn client(server: &Shared<Server>, line: &Shared<Line>) -> Client {
    let (server, line) = (Arc::clone(server), Arc::clone(line));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (server, line) = (Arc::clone(&server), Arc::clone(&line));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            assert!(
                parts
                    .uri
                    .path()
                    .starts_with("/apis/coordination.k8s.io/v1/namespaces/ops/leases")
            );
            // A round trip takes time, so that requests of two replicas overlap.
            sleep(Duration::from_millis(5)).await;
            let now = *line.lock().unwrap();
            let (code, answer) = match now {
                Line::Refuses(code) => refusal(code),
                Line::Hangs => std::future::pending().await,
                Line::Works | Line::LosesNextAnswer => server.lock().unwrap().answer(&parts.method, &body),
            };
            if now == Line::LosesNextAnswer && parts.method != Method::GET {
                *line.lock().unwrap() = Line::Works;
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_millis(5)).await;
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            Ok::<_, Infallible>(
                response
                    .body(Body::from(answer.to_string().into_bytes()))
                    .unwrap(),
            )
        }
    });
    Client::new(service, "ops")
}

struct Replica {
    fence: Arc<LeaseFence>,
    leading: watch::Receiver<bool>,
    line: Shared<Line>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(server: &Shared<Server>, identity: &str) -> Self {
        Self::start_at(server, identity, Clock::system())
    }

    fn start_at(server: &Shared<Server>, identity: &str, clock: Clock) -> Self {
        let line = Shared::default();
        let lease = Lease::new(client(server, &line), "ops", identity).with_clock(clock);
        let (stop, stopped) = oneshot::channel::<()>();
        let (fence, leading) = (lease.fence(), lease.leading());
        let task = tokio::spawn(lease.run(async { stopped.await.unwrap_or(()) }));
        Self {
            fence,
            leading,
            line,
            stop: Some(stop),
            task,
        }
    }

    fn leads(&self) -> bool {
        *self.leading.borrow()
    }

    fn line(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }

    async fn wait_until_leading(&mut self) {
        timeout(Duration::from_secs(120), self.leading.wait_for(|leads| *leads))
            .await
            .unwrap()
            .unwrap();
    }

    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(Duration::from_secs(30), &mut self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Watches both fences while `span` passes; fails if both were ever open at the same time.
async fn never_both(span: Duration, a: &Replica, b: &Replica) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        let open = [&a.fence, &b.fence].map(|fence| fence.remaining().is_some());
        assert_ne!(open, [true, true], "two leaders");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn takes_a_lease_that_is_not_there() {
    let server = Shared::<Server>::default();
    let mut replica = Replica::start(&server, "a");
    assert_eq!(replica.fence.remaining(), None);
    let before = Instant::now();
    replica.wait_until_leading().await;
    assert!(
        before.elapsed() < Duration::from_millis(100),
        "an election without rivals takes two requests"
    );
    let left = replica.fence.remaining().unwrap();
    // 15 s less 2 s less the round trip: counted from the start of the request.
    assert!(
        left <= Duration::from_millis(12_990) && left > Duration::from_millis(12_900),
        "{left:?}"
    );
    let lease = server.lock().unwrap().lease.clone().unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "a");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    assert_eq!(lease["spec"]["leaseTransitions"], 0);
    assert!(lease["spec"]["renewTime"].is_string() && lease["spec"]["acquireTime"].is_string());
}

#[tokio::test(start_paused = true)]
async fn renews_in_good_time_and_no_more_often() {
    let server = Shared::<Server>::default();
    let mut replica = Replica::start(&server, "a");
    replica.wait_until_leading().await;
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        let left = replica
            .fence
            .remaining()
            .expect("the fence stays open while renewals succeed");
        assert!(left > Duration::from_millis(7_900), "{left:?}");
    }
    let server = server.lock().unwrap();
    assert!(
        (12..=15).contains(&server.writes.len()),
        "{}",
        server.writes.len()
    );
    assert_eq!(server.reads, 1, "a renewal is one write, without a read");
}

#[tokio::test(start_paused = true)]
async fn one_of_two_wins() {
    for _ in 0..20 {
        let server = Shared::<Server>::default();
        let (a, b) = (Replica::start(&server, "a"), Replica::start(&server, "b"));
        never_both(Duration::from_secs(60), &a, &b).await;
        assert!(a.leads() != b.leads());
        let holders: BTreeSet<_> = server
            .lock()
            .unwrap()
            .writes
            .iter()
            .map(|(_, holder)| holder.clone())
            .collect();
        assert_eq!(
            holders.len(),
            1,
            "the loser waits as long as the winner renews: {holders:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_takes_an_expired_lease() {
    for _ in 0..20 {
        let server = Shared::<Server>::default();
        server
            .lock()
            .unwrap()
            .store(foreign_lease("dead", Timestamp::now()));
        let (a, b) = (Replica::start(&server, "a"), Replica::start(&server, "b"));
        never_both(Duration::from_secs(30), &a, &b).await;
        assert!(a.leads() != b.leads());
        assert_eq!(
            server.lock().unwrap().lease.clone().unwrap()["spec"]["leaseTransitions"],
            8
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_another_begins() {
    for broken in [Line::Refuses(500), Line::Refuses(403), Line::Hangs] {
        let server = Shared::<Server>::default();
        let mut a = Replica::start(&server, "a");
        a.wait_until_leading().await;
        let b = Replica::start(&server, "b");
        sleep(Duration::from_secs(12)).await;
        a.line(broken);
        let last = server.lock().unwrap().writes.last().unwrap().0;
        never_both(last + Duration::from_millis(10_020) - Instant::now(), &a, &b).await;
        assert!(
            a.fence.remaining().is_none() && !a.leads(),
            "{broken:?}: gives up 10 s after its last renewal"
        );
        assert!(!b.leads());
        never_both(last + Duration::from_secs(17) - Instant::now(), &a, &b).await;
        assert!(
            b.leads(),
            "{broken:?}: fails over within 17 s of the last renewal"
        );
        assert!(server.lock().unwrap().writes.last().unwrap().0 >= last + DURATION);
        // The old one comes back and stays in its place.
        a.line(Line::Works);
        never_both(Duration::from_secs(60), &a, &b).await;
        assert!(b.leads() && !a.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_last_renewal_came_a_dead_holder_is_followed_within_two_seconds() {
    for _ in 0..200 {
        let server = Shared::<Server>::default();
        server
            .lock()
            .unwrap()
            .store(foreign_lease("dead", Timestamp::now()));
        let mut replica = Replica::start(&server, "a");
        sleep(Duration::from_secs(8).mul_f64(fastrand::f64())).await;
        server
            .lock()
            .unwrap()
            .store(foreign_lease("dead", Timestamp::now()));
        let last = Instant::now();
        replica.wait_until_leading().await;
        let took = last.elapsed();
        assert!(
            took >= DURATION && took <= DURATION + Duration::from_secs(2),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_task_does_not_keep_the_fence_open() {
    let fence = LeaseFence::default();
    fence.open_until(Instant::now() + Duration::from_secs(13));
    sleep(Duration::from_millis(12_999)).await;
    assert_eq!(fence.remaining(), Some(Duration::from_millis(1)));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(fence.remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_for_all_the_holder_leads_again_at_once() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    a.line(Line::Refuses(503));
    sleep(Duration::from_secs(12)).await;
    assert!(!a.leads());
    a.line(Line::Works);
    sleep(Duration::from_millis(2_100)).await;
    assert!(a.leads() && a.fence.remaining().is_some());
    assert_eq!(
        server.lock().unwrap().lease.clone().unwrap()["spec"]["leaseTransitions"],
        0
    );
}

fn foreign_lease(holder: &str, renewed: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE_NAME},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 7,
            "acquireTime": MicroTime(renewed), "renewTime": MicroTime(renewed),
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_outlived_whatever_its_clock_said() {
    for skew in [
        SignedDuration::from_hours(-1),
        SignedDuration::ZERO,
        SignedDuration::from_hours(1),
    ] {
        let server = Shared::<Server>::default();
        server
            .lock()
            .unwrap()
            .store(foreign_lease("dead", Timestamp::now() + skew));
        let began = Instant::now();
        let mut replica = Replica::start(&server, "a");
        replica.wait_until_leading().await;
        let took = began.elapsed();
        assert!(
            took >= DURATION && took < DURATION + Duration::from_secs(2),
            "{skew:?}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_is_left_alone_whatever_its_clock_says() {
    let now = Timestamp::now();
    for skew in [SignedDuration::from_hours(-1), SignedDuration::from_hours(1)] {
        let server = Shared::<Server>::default();
        let mut a = Replica::start_at(&server, "a", Clock::starting_at(now + skew));
        a.wait_until_leading().await;
        let b = Replica::start_at(&server, "b", Clock::starting_at(now));
        never_both(Duration::from_secs(180), &a, &b).await;
        assert!(a.leads() && !b.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_stands_still_does_not_look_like_death() {
    let server = Shared::<Server>::default();
    // The end of time does not pass.
    let mut a = Replica::start_at(&server, "a", Clock::starting_at(Timestamp::MAX));
    a.wait_until_leading().await;
    let b = Replica::start(&server, "b");
    never_both(Duration::from_secs(60), &a, &b).await;
    assert!(a.leads() && !b.leads());
}

#[tokio::test(start_paused = true)]
async fn a_longer_promise_of_the_holder_is_respected() {
    let server = Shared::<Server>::default();
    let mut lease = foreign_lease("dead", Timestamp::now());
    lease["spec"]["leaseDurationSeconds"] = json!(40);
    server.lock().unwrap().store(lease);
    let began = Instant::now();
    Replica::start(&server, "a").wait_until_leading().await;
    assert!(began.elapsed() >= Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_leader_hands_over_within_two_seconds() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    let mut b = Replica::start(&server, "b");
    sleep(Duration::from_secs(20)).await;
    a.stop().await;
    assert_eq!(a.fence.remaining(), None);
    assert!(!a.leads());
    assert_eq!(server.lock().unwrap().holder(), None, "the holder is cleared");
    let stopped = Instant::now();
    b.wait_until_leading().await;
    assert!(
        stopped.elapsed() <= Duration::from_millis(2_020),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_stops_leaves_the_lease_alone() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    let mut b = Replica::start(&server, "b");
    sleep(Duration::from_secs(3)).await;
    b.stop().await;
    assert_eq!(server.lock().unwrap().holder().as_deref(), Some("a"));
    assert!(a.leads());
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_though_nobody_answers() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    a.line(Line::Hangs);
    let began = Instant::now();
    a.stop().await;
    assert!(began.elapsed() <= RELEASE_TIMEOUT);
    assert_eq!(a.fence.remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_does_not_cost_the_lead() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    a.line(Line::LosesNextAnswer);
    let mut ever_lost = false;
    for _ in 0..200 {
        sleep(Duration::from_millis(100)).await;
        ever_lost |= !a.leads();
    }
    assert_eq!(*a.line.lock().unwrap(), Line::Works, "the answer was lost");
    assert!(!ever_lost);
    assert!(a.fence.remaining().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_or_deleted_by_force_closes_the_fence_at_the_next_renewal() {
    for taken in [true, false] {
        let server = Shared::<Server>::default();
        let mut a = Replica::start(&server, "a");
        a.wait_until_leading().await;
        let mut leading = a.leading.clone();
        {
            let mut server = server.lock().unwrap();
            if taken {
                server.store(foreign_lease("thief", Timestamp::now()));
            } else {
                server.lease = None;
            }
        }
        timeout(
            RENEW_EVERY + Duration::from_millis(100),
            leading.wait_for(|leads| !*leads),
        )
        .await
        .unwrap()
        .unwrap();
        assert_eq!(a.fence.remaining(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_closes_the_fence() {
    let server = Shared::<Server>::default();
    let mut a = Replica::start(&server, "a");
    a.wait_until_leading().await;
    assert!(a.fence.remaining().is_some());
    a.task.abort();
    assert!((&mut a.task).await.unwrap_err().is_cancelled());
    assert_eq!(a.fence.remaining(), None);
    assert!(!a.leads());
}

#[test]
fn identities_differ_in_one_process() {
    let (one, two) = (identity(), identity());
    assert_ne!(one, two);
    let (_, random) = one.rsplit_once('_').unwrap();
    assert!(
        random.len() == 8 && random.chars().all(|digit| digit.is_ascii_hexdigit()),
        "{one}"
    );
}
