//! Changes that watches do not show at once: some come late, after those of other objects; of some only what follows
//! is ever seen, as in a list after a gap; some come twice. What is true in the end is always shown in the end, and no
//! object goes back in time: less than that no API server promises.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    request::Selection,
    store::{Change, Id},
};

/// How watches show changes for a while.
#[derive(Clone, Copy, Debug)]
pub struct Blur {
    /// How many changes of a hundred are not shown as they come, for each watch.
    pub percent: u8,
    /// How long they are kept at most.
    pub longest: Duration,
    /// For so long.
    pub lasts: Duration,
    /// What is drawn for each of them.
    pub seed: u64,
}

struct Spell {
    percent: u8,
    longest: Duration,
    until: Instant,
    dice: Rng,
}

/// One process's watch of one kind.
type Watch = (usize, String, String);

/// What is kept from watches.
#[derive(Default)]
pub(super) struct Blurred {
    spell: Option<Spell>,
    kept: BTreeMap<Watch, BTreeMap<Id, (Instant, Change)>>,
}

fn watch(process: usize, selection: &Selection) -> Watch {
    (process, selection.plural.clone(), selection.namespace.clone())
}

impl Blurred {
    pub(super) fn begin(&mut self, blur: Blur) {
        self.spell = Some(Spell {
            percent: blur.percent,
            longest: blur.longest,
            until: Instant::now() + blur.lasts,
            dice: Rng::with_seed(blur.seed),
        });
    }

    /// Nothing new is kept any more.
    pub(super) fn end(&mut self) {
        self.spell = None;
    }

    /// A change reaches a watch. Whether it is shown now, and until when it is kept to be shown then.
    ///
    /// What was kept of the same object is never shown: this one has taken its place.
    pub(super) fn meet(
        &mut self,
        process: usize,
        selection: &Selection,
        change: &Change,
    ) -> (bool, Option<Instant>) {
        let now = Instant::now();
        let kept = self.kept.entry(watch(process, selection)).or_default();
        kept.remove(&change.id);
        let Some(spell) = self.spell.as_mut().filter(|spell| now < spell.until) else {
            return (true, None);
        };
        if spell.dice.u8(0..100) >= spell.percent {
            return (true, None);
        }
        let longest = u64::try_from(spell.longest.as_millis()).unwrap_or(u64::MAX);
        let until = now + Duration::from_millis(spell.dice.u64(1..=longest.max(1)));
        let twice = spell.dice.u8(0..3) == 0;
        kept.insert(change.id.clone(), (until, change.clone()));
        (twice, Some(until))
    }

    /// What is to be shown to a watch by this time, in its order; all of it at the end of the watch.
    pub(super) fn due(&mut self, process: usize, selection: &Selection, by: Option<Instant>) -> Vec<Change> {
        let Some(kept) = self.kept.get_mut(&watch(process, selection)) else {
            return Vec::new();
        };
        let is_due = |until: &Instant| by.is_none_or(|by| *until <= by);
        let mut due = Vec::new();
        kept.retain(|_, (until, change)| {
            if is_due(until) {
                due.push((*until, change.clone()));
            }
            !is_due(until)
        });
        due.sort_by_key(|(until, change)| (*until, change.version));
        due.into_iter().map(|(_, change)| change).collect()
    }

    /// When something is to be shown to a watch next.
    pub(super) fn next(&self, process: usize, selection: &Selection) -> Option<Instant> {
        let kept = self.kept.get(&watch(process, selection))?;
        kept.values().map(|(until, _)| *until).min()
    }
}
