//! `cargo xtask explore`: every crash point of every operation, on virtual time.

use crate::progress::{Failure, cargo, step};

/// Arguments of `explore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed to the explorer, as in `cargo xtask explore -- --only ricloud/create`; `-- --help` shows all.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds the explorer and runs it. Its last line on standard output is all figures as JSON.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut explore = cargo();
    explore
        .args([
            "run",
            "--profile",
            "simulation",
            "-p",
            "simulation",
            "--bin",
            "explore",
            "--",
        ])
        .args(&args.rest);
    step("explore", &mut explore)
}
