//! What becomes of a registration when its Webhook, its provider's Secret or its namespace is deleted.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use upstream_doubles::{ConfigState, DeleteSupport, Effect, Fault, RouteSupport};
use webhook_operator::api::{
    WebhookProvider,
    conditions::{ConditionType, ReadyReason, ReconcilingReason},
    provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium},
};

use crate::world::{SOON, World, effects, has_reason, message, pretty, sent};

#[tokio::test]
async fn conpeek_cannot_remove_so_it_is_left_in_place() {
    let world = World::new("del-conpeek").await;
    world.provider(Conpeek).await;
    world
        .webhook(
            "orders",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("orders", ReadyReason::Available).await;
    let writes = effects(world.doubles.conpeek(), &world.account);
    world.delete_and_wait("orders").await;
    let (type_, note) = world.wait_event("orders", "LeftInPlace").await;
    assert_eq!(type_, "Warning");
    assert!(
        note.contains("registration 9") && note.contains("https://a.example/") && note.contains("by hand"),
        "{note}"
    );
    assert_eq!(effects(world.doubles.conpeek(), &world.account), writes);
    // The counter is there from the start, at zero.
    let none = "webhook_operator_left_in_place_total{provider_type=\"Conpeek\"} 0\n";
    assert!(!world.operator.metrics().await.contains(none));
}

#[tokio::test]
async fn thulium_removes_where_it_can() {
    let world = World::new("del-thulium").await;
    world.provider(Thulium).await;
    let spec = |url: &str| json!({ "url": url, "events": ["TICKET_CREATED"] });
    world.webhook("first", Thulium, spec("https://a.example/")).await;
    world.webhook("second", Thulium, spec("https://b.example/")).await;
    world.wait_ready("first", ReadyReason::Available).await;
    world.wait_ready("second", ReadyReason::Available).await;
    world.delete_and_wait("first").await;
    assert_eq!(world.doubles.thulium().objects().len(), 1);
    // Removed by hand before: nothing is left to do, and nothing to complain about.
    let id = world.doubles.thulium().objects()[0].id.to_string();
    assert!(world.doubles.thulium().remove(&id));
    world.delete_and_wait("second").await;
    for name in ["first", "second"] {
        assert!(
            !world
                .events(name)
                .await
                .iter()
                .any(|(type_, ..)| type_ == "Warning")
        );
    }
}

#[tokio::test]
async fn thulium_without_a_removal_call_leaves_it_in_place() {
    let world = World::new("del-missing").await;
    world.provider(Thulium).await;
    for (name, missing) in [
        ("a", RouteSupport::NotFound),
        ("b", RouteSupport::MethodNotAllowed),
    ] {
        world
            .doubles
            .thulium()
            .change_behaviour(|behaviour| behaviour.delete = missing);
        let url = format!("https://{name}.example/");
        world
            .webhook(name, Thulium, json!({ "url": url, "events": ["TICKET_CREATED"] }))
            .await;
        world.wait_ready(name, ReadyReason::Available).await;
        world.delete_and_wait(name).await;
        let (type_, note) = world.wait_event(name, "LeftInPlace").await;
        assert_eq!(type_, "Warning");
        assert!(note.contains(&url), "{note}");
    }
    assert_eq!(world.doubles.thulium().objects().len(), 2);
}

#[tokio::test]
async fn ricloud_removes_and_its_secret_goes_with_the_webhook() {
    let world = World::new("del-ricloud").await;
    world.provider(Ricloud).await;
    world
        .webhook(
            "events",
            Ricloud,
            json!({ "url": world.ricloud_receiver("events") }),
        )
        .await;
    world.wait_ready("events", ReadyReason::Available).await;
    world.delete_and_wait("events").await;
    assert!(world.doubles.ricloud().objects().is_empty());
    let gone = await_condition(
        world.api::<Secret>(),
        "events-signing",
        |secret: Option<&Secret>| secret.is_none(),
    );
    tokio::time::timeout(SOON, gone)
        .await
        .expect("collected with its owner")
        .unwrap();
}

#[tokio::test]
async fn ricloud_that_refuses_to_remove_is_switched_off() {
    let world = World::new("del-refused").await;
    world.provider(Ricloud).await;
    for (name, delete) in [
        ("a", DeleteSupport::MethodNotAllowed),
        ("b", DeleteSupport::Forbidden),
    ] {
        world
            .doubles
            .ricloud()
            .change_behaviour(|behaviour| behaviour.delete = delete);
        world
            .webhook(name, Ricloud, json!({ "url": world.ricloud_receiver(name) }))
            .await;
        world.wait_ready(name, ReadyReason::Available).await;
        world.delete_and_wait(name).await;
        world.wait_event(name, "SwitchedOff").await;
    }
    let states: Vec<_> = world
        .doubles
        .ricloud()
        .objects()
        .iter()
        .map(|config| config.state)
        .collect();
    assert_eq!(states, [ConfigState::Deactivated, ConfigState::Deactivated]);
}

#[tokio::test]
async fn autocosmos_is_switched_off_with_the_rest_of_it_kept() {
    let world = World::new("del-auto").await;
    world.provider(Autocosmos).await;
    world
        .secret("signing", &[("secret", "a-signing-secret-of-32-characters")])
        .await;
    let spec =
        json!({ "target": "precios", "url": "https://a.example/", "secretRef": { "name": "signing" } });
    world.webhook("precios", Autocosmos, spec).await;
    world.wait_ready("precios", ReadyReason::Available).await;
    world.delete_and_wait("precios").await;
    let stored = world
        .doubles
        .autocosmos()
        .upstream()
        .webhook(&world.account, "precios")
        .unwrap();
    assert!(!stored.activo);
    assert_eq!(stored.callback.as_deref(), Some("https://a.example/"));
    world.wait_event("precios", "SwitchedOff").await;
}

#[tokio::test]
async fn deactivate_switches_off_and_orphan_leaves_as_it_is() {
    let world = World::new("del-policy").await;
    for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
        world.provider(provider).await;
    }
    world
        .webhook(
            "c",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/", "deletionPolicy": "Orphan" }),
        )
        .await;
    let spec =
        json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"], "deletionPolicy": "Orphan" });
    world.webhook("t", Thulium, spec).await;
    let spec =
        |name: &str, policy: &str| json!({ "url": world.ricloud_receiver(name), "deletionPolicy": policy });
    let (kept, off) = (spec("kept", "Orphan"), spec("off", "Deactivate"));
    world.webhook("r-orphan", Ricloud, kept).await;
    world.webhook("r-off", Ricloud, off).await;
    let spec = |topic: &str, policy: &str| json!({ "target": topic, "url": "https://a.example/", "deletionPolicy": policy });
    world
        .webhook("a-orphan", Autocosmos, spec("kept", "Orphan"))
        .await;
    world
        .webhook("a-off", Autocosmos, spec("off", "Deactivate"))
        .await;
    let all = ["c", "t", "r-orphan", "r-off", "a-orphan", "a-off"];
    for name in all {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    for name in all {
        world.delete_and_wait(name).await;
        let event = if name.ends_with("off") {
            "SwitchedOff"
        } else {
            "Orphaned"
        };
        let (type_, _) = world.wait_event(name, event).await;
        assert_eq!(type_, "Normal");
    }
    let off = |url: &str| {
        let found = world
            .doubles
            .ricloud()
            .objects()
            .into_iter()
            .find(|config| config.url.ends_with(url));
        found.unwrap().state == ConfigState::Deactivated
    };
    assert_eq!((off("/kept"), off("/off")), (false, true));
    let on = |topic: &str| {
        world
            .doubles
            .autocosmos()
            .upstream()
            .webhook(&world.account, topic)
            .unwrap()
            .activo
    };
    assert_eq!((on("kept"), on("off")), (true, false));
    assert_eq!(world.doubles.thulium().objects().len(), 1);
    assert!(sent(world.doubles.thulium(), &world.account, "DELETE").is_empty());
    assert!(sent(world.doubles.ricloud(), &world.account, "DELETE").is_empty());
}

#[tokio::test]
async fn what_is_deleted_while_suspended_is_let_go_untouched() {
    let world = World::new("del-suspended").await;
    world.provider(Thulium).await;
    let spec = |url: &str| json!({ "url": url, "events": ["TICKET_CREATED"] });
    world.webhook("w", Thulium, spec("https://a.example/")).await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.change("w", json!({ "suspend": true })).await;
    world.wait_ready("w", ReadyReason::Suspended).await;
    world.delete_and_wait("w").await;
    let (_, note) = world.wait_event("w", "Orphaned").await;
    assert!(note.contains("suspended"), "{note}");
    assert_eq!(world.doubles.thulium().objects().len(), 1);
}

#[tokio::test]
async fn what_was_never_written_goes_at_once() {
    let world = World::new("del-never").await;
    world
        .webhook(
            "w",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    let refused = world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    assert!(refused.finalizers().is_empty());
    world.delete_and_wait("w").await;
    assert!(
        world
            .events("w")
            .await
            .iter()
            .all(|(_, reason, _)| reason != "LeftInPlace")
    );
}

#[tokio::test]
async fn an_upstream_that_is_down_holds_a_deletion_up_only_until_the_deadline() {
    let world = World::alone("del-down", &["--deletion-deadline", "4s"]).await;
    world.provider(Thulium).await;
    world
        .webhook(
            "w",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.doubles.thulium().set_fault(Fault::new(Effect::ResetBefore));
    world.delete("w").await;
    let deleting = world.wait_ready("w", ReadyReason::Deleting).await;
    assert!(has_reason(&deleting, ReconcilingReason::Retrying));
    let said = message(&deleting, ConditionType::Ready);
    assert!(
        said.contains("could not be removed yet") && said.contains("let go with an Event after 4 s"),
        "{said}"
    );
    world.wait_gone("w").await;
    let (type_, note) = world.wait_event("w", "LeftInPlace").await;
    assert_eq!(type_, "Warning");
    assert!(note.contains("remove it there by hand"), "{note}");
    assert_eq!(world.doubles.thulium().objects().len(), 1);
    assert!(
        world.doubles.thulium().faults()[0].struck >= 3,
        "at least three attempts"
    );
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_cleaned_up() {
    let world = World::new("del-back").await;
    world.provider(Ricloud).await;
    world
        .webhook("w", Ricloud, json!({ "url": world.ricloud_receiver("w") }))
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.doubles.ricloud().set_fault(Fault::status(503).times(2));
    world.delete_and_wait("w").await;
    assert!(world.doubles.ricloud().objects().is_empty());
}

#[tokio::test]
async fn the_account_outlives_its_registrations() {
    let world = World::new("del-secret").await;
    world.provider(Thulium).await;
    world
        .webhook(
            "w",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    // The provider waits for its Webhooks; the Secret goes, and what is known of it is enough to clean up.
    world
        .api::<WebhookProvider>()
        .delete("thulium", &DeleteParams::default())
        .await
        .unwrap();
    world
        .api::<Secret>()
        .delete("thulium-account", &DeleteParams::default())
        .await
        .unwrap();
    let gone = await_condition(
        world.api::<Secret>(),
        "thulium-account",
        |secret: Option<&Secret>| secret.is_none(),
    );
    tokio::time::timeout(SOON, gone)
        .await
        .expect("the Secret is released at once")
        .unwrap();
    assert!(
        world
            .api::<WebhookProvider>()
            .get_opt("thulium")
            .await
            .unwrap()
            .is_some()
    );
    world.delete_and_wait("w").await;
    assert!(world.doubles.thulium().objects().is_empty());
    let gone = await_condition(
        world.api::<WebhookProvider>(),
        "thulium",
        |it: Option<&WebhookProvider>| it.is_none(),
    );
    tokio::time::timeout(SOON, gone)
        .await
        .expect("the provider goes after its last Webhook")
        .unwrap();
}

#[tokio::test]
async fn credentials_that_nobody_knows_any_more_hold_a_deletion_up_only_until_the_deadline() {
    let world = World::alone("del-lost", &["--deletion-deadline", "3s"]).await;
    world.provider(Thulium).await;
    world
        .webhook(
            "w",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.operator.kill();
    // By force, while no operator can remember them.
    let release = json!({ "metadata": { "finalizers": null } });
    world.patch::<Secret>("thulium-account", &release).await;
    world
        .api::<Secret>()
        .delete("thulium-account", &DeleteParams::default())
        .await
        .unwrap();
    world.operator.go().await;
    world.delete_and_wait("w").await;
    let (_, note) = world.wait_event("w", "LeftInPlace").await;
    assert!(
        note.contains("thulium-account") || note.contains("credentials"),
        "{note}"
    );
    assert_eq!(world.doubles.thulium().objects().len(), 1);
}

#[tokio::test]
async fn the_deletion_of_a_namespace_with_everything_in_it_ends_and_leaves_nothing() {
    let world = World::new("del-namespace").await;
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
        .webhook("r", Ricloud, json!({ "url": world.ricloud_receiver("r") }))
        .await;
    world
        .webhook(
            "a",
            Autocosmos,
            json!({ "target": "precios", "url": "https://a.example/" }),
        )
        .await;
    for number in 0..5 {
        let spec = json!({ "url": format!("https://a.example/{number}"), "events": ["TICKET_CREATED"] });
        world.webhook(&format!("t{number}"), Thulium, spec).await;
    }
    for name in ["c", "r", "a", "t0", "t1", "t2", "t3", "t4"] {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    let gone = await_condition(namespaces.clone(), &world.namespace, |it: Option<&Namespace>| {
        it.is_none()
    });
    if tokio::time::timeout(Duration::from_secs(60), gone).await.is_err() {
        let namespace = namespaces.get(&world.namespace).await.unwrap();
        let providers = world
            .api::<WebhookProvider>()
            .list_metadata(&ListParams::default())
            .await
            .unwrap();
        let secrets = world
            .api::<Secret>()
            .list_metadata(&ListParams::default())
            .await
            .unwrap();
        let rest: Vec<String> = providers
            .iter()
            .map(pretty)
            .chain(secrets.iter().map(pretty))
            .collect();
        panic!(
            "{:#?}\n{}\n{}",
            namespace.status,
            rest.join("\n"),
            world.report("c").await
        );
    }
    assert!(world.doubles.thulium().objects().is_empty());
    assert!(world.doubles.ricloud().objects().is_empty());
    assert!(!world.doubles.autocosmos().objects()[0].activo);
    // No Event can be made in a namespace that goes; what was left at Conpeek is told all the same.
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = async {
        loop {
            let list = events.list(&ListParams::default()).await.unwrap();
            let about = |event: &&Event| {
                let regarding = event.regarding.as_ref();
                regarding.is_some_and(|it| it.name.as_ref() == Some(&world.namespace))
                    && event.reason.as_deref() == Some("LeftInPlace")
            };
            if let Some(event) = list.items.iter().find(about) {
                return event.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let event = tokio::time::timeout(SOON, told)
        .await
        .expect("an Event about the Namespace");
    assert_eq!(
        event.regarding.as_ref().and_then(|it| it.kind.as_deref()),
        Some("Namespace")
    );
    assert!(event.note.unwrap_or_default().contains("registration 9"));
}
