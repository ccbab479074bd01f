//! Requests and answers of the transport, free of the HTTP library's types, so that providers can build and read
//! them as plain values.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{error::HttpErrorKind, secret::SecretText, url::CheckedUrl};

/// Time for one call where the provider names none: below the pod's termination grace.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait that a `Retry-After` is believed for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// HTTP methods that the upstreams use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of an answer's body is taken, counted after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// One object: 1 MiB; more is an error.
    Object,
    /// A list with all its pages: 8 MiB; more is an error.
    List,
    /// A probe: up to 64 KiB are read and thrown away; more is no error. A body that is broken or too slow is none
    /// either, because the head has arrived: [`Response::body_fault`] says so.
    Discard,
    /// So many bytes; more is an error.
    Bytes(usize),
}

impl Limit {
    /// The limit in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Object => 1 << 20,
            Self::List => 8 << 20,
            Self::Discard => 64 << 10,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Where unencrypted HTTP may go. HTTPS is not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// Only to networks on the allow list: for calls that carry the provider's credentials.
    #[default]
    AllowedNetworks,
    /// Wherever the guard lets it: for probes of a receiver whose owner chose `http:`.
    AnyPublic,
}

/// A header value. Secret ones are marked as such down to the wire, so that nothing logs them.
#[derive(Clone, PartialEq, Eq, Debug)]
enum HeaderText {
    Plain(String),
    Secret(SecretText),
}

impl HeaderText {
    fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(text) => text.expose(),
        }
    }
}

/// One call: what to send, how long it may take, how much of the answer to take.
///
/// `Debug` shows method, origin and header names only.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    method: Method,
    url: CheckedUrl,
    headers: Vec<(String, HeaderText)>,
    body: Option<Vec<u8>>,
    limit: Limit,
    timeout: Duration,
    plain_http: PlainHttp,
}

impl Request {
    /// A request without headers and body, for one object, within 20 s, `http:` only to allowed networks.
    #[must_use]
    pub fn new(method: Method, url: CheckedUrl) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: None,
            limit: Limit::Object,
            timeout: DEFAULT_TIMEOUT,
            plain_http: PlainHttp::default(),
        }
    }

    /// Adds a header. Names are checked when the request is sent: `Host`, `Content-Length`, `Connection` and the
    /// other headers that belong to the transport are refused there, as are line breaks in values.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), HeaderText::Plain(value.into())));
        self
    }

    /// Adds a header whose value is a secret.
    #[must_use]
    pub fn secret_header(mut self, name: impl Into<String>, value: SecretText) -> Self {
        self.headers.push((name.into(), HeaderText::Secret(value)));
        self
    }

    /// Sets the body as is; no `Content-Type` is added.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the body and `Content-Type: application/json`.
    #[must_use]
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    /// Sets how much of the answer is taken.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the time for the whole call, from looking up the name to the last byte of the answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets where unencrypted HTTP may go.
    #[must_use]
    pub fn plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &CheckedUrl {
        &self.url
    }

    /// Names and values of the headers in the order added, **secret values included**: for signing and for tests.
    pub fn exposed_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// The body.
    #[must_use]
    pub fn body_bytes(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// How much of the answer is taken.
    #[must_use]
    pub fn body_limit(&self) -> Limit {
        self.limit
    }

    /// The time for the whole call.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        self.timeout
    }

    /// Where unencrypted HTTP may go.
    #[must_use]
    pub fn plain_http_rule(&self) -> PlainHttp {
        self.plain_http
    }

    /// Gives the body away, for sending.
    pub(super) fn take_body(&mut self) -> Option<Vec<u8>> {
        self.body.take()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("header_names", &names)
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .field("limit", &self.limit)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An answer, whatever its status: redirects and errors included. `Debug` shows status and sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    body_fault: Option<HttpErrorKind>,
    elapsed: Duration,
}

