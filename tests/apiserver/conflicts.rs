//! Who may have a registration: one that is there already, two Webhooks that mean the same, and namespaces that
//! may not use an account.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use upstream_doubles::{ConfigState, DeleteSupport, ThuliumWebhook};
use webhook_operator::api::{
    ClusterWebhookProvider,
    conditions::{ConditionType, ReadyReason, SecretReason, StalledReason, SyncedReason},
    provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
};

use crate::world::{World, condition, effects, has_reason, message, sent, status};

/// A registration that was there before, made by somebody else's hands.
fn insert(world: &World, url: &str, actions: &[&str]) -> u64 {
    world.doubles.thulium().upstream().insert(ThuliumWebhook {
        id: 0,
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        subscription_url: url.to_owned(),
        http_auth_user: String::new(),
        http_auth_password: String::new().into(),
    })
}

#[tokio::test]
async fn a_registration_with_the_same_content_is_taken_over_unless_forbidden() {
    let world = World::new("own-adopt").await;
    world.provider(Thulium).await;
    insert(&world, "https://other.example/", &["TICKET_CREATED"]);
    let there = insert(&world, "https://a.example/", &["TICKET_CLOSED", "TICKET_CREATED"]);
    let spec = |policy: &str| json!({ "url": "https://a.example/", "events": ["TICKET_CREATED", "TICKET_CLOSED"], "adoptionPolicy": policy });
    world.webhook("never", Thulium, spec("Never")).await;
    let refused = world.wait_ready("never", ReadyReason::Conflict).await;
    assert!(has_reason(&refused, SyncedReason::Conflict) && has_reason(&refused, StalledReason::Conflict));
    let said = message(&refused, ConditionType::Ready);
    assert!(said.contains("already") && said.contains("IfMatching"), "{said}");
    assert!(refused.finalizers().is_empty(), "it has written nothing");

    world
        .change("never", json!({ "adoptionPolicy": "IfMatching" }))
        .await;
    let adopted = world.wait_ready("never", ReadyReason::Available).await;
    assert_eq!(status(&adopted).id, Some(there.to_string()));
    let (type_, note) = world.wait_event("never", "Adopted").await;
    assert_eq!(type_, "Normal");
    assert!(note.contains(&there.to_string()), "{note}");
    assert!(sent(world.doubles.thulium(), &world.account, "POST").is_empty());
    assert_eq!(
        world.doubles.thulium().objects().len(),
        2,
        "the other one is nobody's business"
    );
}

#[tokio::test]
async fn of_several_that_match_the_lowest_id_is_taken_and_the_rest_is_named() {
    let world = World::new("own-many").await;
    world.provider(Thulium).await;
    let ids: Vec<u64> = (0..3)
        .map(|_| insert(&world, "https://a.example/", &["TICKET_CREATED"]))
        .collect();
    world
        .webhook(
            "one",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    let adopted = world.wait_ready("one", ReadyReason::Available).await;
    assert_eq!(status(&adopted).id, Some(ids[0].to_string()));
    let (type_, note) = world.wait_event("one", "Duplicates").await;
    assert_eq!(type_, "Warning");
    assert!(note.contains(&format!("{}, {}", ids[1], ids[2])), "{note}");
    assert_eq!(effects(world.doubles.thulium(), &world.account), 0);
}

#[tokio::test]
async fn ricloud_adopts_what_an_orphan_left_and_its_secret_with_it() {
    let world = World::new("own-ricloud").await;
    world.provider(Ricloud).await;
    let url = world.ricloud_receiver("events");
    world
        .webhook(
            "first",
            Ricloud,
            json!({ "url": url, "deletionPolicy": "Orphan" }),
        )
        .await;
    let first = world.wait_ready("first", ReadyReason::Available).await;
    world.delete_and_wait("first").await;
    world.wait_event("first", "Orphaned").await;
    assert_eq!(world.doubles.ricloud().objects().len(), 1);

    world.webhook("second", Ricloud, json!({ "url": url })).await;
    let second = world.wait_ready("second", ReadyReason::Available).await;
    assert_eq!(status(&second).id, status(&first).id);
    let value = world.secret_value("second-signing", "secret").await;
    assert_eq!(
        value.as_deref(),
        Some(world.doubles.ricloud().objects()[0].secret.reveal())
    );
    assert_eq!(world.doubles.ricloud().objects().len(), 1);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_makes_an_adoption_not_recoverable() {
    let world = World::new("own-lost").await;
    world.provider(Ricloud).await;
    let url = world.ricloud_receiver("events");
    world
        .webhook(
            "first",
            Ricloud,
            json!({ "url": url, "deletionPolicy": "Orphan" }),
        )
        .await;
    world.wait_ready("first", ReadyReason::Available).await;
    world.delete_and_wait("first").await;
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.secret_in_reads = false);
    world.webhook("second", Ricloud, json!({ "url": url })).await;
    let second = world.wait_reason("second", SecretReason::NotRecoverable).await;
    assert!(has_reason(&second, StalledReason::NotRecoverable));
    let said = message(&second, ConditionType::Ready);
    assert!(said.contains("remove the registration there"), "{said}");

    a_lost_secret_of_its_own_is_made_anew(&world).await;
}

#[tokio::test]
async fn a_registration_whose_secret_is_lost_is_made_anew_where_none_can_be_deleted() {
    let world = World::new("own-lost-undeletable").await;
    world.provider(Ricloud).await;
    world.doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.secret_in_reads = false;
        behaviour.delete = DeleteSupport::MethodNotAllowed;
    });
    a_lost_secret_of_its_own_is_made_anew(&world).await;
}

