//! What tests and tools hold: a handle on a running control plane.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    AuditLevel, Error, Launcher, Pids, Server, State, Token,
    assets::{self, Binary},
    progress::human,
    protocol::{Command, Spec, random_hex},
    supervisor::{
        launch::{Link, detached_log},
        servers::AUDIT_LOG,
    },
};

/// Longer than anything the supervisor does to answer an order, besides starting.
const ANSWER_MARGIN: Duration = Duration::from_secs(30);

/// How a control plane is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, unique among those of this user that run: 1 to 40 of a-z, 0-9 and
    /// `-`. `None` takes a random one.
    pub name: Option<String>,
    /// Controllers that kube-controller-manager runs; without any, it is not
    /// started. The default lets namespaces be deleted and owner references be
    /// followed, and makes the `default` service account.
    pub controllers: Vec<String>,
    /// Whether the apiserver writes an audit log. Default: no.
    pub audit: Option<AuditLevel>,
    /// More flags for kube-apiserver, such as `--feature-gates=...`.
    pub apiserver_args: Vec<String>,
    /// Everything stops this long after it was ready. Default: 30 minutes.
    pub lifetime: Duration,
    /// Longest wait for the servers to be ready, each time they are started.
    /// Default: 2 minutes; 5 s is usual.
    pub start_timeout: Duration,
    /// Which executable the supervisor is.
    pub launcher: Launcher,
}

impl Default for Options {
    fn default() -> Self {
        let controllers = [
            "namespace-controller",
            "garbage-collector-controller",
            "serviceaccount-controller",
        ];
        Self {
            name: None,
            controllers: controllers.map(str::to_owned).to_vec(),
            audit: None,
            apiserver_args: Vec::new(),
            lifetime: Duration::from_secs(30 * 60),
            start_timeout: Duration::from_secs(120),
            launcher: Launcher::default(),
        }
    }
}

impl Options {
    fn binaries(&self) -> Vec<Binary> {
        let mut binaries = vec![Binary::Etcd, Binary::KubeApiserver];
        if !self.controllers.is_empty() {
            binaries.push(Binary::KubeControllerManager);
        }
        binaries
    }

    async fn spec(self, detached: bool) -> Result<(PathBuf, Spec), Error> {
        let id = match &self.name {
            Some(name) => checked(name)?,
            None => format!("unnamed-{}", random_hex()?),
        };
        let assets = assets::prepare(&self.binaries()).await?;
        let launcher = self.launcher;
        let (program, prefix) = blocking(move || launcher.resolve()).await?;
        let with_controllers = !self.controllers.is_empty();
        let spec = Spec {
            id,
            etcd: assets.path(Binary::Etcd),
            apiserver: assets.path(Binary::KubeApiserver),
            controller_manager: with_controllers.then(|| assets.path(Binary::KubeControllerManager)),
            controllers: self.controllers,
            audit: self.audit,
            apiserver_args: self.apiserver_args,
            lifetime: self.lifetime,
            start_timeout: self.start_timeout,
            detached,
            prefix,
        };
        Ok((program, spec))
    }
}

fn checked(name: &str) -> Result<String, Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=40).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err(Error::BadName(name.to_owned()))
    }
}

/// A running control plane of which this process is the owner: it stops when
/// this value is dropped, or when this process ends, in whatever way.
///
/// The value is bound to no runtime, so it may live in a `static` that the tests
/// of one executable share; as statics are never dropped, the end of the
/// process is then what stops it.
#[derive(Debug)]
pub struct ControlPlane {
    link: Arc<Mutex<Link>>,
    state: Mutex<State>,
    start_timeout: Duration,
    folder: PathBuf,
    url: String,
    kubeconfig: PathBuf,
    token: Token,
    ca_pem: String,
    audit_log: Option<PathBuf>,
}

