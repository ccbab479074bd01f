//! What was gone through, in numbers.

use std::time::Duration;

use serde_json::{Value, json};

use super::Outcome;

/// Figures of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many seeds.
    pub seeds: usize,
    /// What happened in them.
    pub events: usize,
    /// Deaths of processes.
    pub kills: usize,
    /// Calls that went wrong.
    pub faults: usize,
    /// Creates that were sent to upstreams.
    pub creates: usize,
    /// Seeds in which something was registered twice.
    pub duplicates: usize,
    /// Registrations that belonged to nobody in the end.
    pub orphans: usize,
    /// Seeds in which anything was wrong.
    pub wrong: usize,
    /// Longest virtual time from the last trouble until all was well.
    pub recovery: Duration,
}

impl Figures {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        let told = |start: &str| outcome.wrong.iter().filter(|what| what.contains(start)).count();
        self.seeds += 1;
        self.events += outcome.events;
        self.kills += outcome.kills;
        self.faults += outcome.faults;
        self.creates += outcome.made;
        self.duplicates += told("registered twice").min(1);
        self.orphans += told("and nobody's");
        self.wrong += usize::from(!outcome.wrong.is_empty());
        self.recovery = self.recovery.max(outcome.recovery);
    }

    /// All of it, with how long it took.
    #[must_use]
    pub fn json(&self, took: Duration) -> Value {
        json!({
            "seeds": self.seeds, "events": self.events, "kills": self.kills, "faults": self.faults,
            "creates": self.creates, "duplicates": self.duplicates, "orphans": self.orphans, "wrong": self.wrong,
            "longestRecoverySeconds": self.recovery.as_secs_f64(), "seconds": took.as_secs(),
        })
    }
}
