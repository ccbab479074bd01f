//! ricloud.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use upstream_doubles::{
    ConfigState, DeleteSupport, Doubles, IdStyle, ImplicitTest, Judgement, References, RicloudAccount,
    StateNew, TaskCourse, Verdict,
};

use crate::common::{Answer, client, send, start, until};

async fn call_as(token: &str, doubles: &Doubles, method: Method, path: &str, body: Option<Value>) -> Answer {
    let url = format!("{}{path}", doubles.ricloud().url());
    let mut request = client()
        .request(method, url)
        .header("Authorization", format!("Token {token}"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    send(request).await
}

async fn call(doubles: &Doubles, method: Method, path: &str, body: Option<Value>) -> Answer {
    call_as("demo-ricloud-token", doubles, method, path, body).await
}

/// Creates a config; its id as text and its number.
async fn create(doubles: &Doubles, url: &str) -> (String, u64) {
    let answer = call(
        doubles,
        Method::POST,
        "/configs/webhook",
        Some(json!({"url": url})),
    )
    .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let number = id.strip_prefix("cfg-").unwrap().parse().unwrap();
    (id, number)
}

async fn reaches(doubles: &Doubles, number: u64, state: ConfigState) {
    until(&format!("{state:?}"), || {
        doubles
            .ricloud()
            .upstream()
            .config(number)
            .is_some_and(|config| config.state == state)
    })
    .await;
}

fn decide(doubles: &Doubles, verdict: Verdict) {
    doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.verdict = verdict;
        behaviour.test_millis = 20;
    });
}

#[tokio::test]
async fn create_is_tested_by_a_signed_delivery() {
    let doubles = start().await;
    doubles.follow_ricloud("a");
    let url = format!("{}/ricloud/a", doubles.receiver().url());
    let answer = call(
        &doubles,
        Method::POST,
        "/configs/webhook",
        Some(json!({"url": url})),
    )
    .await;
    assert_eq!(answer.status, 201);
    let config = answer.json();
    assert_eq!(
        (&config["resource"], &config["state"]),
        (&json!("webhook_config"), &json!("new"))
    );
    assert_eq!(
        (&config["url"], &config["organisation"]),
        (&json!(url), &json!("org-1"))
    );
    assert!(config["secret"].as_str().unwrap().len() >= 32);
    let path = format!("/configs/webhook/{}", config["id"].as_str().unwrap());
    let number = doubles.ricloud().objects()[0].id;
    reaches(&doubles, number, ConfigState::Valid).await;
    let read = call(&doubles, Method::GET, &path, None).await.json();
    assert_eq!(
        (&read["state"], &read["secret"]),
        (&json!("valid"), &config["secret"])
    );
    let received = doubles.receiver().received_at("/ricloud/a/");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].judgement, Judgement::Accepted);
    let event: Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(
        received[0].path,
        format!("/ricloud/a/{}", event["id"].as_str().unwrap())
    );
    assert_eq!(
        (&event["type"], &event["action"]),
        (&json!("webhook_config"), &json!("test"))
    );
    assert_eq!(
        (&event["resource"], &event["data"]["id"]),
        (&json!("event"), &config["id"])
    );
    assert!(!received[0].body.contains(config["secret"].as_str().unwrap()));
}

#[tokio::test]
async fn an_explicit_test_is_a_task_that_can_turn_the_verdict() {
    let doubles = start().await;
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.test_millis = 1000);
    doubles.receiver().expect_ricloud("b", "not the secret");
    let (id, number) = create(&doubles, &format!("{}/ricloud/b/", doubles.receiver().url())).await;
    reaches(&doubles, number, ConfigState::Invalid).await;
    assert!(matches!(
        doubles.receiver().received()[0].judgement,
        Judgement::Refused(_)
    ));
    let secret = doubles.ricloud().upstream().config(number).unwrap().secret;
    doubles.receiver().expect_ricloud("b", secret);
    let task = call(
        &doubles,
        Method::POST,
        &format!("/configs/webhook/{id}/test"),
        Some(json!({})),
    )
    .await;
    assert_eq!(task.status, 201);
    let task = task.json();
    assert_eq!(
        (&task["resource"], &task["type"]),
        (&json!("task"), &json!("webhook_config.test"))
    );
    assert_eq!((&task["state"], &task["target"]), (&json!("pending"), &json!(id)));
    let path = format!("/tasks/{}", task["id"].as_str().unwrap());
    let mut states = vec!["pending".to_owned()];
    let end = Instant::now() + Duration::from_secs(10);
    while states.last().unwrap() != "succeeded" {
        assert!(Instant::now() < end, "{states:?}");
        let state = call(&doubles, Method::GET, &path, None).await.json()["state"]
            .as_str()
            .unwrap()
            .to_owned();
        if states.last() != Some(&state) {
            states.push(state);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states, ["pending", "processing", "succeeded"]);
    let config = call(&doubles, Method::GET, &format!("/configs/webhook/{id}"), None)
        .await
        .json();
    assert_eq!(config["state"], "valid");
    let tasks = call(&doubles, Method::GET, "/tasks", None).await.json();
    assert_eq!(tasks["total_count"], 2);
    assert_eq!(
        tasks["data"][1]["error"], "webhook_config_test_failed",
        "newest first"
    );
}

