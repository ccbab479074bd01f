//! One Webhook at each upstream, from apply to Ready and gone again, without any fault.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::time::Duration;

use serde_json::{Value, json};
use simulation::{
    Operator, Rest, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
};
use webhook_operator::api::provider::ProviderType;

const SILENCE: Duration = Duration::from_secs(120);
const LONGEST: Duration = Duration::from_secs(1200);

fn base_url(world: &World, provider: ProviderType) -> String {
    let upstreams = world.upstreams();
    match provider {
        ProviderType::Conpeek => upstreams.conpeek().url(),
        ProviderType::Thulium => upstreams.thulium().url(),
        ProviderType::Ricloud => upstreams.ricloud().url(),
        ProviderType::Autocosmos => upstreams.autocosmos().url(),
    }
}

fn registrations(world: &World) -> usize {
    let upstreams = world.upstreams();
    upstreams.conpeek().objects().len()
        + upstreams.thulium().objects().len()
        + upstreams.ricloud().objects().len()
        + upstreams
            .autocosmos()
            .objects()
            .iter()
            .filter(|webhook| webhook.activo)
            .count()
}

fn ready(webhook: &Value) -> Option<&Value> {
    let conditions = webhook["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

async fn comes_and_goes(provider: ProviderType) {
    let world = World::new(1);
    for manifest in manifests::provider("apps", provider, &base_url(&world, provider), &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    let operator = Operator::start(&world, options(&[]));
    world
        .api()
        .create(&manifests::webhook("apps", "a", provider, &json!({})))
        .unwrap();
    world.wire().stir();
    let rest = world.rest(&operator, SILENCE, LONGEST).await;
    let id = Id::new("webhooks", "apps", "a");
    let webhook = world.api().get(&id).unwrap();
    let calls: Vec<String> = world.wire().made().iter().map(ToString::to_string).collect();
    let calls = calls.join("\n");
    assert_eq!(rest, Rest::Quiet, "{calls}");
    assert_eq!(ready(&webhook).unwrap()["status"], "True", "{calls}\n{webhook:#}");
    assert_eq!(registrations(&world), 1);
    world.api().delete(&id).unwrap();
    world.wire().stir();
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    assert!(world.api().get(&id).is_none(), "{:#?}", world.wire().made());
    let left = usize::from(provider == ProviderType::Conpeek);
    assert_eq!(registrations(&world), left);
    operator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conpeek() {
    comes_and_goes(ProviderType::Conpeek).await;
}

#[tokio::test(start_paused = true)]
async fn thulium() {
    comes_and_goes(ProviderType::Thulium).await;
}

#[tokio::test(start_paused = true)]
async fn ricloud() {
    comes_and_goes(ProviderType::Ricloud).await;
}

#[tokio::test(start_paused = true)]
async fn autocosmos() {
    comes_and_goes(ProviderType::Autocosmos).await;
}
