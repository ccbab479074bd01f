//! Rotation of a signing secret that the operator makes, receiver first: what the Secret holds × its journal × the
//! status → the next [`Step`]. Pure; the shell carries a step out as one write of the Secret and asks again.
//!
//! ```text
//! <key>       A        A        B                 B           B
//! .next                B
//! .previous                     A                 A
//!             Publish → Promote → (update, confirmed) → Expire
//! upstream    A        A        A                 B           B
//! ```
//!
//! The upstream is always given what stands under `<key>`, by the same update as any other change. So at every moment
//! what it signs with is one of the three values, and a receiver that accepts all three refuses nothing:
//!
//! * a value has been in the Secret for `settle` (or the receiver has shown that it takes it) before it can become
//!   the one that the upstream is given;
//! * nothing is promoted before the upstream has confirmed what stands under `<key>`, or the value that it still
//!   signs with would be pushed out of `.previous`;
//! * `.previous` goes only `overlap` after the upstream confirmed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        WebhookSpec,
        conditions::TestedReason,
        webhook::Rotation,
        webhook_status::{RotationPhase, RotationStatus},
    },
    clock::elapsed,
};

/// How old what was seen of the upstream may be when a secret is promoted. The update that follows writes the whole
/// registration: it must not undo what somebody did there meanwhile.
pub const FRESH_SIGHT: Duration = Duration::from_secs(30);

/// A time from further in the future than two clocks can be apart is taken for none, or the object would wait until
/// that day.
const FROM_THE_FUTURE: Duration = Duration::from_secs(2 * 3600);

/// When a secret is rotated, with what the spec leaves out at its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How old a secret may become; `None`: rotated on request only.
    pub interval: Option<Duration>,
    /// How long the old one stays after the upstream has the new one.
    pub overlap: Duration,
    /// How long the new one is in the Secret before the upstream gets it.
    pub settle: Duration,
}

impl Policy {
    /// That of a spec.
    #[must_use]
    pub fn of(spec: &WebhookSpec) -> Self {
        let policy = spec.secret_policy.as_ref();
        let rotation = policy.and_then(|policy| policy.rotation.as_ref());
        Self {
            interval: rotation.map(|rotation| rotation.interval.get()),
            overlap: rotation
                .map_or(Rotation::OVERLAP, |rotation| rotation.overlap)
                .get(),
            settle: rotation
                .map_or(Rotation::SETTLE, |rotation| rotation.settle)
                .get(),
        }
    }
}

/// A value under one key of the Secret, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Keyed hash of the value.
    pub print: String,
    /// Since when it stands there, in whole seconds.
    pub since: Timestamp,
}

/// What the operator noted on the Secret, in the same write as the values that it speaks of. Who may write the Secret
/// may write this as well, and gains nothing by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    /// The key that it speaks of.
    pub key: String,
    /// The value under the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Entry>,
    /// The value under `<key>.next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Entry>,
    /// The request that the last rotation answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Journal {
    /// Reads the annotation. What cannot be read is as if it were not there: then times begin anew.
    #[must_use]
    pub fn from_text(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Text of the annotation.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The key of the secret that the upstream gets next.
#[must_use]
pub fn next_key(key: &str) -> String {
    format!("{key}.next")
}

/// The key of the secret that the upstream had before.
#[must_use]
pub fn previous_key(key: &str) -> String {
    format!("{key}.previous")
}

/// What stands under `<key>.next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// A secret that the upstream takes, as keyed hash.
    Usable(String),
    /// Anything else; put there by somebody.
    Unusable,
}

/// What the Secret holds. Values are known by their keyed hashes only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Under `<key>`; `None`: nothing, or nothing that is a text.
    pub current: Option<String>,
    /// Under `<key>.next`.
    pub next: Option<Candidate>,
    /// Whether there is something under `<key>.previous`.
    pub previous: bool,
}

/// What a probe signed with the next secret has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The receiver takes it.
    Passed,
    /// It does not, or not yet.
    Failed,
}

