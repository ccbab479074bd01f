//! The HTTP transport, the only user of the HTTP library.
//!
//! Guards every connection (see [`super::guard`]), bounds everything (time, body, head, idle connections), follows
//! no redirect, retries nothing, reads no proxy from the environment, and turns failures into [`HttpError`].
//! Retrying, rate limits and the meaning of a status are for its callers.
//!
//! How the guard is applied: literal addresses are checked before sending; names go through our resolver, whose
//! checked answer is what the library connects to; the peer of the connection is checked again with the answer.
//! Plain HTTP has a client, and so a connection pool, of its own for each [`PlainHttp`] rule: a connection that a
//! probe may use must not be picked up by a call with credentials.

use std::{
    error::Error as StdError,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::{
    error::{ConnectProblem, HttpError, HttpErrorKind, Phase, SetupError, TlsProblem},
    guard::AddressPolicy,
    message::{Limit, Method, PlainHttp, Request, Response},
    resolve::{Resolve, ResolveError, Rule, SystemResolver, resolve_checked},
    url::CheckedUrl,
};

/// For looking up, connecting and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than what servers and middleboxes commonly allow, so that requests seldom meet a closing connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as a provider runs calls at once by default.
const POOL_MAX_IDLE_PER_HOST: usize = 4;
/// Header lines of an answer; their bytes are bounded by the HTTP library (about 400 KiB).
const MAX_RESPONSE_HEADERS: usize = 100;

/// Headers that decide framing, routing or the connection itself: the transport sets them, nobody else.
const TRANSPORT_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "accept-encoding",
];

type BoxError = Box<dyn StdError + Send + Sync>;

/// Settings of an [`HttpClient`].
pub struct HttpClientBuilder {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    ca_bundle: Option<Vec<u8>>,
    proxy: Option<CheckedUrl>,
    connect_timeout: Duration,
}

impl HttpClientBuilder {
    /// Replaces the system's resolver.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Trusts the certificates of this PEM bundle in addition to the built-in roots.
    #[must_use]
    pub fn ca_bundle(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_bundle = Some(pem.into());
        self
    }

    /// Sends everything through this HTTP proxy (`CONNECT` for https). Its address is guarded as any other;
    /// literal addresses as target are, too; names are passed on to it, and therefore go by https only.
    #[must_use]
    pub fn proxy(mut self, url: CheckedUrl) -> Self {
        self.proxy = Some(url);
        self
    }

    /// Sets the time for looking up, connecting and the TLS handshake together; 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Makes the client. Connects nothing.
    ///
    /// # Errors
    /// A CA bundle without usable certificates, or a proxy at a refused literal address.
    pub fn build(self) -> Result<HttpClient, SetupError> {
        if let Some(addr) = self.proxy.as_ref().and_then(CheckedUrl::literal) {
            self.policy.check(addr).map_err(SetupError::ProxyBlocked)?;
        }
        let tls = tls_config(self.ca_bundle.as_deref())?;
        let policy = Arc::new(self.policy);
        let client = |rule| {
            let resolver = GuardedResolver {
                resolver: Arc::clone(&self.resolver),
                policy: Arc::clone(&policy),
                rule,
                within: self.connect_timeout,
            };
            library_client(tls.clone(), resolver, self.proxy.as_ref(), self.connect_timeout)
        };
        Ok(HttpClient {
            shared: Arc::new(Shared {
                open: client(Rule::NotRefused)?,
                listed: client(Rule::Listed)?,
                proxied: self.proxy.is_some(),
                policy,
            }),
        })
    }
}

/// The trust roots: Mozilla's, built in, and those of the bundle. The cryptography is ring's.
fn tls_config(ca_bundle: Option<&[u8]>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = ca_bundle {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| SetupError::CaBundle)?;
            roots.add(certificate).map_err(|_| SetupError::CaCertificate)?;
        }
        if roots.len() == before {
            return Err(SetupError::CaBundle);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| SetupError::Client)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn library_client(
    tls: ClientConfig,
    resolver: GuardedResolver,
    proxy: Option<&CheckedUrl>,
    connect_timeout: Duration,
) -> Result<reqwest::Client, SetupError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("webhook-operator/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .connector_layer(WatchLayer { connect_timeout })
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // Before `proxy`: it clears the list, and keeps the environment out.
        .no_proxy()
        .gzip(true)
        .http1_only()
        .http1_max_headers(MAX_RESPONSE_HEADERS)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_MAX_IDLE_PER_HOST);
    let builder = match proxy {
        None => builder,
        Some(url) => {
            builder.proxy(reqwest::Proxy::all(url.parsed().clone()).map_err(|_| SetupError::Client)?)
        }
    };
    builder.build().map_err(|_| SetupError::Client)
}

