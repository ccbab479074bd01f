//! What happens when something changes afterwards: the spec, a Secret it refers to, or the upstream by hand.

use std::time::Duration;

use serde_json::json;
use upstream_doubles::{ConfigState, CustomHeader, Verdict};
use webhook_operator::api::{
    conditions::{ReadyReason, SecretReason, SyncedReason, TestedReason},
    provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium},
    webhook_status::{DeactivatedBy, State},
};

use crate::world::{World, effects, has_reason, message, sent, status};

const SIGNING: &str = "a-signing-secret-of-32-characters";

#[tokio::test]
async fn every_field_of_conpeek_is_updated() {
    let world = World::new("chg-conpeek").await;
    world.provider(Conpeek).await;
    world.secret("auth", &[("value", "Bearer first")]).await;
    let spec = json!({
        "target": "9", "url": "https://a.example/",
        "headers": [{ "name": "X-A", "value": "1" },
                    { "name": "Authorization", "valueFrom": { "secretKeyRef": { "name": "auth", "key": "value" } } }],
    });
    world.webhook("orders", Conpeek, spec).await;
    world.wait_ready("orders", ReadyReason::Available).await;
    let stored = || world.doubles.conpeek().upstream().webhook(9).unwrap();
    let header = |name: &str| stored().headers.get(name).map(|value| value.reveal().to_owned());
    assert_eq!(header("Authorization").as_deref(), Some("Bearer first"));

    world
        .change("orders", json!({ "url": "https://b.example/" }))
        .await;
    world
        .eventually("the new url", || {
            stored().url.as_deref() == Some("https://b.example/")
        })
        .await;

    world
        .change(
            "orders",
            json!({ "headers": [{ "name": "X-A", "value": "2" },
        { "name": "Authorization", "valueFrom": { "secretKeyRef": { "name": "auth", "key": "value" } } }] }),
        )
        .await;
    world
        .eventually("the new header value", || header("X-A").as_deref() == Some("2"))
        .await;

    // The Secret of a header alone.
    world.secret("auth", &[("value", "Bearer second")]).await;
    world
        .eventually("the header from its Secret", || {
            header("Authorization").as_deref() == Some("Bearer second")
        })
        .await;

    world.change("orders", json!({ "headers": null })).await;
    world
        .eventually("no headers", || stored().headers.is_empty())
        .await;

    let retry = json!({ "initialDelay": "1m30s", "maxRetries": 7, "backoff": { "factor": 3 } });
    world.change("orders", json!({ "retry": retry })).await;
    world
        .eventually("the retry rules", || {
            stored().retry_config.is_some_and(|retry| {
                (retry.retry_value, retry.max_retries, retry.backoff_value as u32) == (90, 7, 3)
            })
        })
        .await;
    world
        .change("orders", json!({ "retry": { "enabled": false } }))
        .await;
    world
        .eventually("no retries", || stored().retry_enabled == Some(false))
        .await;
    let webhook = world.wait_ready("orders", ReadyReason::Available).await;
    assert!(has_reason(&webhook, SyncedReason::Applied));
    assert_eq!(status(&webhook).url.as_deref(), Some("https://b.example/"));
    assert!(
        status(&webhook).drift.is_none(),
        "a change of the spec is no drift"
    );
}

/// How often one object is edited, and how long after the edit before.
const EDITS: usize = 50;
const BETWEEN: Duration = Duration::from_millis(20);

#[tokio::test]
async fn of_fifty_edits_in_a_second_the_last_one_wins() {
    let world = World::new("chg-many").await;
    world.provider(Conpeek).await;
    let url = |edit: usize| format!("https://hooks.example.com/{edit}");
    world
        .webhook("orders", Conpeek, json!({ "target": "9", "url": url(0) }))
        .await;
    world.wait_ready("orders", ReadyReason::Available).await;
    let before = effects(world.doubles.conpeek(), &world.account);
    for edit in 1..=EDITS {
        world.change("orders", json!({ "url": url(edit) })).await;
        tokio::time::sleep(BETWEEN).await;
    }
    let stored = || world.doubles.conpeek().upstream().webhook(9).unwrap();
    world
        .eventually("the last edit at the upstream", || {
            stored().url == Some(url(EDITS))
        })
        .await;
    world.wait_ready("orders", ReadyReason::Available).await;
    let writes = effects(world.doubles.conpeek(), &world.account) - before;
    println!("{EDITS} edits: {writes} writes at the upstream");
    // One that was overtaken before its turn came is never sent, and none is sent twice.
    assert!((1..=EDITS).contains(&writes), "{writes} writes");
    assert_eq!(stored().url, Some(url(EDITS)), "nothing older came after it");
}

