//! One upstream as a server: reads requests, applies faults, keeps the journal, and leaves the answer itself to
//! the upstream's own file.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::delivery::Delivered;
use crate::faults::{ActiveFault, Effect, Fault, FaultId, Faults, RetryAfter};
use crate::journal::{Counts, Duplicate, Journal, Seen};
use crate::server::{self, Reset, Stop};
use crate::{Source, http_date, lock};

/// Longest request body that is read; more is answered by 413.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// A request as the upstreams' files see it.
#[derive(Clone)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) received: SystemTime,
}

impl Call {
    /// A header's value, if it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Path with query, as it came on the request line.
    pub(crate) fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Whether the body is declared as JSON.
    pub(crate) fn is_json(&self) -> bool {
        let media_type = self
            .header("content-type")
            .and_then(|value| value.split(';').next());
        media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
    }

    /// Decoded query parameters, in order.
    pub(crate) fn query_pairs(&self) -> Vec<(String, String)> {
        let query = self.query.as_deref().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn for_tests(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let header = |(name, value): &(&str, &str)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        };
        Self {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: headers.iter().map(header).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            received: SystemTime::now(),
        }
    }
}

/// An answer before faults.
#[derive(Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// Whether something at the upstream was changed.
    pub(crate) effect: bool,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self {
            status,
            headers,
            body: body.into(),
            effect: false,
        }
    }

    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        // Every value here has string keys and finite numbers, so this cannot fail; an empty body would show it.
        Self::new(
            status,
            "application/json",
            serde_json::to_vec(body).unwrap_or_default(),
        )
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            effect: false,
        }
    }

    /// Says that something was changed.
    pub(crate) fn effect(mut self) -> Self {
        self.effect = true;
        self
    }

    /// Adds a header; a value that HTTP cannot carry is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    fn into_response(self) -> Response<Body> {
        build(self.status, self.headers, Body::from(self.body))
    }
}

fn build(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

/// What each upstream's file gives.
pub trait Upstream: Send + Sync + 'static {
    /// Its name on the admin port.
    const NAME: &'static str;
    /// Credentials, in the form that options and admin port take.
    type Account: DeserializeOwned + Send;
    /// Its switches: where the contract leaves something open.
    type Behaviour: Clone + Default + Serialize + DeserializeOwned + Send;
    /// What it stores.
    type Object: Clone + Serialize + DeserializeOwned;

    /// Path that belongs to the base URL users configure, such as `/api`.
    fn base_path(&self) -> String;
    /// The switches.
    fn behaviour(&self) -> &Mutex<Self::Behaviour>;
    /// Adds an account, or replaces the one of the same name.
    fn add_account(&self, account: Self::Account);
    /// Takes an account away; its objects stay. Whether there was one.
    fn remove_account(&self, name: &str) -> bool;
    /// Names of all accounts.
    fn accounts(&self) -> Vec<String>;
    /// Whose credentials these are, without judging signatures.
    fn account_of(&self, call: &Call) -> Option<String>;
    /// Handles a request.
    fn answer(self: Arc<Self>, call: Call) -> impl Future<Output = Reply> + Send;
    /// Everything stored, in the order of keys.
    fn objects(&self) -> Vec<Self::Object>;
    /// Changes an object behind the API's back. Whether it was there.
    fn edit(&self, key: &str, change: &mut dyn FnMut(&mut Self::Object)) -> bool;
    /// Removes an object behind the API's back. Whether it was there.
    fn remove(&self, key: &str) -> bool;
    /// Removes all objects.
    fn clear(&self);
    /// Objects that should have been one.
    fn duplicates(&self) -> Vec<Duplicate>;
    /// Sends a delivery as this upstream does; `order` is described in the README.
    fn deliver(&self, order: Value) -> impl Future<Output = Result<Vec<Delivered>, String>> + Send;
}

/// What all doubles share.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) journal_limit: usize,
    /// Wait before each answer.
    pub(crate) latency: Duration,
    pub(crate) stop: Stop,
    pub(crate) source: Source,
}

/// A running double: the upstream and everything around it.
pub struct Double<U: Upstream> {
    upstream: Arc<U>,
    /// Scheme and authority.
    origin: String,
    faults: Faults,
    journal: Journal,
    latency_millis: AtomicU64,
    stop: Stop,
    source: Source,
}

