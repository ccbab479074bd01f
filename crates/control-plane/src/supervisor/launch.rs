//! Finds the supervisor's executable and starts it.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::{
    Error, cache,
    protocol::{Answer, FINGERPRINT, Spec},
};

/// File name of the supervisor's own executable.
const EXECUTABLE: &str = "control-plane-supervisor";

/// Longest wait for the supervisor to stop everything.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Which executable the supervisor is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Launcher {
    /// `control-plane-supervisor`, beside the running executable or one folder
    /// above it, where cargo puts it; built with cargo where it is missing or
    /// was built from other sources. For tests.
    #[default]
    Executable,
    /// The running executable itself, called with these words, which must lead
    /// to [`main`](super::main) with the words after them. For tools.
    Myself(Vec<String>),
}

impl Launcher {
    /// The program, and the words that come before the supervisor's own.
    pub(crate) fn resolve(&self) -> Result<(PathBuf, Vec<String>), Error> {
        let me = env::current_exe().map_err(Error::io("find the running executable"))?;
        match self {
            Launcher::Myself(words) => Ok((me, words.clone())),
            Launcher::Executable => {
                let beside = me
                    .ancestors()
                    .skip(1)
                    .take(2)
                    .map(|folder| folder.join(EXECUTABLE));
                let program = match beside.into_iter().find(|program| fits(program)) {
                    Some(program) => program,
                    None => build()?,
                };
                Ok((program, Vec::new()))
            }
        }
    }
}

/// Whether a supervisor was built from the sources of this library.
fn fits(program: &Path) -> bool {
    let output = Command::new(program)
        .arg("fingerprint")
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == FINGERPRINT)
}

/// Has cargo build the supervisor; tells where it is.
fn build() -> Result<PathBuf, Error> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--message-format=json-render-diagnostics",
            "--bin",
            EXECUTABLE,
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Error::NoSupervisor(format!("cannot run cargo: {error}")))?;
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == EXECUTABLE));
    match built {
        Some(program) if fits(&program) => Ok(program),
        Some(program) => Err(Error::NoSupervisor(format!("{} does not fit", program.display()))),
        None => Err(Error::NoSupervisor(format!(
            "cargo build ended with {}",
            output.status
        ))),
    }
}

/// The caller's end of the pipes to a supervisor. Dropping it closes them, which
/// ends an attached supervisor; the process is then waited for.
#[derive(Debug)]
pub(crate) struct Link {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<Answer>,
}

impl Link {
    /// Starts a supervisor and hands it its spec. What it reports goes to `log`,
    /// or to standard error.
    pub(crate) fn open(program: &Path, spec: &Spec, log: Option<File>) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .args(&spec.prefix)
            .args(["serve", &spec.id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.map_or_else(Stdio::inherit, Stdio::from))
            .spawn()
            .map_err(Error::io(format!("start {}", program.display())))?;
        let (answer, answers) = mpsc::channel();
        let out = child.stdout.take();
        // Its own thread, so that waiting for an answer can end.
        thread::spawn(move || {
            for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
                let Some(parsed) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else {
                    return;
                };
                if answer.send(parsed).is_err() {
                    return;
                }
            }
        });
        let orders = child.stdin.take();
        let mut link = Self {
            child,
            orders,
            answers,
        };
        link.send(spec)?;
        Ok(link)
    }

    /// Sends one line.
    pub(crate) fn send(&mut self, message: &impl serde::Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_string(message).map_err(|bad| Error::Servers(bad.to_string()))?;
        line.push('\n');
        let orders = self
            .orders
            .as_mut()
            .ok_or_else(|| Error::Lost("was told to end".to_owned()))?;
        orders
            .write_all(line.as_bytes())
            .map_err(Error::io("write to the supervisor"))
    }

    /// Waits for one answer.
    pub(crate) fn receive(&mut self, timeout: Duration) -> Result<crate::State, Error> {
        match self.answers.recv_timeout(timeout) {
            Ok(Answer::Done(state)) => Ok(state),
            Ok(Answer::Failed(message)) => Err(Error::Servers(message)),
            Err(RecvTimeoutError::Timeout) => Err(Error::Lost(format!("gave no answer in {timeout:?}"))),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Lost("ended".to_owned())),
        }
    }

    /// Leaves a detached supervisor running.
    pub(crate) fn leave(mut self) {
        self.orders = None;
        // Not waited for: it outlives this process.
        std::mem::forget(self);
    }

    /// Ends the supervisor and waits for it; kills it after [`CLOSE_TIMEOUT`].
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.orders = None;
        let asked = std::time::Instant::now();
        while asked.elapsed() < CLOSE_TIMEOUT {
            if self
                .child
                .try_wait()
                .map_err(Error::io("wait for the supervisor"))?
                .is_some()
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let pid = self.child.id();
        let _ = self.child.kill();
        let _ = self.child.wait();
        Err(Error::WontStop {
            pid,
            waited: CLOSE_TIMEOUT,
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// The log of a detached supervisor.
pub(crate) fn detached_log(id: &str) -> Result<PathBuf, Error> {
    Ok(cache::folder()?.join("control-plane").join(format!("{id}.log")))
}
