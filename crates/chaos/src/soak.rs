//! The long run of one process: users create, change and delete all the time, the upstreams answer with faults, the
//! apiserver is restarted now and then, and nothing is killed. What the process holds is looked at every few seconds.
//!
//! Judged is that nothing grows (see [`vitals`]), and, once users and faults have stopped, what a storm
//! is judged by as well: registrations equal manifests, all are Ready, and then nothing is written any more.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kube::Client;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use upstream_doubles::Doubles;

use crate::{
    Error, Stage,
    calls::AllCalls,
    fleet::{Fleet, Upstream},
    judge::{Finding, Registered, Wrong, count},
    storm::{change_minds, most_duplicates, quiet, restarts, told_of, until_well, wait_for_what_is_late},
    trouble::Trouble,
    user::User,
    vitals::{self, Courses, Vitals},
};

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of users and trouble.
    pub seed: u64,
    /// How many Webhooks there are at the beginning, and about as many all the time.
    pub webhooks: usize,
    /// Namespace of everything.
    pub namespace: String,
    /// How long users and faults last.
    pub time: Duration,
    /// How often the process is looked at.
    pub every: Duration,
    /// How much more in the last quarter than in the second is no growth.
    pub slack: Vitals,
    /// Share of requests that meet a fault.
    pub faults: f64,
    /// How often the apiserver is restarted.
    pub apiserver_restarts: u32,
    /// Pause of the users between two deeds.
    pub pause: Duration,
    /// `spec.timeout` of the providers.
    pub timeout: Duration,
    /// Longest wait for all to be well afterwards.
    pub limit: Duration,
    /// How long nothing may be written when all is well.
    pub window: Duration,
}

/// What a run has shown. A good one has no findings.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// Webhooks at the beginning, and about as many all the time.
    pub webhooks: usize,
    /// Webhooks that there were in the whole run, one that came back under its old name counted again.
    pub made: u32,
    /// How long users and faults lasted.
    pub seconds: f64,
    /// What users did in that time, and in one second.
    pub deeds: usize,
    /// See `deeds`.
    pub deeds_per_second: f64,
    /// How often the apiserver was restarted.
    pub apiserver_restarts: u32,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// All faults.
    pub faults_total: u64,
    /// What the upstreams were asked for in the whole run.
    pub calls: AllCalls,
    /// How often the process was looked at.
    pub samples: usize,
    /// The growth that is none.
    pub slack: Vitals,
    /// What the process held over the run.
    pub held: Courses,
    /// What it holds when all has been well and quiet for a while.
    pub at_rest: Option<Vitals>,
    /// Most duplicates at any time.
    pub duplicates_at_any_time: usize,
    /// Webhooks wanted when users and faults stopped, and registrations when all was well, by upstream.
    pub wanted: usize,
    /// See `wanted`.
    pub registrations: BTreeMap<&'static str, usize>,
    /// From the end of users and faults until all was well.
    pub seconds_to_recovery: f64,
    /// Calls at upstreams and writes to Webhooks in the window after that.
    pub writes_in_window: usize,
    /// How often each thing was wrong; 0 is the only good figure.
    pub wrong: BTreeMap<Wrong, usize>,
    /// Everything that was wrong, for the log: too long for a line of figures.
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// The samples, for a curve.
    #[serde(skip)]
    pub curve: Vec<Vitals>,
}

/// Runs it with the operator that was started, and leaves that running.
///
/// # Errors
/// A process of the stage fails or ends, or the apiserver refuses or stays away. What is wrong with the operator is in
/// the report.
pub async fn run<S: Stage>(
    stage: &S,
    client: Client,
    doubles: &Doubles,
    plan: &Plan,
) -> Result<Report, Error> {
    let mut fleet = Fleet::new(plan.seed, plan.webhooks);
    let user = User::new(client, &plan.namespace);
    AllCalls::forget(doubles);
    user.settle_in(doubles, &fleet, plan.timeout).await?;
    stage.working().await?;
    stage.tell(&format!(
        "{} Webhooks, users and faults for {} s; seed {}",
        plan.webhooks,
        plan.time.as_secs(),
        plan.seed
    ));
    let trouble = Trouble::begin(doubles, plan.faults, plan.seed);
    let (over, began) = (Cell::new(false), Instant::now());
    let work = async {
        let samples = look(stage, plan).await;
        over.set(true);
        samples
    };
    let (curve, deeds, apiserver_restarts, doubled) = tokio::try_join!(
        work,
        change_minds(&user, &mut fleet, plan.pause, &over),
        restarts(stage, plan.time, plan.apiserver_restarts, &over),
        most_duplicates(doubles, &over),
    )?;
    let (calm, seconds) = (Instant::now(), began.elapsed().as_secs_f64());
    let faults = trouble.end();
    let (held, growing) = vitals::judge(&curve, plan.every.as_secs_f64(), &plan.slack)?;
    let mut report = Report {
        seed: plan.seed,
        webhooks: plan.webhooks,
        made: Upstream::ALL
            .into_iter()
            .map(|upstream| fleet.made(upstream))
            .sum(),
        seconds: hundredths(seconds),
        deeds,
        deeds_per_second: hundredths(f64::from(u32::try_from(deeds).unwrap_or(u32::MAX)) / seconds),
        apiserver_restarts,
        faults_total: faults.values().sum(),
        faults,
        samples: curve.len(),
        slack: plan.slack,
        held,
        duplicates_at_any_time: doubled.len(),
        wanted: fleet.live().len(),
        findings: growing.into_iter().chain(told_of(&doubled)).collect(),
        curve,
        ..Report::default()
    };
    let (took, findings) = until_well(stage, &user, doubles, &fleet, plan.limit).await?;
    report.seconds_to_recovery = took;
    report.registrations = Registered::read(doubles).counts();
    let well = findings.is_empty();
    report.findings.extend(findings);
    if well && !plan.window.is_zero() {
        wait_for_what_is_late(plan.timeout, calm).await;
        let (_, findings) = until_well(stage, &user, doubles, &fleet, plan.limit).await?;
        report.findings.extend(findings);
        let (written, restless) = quiet(stage, &user, doubles, plan.window).await?;
        report.writes_in_window = written;
        report.findings.extend(restless);
    }
    report.at_rest = Some(stage.vitals().await?);
    report.calls = AllCalls::read(doubles);
    let findings = &report.findings;
    report.wrong = Wrong::ALL.map(|wrong| (wrong, count(findings, wrong))).into();
    Ok(report)
}

/// Looks at the process until the time is over.
async fn look<S: Stage>(stage: &S, plan: &Plan) -> Result<Vec<Vitals>, Error> {
    let mut samples = Vec::new();
    let (began, mut told) = (Instant::now(), Instant::now());
    let mut ticks = interval(plan.every);
    // One that took long puts the others off and does not crowd them.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while began.elapsed() < plan.time {
        ticks.tick().await;
        let vitals = stage.vitals().await?;
        samples.push(vitals);
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            stage.tell(&format!(
                "after {} s: {} KiB, {} open files, {} threads, {} tasks",
                began.elapsed().as_secs(),
                vitals.memory_kib,
                vitals.open_files,
                vitals.threads,
                vitals.tasks
            ));
        }
    }
    Ok(samples)
}

fn hundredths(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
