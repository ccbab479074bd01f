//! Python programs of others: each in an environment of its own in the cache folder.

use std::{fs, path::PathBuf, process::Command};

use control_plane::cache;

use super::run_with_input;
use crate::progress::{Failure, step};

/// An environment with packages of PyPI.
pub(super) struct Environment {
    python: PathBuf,
}

impl Environment {
    /// The environment of this name, made where it is missing; the name has to change with the packages. The inner
    /// error says what is missing here.
    pub(super) fn new(name: &str, packages: &[&str]) -> Result<Result<Self, String>, Failure> {
        let folder = cache::folder()?.join("judges").join(name);
        let python = folder.join("bin").join("python");
        let complete = folder.join("complete");
        if complete.is_file() {
            return Ok(Ok(Self { python }));
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let made = step(
            "python-environment",
            Command::new("python3").args(["-m", "venv"]).arg(&folder),
        );
        if let Err(failure) = made {
            return Ok(Err(format!(
                "Python 3 with its module venv is needed (Debian: python3-venv): {failure}"
            )));
        }
        let installed = step(
            "pip-install",
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(packages),
        );
        if let Err(failure) = installed {
            return Ok(Err(format!(
                "PyPI has to be in reach to install {}: {failure}",
                packages.join(", ")
            )));
        }
        fs::write(&complete, packages.join("\n"))?;
        Ok(Ok(Self { python }))
    }

    /// Runs a program text with `input`; returns what it prints.
    pub(super) fn run(&self, program: &str, input: String) -> Result<String, Failure> {
        run_with_input(
            // Neither the user's packages nor variables, which could be others.
            Command::new(&self.python).args(["-I", "-c", program]),
            input,
        )
    }
}
