//! One registration has one holder. Which of several Webhooks that mean the same registration that is.

use jiff::Timestamp;

/// What names one registration at one upstream, as a text that is equal for equal registrations. Secret parts
/// are hashed before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey(pub String);

/// A Webhook that means a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it holds a recorded id.
    pub holds: bool,
    /// Whether a create or an update for it may be under way: it has found that it goes before all others and writes now,
    /// or its mark stands.
    pub at_work: bool,
    /// Whether what it holds is as its spec says. Before that it may be another registration, which it is about to turn
    /// into this one.
    pub settled: bool,
}

impl Claimant {
    /// Who has it goes before who is about to write it, then who has something that would be turned into it, then the
    /// older, then the smaller uid. Who writes goes before an older one that came later: both would write.
    fn rank(&self) -> (u8, Timestamp, &str) {
        let class = match (self.holds, self.settled, self.at_work) {
            (true, true, _) => 0,
            (_, _, true) => 1,
            (true, false, false) => 2,
            (false, _, false) => 3,
        };
        (class, self.created, &self.uid)
    }
}

/// The one that keeps `me` from the registration, if any: the first in rank among `others`, if it goes before
/// `me`.
#[must_use]
pub fn winner_over<'a>(me: &Claimant, others: &'a [Claimant]) -> Option<&'a Claimant> {
    others
        .iter()
        .filter(|other| other.uid != me.uid)
        .min_by_key(|other| other.rank())
        .filter(|first| first.rank() < me.rank())
}

/// What the loser is told. The winner is named only within one namespace: names are nobody else's business.
#[must_use]
pub fn conflict_message(me: &Claimant, winner: &Claimant) -> String {
    let who = if me.namespace == winner.namespace {
        format!("Webhook {:?}", winner.name)
    } else {
        "a Webhook of another namespace".to_owned()
    };
    format!(
        "{who} already holds this registration; delete it, or give this one another target, url or set of events"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(namespace: &str, name: &str, uid: &str, created: i64, holds: bool) -> Claimant {
        Claimant {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            created: Timestamp::from_second(created).unwrap(),
            holds,
            at_work: false,
            settled: false,
        }
    }

    #[test]
    fn who_writes_goes_before_who_came_later_and_is_older() {
        let older = claimant("a", "older", "u1", 1, false);
        let turning = claimant("a", "turning", "u2", 1, true);
        let writes = Claimant {
            at_work: true,
            ..claimant("a", "writes", "u3", 2, false)
        };
        let has = Claimant {
            settled: true,
            ..claimant("a", "has", "u4", 3, true)
        };
        let all = [older.clone(), turning.clone(), writes.clone()];
        assert_eq!(winner_over(&older, &all), Some(&writes));
        assert_eq!(winner_over(&turning, &all), Some(&writes));
        assert_eq!(winner_over(&writes, &all), None);
        assert_eq!(winner_over(&writes, std::slice::from_ref(&has)), Some(&has));
        assert_eq!(winner_over(&has, &all), None);
    }

    #[test]
    fn who_turns_what_it_has_into_what_another_has_comes_after_it() {
        let turning = claimant("a", "turning", "u1", 1, true);
        let settled = Claimant {
            settled: true,
            ..claimant("a", "settled", "u2", 2, true)
        };
        let without = Claimant {
            settled: true,
            ..claimant("a", "without", "u0", 0, false)
        };
        let all = [turning.clone(), settled.clone(), without.clone()];
        assert_eq!(winner_over(&turning, &all), Some(&settled));
        assert_eq!(winner_over(&settled, &all), None);
        assert_eq!(winner_over(&without, &all), Some(&settled));
    }

    #[test]
    fn holder_then_older_then_smaller_uid() {
        let old = claimant("a", "old", "u3", 1, false);
        let young = claimant("a", "young", "u1", 2, false);
        let twin = claimant("a", "twin", "u2", 2, false);
        let holder = claimant("a", "holder", "u9", 9, true);
        let all = [old.clone(), young.clone(), twin.clone()];
        assert_eq!(winner_over(&old, &all), None);
        assert_eq!(winner_over(&young, &all), Some(&old));
        assert_eq!(winner_over(&twin, &[young.clone(), twin.clone()]), Some(&young));
        let all = [old.clone(), holder.clone()];
        assert_eq!(winner_over(&old, &all), Some(&holder));
        assert_eq!(winner_over(&holder, &all), None);
    }

    #[test]
    fn exactly_one_has_no_winner_over_it() {
        let all: Vec<_> = (0..30)
            .map(|n| {
                claimant(
                    "a",
                    &format!("n{n}"),
                    &format!("u{n}"),
                    i64::from(n % 3),
                    n % 7 == 0,
                )
            })
            .collect();
        assert_eq!(all.iter().filter(|me| winner_over(me, &all).is_none()).count(), 1);
    }

    #[test]
    fn a_winner_elsewhere_is_not_named() {
        let me = claimant("a", "me", "u2", 2, false);
        let near = conflict_message(&me, &claimant("a", "near", "u1", 1, false));
        let far = conflict_message(&me, &claimant("b", "far", "u1", 1, false));
        assert!(near.contains("near"));
        assert!(!far.contains("far") && !far.contains('b'.to_string().as_str().repeat(2).as_str()));
    }
}