/// Probes in a row that have to pass. Replicas of a receiver do not read the Secret at the same moment, and one probe
/// reaches one of them.
const PROOFS: u32 = 8;

/// Shortest and longest time between two probes.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(300));

/// What the probes signed with one secret have shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Proof {
    passes: u32,
    failure: Option<TestedReason>,
}

impl Proof {
    /// Notes how one ended.
    pub fn note(&mut self, reason: TestedReason) {
        if reason == TestedReason::Passed {
            self.passes = self.passes.saturating_add(1);
        } else {
            self.passes = 0;
            self.failure = Some(reason);
        }
    }

    /// What they show taken together; `None`: not enough yet.
    #[must_use]
    pub fn probed(&self) -> Option<Probed> {
        match (self.passes, self.failure) {
            (PROOFS.., _) => Some(Probed::Passed),
            (0, Some(_)) => Some(Probed::Failed),
            (_, _) => None,
        }
    }

    /// Why the last one failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<TestedReason> {
        self.failure.filter(|_| self.passes == 0)
    }

    /// Time until the next probe of a secret that has been there for `age`: the longer nobody took it, the longer.
    #[must_use]
    pub fn pause(&self, age: Duration) -> Duration {
        let (shortest, longest) = PROBE_PAUSE;
        if self.passes > 0 {
            shortest
        } else {
            (age / 20).clamp(shortest, longest)
        }
    }
}

/// Everything that the next step depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// `secretRef.key`.
    pub key: &'a str,
    /// What the Secret holds.
    pub keys: &'a Keys,
    /// What is noted on it.
    pub journal: &'a Journal,
    /// When to rotate.
    pub policy: Policy,
    /// `status.rotation`.
    pub status: Option<&'a RotationStatus>,
    /// `status.lastHandledRotateAt`.
    pub handled: Option<&'a str>,
    /// Value of the annotation `rotate-requested-at`.
    pub asked: Option<&'a str>,
    /// The upstream has confirmed everything that is wanted now, what stands under the key included.
    pub applied: bool,
    /// Nothing else is to be done, and nothing speaks against writing the registration.
    pub free: bool,
    /// When this process last saw that the upstream is as wanted.
    pub looked: Option<Timestamp>,
    /// What a probe signed with the present `.next` has shown; `None`: nothing yet, or none is sent.
    pub probe: Option<Probed>,
    /// Spreads rotations that would come at the same time.
    pub seed: u64,
    /// Time.
    pub now: Timestamp,
}

/// What to do about the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time; `None`: before something changes.
    Rest(Option<Timestamp>),
    /// There is no secret: one is to be made (or the next one taken, which receivers know).
    Make,
    /// The journal does not speak of what is there: somebody changed it. Times begin anew.
    Note,
    /// Put a new secret under `.next`.
    Publish,
    /// Take away what stands under `.next` and cannot be used.
    Withdraw,
    /// See first how the upstream is.
    Look,
    /// The next secret becomes the current one, the current one the previous one.
    Promote,
    /// Take the previous secret away.
    Expire,
}

/// What becomes of the value under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// It becomes a new secret.
    Fresh,
    /// It becomes what stands under `<key>`.
    Current,
    /// It becomes what stands under `<key>.next`.
    Next,
}

/// One write of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Under `<key>`.
    pub current: Put,
    /// Under `<key>.next`.
    pub next: Put,
    /// Under `<key>.previous`.
    pub previous: Put,
    /// What is noted.
    pub journal: Journal,
    /// A former `secretRef.key`, of which `.next` and `.previous` go.
    pub forget: Option<String>,
}

