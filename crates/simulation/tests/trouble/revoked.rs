//! Credentials that the upstream refuses all of a sudden, under many Webhooks.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use simulation::manifests::Account;
use tokio::time::sleep;
use webhook_operator::api::provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium};

use super::{Scene, double};

/// How many passes of a provider work at once (`manifests::provider`): so many calls may be under way at the moment
/// at which the upstream begins to refuse.
const AT_ONCE: usize = 4;

const WHILE: Duration = Duration::from_secs(1800);

fn revoke(scene: &Scene, provider: ProviderType) {
    // A 403 of Conpeek is the Webhook's once its key has worked; one to a wrong key is not what this is about.
    let conpeek = scene.world.upstreams().conpeek();
    conpeek.change_behaviour(|behaviour| behaviour.wrong_key_status = 401);
    let Account { name, .. } = Account::demo();
    assert!(double!(scene.world, provider, double => double.remove_account(&name)));
}

/// Settled Webhooks that are read back every 30 s, one that is new, and one that is changed, while the key is revoked
/// for half an hour.
async fn revoked(provider: ProviderType, count: usize) {
    let often = json!({ "interval": "30s" });
    let scene = Scene::new(&[provider], &json!({}), &[]);
    let mut ids = scene.webhooks(provider, count, &often);
    scene.until_ready(&ids, Duration::from_secs(600)).await;
    sleep(Duration::from_secs(60)).await;

    revoke(&scene, provider);
    let calls_before = scene.requests(provider).len();
    let version = scene.world.api().version();
    let changed = ids.pop().unwrap();
    scene.change(&changed, &json!({ "url": "https://hooks.example/changed" }));
    let new = scene.webhook(provider, count, &often);
    let settled: BTreeSet<String> = ids.iter().map(|id| id.name.clone()).collect();
    sleep(WHILE).await;

    let calls = scene.requests(provider).len() - calls_before;
    // Autocosmos signs a refused request once more before it is believed.
    let each = if provider == Autocosmos { 2 } else { 1 };
    let every_five_minutes = usize::try_from(WHILE.as_secs() / 300).unwrap();
    assert!(
        calls <= AT_ONCE * each + every_five_minutes,
        "{calls} calls in {WHILE:?}"
    );
    assert!(calls >= every_five_minutes, "{calls} calls in {WHILE:?}");
    let written = scene.world.api().changes_since(version);
    let written: Vec<_> = written
        .iter()
        .filter(|change| change.id.plural == "webhooks" && settled.contains(&change.id.name))
        .collect();
    assert!(written.is_empty(), "{written:#?}");
    for unsettled in [&changed, &new] {
        assert_eq!(scene.reason(unsettled), "ProviderNotReady");
    }

    scene.world.open(&Account::demo());
    let restored = scene.now();
    let accepted = |scene: &Scene| {
        let requests = scene.requests(provider);
        let first = requests.iter().find(|seen| {
            seen.at_millis >= restored && seen.status.is_some_and(|status| (200..300).contains(&status))
        });
        first.map(|seen| seen.at_millis)
    };
    scene
        .until("a call to be accepted", Duration::from_secs(301), |scene| {
            accepted(scene).is_some()
        })
        .await;
    let waited = scene.until_ready(&[changed, new], Duration::from_secs(60)).await;
    // Where each is read by its own address, all of them have been by then.
    if matches!(provider, Conpeek | Autocosmos) {
        let first = accepted(&scene).unwrap();
        let all = |scene: &Scene| {
            let requests = scene.requests(provider);
            let paths: BTreeSet<&str> = requests
                .iter()
                .filter(|seen| seen.at_millis >= first)
                .map(|seen| seen.path.as_str())
                .collect();
            paths.len() > count
        };
        let left = Duration::from_secs(60).saturating_sub(waited);
        scene.until("all to go on", left, all).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_webhooks_with_a_revoked_key_make_one_call_in_five_minutes() {
    revoked(Conpeek, 500).await;
}

#[tokio::test(start_paused = true)]
async fn so_do_those_whose_requests_are_signed() {
    revoked(Autocosmos, 60).await;
}

#[tokio::test(start_paused = true)]
async fn so_do_those_of_a_list() {
    for provider in [Thulium, Ricloud] {
        revoked(provider, 30).await;
    }
}

/// What waits in the queue when the first call is refused does not each find out for itself.
#[tokio::test(start_paused = true)]
async fn what_is_queued_already_when_the_key_is_refused_makes_no_call() {
    for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
        let scene = Scene::new(&[provider], &json!({ "rateLimit": { "maxConcurrent": 1 } }), &[]);
        let ids = scene.webhooks(provider, 40, &json!({}));
        scene.until_ready(&ids, Duration::from_secs(600)).await;
        revoke(&scene, provider);
        let before = scene.requests(provider).len();
        let (deleted, changed) = ids.split_at(20);
        for id in deleted.iter().filter(|_| provider != Conpeek) {
            scene.delete(id);
        }
        for id in changed {
            scene.change(
                id,
                &json!({ "url": format!("https://hooks.example/changed/{}", id.name) }),
            );
        }
        sleep(Duration::from_secs(60)).await;
        let calls = scene.requests(provider).len() - before;
        // One pass; and one that verifies the provider.
        let most = if provider == Autocosmos { 2 } else { 1 };
        assert!(
            (1..=most).contains(&calls),
            "{}: {calls} calls",
            provider.as_str()
        );

        // They go on within a minute once the key is accepted, those that are being deleted as well.
        scene.world.open(&Account::demo());
        let changed: Vec<_> = changed.to_vec();
        scene.until_ready(&changed[..1], Duration::from_secs(301)).await;
        scene.until_ready(&changed, Duration::from_secs(60)).await;
        if provider != Conpeek {
            scene.until_gone(deleted, Duration::from_secs(60)).await;
            assert_eq!(scene.told("LeftInPlace"), 0);
            assert_eq!(scene.registrations(provider), 20);
        }
    }
}
