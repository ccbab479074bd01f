//! The breaker of removals (`deletionLimit`): how many calls that delete or switch off may go within a moving window,
//! and when those that are held back are confirmed.
//!
//! Removals are counted in the provider's status before they are made, so that neither a crash nor a second replica
//! makes more of them than allowed. Writing that status, and what is shown of a removal that is held, belongs to
//! `controller/breaker.rs`.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{provider::ProviderSettings, provider_status::RecentRemovals, webhook_status::DeletionHeld},
    clock::elapsed,
};

/// Into how many steps a window is divided: removals of one step stand together, so that the status stays small
/// whatever the limit.
const STEPS: u64 = 60;

/// The shortest step: between counting a removal and making it lies a write to the API server.
const SHORTEST_STEP: u64 = 2;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Removals within the window; with 0 each one has to be confirmed.
    pub count: u32,
    /// Its length.
    pub window: Duration,
}

impl Limit {
    /// The limit of a provider, if it has one. A count that the schema refuses counts as 0.
    #[must_use]
    pub fn of(settings: &ProviderSettings) -> Option<Self> {
        settings.deletion_limit.map(|limit| Self {
            count: u32::try_from(limit.count).unwrap_or(0),
            window: limit.window.get(),
        })
    }

    /// In whole seconds, because that is what a status can hold.
    fn step(self) -> i64 {
        let seconds = self.window.as_millis().div_ceil(1000);
        let step = seconds.div_ceil(u128::from(STEPS)).max(u128::from(SHORTEST_STEP));
        i64::try_from(step).unwrap_or(i64::MAX)
    }

    /// Until when a removal that is counted at `now` has to be made: between one and two steps ahead, and the same
    /// for all of one step.
    fn until(self, now: Timestamp) -> Timestamp {
        let step = self.step();
        let end = now
            .as_second()
            .div_euclid(step)
            .saturating_add(2)
            .saturating_mul(step);
        Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
    }
}

/// Removals that were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How many.
    pub removals: u32,
    /// Until when they have to be made. Later they have to be counted again, see [`Ledger::take`].
    pub until: Timestamp,
}

/// What counts towards a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    limit: Limit,
    until: Timestamp,
    /// By the latest time at which they are made.
    counted: BTreeMap<Timestamp, u32>,
}

impl Ledger {
    /// What counts of a status at `now`.
    #[must_use]
    pub fn read(limit: Limit, recent: &[RecentRemovals], now: Timestamp) -> Self {
        let until = limit.until(now);
        let mut counted = BTreeMap::new();
        for Removed { time, removals } in recent.iter().map(Removed::from) {
            if elapsed(time, now) >= limit.window || removals == 0 {
                continue;
            }
            // Nothing can have been counted for later than this: the clock was wrong then, or is wrong now. Whatever
            // it was, it lies in the past, and must not stay until that day.
            let sum: &mut u32 = counted.entry(time.min(until)).or_default();
            *sum = sum.saturating_add(removals);
        }
        Self {
            limit,
            until,
            counted,
        }
    }

    /// How many more may go.
    #[must_use]
    pub fn free(&self) -> u32 {
        let used = self.counted.values().fold(0_u32, |sum, n| sum.saturating_add(*n));
        self.limit.count.saturating_sub(used)
    }

    /// Counts `removals`. `before`: the same ones were counted already and not made in time; they are not counted
    /// twice. `None`: that is more than the limit allows, and nothing changes.
    pub fn take(&mut self, removals: u32, before: Option<Counted>) -> Option<Counted> {
        let was = self.counted.clone();
        if let Some(before) = before
            && let Some(sum) = self.counted.get_mut(&before.until)
        {
            *sum = sum.saturating_sub(before.removals);
        }
        if removals > self.free() {
            self.counted = was;
            return None;
        }
        let sum = self.counted.entry(self.until).or_default();
        *sum = sum.saturating_add(removals);
        self.counted.retain(|_, sum| *sum > 0);
        Some(Counted {
            removals,
            until: self.until,
        })
    }

    /// As it stands in the status.
    #[must_use]
    pub fn recent(&self) -> Vec<RecentRemovals> {
        let entry = |(time, removals): (&Timestamp, &u32)| RecentRemovals {
            time: Time(*time),
            removals: i32::try_from(*removals).unwrap_or(i32::MAX),
        };
        self.counted.iter().map(entry).collect()
    }
}

struct Removed {
    time: Timestamp,
    removals: u32,
}

impl From<&RecentRemovals> for Removed {
    fn from(entry: &RecentRemovals) -> Self {
        Self {
            time: entry.time.0,
            removals: u32::try_from(entry.removals).unwrap_or(0),
        }
    }
}

/// Whether a removal that is held back may go, because a value of `confirm-deletions` was handled since. `handled`:
/// the provider's `lastHandledConfirmDeletions`.
#[must_use]
pub fn is_confirmed(held: &DeletionHeld, handled: Option<&str>) -> bool {
    handled.is_some() && handled != held.confirmation.as_deref()
}

#[cfg(test)]
mod tests;
