//! `deletionLimit`: what goes, what is held back, what lets it go, and what none of it loses.

use std::time::Duration;

use k8s_openapi::api::{core::v1::Namespace, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use upstream_doubles::{Fault, RouteSupport};
use webhook_operator::api::{
    CONFIRM_DELETIONS, ProviderStatus, Webhook, WebhookProvider,
    conditions::{ConditionType, ReadyReason, SyncedReason},
    provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium},
};

use crate::world::{SOON, World, has_reason, message, sent, status};

fn limit(count: u32, window: &str) -> Value {
    json!({ "deletionLimit": { "count": count, "window": window } })
}

fn thulium(name: &str) -> Value {
    let url = format!("https://hooks.example.com/{name}");
    json!({ "url": url, "events": ["TICKET_CREATED"], "test": { "mode": "None" } })
}

async fn confirm(world: &World, provider: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { CONFIRM_DELETIONS: value } } });
    world.patch::<WebhookProvider>(provider, &patch).await;
}

async fn provider_status(world: &World, provider: &str) -> ProviderStatus {
    let provider = world.api::<WebhookProvider>().get(provider).await.unwrap();
    provider.status.unwrap_or_default()
}

/// Waits until all these Webhooks are held back or gone; how many are held back.
async fn wait_held(world: &World, names: &[String]) -> usize {
    let waited = tokio::time::timeout(SOON, async {
        loop {
            let list = world.api::<Webhook>().list(&ListParams::default()).await.unwrap();
            let left = |webhook: &&Webhook| names.contains(&webhook.name_any());
            let left: Vec<_> = list.items.iter().filter(left).collect();
            if left
                .iter()
                .all(|webhook| has_reason(webhook, ReadyReason::DeletionHeld))
            {
                return left.len();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    match waited.await {
        Ok(held) => held,
        Err(_) => panic!("{}", world.operator.log_tail(&world.namespace)),
    }
}

#[tokio::test]
async fn a_pruned_repository_does_not_take_everything_down_in_one_sync() {
    // The deadline is short: it must not run for what is held.
    let world = World::alone("brk-prune", &["--deletion-deadline", "2s"]).await;
    world.provider_with(Thulium, limit(5, "1h")).await;
    let names: Vec<String> = (0..50).map(|number| format!("w{number}")).collect();
    for name in &names {
        world.webhook(name, Thulium, thulium(name)).await;
    }
    for name in &names {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    for name in &names {
        world.delete(name).await;
    }
    assert_eq!(wait_held(&world, &names).await, 45);
    let registered = || world.doubles.thulium().objects().len();
    let deletes = || sent(world.doubles.thulium(), &world.account, "DELETE").len();
    assert_eq!((registered(), deletes()), (45, 5));

    // It stays so: past the deadline, and with a new process in the midst of it.
    world.operator.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.operator.crash_and_restart().await;
    assert_eq!(wait_held(&world, &names).await, 45);
    assert_eq!((registered(), deletes()), (45, 5));

    let left = world.api::<Webhook>().list(&ListParams::default()).await.unwrap();
    let one = left.items[0].name_any();
    let said = message(&left.items[0], ConditionType::Ready);
    assert!(
        said.contains("lets 5 go in 1h") && said.contains(CONFIRM_DELETIONS),
        "{said}"
    );
    let (type_, _) = world.wait_event(&one, "DeletionHeld").await;
    assert_eq!(type_, "Warning");
    let (type_, note) = world.wait_event("thulium", "DeletionsHeld").await;
    assert_eq!(type_, "Warning");
    assert!(note.contains(CONFIRM_DELETIONS), "{note}");
    let held = format!(
        r#"webhook_operator_deletions_held{{kind="WebhookProvider",namespace="{}",name="thulium"}} "#,
        world.namespace
    );
    let metrics = world.operator.metrics().await;
    assert!(metrics.contains(&format!("{held}45")), "{metrics}");
    let deletions = provider_status(&world, "thulium").await.deletions.unwrap();
    let counted: i32 = deletions.recent.iter().map(|entry| entry.removals).sum();
    assert_eq!((counted, deletions.held), (5, 45));

    confirm(&world, "thulium", "yes, all of it").await;
    for name in &names {
        world.wait_gone(name).await;
    }
    assert_eq!((registered(), deletes()), (0, 50));
    world.wait_event("thulium", "DeletionsConfirmed").await;
    let handled = provider_status(&world, "thulium")
        .await
        .last_handled_confirm_deletions;
    assert_eq!(handled.as_deref(), Some("yes, all of it"));
    let told = world.events("thulium").await;
    let told = told.iter().filter(|(_, reason, _)| reason == "DeletionsHeld");
    assert_eq!(told.count(), 1, "told once, whatever process");

    // The confirmation was for those: the next one is counted as before, and too many.
    world.webhook("later", Thulium, thulium("later")).await;
    world.wait_ready("later", ReadyReason::Available).await;
    world.delete("later").await;
    world.wait_ready("later", ReadyReason::DeletionHeld).await;
    assert_eq!(registered(), 1);
}

#[tokio::test]
async fn a_namespace_that_is_deleted_waits_with_its_provider_until_it_is_confirmed() {
    let world = World::new("brk-namespace").await;
    world.provider_with(Thulium, limit(2, "1h")).await;
    world.provider_with(Conpeek, limit(0, "1h")).await;
    let names: Vec<String> = (0..6).map(|number| format!("w{number}")).collect();
    for name in &names {
        world.webhook(name, Thulium, thulium(name)).await;
    }
    let spec = json!({ "target": "9", "url": "https://hooks.example.com/", "test": { "mode": "None" } });
    world.webhook("no-call", Conpeek, spec).await;
    for name in names.iter().map(String::as_str).chain(["no-call"]) {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(wait_held(&world, &names).await, 4);
    // Where nothing can be removed there is no call to hold back.
    world.wait_gone("no-call").await;
    assert_eq!(world.doubles.thulium().objects().len(), 4);
    // No Event can be made in there.
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = async {
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|it| it.name.as_ref()) == Some(&world.namespace)
                && event.reason.as_deref() == Some("DeletionsHeld")
        };
        while !events
            .list(&ListParams::default())
            .await
            .unwrap()
            .iter()
            .any(about)
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, told)
        .await
        .expect("an Event about the Namespace");

    confirm(&world, "thulium", "1").await;
    let gone = await_condition(namespaces, &world.namespace, |it: Option<&Namespace>| {
        it.is_none()
    });
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the namespace goes")
        .unwrap();
    assert!(world.doubles.thulium().objects().is_empty());
}

#[tokio::test]
async fn a_provider_deleted_while_it_holds_removals_back_stays_until_they_are_confirmed() {
    let world = World::new("brk-provider").await;
    world.provider_with(Ricloud, limit(0, "1h")).await;
    let spec = json!({ "url": world.ricloud_receiver("r"), "test": { "mode": "None" } });
    world.webhook("r", Ricloud, spec).await;
    world.wait_ready("r", ReadyReason::Available).await;
    world.delete("r").await;
    world.wait_ready("r", ReadyReason::DeletionHeld).await;
    let providers: Api<WebhookProvider> = world.api();
    providers
        .delete("ricloud", &DeleteParams::default())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.doubles.ricloud().objects().len(), 1);
    confirm(&world, "ricloud", "1").await;
    world.wait_gone("r").await;
    assert!(world.doubles.ricloud().objects().is_empty());
    let gone = await_condition(providers, "ricloud", |it: Option<&WebhookProvider>| it.is_none());
    tokio::time::timeout(SOON, gone)
        .await
        .expect("the provider goes")
        .unwrap();
}

#[tokio::test]
async fn a_limit_that_went_with_its_provider_lets_nothing_go_unseen() {
    let args = ["--protect-credentials", "false", "--deletion-deadline", "2s"];
    let world = World::alone("brk-gone", &args).await;
    world.provider_with(Thulium, limit(5, "1h")).await;
    world.webhook("w", Thulium, thulium("w")).await;
    world.wait_ready("w", ReadyReason::Available).await;
    let providers: Api<WebhookProvider> = world.api();
    providers
        .delete("thulium", &DeleteParams::default())
        .await
        .unwrap();
    world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    world.delete_and_wait("w").await;
    let (_, note) = world.wait_event("w", "LeftInPlace").await;
    assert!(note.contains("spec.deletionLimit"), "{note}");
    assert_eq!(world.doubles.thulium().objects().len(), 1);
}

#[tokio::test]
async fn switching_off_is_a_removal_too() {
    let world = World::new("brk-off").await;
    world.provider_with(Autocosmos, limit(1, "1h")).await;
    let spec = |topic: &str, active: bool| {
        let url = format!("https://hooks.example.com/{topic}");
        json!({ "target": topic, "url": url, "active": active, "test": { "mode": "None" } })
    };
    // What comes into being switched off takes nothing away.
    for topic in ["a", "b"] {
        world.webhook(topic, Autocosmos, spec(topic, false)).await;
        world.wait_ready(topic, ReadyReason::Deactivated).await;
        world.change(topic, json!({ "active": true })).await;
        world.wait_ready(topic, ReadyReason::Available).await;
    }
    let on = |topic: &str| {
        let upstream = world.doubles.autocosmos().upstream();
        upstream.webhook(&world.account, topic).unwrap().activo
    };
    world.change("a", json!({ "active": false })).await;
    world.wait_ready("a", ReadyReason::Deactivated).await;
    world.change("b", json!({ "active": false })).await;
    let held = world.wait_ready("b", ReadyReason::DeletionHeld).await;
    assert!(status(&held).deletion_held.is_some());
    assert_eq!((on("a"), on("b")), (false, true));
    // Taken back: nothing is held any more.
    world.change("b", json!({ "active": true })).await;
    let back = world.wait_ready("b", ReadyReason::Available).await;
    assert_eq!(status(&back).deletion_held, None);
    world.change("b", json!({ "active": false })).await;
    world.wait_ready("b", ReadyReason::DeletionHeld).await;
    confirm(&world, "autocosmos", "1").await;
    world.wait_ready("b", ReadyReason::Deactivated).await;
    assert!(!on("b"));
    // A held one can be let go by its policy, and all by taking the limit away.
    for topic in ["a", "b"] {
        world.change(topic, json!({ "active": true })).await;
        world.wait_ready(topic, ReadyReason::Available).await;
        world.delete(topic).await;
        world.wait_ready(topic, ReadyReason::DeletionHeld).await;
    }
    world.change("a", json!({ "deletionPolicy": "Orphan" })).await;
    world.wait_gone("a").await;
    let unlimited = json!({ "spec": { "deletionLimit": null } });
    world.patch::<WebhookProvider>("autocosmos", &unlimited).await;
    world.wait_gone("b").await;
    assert_eq!((on("a"), on("b")), (true, false));
    assert_eq!(provider_status(&world, "autocosmos").await.deletions, None);
}

#[tokio::test]
async fn the_window_passes_for_what_comes_and_not_for_what_is_held() {
    let world = World::new("brk-window").await;
    world.provider_with(Thulium, limit(1, "1s")).await;
    for name in ["a", "b", "c"] {
        world.webhook(name, Thulium, thulium(name)).await;
        world.wait_ready(name, ReadyReason::Available).await;
    }
    // Retries of one removal are one removal.
    world
        .doubles
        .thulium()
        .set_fault(Fault::status(503).method("DELETE").times(2));
    world.delete_and_wait("a").await;
    world.delete("b").await;
    world.wait_ready("b", ReadyReason::DeletionHeld).await;
    // The shortest window counts for five seconds at most.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    world.delete_and_wait("c").await;
    world.wait_ready("b", ReadyReason::DeletionHeld).await;
    let left = world.doubles.thulium().objects();
    assert_eq!(left.len(), 1);
    assert!(left[0].subscription_url.ends_with("/b"));
}

#[tokio::test]
async fn a_replacement_that_could_not_be_finished_is_not_begun() {
    let world = World::new("brk-replace").await;
    world
        .doubles
        .thulium()
        .change_behaviour(|behaviour| behaviour.update = RouteSupport::MethodNotAllowed);
    world.provider_with(Thulium, limit(1, "1h")).await;
    for name in ["stays", "goes"] {
        world.webhook(name, Thulium, thulium(name)).await;
        world.wait_ready(name, ReadyReason::Available).await;
    }
    // Learns that there is no update, then that there is a removal.
    world
        .change("stays", json!({ "url": "https://b.example/" }))
        .await;
    world.wait_reason("stays", SyncedReason::UpdateUnsupported).await;
    world.delete_and_wait("goes").await;
    world
        .change("stays", json!({ "url": "https://c.example/" }))
        .await;
    world.wait_ready("stays", ReadyReason::DeletionHeld).await;
    let posts = || sent(world.doubles.thulium(), &world.account, "POST").len();
    assert_eq!((world.doubles.thulium().objects().len(), posts()), (1, 2));
    confirm(&world, "thulium", "1").await;
    let replaced = world.wait_ready("stays", ReadyReason::Available).await;
    assert_eq!(status(&replaced).deletion_held, None);
    let left = world.doubles.thulium().objects();
    assert_eq!((left.len(), posts()), (1, 3));
    assert_eq!(left[0].subscription_url, "https://c.example/");
}
