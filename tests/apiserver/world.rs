//! What one test works in: a namespace, doubles of the four upstreams with an account in each, an operator, and
//! the few things that a user does (apply, change, annotate, delete, look).
//!
//! Manifests are written as users write them; what is read back is typed. Every wait is bounded, and its failure
//! message shows the object, its Events and what the log says of it.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use upstream_doubles::{
    AutocosmosAccount, ConpeekAccount, Double, Doubles, Options, RicloudAccount, Seen, ThuliumAccount,
    Upstream,
};
use webhook_operator::api::{
    RECONCILE_REQUESTED_AT, Webhook, WebhookProvider, WebhookStatus,
    conditions::{self, ConditionType, ProviderReason, ReadyReason, Reason},
    provider::ProviderType,
};

use crate::{
    harness::{Cluster, cluster, operated},
    identity::Identity,
    operator::{self, Operator},
    raw,
};

/// Longest wait for something that takes well below a second on a machine with nothing else to do.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How often the doubles are looked at.
const POLL: Duration = Duration::from_millis(50);

/// One test's part of the world.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Name of the accounts at the doubles; the namespace's, unless it is a neighbour.
    pub(crate) account: String,
    pub(crate) doubles: Arc<Doubles>,
    pub(crate) operator: Arc<Operator>,
    pub(crate) cluster: &'static Cluster,
}

/// The secrets of the accounts of a namespace, for tests that must not find them anywhere.
pub(crate) struct Keys {
    pub(crate) conpeek: String,
    pub(crate) thulium: String,
    pub(crate) ricloud: String,
    pub(crate) autocosmos: String,
}

impl Keys {
    fn of(namespace: &str) -> Self {
        Self {
            conpeek: format!("conpeek-key-of-{namespace}"),
            thulium: format!("thulium-password-of-{namespace}"),
            ricloud: format!("ricloud-token-of-{namespace}"),
            autocosmos: format!("autocosmos-secret-of-{namespace}"),
        }
    }
}

impl World {
    /// A namespace served by the operator that all tests share.
    pub(crate) async fn new(prefix: &str) -> Self {
        let operator = operator::shared().await;
        Self::served_by(operated().await, operator, prefix).await
    }

    /// A namespace of a cluster that this operator serves as a whole.
    pub(crate) async fn served_by(cluster: &'static Cluster, operator: Arc<Operator>, prefix: &str) -> Self {
        let client = cluster.client().await;
        let namespace = cluster.namespace(&client, prefix).await;
        let doubles = doubles(&namespace).await;
        Self {
            client,
            account: namespace.clone(),
            namespace,
            doubles: Arc::new(doubles),
            operator,
            cluster,
        }
    }

    /// A namespace that is there already, and an operator for it.
    pub(crate) async fn of(cluster: &'static Cluster, operator: Arc<Operator>, namespace: String) -> Self {
        Self {
            client: cluster.client().await,
            account: namespace.clone(),
            doubles: Arc::new(doubles(&namespace).await),
            namespace,
            operator,
            cluster,
        }
    }

    /// A namespace served by an operator of its own, which ends with the test, and is started with these further
    /// arguments. It sees this namespace only, and is at home in another one.
    pub(crate) async fn alone(prefix: &str, args: &[&str]) -> Self {
        let cluster = cluster().await;
        let client = cluster.client().await;
        let namespace = cluster.namespace(&client, prefix).await;
        let own = cluster.namespace(&client, "operator").await;
        let identity = Identity::confined(cluster, &own, &namespace).await;
        let mut all = vec!["--namespace", &namespace, "--lease-namespace", &own];
        all.extend(args);
        let operator = Operator::start(&identity, &all).await;
        let doubles = doubles(&namespace).await;
        Self {
            client,
            account: namespace.clone(),
            namespace,
            doubles: Arc::new(doubles),
            operator,
            cluster,
        }
    }

