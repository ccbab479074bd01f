//! From a manifest to a registration: what goes out, what the doubles store, what the status says.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;
use upstream_doubles::{BodyStyle, OtherStyle, Verdict};
use webhook_operator::api::{
    FINALIZER, ID_ANNOTATION, WebhookProvider,
    conditions::{ConditionType, ProviderReason, ReadyReason, SecretReason, SyncedReason, TestedReason},
    provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium},
    provider_status::{FindingResult, FindingSubject},
    webhook_status::{DeactivatedBy, State, TestResult},
};

use crate::world::{World, bodies, condition, effects, has_reason, sent, status, uid};

#[tokio::test]
async fn conpeek_gets_the_golden_body_and_is_read_back() {
    let world = World::new("reg-conpeek").await;
    world.provider(Conpeek).await;
    let spec = json!({
        "target": "9",
        "url": "http://example.xyz/poster.php",
        "headers": [{ "name": "appHash", "value": "abc" }],
        "retry": {},
    });
    world.webhook("orders", Conpeek, spec).await;
    let webhook = world.wait_ready("orders", ReadyReason::Available).await;
    let golden = json!({
        "url": "http://example.xyz/poster.php", "retry_enabled": 1,
        "retry_config": { "retry_value": 10, "max_retries": 2, "backoff_type": "multiplier", "backoff_value": 2 },
        "headers": { "appHash": "abc" },
    });
    let put = sent(world.doubles.conpeek(), &world.namespace, "PUT");
    assert_eq!(put[0].path, "/application/9/webhook");
    assert_eq!(bodies(world.doubles.conpeek(), &world.namespace, "PUT"), [golden]);

    // The key is known beforehand: it is the id, in status and where backups keep it.
    assert_eq!(status(&webhook).id.as_deref(), Some("9"));
    assert_eq!(
        webhook.annotations().get(ID_ANNOTATION).map(String::as_str),
        Some("9")
    );
    assert_eq!(webhook.finalizers(), [FINALIZER]);
    assert_eq!(
        status(&webhook).url.as_deref(),
        Some("http://example.xyz/poster.php")
    );
    assert_eq!(status(&webhook).state, Some(State::New));
    assert!(has_reason(&webhook, SyncedReason::Applied));
    assert!(has_reason(&webhook, TestedReason::NotRun));
    assert!(
        condition(&webhook, ConditionType::SecretReady).is_none(),
        "there is no secret"
    );
    world.wait_provider("conpeek", ProviderReason::Verified).await;

    let gets = sent(world.doubles.conpeek(), &world.namespace, "GET").len();
    let after = world.read_back("orders").await;
    assert!(sent(world.doubles.conpeek(), &world.namespace, "GET").len() > gets);
    assert_eq!(effects(world.doubles.conpeek(), &world.namespace), 1, "it agreed");
    assert_eq!(status(&after).last_sync_time, status(&webhook).last_sync_time);
    assert_eq!(status(&after).applied_hash, status(&webhook).applied_hash);
}

