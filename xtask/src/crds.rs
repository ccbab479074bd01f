//! `cargo xtask crds`: writes `crds/` and `docs/reference.md` anew from `src/api`.

use crate::progress::{Failure, cargo, step};

/// Arguments of `crds`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Lets the test that compares the files with the code write them.
pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    step(
        "crds",
        cargo()
            .args([
                "test",
                "--quiet",
                "--package",
                "webhook-operator",
                "--test",
                "crd_files",
            ])
            .env("UPDATE_CRDS", "1"),
    )
}
