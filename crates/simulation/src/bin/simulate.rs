//! Runs seeds: prints progress, what was wrong with the first that failed in its smallest form, and one line of JSON with
//! all figures.

#![allow(
    clippy::print_stdout,
    reason = "it is a program for people, and for whoever reads its last line"
)]

use std::{
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::Parser;
use simulation::seeds::{Figures, Plan, Sweep, plan, shrink, sweep};

/// How many runs are spent at most on making a failure smaller.
const TRIES: usize = 400;

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Only this one, with everything that happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves these events of it out: their numbers, as the smallest form of a failure names them.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    without: Vec<usize>,
    /// Tells it with all calls, those that renew watches and the Lease too.
    #[arg(long, requires = "seed")]
    all_calls: bool,
    /// Processes create without looking first, to see that this is found.
    #[arg(long)]
    break_journal: bool,
    /// Threads; as many as there are cores where it is not said.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) => replay(&args, seed),
        None => all(&args),
    }
}

/// One seed, told in full.
fn replay(args: &Args, seed: u64) -> ExitCode {
    let mut plan = plan(seed).without(&args.without);
    plan.broken = args.break_journal;
    let outcome = plan.run();
    if args.all_calls {
        println!("{}", outcome.trace);
    } else {
        println!("{}", plan.report(&outcome));
    }
    println!("{} calls went wrong, {} deaths", outcome.faults, outcome.kills);
    if outcome.wrong.is_empty() {
        println!(
            "seed {seed}: all is well after {:.0} s",
            outcome.recovery.as_secs_f64()
        );
        return ExitCode::SUCCESS;
    }
    println!("seed {seed} FAILED:\n{}", outcome.wrong.join("\n"));
    if args.without.is_empty() {
        smallest(&plan);
    }
    ExitCode::FAILURE
}

/// Prints the smallest form of a plan that fails.
fn smallest(whole: &Plan) {
    let small = shrink(whole, TRIES, |from, to| {
        println!("smaller: {to} of {from} events")
    });
    let kept: Vec<usize> = small.events.iter().map(|event| event.number).collect();
    let out: Vec<String> = whole
        .events
        .iter()
        .filter(|event| !kept.contains(&event.number))
        .map(|event| event.number.to_string())
        .collect();
    println!("\nsmallest form:\n{}", small.report(&small.run()));
    println!(
        "again: cargo xtask simulate --seed {}{}{}",
        whole.seed,
        if whole.broken { " --break-journal" } else { "" },
        if out.is_empty() {
            String::new()
        } else {
            format!(" --without {}", out.join(","))
        }
    );
}

fn all(args: &Args) -> ExitCode {
    let began = Instant::now();
    let told = Mutex::new(Duration::ZERO);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (figures, failures) = sweep(&Sweep {
        seeds: args.from..args.from.saturating_add(args.seeds),
        broken: args.break_journal,
        threads: args.threads.unwrap_or(cores),
        progress: &|figures, failure| {
            if let Some(failure) = failure {
                let first = failure.outcome.wrong.first().map_or("", String::as_str);
                println!("failed: seed {}: {first}", failure.plan.seed);
            }
            let now = began.elapsed();
            if let Ok(mut told) = told.lock()
                && now.saturating_sub(*told) >= Duration::from_secs(5)
            {
                *told = now;
                println!("{}", progress(figures, args.seeds, now));
            }
        },
    });
    if let Some(first) = failures.first() {
        println!(
            "seed {} FAILED:\n{}",
            first.plan.seed,
            first.outcome.wrong.join("\n")
        );
        smallest(&first.plan);
    }
    if !failures.is_empty() {
        let seeds: Vec<String> = failures.iter().map(|it| it.plan.seed.to_string()).collect();
        println!("failed: {}", seeds.join(", "));
    }
    println!("{}", figures.json(began.elapsed()));
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn progress(figures: &Figures, seeds: u64, took: Duration) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let (done, all) = (figures.seeds as f64, seeds as f64);
    let rate = done / took.as_secs_f64();
    format!(
        "[{:>4} s] {}/{seeds} seeds, {rate:.1} a second, {} wrong, {:.0} s to go",
        took.as_secs(),
        figures.seeds,
        figures.wrong,
        (all - done) / rate
    )
}
