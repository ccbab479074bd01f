//! Deletions with an upstream that does not answer as it should: they end, but not too soon.

use std::time::Duration;

use serde_json::json;
use simulation::{Operator, apiserver::Id, options};
use tokio::time::sleep;
use upstream_doubles::{Effect, Fault};
use webhook_operator::api::provider::ProviderType::{self, Autocosmos, Ricloud, Thulium};

use super::{Scene, double};

/// A provider of one call a second, one at a time: what waits for its turn is not given up for that, although three
/// attempts of each take longer than the deadline.
#[tokio::test(start_paused = true)]
async fn the_wait_in_the_own_queue_does_not_count_towards_the_deadline() {
    let slow = json!({ "rateLimit": { "requestsPerSecond": 1, "burst": 1, "maxConcurrent": 1 } });
    for provider in [Thulium, Ricloud, Autocosmos] {
        let scene = Scene::new(&[provider], &slow, &["--deletion-deadline", "60s"]);
        let ids = scene.webhooks(provider, 30, &json!({}));
        scene.until_ready(&ids, Duration::from_secs(600)).await;
        scene.fault(provider, Fault::status(503));
        for id in &ids {
            scene.delete(id);
        }
        sleep(Duration::from_secs(180)).await;
        let tried = double!(scene.world, provider, double => double.faults()[0].struck);
        assert!(tried >= 3 * 30, "each was tried three times: {tried}");
        scene.heal(provider);
        scene.until_gone(&ids, Duration::from_secs(600)).await;
        assert_eq!(scene.told("LeftInPlace"), 0, "{}", provider.as_str());
        assert_eq!(scene.registrations(provider), 0, "{}", provider.as_str());
    }
}

/// All go after the deadline, with an Event each, whether the upstream refuses at once or keeps everybody waiting.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_lets_all_go_after_the_deadline() {
    for (fault, longest) in [
        (Fault::new(Effect::ResetBefore), 700),
        (Fault::delay(Duration::from_secs(3600)), 1800),
    ] {
        for provider in [Thulium, Ricloud, Autocosmos] {
            let wide = json!({ "rateLimit": { "maxConcurrent": 16 } });
            let scene = Scene::new(&[provider], &wide, &[]);
            let ids = scene.webhooks(provider, 12, &json!({}));
            scene.until_ready(&ids, Duration::from_secs(600)).await;
            scene.fault(provider, fault.clone());
            for id in &ids {
                scene.delete(id);
            }
            let took = scene.until_gone(&ids, Duration::from_secs(longest)).await;
            assert!(took >= Duration::from_secs(300), "{took:?}");
            assert_eq!(scene.told("LeftInPlace"), ids.len());
            assert_eq!(scene.registrations(provider), ids.len());
        }
    }
}

/// Everything that is deleted at once goes at the rate of the provider, and nothing is left.
#[tokio::test(start_paused = true)]
async fn many_at_once_go_at_the_rate_of_the_provider() {
    let scene = Scene::new(&[Autocosmos], &json!({}), &[]);
    let ids = scene.webhooks(Autocosmos, 300, &json!({}));
    scene.until_ready(&ids, Duration::from_secs(600)).await;
    let before = scene.requests(Autocosmos).len();
    for id in &ids {
        scene.delete(id);
    }
    let took = scene.until_gone(&ids, Duration::from_secs(60)).await;
    let calls = scene.requests(Autocosmos).len() - before;
    assert!(calls <= 2 * ids.len(), "{calls} calls in {took:?}");
    assert_eq!(scene.registrations(Autocosmos), 0);
    scene.quiet(Duration::from_secs(120)).await;
}

/// Deleted while they wait in the queue of a provider that works on one at a time: each has its turn once.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_it_waits_for_its_turn_goes() {
    for provider in [Thulium, Ricloud, Autocosmos] {
        let one = json!({ "rateLimit": { "requestsPerSecond": 1, "burst": 1, "maxConcurrent": 1 } });
        let scene = Scene::new(&[provider], &one, &[]);
        let ids = scene.webhooks(provider, 20, &json!({}));
        sleep(Duration::from_secs(5)).await;
        for id in &ids {
            scene.delete(id);
        }
        scene.until_gone(&ids, Duration::from_secs(120)).await;
        let after = scene.webhook(provider, 20, &json!({}));
        scene.until_ready(&[after], Duration::from_secs(30)).await;
        assert_eq!(scene.registrations(provider), 1);
    }
}

