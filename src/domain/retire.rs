//! The next step for a Webhook that is being deleted. It needs as little as possible: no valid spec, no Secret of
//! the Webhook, and it works after a create whose outcome is unknown.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    capabilities::{Capabilities, Identity},
    hash::HashKey,
    plan::{HeldByOthers, choose, mark_wait},
    recorded::Recorded,
    remote::{Look, Remote, RemoteId, same_url},
};
use crate::api::webhook::DeletionPolicy;

/// Everything that the plan depends on.
#[derive(Clone, Copy)]
pub struct Retirement<'a> {
    /// What the upstream can do.
    pub capabilities: &'a Capabilities,
    /// What the object remembers.
    pub recorded: &'a Recorded,
    /// Spec's target.
    pub target: Option<&'a str>,
    /// Spec's URL.
    pub url: &'a str,
    /// Spec's events.
    pub events: &'a BTreeSet<String>,
    /// Spec's policy.
    pub policy: DeletionPolicy,
    /// Deleted while suspended: untouched.
    pub suspended: bool,
    /// Key of marks.
    pub key: &'a HashKey,
    /// Which ids other Webhooks hold: never removed.
    pub held_by_others: HeldByOthers<'a>,
    /// The list, once it was read.
    pub all: Option<&'a Arc<Vec<Remote>>>,
}

/// What to do with the registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing was ever written: let the object go.
    Nothing,
    /// Read.
    Look(Look),
    /// Left as it is, by the policy.
    Leave(Option<RemoteId>),
    /// Switch it off and keep it.
    SwitchOff(RemoteId),
    /// Remove these, as far as the upstream can; more than one only after an interrupted replacement.
    Remove(Vec<RemoteId>),
}

/// The next step.
#[must_use]
pub fn farewell(s: &Retirement<'_>) -> Farewell {
    if !s.recorded.may_have_written {
        return Farewell::Nothing;
    }
    let by_target = s.capabilities.identity == Identity::ByTarget;
    let known = if by_target {
        s.recorded
            .id
            .as_ref()
            .map(|(id, _)| id)
            .filter(|id| Some(id.0.as_str()) == s.target)
            .cloned()
    } else {
        s.recorded.trusted_id().cloned()
    };
    if s.suspended || s.policy == DeletionPolicy::Orphan {
        return Farewell::Leave(known.or_else(|| s.recorded.id.as_ref().map(|(id, _)| id.clone())));
    }
    if by_target {
        // The finalizer stands only where this object has claimed its target.
        // Another one may have taken it over since, when the record of that was wiped here.
        let id = s
            .target
            .map(|target| RemoteId(target.to_owned()))
            .filter(|id| !(s.held_by_others)(id));
        return id.map_or(Farewell::Nothing, |id| dismiss(s, vec![id]));
    }
    let ids = match (&s.recorded.mark, known) {
        (None, Some(id)) => vec![id],
        (mark, known) => {
            let Some(all) = s.all else {
                return Farewell::Look(Look::All { inactive: true });
            };
            let mut ids: Vec<RemoteId> = known.into_iter().collect();
            if let Some(mark) = mark {
                ids.extend(mark.replaces.iter().chain(&mark.retire).cloned());
                let earlier = ids.clone();
                let marked = |it: &&Remote| content(s.key, it) == mark.hash && !earlier.contains(&it.id);
                // One POST made one: others of the same content are somebody else's.
                ids.extend(choose(all.iter().filter(marked), s.held_by_others).map(|(best, _)| best.id));
            }
            if ids.is_empty() {
                // Status and annotations were wiped or spoiled: the finalizer says that something was written, so
                // what has exactly this content and no other holder is it, the hinted one first.
                let ours = |remote: &&Remote| {
                    same_url(&remote.url, s.url)
                        && remote.events.as_ref().is_none_or(|events| events == s.events)
                };
                let hint = s.recorded.id.as_ref().map(|(id, _)| id);
                let hinted = all.iter().filter(ours).filter(|remote| Some(&remote.id) == hint);
                let chosen = choose(hinted, s.held_by_others)
                    .or_else(|| choose(all.iter().filter(ours), s.held_by_others));
                ids.extend(chosen.map(|(best, _)| best.id));
            }
            ids.retain(|id| !(s.held_by_others)(id));
            let mut seen = BTreeSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            if s.policy == DeletionPolicy::Deactivate && ids.len() > 1 {
                // What is gone already needs no switch, and must not turn switching off into removing.
                ids.retain(|id| all.iter().any(|remote| remote.id == *id));
            }
            ids
        }
    };
    if ids.is_empty() {
        Farewell::Nothing
    } else {
        dismiss(s, ids)
    }
}

/// How long to wait before [`farewell`] is carried out: a create that this object has sent may still take effect, and
/// nobody would remove what it makes. `None`: no wait, or the marked content is already in the list.
#[must_use]
pub fn wait_for_create(s: &Retirement<'_>, now: Timestamp, mark_grace: Duration) -> Option<Duration> {
    if s.suspended || s.policy == DeletionPolicy::Orphan || s.capabilities.identity == Identity::ByTarget {
        return None;
    }
    let mark = s.recorded.mark.as_ref().filter(|mark| mark.retire.is_none())?;
    let taken_effect = s.all?.iter().any(|remote| content(s.key, remote) == mark.hash);
    if taken_effect {
        None
    } else {
        mark_wait(mark, now, mark_grace)
    }
}

/// The same where the registration is left alone and no call is made to look: whoever is applied with the same content
/// meanwhile would not see it, and make a second one.
#[must_use]
pub fn wait_for_left_create(recorded: &Recorded, now: Timestamp, mark_grace: Duration) -> Option<Duration> {
    let mark = recorded.mark.as_ref().filter(|mark| mark.retire.is_none())?;
    mark_wait(mark, now, mark_grace)
}

fn dismiss(s: &Retirement<'_>, mut ids: Vec<RemoteId>) -> Farewell {
    match s.policy {
        DeletionPolicy::Deactivate if s.capabilities.switch && ids.len() == 1 => {
            ids.pop().map_or(Farewell::Nothing, Farewell::SwitchOff)
        }
        _ => Farewell::Remove(ids),
    }
}

fn content(key: &HashKey, remote: &Remote) -> String {
    key.content(&remote.url, remote.events.iter().flatten())
}

#[cfg(test)]
mod tests;
