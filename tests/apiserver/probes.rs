//! The operator's own test of a receiver: what is sent, when, and what becomes of the verdict.

use std::time::Duration;

use serde_json::{Value, json};
use upstream_doubles::{Judgement, Received};
use webhook_operator::api::{
    TEST_REQUESTED_AT, Webhook,
    conditions::{ConditionType, ReadyReason, ReconcilingReason, TestedReason},
    provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
    webhook::TestMode,
    webhook_status::{DeactivatedBy, State, TestResult},
};

use crate::{
    audit::{Audit, patches},
    world::{World, has_reason, message, status},
};

const SECRET: &str = "a-signing-secret-of-some-length";

/// A spec with what the upstream requires, and these fields on top.
fn spec(provider: ProviderType, url: &str, more: Value) -> Value {
    let mut spec = match provider {
        Conpeek => json!({ "target": "9" }),
        Thulium => json!({ "events": ["TICKET_CREATED"] }),
        Ricloud => json!({}),
        Autocosmos => json!({ "target": "precios", "secretRef": { "name": "signing" } }),
    };
    spec["url"] = json!(url);
    spec["test"] = json!({ "mode": "Auto" });
    for (name, value) in more.as_object().expect("fields") {
        spec[name] = value.clone();
    }
    spec
}

/// A world with a provider, and the Secret that Autocosmos signs with.
async fn world(prefix: &str, provider: ProviderType) -> World {
    let world = World::new(prefix).await;
    world.secret("signing", &[("secret", SECRET)]).await;
    world.provider(provider).await;
    world
}

impl World {
    fn receiver(&self, path: &str) -> String {
        format!("{}/{path}", self.doubles.receiver().url())
    }

    /// What has arrived at a path of the receiver, from now on or before.
    fn arrived(&self, path: &str) -> Vec<Received> {
        self.doubles.receiver().received_at(&format!("/{path}"))
    }
}

fn test_of(webhook: &Webhook) -> webhook_operator::api::webhook_status::TestStatus {
    status(webhook).test.expect("a test is recorded")
}

#[tokio::test]
async fn a_new_webhook_is_tested_as_its_upstream_would_deliver() {
    let world = world("probe-new", Conpeek).await;
    let token = [("token", "sh4red-value")];
    world.secret("receiver", &token).await;
    let headers = json!([
        { "name": "X-Source", "value": "conpeek" },
        { "name": "X-Token", "valueFrom": { "secretKeyRef": { "name": "receiver", "key": "token" } } },
    ]);
    let url = world.receiver("ok/conpeek");
    world
        .webhook("w", Conpeek, spec(Conpeek, &url, json!({ "headers": headers })))
        .await;
    let webhook = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&webhook, TestedReason::Passed));
    let found = status(&webhook);
    assert_eq!(found.state, Some(State::Valid));
    let test = test_of(&webhook);
    assert_eq!(
        (test.result, test.mode),
        (Some(TestResult::Passed), Some(TestMode::Probe))
    );
    assert_eq!((test.http_status, test.consecutive_failures), (Some(200), 0));
    assert!(
        test.latency_milliseconds
            .is_some_and(|took| (0..10_000).contains(&took))
    );
    assert_eq!(test.history.len(), 1);
    let arrived = world.arrived("ok/conpeek");
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    let delivery = &arrived[0];
    assert_eq!(delivery.header("x-source"), Some("conpeek"));
    assert_eq!(delivery.header("x-token"), Some("sh4red-value"));
    assert_eq!(delivery.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_str(&delivery.body).expect("JSON");
    assert_eq!(body["type"], "webhook.test");
    assert_eq!(body["webhook"], json!(format!("{}/w", world.namespace)));
}