/// The transport. Cheap to clone; clones share their connections.
///
/// One serves all providers without a CA bundle and a proxy of their own; the others need one each, which the
/// caller keeps.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

struct Shared {
    /// For https, and for http that may go wherever the guard lets it.
    open: reqwest::Client,
    /// For http towards the allowed networks only.
    listed: reqwest::Client,
    policy: Arc<AddressPolicy>,
    proxied: bool,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient")
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Starts a client under this policy: the system's resolver, the built-in trust roots, no proxy.
    #[must_use]
    pub fn builder(policy: AddressPolicy) -> HttpClientBuilder {
        HttpClientBuilder {
            policy,
            resolver: Arc::new(SystemResolver::default()),
            ca_bundle: None,
            proxy: None,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// Sends one request, once, and reads its answer. Every status is an answer, redirects included.
    ///
    /// # Errors
    /// Everything that keeps a whole answer from arriving; see [`HttpError`].
    pub async fn send(&self, mut request: Request) -> Result<Response, HttpError> {
        let started = Instant::now();
        let until = started.checked_add(request.time_limit()).unwrap_or(started);
        let fail = Failure {
            origin: request.url().origin(),
        };
        let rule = self.check_target(&request, &fail)?;
        // What is left of a lease may be nothing; not even a connection is made then.
        if request.time_limit().is_zero() {
            return Err(fail.unsent(HttpErrorKind::Timeout));
        }
        let limit = request.body_limit();
        let prepared = prepare(&mut request).ok_or_else(|| fail.unsent(HttpErrorKind::InvalidRequest))?;

        let client = if rule == Rule::Listed {
            &self.shared.listed
        } else {
            &self.shared.open
        };
        let call = Arc::new(CallState {
            until,
            progress: AtomicU8::new(0),
        });
        let exchange = Box::pin(CALL.scope(Arc::clone(&call), client.execute(prepared)));
        let response = match timeout_at(until, exchange).await {
            Err(_) => return Err(fail.sent(HttpErrorKind::Timeout, Phase::Exchange)),
            Ok(Err(error)) => return Err(fail.classify(&error)),
            Ok(Ok(response)) => response,
        };
        self.check_peer(rule, response.remote_addr(), &fail)?;

        let status = response.status().as_u16();
        let headers = read_headers(response.headers());
        let body = match (
            timeout_at(until, Box::pin(read_body(response, limit))).await,
            limit,
        ) {
            (Ok(Ok(body)), _) => body,
            (_, Limit::Discard) => Vec::new(),
            (Ok(Err(problem)), _) => return Err(fail.sent(problem, Phase::Body)),
            (Err(_), _) => return Err(fail.sent(HttpErrorKind::Timeout, Phase::Body)),
        };
        Ok(Response::new(status, headers, body).with_elapsed(started.elapsed()))
    }

    /// Judges what can be judged without a lookup, and gives the rule for the addresses of a name.
    fn check_target(&self, request: &Request, fail: &Failure) -> Result<Rule, HttpError> {
        let url = request.url();
        let rule = match request.plain_http_rule() {
            PlainHttp::AllowedNetworks if !url.is_https() => Rule::Listed,
            _ => Rule::NotRefused,
        };
        match url.literal() {
            Some(addr) => {
                rule.check(&self.shared.policy, addr)
                    .map_err(|class| fail.unsent(HttpErrorKind::Blocked(class)))?;
            }
            // The proxy looks the name up, so nobody here can say that it lies in an allowed network.
            None if self.shared.proxied && rule == Rule::Listed => {
                return Err(fail.unsent(HttpErrorKind::Blocked(super::guard::Refused::PlainHttp)));
            }
            None => {}
        }
        // With a proxy, the resolver and the peer check see the proxy, which is no place for the http rule.
        Ok(if self.shared.proxied {
            Rule::NotRefused
        } else {
            rule
        })
    }

    /// The belt to the resolver's braces: whoever answered must be somebody we may talk to.
    fn check_peer(&self, rule: Rule, peer: Option<SocketAddr>, fail: &Failure) -> Result<(), HttpError> {
        let Some(peer) = peer else {
            return Err(fail.sent(HttpErrorKind::Protocol, Phase::Exchange));
        };
        rule.check(&self.shared.policy, peer.ip())
            .map_err(|class| fail.sent(HttpErrorKind::Blocked(class), Phase::Exchange))
    }
}

/// Turns our request into the library's; nothing if a header is not to be sent.
fn prepare(request: &mut Request) -> Option<reqwest::Request> {
    let method = match request.method() {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in request.exposed_headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if TRANSPORT_HEADERS.contains(&name.as_str()) {
            return None;
        }
        let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        // All of them: even a header that is not a credential at this upstream is nobody's business in a log.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let mut prepared = reqwest::Request::new(method, request.url().parsed().clone());
    *prepared.headers_mut() = headers;
    *prepared.body_mut() = request.take_body().map(reqwest::Body::from);
    Some(prepared)
}

fn read_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// Reads the body up to its limit. The announced length is not trusted for memory, only for an early refusal.
async fn read_body(mut response: reqwest::Response, limit: Limit) -> Result<Vec<u8>, HttpErrorKind> {
    let most = limit.bytes();
    let too_large = HttpErrorKind::BodyTooLarge(most);
    if limit == Limit::Discard {
        let mut seen = 0_usize;
        while seen < most
            && let Some(chunk) = response.chunk().await.map_err(|error| classify_body(&error))?
        {
            seen = seen.saturating_add(chunk.len());
        }
        return Ok(Vec::new());
    }
    if response
        .content_length()
        .is_some_and(|announced| usize::try_from(announced).is_ok_and(|n| n > most))
    {
        return Err(too_large);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify_body(&error))? {
        if chunk.len() > most.saturating_sub(body.len()) {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

// ----- what the library does not tell: how far a connection came -----

/// Values of [`CallState::progress`].
const RESOLVING: u8 = 1;
const RESOLVED: u8 = 2;

/// One call as seen from inside the library, where resolver and connector run.
struct CallState {
    until: Instant,
    progress: AtomicU8,
}

tokio::task_local! {
    /// Only for time limits and messages. The guard itself does not depend on it.
    static CALL: Arc<CallState>;
}

/// Our resolver in the library's terms.
struct GuardedResolver {
    resolver: Arc<dyn Resolve>,
    policy: Arc<AddressPolicy>,
    rule: Rule,
    within: Duration,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let call = CALL.try_with(Arc::clone).ok();
        let (resolver, policy) = (Arc::clone(&self.resolver), Arc::clone(&self.policy));
        let (rule, within) = (self.rule, self.within);
        Box::pin(async move {
            let mark = |progress| {
                if let Some(call) = &call {
                    call.progress.store(progress, Ordering::Relaxed);
                }
            };
            mark(RESOLVING);
            let found = resolve_checked(&*resolver, &policy, rule, name.as_str(), within).await?;
            mark(RESOLVED);
            // Port 0: the library puts the URL's in.
            let addrs = found.into_iter().map(|addr| SocketAddr::new(addr, 0));
            Ok(Box::new(addrs) as reqwest::dns::Addrs)
        })
    }
}

/// Ends a connection attempt that takes too long, from inside of the connector: the library then knows that the
/// request was never sent, which it could not say if the call were given up from outside.
#[derive(Clone)]
struct WatchLayer {
    connect_timeout: Duration,
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watch<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Watch {
            inner,
            connect_timeout: self.connect_timeout,
        }
    }
}

#[derive(Clone)]
struct Watch<S> {
    inner: S,
    connect_timeout: Duration,
}

/// No connection in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
struct ConnectTimedOut(Phase);

impl<S, R> Service<R> for Watch<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let call = CALL.try_with(Arc::clone).ok();
        let now = Instant::now();
        let limit = now.checked_add(self.connect_timeout).unwrap_or(now);
        let until = call.as_ref().map_or(limit, |call| call.until.min(limit));
        let connecting = self.inner.call(target);
        Box::pin(async move {
            if let Ok(done) = timeout_at(until, connecting).await {
                return done;
            }
            let resolving = call.is_some_and(|call| call.progress.load(Ordering::Relaxed) == RESOLVING);
            let phase = if resolving { Phase::Resolve } else { Phase::Connect };
            Err(Box::new(ConnectTimedOut(phase)) as BoxError)
        })
    }
}

// ----- failures -----

/// Makes errors that name the origin.
struct Failure {
    origin: String,
}

impl Failure {
    fn unsent(&self, kind: HttpErrorKind) -> HttpError {
        HttpError::not_sent(kind, Phase::Prepare, self.origin.clone())
    }

    fn sent(&self, kind: HttpErrorKind, phase: Phase) -> HttpError {
        HttpError::maybe_sent(kind, phase, self.origin.clone())
    }

    /// Reads an error of the exchange. Only what happened while connecting is known not to have been sent.
    fn classify(&self, error: &reqwest::Error) -> HttpError {
        if error.is_builder() {
            return self.unsent(HttpErrorKind::InvalidRequest);
        }
        if error.is_connect() {
            let (kind, phase) = classify_connect(error);
            return HttpError::not_sent(kind, phase, self.origin.clone());
        }
        self.sent(classify_exchange(error), Phase::Exchange)
    }
}

/// Goes through an error and its causes, those inside of I/O errors included, which `source` skips.
fn find<'a, T>(
    error: &'a (dyn StdError + 'static),
    pick: impl Fn(&'a (dyn StdError + 'static)) -> Option<T>,
) -> Option<T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = pick(current) {
            return Some(found);
        }
        next = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

