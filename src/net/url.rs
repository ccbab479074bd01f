//! The one URL type of the transport: parsed once, checked, and used as parsed.
//!
//! Check and use must see the same host, so nothing outside of this file interprets URL text: the parser
//! normalises every spelling (`2130706433`, `0x7f.1`, full-width digits, mixed case, percent-encoding) into a
//! name or an address, and the request is built from that. Whether the address may be contacted is for
//! [`super::guard`].

use std::{fmt, net::IpAddr};

use url::{Host, Url};

/// Longest URL that a user may give, in bytes. (The schema says the same for `Webhook.spec.url`.)
pub const MAX_URL_BYTES: usize = 2048;

/// Why a text is not a URL that the operator would use. Texts are fixed and hold nothing of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// More than [`MAX_URL_BYTES`].
    #[error("the URL is longer than 2048 bytes")]
    TooLong,
    /// The parser cannot read it, or it names no host.
    #[error("the URL cannot be parsed")]
    Malformed,
    /// Spaces, control characters and backslashes: parsers disagree about them.
    #[error("the URL contains a space, a control character or a backslash")]
    ForbiddenCharacter,
    /// Neither `http:` nor `https:`.
    #[error("the URL does not start with http:// or https://")]
    Scheme,
    /// `user:password@`: credentials belong into a Secret, and the form hides the real host.
    #[error("the URL contains user information")]
    UserInfo,
    /// Port 0 can be connected to by nobody.
    #[error("the port of the URL is not between 1 and 65535")]
    Port,
    /// A fragment is never sent; whoever wrote one expects something else.
    #[error("the URL contains a fragment")]
    Fragment,
    /// An empty segment, `.` or `..`: it would silently address something else.
    #[error("a part of the path is empty, '.' or '..'")]
    PathSegment,
}

/// An absolute `http:` or `https:` URL without user information and fragment.
///
/// Paths and queries of webhook receivers are often secret, so neither `Debug` nor `Display` shows more than the
/// origin; [`CheckedUrl::as_str`] gives the whole.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CheckedUrl(Url);

impl CheckedUrl {
    /// Parses and checks the form. Does not judge the address.
    ///
    /// # Errors
    /// The first problem found.
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlProblem::TooLong);
        }
        // The parser would strip or convert these; another reader of the same manifest may not.
        if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
        {
            return Err(UrlProblem::ForbiddenCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlProblem::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(UrlProblem::Scheme);
        }
        // Also catches the empty user information of `http://@host/`, which the parser drops.
        if rest
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|authority| authority.contains('@'))
        {
            return Err(UrlProblem::UserInfo);
        }
        let url = Url::parse(text).map_err(|_| UrlProblem::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlProblem::UserInfo);
        }
        if url.port_or_known_default().is_none_or(|port| port == 0) {
            return Err(UrlProblem::Port);
        }
        if url.fragment().is_some() {
            return Err(UrlProblem::Fragment);
        }
        if url.host().is_none() {
            return Err(UrlProblem::Malformed);
        }
        Ok(Self(url))
    }

    /// The URL with `segments` appended to its path, each percent-encoded as one segment (a `/` in it included).
    ///
    /// # Errors
    /// [`UrlProblem::PathSegment`] for an empty segment, `.` and `..`, which would not survive as written.
    pub fn with_segments<S: AsRef<str>>(
        &self,
        segments: impl IntoIterator<Item = S>,
    ) -> Result<Self, UrlProblem> {
        let mut url = self.0.clone();
        {
            let mut path = url.path_segments_mut().map_err(|()| UrlProblem::Malformed)?;
            path.pop_if_empty();
            for segment in segments {
                match segment.as_ref() {
                    "" | "." | ".." => return Err(UrlProblem::PathSegment),
                    text => path.push(text),
                };
            }
        }
        Ok(Self(url))
    }

    /// The URL with `name=value` pairs appended to its query, form-encoded.
    #[must_use]
    pub fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let mut url = self.0.clone();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Self(url)
    }

    /// The whole URL, in normal form. May hold secrets of its owner: not for logs, statuses or Events.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Host in normal form: a lower-case name in ASCII, an IPv4 address, or an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Port, the scheme's default where none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// The address, where the host is a literal one in whatever spelling.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(addr) => Some(IpAddr::V4(addr)),
            Host::Ipv6(addr) => Some(IpAddr::V6(addr)),
            Host::Domain(_) => None,
        }
    }

    /// Scheme, host and, unless it is the default, port: all of a URL that may be shown.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Path in percent-encoded form, `/` at least.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Query in encoded form, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// Origin of `location` as seen from this URL, for messages about redirects. Nothing if it is no http(s) URL.
    pub(super) fn origin_of(&self, location: &str) -> Option<String> {
        let target = self.0.join(location).ok()?;
        matches!(target.scheme(), "http" | "https").then(|| target.origin().ascii_serialization())
    }

    /// The parsed form, for the transport only.
    pub(super) fn parsed(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for CheckedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl fmt::Debug for CheckedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckedUrl({}/***)", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> CheckedUrl {
        CheckedUrl::parse(text).unwrap()
    }

    #[test]
    fn segments_are_appended_whole() {
        let base = url("https://acme.thulium.com/api/");
        assert_eq!(
            base.with_segments(["webhooks", "5"]).unwrap().path(),
            "/api/webhooks/5"
        );
        let odd = url("https://h").with_segments(["a/b?c#d%2e"]).unwrap();
        assert_eq!(odd.as_str(), "https://h/a%2Fb%3Fc%23d%252e");
        for bad in ["", ".", ".."] {
            assert_eq!(base.with_segments([bad]), Err(UrlProblem::PathSegment), "{bad:?}");
        }
    }

    #[test]
    fn query_is_encoded_and_kept() {
        let listed = url("https://h/x?a=1").with_query(&[("state", "deac&tivated"), ("page", "2")]);
        assert_eq!(listed.query(), Some("a=1&state=deac%26tivated&page=2"));
        assert_eq!(url("https://h/x").with_query(&[]).query(), None);
    }

    #[test]
    fn only_the_origin_is_shown() {
        let secret = url("https://Hooks.Example.com:8443/T0KEN/x?key=T0KEN");
        assert_eq!(secret.to_string(), "https://hooks.example.com:8443");
        assert!(!format!("{secret:?}").contains("T0KEN"));
        assert_eq!(
            secret.origin_of("//other.example/T0KEN").as_deref(),
            Some("https://other.example")
        );
        assert_eq!(secret.origin_of("file:///etc/passwd"), None);
    }
}