#[tokio::test]
async fn tests_reach_loopback_only_and_follow_no_redirect() {
    let doubles = start().await;
    let receiver = doubles.receiver().url();
    let away = format!("{receiver}/redirect/307?to={receiver}/ok");
    for url in [
        "https://www.mywebhook.com/webhooks/",
        "http://192.0.2.1/",
        &away,
        &format!("{receiver}/status/500"),
    ] {
        let (_, number) = create(&doubles, url).await;
        reaches(&doubles, number, ConfigState::Invalid).await;
    }
    assert!(doubles.receiver().received_at("/ok").is_empty());
}

#[tokio::test]
async fn lists_have_pages_and_hide_deactivated_configs() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    for number in 0..25 {
        create(&doubles, &format!("https://a.test/{number}")).await;
    }
    doubles
        .ricloud()
        .add_account(RicloudAccount::new("other", "other-token", "other"));
    let foreign = call_as("other-token", &doubles, Method::GET, "/configs/webhook", None)
        .await
        .json();
    assert_eq!(
        (&foreign["total_count"], &foreign["data"]),
        (&json!(0), &json!([]))
    );
    let (mut query, mut sizes, mut ids) = (String::new(), Vec::new(), Vec::new());
    loop {
        let page = call(&doubles, Method::GET, &format!("/configs/webhook{query}"), None)
            .await
            .json();
        assert_eq!(
            (&page["resource"], &page["total_count"]),
            (&json!("list"), &json!(25))
        );
        let data = page["data"].as_array().unwrap();
        sizes.push(data.len());
        ids.extend(
            data.iter()
                .map(|config| config["id"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == false {
            break;
        }
        query = format!("?after_id={}", ids.last().unwrap());
    }
    assert_eq!(sizes, [10, 10, 5]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 25);
    let path = format!("/configs/webhook/{}", ids[0]);
    let answer = call(
        &doubles,
        Method::POST,
        &path,
        Some(json!({"state": "deactivated"})),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &json!("deactivated"))
    );
    assert_eq!(
        call(&doubles, Method::GET, &path, None).await.status,
        200,
        "still readable"
    );
    for (query, count) in [
        ("", 24),
        ("?state=deactivated", 1),
        ("?limit=1000", 24),
        ("?state=invalid", 0),
    ] {
        let list = call(&doubles, Method::GET, &format!("/configs/webhook{query}"), None)
            .await
            .json();
        assert_eq!(list["total_count"], count, "{query}");
    }
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?state=odd",
        "?after_id=77",
        "?date_created=x",
    ] {
        let answer = call(&doubles, Method::GET, &format!("/configs/webhook{query}"), None).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_params")),
            "{query}"
        );
    }
}

#[tokio::test]
async fn each_post_makes_a_new_config() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    let (first, one) = create(&doubles, "https://a.test/").await;
    let (second, two) = create(&doubles, "https://a.test/").await;
    assert_ne!(first, second);
    let duplicates = doubles.ricloud().duplicates();
    assert_eq!(duplicates[0].ids, [one.to_string(), two.to_string()]);
    let path = format!("/configs/webhook/{first}");
    call(
        &doubles,
        Method::POST,
        &path,
        Some(json!({"state": "deactivated"})),
    )
    .await;
    assert!(doubles.ricloud().duplicates().is_empty());
}

