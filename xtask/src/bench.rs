//! `cargo xtask bench`: what the operator costs, measured from outside.
//!
//! A real control plane, doubles of the four upstreams and the operator's own process; the figures come from the
//! apiserver's audit log, from what the doubles saw and from `/proc`, never from the operator. Progress goes to
//! standard error, one line of JSON to standard output. What is started is in [`stand`] and [`crate::stand`], the manifests are in
//! [`load`], the load of the operator's own tests is in [`probes`], reading the audit log in [`audit`], percentiles and rates in [`figures`].

mod audit;
mod figures;
mod load;
mod probes;
mod receiver;
mod stand;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use control_plane::AuditLevel;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::{
    audit::Audit,
    figures::{Costs, PerObject, round, spread},
    load::{Load, Pace, Set, prepare},
    stand::{Doubles, Operator},
};
use crate::{
    programs::Programs,
    progress::{Failure, block_on, say},
    stand::{Memory, Stand},
};

/// The operator has this long to end after SIGTERM; it promises 25 s.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What is still on its way when everything is Ready has this long to arrive; the number of Webhooks in a provider's
/// status takes the longest, because it is written at most once in 10 s.
const SETTLE: Duration = Duration::from_secs(12);

/// Objects that are applied one after another have this between two.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many Webhooks, spread evenly over the four upstreams.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=20_000))]
    webhooks: u32,
    /// Instead: so many Webhooks that the operator tests every minute, at a receiver that takes 200 ms.
    #[arg(long, value_name = "WEBHOOKS", conflicts_with = "webhooks", value_parser = clap::value_parser!(u32).range(4..=20_000))]
    probes: Option<u32>,
    /// How long to watch the settled operator.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    quiet_seconds: u64,
    /// How long each upstream waits before it answers.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    latency: u64,
    /// `spec.interval` of the Webhooks; long, so that no read-back falls into the quiet window by chance.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    interval: String,
    /// So many more Webhooks are then applied one after the other, two a second, and how long each waits is measured;
    /// with a short `--interval`, all the others are read back meanwhile.
    #[arg(long, value_name = "WEBHOOKS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    newcomers: u32,
    /// How many requests create Webhooks at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    appliers: u16,
    /// Longest wait for all of them to be Ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit_seconds: u64,
    /// Measure the release build (the default).
    #[arg(long, conflicts_with_all = ["dev", "binaries"])]
    release: bool,
    /// Measure the dev build: quicker to make, for work on the benchmark itself.
    #[arg(long, conflicts_with = "binaries")]
    dev: bool,
    /// Measure the webhook-operator of this folder, and use its upstream-doubles, instead of building both.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

/// Builds, measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let programs = match &args.binaries {
        Some(folder) => Programs::in_folder(folder),
        None => Programs::build(!args.dev)?,
    };
    let report = match args.probes {
        Some(count) => block_on(Box::pin(probes::measure(args, &programs, count)))?,
        None => block_on(Box::pin(measure(args, &programs)))?,
    };
    say(report)
}

/// What was measured, in a word.
fn build(args: &Args) -> &'static str {
    match (&args.binaries, args.dev) {
        (Some(_), _) => "as found",
        (None, true) => "dev",
        (None, false) => "release",
    }
}

async fn measure(args: &Args, programs: &Programs) -> Result<Value, Failure> {
    let stand = Stand::start(Some(AuditLevel::Metadata)).await?;
    let doubles = Doubles::start(programs, stand.folder(), Duration::from_millis(args.latency)).await?;
    let result = Box::pin(measured(args, programs, &stand, &doubles)).await;
    doubles.stop().await;
    stand.stop().await?;
    result
}