#[tokio::test]
async fn thulium_gets_the_golden_body_and_its_id_is_kept() {
    let world = World::new("reg-thulium").await;
    world.provider(Thulium).await;
    let spec = json!({ "url": "https://example.pl", "events": ["CHAT_CONVERSATION_CREATED"] });
    world.webhook("chats", Thulium, spec).await;
    let webhook = world.wait_ready("chats", ReadyReason::Available).await;
    let post = sent(world.doubles.thulium(), &world.namespace, "POST");
    assert_eq!(post[0].path, "/api/webhooks");
    let golden =
        json!({ "actions": ["CHAT_CONVERSATION_CREATED"], "subscription_url": "https://example.pl" });
    assert_eq!(
        bodies(world.doubles.thulium(), &world.namespace, "POST"),
        [golden]
    );
    let stored = world.doubles.thulium().objects();
    assert_eq!(stored.len(), 1);
    assert_eq!(status(&webhook).id, Some(stored[0].id.to_string()));
    assert_eq!(
        webhook.annotations().get(ID_ANNOTATION),
        Some(&stored[0].id.to_string())
    );
    assert_eq!(status(&webhook).state, Some(State::New));

    // With a login, which is sent along and not shown.
    let login = [("username", "receiver"), ("password", "a-receivers-password")];
    world.secret("login", &login).await;
    let spec = json!({
        "url": "https://example.pl/2", "events": ["TICKET_CREATED", "TICKET_CLOSED"], "basicAuthRef": { "name": "login" },
    });
    world.webhook("tickets", Thulium, spec).await;
    world.wait_ready("tickets", ReadyReason::Available).await;
    let second = bodies(world.doubles.thulium(), &world.namespace, "POST").remove(1);
    assert_eq!(second["http_auth_user"], "receiver");
    assert_eq!(second["http_auth_password"], "a-receivers-password");
    world.read_back("tickets").await;
    assert_eq!(effects(world.doubles.thulium(), &world.namespace), 2);
    assert!(world.doubles.thulium().duplicates().is_empty());
}

#[tokio::test]
async fn ricloud_gets_the_golden_body() {
    let world = World::new("reg-ricloud-golden").await;
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
    world.provider(Ricloud).await;
    let url = "https://www.mywebhook.com/webhooks/";
    world.webhook("events", Ricloud, json!({ "url": url })).await;
    let webhook = world.wait_ready("events", ReadyReason::Available).await;
    let post = sent(world.doubles.ricloud(), &world.namespace, "POST");
    assert_eq!(post[0].path, "/configs/webhook");
    assert_eq!(post[0].body, json!({ "url": url }).to_string());
    assert_eq!(
        post.len(),
        1,
        "the upstream's own first test is not asked for again"
    );
    let stored = world.doubles.ricloud().objects();
    assert_eq!(stored.len(), 1);
    assert_eq!(
        status(&webhook).id,
        Some(world.doubles.ricloud().upstream().external_id(stored[0].id))
    );
}

#[tokio::test]
async fn ricloud_s_secret_is_published_and_verifies_its_test_delivery() {
    let world = World::new("reg-ricloud").await;
    world.provider(Ricloud).await;
    let url = world.ricloud_receiver("events");
    world.webhook("events", Ricloud, json!({ "url": url })).await;
    let webhook = world.wait_ready("events", ReadyReason::Available).await;
    assert_eq!(status(&webhook).state, Some(State::Valid));
    assert!(has_reason(&webhook, TestedReason::Passed));
    assert!(has_reason(&webhook, SecretReason::Published));
    let test = status(&webhook).test.expect("a test was recorded");
    assert_eq!(
        (test.result, test.consecutive_failures),
        (Some(TestResult::Passed), 0)
    );
    assert_eq!(test.history.len(), 1);

    let stored = world.doubles.ricloud().objects().remove(0);
    let value = world.secret_value("events-signing", "secret").await;
    assert_eq!(value.as_deref(), Some(stored.secret.reveal()));
    let secret = world.api::<Secret>().get("events-signing").await.unwrap();
    let owner = &secret.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Webhook", "events"));
    assert_eq!(owner.uid, uid(&webhook));

    // Where the user wants it elsewhere, it goes there.
    let url = world.ricloud_receiver("other");
    let spec = json!({ "url": url, "secretRef": { "name": "elsewhere", "key": "token" } });
    world.webhook("other", Ricloud, spec).await;
    world.wait_ready("other", ReadyReason::Available).await;
    let stored = world.doubles.ricloud().objects();
    let stored = stored.iter().find(|config| config.url == url).unwrap();
    let value = world.secret_value("elsewhere", "token").await;
    assert_eq!(value.as_deref(), Some(stored.secret.reveal()));
}

