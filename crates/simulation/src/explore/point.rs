//! One point: an operation, and what the calls meet on the way.

use std::{collections::BTreeMap, fmt, fmt::Write, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Case, judge, operation::Step, stage::Stage};
use crate::{
    Operator, Rest, options,
    wire::{self, Call, CallKind, Course, Fate, Made, Peer},
};

/// How long nothing happens at rest: longer than a doubt about an older write lasts, which ends in a look.
const SILENCE: Duration = Duration::from_secs(60);

/// How long it may take until all is well, but for what the interval of the Webhook brings.
const LONGEST: Duration = Duration::from_secs(1800);

/// The same at an upstream that cannot be read: it is written again once an hour, which alone shows that an account works
/// to whoever has missed the news of the call before.
const LONGEST_UNREAD: Duration = Duration::from_secs(3600 + 1800);

/// A bit more than the interval of a Webhook on the stage: one pass at least falls into it.
const ANOTHER_PASS: Duration = Duration::from_secs(130);

/// More calls than any operation needs: there is no end to them.
const ENOUGH: usize = 3_000;

/// How long lists and watches show what was, after a death.
const STALE: Duration = Duration::from_secs(60);

/// How old the view of a process is that starts after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// As it is.
    Fresh,
    /// From before the operation.
    BeforeOperation,
    /// The user has done what he does, and the operator nothing yet.
    AfterOperation,
    /// All but the last change.
    LastButOne,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies before it, and another one starts.
    DiesBefore(View),
    /// The process dies after its effect and before its answer, and another one starts.
    DiesAfter(View),
    /// It has its effect, and its answer never comes.
    AnswerLost,
    /// It never arrives, and neither does an answer.
    Lost,
    /// Somebody has changed the object just before.
    Conflicts,
}

/// How much is tried at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// Everything.
    All,
    /// Deaths, lost answers and conflicts; after a death that followed a write also the view of a cache that has
    /// none of it.
    Main,
}

impl Fault {
    /// What can happen at a call.
    pub fn at(call: &Call, choice: Choice) -> impl Iterator<Item = Self> {
        let writes = call.kind == CallKind::Write;
        let meets_object = writes && call.peer == Peer::ApiServer && !call.text.starts_with("create ");
        let fresh = [
            Some(Self::DiesBefore(View::Fresh)),
            Some(Self::DiesAfter(View::Fresh)),
            Some(Self::AnswerLost),
            meets_object.then_some(Self::Conflicts),
            writes.then_some(Self::DiesAfter(View::AfterOperation)),
        ];
        let all = choice == Choice::All;
        let more = [
            Self::Lost,
            Self::DiesBefore(View::BeforeOperation),
            Self::DiesBefore(View::AfterOperation),
            Self::DiesBefore(View::LastButOne),
            Self::DiesAfter(View::BeforeOperation),
            Self::DiesAfter(View::LastButOne),
        ];
        let reads = (all && !writes).then_some(Self::DiesAfter(View::AfterOperation));
        fresh
            .into_iter()
            .flatten()
            .chain(reads)
            .chain(more.into_iter().filter(move |_| all))
    }

    const fn fate(self) -> Fate {
        match self {
            Self::DiesBefore(_) => Fate::DiesBefore,
            Self::DiesAfter(_) => Fate::DiesAfter,
            Self::AnswerLost => Fate::AnswerLost,
            Self::Lost => Fate::Lost,
            Self::Conflicts => Fate::Conflicts,
        }
    }
}

/// Which calls meet which faults, by their number since the operation began.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan(BTreeMap<usize, Fault>);

impl Plan {
    /// With one fault more.
    #[must_use]
    pub fn and(&self, call: usize, fault: Fault) -> Self {
        let mut plan = self.clone();
        plan.0.insert(call, fault);
        plan
    }

    /// The call after the last fault.
    #[must_use]
    pub fn after(&self) -> usize {
        self.0.last_key_value().map_or(0, |(call, _)| call + 1)
    }

