//! The process that owns the servers.
//!
//! It reads its orders from standard input and ends when that closes, when it is
//! asked to by a signal, or when the longest lifetime is over, stopping the
//! servers in the right order and removing their folder. So a caller that is
//! killed leaves nothing behind: the kernel closes the pipe.
//!
//! Where the supervisor itself is killed, the kernel kills the servers (see
//! `servers.rs`); the folder is cleared away when the next one starts.

mod credentials;
pub(crate) mod launch;
pub(crate) mod servers;

use std::{
    env, fs,
    io::{self, BufRead, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{self, Instant},
};

use self::{credentials::Credentials, servers::Servers};
use crate::{
    Error, Pids, Server, State,
    protocol::{Answer, Command, FINGERPRINT, Spec},
    registry::Entry,
};

/// How often the supervisor looks whether a server ended by itself.
const WATCH: time::Duration = time::Duration::from_millis(200);

/// Entry point of the supervisor's executable, and of a tool that is its own
/// supervisor (see [`Launcher`](crate::Launcher)). `args` are the words after
/// the one that selects it. Must be called on the main thread, outside of any
/// runtime.
pub fn main(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        // Its errors went to the caller, who shows them.
        ["serve", _id] => {
            return if serve().is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        ["fingerprint"] => writeln!(io::stdout(), "{FINGERPRINT}").map_err(Error::io("write")),
        // Comes back only where the program cannot be executed.
        ["exec", parent, program, rest @ ..] => Err(servers::exec(parent, program, rest)),
        _ => Err(Error::Lost(
            "is started by the control-plane library, not by hand".to_owned(),
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Error> {
    // Out of the caller's session and group: Ctrl-C there reaches the caller,
    // whose end is noticed here, and the servers still stop in order.
    let _ = rustix::process::setsid();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread: the servers' parent, for the kernel, is the thread that started
    // them, and must live as long as this process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    runtime.block_on(async {
        let mut orders = Orders::listen()?;
        let outcome = supervise(&mut orders).await;
        if let Err(error) = &outcome {
            answer(&Answer::Failed(error.to_string()));
        }
        outcome
    })
}

async fn supervise(orders: &mut Orders) -> Result<(), Error> {
    let Some(spec) = orders.spec().await? else {
        return Ok(());
    };
    let entry = Entry::claim(&spec.id)?;
    let folder = tempfile::Builder::new()
        .prefix("control-plane-")
        // Keys, tokens and logs are for this user alone.
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(Error::io("create a folder for temporary files"))?;
    let mut plane = Plane::new(spec, entry, folder.path())?;
    let outcome = plane.run(orders).await;
    plane.servers.stop_all().await;
    if let (Err(error), true) = (&outcome, plane.state.ready) {
        // Nobody waits for an answer at this point.
        eprintln!("{error}");
    }
    // Before the registry's entry: who sees that gone finds everything gone.
    if outcome.is_err() && env::var_os("CONTROL_PLANE_KEEP").is_some() {
        eprintln!("logs are kept in {}", folder.keep().display());
    } else {
        drop(folder);
    }
    drop(plane);
    outcome
}

/// One control plane, as its supervisor sees it.
struct Plane {
    spec: Spec,
    entry: Entry,
    state: State,
    servers: Servers,
}

impl Plane {
    fn new(spec: Spec, entry: Entry, folder: &Path) -> Result<Self, Error> {
        // Resolved, because it is looked for in the servers' command lines.
        let folder = fs::canonicalize(folder).map_err(Error::io("resolve the temporary folder"))?;
        let credentials = Credentials::generate(&folder)?;
        let servers = Servers::new(&spec, &folder, credentials)?;
        let state = State {
            id: spec.id.clone(),
            url: String::new(),
            folder,
            pids: Pids {
                supervisor: std::process::id(),
                ..Pids::default()
            },
            ready: false,
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            lifetime: spec.lifetime.as_secs(),
            audited: spec.audit.is_some(),
            detached: spec.detached,
        };
        Ok(Self {
            spec,
            entry,
            state,
            servers,
        })
    }

    async fn run(&mut self, orders: &mut Orders) -> Result<(), Error> {
        let detached = self.spec.detached;
        self.note()?;
        tokio::select! {
            outcome = self.start() => outcome?,
            () = orders.gone(detached) => return Ok(()),
        }
        let end = Instant::now() + self.spec.lifetime;
        self.state.started = unix_now();
        self.state.ready = true;
        self.note()?;
        answer(&Answer::Done(self.state.clone()));
        let mut watch = time::interval(WATCH);
        loop {
            tokio::select! {
                order = orders.next(detached) => {
                    let Some(command) = order else { return Ok(()) };
                    tokio::select! {
                        outcome = self.obey(command) => answer(&outcome),
                        () = orders.gone(detached) => return Ok(()),
                    }
                }
                _ = watch.tick() => if self.servers.notice_exits() { self.note()? },
                () = time::sleep_until(end) => {
                    eprintln!("lifetime of {} s is over", self.spec.lifetime.as_secs());
                    return Ok(());
                }
            }
        }
    }

    /// Starts everything, in order, with other ports where one was taken.
    async fn start(&mut self) -> Result<(), Error> {
        let by = Instant::now() + self.spec.start_timeout;
        for server in [Server::Etcd, Server::Apiserver, Server::ControllerManager] {
            if server == Server::ControllerManager && self.spec.controller_manager.is_none() {
                continue;
            }
            self.servers.start(server, by).await?;
            self.note()?;
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command) -> Answer {
        let outcome = match command {
            Command::Stop(server) => {
                self.servers.stop(server).await;
                Ok(())
            }
            Command::Kill(server) => {
                self.servers.kill(server).await;
                Ok(())
            }
            Command::Start(server) => {
                self.servers
                    .restart(server, Instant::now() + self.spec.start_timeout)
                    .await
            }
        };
        match outcome.and_then(|()| self.note()) {
            Ok(()) => Answer::Done(self.state.clone()),
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// Writes the state down for other processes to find.
    fn note(&mut self) -> Result<(), Error> {
        self.state.url = self.servers.url();
        self.servers.fill(&mut self.state.pids);
        self.entry.write(&self.state)
    }
}

/// Orders from the caller, and the ways in which it says that it is over.
struct Orders {
    lines: mpsc::UnboundedReceiver<String>,
    ended: bool,
    signals: mpsc::UnboundedReceiver<()>,
}

impl Orders {
    fn listen() -> Result<Self, Error> {
        let (line, lines) = mpsc::unbounded_channel();
        // A thread of its own: a read of standard input cannot be called off, and
        // would hold up the end of the runtime.
        thread::spawn(move || {
            for text in io::stdin().lock().lines() {
                if text.is_err() || text.is_ok_and(|text| line.send(text).is_err()) {
                    return;
                }
            }
        });
        let (asked, signals) = mpsc::unbounded_channel();
        for kind in [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ] {
            let mut stream = signal(kind).map_err(Error::io("listen for signals"))?;
            let asked = asked.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && asked.send(()).is_ok() {} });
        }
        Ok(Self {
            lines,
            ended: false,
            signals,
        })
    }

    async fn spec(&mut self) -> Result<Option<Spec>, Error> {
        let Some(line) = self.lines.recv().await else {
            return Ok(None);
        };
        serde_json::from_str(&line)
            .map(Some)
            .map_err(|bad| Error::Servers(format!("bad orders: {bad}")))
    }

    /// The next order; `None` when there will be none.
    async fn next(&mut self, detached: bool) -> Option<Command> {
        loop {
            tokio::select! {
                line = self.lines.recv(), if !self.ended => match line {
                    None if !detached => return None,
                    None => self.ended = true,
                    Some(line) => match serde_json::from_str(&line) {
                        Ok(command) => return Some(command),
                        Err(bad) => answer(&Answer::Failed(format!("bad order: {bad}"))),
                    },
                },
                _ = self.signals.recv() => return None,
            }
        }
    }

    /// Returns when the caller is gone or asks for the end. A caller waits for
    /// each answer, so no order is lost here.
    async fn gone(&mut self, detached: bool) {
        while self.next(detached).await.is_some() {}
    }
}

/// Tells the caller, who may be gone already.
fn answer(answer: &Answer) {
    let mut out = io::stdout().lock();
    if let Ok(line) = serde_json::to_string(answer) {
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The path that a server is given, as text.
fn text(path: PathBuf) -> String {
    path.display().to_string()
}