impl ControlPlane {
    /// Finds or builds what is needed, starts the servers on free ports of
    /// 127.0.0.1, and waits until they are ready.
    ///
    /// # Errors
    /// Go is missing, a build fails, a server does not become ready (the end of
    /// its log is in the message), or the name is taken.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let start_timeout = options.start_timeout;
        let (program, spec) = options.spec(false).await?;
        let (link, state) = blocking(move || {
            let mut link = Link::open(&program, &spec, None)?;
            let state = link.receive(spec.start_timeout + ANSWER_MARGIN)?;
            Ok((link, state))
        })
        .await?;
        let read = |name: &str| {
            let path = state.folder.join(name);
            fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
        };
        Ok(Self {
            link: Arc::new(Mutex::new(link)),
            start_timeout,
            folder: state.folder.clone(),
            url: state.url.clone(),
            kubeconfig: state.kubeconfig(),
            token: Token::read(&state.folder.join("admin-token"))?,
            ca_pem: read("ca.crt")?,
            audit_log: state.audited.then(|| state.folder.join(AUDIT_LOG)),
            state: Mutex::new(state),
        })
    }

    /// Base URL of the apiserver, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kubeconfig of an administrator, with token and certificate embedded.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's bearer token (user `admin`, group `system:masters`).
    pub fn admin_token(&self) -> &Token {
        &self.token
    }

    /// Certificate of the authority that signed the apiserver's, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The audit log, one JSON event a line, if one was asked for. The
    /// controllers' requests are those of user `system:kube-controller-manager`.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    /// Folder of keys, data and logs, removed when the control plane stops.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of one server.
    pub fn log(&self, server: Server) -> PathBuf {
        crate::protocol::log_in(&self.folder, server)
    }

    /// Process ids as of the last order: a server that crashed since then still
    /// shows its old one.
    pub fn pids(&self) -> Pids {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pids
    }

    /// Stops the apiserver with SIGTERM, and SIGKILL after 10 s. The others go on.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn stop_apiserver(&self) -> Result<(), Error> {
        self.stop_server(Server::Apiserver).await
    }

    /// Starts the apiserver again, on the port and with the data it had, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// It runs already, or does not become ready.
    pub async fn start_apiserver(&self) -> Result<(), Error> {
        self.start_server(Server::Apiserver).await
    }

    /// Stops one server with SIGTERM, and SIGKILL after 10 s.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn stop_server(&self, server: Server) -> Result<(), Error> {
        self.order(Command::Stop(server)).await
    }

    /// Kills one server with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn kill_server(&self, server: Server) -> Result<(), Error> {
        self.order(Command::Kill(server)).await
    }

    /// Starts a stopped or crashed server again, on the port and with the data
    /// it had, and waits until it is ready.
    ///
    /// # Errors
    /// It runs already, or does not become ready.
    pub async fn start_server(&self, server: Server) -> Result<(), Error> {
        self.order(Command::Start(server)).await
    }

    /// Stops all servers and removes their folder. The same happens on drop,
    /// where it blocks the thread and its failure goes unseen.
    ///
    /// # Errors
    /// The supervisor had to be killed.
    pub async fn stop(self) -> Result<(), Error> {
        let link = Arc::clone(&self.link);
        blocking(move || lock(&link).close()).await
    }

    async fn order(&self, command: Command) -> Result<(), Error> {
        let link = Arc::clone(&self.link);
        let timeout = self.start_timeout + ANSWER_MARGIN;
        let state = blocking(move || {
            let mut link = lock(&link);
            link.send(&command)?;
            link.receive(timeout)
        })
        .await?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }
}

fn lock(link: &Mutex<Link>) -> std::sync::MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a control plane that outlives this process and ends at the latest
/// after [`Options::lifetime`]. [`registry::stop`](crate::registry::stop) ends
/// it; [`registry::running`](crate::registry::running) lists it.
///
/// # Errors
/// As [`ControlPlane::start`].
pub async fn start_detached(options: Options) -> Result<State, Error> {
    let (program, spec) = options.spec(true).await?;
    blocking(move || {
        let path = detached_log(&spec.id)?;
        let log = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
        let mut link = Link::open(&program, &spec, Some(log))?;
        let state = link.receive(spec.start_timeout + ANSWER_MARGIN)?;
        eprintln!(
            "supervisor's log: {}; ends after {} at the latest",
            path.display(),
            human(spec.lifetime)
        );
        link.leave();
        Ok(state)
    })
    .await
}

/// Runs what blocks outside of the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|join| Error::Io {
            what: "run a blocking task".into(),
            source: io::Error::other(join),
        })?
}
