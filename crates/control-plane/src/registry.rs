//! Which control planes run on this machine for this user, and what is left of
//! those whose supervisor was killed.
//!
//! One pair of files per control plane in the cache folder: `ID.lock`, locked by
//! the supervisor for as long as it lives, and `ID.json`, its [`State`]. A lock
//! that can be taken proves that the supervisor is gone, whatever its process
//! id is used for by now. No secret is written there.

use std::{
    fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{Error, State, cache};

/// How long a supervisor may take to stop everything, before [`stop`] gives up.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

fn folder() -> Result<PathBuf, Error> {
    let folder = cache::folder()?.join("control-plane").join("running");
    fs::create_dir_all(&folder).map_err(Error::io(format!("create {}", folder.display())))?;
    Ok(folder)
}

/// Control planes whose supervisor is alive, in the order of their names. What
/// others left behind is cleared away first.
///
/// # Errors
/// The cache folder cannot be read.
pub fn running() -> Result<Vec<State>, Error> {
    let folder = folder()?;
    let _one_at_a_time = lock_all(&folder)?;
    sweep(&folder)
}

fn sweep(folder: &Path) -> Result<Vec<State>, Error> {
    let mut states = Vec::new();
    for id in ids(folder)? {
        if is_stale(folder, &id) {
            reap(folder, &id);
        } else if let Some(state) = read(folder, &id) {
            states.push(state);
        }
    }
    Ok(states)
}

/// Serialises claiming and clearing away: without it, one process could remove
/// the files of another that claims the same name at that moment.
fn lock_all(folder: &Path) -> Result<File, Error> {
    let path = folder.join("registry");
    let file = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
    file.lock()
        .map_err(Error::io(format!("lock {}", path.display())))?;
    Ok(file)
}

/// Stops the control plane named `id` and waits until it is gone.
///
/// # Errors
/// [`Error::NotRunning`], or [`Error::WontStop`] after 30 s.
pub async fn stop(id: &str) -> Result<State, Error> {
    let state = running()?.into_iter().find(|state| state.id == id);
    let state = state.ok_or_else(|| Error::NotRunning(id.to_owned()))?;
    // The process id is taken from a file: make sure it is the supervisor's.
    if !command_line_has(state.pids.supervisor, id) {
        return Err(Error::NotRunning(id.to_owned()));
    }
    signal(state.pids.supervisor, Signal::TERM);
    let asked = Instant::now();
    while asked.elapsed() < STOP_TIMEOUT {
        if !running()?
            .iter()
            .any(|other| other.id == id && other.pids == state.pids)
        {
            // Nobody asks why a control plane ended that was told to.
            let _ = crate::supervisor::launch::detached_log(id).map(fs::remove_file);
            return Ok(state);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Error::WontStop {
        pid: state.pids.supervisor,
        waited: STOP_TIMEOUT,
    })
}

/// A supervisor's own entry. Dropping it removes the files.
#[derive(Debug)]
pub(crate) struct Entry {
    folder: PathBuf,
    id: String,
    // Held for the lock on it.
    _lock: File,
}

impl Entry {
    /// Claims a name, after clearing away what killed supervisors left.
    pub(crate) fn claim(id: &str) -> Result<Self, Error> {
        let folder = folder()?;
        let _one_at_a_time = lock_all(&folder)?;
        sweep(&folder)?;
        let path = folder.join(format!("{id}.lock"));
        let lock = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
        lock.try_lock()
            .map_err(|_| Error::AlreadyRunning(id.to_owned()))?;
        Ok(Self {
            folder,
            id: id.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        let path = self.folder.join(format!("{}.json", self.id));
        serde_json::to_vec_pretty(state)
            .map_err(io::Error::from)
            .and_then(|bytes| cache::write_atomically(&path, &bytes))
            .map_err(Error::io(format!("write {}", path.display())))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _one_at_a_time = lock_all(&self.folder);
        remove(&self.folder, &self.id);
    }
}

fn remove(folder: &Path, id: &str) {
    let _ = fs::remove_file(folder.join(format!("{id}.json")));
    let _ = fs::remove_file(folder.join(format!("{id}.lock")));
}

fn ids(folder: &Path) -> Result<Vec<String>, Error> {
    let listed = fs::read_dir(folder).map_err(Error::io(format!("list {}", folder.display())))?;
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut ids: Vec<String> = listed
        .filter_map(name)
        .filter_map(|name| name.strip_suffix(".lock").map(str::to_owned))
        .collect();
    ids.sort();
    Ok(ids)
}

fn read(folder: &Path, id: &str) -> Option<State> {
    serde_json::from_slice(&fs::read(folder.join(format!("{id}.json"))).ok()?).ok()
}

/// Whether nobody holds the lock any more.
fn is_stale(folder: &Path, id: &str) -> bool {
    match File::open(folder.join(format!("{id}.lock"))) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Kills the servers of a supervisor that is gone, and removes its folder.
fn reap(folder: &Path, id: &str) {
    if let Some(state) = read(folder, id) {
        // Every server has the folder among its arguments; a process id that was
        // given to another program meanwhile has not.
        let mark = state.folder.display().to_string();
        let ours: Vec<u32> = state
            .pids
            .servers()
            .filter(|pid| command_line_has(*pid, &mark))
            .collect();
        for pid in &ours {
            signal(*pid, Signal::KILL);
        }
        let asked = Instant::now();
        while ours.iter().any(|pid| command_line_has(*pid, &mark)) && asked.elapsed() < Duration::from_secs(2)
        {
            thread::sleep(Duration::from_millis(20));
        }
        if state.folder.join("kubeconfig").is_file() {
            // Only a folder that a supervisor made has that file.
            let _ = fs::remove_dir_all(&state.folder);
        }
    }
    remove(folder, id);
}

/// Whether a process runs that has `text` in its command line.
pub(crate) fn command_line_has(pid: u32, text: &str) -> bool {
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(_) if Path::new("/proc/self").exists() => return false,
        // No procfs: macOS and the BSDs.
        Err(_) => {
            let pid = pid.to_string();
            Command::new("ps")
                .args(["-o", "command=", "-p", &pid])
                .output()
                .map(|out| out.stdout)
                .unwrap_or_default()
        }
    };
    String::from_utf8_lossy(&line).contains(text)
}

/// Sends a signal; a process that is gone already needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process of this id exists, a zombie included.
pub fn is_alive(pid: u32) -> bool {
    pid_of(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::Pids;

    fn sleeper(mark: &str) -> Child {
        // Waits for a line that never comes, without a child of its own.
        let child = Command::new("sh")
            .args(["-c", "read line; :", mark])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // `spawn` returns while the kernel is still setting the new program up: for a moment it has no command line.
        let began = Instant::now();
        while !command_line_has(child.id(), mark) {
            assert!(began.elapsed() < Duration::from_secs(10), "sh did not start");
            thread::sleep(Duration::from_millis(1));
        }
        child
    }

    #[test]
    fn what_a_killed_supervisor_left_is_cleared_away_and_nothing_else() {
        let registry = tempfile::tempdir().unwrap();
        let folder = registry.path().join("control-plane-x");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("kubeconfig"), "").unwrap();
        let mut server = sleeper(&folder.display().to_string());
        let mut stranger = sleeper("another program, with a process id used again");
        let state = State {
            id: "x".to_owned(),
            url: String::new(),
            folder: folder.clone(),
            pids: Pids {
                etcd: Some(server.id()),
                apiserver: Some(stranger.id()),
                ..Pids::default()
            },
            ready: true,
            started: 0,
            lifetime: 1,
            audited: false,
            detached: false,
        };
        let lock = File::create(registry.path().join("x.lock")).unwrap();
        fs::write(
            registry.path().join("x.json"),
            serde_json::to_vec(&state).unwrap(),
        )
        .unwrap();

        lock.lock().unwrap();
        assert_eq!(
            sweep(registry.path()).unwrap().len(),
            1,
            "a locked entry is alive"
        );
        assert!(folder.exists());

        drop(lock);
        assert_eq!(sweep(registry.path()).unwrap().len(), 0);
        assert!(!folder.exists());
        assert_eq!(ids(registry.path()).unwrap(), Vec::<String>::new());
        assert!(!server.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger is left alone");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
