//! Nothing refused is ever connected to: each case is aimed at a listener that counts its connections, and ends
//! with a control call that proves that the listener could have been reached.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use webhook_operator::net::{
    CheckedUrl, HttpErrorKind, Limit, Method, Phase, PlainHttp, Refused, Request, Resolve, SystemResolver,
};

use super::support::{
    Answer, Counter, LOCALHOST, Names, OK, Trap, answering, client, client_with, failure, post, read_request,
    serve, server, success, url,
};

/// Hosts that are 127.0.0.1 or ::1 in some spelling or embedding.
const LITERALS: &[&str] = &[
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0177.0.0.1",
    "0x7f.1",
    "127.1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "１２７.０.０.１",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::80ff:fffe]",
];

/// URLs that some parser would read as the trap's address; the port is put in for `PORT`.
const TRICKS: &[&str] = &[
    "http:\\\\127.0.0.1:PORT\\",
    "http://good.example@127.0.0.1:PORT/",
    "http://@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@good.example/",
    "http://127.0.0.1:PORT#@good.example/",
    "http://127.0.0.1\t:PORT/",
    "\nhttp://127.0.0.1:PORT/",
    "http:127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/",
    "ftp://127.0.0.1:PORT/",
];

#[tokio::test]
async fn refused_literals_are_not_connected_to() {
    let trap = Trap::set().await;
    let guarded = client(&[]);
    for host in LITERALS {
        for scheme in ["http", "https"] {
            let text = format!("{scheme}://{host}:{}/", trap.port);
            let error = failure(&guarded, &text).await;
            assert!(
                matches!(error.kind(), HttpErrorKind::Blocked(_)),
                "{text}: {error:?}"
            );
            assert_eq!(error.phase(), Phase::Prepare, "{text}");
            assert!(!error.may_have_reached_upstream(), "{text}");
        }
    }
    for trick in TRICKS {
        let text = trick.replace("PORT", &trap.port.to_string());
        assert!(CheckedUrl::parse(&text).is_err(), "{text:?}");
    }
    trap.assert_only(0);

    let allowed = client(&["127.0.0.0/8", "::1/128"]);
    let mut controls = vec!["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"];
    controls.extend(trap.has_ipv6.then_some("[::1]"));
    for host in &controls {
        success(&allowed, &format!("http://{host}:{}/", trap.port)).await;
    }
    trap.assert_only(controls.len());
}

#[tokio::test]
async fn names_with_a_refused_address_are_not_connected_to() {
    let trap = Trap::set().await;
    // 127.0.0.2 is allowed and has no listener: a transport that picked the good addresses out of a mixed answer
    // would fail to connect instead of being blocked.
    let names = Arc::new(
        Names::default()
            .at("private.test", &["127.0.0.1"])
            .at("aaaa-only.test", &["::1"])
            .at("good-first.test", &["127.0.0.2", "127.0.0.1"])
            .at("bad-first.test", &["127.0.0.1", "127.0.0.2"])
            .at("mixed-families.test", &["127.0.0.2", "::1"])
            .at("public-and-private.test", &["93.184.215.14", "10.0.0.1"])
            .at("mapped.test", &["::ffff:127.0.0.1"])
            .at("compatible.test", &["::127.0.0.1"])
            .at("nat64.test", &["64:ff9b::7f00:1"])
            .at("nat64-local.test", &["64:ff9b:1::7f00:1"])
            .at("6to4.test", &["2002:7f00:1::"])
            .at("teredo.test", &["2001:0:7f00:1::80ff:fffe"])
            .at("unspecified.test", &["0.0.0.0"])
            .at("localhost.", &["127.0.0.1"])
            .at("kubernetes.default.svc", &["10.96.0.1"])
            .at("metadata.google.internal", &["169.254.169.254"])
            .at("wireserver.test", &["168.63.129.16"]),
    );
    let guarded = client_with(&["127.0.0.2/32"], &names);
    let hosts = [
        "private.test",
        "PRIVATE.Test",
        "aaaa-only.test",
        "good-first.test",
        "bad-first.test",
        "mixed-families.test",
        "public-and-private.test",
        "mapped.test",
        "compatible.test",
        "nat64.test",
        "nat64-local.test",
        "6to4.test",
        "teredo.test",
        "unspecified.test",
        "localhost.",
        "kubernetes.default.svc",
        "metadata.google.internal",
        "wireserver.test",
    ];
    for host in hosts {
        for scheme in ["http", "https"] {
            let error = failure(&guarded, &format!("{scheme}://{host}:{}/", trap.port)).await;
            assert!(
                matches!(error.kind(), HttpErrorKind::Blocked(_)),
                "{host}: {error:?}"
            );
            assert_eq!(error.phase(), Phase::Resolve, "{host}");
            assert!(!error.may_have_reached_upstream(), "{host}");
        }
    }
    assert_eq!(names.lookups.get(), 2 * hosts.len(), "one lookup each");
    trap.assert_only(0);

    // Allowed as a whole, the mixed name is tried address by address.
    let allowed = client_with(&["127.0.0.0/8"], &names);
    success(&allowed, &format!("http://good-first.test:{}/", trap.port)).await;
    success(&allowed, &format!("http://private.test:{}/", trap.port)).await;
    trap.assert_only(2);
}

