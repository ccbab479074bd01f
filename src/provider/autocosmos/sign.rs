//! Autocosmos' two signatures: of each request to its API, and of each delivery that it makes. Pure functions, and
//! [`SignLog`], which keeps two requests from carrying the same signature.
//!
//! Requests: `Authorization: ACS-HMAC <AppKey>:<base64 HMAC-SHA256>` over method, digest of the body, date and
//! path. Two headers may carry the date. `Date` is used here: the HTTP library adds none of its own, so nothing
//! competes with it, and the rule for `X-ACS-Date` (leave the line of the date empty) is public only for the
//! older API 2.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use sha2::{Digest, Sha256};

use crate::{
    api::provider::SignatureEncoding,
    clock::Clock,
    net::{Method, SecretText},
    provider::account::lock,
};

type HmacSha256 = Hmac<Sha256>;

/// HMAC-SHA256, which takes keys of any length: `None` never happens.
fn mac(key: &SecretText, message: &[u8]) -> Option<HmacSha256> {
    let mut mac = HmacSha256::new_from_slice(key.expose().as_bytes()).ok()?;
    mac.update(message);
    Some(mac)
}

fn base64_of(mac: Option<HmacSha256>) -> String {
    mac.map(|mac| STANDARD.encode(mac.finalize().into_bytes()))
        .unwrap_or_default()
}

/// The value of `Digest` for a body: `sha-256=<base64>`.
#[must_use]
pub fn digest(body: &[u8]) -> String {
    format!("sha-256={}", STANDARD.encode(Sha256::digest(body)))
}

/// A time as `Date` carries it: `Wed, 01 May 2024 12:00:00 GMT`.
#[must_use]
pub fn http_date(time: Timestamp) -> String {
    // Only years beyond 9999 have no such form.
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap_or_default()
}

/// What the signature of a request covers.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Method.
    pub method: Method,
    /// Value of `Digest`; empty without a body.
    pub digest: &'a str,
    /// Value of `Date`; empty where `X-ACS-Date` carries it.
    pub date: &'a str,
    /// `X-ACS-*` headers, in any order and case.
    pub acs_headers: &'a [(&'a str, &'a str)],
    /// Path and query as they are on the wire, with the path of the base URL.
    pub path_and_query: &'a str,
}

impl Signed<'_> {
    /// The text that is signed: lines joined by LF, none at the end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut extra: Vec<String> = self
            .acs_headers
            .iter()
            .map(|(name, value)| format!("{}:{}", name.to_ascii_lowercase(), value.trim()))
            .collect();
        extra.sort();
        let mut lines = vec![self.method.as_str(), self.digest, self.date];
        lines.extend(extra.iter().map(String::as_str));
        lines.push(self.path_and_query);
        lines.join("\n")
    }

    /// The value of `Authorization`.
    #[must_use]
    pub fn authorization(&self, app_key: &str, app_secret: &SecretText) -> SecretText {
        format!(
            "ACS-HMAC {app_key}:{}",
            base64_of(mac(app_secret, self.text().as_bytes()))
        )
        .into()
    }
}

/// How far ahead of the clock a used date may lie and still be waited for. More means that the clock was set
/// back, and waiting it out could take hours.
const MAX_AHEAD: i64 = 5;

/// The dates last used by one AppKey, per request. Equal requests in one second would carry equal signatures, and
/// the upstream refuses the second one with 401 as a replay; so no date is given out twice for the same request.
#[derive(Debug, Default)]
pub struct SignLog(Mutex<HashMap<(Method, String, String), i64>>);

