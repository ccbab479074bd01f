//! What an answer to a probe means: the first broken hop by name, and what to do about it.
//!
//! Messages hold fixed words, the origin of the URL, a status and the names of fields and Secrets; never a path, a
//! header's value or a byte of the answer.

use std::time::Duration;

use super::{Answer, NotSent, Probe};
use crate::{
    api::conditions::TestedReason,
    net::{ConnectProblem, HttpError, HttpErrorKind, Phase, Refused, Response, TlsProblem},
};

/// The verdict on one delivery.
pub(super) struct Judged {
    pub(super) reason: TestedReason,
    pub(super) message: String,
    pub(super) http_status: Option<u16>,
    pub(super) latency: Option<Duration>,
}

/// Judges the answer to a rightly signed delivery.
pub(super) fn judge(probe: &Probe, answer: &Answer) -> Result<Judged, NotSent> {
    match answer {
        Ok(response) => {
            let (reason, message) = of_response(probe, response);
            Ok(Judged {
                reason,
                message,
                http_status: Some(response.status()),
                latency: Some(response.elapsed()),
            })
        }
        Err(error) if error.kind() == HttpErrorKind::Connect(ConnectProblem::Exhausted) => {
            Err(NotSent(error.clone()))
        }
        Err(error) => {
            let (reason, message) = of_error(probe, error);
            Ok(Judged {
                reason,
                message,
                http_status: None,
                latency: None,
            })
        }
    }
}

/// Whether a wrongly signed delivery was taken. `None`: nobody knows, because the answer did not come; a connection
/// that was closed on it was a refusal.
pub(super) fn takes_forgery(answer: &Answer) -> Option<bool> {
    match answer {
        Ok(response) => Some(response.is_success()),
        Err(error) if error.kind() == HttpErrorKind::Reset => Some(false),
        Err(_) => None,
    }
}

pub(super) fn forgery_message(probe: &Probe) -> String {
    format!(
        "{}: the receiver took a delivery with a wrong signature, as anybody could send it; make it verify the signature with the Secret of spec.secretRef before it answers",
        probe.url.origin()
    )
}

fn of_response(probe: &Probe, response: &Response) -> (TestedReason, String) {
    let (origin, status) = (probe.url.origin(), response.status());
    if response.is_redirect() && response.header("location").is_some() {
        let to = response.redirect_origin(&probe.url);
        let to = to.map_or_else(
            || "an address that is no http or https URL".to_owned(),
            |to| format!("{to} (its path is not shown)"),
        );
        let message = format!(
            "{origin}: the receiver answered {status}, a redirect to {to}; upstreams follow none: put the final address into spec.url"
        );
        return (TestedReason::Redirected, message);
    }
    if !response.is_success() {
        return of_status(probe, status);
    }
    match response.body_fault() {
        Some(HttpErrorKind::Timeout) => (TestedReason::Timeout, timeout_message(probe, Phase::Body)),
        Some(_) => {
            let message = format!(
                "{origin}: the receiver answered {status}, and its answer broke off; let it send the whole answer, or none but the status"
            );
            (TestedReason::ConnectFailed, message)
        }
        None => (TestedReason::Passed, format!("the receiver answered {status}")),
    }
}

fn of_status(probe: &Probe, status: u16) -> (TestedReason, String) {
    let origin = probe.url.origin();
    let refused = matches!(status, 401 | 403);
    if refused && probe.signing.is_signed() {
        let message = format!(
            "{origin}: the receiver answered {status} to a rightly signed test; give it the value of the Secret in spec.secretRef, and see that it verifies as the upstream's documentation says"
        );
        return (TestedReason::SignatureRejected, message);
    }
    let cure = match status {
        401 | 403 if probe.basic_auth.is_some() => {
            "let it accept the user and password of the Secret in spec.basicAuthRef"
        }
        401 | 403 => "it wants credentials: see spec.headers and spec.basicAuthRef",
        404 | 410 => "correct the path in spec.url, or let the receiver serve it",
        405 => "let it accept POST at the path in spec.url",
        429 => "it wants fewer requests; raise its limit, or spec.test.interval",
        500..=599 => "look into its log",
        _ => "let it answer 2xx to a JSON body with \"type\": \"webhook.test\"",
    };
    (
        TestedReason::HttpStatus,
        format!("{origin}: the receiver answered {status}; {cure}"),
    )
}

