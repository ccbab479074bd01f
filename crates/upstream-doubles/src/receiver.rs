//! A receiver of deliveries that checks what it gets and remembers it.
//!
//! | path | answer |
//! |---|---|
//! | `/ok`, `/ok/...` | 200 |
//! | `/status/{code}`, `/status/{code}/...` | that status |
//! | `/slow/{ms}`, `/slow/{ms}/...` | 200 after so many milliseconds (60,000 at most) |
//! | `/redirect/{code}?to=URL`, `/redirect/{code}/...` | that status with `Location` (`/ok` unless given) |
//! | `/ricloud/{name}`, `/ricloud/{name}/{event id}` | 200 if `Ricloud-Signature` is right, else 401 |
//! | `/autocosmos/{name}` | 200 if `Notification-Signature` is right, else 401 |
//! | `/basic/{name}` | 200 if the Basic credentials are right, else 401 |
//!
//! A name that nobody has announced answers 404. Paths may go on because ricloud appends the event id.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::secret::Secret;
use crate::sign::{self, DeliverySignature, Encoding};
use crate::{Source, lock};

/// Deliveries kept; the oldest go first.
pub const RECEIVED_LIMIT: usize = 10_000;

/// Longest part of a body that is kept.
pub const RECEIVED_BODY_BYTES: usize = 64 * 1024;

/// Longest body that is read; more is answered by 413.
const MAX_BODY_BYTES: usize = 4 << 20;

const MAX_SLOW: Duration = Duration::from_secs(60);

/// What the receiver thought of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict", content = "reason")]
pub enum Judgement {
    /// The route checks nothing.
    Unchecked,
    /// Signature or credentials were right.
    Accepted,
    /// They were not; why.
    Refused(String),
}

/// One delivery. `Debug` leaves headers and body out, because they carry credentials.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// Position since the start, from 1.
    pub seq: u64,
    /// Arrival in milliseconds since 1970.
    pub at_millis: u64,
    /// Method in capitals.
    pub method: String,
    /// Raw path.
    pub path: String,
    /// Raw query without the question mark.
    pub query: Option<String>,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, up to [`RECEIVED_BODY_BYTES`], as text.
    pub body: String,
    /// Length of the whole body.
    pub body_bytes: usize,
    /// What was thought of it.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// The status that was sent.
    pub status: u16,
}

impl Received {
    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(present, _)| present == name)
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("seq", &self.seq)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("judgement", &self.judgement)
            .field("status", &self.status)
            .field("body_bytes", &self.body_bytes)
            .finish_non_exhaustive()
    }
}

/// Gives the secrets of which one must fit.
type SecretSource = Arc<dyn Fn() -> Vec<Secret> + Send + Sync>;

#[derive(Default)]
struct Inner {
    ricloud: BTreeMap<String, SecretSource>,
    autocosmos: BTreeMap<String, (SecretSource, Option<DeliverySignature>)>,
    basic: BTreeMap<String, (String, Secret)>,
    received: VecDeque<Received>,
    next: u64,
}

/// The receiver.
pub struct Receiver {
    address: SocketAddr,
    inner: Mutex<Inner>,
}

/// A status with the `Location` that goes with it, and the judgement.
struct Outcome {
    status: StatusCode,
    location: Option<String>,
    judgement: Judgement,
}

impl Outcome {
    fn plain(status: StatusCode) -> Self {
        Self {
            status,
            location: None,
            judgement: Judgement::Unchecked,
        }
    }

    fn judged(result: Result<(), String>) -> Self {
        let (status, judgement) = match result {
            Ok(()) => (StatusCode::OK, Judgement::Accepted),
            Err(reason) => (StatusCode::UNAUTHORIZED, Judgement::Refused(reason)),
        };
        Self {
            status,
            location: None,
            judgement,
        }
    }
}

