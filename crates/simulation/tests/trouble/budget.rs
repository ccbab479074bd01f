//! How many calls an upstream gets, and who goes first.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use upstream_doubles::{Fault, RetryAfter, Seen};
use webhook_operator::api::provider::ProviderType::{Autocosmos, Conpeek, Thulium};

use super::{ALL, Scene};

fn of_a_sort(seen: &Seen, sort: &str, path: &str) -> bool {
    seen.method == sort && seen.path.contains(path)
}

/// One answer of 429 stops everything that has to do with the provider, for as long as it says and no longer.
#[tokio::test(start_paused = true)]
async fn retry_after_stops_the_whole_provider() {
    const ASKED: u64 = 120;
    for provider in ALL {
        for form in [RetryAfter::Seconds(ASKED), RetryAfter::DateIn(ASKED)] {
            let what = format!("{} {form:?}", provider.as_str());
            let scene = Scene::new(&[provider], &json!({}), &["--deletion-deadline", "60s"]);
            let ids = scene.webhooks(provider, 8, &json!({ "interval": "30s" }));
            scene.until_ready(&ids, Duration::from_secs(600)).await;
            scene.quiet_calls(provider).await;
            scene.fault(provider, Fault::retry_after(429, form).times(1));
            scene.change(&ids[0], &json!({ "url": "https://hooks.example/changed" }));
            scene
                .until("the 429", Duration::from_secs(60), |scene| {
                    scene
                        .requests(provider)
                        .iter()
                        .any(|seen| seen.status == Some(429))
                })
                .await;
            let refused = scene.requests(provider).pop().unwrap();
            assert_eq!(refused.status, Some(429), "{what}");
            // Deletions, changes and new ones come meanwhile, and the deletions' deadline passes.
            let (deleted, kept) = ids.split_at(3);
            for id in &deleted[1..] {
                scene.delete(id);
            }
            scene.change(&kept[0], &json!({ "url": "https://hooks.example/changed-too" }));
            let new = scene.webhook(provider, 8, &json!({}));
            scene
                .until("the next call", Duration::from_secs(ASKED + 10), |scene| {
                    scene
                        .requests(provider)
                        .last()
                        .is_some_and(|seen| seen.seq > refused.seq)
                })
                .await;
            let next = scene
                .requests(provider)
                .into_iter()
                .find(|seen| seen.seq > refused.seq)
                .unwrap();
            let waited = next.at_millis - refused.at_millis;
            // An HTTP date has whole seconds.
            let range = ASKED * 1000 - 1000..=ASKED * 1000 + 1000;
            assert!(range.contains(&waited), "{what}: {waited} ms");
            scene.until_gone(&deleted[1..], Duration::from_secs(30)).await;
            let rest = [ids[0].clone(), kept[0].clone(), new];
            scene.until_ready(&rest, Duration::from_secs(200)).await;
            let left = if provider == Conpeek { 9 } else { 7 };
            assert_eq!(scene.registrations(provider), left, "{what}");
        }
    }
}

/// More read-backs are due than the provider's rate allows, so their queue never ends. A change and a deletion pass it.
#[tokio::test(start_paused = true)]
async fn changes_and_deletions_go_before_read_backs() {
    let slow = json!({ "rateLimit": { "requestsPerSecond": 5, "burst": 1, "maxConcurrent": 4 } });
    let scene = Scene::new(&[Autocosmos], &slow, &[]);
    let ids = scene.webhooks(Autocosmos, 500, &json!({ "interval": "30s" }));
    scene.until_ready(&ids, Duration::from_secs(1200)).await;
    sleep(Duration::from_secs(120)).await;
    // Five calls a second, one for each read-back: 100 s for one round of what is due every 30 s.
    let before = scene.requests(Autocosmos).len();
    sleep(Duration::from_secs(30)).await;
    let calls = scene.requests(Autocosmos).len() - before;
    assert!(
        (140..=155).contains(&calls),
        "{calls} calls in 30 s: the queue is full"
    );

    scene.change(&ids[0], &json!({ "url": "https://hooks.example/changed" }));
    let took = scene.until_ready(&ids[..1], Duration::from_secs(10)).await;
    assert!(took <= Duration::from_secs(4), "a change took {took:?}");
    scene.delete(&ids[1]);
    let took = scene.until_gone(&ids[1..2], Duration::from_secs(10)).await;
    assert!(took <= Duration::from_secs(4), "a deletion took {took:?}");
    let new = scene.webhook(Autocosmos, 500, &json!({}));
    let took = scene.until_ready(&[new], Duration::from_secs(10)).await;
    assert!(took <= Duration::from_secs(4), "a new one took {took:?}");
}

