//! What can go wrong with a call, in a form that may be shown.
//!
//! An error holds fixed words and the origin of the URL, nothing else: no path, query, header, resolver text or
//! byte of an answer, because each of them has been a way to read what should not be read. It also says whether
//! the request may have arrived, on which the rule "create once" depends.

use std::fmt;

use super::guard::Refused;

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Checks before anything is looked up or sent.
    Prepare,
    /// Looking up the name (with a proxy: the proxy's name).
    Resolve,
    /// Making the TCP connection; a time limit also falls here when it ends a proxy's answer, or a TLS handshake of
    /// a client that keeps its connections.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request and waiting for the head of the answer.
    Exchange,
    /// Reading the body of the answer.
    Body,
}

impl Phase {
    /// The fixed words for messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "preparing the request",
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Tls => "the TLS handshake",
            Self::Exchange => "waiting for the answer",
            Self::Body => "reading the answer",
        }
    }
}

/// Why no TCP connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectProblem {
    /// Nothing listens there.
    Refused,
    /// No route to the host or its network.
    Unreachable,
    /// Closed by the other side before the connection was usable.
    Closed,
    /// This machine has no socket, port or memory left for it: says nothing about the other side.
    Exhausted,
    /// Anything else; with a proxy mostly its refusal to connect to the upstream.
    Other,
}

/// Why the TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is for another host.
    WrongHost,
    /// The certificate's issuer is not among the trust roots.
    UnknownIssuer,
    /// The other side does not speak TLS.
    NotTls,
    /// Anything else: no common version, a broken certificate, an alert.
    Other,
}

/// The class of an [`HttpError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The request cannot be sent as it is: a header name or value that HTTP forbids, or that the transport sets.
    InvalidRequest,
    /// The name cannot be resolved. (A resolver that does not answer is a `Timeout` in [`Phase::Resolve`].)
    Resolve,
    /// The address guard refused the literal address, or one of the addresses of the name.
    Blocked(Refused),
    /// No TCP connection.
    Connect(ConnectProblem),
    /// No TLS session.
    Tls(TlsProblem),
    /// Out of time; the phase says where.
    Timeout,
    /// The connection ended before the answer was complete.
    Reset,
    /// The answer is not HTTP, or its head is beyond the limits.
    Protocol,
    /// The body is larger than the limit, in bytes after decompression.
    BodyTooLarge(usize),
    /// The body cannot be decompressed.
    Decode,
}

impl HttpErrorKind {
    /// The fixed words for messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request has a header that cannot be sent",
            Self::Resolve => "the name cannot be resolved",
            Self::Blocked(_) => "the address is refused",
            Self::Connect(ConnectProblem::Refused) => "the connection was refused",
            Self::Connect(ConnectProblem::Unreachable) => "the host is unreachable",
            Self::Connect(ConnectProblem::Closed) => "the connection was closed before it was usable",
            Self::Connect(ConnectProblem::Exhausted) => "the operator has no socket left for the connection",
            Self::Connect(ConnectProblem::Other) => "the connection could not be made",
            Self::Tls(TlsProblem::Expired) => "the TLS certificate has expired or is not valid yet",
            Self::Tls(TlsProblem::WrongHost) => "the TLS certificate is for another host",
            Self::Tls(TlsProblem::UnknownIssuer) => "the issuer of the TLS certificate is not trusted",
            Self::Tls(TlsProblem::NotTls) => "the other side does not speak TLS",
            Self::Tls(TlsProblem::Other) => "the TLS handshake failed",
            Self::Timeout => "no answer in time",
            Self::Reset => "the connection ended before the answer was complete",
            Self::Protocol => "the answer is not valid HTTP",
            Self::BodyTooLarge(_) => "the answer is too large",
            Self::Decode => "the answer cannot be decompressed",
        }
    }
}

/// A call that gave no (whole) answer. `Display`, `Debug` and [`HttpError::public_message`] are safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.public_message())]
pub struct HttpError {
    kind: HttpErrorKind,
    phase: Phase,
    may_have_reached: bool,
    origin: String,
}

impl HttpError {
    /// An error of a request that was certainly not sent.
    #[must_use]
    pub fn not_sent(kind: HttpErrorKind, phase: Phase, origin: String) -> Self {
        Self {
            kind,
            phase,
            may_have_reached: false,
            origin,
        }
    }

    /// An error of a request of which the upstream may have seen all.
    #[must_use]
    pub fn maybe_sent(kind: HttpErrorKind, phase: Phase, origin: String) -> Self {
        Self {
            kind,
            phase,
            may_have_reached: true,
            origin,
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// Where it went wrong.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the upstream may have seen, and acted on, the request. `false` is a promise: no byte was sent.
    #[must_use]
    pub fn may_have_reached_upstream(&self) -> bool {
        self.may_have_reached
    }

    /// Scheme, host and port of the URL that was called.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// One line for a status or an Event: the origin and fixed words.
    #[must_use]
    pub fn public_message(&self) -> String {
        struct Detail(HttpErrorKind, Phase);
        impl fmt::Display for Detail {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    HttpErrorKind::Blocked(class) => write!(f, " ({class}; see --allow-network)"),
                    HttpErrorKind::Timeout => write!(f, " (while {})", self.1.as_str()),
                    HttpErrorKind::BodyTooLarge(limit) => write!(f, " (more than {limit} bytes)"),
                    _ => Ok(()),
                }
            }
        }
        format!(
            "{}: {}{}",
            self.origin,
            self.kind.as_str(),
            Detail(self.kind, self.phase)
        )
    }
}

/// A client that cannot be made from its settings. Safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The CA bundle is not PEM, or holds no certificate.
    #[error("the CA bundle holds no PEM certificate")]
    CaBundle,
    /// A certificate of the CA bundle cannot be a trust root.
    #[error("a certificate of the CA bundle cannot be used as a trust root")]
    CaCertificate,
    /// The proxy's literal address is refused.
    #[error("the address of the proxy is refused ({0}; see --allow-network)")]
    ProxyBlocked(Refused),
    /// The HTTP library refused the settings.
    #[error("the HTTP client cannot be set up")]
    Client,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_fixed_words_and_the_origin() {
        let origin = || "https://h:8443".to_owned();
        let blocked = HttpError::not_sent(HttpErrorKind::Blocked(Refused::Private), Phase::Resolve, origin());
        assert_eq!(
            blocked.to_string(),
            "https://h:8443: the address is refused (a private address; see --allow-network)"
        );
        let slow = HttpError::maybe_sent(HttpErrorKind::Timeout, Phase::Body, origin());
        assert_eq!(
            slow.public_message(),
            "https://h:8443: no answer in time (while reading the answer)"
        );
        let large = HttpError::maybe_sent(HttpErrorKind::BodyTooLarge(7), Phase::Body, origin());
        assert_eq!(
            large.public_message(),
            "https://h:8443: the answer is too large (more than 7 bytes)"
        );
    }
}