impl<U: Upstream> Double<U> {
    /// A double that nobody can connect to.
    pub(crate) fn new(upstream: Arc<U>, origin: String, setting: Setting) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            origin,
            faults: Faults::default(),
            journal: Journal::new(setting.journal_limit, setting.source.clone()),
            latency_millis: AtomicU64::new(u64::try_from(setting.latency.as_millis()).unwrap_or(u64::MAX)),
            stop: setting.stop,
            source: setting.source,
        })
    }

    pub(crate) fn start(
        upstream: Arc<U>,
        listener: TcpListener,
        setting: &Setting,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<Option<()>>)> {
        let origin = format!("http://{}", listener.local_addr()?);
        let double = Self::new(upstream, origin, setting.clone());
        let handler = Arc::clone(&double);
        let stop = &setting.stop;
        let task = stop.spawn(server::serve(listener, stop.clone(), move |request| {
            let double = Arc::clone(&handler);
            async move { double.receive(request).await }
        }));
        Ok((double, task))
    }

    /// The base URL to configure, with the path that belongs to it and without a slash at the end.
    pub fn url(&self) -> String {
        format!("{}{}", self.origin, self.upstream.base_path())
    }

    /// The upstream itself, for what only it has.
    pub fn upstream(&self) -> &Arc<U> {
        &self.upstream
    }

    /// Adds an account, or replaces the one of the same name.
    pub fn add_account(&self, account: U::Account) {
        self.upstream.add_account(account);
    }

    /// Takes an account away, as if its credentials had been revoked; its objects stay. Whether there was one.
    pub fn remove_account(&self, name: &str) -> bool {
        self.upstream.remove_account(name)
    }

    /// Names of all accounts.
    pub fn accounts(&self) -> Vec<String> {
        self.upstream.accounts()
    }

    /// The switches as they stand.
    pub fn behaviour(&self) -> U::Behaviour {
        lock(self.upstream.behaviour()).clone()
    }

    /// Changes switches; in force from the next request.
    pub fn change_behaviour(&self, change: impl FnOnce(&mut U::Behaviour)) {
        change(&mut lock(self.upstream.behaviour()));
    }

    /// Everything stored.
    pub fn objects(&self) -> Vec<U::Object> {
        self.upstream.objects()
    }

    /// Changes an object behind the API's back, as a colleague in the panel would. Whether it was there.
    pub fn edit(&self, key: &str, mut change: impl FnMut(&mut U::Object)) -> bool {
        self.upstream.edit(key, &mut change)
    }

    /// Removes an object behind the API's back. Whether it was there.
    pub fn remove(&self, key: &str) -> bool {
        self.upstream.remove(key)
    }

    /// Objects that should have been one.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.upstream.duplicates()
    }

    /// Sends deliveries as the upstream does.
    ///
    /// # Errors
    /// A text when `order` is not understood or names something that is not there. A delivery that fails is no
    /// error but is told in its [`Delivered`].
    pub async fn deliver(&self, order: Value) -> Result<Vec<Delivered>, String> {
        self.upstream.deliver(order).await
    }

    /// Puts a fault in force.
    pub fn set_fault(&self, fault: Fault) -> FaultId {
        self.faults.set(fault)
    }

    /// Ends one fault. Whether it was in force.
    pub fn remove_fault(&self, id: FaultId) -> bool {
        self.faults.remove(id)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// The faults in force, used-up ones included.
    pub fn faults(&self) -> Vec<ActiveFault> {
        self.faults.list()
    }

    /// Every request waits so long before anything else happens.
    pub fn set_latency(&self, latency: Duration) {
        let millis = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.latency_millis.store(millis, Ordering::Relaxed);
    }

    /// The latency in force.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_millis.load(Ordering::Relaxed))
    }

    /// All requests kept, in the order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.journal.requests(|_| true)
    }

    /// The requests for which `wanted` says yes; runs under the journal's lock.
    pub fn requests_where(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.journal.requests(wanted)
    }

    /// The requests of one account.
    pub fn requests_of(&self, account: &str) -> Vec<Seen> {
        self.journal
            .requests(|seen| seen.account.as_deref() == Some(account))
    }

    /// Counts since the start or the last reset.
    pub fn counts(&self) -> Counts {
        self.journal.counts()
    }

    /// Forgets the requests and their counts.
    pub fn clear_requests(&self) {
        self.journal.clear();
    }

    /// Forgets objects, requests, faults; accounts, switches and latency stay.
    pub fn reset(&self) {
        self.upstream.clear();
        self.faults.clear();
        self.journal.clear();
    }

    /// Handles a request in a task of its own: a client that gives up must not keep the effect from happening.
    async fn receive(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(Reply::empty(StatusCode::PAYLOAD_TOO_LARGE).into_response()),
        };
        self.take(Request::from_parts(parts, body)).await
    }

    async fn take(self: Arc<Self>, request: Request<Bytes>) -> Result<Response<Body>, Reset> {
        let (parts, body) = request.into_parts();
        let call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            body,
            received: self.source.now(),
        };
        let stop = self.stop.clone();
        let answer = stop.spawn(self.handle(call)).await;
        answer.ok().flatten().unwrap_or(Err(Reset))
    }

    /// The same without a connection; the answer's body is read whole.
    pub(crate) async fn exchange(self: Arc<Self>, request: Request<Bytes>) -> Result<Response<Bytes>, Reset> {
        let (parts, body) = self.take(request).await?.into_parts();
        let body = body.collect().await.map_err(|_| Reset)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn handle(self: Arc<Self>, mut call: Call) -> Result<Response<Body>, Reset> {
        let account = self.upstream.account_of(&call);
        let strike = self
            .faults
            .strike(call.method.as_str(), &call.path, account.as_deref());
        let name = strike.fault.as_ref().map(|fault| effect_name(&fault.effect));
        let seq = self.journal.open(&call, account, name.map(str::to_owned));
        let wait = self.latency() + strike.delay_before;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            call.received = self.source.now();
        }
        let reply = match &strike.fault {
            Some(fault) if !fault.is_handled() => None,
            _ => {
                let reply = Arc::clone(&self.upstream).answer(call).await;
                self.journal.handled(seq, reply.effect);
                Some(reply)
            }
        };
        if !strike.delay_after.is_zero() {
            tokio::time::sleep(strike.delay_after).await;
        }
        let response = match strike.fault {
            Some(fault) => distort(&fault.effect, reply, &self.source),
            None => reply.map(Reply::into_response).ok_or(Reset),
        };
        self.journal.answered(
            seq,
            response.as_ref().ok().map(|response| response.status().as_u16()),
        );
        response
    }
}

