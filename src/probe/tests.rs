//! Probes as they are sent, and every answer with its verdict, against a scripted receiver.

use std::sync::Mutex;

use futures::future::BoxFuture;

use super::*;
use crate::{
    api::provider::SignatureEncoding,
    net::{ConnectProblem, HttpErrorKind, Phase, Refused, TlsProblem},
    provider::{
        autocosmos::sign::{DeliveryStyle, Notification, verify_delivery},
        ricloud::sign as ricloud,
    },
};

const SECRET: &str = "whop-demo-secret-0001";
const ORIGIN: &str = "https://hooks.example.com";

/// Answers in this order, and keeps what it was asked.
struct Receiver {
    answers: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<Request>>,
}

impl Receiver {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

impl Transport for Receiver {
    fn send(&self, request: Request) -> BoxFuture<'_, Answer> {
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().remove(0);
        Box::pin(async move { answer })
    }
}

fn clock() -> Clock {
    Clock::starting_at("2024-05-01T12:00:00.987Z".parse().unwrap())
}

fn probe(signing: Signing) -> Probe {
    Probe {
        webhook: "shop/orders".into(),
        uid: "uid-1".into(),
        url: CheckedUrl::parse("https://hooks.example.com/T0KEN?key=T0KEN").unwrap(),
        headers: Vec::new(),
        basic_auth: None,
        signing,
        timeout: Duration::from_secs(10),
        check_forgery: false,
    }
}

fn autocosmos(separator: &str, encoding: SignatureEncoding) -> Signing {
    Signing::Autocosmos {
        secret: Some(SECRET.into()),
        topic: Some("invitaciones".into()),
        separator: separator.into(),
        encoding,
    }
}

fn answered(status: u16) -> Answer {
    Ok(Response::new(status, Vec::new(), "").with_elapsed(Duration::from_millis(7)))
}

fn failed(kind: HttpErrorKind, phase: Phase) -> Answer {
    Err(HttpError::maybe_sent(kind, phase, ORIGIN.into()))
}

async fn sent(probe: &Probe, answers: impl IntoIterator<Item = Answer>) -> (Verdict, Vec<Request>) {
    let receiver = Receiver::new(answers);
    let verdict = send(&receiver, &clock(), probe).await.unwrap();
    (verdict, receiver.asked())
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut found = request
        .exposed_headers()
        .filter(|(given, _)| given.eq_ignore_ascii_case(name));
    let first = found.next().map(|(_, value)| value);
    assert!(found.next().is_none(), "{name} twice");
    first
}

#[tokio::test(start_paused = true)]
async fn a_probe_carries_what_the_upstream_would_send() {
    let named = |name: &str, value: &str| Header {
        name: name.into(),
        value: value.into(),
    };
    let probe = Probe {
        headers: vec![
            named("X-Env", "dev"),
            named("Content-Type", "application/vnd.test+json"),
            named("Accept-Encoding", "br"),
        ],
        basic_auth: Some(BasicAuth {
            username: "hookuser".into(),
            password: "hookpass".into(),
        }),
        ..probe(Signing::None)
    };
    let (verdict, asked) = sent(&probe, [answered(204)]).await;
    let [request] = asked.as_slice() else {
        panic!("one request: {asked:?}")
    };
    assert_eq!(
        (request.method(), request.url().as_str()),
        (Method::Post, probe.url.as_str())
    );
    assert_eq!(request.time_limit(), probe.timeout);
    assert_eq!(request.body_limit(), Limit::Discard);
    assert_eq!(header(request, "X-Env"), Some("dev"));
    assert_eq!(header(request, "Content-Type"), Some("application/vnd.test+json"));
    assert_eq!(header(request, "Accept-Encoding"), None, "the transport's own");
    assert_eq!(
        header(request, "Authorization"),
        Some("Basic aG9va3VzZXI6aG9va3Bhc3M=")
    );
    let body: serde_json::Value = serde_json::from_slice(request.body_bytes().unwrap()).unwrap();
    assert_eq!(body["type"], "webhook.test");
    assert_eq!(body["webhook"], "shop/orders");
    assert_eq!(body["time"], "2024-05-01T12:00:00Z");
    assert!(request.body_bytes().unwrap().len() < 300);
    assert!(verdict.passed());
    assert_eq!(
        (verdict.mode, verdict.http_status, verdict.latency),
        (TestMode::Probe, Some(204), Some(Duration::from_millis(7)))
    );
    assert_eq!(verdict.forged_accepted, None);
}

