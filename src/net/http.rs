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

mod connect;
mod failure;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::{Instant, timeout_at};

use self::{
    connect::{CALL, CallState, GuardedResolver, NoSessions, WatchLayer},
    failure::{Failure, classify_body},
};
use super::{
    error::{HttpError, HttpErrorKind, Phase, SetupError},
    guard::AddressPolicy,
    message::{Limit, Method, PlainHttp, Request, Response},
    resolve::{Resolve, Rule, SystemResolver},
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

/// Settings of an [`HttpClient`].
pub struct HttpClientBuilder {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    ca_bundle: Option<Vec<u8>>,
    proxy: Option<CheckedUrl>,
    connect_timeout: Duration,
    anew: bool,
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

    /// Connects anew for each request, TLS handshake and all, as a probe must: a connection or session that is used
    /// again hides a name that is gone and a certificate that has expired.
    #[must_use]
    pub fn connect_anew(mut self) -> Self {
        self.anew = true;
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
        let mut tls = tls_config(self.ca_bundle.as_deref())?;
        if self.anew {
            tls.resumption = Resumption::store(Arc::new(NoSessions));
        }
        let idle = if self.anew { 0 } else { POOL_MAX_IDLE_PER_HOST };
        let policy = Arc::new(self.policy);
        let client = |rule| {
            let resolver = GuardedResolver {
                resolver: Arc::clone(&self.resolver),
                policy: Arc::clone(&policy),
                rule,
                within: self.connect_timeout,
            };
            library_client(
                tls.clone(),
                resolver,
                self.proxy.as_ref(),
                self.connect_timeout,
                idle,
            )
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
    max_idle: usize,
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
        .pool_max_idle_per_host(max_idle);
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
            anew: false,
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
        let call = Arc::new(CallState::new(until));
        let exchange = Box::pin(CALL.scope(Arc::clone(&call), client.execute(prepared)));
        let response = match timeout_at(until, exchange).await {
            Err(_) => return Err(fail.sent(HttpErrorKind::Timeout, Phase::Exchange)),
            Ok(Err(error)) => return Err(fail.classify(&error)),
            Ok(Ok(response)) => response,
        };
        self.check_peer(rule, response.remote_addr(), &fail)?;

        let status = response.status().as_u16();
        let headers = read_headers(response.headers());
        let read = timeout_at(until, Box::pin(read_body(response, limit))).await;
        let (body, fault) = match read.unwrap_or(Err(HttpErrorKind::Timeout)) {
            Ok(body) => (body, None),
            Err(fault) if limit == Limit::Discard => (Vec::new(), Some(fault)),
            Err(fault) => return Err(fail.sent(fault, Phase::Body)),
        };
        Ok(Response::new(status, headers, body)
            .with_body_fault(fault)
            .with_elapsed(started.elapsed()))
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

/// Whether the transport sets this header itself, so that a [`Request`] with it is refused. In whatever case.
#[must_use]
pub fn is_transport_header(name: &str) -> bool {
    TRANSPORT_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
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
        if is_transport_header(name.as_str()) {
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
        // Doubled as it grows, and never larger than it may become.
        if body.capacity() < body.len() + chunk.len() {
            let wanted = (2 * body.len()).max(body.len() + chunk.len()).min(most);
            body.reserve_exact(wanted - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
