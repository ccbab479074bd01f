//! `cargo xtask simulate`: whole lives drawn from seeds, on virtual time.

use crate::progress::{Failure, cargo, step};

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Only this one, with everything that happened in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves these of its events out: their numbers, as the smallest form of a failure names them.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    without: Vec<usize>,
    /// Lets the operator create without looking first, to see that this is found.
    #[arg(long)]
    break_journal: bool,
}

/// Builds the simulation and runs it. Its last line on standard output is all figures as JSON, where it is not one seed.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut simulate = cargo();
    simulate.args([
        "run",
        "--profile",
        "simulation",
        "-p",
        "simulation",
        "--bin",
        "simulate",
        "--",
    ]);
    match args.seed {
        Some(seed) => {
            simulate.args(["--seed", &seed.to_string()]);
            let without: Vec<String> = args.without.iter().map(usize::to_string).collect();
            if !without.is_empty() {
                simulate.args(["--without", &without.join(",")]);
            }
        }
        None => {
            simulate.args([
                "--seeds",
                &args.seeds.to_string(),
                "--from",
                &args.from.to_string(),
            ]);
        }
    }
    if args.break_journal {
        simulate.arg("--break-journal");
    }
    step("simulate", &mut simulate)
}
