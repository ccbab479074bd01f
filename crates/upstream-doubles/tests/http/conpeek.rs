//! Conpeek.

use reqwest::Method;
use serde_json::{Value, json};
use upstream_doubles::{BodyStyle, ConpeekAccount, Doubles, FlagEcho, OtherStyle, RouteSupport, Success};

use crate::common::{Answer, client, send, start};

fn example() -> Value {
    json!({
        "url": "http://example.xyz/poster.php",
        "retry_enabled": 1,
        "retry_config": {
            "retry_value": 10, "max_retries": 2, "backoff_type": "multiplier", "backoff_value": 2
        },
        "headers": {"appHash": "abc"}
    })
}

async fn call(
    doubles: &Doubles,
    method: Method,
    application: &str,
    key: &str,
    body: Option<&Value>,
) -> Answer {
    let url = format!("{}/application/{application}/webhook", doubles.conpeek().url());
    let mut request = client().request(method, url).header("Authorization", key);
    if let Some(body) = body {
        request = request.json(body);
    }
    send(request).await
}

async fn put(doubles: &Doubles, application: &str, body: &Value) -> Answer {
    call(doubles, Method::PUT, application, "demo-conpeek-key", Some(body)).await
}

async fn get(doubles: &Doubles) -> Answer {
    call(doubles, Method::GET, "9", "demo-conpeek-key", None).await
}

#[tokio::test]
async fn the_documented_example() {
    let doubles = start().await;
    let answer = put(&doubles, "9", &example()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"success": true, "data": example()}));
    let stored = doubles.conpeek().upstream().webhook(9).unwrap();
    assert_eq!(stored.url.as_deref(), Some("http://example.xyz/poster.php"));
    assert_eq!(stored.retry_enabled, Some(true));
    assert!(
        !format!("{stored:?}").contains("abc"),
        "header values are secrets"
    );
    let seen = doubles.conpeek().requests_of("demo");
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("PUT", "/application/9/webhook")
    );
    assert_eq!((seen[0].status, seen[0].effect), (Some(200), true));
    assert_eq!(seen[0].json(), Some(example()));
}

#[tokio::test]
async fn only_the_bare_key_is_a_credential() {
    let doubles = start().await;
    for key in [
        "Bearer demo-conpeek-key",
        "Token demo-conpeek-key",
        "demo-conpeek-ke",
        "",
        "wrong",
    ] {
        let answer = call(&doubles, Method::PUT, "9", key, Some(&example())).await;
        assert_eq!(answer.status, 403, "{key:?}");
    }
    doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.wrong_key_status = 401);
    assert_eq!(
        call(&doubles, Method::PUT, "9", "wrong", Some(&example()))
            .await
            .status,
        401
    );
    assert!(doubles.conpeek().objects().is_empty());
    assert_eq!(doubles.conpeek().counts().effects, 0);
}

#[tokio::test]
async fn applications_may_be_unknown_or_another_keys() {
    let doubles = start().await;
    for id in ["0", "-1", "nine", "9x", "+9", ""] {
        assert_eq!(put(&doubles, id, &example()).await.status, 404, "{id:?}");
    }
    let mut limited = ConpeekAccount::new("limited", "limited-key");
    limited.applications = Some([9].into());
    doubles.conpeek().add_account(limited);
    assert_eq!(
        call(&doubles, Method::PUT, "9", "limited-key", Some(&example()))
            .await
            .status,
        200
    );
    assert_eq!(
        call(&doubles, Method::PUT, "10", "limited-key", Some(&example()))
            .await
            .status,
        403
    );
    doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.any_application = false);
    assert_eq!(put(&doubles, "9", &example()).await.status, 404);
    doubles.conpeek().upstream().add_application(9);
    assert_eq!(put(&doubles, "9", &example()).await.status, 200);
    doubles.conpeek().upstream().remove_application(9);
    assert_eq!(put(&doubles, "9", &example()).await.status, 404);
}

#[tokio::test]
async fn body_styles() {
    use {BodyStyle::*, OtherStyle::*};
    let flat = example();
    let wrapped = json!({"data": example()});
    // style, other style, status and echoed url for the flat body, then for the wrapped one
    let taken = Some("http://example.xyz/poster.php");
    for (style, other, for_flat, for_wrapped) in [
        (Flat, Ignored, (200, taken), (200, None)),
        (Flat, Refused, (200, taken), (400, None)),
        (Wrapped, Ignored, (200, None), (200, taken)),
        (Wrapped, Refused, (400, None), (200, taken)),
        (Both, Ignored, (200, taken), (200, taken)),
    ] {
        for (body, (status, url)) in [(&flat, for_flat), (&wrapped, for_wrapped)] {
            let doubles = start().await;
            doubles.conpeek().change_behaviour(|behaviour| {
                behaviour.body_style = style;
                behaviour.other_style = other;
            });
            let answer = put(&doubles, "9", body).await;
            assert_eq!(answer.status, status, "{style:?} {other:?} {body}");
            assert_eq!(
                answer.json()["data"]["url"].as_str(),
                url,
                "{style:?} {other:?} {body}"
            );
            let stored = doubles
                .conpeek()
                .upstream()
                .webhook(9)
                .and_then(|webhook| webhook.url);
            assert_eq!(stored.as_deref(), url, "{style:?} {other:?} {body}");
        }
    }
    let doubles = start().await;
    doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.body_style = Both);
    let mut both = example();
    both["data"] = example();
    assert_eq!(
        put(&doubles, "9", &both).await.status,
        400,
        "never both shapes in one body"
    );
}

