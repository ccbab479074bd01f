//! Goes through many points on several threads.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{Case, Choice, Failure, Figures, Plan};

/// What to go through.
pub struct Hunt<'a> {
    /// The cases.
    pub cases: Vec<Case>,
    /// Faults that are tried alone.
    pub singles: Choice,
    /// Of the points with one fault every so many-th is taken.
    pub every: usize,
    /// The same for the points with two; zero: none.
    pub every_pair: usize,
    /// How many threads.
    pub threads: usize,
    /// Told of each case that is done.
    pub progress: &'a (dyn Fn(&Progress<'_>) + Sync),
}

/// How far it is.
pub struct Progress<'a> {
    /// The case that is done.
    pub case: &'a Case,
    /// Cases that are done.
    pub done: usize,
    /// Of so many.
    pub of: usize,
    /// What was explored of it.
    pub figures: &'a Figures,
    /// What was wrong.
    pub failures: &'a [Failure],
}

/// All of it.
#[must_use]
pub fn hunt(hunt: &Hunt<'_>) -> (Figures, Vec<Failure>) {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, Figures::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..hunt.threads.max(1) {
            scope.spawn(|| {
                while let Some(case) = hunt.cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (figures, mut failures) = explore(hunt, case);
                    let mut done = lock(&done);
                    done.0 += 1;
                    (hunt.progress)(&Progress {
                        case,
                        done: done.0,
                        of: hunt.cases.len(),
                        figures: &figures,
                        failures: &failures,
                    });
                    done.1.add(&figures);
                    done.2.append(&mut failures);
                }
            });
        }
    });
    let (_, figures, failures) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    (figures, failures)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn explore(hunt: &Hunt<'_>, case: &Case) -> (Figures, Vec<Failure>) {
    let (mut figures, mut failures) = (Figures::default(), Vec::new());
    let mut pairs = 0_usize;
    let plain = Plan::default();
    let (calm, failure) = case.explore(&plain, &mut figures);
    if failure.is_some() {
        return (figures, failure.into_iter().collect());
    }
    for (position, single) in Case::points(&plain, &calm, hunt.singles).iter().enumerate() {
        if !position.is_multiple_of(hunt.every.max(1)) {
            continue;
        }
        let (outcome, failure) = case.explore(single, &mut figures);
        if failure.is_some() || hunt.every_pair == 0 || !case.operation.pairs || !single.is_main(&calm) {
            failures.extend(failure);
            continue;
        }
        for pair in Case::points(single, &outcome, Choice::Main) {
            pairs += 1;
            if pairs.is_multiple_of(hunt.every_pair) {
                failures.extend(case.explore(&pair, &mut figures).1);
            }
        }
    }
    (figures, failures)
}