impl Response {
    /// An answer from its parts; the transport makes them, and so do tests of what reads them.
    #[must_use]
    pub fn new(status: u16, headers: Vec<(String, String)>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers,
            body: body.into(),
            body_fault: None,
            elapsed: Duration::ZERO,
        }
    }

    /// Sets what kept the body from arriving whole.
    #[must_use]
    pub fn with_body_fault(mut self, fault: Option<HttpErrorKind>) -> Self {
        self.body_fault = fault;
        self
    }

    /// Sets how long the call took.
    #[must_use]
    pub fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self
    }

    /// The status code, 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the status is 3xx. Redirects are never followed.
    #[must_use]
    pub fn is_redirect(&self) -> bool {
        (300..400).contains(&self.status)
    }

    /// The first header of this name, in whatever case. Bytes that are not UTF-8 are replaced. Upstream text:
    /// never to be shown.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body, decompressed. Upstream text: never to be shown.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, given away.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// What kept a body that is thrown away ([`Limit::Discard`]) from arriving: it was too slow, or broke off. Bodies
    /// that are wanted fail the call instead.
    #[must_use]
    pub fn body_fault(&self) -> Option<HttpErrorKind> {
        self.body_fault
    }

    /// From the start of the call to the last byte of the answer.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Scheme and host (and port) that a redirect points to, for a message; `asked` is the URL that was called.
    #[must_use]
    pub fn redirect_origin(&self, asked: &CheckedUrl) -> Option<String> {
        self.header("location")
            .filter(|_| self.is_redirect())
            .and_then(|location| asked.origin_of(location))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .field("elapsed", &self.elapsed)
            .finish()
    }
}

/// The wait that an answer asks for by `Retry-After` (RFC 9110, section 10.2.3), as seconds or as an HTTP date
/// relative to `now`. At most one hour; a date in the past is zero; anything else is nothing.
#[must_use]
pub fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let value = response.header("retry-after")?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long wait, not a malformed one.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
    let wait = Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(name: &str, value: &str) -> Response {
        Response::new(429, vec![(name.to_owned(), value.to_owned())], "")
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        let hour = Some(Duration::from_secs(3600));
        let half_minute = Some(Duration::from_secs(30));
        for (value, want) in [
            ("0", Some(Duration::ZERO)),
            (" 30 ", half_minute),
            ("3601", hour),
            ("99999999999999999999999999", hour),
            ("Sun, 06 Nov 1994 08:49:37 GMT", half_minute),
            ("Sunday, 06-Nov-94 08:49:37 GMT", half_minute),
            ("Sun Nov  6 08:49:37 1994", half_minute),
            ("Sun, 06 Nov 1994 23:49:37 GMT", hour),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(Duration::ZERO)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(
                retry_after(&with_header("rEtRy-AfTeR", value), now),
                want,
                "{value:?}"
            );
        }
        assert_eq!(retry_after(&with_header("x", "1"), now), None);
    }

    #[test]
    fn debug_shows_no_values() {
        let url = CheckedUrl::parse("https://h/c4nary?c4nary=1").unwrap();
        let request = Request::new(Method::Post, url)
            .header("X-Plain", "c4nary")
            .secret_header("Authorization", SecretText::from("c4nary"))
            .json("c4nary");
        let shown = format!("{request:?} {:#?}", with_header("x", "c4nary"));
        assert!(!shown.contains("c4nary"), "{shown}");
        assert!(shown.contains("Authorization"), "{shown}");
        assert_eq!(
            request.exposed_headers().collect::<Vec<_>>(),
            [
                ("X-Plain", "c4nary"),
                ("Authorization", "c4nary"),
                ("Content-Type", "application/json")
            ]
        );
    }

    #[test]
    fn redirects_show_their_origin_only() {
        let asked = CheckedUrl::parse("https://h/x").unwrap();
        let moved = |status, to: &str| Response::new(status, vec![("Location".into(), to.into())], "");
        assert_eq!(
            moved(302, "http://10.0.0.1/s3cret")
                .redirect_origin(&asked)
                .unwrap(),
            "http://10.0.0.1"
        );
        assert_eq!(
            moved(302, "/s3cret").redirect_origin(&asked).unwrap(),
            "https://h"
        );
        assert_eq!(moved(200, "http://10.0.0.1/").redirect_origin(&asked), None);
        assert_eq!(moved(302, "gopher://10.0.0.1/").redirect_origin(&asked), None);
    }
}