    /// Another namespace with the same doubles, accounts and operator.
    pub(crate) async fn neighbour(&self, prefix: &str) -> Self {
        Self {
            client: self.client.clone(),
            account: self.account.clone(),
            namespace: self.cluster.namespace(&self.client, prefix).await,
            doubles: Arc::clone(&self.doubles),
            operator: Arc::clone(&self.operator),
            cluster: self.cluster,
        }
    }

    /// The secrets of the accounts.
    pub(crate) fn keys(&self) -> Keys {
        Keys::of(&self.account)
    }

    /// The keys of a credentials Secret that the double accepts.
    pub(crate) fn credentials(&self, provider: ProviderType) -> Vec<(&'static str, String)> {
        let keys = self.keys();
        match provider {
            ProviderType::Conpeek => vec![("apiKey", keys.conpeek)],
            ProviderType::Thulium => vec![("username", self.account.clone()), ("password", keys.thulium)],
            ProviderType::Ricloud => vec![("token", keys.ricloud)],
            ProviderType::Autocosmos => {
                vec![("appKey", self.account.clone()), ("appSecret", keys.autocosmos)]
            }
        }
    }

    /// Base URL of a double.
    pub(crate) fn base_url(&self, provider: ProviderType) -> String {
        match provider {
            ProviderType::Conpeek => self.doubles.conpeek().url(),
            ProviderType::Thulium => self.doubles.thulium().url(),
            ProviderType::Ricloud => self.doubles.ricloud().url(),
            ProviderType::Autocosmos => self.doubles.autocosmos().url(),
        }
    }

    /// A URL at the receiver that verifies ricloud's deliveries with the secrets that the double made, and
    /// answers 200 to what is signed right.
    pub(crate) fn ricloud_receiver(&self, name: &str) -> String {
        self.doubles.follow_ricloud(name);
        format!("{}/ricloud/{name}", self.doubles.receiver().url())
    }

    /// The manifest of a provider for a double; its name is [`name_of`], its credentials Secret `<name>-account`.
    pub(crate) fn provider_manifest(&self, provider: ProviderType) -> Value {
        let name = name_of(provider);
        json!({
            "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "WebhookProvider",
            "metadata": { "name": name },
            "spec": {
                "type": provider.as_str(),
                "baseUrl": self.base_url(provider),
                "credentialsRef": { "name": format!("{name}-account") },
                "rateLimit": { "requestsPerSecond": 100, "burst": 100, "maxConcurrent": 4 },
                "timeout": "5s",
            },
        })
    }

    /// Applies a provider with its credentials.
    pub(crate) async fn provider(&self, provider: ProviderType) {
        self.provider_with(provider, json!({})).await;
    }

    /// The same, with these fields of the spec instead.
    pub(crate) async fn provider_with(&self, provider: ProviderType, spec: Value) {
        let name = format!("{}-account", name_of(provider));
        let credentials = self.credentials(provider);
        let credentials: Vec<(&str, &str)> = credentials.iter().map(|(k, v)| (*k, v.as_str())).collect();
        self.secret(&name, &credentials).await;
        let mut manifest = self.provider_manifest(provider);
        merge(&mut manifest["spec"], spec);
        self.apply(&manifest).await;
    }