#[tokio::test]
async fn the_system_resolver_is_guarded_too() {
    let trap = Trap::set().await;
    let text = format!("http://localhost:{}/", trap.port);
    let error = failure(&client(&[]), &text).await;
    assert_eq!(error.kind(), HttpErrorKind::Blocked(Refused::Loopback));
    trap.assert_only(0);
    success(&client(&["127.0.0.0/8", "::1"]), &text).await;
    trap.assert_only(1);
}

/// A server on the same port of 127.0.0.2, for names that move to the trap at 127.0.0.1.
async fn good_server_and_trap(close: bool) -> (u16, Counter, Counter) {
    let (good, bad) = (Counter::default(), Counter::default());
    let respond = move |mut stream: TcpStream| async move {
        while !read_request(&mut stream).await.is_empty() {
            let open = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream
                .write_all(if close { OK } else { open }.as_bytes())
                .await
                .unwrap();
            if close {
                return;
            }
        }
    };
    loop {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Somebody else may have the port on the other address: try with another one.
        if let Ok(second) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await {
            serve(listener, bad.clone(), respond);
            serve(second, good.clone(), respond);
            return (port, good, bad);
        }
    }
}

/// First the allowed 127.0.0.2, from then on the refused 127.0.0.1.
fn rebinding() -> Arc<Names> {
    let first = Answer::Addrs(vec!["127.0.0.2".parse().unwrap()]);
    Arc::new(Names::default().with("rebind.test", vec![first, Answer::Addrs(vec![LOCALHOST])]))
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_caught_at_each_connection() {
    let (port, good, bad) = good_server_and_trap(true).await;
    let names = rebinding();
    let guarded = client_with(&["127.0.0.2/32"], &names);
    let text = format!("http://rebind.test:{port}/");
    success(&guarded, &text).await;
    // A check followed by a lookup of its own would have used the second answer already.
    assert_eq!(names.lookups.get(), 1);
    for _ in 0..3 {
        let error = failure(&guarded, &text).await;
        assert_eq!(error.kind(), HttpErrorKind::Blocked(Refused::Loopback));
    }
    assert_eq!((good.get(), bad.get()), (1, 0));

    success(&client_with(&["127.0.0.0/8"], &names), &text).await;
    assert_eq!((good.get(), bad.get()), (1, 1));
}

#[tokio::test]
async fn an_open_connection_stays_with_its_checked_address() {
    let (port, good, bad) = good_server_and_trap(false).await;
    let names = rebinding();
    let guarded = client_with(&["127.0.0.2/32"], &names);
    for _ in 0..5 {
        success(&guarded, &format!("http://rebind.test:{port}/")).await;
    }
    assert_eq!((names.lookups.get(), good.get(), bad.get()), (1, 1, 0));
}

#[tokio::test]
async fn a_probe_leaves_no_connection_for_calls_with_credentials() {
    let (port, good, _) = good_server_and_trap(false).await;
    let open = client(&["127.0.0.2"]);
    let send = async |rule| {
        let request = post(&format!("http://127.0.0.2:{port}/")).plain_http(rule);
        open.send(request).await.unwrap();
        good.get()
    };
    assert_eq!(send(PlainHttp::AnyPublic).await, 1);
    assert_eq!(send(PlainHttp::AnyPublic).await, 1, "kept open among probes");
    assert_eq!(send(PlainHttp::AllowedNetworks).await, 2, "not used by a call");
    assert_eq!(send(PlainHttp::AllowedNetworks).await, 2, "kept open among calls");
}

#[tokio::test]
async fn redirects_are_answers_and_not_followed() {
    let trap = Trap::set().await;
    for status in [301, 302, 303, 307, 308] {
        for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"] {
            let target = format!("http://{host}:{}", trap.port);
            let answer = format!(
                "HTTP/1.1 {status} x\r\nLocation: {target}/s3cret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let (addr, _) = answering(answer).await;
            // Everything on loopback is allowed here: only the redirect policy stands in the way.
            let asked = format!("http://{addr}/");
            let response = success(&client(&["127.0.0.0/8", "::1"]), &asked).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.redirect_origin(&url(&asked)), Some(target));
        }
    }
    trap.assert_only(0);
    success(
        &client(&["127.0.0.0/8"]),
        &format!("http://127.0.0.1:{}/", trap.port),
    )
    .await;
    trap.assert_only(1);
}

