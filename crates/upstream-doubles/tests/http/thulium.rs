//! Thulium.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use reqwest::Method;
use serde_json::{Value, json};
use upstream_doubles::{Doubles, Paging, PasswordEcho, RefusalBody, RouteSupport, ThuliumAccount};

use crate::common::{Answer, client, send, start};

const USER: (&str, &str) = ("api_demo", "demo-thulium-password");

async fn call_as(
    user: (&str, &str),
    doubles: &Doubles,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let url = format!("{}/webhooks{path}", doubles.thulium().url());
    let mut request = client().request(method, url).basic_auth(user.0, Some(user.1));
    if let Some(body) = body {
        request = request.json(&body);
    }
    send(request).await
}

async fn call(doubles: &Doubles, method: Method, path: &str, body: Option<Value>) -> Answer {
    call_as(USER, doubles, method, path, body).await
}

fn body(url: &str, actions: &[&str]) -> Value {
    json!({"actions": actions, "subscription_url": url})
}

#[tokio::test]
async fn the_documented_example() {
    let doubles = start().await;
    assert!(doubles.thulium().url().ends_with("/api"));
    for _ in 0..4 {
        call(
            &doubles,
            Method::POST,
            "",
            Some(body("https://example.test/", &["A"])),
        )
        .await;
    }
    let answer = call(
        &doubles,
        Method::POST,
        "",
        Some(body("https://example.pl", &["CHAT_CONVERSATION_CREATED"])),
    )
    .await;
    assert_eq!(answer.status, 200);
    let expected = json!({
        "id": 5,
        "actions": ["CHAT_CONVERSATION_CREATED"],
        "subscription_url": "https://example.pl",
        "http_auth_user": "",
        "http_auth_password": ""
    });
    assert_eq!(answer.json(), expected);
    let list = call(&doubles, Method::GET, "", None).await;
    assert_eq!(list.json().as_array().unwrap().len(), 5);
    assert_eq!(list.json()[4], expected);
    doubles
        .thulium()
        .change_behaviour(|behaviour| behaviour.created_status = 201);
    assert_eq!(
        call(&doubles, Method::POST, "", Some(body("https://a.test/", &["A"])))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn credentials_and_permissions() {
    let doubles = start().await;
    let wrong = [
        ("api_demo", "demo-thulium-password\n"),
        ("api_demo", "wrong"),
        ("nobody", USER.1),
        ("", ""),
    ];
    for user in wrong {
        let answer = call_as(user, &doubles, Method::GET, "", None).await;
        assert_eq!(answer.status, 401, "{user:?}");
        let error = answer.json();
        assert!(
            error["request_id"].is_string() && error["errors"][0]["code"].is_number(),
            "{error}"
        );
    }
    let plain = send(client().get(format!("{}/webhooks", doubles.thulium().url()))).await;
    assert_eq!(plain.status, 401);
    let mut reader = ThuliumAccount::new("reader", "pw");
    reader.permissions = ["GET webhooks".to_owned()].into();
    doubles.thulium().add_account(reader);
    let reader = ("reader", "pw");
    assert_eq!(call_as(reader, &doubles, Method::GET, "", None).await.status, 200);
    let body = Some(body("https://a.test/", &["A"]));
    let answer = call_as(reader, &doubles, Method::POST, "", body).await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["errors"][0]["message"].is_string());
    assert_eq!(
        answer.header("x-request-id"),
        answer.json()["request_id"].as_str().unwrap()
    );
    assert!(doubles.thulium().remove_account("reader"));
    assert_eq!(call_as(reader, &doubles, Method::GET, "", None).await.status, 401);
}

#[tokio::test]
async fn everybody_sees_the_whole_system_and_duplicates_are_told() {
    let doubles = start().await;
    doubles.thulium().add_account(ThuliumAccount::new("second", "pw"));
    call(
        &doubles,
        Method::POST,
        "",
        Some(body("https://a.test/", &["A", "B"])),
    )
    .await;
    call_as(
        ("second", "pw"),
        &doubles,
        Method::POST,
        "",
        Some(body("https://a.test/", &["B", "A"])),
    )
    .await;
    call(&doubles, Method::POST, "", Some(body("https://a.test/", &["A"]))).await;
    call(
        &doubles,
        Method::POST,
        "",
        Some(body("https://a.test", &["A", "B"])),
    )
    .await;
    for user in [USER, ("second", "pw")] {
        let list = call_as(user, &doubles, Method::GET, "", None).await.json();
        assert_eq!(list.as_array().unwrap().len(), 4);
    }
    let duplicates = doubles.thulium().duplicates();
    assert_eq!(duplicates.len(), 1);
    assert_eq!(duplicates[0].ids, ["1", "2"]);
    assert_eq!(doubles.thulium().requests_of("second").len(), 2);
}

#[tokio::test]
async fn thousands_of_webhooks_and_pages() {
    let doubles = start().await;
    let (client, url) = (client(), format!("{}/webhooks", doubles.thulium().url()));
    let begin = Instant::now();
    let statuses: Vec<u16> = stream::iter(0..2500)
        .map(|number| {
            let body = body(&format!("https://a.test/{number}"), &["A"]);
            let request = client.post(&url).basic_auth(USER.0, Some(USER.1)).json(&body);
            async move { request.send().await.unwrap().status().as_u16() }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    assert!(statuses.iter().all(|status| *status == 200));
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?} for 2500 requests",
        begin.elapsed()
    );
    let count = async |query: &str| {
        let answer = call(&doubles, Method::GET, query, None).await;
        answer
            .json()
            .as_array()
            .map_or(usize::from(answer.status), Vec::len)
    };
    assert_eq!(count("").await, 100);
    assert_eq!(count("?limit=1000").await, 1000);
    assert_eq!(count("?limit=1000&offset=2000").await, 500);
    for (query, status) in [("?limit=0", 400), ("?limit=1001", 400), ("?offset=x", 400)] {
        assert_eq!(
            call(&doubles, Method::GET, query, None).await.status,
            status,
            "{query}"
        );
    }
    let first = call(&doubles, Method::GET, "?limit=1&offset=7", None)
        .await
        .json();
    assert_eq!(first[0]["id"], 8);
    doubles
        .thulium()
        .change_behaviour(|behaviour| behaviour.paging = Paging::Ignored);
    assert_eq!(count("?limit=10").await, 2500);
    assert!(doubles.thulium().duplicates().is_empty());
}

#[tokio::test]
async fn update_and_delete_when_supported() {
    let doubles = start().await;
    let mut first = body("https://a.test/", &["A"]);
    first["http_auth_user"] = json!("u");
    first["http_auth_password"] = json!("p");
    call(&doubles, Method::POST, "", Some(first)).await;
    let options = call(&doubles, Method::OPTIONS, "/1", None).await;
    assert_eq!(options.header("allow"), "OPTIONS, PUT, DELETE");
    let answer = call(&doubles, Method::PUT, "/1", Some(body("https://b.test/", &["B"]))).await;
    assert_eq!(
        (answer.status, &answer.json()["subscription_url"]),
        (200, &json!("https://b.test/"))
    );
    assert_eq!(answer.json()["http_auth_user"], "u", "left out: kept");
    let mut cleared = body("https://b.test/", &["B"]);
    cleared["http_auth_user"] = json!("");
    cleared["http_auth_password"] = Value::Null;
    let answer = call(&doubles, Method::PUT, "/1", Some(cleared)).await;
    assert_eq!(answer.json()["http_auth_password"], "");
    assert_eq!(
        call(&doubles, Method::PUT, "/2", Some(body("https://b.test/", &["B"])))
            .await
            .status,
        404
    );
    assert_eq!(
        call(&doubles, Method::GET, "/1", None).await.status,
        404,
        "reading one is not known"
    );
    assert_eq!(call(&doubles, Method::DELETE, "/1", None).await.status, 204);
    assert_eq!(call(&doubles, Method::DELETE, "/1", None).await.status, 404);
    assert!(doubles.thulium().objects().is_empty());
    let again = call(&doubles, Method::POST, "", Some(body("https://a.test/", &["A"]))).await;
    assert_eq!(again.json()["id"], 2, "ids are not used again");
}

#[tokio::test]
async fn update_and_delete_when_missing() {
    let doubles = start().await;
    call(&doubles, Method::POST, "", Some(body("https://a.test/", &["A"]))).await;
    for (support, status, shape) in [
        (RouteSupport::NotFound, 404, RefusalBody::Json),
        (RouteSupport::NotFound, 404, RefusalBody::Html),
        (RouteSupport::MethodNotAllowed, 405, RefusalBody::Json),
        (RouteSupport::MethodNotAllowed, 405, RefusalBody::Html),
    ] {
        doubles.thulium().change_behaviour(|behaviour| {
            (behaviour.update, behaviour.delete, behaviour.refusal_body) = (support, support, shape);
        });
        let put = call(&doubles, Method::PUT, "/1", Some(body("https://b.test/", &["B"]))).await;
        let delete = call(&doubles, Method::DELETE, "/1", None).await;
        for answer in [put, delete] {
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("allow"), if status == 405 { "OPTIONS" } else { "" });
            let is_html = answer.header("content-type").starts_with("text/html");
            assert_eq!(is_html, shape == RefusalBody::Html);
        }
    }
    let stored = doubles.thulium().upstream().webhook(1).unwrap();
    assert_eq!(stored.subscription_url, "https://a.test/");
    doubles
        .thulium()
        .change_behaviour(|behaviour| behaviour.options = false);
    assert_eq!(call(&doubles, Method::OPTIONS, "/1", None).await.status, 404);
}

