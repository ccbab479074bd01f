//! What has to be true once everything is at rest.

use serde_json::Value;

use super::{
    Case,
    dialect::Left,
    registered::{self, Registration},
    stage::{Stage, URL},
    webhook::{self, Found, text, words},
};

/// All that is wrong, in words.
pub(super) fn judge(case: &Case, stage: &Stage) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut there = registered::at(stage.world.upstreams(), case.dialect.provider);
    let webhooks = stage.api().list("webhooks");
    for webhook in &webhooks {
        let name = text(&webhook["metadata"]["name"]);
        if webhook["metadata"]["deletionTimestamp"].is_string() {
            wrong.push(format!("{name} is still there: {}", words(&webhook["status"])));
            continue;
        }
        let found = Found {
            webhook,
            provider: case.dialect.provider,
        };
        for what in found.judge(&stage.world, &mut there) {
            wrong.push(format!("{name}: {what}"));
        }
    }
    wrong.extend(leftovers(case, &webhooks, there));
    let (provider, credentials) = (stage.provider(), stage.credentials());
    wrong.extend(webhook::account(
        &stage.world,
        &provider,
        &credentials,
        webhooks.len(),
    ));
    wrong.extend(webhook::namespaces(&stage.world));
    wrong
}

/// What is registered and belongs to no Webhook that is there.
fn leftovers(case: &Case, webhooks: &[Value], mut rest: Vec<Registration>) -> Vec<String> {
    let mut wrong = Vec::new();
    if webhooks.is_empty() {
        let left = case.operation.left(case.dialect);
        let on = left == Left::AsItWas;
        let kept = rest.iter().position(|it| it.url == URL && it.on == on);
        match (left, kept) {
            (Left::Nothing, _) => {}
            (_, Some(kept)) => drop(rest.remove(kept)),
            (_, None) if case.operation.hasty => {}
            (_, None) => wrong.push(format!("the policy keeps it ({left:?}), and it is not there")),
        }
    }
    wrong.extend(
        rest.iter()
            .map(|it| format!("registered and nobody's: {} {} (on: {})", it.id, it.url, it.on)),
    );
    wrong
}
