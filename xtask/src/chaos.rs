//! `cargo xtask chaos`: the release binary under kills and faults, on a real control plane; with `--soak` under faults
//! only, for as long as one likes.
//!
//! What happens in a run, and what is judged, is the crate `chaos`; here are its processes ([`stage`]) and its
//! arguments. Progress goes to standard error, one line of figures as JSON to standard output. What is wrong with the
//! operator makes the exit code 1, and the folder that the message names keeps what helps to find out why.

mod stage;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::chaos::{
    amnesia::{self, Loss},
    judge::Finding,
    soak,
    storm::{self, Plan},
    user,
    vitals::Vitals,
};
use kube::{Api, api::ListParams};
use serde::Serialize;
use serde_json::Value;
use upstream_doubles::{Doubles, Seen};

use self::stage::Processes;
use crate::{
    programs::Programs,
    progress::{Failure, block_on, say},
    stand::{LIFETIME, OPERATOR_NAMESPACE, Stand},
};

/// Namespace of everything that a user writes.
const NAMESPACE: &str = "chaos";

/// The findings that are told on the screen; the others are in the folder.
const TOLD: usize = 20;

/// How much more of each in the last quarter of a soak than in the second is no growth: what a stall more or less, or a
/// page of the allocator that is not given back, comes to.
const SLACK: Vitals = Vitals {
    memory_kib: 2048,
    open_files: 8,
    threads: 1,
    tasks: 16,
};

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many Webhooks, spread evenly over the four upstreams.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(4..=20_000))]
    webhooks: u32,
    /// How long the operator is killed while users change their minds; at least 50 kills a minute.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    /// Seed of users, trouble and kills; without it a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long each upstream waits before it answers.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5)]
    latency: u64,
    /// Share of requests that meet a fault, from 0 to 1.
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    faults: f64,
    /// Longest wait for all to be well after a storm.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit_seconds: u64,
    /// The other run: take away what the operator wrote down (status, annotations, the objects themselves), without
    /// kills and faults in between.
    #[arg(long)]
    lost_memory: bool,
    /// One more run: kill nothing, and see whether memory, open files, threads or tasks of the one process grow over so
    /// many minutes of users and faults.
    #[arg(long, conflicts_with_all = ["lost_memory", "break_journal"])]
    soak: bool,
    /// Use the dev build: quicker to make.
    #[arg(long, conflicts_with = "binaries")]
    dev: bool,
    /// Use a dev build that creates without looking first: shows that the run finds what that does.
    #[arg(long, conflicts_with = "binaries")]
    break_journal: bool,
    /// Use the webhook-operator of this folder instead of building it.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.1..=180.0).contains(&minutes) => Ok(minutes),
        _ => Err("must be from 0.1 to 180".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be from 0 to 1".to_owned()),
    }
}

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        let storm = Duration::from_secs_f64(self.minutes * 60.0);
        Plan {
            seed,
            webhooks: usize::try_from(self.webhooks).unwrap_or(usize::MAX),
            namespace: NAMESPACE.to_owned(),
            storm,
            // The mean of 0.2 and 2 s leaves some to spare.
            kills: usize::try_from(storm.as_secs() * 50 / 60).unwrap_or(usize::MAX),
            long_life: Duration::from_secs(15),
            deleting: storm / 6,
            faults: self.faults,
            apiserver_restarts: 2,
            pause: Duration::from_millis(50),
            timeout: Duration::from_secs(20),
            limit: Duration::from_secs(self.limit_seconds),
            window: Duration::from_secs(60).min(storm),
        }
    }

    fn soak(&self, seed: u64) -> soak::Plan {
        let time = Duration::from_secs_f64(self.minutes * 60.0);
        soak::Plan {
            seed,
            webhooks: usize::try_from(self.webhooks).unwrap_or(usize::MAX),
            namespace: NAMESPACE.to_owned(),
            time,
            every: Duration::from_secs(5).min(time / 40),
            slack: SLACK,
            faults: self.faults,
            apiserver_restarts: u32::try_from(time.as_secs() / 600).unwrap_or(u32::MAX),
            pause: Duration::from_millis(50),
            timeout: Duration::from_secs(20),
            limit: Duration::from_secs(self.limit_seconds),
            window: Duration::from_secs(60).min(time),
        }
    }

    fn amnesia(&self, seed: u64) -> amnesia::Plan {
        amnesia::Plan {
            seed,
            webhooks: usize::try_from(self.webhooks).unwrap_or(usize::MAX),
            namespace: NAMESPACE.to_owned(),
            operator_namespace: OPERATOR_NAMESPACE.to_owned(),
            timeout: Duration::from_secs(20),
            limit: Duration::from_secs(self.limit_seconds),
        }
    }
}

