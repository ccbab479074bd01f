//! The signature of ricloud's deliveries: `Ricloud-Signature: t=<unix seconds>,s=<base64>`, an HMAC-SHA256 over
//! the time, a full stop and the raw body. Pure functions, for probes and for judging a delivery.
//!
//! The path, and so the event id that ricloud appends to the URL, is not covered.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::net::SecretText;

/// Name of the header.
pub const SIGNATURE_HEADER: &str = "Ricloud-Signature";

/// How old a signature may be, in seconds: what the vendor's own client accepts. It takes times in the future.
pub const FRESHNESS_SECONDS: i64 = 600;

/// Why a delivery is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header is not of the form `t=<unix seconds>,s=<base64>`.
    #[error("the signature header is not of the form t=<unix seconds>,s=<base64>")]
    Malformed,
    /// Made with another secret or over other bytes.
    #[error("the signature is not of this body and secret")]
    Mismatch,
    /// Right, but too old: perhaps a replay.
    #[error("the signature is older than 600 s")]
    Stale,
}

/// The key is the secret's text as it is, neither base64 nor hex decoded. `None` never happens: HMAC takes keys of
/// any length.
fn mac(secret: &SecretText, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// The value of [`SIGNATURE_HEADER`] for a delivery at `unix_seconds` with these raw bytes.
#[must_use]
pub fn sign(secret: &SecretText, unix_seconds: i64, body: &[u8]) -> String {
    let mac =
        mac(secret, &unix_seconds.to_string(), body).map(|mac| STANDARD.encode(mac.finalize().into_bytes()));
    format!("t={unix_seconds},s={}", mac.unwrap_or_default())
}

/// A header taken apart.
struct Parts<'a> {
    /// The time as it is written, which is what is signed.
    time: &'a str,
    seconds: i64,
    mac: Vec<u8>,
}

fn parse(header: &str) -> Result<Parts<'_>, Refusal> {
    let (time, mac) = header.trim().split_once(',').ok_or(Refusal::Malformed)?;
    let time = time.trim().strip_prefix("t=").ok_or(Refusal::Malformed)?;
    let mac = mac.trim().strip_prefix("s=").ok_or(Refusal::Malformed)?;
    Ok(Parts {
        time,
        seconds: time.parse().map_err(|_| Refusal::Malformed)?,
        mac: STANDARD.decode(mac).map_err(|_| Refusal::Malformed)?,
    })
}

/// Judges a delivery; the signature is compared in constant time.
///
/// # Errors
///
/// The first of the three reasons that applies.
pub fn verify(secret: &SecretText, header: &str, body: &[u8], now_unix_seconds: i64) -> Result<(), Refusal> {
    verify_origin(secret, header, body)?;
    let signed_at = signed_at(header).ok_or(Refusal::Malformed)?;
    if now_unix_seconds.saturating_sub(signed_at) > FRESHNESS_SECONDS {
        return Err(Refusal::Stale);
    }
    Ok(())
}

/// When a delivery was signed, in Unix seconds, as its header says. `None`: the header is malformed.
#[must_use]
pub fn signed_at(header: &str) -> Option<i64> {
    parse(header).ok().map(|parts| parts.seconds)
}

/// Judges who signed a delivery, however long ago; see [`signed_at`].
///
/// # Errors
///
/// [`Refusal::Malformed`] or [`Refusal::Mismatch`].
pub fn verify_origin(secret: &SecretText, header: &str, body: &[u8]) -> Result<(), Refusal> {
    let parts = parse(header)?;
    // The text of the time is signed, not its number.
    if mac(secret, parts.time, body).is_none_or(|mac| mac.verify_slice(&parts.mac).is_err()) {
        return Err(Refusal::Mismatch);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: i64 = 1_700_000_000;
    const BODY: &str = r#"{"id":"6f1c2f0e-3b57-4a6e-9d0a-5f2b8f1f7c11","resource":"event","type":"webhook_config","action":"test","data":{"id":"cfg-77","resource":"webhook_config"},"state":"pending","retries":0}"#;
    const HEADER: &str = "t=1700000000,s=ebim8u7il0IXP4cY7YPA3CgcORLdzh0TE8witi0xivQ=";

    fn secret() -> SecretText {
        "rc-demo-secret-0123456789".into()
    }

    #[test]
    fn first_vector() {
        assert_eq!(BODY.len(), 185);
        assert_eq!(sign(&secret(), TIME, BODY.as_bytes()), HEADER);
        assert_eq!(verify(&secret(), HEADER, BODY.as_bytes(), TIME), Ok(()));
    }

    #[test]
    fn second_vector_is_not_ascii() {
        let body =
            r#"{"id":"a1","resource":"event","type":"task","action":"failed","data":{"error":"żółw"}}"#;
        assert_eq!(body.len(), 89);
        let header = "t=1700000000,s=NyvCXqZkXH7n/4m6wj/ATpFw9rISWZosNX8oH/ikCVw=";
        assert_eq!(sign(&secret(), TIME, body.as_bytes()), header);
        assert_eq!(verify(&secret(), header, body.as_bytes(), TIME), Ok(()));
    }

    #[test]
    fn third_vector_one_space_more_does_not_verify() {
        let body = format!("{BODY} ");
        assert_eq!(
            verify(&secret(), HEADER, body.as_bytes(), TIME),
            Err(Refusal::Mismatch)
        );
        let its_own = "t=1700000000,s=LjvX16nen7g58ipw9MP2mygxhtpMBqZJmYnxGfw9CSg=";
        assert_eq!(sign(&secret(), TIME, body.as_bytes()), its_own);
    }

    #[test]
    fn ten_minutes_old_is_fresh_and_the_future_is_taken() {
        for (now, verdict) in [
            (TIME + 600, Ok(())),
            (TIME + 601, Err(Refusal::Stale)),
            (TIME - 100_000, Ok(())),
            (i64::MAX, Err(Refusal::Stale)),
        ] {
            assert_eq!(verify(&secret(), HEADER, BODY.as_bytes(), now), verdict, "{now}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for header in [
            "",
            "t=1,s",
            "s=ebim,t=1700000000",
            "t=x,s=ebim",
            "t=1700000000,s=***",
            "t=1700000000",
        ] {
            assert_eq!(
                verify(&secret(), header, b"", TIME),
                Err(Refusal::Malformed),
                "{header:?}"
            );
        }
        assert_eq!(
            verify(&"other".into(), HEADER, BODY.as_bytes(), TIME),
            Err(Refusal::Mismatch)
        );
    }
}
