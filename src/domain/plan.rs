//! The next step for a Webhook that shall be registered: wanted × seen × recorded → [`Step`].
//!
//! The shell carries the step out, adds what it learned to [`Sight`], and asks again, until the step is
//! [`Step::Done`] or one that ends the pass. It makes at most one change at the upstream per pass. So the whole
//! life of a registration is this one function, and every crash is only another input to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    capabilities::{Capabilities, Identity, SecretRule},
    desired::Desired,
    hash::{Applied, HashKey},
    recorded::{Mark, Origin, Recorded, Trust},
    remote::{Look, Remote, RemoteId, differences, same_url},
};
use crate::{
    api::{
        webhook::{AdoptionPolicy, DriftPolicy, OnUpstreamDeactivation},
        webhook_status::{DeactivatedBy, State},
    },
    clock::elapsed,
};

/// How long after a first list without any known id a second one must agree.
pub const ABSENCE_CONFIRMATION: Duration = Duration::from_secs(5);

/// How long a list may lag behind a create that it was answered.
pub const LIST_LAG: Duration = Duration::from_secs(60);

/// A mark from further in the future than two clocks can be apart was not made by an operator: it is taken for old,
/// or the object would wait until that day.
const MARK_FROM_THE_FUTURE: Duration = Duration::from_secs(2 * 3600);

/// Says whether another Webhook of the account holds an id.
pub type HeldByOthers<'a> = &'a (dyn Fn(&RemoteId) -> bool + Sync);

/// Everything that the plan depends on, but for what was seen.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// What the upstream can do.
    pub capabilities: &'a Capabilities,
    /// What is wanted.
    pub want: &'a Desired,
    /// What the object remembers.
    pub recorded: &'a Recorded,
    /// How the recorded hash relates to what is wanted.
    pub applied: Applied,
    /// That hash is of another registration than the one that is recorded now, which was taken over since.
    pub took_another: bool,
    /// Key of marks and proofs.
    pub key: &'a HashKey,
    /// Spec's policy for registrations that are there already.
    pub adoption: AdoptionPolicy,
    /// Spec's policy for differences.
    pub drift: DriftPolicy,
    /// Spec's policy for a registration that somebody switched off.
    pub on_deactivation: OnUpstreamDeactivation,
    /// Who switched it off, as recorded.
    pub deactivated_by: Option<DeactivatedBy>,
    /// Its tests fail and it shall be off until something changes; `want` says `active: false` then.
    pub tripped: bool,
    /// Which ids other Webhooks of the account hold.
    pub held_by_others: HeldByOthers<'a>,
    /// URLs that Webhooks held here which are gone now: free to take over.
    pub released_urls: &'a BTreeSet<String>,
    /// Time.
    pub now: Timestamp,
    /// Longest time from a mark until its POST can have had its effect: one call's timeout + 30 s.
    pub mark_grace: Duration,
    /// When the id was recorded or last confirmed by a write of this process; `None`: long ago.
    pub wrote: Option<Duration>,
    /// How long ago a list first lacked every known id; `None`: it has not.
    pub absent_since: Option<Duration>,
    /// An update call is known not to exist, and a delete call is known to work.
    pub replace_instead_of_update: bool,
    /// The recorded registration was given up on purpose (its secret is lost): another one is to be made.
    pub given_up: bool,
    /// An older write of unknown outcome may have come after the last known one, and comes no more. What cannot be seen
    /// is written again.
    pub in_doubt: bool,
    /// A look goes before each create. Only where searches have to be shown to find what that prevents it does not.
    pub looks_first: bool,
}

/// What this pass has read.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Answer for the recorded id or key.
    pub by_id: Option<ById>,
    /// The list.
    pub all: Option<Arc<Vec<Remote>>>,
}

/// Answer for one id.
#[derive(Clone, Debug)]
pub enum ById {
    /// It is there.
    Present(Box<Remote>),
    /// The upstream says that it is not.
    Absent,
    /// The upstream cannot be read.
    CannotKnow,
}

/// Why an update is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The spec (or a Secret) changed, or it was never applied.
    Spec,
    /// Somebody changed the upstream.
    Drift,
    /// Somebody switched it off, and the spec says to switch it on again.
    Reactivate,
    /// Its tests failed too often: switched off.
    TestFailure,
    /// It was switched off for its failed tests, and shall be tried again.
    TryAgain,
    /// The upstream cannot be read: written again to be sure.
    Rewrite,
}

