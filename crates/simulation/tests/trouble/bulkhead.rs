//! More dead accounts than workers, and one that is well.

use simulation::wire::{self, Fate};

use super::*;

/// More than `--concurrency` is by default.
const DEAD: usize = 40;

#[tokio::test(start_paused = true)]
async fn forty_dead_accounts_keep_a_healthy_one_not_waiting() {
    let scene = Scene::new(&[ProviderType::Thulium], &json!({}), &[]);
    let api = scene.world.api();
    scene.world.wire().set_course(Box::new(|_, call| {
        let dead = call.text.contains("conpeek.example");
        wire::passage(call, if dead { Fate::Lost } else { Fate::Arrives })
    }));
    let base = scene.world.upstreams().conpeek().url();
    for number in 0..DEAD {
        let name = format!("dead-{number}");
        let [mut secret, mut provider] =
            manifests::provider("apps", ProviderType::Conpeek, &base, &Account::demo());
        secret["metadata"]["name"] = json!(name);
        provider["metadata"]["name"] = json!(name);
        provider["spec"]["credentialsRef"]["name"] = json!(name);
        let over = json!({ "target": (number + 1).to_string(), "providerRef": { "name": name } });
        let webhook = manifests::webhook("apps", &name, ProviderType::Conpeek, &over);
        for manifest in [secret, provider, webhook] {
            api.create(&manifest).unwrap();
        }
    }
    let hanging = || {
        let made = scene.world.wire().made();
        made.iter().filter(|made| made.fate == Fate::Lost).count()
    };
    scene
        .until("the first calls", Duration::from_secs(15), |_| hanging() >= 32)
        .await;
    let id = scene.webhook(ProviderType::Thulium, 0, &json!({}));
    let is_ready = |scene: &Scene| {
        let webhook = scene.world.api().get(&id).unwrap();
        let conditions = webhook["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    scene
        .until("a Webhook elsewhere", Duration::from_secs(2), is_ready)
        .await;
    // And so is its deletion.
    api.delete(&id).unwrap();
    scene
        .until("its deletion", Duration::from_secs(2), |scene| {
            scene.world.api().get(&id).is_none()
        })
        .await;
    scene.operator.stop().await.unwrap();
}
