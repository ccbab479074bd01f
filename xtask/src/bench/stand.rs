//! What a benchmark runs besides the control plane: the doubles and the operator, each a process of its own on
//! loopback that ends with this one.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::figures::number;
use crate::{
    programs::{Programs, tied},
    progress::Failure,
    stand::{LIFETIME, Memory, OPERATOR_NAMESPACE, START_LIMIT, Stand, pid_of},
};

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
            .env("KUBECONFIG", stand.operator_kubeconfig())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = pid_of(&child)?;
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
        Memory::of(self.pid)
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
