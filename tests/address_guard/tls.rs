//! Certificates: which are trusted, and which of the failures is named. No request may leave before the server
//! has proved who it is.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsAcceptor;
use webhook_operator::net::{HttpClient, HttpErrorKind, Phase, Resolve, Response, SetupError, TlsProblem};

use super::support::{Counter, Names, OK, failure, policy, post, read_request, server};

/// A certificate authority made for one test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// The server side for a certificate of this name, valid between 1 January of the two years.
    fn server_config(&self, name: &str, from: i32, until: i32) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Arc::new(config)
    }

    /// A TLS server; the counter counts requests, not connections.
    pub(crate) async fn serve(&self, name: &str, from: i32, until: i32) -> (SocketAddr, Counter) {
        let acceptor = TlsAcceptor::from(self.server_config(name, from, until));
        let requests = Counter::default();
        let seen = requests.clone();
        let (addr, _) = server(move |stream: TcpStream| {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                if !read_request(&mut stream).await.is_empty() {
                    seen.add();
                    let _ = stream.write_all(OK.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        })
        .await;
        (addr, requests)
    }
}

/// A client that finds `good.test` and `other.test` on loopback and trusts this bundle in addition.
fn trusting(bundle: Option<String>) -> HttpClient {
    let names: Arc<dyn Resolve> = Arc::new(
        Names::default()
            .at("good.test", &["127.0.0.1"])
            .at("other.test", &["127.0.0.1"]),
    );
    let builder = HttpClient::builder(policy(&["127.0.0.0/8"])).resolver(names);
    match bundle {
        Some(pem) => builder.ca_bundle(pem),
        None => builder,
    }
    .build()
    .unwrap()
}

async fn ok(client: &HttpClient, text: &str) -> Response {
    client
        .send(post(text))
        .await
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

#[tokio::test]
async fn a_bundle_adds_to_the_trust_roots() {
    let (first, second, renewed) = (
        Authority::new("first"),
        Authority::new("second"),
        Authority::new("first"),
    );
    let (addr, requests) = first.serve("good.test", 2020, 2500).await;
    let text = format!("https://good.test:{}/", addr.port());

    for bundle in [
        first.pem(),
        format!("# two of them\n{}\n{}", second.pem(), first.pem()),
    ] {
        assert_eq!(ok(&trusting(Some(bundle)), &text).await.body(), b"ok");
    }
    assert_eq!(requests.get(), 2);

    for bundle in [None, Some(second.pem()), Some(renewed.pem())] {
        let error = failure(&trusting(bundle), &text).await;
        assert_eq!(error.kind(), HttpErrorKind::Tls(TlsProblem::UnknownIssuer));
        assert_eq!(error.phase(), Phase::Tls);
        assert!(!error.may_have_reached_upstream());
    }
    assert_eq!(requests.get(), 2);
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_told_apart() {
    let authority = Authority::new("test");
    let client = trusting(Some(authority.pem()));
    for (host, from, until, problem) in [
        ("good.test", 2020, 2021, TlsProblem::Expired),
        ("good.test", 2400, 2500, TlsProblem::Expired),
        ("other.test", 2020, 2500, TlsProblem::WrongHost),
        ("127.0.0.1", 2020, 2500, TlsProblem::WrongHost),
    ] {
        let (addr, requests) = authority.serve("good.test", from, until).await;
        let error = failure(&client, &format!("https://{host}:{}/", addr.port())).await;
        assert_eq!(error.kind(), HttpErrorKind::Tls(problem), "{host} {from} {until}");
        assert!(!error.may_have_reached_upstream());
        assert_eq!(requests.get(), 0);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    // Answers at once: it would wait for ever for the end of a request in a TLS hello.
    let (eager, _) = server(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        read_request(&mut stream).await;
    })
    .await;
    let client = trusting(None);
    let error = failure(&client, &format!("https://{eager}/")).await;
    assert_eq!(error.kind(), HttpErrorKind::Tls(TlsProblem::NotTls));
    assert!(!error.may_have_reached_upstream());
}

#[test]
fn bundles_that_hold_nothing_are_refused() {
    let build = |pem: &str| HttpClient::builder(policy(&[])).ca_bundle(pem).build().err();
    assert_eq!(build(""), Some(SetupError::CaBundle));
    assert_eq!(build("not PEM"), Some(SetupError::CaBundle));
    assert_eq!(
        build("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"),
        Some(SetupError::CaBundle)
    );
    assert_eq!(
        build("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"),
        Some(SetupError::CaCertificate)
    );
    let key = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(build(&key), Some(SetupError::CaBundle));
    assert_eq!(build(&Authority::new("test").pem()), None);
}
