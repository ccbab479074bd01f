//! What all passes share: client, caches, accounts, memories, and the seams (clock, fence, transport) that tests
//! replace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, ObjectReference, Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{events::Recorder, reflector::ObjectRef},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    accounts::Accounts, breaker::Breakers, index::Index, memory::Memories, prober::Job, released::Noting,
    rivals::Claims, watches::Stores,
};
use crate::{
    api::{
        ClusterWebhookProvider, Webhook, WebhookProvider,
        provider::{AnyProviderSpec, CaBundleLocation, ProviderSettings, ProviderType, SecretLocation},
        webhook::ProviderKind,
    },
    clock::Clock,
    domain::{
        check::{check_unread, in_words},
        hash::HashKey,
        owner::ProviderKey,
    },
    entropy::Entropy,
    metrics::Metrics,
    net::{CheckedUrl, SecretText, SetupError},
    provider::{Account, Call, Fence, Observer, Operation, Standing, transport::Transport},
};

/// Makes transports; the operator's makes HTTP clients behind the address guard, a test's models of upstreams and
/// receivers.
pub trait Transports: Send + Sync {
    /// A transport with these extra trust roots (PEM) through this proxy.
    ///
    /// # Errors
    ///
    /// When the trust roots cannot be read.
    fn make(
        &self,
        ca_bundle: Option<Vec<u8>>,
        proxy: Option<CheckedUrl>,
    ) -> Result<Arc<dyn Transport>, SetupError>;

    /// The transport of probes: to receivers, each request on a connection of its own, through no proxy and with
    /// nobody's trust roots but the built-in ones.
    fn probes(&self) -> Arc<dyn Transport>;
}

/// What passes may be told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time to try to remove a registration that cannot be removed.
    pub deletion_deadline: Duration,
    /// Whether providers in use and their credentials are protected from deletion.
    pub protect_credentials: bool,
    /// Whether ClusterWebhookProviders are served: not when the operator is confined to namespaces.
    pub serve_cluster_providers: bool,
    /// Whether a look goes before each create; see [`super::Ground::looks_first`].
    pub looks_first: bool,
}

/// Cached objects.
pub struct Caches {
    /// All Webhooks.
    pub webhooks: Stores<Webhook>,
    /// All WebhookProviders.
    pub providers: Stores<WebhookProvider>,
    /// All ClusterWebhookProviders; empty when they are not served.
    pub cluster_providers: Stores<ClusterWebhookProvider>,
    /// Metadata of all Secrets: names, owners and versions, never data.
    pub secrets: Stores<PartialObjectMeta<Secret>>,
    /// Metadata of all namespaces; empty when the operator is confined to namespaces.
    pub namespaces: Stores<PartialObjectMeta<Namespace>>,
}

/// What to look at again.
#[derive(Clone)]
pub struct Wake {
    /// Webhooks.
    pub webhooks: mpsc::UnboundedSender<ObjectRef<Webhook>>,
    /// Providers.
    pub providers: mpsc::UnboundedSender<ProviderKey>,
}

/// Shared by all passes.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Cached objects.
    pub caches: Caches,
    /// Wall clock.
    pub clock: Clock,
    /// Randomness of secrets.
    pub entropy: Entropy,
    /// Key of hashes and proofs.
    pub key: HashKey,
    /// Whether upstream calls may be made.
    pub fence: Arc<dyn Fence>,
    /// Told of upstream calls.
    pub observer: CallObserver,
    /// Metrics.
    pub metrics: Metrics,
    /// Accounts of providers.
    pub accounts: Accounts,
    /// Limits of removals.
    pub breakers: Breakers,
    /// Webhooks that write now, before all others that mean the same registration.
    pub claims: Claims,
    /// Whose turn it is to note what was left in place.
    pub noting: Noting,
    /// Memories of Webhooks.
    pub memories: Memories,
    /// Who refers to what.
    pub index: Arc<Index>,
    /// Publishes Events.
    pub recorder: Recorder,
    /// Wakes other objects.
    pub wake: Wake,
    /// Makes transports.
    pub transports: Arc<dyn Transports>,
    /// Takes probes to be sent; see [`prober::run`](super::prober::run).
    pub probes: mpsc::UnboundedSender<Job>,
    /// Options.
    pub settings: Settings,
    /// How many passes may prepare at once; one that waits for its turn at an upstream, or has it, does not count.
    pub workers: tokio::sync::Semaphore,
    /// Providers (by uid) whose finalizers were set a moment ago: the caches may not show it yet.
    pub protected: tokio::sync::Mutex<HashMap<String, Instant>>,
    /// Becomes true when the process shall stop taking work.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