fn of_error(probe: &Probe, error: &HttpError) -> (TestedReason, String) {
    let origin = error.origin();
    let say = |reason, what: &str| (reason, format!("{origin}: {what}"));
    match error.kind() {
        HttpErrorKind::Resolve => say(
            TestedReason::DnsFailed,
            "the name has no address; correct the host in spec.url, or the name's DNS records",
        ),
        HttpErrorKind::Timeout if error.phase() == Phase::Resolve => say(
            TestedReason::DnsFailed,
            "the resolver did not answer; see whether DNS works in the operator's cluster and the name's servers answer",
        ),
        HttpErrorKind::Timeout => (TestedReason::Timeout, timeout_message(probe, error.phase())),
        HttpErrorKind::Blocked(class) => (TestedReason::BlockedAddress, blocked_message(origin, class)),
        HttpErrorKind::Connect(problem) => say(TestedReason::ConnectFailed, connect_words(problem)),
        HttpErrorKind::Tls(problem) => say(TestedReason::TlsFailed, tls_words(problem)),
        HttpErrorKind::Reset => say(
            TestedReason::ConnectFailed,
            "the connection was closed before the answer; look into the receiver's log, and what stands before it",
        ),
        HttpErrorKind::Protocol => say(
            TestedReason::ConnectFailed,
            "what answers there does not speak HTTP; correct scheme and port in spec.url",
        ),
        // The last two are of answers that are wanted.
        HttpErrorKind::InvalidRequest | HttpErrorKind::BodyTooLarge(_) | HttpErrorKind::Decode => say(
            TestedReason::ConnectFailed,
            "the test cannot be sent, because a header of spec.headers is none that HTTP allows; correct it",
        ),
    }
}

fn timeout_message(probe: &Probe, phase: Phase) -> String {
    let what = match phase {
        Phase::Prepare | Phase::Resolve | Phase::Connect => {
            "no connection came about; see that the receiver runs and that a firewall lets the operator through"
        }
        Phase::Tls => "the TLS handshake did not end; look into what serves TLS there",
        Phase::Exchange => "no answer came; let the receiver answer first and work later",
        Phase::Body => "the status came, the rest of the answer did not; let it send a short answer at once",
    };
    format!(
        "{}: within spec.test.timeout ({} s) {what}, or raise the timeout",
        probe.url.origin(),
        probe.timeout.as_secs_f64()
    )
}

fn blocked_message(origin: &str, class: Refused) -> String {
    format!(
        "{origin}: its address is {class}, which the operator does not connect to; have it started with --allow-network for that network, or set spec.test.mode to None"
    )
}

fn connect_words(problem: ConnectProblem) -> &'static str {
    match problem {
        ConnectProblem::Refused => {
            "the connection was refused; see that the receiver runs and that the port in spec.url is its own"
        }
        ConnectProblem::Unreachable => {
            "there is no route to the host; see that its network can be reached from the operator's"
        }
        ConnectProblem::Closed => {
            "the connection was closed as soon as it was made; look into what stands before the receiver"
        }
        ConnectProblem::Exhausted | ConnectProblem::Other => {
            "no connection could be made; see that the receiver runs and can be reached"
        }
    }
}

fn tls_words(problem: TlsProblem) -> &'static str {
    match problem {
        TlsProblem::Expired => {
            "its TLS certificate has expired or is not valid yet; renew it, and see that its clock is right"
        }
        TlsProblem::WrongHost => {
            "its TLS certificate is for another host; serve one for the host in spec.url, or correct the host"
        }
        TlsProblem::UnknownIssuer => {
            "its TLS certificate is of an unknown authority, or not sent with its whole chain; use a public authority, as the upstream needs it too"
        }
        TlsProblem::NotTls => "it does not speak TLS on that port; correct scheme or port in spec.url",
        TlsProblem::Other => {
            "the TLS handshake failed; see that it offers TLS 1.2 or 1.3 and a sound certificate"
        }
    }
}
