//! The guard in front of a proxy: the proxy's own address is judged, literal targets are judged, names are passed
//! on, and nothing goes through in the clear.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use webhook_operator::net::{
    ConnectProblem, HttpClient, HttpClientBuilder, HttpErrorKind, Phase, PlainHttp, Refused, Resolve,
    SetupError,
};

use super::{
    support::{Counter, Names, Trap, failure, policy, post, server, success, url},
    tls::Authority,
};

/// A proxy that tells which line each request began with. With a tunnel target it connects there, whatever it was
/// asked for; without, it refuses.
async fn proxy(tunnel: Option<SocketAddr>) -> (SocketAddr, Counter, UnboundedReceiver<String>) {
    let (sender, seen) = unbounded_channel();
    let (addr, counter) = server(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            let head = super::support::read_request(&mut stream).await;
            sender
                .send(head.lines().next().unwrap_or_default().to_owned())
                .unwrap();
            let Some(target) = tunnel else {
                let _ = stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    .await;
                return;
            };
            let mut upstream = TcpStream::connect(target).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut upstream).await;
        }
    })
    .await;
    (addr, counter, seen)
}

fn through(proxy: &str, networks: &[&str], names: Names) -> HttpClientBuilder {
    let names: Arc<dyn Resolve> = Arc::new(names);
    HttpClient::builder(policy(networks))
        .resolver(names)
        .proxy(url(proxy))
}

#[tokio::test]
async fn names_are_passed_on_and_tls_ends_at_the_upstream() {
    let authority = Authority::new("test");
    let (upstream, requests) = authority.serve("upstream.test", 2020, 2500).await;
    let (addr, _, mut seen) = proxy(Some(upstream)).await;
    // The script knows the proxy only: a lookup of the upstream would panic.
    let names = Names::default().at("proxy.test", &["127.0.0.1"]);
    let client = through(
        &format!("http://proxy.test:{}", addr.port()),
        &["127.0.0.1"],
        names,
    )
    .ca_bundle(authority.pem())
    .build()
    .unwrap();
    assert_eq!(success(&client, "https://upstream.test/path").await.body(), b"ok");
    assert_eq!(seen.recv().await.unwrap(), "CONNECT upstream.test:443 HTTP/1.1");
    assert_eq!(requests.get(), 1);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_a_failed_connection() {
    let (addr, counter, _) = proxy(None).await;
    let client = through(&format!("http://{addr}"), &["127.0.0.1"], Names::default())
        .build()
        .unwrap();
    let error = failure(&client, "https://upstream.test/").await;
    assert_eq!(error.kind(), HttpErrorKind::Connect(ConnectProblem::Other));
    assert_eq!(error.phase(), Phase::Connect);
    assert!(!error.may_have_reached_upstream());
    assert_eq!(counter.get(), 1);
}

#[tokio::test]
async fn a_proxy_at_a_refused_address_is_not_connected_to() {
    let trap = Trap::set().await;
    for host in [
        "127.0.0.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
    ] {
        let built = through(&format!("http://{host}:{}", trap.port), &[], Names::default()).build();
        assert!(matches!(built.err(), Some(SetupError::ProxyBlocked(_))), "{host}");
    }
    for addrs in [
        &["127.0.0.1"][..],
        &["127.0.0.2", "127.0.0.1"],
        &["64:ff9b::7f00:1"],
    ] {
        let names = Names::default().at("proxy.test", addrs);
        let proxy = format!("http://proxy.test:{}", trap.port);
        let client = through(&proxy, &["127.0.0.2"], names).build().unwrap();
        let error = failure(&client, "https://upstream.test/").await;
        assert!(matches!(error.kind(), HttpErrorKind::Blocked(_)), "{error:?}");
        assert!(!error.may_have_reached_upstream());
    }
    trap.assert_only(0);
    let client = through(
        &format!("http://127.0.0.1:{}", trap.port),
        &["127.0.0.1"],
        Names::default(),
    );
    success(&client.build().unwrap(), "http://upstream.test/").await;
    trap.assert_only(1);
}

#[tokio::test]
async fn literal_targets_are_refused_before_the_proxy() {
    let (addr, counter, _) = proxy(None).await;
    let client = through(&format!("http://{addr}"), &["127.0.0.1"], Names::default())
        .build()
        .unwrap();
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "127.0.0.2",
        "[::1]",
        "[64:ff9b::a00:1]",
        "0xa000001",
    ] {
        for scheme in ["http", "https"] {
            let error = failure(&client, &format!("{scheme}://{host}/")).await;
            assert!(
                matches!(error.kind(), HttpErrorKind::Blocked(_)),
                "{host}: {error:?}"
            );
            assert_eq!(error.phase(), Phase::Prepare);
        }
    }
    // Credentials in the clear, to where nobody here can look it up.
    let request = post("http://upstream.test/").plain_http(PlainHttp::AllowedNetworks);
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Blocked(Refused::PlainHttp));
    assert_eq!(counter.get(), 0);
}