/// What the upstream gets in any ten seconds, with everything at once.
#[tokio::test(start_paused = true)]
async fn the_rate_is_never_exceeded_and_always_used() {
    const RATE: u64 = 5;
    let slow = json!({ "rateLimit": { "requestsPerSecond": RATE, "burst": 1, "maxConcurrent": 4 } });
    for (provider, count) in [(Conpeek, 300), (Thulium, 60)] {
        let scene = Scene::new(&[provider], &slow, &[]);
        let ids = scene.webhooks(provider, count, &json!({}));
        scene.until_ready(&ids, Duration::from_secs(3600)).await;
        for id in &ids {
            scene.change(
                id,
                &json!({ "url": format!("https://hooks.example/changed/{}", id.name) }),
            );
        }
        scene.until_ready(&ids, Duration::from_secs(3600)).await;
        let times: Vec<u64> = scene
            .requests(provider)
            .iter()
            .map(|seen| seen.at_millis)
            .collect();
        let most = times
            .iter()
            .enumerate()
            .map(|(first, begin)| {
                times[first..]
                    .iter()
                    .take_while(|at| **at < begin + 10_000)
                    .count()
            })
            .max()
            .unwrap();
        assert!(
            most <= 52,
            "{most} calls in 10 s are more than 5 % above {RATE} a second"
        );
        let calls = times.len() as u64;
        let took = times.last().unwrap() - times.first().unwrap();
        assert!(
            took <= calls * 1000 / RATE * 11 / 10,
            "{calls} calls took {took} ms"
        );
    }
}

/// What the upstream will never accept is not sent again before something changes.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_costs_nothing_more() {
    for provider in ALL {
        for status in [400, 422] {
            let scene = Scene::new(&[provider], &json!({}), &[]);
            for method in ["POST", "PUT"] {
                scene.fault(provider, Fault::status(status).method(method));
            }
            let ids = scene.webhooks(provider, 3, &json!({}));
            sleep(Duration::from_secs(60)).await;
            let writes = |scene: &Scene| {
                let all = scene.requests(provider);
                all.iter()
                    .filter(|seen| of_a_sort(seen, "POST", "") || of_a_sort(seen, "PUT", ""))
                    .count()
            };
            let (before, calls) = (writes(&scene), scene.requests(provider).len());
            assert!(before >= ids.len(), "{}: {before} writes", provider.as_str());
            for id in &ids {
                let webhook = scene.world.api().get(id).unwrap();
                let conditions = webhook["status"]["conditions"].as_array().unwrap();
                let stalled = conditions.iter().find(|condition| condition["type"] == "Stalled");
                assert!(
                    stalled.is_some_and(|stalled| stalled["reason"] == "Rejected"),
                    "{webhook:#}"
                );
            }
            sleep(Duration::from_secs(3600)).await;
            assert_eq!(writes(&scene), before, "{} {status}", provider.as_str());
            let more = scene.requests(provider).len() - calls;
            assert!(
                more <= 2,
                "{} {status}: {more} calls in an hour",
                provider.as_str()
            );
            // It recovers by itself when the user corrects it.
            scene.heal(provider);
            for id in &ids {
                scene.change(
                    id,
                    &json!({ "url": format!("https://hooks.example/good/{}", id.name) }),
                );
            }
            scene.until_ready(&ids, Duration::from_secs(30)).await;
        }
    }
}
