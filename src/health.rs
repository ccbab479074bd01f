//! The HTTP port of the operator: `/livez`, `/readyz` and `/metrics`, on every replica, leading or not.
//!
//! Who beats the [`Liveness`] and who meets the [`Readiness`] checks is the controller's business. Nothing here
//! is secret and nothing here can be changed from outside.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout},
};

use crate::metrics::{Format, Metrics};

/// How long open connections may take to finish once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// Says whether the main loop still turns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Liveness {
    beat: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Liveness {
    /// Alive as long as the last [`Liveness::beat`] is at most `limit` ago. Making it counts as a beat.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            beat: Arc::new(Mutex::new(Instant::now())),
            limit,
        }
    }

    /// The main loop has come round.
    pub fn beat(&self) {
        *lock(&self.beat) = Instant::now();
    }

    /// How long ago the last beat was, if that is too long.
    fn stuck(&self) -> Option<Duration> {
        let age = lock(&self.beat).elapsed();
        (age > self.limit).then_some(age)
    }
}

/// Named things that must be so before this replica is of use, leading or standing by. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    /// Nothing is asked for yet, which counts as not ready: a server that is up before the checks are known must
    /// not attract traffic or let a rollout go on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `check` does not hold. `missing` says what is missing and what to do, in words for a stranger: the port is
    /// open to the cluster.
    pub fn missing(&self, check: &'static str, missing: impl Into<String>) {
        lock(&self.0).insert(check, Some(missing.into()));
    }

    /// `check` holds.
    pub fn met(&self, check: &'static str) {
        lock(&self.0).insert(check, None);
    }

    /// Whether all checks hold, and there is one.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let checks = lock(&self.0);
        !checks.is_empty() && checks.values().all(Option::is_none)
    }

    /// One line for each check that does not hold.
    fn report(&self) -> String {
        let checks = lock(&self.0);
        if checks.is_empty() {
            return "starting\n".to_owned();
        }
        let mut report = String::new();
        for (check, missing) in checks.iter() {
            if let Some(missing) = missing {
                // Writing into a `String` does not fail.
                let _ = writeln!(report, "{check}: {missing}");
            }
        }
        report
    }
}

