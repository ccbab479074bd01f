//! Autocosmos.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};
use upstream_doubles::sign::{AcsRequest, DeliverySignature, Encoding, digest_sha256};
use upstream_doubles::{AutocosmosAccount, Doubles, Judgement, PutMissing, ReplayRule};

use crate::common::{Answer, client, send, start};

const KEY: &str = "demo-app-key";
const SECRET: &str = "demo-app-secret";
const VECTOR_DATE: &str = "Wed, 01 May 2024 12:00:00 GMT";
const PATH: &str = "/v3/appnotificaciones/invitaciones";

fn http_date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A request that can be spoiled before it is sent.
struct Signed {
    method: Method,
    path: String,
    date: Option<String>,
    digest: Option<String>,
    body: Option<String>,
    authorization: Option<String>,
}

impl Signed {
    fn new(method: Method, path: &str, body: Option<&Value>, date: String) -> Self {
        Self::with(KEY, SECRET, method, path, body, date)
    }

    fn with(key: &str, secret: &str, method: Method, path: &str, body: Option<&Value>, date: String) -> Self {
        let body = body.map(Value::to_string);
        let digest = body.as_ref().map(|body| digest_sha256(body.as_bytes()));
        let mac = AcsRequest {
            method: method.as_str(),
            digest: digest.as_deref().unwrap_or_default(),
            date: &date,
            acs_headers: &[],
            path_and_query: path,
        }
        .mac(secret);
        let authorization = Some(format!("ACS-HMAC {key}:{mac}"));
        Self {
            method,
            path: path.to_owned(),
            date: Some(date),
            digest,
            body,
            authorization,
        }
    }

    async fn send(self, doubles: &Doubles) -> Answer {
        let url = format!("{}{}", doubles.autocosmos().url(), self.path);
        let mut request = client().request(self.method, url);
        for (name, value) in [
            ("Authorization", self.authorization),
            ("Date", self.date),
            ("Digest", self.digest),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(body) = self.body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        send(request).await
    }
}

fn now() -> String {
    http_date(SystemTime::now())
}

/// Signed right; the replay rule is off so that the tests need not wait.
async fn call(doubles: &Doubles, method: Method, path: &str, body: Option<&Value>) -> Answer {
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.replay_rule = ReplayRule::Off);
    Signed::new(method, path, body, now()).send(doubles).await
}

fn example() -> Value {
    json!({
        "Callback": "https://callbacks.myapp.com/autocosmos/event",
        "Secret": null,
        "Description": "Mi callback para algo",
        "Activo": true,
        "HeaderCustom01": {"Name": "X-MYAPP-PRODUCER", "Value": "Autocosmos"},
        "HeaderCustom02": null,
        "HeaderCustom03": null
    })
}

#[tokio::test]
async fn the_contracts_request_vectors_are_accepted() {
    let doubles = start().await;
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.clock_skew_seconds = u64::MAX);
    let body = r#"{"Callback":"https://hooks.example.test/acs","Secret":"whop-demo-secret-0001","Description":"demo","Activo":true,"HeaderCustom01":{"Name":"X-Env","Value":"dev"},"HeaderCustom02":null,"HeaderCustom03":null}"#;
    let url = format!("{}{PATH}", doubles.autocosmos().url());
    let with = |method: Method, mac: &str| {
        client()
            .request(method, &url)
            .header("Authorization", format!("ACS-HMAC demo-app-key:{mac}"))
    };
    let a = with(Method::GET, "IN5egbiLsrkLjKLxVc8XA5x25eVvoW+ojsfYonwSF4E=").header("Date", VECTOR_DATE);
    assert_eq!(send(a).await.status, 404, "accepted, and never configured");
    let b =
        with(Method::GET, "DFRjHJaDoeqW/ja4n1zFa/CXCp86ZWnvRRJVt7zVwrg=").header("X-ACS-Date", VECTOR_DATE);
    assert_eq!(send(b).await.status, 404);
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.put_missing = PutMissing::Create);
    let c = || {
        with(Method::PUT, "oY/o9NByPT92ynU0O/s67C48k1nLQ44LFXXrVvkIoAI=")
            .header("Date", VECTOR_DATE)
            .header("Digest", "sha-256=b8NrqmGTqCpNrGkHpzjGvCNY+yo2vkt5ZJuPROkhWxQ=")
            .header("Content-Type", "application/json")
    };
    assert_eq!(
        send(c().body(format!("{body} "))).await.status,
        401,
        "another body"
    );
    assert_eq!(send(c().body(body)).await.status, 200);
    let stored = doubles
        .autocosmos()
        .upstream()
        .webhook(KEY, "invitaciones")
        .unwrap();
    assert_eq!(stored.secret.unwrap().reveal(), "whop-demo-secret-0001");
}