/// What conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// A registration is there, and the policy says never to take one over.
    NeverAdopt,
    /// The target has a registration with another URL, made by somebody else.
    ForeignUrl,
    /// Everything that matches is held by other Webhooks.
    HeldByOthers,
}

impl ConflictKind {
    /// What to tell the user.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NeverAdopt => {
                "the upstream already has this registration; remove it there, or allow adoptionPolicy IfMatching"
            }
            Self::ForeignUrl => {
                "the target already delivers to another URL, set by somebody else; remove that there, or set adoptionPolicy Always to overwrite it"
            }
            Self::HeldByOthers => {
                "another Webhook already holds this registration; delete it, or change this one"
            }
        }
    }
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read.
    Look(Look),
    /// Every known id is missing from a list: read it again after this time before believing it.
    LookAgain(Duration),
    /// A create may still take effect: look again after this time.
    WaitForMark(Duration),
    /// Somebody else holds it.
    Conflict(ConflictKind),
    /// Write a mark (where the upstream makes the id) or the id (where it is the target), then create.
    Create {
        /// The registration that the new one replaces.
        replaces: Option<RemoteId>,
    },
    /// Record an existing registration as ours, then ask again.
    Adopt {
        /// Which.
        remote: Box<Remote>,
        /// How it is recorded.
        origin: Origin,
        /// The registration that it replaces, to be removed next.
        replaces: Option<RemoteId>,
        /// Others that match as well, for the Event.
        rest: Vec<RemoteId>,
    },
    /// Make the registration as wanted.
    Update {
        /// Its id.
        id: RemoteId,
        /// What was read of it.
        there: Option<Box<Remote>>,
        /// Fields that differ.
        fields: Vec<&'static str>,
        /// Why.
        why: Why,
    },
    /// Remove what a replacement has replaced.
    Retire(RemoteId),
    /// Nothing to change.
    Done {
        /// What is there, where it can be read.
        remote: Option<Box<Remote>>,
        /// Fields that differ and are only reported.
        drift: Vec<&'static str>,
        /// Who switched it off, if it is off.
        deactivated_by: Option<DeactivatedBy>,
    },
}

/// The next step.
#[must_use]
pub fn plan(situation: &Situation<'_>, sight: &Sight) -> Step {
    match situation.capabilities.identity {
        Identity::Assigned => plan_assigned(situation, sight),
        Identity::ByTarget => plan_by_target(situation, sight),
    }
}

/// Upstreams that make the id: every create makes another object, so look first, always.
fn plan_assigned(s: &Situation<'_>, sight: &Sight) -> Step {
    if let Some(mark) = &s.recorded.mark {
        // Annotations can be edited and copied: neither what the object itself holds nor what another one holds is
        // ever removed for their sake.
        let removable = |old: &&RemoteId| s.recorded.trusted_id() != Some(*old) && !(s.held_by_others)(old);
        if let Some(old) = mark.retire.as_ref().filter(removable) {
            return Step::Retire(old.clone());
        }
        if let Some(step) = resolve_mark(s, mark, sight) {
            return step;
        }
    } else if let Some(id) = s.recorded.trusted_id().filter(|_| s.given_up) {
        return find_or_create(s, sight, Some(id.clone()));
    } else if let Some(id) = s.recorded.trusted_id()
        && let Some(step) = follow_id(s, id, sight)
    {
        return step;
    }
    find_by_content(s, sight)
}

/// A create was under way. `None`: it certainly had no effect.
fn resolve_mark(s: &Situation<'_>, mark: &Mark, sight: &Sight) -> Option<Step> {
    if !s.looks_first {
        return None;
    }
    let Some(all) = &sight.all else {
        return Some(Step::Look(Look::All { inactive: true }));
    };
    let marked = |remote: &&Remote| {
        let events = remote.events.iter().flatten();
        s.key.content(&remote.url, events) == mark.hash && Some(&remote.id) != mark.replaces.as_ref()
    };
    if let Some((best, rest)) = choose(all.iter().filter(marked), s.held_by_others) {
        let replaces = mark.replaces.clone().filter(|old| !(s.held_by_others)(old));
        return Some(Step::Adopt {
            remote: Box::new(best),
            origin: Origin::Created,
            replaces,
            rest,
        });
    }
    if let Some(left) = mark_wait(mark, s.now, s.mark_grace) {
        return Some(Step::WaitForMark(left));
    }
    if mark.replaces.is_some() {
        return None;
    }
    // Nothing was created, and what was recorded before is still there: recorded again, which takes the mark away.
    // Looking by content instead would make a second one where the spec was edited meanwhile.
    let (id, trust) = s
        .recorded
        .id
        .as_ref()
        .filter(|(_, trust)| *trust != Trust::Hint)?;
    let origin = if let Trust::Proven(origin) = trust {
        *origin
    } else {
        Origin::Adopted
    };
    let there = all.iter().find(|remote| remote.id == *id)?;
    Some(Step::Adopt {
        remote: Box::new(there.clone()),
        origin,
        replaces: None,
        rest: Vec::new(),
    })
}