#[tokio::test]
async fn reactivation_is_switchable() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    let (id, number) = create(&doubles, "https://a.test/").await;
    let path = format!("/configs/webhook/{id}");
    let post = async |body: Value| call(&doubles, Method::POST, &path, Some(body)).await;
    for (state_new, url_reactivates, body, status, state) in [
        (StateNew::Allowed, true, json!({"state": "new"}), 200, "new"),
        (
            StateNew::Refused,
            true,
            json!({"state": "new"}),
            400,
            "deactivated",
        ),
        (
            StateNew::Ignored,
            true,
            json!({"state": "new"}),
            200,
            "deactivated",
        ),
        (
            StateNew::Refused,
            true,
            json!({"url": "https://a.test/"}),
            200,
            "new",
        ),
        (
            StateNew::Refused,
            false,
            json!({"url": "https://a.test/"}),
            200,
            "deactivated",
        ),
    ] {
        doubles.ricloud().change_behaviour(|behaviour| {
            behaviour.state_new = state_new;
            behaviour.url_reactivates = url_reactivates;
        });
        post(json!({"state": "deactivated"})).await;
        let answer = post(body.clone()).await;
        assert_eq!(answer.status, status, "{state_new:?} {body}");
        if status == 200 {
            assert_eq!(answer.json()["state"], state, "{state_new:?} {body}");
        }
        let expected = if state == "new" {
            ConfigState::Valid
        } else {
            ConfigState::Deactivated
        };
        reaches(&doubles, number, expected).await;
    }
}

#[tokio::test]
async fn deleting_is_switchable_and_refused_while_in_use() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    let (id, number) = create(&doubles, "https://a.test/").await;
    let path = format!("/configs/webhook/{id}");
    for (delete, status) in [
        (DeleteSupport::MethodNotAllowed, 405),
        (DeleteSupport::Forbidden, 403),
    ] {
        doubles
            .ricloud()
            .change_behaviour(|behaviour| behaviour.delete = delete);
        assert_eq!(call(&doubles, Method::DELETE, &path, None).await.status, status);
    }
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.delete = DeleteSupport::Supported);
    reaches(&doubles, number, ConfigState::Valid).await;
    let use_it = Some(json!({"webhook_config_default": id}));
    assert_eq!(
        call(&doubles, Method::POST, "/organisation", use_it).await.status,
        200
    );
    assert_eq!(call(&doubles, Method::DELETE, &path, None).await.status, 400);
    let end_use = Some(json!({"webhook_config_default": null}));
    assert_eq!(
        call(&doubles, Method::POST, "/organisation", end_use)
            .await
            .status,
        200
    );
    let answer = call(&doubles, Method::DELETE, &path, None).await;
    assert_eq!(
        (answer.status, answer.json()["id"].as_str()),
        (200, Some(id.as_str()))
    );
    assert_eq!(call(&doubles, Method::DELETE, &path, None).await.status, 404);
    assert_eq!(call(&doubles, Method::GET, &path, None).await.status, 404);
}

#[tokio::test]
async fn only_valid_configs_can_be_used() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysInvalid);
    let (id, number) = create(&doubles, "https://a.test/").await;
    let key = call(&doubles, Method::GET, "/key", None).await.json();
    assert_eq!(
        (&key["resource"], &key["webhook_config"]),
        (&json!("key"), &Value::Null)
    );
    let key_path = format!("/keys/{}", key["id"].as_str().unwrap());
    reaches(&doubles, number, ConfigState::Invalid).await;
    let use_it = || Some(json!({"webhook_config": id}));
    let answer = call(&doubles, Method::POST, &key_path, use_it()).await;
    assert_eq!(
        (
            answer.status,
            answer.json()["params"]["webhook_config"].is_array()
        ),
        (400, true)
    );
    decide(&doubles, Verdict::AlwaysValid);
    call(
        &doubles,
        Method::POST,
        &format!("/configs/webhook/{id}/test"),
        None,
    )
    .await;
    reaches(&doubles, number, ConfigState::Valid).await;
    let answer = call(&doubles, Method::POST, &key_path, use_it()).await;
    assert_eq!(
        (answer.status, &answer.json()["webhook_config"]),
        (200, &json!(id))
    );
    assert_eq!(doubles.ricloud().upstream().key_config("demo"), Some(number));
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.references = References::Object);
    let key = call(&doubles, Method::GET, &key_path, None).await.json();
    assert_eq!(key["webhook_config"]["url"], "https://a.test/");
    doubles
        .ricloud()
        .add_account(RicloudAccount::new("other", "other-token", "other"));
    let foreign = call_as("other-token", &doubles, Method::GET, &key_path, None).await;
    assert_eq!(foreign.status, 404, "keys of other organisations are not there");
    let foreign = json!({"webhook_config_default": id});
    let answer = call_as(
        "other-token",
        &doubles,
        Method::POST,
        "/organisation",
        Some(foreign),
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(doubles.ricloud().upstream().organisation_default("other"), None);
}

