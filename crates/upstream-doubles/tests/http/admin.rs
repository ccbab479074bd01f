//! The admin port.

use reqwest::Method;
use serde_json::{Value, json};
use upstream_doubles::Doubles;

use crate::common::{Answer, client, send, start, until};

async fn admin(doubles: &Doubles, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = client().request(method, format!("{}{path}", doubles.admin_url()));
    if let Some(body) = body {
        request = request.json(&body);
    }
    send(request).await
}

async fn subscribe(doubles: &Doubles, user: &str, url: &str) -> Result<u16, reqwest::Error> {
    let body = json!({"actions": ["A"], "subscription_url": url});
    let target = format!("{}/webhooks", doubles.thulium().url());
    let request = client()
        .post(target)
        .basic_auth(user, Some("demo-thulium-password"))
        .json(&body);
    Ok(request.send().await?.status().as_u16())
}

#[tokio::test]
async fn urls_and_health() {
    let doubles = start().await;
    assert_eq!(
        admin(&doubles, Method::GET, "/", None).await.json(),
        doubles.urls()
    );
    assert_eq!(admin(&doubles, Method::GET, "/healthz", None).await.text, "ok");
    assert_eq!(doubles.urls()["admin"], json!(doubles.admin_url()));
}

#[tokio::test]
async fn faults_requests_objects_and_reset() {
    let doubles = start().await;
    let fault = json!({"effect": {"kind": "resetAfter"}, "method": "POST", "count": 1});
    let set = admin(&doubles, Method::POST, "/thulium/faults", Some(fault)).await;
    assert_eq!(set.json(), json!({"id": 1}));
    assert!(subscribe(&doubles, "api_demo", "https://a.test/").await.is_err());
    assert_eq!(
        subscribe(&doubles, "api_demo", "https://a.test/").await.unwrap(),
        200
    );
    assert_eq!(
        subscribe(&doubles, "nobody", "https://a.test/").await.unwrap(),
        401
    );
    let faults = admin(&doubles, Method::GET, "/thulium/faults", None).await.json();
    assert_eq!(
        (&faults[0]["struck"], &faults[0]["fault"]["count"]),
        (&json!(1), &json!(0))
    );
    let get = async |path: &str| admin(&doubles, Method::GET, path, None).await.json();
    assert_eq!(get("/thulium/duplicates").await[0]["ids"], json!(["1", "2"]));
    let counts = get("/thulium/counts").await;
    assert_eq!((&counts["total"], &counts["effects"]), (&json!(3), &json!(2)));
    assert_eq!(counts["byStatus"], json!({"reset": 1, "200": 1, "401": 1}));
    for (query, count) in [
        ("", 3),
        ("?after=2", 1),
        ("?effect=true", 2),
        ("?account=api_demo", 2),
        ("?method=GET", 0),
    ] {
        let seen = get(&format!("/thulium/requests{query}")).await;
        assert_eq!(seen.as_array().unwrap().len(), count, "{query}");
    }
    let patch = json!({"subscription_url": "https://drift.test/"});
    assert_eq!(
        admin(&doubles, Method::PATCH, "/thulium/objects/1", Some(patch))
            .await
            .status,
        200
    );
    assert_eq!(
        get("/thulium/objects").await[0]["subscription_url"],
        "https://drift.test/"
    );
    let typo = json!({"subscription_uri": "https://drift.test/"});
    assert_eq!(
        admin(&doubles, Method::PATCH, "/thulium/objects/1", Some(typo))
            .await
            .status,
        400
    );
    assert_eq!(
        admin(&doubles, Method::DELETE, "/thulium/objects/1", None)
            .await
            .status,
        200
    );
    assert_eq!(
        admin(&doubles, Method::DELETE, "/thulium/objects/1", None)
            .await
            .status,
        404
    );
    assert_eq!(
        admin(&doubles, Method::DELETE, "/thulium/faults/1", None)
            .await
            .status,
        200
    );
    assert_eq!(admin(&doubles, Method::POST, "/reset", None).await.status, 200);
    assert_eq!(get("/thulium/objects").await, json!([]));
    assert_eq!(get("/thulium/requests").await, json!([]));
}