#[tokio::test]
async fn thulium_s_receiver_gets_the_basic_credentials() {
    let world = world("probe-basic", Thulium).await;
    let login = [("username", "hookuser"), ("password", "hookpass")];
    world.secret("receiver", &login).await;
    let name = &world.namespace;
    world
        .doubles
        .receiver()
        .expect_basic(name, "hookuser", "hookpass");
    let url = world.receiver(&format!("basic/{name}"));
    let basic = json!({ "basicAuthRef": { "name": "receiver" } });
    world.webhook("w", Thulium, spec(Thulium, &url, basic)).await;
    world.wait_ready("w", ReadyReason::Available).await;
    // Without them it answers 401, which nothing signed can be blamed for.
    world.change("w", json!({ "basicAuthRef": null })).await;
    let refused = world.wait_reason("w", TestedReason::HttpStatus).await;
    assert!(has_reason(&refused, ReadyReason::TestFailed));
    assert_eq!(status(&refused).state, Some(State::Invalid));
    let told = message(&refused, ConditionType::Tested);
    assert!(
        told.contains("401") && told.contains("spec.basicAuthRef"),
        "{told}"
    );
}

#[tokio::test]
async fn autocosmos_s_receiver_verifies_and_a_changed_secret_is_tested_again() {
    let world = world("probe-signed", Autocosmos).await;
    let name = world.namespace.clone();
    world.doubles.receiver().expect_autocosmos(&name, SECRET, None);
    let url = world.receiver(&format!("autocosmos/{name}"));
    world
        .webhook("w", Autocosmos, spec(Autocosmos, &url, json!({})))
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    let arrived = world.arrived(&format!("autocosmos/{name}"));
    assert_eq!(arrived[0].judgement, Judgement::Accepted);
    assert_eq!(arrived[0].header("notification-topic"), Some("precios"));
    // The receiver still has the old one.
    let other = "another-signing-secret-of-some-length";
    world.secret("signing", &[("secret", other)]).await;
    let refused = world.wait_reason("w", TestedReason::SignatureRejected).await;
    assert!(has_reason(&refused, ReadyReason::TestFailed));
    let told = message(&refused, ConditionType::Tested);
    assert!(told.contains("spec.secretRef") && !told.contains(other), "{told}");
    assert_eq!(test_of(&refused).consecutive_failures, 1);
    // It gets the new one, and somebody asks for a test.
    world.doubles.receiver().expect_autocosmos(&name, other, None);
    world.annotate("w", TEST_REQUESTED_AT, "now").await;
    let passed = world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(status(&passed).last_handled_test_at.as_deref(), Some("now"));
    let test = test_of(&passed);
    assert_eq!((test.consecutive_failures, test.history.len()), (0, 3));
}

#[tokio::test]
async fn a_careless_receiver_is_told_that_it_takes_forgeries() {
    let world = world("probe-forged", Autocosmos).await;
    let name = world.namespace.clone();
    let careless = world.receiver(&format!("ok/{name}"));
    let check = json!({ "test": { "mode": "Auto", "checkForgery": true } });
    world
        .webhook("w", Autocosmos, spec(Autocosmos, &careless, check))
        .await;
    let told = world.wait_reason("w", TestedReason::ForgeryAccepted).await;
    assert!(has_reason(&told, ReadyReason::TestFailed));
    assert_eq!(status(&told).state, Some(State::Invalid));
    assert_eq!(test_of(&told).forged_accepted, Some(true));
    let signatures: Vec<_> = world
        .arrived(&format!("ok/{name}"))
        .iter()
        .map(|delivery| delivery.header("notification-signature").map(str::to_owned))
        .collect();
    assert_eq!(signatures.len(), 2);
    assert_ne!(signatures[0], signatures[1]);
    // One that verifies refuses the second.
    world.doubles.receiver().expect_autocosmos(&name, SECRET, None);
    let careful = world.receiver(&format!("autocosmos/{name}"));
    world.change("w", json!({ "url": careful })).await;
    let passed = world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(test_of(&passed).forged_accepted, Some(false));
    let judged: Vec<_> = world
        .arrived(&format!("autocosmos/{name}"))
        .into_iter()
        .map(|delivery| delivery.judgement == Judgement::Accepted)
        .collect();
    assert_eq!(judged, [true, false]);
}

#[tokio::test]
async fn ricloud_s_receiver_is_probed_by_choice_with_the_published_secret() {
    let world = world("probe-ricloud", Ricloud).await;
    let url = world.ricloud_receiver("w");
    let mode = json!({ "test": { "mode": "Probe" } });
    world.webhook("w", Ricloud, spec(Ricloud, &url, mode)).await;
    let webhook = world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(test_of(&webhook).mode, Some(TestMode::Probe));
    let probes = |world: &World| {
        let arrived = world.arrived("ricloud/w");
        arrived
            .into_iter()
            .filter(|delivery| delivery.body.contains("\"webhook.test\""))
            .collect::<Vec<_>>()
    };
    let sent = probes(&world);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].judgement, Judgement::Accepted);
}

