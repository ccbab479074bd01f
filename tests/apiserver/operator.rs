//! The operator as users run it: the real executable as a process of its own, its log in a file.
//!
//! A process ends with the [`Operator`] that holds it, and with this process in whatever way that ends: a small
//! watchdog waits on a pipe which only this process holds open. What is asked of the operator is in `world.rs`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

use crate::{harness::operated, identity::Identity};

/// Longest wait for the operator to have its caches full.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of a log goes into a failure message.
const TAIL_LINES: usize = 60;

/// Age at which logs of earlier runs are removed.
const LOG_AGE: Duration = Duration::from_secs(60 * 60);

static SHARED: OnceCell<Arc<Operator>> = OnceCell::const_new();
static LOGS: AtomicU32 = AtomicU32::new(0);

/// Says in the log that the operator works.
const WORKING: &str = "caches are full; working";

/// Says in the log that the operator answers, working or on standby.
const SERVING: &str = "serving /livez";

/// What every test wants unless it says otherwise.
const DEFAULTS: [(&str, &str); 4] = [
    ("--allow-network", "127.0.0.0/8"),
    ("--http-addr", "127.0.0.1:0"),
    ("--leader-elect", "false"),
    ("--log-filter", "debug"),
];

/// An operator that can be stopped and started again with the same arguments. All its lives share one log.
pub(crate) struct Operator {
    identity: Identity,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    life: Mutex<Option<Life>>,
}

/// One process.
struct Life {
    child: Child,
    watchdog: Child,
    /// Where its part of the log begins.
    log_from: u64,
}

