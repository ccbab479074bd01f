//! One real receiver for each way in which a delivery can fail to arrive. The operator names the broken hop, says
//! what to do about it, and shows nothing of what the receiver answered.
//!
//! A certificate for another host cannot be shown here: the operator trusts public authorities only, and nobody has
//! one's key. `tests/address_guard/tls.rs` has it, with an authority of its own.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use webhook_operator::api::{
    TEST_REQUESTED_AT, Webhook,
    conditions::{ConditionType, ReadyReason, TestedReason},
    provider::ProviderType::{Autocosmos, Conpeek},
    webhook_status::{State, TestResult},
};

use crate::world::{World, has_reason, message, status};

const SECRET: &str = "a-signing-secret-of-some-length";

/// Stands in every answer, and in the path of every URL.
const TOKEN: &str = "T0KEN";

/// A receiver and what is said of it.
struct Hop {
    name: &'static str,
    /// From the scheme to the port: what a message may show.
    origin: String,
    /// What comes after it in `spec.url`.
    path: String,
    /// Whether deliveries are signed.
    signed: bool,
    reason: TestedReason,
    http_status: Option<i32>,
    /// What happened, and what to do.
    words: [&'static str; 2],
}

/// An unsigned one that never comes to a status.
fn hop(name: &'static str, origin: impl Into<String>, reason: TestedReason, words: [&'static str; 2]) -> Hop {
    Hop {
        name,
        origin: origin.into(),
        path: format!("/{TOKEN}?key={TOKEN}"),
        signed: false,
        reason,
        http_status: None,
        words,
    }
}

impl Hop {
    /// The same with a status that arrives.
    fn answered(self, status: i32) -> Self {
        let http_status = Some(status);
        Self { http_status, ..self }
    }

    /// The same at another path, which tells the receiver of the doubles what to do.
    fn at(self, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// The same with signed deliveries.
    fn signed(self) -> Self {
        Self { signed: true, ..self }
    }

    /// Applies a Webhook of its name. `number` is its target, of which an upstream takes each once.
    async fn apply(&self, world: &World, number: usize) {
        let test = json!({ "mode": "Auto", "timeout": "3s", "checkForgery": self.signed });
        let url = format!("{}{}", self.origin, self.path);
        let mut spec = json!({ "url": url, "target": number.to_string(), "test": test });
        let provider = if self.signed {
            spec["secretRef"] = json!({ "name": "signing" });
            Autocosmos
        } else {
            Conpeek
        };
        world.webhook(self.name, provider, spec).await;
    }

    /// Waits for the verdict and checks all that is said of it.
    async fn check(&self, world: &World) {
        let webhook = world.wait_reason(self.name, self.reason).await;
        assert!(has_reason(&webhook, ReadyReason::TestFailed), "{}", self.name);
        let found = status(&webhook);
        assert_eq!(found.state, Some(State::Invalid), "{}", self.name);
        let test = found.test.expect("a test is recorded");
        assert_eq!(
            (test.result, test.http_status),
            (Some(TestResult::Failed), self.http_status),
            "{}",
            self.name
        );
        let told = message(&webhook, ConditionType::Tested);
        assert!(
            told.starts_with(&format!("{}: ", self.origin)),
            "{}: {told}",
            self.name
        );
        for words in self.words {
            assert!(told.contains(words), "{}: {told}", self.name);
        }
        shows_nothing(world, self.name, &webhook).await;
    }
}

/// Nothing of an answer, of a URL's path or of a secret is in conditions, history or Events.
async fn shows_nothing(world: &World, name: &str, webhook: &Webhook) {
    let found = status(webhook);
    let shown = json!({ "test": found.test, "conditions": found.conditions }).to_string();
    let events = format!("{:?}", world.events(name).await);
    for text in [shown, events] {
        assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{name}: {text}");
    }
}

/// Serves each connection to a port of loopback with `handler`, until the test ends.
async fn serve<F>(handler: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    address
}

/// What a receiver does after its answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hold,
}

/// One that reads a delivery and writes these bytes.
async fn answering(answer: String, then: Then) -> SocketAddr {
    let answer = Arc::new(answer);
    serve(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            let mut seen = Vec::new();
            // A delivery is one JSON object, so this is its end.
            while !seen.ends_with(b"}") && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(answer.as_bytes()).await;
            if matches!(then, Then::Hold) {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0]).await;
            }
        }
    })
    .await
}

/// A TLS server whose certificate nobody has signed but itself, valid between 1 January of the two years.
async fn tls(from: i32, until: i32) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let _ = acceptor.accept(stream).await;
        }
    })
    .await
}