    /// Whether all of it is among what is [`Choice::Main`] at these calls.
    #[must_use]
    pub fn is_main(&self, before: &Outcome) -> bool {
        self.0.iter().all(|(number, fault)| {
            let made = before.calls.iter().find(|made| made.number == *number);
            made.is_some_and(|made| Fault::at(&made.call, Choice::Main).any(|main| main == *fault))
        })
    }

    /// How many faults.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.0.len()
    }

    fn course(&self) -> Course {
        let plan = self.0.clone();
        Box::new(move |number, call| {
            let fate = match plan.get(&number) {
                _ if number > ENOUGH => Fate::DiesBefore,
                Some(fault) => fault.fate(),
                None => Fate::Arrives,
            };
            wire::passage(call, fate)
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no fault");
        }
        let faults: Vec<String> = self
            .0
            .iter()
            .map(|(call, fault)| format!("#{call} {fault:?}"))
            .collect();
        f.write_str(&faults.join(", "))
    }
}

/// How a point went.
#[derive(Debug)]
pub struct Outcome {
    /// All calls from the beginning of the operation until the last write or fault.
    pub calls: Vec<Made>,
    /// How many faults of the plan came to pass.
    pub met: usize,
    /// How often a process was started again.
    pub restarts: usize,
    /// From the last fault until the last write.
    pub recovery: Duration,
    /// What is wrong in the end.
    pub wrong: Vec<String>,
    began: Instant,
}

impl Outcome {
    /// What is wrong, and what was called.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.wrong.join("\n");
        for made in &self.calls {
            let at = made.at.duration_since(self.began);
            write!(text, "\n  {:>9.3} s {made}", at.as_secs_f64()).unwrap();
        }
        text
    }
}

/// Carries an operation out with these faults, on a clock of its own.
pub(super) fn run(case: &Case, plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run {
            stage: Stage::new(case.dialect, case.broken),
            operator: None,
            plan,
            restarts: 0,
            before_operation: 0,
            after_operation: 0,
        };
        run.whole(case).await
    })
}

struct Run<'a> {
    stage: Stage,
    operator: Option<Operator>,
    plan: &'a Plan,
    restarts: usize,
    before_operation: u64,
    after_operation: u64,
}