#[tokio::test]
async fn create_conflict_read_and_replace() {
    let doubles = start().await;
    assert_eq!(call(&doubles, Method::GET, PATH, None).await.status, 404);
    let created = call(&doubles, Method::POST, PATH, Some(&example())).await;
    assert_eq!((created.status, created.header("location")), (201, PATH));
    let mut expected = example();
    expected["_links"] = json!({"rel1": {"href": PATH}, "rel2": {"href": PATH, "method": "PUT"}});
    assert_eq!(created.json(), expected);
    let conflict = call(&doubles, Method::POST, PATH, Some(&example())).await;
    assert_eq!(conflict.status, 409);
    assert_eq!(conflict.header("content-type"), "application/problem+json");
    let problem = conflict.json();
    assert_eq!(problem["Status"], 400, "the body of a 409 says 400");
    assert!(problem["Errors"]["_"][0].is_string());
    let mut changed = example();
    changed["Secret"] = json!("96d0300081d644d3bdceae8fbfc77955");
    changed["Activo"] = json!(false);
    changed["HeaderCustom01"] = Value::Null;
    let put = call(&doubles, Method::PUT, PATH, Some(&changed)).await;
    assert_eq!((put.status, &put.json()["Activo"]), (200, &json!(false)));
    let read = call(&doubles, Method::GET, PATH, None).await.json();
    assert_eq!(
        (&read["Secret"], &read["HeaderCustom01"]),
        (&Value::Null, &Value::Null)
    );
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.secret_echo = true);
    let read = call(&doubles, Method::GET, PATH, None).await.json();
    assert_eq!(read["Secret"], "96d0300081d644d3bdceae8fbfc77955");
    assert_eq!(doubles.autocosmos().objects().len(), 1);
}

#[tokio::test]
async fn wrong_signatures_are_refused() {
    let doubles = start().await;
    let right = || Signed::new(Method::POST, PATH, Some(&example()), now());
    let at = |offset: i64| {
        let shift = Duration::from_secs(offset.unsigned_abs());
        let time = if offset < 0 {
            SystemTime::now() - shift
        } else {
            SystemTime::now() + shift
        };
        Signed::new(Method::POST, PATH, Some(&example()), http_date(time))
    };
    let other = json!({"Callback": "https://evil.test/"});
    let cases: Vec<(&str, Signed)> = vec![
        (
            "nothing",
            Signed {
                authorization: None,
                ..right()
            },
        ),
        (
            "other scheme",
            Signed {
                authorization: Some("ACS-H demo-app-key:x".to_owned()),
                ..right()
            },
        ),
        (
            "unknown key",
            Signed::with("nobody", SECRET, Method::POST, PATH, Some(&example()), now()),
        ),
        (
            "wrong secret",
            Signed::with(KEY, "wrong", Method::POST, PATH, Some(&example()), now()),
        ),
        (
            "no date",
            Signed {
                date: None,
                ..right()
            },
        ),
        (
            "unreadable date",
            Signed::new(Method::POST, PATH, Some(&example()), "yesterday".to_owned()),
        ),
        ("too old", at(-310)),
        ("too new", at(310)),
        (
            "no digest",
            Signed {
                digest: None,
                ..right()
            },
        ),
        (
            "other body",
            Signed {
                body: Some(other.to_string()),
                ..right()
            },
        ),
        (
            "other digest",
            Signed {
                digest: Some(digest_sha256(b"x")),
                ..right()
            },
        ),
        (
            "other path",
            Signed {
                path: "/v3/appnotificaciones/other".to_owned(),
                ..right()
            },
        ),
        (
            "other query",
            Signed {
                path: format!("{PATH}?a=b"),
                ..right()
            },
        ),
        (
            "other method",
            Signed {
                method: Method::PUT,
                ..right()
            },
        ),
    ];
    for (what, request) in cases {
        let answer = request.send(&doubles).await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.json()["Status"], 401, "{what}");
    }
    assert!(doubles.autocosmos().objects().is_empty());
    assert_eq!(at(-290).send(&doubles).await.status, 201, "within five minutes");
    let with_query = Signed::new(Method::GET, &format!("{PATH}?a=b"), None, now());
    assert_eq!(
        with_query.send(&doubles).await.status,
        200,
        "the query is signed too"
    );
}

