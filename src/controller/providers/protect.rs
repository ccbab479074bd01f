//! The finalizer that lets an account outlive its registrations: on a provider that Webhooks use, and on the
//! Secret with its credentials.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::ObjectMeta,
    runtime::reflector::ObjectRef,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    api::{
        ClusterWebhookProvider, FIELD_MANAGER, FINALIZER, IN_USE_FINALIZER, Webhook, WebhookProvider,
        provider::SecretLocation,
    },
    controller::context::{Context, ProviderObject},
    domain::provider_status::{Guarded, Protection, protection},
};

/// How often a write that met a newer version is made again on that one.
const ATTEMPTS: usize = 3;

/// How long the caches may lag behind our own write. Should the finalizers be taken off within that time, the
/// provider's own pass sets them again.
const CACHE_LAG: Duration = Duration::from_secs(2);

/// Sets the finalizer on a provider and its credentials Secret. Called before the first upstream write of a
/// Webhook; costs nothing when the caches show that both have it.
///
/// # Errors
///
/// Those of the API server; a conflict after three tries. An object that is gone or going is no error: it
/// can no longer be held.
pub async fn protect(ctx: &Context, provider: &ProviderObject) -> Result<(), kube::Error> {
    if !ctx.settings.protect_credentials {
        return Ok(());
    }
    let (metadata, name) = (
        provider.metadata(),
        provider.metadata().name.clone().unwrap_or_default(),
    );
    let location = provider.credentials();
    let cached = cached_secret(ctx, &location);
    let held = |metadata: &ObjectMeta| {
        let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
        finalizers.iter().any(|finalizer| finalizer == IN_USE_FINALIZER)
    };
    if held(metadata) && cached.as_ref().is_some_and(held) {
        return Ok(());
    }
    // In a burst of new Webhooks the first sets them and the others, whose caches lag behind, find that it has.
    let mut protected = ctx.protected.lock().await;
    protected.retain(|_, since| since.elapsed() < CACHE_LAG);
    let uid = metadata.uid.clone().unwrap_or_default();
    if protected.contains_key(&uid) {
        return Ok(());
    }
    match provider {
        ProviderObject::Namespaced(_) => hold(&namespaced(ctx, metadata), &name, Some(metadata)).await?,
        ProviderObject::Cluster(_) => hold(&cluster(ctx), &name, Some(metadata)).await?,
    };
    hold(&secrets(ctx, &location), &location.name, cached.as_ref()).await?;
    protected.insert(uid, Instant::now());
    Ok(())
}

/// How many Webhooks keep a provider: those that have (or may have) something registered, and those that may
/// still do so. One that was never allowed to use a cluster provider holds nothing: whoever can write into any
/// namespace could otherwise keep the platform's provider from going.
pub(super) fn holders(ctx: &Context, provider: &ProviderObject) -> usize {
    let keeps = |object: &ObjectRef<Webhook>| {
        // Indexed but not in the cache: on its way in or out, so to be on the safe side it counts.
        ctx.caches.webhooks.get(object).is_none_or(|webhook| {
            webhook
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == FINALIZER)
                || (webhook.metadata.deletion_timestamp.is_none()
                    && may_use(ctx, provider, &webhook.namespace().unwrap_or_default()))
        })
    };
    ctx.index
        .by_provider(&provider.key())
        .iter()
        .filter(|object| keeps(object))
        .count()
}

/// Whether a Webhook of this namespace may have something registered through the provider.
fn may_use(ctx: &Context, provider: &ProviderObject, namespace: &str) -> bool {
    match provider {
        ProviderObject::Namespaced(_) => true,
        ProviderObject::Cluster(provider) => {
            let object = ctx.caches.namespaces.get(&ObjectRef::new(namespace));
            let none = BTreeMap::new();
            provider
                .spec
                .allows(namespace, object.as_ref().map_or(&none, |object| object.labels()))
        }
    }
}

/// Sets or takes off the finalizer of a provider. The object after that; `None`: it is gone.
pub(super) async fn guard_provider(
    ctx: &Context,
    provider: &ProviderObject,
    holders: usize,
) -> Result<Option<ProviderObject>, kube::Error> {
    let metadata = provider.metadata();
    let name = metadata.name.clone().unwrap_or_default();
    let needed = holders > 0;
    let decision = decide(ctx, metadata, needed, true);
    let after = match provider {
        ProviderObject::Namespaced(_) => {
            settle(&namespaced(ctx, metadata), &name, metadata, decision).await?
        }
        ProviderObject::Cluster(_) => settle(&cluster(ctx), &name, metadata, decision).await?,
    };
    Ok(after.map(|metadata| with_metadata(provider, metadata)))
}

/// Sets or takes off the finalizer of a credentials Secret. `in_use`: the provider at hand reads it and is in use;
/// otherwise another one may be.
pub(super) async fn guard_secret(
    ctx: &Context,
    location: &SecretLocation,
    in_use: bool,
) -> Result<(), kube::Error> {
    let Some(metadata) = cached_secret(ctx, location) else {
        return Ok(());
    };
    let there = metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == IN_USE_FINALIZER);
    let needed = in_use || (there && is_needed(ctx, location));
    let holds = needed
        && there
        && metadata.deletion_timestamp.is_some()
        && terminating(ctx, &location.namespace).await?;
    let decision = decide(ctx, &metadata, needed, holds);
    settle(&secrets(ctx, location), &location.name, &metadata, decision).await?;
    Ok(())
}

