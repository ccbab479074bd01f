//! Faults that an upstream can be told to show, and the choice of the one that fits a request.
//!
//! What a fault does to connection and answer is carried out in `double.rs`; this file only describes and selects.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lock;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Effect {
    /// This status instead of the answer.
    Status {
        /// 100..=599.
        status: u16,
        /// Body to send; the upstream's own error shape is not imitated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// Further headers.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// `Retry-After`, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
    },
    /// Waits before the request is handled (after it with `handled: true`). Adds to other faults that match.
    Delay {
        /// How long.
        milliseconds: u64,
    },
    /// Closes the connection by a TCP reset, nothing handled.
    ResetBefore,
    /// Handles the request, then closes the connection by a TCP reset without a byte of an answer.
    ResetAfter,
    /// Status and type of the real answer, with a body that is not JSON.
    MalformedJson,
    /// Status of the real answer, with a JSON string of this many bytes as the body, streamed.
    HugeBody {
        /// Length of the body.
        bytes: u64,
    },
    /// Status 200 with a page of HTML, as a proxy's login page would come.
    Html,
    /// The real answer under another `Content-Type`.
    ContentType {
        /// The type to claim.
        value: String,
    },
    /// The real answer, a few bytes at a time.
    Drip {
        /// Bytes in each piece, at least 1.
        chunk_bytes: usize,
        /// Pause before each piece.
        milliseconds: u64,
    },
    /// The head and the first half of the real answer, then the connection closes.
    Truncate,
}

/// `Retry-After` in one of its two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryAfter {
    /// Delta seconds.
    Seconds(u64),
    /// An HTTP date that many seconds ahead.
    DateIn(u64),
}

/// An effect and the requests that it meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub effect: Effect,
    /// Only this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only paths that begin so (raw path, with the base URL's own prefix).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Only requests under the credentials of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Only the next so many matching requests; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Chance from 0 to 1 for each matching request; without it, certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Seed of that chance, so that a run can be repeated.
    #[serde(default)]
    pub seed: u64,
    /// Whether the upstream handles the request although the fault replaces or delays its answer. Without it:
    /// no for `Status`, `Delay` and `ResetBefore`, yes for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<bool>,
}

impl Fault {
    /// A fault that meets every request from now on.
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            method: None,
            path_prefix: None,
            account: None,
            count: None,
            probability: None,
            seed: 0,
            handled: None,
        }
    }

    /// A plain status without body or headers.
    pub fn status(status: u16) -> Self {
        Self::new(Effect::Status {
            status,
            body: None,
            headers: BTreeMap::new(),
            retry_after: None,
        })
    }

    /// A status with `Retry-After`.
    pub fn retry_after(status: u16, after: RetryAfter) -> Self {
        Self::new(Effect::Status {
            status,
            body: None,
            headers: BTreeMap::new(),
            retry_after: Some(after),
        })
    }

    /// A delay before the request is handled.
    pub fn delay(delay: Duration) -> Self {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self::new(Effect::Delay { milliseconds })
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path begins so.
    #[must_use]
    pub fn path_prefix(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }

    /// Only requests of this account.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.account = Some(name.to_owned());
        self
    }

    /// Only the next `count` matching requests.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// With this chance for each matching request.
    #[must_use]
    pub fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.probability = Some(probability);
        self.seed = seed;
        self
    }

    /// Says whether the upstream handles the request nevertheless.
    #[must_use]
    pub fn handled(mut self, handled: bool) -> Self {
        self.handled = Some(handled);
        self
    }

    /// What is wrong with the description, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.effect {
            Effect::Status { status, .. } if !(200..=599).contains(status) => {
                Some(format!("status {status} is not in 200..=599"))
            }
            Effect::Drip { chunk_bytes: 0, .. } => Some("chunkBytes must be at least 1".to_owned()),
            _ => match self.probability {
                Some(chance) if !(0.0..=1.0).contains(&chance) => {
                    Some(format!("probability {chance} is not in 0..=1"))
                }
                _ => None,
            },
        }
    }

    fn fits(&self, method: &str, path: &str, account: Option<&str>) -> bool {
        self.method
            .as_deref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self
                .path_prefix
                .as_deref()
                .is_none_or(|prefix| path.starts_with(prefix))
            && self
                .account
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == account)
    }

    pub(crate) fn is_handled(&self) -> bool {
        self.handled.unwrap_or(!matches!(
            self.effect,
            Effect::Status { .. } | Effect::Delay { .. } | Effect::ResetBefore
        ))
    }
}

/// Names a fault that was set.
pub type FaultId = u64;

/// A fault in force and how often it has struck.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveFault {
    /// Its id.
    pub id: FaultId,
    /// As it was set; `count` is what is left of it.
    pub fault: Fault,
    /// Requests met so far.
    pub struck: u64,
    #[serde(skip)]
    chance: fastrand::Rng,
}

