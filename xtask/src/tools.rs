//! Programs from crates.io that tasks run: built once, at a pinned version, into the cache folder.

use std::{fs, path::PathBuf};

use control_plane::cache;

use crate::progress::{Failure, cargo, step};

/// A program of a crate.
pub(crate) struct Tool {
    /// The crate's name, which is the program's.
    pub(crate) name: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
    /// What of it is needed, as `cargo install` takes it.
    pub(crate) features: &'static [&'static str],
}

impl Tool {
    /// The program; built first where it is not yet.
    pub(crate) fn install(&self) -> Result<PathBuf, Failure> {
        let Self { name, version, .. } = self;
        let folder = cache::folder()?.join("tools").join(format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        if !program.is_file() {
            // A target folder of its own: a long build in the project's would hold up every other cargo there. Cargo
            // moves the finished program as a whole.
            let target = folder.join("target");
            step(
                &format!("install-{name}"),
                cargo()
                    .args(["install", "--quiet", "--locked", "--no-default-features"])
                    .args(self.features)
                    .arg(format!("{name}@{version}"))
                    .arg("--root")
                    .arg(&folder)
                    .env("CARGO_TARGET_DIR", &target),
            )?;
            fs::remove_dir_all(&target)?;
        }
        Ok(program)
    }
}
