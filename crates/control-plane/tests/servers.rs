//! The whole crate against the real servers: nothing is simulated.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic; clippy only exempts the tests themselves"
)]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use control_plane::{AuditLevel, ControlPlane, Options, Server, registry};
use serde_json::{Value, json};

/// A bare HTTP client for one control plane.
struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    fn of(plane: &ControlPlane) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(plane.ca_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .build()
            .unwrap();
        Self {
            http,
            url: plane.url().to_owned(),
            token: plane.admin_token().expose().to_owned(),
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.call(reqwest::Method::GET, path, None).await
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, String) {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn create(&self, path: &str, body: Value) -> (u16, String) {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"kept": "yes"}})
}

/// Waits until none of the processes exists; lists those that still do.
fn survivors(pids: &[u32], within: Duration) -> Vec<u32> {
    let asked = Instant::now();
    loop {
        let left: Vec<u32> = pids
            .iter()
            .copied()
            .filter(|pid| registry::is_alive(*pid))
            .collect();
        if left.is_empty() || asked.elapsed() > within {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_pids(plane: &ControlPlane) -> Vec<u32> {
    plane.pids().servers().chain([plane.pids().supervisor]).collect()
}

#[tokio::test]
async fn serves_refuses_strangers_and_stops_without_a_trace() {
    let options = Options {
        audit: Some(AuditLevel::Metadata),
        ..Options::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let client = Client::of(&plane);
    assert_eq!(client.get("/readyz").await, (200, "ok".to_owned()));
    let version: Value = serde_json::from_str(&client.get("/version").await.1).unwrap();
    assert!(
        version["gitVersion"].as_str().unwrap().starts_with("v1."),
        "{version}"
    );
    assert_ne!(version["minor"], "");

    let stranger = Client {
        token: "0000".to_owned(),
        ..Client::of(&plane)
    };
    assert_eq!(stranger.get("/api/v1/namespaces").await.0, 401);

    let audit = std::fs::read_to_string(plane.audit_log().unwrap()).unwrap();
    assert!(
        audit
            .lines()
            .any(|line| line.contains(r#""requestURI":"/version""#)),
        "{audit}"
    );

    let (pids, folder) = (all_pids(&plane), plane.folder().to_owned());
    assert_eq!(pids.len(), 4);
    plane.stop().await.unwrap();
    assert_eq!(survivors(&pids, Duration::ZERO), Vec::<u32>::new());
    assert!(!folder.exists());
}

#[tokio::test]
async fn rbac_binds_service_accounts_and_namespaces_go_away() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let client = Client::of(&plane);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "passing"}});
    assert_eq!(client.create("/api/v1/namespaces", space).await.0, 201);
    assert_eq!(
        client
            .create("/api/v1/namespaces/passing/configmaps", config_map("full"))
            .await
            .0,
        201
    );

    // A token of a service account is accepted, and may do nothing yet.
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let (status, issued) = client.create(path, ask).await;
    assert_eq!(status, 201, "{issued}");
    let issued: Value = serde_json::from_str(&issued).unwrap();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    let account = Client {
        token,
        ..Client::of(&plane)
    };
    assert_eq!(account.get("/api/v1/namespaces/default/secrets").await.0, 403);

    let path = "/api/v1/namespaces/passing";
    assert_eq!(client.call(reqwest::Method::DELETE, path, None).await.0, 200);
    let asked = Instant::now();
    while client.get(path).await.0 != 404 {
        assert!(
            asked.elapsed() < Duration::from_secs(30),
            "the namespace is still there"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn two_run_side_by_side_and_know_nothing_of_each_other() {
    let bare = || Options {
        controllers: Vec::new(),
        ..Options::default()
    };
    let (one, other) = tokio::join!(ControlPlane::start(bare()), ControlPlane::start(bare()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.url(), other.url());
    assert_eq!(one.pids().controller_manager, None);
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(Client::of(&one).create(path, config_map("mine")).await.0, 201);
    assert_eq!(Client::of(&other).get(&format!("{path}/mine")).await.0, 404);
    let listed = registry::running().unwrap();
    for plane in [&one, &other] {
        assert!(
            listed.iter().any(|state| state.ready && state.url == plane.url()),
            "{listed:?}"
        );
    }
}

#[tokio::test]
async fn data_outlive_a_stopped_apiserver_and_a_killed_etcd() {
    let plane = ControlPlane::start(Options {
        controllers: Vec::new(),
        ..Options::default()
    })
    .await
    .unwrap();
    let client = Client::of(&plane);
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(client.create(path, config_map("kept")).await.0, 201);

    let before = plane.pids();
    plane.stop_apiserver().await.unwrap();
    assert_eq!(plane.pids().apiserver, None);
    assert_eq!(
        survivors(&[before.apiserver.unwrap()], Duration::ZERO),
        Vec::<u32>::new()
    );
    let address = plane.url().trim_start_matches("https://");
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    plane.start_apiserver().await.unwrap();
    assert_ne!(plane.pids().apiserver, before.apiserver);
    assert_eq!(plane.pids().etcd, before.etcd);
    assert_eq!(client.get(&format!("{path}/kept")).await.0, 200);

    plane.kill_server(Server::Etcd).await.unwrap();
    plane.start_server(Server::Etcd).await.unwrap();
    let asked = Instant::now();
    while client.get(&format!("{path}/kept")).await.0 != 200 {
        assert!(
            asked.elapsed() < Duration::from_secs(30),
            "the apiserver does not find its store again"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let twice = plane.start_server(Server::Etcd).await.unwrap_err();
    assert!(twice.to_string().contains("running already"), "{twice}");
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_servers_along() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let (pids, folder) = (all_pids(&plane), plane.folder().to_owned());
    kill(plane.pids().supervisor);
    // The supervisor stays a zombie of this process until the handle is dropped.
    drop(plane);
    assert_eq!(survivors(&pids, Duration::from_secs(5)), Vec::<u32>::new());
    registry::running().unwrap();
    assert!(!folder.exists(), "what it left is cleared away by the next look");
}

/// Not a test of its own: what the next one starts and kills.
#[tokio::test]
async fn caller_to_be_killed() {
    if std::env::var_os("CALLER_TO_BE_KILLED").is_none() {
        return;
    }
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    println!("\nPIDS {:?}", all_pids(&plane));
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_caller_leaves_no_server_behind() {
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "caller_to_be_killed", "--nocapture"])
        .env("CALLER_TO_BE_KILLED", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("PIDS "))
        .expect("it started");
    let pids: Vec<u32> = serde_json::from_str(line.trim_start_matches("PIDS ")).unwrap();
    assert_eq!(pids.len(), 4);
    assert_eq!(pids.iter().filter(|pid| registry::is_alive(**pid)).count(), 4);
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert_eq!(survivors(&pids, Duration::from_secs(10)), Vec::<u32>::new());
}

#[tokio::test]
async fn a_lifetime_ends() {
    let options = Options {
        controllers: Vec::new(),
        lifetime: Duration::from_secs(2),
        ..Options::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let servers: Vec<u32> = plane.pids().servers().collect();
    assert_eq!(survivors(&servers, Duration::from_secs(30)), Vec::<u32>::new());
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_why() {
    let options = Options {
        apiserver_args: vec!["--no-such-flag".to_owned()],
        ..Options::default()
    };
    let error = ControlPlane::start(options).await.unwrap_err().to_string();
    assert!(
        error.contains("kube-apiserver ended at once") && error.contains("no-such-flag"),
        "{error}"
    );
}

#[tokio::test]
async fn a_detached_one_is_listed_taken_once_and_stopped() {
    let name = format!("test-{}", std::process::id());
    let options = || Options {
        name: Some(name.clone()),
        controllers: Vec::new(),
        ..Options::default()
    };
    let state = control_plane::start_detached(options()).await.unwrap();
    assert!(
        registry::running()
            .unwrap()
            .iter()
            .any(|other| other.id == name && other.url == state.url)
    );
    let taken = ControlPlane::start(options()).await.unwrap_err();
    assert!(taken.to_string().contains("running already"), "{taken}");
    registry::stop(&name).await.unwrap();
    let servers: Vec<u32> = state.pids.servers().collect();
    assert_eq!(survivors(&servers, Duration::ZERO), Vec::<u32>::new());
    assert!(!state.folder.exists());
    assert!(registry::stop(&name).await.is_err());
}

fn kill(pid: u32) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}
