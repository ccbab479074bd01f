//! Where `promtool` and `prometheus` come from: the `PATH`, or Debian's package, unpacked into the cache folder and
//! not installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::cache;

use crate::progress::{Failure, step};

/// The two programs.
pub(super) struct Tools {
    /// Checks rules and pages of metrics.
    pub(super) promtool: PathBuf,
    /// The server.
    pub(super) prometheus: PathBuf,
}

/// Those on the `PATH` if both are, or else those of the package. The inner error says what is missing here.
pub(super) fn tools() -> Result<Result<Tools, String>, Failure> {
    if let (Some(promtool), Some(prometheus)) = (on_path("promtool"), on_path("prometheus")) {
        return Ok(Ok(Tools { promtool, prometheus }));
    }
    let folder = cache::folder()?.join("judges").join("prometheus");
    let complete = folder.join("complete");
    if !complete.is_file() {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        if let Err(failure) = unpack(&folder) {
            return Ok(Err(format!(
                "promtool and prometheus are needed on the PATH, or Debian's package `prometheus` in reach of apt-get (`apt-get update` \
                 where its lists are empty): {failure}"
            )));
        }
        fs::write(&complete, "")?;
    }
    let programs = folder.join("root/usr/bin");
    Ok(Ok(Tools {
        promtool: programs.join("promtool"),
        prometheus: programs.join("prometheus"),
    }))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn unpack(folder: &Path) -> Result<(), Failure> {
    step(
        "apt-get-download",
        Command::new("apt-get")
            .args(["download", "--quiet", "prometheus"])
            .current_dir(folder),
    )?;
    for file in fs::read_dir(folder)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let mut unpacking = Command::new("dpkg-deb");
            unpacking.arg("--extract").arg(&file).arg(folder.join("root"));
            step("dpkg-deb-extract", &mut unpacking)?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}