impl Caches {
    /// Waits until all have had their first list.
    pub async fn ready(&self) {
        self.webhooks.ready().await;
        self.providers.ready().await;
        self.cluster_providers.ready().await;
        self.secrets.ready().await;
        self.namespaces.ready().await;
    }
}

impl Context {
    /// A call to an account, which has just admitted the pass, with lists no older than `fresh_after`. `failures`: how
    /// many attempts in a row have failed before this one.
    #[must_use]
    pub fn call<'a>(&'a self, account: &'a Account, fresh_after: Instant, failures: u32) -> Call<'a> {
        Call {
            account,
            fence: self.fence.as_ref(),
            observer: &self.observer,
            admitted: Instant::now(),
            fresh_after,
            attempt: failures.saturating_add(1),
            not_after: None,
        }
    }

    /// The provider object of either kind, from the cache.
    #[must_use]
    pub fn provider(&self, key: &ProviderKey) -> Option<ProviderObject> {
        match key.kind {
            ProviderKind::WebhookProvider => self
                .caches
                .providers
                .get(&ObjectRef::new(&key.name).within(&key.namespace))
                .map(ProviderObject::Namespaced),
            ProviderKind::ClusterWebhookProvider => self
                .caches
                .cluster_providers
                .get(&ObjectRef::new(&key.name))
                .map(ProviderObject::Cluster),
        }
    }

    /// The version of a Secret that the watch has seen last; `None`: there is none.
    #[must_use]
    pub fn secret_version(&self, namespace: &str, name: &str) -> Option<String> {
        self.caches
            .secrets
            .get(&ObjectRef::new(name).within(namespace))
            .and_then(|secret| secret.metadata.resource_version.clone())
    }

    /// Reads one Secret.
    ///
    /// # Errors
    ///
    /// Those of the API server; a missing Secret is `Ok(None)`.
    pub async fn read_secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretContent>, kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.map(SecretContent::from))
    }

    /// All provider objects of both kinds.
    #[must_use]
    pub fn providers(&self) -> Vec<ProviderObject> {
        let namespaced = self
            .caches
            .providers
            .state()
            .into_iter()
            .map(ProviderObject::Namespaced);
        let cluster = self
            .caches
            .cluster_providers
            .state()
            .into_iter()
            .map(ProviderObject::Cluster);
        namespaced.chain(cluster).collect()
    }

    /// Looks at all Webhooks of a provider again.
    pub fn wake_webhooks_of(&self, provider: &ProviderKey) {
        for webhook in self.index.by_provider(provider) {
            // The receiver is gone only when the process ends.
            let _ = self.wake.webhooks.send(webhook);
        }
    }
}

/// A Secret's data, decoded. Its `Debug` shows no value.
#[derive(Clone, Debug)]
pub struct SecretContent {
    /// Version of the object.
    pub version: String,
    /// Values that are UTF-8; others cannot be used as text and count as missing.
    pub data: BTreeMap<String, SecretText>,
    /// Keys whose values are no text.
    pub binary: BTreeSet<String>,
    /// The object's metadata.
    pub metadata: kube::core::ObjectMeta,
}

impl From<Secret> for SecretContent {
    fn from(secret: Secret) -> Self {
        let mut data = BTreeMap::new();
        let mut binary = BTreeSet::new();
        for (key, bytes) in secret.data.unwrap_or_default() {
            match String::from_utf8(bytes.0) {
                Ok(text) => {
                    data.insert(key, SecretText::from(text));
                }
                Err(_) => {
                    binary.insert(key);
                }
            }
        }
        Self {
            version: secret.metadata.resource_version.clone().unwrap_or_default(),
            data,
            binary,
            metadata: secret.metadata,
        }
    }
}