    /// Makes or replaces a Secret.
    pub(crate) async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let api: Api<Secret> = self.api();
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            ..Secret::default()
        };
        if api
            .get_metadata_opt(name)
            .await
            .expect("look for a Secret")
            .is_some()
        {
            let patch = json!({ "data": secret.data });
            let params = PatchParams::default();
            api.patch(name, &params, &Patch::Merge(patch))
                .await
                .expect("change a Secret");
        } else {
            api.create(&PostParams::default(), &secret)
                .await
                .expect("make a Secret");
        }
    }

    /// What a Secret holds under a key.
    pub(crate) async fn secret_value(&self, name: &str, key: &str) -> Option<String> {
        let api: Api<Secret> = self.api();
        let secret = api.get_opt(name).await.expect("read a Secret")?;
        let value = secret.data?.remove(key)?;
        Some(String::from_utf8(value.0).expect("a secret of text"))
    }

    /// Creates an object of one of our kinds, strictly.
    pub(crate) async fn apply(&self, manifest: &Value) {
        raw::create(&self.client, &self.namespace, manifest)
            .await
            .unwrap_or_else(|status| panic!("{}\n{manifest:#}", status.message));
    }

    /// Creates a Webhook at a provider of [`World::provider`].
    pub(crate) async fn webhook(&self, name: &str, provider: ProviderType, spec: Value) {
        self.apply(&webhook_manifest(name, provider, spec)).await;
    }

    /// Changes the spec of a Webhook by a merge patch.
    pub(crate) async fn change(&self, name: &str, spec: Value) {
        let patch = json!({ "spec": spec });
        self.patch::<Webhook>(name, &patch).await;
    }

    /// Changes any object by a merge patch, as `kubectl patch` does.
    pub(crate) async fn patch<K>(&self, name: &str, patch: &Value) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = self.api();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Sets an annotation of a Webhook.
    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        self.patch::<Webhook>(name, &patch).await;
    }

    /// Asks for a read-back now, and waits until it was made.
    pub(crate) async fn read_back(&self, name: &str) -> Webhook {
        let value = self.ask_read_back(name).await;
        self.wait(name, "the read-back to be handled", |webhook| {
            status(webhook).last_handled_reconcile_at.as_deref() == Some(value.as_str())
        })
        .await
    }

    /// Asks for a read-back now; returns the value of the annotation.
    pub(crate) async fn ask_read_back(&self, name: &str) -> String {
        let value = format!("{:?}", std::time::SystemTime::now());
        self.annotate(name, RECONCILE_REQUESTED_AT, &value).await;
        value
    }

    /// Asks for a Webhook to be deleted.
    pub(crate) async fn delete(&self, name: &str) {
        let api: Api<Webhook> = self.api();
        api.delete(name, &DeleteParams::default())
            .await
            .expect("delete a Webhook");
    }

    /// Asks for a Webhook to be deleted, and waits until it is gone.
    pub(crate) async fn delete_and_wait(&self, name: &str) {
        self.delete(name).await;
        self.wait_gone(name).await;
    }

    /// Waits until a Webhook is gone.
    pub(crate) async fn wait_gone(&self, name: &str) {
        let gone = await_condition(self.api::<Webhook>(), name, |webhook: Option<&Webhook>| {
            webhook.is_none()
        });
        if tokio::time::timeout(SOON, gone).await.is_err() {
            panic!("{name} is not gone after {SOON:?}\n{}", self.report(name).await);
        }
    }

    /// The objects of a kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Webhook as it is now.
    pub(crate) async fn get(&self, name: &str) -> Webhook {
        self.api().get(name).await.expect("read a Webhook")
    }

    /// Waits until a Webhook is as described; returns it as it was then.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        met: impl Fn(&Webhook) -> bool + Sync,
    ) -> Webhook {
        self.wait_within(SOON, name, what, met).await
    }

    /// The same with another limit.
    pub(crate) async fn wait_within(
        &self,
        limit: Duration,
        name: &str,
        what: &str,
        met: impl Fn(&Webhook) -> bool + Sync,
    ) -> Webhook {
        let until = await_condition(self.api(), name, |webhook: Option<&Webhook>| {
            webhook.is_some_and(&met)
        });
        match tokio::time::timeout(limit, until).await {
            Ok(webhook) => webhook.expect("watch a Webhook").expect("it is there"),
            Err(_) => panic!("{name}: waited {limit:?} for {what}\n{}", self.report(name).await),
        }
    }

    /// Waits until `Ready` of the present generation has this reason.
    pub(crate) async fn wait_ready(&self, name: &str, reason: ReadyReason) -> Webhook {
        self.wait_reason(name, reason).await
    }

    /// Waits until a condition of the present generation has this reason.
    pub(crate) async fn wait_reason<R: Reason + Sync>(&self, name: &str, reason: R) -> Webhook {
        let what = format!("{}={}/{}", R::TYPE, reason.status(), reason.as_str());
        self.wait(name, &what, |webhook| has_reason(webhook, reason))
            .await
    }

    /// Waits until `Ready` of a provider has this reason; returns its message.
    pub(crate) async fn wait_provider(&self, name: &str, reason: ProviderReason) -> String {
        let met = |provider: Option<&WebhookProvider>| {
            provider.is_some_and(|provider| provider_has_reason(provider, reason))
        };
        let until = await_condition(self.api(), name, met);
        let Ok(found) = tokio::time::timeout(SOON, until).await else {
            let api: Api<WebhookProvider> = self.api();
            let now = api.get(name).await.map(|provider| provider.status);
            panic!(
                "provider {name}: waited {SOON:?} for {}: {now:#?}\n{}",
                reason.as_str(),
                self.operator.log_tail(&self.namespace)
            );
        };
        let provider: WebhookProvider = found.expect("watch a provider").expect("it is there");
        let status = provider.status.expect("it has a status");
        conditions::find(&status.conditions, ConditionType::Ready)
            .expect("it has the condition")
            .message
            .clone()
    }

    /// Waits for something at a double.
    pub(crate) async fn eventually(&self, what: &str, met: impl Fn() -> bool) {
        let waited = tokio::time::timeout(SOON, async {
            while !met() {
                tokio::time::sleep(POLL).await;
            }
        });
        if waited.await.is_err() {
            panic!(
                "waited {SOON:?} for {what}\n{}",
                self.operator.log_tail(&self.namespace)
            );
        }
    }

    /// All Events about an object of this name, as `(type, reason, note)`.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let api: Api<Event> = self.api();
        let list = api.list(&ListParams::default()).await.expect("list Events");
        let about = |event: &Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|object| object.name.as_deref() == Some(name))
        };
        let told = list.items.into_iter().filter(about);
        told.map(|event| {
            (
                event.type_.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.note.unwrap_or_default(),
            )
        })
        .collect()
    }

    /// Waits for an Event about an object; returns its type and note.
    pub(crate) async fn wait_event(&self, name: &str, reason: &str) -> (String, String) {
        let waited = tokio::time::timeout(SOON, async {
            loop {
                let events = self.events(name).await;
                if let Some((type_, _, note)) = events.into_iter().find(|(_, of, _)| of == reason) {
                    return (type_, note);
                }
                tokio::time::sleep(POLL).await;
            }
        });
        match waited.await {
            Ok(event) => event,
            Err(_) => panic!(
                "{name}: waited {SOON:?} for the Event {reason}\n{}",
                self.report(name).await
            ),
        }
    }

    /// Everything that helps to see why a wait failed.
    pub(crate) async fn report(&self, name: &str) -> String {
        let webhook = self.api::<Webhook>().get_opt(name).await;
        let webhook = match webhook {
            Ok(Some(mut webhook)) => {
                webhook.metadata.managed_fields = None;
                pretty(&webhook)
            }
            Ok(None) => "there is no such Webhook".to_owned(),
            Err(error) => error.to_string(),
        };
        let events: Vec<String> = self
            .events(name)
            .await
            .into_iter()
            .map(|(type_, reason, note)| format!("{type_} {reason}: {note}"))
            .collect();
        format!(
            "{webhook}\nEvents:\n{}\nlog ({}):\n{}",
            events.join("\n"),
            self.operator.log_path().display(),
            self.operator.log_tail(&self.namespace)
        )
    }
}