#[tokio::test]
async fn plain_http_with_credentials_stays_in_the_allowed_networks() {
    let names = Arc::new(
        Names::default()
            .at("public.test", &["93.184.215.14"])
            .at("inside.test", &["127.0.0.1"])
            .at("half.test", &["127.0.0.1", "93.184.215.14"]),
    );
    let (addr, counter) = answering(OK).await;
    let guarded = client_with(&["127.0.0.0/8"], &names);
    let send = async |host: &str| {
        let text = format!("http://{host}:{}/", addr.port());
        guarded
            .send(Request::new(Method::Get, url(&text)).timeout(Duration::from_secs(5)))
            .await
    };
    for host in ["public.test", "half.test", "93.184.215.14", "[2606:4700::1111]"] {
        let error = send(host).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Blocked(Refused::PlainHttp), "{host}");
        assert!(!error.may_have_reached_upstream());
    }
    assert_eq!(counter.get(), 0);
    for host in ["inside.test", "127.0.0.1"] {
        assert!(send(host).await.unwrap().is_success());
    }
    assert_eq!(counter.get(), 2);
}

#[tokio::test]
async fn requests_that_cannot_be_sent_are_not() {
    let (addr, counter) = answering(OK).await;
    let open = client(&["127.0.0.0/8"]);
    for (name, value) in [
        ("Host", "evil"),
        ("content-LENGTH", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "upgrade"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("Proxy-Authorization", "x"),
        ("X-A", "b\r\nX-C: d"),
        ("X-A", "b\nc"),
        ("X-A", "b\0c"),
        ("X-A: b\r\nX-C", "d"),
        ("X A", "b"),
        ("", "b"),
    ] {
        let error = open
            .send(post(&format!("http://{addr}/")).header(name, value))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::InvalidRequest, "{name:?}: {value:?}");
        assert!(!error.may_have_reached_upstream());
    }
    assert_eq!(counter.get(), 0);
    success(&open, &format!("http://{addr}/")).await;
    assert_eq!(counter.get(), 1);
}