/// A provider object of either kind.
#[derive(Clone, Debug)]
pub enum ProviderObject {
    /// Of the Webhook's own namespace.
    Namespaced(Arc<WebhookProvider>),
    /// Of the cluster.
    Cluster(Arc<ClusterWebhookProvider>),
}

impl ProviderObject {
    /// What both kinds share.
    #[must_use]
    pub fn settings(&self) -> &ProviderSettings {
        match self {
            Self::Namespaced(provider) => provider.spec.settings(),
            Self::Cluster(provider) => provider.spec.settings(),
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &kube::core::ObjectMeta {
        match self {
            Self::Namespaced(provider) => &provider.metadata,
            Self::Cluster(provider) => &provider.metadata,
        }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> Option<&crate::api::ProviderStatus> {
        match self {
            Self::Namespaced(provider) => provider.status.as_ref(),
            Self::Cluster(provider) => provider.status.as_ref(),
        }
    }

    /// Whether this is the same object at a later version. Versions of one object are whole numbers that grow;
    /// anything else is not compared.
    #[must_use]
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        let version = |object: &Self| object.metadata().resource_version.as_ref()?.parse::<u64>().ok();
        self.metadata().uid == other.metadata().uid && version(self) > version(other)
    }

    /// The object as a reference, for Events.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        match self {
            Self::Namespaced(provider) => provider.object_ref(&()),
            Self::Cluster(provider) => provider.object_ref(&()),
        }
    }

    /// The value of one of its annotations.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata()
            .annotations
            .as_ref()?
            .get(name)
            .map(String::as_str)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> ProviderKey {
        let (kind, namespace) = match self {
            Self::Namespaced(provider) => (
                ProviderKind::WebhookProvider,
                provider.namespace().unwrap_or_default(),
            ),
            Self::Cluster(_) => (ProviderKind::ClusterWebhookProvider, String::new()),
        };
        ProviderKey {
            kind,
            namespace,
            name: self.metadata().name.clone().unwrap_or_default(),
        }
    }

    /// Where its credentials are.
    #[must_use]
    pub fn credentials(&self) -> SecretLocation {
        match self {
            Self::Namespaced(provider) => provider
                .spec
                .credentials(&provider.namespace().unwrap_or_default()),
            Self::Cluster(provider) => provider.spec.credentials(""),
        }
    }

    /// What of its spec cannot be read, in one text. Nothing is called for such a provider.
    #[must_use]
    pub fn unread(&self) -> Option<String> {
        in_words(&check_unread(&self.settings().unread))
    }

    /// Where its extra trust roots are, as far as that can be read.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<CaBundleLocation> {
        match self {
            _ if self.settings().is_unread("caBundleRef") => None,
            Self::Namespaced(provider) => provider.spec.ca_bundle(&provider.namespace().unwrap_or_default()),
            Self::Cluster(provider) => provider.spec.ca_bundle(""),
        }
    }
}

/// Passes what happens in calls on to metrics and to the providers' controller.
pub struct CallObserver {
    /// Metrics.
    pub metrics: Metrics,
    /// Told when an upstream accepts or refuses an account's credentials, by the account's label.
    pub standings: mpsc::UnboundedSender<ProviderKey>,
}

impl Observer for CallObserver {
    fn request(&self, provider_type: ProviderType, operation: Operation, code: &str, took: Duration) {
        self.metrics
            .request(provider_type.as_str(), operation.as_str(), code, took);
    }

    fn throttled(&self, provider_type: ProviderType, waited: Duration) {
        self.metrics.throttled(provider_type.as_str(), waited);
    }

    fn standing(&self, account: &Account, _: Standing) {
        // The receiver is gone only when the process ends.
        let _ = self.standings.send(account.owner.clone());
    }
}