#[tokio::test]
async fn every_field_of_thulium_is_updated() {
    let world = World::new("chg-thulium").await;
    world.provider(Thulium).await;
    world
        .secret("login", &[("username", "u1"), ("password", "the-first-password")])
        .await;
    let spec = json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"], "basicAuthRef": { "name": "login" } });
    world.webhook("tickets", Thulium, spec).await;
    let before = world.wait_ready("tickets", ReadyReason::Available).await;
    let stored = || world.doubles.thulium().objects().remove(0);

    world
        .change("tickets", json!({ "url": "https://b.example/" }))
        .await;
    world
        .eventually("the new url", || {
            stored().subscription_url == "https://b.example/"
        })
        .await;
    world
        .change(
            "tickets",
            json!({ "events": ["TICKET_CLOSED", "TICKET_CREATED"] }),
        )
        .await;
    world
        .eventually("the new events", || stored().actions.len() == 2)
        .await;
    world
        .secret(
            "login",
            &[("username", "u1"), ("password", "the-second-password")],
        )
        .await;
    world
        .eventually("the new password", || {
            stored().http_auth_password.reveal() == "the-second-password"
        })
        .await;
    world.change("tickets", json!({ "basicAuthRef": null })).await;
    world
        .eventually("no login", || stored().http_auth_user.is_empty())
        .await;
    let after = world.wait_ready("tickets", ReadyReason::Available).await;
    assert_eq!(status(&after).id, status(&before).id);
    assert_eq!(sent(world.doubles.thulium(), &world.namespace, "POST").len(), 1);
    assert!(status(&after).drift.is_none());
}

#[tokio::test]
async fn every_field_of_autocosmos_is_updated() {
    let world = World::new("chg-auto").await;
    world.provider(Autocosmos).await;
    world
        .secret(
            "signing",
            &[("secret", SIGNING), ("other", "another-signing-secret-as-long")],
        )
        .await;
    let spec =
        json!({ "target": "precios", "url": "https://a.example/", "secretRef": { "name": "signing" } });
    world.webhook("precios", Autocosmos, spec).await;
    world.wait_ready("precios", ReadyReason::Available).await;
    let stored = || {
        world
            .doubles
            .autocosmos()
            .upstream()
            .webhook(&world.namespace, "precios")
            .unwrap()
    };
    let secret = || stored().secret.map(|secret| secret.reveal().to_owned());
    assert_eq!(secret().as_deref(), Some(SIGNING));

    world
        .change(
            "precios",
            json!({ "url": "https://b.example/", "description": "new" }),
        )
        .await;
    world
        .eventually("url and description", || {
            let stored = stored();
            stored.callback.as_deref() == Some("https://b.example/")
                && stored.description.as_deref() == Some("new")
        })
        .await;
    world
        .change("precios", json!({ "headers": [{ "name": "X-A", "value": "1" }] }))
        .await;
    world
        .eventually("the header", || stored().headers.iter().flatten().count() == 1)
        .await;

    world
        .secret("signing", &[("secret", "a-rotated-secret-of-32-characters")])
        .await;
    world
        .eventually("the new secret", || {
            secret().as_deref() == Some("a-rotated-secret-of-32-characters")
        })
        .await;
    world
        .change("precios", json!({ "secretRef": { "key": "other" } }))
        .await;
    world
        .eventually("another key", || {
            secret().as_deref() == Some("another-signing-secret-as-long")
        })
        .await;

    world.change("precios", json!({ "active": false })).await;
    let off = world.wait_ready("precios", ReadyReason::Deactivated).await;
    assert!(!stored().activo);
    assert_eq!(status(&off).deactivated_by, Some(DeactivatedBy::Spec));
    world.change("precios", json!({ "active": true })).await;
    let on = world.wait_ready("precios", ReadyReason::Available).await;
    assert!(stored().activo);
    assert_eq!(
        (status(&on).deactivated_by, status(&on).state),
        (None, Some(State::New))
    );
    assert_eq!(
        secret().as_deref(),
        Some("another-signing-secret-as-long"),
        "the secret goes along"
    );
}