/// Its own it makes anew, once, and says so. What went may only be switched off.
async fn a_lost_secret_of_its_own_is_made_anew(world: &World) {
    let other = world.ricloud_receiver("other");
    world.webhook("own", Ricloud, json!({ "url": other })).await;
    world.wait_ready("own", ReadyReason::Available).await;
    let before = world.secret_value("own-signing", "secret").await.unwrap();
    let api: Api<k8s_openapi::api::core::v1::Secret> = world.api();
    api.delete("own-signing", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let (type_, _) = world.wait_event("own", "SecretLost").await;
    assert_eq!(type_, "Warning");
    let of_own = || {
        let stored = world.doubles.ricloud().objects();
        stored
            .into_iter()
            .filter(|config| config.url == other && config.state != ConfigState::Deactivated)
            .collect::<Vec<_>>()
    };
    world
        .eventually("one new registration", || {
            of_own().len() == 1 && of_own()[0].secret.reveal() != before
        })
        .await;
    let waited = tokio::time::timeout(crate::world::SOON, async {
        while world.secret_value("own-signing", "secret").await.as_deref()
            != Some(of_own()[0].secret.reveal())
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    waited.await.expect("the new secret is published");
    world.wait_ready("own", ReadyReason::Available).await;
}

/// A target that somebody else uses.
async fn foreign_url(
    provider: ProviderType,
    target: &str,
    occupy: impl Fn(&World),
    now: impl Fn(&World) -> Option<String>,
) {
    let world = World::new("own-foreign").await;
    world.provider(provider).await;
    // The double has no way to insert: somebody registers, leaves, and somebody else changes it by hand.
    let spec = json!({ "target": target, "url": "https://gone.example/", "deletionPolicy": "Orphan" });
    world.webhook("gone", provider, spec).await;
    world.wait_ready("gone", ReadyReason::Available).await;
    world.delete_and_wait("gone").await;
    occupy(&world);
    assert_eq!(now(&world).as_deref(), Some("https://foreign.example/"));

    let spec =
        |policy: &str| json!({ "target": target, "url": "https://mine.example/", "adoptionPolicy": policy });
    for policy in ["IfMatching", "Never"] {
        let name = policy.to_ascii_lowercase();
        world.webhook(&name, provider, spec(policy)).await;
        let refused = world.wait_ready(&name, ReadyReason::Conflict).await;
        let said = message(&refused, ConditionType::Ready);
        assert!(said.contains("another URL") && said.contains("Always"), "{said}");
        assert_eq!(now(&world).as_deref(), Some("https://foreign.example/"));
        world.delete_and_wait(&name).await;
        assert_eq!(
            now(&world).as_deref(),
            Some("https://foreign.example/"),
            "it was never ours to remove"
        );
    }
    world.webhook("always", provider, spec("Always")).await;
    world.wait_ready("always", ReadyReason::Available).await;
    assert_eq!(now(&world).as_deref(), Some("https://mine.example/"));
}

#[tokio::test]
async fn a_conpeek_application_of_somebody_else_is_left_alone_unless_always() {
    foreign_url(
        Conpeek,
        "9",
        |world| {
            assert!(
                world
                    .doubles
                    .conpeek()
                    .edit("9", |it| it.url = Some("https://foreign.example/".to_owned()))
            );
        },
        |world| world.doubles.conpeek().upstream().webhook(9)?.url,
    )
    .await;
}

#[tokio::test]
async fn an_autocosmos_topic_of_somebody_else_is_left_alone_unless_always() {
    foreign_url(
        Autocosmos,
        "precios",
        |world| {
            let key = format!("{}/precios", world.account);
            let callback = Some("https://foreign.example/".to_owned());
            assert!(
                world
                    .doubles
                    .autocosmos()
                    .edit(&key, |it| it.callback.clone_from(&callback))
            );
        },
        |world| {
            world
                .doubles
                .autocosmos()
                .upstream()
                .webhook(&world.account, "precios")?
                .callback
        },
    )
    .await;
}

#[tokio::test]
async fn what_a_webhook_of_this_cluster_left_behind_is_free() {
    let world = World::new("own-free").await;
    world.provider(Conpeek).await;
    world.provider(Autocosmos).await;
    let url = |url: &str, target: &str| json!({ "target": target, "url": url });
    // Conpeek cannot remove, Autocosmos only switch off: both stay, with the url of a Webhook that is gone.
    world
        .webhook("c1", Conpeek, url("https://first.example/", "9"))
        .await;
    world
        .webhook("a1", Autocosmos, url("https://first.example/", "precios"))
        .await;
    world.wait_ready("c1", ReadyReason::Available).await;
    world.wait_ready("a1", ReadyReason::Available).await;
    world.delete_and_wait("c1").await;
    world.delete_and_wait("a1").await;
    world
        .webhook("c2", Conpeek, url("https://second.example/", "9"))
        .await;
    world
        .webhook("a2", Autocosmos, url("https://second.example/", "precios"))
        .await;
    world.wait_ready("c2", ReadyReason::Available).await;
    world.wait_ready("a2", ReadyReason::Available).await;
    assert_eq!(
        world
            .doubles
            .conpeek()
            .upstream()
            .webhook(9)
            .unwrap()
            .url
            .as_deref(),
        Some("https://second.example/")
    );
    let stored = world
        .doubles
        .autocosmos()
        .upstream()
        .webhook(&world.account, "precios")
        .unwrap();
    assert_eq!(
        (stored.callback.as_deref(), stored.activo),
        (Some("https://second.example/"), true)
    );
}

/// The second of two Webhooks says `Conflict`, and takes over when the first one goes.
async fn two_for_one(provider: ProviderType, first: Value, second: Value, writes: impl Fn(&World) -> usize) {
    let world = World::new("own-two").await;
    world.provider(provider).await;
    world.webhook("older", provider, first).await;
    world.wait_ready("older", ReadyReason::Available).await;
    let before = writes(&world);
    world.webhook("younger", provider, second).await;
    let refused = world.wait_ready("younger", ReadyReason::Conflict).await;
    assert!(has_reason(&refused, StalledReason::Conflict));
    let said = message(&refused, ConditionType::Ready);
    assert!(said.contains(r#"Webhook "older""#), "{said}");
    assert_eq!(writes(&world), before);
    assert!(has_reason(&world.get("older").await, ReadyReason::Available));

    world.delete_and_wait("older").await;
    let holder = world.wait_ready("younger", ReadyReason::Available).await;
    assert!(condition(&holder, ConditionType::Stalled).is_none());
    assert!(status(&holder).id.is_some());
}

#[tokio::test]
async fn two_webhooks_for_one_conpeek_application() {
    let spec = |url: &str| json!({ "target": "9", "url": url });
    two_for_one(
        Conpeek,
        spec("https://a.example/"),
        spec("https://b.example/"),
        |world| effects(world.doubles.conpeek(), &world.account),
    )
    .await;
}

#[tokio::test]
async fn two_webhooks_for_one_autocosmos_topic() {
    let spec = |url: &str| json!({ "target": "precios", "url": url });
    two_for_one(
        Autocosmos,
        spec("https://a.example/"),
        spec("https://b.example/"),
        |world| effects(world.doubles.autocosmos(), &world.account),
    )
    .await;
}

#[tokio::test]
async fn two_webhooks_with_the_same_content_at_thulium() {
    let spec = |events: [&str; 2]| json!({ "url": "https://a.example/", "events": events });
    let (one, two) = (
        spec(["TICKET_CREATED", "TICKET_CLOSED"]),
        spec(["TICKET_CLOSED", "TICKET_CREATED"]),
    );
    two_for_one(Thulium, one, two, |world| {
        effects(world.doubles.thulium(), &world.account)
    })
    .await;
}

#[tokio::test]
async fn two_webhooks_for_one_use_at_ricloud() {
    let spec = |url: &str| json!({ "url": url, "target": "organisation", "test": { "mode": "None" } });
    two_for_one(
        Ricloud,
        spec("https://a.example/"),
        spec("https://b.example/"),
        |world| effects(world.doubles.ricloud(), &world.account),
    )
    .await;
}

#[tokio::test]
async fn the_holder_in_another_namespace_is_not_named() {
    let world = World::new("own-holder").await;
    let neighbour = world.neighbour("own-neighbour").await;
    world.provider(Conpeek).await;
    neighbour.provider(Conpeek).await;
    let spec = json!({ "target": "9", "url": "https://a.example/" });
    world.webhook("secretive", Conpeek, spec.clone()).await;
    world.wait_ready("secretive", ReadyReason::Available).await;
    neighbour.webhook("curious", Conpeek, spec).await;
    let refused = neighbour.wait_ready("curious", ReadyReason::Conflict).await;
    let said = message(&refused, ConditionType::Ready);
    assert!(
        said.contains("another namespace") && !said.contains("secretive") && !said.contains(&world.namespace),
        "{said}"
    );
    world.delete_and_wait("secretive").await;
    neighbour.wait_ready("curious", ReadyReason::Available).await;
}

#[tokio::test]
async fn a_signing_secret_of_somebody_else_stays_untouched_and_nothing_is_created() {
    let world = World::new("own-secret").await;
    world.provider(Ricloud).await;
    world
        .secret("events-signing", &[("secret", "of somebody else")])
        .await;
    world
        .webhook(
            "events",
            Ricloud,
            json!({ "url": world.ricloud_receiver("events") }),
        )
        .await;
    let refused = world.wait_reason("events", SecretReason::NotOwned).await;
    assert!(has_reason(&refused, StalledReason::Conflict));
    let said = message(&refused, ConditionType::Ready);
    assert!(
        said.contains("events-signing") && said.contains("delete it, or name another"),
        "{said}"
    );
    assert!(sent(world.doubles.ricloud(), &world.account, "POST").is_empty());
    assert_eq!(
        world.secret_value("events-signing", "secret").await.as_deref(),
        Some("of somebody else")
    );
    // The cure.
    world
        .change("events", json!({ "secretRef": { "name": "mine" } }))
        .await;
    world.wait_ready("events", ReadyReason::Available).await;
    assert!(world.secret_value("mine", "secret").await.is_some());
}

#[tokio::test]
async fn a_cluster_provider_serves_the_namespaces_that_it_names() {
    let world = World::new("own-cluster").await;
    let guest = world.neighbour("own-guest").await;
    let name = world.namespace.clone();
    world.secret("shared", &[("apiKey", &world.keys().conpeek)]).await;
    let mut manifest = world.provider_manifest(Conpeek);
    manifest["kind"] = json!("ClusterWebhookProvider");
    manifest["metadata"]["name"] = json!(name);
    manifest["spec"]["credentialsRef"] = json!({ "namespace": world.namespace, "name": "shared" });
    manifest["spec"]["allowedNamespaces"] = json!({ "names": [world.namespace] });
    world.apply(&manifest).await;
    let spec = |target: &str| {
        json!({
            "providerRef": { "kind": "ClusterWebhookProvider", "name": name }, "target": target, "url": "https://a.example/",
        })
    };
    world.webhook("at-home", Conpeek, spec("1")).await;
    world.wait_ready("at-home", ReadyReason::Available).await;
    guest.webhook("abroad", Conpeek, spec("2")).await;
    let refused = guest.wait_ready("abroad", ReadyReason::ProviderNotReady).await;
    let said = message(&refused, ConditionType::Ready);
    assert!(
        said.contains(&guest.namespace) && said.contains("spec.allowedNamespaces"),
        "{said}"
    );
    assert!(world.doubles.conpeek().upstream().webhook(2).is_none());

    // By label: both what the provider says and what the namespace is like count at once.
    let api: Api<ClusterWebhookProvider> = Api::all(world.client.clone());
    let selector = json!({ "spec": { "allowedNamespaces": { "names": null, "selector": { "matchLabels": { "team": "a" } } } } });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(selector))
        .await
        .unwrap();
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let label = json!({ "metadata": { "labels": { "team": "a" } } });
    namespaces
        .patch(&guest.namespace, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    guest.wait_ready("abroad", ReadyReason::Available).await;
    assert!(world.doubles.conpeek().upstream().webhook(2).is_some());

    // Taken off the list again it can still be deleted.
    world.wait_ready("at-home", ReadyReason::ProviderNotReady).await;
    let calls = effects(world.doubles.conpeek(), &world.account);
    world
        .change("at-home", json!({ "url": "https://b.example/" }))
        .await;
    world.wait_ready("at-home", ReadyReason::ProviderNotReady).await;
    assert_eq!(effects(world.doubles.conpeek(), &world.account), calls);
    world.delete_and_wait("at-home").await;
    guest.delete_and_wait("abroad").await;
}

#[tokio::test]
async fn an_operator_confined_to_namespaces_serves_no_cluster_providers() {
    let world = World::alone("own-confined", &[]).await;
    let spec = json!({
        "providerRef": { "kind": "ClusterWebhookProvider", "name": "any" }, "target": "1", "url": "https://a.example/",
    });
    world.webhook("w", Conpeek, spec).await;
    let refused = world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    let said = message(&refused, ConditionType::Ready);
    assert!(
        said.contains("--namespace") && said.contains("use a WebhookProvider"),
        "{said}"
    );
}
