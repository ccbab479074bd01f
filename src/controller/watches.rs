//! The watches: they keep the caches, the index and the memories in step and wake what is concerned. Each event
//! wakes by level, not by edge: whoever is woken looks at what is there now.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    context::{Caches, Context},
    rivals::wake_rivals,
};
use crate::{
    api::{ClusterWebhookProvider, Webhook, WebhookProvider, webhook::ProviderKind},
    domain::owner::ProviderKey,
};

/// A dead connection is noticed after this many seconds and a little.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

fn config() -> watcher::Config {
    // Small pages: a page is decoded whole, managed fields included, before it is pruned.
    watcher::Config::default()
        .timeout(WATCH_TIMEOUT_SECONDS)
        .page_size(100)
}

/// Caches of one kind: one for the cluster, or one for each namespace that is served.
#[derive(Clone, Debug)]
pub struct Stores<K: Resource<DynamicType = ()> + Clone + 'static>(Vec<Store<K>>);

impl<K: Resource<DynamicType = ()> + Clone + 'static> Default for Stores<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Stores<K> {
    /// One object.
    #[must_use]
    pub fn get(&self, object: &ObjectRef<K>) -> Option<Arc<K>> {
        self.0.iter().find_map(|store| store.get(object))
    }

    /// All objects, in the order of namespaces and names.
    #[must_use]
    pub fn state(&self) -> Vec<Arc<K>> {
        in_order(self.0.iter().flat_map(Store::state).collect())
    }

    /// Waits until every one has had its first list.
    pub async fn ready(&self) {
        for store in &self.0 {
            // A dropped writer means that the process ends.
            let _ = store.wait_until_ready().await;
        }
    }
}

/// A cache gives its objects in an order that differs from process to process. What is woken or written first must not
/// hang on that: a simulation of the same seed has to go the same way again.
fn in_order<K: Resource>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by(|one, other| {
        let (one, other) = (one.meta(), other.meta());
        (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
    });
    objects
}

type Feed<K> = stream::BoxStream<'static, Result<Event<K>, watcher::Error>>;

/// The watches before they run: made first, because the passes need the caches that they feed.
pub struct Watches {
    webhooks: Vec<(Feed<Webhook>, Writer<Webhook>)>,
    providers: Vec<Feed<WebhookProvider>>,
    cluster_providers: Vec<Feed<ClusterWebhookProvider>>,
    secrets: Vec<Feed<PartialObjectMeta<Secret>>>,
    rest: Vec<futures::future::BoxFuture<'static, ()>>,
}

/// Makes caches and watches for these namespaces; none named: for the whole cluster.
#[must_use]
pub fn prepare(client: &Client, namespaces: &[String]) -> (Caches, Watches) {
    let mut webhook_stores = Vec::new();
    let mut webhooks = Vec::new();
    for api in apis::<Webhook>(client, namespaces) {
        let (reader, writer) = store();
        webhook_stores.push(reader);
        webhooks.push((watched(api), writer));
    }
    let (providers, provider_feeds) = reflected(
        apis::<WebhookProvider>(client, namespaces)
            .into_iter()
            .map(watched),
        prune,
    );
    let (secrets, secret_feeds) = reflected(
        apis::<PartialObjectMeta<Secret>>(client, namespaces)
            .into_iter()
            .map(watched),
        prune_metadata,
    );
    let everywhere = namespaces.is_empty();
    let (cluster_providers, cluster_feeds) = reflected(
        everywhere.then(|| watched(Api::all(client.clone()))).into_iter(),
        prune,
    );
    let (namespace_stores, namespace_feeds) = reflected(
        everywhere.then(|| watched(Api::all(client.clone()))).into_iter(),
        prune_metadata,
    );
    let rest = namespace_feeds.into_iter().map(drain).collect();
    let caches = Caches {
        webhooks: Stores(webhook_stores),
        providers,
        cluster_providers,
        secrets,
        namespaces: namespace_stores,
    };
    let watches = Watches {
        webhooks,
        providers: provider_feeds,
        cluster_providers: cluster_feeds,
        secrets: secret_feeds,
        rest,
    };
    (caches, watches)
}

/// A watch that begins anew when the version that it wants to go on from is gone. kube does that where an event in the
/// watch says so; where the API server answers the request itself with 410, which its documentation allows, kube would ask
/// for the same version again for ever, and nothing that happened since would be seen.
fn watched<K>(api: Api<K>) -> Feed<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watcher(api.clone(), config()).boxed();
    let first = begin();
    stream::unfold((first, begin), |(mut feed, begin)| async move {
        let event = feed.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == 410
        {
            feed = begin();
        }
        Some((event, (feed, begin)))
    })
    .boxed()
}