#[tokio::test]
async fn answers_come_in_several_shapes() {
    let doubles = start().await;
    let conpeek = doubles.conpeek();
    conpeek.change_behaviour(|behaviour| behaviour.wrapped_answer = false);
    assert_eq!(put(&doubles, "9", &example()).await.json(), example());
    for (echo, value) in [(FlagEcho::Boolean, json!(true)), (FlagEcho::Text, json!("1"))] {
        conpeek.change_behaviour(|behaviour| behaviour.flag_echo = echo);
        assert_eq!(
            put(&doubles, "9", &example()).await.json()["retry_enabled"],
            value
        );
    }
    conpeek.change_behaviour(|behaviour| behaviour.wrapped_answer = true);
    for (success, value) in [(Success::False, json!(false)), (Success::Absent, Value::Null)] {
        conpeek.change_behaviour(|behaviour| behaviour.success = success);
        let mut other = example();
        other["url"] = json!("http://other.test/");
        let answer = put(&doubles, "9", &other).await;
        assert_eq!((answer.status, &answer.json()["success"]), (200, &value));
        assert_eq!(
            answer.json()["data"]["url"],
            example()["url"],
            "the echo is of what is stored"
        );
    }
}

#[tokio::test]
async fn invalid_bodies_are_refused() {
    let doubles = start().await;
    for (field, value) in [
        ("url", json!("poster.php")),
        ("url", json!("ftp://example.test/")),
        ("url", json!(7)),
        ("retry_enabled", json!(2)),
        ("retry_enabled", json!("yes")),
        ("retry_config", json!({"retry_value": 10})),
        (
            "retry_config",
            json!({"retry_value": 1, "max_retries": 1, "backoff_type": "linear", "backoff_value": 1}),
        ),
        ("headers", json!({"a": 1})),
        ("headers", json!(["a"])),
    ] {
        let mut body = example();
        body[field] = value;
        assert_eq!(put(&doubles, "9", &body).await.status, 400, "{body}");
    }
    let url = format!("{}/application/9/webhook", doubles.conpeek().url());
    let plain = client()
        .put(&url)
        .header("Authorization", "demo-conpeek-key")
        .body(example().to_string());
    assert_eq!(send(plain).await.status, 400, "without Content-Type");
    assert!(doubles.conpeek().objects().is_empty());
    for flag in [json!(true), json!("0"), json!(0)] {
        let mut body = example();
        body["retry_enabled"] = flag;
        body["unknown"] = json!("ignored");
        assert_eq!(put(&doubles, "9", &body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn reading_is_switchable() {
    let doubles = start().await;
    assert_eq!(
        get(&doubles).await.json()["data"]["url"],
        Value::Null,
        "exists with the application"
    );
    put(&doubles, "9", &example()).await;
    assert_eq!(get(&doubles).await.json()["data"], example());
    for (support, status) in [
        (RouteSupport::NotFound, 404),
        (RouteSupport::MethodNotAllowed, 405),
    ] {
        doubles
            .conpeek()
            .change_behaviour(|behaviour| behaviour.get = support);
        assert_eq!(get(&doubles).await.status, status);
    }
    assert_eq!(
        call(&doubles, Method::DELETE, "9", "demo-conpeek-key", None)
            .await
            .status,
        405
    );
    assert_eq!(doubles.conpeek().objects().len(), 1);
}

#[tokio::test]
async fn a_base_url_may_have_a_path() {
    let doubles = start().await;
    let root = doubles.conpeek().url();
    doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.path_prefix = "/tenant/a".to_owned());
    assert_eq!(doubles.conpeek().url(), format!("{root}/tenant/a"));
    assert_eq!(put(&doubles, "9", &example()).await.status, 200);
    let without = client()
        .put(format!("{root}/application/9/webhook"))
        .json(&example());
    assert_eq!(
        send(without.header("Authorization", "demo-conpeek-key"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn deliveries_carry_the_headers() {
    let doubles = start().await;
    let mut body = example();
    body["url"] = json!(format!("{}/ok/conpeek", doubles.receiver().url()));
    put(&doubles, "9", &body).await;
    let order = json!({"application": 9, "body": {"hello": "world"}});
    let delivered = doubles.conpeek().deliver(order).await.unwrap();
    assert!(delivered[0].accepted());
    let received = doubles.receiver().received_at("/ok/conpeek");
    assert_eq!(received[0].header("apphash"), Some("abc"));
    assert_eq!(received[0].body, r#"{"hello":"world"}"#);
    assert!(
        doubles
            .conpeek()
            .deliver(json!({"application": 10}))
            .await
            .is_err()
    );
}