/// Builds, runs, judges and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let programs = match &args.binaries {
        Some(folder) => Programs::in_folder(folder),
        None if args.break_journal => Programs::build_with(false, &["break-journal"])?,
        None => Programs::build(!args.dev)?,
    };
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let folder = std::env::temp_dir().join(format!("webhook-operator-chaos-{}-{seed}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (report, failed) = block_on(Box::pin(whole(args, &programs, seed, &folder)))?;
    say(report)?;
    match failed {
        Some(failure) => Err(failure),
        None => Ok(fs::remove_dir_all(&folder)?),
    }
}

fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

async fn whole(
    args: &Args,
    programs: &Programs,
    seed: u64,
    folder: &Path,
) -> Result<(Value, Option<Failure>), Failure> {
    let lifetime = LIFETIME + Duration::from_secs_f64(args.minutes * 60.0);
    let stand = Stand::start_for(None, lifetime).await?;
    let doubles = Doubles::start(user::options(Duration::from_millis(args.latency))).await?;
    let processes = Processes::new(programs, &stand, folder)?;
    let result = async {
        processes.launch()?;
        let client = stand.client().clone();
        let (figures, findings) = if args.lost_memory {
            let plan = args.amnesia(seed);
            let report = amnesia::run(&processes, client, &doubles, &plan, &Loss::ALL).await?;
            (serde_json::to_value(&report)?, report.findings)
        } else if args.soak {
            let report = soak::run(&processes, client, &doubles, &args.soak(seed)).await?;
            lines_of(&folder.join("vitals.jsonl"), &report.curve)?;
            (serde_json::to_value(&report)?, report.findings)
        } else {
            let report = storm::run(&processes, client, &doubles, &args.plan(seed)).await?;
            (serde_json::to_value(&report)?, report.findings)
        };
        if findings.is_empty() {
            return Ok((figures, None));
        }
        keep(folder, &findings, &stand, &doubles).await?;
        Ok((figures, Some(verdict(folder, &findings, seed))))
    }
    .await;
    processes.end().await?;
    doubles.stop().await;
    stand.stop().await?;
    result.map_err(|failure: Failure| Failure::new(format!("{failure}; logs are in {}", folder.display())))
}

fn verdict(folder: &Path, findings: &[Finding], seed: u64) -> Failure {
    let mut lines: Vec<String> = findings.iter().take(TOLD).map(|it| format!("  {it}")).collect();
    if findings.len() > TOLD {
        lines.push(format!("  and {} more", findings.len() - TOLD));
    }
    Failure::new(format!(
        "{} things are not as they have to be:\n{}\nlogs, objects and requests are in {}; seed {seed}",
        findings.len(),
        lines.join("\n"),
        folder.display()
    ))
}

/// Writes down what helps to find out why.
async fn keep(folder: &Path, findings: &[Finding], stand: &Stand, doubles: &Doubles) -> Result<(), Failure> {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    fs::write(folder.join("findings.txt"), lines.join("\n"))?;
    let webhooks: Api<webhook_operator::api::Webhook> = Api::namespaced(stand.client().clone(), NAMESPACE);
    let list = webhooks.list(&ListParams::default()).await?;
    lines_of(&folder.join("webhooks.jsonl"), &list.items)?;
    lines_of(
        &folder.join("conpeek-objects.jsonl"),
        &doubles.conpeek().objects(),
    )?;
    lines_of(
        &folder.join("thulium-objects.jsonl"),
        &doubles.thulium().objects(),
    )?;
    lines_of(
        &folder.join("ricloud-objects.jsonl"),
        &doubles.ricloud().objects(),
    )?;
    lines_of(
        &folder.join("autocosmos-objects.jsonl"),
        &doubles.autocosmos().objects(),
    )?;
    let requests: [(&str, Vec<Seen>); 4] = [
        ("conpeek", doubles.conpeek().requests()),
        ("thulium", doubles.thulium().requests()),
        ("ricloud", doubles.ricloud().requests()),
        ("autocosmos", doubles.autocosmos().requests()),
    ];
    for (name, requests) in requests {
        lines_of(&folder.join(format!("{name}-requests.jsonl")), &requests)?;
    }
    Ok(())
}

fn lines_of<T: Serialize>(path: &Path, items: &[T]) -> Result<(), Failure> {
    let mut file = BufWriter::new(File::create(path)?);
    for item in items {
        serde_json::to_writer(&mut file, item)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_mean_at_least_250_kills() {
        let args = Args {
            webhooks: 1000,
            minutes: 5.0,
            seed: None,
            latency: 5,
            faults: 0.2,
            limit_seconds: 300,
            lost_memory: false,
            soak: false,
            dev: false,
            break_journal: false,
            binaries: None,
        };
        let plan = args.plan(1);
        assert_eq!(plan.kills, 250);
        assert_eq!(plan.storm, Duration::from_secs(300));
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        assert!(minutes("0").is_err() && minutes("181").is_err() && minutes("x").is_err());
        assert!(share("1.1").is_err() && share("-0.1").is_err());
        assert_eq!(minutes("0.5"), Ok(0.5));
    }
}
