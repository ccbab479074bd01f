//! Which faults the upstreams show, and how often each struck.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use upstream_doubles::{Double, Doubles, Effect, Fault, RetryAfter, Upstream};

/// How long a stall lasts.
pub const STALL: Duration = Duration::from_secs(10);

/// Faults in force at one upstream: id and name of each.
type Active = Vec<(u64, &'static str)>;

/// Faults in force at all four upstreams.
pub struct Trouble<'a> {
    doubles: &'a Doubles,
    active: [Active; 4],
}

/// The faults, of equal share. Everything that the contracts leave in doubt is among them: not done, done and not
/// told, done and told wrong.
fn faults() -> Vec<(&'static str, Fault)> {
    let millis = u64::try_from(STALL.as_millis()).unwrap_or(u64::MAX);
    let stall = || Fault::new(Effect::Delay { milliseconds: millis });
    vec![
        ("resetBefore", Fault::new(Effect::ResetBefore)),
        ("resetAfter", Fault::new(Effect::ResetAfter)),
        ("429Seconds", Fault::retry_after(429, RetryAfter::Seconds(1))),
        ("429Date", Fault::retry_after(429, RetryAfter::DateIn(2))),
        ("500", Fault::status(500)),
        ("500After", Fault::status(500).handled(true)),
        ("503", Fault::status(503)),
        ("malformed", Fault::new(Effect::MalformedJson)),
        ("stallBefore", stall()),
        ("stallAfter", stall().handled(true)),
    ]
}

impl<'a> Trouble<'a> {
    /// Puts faults in force that together meet this share of the requests.
    #[must_use]
    pub fn begin(doubles: &'a Doubles, share: f64, seed: u64) -> Self {
        let active = [
            set(doubles.conpeek(), share, seed),
            set(doubles.thulium(), share, seed.wrapping_add(1)),
            set(doubles.ricloud(), share, seed.wrapping_add(2)),
            set(doubles.autocosmos(), share, seed.wrapping_add(3)),
        ];
        Self { doubles, active }
    }

    /// Ends all faults; how often each struck.
    #[must_use]
    pub fn end(self) -> BTreeMap<&'static str, u64> {
        let mut struck = BTreeMap::new();
        let [conpeek, thulium, ricloud, autocosmos] = &self.active;
        clear(self.doubles.conpeek(), conpeek, &mut struck);
        clear(self.doubles.thulium(), thulium, &mut struck);
        clear(self.doubles.ricloud(), ricloud, &mut struck);
        clear(self.doubles.autocosmos(), autocosmos, &mut struck);
        struck
    }
}

fn set<U: Upstream>(double: &Arc<Double<U>>, share: f64, seed: u64) -> Active {
    let faults = faults();
    let mut left = u32::try_from(faults.len()).unwrap_or(u32::MAX);
    // A fault is drawn only where none before it struck: the chance of each grows so that all have the same share.
    let each = share / f64::from(left.max(1));
    let mut gone = 0.0;
    let mut active = Vec::new();
    for (name, fault) in faults {
        let stalls = matches!(fault.effect, Effect::Delay { .. });
        let chance = if stalls { each } else { each / (1.0 - gone) };
        gone += if stalls { 0.0 } else { each };
        let seed = seed.wrapping_mul(31).wrapping_add(u64::from(left));
        active.push((double.set_fault(fault.chance(chance, seed)), name));
        left -= 1;
    }
    active
}

fn clear<U: Upstream>(double: &Arc<Double<U>>, active: &Active, struck: &mut BTreeMap<&'static str, u64>) {
    for fault in double.faults() {
        if let Some((id, name)) = active.iter().find(|(id, _)| *id == fault.id) {
            *struck.entry(name).or_default() += fault.struck;
            double.remove_fault(*id);
        }
    }
}