/// How long the create of a mark may still take effect. `None`: no longer.
pub(super) fn mark_wait(mark: &Mark, now: Timestamp, grace: Duration) -> Option<Duration> {
    if elapsed(now, mark.time) > MARK_FROM_THE_FUTURE {
        return None;
    }
    let left = grace.saturating_sub(elapsed(mark.time, now));
    (!left.is_zero()).then_some(left)
}

/// An id is recorded. `None`: it is gone, look by content.
fn follow_id(s: &Situation<'_>, id: &RemoteId, sight: &Sight) -> Option<Step> {
    let found = sight
        .all
        .as_ref()
        .and_then(|all| all.iter().find(|remote| remote.id == *id));
    if let Some(remote) = found {
        return Some(compare(s, remote, sight));
    }
    match &sight.by_id {
        None => Some(Step::Look(Look::ById(id.clone()))),
        Some(ById::Present(remote)) => Some(compare(s, remote, sight)),
        Some(ById::CannotKnow) => Some(compare_blind(s, id)),
        Some(ById::Absent) => {
            let Some(all) = &sight.all else {
                return Some(Step::Look(Look::All { inactive: true }));
            };
            // A list may lag behind our own create; and a list without any of the ids that are known may be
            // somebody's outage rather than somebody's deletion.
            if let Some(wrote) = s.wrote.filter(|wrote| *wrote < LIST_LAG) {
                return Some(Step::LookAgain(
                    LIST_LAG.saturating_sub(wrote).min(ABSENCE_CONFIRMATION),
                ));
            }
            let none_known = !all.iter().any(|remote| (s.held_by_others)(&remote.id));
            match s.absent_since {
                None if none_known => Some(Step::LookAgain(ABSENCE_CONFIRMATION)),
                Some(since) if none_known && since < ABSENCE_CONFIRMATION => {
                    Some(Step::LookAgain(ABSENCE_CONFIRMATION.saturating_sub(since)))
                }
                _ => None,
            }
        }
    }
}

/// No id that counts: find the registration by its content, or create it.
fn find_by_content(s: &Situation<'_>, sight: &Sight) -> Step {
    let replaces = s.recorded.mark.as_ref().and_then(|mark| mark.replaces.clone());
    find_or_create(s, sight, replaces)
}

/// As above; `replaces` is ours already and not what is looked for.
fn find_or_create(s: &Situation<'_>, sight: &Sight, replaces: Option<RemoteId>) -> Step {
    if !s.looks_first {
        return Step::Create { replaces };
    }
    let Some(all) = &sight.all else {
        // The finalizer says that something was written, even where annotations and status were wiped.
        let recorded = s.recorded.id.is_some() || s.recorded.mark.is_some() || s.recorded.may_have_written;
        let inactive = recorded || !s.want.active;
        return Step::Look(Look::All { inactive });
    };
    let same_content = |remote: &&Remote| {
        same_url(&remote.url, &s.want.url)
            && remote
                .events
                .as_ref()
                .is_none_or(|events| *events == s.want.events)
            && Some(&remote.id) != replaces.as_ref()
    };
    let matching: Vec<&Remote> = all.iter().filter(same_content).collect();
    // A hinted id goes first among those that match.
    let hinted = s.recorded.id.as_ref().map(|(id, _)| id);
    let by_hint = matching
        .iter()
        .copied()
        .filter(|remote| Some(&remote.id) == hinted);
    let hinted = choose(by_hint, s.held_by_others).map(|(best, _)| best);
    let chosen = choose(matching.iter().copied(), s.held_by_others).map(|(best, rest)| match hinted {
        Some(hinted) if hinted.id != best.id => {
            let others = std::iter::once(best.id)
                .chain(rest)
                .filter(|id| *id != hinted.id)
                .collect();
            (hinted, others)
        }
        _ => (best, rest),
    });
    // Written, and no longer known where: what has exactly this content is it. Where it is known and gone, what is
    // there now is somebody else's.
    let lost = s.recorded.may_have_written && s.recorded.trusted_id().is_none();
    match chosen {
        Some(_) if s.adoption == AdoptionPolicy::Never && !lost => Step::Conflict(ConflictKind::NeverAdopt),
        Some((best, rest)) => Step::Adopt {
            remote: Box::new(best),
            origin: Origin::Adopted,
            replaces,
            rest,
        },
        None if !matching.is_empty() => Step::Conflict(ConflictKind::HeldByOthers),
        None => Step::Create { replaces },
    }
}