/// One run: fill, rest, restart, empty. Each phase's figures under its name.
async fn measured(
    args: &Args,
    programs: &Programs,
    stand: &Stand,
    doubles: &Doubles,
) -> Result<Value, Failure> {
    let (log, user) = stand.audit().ok_or_else(|| Failure::new("no audit log"))?;
    let mut audit = Audit::open(log, &user)?;
    prepare(stand.client(), doubles).await?;
    let load = Load::of(
        stand.client(),
        &Set::plain("bench", 0..args.webhooks, &args.interval),
    )?;
    let operator = Operator::start(programs, stand).await?;
    let empty = operator.memory()?;
    audit.skip()?;

    let filled = fill(args, &load, doubles, &mut audit).await?;
    let full = operator.memory()?;
    note("ready", &filled);
    let rested = rest(args, &operator, doubles, &mut audit).await?;
    note("rest", &rested.figures);
    let newcomers = newcomers(args, stand, &operator, doubles).await?;
    note("newcomers", &newcomers.clone().unwrap_or_default());
    let (operator, restarted) = restart(programs, stand, operator, doubles, &mut audit).await?;
    note("restart", &restarted);
    let emptied = empty_out(args, &load, doubles, &mut audit).await?;
    operator.stop(STOP_LIMIT).await?;

    Ok(json!({
        "webhooks": args.webhooks,
        "latencyMillis": args.latency,
        "interval": args.interval,
        "build": build(args),
        "binaryBytes": fs::metadata(&programs.operator)?.len(),
        "ready": filled,
        "memoryKiB": {
            "rssEmpty": empty.rss, "rssFull": full.rss, "peakFull": full.peak,
            "rssAtRest": rested.memory.rss, "peakAtRest": rested.memory.peak,
        },
        "rest": rested.figures,
        "newcomers": newcomers,
        "restart": restarted,
        "delete": emptied,
    }))
}

/// Tells the figures of a phase as soon as it is over: a later one may fail.
fn note(phase: &str, figures: &Value) {
    eprintln!("  {phase}: {figures}");
}

/// Applies all Webhooks at once and waits until the last is Ready.
async fn fill(args: &Args, load: &Load, doubles: &Doubles, audit: &mut Audit) -> Result<Value, Failure> {
    eprintln!("applying {} Webhooks", args.webhooks);
    let calls = doubles.calls().await?;
    let limit = Duration::from_secs(args.limit_seconds);
    let times = load
        .fill(&Pace::at_once(usize::from(args.appliers)), limit)
        .await?;
    sleep(SETTLE).await;
    let costs = Costs::of(&audit.read()?);
    let calls = doubles.calls().await?.since(&calls);
    let (all, apply) = (times.all.as_secs_f64(), times.apply.as_secs_f64());
    let each = f64::from(args.webhooks);
    Ok(json!({
        "secondsUntilAllReady": round(all),
        "secondsToApply": round(apply),
        "webhooksPerSecond": round(each / all.max(f64::EPSILON)),
        "secondsFromApplyToReady": spread(&times.each),
        "writesPerWebhook": PerObject::of(&costs, each),
        "apiWrites": costs.writes(),
        "apiRequests": costs.requests(),
        "upstreamRequests": calls.counts(),
        "upstreamRequestsPerWebhook": round(calls.total() / each),
        "duplicates": doubles.duplicates().await?,
        "registrations": doubles.registrations().await?,
    }))
}

struct Rested {
    figures: Value,
    memory: Memory,
}

/// Watches the settled operator.
async fn rest(
    args: &Args,
    operator: &Operator,
    doubles: &Doubles,
    audit: &mut Audit,
) -> Result<Rested, Failure> {
    eprintln!(
        "everything is Ready; watching the operator for {} s",
        args.quiet_seconds
    );
    audit.skip()?;
    let (calls, cpu, began) = (doubles.calls().await?, operator.cpu()?, Instant::now());
    sleep(Duration::from_secs(args.quiet_seconds)).await;
    let (calls, cpu) = (
        doubles.calls().await?.since(&calls),
        operator.cpu()?.saturating_sub(cpu),
    );
    let seconds = began.elapsed().as_secs_f64();
    let costs = Costs::of(&audit.read()?);
    let figures = json!({
        "seconds": round(seconds),
        "apiWritesExceptLease": costs.writes_except_lease(),
        "apiRequestsPerMinute": round(costs.total() * 60.0 / seconds),
        "apiRequestsPerMinuteExceptLease": round(costs.total_except_lease() * 60.0 / seconds),
        "apiRequests": costs.requests(),
        "upstreamRequests": calls.counts(),
        "cpuSeconds": round(cpu.as_secs_f64()),
    });
    Ok(Rested {
        figures,
        memory: operator.memory()?,
    })
}