impl Run<'_> {
    async fn whole(&mut self, case: &Case) -> Outcome {
        self.operator = Some(self.start());
        self.steps(case.operation.before).await;
        let wire = self.stage.world.wire().clone();
        wire.stir();
        self.rest(SILENCE, LONGEST).await;
        self.before_operation = self.stage.api().version();
        self.after_operation = self.before_operation;
        let began = Instant::now();
        wire.set_course(self.plan.course());
        self.steps(case.operation.act).await;
        let mut wrong = self.settle(case, began).await;
        let (active, mut calls) = (wire.active(), wire.made());
        let faults = calls.iter().filter(|made| made.fate != Fate::Arrives);
        let last_fault = faults.clone().map(|made| made.at).max();
        let met = faults.count();
        // What follows is only watches that are renewed.
        let last = last_fault.map_or(active, |fault| fault.max(active));
        calls.retain(|made| made.at <= last);
        let mut outcome = Outcome {
            met,
            restarts: self.restarts,
            recovery: last_fault.map_or(Duration::ZERO, |fault| active.saturating_duration_since(fault)),
            calls,
            wrong: Vec::new(),
            began,
        };
        if wrong.is_empty() {
            wrong = self.stays(case, &mut outcome.calls).await;
        }
        outcome.wrong = wrong;
        outcome
    }

    fn start(&self) -> Operator {
        Operator::start(&self.stage.world, options(&[]))
    }

    async fn steps(&mut self, steps: &[Step]) {
        for (position, step) in steps.iter().enumerate() {
            let until = Instant::now() + step.after;
            while Instant::now() < until {
                self.pass_time(until).await;
            }
            if position == 0 && self.before_operation > 0 {
                (step.act)(&self.stage);
                self.after_operation = self.stage.api().version();
            } else {
                (step.act)(&self.stage);
            }
        }
        self.stage.world.wire().stir();
    }

    /// Lets time pass until then, or until a process had to be started again.
    async fn pass_time(&mut self, until: Instant) {
        let line = self.operator.as_ref().unwrap().line().clone();
        tokio::select! {
            biased;
            () = line.cut() => self.restart().await,
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Waits for silence, and starts a process again wherever one has died.
    async fn rest(&mut self, silence: Duration, longest: Duration) -> bool {
        let end = Instant::now() + longest;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let operator = self.operator.as_ref().unwrap();
            match self.stage.world.rest(operator, silence, left).await {
                Rest::Quiet => return true,
                Rest::Never => return false,
                _ if self.stage.world.wire().made().len() > ENOUGH => return false,
                Rest::Killed | Rest::Ended => self.restart().await,
            }
        }
    }

    async fn restart(&mut self) {
        self.restarts += 1;
        if let Some(operator) = self.operator.take() {
            operator.kill().await;
        }
        let made = self.stage.world.wire().made();
        let last = made.iter().rev().find(|made| made.fate != Fate::Arrives);
        let view = match last.and_then(|made| self.plan.0.get(&made.number)) {
            Some(Fault::DiesBefore(view) | Fault::DiesAfter(view)) => *view,
            _ => View::Fresh,
        };
        let api = self.stage.api();
        let version = match view {
            View::Fresh => None,
            View::BeforeOperation => Some(self.before_operation),
            View::AfterOperation => Some(self.after_operation),
            View::LastButOne => Some(api.version().saturating_sub(1)),
        };
        if let Some(version) = version {
            let until = Instant::now() + STALE;
            api.freeze(version, until);
            // What it does not see yet it cannot answer to.
            self.stage.world.wire().expect_until(until);
        }
        self.operator = Some(self.start());
    }

    /// Waits until all is well. What is still wrong when time is over.
    async fn settle(&mut self, case: &Case, began: Instant) -> Vec<String> {
        let longest = if case.dialect.reads {
            LONGEST
        } else {
            LONGEST_UNREAD
        };
        loop {
            let left = (began + longest).saturating_duration_since(Instant::now());
            let quiet = self.rest(SILENCE, left).await;
            let mut wrong = judge::judge(case, &self.stage);
            if !quiet {
                wrong.push("it never comes to rest".to_owned());
            }
            if wrong.is_empty() || left.is_zero() || !quiet {
                return wrong;
            }
            // Something may still be due that takes longer than a silence.
            sleep(Duration::from_secs(1)).await;
            self.stage.world.wire().stir();
        }
    }

    /// One more pass, and one more of a new process: neither writes anything.
    async fn stays(&mut self, case: &Case, calls: &mut Vec<Made>) -> Vec<String> {
        let wire = self.stage.world.wire().clone();
        let mut wrong = Vec::new();
        // Where a process was started again already, that is one restart.
        let last = if self.restarts > 0 { 1 } else { 2 };
        for what in ["a further pass", "a restart"].into_iter().take(last) {
            wire.set_course(wire::calm());
            if what == "a restart" {
                self.restart().await;
                self.restarts -= 1;
            }
            sleep(ANOTHER_PASS).await;
            let made = wire.made();
            let writes = made.iter().filter(|made| {
                made.call.kind == CallKind::Write
                    // What cannot be read is written again now and then.
                    && (case.dialect.reads || made.call.peer == Peer::ApiServer)
            });
            wrong.extend(writes.map(|made| format!("{what} wrote: {}", made.call.text)));
            if !wrong.is_empty() {
                calls.extend(made);
                return wrong;
            }
        }
        let after = judge::judge(case, &self.stage);
        wrong.extend(after.into_iter().map(|what| format!("some time later: {what}")));
        wrong
    }
}
