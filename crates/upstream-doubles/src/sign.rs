//! The signature schemes of the contracts, as pure functions: ricloud deliveries, Autocosmos requests and
//! deliveries, Basic credentials. Clocks, freshness and replays are the callers' business.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// HMAC-SHA256 over the concatenation of `parts`.
#[allow(clippy::expect_used, reason = "HMAC is defined for keys of every length")]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Compares without telling by its duration where the difference is.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of `Authorization` for Basic credentials, `user:password` in UTF-8.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// Splits the value of a Basic `Authorization` header at the first colon; `None` when it is anything else.
pub fn parse_basic(header: &str) -> Option<(String, String)> {
    let (scheme, value) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The value of `Ricloud-Signature` for a delivery sent at `unix_seconds` with the raw `body`.
pub fn ricloud_signature(secret: &str, unix_seconds: i64, body: &[u8]) -> String {
    let mac = hmac_sha256(
        secret.as_bytes(),
        &[unix_seconds.to_string().as_bytes(), b".", body],
    );
    format!("t={unix_seconds},s={}", base64(&mac))
}

/// Why a delivery was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header with the signature is absent or not readable.
    #[error("signature header missing or malformed")]
    Missing,
    /// The signature is of other content or made with another secret.
    #[error("signature does not match")]
    Mismatch,
    /// The time in the signature is further back than the tolerance.
    #[error("signature is too old")]
    Stale,
}

/// How far back a ricloud signature may lie (the official client's own setting), in seconds.
pub const RICLOUD_TOLERANCE_SECONDS: i64 = 600;

/// Judges a `Ricloud-Signature`. Times in the future are accepted, as by the official client.
///
/// # Errors
/// [`Refusal`] says which of the three checks failed.
pub fn verify_ricloud(secret: &str, header: &str, body: &[u8], now_unix: i64) -> Result<(), Refusal> {
    let (time, mac) = header.split_once(',').ok_or(Refusal::Missing)?;
    let digits = time.strip_prefix("t=").ok_or(Refusal::Missing)?;
    let seconds: i64 = digits.parse().map_err(|_| Refusal::Missing)?;
    let mac = mac.strip_prefix("s=").ok_or(Refusal::Missing)?;
    let expected = base64(&hmac_sha256(secret.as_bytes(), &[digits.as_bytes(), b".", body]));
    if !equal(expected.as_bytes(), mac.as_bytes()) {
        return Err(Refusal::Mismatch);
    }
    if now_unix.saturating_sub(seconds) > RICLOUD_TOLERANCE_SECONDS {
        return Err(Refusal::Stale);
    }
    Ok(())
}

/// The parts of an Autocosmos request that its signature covers.
#[derive(Debug, Clone, Copy)]
pub struct AcsRequest<'a> {
    /// HTTP method; put in capitals.
    pub method: &'a str,
    /// Value of `Digest`, empty without one.
    pub digest: &'a str,
    /// Value of `Date`, empty when `X-ACS-Date` is used.
    pub date: &'a str,
    /// All `X-ACS-*` headers, in any order and case.
    pub acs_headers: &'a [(String, String)],
    /// Path with query, as on the request line.
    pub path_and_query: &'a str,
}

impl AcsRequest<'_> {
    /// The text that is signed: lines joined by LF, no LF at the end.
    pub fn string_to_sign(&self) -> String {
        let mut extra: Vec<String> = self
            .acs_headers
            .iter()
            .map(|(name, value)| format!("{}:{}", name.to_ascii_lowercase(), value.trim()))
            .collect();
        extra.sort();
        let mut lines = vec![
            self.method.to_ascii_uppercase(),
            self.digest.to_owned(),
            self.date.to_owned(),
        ];
        lines.append(&mut extra);
        lines.push(self.path_and_query.to_owned());
        lines.join("\n")
    }

    /// The MAC in standard base64, as it stands after `ACS-HMAC <AppKey>:`.
    pub fn mac(&self, app_secret: &str) -> String {
        base64(&hmac_sha256(
            app_secret.as_bytes(),
            &[self.string_to_sign().as_bytes()],
        ))
    }
}

/// The value of `Digest` for `body`: `sha-256=<base64>`.
pub fn digest_sha256(body: &[u8]) -> String {
    format!("sha-256={}", base64(&Sha256::digest(body)))
}

/// Whether `header` is a right SHA-256 or SHA-512 digest of `body`.
pub fn digest_matches(header: &str, body: &[u8]) -> bool {
    let expected = match header.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("sha-256") => base64(&Sha256::digest(body)),
        Some((name, _)) if name.eq_ignore_ascii_case("sha-512") => base64(&Sha512::digest(body)),
        _ => return false,
    };
    header
        .split_once('=')
        .is_some_and(|(_, value)| equal(value.as_bytes(), expected.as_bytes()))
}

/// How the MAC of an Autocosmos delivery is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Encoding {
    /// Standard base64, the reference reading.
    #[default]
    Base64,
    /// Lower-case hexadecimal.
    Hex,
}

/// How an Autocosmos delivery is signed, as far as the vendor's document leaves it open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeliverySignature {
    /// Stands between the signed values; empty in the reference reading.
    pub separator: String,
    /// How the MAC is written.
    pub encoding: Encoding,
}

impl DeliverySignature {
    /// Signs the values of the three `Notification-*` headers; the topic only where there is one.
    pub fn sign(&self, secret: &str, hook_id: &str, timestamp: &str, topic: Option<&str>) -> String {
        let mut values = vec![hook_id, timestamp];
        values.extend(topic);
        let mac = hmac_sha256(secret.as_bytes(), &[values.join(&self.separator).as_bytes()]);
        match self.encoding {
            Encoding::Base64 => base64(&mac),
            Encoding::Hex => hex(&mac),
        }
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
