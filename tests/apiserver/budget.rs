//! What one Webhook may cost the apiserver from apply to Ready, and to be deleted: counted by the apiserver, failed
//! writes included.

use serde_json::{Value, json};
use webhook_operator::api::{conditions::ReadyReason, provider::ProviderType};

use crate::{
    audit::{Audit, Request, patches},
    world::World,
};

/// What the budget allows.
struct Budget {
    provider: ProviderType,
    spec: Value,
    /// Writes from apply to Ready.
    to_ready: usize,
}

fn budgets(receiver: &str) -> [Budget; 5] {
    let url = |path: &str| format!("{receiver}/ok/{path}");
    let auto = json!({"mode": "Auto"});
    [
        // The key is known beforehand and nothing tests: finalizer and id in one, then the status.
        Budget {
            provider: ProviderType::Conpeek,
            spec: json!({"target": "8", "url": url("untested"), "test": {"mode": "None"}}),
            to_ready: 2,
        },
        // And the verdict of the test as a second status.
        Budget {
            provider: ProviderType::Conpeek,
            spec: json!({"target": "9", "url": url("conpeek"), "test": auto}),
            to_ready: 3,
        },
        Budget {
            provider: ProviderType::Autocosmos,
            spec: json!({"target": "orders", "url": url("autocosmos"), "secretRef": {"name": "signing"}, "test": auto}),
            to_ready: 3,
        },
        // The upstream gives the id: finalizer and mark, id in and mark out, the status, the verdict.
        Budget {
            provider: ProviderType::Thulium,
            spec: json!({"url": url("thulium"), "events": ["TICKET_CREATED"], "test": auto}),
            to_ready: 4,
        },
        Budget {
            provider: ProviderType::Ricloud,
            spec: json!({"url": url("ricloud"), "test": auto}),
            to_ready: 4,
        },
    ]
}

fn shown(requests: &[&Request]) -> Vec<String> {
    requests
        .iter()
        .map(|request| format!("{} {}: {}", request.verb, request.resource, request.status))
        .collect()
}

#[tokio::test]
async fn from_apply_to_ready_and_to_deletion_within_the_budget() {
    let world = World::alone("budget", &[]).await;
    world.doubles.ricloud().change_behaviour(|behaviour| {
        behaviour.verdict = upstream_doubles::Verdict::AlwaysValid;
    });
    world.doubles.autocosmos().change_behaviour(|behaviour| {
        behaviour.replay_rule = upstream_doubles::ReplayRule::Off;
    });
    world
        .secret("signing", &[("secret", "a-signing-secret-of-some-length")])
        .await;
    for provider in ProviderType::ALL {
        world.provider(provider).await;
    }
    let budgets = budgets(&world.doubles.receiver().url());
    for (number, budget) in budgets.into_iter().enumerate() {
        let Budget {
            provider,
            spec,
            to_ready,
        } = budget;
        let name = format!("{}-{number}", provider.as_str().to_lowercase());
        let mut audit = Audit::begin(&world);
        world.webhook(&name, provider, spec).await;
        world.wait_ready(&name, ReadyReason::Available).await;
        // A write too many would come soon after.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let requests = audit.requests().await;
        let writes = patches(&requests, &name);
        assert!(!writes.is_empty(), "the count sees what the operator writes");
        assert!(
            writes.len() <= to_ready,
            "{name} from apply to Ready: {:#?}",
            shown(&writes)
        );

        world.delete_and_wait(&name).await;
        let requests = audit.requests().await;
        let writes = patches(&requests, &name);
        assert_eq!(writes.len(), 1, "{name} to be deleted: {:#?}", shown(&writes));
    }
}