#[tokio::test]
async fn autocosmos_gets_the_golden_body() {
    let world = World::new("reg-auto-golden").await;
    world.provider(Autocosmos).await;
    let spec = json!({
        "target": "invitaciones",
        "url": "https://callbacks.myapp.com/autocosmos/event",
        "description": "Mi callback para algo",
        "headers": [{ "name": "X-MYAPP-PRODUCER", "value": "Autocosmos" }],
    });
    world.webhook("invitaciones", Autocosmos, spec).await;
    let webhook = world.wait_ready("invitaciones", ReadyReason::Available).await;
    let post = sent(world.doubles.autocosmos(), &world.namespace, "POST");
    assert_eq!(post[0].path, "/v3/appnotificaciones/invitaciones");
    let golden = r#"{"Callback":"https://callbacks.myapp.com/autocosmos/event","Secret":null,"Description":"Mi callback para algo","Activo":true,"HeaderCustom01":{"Name":"X-MYAPP-PRODUCER","Value":"Autocosmos"},"HeaderCustom02":null,"HeaderCustom03":null}"#;
    assert_eq!(post[0].body, golden);
    assert_eq!(status(&webhook).id.as_deref(), Some("invitaciones"));
    world.wait_provider("autocosmos", ProviderReason::Verified).await;
    world.read_back("invitaciones").await;
    assert_eq!(effects(world.doubles.autocosmos(), &world.namespace), 1);
}

#[tokio::test]
async fn autocosmos_takes_a_secret_and_header_secrets_and_can_begin_switched_off() {
    let world = World::new("reg-auto").await;
    world.provider(Autocosmos).await;
    world
        .secret("signing", &[("secret", "a-signing-secret-of-32-characters")])
        .await;
    world
        .secret("auth", &[("value", "Bearer a-delivery-token\n")])
        .await;
    let spec = json!({
        "target": "precios nuevos",
        "url": "https://callbacks.myapp.com/precios",
        "active": false,
        "secretRef": { "name": "signing" },
        "headers": [
            { "name": "X-A", "value": "1" },
            { "name": "Authorization", "valueFrom": { "secretKeyRef": { "name": "auth", "key": "value" } } },
        ],
    });
    world.webhook("precios", Autocosmos, spec).await;
    let webhook = world.wait_ready("precios", ReadyReason::Deactivated).await;
    assert_eq!(status(&webhook).state, Some(State::Deactivated));
    assert_eq!(status(&webhook).deactivated_by, Some(DeactivatedBy::Spec));
    assert!(has_reason(&webhook, SecretReason::Resolved));
    let stored = world
        .doubles
        .autocosmos()
        .upstream()
        .webhook(&world.namespace, "precios nuevos")
        .unwrap();
    assert!(!stored.activo);
    assert_eq!(
        stored.secret.unwrap().reveal(),
        "a-signing-secret-of-32-characters"
    );
    let headers: Vec<_> = stored
        .headers
        .iter()
        .flatten()
        .map(|h| (h.name.as_str(), h.value.reveal()))
        .collect();
    assert_eq!(
        headers,
        [("X-A", "1"), ("Authorization", "Bearer a-delivery-token")],
        "without the line break"
    );
}

#[tokio::test]
async fn a_registration_that_is_to_begin_switched_off_is_switched_off_at_ricloud() {
    let world = World::new("reg-ricloud-off").await;
    world.provider(Ricloud).await;
    let spec = json!({ "url": world.ricloud_receiver("off"), "active": false });
    world.webhook("off", Ricloud, spec).await;
    let webhook = world.wait_ready("off", ReadyReason::Deactivated).await;
    assert_eq!(status(&webhook).deactivated_by, Some(DeactivatedBy::Spec));
    let stored = world.doubles.ricloud().objects();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].state, upstream_doubles::ConfigState::Deactivated);
}

