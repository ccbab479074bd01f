//! One upstream is out: it gets few calls, and what belongs to the others does not notice.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use upstream_doubles::{Effect, Fault};
use webhook_operator::api::provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium};

use super::{ALL, Scene};

const OUTAGE: Duration = Duration::from_secs(600);

/// What ninety-nine of a hundred new Webhooks at the other three upstreams wait, with Thulium as `fault` has it.
async fn p99(fault: Option<Fault>) -> Duration {
    let scene = Scene::new(&ALL, &json!({}), &[]);
    if let Some(fault) = fault {
        scene.fault(Thulium, fault);
        // Many more than there are workers, and all of them stuck.
        scene.webhooks(Thulium, 100, &json!({}));
        sleep(Duration::from_secs(60)).await;
    }
    let mut waits = Vec::new();
    for number in 0..34 {
        for provider in [Conpeek, Ricloud, Autocosmos] {
            let id = scene.webhook(provider, number, &json!({}));
            waits.push(scene.until_ready(&[id], Duration::from_secs(60)).await);
        }
    }
    waits.sort();
    waits[waits.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_does_not_hold_up_the_others() {
    let calm = p99(None).await;
    for fault in [
        Fault::new(Effect::ResetBefore),
        Fault::status(503),
        Fault::delay(Duration::from_secs(3600)),
    ] {
        let name = format!("{:?}", fault.effect);
        let others = p99(Some(fault)).await;
        // Looked at every 100 ms.
        let most = calm.mul_f64(1.2) + Duration::from_millis(100);
        assert!(others <= most, "{name}: {others:?}, without it {calm:?}");
    }
}

/// Few calls while it lasts, and everything as it should be soon after.
#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_minutes_costs_at_most_twelve_calls_for_each_webhook() {
    for provider in ALL {
        for fault in [
            Fault::new(Effect::ResetBefore),
            Fault::status(500),
            Fault::status(503),
        ] {
            let name = format!("{} {:?}", provider.as_str(), fault.effect);
            let scene = Scene::new(&[provider], &json!({}), &[]);
            scene.fault(provider, fault);
            let ids = scene.webhooks(provider, 5, &json!({}));
            sleep(OUTAGE).await;
            let calls = scene.requests(provider).len();
            // One more now and then verifies the provider.
            assert!(calls <= 12 * ids.len() + 12, "{name}: {calls} calls");
            assert!(calls >= ids.len(), "{name}: {calls} calls");
            scene.heal(provider);
            scene.until_ready(&ids, Duration::from_secs(330)).await;
            assert_eq!(scene.registrations(provider), ids.len(), "{name}");
        }
    }
}
