//! Explores every crash point: prints progress, what was wrong, a table, and one line of JSON with all figures.

#![allow(
    clippy::print_stdout,
    reason = "it is a program for people, and for whoever reads its last line"
)]

use std::{process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum};
use simulation::explore::{Case, Choice, Hunt, hunt};

/// Explores every crash point of every operation.
#[derive(Debug, Parser)]
struct Args {
    /// Only cases whose name (`upstream/operation`) contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Faults that are tried alone.
    #[arg(long, value_enum, default_value = "all")]
    singles: Singles,
    /// Of the points with one fault every so many-th.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Of the points with two faults every so many-th; 0: none.
    #[arg(long, default_value_t = 1)]
    every_pair: usize,
    /// Threads; as many as there are cores where it is not said.
    #[arg(long)]
    threads: Option<usize>,
    /// How many failures are shown in full.
    #[arg(long, default_value_t = 5)]
    show: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Singles {
    All,
    Main,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let cases: Vec<Case> = Case::all()
        .filter(|case| case.to_string().contains(&args.only))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (figures, failures) = hunt(&Hunt {
        cases,
        singles: match args.singles {
            Singles::All => Choice::All,
            Singles::Main => Choice::Main,
        },
        every: args.every,
        every_pair: args.every_pair,
        threads: args.threads.unwrap_or(cores),
        progress: &|progress| {
            println!(
                "[{:>4} s] {}/{} {}: {} points, {} pairs, {} wrong",
                began.elapsed().as_secs(),
                progress.done,
                progress.of,
                progress.case,
                progress.figures.singles(),
                progress.figures.pairs(),
                progress.failures.len()
            );
        },
    });
    for failure in failures.iter().take(args.show) {
        println!("\n{}\n{}", failure.point, failure.report);
    }
    for failure in failures.iter().skip(args.show) {
        println!("also wrong: {}", failure.point);
    }
    println!("\n{}", figures.table());
    println!("{}", figures.json(failures.len(), began.elapsed()));
    ExitCode::from(u8::from(!failures.is_empty()))
}
