//! What the HTTP library's errors mean, in words that may be shown: see [`HttpError`].

use std::{error::Error as StdError, io};

use rustls::CertificateError;

use super::connect::ConnectTimedOut;
use crate::net::{
    error::{ConnectProblem, HttpError, HttpErrorKind, Phase, TlsProblem},
    resolve::ResolveError,
};

/// Makes errors that name the origin.
pub(super) struct Failure {
    pub(super) origin: String,
}

impl Failure {
    pub(super) fn unsent(&self, kind: HttpErrorKind) -> HttpError {
        HttpError::not_sent(kind, Phase::Prepare, self.origin.clone())
    }

    pub(super) fn sent(&self, kind: HttpErrorKind, phase: Phase) -> HttpError {
        HttpError::maybe_sent(kind, phase, self.origin.clone())
    }

    /// Reads an error of the exchange. Only what happened while connecting is known not to have been sent.
    pub(super) fn classify(&self, error: &reqwest::Error) -> HttpError {
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
    if is_exhausted(error) {
        return (HttpErrorKind::Connect(ConnectProblem::Exhausted), Phase::Connect);
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

pub(super) fn classify_body(error: &reqwest::Error) -> HttpErrorKind {
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

/// Whether it was this machine that had no socket left. Only the kernel's own numbers tell, on Linux.
fn is_exhausted(error: &reqwest::Error) -> bool {
    /// EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM.
    const NUMBERS: [i32; 5] = [24, 23, 99, 105, 12];
    find(error, |cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .is_some_and(|number| cfg!(target_os = "linux") && NUMBERS.contains(&number))
}
