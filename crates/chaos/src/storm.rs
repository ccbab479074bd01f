//! The run: everything at once, then quiet, then everything deleted, then quiet again.
//!
//! 1. *Storm.* All Webhooks are applied at once while the operator is killed every 0.2 to 2 s and the upstreams answer
//!    every fifth request with a fault; users change, delete and create; the apiserver is restarted twice. At the end
//!    of it one life of the operator is longer than a stall, with the faults still there.
//! 2. *Quiet.* No kill, no fault, no user: how long until registrations equal manifests and all are Ready? Then a
//!    window in which nothing may be written any more, neither at an upstream nor to a Webhook.
//! 3. *Deleted.* All Webhooks are deleted at once, with kills and faults again.
//! 4. *Quiet.* How long until nothing is left?
//!
//! The operator runs with `--leader-elect=false`: a killed leader's lease has to expire before the next one may work,
//! so that with an election nothing would happen between two kills. Handing over is tested on its own.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fastrand::Rng;
use kube::Client;
use serde::Serialize;
use tokio::time::sleep;
use upstream_doubles::Doubles;

use crate::{
    Error, Stage,
    calls::AllCalls,
    fleet::{Fleet, Hook, Upstream},
    judge::{Finding, InCluster, Registered, Wrong, count, duplicates, judge},
    trouble::Trouble,
    user::User,
};

/// Shortest and longest life of the operator in a storm, in milliseconds.
const LIFE_MILLIS: std::ops::Range<u64> = 200..2000;

/// How often registrations are looked at for duplicates in a storm.
const LOOK: Duration = Duration::from_millis(100);

/// Pause between two looks at whether all is well.
const POLL: Duration = Duration::from_millis(500);

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of users, trouble and kills.
    pub seed: u64,
    /// How many Webhooks there are at the beginning, and about as many all the time.
    pub webhooks: usize,
    /// Namespace of everything.
    pub namespace: String,
    /// How long the first storm lasts, if the kills are enough by then.
    pub storm: Duration,
    /// How often the operator is killed at least in it.
    pub kills: usize,
    /// How long the operator then lives with the faults still there.
    pub long_life: Duration,
    /// How long the storm over the deletions lasts.
    pub deleting: Duration,
    /// Share of requests that meet a fault.
    pub faults: f64,
    /// How often the apiserver is restarted in the first storm.
    pub apiserver_restarts: u32,
    /// Pause of the users between two deeds.
    pub pause: Duration,
    /// `spec.timeout` of the providers.
    pub timeout: Duration,
    /// Longest wait for all to be well after a storm.
    pub limit: Duration,
    /// How long nothing may be written when all is well.
    pub window: Duration,
}

/// How long after a call's time limit what it has sent may still come, and a moment for the look at it.
const LATE: Duration = Duration::from_secs(33);

/// What a run has shown. A good one has no findings.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// Webhooks at the beginning.
    pub webhooks: usize,
    /// Webhooks that there were in the whole run, one that came back under its old name counted again.
    pub made: u32,
    /// What users did.
    pub deeds: usize,
    /// How often the operator was killed, and how many of those had come as far as working.
    pub kills: usize,
    /// See `kills`.
    pub lives_that_worked: usize,
    /// How often the apiserver was restarted.
    pub apiserver_restarts: u32,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// All faults.
    pub faults_total: u64,
    /// What the upstreams were asked for in the whole run.
    pub calls: AllCalls,
    /// Creates that were done at the upstreams that make ids, over the Webhooks that there were there. At most 1 unless a
    /// secret was lost; below it, because some are deleted before they are registered.
    pub creates_per_webhook: f64,
    /// Webhooks wanted when the first storm was over, and registrations then, by upstream.
    pub wanted: usize,
    /// See `wanted`.
    pub registrations: BTreeMap<&'static str, usize>,
    /// Most duplicates at any time of the storms.
    pub duplicates_at_any_time: usize,
    /// How often each thing was wrong; 0 is the only good figure.
    pub wrong: BTreeMap<Wrong, usize>,
    /// From the end of the first storm until all was well.
    pub seconds_to_recovery: f64,
    /// Calls at upstreams and writes to Webhooks in the window after that.
    pub writes_in_window: usize,
    /// From the end of the second storm until nothing was left.
    pub seconds_to_delete: f64,
    /// Registrations left after that; Conpeek has no delete.
    pub left: BTreeMap<&'static str, usize>,
    /// Most memory that any life of the operator had resident.
    pub peak_kib: u64,
    /// Everything that was wrong, for the log: too long for a line of figures.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Runs it, and leaves the operator running.
