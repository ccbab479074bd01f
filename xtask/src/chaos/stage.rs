//! The processes of a run: the operator, of which there are hundreds one after the other, and the apiserver.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use chaos::{Error, Life, Stage, vitals::Vitals};
use control_plane::Server;
use serde_json::Value;
use tokio::{process::Child, time::sleep};

use crate::{
    programs::{Programs, tied},
    progress::Failure,
    stand::{Memory, OPERATOR_NAMESPACE, START_LIMIT, Stand, pid_of},
};

/// Says in the log that the operator works.
const WORKING: &str = "caches are full";

/// Says in the log where it serves `/metrics`.
const SERVING: &str = "serving /livez";

/// How long the apiserver is away.
const AWAY: Duration = Duration::from_secs(2);

/// The processes.
pub(super) struct Processes<'a> {
    operator: PathBuf,
    stand: &'a Stand,
    /// All lives share one log.
    log: PathBuf,
    life: RefCell<Option<Running>>,
}

struct Running {
    child: Child,
    /// Where its part of the log begins.
    log_from: u64,
    /// Where it serves `/metrics`, once that was asked for.
    address: Option<String>,
}

impl<'a> Processes<'a> {
    /// None runs yet.
    pub(super) fn new(programs: &Programs, stand: &'a Stand, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join("operator.log");
        File::create(&log)?;
        Ok(Self {
            operator: programs.operator.clone(),
            stand,
            log,
            life: RefCell::new(None),
        })
    }

    /// Starts the operator. On the main thread, see [`tied`].
    pub(super) fn launch(&self) -> Result<(), Failure> {
        let log_from = fs::metadata(&self.log)?.len();
        let child = tied(&self.operator)
            .args(["run", "--allow-network", "127.0.0.1/32"])
            .args(["--http-addr", "127.0.0.1:0", "--leader-elect", "false"])
            .args(["--lease-namespace", OPERATOR_NAMESPACE, "--log-format", "json"])
            .env("KUBECONFIG", self.stand.operator_kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().append(true).open(&self.log)?)
            .kill_on_drop(true)
            .spawn()?;
        self.life.replace(Some(Running {
            child,
            log_from,
            address: None,
        }));
        Ok(())
    }

    /// Ends the operator, if it runs.
    pub(super) async fn end(&self) -> Result<(), Failure> {
        let running = self.life.take();
        if let Some(mut running) = running {
            running.child.kill().await?;
        }
        Ok(())
    }

    /// The part of the log that begins there; empty where it cannot be read.
    fn log_from(&self, log_from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(log_from))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Whether the life whose part of the log begins there came as far as working.
    fn works(&self, log_from: u64) -> bool {
        self.log_from(log_from).contains(WORKING)
    }

    /// Id of the process that runs, and where it serves `/metrics`.
    fn running(&self) -> Result<(u32, String), Error> {
        let lacks = |what: &str| Error::Stage(format!("the operator {what}"));
        let mut life = self.life.borrow_mut();
        let running = life.as_mut().ok_or_else(|| lacks("does not run"))?;
        if let Some(status) = running.child.try_wait().map_err(failed)? {
            return Err(lacks(&format!("ended by itself with {status}")));
        }
        let process = running.child.id().ok_or_else(|| lacks("does not run"))?;
        if running.address.is_none() {
            running.address = serving(&self.log_from(running.log_from));
        }
        let address = running.address.clone();
        Ok((
            process,
            address.ok_or_else(|| lacks("does not say where it serves"))?,
        ))
    }
}

/// The address that the log tells.
fn serving(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(SERVING))?;
    let line: Value = serde_json::from_str(line).ok()?;
    let address = line.pointer("/fields/address").or_else(|| line.get("address"))?;
    address.as_str().map(str::to_owned)
}

fn failed(failure: impl Into<Failure>) -> Error {
    Error::Stage(failure.into().to_string())
}

impl Stage for Processes<'_> {
    async fn start(&self) -> Result<(), Error> {
        self.launch().map_err(failed)
    }

    async fn kill(&self) -> Result<Life, Error> {
        let running = self.life.take();
        let mut running = running.ok_or_else(|| Error::Stage("the operator does not run".to_owned()))?;
        if let Some(status) = running.child.try_wait().map_err(failed)? {
            return Err(Error::Stage(format!(
                "the operator ended by itself with {status}"
            )));
        }
        let peak_kib = pid_of(&running.child)
            .and_then(Memory::of)
            .map_or(0, |memory| memory.peak);
        running.child.kill().await.map_err(failed)?;
        let worked = self.works(running.log_from);
        Ok(Life { peak_kib, worked })
    }

    async fn working(&self) -> Result<(), Error> {
        let began = Instant::now();
        let log_from = self.life.borrow().as_ref().map_or(0, |running| running.log_from);
        while !self.works(log_from) {
            if began.elapsed() > START_LIMIT {
                return Err(Error::Stage(
                    "the operator does not come as far as working".to_owned(),
                ));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn vitals(&self) -> Result<Vitals, Error> {
        let (process, address) = self.running()?;
        let page = reqwest::get(format!("http://{address}/metrics"))
            .await
            .map_err(failed)?;
        Vitals::of(process, &page.text().await.map_err(failed)?)
    }

    async fn restart_apiserver(&self, crash: bool) -> Result<(), Error> {
        let plane = self.stand.plane();
        let ended = if crash {
            plane.kill_server(Server::Apiserver).await
        } else {
            plane.stop_apiserver().await
        };
        ended.map_err(failed)?;
        sleep(AWAY).await;
        plane.start_apiserver().await.map_err(failed)
    }

    fn tell(&self, text: &str) {
        eprintln!("  {text}");
    }
}
