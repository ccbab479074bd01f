//! What searches with the simulation have found, each with the way that led there.

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

const SILENCE: Duration = Duration::from_secs(80);
const LONGEST: Duration = Duration::from_secs(1200);

fn hook() -> Id {
    Id::new("webhooks", "apps", "a")
}

/// A world with an account at ricloud.
fn world() -> World {
    let world = World::new(1);
    let base = world.upstreams().ricloud().url();
    for manifest in manifests::provider("apps", ProviderType::Ricloud, &base, &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    world
}

fn ready(world: &World) -> String {
    let webhook = world.api().get(&hook()).unwrap();
    let conditions = webhook["status"]["conditions"].as_array();
    let ready = conditions.and_then(|conditions| conditions.iter().find(|it| it["type"] == "Ready"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ready.map_or_else(String::new, |ready| {
        format!("{}/{}", text(&ready["status"]), text(&ready["reason"]))
    })
}

/// What replaced a registration whose secret was lost counted as given up as well, and was replaced in its turn, for
/// ever.
#[tokio::test(start_paused = true)]
async fn a_registration_whose_secret_is_lost_is_made_anew_once() {
    let world = world();
    let ricloud = world.upstreams().ricloud();
    ricloud.change_behaviour(|behaviour| behaviour.secret_in_reads = false);
    let operator = Operator::start(&world, options(&[]));
    let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &json!({}));
    world.api().create(&manifest).unwrap();
    world.wire().stir();
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    let creates = || {
        let requests = ricloud.requests_where(|it| it.method == "POST" && it.path == "/configs/webhook");
        requests.len()
    };
    assert_eq!(creates(), 1);
    world
        .api()
        .delete(&Id::new("secrets", "apps", "a-signing"))
        .unwrap();
    world.wire().stir();
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    assert_eq!(creates(), 2);
    assert_eq!(ready(&world), "True/Available");
}
