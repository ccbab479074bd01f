//! `cargo xtask deny`: what may be linked into the operator, by `deny.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control_plane::{cache, progress::Task};

use crate::progress::{Failure, cargo, root, step};

/// Version of cargo-deny, built from crates.io into the cache folder.
const VERSION: &str = "0.20.2";
/// Longest wait for the advisory database.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Checks bans, licences and sources; advisories too where their database can
/// be had.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    let tool = install()?;
    step("deny", deny(&tool).args(["check", "bans", "licenses", "sources"]))?;
    match fetch_advisories(&tool)? {
        None => step(
            "advisories",
            deny(&tool).args(["check", "--disable-fetch", "advisories"]),
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

fn install() -> Result<PathBuf, Failure> {
    let folder = cache::folder()?
        .join("tools")
        .join(format!("cargo-deny-{VERSION}"));
    let tool = folder.join("bin").join("cargo-deny");
    if !tool.is_file() {
        let package = format!("cargo-deny@{VERSION}");
        // A target folder of its own: a long build in the project's would hold up
        // every other cargo there. Cargo moves the finished executable as a whole.
        let target = folder.join("target");
        step(
            "install-cargo-deny",
            cargo()
                .args([
                    "install",
                    "--quiet",
                    "--locked",
                    "--no-default-features",
                    &package,
                    "--root",
                ])
                .arg(&folder)
                .env("CARGO_TARGET_DIR", &target),
        )?;
        fs::remove_dir_all(&target)?;
    }
    Ok(tool)
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
