//! Many registrations left in place at once by an upstream without a delete: every one of them is remembered, so that
//! whoever comes next may have the target.

use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use webhook_operator::api::{Webhook, conditions::ReadyReason, provider::ProviderType};

use crate::world::World;

/// More than the provider of a test lets through at once.
const WEBHOOKS: usize = 16;

#[tokio::test]
async fn targets_left_by_many_at_once_can_all_be_taken_over() {
    let world = World::alone("left", &[]).await;
    world.provider(ProviderType::Conpeek).await;
    let spec = |round: &str, number: usize| json!({"target": (number + 1).to_string(), "url": format!("https://hooks.example.com/{round}/{number}")});
    for number in 0..WEBHOOKS {
        let name = format!("first-{number}");
        world
            .webhook(&name, ProviderType::Conpeek, spec("first", number))
            .await;
    }
    for number in 0..WEBHOOKS {
        world
            .wait_ready(&format!("first-{number}"), ReadyReason::Available)
            .await;
    }
    let api = world.api::<Webhook>();
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    for number in 0..WEBHOOKS {
        world.wait_gone(&format!("first-{number}")).await;
    }
    assert_eq!(
        world.doubles.conpeek().objects().len(),
        WEBHOOKS,
        "Conpeek has no delete"
    );
    for number in 0..WEBHOOKS {
        let name = format!("second-{number}");
        world
            .webhook(&name, ProviderType::Conpeek, spec("second", number))
            .await;
    }
    for number in 0..WEBHOOKS {
        world
            .wait_ready(&format!("second-{number}"), ReadyReason::Available)
            .await;
    }
}