#[tokio::test(start_paused = true)]
async fn deliveries_have_ids_of_their_own() {
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let probe = Probe {
            check_forgery: true,
            ..probe(autocosmos("", SignatureEncoding::Base64))
        };
        let (_, asked) = sent(&probe, [answered(200), answered(401)]).await;
        for request in asked {
            let id = header(&request, "Notification-Hook-ID").unwrap().to_owned();
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(id.as_bytes()[14], b'8', "{id}");
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
            ids.insert(id);
        }
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // Each clock starts anew, so the three rounds are at one time: a right and a forged one.
    assert_eq!(ids.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn autocosmos_deliveries_verify_in_the_configured_style_and_forged_ones_in_none() {
    for (separator, encoding) in [
        ("", SignatureEncoding::Base64),
        ("|", SignatureEncoding::Hex),
        (".", SignatureEncoding::Base64),
    ] {
        let probe = Probe {
            check_forgery: true,
            ..probe(autocosmos(separator, encoding))
        };
        let (verdict, asked) = sent(&probe, [answered(200), answered(401)]).await;
        assert_eq!(verdict.forged_accepted, Some(false));
        assert!(verdict.passed());
        let fits: Vec<bool> = asked
            .iter()
            .map(|request| {
                let of = Notification {
                    hook_id: header(request, "Notification-Hook-ID").unwrap(),
                    timestamp: header(request, "Notification-Timestamp").unwrap(),
                    topic: header(request, "Notification-Topic"),
                };
                assert_eq!(of.topic, Some("invitaciones"));
                assert_eq!(of.timestamp, "2024-05-01T12:00:00Z");
                let style = DeliveryStyle { separator, encoding };
                let given = header(request, "Notification-Signature").unwrap();
                verify_delivery(&SECRET.into(), of, style, given)
            })
            .collect();
        assert_eq!(fits, [true, false]);
    }
}

#[tokio::test(start_paused = true)]
async fn autocosmos_without_a_secret_is_not_signed() {
    let probe = probe(Signing::Autocosmos {
        secret: None,
        topic: Some("invitaciones".into()),
        separator: String::new(),
        encoding: SignatureEncoding::Base64,
    });
    let (verdict, asked) = sent(&probe, [answered(401)]).await;
    assert!(header(&asked[0], "Notification-Hook-ID").is_some());
    assert_eq!(header(&asked[0], "Notification-Signature"), None);
    assert_eq!(verdict.reason, TestedReason::HttpStatus, "nothing was signed");
}

#[tokio::test(start_paused = true)]
async fn ricloud_deliveries_verify_and_forged_ones_do_not() {
    let secret = SecretText::from("rc-demo-secret-0123456789");
    let probe = Probe {
        check_forgery: true,
        ..probe(Signing::Ricloud(secret.clone()))
    };
    let (_, asked) = sent(&probe, [answered(200), answered(400)]).await;
    let now = clock().now().as_second();
    let fits: Vec<_> = asked
        .iter()
        .map(|request| {
            let given = header(request, ricloud::SIGNATURE_HEADER).unwrap();
            ricloud::verify(&secret, given, request.body_bytes().unwrap(), now)
        })
        .collect();
    assert_eq!(fits, [Ok(()), Err(ricloud::Refusal::Mismatch)]);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_takes_forgeries_is_told() {
    let check = |forged: Answer| async {
        let probe = Probe {
            check_forgery: true,
            ..probe(autocosmos("", SignatureEncoding::Base64))
        };
        sent(&probe, [answered(200), forged]).await.0
    };
    let careless = check(answered(202)).await;
    assert_eq!(careless.reason, TestedReason::ForgeryAccepted);
    assert_eq!(
        (careless.forged_accepted, careless.http_status),
        (Some(true), Some(202))
    );
    assert!(careless.message.contains("verify"), "{}", careless.message);
    // A refusal may have any form; no answer at all is not known to be one.
    for (answer, taken) in [
        (answered(401), Some(false)),
        (answered(500), Some(false)),
        (failed(HttpErrorKind::Reset, Phase::Exchange), Some(false)),
        (failed(HttpErrorKind::Timeout, Phase::Exchange), None),
    ] {
        let verdict = check(answer).await;
        assert_eq!((verdict.passed(), verdict.forged_accepted), (true, taken));
    }
    // What fails anyway is not forged as well: one answer is scripted.
    let probe = Probe {
        check_forgery: true,
        ..probe(autocosmos("", SignatureEncoding::Base64))
    };
    let (verdict, asked) = sent(&probe, [answered(503)]).await;
    assert_eq!((verdict.forged_accepted, asked.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn each_broken_hop_has_its_reason_and_a_cure_and_shows_nothing_of_the_answer() {
    use HttpErrorKind::{Blocked, Connect, Protocol, Reset, Resolve, Timeout, Tls};
    let redirect = |status, to: &str| -> Answer {
        let headers = vec![("Location".to_owned(), to.to_owned())];
        Ok(Response::new(status, headers, "T0KEN"))
    };
    let slow = Response::new(200, Vec::new(), "").with_body_fault(Some(Timeout));
    let torn = Response::new(200, Vec::new(), "").with_body_fault(Some(Reset));
    let signed = || probe(autocosmos("", SignatureEncoding::Base64));
    let plain = || probe(Signing::None);
    #[rustfmt::skip]
    let cases: Vec<(Probe, Answer, TestedReason, &str)> = vec![
        (plain(), failed(Resolve, Phase::Resolve), TestedReason::DnsFailed, "DNS records"),
        (plain(), failed(Timeout, Phase::Resolve), TestedReason::DnsFailed, "resolver did not answer"),
        (plain(), failed(Blocked(Refused::Private), Phase::Resolve), TestedReason::BlockedAddress, "--allow-network"),
        (plain(), failed(Connect(ConnectProblem::Refused), Phase::Connect), TestedReason::ConnectFailed, "port"),
        (plain(), failed(Connect(ConnectProblem::Unreachable), Phase::Connect), TestedReason::ConnectFailed, "route"),
        (plain(), failed(Connect(ConnectProblem::Closed), Phase::Connect), TestedReason::ConnectFailed, "closed"),
        (plain(), failed(Timeout, Phase::Connect), TestedReason::Timeout, "firewall"),
        (plain(), failed(Timeout, Phase::Tls), TestedReason::Timeout, "TLS handshake did not end"),
        (plain(), failed(Tls(TlsProblem::Expired), Phase::Tls), TestedReason::TlsFailed, "expired"),
        (plain(), failed(Tls(TlsProblem::WrongHost), Phase::Tls), TestedReason::TlsFailed, "another host"),
        (plain(), failed(Tls(TlsProblem::UnknownIssuer), Phase::Tls), TestedReason::TlsFailed, "unknown authority"),
        (plain(), failed(Tls(TlsProblem::NotTls), Phase::Tls), TestedReason::TlsFailed, "does not speak TLS"),
        (plain(), failed(Timeout, Phase::Exchange), TestedReason::Timeout, "answer first and work later"),
        (plain(), failed(Reset, Phase::Exchange), TestedReason::ConnectFailed, "before the answer"),
        (plain(), failed(Protocol, Phase::Exchange), TestedReason::ConnectFailed, "HTTP"),
        (plain(), Ok(slow), TestedReason::Timeout, "the rest of the answer did not"),
        (plain(), Ok(torn), TestedReason::ConnectFailed, "broke off"),
        (plain(), redirect(301, "http://10.0.0.1/T0KEN"), TestedReason::Redirected, "a redirect to http://10.0.0.1 ("),
        (plain(), redirect(308, "/T0KEN"), TestedReason::Redirected, "a redirect to https://hooks.example.com ("),
        (plain(), redirect(302, "gopher://T0KEN"), TestedReason::Redirected, "final address"),
        (plain(), answered(304), TestedReason::HttpStatus, "304"),
        (signed(), answered(401), TestedReason::SignatureRejected, "spec.secretRef"),
        (signed(), answered(403), TestedReason::SignatureRejected, "403"),
        (plain(), answered(401), TestedReason::HttpStatus, "spec.basicAuthRef"),
        (signed(), answered(404), TestedReason::HttpStatus, "path"),
        (signed(), answered(405), TestedReason::HttpStatus, "POST"),
        (signed(), answered(400), TestedReason::HttpStatus, "webhook.test"),
        (signed(), answered(503), TestedReason::HttpStatus, "its log"),
    ];
    for (probe, answer, reason, words) in cases {
        let (verdict, _) = sent(&probe, [answer.clone()]).await;
        let message = &verdict.message;
        assert_eq!(verdict.reason, reason, "{answer:?}: {message}");
        assert!(message.contains(words), "{answer:?}: {message}");
        assert!(message.starts_with(ORIGIN), "{message}");
        assert!(
            !message.contains("T0KEN") && !message.contains(SECRET),
            "{message}"
        );
        assert!(message.len() < 400, "{message}");
        let status = answer.as_ref().ok().map(Response::status);
        assert_eq!(verdict.http_status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_at_its_limits_says_nothing_about_the_receiver() {
    let exhausted = failed(HttpErrorKind::Connect(ConnectProblem::Exhausted), Phase::Connect);
    let receiver = Receiver::new([exhausted]);
    assert!(send(&receiver, &clock(), &probe(Signing::None)).await.is_err());
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", probe(autocosmos("", SignatureEncoding::Base64)));
    assert!(!shown.contains(SECRET) && !shown.contains("T0KEN"), "{shown}");
}
