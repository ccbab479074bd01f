//! Tests of the plan: each rule by itself here, all crash points together in [`explore`].

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::*;
use crate::{
    api::WebhookSpec,
    domain::{
        desired::{BasicAuth, Header, Retry},
        recorded::Mark,
        remote::normal_url,
    },
    provider::{autocosmos, conpeek, ricloud, thulium},
};

mod changes;
mod create_once;
mod explore;
mod properties;

fn key() -> HashKey {
    HashKey::new([7; 32])
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// As the shell: the hash that was recorded against the one of what is wanted.
fn applied(recorded: Option<&str>, want: &Desired) -> Applied {
    match recorded {
        None => Applied::Never,
        Some(hash) if hash == key().applied(want) => Applied::Same,
        Some(_) => Applied::Changed,
    }
}

fn desired(spec: &WebhookSpec) -> Desired {
    Desired {
        target: spec.target.clone(),
        url: spec.url.clone(),
        events: spec.events.iter().cloned().collect(),
        active: spec.active,
        ..Desired::default()
    }
}

fn url() -> String {
    "https://a.example/x".to_owned()
}

fn want() -> Desired {
    Desired {
        url: url(),
        active: true,
        ..Desired::default()
    }
}

/// What the object remembers of a registration that it made.
fn owns(id: &str) -> Recorded {
    Recorded {
        id: Some((RemoteId(id.into()), Trust::Proven(Origin::Created))),
        mark: None,
        may_have_written: true,
        annotated: true,
        made_of: None,
    }
}

fn mark(content: &Desired, seconds: i64) -> Mark {
    Mark {
        hash: key().content(&content.url, &content.events),
        time: at(seconds),
        replaces: None,
        retire: None,
        made_of: None,
    }
}

/// A situation with owned parts; each test changes what it is about.
struct Case {
    can: &'static Capabilities,
    want: Desired,
    recorded: Recorded,
    applied: Applied,
    took_another: bool,
    adoption: AdoptionPolicy,
    drift: DriftPolicy,
    on_deactivation: OnUpstreamDeactivation,
    deactivated_by: Option<DeactivatedBy>,
    tripped: bool,
    held: Vec<&'static str>,
    released: BTreeSet<String>,
    wrote: Option<Duration>,
    absent_since: Option<Duration>,
    replace: bool,
    sight: Sight,
}

impl Case {
    fn new(can: &'static Capabilities) -> Self {
        let target = (can.identity == Identity::ByTarget).then(|| "9".to_owned());
        Self {
            can,
            want: Desired { target, ..want() },
            recorded: Recorded::default(),
            applied: Applied::Never,
            took_another: false,
            adoption: AdoptionPolicy::IfMatching,
            drift: DriftPolicy::Correct,
            on_deactivation: OnUpstreamDeactivation::Report,
            deactivated_by: None,
            tripped: false,
            held: Vec::new(),
            released: BTreeSet::new(),
            wrote: None,
            absent_since: None,
            replace: false,
            sight: Sight::default(),
        }
    }

    /// One that made registration 5, applied it, and now reads it back.
    fn settled(can: &'static Capabilities) -> Self {
        let id = if can.identity == Identity::ByTarget {
            "9"
        } else {
            "5"
        };
        Self {
            recorded: owns(id),
            applied: Applied::Same,
            ..Self::new(can)
        }
    }

    fn lists(self, all: impl IntoIterator<Item = Remote>) -> Self {
        Self {
            sight: Sight {
                all: Some(Arc::new(all.into_iter().collect())),
                ..self.sight
            },
            ..self
        }
    }

    fn reads(self, remote: Remote) -> Self {
        Self {
            sight: Sight {
                by_id: Some(ById::Present(Box::new(remote))),
                ..self.sight
            },
            ..self
        }
    }

    fn absent(self) -> Self {
        Self {
            sight: Sight {
                by_id: Some(ById::Absent),
                ..self.sight
            },
            ..self
        }
    }

    fn next(&self) -> Step {
        let held = |id: &RemoteId| self.held.contains(&id.0.as_str());
        let key = key();
        let situation = Situation {
            capabilities: self.can,
            want: &self.want,
            recorded: &self.recorded,
            applied: self.applied,
            took_another: self.took_another,
            key: &key,
            adoption: self.adoption,
            drift: self.drift,
            on_deactivation: self.on_deactivation,
            deactivated_by: self.deactivated_by,
            tripped: self.tripped,
            held_by_others: &held,
            released_urls: &self.released,
            now: at(0),
            mark_grace: Duration::from_secs(50),
            wrote: self.wrote,
            absent_since: self.absent_since,
            replace_instead_of_update: self.replace,
            given_up: false,
            in_doubt: false,
            looks_first: true,
        };
        plan(&situation, &self.sight)
    }

    /// The next step in one word or two.
    fn says(&self) -> String {
        match self.next() {
            Step::Look(Look::ById(id)) => format!("look {id}"),
            Step::Look(Look::All { inactive }) => {
                format!("list{}", if inactive { " with inactive" } else { "" })
            }
            Step::LookAgain(time) => format!("look again in {}", time.as_secs()),
            Step::WaitForMark(time) => format!("wait {}", time.as_secs()),
            Step::Conflict(kind) => format!("conflict {kind:?}"),
            Step::Create { replaces: None } => "create".to_owned(),
            Step::Create { replaces: Some(old) } => format!("create for {old}"),
            Step::Adopt {
                remote,
                origin,
                replaces,
                ..
            } => {
                let replaces = replaces.map(|old| format!(" for {old}")).unwrap_or_default();
                format!("adopt {} {origin}{replaces}", remote.id)
            }
            Step::Update { id, fields, why, .. } => format!("update {id} {why:?} [{}]", fields.join(" ")),
            Step::Retire(id) => format!("retire {id}"),
            Step::Done {
                drift,
                deactivated_by,
                ..
            } => {
                let by = deactivated_by
                    .map(|by| format!(" off by {by:?}"))
                    .unwrap_or_default();
                format!("done [{}]{by}", drift.join(" "))
            }
        }
    }
}

fn there(id: &str) -> Remote {
    Remote::new(id, url())
}

fn elsewhere(id: &str) -> Remote {
    Remote::new(id, "https://other.example/")
}

fn off(remote: Remote) -> Remote {
    Remote {
        state: Some(State::Deactivated),
        ..remote
    }
}

fn thulium() -> Case {
    let case = Case::settled(&thulium::CAPABILITIES);
    Case {
        want: Desired {
            events: BTreeSet::from(["A".to_owned()]),
            ..case.want
        },
        ..case
    }
}

fn fresh_thulium() -> Case {
    Case {
        recorded: Recorded::default(),
        applied: Applied::Never,
        ..thulium()
    }
}

/// Thulium's registration of the wanted content.
fn same(id: &str) -> Remote {
    Remote {
        events: Some(BTreeSet::from(["A".to_owned()])),
        basic_auth_user: Some(String::new()),
        ..there(id)
    }
}

fn marked(mark: Mark) -> Case {
    let recorded = Recorded {
        mark: Some(mark),
        may_have_written: true,
        ..Recorded::default()
    };
    Case {
        recorded,
        ..fresh_thulium()
    }
}