/// Applies some more, two a second, while the others are read back as often as their interval says.
async fn newcomers(
    args: &Args,
    stand: &Stand,
    operator: &Operator,
    doubles: &Doubles,
) -> Result<Option<Value>, Failure> {
    if args.newcomers == 0 {
        return Ok(None);
    }
    eprintln!("applying {} more Webhooks, two a second", args.newcomers);
    let numbers = args.webhooks..args.webhooks + args.newcomers;
    let load = Load::of(stand.client(), &Set::plain("new", numbers, "24h"))?;
    let (calls, cpu, began) = (doubles.calls().await?, operator.cpu()?, Instant::now());
    let limit = Duration::from_secs(args.limit_seconds);
    let times = load.fill(&Pace::one_by_one(PAUSE), limit).await?;
    let seconds = began.elapsed().as_secs_f64();
    let calls = doubles.calls().await?.since(&calls);
    let cpu = operator.cpu()?.saturating_sub(cpu);
    load.delete(limit).await?;
    Ok(Some(json!({
        "webhooks": args.newcomers,
        "seconds": round(seconds),
        "secondsFromApplyToReady": spread(&times.each),
        "upstreamRequestsPerSecond": round(calls.total() / seconds),
        "cpuSeconds": round(cpu.as_secs_f64()),
    })))
}

/// Stops and starts the operator with everything settled, and sees what that alone causes.
async fn restart(
    programs: &Programs,
    stand: &Stand,
    operator: Operator,
    doubles: &Doubles,
    audit: &mut Audit,
) -> Result<(Operator, Value), Failure> {
    eprintln!("restarting the operator");
    let stopping = operator.stop(STOP_LIMIT).await?;
    audit.skip()?;
    let calls = doubles.calls().await?;
    let operator = Operator::start(programs, stand).await?;
    sleep(SETTLE).await;
    let costs = Costs::of(&audit.read()?);
    let calls = doubles.calls().await?.since(&calls);
    let memory = operator.memory()?;
    let figures = json!({
        "secondsToStop": round(stopping.as_secs_f64()),
        "secondsUntilCachesFull": round(operator.full_after().as_secs_f64()),
        "apiWritesExceptLease": costs.writes_except_lease(),
        "apiRequests": costs.requests(),
        "upstreamRequests": calls.counts(),
        "cpuSeconds": round(operator.cpu()?.as_secs_f64()),
        "rssKiB": memory.rss,
        "peakKiB": memory.peak,
    });
    Ok((operator, figures))
}

/// Deletes all Webhooks and sees what is left.
async fn empty_out(args: &Args, load: &Load, doubles: &Doubles, audit: &mut Audit) -> Result<Value, Failure> {
    eprintln!("deleting all Webhooks");
    audit.skip()?;
    let calls = doubles.calls().await?;
    let took = load.delete(Duration::from_secs(args.limit_seconds)).await?;
    sleep(SETTLE).await;
    let costs = Costs::of(&audit.read()?);
    let calls = doubles.calls().await?.since(&calls);
    Ok(json!({
        "secondsUntilAllGone": round(took.as_secs_f64()),
        "writesPerWebhook": PerObject::of(&costs, f64::from(args.webhooks)),
        "apiWrites": costs.writes(),
        "upstreamRequests": calls.counts(),
        "registrationsLeft": doubles.registrations().await?,
    }))
}