impl SignLog {
    /// The date for a request that is sent now, in whole seconds; waits for the next second where this one was
    /// used for an equal request. Those who wait together get a second each.
    pub async fn next_date(
        &self,
        clock: &Clock,
        method: Method,
        path_and_query: &str,
        digest: &str,
    ) -> Timestamp {
        loop {
            let now = clock.now();
            if self.reserve(
                now.as_second(),
                (method, path_and_query.to_owned(), digest.to_owned()),
            ) {
                return Timestamp::from_second(now.as_second()).unwrap_or(now);
            }
            let into_second = Duration::from_nanos(now.subsec_nanosecond().unsigned_abs().into());
            tokio::time::sleep(Duration::from_secs(1).saturating_sub(into_second)).await;
        }
    }

    fn reserve(&self, second: i64, request: (Method, String, String)) -> bool {
        let mut used = lock(&self.0);
        // Whatever is older can no longer be equal to anything, so the memory stays small.
        used.retain(|_, last| *last >= second && *last - second <= MAX_AHEAD);
        if used.contains_key(&request) {
            return false;
        }
        used.insert(request, second);
        true
    }
}

/// How a delivery's signature is written, as far as the vendor's rule is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryStyle<'a> {
    /// Between the signed values; empty in the reference reading.
    pub separator: &'a str,
    /// How the MAC is written.
    pub encoding: SignatureEncoding,
}

/// The signed headers of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// `Notification-Hook-ID`.
    pub hook_id: &'a str,
    /// `Notification-Timestamp`, as it stands in the header.
    pub timestamp: &'a str,
    /// `Notification-Topic`, where there is one.
    pub topic: Option<&'a str>,
}