fn classify_connect(error: &reqwest::Error) -> (HttpErrorKind, Phase) {
    if let Some(problem) = find(error, |cause| cause.downcast_ref::<ResolveError>().copied()) {
        let kind = match problem {
            ResolveError::Failed => HttpErrorKind::Resolve,
            ResolveError::TimedOut => HttpErrorKind::Timeout,
            ResolveError::Blocked(class) => HttpErrorKind::Blocked(class),
        };
        return (kind, Phase::Resolve);
    }
    if let Some(phase) = find(error, |cause| {
        cause.downcast_ref::<ConnectTimedOut>().map(|out| out.0)
    }) {
        return (HttpErrorKind::Timeout, phase);
    }
    if let Some(problem) = find(error, |cause| {
        cause.downcast_ref::<rustls::Error>().map(tls_problem)
    }) {
        return (HttpErrorKind::Tls(problem), Phase::Tls);
    }
    let problem = match io_kind(error) {
        Some(io::ErrorKind::TimedOut) => return (HttpErrorKind::Timeout, Phase::Connect),
        Some(io::ErrorKind::ConnectionRefused) => ConnectProblem::Refused,
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            ConnectProblem::Unreachable
        }
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => ConnectProblem::Closed,
        _ => ConnectProblem::Other,
    };
    (HttpErrorKind::Connect(problem), Phase::Connect)
}