impl Receiver {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            inner: Mutex::default(),
        })
    }

    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(receive).with_state(Arc::clone(self))
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Verifies deliveries to `/ricloud/{name}` with this secret.
    pub fn expect_ricloud(&self, name: &str, secret: impl Into<Secret>) {
        let secret = secret.into();
        self.expect_ricloud_from(name, move || vec![secret.clone()]);
    }

    /// Verifies deliveries to `/ricloud/{name}` with any of the secrets that `source` gives at that moment.
    pub fn expect_ricloud_from(&self, name: &str, source: impl Fn() -> Vec<Secret> + Send + Sync + 'static) {
        lock(&self.inner)
            .ricloud
            .insert(name.to_owned(), Arc::new(source));
    }

    /// Verifies deliveries to `/autocosmos/{name}`; without a scheme, any of separators `""`, LF, `.`, `|` in
    /// base64 or hex will do.
    pub fn expect_autocosmos(
        &self,
        name: &str,
        secret: impl Into<Secret>,
        scheme: Option<DeliverySignature>,
    ) {
        let secret = secret.into();
        self.expect_autocosmos_from(name, scheme, move || vec![secret.clone()]);
    }

    /// The same with any of the secrets that `source` gives at that moment.
    pub fn expect_autocosmos_from(
        &self,
        name: &str,
        scheme: Option<DeliverySignature>,
        source: impl Fn() -> Vec<Secret> + Send + Sync + 'static,
    ) {
        lock(&self.inner)
            .autocosmos
            .insert(name.to_owned(), (Arc::new(source), scheme));
    }

    /// Verifies Basic credentials of deliveries to `/basic/{name}`.
    pub fn expect_basic(&self, name: &str, user: &str, password: impl Into<Secret>) {
        lock(&self.inner)
            .basic
            .insert(name.to_owned(), (user.to_owned(), password.into()));
    }

    /// Forgets what was announced for a name, on all three kinds of paths.
    pub fn forget(&self, name: &str) {
        let mut inner = lock(&self.inner);
        inner.ricloud.remove(name);
        inner.autocosmos.remove(name);
        inner.basic.remove(name);
    }

    /// All deliveries kept, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.inner).received.iter().cloned().collect()
    }

    /// Deliveries whose path begins so.
    pub fn received_at(&self, path_prefix: &str) -> Vec<Received> {
        let inner = lock(&self.inner);
        inner
            .received
            .iter()
            .filter(|delivery| delivery.path.starts_with(path_prefix))
            .cloned()
            .collect()
    }

    /// Forgets deliveries; what was announced stays.
    pub fn clear(&self) {
        lock(&self.inner).received.clear();
    }

    async fn judge(&self, path: &str, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Outcome {
        let mut segments = path.trim_start_matches('/').split('/');
        let route = segments.next().unwrap_or_default();
        let parameter = segments.next().unwrap_or_default();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match route {
            "ok" => Outcome::plain(StatusCode::OK),
            "status" => Outcome::plain(status(parameter)),
            "slow" => {
                let wait = Duration::from_millis(parameter.parse().unwrap_or_default());
                tokio::time::sleep(wait.min(MAX_SLOW)).await;
                Outcome::plain(StatusCode::OK)
            }
            "redirect" => {
                let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
                let to = pairs
                    .into_iter()
                    .find(|(name, _)| name == "to")
                    .map(|(_, to)| to.into_owned());
                let location = Some(to.unwrap_or_else(|| "/ok".to_owned()));
                Outcome {
                    location,
                    ..Outcome::plain(status(parameter))
                }
            }
            "ricloud" => self.judge_ricloud(parameter, header("ricloud-signature"), body),
            "autocosmos" => self.judge_autocosmos(parameter, &header),
            "basic" => self.judge_basic(parameter, header("authorization")),
            _ => Outcome::plain(StatusCode::NOT_FOUND),
        }
    }

    fn judge_ricloud(&self, name: &str, signature: Option<&str>, body: &[u8]) -> Outcome {
        let source = lock(&self.inner).ricloud.get(name).cloned();
        let Some(source) = source else {
            return Outcome::plain(StatusCode::NOT_FOUND);
        };
        let now = i64::try_from(Source::real().unix_millis() / 1000).unwrap_or(i64::MAX);
        let signature = signature.unwrap_or_default();
        let mut result = Err("no secret is known".to_owned());
        for secret in source() {
            result = sign::verify_ricloud(secret.reveal(), signature, body, now)
                .map_err(|refusal| refusal.to_string());
            if result.is_ok() {
                break;
            }
        }
        Outcome::judged(result)
    }

    fn judge_autocosmos<'a>(&self, name: &str, header: &dyn Fn(&str) -> Option<&'a str>) -> Outcome {
        let expected = lock(&self.inner).autocosmos.get(name).cloned();
        let Some((source, scheme)) = expected else {
            return Outcome::plain(StatusCode::NOT_FOUND);
        };
        let parts = (
            header("notification-signature"),
            header("notification-hook-id"),
            header("notification-timestamp"),
        );
        let (Some(signature), Some(hook_id), Some(timestamp)) = parts else {
            return Outcome::judged(Err(sign::Refusal::Missing.to_string()));
        };
        let topic = header("notification-topic");
        let schemes = scheme.map_or_else(every_scheme, |scheme| vec![scheme]);
        let fits = source().iter().any(|secret| {
            schemes.iter().any(|scheme| {
                let expected = scheme.sign(secret.reveal(), hook_id, timestamp, topic);
                sign::equal(expected.as_bytes(), signature.as_bytes())
            })
        });
        Outcome::judged(if fits {
            Ok(())
        } else {
            Err(sign::Refusal::Mismatch.to_string())
        })
    }

    fn judge_basic(&self, name: &str, authorization: Option<&str>) -> Outcome {
        let expected = lock(&self.inner).basic.get(name).cloned();
        let Some((user, password)) = expected else {
            return Outcome::plain(StatusCode::NOT_FOUND);
        };
        let expected = sign::basic(&user, password.reveal());
        let fits = authorization.is_some_and(|value| sign::equal(value.as_bytes(), expected.as_bytes()));
        Outcome::judged(if fits {
            Ok(())
        } else {
            Err("credentials missing or wrong".to_owned())
        })
    }
}