#[tokio::test]
async fn a_repeated_hmac_is_refused_within_the_window() {
    let doubles = start().await;
    let window = |millis| {
        doubles
            .autocosmos()
            .change_behaviour(|behaviour| behaviour.replay_window_millis = millis);
    };
    assert_eq!(
        doubles.autocosmos().behaviour().replay_window_millis,
        1000,
        "unless told otherwise"
    );
    let date = now();
    for method in [Method::GET, Method::POST] {
        let body = (method == Method::POST).then(example);
        let send = || Signed::new(method.clone(), PATH, body.as_ref(), date.clone()).send(&doubles);
        // Long, so that a slow machine cannot leave it between two requests.
        window(60_000);
        assert_ne!(send().await.status, 401, "{method}");
        assert_eq!(send().await.status, 401, "{method}");
        window(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_ne!(send().await.status, 401, "{method} after the window");
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.replay_rule = ReplayRule::NonIdempotent);
    window(60_000);
    for (method, status) in [(Method::GET, 200), (Method::PUT, 401)] {
        let body = (method == Method::PUT).then(example);
        let send = || Signed::new(method.clone(), PATH, body.as_ref(), date.clone()).send(&doubles);
        assert_eq!(send().await.status, 200);
        assert_eq!(send().await.status, status, "{method}");
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let doubles = start().await;
    for (field, value) in [
        ("Secret", json!("x".repeat(15))),
        ("Secret", json!("x".repeat(257))),
        ("Secret", json!(7)),
        ("Callback", json!(format!("https://a.test/{}", "x".repeat(1024)))),
        ("Callback", json!("not a uri")),
        ("Description", json!("x".repeat(257))),
        ("Activo", json!("yes")),
        ("HeaderCustom02", json!({"Name": "X"})),
        ("HeaderCustom03", json!({"Name": "X", "Value": "y", "More": 1})),
    ] {
        let mut body = example();
        body[field] = value;
        let answer = call(&doubles, Method::POST, PATH, Some(&body)).await;
        assert_eq!(answer.status, 400, "{field}");
        assert!(answer.json()["Errors"][field][0].is_string(), "{answer:?}");
    }
    let mut extra = example();
    extra["Topic"] = json!("x");
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.refuse_unknown_fields = true);
    assert_eq!(call(&doubles, Method::POST, PATH, Some(&extra)).await.status, 400);
    assert!(doubles.autocosmos().objects().is_empty());
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.refuse_unknown_fields = false);
    extra["Secret"] = json!("é".repeat(256));
    extra["Description"] = json!("é".repeat(256));
    assert_eq!(
        call(&doubles, Method::POST, PATH, Some(&extra)).await.status,
        201,
        "counted in characters"
    );
}