/// The write that makes a secret where there is none: a new one, or the next one, which receivers know. `fresh`: keyed
/// hash of a new one.
#[must_use]
pub fn make(s: &Situation<'_>, fresh: &str) -> Change {
    let next = match &s.keys.next {
        Some(Candidate::Usable(print)) => Some(print),
        Some(Candidate::Unusable) | None => None,
    };
    let entry = Entry {
        print: next.map_or(fresh, String::as_str).to_owned(),
        since: s.new_since(),
    };
    Change {
        current: if next.is_some() { Put::Next } else { Put::Fresh },
        next: if s.keys.next.is_some() {
            Put::Remove
        } else {
            Put::Keep
        },
        previous: Put::Keep,
        journal: Journal {
            key: s.key.to_owned(),
            current: Some(entry),
            next: None,
            request: s.journal.request.clone(),
        },
        forget: None,
    }
}

/// What to do next.
#[must_use]
pub fn next_step(s: &Situation<'_>) -> Step {
    if s.keys.current.is_none() {
        return Step::Make;
    }
    let usable = match &s.keys.next {
        None => true,
        Some(Candidate::Usable(print)) => Some(print) != s.keys.current.as_ref(),
        Some(Candidate::Unusable) => false,
    };
    if !usable {
        return Step::Withdraw;
    }
    if !s.is_noted() {
        // Under another key the upstream may still sign with a value of the former one.
        let same_key = s.journal.key.is_empty() || s.journal.key == s.key;
        return if same_key || s.applied {
            Step::Note
        } else {
            Step::Rest(None)
        };
    }
    let Some((signing_since, current)) = s.signing_since().zip(s.current()) else {
        return Step::Rest(None);
    };
    if let Some(next) = s.next() {
        let settled = later(next.since, s.policy.settle);
        return if s.probe != Some(Probed::Passed) && s.now < settled {
            Step::Rest(Some(settled))
        } else if !s.free {
            Step::Rest(None)
        } else if s.looked.is_none_or(|looked| elapsed(looked, s.now) > FRESH_SIGHT) {
            Step::Look
        } else {
            Step::Promote
        };
    }
    let expires = s.keys.previous.then(|| later(signing_since, s.policy.overlap));
    if expires.is_some_and(|expires| expires <= s.now) {
        return Step::Expire;
    }
    if !s.free {
        return Step::Rest(expires);
    }
    // One after the other, unless somebody asks for it.
    let due = s.due(current.since).filter(|_| !s.keys.previous);
    if s.asks() || due.is_some_and(|due| due <= s.now) {
        return Step::Publish;
    }
    Step::Rest(expires.or(due))
}

/// The write that carries a step out; `None`: it needs none. `fresh`: keyed hash of a new secret.
#[must_use]
pub fn change(s: &Situation<'_>, step: Step, fresh: &str) -> Option<Change> {
    let entry = |print: &str, since| {
        let print = print.to_owned();
        Some(Entry { print, since })
    };
    let mut change = Change {
        current: Put::Keep,
        next: Put::Keep,
        previous: Put::Keep,
        journal: s.journal.clone(),
        forget: None,
    };
    match step {
        Step::Rest(_) | Step::Look => return None,
        Step::Make => return Some(make(s, fresh)),
        Step::Note => {
            let print = s.keys.current.as_deref().unwrap_or_default();
            change.journal.current = s.current().cloned().or_else(|| entry(print, s.new_since()));
            change.journal.next = match &s.keys.next {
                Some(Candidate::Usable(print)) => s.next().cloned().or_else(|| entry(print, whole(s.now))),
                Some(Candidate::Unusable) | None => None,
            };
            if s.journal.key != s.key {
                change.forget = Some(s.journal.key.clone()).filter(|key| !key.is_empty());
                change.journal.key = s.key.to_owned();
            }
        }
        Step::Publish => {
            change.next = Put::Fresh;
            change.journal.next = entry(fresh, whole(s.now));
            if s.asks() {
                change.journal.request = s.asked.map(str::to_owned);
            }
        }
        Step::Withdraw => {
            change.next = Put::Remove;
            change.journal.next = None;
        }
        Step::Promote => {
            change.current = Put::Next;
            change.next = Put::Remove;
            change.previous = Put::Current;
            let next = change.journal.next.take();
            change.journal.current = next.map(|next| Entry {
                since: s.new_since(),
                ..next
            });
        }
        Step::Expire => change.previous = Put::Remove,
    }
    Some(change)
}