/// The rows of the contract's table.
fn every_scheme() -> Vec<DeliverySignature> {
    let separators = ["", "\n", ".", "|"];
    let scheme = |separator: &str, encoding| DeliverySignature {
        separator: separator.to_owned(),
        encoding,
    };
    separators
        .iter()
        .flat_map(|separator| {
            [
                scheme(separator, Encoding::Base64),
                scheme(separator, Encoding::Hex),
            ]
        })
        .collect()
}

fn status(text: &str) -> StatusCode {
    text.parse()
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::NOT_FOUND)
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let answer = |status: StatusCode, location: Option<String>| {
        let mut response = Response::new(Body::from(status.canonical_reason().unwrap_or_default()));
        *response.status_mut() = status;
        if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    };
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, None);
    };
    let at_millis = Source::real().unix_millis();
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let outcome = receiver.judge(path, query, &parts.headers, &body).await;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let kept = body.get(..RECEIVED_BODY_BYTES).unwrap_or(&body);
    let mut delivery = Received {
        seq: 0,
        at_millis,
        method: parts.method.to_string(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(kept).into_owned(),
        body_bytes: body.len(),
        judgement: outcome.judgement,
        status: outcome.status.as_u16(),
    };
    let mut inner = lock(&receiver.inner);
    inner.next += 1;
    delivery.seq = inner.next;
    if inner.received.len() >= RECEIVED_LIMIT {
        inner.received.pop_front();
    }
    inner.received.push_back(delivery);
    drop(inner);
    answer(outcome.status, outcome.location)
}