/// The best of several that match and that nobody holds, and the ids of the rest: valid before new before others,
/// then the oldest, then the lowest id.
pub(super) fn choose<'a>(
    candidates: impl Iterator<Item = &'a Remote>,
    held: HeldByOthers<'_>,
) -> Option<(Remote, Vec<RemoteId>)> {
    let rank = |remote: &Remote| {
        let state = match remote.state {
            Some(State::Valid) => 0,
            Some(State::New) | None => 1,
            Some(State::Invalid) => 2,
            Some(State::Deactivated) => 3,
        };
        let number = remote.id.0.parse::<u64>().unwrap_or(u64::MAX);
        (
            state,
            remote.created.unwrap_or(Timestamp::MAX),
            number,
            remote.id.0.clone(),
        )
    };
    let mut free: BTreeMap<_, &Remote> = candidates
        .filter(|remote| !held(&remote.id))
        .map(|remote| (rank(remote), remote))
        .collect();
    let (_, best) = free.pop_first()?;
    // A list that shifted while it was read may show one twice.
    let mut seen = BTreeSet::from([&best.id]);
    let rest = free
        .values()
        .filter(|remote| seen.insert(&remote.id))
        .map(|remote| remote.id.clone())
        .collect();
    Some((best.clone(), rest))
}

/// Upstreams where the target is the id: there is one registration, ours or somebody else's.
fn plan_by_target(s: &Situation<'_>, sight: &Sight) -> Step {
    let id = RemoteId(s.want.target.clone().unwrap_or_default());
    // The recorded id counts only for this target; it cannot be another one unless somebody edited it.
    let ours = s.recorded.trusted_id() == Some(&id);
    match &sight.by_id {
        None => Step::Look(Look::ById(id)),
        Some(ById::Absent) => Step::Create { replaces: None },
        Some(ById::CannotKnow) if ours => compare_blind(s, &id),
        Some(ById::CannotKnow) => Step::Create { replaces: None },
        Some(ById::Present(remote)) if ours => compare(s, remote, sight),
        Some(ById::Present(remote)) => {
            let same = same_url(&remote.url, &s.want.url);
            let free = remote.url.is_empty()
                || !remote.is_on()
                || s.released_urls.iter().any(|url| same_url(url, &remote.url));
            let taken_over = match s.adoption {
                // It claimed this target before, and what recorded that was wiped: the finalizer stands only then.
                _ if s.recorded.may_have_written && !(s.held_by_others)(&id) => true,
                AdoptionPolicy::Always => true,
                AdoptionPolicy::IfMatching => same || free,
                AdoptionPolicy::Never => free,
            };
            if taken_over {
                let origin = if same { Origin::Adopted } else { Origin::Created };
                Step::Adopt {
                    remote: remote.clone(),
                    origin,
                    replaces: None,
                    rest: Vec::new(),
                }
            } else if same {
                Step::Conflict(ConflictKind::NeverAdopt)
            } else {
                Step::Conflict(ConflictKind::ForeignUrl)
            }
        }
    }
}