#[tokio::test]
async fn refusals() {
    let doubles = start().await;
    let url = format!("{}/configs/webhook", doubles.ricloud().url());
    for value in [
        "Token wrong",
        "Bearer demo-ricloud-token",
        "demo-ricloud-token",
        "Token ",
    ] {
        let answer = send(client().get(&url).header("Authorization", value)).await;
        assert_eq!(
            (answer.status, answer.json()["error"].is_string()),
            (401, true),
            "{value:?}"
        );
    }
    for body in [
        json!({}),
        json!({"url": "x"}),
        json!({"url": 1}),
        json!({"url": "https://a.test/", "secret": "x"}),
    ] {
        let answer = call(&doubles, Method::POST, "/configs/webhook", Some(body.clone())).await;
        assert_eq!(
            (answer.status, answer.json()["params"].is_object()),
            (400, true),
            "{body}"
        );
    }
    let malformed = client()
        .post(&url)
        .header("Authorization", "Token demo-ricloud-token");
    let malformed = malformed
        .header("Content-Type", "application/json")
        .body(r#"{"url": "https://a.test/",}"#);
    assert_eq!(send(malformed).await.json()["error"], "invalid_json");
    assert!(doubles.ricloud().objects().is_empty());
    for (method, path, status) in [
        (Method::PUT, "/configs/webhook", 405),
        (Method::GET, "/configs/webhook/cfg-99", 404),
        (Method::GET, "/configs/webhook/99", 404),
        (Method::POST, "/configs/webhook/cfg-99/test", 404),
        (Method::GET, "/tasks/task-99", 404),
        (Method::GET, "/elsewhere", 404),
    ] {
        assert_eq!(call(&doubles, method, path, None).await.status, status, "{path}");
    }
    let mut reader = RicloudAccount::new("reader", "reader-token", "demo");
    reader.read_only = true;
    doubles.ricloud().add_account(reader);
    let body = Some(json!({"url": "https://a.test/"}));
    assert_eq!(
        call_as("reader-token", &doubles, Method::POST, "/configs/webhook", body)
            .await
            .status,
        403
    );
    let (id, _) = create(&doubles, "https://a.test/").await;
    for body in [
        json!({}),
        json!({"state": "valid"}),
        json!({"state": 1}),
        json!({"events": []}),
    ] {
        let answer = call(
            &doubles,
            Method::POST,
            &format!("/configs/webhook/{id}"),
            Some(body.clone()),
        )
        .await;
        assert_eq!(answer.status, 400, "{body}");
    }
    let path = format!("/configs/webhook/{id}/test");
    assert_eq!(
        call(&doubles, Method::GET, &path, None).await.status,
        405,
        "never by GET"
    );
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.refuse_test_body = true);
    assert_eq!(
        call(&doubles, Method::POST, &path, Some(json!({}))).await.status,
        400
    );
    assert_eq!(call(&doubles, Method::POST, &path, None).await.status, 201);
}