fn http(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn https(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// Has all of them tested at the same time.
async fn each(world: &World, hops: &[Hop]) {
    for (number, hop) in hops.iter().enumerate() {
        hop.apply(world, number + 1).await;
    }
    for hop in hops {
        hop.check(world).await;
    }
}

/// A head that promises more than the few bytes that follow it.
fn cut_short() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Note: {TOKEN}\r\n\r\n{TOKEN}")
}

#[tokio::test]
async fn what_keeps_a_delivery_from_the_receiver_is_named() {
    let world = World::new("hops-way").await;
    world.provider(Conpeek).await;
    // Longer than any name can be, so that no nameserver is asked.
    let nowhere = format!("http://{}.example", "n".repeat(64));
    // Bound and not listening: the port is refused, and nobody else gets it.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let closed = deaf.local_addr().unwrap();
    let talks_first = serve(|mut stream| async move {
        let _ = stream.write_all(format!("SSH-2.0-{TOKEN}\r\n").as_bytes()).await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let silent = answering(String::new(), Then::Hold).await;
    #[rustfmt::skip]
    let hops = [
        hop("dns", nowhere, TestedReason::DnsFailed, ["no address", "correct the host in spec.url"]),
        hop("private", "http://10.1.2.3", TestedReason::BlockedAddress, ["a private address", "--allow-network"]),
        hop("metadata", "http://169.254.169.254", TestedReason::BlockedAddress, ["does not connect to", "spec.test.mode to None"]),
        hop("refused", http(closed), TestedReason::ConnectFailed, ["was refused", "the port in spec.url is its own"]),
        hop("expired", https(tls(2020, 2021).await), TestedReason::TlsFailed, ["has expired", "renew it"]),
        hop("early", https(tls(2400, 2500).await), TestedReason::TlsFailed, ["not valid yet", "its clock is right"]),
        hop("issuer", https(tls(2020, 2500).await), TestedReason::TlsFailed, ["unknown authority", "use a public authority"]),
        hop("no-tls", https(talks_first), TestedReason::TlsFailed, ["does not speak TLS", "correct scheme or port"]),
        hop("no-handshake", https(silent), TestedReason::Timeout, ["(3 s)", "TLS handshake did not end"]),
    ];
    each(&world, &hops).await;
    drop(deaf);
}

#[tokio::test]
async fn what_a_receiver_answers_is_judged_and_not_shown() {
    let world = World::new("hops-answer").await;
    world.provider(Conpeek).await;
    world.provider(Autocosmos).await;
    world.secret("signing", &[("secret", SECRET)]).await;
    let receiver = world.doubles.receiver().url();
    let name = &world.namespace;
    let other = "not-the-secret-that-signs";
    world.doubles.receiver().expect_autocosmos(name, other, None);
    let silent = answering(String::new(), Then::Hold).await;
    let slow = answering(cut_short(), Then::Hold).await;
    let torn = answering(cut_short(), Then::Close).await;
    let gone = answering(String::new(), Then::Close).await;
    let no_http = answering(format!("220 {TOKEN} ESMTP\r\n"), Then::Hold).await;
    let moved = format!(
        "HTTP/1.1 308 {TOKEN}\r\nLocation: http://elsewhere.example:8080/{TOKEN}\r\nContent-Length: 0\r\n\r\n"
    );
    let moved = answering(moved, Then::Close).await;
    let wrong = format!("HTTP/1.1 404 {TOKEN}\r\nContent-Length: 5\r\n\r\n{TOKEN}");
    let wrong = answering(wrong, Then::Close).await;
    #[rustfmt::skip]
    let hops = [
        hop("silent", http(silent), TestedReason::Timeout, ["(3 s) no answer came", "answer first and work later"]),
        hop("slow", http(slow), TestedReason::Timeout, ["the rest of the answer did not", "a short answer at once"]).answered(200),
        hop("torn", http(torn), TestedReason::ConnectFailed, ["its answer broke off", "send the whole answer"]).answered(200),
        hop("gone", http(gone), TestedReason::ConnectFailed, ["closed before the answer", "look into the receiver's log"]),
        hop("no-http", http(no_http), TestedReason::ConnectFailed, ["does not speak HTTP", "correct scheme and port"]),
        hop("moved", http(moved), TestedReason::Redirected, ["308, a redirect to http://elsewhere.example:8080 (", "the final address into spec.url"]).answered(308),
        hop("wrong", http(wrong), TestedReason::HttpStatus, ["answered 404", "correct the path in spec.url"]).answered(404),
        hop("broken", &receiver, TestedReason::HttpStatus, ["answered 503", "look into its log"]).at("/status/503/T0KEN").answered(503),
        hop("secret", &receiver, TestedReason::SignatureRejected, ["answered 401 to a rightly signed test", "spec.secretRef"])
            .signed().at(format!("/autocosmos/{name}")).answered(401),
        hop("careless", &receiver, TestedReason::ForgeryAccepted, ["took a delivery with a wrong signature", "make it verify"])
            .signed().at("/ok/T0KEN").answered(200),
    ];
    each(&world, &hops).await;
    // The control: what failed is gone with its cause, without a change of the spec.
    world.doubles.receiver().expect_autocosmos(name, SECRET, None);
    world.annotate("secret", TEST_REQUESTED_AT, "now").await;
    let passed = world.wait_ready("secret", ReadyReason::Available).await;
    assert!(has_reason(&passed, TestedReason::Passed));
    let test = status(&passed).test.expect("a test is recorded");
    assert_eq!(test.forged_accepted, Some(false));
}
