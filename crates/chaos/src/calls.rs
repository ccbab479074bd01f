//! What the upstreams were asked for: creates, updates, removals. Read from their journals, so what counts is what
//! arrived, whatever the operator believes.

use std::sync::Arc;

use serde::Serialize;
use upstream_doubles::{Double, Doubles, Seen, Upstream};

/// Requests kept at each upstream; more than a run of hours makes.
pub const JOURNAL_LIMIT: usize = 400_000;

/// Counts at one upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Requests of every kind.
    pub all: usize,
    /// Creates that arrived, done or not. At Conpeek, where create and update are one call, none.
    pub creates: usize,
    /// Creates that were done, whatever was answered.
    pub created: usize,
    /// Calls that removed something.
    pub removed: usize,
    /// Tests that were started.
    pub tested: usize,
    /// Calls that changed something otherwise.
    pub changed: usize,
}

/// Counts at each upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllCalls {
    /// Conpeek.
    pub conpeek: Calls,
    /// Thulium.
    pub thulium: Calls,
    /// ricloud.
    pub ricloud: Calls,
    /// Autocosmos.
    pub autocosmos: Calls,
}

impl AllCalls {
    /// What arrived since the journals were last emptied.
    #[must_use]
    pub fn read(doubles: &Doubles) -> Self {
        Self {
            conpeek: calls(doubles.conpeek(), |_| false),
            thulium: calls(doubles.thulium(), |seen| seen.method == "POST"),
            ricloud: calls(doubles.ricloud(), |seen| {
                seen.method == "POST" && seen.path.trim_end_matches('/').ends_with("/configs/webhook")
            }),
            autocosmos: calls(doubles.autocosmos(), |seen| seen.method == "POST"),
        }
    }

    /// Empties the journals.
    pub fn forget(doubles: &Doubles) {
        doubles.conpeek().clear_requests();
        doubles.thulium().clear_requests();
        doubles.ricloud().clear_requests();
        doubles.autocosmos().clear_requests();
    }

    /// All four.
    #[must_use]
    pub fn each(&self) -> [&Calls; 4] {
        [&self.conpeek, &self.thulium, &self.ricloud, &self.autocosmos]
    }

    /// Calls that changed something at any upstream, tests among them.
    #[must_use]
    pub fn effects(&self) -> usize {
        let of = |calls: &Calls| calls.created + calls.removed + calls.tested + calls.changed;
        self.each().into_iter().map(of).sum()
    }
}

fn calls<U: Upstream>(double: &Arc<Double<U>>, is_create: impl Fn(&Seen) -> bool) -> Calls {
    let mut calls = Calls::default();
    for seen in double.requests() {
        calls.all += 1;
        let create = is_create(&seen);
        calls.creates += usize::from(create);
        match (seen.effect, create, seen.method.as_str()) {
            (false, ..) => {}
            (true, true, _) => calls.created += 1,
            (true, false, "DELETE") => calls.removed += 1,
            (true, false, _) if seen.path.ends_with("/test") => calls.tested += 1,
            (true, false, _) => calls.changed += 1,
        }
    }
    calls
}
