//! Faults, seen by a client.

use std::time::{Duration, Instant, SystemTime};

use reqwest::RequestBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use upstream_doubles::{Doubles, Effect, Fault, RetryAfter, ThuliumAccount, sign};

use crate::common::{client, send, start, until};

fn post(doubles: &Doubles) -> RequestBuilder {
    let body = json!({"actions": ["A"], "subscription_url": "https://a.test/"});
    let url = format!("{}/webhooks", doubles.thulium().url());
    client()
        .post(url)
        .basic_auth("api_demo", Some("demo-thulium-password"))
        .json(&body)
}

fn stored(doubles: &Doubles) -> usize {
    doubles.thulium().objects().len()
}

#[tokio::test]
async fn statuses_with_retry_after_come_before_the_effect() {
    let doubles = start().await;
    doubles.thulium().set_fault(
        Fault::retry_after(429, RetryAfter::Seconds(3))
            .method("POST")
            .times(1),
    );
    doubles
        .thulium()
        .set_fault(Fault::retry_after(503, RetryAfter::DateIn(60)).times(1));
    let first = send(post(&doubles)).await;
    assert_eq!((first.status, first.header("retry-after")), (429, "3"));
    let second = send(post(&doubles)).await;
    assert_eq!(second.status, 503);
    let text = second.header("retry-after").to_owned();
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(&text)
        .unwrap();
    let ahead = SystemTime::from(date)
        .duration_since(SystemTime::now())
        .unwrap()
        .as_secs();
    assert!((55..=60).contains(&ahead), "{text}");
    assert_eq!(stored(&doubles), 0);
    assert_eq!(send(post(&doubles)).await.status, 200);
    let seen = doubles.thulium().requests();
    assert_eq!(
        seen.iter().map(|seen| seen.status).collect::<Vec<_>>(),
        [Some(429), Some(503), Some(200)]
    );
    assert_eq!(seen[0].fault.as_deref(), Some("status"));
    assert_eq!(
        seen.iter().map(|seen| seen.effect).collect::<Vec<_>>(),
        [false, false, true]
    );
}

#[tokio::test]
async fn a_status_may_also_hide_an_effect() {
    let doubles = start().await;
    doubles
        .thulium()
        .set_fault(Fault::status(504).handled(true).times(1));
    assert_eq!(send(post(&doubles)).await.status, 504);
    assert_eq!(stored(&doubles), 1);
}

#[tokio::test]
async fn resets_close_the_connection_without_a_byte() {
    for (effect, count) in [(Effect::ResetBefore, 0), (Effect::ResetAfter, 1)] {
        let doubles = start().await;
        doubles.thulium().set_fault(Fault::new(effect.clone()).times(1));
        let error = post(&doubles).send().await.unwrap_err();
        assert!(!error.is_timeout() && !error.is_builder(), "{error:?}");
        assert_eq!(stored(&doubles), count, "{effect:?}");
        let seen = doubles.thulium().requests();
        assert_eq!((seen[0].status, seen[0].effect), (None, count == 1));
        assert_eq!(
            send(post(&doubles)).await.status,
            200,
            "the next connection works"
        );
    }
}

#[tokio::test]
async fn a_reset_is_one_on_the_wire() {
    let doubles = start().await;
    doubles.thulium().set_fault(Fault::new(Effect::ResetAfter));
    let address = doubles.thulium().url().replace("http://", "").replace("/api", "");
    let body = r#"{"actions":["A"],"subscription_url":"https://a.test/"}"#;
    let basic = sign::basic("api_demo", "demo-thulium-password");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/webhooks HTTP/1.1\r\nHost: x\r\nAuthorization: {basic}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(bytes.is_empty(), "{bytes:?}");
    assert_eq!(stored(&doubles), 1);
}

#[tokio::test]
async fn bodies_are_spoiled_after_the_effect() {
    let doubles = start().await;
    let thulium = doubles.thulium();
    thulium.set_fault(Fault::new(Effect::MalformedJson).times(1));
    let answer = send(post(&doubles)).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert!(serde_json::from_str::<serde_json::Value>(&answer.text).is_err());
    thulium.set_fault(Fault::new(Effect::Html).times(1));
    let answer = send(post(&doubles)).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    thulium.set_fault(
        Fault::new(Effect::ContentType {
            value: "text/plain".to_owned(),
        })
        .times(1),
    );
    let answer = send(post(&doubles)).await;
    assert_eq!(
        (answer.header("content-type"), &answer.json()["id"]),
        ("text/plain", &json!(3))
    );
    thulium.set_fault(Fault::new(Effect::HugeBody { bytes: 3_000_001 }).times(1));
    let answer = send(post(&doubles)).await;
    assert_eq!(answer.text.len(), 3_000_001);
    assert!(answer.json().is_string());
    assert_eq!(stored(&doubles), 4);
}

#[tokio::test]
async fn bodies_drip_or_break_off() {
    let doubles = start().await;
    let drip = Effect::Drip {
        chunk_bytes: 20,
        milliseconds: 30,
    };
    doubles.thulium().set_fault(Fault::new(drip).times(1));
    let begin = Instant::now();
    let answer = send(post(&doubles)).await;
    assert_eq!(answer.json()["id"], 1);
    assert!(begin.elapsed() >= Duration::from_millis(30 * (answer.text.len() as u64 / 20)));
    doubles.thulium().set_fault(Fault::new(Effect::Truncate).times(1));
    let answer = post(&doubles).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    assert_eq!(stored(&doubles), 2);
}

#[tokio::test]
async fn an_effect_happens_although_the_client_gave_up() {
    let doubles = start().await;
    doubles
        .thulium()
        .set_fault(Fault::delay(Duration::from_millis(1500)).times(1));
    let error = post(&doubles)
        .timeout(Duration::from_millis(100))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(stored(&doubles), 0);
    until("the late effect", || stored(&doubles) == 1).await;
}

#[tokio::test]
async fn a_delay_may_come_after_the_effect() {
    let doubles = start().await;
    doubles
        .thulium()
        .set_fault(Fault::delay(Duration::from_millis(1500)).handled(true).times(1));
    let begin = Instant::now();
    let waiting = tokio::spawn(send(post(&doubles)));
    until("the early effect", || stored(&doubles) == 1).await;
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "not before the effect"
    );
    assert_eq!(waiting.await.unwrap().status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn faults_can_be_for_one_account_or_path_and_be_taken_away() {
    let doubles = start().await;
    let thulium = doubles.thulium();
    thulium.add_account(ThuliumAccount::new("second", "pw"));
    let id = thulium.set_fault(Fault::status(500).account("second"));
    thulium.set_fault(Fault::status(502).path_prefix("/api/webhooks/"));
    assert_eq!(send(post(&doubles)).await.status, 200);
    let url = format!("{}/webhooks", thulium.url());
    let second = || client().get(&url).basic_auth("second", Some("pw"));
    assert_eq!(send(second()).await.status, 500);
    assert!(thulium.remove_fault(id));
    assert!(!thulium.remove_fault(id));
    assert_eq!(send(second()).await.status, 200);
    let one = client()
        .delete(format!("{url}/1"))
        .basic_auth("second", Some("pw"));
    assert_eq!(send(one).await.status, 502);
    thulium.clear_faults();
    assert!(thulium.faults().is_empty());
}

#[tokio::test]
async fn latency_is_for_every_request() {
    let doubles = start().await;
    doubles.thulium().set_latency(Duration::from_millis(150));
    let begin = Instant::now();
    assert_eq!(send(post(&doubles)).await.status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(150));
}
