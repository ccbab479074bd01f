//! Go programs of others, built into the cache folder: of a module in the checkout, or of one that is published.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::cache;
use serde_json::Value;

use super::run_with_input;
use crate::progress::{Failure, root, step};

/// What to do where a Go program cannot be had.
const NEEDED: &str = "Go 1.26 or newer is needed, and a Go module proxy in reach";

/// A program that was built.
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// The program of the module in this folder of the checkout; Go knows what of it is built already. The inner
    /// error says what is missing here.
    pub(super) fn new(name: &str, module: &str) -> Result<Result<Self, String>, Failure> {
        Self::of_package(name, module, ".")
    }

    /// A program that the module in this folder of the checkout only requires, by the path of its package: one that
    /// `go install` refuses.
    pub(super) fn of_package(
        name: &str,
        module: &str,
        package: &str,
    ) -> Result<Result<Self, String>, Failure> {
        let module = root().join(module);
        let folder = cache::folder()?.join("judges").join(name);
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        let fetched = step(
            "go-mod-download",
            go().args(["mod", "download"]).current_dir(&module),
        );
        if let Err(failure) = fetched {
            return Ok(Err(format!("{NEEDED}: {failure}")));
        }
        step(
            &format!("go-build-{name}"),
            go().args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"])
                .arg(&path)
                .arg(package)
                .current_dir(&module),
        )?;
        Ok(Ok(Self { path }))
    }

    /// A published program: the last name of this package, of this version of its module. Built once for a version.
    /// The inner error says what is missing here.
    pub(super) fn published(package: &str, version: &str) -> Result<Result<Self, String>, Failure> {
        let name = Path::new(package)
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or(package);
        let folder = cache::folder()?.join("judges").join(format!("{name}-{version}"));
        let path = folder.join(name);
        if path.is_file() {
            return Ok(Ok(Self { path }));
        }
        fs::create_dir_all(&folder)?;
        // Moved once complete, so that a build that was cut short is never taken for one.
        let part = tempfile::Builder::new().prefix(".part-").tempdir_in(&folder)?;
        let installed = step(
            &format!("go-install-{name}"),
            go().args(["install", "-trimpath"])
                .arg(format!("{package}@{version}"))
                .env("GOBIN", part.path())
                .current_dir(&folder),
        );
        if let Err(failure) = installed {
            return Ok(Err(format!("{NEEDED}: {failure}")));
        }
        fs::rename(part.path().join(name), &path)?;
        Ok(Ok(Self { path }))
    }

    /// The executable.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it with `input`; returns what it prints.
    pub(super) fn run(&self, input: String) -> Result<String, Failure> {
        run_with_input(&mut Command::new(&self.path), input)
    }
}

/// The folder of a published module's files. The inner error says what is missing here.
pub(super) fn module_files(module: &str, version: &str) -> Result<Result<PathBuf, String>, Failure> {
    let answer = go()
        .args(["mod", "download", "-json"])
        .arg(format!("{module}@{version}"))
        .current_dir(cache::folder()?)
        .output();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(format!("{NEEDED}: cannot run go: {error}"))),
    };
    // Where it cannot be had, Go says so in the same form.
    let told: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    let text = |name: &str| told.get(name).and_then(Value::as_str);
    Ok(text("Dir").map(PathBuf::from).ok_or_else(|| {
        let why = text("Error").map_or_else(
            || String::from_utf8_lossy(&answer.stderr).trim().to_owned(),
            str::to_owned,
        );
        format!("{NEEDED}: {why}")
    }))
}

/// Go with no other tool chain, no workspace around the module, no C compiler.
fn go() -> Command {
    let mut go = Command::new("go");
    go.env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    go
}
