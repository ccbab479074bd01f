//! Targets that Webhooks of this cluster have left behind with their URL in place (Conpeek has no delete; policy
//! Orphan). Whoever comes next may take them over. Kept on the provider, so that a restart does not forget it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;

use super::context::{Context, ProviderObject};
use crate::{
    api::{ClusterWebhookProvider, FIELD_MANAGER, RELEASED_ANNOTATION, WebhookProvider},
    domain::remote::normal_url,
};

/// How many targets are remembered; more would not fit an annotation for ever.
const MOST: usize = 200;

/// How often a note that met a newer version of the provider is made again on that one.
const ATTEMPTS: u32 = 5;

/// One note at a time: all of a provider's stand in one annotation, and those of many Webhooks that are deleted
/// together would refuse each other for ever.
#[derive(Debug, Default)]
pub struct Noting(Mutex<()>);

fn read(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let text = metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(RELEASED_ANNOTATION));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn hash(ctx: &Context, target: &str, url: &str) -> String {
    let mut hash = ctx
        .key
        .fingerprint("released", &format!("{target}\n{}", normal_url(url)));
    hash.truncate(16);
    hash
}

/// Whether this URL was left at this target by a Webhook that is gone.
pub(super) fn was_left(ctx: &Context, provider: &ProviderObject, target: &str, url: &str) -> bool {
    read(provider.metadata())
        .get(target)
        .is_some_and(|left| left.split(' ').any(|left| left == hash(ctx, target, url)))
}

/// Remembers that one of these URLs stays at this target: what is registered is not yet what the spec says where the
/// spec was changed just before. Where it can never be noted, a later Webhook says `Conflict`, which names its cure.
///
/// # Errors
///
/// The API server failed, which passes: it is worth another try before the object is let go.
pub(super) async fn remember<'a>(
    ctx: &Context,
    provider: &ProviderObject,
    target: &str,
    urls: impl Iterator<Item = &'a str>,
) -> Result<(), kube::Error> {
    let hashes: BTreeSet<String> = urls.map(|url| hash(ctx, target, url)).collect();
    let hash = hashes.into_iter().collect::<Vec<_>>().join(" ");
    let metadata = provider.metadata();
    let noted = match provider {
        ProviderObject::Namespaced(_) => {
            let namespace = metadata.namespace.clone().unwrap_or_default();
            let api: Api<WebhookProvider> = Api::namespaced(ctx.client.clone(), &namespace);
            note(&ctx.noting, &api, metadata, target, &hash).await
        }
        ProviderObject::Cluster(_) => {
            let api: Api<ClusterWebhookProvider> = Api::all(ctx.client.clone());
            note(&ctx.noting, &api, metadata, target, &hash).await
        }
    };
    match noted {
        Err(error) if !passes(&error) => {
            tracing::warn!(%error, target, "what was left in place could not be noted on the provider");
            Ok(())
        }
        noted => noted,
    }
}

/// Whether a failure is one of those that pass. No deletion waits for a right that is missing.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
        _ => true,
    }
}

async fn note<K>(
    noting: &Noting,
    api: &Api<K>,
    known: &ObjectMeta,
    target: &str,
    hash: &str,
) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let _one_at_a_time = noting.0.lock().await;
    let name = known.name.clone().unwrap_or_default();
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let mut metadata = known.clone();
    let mut attempt = 1;
    loop {
        let mut left = read(&metadata);
        if left.get(target).is_some_and(|noted| noted == hash) {
            return Ok(());
        }
        if left.len() >= MOST && !left.contains_key(target) {
            // Any other one: what it costs is one `Conflict` that names its cure.
            left.pop_first();
        }
        left.insert(target.to_owned(), hash.to_owned());
        let text = serde_json::to_string(&left).unwrap_or_default();
        let patch = Patch::Merge(json!({ "metadata": {
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "annotations": { RELEASED_ANNOTATION: text },
        }}));
        match api.patch_metadata(&name, &params, &patch).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
        match api.get_metadata_opt(&name).await? {
            Some(now) if now.metadata.uid == known.uid => metadata = now.metadata,
            // The provider went, and its notes with it.
            _ => return Ok(()),
        }
    }
}