fn apis<K>(client: &Client, namespaces: &[String]) -> Vec<Api<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces
        .iter()
        .map(|namespace| Api::namespaced(client.clone(), namespace))
        .collect()
}

/// Stores fed by these watches, and what is left to be read from them.
fn reflected<K>(feeds: impl Iterator<Item = Feed<K>>, prune: fn(&mut K)) -> (Stores<K>, Vec<Feed<K>>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let mut stores = Vec::new();
    let mut reflectors = Vec::new();
    for feed in feeds {
        let (reader, writer) = store();
        stores.push(reader);
        let feed = feed.default_backoff().modify(prune).reflect(writer);
        reflectors.push(feed.boxed());
    }
    (Stores(stores), reflectors)
}

/// What nobody here reads is not kept: it is half of an object's size.
fn prune<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Metadata of foreign Secrets may carry a whole last-applied Secret: only what is needed stays.
fn prune_metadata<K>(object: &mut PartialObjectMeta<K>) {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
}

async fn drain_stream<K>(mut feed: Feed<K>) {
    while let Some(event) = feed.next().await {
        if let Err(error) = event {
            log(&error);
        }
    }
}

fn drain<K: Send + 'static>(feed: Feed<K>) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(drain_stream(feed))
}

fn log(error: &watcher::Error) {
    // The watcher's own text may quote an answer of the API server; its kind is enough to know where to look.
    let kind = match error {
        watcher::Error::InitialListFailed(_) => "the list failed",
        watcher::Error::WatchStartFailed(_) => "the watch could not be started",
        watcher::Error::WatchError(_) => "the watch was refused",
        watcher::Error::WatchFailed(_) => "the watch broke",
        watcher::Error::NoResourceVersion => "the list has no version",
    };
    tracing::warn!(kind, "a watch of the API server failed; it is started again");
}

/// Runs all watches until `stopping` turns true.
pub async fn run(ctx: Arc<Context>, watches: Watches, mut stopping: watch::Receiver<bool>) {
    let Watches {
        webhooks,
        providers,
        cluster_providers,
        secrets,
        rest,
    } = watches;
    let mut tasks = tokio::task::JoinSet::new();
    for (feed, writer) in webhooks {
        tasks.spawn(follow_webhooks(Arc::clone(&ctx), feed, writer));
    }
    for feed in providers {
        let ctx = Arc::clone(&ctx);
        let mut sightings = HashMap::new();
        tasks.spawn(each(feed, move |provider: &WebhookProvider| {
            let (namespace, name) = (provider.namespace().unwrap_or_default(), provider.name_any());
            let key = ProviderKey {
                kind: ProviderKind::WebhookProvider,
                namespace,
                name,
            };
            wake_provider(&ctx, &mut sightings, key);
        }));
    }
    for feed in cluster_providers {
        let ctx = Arc::clone(&ctx);
        let mut sightings = HashMap::new();
        tasks.spawn(each(feed, move |provider: &ClusterWebhookProvider| {
            let (namespace, name) = (String::new(), provider.name_any());
            let key = ProviderKey {
                kind: ProviderKind::ClusterWebhookProvider,
                namespace,
                name,
            };
            wake_provider(&ctx, &mut sightings, key);
        }));
    }
    for feed in secrets {
        let ctx = Arc::clone(&ctx);
        tasks.spawn(each(feed, move |secret: &PartialObjectMeta<Secret>| {
            wake_secret(&ctx, secret)
        }));
    }
    for feed in rest {
        tasks.spawn(feed);
    }
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => {}
        () = async { while tasks.join_next().await.is_some() {} } => {}
    }
}

/// Every object of every event, deleted ones included.
async fn each<K>(mut feed: Feed<K>, mut wake: impl FnMut(&K)) {
    let mut listed = Vec::new();
    while let Some(event) = feed.next().await {
        match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => wake(&object),
            // The cache changes at the end of a list, not with each of its objects.
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => listed.drain(..).for_each(|object| wake(&object)),
            Err(error) => log(&error),
        }
    }
}

/// What of a provider its Webhooks depend on: that it is there, and its spec. Its status is the operator's own
/// writing, and whoever writes a verdict there wakes them.
type Sighting = Option<(Option<String>, Option<i64>)>;