fn effect_name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Status { .. } => "status",
        Effect::Delay { .. } => "delay",
        Effect::ResetBefore => "resetBefore",
        Effect::ResetAfter => "resetAfter",
        Effect::MalformedJson => "malformedJson",
        Effect::HugeBody { .. } => "hugeBody",
        Effect::Html => "html",
        Effect::ContentType { .. } => "contentType",
        Effect::Drip { .. } => "drip",
        Effect::Truncate => "truncate",
    }
}

/// The answer as the fault leaves it. Without a reply (nothing was handled) an empty 200 stands in for it.
fn distort(effect: &Effect, reply: Option<Reply>, source: &Source) -> Result<Response<Body>, Reset> {
    let reply = reply.unwrap_or_else(|| Reply::json(StatusCode::OK, &Value::Object(serde_json::Map::new())));
    match effect {
        Effect::ResetBefore | Effect::ResetAfter => Err(Reset),
        Effect::Delay { .. } => Ok(reply.into_response()),
        Effect::Status {
            status,
            body,
            headers,
            retry_after,
        } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = Reply::new(status, "text/plain", body.clone().unwrap_or_default());
            for (name, value) in headers {
                if let Ok(name) = HeaderName::try_from(name.as_str()) {
                    answer.headers.retain(|(present, _)| *present != name);
                    answer = answer.header(name, value);
                }
            }
            if let Some(after) = retry_after {
                answer = answer.header(RETRY_AFTER, &retry_after_value(*after, source));
            }
            Ok(answer.into_response())
        }
        Effect::MalformedJson => Ok(build(
            reply.status,
            reply.headers,
            Body::from("{\"id\": 5, \"actions\": [\"CHAT_"),
        )),
        Effect::HugeBody { bytes } => Ok(build(reply.status, reply.headers, huge(*bytes))),
        Effect::Html => {
            let page = "<!doctype html><html><head><title>Sign in</title></head><body>Sign in</body></html>";
            Ok(Reply::new(StatusCode::OK, "text/html; charset=utf-8", page).into_response())
        }
        Effect::ContentType { value } => {
            let mut reply = reply;
            reply.headers.retain(|(name, _)| *name != CONTENT_TYPE);
            Ok(reply.header(CONTENT_TYPE, value).into_response())
        }
        Effect::Drip {
            chunk_bytes,
            milliseconds,
        } => {
            let body = drip(reply.body, *chunk_bytes, Duration::from_millis(*milliseconds));
            Ok(build(reply.status, reply.headers, body))
        }
        Effect::Truncate => Ok(build(reply.status, reply.headers, truncated(&reply.body))),
    }
}

fn retry_after_value(after: RetryAfter, source: &Source) -> String {
    match after {
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::DateIn(seconds) => http_date(source.now() + Duration::from_secs(seconds)),
    }
}

/// A JSON string of `bytes` bytes, made as it is sent.
fn huge(bytes: u64) -> Body {
    const PIECE: u64 = 64 * 1024;
    let filler = bytes.saturating_sub(2);
    let piece = Bytes::from(vec![b'x'; usize::try_from(PIECE).unwrap_or_default()]);
    let quote = || stream::once(async { Bytes::from_static(b"\"") });
    let middle = stream::unfold(filler, move |left| {
        let piece = piece.clone();
        async move {
            let take = left.min(PIECE);
            let size = usize::try_from(take).unwrap_or_default();
            (take > 0).then(|| (piece.slice(..size), left - take))
        }
    });
    Body::from_stream(quote().chain(middle).chain(quote()).map(Ok::<_, Reset>))
}

fn drip(body: Bytes, chunk_bytes: usize, pause: Duration) -> Body {
    Body::from_stream(stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let chunk = rest.split_to(chunk_bytes.clamp(1, rest.len()));
        Some((Ok::<_, Reset>(chunk), rest))
    }))
}

/// The first half, then an error, on which hyper closes the connection in the middle of the body.
fn truncated(body: &Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    // The pause lets the first half leave before the connection goes.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(Reset)
    });
    Body::from_stream(stream::once(async move { Ok(half) }).chain(end))
}