impl Drop for Life {
    fn drop(&mut self) {
        // The watchdog first: it must not kill by an id that may belong to somebody else by then.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The operator of the control plane [`operated`], in cluster mode and with the rights for that, shared by all tests of this executable.
pub(crate) async fn shared() -> Arc<Operator> {
    let start = || async {
        let identity = Identity::of_the_cluster(operated().await).await;
        Operator::start(&identity, &[]).await
    };
    Arc::clone(SHARED.get_or_init(start).await)
}

impl Operator {
    /// Starts one with these arguments. Those that it does not name are as every test wants them: loopback allowed,
    /// any port, no leader election, a verbose log. `NAME=value` sets a variable of its environment.
    pub(crate) async fn start(identity: &Identity, args: &[&str]) -> Arc<Self> {
        let operator = Self::prepare(identity, args);
        operator.go().await;
        operator
    }

    /// The same, without waiting until it works: with leader election it may not for long.
    pub(crate) async fn standby(identity: &Identity, args: &[&str]) -> Arc<Self> {
        let operator = Self::prepare(identity, args);
        operator.spawn();
        operator.wait_for_log(SERVING).await;
        operator
    }

    fn prepare(identity: &Identity, args: &[&str]) -> Arc<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&folder).expect("make the folder for logs");
        remove_old_logs(&folder);
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        let log = folder.join(format!("operator-{}-{number}.log", std::process::id()));
        File::create(&log).expect("make a log");
        let (variables, args): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| variable(arg).is_some());
        let defaults = DEFAULTS.iter().filter(|(name, _)| !args.contains(name));
        let defaults = defaults.flat_map(|(name, value)| [*name, *value]);
        let all = ["run"].into_iter().chain(defaults).chain(args.iter().copied());
        Arc::new(Self {
            identity: identity.clone(),
            args: all.map(str::to_owned).collect(),
            variables: variables.into_iter().filter_map(variable).collect(),
            log,
            life: Mutex::new(None),
        })
    }

    /// Starts the process; there must be none.
    pub(crate) async fn go(&self) {
        self.spawn();
        self.wait_until_working().await;
    }

    /// Waits until it works: leads, if it takes part in an election, and has its caches full.
    pub(crate) async fn wait_until_working(&self) {
        self.wait_for_log(WORKING).await;
    }

    /// One that is not started yet.
    pub(crate) fn unstarted(identity: &Identity, args: &[&str]) -> Arc<Self> {
        Self::prepare(identity, args)
    }

    /// Starts the process and waits for nothing; there must be none.
    pub(crate) fn launch(&self) {
        self.spawn();
    }

    /// The same with a limit of the memory that it may write to, in KiB: what goes beyond it is refused.
    pub(crate) fn launch_within(&self, kib: u64) {
        self.spawn_within(Some(kib));
    }

    /// How the process ended by itself, if it did.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let life = life.as_mut()?;
        life.child.try_wait().expect("look at the operator")
    }

    /// Whether it works.
    pub(crate) fn works(&self) -> bool {
        self.log_of_this_life().contains(WORKING)
    }

    async fn wait_for_log(&self, text: &str) {
        let began = Instant::now();
        while !self.log_of_this_life().contains(text) {
            assert!(
                began.elapsed() < START_TIMEOUT,
                "the operator does not say {text:?} after {START_TIMEOUT:?}:\n{}",
                self.log_tail("")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn spawn(&self) {
        self.spawn_within(None);
    }

    fn spawn_within(&self, kib: Option<u64>) {
        let log_from = fs::metadata(&self.log).expect("look at the log").len();
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(life.is_none(), "it runs already");
        *life = Some(self.process(log_from, kib));
    }

    fn process(&self, log_from: u64, kib: Option<u64>) -> Life {
        let log = File::options()
            .append(true)
            .open(&self.log)
            .expect("open the log");
        let executable = env!("CARGO_BIN_EXE_webhook-operator");
        let mut command = match kib {
            None => Command::new(executable),
            Some(kib) => {
                let mut shell = Command::new("sh");
                let script = r#"ulimit -d "$0" && exec "$@""#;
                shell.args(["-c", script, &kib.to_string(), executable]);
                shell
            }
        };
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            if known.starts_with("WEBHOOK_OPERATOR_") || known.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let mut child = command
            .args(&self.args)
            .envs(variables)
            .env("KUBECONFIG", self.identity.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the operator");
        let watchdog = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\"", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Life {
                child,
                watchdog,
                log_from,
            },
            Err(error) => {
                let _ = child.kill();
                panic!("start the watchdog: {error}");
            }
        }
    }

    /// Ends the process as a crash of the node would: by SIGKILL.
    pub(crate) fn kill(&self) {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner).take();
        assert!(life.is_some(), "it does not run");
    }

    /// Ends the process as Kubernetes does: by SIGTERM. Waits for its end.
    pub(crate) async fn terminate(&self, limit: Duration) -> ExitStatus {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut life = life.expect("it runs");
        send_signal(&life.child, "TERM");
        let began = Instant::now();
        loop {
            if let Some(status) = life.child.try_wait().expect("wait for the operator") {
                return status;
            }
            assert!(
                began.elapsed() < limit,
                "the operator did not end:\n{}",
                self.log_tail("")
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Id of the process.
    pub(crate) fn process_id(&self) -> u32 {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        life.as_ref().expect("it runs").child.id()
    }

    /// Freezes the process: it does nothing until [`Self::thaw`], and notices nothing of it but the time.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        send_signal(&life.as_ref().expect("it runs").child, name);
    }

    /// SIGKILL, and a new process.
    pub(crate) async fn crash_and_restart(&self) {
        self.kill();
        self.go().await;
    }

    /// Who it is at the apiserver.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Path of the log, JSON lines, of all its lives.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// The whole log, of all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("read the log")).into_owned()
    }

    fn log_of_this_life(&self) -> String {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let from = life.as_ref().map_or(0, |life| life.log_from);
        let log = fs::read(&self.log).expect("read the log");
        let from = usize::try_from(from).expect("a log that fits into memory");
        String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log that contain `text`.
    pub(crate) fn log_tail(&self, text: &str) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Address of `/livez`, `/readyz` and `/metrics`, as the log of this life tells it.
    pub(crate) fn address(&self) -> String {
        let log = self.log_of_this_life();
        let line = log.lines().find(|line| line.contains(SERVING));
        let line: Value =
            serde_json::from_str(line.expect("it says where it serves")).expect("a line of JSON");
        let address = line.pointer("/fields/address").or_else(|| line.get("address"));
        address
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no address: {line}"))
            .to_owned()
    }

    /// What `/metrics` says now.
    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = self.ask("/metrics").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Status and body of one of the paths that it serves.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address())
            .await
            .expect("connect to the operator");
        let request = format!("GET {path} HTTP/1.0\r\nhost: operator\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("ask the operator");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read its answer");
        let answer = String::from_utf8(answer).expect("it answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }
}

/// `NAME=value`, as in a shell; the name in capitals.
fn variable(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let capitals = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    capitals.then(|| (name.to_owned(), value.to_owned()))
}

fn send_signal(to: &Child, name: &str) {
    let told = Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$0\"", &to.id().to_string(), name])
        .status();
    assert!(told.expect("send a signal").success());
}

fn remove_old_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| {
                SystemTime::now()
                    .duration_since(modified)
                    .is_ok_and(|age| age > LOG_AGE)
            });
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if old && name.starts_with("operator-") && name.ends_with(".log") {
            // Another run may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
}
