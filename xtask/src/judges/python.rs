//! Python programs of others: each in an environment of its own in the cache folder.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use control_plane::cache;

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
        let mut child = Command::new(&self.python)
            // Neither the user's packages nor variables, which could be others.
            .args(["-I", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        // Beside the reading: both pipes are shorter than what goes through them.
        let writing = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output()?;
        let _ = writing.join();
        if !output.status.success() {
            return Err(Failure::new(format!(
                "the judge's program ended with {}",
                output.status
            )));
        }
        String::from_utf8(output.stdout).map_err(Into::into)
    }
}
