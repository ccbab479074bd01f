//! Probes: small test deliveries that the operator itself sends to a receiver, as the upstream would send them, and
//! what their answers mean. Knows no Kubernetes, keeps nothing and schedules nothing; the controller decides when one
//! is sent and records the verdict.
//!
//! What a probe is: a `POST` to the registered URL of `{"type":"webhook.test",...}` with the configured headers and
//! Basic credentials, signed where the upstream signs. It goes through the address guard on a connection of its own,
//! follows no redirect, and takes nothing from the answer but its status.

mod judge;
mod sign;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::sign::Signing;
use crate::{
    api::{conditions::TestedReason, webhook::TestMode},
    clock::Clock,
    domain::{
        desired::{BasicAuth, Header},
        testing::Verdict,
    },
    net::{
        CheckedUrl, HttpError, Limit, Method, PlainHttp, Request, Response, SecretText, is_transport_header,
    },
    provider::Transport,
};

/// What [`Message::kind`] says.
const TYPE: &str = "webhook.test";

/// One test of one receiver. Its `Debug` shows neither secrets nor the URL's path.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `namespace/name` of the Webhook, which the receiver is told.
    pub webhook: String,
    /// Its uid: from it and the time the ids of deliveries are made.
    pub uid: String,
    /// Where it goes.
    pub url: CheckedUrl,
    /// The headers that the upstream would send.
    pub headers: Vec<Header>,
    /// The Basic credentials that the upstream would send.
    pub basic_auth: Option<BasicAuth>,
    /// How it is signed.
    pub signing: Signing,
    /// Longest time of one delivery, from looking up the name to the end of the answer.
    pub timeout: Duration,
    /// Whether a second delivery, wrongly signed, follows one that was taken.
    pub check_forgery: bool,
}

/// The body.
#[derive(Debug, Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    time: String,
    webhook: &'a str,
    message: &'a str,
}

/// With which secret a delivery is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Right,
    /// Another one: what a stranger would do.
    Forged,
}

/// No verdict: the receiver was not reached for a reason that says nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the probe could not be sent: {0}")]
pub struct NotSent(pub HttpError);

/// Sends one test, or two where forgery is checked, and judges the answers. Signs right before sending, so a probe
/// may wait for its turn as long as it likes.
///
/// # Errors
///
/// Where this machine is at its limits; then the test has to be made again.
pub async fn send(transport: &dyn Transport, clock: &Clock, probe: &Probe) -> Result<Verdict, NotSent> {
    let answer = transport.send(probe.request(clock.now(), Hand::Right)).await;
    let judged = judge::judge(probe, &answer)?;
    let mut verdict = Verdict {
        http_status: judged.http_status,
        latency: judged.latency,
        ..Verdict::new(TestMode::Probe, judged.reason, judged.message, clock.now())
    };
    if probe.check_forgery && verdict.passed() {
        let answer = transport.send(probe.request(clock.now(), Hand::Forged)).await;
        verdict.forged_accepted = judge::takes_forgery(&answer);
        verdict.time = clock.now();
        if verdict.forged_accepted == Some(true) {
            verdict.reason = TestedReason::ForgeryAccepted;
            verdict.http_status = answer.ok().map(|answer| answer.status());
            verdict.message = judge::forgery_message(probe);
        }
    }
    Ok(verdict)
}

impl Probe {
    /// The delivery as it is sent at `now`.
    fn request(&self, now: Timestamp, hand: Hand) -> Request {
        let id = self.delivery_id(now, hand);
        let message = Message {
            kind: TYPE,
            id: &id,
            time: seconds(now),
            webhook: &self.webhook,
            message: "a test by webhook-operator; nothing has happened",
        };
        // A struct of texts always has a JSON form.
        let body = serde_json::to_vec(&message).unwrap_or_default();
        let mut request = Request::new(Method::Post, self.url.clone())
            .limit(Limit::Discard)
            .plain_http(PlainHttp::AnyPublic)
            .timeout(self.timeout);
        // Headers of the connection are the upstream's own business; no receiver judges by them.
        let sent = self
            .headers
            .iter()
            .filter(|header| !is_transport_header(&header.name));
        for header in sent {
            request = request.secret_header(header.name.clone(), header.value.clone());
        }
        if let Some(auth) = &self.basic_auth {
            request = request.secret_header("Authorization", basic(auth));
        }
        for (name, value) in self.signing.headers(now, &id, &body, hand == Hand::Forged) {
            request = request.secret_header(name, SecretText::from(value));
        }
        let typed = self
            .headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case("content-type"));
        if typed {
            request.body(body)
        } else {
            request.json(body)
        }
    }

    /// A UUID (version 8, RFC 9562: made by a rule of our own) that no other delivery has: receivers may refuse one
    /// that they have seen.
    fn delivery_id(&self, now: Timestamp, hand: Hand) -> String {
        let text = format!("{} {} {hand:?}", self.uid, now.as_nanosecond());
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut bytes: [u8; 16] = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | 0x8 << 76 | 0b10 << 62;
        let hex = format!("{number:032x}");
        let mut rest = hex.as_str();
        let parts = [8, 4, 4, 4, 12].map(|length| {
            let (part, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
            rest = after;
            part
        });
        parts.join("-")
    }
}

/// The value of `Authorization`, user and password in UTF-8.
fn basic(auth: &BasicAuth) -> SecretText {
    let login = SecretText::from(format!("{}:{}", auth.username, auth.password.expose()));
    SecretText::from(format!("Basic {}", STANDARD.encode(login.expose())))
}

/// A time in whole seconds, as in `2024-05-01T12:00:00Z`.
fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// An answer, or what kept it from coming.
type Answer = Result<Response, HttpError>;

#[cfg(test)]
mod tests;
