//! Go programs of others' libraries: the module stands in the checkout, what is built of it in the cache folder.

use std::{fs, path::PathBuf, process::Command};

use control_plane::cache;

use super::run_with_input;
use crate::progress::{Failure, root, step};

/// A program that was built.
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// The program of the module in this folder of the checkout; Go knows what of it is built already. The inner
    /// error says what is missing here.
    pub(super) fn new(name: &str, module: &str) -> Result<Result<Self, String>, Failure> {
        let module = root().join(module);
        let folder = cache::folder()?.join("judges").join(name);
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        let go = |arguments: &[&str]| {
            let mut go = Command::new("go");
            // No other tool chain, no workspace around the module, no C compiler.
            go.env("GOTOOLCHAIN", "local")
                .env("GOWORK", "off")
                .env("CGO_ENABLED", "0")
                .args(arguments)
                .current_dir(&module);
            go
        };
        let fetched = step("go-mod-download", &mut go(&["mod", "download"]));
        if let Err(failure) = fetched {
            return Ok(Err(format!(
                "Go 1.26 or newer is needed, and a Go module proxy in reach: {failure}"
            )));
        }
        step(
            "go-build",
            go(&["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"])
                .arg(&path)
                .arg("."),
        )?;
        Ok(Ok(Self { path }))
    }

    /// Runs it with `input`; returns what it prints.
    pub(super) fn run(&self, input: String) -> Result<String, Failure> {
        run_with_input(&mut Command::new(&self.path), input)
    }
}