/// Every reading that [`verify_delivery_any`] takes, the reference one first.
pub const KNOWN_STYLES: [DeliveryStyle<'static>; 8] = {
    const fn style(separator: &'static str, encoding: SignatureEncoding) -> DeliveryStyle<'static> {
        DeliveryStyle { separator, encoding }
    }
    [
        style("", SignatureEncoding::Base64),
        style("", SignatureEncoding::Hex),
        style("\n", SignatureEncoding::Base64),
        style("\n", SignatureEncoding::Hex),
        style(".", SignatureEncoding::Base64),
        style(".", SignatureEncoding::Hex),
        style("|", SignatureEncoding::Base64),
        style("|", SignatureEncoding::Hex),
    ]
};

fn delivery_mac(secret: &SecretText, of: Notification<'_>, separator: &str) -> Option<HmacSha256> {
    let values: Vec<&str> = [of.hook_id, of.timestamp].into_iter().chain(of.topic).collect();
    mac(secret, values.join(separator).as_bytes())
}

/// The value of `Notification-Signature`. It proves origin and time; the body is not covered.
#[must_use]
pub fn sign_delivery(secret: &SecretText, of: Notification<'_>, style: DeliveryStyle<'_>) -> String {
    let mac = delivery_mac(secret, of, style.separator);
    match style.encoding {
        SignatureEncoding::Base64 => base64_of(mac),
        SignatureEncoding::Hex => mac
            .map(|mac| {
                mac.finalize()
                    .into_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect()
            })
            .unwrap_or_default(),
    }
}

/// Whether `given` is the signature of these headers in this style, compared in constant time. The age of the
/// timestamp, whose form is not public, is for the caller.
#[must_use]
pub fn verify_delivery(
    secret: &SecretText,
    of: Notification<'_>,
    style: DeliveryStyle<'_>,
    given: &str,
) -> bool {
    let given = given.trim();
    let bytes = match style.encoding {
        SignatureEncoding::Base64 => STANDARD.decode(given).ok(),
        SignatureEncoding::Hex => from_hex(given),
    };
    match (bytes, delivery_mac(secret, of, style.separator)) {
        (Some(bytes), Some(mac)) => mac.verify_slice(&bytes).is_ok(),
        _ => false,
    }
}

/// The known style in which `given` is the signature of these headers, if there is one.
#[must_use]
pub fn verify_delivery_any(
    secret: &SecretText,
    of: Notification<'_>,
    given: &str,
) -> Option<DeliveryStyle<'static>> {
    KNOWN_STYLES
        .into_iter()
        .find(|style| verify_delivery(secret, of, *style, given))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const PATH: &str = "/v3/appnotificaciones/invitaciones";
    const DATE: &str = "Wed, 01 May 2024 12:00:00 GMT";
    const BODY: &str = r#"{"Callback":"https://hooks.example.test/acs","Secret":"whop-demo-secret-0001","Description":"demo","Activo":true,"HeaderCustom01":{"Name":"X-Env","Value":"dev"},"HeaderCustom02":null,"HeaderCustom03":null}"#;

    fn authorization(signed: Signed<'_>) -> String {
        signed
            .authorization("demo-app-key", &"demo-app-secret".into())
            .expose()
            .to_owned()
    }

    #[test]
    fn vector_a_get_with_date() {
        let signed = Signed {
            method: Method::Get,
            digest: "",
            date: DATE,
            acs_headers: &[],
            path_and_query: PATH,
        };
        assert_eq!(signed.text(), format!("GET\n\n{DATE}\n{PATH}"));
        assert_eq!(
            authorization(signed),
            "ACS-HMAC demo-app-key:IN5egbiLsrkLjKLxVc8XA5x25eVvoW+ojsfYonwSF4E="
        );
    }

    #[test]
    fn vector_b_get_with_x_acs_date() {
        let headers = [("X-ACS-Date", " Wed, 01 May 2024 12:00:00 GMT ")];
        let signed = Signed {
            method: Method::Get,
            digest: "",
            date: "",
            acs_headers: &headers,
            path_and_query: PATH,
        };
        assert_eq!(signed.text(), format!("GET\n\n\nx-acs-date:{DATE}\n{PATH}"));
        assert_eq!(
            authorization(signed),
            "ACS-HMAC demo-app-key:DFRjHJaDoeqW/ja4n1zFa/CXCp86ZWnvRRJVt7zVwrg="
        );
    }

    #[test]
    fn vector_c_put_with_body() {
        assert_eq!(BODY.len(), 205);
        let digest = digest(BODY.as_bytes());
        assert_eq!(digest, "sha-256=b8NrqmGTqCpNrGkHpzjGvCNY+yo2vkt5ZJuPROkhWxQ=");
        let signed = Signed {
            method: Method::Put,
            digest: &digest,
            date: DATE,
            acs_headers: &[],
            path_and_query: PATH,
        };
        assert_eq!(signed.text(), format!("PUT\n{digest}\n{DATE}\n{PATH}"));
        assert_eq!(
            authorization(signed),
            "ACS-HMAC demo-app-key:oY/o9NByPT92ynU0O/s67C48k1nLQ44LFXXrVvkIoAI="
        );
    }

    #[test]
    fn dates_are_http_dates() {
        assert_eq!(http_date("2024-05-01T12:00:00Z".parse().unwrap()), DATE);
    }

    #[tokio::test(start_paused = true)]
    async fn equal_requests_get_different_seconds_and_others_do_not_wait() {
        let start: Timestamp = "2024-05-01T12:00:00.25Z".parse().unwrap();
        let (clock, log, began) = (Clock::starting_at(start), SignLog::default(), Instant::now());
        let date = |method, path, digest| log.next_date(&clock, method, path, digest);
        let whole = start.as_second();
        assert_eq!(date(Method::Get, PATH, "").await.as_second(), whole);
        assert_eq!(date(Method::Put, PATH, "").await.as_second(), whole);
        assert_eq!(date(Method::Get, "/other", "").await.as_second(), whole);
        assert_eq!(date(Method::Get, PATH, "x").await.as_second(), whole);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let together = futures::future::join(date(Method::Get, PATH, ""), date(Method::Get, PATH, ""));
        let (one, two) = together.await;
        let mut seconds = [one.as_second(), two.as_second()];
        seconds.sort_unstable();
        assert_eq!(seconds, [whole + 1, whole + 2]);
        assert_eq!(began.elapsed(), Duration::from_millis(1750));
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_far_is_not_waited_for() {
        let log = SignLog::default();
        let request = || (Method::Get, PATH.to_owned(), String::new());
        assert!(log.reserve(10_000, request()));
        assert!(!log.reserve(9_998, request()), "a small step is waited out");
        assert!(log.reserve(5_000, request()));
        assert!(log.reserve(5_001, request()));
        assert_eq!(lock(&log.0).len(), 1, "old dates are forgotten");
    }

    const NOTIFICATION: Notification<'static> = Notification {
        hook_id: "3f2a9c1e-77aa-4d0b-8c55-0b1f6f7e9d10",
        timestamp: "2024-05-01T12:00:00Z",
        topic: Some("invitaciones"),
    };

    #[test]
    fn the_table_of_delivery_signatures() {
        let secret = SecretText::from("whop-demo-secret-0001");
        for (separator, base64, hex) in [
            (
                "",
                "Omwk0uLUu5CrrslyNhv68/bEtpTjbxN2JBekNy+OBhc=",
                "3a6c24d2e2d4bb90abaec972361bfaf3f6c4b694e36f13762417a4372f8e0617",
            ),
            (
                "\n",
                "RGuNSyXfRemwyC4Ac42wbiXnM3bVPWpoJIYDYCcy2co=",
                "446b8d4b25df45e9b0c82e00738db06e25e73376d53d6a68248603602732d9ca",
            ),
            (
                ".",
                "3ppC4N79DrnHzF0wKpzeB7U4j2wnBLh3yY1sM3zkRSI=",
                "de9a42e0defd0eb9c7cc5d302a9cde07b5388f6c2704b877c98d6c337ce44522",
            ),
            (
                "|",
                "ihQ4EpPRfuvXlG0U8h05FtBcToxP4A476/PG6X6eQL0=",
                "8a14381293d17eebd7946d14f21d3916d05c4e8c4fe00e3bebf3c6e97e9e40bd",
            ),
        ] {
            for (encoding, expected) in [(SignatureEncoding::Base64, base64), (SignatureEncoding::Hex, hex)] {
                let style = DeliveryStyle { separator, encoding };
                assert_eq!(sign_delivery(&secret, NOTIFICATION, style), expected, "{style:?}");
                assert!(verify_delivery(&secret, NOTIFICATION, style, expected));
                assert_eq!(verify_delivery_any(&secret, NOTIFICATION, expected), Some(style));
                let other = Notification {
                    timestamp: "2024-05-01T12:00:01Z",
                    ..NOTIFICATION
                };
                assert!(!verify_delivery(&secret, other, style, expected));
                assert_eq!(
                    verify_delivery_any(&"another secret 01".into(), NOTIFICATION, expected),
                    None
                );
            }
        }
    }

    #[test]
    fn a_delivery_without_topic_signs_two_values() {
        let secret = SecretText::from("whop-demo-secret-0001");
        let plain = Notification {
            topic: None,
            ..NOTIFICATION
        };
        for (separator, expected) in [
            ("", "75U3Tjxx1uud/ttix83IJAUBePLaLou42Oq3gEVAvHg="),
            ("\n", "Qrq6/w+LWzNLxKHwqxuRKDZg3Rdome/ulykvyVy85JY="),
        ] {
            let style = DeliveryStyle {
                separator,
                encoding: SignatureEncoding::Base64,
            };
            assert_eq!(sign_delivery(&secret, plain, style), expected);
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let secret = SecretText::from("whop-demo-secret-0001");
        for given in [
            "",
            "=",
            "zz",
            "é",
            "0",
            "Omwk0uLUu5CrrslyNhv68/bEtpTjbxN2JBekNy+OBh",
        ] {
            assert_eq!(
                verify_delivery_any(&secret, NOTIFICATION, given),
                None,
                "{given:?}"
            );
        }
    }
}
