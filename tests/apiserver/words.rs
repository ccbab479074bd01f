//! Words that only a newer version of the kinds has: an operator that does not know them meets them under the newer
//! kinds, which a rollback may keep, and under the older ones, which the API server goes on to store them in.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::Secret,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSON, JSONSchemaProps,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde_json::{Value, json};
use webhook_operator::api::{
    IN_USE_FINALIZER, Webhook, WebhookProvider,
    conditions::{ConditionType, ProviderReason, ReadyReason, StalledReason},
    provider::ProviderType::{Ricloud, Thulium},
    schema,
};

use crate::{
    harness::Cluster,
    identity::Identity,
    operator::Operator,
    world::{SOON, World, message},
};

/// How often it is tried whether a changed kind is served.
const POLL: Duration = Duration::from_millis(100);

/// The schema of a field of the spec.
fn field<'a>(crd: &'a mut CustomResourceDefinition, name: &str) -> &'a mut JSONSchemaProps {
    let root = crd.spec.versions[0].schema.as_mut().unwrap();
    let root = root.open_api_v3_schema.as_mut().unwrap();
    let spec = root.properties.as_mut().unwrap().get_mut("spec").unwrap();
    spec.properties.as_mut().unwrap().get_mut(name).unwrap()
}

/// Replaces the kinds: `word` is one more that a field of each has, or none is.
async fn set_kinds(world: &World, word: Option<&str>) {
    let api: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    for mut crd in schema::crds() {
        let name = match crd.spec.names.kind.as_str() {
            "Webhook" => "driftPolicy",
            _ => "undocumentedCalls",
        };
        let words = field(&mut crd, name).enum_.as_mut().unwrap();
        words.extend(word.map(|word| JSON(json!(word))));
        let there = api.get(&crd.name_any()).await.unwrap();
        crd.metadata.resource_version = there.metadata.resource_version;
        api.replace(&crd.name_any(), &PostParams::default(), &crd)
            .await
            .unwrap();
    }
}

/// Changes a spec as soon as the API server takes that, or (`taken` is false) tries until it does not.
async fn change_when<K>(world: &World, name: &str, spec: Value, taken: bool)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = world.api();
    let params = PatchParams {
        dry_run: !taken,
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "spec": spec }));
    let tried = tokio::time::timeout(SOON, async {
        while api.patch(name, &params, &patch).await.is_ok() != taken {
            tokio::time::sleep(POLL).await;
        }
    });
    assert!(tried.await.is_ok(), "{name} {spec}: not {taken} after {SOON:?}");
}

async fn is_in_use<K>(world: &World, name: &str) -> bool
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let object: K = world.api().get(name).await.unwrap();
    object.finalizers().iter().any(|it| it == IN_USE_FINALIZER)
}

#[tokio::test]
async fn an_object_of_a_newer_version_hides_no_other_under_its_kind_and_under_the_older_one() {
    // Its servers end with the process.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await));
    let identity = Identity::of_the_cluster(cluster).await;
    let operator = Operator::start(&identity, &[]).await;
    let world = World::served_by(cluster, operator, "words").await;
    for provider in [Thulium, Ricloud] {
        world.provider(provider).await;
    }
    let thulium = |name: &str| {
        let url = format!("https://hooks.example.com/{name}");
        json!({ "url": url, "events": ["TICKET_CREATED"] })
    };
    let ricloud = |name: &str| json!({ "url": world.ricloud_receiver(name) });
    for name in ["odd", "sound"] {
        world.webhook(name, Thulium, thulium(name)).await;
    }
    world.webhook("other", Ricloud, ricloud("other")).await;
    for name in ["odd", "sound", "other"] {
        world.wait_ready(name, ReadyReason::Available).await;
    }

    set_kinds(&world, Some("Ask")).await;
    change_when::<Webhook>(&world, "odd", json!({ "driftPolicy": "Ask" }), true).await;
    let asks = json!({ "undocumentedCalls": "Ask" });
    change_when::<WebhookProvider>(&world, "ricloud", asks, true).await;
    world.operator.crash_and_restart().await;
    let odd = world.wait_ready("odd", ReadyReason::UnsupportedField).await;
    let text = message(&odd, ConditionType::Stalled);
    assert_eq!(
        text,
        r#"spec.driftPolicy: "Ask" is not known to this version of the operator; use Correct or Report, or run the version that wrote it"#
    );
    let text = world.wait_provider("ricloud", ProviderReason::InvalidSpec).await;
    assert!(text.contains(r#"spec.undocumentedCalls: "Ask""#), "{text}");
    world.wait_ready("other", ReadyReason::ProviderNotReady).await;
    world.webhook("new", Thulium, thulium("new")).await;
    world.wait_ready("new", ReadyReason::Available).await;

    // The words stay in the objects, and the older kinds refuse them from anybody who writes them anew.
    set_kinds(&world, None).await;
    let asks = json!({ "driftPolicy": "Ask" });
    change_when::<Webhook>(&world, "sound", asks, false).await;
    world.operator.crash_and_restart().await;
    world.change("odd", json!({ "interval": "5m" })).await;
    world.wait_reason("odd", StalledReason::UnsupportedField).await;
    world.webhook("newest", Thulium, thulium("newest")).await;
    world.wait_ready("newest", ReadyReason::Available).await;
    assert!(is_in_use::<WebhookProvider>(&world, "ricloud").await);
    assert!(is_in_use::<Secret>(&world, "ricloud-account").await);

    world.delete_and_wait("odd").await;
    let urls = || {
        let objects = world.doubles.thulium().objects();
        let mut urls: Vec<String> = objects.into_iter().map(|it| it.subscription_url).collect();
        urls.sort();
        urls
    };
    let wanted = ["new", "newest", "sound"].map(|name| format!("https://hooks.example.com/{name}"));
    assert_eq!(urls(), wanted);
    world
        .patch::<WebhookProvider>("ricloud", &json!({ "spec": { "undocumentedCalls": "Allow" } }))
        .await;
    world.wait_ready("other", ReadyReason::Available).await;
    assert_eq!(world.doubles.ricloud().objects().len(), 1);
}
