//! The controller as a whole, on a paused clock, against an API server in memory and a scripted upstream. The
//! watches are the operator's own.

mod cluster;
mod finalizers;
mod limits;

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use kube::runtime::events::{Recorder, Reporter};
use tokio::{sync::Semaphore, task::JoinHandle, time::sleep};

use self::cluster::Cluster;
use super::*;
use crate::{
    api::IN_USE_FINALIZER,
    clock::Clock,
    controller::{
        accounts::Accounts,
        breaker::Breakers,
        context::{CallObserver, Settings, Transports, Wake},
        index::Index,
        memory::Memories,
        released::Noting,
        rivals::Claims,
        watches,
    },
    domain::{
        hash::HashKey,
        remote::{Look, RemoteId},
    },
    entropy::Entropy,
    metrics::Metrics,
    net::{CheckedUrl, HttpError, Request, Response, SetupError},
    provider::{NoFence, transport::Transport},
};

/// The token that the upstream takes.
const GOOD: &str = "good";
const PROVIDERS: &str = "webhookproviders";
const CLUSTER_PROVIDERS: &str = "clusterwebhookproviders";

/// An upstream that takes one token. Every other answer is a status set from outside.
#[derive(Default)]
struct Upstreams {
    status: Mutex<Option<u16>>,
    panics: Mutex<bool>,
    /// Seconds to wait that each answer other than 2xx names; 0: none.
    retry_after: AtomicUsize,
    calls: AtomicUsize,
}

impl Transport for Upstreams {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!*self.panics.lock().unwrap(), "a panic that the test asked for");
        let accepted = request.exposed_headers().any(|(_, value)| value.contains(GOOD));
        let status = self
            .status
            .lock()
            .unwrap()
            .unwrap_or(if accepted { 200 } else { 401 });
        let wait = self.retry_after.load(Ordering::SeqCst);
        let headers = if status >= 400 && wait > 0 {
            vec![("retry-after".to_owned(), wait.to_string())]
        } else {
            Vec::new()
        };
        Box::pin(async move { Ok(Response::new(status, headers, r#"{"data":[]}"#)) })
    }
}

struct Same(Arc<Upstreams>);

impl Transports for Same {
    fn make(&self, _: Option<Vec<u8>>, _: Option<CheckedUrl>) -> Result<Arc<dyn Transport>, SetupError> {
        Ok(Arc::clone(&self.0) as Arc<dyn Transport>)
    }

    fn probes(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.0) as Arc<dyn Transport>
    }
}

/// A running operator, as far as providers go.
struct Bench {
    cluster: Cluster,
    upstream: Arc<Upstreams>,
    ctx: Arc<Context>,
    webhooks_woken: mpsc::UnboundedReceiver<ObjectRef<Webhook>>,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Bench {
    async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, true).await
    }

    async fn start_with(cluster: &Cluster, protect_credentials: bool) -> Self {
        let client = cluster.client();
        let upstream = Arc::new(Upstreams::default());
        let (caches, feeds) = watches::prepare(&client, &[]);
        let (wake_webhooks, webhooks_woken) = mpsc::unbounded_channel();
        let (wake_providers, wakes) = mpsc::unbounded_channel();
        let (standings, standings_changed) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let reporter = Reporter {
            controller: "test".into(),
            instance: None,
        };
        let metrics = Metrics::new();
        let ctx = Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            caches,
            clock: Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()),
            entropy: Entropy::seeded(7),
            key: HashKey::new([7; 32]),
            fence: Arc::new(NoFence),
            observer: CallObserver {
                metrics: metrics.clone(),
                standings,
            },
            metrics,
            accounts: Accounts::default(),
            breakers: Breakers::default(),
            claims: Claims::default(),
            noting: Noting::default(),
            memories: Memories::default(),
            index: Arc::new(Index::default()),
            wake: Wake {
                webhooks: wake_webhooks,
                providers: wake_providers,
            },
            transports: Arc::new(Same(Arc::clone(&upstream))),
            // Nobody takes them: no Webhook is looked at here.
            probes: mpsc::unbounded_channel().0,
            settings: Settings {
                deletion_deadline: Duration::from_secs(600),
                protect_credentials,
                serve_cluster_providers: true,
                looks_first: true,
            },
            workers: Semaphore::new(8),
            protected: tokio::sync::Mutex::default(),
            stopping: stopping.clone(),
        });
        let watching = tokio::spawn(watches::run(Arc::clone(&ctx), feeds, stopping));
        ctx.caches.ready().await;
        let running = tokio::spawn(run(Arc::clone(&ctx), wakes, standings_changed));
        let tasks = [watching, running];
        Self {
            cluster: cluster.clone(),
            upstream,
            ctx,
            webhooks_woken,
            stop,
            tasks,
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    fn calls(&self) -> usize {
        self.upstream.calls.load(Ordering::SeqCst)
    }

    /// `status/reason` of `Ready`.
    fn ready(&self, name: &str) -> String {
        let provider = self.cluster.get(PROVIDERS, "ns", name).unwrap();
        let ready = &provider["status"]["conditions"][0];
        assert_eq!(ready["type"], "Ready", "{provider}");
        format!(
            "{}/{}",
            ready["status"].as_str().unwrap(),
            ready["reason"].as_str().unwrap()
        )
    }

    fn message(&self, name: &str) -> String {
        let provider = self.cluster.get(PROVIDERS, "ns", name).unwrap();
        provider["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Whether provider `p` and Secret `c` carry the finalizer.
    fn protected(&self) -> [bool; 2] {
        [(PROVIDERS, "p"), ("secrets", "c")].map(|(plural, name)| self.guarded(plural, "ns", name))
    }

    fn guarded(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let object = self.cluster.get(plural, namespace, name).unwrap();
        let finalizers = object["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == IN_USE_FINALIZER))
    }

    fn woken(&mut self) -> usize {
        std::iter::from_fn(|| self.webhooks_woken.try_recv().ok()).count()
    }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn secret(name: &str, token: &str) -> Value {
    use base64::Engine as _;
    let token = base64::engine::general_purpose::STANDARD.encode(token);
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "ns"},
        "data": {"token": token, "apiKey": token},
    })
}

fn provider(name: &str, kind: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "WebhookProvider",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"type": kind, "baseUrl": "https://upstream.test", "credentialsRef": {"name": secret}},
    })
}

