//! What has to be true when everything has come to rest: for each Webhook what the exploration demands of its one
//! ([`Found`]), and for what is left of others what their policy says.

use serde_json::Value;
use webhook_operator::api::provider::ProviderType;

use super::{lives::Lives, plan::Plan};
use crate::{
    World,
    apiserver::Id,
    explore::{
        registered,
        webhook::{self, Found, text, words},
    },
    manifests,
};

/// All that is wrong, in words.
pub(super) fn judge(plan: &Plan, world: &World, lives: &Lives) -> Vec<String> {
    let mut wrong = Vec::new();
    let webhooks = world.api().list("webhooks");
    for form in &plan.forms {
        let all = registered::at(world.upstreams(), form.provider);
        let mut rest = all.clone();
        for webhook in webhooks.iter().filter(|it| is_of(it, form.provider)) {
            let metadata = &webhook["metadata"];
            let label = format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]));
            if metadata["deletionTimestamp"].is_string() {
                wrong.push(format!("{label} is still there: {}", words(&webhook["status"])));
                continue;
            }
            let found = Found {
                webhook,
                provider: form.provider,
            };
            let what = found.judge(world, &mut rest);
            wrong.extend(what.into_iter().map(|what| format!("{label}: {what}")));
        }
        wrong.extend(lives.judge(form.provider, &all, rest));
    }
    for (place, _) in &plan.places {
        let name = manifests::name_of(place.provider);
        let provider = Id::new("webhookproviders", place.namespace, &name);
        let credentials = Id::new("secrets", place.namespace, &format!("{name}-account"));
        let of_it = webhooks
            .iter()
            .filter(|it| is_of(it, place.provider) && it["metadata"]["namespace"] == place.namespace);
        let what = webhook::account(world, &provider, &credentials, of_it.count());
        wrong.extend(what.into_iter().map(|what| format!("{place}: {what}")));
    }
    wrong.extend(webhook::namespaces(world));
    wrong
}

fn is_of(webhook: &Value, provider: ProviderType) -> bool {
    text(&webhook["spec"]["providerRef"]["name"]) == manifests::name_of(provider)
}

/// What is registered twice at this moment, where that can be told by looking. `None` where it cannot: a registration
/// whose secret is lost is made anew before the old one is removed, and whose secrets cannot be read loses them.
pub(super) fn doubled(plan: &Plan, world: &World) -> impl Fn() -> Option<String> + Send + use<> {
    let models = std::sync::Arc::clone(world.upstreams());
    let secretive = plan.form(ProviderType::Ricloud).name == "ricloud-secretive";
    move || {
        let mut twice = models.thulium().duplicates();
        if !secretive {
            twice.extend(models.ricloud().duplicates());
        }
        let first = twice.into_iter().next()?;
        Some(format!("{} has ids {}", first.url, first.ids.join(", ")))
    }
}
