//! Hostile, slow, broken and huge answers: each ends in bounded time and memory, with the right class, phase and
//! promise about whether the request may have arrived.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use webhook_operator::net::{
    ConnectProblem, HttpClient, HttpError, HttpErrorKind, Limit, Phase, Request, Response,
};

use super::support::{
    Answer, LOCALHOST, Names, OK, answering, client, client_with, post, read_request, server,
};

/// Well above what a case needs on a busy machine, well below a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends to a server that writes these bytes and closes.
async fn ask(answer: impl Into<Vec<u8>>, limit: Limit) -> Result<Response, HttpError> {
    let (addr, _) = answering(answer).await;
    client(&["127.0.0.1"])
        .send(post(&format!("http://{addr}/")).limit(limit))
        .await
}

#[track_caller]
fn assert_failed(
    result: Result<Response, HttpError>,
    kind: HttpErrorKind,
    phase: Phase,
    may_have_reached: bool,
) {
    let error = result.expect_err("an error");
    assert_eq!(
        (error.kind(), error.phase(), error.may_have_reached_upstream()),
        (kind, phase, may_have_reached)
    );
}

fn with_body(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_cut_at_their_limit() {
    let body = vec![b'x'; 1001];
    for headers in [
        "Content-Length: 1001\r\n",
        "",
        "Content-Length: 9223372036854775807\r\n",
    ] {
        let result = ask(with_body(headers, &body), Limit::Bytes(1000)).await;
        assert_failed(result, HttpErrorKind::BodyTooLarge(1000), Phase::Body, true);
    }
    let response = ask(with_body("", &body), Limit::Bytes(1001)).await.unwrap();
    assert_eq!(response.into_body(), body);
    assert!(
        ask(with_body("", b""), Limit::Bytes(0))
            .await
            .unwrap()
            .body()
            .is_empty()
    );
}

#[tokio::test]
async fn an_endless_body_is_cut_at_its_limit() {
    let (addr, _) = server(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend_from_slice(&[b'x'; 0x10000]);
        chunk.extend_from_slice(b"\r\n");
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    for (limit, bytes) in [(Limit::Object, 1 << 20), (Limit::List, 8 << 20)] {
        let result = client(&["127.0.0.1"])
            .send(post(&format!("http://{addr}/")).limit(limit).timeout(PATIENCE))
            .await;
        assert_failed(result, HttpErrorKind::BodyTooLarge(bytes), Phase::Body, true);
    }
    let discarded = post(&format!("http://{addr}/")).limit(Limit::Discard);
    let discarded = client(&["127.0.0.1"]).send(discarded).await.unwrap();
    assert_eq!((discarded.status(), discarded.body_fault()), (200, None));
}

#[tokio::test]
async fn compressed_bodies_count_by_their_real_size() {
    let packed = gzip(&vec![0; 64 << 20]);
    assert!(packed.len() < 100_000, "no bomb: {}", packed.len());
    let bomb = with_body(
        &format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", packed.len()),
        &packed,
    );
    let result = ask(bomb, Limit::Object).await;
    assert_failed(result, HttpErrorKind::BodyTooLarge(1 << 20), Phase::Body, true);

    let small = gzip(b"{\"id\":5}");
    let response = ask(with_body("Content-Encoding: gzip\r\n", &small), Limit::Object)
        .await
        .unwrap();
    assert_eq!(response.body(), b"{\"id\":5}");
}

#[tokio::test]
async fn broken_compression_is_told_from_a_broken_connection() {
    let packed = gzip(&(0..200_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>());
    let mut corrupt = packed.clone();
    let middle = corrupt.len() / 2;
    for byte in &mut corrupt[middle..middle + 64] {
        *byte = !*byte;
    }
    for bytes in [&corrupt[..], b"this is not gzip at all", &packed[..middle]] {
        let headers = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", bytes.len());
        let result = ask(with_body(&headers, bytes), Limit::Object).await;
        assert_failed(result, HttpErrorKind::Decode, Phase::Body, true);
    }
    let headers = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", packed.len());
    let result = ask(with_body(&headers, &packed[..middle]), Limit::Object).await;
    assert_failed(result, HttpErrorKind::Reset, Phase::Body, true);
}

#[tokio::test]
async fn truncated_answers_are_resets() {
    let result = ask(with_body("Content-Length: 100\r\n", b"half"), Limit::Object).await;
    assert_failed(result, HttpErrorKind::Reset, Phase::Body, true);
    let result = ask(
        with_body("Transfer-Encoding: chunked\r\n", b"5\r\nhalf"),
        Limit::Object,
    )
    .await;
    assert_failed(result, HttpErrorKind::Reset, Phase::Body, true);
    for cut in ["", "HTTP/1.1 200 OK\r\nX-Cut: of"] {
        assert_failed(
            ask(cut, Limit::Object).await,
            HttpErrorKind::Reset,
            Phase::Exchange,
            true,
        );
    }
}

#[tokio::test]
async fn a_reset_connection_is_a_reset() {
    let (addr, _) = server(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        // Zero linger makes closing send RST instead of FIN.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let result = client(&["127.0.0.1"])
        .send(post(&format!("http://{addr}/")))
        .await;
    assert_failed(result, HttpErrorKind::Reset, Phase::Exchange, true);
}

#[tokio::test]
async fn answers_that_are_not_http_are_protocol_errors() {
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(1 << 20));
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        "HTTP/1.1 2x0 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{long}\r\n"),
    ] {
        let result = ask(answer.clone(), Limit::Object).await;
        let start: String = answer.chars().take(40).collect();
        let error = result.expect_err(&start);
        assert_eq!(error.kind(), HttpErrorKind::Protocol, "{start:?}");
        assert!(error.may_have_reached_upstream());
    }
}

/// Sends with a short time limit to a server that works for ever; the call must end soon after the limit.
async fn hurried(client: &HttpClient, request: Request) -> Result<Response, HttpError> {
    let started = Instant::now();
    let result = client.send(request.timeout(Duration::from_millis(300))).await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(290) && took < PATIENCE,
        "took {took:?}"
    );
    result
}