fn webhook(name: &str, provider: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"providerRef": {"name": provider}, "url": "https://receiver.test/x"},
        "status": {"conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    })
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A namespace, a Secret `c` with the good token, and a provider `p` of this type.
fn cluster_with(kind: &str) -> Cluster {
    let cluster = Cluster::new();
    cluster.apply("namespaces", namespace("ns"));
    cluster.apply("secrets", secret("c", GOOD));
    cluster.apply(PROVIDERS, provider("p", kind, "c"));
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_new_provider_is_verified_by_one_list_and_written_once() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    seconds(3600).await;
    assert_eq!(bench.ready("p"), "True/Verified");
    assert_eq!(bench.calls(), 1, "verified once, not again and again");
    assert_eq!(cluster.writes().len(), 1, "{:?}", cluster.writes());
    assert_eq!(bench.protected(), [false, false], "nobody uses it");
    let status = &cluster.get(PROVIDERS, "ns", "p").unwrap()["status"];
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["webhooks"], json!({"total": 0, "ready": 0}));
    assert_eq!(status["capabilities"]["delete"], "Deleted");
    assert!(
        bench
            .ctx
            .metrics
            .encode(crate::metrics::Format::Classic)
            .contains("provider_ready")
    );
    bench.stop().await;

    // A restart costs nothing.
    let bench = Bench::start(&cluster).await;
    seconds(3600).await;
    assert_eq!((bench.calls(), cluster.writes().len()), (0, 1));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_and_a_missing_key_are_named_and_noticed_when_they_come() {
    let cluster = Cluster::new();
    cluster.apply(PROVIDERS, provider("p", "Ricloud", "c"));
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    assert_eq!(bench.ready("p"), "False/SecretNotFound");
    assert!(bench.message("p").contains("\"c\""), "{}", bench.message("p"));
    let empty = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": "ns"}, "data": {}});
    cluster.apply("secrets", empty);
    seconds(5).await;
    assert_eq!(bench.ready("p"), "False/KeyMissing");
    assert!(bench.message("p").contains("token"));
    cluster.apply("secrets", secret("c", GOOD));
    seconds(5).await;
    assert_eq!(bench.ready("p"), "True/Verified");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_every_five_minutes_and_at_once_when_they_change() {
    let cluster = cluster_with("Ricloud");
    cluster.apply("secrets", secret("c", "bad"));
    cluster.apply("webhooks", webhook("w", "p", false));
    let mut bench = Bench::start(&cluster).await;
    seconds(60).await;
    assert_eq!(bench.ready("p"), "False/Unauthorized");
    assert!(!bench.message("p").contains("bad"));
    let before = bench.calls();
    seconds(3000).await;
    let calls = bench.calls() - before;
    assert!((9..=10).contains(&calls), "{calls} calls in 50 minutes");
    bench.woken();
    cluster.apply("secrets", secret("c", GOOD));
    seconds(5).await;
    assert_eq!(bench.ready("p"), "True/Verified");
    assert!(bench.woken() > 0, "its Webhooks go on");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_the_upstream_takes_again_are_noticed_within_five_minutes_and_wake_the_webhooks() {
    let cluster = cluster_with("Ricloud");
    cluster.apply("webhooks", webhook("w", "p", false));
    let mut bench = Bench::start(&cluster).await;
    *bench.upstream.status.lock().unwrap() = Some(401);
    seconds(60).await;
    assert_eq!(bench.ready("p"), "False/Unauthorized");
    bench.woken();
    *bench.upstream.status.lock().unwrap() = None;
    seconds(301).await;
    assert_eq!(bench.ready("p"), "True/Verified");
    assert!(bench.woken() > 0, "its Webhooks go on");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_is_tried_with_backoff_until_it_answers() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    *bench.upstream.status.lock().unwrap() = Some(500);
    cluster.apply(PROVIDERS, provider("q", "Ricloud", "c"));
    let before = bench.calls();
    seconds(1800).await;
    assert_eq!(bench.ready("q"), "False/Unreachable");
    let calls = bench.calls() - before;
    // About nine while the delay doubles to five minutes, then one every 150 to 300 seconds.
    assert!((13..=20).contains(&calls), "{calls} calls in 30 minutes");
    *bench.upstream.status.lock().unwrap() = None;
    seconds(310).await;
    assert_eq!(bench.ready("q"), "True/Verified");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_a_list_is_verified_by_its_first_accepted_call() {
    let cluster = cluster_with("Conpeek");
    let bench = Bench::start(&cluster).await;
    seconds(3600).await;
    assert_eq!(
        (bench.ready("p").as_str(), bench.calls()),
        ("Unknown/NotVerified", 0)
    );
    let key = ProviderKey {
        namespace: "ns".into(),
        name: "p".into(),
        ..ProviderKey::default()
    };
    let object = bench.ctx.provider(&key).unwrap();
    let account = bench.ctx.accounts.get(&bench.ctx, &object).await.unwrap();
    let call = bench.ctx.call(&account, Instant::now(), 0);
    let _ = Upstream::from(account.provider_type)
        .look(&call, &Look::ById(RemoteId("9".into())))
        .await;
    seconds(2).await;
    assert_eq!(bench.ready("p"), "True/Verified");

    // A Secret that changes in name only (a label, our own finalizer) proves nothing wrong.
    cluster.apply(
        "secrets",
        json!({"metadata": {"name": "c", "namespace": "ns", "labels": {"a": "b"}}}),
    );
    seconds(60).await;
    assert_eq!(bench.ready("p"), "True/Verified");
    cluster.apply("secrets", secret("c", "other"));
    seconds(60).await;
    assert_eq!(bench.ready("p"), "Unknown/NotVerified");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_provider_is_not_called() {
    let cluster = cluster_with("Ricloud");
    cluster.apply(
        PROVIDERS,
        json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"suspend": true}}),
    );
    let bench = Bench::start(&cluster).await;
    seconds(3600).await;
    assert_eq!((bench.ready("p").as_str(), bench.calls()), ("False/Suspended", 0));
    cluster.apply(
        PROVIDERS,
        json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"suspend": false}}),
    );
    seconds(5).await;
    assert_eq!((bench.ready("p").as_str(), bench.calls()), ("True/Verified", 1));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_has_to_wait_is_not_called_unreachable() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    *bench.upstream.status.lock().unwrap() = Some(429);
    bench.upstream.retry_after.store(1800, Ordering::SeqCst);
    cluster.apply(PROVIDERS, provider("q", "Ricloud", "c"));
    seconds(1700).await;
    assert_eq!(bench.ready("q"), "Unknown/NotVerified");
    assert_eq!(
        bench.upstream.calls.load(Ordering::SeqCst),
        2,
        "one for each provider"
    );
    *bench.upstream.status.lock().unwrap() = None;
    seconds(200).await;
    assert_eq!(bench.ready("q"), "True/Verified");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn numbers_of_webhooks_are_written_every_ten_seconds_at_most_and_end_up_right() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    seconds(30).await;
    let before = cluster.writes().len();
    for number in 0..60 {
        cluster.apply("webhooks", webhook(&format!("w{number}"), "p", number % 2 == 0));
        seconds(1).await;
    }
    seconds(20).await;
    let written: Vec<_> = cluster
        .writes()
        .split_off(before)
        .into_iter()
        .filter(|write| write.id.0 == PROVIDERS && write.patch.get("status").is_some())
        .collect();
    assert!((6..=8).contains(&written.len()), "{written:?}");
    for pair in written.windows(2) {
        assert!(pair[1].at - pair[0].at >= COUNTS_INTERVAL, "{pair:?}");
    }
    let status = &cluster.get(PROVIDERS, "ns", "p").unwrap()["status"];
    assert_eq!(status["webhooks"], json!({"total": 60, "ready": 30}));

    // What is not a number does not wait.
    cluster.apply("webhooks", webhook("x", "p", true));
    seconds(11).await;
    cluster.apply("webhooks", webhook("y", "p", true));
    cluster.delete("secrets", "ns", "c");
    seconds(2).await;
    assert_eq!(bench.ready("p"), "False/SecretNotFound");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_pass_leaves_the_others_alone_and_is_tried_again() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    *bench.upstream.panics.lock().unwrap() = true;
    cluster.apply(PROVIDERS, provider("bad", "Ricloud", "c"));
    cluster.apply(PROVIDERS, provider("quiet", "Conpeek", "c"));
    seconds(5).await;
    assert_eq!(bench.ready("quiet"), "Unknown/NotVerified");
    *bench.upstream.panics.lock().unwrap() = false;
    seconds(300).await;
    assert_eq!(bench.ready("bad"), "True/Verified");
    bench.stop().await;
}