fn wake_provider(ctx: &Context, sightings: &mut HashMap<ProviderKey, Sighting>, key: ProviderKey) {
    let sighting = ctx.provider(&key).map(|provider| {
        let metadata = provider.metadata();
        (metadata.uid.clone(), metadata.generation)
    });
    if sightings.get(&key) != Some(&sighting) {
        ctx.wake_webhooks_of(&key);
        match sighting {
            Some(_) => sightings.insert(key.clone(), sighting),
            None => sightings.remove(&key),
        };
    }
    // The receiver is gone only when the process ends.
    let _ = ctx.wake.providers.send(key);
}

/// Webhooks that refer to it, and providers whose credentials or trust roots it holds.
fn wake_secret(ctx: &Context, secret: &PartialObjectMeta<Secret>) {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    for webhook in ctx.index.by_secret(&namespace, &name) {
        let _ = ctx.wake.webhooks.send(webhook);
    }
    for provider in ctx.providers() {
        let credentials = provider.credentials();
        let bundle = provider
            .ca_bundle()
            .is_some_and(|bundle| bundle.in_secret && bundle.namespace == namespace && bundle.name == name);
        if bundle {
            ctx.accounts.forget(&provider.key());
        }
        if bundle || (credentials.namespace == namespace && credentials.name == name) {
            ctx.wake_webhooks_of(&provider.key());
            let _ = ctx.wake.providers.send(provider.key());
        }
    }
}

async fn follow_webhooks(ctx: Arc<Context>, feed: Feed<Webhook>, mut writer: Writer<Webhook>) {
    let mut feed = feed.default_backoff().modify(prune).boxed();
    while let Some(event) = feed.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                log(&error);
                continue;
            }
        };
        match &event {
            Event::InitApply(webhook) | Event::Apply(webhook) => ctx.index.update(webhook),
            Event::Init | Event::Delete(_) | Event::InitDone => {}
        }
        // The cache first, then whoever is woken: nobody wakes to find the old state.
        let before = matches!(event, Event::InitDone).then(|| writer.as_reader().state());
        let replaced = match &event {
            Event::Apply(webhook) => writer.as_reader().get(&ObjectRef::from_obj(webhook)),
            _ => None,
        };
        writer.apply_watcher_event(&event);
        match event {
            Event::Apply(webhook) => {
                if let Some(old) = replaced {
                    follows(&ctx, &old, &webhook);
                }
                seen(&ctx, &webhook);
            }
            Event::Delete(webhook) => gone(&ctx, &webhook),
            Event::InitDone => {
                // What happened while nobody watched: objects went, or others took their names.
                for old in in_order(before.unwrap_or_default()) {
                    match writer.as_reader().get(&ObjectRef::from_obj(old.as_ref())) {
                        Some(new) => follows(&ctx, &old, &new),
                        None => gone(&ctx, &old),
                    }
                }
                for webhook in in_order(writer.as_reader().state()) {
                    seen(&ctx, &webhook);
                }
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

/// One state of a name comes after another one; the object may be another one as well, when a deletion was not seen.
fn follows(ctx: &Context, old: &Webhook, new: &Webhook) {
    let another = old.metadata.uid != new.metadata.uid;
    if another && let Some(uid) = old.uid() {
        ctx.memories.forget(&uid);
    }
    if another || means_another(old, new) {
        wake_rivals(ctx, old);
    }
}

/// Whether what the object meant, or what is registered for it, became free for others by this change.
fn means_another(old: &Webhook, new: &Webhook) -> bool {
    let registered = |webhook: &Webhook| webhook.status.as_ref().and_then(|status| status.url.clone());
    old.spec.url != new.spec.url || old.spec.events != new.spec.events || registered(old) != registered(new)
}

fn seen(ctx: &Context, webhook: &Webhook) {
    let _ = ctx.wake.webhooks.send(ObjectRef::from_obj(webhook));
    let key = ProviderKey::of(webhook.provider_ref(), &webhook.namespace().unwrap_or_default());
    let _ = ctx.wake.providers.send(key);
}

fn gone(ctx: &Context, webhook: &Webhook) {
    ctx.index.remove(&ObjectRef::from_obj(webhook));
    if let Some(uid) = webhook.uid() {
        ctx.memories.forget(&uid);
    }
    ctx.metrics
        .forget_webhook(&webhook.namespace().unwrap_or_default(), &webhook.name_any());
    wake_rivals(ctx, webhook);
    let key = ProviderKey::of(webhook.provider_ref(), &webhook.namespace().unwrap_or_default());
    let _ = ctx.wake.providers.send(key);
}