///
/// # Errors
/// A process of the stage fails, or the apiserver refuses or stays away. What is wrong with the operator is in the
/// report.
pub async fn run<S: Stage>(
    stage: &S,
    client: Client,
    doubles: &Doubles,
    plan: &Plan,
) -> Result<Report, Error> {
    let mut fleet = Fleet::new(plan.seed, plan.webhooks);
    let mut storm = Storm {
        stage,
        doubles,
        plan,
        user: User::new(client, &plan.namespace),
        report: Report {
            seed: plan.seed,
            webhooks: plan.webhooks,
            ..Report::default()
        },
    };
    AllCalls::forget(doubles);
    storm.user.settle_in(doubles, &fleet, plan.timeout).await?;
    storm.change(&mut fleet).await?;
    let calm = Instant::now();
    storm.recover(&fleet).await?;
    wait_for_what_is_late(plan.timeout, calm).await;
    if storm.report.findings.is_empty() {
        let (_, findings) = storm.until_well(&fleet).await?;
        storm.report.findings.extend(findings);
    }
    if storm.report.findings.is_empty() {
        storm.watch_quiet().await?;
        storm.delete(&mut fleet).await?;
    }
    storm.count_up(&fleet);
    Ok(storm.report)
}

struct Storm<'a, S> {
    stage: &'a S,
    doubles: &'a Doubles,
    plan: &'a Plan,
    user: User,
    report: Report,
}