#[tokio::test]
async fn ricloud_is_updated_and_tested_again() {
    let world = World::new("chg-ricloud").await;
    world.provider(Ricloud).await;
    world
        .webhook(
            "events",
            Ricloud,
            json!({ "url": world.ricloud_receiver("first") }),
        )
        .await;
    let first = world.wait_ready("events", ReadyReason::Available).await;
    let stored = || world.doubles.ricloud().objects().remove(0);

    // A receiver that refuses: the verdict follows the url.
    let refusing = format!("{}/status/500", world.doubles.receiver().url());
    world.change("events", json!({ "url": refusing })).await;
    let failed = world.wait_ready("events", ReadyReason::TestFailed).await;
    assert_eq!(status(&failed).state, Some(State::Invalid));
    assert_eq!(status(&failed).id, status(&first).id);
    let said = message(&failed, webhook_operator::api::conditions::ConditionType::Tested);
    assert!(said.contains("2xx") && said.contains("events-signing"), "{said}");

    world
        .change("events", json!({ "url": world.ricloud_receiver("second") }))
        .await;
    let valid = world.wait_ready("events", ReadyReason::Available).await;
    assert!(has_reason(&valid, TestedReason::Passed));
    assert!(status(&valid).test.unwrap().history.len() >= 3);

    world.change("events", json!({ "active": false })).await;
    world.wait_ready("events", ReadyReason::Deactivated).await;
    assert_eq!(stored().state, ConfigState::Deactivated);
    world.change("events", json!({ "active": true })).await;
    world.wait_ready("events", ReadyReason::Available).await;
    assert_eq!(stored().state, ConfigState::Valid);
    assert_eq!(world.doubles.ricloud().objects().len(), 1);
}

#[tokio::test]
async fn ricloud_is_tested_again_on_request() {
    let world = World::new("chg-retest").await;
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysInvalid);
    world.provider(Ricloud).await;
    world
        .webhook(
            "events",
            Ricloud,
            json!({ "url": world.ricloud_receiver("events") }),
        )
        .await;
    let failed = world.wait_ready("events", ReadyReason::TestFailed).await;
    assert!(has_reason(&failed, TestedReason::UpstreamReportedInvalid));
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
    world
        .annotate("events", webhook_operator::api::TEST_REQUESTED_AT, "now")
        .await;
    let passed = world.wait_ready("events", ReadyReason::Available).await;
    assert_eq!(status(&passed).state, Some(State::Valid));
    world
        .wait("events", "the request to be handled", |webhook| {
            status(webhook).last_handled_test_at.as_deref() == Some("now")
        })
        .await;
}

#[tokio::test]
async fn a_ricloud_registration_becomes_effective_and_is_let_go_on_deletion() {
    let world = World::new("chg-target").await;
    world.provider(Ricloud).await;
    let upstream = world.doubles.ricloud().upstream();
    let spec = json!({ "url": world.ricloud_receiver("org"), "target": "organisation" });
    world.webhook("org", Ricloud, spec).await;
    let spec = json!({ "url": world.ricloud_receiver("key"), "target": "key" });
    world.webhook("key", Ricloud, spec).await;
    world.wait_ready("org", ReadyReason::Available).await;
    world.wait_ready("key", ReadyReason::Available).await;
    world
        .eventually("the organisation's default", || {
            upstream.organisation_default(&world.namespace).is_some()
        })
        .await;
    world
        .eventually("the key's config", || {
            upstream.key_config(&world.namespace).is_some()
        })
        .await;
    assert_ne!(
        upstream.organisation_default(&world.namespace),
        upstream.key_config(&world.namespace)
    );
    world.wait_event("org", "MadeEffective").await;

    world.delete_and_wait("org").await;
    world.delete_and_wait("key").await;
    assert_eq!(upstream.organisation_default(&world.namespace), None);
    assert_eq!(upstream.key_config(&world.namespace), None);
    assert!(world.doubles.ricloud().objects().is_empty());
}