/// The provider is deleted first, then the operator restarts, then the Webhook goes: nothing is left of any of them.
#[tokio::test(start_paused = true)]
async fn a_provider_deleted_first_outlasts_its_webhooks_and_a_restart() {
    for provider in [Thulium, Ricloud, Autocosmos] {
        let mut scene = Scene::new(&[provider], &json!({}), &[]);
        let ids = scene.webhooks(provider, 3, &json!({}));
        scene.until_ready(&ids, Duration::from_secs(600)).await;
        let object = Id::new(
            "webhookproviders",
            "apps",
            &simulation::manifests::name_of(provider),
        );
        scene.delete(&object);
        sleep(Duration::from_secs(30)).await;
        assert!(scene.world.api().get(&object).is_some(), "it is in use");
        scene = restarted(scene, &[]).await;
        for id in &ids {
            scene.delete(id);
        }
        scene.until_gone(&ids, Duration::from_secs(60)).await;
        scene.until_gone(&[object], Duration::from_secs(60)).await;
        assert_eq!(scene.told("LeftInPlace"), 0);
        assert_eq!(scene.registrations(provider), 0);
    }
}

/// The Secret is deleted first: what this process knows of it is enough, and without that process all end after the
/// deadline.
#[tokio::test(start_paused = true)]
async fn a_secret_deleted_first_is_remembered_by_its_process_only() {
    for (provider, restarts) in [
        (Thulium, false),
        (Ricloud, false),
        (Autocosmos, false),
        (Thulium, true),
        (Ricloud, true),
        (Autocosmos, true),
    ] {
        let mut scene = Scene::new(&[provider], &json!({}), &[]);
        let ids = scene.webhooks(provider, 3, &json!({}));
        scene.until_ready(&ids, Duration::from_secs(600)).await;
        let secret = account(provider);
        scene.delete(&secret);
        scene
            .until_gone(std::slice::from_ref(&secret), Duration::from_secs(60))
            .await;
        if restarts {
            scene = restarted(scene, &[]).await;
        }
        for id in &ids {
            scene.delete(id);
        }
        let longest = if restarts { 700 } else { 60 };
        scene.until_gone(&ids, Duration::from_secs(longest)).await;
        let left = if restarts { ids.len() } else { 0 };
        assert_eq!(
            scene.told("LeftInPlace"),
            left,
            "{} {restarts}",
            provider.as_str()
        );
        assert_eq!(scene.registrations(provider), left);
    }
}

/// Without the mark the Secret goes with everything else, and what is left is told.
#[tokio::test(start_paused = true)]
async fn unprotected_credentials_that_go_first_leave_things_in_place() {
    let args = ["--protect-credentials=false"];
    let mut scene = Scene::new(&[Thulium], &json!({}), &args);
    let ids = scene.webhooks(Thulium, 3, &json!({}));
    scene.until_ready(&ids, Duration::from_secs(600)).await;
    let provider = Id::new("webhookproviders", "apps", "thulium");
    for id in [&account(Thulium), &provider] {
        let object = scene.world.api().get(id).unwrap();
        assert!(object["metadata"]["finalizers"].is_null(), "{object:#}");
        scene.delete(id);
    }
    scene = restarted(scene, &args).await;
    for id in &ids {
        scene.delete(id);
    }
    scene.until_gone(&ids, Duration::from_secs(700)).await;
    assert_eq!(scene.told("LeftInPlace"), ids.len());
    assert_eq!(scene.registrations(Thulium), ids.len());
}

/// Credentials that come back in time are used at once, not after the pause.
#[tokio::test(start_paused = true)]
async fn credentials_that_come_back_end_the_pause() {
    let scene = Scene::new(&[Thulium], &json!({}), &[]);
    let ids = scene.webhooks(Thulium, 3, &json!({}));
    scene.until_ready(&ids, Duration::from_secs(600)).await;
    let wrong = |password: &str| {
        let data = simulation::manifests::secret("apps", "thulium-account", &[("password", password)]);
        let patch = json!({ "data": data["data"] });
        scene.world.api().patch(&account(Thulium), &patch).unwrap();
        scene.world.wire().stir();
    };
    wrong("wrong");
    sleep(Duration::from_secs(10)).await;
    for id in &ids {
        scene.delete(id);
    }
    // By now the pauses between two attempts are minutes.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(scene.registrations(Thulium), 3);
    wrong("password-of-demo");
    scene.until_gone(&ids, Duration::from_secs(10)).await;
    assert_eq!(scene.registrations(Thulium), 0);
}

fn account(provider: ProviderType) -> Id {
    let name = simulation::manifests::name_of(provider);
    Id::new("secrets", "apps", &format!("{name}-account"))
}

async fn restarted(scene: Scene, args: &[&str]) -> Scene {
    let Scene { world, operator } = scene;
    operator.kill().await;
    let operator = Operator::start(&world, options(args));
    Scene { world, operator }
}