impl<S: Stage> Storm<'_, S> {
    /// The storm over everything.
    async fn change(&mut self, fleet: &mut Fleet) -> Result<(), Error> {
        let plan = self.plan;
        self.stage.tell(&format!(
            "{} Webhooks, kills and faults for {} s; seed {}",
            plan.webhooks,
            plan.storm.as_secs(),
            plan.seed
        ));
        let trouble = Trouble::begin(self.doubles, plan.faults, plan.seed);
        let over = Cell::new(false);
        let work = async {
            let sentence = Sentence {
                time: plan.storm,
                kills: plan.kills,
                long_life: plan.long_life,
                seed: plan.seed,
            };
            let killed = executioner(self.stage, &sentence).await;
            over.set(true);
            killed
        };
        let (killed, deeds, restarts, most) = tokio::try_join!(
            work,
            change_minds(&self.user, fleet, plan.pause, &over),
            restarts(self.stage, plan.storm, plan.apiserver_restarts, &over),
            most_duplicates(self.doubles, &over),
        )?;
        self.struck(trouble);
        self.killed(&killed);
        self.report.deeds = deeds;
        self.report.apiserver_restarts = restarts;
        self.doubled(&most);
        Ok(())
    }

    /// The storm over the deletion of everything, and the wait for its end.
    async fn delete(&mut self, fleet: &mut Fleet) -> Result<(), Error> {
        let plan = self.plan;
        self.stage.tell(&format!(
            "deleting all, kills and faults for {} s",
            plan.deleting.as_secs()
        ));
        let trouble = Trouble::begin(self.doubles, plan.faults, plan.seed.wrapping_add(7));
        let over = Cell::new(false);
        let work = async {
            let sentence = Sentence {
                time: plan.deleting,
                kills: 0,
                long_life: Duration::ZERO,
                seed: plan.seed.wrapping_add(1),
            };
            let killed = executioner(self.stage, &sentence).await;
            over.set(true);
            killed
        };
        let (killed, (), most) =
            tokio::try_join!(work, self.user.delete_all(), most_duplicates(self.doubles, &over))?;
        fleet.clear();
        self.struck(trouble);
        self.killed(&killed);
        self.doubled(&most);
        let (took, findings) = self.until_well(fleet).await?;
        self.report.seconds_to_delete = took;
        self.report.findings.extend(findings);
        self.report.left = Registered::read(self.doubles).counts();
        Ok(())
    }

    /// Waits until all is well.
    async fn recover(&mut self, fleet: &Fleet) -> Result<(), Error> {
        let (took, findings) = self.until_well(fleet).await?;
        self.report.wanted = fleet.live().len();
        self.report.registrations = Registered::read(self.doubles).counts();
        self.report.seconds_to_recovery = took;
        self.report.findings.extend(findings);
        Ok(())
    }

    async fn until_well(&self, fleet: &Fleet) -> Result<(f64, Vec<Finding>), Error> {
        until_well(self.stage, &self.user, self.doubles, fleet, self.plan.limit).await
    }

    /// Nothing is to be done, so nothing may be done.
    async fn watch_quiet(&mut self) -> Result<(), Error> {
        let (written, finding) = quiet(self.stage, &self.user, self.doubles, self.plan.window).await?;
        self.report.writes_in_window = written;
        self.report.findings.extend(finding);
        Ok(())
    }

    fn struck(&mut self, trouble: Trouble<'_>) {
        for (name, struck) in trouble.end() {
            *self.report.faults.entry(name).or_default() += struck;
            self.report.faults_total += struck;
        }
    }

    fn killed(&mut self, killed: &Killed) {
        self.report.kills += killed.kills;
        self.report.lives_that_worked += killed.worked;
        self.report.peak_kib = self.report.peak_kib.max(killed.peak_kib);
        self.stage.tell(&format!(
            "{} kills, {} of them of an operator that worked",
            killed.kills, killed.worked
        ));
    }

    fn doubled(&mut self, most: &[String]) {
        self.report.duplicates_at_any_time = self.report.duplicates_at_any_time.max(most.len());
        self.report.findings.extend(told_of(most));
    }

    /// Figures that follow from others.
    fn count_up(&mut self, fleet: &Fleet) {
        let report = &mut self.report;
        let made = |upstream| fleet.made(upstream);
        report.made = Upstream::ALL.into_iter().map(made).sum();
        report.calls = AllCalls::read(self.doubles);
        let created = report.calls.thulium.created + report.calls.ricloud.created;
        let made = f64::from(made(Upstream::Thulium) + made(Upstream::Ricloud));
        report.creates_per_webhook = (small(created) / made.max(1.0) * 1000.0).round() / 1000.0;
        let findings = &report.findings;
        report.wrong = Wrong::ALL.map(|wrong| (wrong, count(findings, wrong))).into();
    }
}

/// Waits until there is nothing to find; what there is at the limit, and how long it took in seconds.
pub(crate) async fn until_well<S: Stage>(
    stage: &S,
    user: &User,
    doubles: &Doubles,
    fleet: &Fleet,
    limit: Duration,
) -> Result<(f64, Vec<Finding>), Error> {
    let began = Instant::now();
    let mut told = began;
    loop {
        let cluster = InCluster {
            webhooks: user.webhooks().await?,
            secrets: user.secrets().await?,
        };
        let findings = judge(fleet, &cluster, &Registered::read(doubles));
        let took = began.elapsed();
        if findings.is_empty() || took > limit {
            stage.tell(&format!("{} findings after {} s", findings.len(), tenths(took)));
            return Ok((tenths(took), findings));
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let first = findings.first().map(ToString::to_string).unwrap_or_default();
            stage.tell(&format!("{} not well yet; {first}", findings.len()));
        }
        sleep(POLL).await;
    }
}

/// An update without an answer is looked at once more when it can come no more; `calm`: when the last one was sent.
pub(crate) async fn wait_for_what_is_late(timeout: Duration, calm: Instant) {
    sleep((timeout * 2 + LATE).saturating_sub(calm.elapsed())).await;
}