/// Writes the start of an answer, then one byte every 20 ms.
async fn dripping(start: &'static str) -> String {
    let (addr, _) = server(move |mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(start.as_bytes()).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    format!("http://{addr}/")
}

#[tokio::test]
async fn slow_answers_end_at_the_time_limit() {
    let open = client(&["127.0.0.1"]);
    let drip = dripping("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
    assert_failed(
        hurried(&open, post(&drip)).await,
        HttpErrorKind::Timeout,
        Phase::Body,
        true,
    );
    let probe = hurried(&open, post(&drip).limit(Limit::Discard)).await.unwrap();
    assert_eq!(
        (probe.status(), probe.body_fault()),
        (200, Some(HttpErrorKind::Timeout))
    );

    let headers = dripping("HTTP/1.1 200 OK\r\nX-Slow: ").await;
    assert_failed(
        hurried(&open, post(&headers)).await,
        HttpErrorKind::Timeout,
        Phase::Exchange,
        true,
    );

    let (addr, _) = server(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let silent = post(&format!("http://{addr}/"));
    assert_failed(
        hurried(&open, silent).await,
        HttpErrorKind::Timeout,
        Phase::Exchange,
        true,
    );
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_sends_nothing() {
    let names = Arc::new(
        Names::default()
            .with("slow.test", vec![Answer::Never])
            .with("broken.test", vec![Answer::Fail("SERVFAIL")])
            .with("empty.test", vec![Answer::Addrs(Vec::new())]),
    );
    let open = client_with(&["127.0.0.1"], &names);
    assert_failed(
        hurried(&open, post("https://slow.test/")).await,
        HttpErrorKind::Timeout,
        Phase::Resolve,
        false,
    );
    for host in ["broken.test", "empty.test"] {
        let result = open.send(post(&format!("http://{host}/"))).await;
        assert_failed(result, HttpErrorKind::Resolve, Phase::Resolve, false);
    }

    // Accepts, and never says a word: the TLS handshake hangs.
    let (addr, _) = server(|stream: TcpStream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let hanging = post(&format!("https://{addr}/"));
    assert_failed(
        hurried(&open, hanging).await,
        HttpErrorKind::Timeout,
        Phase::Connect,
        false,
    );

    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let result = open.send(post(&format!("http://{closed}/"))).await;
    let refused = HttpErrorKind::Connect(ConnectProblem::Refused);
    assert_failed(result, refused, Phase::Connect, false);
}

#[tokio::test]
async fn the_connect_limit_is_shorter_than_the_call() {
    let names = Arc::new(Names::default().with("slow.test", vec![Answer::Never]));
    let names: Arc<dyn webhook_operator::net::Resolve> = names;
    let (addr, _) = server(|stream: TcpStream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let open = HttpClient::builder(super::support::policy(&["127.0.0.1"]))
        .resolver(names)
        .connect_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    for (target, phase) in [
        ("https://slow.test/".to_owned(), Phase::Resolve),
        (format!("https://{addr}/"), Phase::Connect),
    ] {
        let started = Instant::now();
        let result = open.send(post(&target).timeout(Duration::from_secs(60))).await;
        assert_failed(result, HttpErrorKind::Timeout, phase, false);
        assert!(started.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_call_without_time_is_not_made() {
    let (addr, counter) = answering(OK).await;
    let open = client(&["127.0.0.1"]);
    let result = open
        .send(post(&format!("http://{addr}/")).timeout(Duration::ZERO))
        .await;
    assert_failed(result, HttpErrorKind::Timeout, Phase::Prepare, false);
    assert_eq!(counter.get(), 0);
    assert!(
        open.send(post(&format!("http://{addr}/")))
            .await
            .unwrap()
            .is_success()
    );
    assert_eq!(counter.get(), 1);
}

#[tokio::test]
async fn a_client_that_connects_anew_does_so_each_time_and_tells_a_handshake_that_hangs() {
    let policy = super::support::policy(&["127.0.0.1"]);
    let anew = HttpClient::builder(policy).connect_anew().build().unwrap();
    let (addr, counter) = server(|mut stream: TcpStream| async move {
        loop {
            if read_request(&mut stream).await.is_empty() {
                return;
            }
            let kept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let _ = stream.write_all(kept.as_bytes()).await;
        }
    })
    .await;
    let target = format!("http://{addr}/");
    // The control: others keep their connection.
    let keeping = client(&["127.0.0.1"]);
    for (client, connections) in [(&keeping, 1), (&anew, 3)] {
        let before = counter.get();
        for _ in 0..3 {
            client.send(post(&target)).await.unwrap();
        }
        assert_eq!(counter.get() - before, connections);
    }

    let (addr, _) = server(|stream: TcpStream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let hanging = hurried(&anew, post(&format!("https://{addr}/"))).await;
    assert_failed(hanging, HttpErrorKind::Timeout, Phase::Tls, false);
}