/// Addresses of all doubles that there were. The Webhooks of tests that are over stay in the cluster: to whoever got such
/// an address again they would be Webhooks of another namespace at the same upstream.
static USED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Doubles at addresses that no test had before.
async fn unused_doubles() -> Doubles {
    loop {
        let doubles = Doubles::start(Options::default())
            .await
            .expect("start the doubles");
        let urls = [
            doubles.conpeek().url(),
            doubles.thulium().url(),
            doubles.ricloud().url(),
            doubles.autocosmos().url(),
        ];
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = used.len();
        used.extend(urls.iter().cloned());
        if used.len() == count + urls.len() {
            return doubles;
        }
    }
}

async fn doubles(namespace: &str) -> Doubles {
    let doubles = unused_doubles().await;
    let keys = Keys::of(namespace);
    let conpeek = ConpeekAccount::new(namespace, &keys.conpeek);
    doubles.conpeek().add_account(conpeek);
    let thulium = ThuliumAccount::new(namespace, &keys.thulium);
    doubles.thulium().add_account(thulium);
    let ricloud = RicloudAccount::new(namespace, &keys.ricloud, namespace);
    doubles.ricloud().add_account(ricloud);
    let autocosmos = AutocosmosAccount::new(namespace, &keys.autocosmos);
    doubles.autocosmos().add_account(autocosmos);
    doubles
}

