//! Who calls: the request signature of Autocosmos, its date, its digest, and the replay rule.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use axum::http::Method;

use super::{AutocosmosAccount, AutocosmosBehaviour, ReplayRule, State};
use crate::double::Call;
use crate::parse_http_date;
use crate::sign::{AcsRequest, digest_matches, equal};

/// HMACs seen lately.
#[derive(Debug, Default)]
pub(super) struct Replays {
    order: VecDeque<(SystemTime, String)>,
    known: HashSet<String>,
}

impl Replays {
    /// Whether the MAC is new within the window; remembers it if so.
    fn admit(&mut self, mac: &str, window: Duration, now: SystemTime) -> bool {
        while let Some((at, _)) = self.order.front() {
            // A clock that was set back has moved by nothing.
            if now.duration_since(*at).unwrap_or_default() < window {
                break;
            }
            if let Some((_, old)) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
        if !self.known.insert(mac.to_owned()) {
            return false;
        }
        self.order.push_back((now, mac.to_owned()));
        true
    }
}

/// AppKey and MAC of `ACS-HMAC <AppKey>:<base64>`.
pub(super) fn parse_authorization(call: &Call) -> Option<(&str, &str)> {
    call.header("authorization")?
        .strip_prefix("ACS-HMAC ")?
        .split_once(':')
}

pub(super) fn authenticate(
    behaviour: &AutocosmosBehaviour,
    state: &mut State,
    call: &Call,
) -> Result<AutocosmosAccount, &'static str> {
    let (app_key, mac) = parse_authorization(call).ok_or("Falta Authorization: ACS-HMAC.")?;
    let account = state.accounts.get(app_key).ok_or("AppKey desconocida.")?.clone();
    let acs_headers: Vec<(String, String)> = call
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-acs-"))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let acs_date = call.header("x-acs-date");
    let date = if acs_date.is_some() {
        ""
    } else {
        call.header("date").ok_or("Falta la fecha.")?
    };
    check_date(behaviour, acs_date.unwrap_or(date), call.received)?;
    let digest = call.header("digest").unwrap_or_default();
    match (call.body.is_empty(), digest.is_empty()) {
        (true, true) => {}
        (false, true) => return Err("Falta Digest."),
        _ if digest_matches(digest, &call.body) => {}
        _ => return Err("Digest incorrecto."),
    }
    let path_and_query = call.path_and_query();
    let signed = AcsRequest {
        method: call.method.as_str(),
        digest,
        date,
        acs_headers: &acs_headers,
        path_and_query: &path_and_query,
    };
    let expected = signed.mac(account.app_secret.reveal());
    if !equal(expected.as_bytes(), mac.as_bytes()) {
        return Err("Firma incorrecta.");
    }
    let judged = match behaviour.replay_rule {
        ReplayRule::All => true,
        ReplayRule::NonIdempotent => call.method != Method::GET,
        ReplayRule::Off => false,
    };
    let window = Duration::from_millis(behaviour.replay_window_millis);
    if judged && !state.replays.admit(mac, window, call.received) {
        return Err("HMAC repetido.");
    }
    Ok(account)
}

fn check_date(behaviour: &AutocosmosBehaviour, text: &str, now: SystemTime) -> Result<(), &'static str> {
    let date = parse_http_date(text.trim()).ok_or("Fecha ilegible.")?;
    let off = now.duration_since(date).unwrap_or_else(|error| error.duration());
    if off > Duration::from_secs(behaviour.clock_skew_seconds) {
        return Err("Fecha fuera de tolerancia.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_refused_within_the_window_and_forgotten_after_it() {
        let mut replays = Replays::default();
        let (start, window) = (SystemTime::UNIX_EPOCH, Duration::from_secs(1));
        let at = |millis| start + Duration::from_millis(millis);
        assert!(replays.admit("a", window, at(0)));
        assert!(!replays.admit("a", window, at(999)));
        assert!(replays.admit("b", window, at(999)));
        assert!(
            replays.admit("a", window, at(1000)),
            "a refused try does not lengthen the window"
        );
        assert!(!replays.admit("b", window, at(1998)));
        assert_eq!(replays.known.len(), 2);
        assert!(replays.admit("c", window, at(9000)));
        assert_eq!((replays.known.len(), replays.order.len()), (1, 1));
    }
}
