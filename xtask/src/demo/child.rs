//! The processes of the demo. They end with it, however it ends: the doubles because their standard input closes,
//! the operator (on Linux) because the kernel kills it with its parent.

use std::{
    fs::File,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    programs::{Programs, tied},
    progress::Failure,
};

/// The operator gives itself 25 s to stop, and three for its health server.
const STOP: Duration = Duration::from_secs(30);
/// Longest wait for the doubles' first line.
const START: Duration = Duration::from_secs(10);

/// The doubles of the four upstreams, and a receiver.
#[derive(Debug)]
pub(super) struct Doubles {
    child: Child,
    /// Base URLs by name: `conpeek`, `thulium`, `ricloud`, `autocosmos`, `receiver`, `admin`.
    pub(super) urls: Value,
}

impl Doubles {
    /// Starts them with the demo accounts. The receiver verifies what the ricloud double sends to
    /// `/ricloud/<receiver>`.
    pub(super) async fn start(programs: &Programs, receiver: &str) -> Result<Self, Failure> {
        let mut child = Command::new(&programs.doubles)
            .args(["--until-stdin-closes", "--follow-ricloud", receiver])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run {}: {error}", programs.doubles.display())))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("the doubles have no output"))?;
        let mut line = String::new();
        let read = timeout(START, BufReader::new(stdout).read_line(&mut line)).await;
        match read {
            Ok(read) => read?,
            Err(_) => return Err(Failure::new(format!("the doubles said nothing within {START:?}"))),
        };
        let urls = serde_json::from_str(&line)
            .map_err(|_| Failure::new("the doubles did not start; what they said is above"))?;
        Ok(Self { child, urls })
    }

    /// Ends them.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        stopped(&mut self.child, "the doubles").await.map(|_| ())
    }
}

/// The operator's process.
#[derive(Debug)]
pub(super) struct Operator {
    child: Child,
}

impl Operator {
    /// Starts it; its log goes to `log`. Must be called on the main thread: for the kernel, that is the parent with
    /// whose end the operator ends.
    pub(super) fn start(programs: &Programs, kubeconfig: &Path, log: &Path) -> Result<Self, Failure> {
        let output = File::create(log)?;
        let mut command = tied(&programs.operator);
        // What the user's own operator is told must not reach this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEBHOOK_OPERATOR_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["run", "--log-format", "text", "--http-addr", "127.0.0.1:0"])
            // The doubles are on loopback, which the operator refuses unless it is told otherwise.
            .args(["--allow-network", "127.0.0.0/8"])
            .env("KUBECONFIG", kubeconfig)
            .env("NO_COLOR", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run {}: {error}", programs.operator.display())))?;
        Ok(Self { child })
    }

    /// Its process id; 0 once it has ended.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Waits until it ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.child.wait().await {
            Ok(status) => Failure::new(format!("the operator ended by itself with {status}")),
            Err(error) => error.into(),
        }
    }

    /// Stops it as Kubernetes would: SIGTERM, and SIGKILL where that does not help.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, Signal::TERM)?;
        let status = stopped(&mut self.child, "the operator").await?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the operator was told to stop and ended with {status}"
        )))
    }
}

async fn stopped(child: &mut Child, name: &str) -> Result<ExitStatus, Failure> {
    if let Ok(status) = timeout(STOP, child.wait()).await {
        return Ok(status?);
    }
    child.kill().await?;
    Err(Failure::new(format!("{name} had to be killed, after {STOP:?}")))
}
