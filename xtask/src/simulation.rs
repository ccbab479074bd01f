//! `cargo xtask explore` and `cargo xtask simulate`: the programs of the simulation, each with arguments of its own.

use crate::progress::{Failure, cargo, step};

/// Arguments of both.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to the program; `--help` shows what it takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the program of this name and runs it. Its last line on standard output is all figures as JSON, where it was not
/// asked for one case alone.
pub(crate) fn run(program: &str, args: &Args) -> Result<(), Failure> {
    let mut cargo = cargo();
    cargo
        .args(["run", "--profile", "simulation", "-p", "simulation"])
        .args(["--bin", program, "--"])
        .args(&args.rest);
    step(program, &mut cargo)
}
