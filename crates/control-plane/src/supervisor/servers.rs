//! Starts, watches and stops the servers.
//!
//! On Linux each server is started through this executable's `exec` mode, which
//! asks the kernel to kill it when its parent dies and then becomes the server.
//! Elsewhere the registry does that work at the next start.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    net::TcpSocket,
    process::{Child, Command},
    time::{self, Instant},
};

use super::{credentials::Credentials, text};
use crate::{
    Error, Pids, Server,
    protocol::{AuditLevel, Spec, log_in, tail},
    registry::signal,
};

/// How often a server is asked whether it is ready.
const PROBE: Duration = Duration::from_millis(50);
/// How long one such question may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ordered stop may take before the server is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The same when everything ends and nobody needs the data any more.
const END_GRACE: Duration = Duration::from_secs(2);
/// Ports are free when they are chosen, not when they are used: so often others
/// are tried.
const PORT_ATTEMPTS: usize = 5;
/// Lines of a server's log in an error.
const TAIL: usize = 15;

/// Asks the kernel to kill this process when its parent ends, then becomes
/// `program`. Returns only where that failed.
pub(super) fn exec(parent: &str, program: &str, args: &[&str]) -> Error {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getppid, set_parent_process_death_signal};
        if let Err(errno) = set_parent_process_death_signal(Some(Signal::KILL)) {
            return Error::io("ask for the parent-death signal")(errno.into());
        }
        // The parent may have died before that: then nobody will send the signal.
        if getppid().map(|pid| pid.as_raw_nonzero().to_string()).as_deref() != Some(parent) {
            return Error::Lost("ended before its server began".to_owned());
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Error::io(format!("execute {program}"))(std::process::Command::new(program).args(args).exec())
}

/// The servers of one control plane.
pub(super) struct Servers {
    folder: PathBuf,
    credentials: Credentials,
    http: reqwest::Client,
    /// Words that select [`super::main`] in this executable.
    prefix: Vec<String>,
    etcd: Slot,
    apiserver: Slot,
    controller_manager: Option<Slot>,
    controllers: String,
    audited: bool,
    apiserver_args: Vec<String>,
}

struct Slot {
    program: PathBuf,
    ports: Option<[u16; 2]>,
    child: Option<Child>,
    /// Keeps the port from others while the server is down. It does not listen,
    /// so clients are refused as they should be.
    hold: Option<TcpSocket>,
}

impl Slot {
    fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            ports: None,
            child: None,
            hold: None,
        }
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    fn port(&self) -> u16 {
        self.ports.map_or(0, |[port, _]| port)
    }

    /// Best effort: connections that linger may forbid the exclusive hold, and a
    /// shared one is better than none.
    fn hold_port(&mut self) {
        let hold = |shared| {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(shared)?;
            socket.bind((Ipv4Addr::LOCALHOST, self.port()).into())?;
            Ok::<_, io::Error>(socket)
        };
        self.hold = hold(false).or_else(|_| hold(true)).ok();
    }
}

impl Servers {
    pub(super) fn new(spec: &Spec, folder: &Path, credentials: Credentials) -> Result<Self, Error> {
        if let Some(level) = spec.audit {
            write_audit_policy(folder, level)?;
        }
        let bad = |error: reqwest::Error| Error::Servers(format!("cannot set up TLS: {error}"));
        let read = |path: PathBuf| fs::read(&path).map_err(Error::io(format!("read {}", path.display())));
        let mut identity = read(credentials.certificate())?;
        identity.extend(read(credentials.key())?);
        let ca = reqwest::Certificate::from_pem(credentials.ca_pem().as_bytes()).map_err(bad)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .identity(reqwest::Identity::from_pem(&identity).map_err(bad)?)
            .no_proxy()
            .timeout(PROBE_TIMEOUT)
            .build()
            .map_err(bad)?;
        Ok(Self {
            folder: folder.to_owned(),
            credentials,
            http,
            prefix: spec.prefix.clone(),
            etcd: Slot::new(&spec.etcd),
            apiserver: Slot::new(&spec.apiserver),
            controller_manager: spec.controller_manager.as_deref().map(Slot::new),
            controllers: spec.controllers.join(","),
            audited: spec.audit.is_some(),
            apiserver_args: spec.apiserver_args.clone(),
        })
    }