#[tokio::test]
async fn while_a_probe_is_on_its_way_the_status_says_so() {
    let world = world("probe-wait", Conpeek).await;
    let url = world.receiver("slow/2500");
    world.webhook("w", Conpeek, spec(Conpeek, &url, json!({}))).await;
    let waiting = world.wait_ready("w", ReadyReason::NotYetTested).await;
    assert!(has_reason(&waiting, TestedReason::Pending));
    assert!(has_reason(&waiting, ReconcilingReason::WaitingForTest));
    assert_eq!(status(&waiting).state, Some(State::New));
    let ready = world.wait_ready("w", ReadyReason::Available).await;
    assert!(crate::world::condition(&ready, ConditionType::Reconciling).is_none());
    assert!(test_of(&ready).latency_milliseconds >= Some(2500));
}

#[tokio::test]
async fn a_verdict_on_an_older_url_does_not_count() {
    let world = world("probe-older", Conpeek).await;
    // The first answers late and well, its successor at once and badly.
    let url = world.receiver("slow/3000");
    world.webhook("w", Conpeek, spec(Conpeek, &url, json!({}))).await;
    world.wait_ready("w", ReadyReason::NotYetTested).await;
    world
        .change("w", json!({ "url": world.receiver("status/503/older") }))
        .await;
    world.wait_reason("w", TestedReason::HttpStatus).await;
    world
        .eventually("the answer to the first", || {
            !world.arrived("slow/3000").is_empty()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let webhook = world.get("w").await;
    assert!(has_reason(&webhook, TestedReason::HttpStatus));
    assert_eq!(test_of(&webhook).history.len(), 1);
}

#[tokio::test]
async fn what_is_off_or_suspended_is_not_probed() {
    let world = world("probe-off", Autocosmos).await;
    let url = world.receiver("ok/off");
    let off = json!({ "active": false });
    world.webhook("w", Autocosmos, spec(Autocosmos, &url, off)).await;
    let webhook = world.wait_ready("w", ReadyReason::Deactivated).await;
    assert!(has_reason(&webhook, TestedReason::NotRun));
    assert_eq!(status(&webhook).deactivated_by, Some(DeactivatedBy::Spec));
    // A request is handled all the same, or it would wait for ever.
    world.annotate("w", TEST_REQUESTED_AT, "now").await;
    world
        .wait("w", "the request to be handled", |webhook| {
            status(webhook).last_handled_test_at.as_deref() == Some("now")
        })
        .await;
    assert!(world.arrived("ok/off").is_empty());
    world
        .change("w", json!({ "active": true, "suspend": true }))
        .await;
    world.wait_ready("w", ReadyReason::Suspended).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.arrived("ok/off").is_empty());
    // The control: what keeps it from being probed was that.
    world.change("w", json!({ "suspend": false })).await;
    let webhook = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&webhook, TestedReason::Passed));
    assert_eq!(world.arrived("ok/off").len(), 1);
}

#[tokio::test]
async fn a_test_costs_one_write_and_no_call_of_the_upstream() {
    let world = world("probe-cost", Thulium).await;
    let url = world.receiver("ok/cost");
    world.webhook("w", Thulium, spec(Thulium, &url, json!({}))).await;
    world.wait_ready("w", ReadyReason::Available).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.doubles.thulium().counts().total;
    let mut audit = Audit::begin(&world);
    world.annotate("w", TEST_REQUESTED_AT, "again").await;
    world
        .wait("w", "the request to be handled", |webhook| {
            status(webhook).last_handled_test_at.as_deref() == Some("again")
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let requests = audit.requests().await;
    let patches = patches(&requests, "w");
    let statuses = patches.iter().filter(|patch| patch.resource == "webhooks/status");
    assert_eq!(statuses.count(), 1, "{patches:#?}");
    assert_eq!(patches.len(), 1, "{patches:#?}");
    assert_eq!(world.doubles.thulium().counts().total, calls);
    assert_eq!(world.arrived("ok/cost").len(), 2);
}
