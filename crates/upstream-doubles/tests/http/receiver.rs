//! The receiver.

use std::time::{Duration, Instant};

use upstream_doubles::{Judgement, RECEIVED_BODY_BYTES, sign};

use crate::common::{client, send, start};

#[tokio::test]
async fn plain_routes() {
    let doubles = start().await;
    let url = |path: &str| format!("{}{path}", doubles.receiver().url());
    for (path, status) in [
        ("/ok", 200),
        ("/ok/event-1", 200),
        ("/status/418/x", 418),
        ("/status/77", 404),
        ("/elsewhere", 404),
    ] {
        assert_eq!(
            send(client().post(url(path)).body("x")).await.status,
            status,
            "{path}"
        );
    }
    let redirect = send(client().post(url("/redirect/307?to=http%3A%2F%2F127.0.0.1%3A1%2F"))).await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (307, "http://127.0.0.1:1/")
    );
    assert_eq!(
        send(client().post(url("/redirect/302"))).await.header("location"),
        "/ok"
    );
    let begin = Instant::now();
    assert_eq!(send(client().post(url("/slow/150"))).await.status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn everything_is_remembered_and_nothing_secret_printed() {
    let doubles = start().await;
    let body = "y".repeat(RECEIVED_BODY_BYTES + 1);
    let url = format!("{}/ok/a?b=c", doubles.receiver().url());
    send(client().put(&url).header("X-Token", "s3cr3t-token").body(body)).await;
    let received = doubles.receiver().received();
    assert_eq!(
        (received[0].method.as_str(), received[0].query.as_deref()),
        ("PUT", Some("b=c"))
    );
    assert_eq!(received[0].header("x-token"), Some("s3cr3t-token"));
    assert_eq!((received[0].body.len(), received[0].body_bytes), (65_536, 65_537));
    assert!(!format!("{received:?}").contains("s3cr3t-token"));
    doubles.receiver().clear();
    assert!(doubles.receiver().received_at("/").is_empty());
}

#[tokio::test]
async fn signatures_and_credentials_are_judged() {
    let doubles = start().await;
    let receiver = doubles.receiver();
    let url = |path: &str| format!("{}{path}", receiver.url());
    for path in ["/ricloud/x", "/autocosmos/x", "/basic/x"] {
        assert_eq!(
            send(client().post(url(path))).await.status,
            404,
            "nobody announced {path}"
        );
    }
    receiver.expect_ricloud("x", "secret");
    receiver.expect_autocosmos("x", "a-secret-of-sixteen", None);
    receiver.expect_basic("x", "user", "pass");
    for path in ["/ricloud/x", "/autocosmos/x", "/basic/x"] {
        assert_eq!(
            send(client().post(url(path))).await.status,
            401,
            "unsigned to {path}"
        );
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    for (seconds, status) in [(now, 200), (now - 590, 200), (now - 620, 401)] {
        let signature = sign::ricloud_signature("secret", seconds, b"body");
        let request = client()
            .post(url("/ricloud/x/e1"))
            .header("Ricloud-Signature", signature);
        assert_eq!(
            send(request.body("body")).await.status,
            status,
            "{}",
            now - seconds
        );
    }
    let judgement = receiver.received().pop().unwrap().judgement;
    assert_eq!(judgement, Judgement::Refused("signature is too old".to_owned()));
    for (password, status) in [("pass", 200), ("wrong", 401)] {
        let request = client().post(url("/basic/x")).basic_auth("user", Some(password));
        assert_eq!(send(request).await.status, status);
    }
    receiver.forget("x");
    assert_eq!(send(client().post(url("/basic/x"))).await.status, 404);
}
