//! Whole lives from one number: many Webhooks at all upstreams, users who change their minds, strangers at the upstreams,
//! an API server and upstreams that fail, processes that die and hand over. A seed says beforehand everything that will
//! happen ([`plan()`]), then it happens ([`Plan::run`]), and then everything has to be as its users want it, of its own
//! accord and for good.
//!
//! The same seed goes the same way, call by call: time is virtual, there is one thread, and all that is drawn comes from
//! the seed. So a seed that fails can be run again, and made smaller by leaving out what it does not need
//! ([`shrink()`]).

mod draw;
mod figures;
mod hand;
mod judge;
mod lives;
mod plan;
mod run;
mod shrink;
mod stage;
mod sweep;
mod trace;
mod weather;

use std::time::Duration;

pub use self::{
    draw::plan,
    figures::Figures,
    plan::{Deed, Event, Hook, Pace, Place, Plan, Replica, Spell, Trouble, Whom},
    shrink::shrink,
    sweep::{Failure, Sweep, sweep},
};

/// How a plan went.
#[derive(Debug)]
pub struct Outcome {
    /// How many events there were.
    pub events: usize,
    /// How often a process died.
    pub kills: usize,
    /// How many calls went wrong.
    pub faults: usize,
    /// How many creates were sent to upstreams.
    pub made: usize,
    /// Virtual time from the last trouble until all was well.
    pub recovery: Duration,
    /// What happened, one line each, and what there was in the end.
    pub trace: String,
    /// What is wrong in the end, or was at any time.
    pub wrong: Vec<String>,
}

impl Plan {
    /// Carries it out.
    #[must_use]
    pub fn run(&self) -> Outcome {
        run::run(self)
    }

    /// What was wrong with it, what it was, and what happened.
    #[must_use]
    pub fn report(&self, outcome: &Outcome) -> String {
        let events: Vec<String> = self
            .events
            .iter()
            .map(|event| {
                let at = event.at.as_secs_f64();
                format!("  [{}] {at:.3} s {}", event.number, self.tell(&event.deed))
            })
            .collect();
        // Watches and the Lease are renewed all the time, which tells nothing.
        let renewed = |line: &&str| line.contains(": watch ") || line.contains(" leases/");
        let tells = |line: &&str| !renewed(line) || line.ends_with(']');
        let trace: Vec<&str> = outcome.trace.lines().filter(tells).collect();
        format!(
            "{}\n{}\n{}\n{}",
            outcome.wrong.join("\n"),
            self.ground(),
            events.join("\n"),
            trace.join("\n")
        )
    }
}