#[tokio::test]
async fn topics_belong_to_applications() {
    let doubles = start().await;
    let mut limited = AutocosmosAccount::new("limited", "limited-secret");
    limited.topics = Some(["a b/ñ".to_owned()].into());
    doubles.autocosmos().add_account(limited);
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.replay_rule = ReplayRule::Off);
    let send = async |method: Method, path: &str, body: Option<&Value>| {
        Signed::with("limited", "limited-secret", method, path, body, now())
            .send(&doubles)
            .await
    };
    let refused = send(Method::POST, PATH, Some(&example())).await;
    assert_eq!((refused.status, refused.json().get("Errors")), (403, None));
    assert_eq!(send(Method::PUT, PATH, Some(&example())).await.status, 403);
    assert_eq!(send(Method::GET, PATH, None).await.status, 404);
    let encoded = "/v3/appnotificaciones/a%20b%2F%C3%B1";
    assert_eq!(send(Method::POST, encoded, Some(&example())).await.status, 201);
    assert!(
        doubles
            .autocosmos()
            .upstream()
            .webhook("limited", "a b/ñ")
            .is_some()
    );
    assert_eq!(
        call(&doubles, Method::GET, encoded, None).await.status,
        404,
        "one per application"
    );
    for path in [
        "/v3/appnotificaciones/",
        "/v3/appnotificaciones/a/b",
        "/v2/appnotificaciones/a",
    ] {
        assert_eq!(
            call(&doubles, Method::GET, path, None).await.status,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn delete_and_put_without_create_are_switchable() {
    let doubles = start().await;
    assert_eq!(
        call(&doubles, Method::PUT, PATH, Some(&example())).await.status,
        404
    );
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.put_missing = PutMissing::Create);
    assert_eq!(
        call(&doubles, Method::PUT, PATH, Some(&example())).await.status,
        200
    );
    assert_eq!(call(&doubles, Method::DELETE, PATH, None).await.status, 405);
    doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.delete_link = true);
    let links = call(&doubles, Method::GET, PATH, None).await.json()["_links"].clone();
    assert!(
        links
            .as_object()
            .unwrap()
            .values()
            .any(|link| link["method"] == "DELETE")
    );
    assert_eq!(call(&doubles, Method::DELETE, PATH, None).await.status, 204);
    assert_eq!(call(&doubles, Method::DELETE, PATH, None).await.status, 404);
}

#[tokio::test]
async fn deliveries_are_signed_as_configured() {
    let doubles = start().await;
    let mut body = example();
    body["Callback"] = json!(format!("{}/autocosmos/a", doubles.receiver().url()));
    body["Secret"] = json!("whop-demo-secret-0001");
    call(&doubles, Method::POST, PATH, Some(&body)).await;
    let order = json!({"appKey": KEY, "topic": "invitaciones", "body": {"id": 1}});
    for (separator, encoding) in [
        ("", Encoding::Base64),
        ("\n", Encoding::Hex),
        (".", Encoding::Base64),
        ("|", Encoding::Hex),
    ] {
        let scheme = DeliverySignature {
            separator: separator.to_owned(),
            encoding,
        };
        doubles
            .autocosmos()
            .change_behaviour(|behaviour| behaviour.delivery_signature = scheme.clone());
        let other = DeliverySignature {
            separator: "-".to_owned(),
            encoding,
        };
        for (expected, status) in [(None, 200), (Some(scheme), 200), (Some(other), 401)] {
            doubles
                .receiver()
                .expect_autocosmos("a", "whop-demo-secret-0001", expected);
            let delivered = doubles.autocosmos().deliver(order.clone()).await.unwrap();
            assert_eq!(delivered[0].status, Some(status), "{separator:?}");
        }
    }
    let received = doubles.receiver().received();
    assert_eq!(received[0].header("x-myapp-producer"), Some("Autocosmos"));
    assert_eq!(received[0].header("notification-topic"), Some("invitaciones"));
    doubles
        .receiver()
        .expect_autocosmos("a", "whop-demo-secret-0001", None);
    let mut without = order.clone();
    without["withoutTopic"] = json!(true);
    assert!(doubles.autocosmos().deliver(without).await.unwrap()[0].accepted());
    let last = doubles.receiver().received().pop().unwrap();
    assert_eq!(last.header("notification-topic"), None);
    assert_eq!(last.judgement, Judgement::Accepted);
    doubles
        .receiver()
        .expect_autocosmos("a", "another-secret-0001", None);
    assert_eq!(
        doubles.autocosmos().deliver(order.clone()).await.unwrap()[0].status,
        Some(401)
    );
    doubles
        .autocosmos()
        .edit("demo-app-key/invitaciones", |webhook| webhook.activo = false);
    assert!(doubles.autocosmos().deliver(order).await.is_err(), "suspended");
}