#[test]
fn webhooks_are_woken_when_what_holds_them_up_comes_or_goes() {
    use ProviderReason::{NotVerified, SecretNotFound, Suspended, Unauthorized, Verified};
    for (before, after, woken) in [
        (None, NotVerified, false),
        (None, Verified, false),
        (None, Suspended, true),
        (Some(NotVerified), Verified, false),
        (Some(Verified), NotVerified, false),
        (Some(Verified), Unauthorized, true),
        (Some(Unauthorized), Unauthorized, false),
        (Some(Unauthorized), SecretNotFound, true),
        (Some(SecretNotFound), NotVerified, true),
        (Some(Unauthorized), Verified, true),
    ] {
        assert_eq!(holds_up_changed(before, after), woken, "{before:?} -> {after:?}");
    }
}

#[test]
fn a_refusal_between_two_passes_is_not_missed() {
    for (before, now, flips, again) in [
        (None, Some(false), 0, false),
        (None, Some(false), 1, false),
        (None, Some(false), 2, true),
        (Some(false), Some(false), 1, false),
        (Some(false), Some(false), 2, true),
        (Some(true), Some(false), 0, true),
        (Some(false), Some(true), 1, false),
        (Some(true), Some(true), 2, false),
        (Some(true), None, 0, false),
    ] {
        assert_eq!(
            accepted_again(before, now, flips),
            again,
            "{before:?} {now:?} {flips}"
        );
    }
}