/// It can be read: is it as wanted?
fn compare(s: &Situation<'_>, there: &Remote, sight: &Sight) -> Step {
    let fields = differences(s.want, there);
    let done = |drift: Vec<&'static str>, deactivated_by| Step::Done {
        remote: Some(Box::new(there.clone())),
        drift,
        deactivated_by,
    };
    let update = |fields: Vec<&'static str>, why| {
        if s.replace_instead_of_update {
            return find_or_create(s, sight, Some(there.id.clone()));
        }
        Step::Update {
            id: there.id.clone(),
            there: Some(Box::new(there.clone())),
            fields,
            why,
        }
    };
    let off = (!there.is_on()).then_some(match (s.want.active, s.tripped) {
        (true, _) => DeactivatedBy::Upstream,
        (false, true) => DeactivatedBy::TestFailure,
        (false, false) => DeactivatedBy::Spec,
    });
    // Once it is done and recorded, somebody who switches it on changes the upstream like anybody else.
    if s.tripped && there.is_on() && s.deactivated_by != Some(DeactivatedBy::TestFailure) {
        return Step::Update {
            id: there.id.clone(),
            there: Some(Box::new(there.clone())),
            fields,
            why: Why::TestFailure,
        };
    }
    match s.applied {
        // After an adoption, or a crash between a write and its record. What cannot be read back is written
        // once more; it does no harm. That there is no secret cannot be read either.
        Applied::Never
            if fields.is_empty()
                && !wants_unseen(s.want, there)
                && !matches!(s.capabilities.secret, SecretRule::Given { .. }) =>
        {
            done(fields, off)
        }
        Applied::Changed if fields.is_empty() && !may_differ_unseen(s, there) => done(fields, off),
        Applied::Never | Applied::Changed => update(fields, Why::Spec),
        // What was taken over or made anew is not what was applied before: nobody has changed it since, or switched it off.
        Applied::Same | Applied::OtherKey
            if s.took_another && (off == Some(DeactivatedBy::Upstream) || !fields.is_empty()) =>
        {
            update(fields, Why::Spec)
        }
        // Nobody can tell whether the spec changed or the upstream; applied once, whatever the drift policy. Somebody
        // else's switch is still told apart.
        Applied::OtherKey
            if off != Some(DeactivatedBy::Upstream)
                && (!fields.is_empty() || wants_unseen(s.want, there)) =>
        {
            update(fields, Why::Rewrite)
        }
        Applied::Same | Applied::OtherKey => {
            if off == Some(DeactivatedBy::Upstream) {
                return match (s.on_deactivation, s.deactivated_by) {
                    (_, Some(DeactivatedBy::TestFailure)) => update(fields, Why::TryAgain),
                    (OnUpstreamDeactivation::Reactivate, _) => update(fields, Why::Reactivate),
                    // Switched off by the spec, and the spec says otherwise now: then the hash has changed, unless
                    // the switch was lost. Put right.
                    (_, Some(DeactivatedBy::Spec)) => update(fields, Why::Drift),
                    (OnUpstreamDeactivation::Report, by) => done(Vec::new(), by.or(off)),
                };
            }
            match s.drift {
                _ if fields.is_empty()
                    && s.in_doubt
                    && !s.replace_instead_of_update
                    && may_differ_unseen(s, there) =>
                {
                    update(fields, Why::Rewrite)
                }
                _ if fields.is_empty() => done(fields, off),
                DriftPolicy::Correct => update(fields, Why::Drift),
                DriftPolicy::Report => done(fields, off),
            }
        }
    }
}

/// It cannot be read. What was written is all that is known; it is written again when it is due.
fn compare_blind(s: &Situation<'_>, id: &RemoteId) -> Step {
    let why = if s.applied == Applied::Same {
        Why::Rewrite
    } else {
        Why::Spec
    };
    Step::Update {
        id: id.clone(),
        there: None,
        fields: Vec::new(),
        why,
    }
}

/// Whether something is wanted that was not shown: a secret or password, which no upstream shows, or a field that
/// this upstream did not show this time.
fn wants_unseen(want: &Desired, there: &Remote) -> bool {
    want.secret.is_some()
        || want.basic_auth.is_some()
        || (!want.headers.is_empty() && there.headers.is_none())
        || (want.retry.is_some() && there.retry.is_none())
        || (want.description.is_some() && there.description.is_none())
}

/// Whether a change of the spec may be one that what was read cannot show, the removal of a value among them.
fn may_differ_unseen(s: &Situation<'_>, there: &Remote) -> bool {
    let can = s.capabilities;
    wants_unseen(s.want, there)
        || matches!(can.secret, SecretRule::Given { .. })
        || (can.basic_auth && there.basic_auth_user.is_none())
        || (can.events && there.events.is_none())
        || (can.max_headers > 0 && there.headers.is_none())
        || (can.retry && there.retry.is_none())
        || (can.max_description > 0 && there.description.is_none())
}

#[cfg(test)]
mod tests;
