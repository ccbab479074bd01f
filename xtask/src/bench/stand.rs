//! What a benchmark runs on: a control plane with the CRDs, the doubles and the operator, each
//! a process of its own on loopback that ends with this one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use control_plane::{AuditLevel, ControlPlane, Options};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::{sleep, timeout},
};

use super::{audit::Audit, figures::number};
use crate::{
    control_plane::launcher,
    programs::{Programs, tied},
    progress::{Failure, root},
};

/// Longest wait for a process to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Everything ends after this long, whatever happens to this process.
const LIFETIME: Duration = Duration::from_secs(90 * 60);

/// Where the operator would run, and as whom; as in `config/rbac.yaml`.
const OPERATOR_NAMESPACE: &str = "webhook-operator";
const OPERATOR_ACCOUNT: &str = "webhook-operator";

/// A control plane with the CRDs and an account for the operator.
pub(super) struct Stand {
    plane: ControlPlane,
    client: Client,
    operator_kubeconfig: PathBuf,
}

impl Stand {
    pub(super) async fn start() -> Result<Self, Failure> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        eprintln!("starting a control plane");
        let options = Options {
            audit: Some(AuditLevel::Metadata),
            lifetime: LIFETIME,
            launcher: launcher(),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await?;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        install_crds(&client).await?;
        let operator_kubeconfig = operator_account(&client, &plane).await?;
        Ok(Self {
            plane,
            client,
            operator_kubeconfig,
        })
    }

    /// The administrator's client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A folder that goes with the control plane.
    pub(super) fn folder(&self) -> &Path {
        self.plane.folder()
    }

    /// What the operator asks of the apiserver.
    pub(super) fn audit(&self) -> Result<Audit, Failure> {
        let path = self
            .plane
            .audit_log()
            .ok_or_else(|| Failure::new("no audit log"))?;
        Audit::open(
            path,
            &format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}"),
        )
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        Ok(self.plane.stop().await?)
    }
}

