//! A pod of the Deployment, as a process.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::{LIFETIME, NAMESPACE, Site};
use crate::{programs::tied, progress::Failure, stand::pid_of};

/// Flag of the operator with the address at which it serves probes and metrics.
const ADDRESS: &str = "--http-addr=0.0.0.0:";

/// What a kubelet would be told.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::judges) struct Pod {
    args: Vec<String>,
    env: Vec<(String, String)>,
    account: String,
    port: u16,
    probes: Vec<Probe>,
    /// Longer than the process may take to stop.
    grace: Duration,
}

#[derive(Debug, PartialEq, Eq)]
struct Probe {
    name: &'static str,
    path: String,
    /// How long it may fail from the start on.
    patience: Duration,
}

impl Pod {
    /// The pod of this Deployment.
    pub(in crate::judges) fn of(deployment: &Value) -> Result<Self, Failure> {
        let pod = deployment.pointer("/spec/template/spec").unwrap_or(&Value::Null);
        let containers = pod.get("containers").and_then(Value::as_array);
        let Some([container]) = containers.map(Vec::as_slice) else {
            return Err(Failure::new("the Deployment has not one container"));
        };
        // The image has the program as its entry point, and the arguments replace its command.
        if container.get("command").is_some() {
            return Err(Failure::new("the Deployment names a command of its own"));
        }
        let args: Vec<String> = serde_json::from_value(container.get("args").cloned().unwrap_or_default())?;
        let port = args
            .iter()
            .find_map(|arg| arg.strip_prefix(ADDRESS)?.parse().ok())
            .ok_or_else(|| {
                Failure::new(format!(
                    "no argument {ADDRESS}PORT: the kubelet could not reach it"
                ))
            })?;
        let account = pod.get("serviceAccountName").and_then(Value::as_str);
        let grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_u64);
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
        Ok(Self {
            env: environment(container)?,
            account: account.unwrap_or("default").to_owned(),
            port,
            probes: probes
                .into_iter()
                .map(|name| probe(container, name, port))
                .collect::<Result<_, _>>()?,
            grace: Duration::from_secs(grace.unwrap_or(30)),
            args,
        })
    }

    /// Starts the operator `program` as this pod. On the main thread, see [`tied`].
    pub(in crate::judges) async fn start(&self, site: &Site, program: &Path) -> Result<Running, Failure> {
        let kubeconfig = site.folder().join("operator.kubeconfig");
        site.kubectl
            .account(NAMESPACE, &self.account, LIFETIME, &kubeconfig)
            .await?;
        // Taken by nobody now; the pod's port belongs to the pod's own address, of which there is none here.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let local = format!("--http-addr=127.0.0.1:{port}");
        let args = self.args.iter().map(|arg| match arg.starts_with(ADDRESS) {
            true => &local,
            false => arg,
        });
        let log = site.folder().join("operator.log");
        let output = File::options().append(true).create(true).open(&log)?;
        let child = tied(program)
            .args(args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("KUBECONFIG", &kubeconfig)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        let mut running = Running {
            pid: pid_of(&child)?,
            child,
            log,
            grace: self.grace,
        };
        for probe in &self.probes {
            if let Err(failure) = probe.ask(port).await {
                // What it says of it is more than that nobody answers.
                let _ = running.child.kill().await;
                return Err(running.with_log(&failure));
            }
        }
        Ok(running)
    }
}

/// What the container's variables are for this pod.
fn environment(container: &Value) -> Result<Vec<(String, String)>, Failure> {
    let variables = container.get("env").and_then(Value::as_array);
    let mut environment = Vec::new();
    for variable in variables.into_iter().flatten() {
        let text = |path: &str| variable.pointer(path).and_then(Value::as_str);
        let value = match (text("/value"), text("/valueFrom/fieldRef/fieldPath")) {
            (Some(value), None) => value,
            (None, Some("metadata.namespace")) => NAMESPACE,
            _ => {
                return Err(Failure::new(format!(
                    "what is this variable of a pod? {variable}"
                )));
            }
        };
        environment.push((text("/name").unwrap_or_default().to_owned(), value.to_owned()));
    }
    Ok(environment)
}

/// A probe of the container; its port must be the one that is served.
fn probe(container: &Value, name: &'static str, served: u16) -> Result<Probe, Failure> {
    let probe = container.get(name).unwrap_or(&Value::Null);
    let port = probe.pointer("/httpGet/port").unwrap_or(&Value::Null);
    let ports = container.get("ports").and_then(Value::as_array);
    let named = ports
        .into_iter()
        .flatten()
        .find(|known| known.get("name") == Some(port))
        .and_then(|known| known.get("containerPort"));
    if named.unwrap_or(port) != &json!(served) {
        return Err(Failure::new(format!(
            "{name} asks port {port}, and {served} is served"
        )));
    }
    let number = |field: &str| probe.get(field).and_then(Value::as_u64).unwrap_or(1);
    Ok(Probe {
        name,
        path: probe
            .pointer("/httpGet/path")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        patience: Duration::from_secs(number("periodSeconds") * number("failureThreshold")),
    })
}

impl Probe {
    /// Asks until the answer is good.
    async fn ask(&self, port: u16) -> Result<(), Failure> {
        let url = format!("http://127.0.0.1:{port}{}", self.path);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let began = Instant::now();
        loop {
            let answer = http.get(&url).send().await;
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if began.elapsed() > self.patience {
                return Err(Failure::new(format!(
                    "{} {} fails for {:?}: {answer:?}",
                    self.name, self.path, self.patience
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The operator's process.
pub(in crate::judges) struct Running {
    child: Child,
    pid: Pid,
    log: PathBuf,
    grace: Duration,
}

impl Running {
    /// Ends it as a kubelet does: by SIGTERM, within the pod's grace.
    pub(in crate::judges) async fn stop(mut self) -> Result<(), Failure> {
        kill_process(self.pid, Signal::TERM)?;
        match timeout(self.grace, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Ok(status) => Err(self.with_log(&Failure::new(format!("the operator ended with {status:?}")))),
            Err(_) => {
                self.child.kill().await?;
                Err(self.with_log(&Failure::new("the operator did not end within the pod's grace")))
            }
        }
    }

    /// A failure with the end of the operator's log.
    pub(in crate::judges) fn with_log(&self, failure: &Failure) -> Failure {
        const LINES: usize = 30;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
        Failure::new(format!(
            "{failure}\nthe end of the operator's log:\n{}",
            tail.join("\n")
        ))
    }
}