/// `status.rotation` as it is to be. What is under way is told once the upstream agrees: until then it stands where
/// it stood.
#[must_use]
pub fn next_status(s: &Situation<'_>) -> RotationStatus {
    let old = s.status.cloned().unwrap_or_default();
    let Some(current) = s.current().filter(|_| s.applied) else {
        return old;
    };
    let signing_since = s
        .signing_since()
        .unwrap_or_else(|| whole(s.now).max(current.since));
    let phase = if s.keys.next.is_some() {
        RotationPhase::Settling
    } else if s.keys.previous {
        RotationPhase::Overlapping
    } else {
        RotationPhase::Idle
    };
    RotationStatus {
        phase,
        last_time: Some(Time(signing_since)),
        previous_expires: s
            .keys
            .previous
            .then(|| Time(later(signing_since, s.policy.overlap))),
    }
}

impl Situation<'_> {
    /// `status.lastHandledRotateAt` as it is to be. A request while a new secret settles means that one.
    #[must_use]
    pub fn next_handled(&self) -> Option<&str> {
        let begun = |asked: &&str| self.journal.request.as_deref() == Some(*asked) || self.next().is_some();
        self.asked.filter(begun).or(self.handled)
    }

    /// A rotation is asked for, and none was begun for it.
    fn asks(&self) -> bool {
        self.asked.is_some_and(|asked| {
            Some(asked) != self.handled && self.journal.request.as_deref() != Some(asked)
        })
    }

    /// The journal's entry for what stands under the key.
    fn current(&self) -> Option<&Entry> {
        let entry = self.journal.current.as_ref()?;
        let fits = self.journal.key == self.key && Some(&entry.print) == self.keys.current.as_ref();
        (fits && self.is_past(entry.since)).then_some(entry)
    }

    /// The journal's entry for what stands under `.next`.
    fn next(&self) -> Option<&Entry> {
        let entry = self.journal.next.as_ref()?;
        let fits = self.journal.key == self.key
            && self.keys.next == Some(Candidate::Usable(entry.print.clone()))
            && self.is_past(entry.since);
        fits.then_some(entry)
    }

    /// The journal speaks of what is there.
    fn is_noted(&self) -> bool {
        self.current().is_some()
            && if self.keys.next.is_some() {
                self.next().is_some()
            } else {
                self.journal.next.is_none()
            }
    }

    /// Since when the upstream signs with what stands under the key; `None`: it does not yet, as far as is recorded.
    fn signing_since(&self) -> Option<Timestamp> {
        let current = self.current().filter(|_| self.applied)?;
        self.last_time().filter(|last| *last >= current.since)
    }

    fn last_time(&self) -> Option<Timestamp> {
        let last = self.status?.last_time.as_ref()?.0;
        self.is_past(last).then_some(last)
    }

    /// The time noted for a value that comes under the key now: later than any that was confirmed before, however
    /// short the rotation.
    fn new_since(&self) -> Timestamp {
        let after = self
            .last_time()
            .map_or(Timestamp::MIN, |last| later(last, Duration::from_secs(1)));
        whole(self.now).max(after)
    }

    /// When the secret is too old. Up to a tenth of the interval early, so that secrets that were made together are
    /// not all replaced at once.
    fn due(&self, since: Timestamp) -> Option<Timestamp> {
        let interval = self.policy.interval?;
        let early = interval / 10 * u32::try_from(self.seed % 1000).unwrap_or(0) / 1000;
        Some(later(since, interval.saturating_sub(early)))
    }

    fn is_past(&self, time: Timestamp) -> bool {
        elapsed(self.now, time) <= FROM_THE_FUTURE
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Without the fraction of a second, which a time in a status does not have either.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