async fn install_crds(client: &Client) -> Result<(), Failure> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for file in ["webhooks", "webhookproviders", "clusterwebhookproviders"] {
        let text = fs::read_to_string(root().join("crds").join(file).with_extension("yaml"))?;
        let crd: DynamicObject = webhook_operator::yaml::parse(&text)?;
        api.create(&PostParams::default(), &crd).await?;
    }
    let began = Instant::now();
    loop {
        let crds = api.list(&kube::api::ListParams::default()).await?;
        let established = |crd: &DynamicObject| {
            let conditions = crd.data.pointer("/status/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|condition| {
                condition.get("type") == Some(&json!("Established"))
                    && condition.get("status") == Some(&json!("True"))
            })
        };
        if crds.items.iter().all(established) {
            return Ok(());
        }
        if began.elapsed() > START_LIMIT {
            return Err(Failure::new("the CRDs are not served"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The operator's account with the rights that the project's manifests give it, so that the audit log tells its
/// requests from ours; returns its kubeconfig.
async fn operator_account(client: &Client, plane: &ControlPlane) -> Result<PathBuf, Failure> {
    let text = fs::read_to_string(root().join("config/rbac.yaml"))?;
    let params = PostParams::default();
    for object in webhook_operator::yaml::parse_all::<DynamicObject>(&text)? {
        let types = object.types.clone().unwrap_or_default();
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        api.create(&params, &object).await?;
    }
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ServiceAccount"));
    let accounts: Api<DynamicObject> = Api::namespaced_with(client.clone(), OPERATOR_NAMESPACE, &kind);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
    let answer: Value = accounts
        .create_subresource("token", OPERATOR_ACCOUNT, &params, &request)
        .await?;
    let token = answer
        .pointer("/status/token")
        .and_then(Value::as_str)
        .unwrap_or_default();

    let mut kubeconfig: Value = webhook_operator::yaml::parse(&fs::read_to_string(plane.kubeconfig())?)?;
    if let Some(user) = kubeconfig.pointer_mut("/users/0/user") {
        *user = json!({"token": token});
    }
    let path = plane.folder().join("operator.kubeconfig");
    fs::write(&path, serde_json::to_vec(&kubeconfig)?)?;
    Ok(path)
}

/// One upstream as the doubles announce it.
pub(super) struct Upstream {
    /// As in `spec.type`.
    pub(super) name: String,
    /// Its base URL.
    pub(super) url: String,
}

/// The doubles' process and its admin port.
pub(super) struct Doubles {
    child: Child,
    http: reqwest::Client,
    urls: Value,
}

/// Requests seen by the upstreams so far, by `upstream method`.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// What came since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let more = self.0.iter().map(|(name, count)| {
            (
                name.clone(),
                count.saturating_sub(earlier.0.get(name).copied().unwrap_or_default()),
            )
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    pub(super) fn counts(&self) -> Value {
        json!(self.0)
    }

    pub(super) fn total(&self) -> f64 {
        number(self.0.values().sum())
    }
}

const UPSTREAMS: [&str; 4] = ["Conpeek", "Thulium", "Ricloud", "Autocosmos"];

impl Doubles {
    /// Starts them with the demo accounts; what would only measure the doubles themselves is switched off: the
    /// verdict comes without a delivery, and Autocosmos takes more than one request a second.
    pub(super) async fn start(
        programs: &Programs,
        folder: &Path,
        latency: Duration,
    ) -> Result<Self, Failure> {
        let config = folder.join("doubles.json");
        let behaviour = json!({
            "ricloud": {"behaviour": {"verdict": "AlwaysValid"}},
            "autocosmos": {"behaviour": {"replayRule": "Off"}},
        });
        fs::write(&config, serde_json::to_vec(&behaviour)?)?;
        let mut child = Command::new(&programs.doubles)
            .arg("--config")
            .arg(&config)
            .args(["--latency", &latency.as_millis().to_string()])
            .args([
                "--until-stdin-closes",
                "--lifetime",
                &LIFETIME.as_secs().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("no output of the doubles"))?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(START_LIMIT, lines.next_line()).await??;
        let line = line.ok_or_else(|| Failure::new("the doubles ended without a word"))?;
        let urls = serde_json::from_str(&line)?;
        Ok(Self {
            child,
            http: reqwest::Client::new(),
            urls,
        })
    }

    /// The upstreams and where they are.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = Upstream> {
        UPSTREAMS.into_iter().map(|name| Upstream {
            name: name.to_owned(),
            url: self.url(&name.to_lowercase()),
        })
    }

    /// Names and contents of the Secrets that Webhooks and providers need.
    pub(super) fn credentials(&self) -> [(&'static str, Value); 5] {
        [
            ("conpeek", json!({"apiKey": "demo-conpeek-key"})),
            (
                "thulium",
                json!({"username": "api_demo", "password": "demo-thulium-password"}),
            ),
            ("ricloud", json!({"token": "demo-ricloud-token"})),
            (
                "autocosmos",
                json!({"appKey": "demo-app-key", "appSecret": "demo-app-secret"}),
            ),
            ("signing", json!({"secret": "a-signing-secret-of-some-length"})),
        ]
    }

    fn url(&self, name: &str) -> String {
        self.urls
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    async fn ask(&self, upstream: &str, what: &str) -> Result<Value, Failure> {
        let url = format!("{}/{}/{what}", self.url("admin"), upstream.to_lowercase());
        Ok(self
            .http
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// How often each upstream was called.
    pub(super) async fn calls(&self) -> Result<Calls, Failure> {
        let mut calls = BTreeMap::new();
        for upstream in UPSTREAMS {
            let counts = self.ask(upstream, "counts").await?;
            let methods = counts.get("byMethod").and_then(Value::as_object);
            for (method, count) in methods.into_iter().flatten() {
                calls.insert(format!("{upstream} {method}"), count.as_u64().unwrap_or_default());
            }
        }
        Ok(Calls(calls))
    }

    /// How many registrations should have been one with another; 0 is the only good figure.
    pub(super) async fn duplicates(&self) -> Result<usize, Failure> {
        let mut duplicates = 0;
        for upstream in UPSTREAMS {
            duplicates += self
                .ask(upstream, "duplicates")
                .await?
                .as_array()
                .map_or(0, Vec::len);
        }
        Ok(duplicates)
    }

    /// How many registrations each upstream has.
    pub(super) async fn registrations(&self) -> Result<Value, Failure> {
        let mut counts = BTreeMap::new();
        for upstream in UPSTREAMS {
            counts.insert(
                upstream,
                self.ask(upstream, "objects")
                    .await?
                    .as_array()
                    .map_or(0, Vec::len),
            );
        }
        Ok(json!(counts))
    }

    /// Ends the process.
    pub(super) async fn stop(mut self) {
        // Dropping would end it as well; this waits until it has.
        let _ = self.child.kill().await;
    }
}

/// What the kernel says about a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) rss: u64,
    /// Resident at most so far.
    pub(super) peak: u64,
}

/// The operator's process.
pub(super) struct Operator {
    child: Child,
    pid: Pid,
    full_after: Duration,
    log: tokio::task::JoinHandle<()>,
}

impl Operator {
    /// Starts it and waits until its caches are full. On the main thread, see [`tied`].
    pub(super) async fn start(programs: &Programs, stand: &Stand) -> Result<Self, Failure> {
        let began = Instant::now();
        let mut child = tied(&programs.operator)
            .args([
                "run",
                "--allow-network",
                "127.0.0.1/32",
                "--http-addr",
                "127.0.0.1:0",
            ])
            .args(["--lease-namespace", OPERATOR_NAMESPACE, "--log-format", "json"])
            .env("KUBECONFIG", &stand.operator_kubeconfig)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new("the operator ended at once"))?;
        let output = child
            .stderr
            .take()
            .ok_or_else(|| Failure::new("no log of the operator"))?;
        let mut lines = BufReader::new(output).lines();
        let full_after = timeout(START_LIMIT, caches_full(&mut lines, began)).await??;
        // A pipe that nobody reads would stop the operator.
        let log = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            child,
            pid,
            full_after,
            log,
        })
    }

    /// From the start of the process until it worked.
    pub(super) fn full_after(&self) -> Duration {
        self.full_after
    }

    fn proc(&self, file: &str) -> Result<String, Failure> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.pid.as_raw_nonzero()
        ))?)
    }

    /// Its memory.
    pub(super) fn memory(&self) -> Result<Memory, Failure> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|figure| figure.parse().ok())
        };
        match (field("VmRSS:"), field("VmHWM:")) {
            (Some(rss), Some(peak)) => Ok(Memory { rss, peak }),
            _ => Err(Failure::new("/proc does not tell the operator's memory")),
        }
    }

    /// Processor time used so far, user and system.
    pub(super) fn cpu(&self) -> Result<Duration, Failure> {
        let stat = self.proc("stat")?;
        // The second field is the name in parentheses; utime and stime are the 14th and 15th.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis(ticks * 1000 / per_second))
    }

    /// SIGTERM, then its end; how long that took.
    pub(super) async fn stop(mut self, limit: Duration) -> Result<Duration, Failure> {
        let began = Instant::now();
        kill_process(self.pid, Signal::TERM)?;
        let status = timeout(limit, self.child.wait()).await??;
        self.log.abort();
        if status.success() {
            Ok(began.elapsed())
        } else {
            Err(Failure::new(format!("the operator ended with {status}")))
        }
    }
}

async fn caches_full(lines: &mut Lines<BufReader<ChildStderr>>, began: Instant) -> Result<Duration, Failure> {
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        if line.contains("caches are full") {
            return Ok(began.elapsed());
        }
        last = line;
    }
    Err(Failure::new(format!("the operator ended at its start: {last}")))
}