/// Name of the provider object of a type: the type in lower case.
pub(crate) fn name_of(provider: ProviderType) -> String {
    provider.as_str().to_ascii_lowercase()
}

/// The manifest of a Webhook at a provider of [`World::provider`]. Unless it says something about tests, the operator
/// sends none: its URL leads nowhere.
pub(crate) fn webhook_manifest(name: &str, provider: ProviderType, spec: Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook",
        "metadata": { "name": name },
        "spec": { "providerRef": { "name": name_of(provider) } },
    });
    if provider != ProviderType::Ricloud {
        manifest["spec"]["test"] = json!({ "mode": "None" });
    }
    merge(&mut manifest["spec"], spec);
    manifest
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The status of a Webhook, empty where it has none.
pub(crate) fn status(webhook: &Webhook) -> WebhookStatus {
    webhook.status.clone().unwrap_or_default()
}

/// A condition of a Webhook.
pub(crate) fn condition(webhook: &Webhook, type_: ConditionType) -> Option<Condition> {
    conditions::find(&webhook.status.as_ref()?.conditions, type_).cloned()
}

/// The message of a condition that must be there.
pub(crate) fn message(webhook: &Webhook, type_: ConditionType) -> String {
    condition(webhook, type_)
        .unwrap_or_else(|| panic!("{type_} is there"))
        .message
}

/// Whether a condition has this reason, for the present generation.
pub(crate) fn has_reason<R: Reason>(webhook: &Webhook, reason: R) -> bool {
    let of_now = |webhook: &Webhook| {
        webhook
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            == webhook.metadata.generation
    };
    of_now(webhook)
        && condition(webhook, R::TYPE)
            .is_some_and(|found| found.reason == reason.as_str() && found.status == reason.status().as_str())
}

fn provider_has_reason(provider: &WebhookProvider, reason: ProviderReason) -> bool {
    let Some(status) = &provider.status else {
        return false;
    };
    status.observed_generation == provider.meta().generation
        && conditions::find(&status.conditions, ConditionType::Ready)
            .is_some_and(|found| found.reason == reason.as_str())
}

/// The bodies of the requests of one method of an account that were not refused for their credentials, parsed.
pub(crate) fn bodies<U: Upstream>(double: &Double<U>, account: &str, method: &str) -> Vec<Value> {
    sent(double, account, method)
        .iter()
        .map(|seen| seen.json().unwrap_or(Value::Null))
        .collect()
}

/// The requests of one method of an account.
pub(crate) fn sent<U: Upstream>(double: &Double<U>, account: &str, method: &str) -> Vec<Seen> {
    double.requests_where(|seen| seen.account.as_deref() == Some(account) && seen.method == method)
}

/// How many requests of an account changed something.
pub(crate) fn effects<U: Upstream>(double: &Double<U>, account: &str) -> usize {
    double
        .requests_where(|seen| seen.account.as_deref() == Some(account) && seen.effect)
        .len()
}

/// An object as YAML, for failure messages and notes.
pub(crate) fn pretty(object: &impl Serialize) -> String {
    serde_yaml::to_string(object).unwrap_or_else(|error| error.to_string())
}

/// Name of an object; only here so that tests need not import the trait.
pub(crate) fn uid<K: Resource>(object: &K) -> String {
    object.uid().unwrap_or_default()
}