/// What the faults in force mean for one request.
#[derive(Debug, Default)]
pub(crate) struct Strike {
    pub(crate) delay_before: Duration,
    pub(crate) delay_after: Duration,
    pub(crate) fault: Option<Fault>,
}

/// The faults of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: FaultId,
    active: Vec<ActiveFault>,
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) -> FaultId {
        let mut inner = lock(&self.inner);
        inner.next_id += 1;
        let id = inner.next_id;
        let chance = fastrand::Rng::with_seed(fault.seed);
        inner.active.push(ActiveFault {
            id,
            fault,
            struck: 0,
            chance,
        });
        id
    }

    pub(crate) fn remove(&self, id: FaultId) -> bool {
        let mut inner = lock(&self.inner);
        let before = inner.active.len();
        inner.active.retain(|fault| fault.id != id);
        inner.active.len() != before
    }

    pub(crate) fn clear(&self) {
        lock(&self.inner).active.clear();
    }

    pub(crate) fn list(&self) -> Vec<ActiveFault> {
        lock(&self.inner).active.clone()
    }

    /// Delays of all matching faults add up; of the others the one set first wins, and only that one counts down.
    pub(crate) fn strike(&self, method: &str, path: &str, account: Option<&str>) -> Strike {
        let mut inner = lock(&self.inner);
        let mut strike = Strike::default();
        for active in &mut inner.active {
            let delay = match active.fault.effect {
                Effect::Delay { milliseconds } => Some(Duration::from_millis(milliseconds)),
                _ if strike.fault.is_some() => continue,
                _ => None,
            };
            if !active.fault.fits(method, path, account) || !active.draw() {
                continue;
            }
            match delay {
                Some(delay) if active.fault.is_handled() => strike.delay_after += delay,
                Some(delay) => strike.delay_before += delay,
                None => strike.fault = Some(active.fault.clone()),
            }
        }
        strike
    }
}

impl ActiveFault {
    /// Whether it strikes this time, counting if it does.
    fn draw(&mut self) -> bool {
        if self.fault.count == Some(0) {
            return false;
        }
        if self
            .fault
            .probability
            .is_some_and(|chance| self.chance.f64() >= chance)
        {
            return false;
        }
        if let Some(left) = &mut self.fault.count {
            *left -= 1;
        }
        self.struck += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_down_and_then_lets_pass() {
        let faults = Faults::default();
        faults.set(Fault::status(503).method("POST").times(2));
        assert!(faults.strike("GET", "/", None).fault.is_none());
        assert!(faults.strike("POST", "/", None).fault.is_some());
        assert!(faults.strike("post", "/", None).fault.is_some());
        assert!(faults.strike("POST", "/", None).fault.is_none());
        assert_eq!(faults.list().first().map(|fault| fault.struck), Some(2));
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_wins() {
        let faults = Faults::default();
        faults.set(Fault::delay(Duration::from_millis(5)));
        faults.set(Fault::status(500).account("a"));
        faults.set(Fault::status(502).times(1));
        faults.set(Fault::delay(Duration::from_millis(7)));
        faults.set(Fault::delay(Duration::from_millis(11)).handled(true));
        let strike = faults.strike("GET", "/", Some("a"));
        assert_eq!(strike.delay_before, Duration::from_millis(12));
        assert_eq!(strike.delay_after, Duration::from_millis(11));
        assert_eq!(strike.fault, Some(Fault::status(500).account("a")));
        let other = faults.strike("GET", "/", Some("b")).fault;
        assert!(matches!(
            other.map(|f| f.effect),
            Some(Effect::Status { status: 502, .. })
        ));
    }

    #[test]
    fn chances_repeat_with_their_seed() {
        let run = || {
            let faults = Faults::default();
            faults.set(Fault::new(Effect::ResetBefore).chance(0.3, 7));
            (0..1000)
                .map(|_| faults.strike("GET", "/", None).fault.is_some())
                .collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        let struck = first.iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&struck), "{struck} of 1000");
    }

    #[test]
    fn json_form_is_strict() {
        let text = r#"{"effect":{"kind":"status","status":429,"retryAfter":{"seconds":3}},"count":1}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault, Fault::retry_after(429, RetryAfter::Seconds(3)).times(1));
        for wrong in [
            r#"{"effect":{"kind":"status","status":429,"retry":1}}"#,
            r#"{"effect":{"kind":"resetBefore"},"cuont":1}"#,
            r#"{"effect":{"kind":"explode"}}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
        assert!(Fault::status(99).problem().is_some());
        assert!(Fault::status(500).chance(1.5, 0).problem().is_some());
        assert!(
            Fault::new(Effect::Drip {
                chunk_bytes: 0,
                milliseconds: 1
            })
            .problem()
            .is_some()
        );
    }
}
