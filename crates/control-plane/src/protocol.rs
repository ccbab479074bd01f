//! What the supervisor and its caller say to each other: JSON lines over the
//! supervisor's standard input and output.
//!
//! The caller sends one [`Spec`], then any number of [`Command`]s; each is
//! answered by one [`Answer`].

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Hash over this crate's sources, the same in a library and a supervisor that
/// fit together.
pub(crate) const FINGERPRINT: &str = env!("CONTROL_PLANE_FINGERPRINT");

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// The store. Stopping it makes the apiserver fail until it is back.
    Etcd,
    /// kube-apiserver.
    Apiserver,
    /// kube-controller-manager.
    ControllerManager,
}

impl Server {
    /// Name of its executable.
    pub fn binary(self) -> &'static str {
        match self {
            Server::Etcd => "etcd",
            Server::Apiserver => "kube-apiserver",
            Server::ControllerManager => "kube-controller-manager",
        }
    }
}

/// How much of each request the apiserver writes to its audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditLevel {
    /// Who did what to which object, without bodies.
    Metadata,
    /// Bodies of requests too. Secrets then stand in the log in clear.
    Request,
}

/// Everything the supervisor has to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) id: String,
    pub(crate) etcd: PathBuf,
    pub(crate) apiserver: PathBuf,
    pub(crate) controller_manager: Option<PathBuf>,
    pub(crate) controllers: Vec<String>,
    pub(crate) audit: Option<AuditLevel>,
    pub(crate) apiserver_args: Vec<String>,
    pub(crate) lifetime: Duration,
    pub(crate) start_timeout: Duration,
    /// Whether the end of standard input leaves the supervisor running.
    pub(crate) detached: bool,
    /// Words before `exec` on the command line of the supervisor's executable.
    pub(crate) prefix: Vec<String>,
}

/// An order to the supervisor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "command", content = "server")]
pub(crate) enum Command {
    /// Asks politely, waits, then kills.
    Stop(Server),
    /// Kills at once, as a crash would.
    Kill(Server),
    /// Starts again, with the same port and data, and waits until it is ready.
    Start(Server),
}

/// The supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Done(State),
    Failed(String),
}

/// Process ids. A server that is not running has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pids {
    /// The supervisor; it never runs without being the parent of the others.
    pub supervisor: u32,
    /// etcd.
    pub etcd: Option<u32>,
    /// kube-apiserver.
    pub apiserver: Option<u32>,
    /// kube-controller-manager.
    pub controller_manager: Option<u32>,
}

impl Pids {
    /// The servers' process ids, without the supervisor's.
    pub fn servers(&self) -> impl Iterator<Item = u32> + use<> {
        [self.controller_manager, self.apiserver, self.etcd]
            .into_iter()
            .flatten()
    }
}

/// A running control plane, as its supervisor describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Name, unique among those running: the one asked for, or a random one.
    pub id: String,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Folder of keys, data and logs; removed when the control plane stops.
    pub folder: PathBuf,
    /// Process ids.
    pub pids: Pids,
    /// Whether the servers have been ready once.
    pub ready: bool,
    /// When the servers were ready, in seconds since 1970; until then, when the
    /// supervisor started.
    pub started: u64,
    /// Longest lifetime in seconds, counted from `started`.
    pub lifetime: u64,
    /// Whether an audit log is written.
    pub audited: bool,
    /// Whether it outlives the process that started it.
    pub detached: bool,
}

impl State {
    /// Kubeconfig of an administrator (group `system:masters`), mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_secs(self.started))
    }

    /// How long it will run at most from now on.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.lifetime).saturating_sub(self.age())
    }

    /// The log of one server, standard output and error together.
    pub fn log(&self, server: Server) -> PathBuf {
        log_in(&self.folder, server)
    }
}

pub(crate) fn log_in(folder: &Path, server: Server) -> PathBuf {
    folder.join(format!("{}.log", server.binary()))
}

/// A bearer token. Its `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        Ok(Self(text))
    }

    /// The token itself, for an `Authorization: Bearer` header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// 128 bits from the operating system, in hexadecimal.
pub(crate) fn random_hex() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|bad| Error::Io {
        what: "read random numbers".into(),
        source: io::Error::other(bad),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last lines of a text file, at most `lines`; empty where it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Token("abc".to_owned())), "***");
    }

    #[test]
    fn commands_keep_their_shape_on_the_wire() {
        let line = serde_json::to_string(&Command::Stop(Server::Apiserver)).unwrap();
        assert_eq!(line, r#"{"command":"stop","server":"apiserver"}"#);
    }
}