/// Whether a provider that is in use reads this Secret, or may do so: which one it reads cannot be read.
fn is_needed(ctx: &Context, location: &SecretLocation) -> bool {
    ctx.providers().iter().any(|provider| {
        let reads = provider.credentials() == *location || provider.settings().is_unread("credentialsRef");
        reads && holders(ctx, provider) > 0
    })
}

/// Puts the finalizers of all Secrets right: some may be left from a provider that changed or went while no
/// operator ran.
pub(super) async fn sweep(ctx: &Context) {
    // Without the cluster providers it cannot be known who else needs a Secret.
    if ctx.settings.protect_credentials && !ctx.settings.serve_cluster_providers {
        return;
    }
    let guarded: Vec<SecretLocation> = ctx
        .caches
        .secrets
        .state()
        .iter()
        .filter(|secret| {
            secret
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == IN_USE_FINALIZER)
        })
        .map(|secret| SecretLocation {
            namespace: secret.namespace().unwrap_or_default(),
            name: secret.name_any(),
        })
        .collect();
    if guarded.is_empty() {
        return;
    }
    let needed: HashSet<SecretLocation> = ctx
        .providers()
        .iter()
        .filter(|provider| holders(ctx, provider) > 0)
        .map(|provider| provider.credentials())
        .collect();
    for location in guarded.iter().filter(|location| !needed.contains(location)) {
        if let Err(error) = guard_secret(ctx, location, false).await
            // Whoever wrote it meanwhile is likely to be a pass of this controller.
            && !super::is_conflict(&error)
        {
            let SecretLocation { namespace, name } = location;
            tracing::warn!(namespace, name, %error, "the finalizer of a Secret that is no longer in use stays for now");
        }
    }
}

fn decide(ctx: &Context, metadata: &ObjectMeta, needed: bool, holds: bool) -> Protection {
    let guarded = Guarded {
        finalizers: metadata.finalizers.as_deref().unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        needed,
        holds,
    };
    protection(ctx.settings.protect_credentials, guarded)
}

/// Carries a decision out. The metadata after that; `None`: the object is gone.
async fn settle<K>(
    api: &Api<K>,
    name: &str,
    metadata: &ObjectMeta,
    decision: Protection,
) -> Result<Option<ObjectMeta>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    match decision {
        Protection::Keep => Ok(Some(metadata.clone())),
        Protection::Set(_) => hold(api, name, Some(metadata)).await,
        // Made against what was decided on: on a newer version the decision may be another.
        Protection::Release(finalizers) => write(api, name, metadata, &finalizers).await,
    }
}

/// Sets the finalizer, on a newer version of the object where the known one is old. Never takes it off.
async fn hold<K>(
    api: &Api<K>,
    name: &str,
    known: Option<&ObjectMeta>,
) -> Result<Option<ObjectMeta>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut known = known.cloned();
    let mut attempt = 1;
    loop {
        let current = match known.take() {
            Some(metadata) => Some(metadata),
            None => api.get_metadata_opt(name).await?.map(|object| object.metadata),
        };
        let Some(metadata) = current else { return Ok(None) };
        let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
        let deleting = metadata.deletion_timestamp.is_some();
        let guarded = Guarded {
            finalizers,
            deleting,
            needed: true,
            holds: true,
        };
        let Protection::Set(finalizers) = protection(true, guarded) else {
            return Ok(Some(metadata));
        };
        match write(api, name, &metadata, &finalizers).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// Writes the finalizers of this very version of an object. `None`: it is gone.
async fn write<K>(
    api: &Api<K>,
    name: &str,
    metadata: &ObjectMeta,
    finalizers: &[String],
) -> Result<Option<ObjectMeta>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let patch = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    // Only metadata comes back: a Secret's data has no business here.
    match api.patch_metadata(name, &params, &Patch::Merge(patch)).await {
        Ok(object) => Ok(Some(object.metadata)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a namespace goes with everything in it. Only asked about a Secret that is being deleted: the watch of
/// namespaces may lag behind that of Secrets, so the namespace is read where it can be.
async fn terminating(ctx: &Context, namespace: &str) -> Result<bool, kube::Error> {
    let Some(cached) = ctx.caches.namespaces.get(&ObjectRef::new(namespace)) else {
        return Ok(false);
    };
    if cached.metadata.deletion_timestamp.is_some() {
        return Ok(true);
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let read = api.get_metadata_opt(namespace).await?;
    Ok(read.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

fn with_metadata(provider: &ProviderObject, metadata: ObjectMeta) -> ProviderObject {
    match provider {
        ProviderObject::Namespaced(provider) => {
            let mut provider = WebhookProvider::clone(provider);
            provider.metadata = metadata;
            ProviderObject::Namespaced(provider.into())
        }
        ProviderObject::Cluster(provider) => {
            let mut provider = ClusterWebhookProvider::clone(provider);
            provider.metadata = metadata;
            ProviderObject::Cluster(provider.into())
        }
    }
}

fn cached_secret(ctx: &Context, location: &SecretLocation) -> Option<ObjectMeta> {
    let object = ObjectRef::new(&location.name).within(&location.namespace);
    ctx.caches
        .secrets
        .get(&object)
        .map(|secret| secret.metadata.clone())
}

fn namespaced(ctx: &Context, metadata: &ObjectMeta) -> Api<WebhookProvider> {
    Api::namespaced(
        ctx.client.clone(),
        metadata.namespace.as_deref().unwrap_or_default(),
    )
}

fn cluster(ctx: &Context) -> Api<ClusterWebhookProvider> {
    Api::all(ctx.client.clone())
}

fn secrets(ctx: &Context, location: &SecretLocation) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &location.namespace)
}
