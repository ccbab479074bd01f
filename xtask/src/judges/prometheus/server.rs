//! A Prometheus on loopback that scrapes one address every second, and its HTTP API.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use super::ALERTS;
use crate::{
    programs::tied,
    progress::{Failure, root},
    stand::{START_LIMIT, pid_of},
};

/// Longest time of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// The process.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
}

/// One series of an answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Series {
    /// Its labels, the name among them.
    pub(super) metric: BTreeMap<String, String>,
    /// Time, and value as text.
    value: (f64, String),
}

impl Series {
    /// The value, unless it is no number.
    pub(super) fn number(&self) -> Option<f64> {
        self.value
            .1
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
    }
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Answer<T> {
    Success { data: T },
    Error { error: String },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Found {
    Vector(Vec<Series>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// How the server thinks of one rule.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) name: String,
    /// `ok`, `err` or `unknown`.
    pub(super) health: String,
    pub(super) last_error: Option<String>,
}

impl Server {
    /// Starts it in `folder` with the alerts of the chart, and waits until it answers. On the main thread, see [`tied`].
    pub(super) async fn start(program: &Path, folder: &Path, target: &str) -> Result<Self, Failure> {
        // Told the port by nobody, so it is asked for and given back.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join(ALERTS)],
            "scrape_configs": [{"job_name": "webhook-operator", "static_configs": [{"targets": [target]}]}],
        });
        let file = folder.join("prometheus.yml");
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec(&config)?)?;
        let child = tied(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=1h", "--log.level=warn"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let mut server = Self {
            child,
            address,
            http: reqwest::Client::builder().no_proxy().timeout(LIMIT).build()?,
        };
        server.wait().await?;
        Ok(server)
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::new(format!(
                    "prometheus ended at its start with {status}"
                )));
            }
            let url = format!("http://{}/-/ready", self.address);
            if let Ok(answer) = self.http.get(url).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            if began.elapsed() > START_LIMIT {
                return Err(Failure::new("prometheus is not ready in time"));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, parameters: &[(&str, &str)]) -> Result<T, Failure> {
        let url = format!("http://{}/api/v1/{what}", self.address);
        let url = reqwest::Url::parse_with_params(&url, parameters)
            .map_err(|error| Failure::new(format!("{url}: {error}")))?;
        // An error of the query is told with a status of 4xx and the same form.
        let answer = self.http.get(url).send().await?;
        match serde_json::from_slice(&answer.bytes().await?)? {
            Answer::Success { data } => Ok(data),
            Answer::Error { error } => Err(Failure::new(error)),
        }
    }

    /// What a query finds now.
    pub(super) async fn query(&self, expr: &str) -> Result<Vec<Series>, Failure> {
        match self.ask("query", &[("query", expr)]).await? {
            Found::Vector(series) => Ok(series),
            Found::Scalar(value) => Ok(vec![Series {
                metric: BTreeMap::new(),
                value,
            }]),
        }
    }

    /// The rules that it has evaluated.
    pub(super) async fn rules(&self) -> Result<Vec<Rule>, Failure> {
        let rules: Rules = self.ask("rules", &[]).await?;
        Ok(rules.groups.into_iter().flat_map(|group| group.rules).collect())
    }

    /// SIGTERM, then its end.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        kill_process(pid_of(&self.child)?, Signal::TERM)?;
        // Dropping kills what does not end.
        timeout(START_LIMIT, self.child.wait()).await??;
        Ok(())
    }
}
