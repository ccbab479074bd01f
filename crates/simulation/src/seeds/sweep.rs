//! Goes through many seeds on several threads.

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{Figures, Outcome, Plan, plan};

/// What to go through.
pub struct Sweep<'a> {
    /// The seeds.
    pub seeds: Range<u64>,
    /// Processes create without looking first: to show that this is found.
    pub broken: bool,
    /// How many threads.
    pub threads: usize,
    /// Told after each seed what there is so far, and what was wrong with it.
    pub progress: &'a (dyn Fn(&Figures, Option<&Failure>) + Sync),
}

/// A seed in which something was wrong.
pub struct Failure {
    /// Its plan.
    pub plan: Plan,
    /// How it went.
    pub outcome: Outcome,
}

/// All of it. The failures come in the order of their seeds.
#[must_use]
pub fn sweep(sweep: &Sweep<'_>) -> (Figures, Vec<Failure>) {
    let next = AtomicU64::new(sweep.seeds.start);
    let done = Mutex::new((Figures::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..sweep.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= sweep.seeds.end {
                        return;
                    }
                    let mut plan = plan(seed);
                    plan.broken = sweep.broken;
                    let outcome = plan.run();
                    let mut done = lock(&done);
                    done.0.count(&outcome);
                    let failure = (!outcome.wrong.is_empty()).then_some(Failure { plan, outcome });
                    (sweep.progress)(&done.0, failure.as_ref());
                    done.1.extend(failure);
                }
            });
        }
    });
    let (figures, mut failures) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.plan.seed);
    (figures, failures)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
