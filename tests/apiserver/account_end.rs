//! An account lasts as long as a registration needs it, and no longer.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, api::DeleteParams, runtime::wait::await_condition};
use serde_json::json;
use webhook_operator::api::{
    WebhookProvider,
    conditions::ReadyReason,
    provider::ProviderType::{Conpeek, Thulium},
};

use crate::world::{SOON, World, name_of};

/// Deletes an object and waits until it is gone.
async fn delete<K>(api: Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    api.delete(name, &DeleteParams::default()).await.unwrap();
    let gone = await_condition(api, name, |object: Option<&K>| object.is_none());
    if tokio::time::timeout(SOON, gone).await.is_err() {
        panic!("{} {name} is not gone after {SOON:?}", K::kind(&()));
    }
}

/// The answer to the write that lets a Webhook go may come before or after the watch has delivered its end. In
/// either case nothing may be left that holds the provider; several Webhooks, so that both happen.
#[tokio::test]
async fn provider_and_secret_go_once_their_last_webhook_is_gone() {
    let world = World::new("account-end").await;
    for provider in [Conpeek, Thulium] {
        world.provider(provider).await;
    }
    let names: Vec<String> = (1..=6).map(|number| format!("w{number}")).collect();
    for (target, name) in names.iter().enumerate() {
        let url = format!("https://hooks.example.com/{name}");
        world
            .webhook(
                &format!("c-{name}"),
                Conpeek,
                json!({ "url": url, "target": (target + 1).to_string() }),
            )
            .await;
        world
            .webhook(
                &format!("t-{name}"),
                Thulium,
                json!({ "url": url, "events": ["TICKET_CREATED"] }),
            )
            .await;
    }
    let all = || {
        ["c", "t"]
            .into_iter()
            .flat_map(|kind| names.iter().map(move |name| format!("{kind}-{name}")))
    };
    for name in all() {
        world.wait_ready(&name, ReadyReason::Available).await;
    }
    for name in all() {
        world.delete(&name).await;
    }
    for name in all() {
        world.wait_gone(&name).await;
    }
    for provider in [Conpeek, Thulium] {
        let name = name_of(provider);
        delete::<Secret>(world.api(), &format!("{name}-account")).await;
        delete::<WebhookProvider>(world.api(), &name).await;
    }
}