#[tokio::test]
async fn what_is_changed_by_hand_is_put_right_and_named() {
    let world = World::new("chg-drift").await;
    for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
        world.provider(provider).await;
    }
    world
        .webhook(
            "c",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/",
        "headers": [{ "name": "X-A", "value": "1" }] }),
        )
        .await;
    world
        .webhook(
            "t",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world
        .webhook("r", Ricloud, json!({ "url": world.ricloud_receiver("r") }))
        .await;
    world
        .webhook(
            "a",
            Autocosmos,
            json!({ "target": "precios", "url": "https://a.example/", "description": "mine" }),
        )
        .await;
    for name in ["c", "t", "r", "a"] {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let id = world.doubles.thulium().objects()[0].id;
    let config = world.doubles.ricloud().objects()[0].id;
    let topic = format!("{}/precios", world.namespace);
    assert!(world.doubles.conpeek().edit("9", |webhook| {
        webhook.url = Some("https://b.example/".to_owned());
        webhook.headers.clear();
    }));
    assert!(world.doubles.thulium().edit(&id.to_string(), |webhook| {
        webhook.actions.push("TICKET_CLOSED".to_owned())
    }));
    assert!(world.doubles.ricloud().edit(&config.to_string(), |config| {
        config.url = "https://b.example/".to_owned();
    }));
    assert!(world.doubles.autocosmos().edit(&topic, |webhook| {
        webhook.description = Some("yours".to_owned());
        webhook.headers[0] = Some(CustomHeader {
            name: "X-B".to_owned(),
            value: "2".into(),
        });
    }));
    for (name, fields) in [
        ("c", "url, headers"),
        ("t", "events"),
        ("r", "url"),
        ("a", "description, headers"),
    ] {
        let webhook = world.read_back(name).await;
        let (type_, note) = world.wait_event(name, "DriftCorrected").await;
        assert_eq!(type_, "Warning");
        assert!(note.ends_with(fields), "{name}: {note}");
        let drift = status(&webhook).drift.expect("noted");
        assert_eq!((drift.fields.join(", ").as_str(), drift.corrections), (fields, 1));
        assert!(has_reason(&webhook, SyncedReason::DriftCorrected), "{name}");
    }
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(9)
            .unwrap()
            .headers
            .len(),
        1
    );
    assert_eq!(world.doubles.thulium().objects()[0].actions, ["TICKET_CREATED"]);
    assert!(world.doubles.ricloud().objects()[0].url.ends_with("/ricloud/r"));
    let stored = world
        .doubles
        .autocosmos()
        .upstream()
        .webhook(&world.namespace, "precios")
        .unwrap();
    assert_eq!(stored.description.as_deref(), Some("mine"));
    assert_eq!(stored.headers.iter().flatten().count(), 0);
    world.wait_ready("r", ReadyReason::Available).await;
}

#[tokio::test]
async fn what_is_changed_by_hand_is_only_reported_where_that_is_wanted() {
    let world = World::new("chg-report").await;
    world.provider(Conpeek).await;
    let spec = json!({ "target": "9", "url": "https://a.example/", "driftPolicy": "Report" });
    world.webhook("orders", Conpeek, spec).await;
    world.wait_ready("orders", ReadyReason::Available).await;
    world
        .doubles
        .conpeek()
        .edit("9", |webhook| webhook.url = Some("https://b.example/".to_owned()));
    world.ask_read_back("orders").await;
    let webhook = world.wait_ready("orders", ReadyReason::Drifted).await;
    assert!(has_reason(&webhook, SyncedReason::DriftDetected));
    let drift = status(&webhook).drift.expect("noted");
    assert_eq!((drift.fields, drift.corrections), (vec!["url".to_owned()], 0));
    assert_eq!(
        status(&webhook).url.as_deref(),
        Some("https://b.example/"),
        "what is registered now"
    );
    assert_eq!(effects(world.doubles.conpeek(), &world.namespace), 1);
    // The policy decides; the next look puts it right.
    world.change("orders", json!({ "driftPolicy": "Correct" })).await;
    world.wait_ready("orders", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(9)
            .unwrap()
            .url
            .as_deref(),
        Some("https://a.example/")
    );
}