/// A server that has its port and answers once [`Server::run`] is awaited.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Takes the port. Port 0 takes any; see [`Server::local_addr`].
    ///
    /// # Errors
    ///
    /// The address is in use, is none of this machine's, or needs a right that the process has not.
    pub async fn bind(
        addr: SocketAddr,
        liveness: Liveness,
        readiness: Readiness,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let router = Router::new()
            .route("/livez", get(livez).with_state(liveness))
            .route("/readyz", get(readyz).with_state(readiness))
            .route("/metrics", get(page).with_state(metrics));
        Ok(Self { listener, router })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` resolves, then finishes the answers that were begun, for at most three seconds.
    ///
    /// # Errors
    ///
    /// The listener's.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let (stopping, mut stopped) = watch::channel(false);
        let serve = axum::serve(self.listener, self.router).with_graceful_shutdown(async move {
            shutdown.await;
            stopping.send_replace(true);
        });
        let mut serve = std::pin::pin!(serve.into_future());
        tokio::select! {
            ended = &mut serve => return ended,
            // An error: the sender is gone, so it has resolved.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        // A client that keeps its request half sent must not hold up the end of the process.
        timeout(DRAIN, serve).await.unwrap_or(Ok(()))
    }
}

async fn livez(State(liveness): State<Liveness>) -> (StatusCode, String) {
    match liveness.stuck() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(age) => {
            let text = format!("the main loop has not come round for {} s\n", age.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    if readiness.is_ready() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, readiness.report())
    }
}

async fn page(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::asked_for(&accept.join(","));
    metrics.tasks(Handle::current().metrics().num_alive_tasks());
    (
        [(header::CONTENT_TYPE, format.content_type())],
        metrics.encode(format),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    struct Running {
        addr: SocketAddr,
        liveness: Liveness,
        readiness: Readiness,
        metrics: Metrics,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start(limit: Duration) -> Running {
        let (liveness, readiness, metrics) = (Liveness::new(limit), Readiness::new(), Metrics::new());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any, liveness.clone(), readiness.clone(), metrics.clone())
            .await
            .unwrap();
        let addr = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async { stopped.await.unwrap_or(()) }));
        Running {
            addr,
            liveness,
            readiness,
            metrics,
            stop,
            task,
        }
    }

    /// The whole answer, headers included.
    async fn get(addr: SocketAddr, path: &str) -> String {
        get_as(addr, path, "*/*").await
    }

    async fn get_as(addr: SocketAddr, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(5), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_when_all_checks_hold_and_says_what_is_missing() {
        let server = start(Duration::from_secs(60)).await;
        let answer = get(server.addr, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("starting\n"),
            "{answer}"
        );
        server
            .readiness
            .missing("crds", "webhooks.webhook-operator.dev is not installed");
        server
            .readiness
            .missing("caches", "waiting for the first list of Webhooks");
        server.readiness.met("caches");
        let answer = get(server.addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("crds: webhooks.webhook-operator.dev is not installed\n"),
            "{answer}"
        );
        assert!(!answer.contains("caches"), "{answer}");
        server.readiness.met("crds");
        assert!(get(server.addr, "/readyz").await.starts_with("HTTP/1.1 200 "));
        server.readiness.missing("caches", "lost");
        assert!(get(server.addr, "/readyz").await.starts_with("HTTP/1.1 503 "));
    }

    #[tokio::test]
    async fn alive_while_the_main_loop_beats() {
        let server = start(Duration::from_millis(300)).await;
        assert!(get(server.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        tokio::time::sleep(Duration::from_millis(400)).await;
        let answer = get(server.addr, "/livez").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("main loop"),
            "{answer}"
        );
        server.liveness.beat();
        assert!(get(server.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn serves_the_metrics_and_nothing_else() {
        let server = start(Duration::from_secs(60)).await;
        server.metrics.leader(true);
        // As Prometheus asks, from 2.5 on.
        let accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let answer = get_as(server.addr, "/metrics", accept).await;
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{answer}"
        );
        assert!(
            answer.contains("\nwebhook_operator_leader 1\n") && answer.ends_with("# EOF\n"),
            "{answer}"
        );
        let answer = get(server.addr, "/metrics").await;
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(
            answer.contains("\nwebhook_operator_leader 1\n") && !answer.contains("# EOF"),
            "{answer}"
        );
        assert!(get(server.addr, "/").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn the_page_tells_how_many_tasks_are_alive_now() {
        let server = start(Duration::from_secs(60)).await;
        let before = tasks(server.addr).await;
        let (done, wait) = watch::channel(false);
        let more: Vec<_> = (0..50)
            .map(|_| {
                let mut wait = wait.clone();
                tokio::spawn(async move { wait.wait_for(|done| *done).await.is_ok() })
            })
            .collect();
        // The connections of the page itself come and go.
        let with_them = tasks(server.addr).await;
        assert!(
            (before + 45..=before + 55).contains(&with_them),
            "{before}, then {with_them}"
        );
        done.send_replace(true);
        for one in more {
            assert!(one.await.unwrap());
        }
        let after = tasks(server.addr).await;
        assert!(after <= before + 5, "{before}, then {after}");
    }

    async fn tasks(addr: SocketAddr) -> i64 {
        let page = get(addr, "/metrics").await;
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix("webhook_operator_tasks "));
        value.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn stops_in_time_though_a_client_dawdles() {
        let server = start(Duration::from_secs(60)).await;
        let mut idle = TcpStream::connect(server.addr).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: te").await.unwrap();
        // The half request has surely arrived when a later whole one is answered.
        assert!(get(server.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        server.stop.send(()).unwrap();
        let began = Instant::now();
        timeout(DRAIN + Duration::from_secs(2), server.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(began.elapsed() < DRAIN + Duration::from_secs(1));
        assert!(TcpStream::connect(server.addr).await.is_err());
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let server = start(Duration::from_secs(60)).await;
        let (liveness, readiness, metrics) = (server.liveness, server.readiness, server.metrics);
        let error = Server::bind(server.addr, liveness, readiness, metrics)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