#[tokio::test]
async fn invalid_bodies_are_refused() {
    let doubles = start().await;
    for wrong in [
        json!({}),
        json!([]),
        body("https://a.test/", &[]),
        body("https://a.test/", &[""]),
        body("example.pl", &["A"]),
        body("ftp://a.test/", &["A"]),
        json!({"actions": "A", "subscription_url": "https://a.test/"}),
        json!({"actions": [1], "subscription_url": "https://a.test/"}),
        json!({"actions": ["A"], "subscription_url": "https://a.test/", "http_auth_user": 1}),
    ] {
        let answer = call(&doubles, Method::POST, "", Some(wrong.clone())).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["errors"][0]["message"].is_string());
    }
    let url = format!("{}/webhooks", doubles.thulium().url());
    let text = body("https://a.test/", &["A"]).to_string();
    let request = || {
        client()
            .post(&url)
            .basic_auth(USER.0, Some(USER.1))
            .body(text.clone())
    };
    assert_eq!(send(request()).await.status, 400, "without Content-Type");
    doubles.thulium().change_behaviour(|behaviour| {
        behaviour.invalid_status = 422;
        behaviour.known_actions = Some(["A".to_owned()].into());
    });
    assert_eq!(
        call(&doubles, Method::POST, "", Some(body("https://a.test/", &["B"])))
            .await
            .status,
        422
    );
    assert!(doubles.thulium().objects().is_empty());
    let with_charset = request().header("Content-Type", "application/json; charset=utf-8");
    assert_eq!(send(with_charset).await.status, 200);
}

