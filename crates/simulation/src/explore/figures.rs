//! What was explored, in numbers.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Case, Outcome, Plan};

/// Figures of one case.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    calls: usize,
    singles: usize,
    pairs: usize,
    restarts: usize,
    recovery: Duration,
}

/// Figures of all cases that were explored.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    rows: BTreeMap<(&'static str, &'static str), Row>,
    /// Points whose fault met no call, because the run went another way.
    pub missed: usize,
}

impl Figures {
    pub(super) fn count(&mut self, case: &Case, plan: &Plan, outcome: &Outcome) {
        let row = self
            .rows
            .entry((case.dialect.name, case.operation.name))
            .or_default();
        if outcome.met < plan.faults() {
            self.missed += 1;
            return;
        }
        match plan.faults() {
            0 => row.calls = outcome.calls.len(),
            1 => row.singles += 1,
            _ => row.pairs += 1,
        }
        row.restarts += outcome.restarts;
        row.recovery = row.recovery.max(outcome.recovery);
    }

    /// Adds those of other cases, or of other points of the same.
    pub fn add(&mut self, others: &Self) {
        self.missed += others.missed;
        for (case, other) in &others.rows {
            let row = self.rows.entry(*case).or_default();
            row.calls = row.calls.max(other.calls);
            row.singles += other.singles;
            row.pairs += other.pairs;
            row.restarts += other.restarts;
            row.recovery = row.recovery.max(other.recovery);
        }
    }

    /// Points with one fault.
    #[must_use]
    pub fn singles(&self) -> usize {
        self.rows.values().map(|row| row.singles).sum()
    }

    /// Points with two.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.rows.values().map(|row| row.pairs).sum()
    }

    /// Longest virtual time from the last fault to the last write.
    #[must_use]
    pub fn longest_recovery(&self) -> Duration {
        self.rows
            .values()
            .map(|row| row.recovery)
            .max()
            .unwrap_or_default()
    }

    /// One line for each upstream and operation.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<20} {:<24} {:>5} {:>7} {:>6} {:>8} {:>10}",
            "upstream", "operation", "calls", "singles", "pairs", "restarts", "recovery s"
        )];
        lines.extend(self.rows.iter().map(|((dialect, operation), row)| {
            format!(
                "{dialect:<20} {operation:<24} {:>5} {:>7} {:>6} {:>8} {:>10.1}",
                row.calls,
                row.singles,
                row.pairs,
                row.restarts,
                row.recovery.as_secs_f64()
            )
        }));
        lines.join("\n")
    }

    /// All of it, with how many points went wrong and how long it took.
    #[must_use]
    pub fn json(&self, wrong: usize, took: Duration) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|((dialect, operation), row)| {
                json!({
                    "upstream": dialect, "operation": operation, "calls": row.calls, "singles": row.singles,
                    "pairs": row.pairs, "restarts": row.restarts, "longestRecoverySeconds": row.recovery.as_secs_f64(),
                })
            })
            .collect();
        json!({
            "singles": self.singles(), "pairs": self.pairs(), "missed": self.missed, "wrong": wrong,
            "seconds": took.as_secs(),
            "longestRecoverySeconds": self.longest_recovery().as_secs_f64(), "cases": rows,
        })
    }
}