    /// Base URL of the apiserver; empty until its port is chosen.
    pub(super) fn url(&self) -> String {
        self.apiserver
            .ports
            .map(|[port, _]| format!("https://127.0.0.1:{port}"))
            .unwrap_or_default()
    }

    pub(super) fn fill(&self, pids: &mut Pids) {
        pids.etcd = self.etcd.pid();
        pids.apiserver = self.apiserver.pid();
        pids.controller_manager = self.controller_manager.as_ref().and_then(Slot::pid);
    }

    /// Starts a server on free ports and waits until it is ready, trying other
    /// ports where one was taken meanwhile.
    pub(super) async fn start(&mut self, server: Server, by: Instant) -> Result<(), Error> {
        for attempt in 1.. {
            self.slot(server)?.ports = Some(free_ports()?);
            if server == Server::Apiserver {
                self.credentials.write_kubeconfigs(&self.url())?;
            }
            match self.launch(server, by).await {
                Err(_) if attempt < PORT_ATTEMPTS && self.port_was_taken(server) => {
                    let _ = fs::remove_file(log_in(&self.folder, server));
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    /// Starts a stopped server where it was, with the data it had.
    pub(super) async fn restart(&mut self, server: Server, by: Instant) -> Result<(), Error> {
        self.notice_exits();
        if self.slot(server)?.child.is_some() {
            return Err(Error::Servers(format!("{} is running already", server.binary())));
        }
        self.launch(server, by).await
    }

    /// Stops a server politely, or not so politely after 10 s.
    pub(super) async fn stop(&mut self, server: Server) {
        self.end(server, Signal::TERM, STOP_GRACE).await;
    }

    /// Ends a server as a crash would.
    pub(super) async fn kill(&mut self, server: Server) {
        self.end(server, Signal::KILL, STOP_GRACE).await;
    }

    /// Stops all. The apiserver goes before etcd: without its store it lingers.
    pub(super) async fn stop_all(&mut self) {
        self.end(Server::ControllerManager, Signal::TERM, END_GRACE).await;
        self.end(Server::Apiserver, Signal::TERM, END_GRACE).await;
        self.end(Server::Etcd, Signal::KILL, END_GRACE).await;
    }

    /// Forgets servers that ended by themselves; true if there were any.
    pub(super) fn notice_exits(&mut self) -> bool {
        let mut any = false;
        let more = self.controller_manager.as_mut();
        for slot in [&mut self.etcd, &mut self.apiserver].into_iter().chain(more) {
            let Some(Ok(Some(status))) = slot.child.as_mut().map(Child::try_wait) else {
                continue;
            };
            eprintln!("{} ended: {status}", slot.program.display());
            slot.child = None;
            slot.hold_port();
            any = true;
        }
        any
    }

    async fn end(&mut self, server: Server, with: Signal, grace: Duration) {
        let Ok(slot) = self.slot(server) else { return };
        let Some(mut child) = slot.child.take() else {
            return;
        };
        if let Some(pid) = child.id() {
            signal(pid, with);
        }
        if time::timeout(grace, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        slot.hold_port();
    }

    fn slot(&mut self, server: Server) -> Result<&mut Slot, Error> {
        match server {
            Server::Etcd => Ok(&mut self.etcd),
            Server::Apiserver => Ok(&mut self.apiserver),
            Server::ControllerManager => self
                .controller_manager
                .as_mut()
                .ok_or_else(|| Error::Servers("started without a controller manager".to_owned())),
        }
    }

    async fn launch(&mut self, server: Server, by: Instant) -> Result<(), Error> {
        let args = self.arguments(server);
        let log = self.open_log(server)?;
        let log_too = log.try_clone().map_err(Error::io("duplicate a file handle"))?;
        let folder = self.folder.clone();
        let prefix = self.prefix.clone();
        let slot = self.slot(server)?;
        slot.hold = None;
        let child = command(&prefix, &slot.program)
            .args(args)
            // What the caller has set (ETCD_*, HTTPS_PROXY, ...) is not meant for it.
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(format!("start {}", slot.program.display())))?;
        slot.child = Some(child);
        self.await_ready(server, by).await
    }

    async fn await_ready(&mut self, server: Server, by: Instant) -> Result<(), Error> {
        loop {
            if let Some(Ok(Some(status))) = self.slot(server)?.child.as_mut().map(Child::try_wait) {
                self.slot(server)?.child = None;
                return Err(self.failure(server, &format!("ended at once ({status})")));
            }
            if self.is_ready(server).await {
                return Ok(());
            }
            if Instant::now() >= by {
                let failure = self.failure(server, "was not ready in time");
                self.kill(server).await;
                return Err(failure);
            }
            time::sleep(PROBE).await;
        }
    }

    async fn is_ready(&self, server: Server) -> bool {
        let url = match server {
            Server::Etcd => format!("https://127.0.0.1:{}/health", self.etcd.port()),
            Server::Apiserver => format!("{}/readyz", self.url()),
            // Its own work is the proof that it works.
            Server::ControllerManager if self.controllers.contains("serviceaccount-controller") => {
                format!("{}/api/v1/namespaces/default/serviceaccounts/default", self.url())
            }
            Server::ControllerManager => return true,
        };
        let answer = self
            .http
            .get(url)
            .bearer_auth(&self.credentials.admin)
            .send()
            .await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    fn failure(&self, server: Server, what: &str) -> Error {
        let end = tail(&log_in(&self.folder, server), TAIL);
        Error::Servers(format!("{} {what}; the end of its log:\n{end}", server.binary()))
    }

    fn port_was_taken(&self, server: Server) -> bool {
        tail(&log_in(&self.folder, server), TAIL).contains("address already in use")
    }

    fn open_log(&self, server: Server) -> Result<File, Error> {
        let path = log_in(&self.folder, server);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(Error::io(format!("open {}", path.display())))
    }

    fn arguments(&self, server: Server) -> Vec<String> {
        match server {
            Server::Etcd => self.etcd_arguments(),
            Server::Apiserver => self.apiserver_arguments(),
            Server::ControllerManager => self.controller_manager_arguments(),
        }
    }

    /// With TLS and client certificates even on loopback: whoever else works on
    /// this machine must not get at the Secrets in it.
    fn etcd_arguments(&self) -> Vec<String> {
        let [client, peer] = self.etcd.ports.unwrap_or_default();
        let client = format!("https://127.0.0.1:{client}");
        let peer = format!("https://127.0.0.1:{peer}");
        let keys = &self.credentials;
        let mut args = vec![
            flag("name", "default"),
            flag("data-dir", text(self.folder.join("etcd"))),
            flag("listen-client-urls", &client),
            flag("advertise-client-urls", &client),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
            flag("initial-cluster", format!("default={peer}")),
            flag("log-level", "warn"),
            // Data outlive the process, not the machine: that is all that is needed.
            "--unsafe-no-fsync".to_owned(),
        ];
        for side in ["", "peer-"] {
            args.push(flag(&format!("{side}cert-file"), text(keys.certificate())));
            args.push(flag(&format!("{side}key-file"), text(keys.key())));
            args.push(flag(&format!("{side}trusted-ca-file"), text(keys.ca())));
            args.push(format!("--{side}client-cert-auth"));
        }
        args
    }

    fn apiserver_arguments(&self) -> Vec<String> {
        let keys = &self.credentials;
        let mut args = vec![
            flag("bind-address", "127.0.0.1"),
            flag("advertise-address", "127.0.0.1"),
            flag("secure-port", self.apiserver.port().to_string()),
            // A loopback address is refused as an endpoint of the Service `kubernetes`.
            flag("endpoint-reconciler-type", "none"),
            flag("etcd-servers", format!("https://127.0.0.1:{}", self.etcd.port())),
            flag("etcd-cafile", text(keys.ca())),
            flag("etcd-certfile", text(keys.certificate())),
            flag("etcd-keyfile", text(keys.key())),
            flag("cert-dir", text(self.folder.join("apiserver"))),
            flag("tls-cert-file", text(keys.certificate())),
            flag("tls-private-key-file", text(keys.key())),
            flag("token-auth-file", text(keys.tokens())),
            flag("authorization-mode", "RBAC"),
            // It would refuse pods until a controller has made their account.
            flag("disable-admission-plugins", "ServiceAccount"),
            flag("service-account-issuer", "https://kubernetes.default.svc"),
            flag("service-account-signing-key-file", text(keys.accounts_key())),
            flag("service-account-key-file", text(keys.accounts_public_key())),
            flag("service-cluster-ip-range", "10.0.0.0/24"),
            flag("profiling", "false"),
        ];
        if self.audited {
            args.push(flag("audit-policy-file", text(self.folder.join(AUDIT_POLICY))));
            args.push(flag("audit-log-path", text(self.folder.join(AUDIT_LOG))));
            // In megabytes: one file, however long the test.
            args.push(flag("audit-log-maxsize", "4096"));
        }
        args.extend(self.apiserver_args.iter().cloned());
        args
    }

    fn controller_manager_arguments(&self) -> Vec<String> {
        let keys = &self.credentials;
        let kubeconfig = text(keys.controllers_kubeconfig());
        vec![
            flag("kubeconfig", &kubeconfig),
            flag("authentication-kubeconfig", &kubeconfig),
            flag("authorization-kubeconfig", &kubeconfig),
            flag("controllers", &self.controllers),
            flag("service-account-private-key-file", text(keys.accounts_key())),
            flag("bind-address", "127.0.0.1"),
            flag(
                "secure-port",
                self.controller_manager.as_ref().map_or(0, Slot::port).to_string(),
            ),
            flag("cert-dir", text(self.folder.join("controller-manager"))),
            flag("tls-cert-file", text(keys.certificate())),
            flag("tls-private-key-file", text(keys.key())),
            // There is one; an election would only delay its start.
            flag("leader-elect", "false"),
            flag("profiling", "false"),
        ]
    }
}

/// Name of the audit log in the control plane's folder.
pub(crate) const AUDIT_LOG: &str = "audit.log";
const AUDIT_POLICY: &str = "audit-policy.yaml";

fn write_audit_policy(folder: &Path, level: AuditLevel) -> Result<(), Error> {
    let policy = format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: {level:?}\n"
    );
    let path = folder.join(AUDIT_POLICY);
    fs::write(&path, policy).map_err(Error::io(format!("write {}", path.display())))
}

fn flag(name: &str, value: impl AsRef<str>) -> String {
    format!("--{name}={}", value.as_ref())
}

/// The command that becomes `program`.
fn command(prefix: &[String], program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        // Not the path of the executable: a build may have replaced it meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .args(prefix)
            .args(["exec", &std::process::id().to_string()])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Two ports that are free on loopback at this moment.
fn free_ports() -> Result<[u16; 2], Error> {
    let listen = || TcpListener::bind("127.0.0.1:0").map_err(Error::io("find a free port on 127.0.0.1"));
    // Both are held until both are known, else the second may equal the first.
    let (first, second) = (listen()?, listen()?);
    let port = |listener: &TcpListener| {
        listener
            .local_addr()
            .map(|address| address.port())
            .map_err(Error::io("read a port"))
    };
    Ok([port(&first)?, port(&second)?])
}