#[tokio::test]
async fn passwords_and_actions_come_back_in_several_ways() {
    let doubles = start().await;
    let mut webhook = body("https://a.test/", &["B", "A"]);
    webhook["http_auth_user"] = json!("hookuser");
    webhook["http_auth_password"] = json!("hookpass");
    let answer = call(&doubles, Method::POST, "", Some(webhook)).await.json();
    assert_eq!(
        (&answer["http_auth_password"], &answer["actions"]),
        (&json!("hookpass"), &json!(["B", "A"]))
    );
    for (echo, shown) in [(PasswordEcho::Masked, "***"), (PasswordEcho::Empty, "")] {
        doubles.thulium().change_behaviour(|behaviour| {
            behaviour.password_echo = echo;
            behaviour.sorted_actions = true;
        });
        let list = call(&doubles, Method::GET, "", None).await.json();
        assert_eq!(list[0]["http_auth_password"], shown);
        assert_eq!(list[0]["actions"], json!(["A", "B"]));
    }
    let stored = doubles.thulium().upstream().webhook(1).unwrap();
    assert_eq!(stored.http_auth_password.reveal(), "hookpass");
}

#[tokio::test]
async fn deliveries_are_forms_with_basic_auth() {
    let doubles = start().await;
    doubles.receiver().expect_basic("t", "hookuser", "hookpass");
    let mut webhook = body(
        &format!("{}/basic/t", doubles.receiver().url()),
        &["CUSTOMER_CREATED"],
    );
    webhook["http_auth_user"] = json!("hookuser");
    webhook["http_auth_password"] = json!("hookpass");
    call(&doubles, Method::POST, "", Some(webhook)).await;
    let order = json!({"action": "CUSTOMER_CREATED", "fields": {"customer_id": "7", "company_id": ""}});
    assert!(doubles.thulium().deliver(order.clone()).await.unwrap()[0].accepted());
    let received = doubles.receiver().received();
    assert_eq!(
        received[0].body,
        "action=CUSTOMER_CREATED&company_id=null&customer_id=7"
    );
    assert_eq!(
        received[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        received[0].header("authorization"),
        Some("Basic aG9va3VzZXI6aG9va3Bhc3M=")
    );
    doubles
        .thulium()
        .edit("1", |webhook| webhook.http_auth_password = "other".into());
    assert_eq!(
        doubles.thulium().deliver(order).await.unwrap()[0].status,
        Some(401)
    );
    assert!(
        doubles
            .thulium()
            .deliver(json!({"action": "OTHER"}))
            .await
            .is_err()
    );
}
