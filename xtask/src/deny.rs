//! `cargo xtask deny`: what may be linked into the operator, by `deny.toml`.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control_plane::progress::Task;

use crate::{
    progress::{Failure, root, step},
    tools::Tool,
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    features: &[],
};
/// Longest wait for the advisory database.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Checks bans, licences and sources; advisories too where their database can
/// be had.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    let tool = CARGO_DENY.install()?;
    step("deny", deny(&tool).args(["check", "bans", "licenses", "sources"]))?;
    match fetch_advisories(&tool)? {
        None => step(
            "advisories",
            // The database has just been fetched; the registry's index is there since the build.
            deny(&tool).args(["--offline", "check", "advisories"]),
        ),
        Some(why) => {
            eprintln!("== advisories: SKIPPED, their database is out of reach: {why}");
            Ok(())
        }
    }
}

fn deny(tool: &Path) -> Command {
    let mut command = Command::new(tool);
    command
        .args(["--all-features", "--log-level", "error"])
        .current_dir(root());
    command
}

/// Fetches the advisory database; tells why where that fails.
fn fetch_advisories(tool: &Path) -> Result<Option<String>, Failure> {
    let task = Task::silent("== fetching the advisory database", "fetch-advisories");
    let mut fetch = deny(tool)
        .args(["fetch", "db"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let asked = Instant::now();
    while fetch.try_wait()?.is_none() {
        if asked.elapsed() > FETCH_TIMEOUT {
            fetch.kill()?;
            fetch.wait()?;
            task.given_up();
            return Ok(Some(format!("no answer in {} s", FETCH_TIMEOUT.as_secs())));
        }
        thread::sleep(Duration::from_millis(100));
    }
    let output = fetch.wait_with_output()?;
    if output.status.success() {
        task.done();
        return Ok(None);
    }
    task.given_up();
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Some(
        said.trim().lines().last().unwrap_or("no reason given").to_owned(),
    ))
}