#[tokio::test]
async fn requests_arrive_as_they_were_built() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (addr, _) = server(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            sender.send(read_request(&mut stream).await).unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let target = url(&format!("http://{addr}/api"))
        .with_segments(["a/b", "ż"])
        .unwrap()
        .with_query(&[("q", "1 2")]);
    let request = Request::new(Method::Put, target)
        .secret_header("Authorization", "Basic x".into())
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .json(r#"{"a":"ż"}"#);
    let response = client(&["127.0.0.1"]).send(request).await.unwrap();
    assert_eq!(
        (
            response.status(),
            response.body(),
            response.header("CONTENT-length")
        ),
        (200, &b"ok"[..], Some("2"))
    );
    assert!(response.elapsed() > Duration::ZERO);

    let text = seen.recv().await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), "PUT /api/a%2Fb/%C5%BC?q=1+2 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {addr}");
    assert_eq!(
        lines,
        [
            "accept-encoding: gzip",
            "accept: */*",
            "authorization: Basic x",
            "content-length: 10",
            "content-type: application/json",
            &host,
            concat!("user-agent: webhook-operator/", env!("CARGO_PKG_VERSION")),
            "x-twice: 1",
            "x-twice: 2",
        ]
    );
    assert_eq!(body, r#"{"a":"ż"}"#);
}

#[tokio::test]
async fn errors_show_the_origin_and_nothing_else() {
    let names =
        Arc::new(Names::default().with("broken.test", vec![Answer::Fail("c4nary from the resolver")]));
    let (garbage, _) = answering("c4nary c4nary\r\n\r\n").await;
    let (large, _) =
        answering("HTTP/1.1 200 c4nary\r\nX: c4nary\r\nContent-Length: 99999999\r\n\r\nc4nary").await;
    let guarded = client_with(&["127.0.0.1"], &names);
    for origin in [
        "http://broken.test".to_owned(),
        format!("http://{garbage}"),
        format!("http://{large}"),
    ] {
        let request = post(&format!("{origin}/c4nary?c4nary=c4nary"))
            .secret_header("Authorization", "c4nary".into())
            .header("X-C4nary", "c4nary")
            .body("c4nary");
        let error = guarded.send(request).await.unwrap_err();
        let shown = format!("{error} {error:?} {} {}", error.public_message(), error.origin());
        assert!(!shown.to_lowercase().contains("c4nary"), "{shown}");
        assert!(shown.contains(&origin), "{shown}");
    }
}

/// Marks the child process of the next test.
const CHILD: &str = "ADDRESS_GUARD_CHILD";

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    if std::env::var_os(CHILD).is_some() {
        let (addr, _) = answering(OK).await;
        success(&client(&["127.0.0.1"]), &format!("http://{addr}/")).await;
        return;
    }
    // Nobody listens on port 1: a client that used the proxy would fail.
    let test = concat!(module_path!(), "::proxies_of_the_environment_are_ignored");
    let test = test.split_once("::").unwrap().1;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test])
        .env(CHILD, "1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        child.env(name, "http://127.0.0.1:1");
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn probes_throw_the_body_away() {
    let body = vec![b'x'; 1 << 20];
    let mut answer = format!(
        "HTTP/1.1 204 x\r\nX-Y: z\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    // 204 has no body; the same with 200 has one.
    for (from, status) in [("204", 204), ("200", 200)] {
        let (addr, _) = answering(
            String::from_utf8(answer.clone())
                .unwrap()
                .replacen("204", from, 1),
        )
        .await;
        let request = post(&format!("http://{addr}/"))
            .limit(Limit::Discard)
            .plain_http(PlainHttp::AnyPublic);
        let response = client(&["127.0.0.1"]).send(request).await.unwrap();
        assert_eq!((response.status(), response.body().len()), (status, 0));
    }
}

#[tokio::test]
async fn the_system_resolver_reads_names() {
    let found = SystemResolver::default().resolve("localhost").await.unwrap();
    assert!(
        found.iter().all(IpAddr::is_loopback) && !found.is_empty(),
        "{found:?}"
    );
}