/// Counts calls at upstreams and writes to Webhooks while nothing is to be done; any at all is wrong.
pub(crate) async fn quiet<S: Stage>(
    stage: &S,
    user: &User,
    doubles: &Doubles,
    window: Duration,
) -> Result<(usize, Option<Finding>), Error> {
    stage.tell(&format!("all is well; watching for {} s", window.as_secs()));
    let versions = |webhooks: Vec<kube::api::DynamicObject>| -> BTreeMap<_, _> {
        let each = webhooks.into_iter();
        each.map(|it| (it.metadata.name, it.metadata.resource_version))
            .collect()
    };
    let before = (
        AllCalls::read(doubles).effects(),
        versions(user.webhooks().await?),
    );
    sleep(window).await;
    let after = (
        AllCalls::read(doubles).effects(),
        versions(user.webhooks().await?),
    );
    let written = after
        .1
        .iter()
        .filter(|(name, version)| before.1.get(*name) != Some(*version));
    let written: Vec<&str> = written.filter_map(|(name, _)| name.as_deref()).collect();
    let calls = after.0.saturating_sub(before.0);
    let finding = (calls + written.len() > 0).then(|| Finding {
        wrong: Wrong::Restless,
        what: format!(
            "{calls} calls at upstreams; written Webhooks: {}",
            written.join(", ")
        ),
    });
    Ok((calls + written.len(), finding))
}

/// What was there twice for a time.
pub(crate) fn told_of(duplicates: &[String]) -> impl Iterator<Item = Finding> {
    duplicates.iter().map(|what| Finding {
        wrong: Wrong::Duplicate,
        what: format!("for a time: {what}"),
    })
}

/// What the executioner is to do.
struct Sentence {
    time: Duration,
    kills: usize,
    long_life: Duration,
    seed: u64,
}

#[derive(Default)]
struct Killed {
    kills: usize,
    worked: usize,
    peak_kib: u64,
}

/// Starts the operator, kills it, starts it again; at the end it lives on.
async fn executioner<S: Stage>(stage: &S, sentence: &Sentence) -> Result<Killed, Error> {
    let mut rng = Rng::with_seed(sentence.seed);
    let mut killed = Killed::default();
    let began = Instant::now();
    while began.elapsed() < sentence.time || killed.kills < sentence.kills {
        sleep(Duration::from_millis(rng.u64(LIFE_MILLIS))).await;
        let life = stage.kill().await?;
        killed.kills += 1;
        killed.worked += usize::from(life.worked);
        killed.peak_kib = killed.peak_kib.max(life.peak_kib);
        stage.start().await?;
        if killed.kills % 50 == 0 {
            stage.tell(&format!("{} kills", killed.kills));
        }
    }
    stage.working().await?;
    sleep(sentence.long_life).await;
    Ok(killed)
}

/// Applies everything, then does one thing after the other; how many things were done.
pub(crate) async fn change_minds(
    user: &User,
    fleet: &mut Fleet,
    pause: Duration,
    over: &Cell<bool>,
) -> Result<usize, Error> {
    user.fill(fleet).await?;
    let mut deeds = fleet.live().len();
    let mut coming_back: VecDeque<Hook> = VecDeque::new();
    while !over.get() {
        if let Some(hook) = coming_back.pop_front() {
            if user.bring_back(&hook).await? {
                fleet.note(hook);
                deeds += 1;
            } else {
                coming_back.push_back(hook);
            }
        }
        let deed = fleet.deed();
        coming_back.extend(user.perform(deed).await?);
        deeds += 1;
        sleep(pause).await;
    }
    Ok(deeds)
}

/// Restarts the apiserver at even intervals of a time, by turns as a crash and in order; how often.
pub(crate) async fn restarts<S: Stage>(
    stage: &S,
    time: Duration,
    times: u32,
    over: &Cell<bool>,
) -> Result<u32, Error> {
    let between = time / (times + 1);
    let mut done = 0;
    while done < times {
        sleep(between).await;
        if over.get() {
            break;
        }
        stage.tell("restarting the apiserver");
        stage.restart_apiserver(done % 2 == 0).await?;
        done += 1;
    }
    Ok(done)
}

/// Looks again and again; the longest list of duplicates.
pub(crate) async fn most_duplicates(doubles: &Doubles, over: &Cell<bool>) -> Result<Vec<String>, Error> {
    let mut most = Vec::new();
    while !over.get() {
        let now = duplicates(doubles);
        if now.len() > most.len() {
            most = now;
        }
        sleep(LOOK).await;
    }
    Ok(most)
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// Counts of this size have their exact float.
fn small(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