fn tls_problem(error: &rustls::Error) -> TlsProblem {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsProblem::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsProblem::WrongHost
            }
            // A bad signature is an authority of the right name with another key: mostly one that was made anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::UnknownIssuer,
            _ => TlsProblem::Other,
        },
        rustls::Error::InvalidMessage(_) => TlsProblem::NotTls,
        _ => TlsProblem::Other,
    }
}

fn classify_exchange(error: &reqwest::Error) -> HttpErrorKind {
    if error.is_timeout() {
        return HttpErrorKind::Timeout;
    }
    if let Some(problem) = find(error, |cause| {
        cause.downcast_ref::<rustls::Error>().map(tls_problem)
    }) {
        return HttpErrorKind::Tls(problem);
    }
    if find(error, |cause| {
        cause.downcast_ref::<hyper::Error>().map(hyper::Error::is_parse)
    }) == Some(true)
    {
        return HttpErrorKind::Protocol;
    }
    HttpErrorKind::Reset
}

fn classify_body(error: &reqwest::Error) -> HttpErrorKind {
    let broken = find(error, |cause| cause.downcast_ref::<hyper::Error>().map(|_| ()));
    // What is wrong with the bytes and not with the connection comes from the decompression.
    if broken.is_none() && error.is_decode() {
        HttpErrorKind::Decode
    } else {
        classify_exchange(error)
    }
}

/// The first telling kind among the I/O errors that caused this one.
fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    find(error, |cause| {
        let kind = cause.downcast_ref::<io::Error>()?.kind();
        (kind != io::ErrorKind::Other).then_some(kind)
    })
}