#[tokio::test]
async fn wrong_orders_are_refused_with_a_reason() {
    let doubles = start().await;
    for (path, body) in [
        (
            "/thulium/faults",
            json!({"effect": {"kind": "status", "status": 99}}),
        ),
        ("/thulium/faults", json!({"effect": {"kind": "explode"}})),
        ("/thulium/deliver", json!({"id": 1})),
        ("/thulium/accounts", json!({"user": "x"})),
    ] {
        let answer = admin(&doubles, Method::POST, path, Some(body.clone())).await;
        assert!(
            (400..=422).contains(&answer.status),
            "{path} {body} gave {answer:?}"
        );
    }
    let patch = json!({"pagging": "Ignored"});
    let answer = admin(&doubles, Method::PATCH, "/thulium/behaviour", Some(patch)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (400, json!({"error": "unknown field pagging"}))
    );
    let both = json!({"secret": "x", "fromDouble": true});
    assert_eq!(
        admin(&doubles, Method::PUT, "/receiver/ricloud/a", Some(both))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn switches_accounts_latency_and_applications() {
    let doubles = start().await;
    let patch = json!({"createdStatus": 201, "delete": "MethodNotAllowed"});
    let changed = admin(&doubles, Method::PATCH, "/thulium/behaviour", Some(patch))
        .await
        .json();
    assert_eq!(
        (&changed["createdStatus"], &changed["update"]),
        (&json!(201), &json!("Supported"))
    );
    assert_eq!(
        subscribe(&doubles, "api_demo", "https://a.test/").await.unwrap(),
        201
    );
    admin(&doubles, Method::DELETE, "/thulium/behaviour", None).await;
    assert_eq!(doubles.thulium().behaviour().created_status, 200);
    let account = json!({"username": "team-b", "password": "demo-thulium-password"});
    admin(&doubles, Method::POST, "/thulium/accounts", Some(account)).await;
    assert_eq!(
        subscribe(&doubles, "team-b", "https://a.test/").await.unwrap(),
        200
    );
    let names = admin(&doubles, Method::GET, "/thulium/accounts", None)
        .await
        .json();
    assert_eq!(names, json!(["api_demo", "team-b"]));
    admin(&doubles, Method::DELETE, "/thulium/accounts/team-b", None).await;
    assert_eq!(
        subscribe(&doubles, "team-b", "https://a.test/").await.unwrap(),
        401
    );
    let latency = json!({"milliseconds": 7});
    admin(&doubles, Method::PUT, "/ricloud/latency", Some(latency.clone())).await;
    assert_eq!(
        admin(&doubles, Method::GET, "/ricloud/latency", None)
            .await
            .json(),
        latency
    );
    let strict = json!({"anyApplication": false});
    admin(&doubles, Method::PATCH, "/conpeek/behaviour", Some(strict)).await;
    assert_eq!(
        admin(&doubles, Method::PUT, "/conpeek/applications/9", None)
            .await
            .status,
        200
    );
    let url = format!("{}/application/9/webhook", doubles.conpeek().url());
    let body = json!({"url": "http://a.test/"});
    let put = || {
        client()
            .put(&url)
            .header("Authorization", "demo-conpeek-key")
            .json(&body)
    };
    assert_eq!(send(put()).await.status, 200);
    admin(&doubles, Method::DELETE, "/conpeek/applications/9", None).await;
    assert_eq!(send(put()).await.status, 404);
}

#[tokio::test]
async fn deliveries_and_what_the_receiver_got() {
    let doubles = start().await;
    let follow = json!({"fromDouble": true});
    admin(&doubles, Method::PUT, "/receiver/ricloud/a", Some(follow)).await;
    let url = format!("{}/ricloud/a", doubles.receiver().url());
    let create = client().post(format!("{}/configs/webhook", doubles.ricloud().url()));
    send(
        create
            .header("Authorization", "Token demo-ricloud-token")
            .json(&json!({"url": url})),
    )
    .await;
    until("the test delivery", || !doubles.receiver().received().is_empty()).await;
    let got = admin(
        &doubles,
        Method::GET,
        "/receiver/received?pathPrefix=/ricloud/",
        None,
    )
    .await
    .json();
    assert_eq!(
        (&got[0]["verdict"], &got[0]["status"]),
        (&json!("accepted"), &json!(200))
    );
    let basic = json!({"username": "u", "password": "p"});
    admin(&doubles, Method::PUT, "/receiver/basic/t", Some(basic)).await;
    let hook = format!("{}/basic/t", doubles.receiver().url());
    subscribe(&doubles, "api_demo", &hook).await.unwrap();
    let sent = admin(
        &doubles,
        Method::POST,
        "/thulium/deliver",
        Some(json!({"action": "A"})),
    )
    .await
    .json();
    assert_eq!(sent[0]["status"], 401, "the webhook has no credentials");
    let got = admin(
        &doubles,
        Method::GET,
        "/receiver/received?pathPrefix=/basic/",
        None,
    )
    .await
    .json();
    assert_eq!(got[0]["verdict"], "refused");
    assert!(got[0]["reason"].is_string());
    let scheme = json!({"secret": "a-secret-of-sixteen", "scheme": {"separator": ".", "encoding": "Hex"}});
    assert_eq!(
        admin(&doubles, Method::PUT, "/receiver/autocosmos/a", Some(scheme))
            .await
            .status,
        200
    );
    admin(&doubles, Method::DELETE, "/receiver/received", None).await;
    assert!(doubles.receiver().received().is_empty());
}