#[tokio::test]
async fn what_is_removed_by_hand_is_registered_again() {
    let world = World::alone("chg-gone", &[]).await;
    for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
        world.provider(provider).await;
    }
    world
        .webhook(
            "c",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    world
        .webhook(
            "t",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world
        .webhook("r", Ricloud, json!({ "url": world.ricloud_receiver("r") }))
        .await;
    world
        .webhook(
            "a",
            Autocosmos,
            json!({ "target": "precios", "url": "https://a.example/" }),
        )
        .await;
    for name in ["c", "t", "r", "a"] {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let secret = world.secret_value("r-signing", "secret").await;
    // As if they had been created a while ago: a list may lag behind a create by a minute.
    world.operator.kill();
    for name in ["t", "r"] {
        let api: kube::Api<webhook_operator::api::Webhook> = world.api();
        let long_ago = json!({ "status": { "lastSyncTime": "2026-01-01T00:00:00Z" } });
        let (params, patch) = (
            kube::api::PatchParams::default(),
            kube::api::Patch::Merge(long_ago),
        );
        api.patch_status(name, &params, &patch).await.unwrap();
    }
    world.operator.go().await;
    world.doubles.conpeek().upstream().remove_application(9);
    let ids = (
        world.doubles.thulium().objects()[0].id,
        world.doubles.ricloud().objects()[0].id,
    );
    assert!(world.doubles.thulium().remove(&ids.0.to_string()));
    assert!(world.doubles.ricloud().remove(&ids.1.to_string()));
    assert!(
        world
            .doubles
            .autocosmos()
            .remove(&format!("{}/precios", world.namespace))
    );
    for name in ["c", "t", "r", "a"] {
        world.ask_read_back(name).await;
    }
    let (conpeek, thulium) = (world.doubles.conpeek(), world.doubles.thulium());
    let (ricloud, autocosmos) = (world.doubles.ricloud(), world.doubles.autocosmos());
    world
        .eventually("Conpeek's again", || {
            conpeek.upstream().webhook(9).is_some_and(|it| it.url.is_some())
        })
        .await;
    world
        .eventually("Autocosmos' again", || !autocosmos.objects().is_empty())
        .await;
    world
        .eventually("Thulium's again", || !thulium.objects().is_empty())
        .await;
    world
        .eventually("ricloud's again", || !ricloud.objects().is_empty())
        .await;
    let new_id = thulium.objects()[0].id;
    assert_ne!(new_id, ids.0);
    world
        .wait("t", "the new id", |webhook| {
            status(webhook).id == Some(new_id.to_string())
        })
        .await;
    let new_id = ricloud.upstream().external_id(ricloud.objects()[0].id);
    let webhook = world
        .wait("r", "the new id and verdict", |webhook| {
            status(webhook).id.as_ref() == Some(&new_id) && status(webhook).state == Some(State::Valid)
        })
        .await;
    assert!(has_reason(&webhook, SecretReason::Published));
    let gaps = status(&webhook).gaps;
    assert_eq!((gaps.len(), gaps[0].reason.as_str()), (1, "NotRegistered"));
    let renewed = world.secret_value("r-signing", "secret").await;
    assert!(
        renewed.is_some() && renewed != secret,
        "the new registration has a new secret"
    );
    assert!(thulium.duplicates().is_empty() && ricloud.duplicates().is_empty());
}

#[tokio::test]
async fn what_somebody_switched_off_is_reported_or_switched_on_again() {
    let world = World::new("chg-off").await;
    world.provider(Autocosmos).await;
    world.provider(Ricloud).await;
    let spec = json!({ "target": "precios", "url": "https://a.example/" });
    world.webhook("a", Autocosmos, spec).await;
    world
        .webhook("r", Ricloud, json!({ "url": world.ricloud_receiver("r") }))
        .await;
    world.wait_ready("a", ReadyReason::Available).await;
    world.wait_ready("r", ReadyReason::Available).await;
    let topic = format!("{}/precios", world.namespace);
    assert!(
        world
            .doubles
            .autocosmos()
            .edit(&topic, |webhook| webhook.activo = false)
    );
    let config = world.doubles.ricloud().objects()[0].id.to_string();
    assert!(
        world
            .doubles
            .ricloud()
            .edit(&config, |config| config.state = ConfigState::Deactivated)
    );
    for name in ["a", "r"] {
        world.ask_read_back(name).await;
        let off = world.wait_ready(name, ReadyReason::DeactivatedUpstream).await;
        assert_eq!(status(&off).deactivated_by, Some(DeactivatedBy::Upstream));
        assert_eq!(status(&off).state, Some(State::Deactivated));
        world
            .change(name, json!({ "onUpstreamDeactivation": "Reactivate" }))
            .await;
        let on = world.wait_ready(name, ReadyReason::Available).await;
        assert_eq!(status(&on).deactivated_by, None);
    }
    assert!(world.doubles.autocosmos().objects()[0].activo);
    assert_eq!(world.doubles.ricloud().objects()[0].state, ConfigState::Valid);
    world.wait_event("a", "Reactivated").await;
}

#[tokio::test]
async fn nothing_is_called_for_what_is_suspended() {
    let world = World::new("chg-suspend").await;
    world.provider(Conpeek).await;
    world
        .webhook(
            "orders",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("orders", ReadyReason::Available).await;
    let calls = || world.doubles.conpeek().requests_of(&world.namespace).len();

    world
        .change("orders", json!({ "suspend": true, "url": "https://b.example/" }))
        .await;
    let webhook = world.wait_ready("orders", ReadyReason::Suspended).await;
    assert!(
        message(&webhook, webhook_operator::api::conditions::ConditionType::Ready).contains("spec.suspend")
    );
    let before = calls();
    world.ask_read_back("orders").await;
    world
        .change("orders", json!({ "url": "https://c.example/" }))
        .await;
    world.wait_ready("orders", ReadyReason::Suspended).await;
    assert_eq!(calls(), before);

    world.change("orders", json!({ "suspend": false })).await;
    world.wait_ready("orders", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(9)
            .unwrap()
            .url
            .as_deref(),
        Some("https://c.example/")
    );

    // The provider's switch stops all of its Webhooks.
    let suspend = |on: bool| json!({ "spec": { "suspend": on } });
    world
        .patch::<webhook_operator::api::WebhookProvider>("conpeek", &suspend(true))
        .await;
    let webhook = world.wait_ready("orders", ReadyReason::Suspended).await;
    let said = message(&webhook, webhook_operator::api::conditions::ConditionType::Ready);
    assert!(said.contains("provider is suspended"), "{said}");
    world
        .wait_provider(
            "conpeek",
            webhook_operator::api::conditions::ProviderReason::Suspended,
        )
        .await;
    let before = calls();
    world
        .change("orders", json!({ "url": "https://d.example/" }))
        .await;
    world.wait_ready("orders", ReadyReason::Suspended).await;
    assert_eq!(calls(), before);
    world
        .patch::<webhook_operator::api::WebhookProvider>("conpeek", &suspend(false))
        .await;
    world.wait_ready("orders", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(9)
            .unwrap()
            .url
            .as_deref(),
        Some("https://d.example/")
    );
}

#[tokio::test]
async fn thulium_without_an_update_call_is_replaced_only_where_removal_is_known_to_work() {
    let world = World::new("chg-replace").await;
    world.doubles.thulium().change_behaviour(|behaviour| {
        behaviour.update = upstream_doubles::RouteSupport::MethodNotAllowed;
    });
    world.provider(Thulium).await;
    let spec = |url: &str| json!({ "url": url, "events": ["TICKET_CREATED"] });
    world.webhook("stays", Thulium, spec("https://a.example/")).await;
    world.webhook("goes", Thulium, spec("https://b.example/")).await;
    world.wait_ready("stays", ReadyReason::Available).await;
    world.wait_ready("goes", ReadyReason::Available).await;
    world
        .change("stays", json!({ "url": "https://c.example/" }))
        .await;
    let refused = world.wait_reason("stays", SyncedReason::UpdateUnsupported).await;
    assert!(has_reason(&refused, ReadyReason::UpstreamError));
    assert_eq!(world.doubles.thulium().objects().len(), 2);

    // A deletion shows that DELETE works; the next change replaces.
    world.delete_and_wait("goes").await;
    let old = status(&refused).id;
    world
        .change("stays", json!({ "url": "https://d.example/" }))
        .await;
    let replaced = world.wait_ready("stays", ReadyReason::Available).await;
    world
        .eventually("the old one to be gone", || {
            world.doubles.thulium().objects().len() == 1
        })
        .await;
    let stored = world.doubles.thulium().objects().remove(0);
    assert_eq!(stored.subscription_url, "https://d.example/");
    assert_eq!(status(&replaced).id, Some(stored.id.to_string()));
    assert_ne!(status(&replaced).id, old);
}