#[tokio::test]
async fn the_body_style_that_conpeek_takes_is_learned_once_and_shown() {
    let world = World::new("reg-style").await;
    world.doubles.conpeek().change_behaviour(|behaviour| {
        behaviour.body_style = BodyStyle::Wrapped;
        behaviour.other_style = OtherStyle::Refused;
    });
    world.provider(Conpeek).await;
    world
        .webhook(
            "first",
            Conpeek,
            json!({ "target": "1", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("first", ReadyReason::Available).await;
    let tried = sent(world.doubles.conpeek(), &world.namespace, "PUT").len();
    assert_eq!(tried, 2, "flat, then wrapped");
    world
        .webhook(
            "second",
            Conpeek,
            json!({ "target": "2", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("second", ReadyReason::Available).await;
    let put = bodies(world.doubles.conpeek(), &world.namespace, "PUT");
    assert_eq!(put.len(), 3);
    assert!(put[2]["data"].is_object(), "{}", put[2]);
    let found = |provider: Option<&WebhookProvider>| {
        let findings = provider
            .and_then(|provider| provider.status.as_ref())
            .map(|status| &status.findings);
        findings.is_some_and(|findings| {
            findings.iter().any(|finding| {
                finding.subject == FindingSubject::BodyStyle && finding.result == FindingResult::Wrapped
            })
        })
    };
    let shown = kube::runtime::wait::await_condition(world.api::<WebhookProvider>(), "conpeek", found);
    tokio::time::timeout(crate::world::SOON, shown)
        .await
        .expect("shown in time")
        .unwrap();

    // The other way round: what is ignored is noticed by reading.
    world
        .doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.other_style = OtherStyle::Ignored);
    world
        .webhook(
            "third",
            Conpeek,
            json!({ "target": "3", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("third", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(3)
            .unwrap()
            .url
            .as_deref(),
        Some("https://a.example/")
    );
}

#[tokio::test]
async fn conpeek_is_written_blind_where_it_cannot_be_read() {
    let world = World::new("reg-blind").await;
    world
        .doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.get = upstream_doubles::RouteSupport::NotFound);
    world.provider(Conpeek).await;
    world
        .webhook(
            "blind",
            Conpeek,
            json!({ "target": "7", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("blind", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(7)
            .unwrap()
            .url
            .as_deref(),
        Some("https://a.example/")
    );
    // By hand somebody changes it; a look cannot tell, a request writes it again.
    world
        .doubles
        .conpeek()
        .edit("7", |webhook| webhook.url = Some("https://b.example/".to_owned()));
    world.read_back("blind").await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(7)
            .unwrap()
            .url
            .as_deref(),
        Some("https://a.example/")
    );
    assert!(sent(world.doubles.conpeek(), &world.namespace, "PUT").len() >= 2);
}

#[tokio::test]
async fn undocumented_calls_are_not_made_where_they_are_denied() {
    let world = World::new("reg-denied").await;
    let deny = json!({ "undocumentedCalls": "Deny" });
    world.provider_with(Conpeek, deny.clone()).await;
    world.provider_with(Thulium, deny).await;
    world
        .webhook(
            "c",
            Conpeek,
            json!({ "target": "7", "url": "https://a.example/" }),
        )
        .await;
    world
        .webhook(
            "t",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world.wait_ready("c", ReadyReason::Available).await;
    world.wait_ready("t", ReadyReason::Available).await;
    world.read_back("c").await;
    assert!(sent(world.doubles.conpeek(), &world.namespace, "GET").is_empty());
    world.change("t", json!({ "url": "https://b.example/" })).await;
    world.wait_reason("t", SyncedReason::UpdateUnsupported).await;
    world.delete_and_wait("t").await;
    let (_, note) = world.wait_event("t", "LeftInPlace").await;
    assert!(note.contains("remove it there by hand"), "{note}");
    let methods =
        ["PUT", "DELETE"].map(|method| sent(world.doubles.thulium(), &world.namespace, method).len());
    assert_eq!(methods, [0, 0]);
}