#[tokio::test]
async fn requests_in_the_manner_of_the_official_client_are_taken() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    let url = format!("{}/configs/webhook", doubles.ricloud().url());
    let post = |path: &str, body: &'static str| {
        client()
            .post(format!("{url}{path}"))
            .header("Authorization", "Token demo-ricloud-token")
            .body(body)
    };
    let created = send(post("", r#"{"url": "https://a.test/"}"#)).await;
    assert_eq!(created.status, 201, "JSON without a content type");
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(send(post(&format!("/{id}/test"), "null")).await.status, 201);
    let typed = post("", r#"{"url": "https://a.test/"}"#).header("Content-Type", "text/plain");
    assert_eq!(send(typed).await.status, 400);
}

#[tokio::test]
async fn tasks_may_hang_suspend_or_vanish_and_implicit_tests_get_lost() {
    let doubles = start().await;
    decide(&doubles, Verdict::AlwaysValid);
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.implicit_test = ImplicitTest::Lost);
    let (id, number) = create(&doubles, "https://a.test/").await;
    let state = || doubles.ricloud().upstream().config(number).unwrap().state;
    for (course, task_state) in [
        (TaskCourse::Hangs, "processing"),
        (TaskCourse::Suspended, "suspended"),
    ] {
        doubles
            .ricloud()
            .change_behaviour(|behaviour| behaviour.tasks = course);
        let task = call(
            &doubles,
            Method::POST,
            &format!("/configs/webhook/{id}/test"),
            None,
        )
        .await
        .json();
        let path = format!("/tasks/{}", task["id"].as_str().unwrap());
        let end = Instant::now() + Duration::from_secs(10);
        while call(&doubles, Method::GET, &path, None).await.json()["state"] != task_state {
            assert!(Instant::now() < end, "{course:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Longer than a test takes.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(
            call(&doubles, Method::GET, &path, None).await.json()["state"],
            task_state
        );
        assert_eq!(state(), ConfigState::New);
    }
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.tasks = TaskCourse::Vanishes);
    let task = call(
        &doubles,
        Method::POST,
        &format!("/configs/webhook/{id}/test"),
        None,
    )
    .await
    .json();
    reaches(&doubles, number, ConfigState::Valid).await;
    let path = format!("/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(call(&doubles, Method::GET, &path, None).await.status, 404);
}

#[tokio::test]
async fn an_old_test_does_not_judge_a_new_url() {
    let doubles = start().await;
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.test_millis = 0);
    let receiver = doubles.receiver().url();
    let (id, number) = create(&doubles, &format!("{receiver}/slow/1000")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.implicit_test = ImplicitTest::Lost);
    let body = Some(json!({"url": format!("{receiver}/status/500")}));
    call(&doubles, Method::POST, &format!("/configs/webhook/{id}"), body).await;
    until("the old delivery", || {
        !doubles.receiver().received_at("/slow").is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        doubles.ricloud().upstream().config(number).unwrap().state,
        ConfigState::New
    );
}

#[tokio::test]
async fn ids_may_be_numbers_and_secrets_hidden() {
    let doubles = start().await;
    doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.ids = IdStyle::Number;
        behaviour.secret_in_reads = false;
    });
    let body = Some(json!({"url": "https://a.test/"}));
    let created = call(&doubles, Method::POST, "/configs/webhook", body)
        .await
        .json();
    let id = created["id"].as_u64().unwrap();
    assert!(created["secret"].is_string() && created["organisation"].is_u64());
    let read = call(&doubles, Method::GET, &format!("/configs/webhook/{id}"), None)
        .await
        .json();
    assert_eq!((&read["id"], read.get("secret")), (&json!(id), None));
    let list = call(&doubles, Method::GET, "/configs/webhook", None).await.json();
    assert_eq!(list["data"][0].get("secret"), None);
    assert_eq!(doubles.ricloud().upstream().external_id(id), id.to_string());
}

#[tokio::test]
async fn answers_can_be_held() {
    let doubles = start().await;
    doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.verdict = Verdict::AlwaysValid;
        behaviour.test_millis = 200;
    });
    let url = format!("{}/configs/webhook", doubles.ricloud().url());
    let request = client()
        .post(url)
        .header("Authorization", "Token demo-ricloud-token");
    let request = request
        .header("Ricloud-Await", "5")
        .json(&json!({"url": "https://a.test/"}));
    assert_eq!(send(request).await.json()["state"], "valid");
}

#[tokio::test]
async fn other_events_can_be_delivered() {
    let doubles = start().await;
    doubles.follow_ricloud("c");
    let (_, number) = create(&doubles, &format!("{}/ricloud/c", doubles.receiver().url())).await;
    reaches(&doubles, number, ConfigState::Valid).await;
    doubles.receiver().clear();
    let order = json!({"id": number, "type": "task", "action": "failed", "data": {"error": "żółw"}});
    assert!(doubles.ricloud().deliver(order).await.unwrap()[0].accepted());
    let received = doubles.receiver().received();
    assert!(received[0].body.contains("żółw"));
    assert_eq!(received[0].judgement, Judgement::Accepted);
}
