//! What an upstream has seen: requests in the order of their arrival, with what became of them.
//!
//! Objects and duplicates are the upstreams' own (`objects`, `duplicates`); here is only their common shape.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;

use serde::Serialize;

use crate::double::Call;
use crate::{Source, lock};

/// Requests kept when nothing else is said.
pub const DEFAULT_JOURNAL_LIMIT: usize = 100_000;

/// Longest part of a request body that is kept.
pub const JOURNAL_BODY_BYTES: usize = 4096;

/// Headers worth keeping; credentials are not among them.
const KEPT_HEADERS: [&str; 9] = [
    "accept",
    "accept-language",
    "content-type",
    "date",
    "digest",
    "host",
    "ricloud-await",
    "user-agent",
    "x-acs-date",
];

/// One request. `Debug` leaves the body out, because bodies carry passwords and secrets.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Position since the start, from 1; not reset with the journal.
    pub seq: u64,
    /// Arrival in milliseconds since 1970.
    pub at_millis: u64,
    /// Method in capitals.
    pub method: String,
    /// Raw path.
    pub path: String,
    /// Raw query without the question mark.
    pub query: Option<String>,
    /// Account whose credentials came with it, whether they were right or not.
    pub account: Option<String>,
    /// The status that was sent; `None` while it is being handled or when the connection was reset.
    pub status: Option<u16>,
    /// Whether something at the upstream was changed by it.
    pub effect: bool,
    /// The fault that met it.
    pub fault: Option<String>,
    /// Some of its headers, names in lower case; never credentials.
    pub headers: BTreeMap<String, String>,
    /// The beginning of its body, up to [`JOURNAL_BODY_BYTES`], as text.
    pub body: String,
    /// Length of the whole body.
    pub body_bytes: usize,
}

impl Seen {
    /// The body as JSON, if it was kept whole and is JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.body).ok()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("seq", &self.seq)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("account", &self.account)
            .field("status", &self.status)
            .field("effect", &self.effect)
            .field("fault", &self.fault)
            .field("body_bytes", &self.body_bytes)
            .finish_non_exhaustive()
    }
}

/// Objects of one upstream that should have been one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Duplicate {
    /// What they have in common, in words.
    pub what: String,
    /// The delivery URL they share.
    pub url: String,
    /// Their ids, ascending.
    pub ids: Vec<String>,
}

/// How many requests there were since the start or the last reset, dropped ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Those that changed something.
    pub effects: u64,
    /// By method.
    pub by_method: BTreeMap<String, u64>,
    /// By status; resets under `reset`.
    pub by_status: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    seen: VecDeque<Seen>,
    counts: Counts,
    /// Numbers up to this one were there at the last reset and count no more.
    cleared: u64,
}

impl Inner {
    fn counts_for(&self, seq: u64) -> bool {
        seq > self.cleared
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Seen> {
        let first = self.seen.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.seen.get_mut(index)
    }
}

/// The requests of one upstream, the oldest dropped beyond the limit.
#[derive(Debug)]
pub(crate) struct Journal {
    limit: usize,
    source: Source,
    inner: Mutex<Inner>,
}

impl Journal {
    pub(crate) fn new(limit: usize, source: Source) -> Self {
        Self {
            limit: limit.max(1),
            source,
            inner: Mutex::default(),
        }
    }

    /// Notes an arrival; the number is for the two methods below.
    pub(crate) fn open(&self, call: &Call, account: Option<String>, fault: Option<String>) -> u64 {
        let kept = call.body.get(..JOURNAL_BODY_BYTES).unwrap_or(&call.body);
        let header = |name: &str| call.header(name).map(|value| (name.to_owned(), value.to_owned()));
        let mut entry = Seen {
            seq: 0,
            at_millis: self.source.unix_millis(),
            method: call.method.as_str().to_owned(),
            path: call.path.clone(),
            query: call.query.clone(),
            account,
            status: None,
            effect: false,
            fault,
            headers: KEPT_HEADERS.into_iter().filter_map(header).collect(),
            body: String::from_utf8_lossy(kept).into_owned(),
            body_bytes: call.body.len(),
        };
        let mut inner = lock(&self.inner);
        inner.next += 1;
        entry.seq = inner.next;
        inner.counts.total += 1;
        *inner.counts.by_method.entry(entry.method.clone()).or_default() += 1;
        if inner.seen.len() >= self.limit {
            inner.seen.pop_front();
        }
        let seq = entry.seq;
        inner.seen.push_back(entry);
        seq
    }

    /// Notes whether handling it changed something.
    pub(crate) fn handled(&self, seq: u64, effect: bool) {
        let mut inner = lock(&self.inner);
        if inner.counts_for(seq) {
            inner.counts.effects += u64::from(effect);
        }
        if let Some(entry) = inner.entry(seq) {
            entry.effect = effect;
        }
    }

    /// Notes the status that goes out; `None` is a reset.
    pub(crate) fn answered(&self, seq: u64, status: Option<u16>) {
        let mut inner = lock(&self.inner);
        if inner.counts_for(seq) {
            let name = status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
            *inner.counts.by_status.entry(name).or_default() += 1;
        }
        if let Some(entry) = inner.entry(seq) {
            entry.status = status;
        }
    }

    pub(crate) fn requests(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        lock(&self.inner)
            .seen
            .iter()
            .filter(|entry| wanted(entry))
            .cloned()
            .collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.inner).counts.clone()
    }

    pub(crate) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.seen.clear();
        inner.cleared = inner.next;
        inner.counts = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &str) -> Call {
        Call::for_tests(
            "POST",
            "/api/webhooks?x=1",
            &[("authorization", "Basic Zm9v")],
            body,
        )
    }

    #[test]
    fn keeps_the_newest_and_counts_all() {
        let journal = Journal::new(3, Source::real());
        for number in 0..5 {
            let seq = journal.open(&call("{}"), None, None);
            journal.handled(seq, number % 2 == 0);
            journal.answered(seq, Some(200));
        }
        let kept: Vec<u64> = journal.requests(|_| true).iter().map(|seen| seen.seq).collect();
        assert_eq!(kept, [3, 4, 5]);
        let counts = journal.counts();
        assert_eq!((counts.total, counts.effects), (5, 3));
        assert_eq!(counts.by_status.get("200"), Some(&5));
        journal.clear();
        journal.answered(5, Some(200));
        assert_eq!(journal.counts(), Counts::default());
        assert_eq!(journal.open(&call("{}"), None, None), 6, "numbers go on");
    }

    #[test]
    fn bodies_are_cut_and_hidden_from_debug_and_credentials_never_kept() {
        let journal = Journal::new(3, Source::real());
        journal.open(&call(&"s3cr3t".repeat(2000)), None, None);
        let seen = journal.requests(|_| true).remove(0);
        assert_eq!(seen.body.len(), JOURNAL_BODY_BYTES);
        assert_eq!(seen.body_bytes, 12_000);
        assert!(!format!("{seen:?}").contains("s3cr3t"));
        assert!(!serde_json::to_string(&seen.headers).unwrap().contains("Zm9v"));
    }
}
