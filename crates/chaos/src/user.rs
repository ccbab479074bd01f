//! The users' hands: namespace, accounts, apply, delete, look. Each call is repeated while the apiserver is away, as
//! people and pipelines do; all of them may be repeated without harm.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use upstream_doubles::{Doubles, Options, ReplayRule, Verdict};

use crate::{
    Error,
    calls::JOURNAL_LIMIT,
    fleet::{self, API_VERSION, Deed, Fleet, Hook, Upstream},
};

/// Longest time that the apiserver may be away.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// How many Webhooks are applied at the same time at the start.
const APPLIERS: usize = 8;

/// Field manager of the users.
const MANAGER: &str = "a-user";

/// A user with a namespace.
pub struct User {
    client: Client,
    namespace: String,
    webhooks: Api<DynamicObject>,
    secrets: Api<Secret>,
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("webhook-operator.dev", "v1alpha1", kind))
}

impl User {
    /// A user of this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            webhooks: Api::namespaced_with(client.clone(), namespace, &resource("Webhook")),
            secrets: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            client,
        }
    }

    /// Makes the namespace, the accounts of the demo, and a provider for each upstream with its limits lifted.
    /// `timeout` is that of one call; a create that was cut off is looked at for 30 s longer.
    ///
    /// # Errors
    /// The apiserver refuses something or stays away.
    pub async fn settle_in(&self, doubles: &Doubles, fleet: &Fleet, timeout: Duration) -> Result<(), Error> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let namespaces: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        apply(&namespaces, &self.namespace, &namespace).await?;
        for upstream in Upstream::ALL {
            self.secret(upstream.name(), &credentials(upstream)).await?;
        }
        let (username, password) = fleet::BASIC;
        let data = json!({"username": username, "password": password});
        self.secret_of(fleet::BASIC_SECRET, "kubernetes.io/basic-auth", &data)
            .await?;
        for (number, value) in fleet.signing().iter().enumerate() {
            self.sign_with(number, value).await?;
        }
        let providers: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource("WebhookProvider"));
        for upstream in Upstream::ALL {
            let provider = provider(upstream, doubles, timeout);
            apply(&providers, upstream.name(), &provider).await?;
        }
        Ok(())
    }

    /// Applies all Webhooks of a fleet, several at a time.
    ///
    /// # Errors
    /// As above.
    pub async fn fill(&self, fleet: &Fleet) -> Result<(), Error> {
        use futures::{StreamExt, TryStreamExt, stream};
        let hooks: Vec<Hook> = fleet.live().values().cloned().collect();
        stream::iter(hooks)
            .map(|hook| async move { self.apply(&hook).await })
            .buffer_unordered(APPLIERS)
            .try_collect()
            .await
    }

    /// Does one thing. What shall come back under the name of what was deleted is handed back.
    ///
    /// # Errors
    /// As above.
    pub async fn perform(&self, deed: Deed) -> Result<Option<Hook>, Error> {
        match deed {
            Deed::Apply(hook) => self.apply(&hook).await.map(|()| None),
            Deed::Delete { name, again } => {
                let what = format!("delete {name}");
                let params = DeleteParams::default();
                persist(&what, || self.webhooks.delete(&name, &params)).await?;
                Ok(again)
            }
            Deed::Rotate { number, value } => self.sign_with(number, &value).await.map(|()| None),
        }
    }

    /// Applies a Webhook unless there is one of its name still or again. Whether it was applied.
    ///
    /// # Errors
    /// As above.
    pub async fn bring_back(&self, hook: &Hook) -> Result<bool, Error> {
        let what = format!("look for {}", hook.name);
        let there = persist(&what, || self.webhooks.get_metadata(&hook.name)).await?;
        if there.is_none() {
            self.apply(hook).await?;
        }
        Ok(there.is_none())
    }

    async fn apply(&self, hook: &Hook) -> Result<(), Error> {
        apply(&self.webhooks, &hook.name, &hook.manifest(&self.namespace)).await
    }

    /// Puts a value into a signing Secret.
    async fn sign_with(&self, number: usize, value: &str) -> Result<(), Error> {
        self.secret(&fleet::signing_name(number), &json!({"secret": value}))
            .await
    }

    async fn secret(&self, name: &str, data: &Value) -> Result<(), Error> {
        self.secret_of(name, "Opaque", data).await
    }

    async fn secret_of(&self, name: &str, kind: &str, data: &Value) -> Result<(), Error> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "namespace": self.namespace}, "stringData": data,
        });
        let params = PatchParams::apply(MANAGER).force();
        let what = format!("apply Secret {name}");
        let patch = Patch::Apply(&secret);
        persist(&what, || self.secrets.patch(name, &params, &patch)).await?;
        Ok(())
    }

    /// Asks for all Webhooks to be deleted.
    ///
    /// # Errors
    /// As above.
    pub async fn delete_all(&self) -> Result<(), Error> {
        let (params, all) = (DeleteParams::default(), ListParams::default());
        persist("delete all Webhooks", || {
            self.webhooks.delete_collection(&params, &all)
        })
        .await?;
        Ok(())
    }

    /// All Webhooks.
    ///
    /// # Errors
    /// As above.
    pub async fn webhooks(&self) -> Result<Vec<DynamicObject>, Error> {
        let all = ListParams::default();
        let list = persist("list Webhooks", || self.webhooks.list(&all)).await?;
        Ok(list.map(|list| list.items).unwrap_or_default())
    }

    /// What the Secrets of the namespace hold under the key `secret`, by name; those without it are left out.
    ///
    /// # Errors
    /// As above.
    pub async fn secrets(&self) -> Result<BTreeMap<String, String>, Error> {
        let all = ListParams::default();
        let list = persist("list Secrets", || self.secrets.list(&all)).await?;
        let secrets = list.map(|list| list.items).unwrap_or_default();
        let held = secrets.into_iter().filter_map(|secret| {
            let value = secret.data.as_ref()?.get("secret")?.0.clone();
            Some((secret.name_any(), String::from_utf8_lossy(&value).into_owned()))
        });
        Ok(held.collect())
    }

    /// The Webhooks, for what only some runs do to them.
    #[must_use]
    pub fn api(&self) -> &Api<DynamicObject> {
        &self.webhooks
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

async fn apply(api: &Api<DynamicObject>, name: &str, manifest: &Value) -> Result<(), Error> {
    let params = PatchParams::apply(MANAGER).force();
    let what = format!("apply {name}");
    let patch = Patch::Apply(manifest);
    persist(&what, || api.patch(name, &params, &patch)).await?;
    Ok(())
}

/// Repeats a call until the apiserver has answered it. `None`: there is no such object.
///
/// # Errors
/// A refusal, or no answer for two minutes.
pub async fn persist<T, F>(what: &str, call: impl Fn() -> F) -> Result<Option<T>, Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let began = Instant::now();
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        match &error {
            kube::Error::Api(status) if status.code == 404 => return Ok(None),
            // A conflict, too many requests, an apiserver that is only just starting.
            kube::Error::Api(status) if matches!(status.code, 403 | 409 | 429 | 500..) => {}
            kube::Error::Api(_) => {
                return Err(Error::Refused {
                    what: what.to_owned(),
                    source: Box::new(error),
                });
            }
            _ => {}
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::NoAnswer {
                what: what.to_owned(),
                after: PATIENCE,
                source: Box::new(error),
            });
        }
        sleep(PAUSE).await;
    }
}

/// How the doubles of a run are to be: with the demo's accounts, verdicts without a delivery because nothing serves the
/// URLs, no limit of requests, and journals that keep everything.
#[must_use]
pub fn options(latency: Duration) -> Options {
    let mut options = Options::demo();
    options.latency_millis = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    options.journal_limit = JOURNAL_LIMIT;
    options.ricloud.behaviour.verdict = Verdict::AlwaysValid;
    options.autocosmos.behaviour.replay_rule = ReplayRule::Off;
    options
}

/// The accounts of [`Options::demo`].
fn credentials(upstream: Upstream) -> Value {
    match upstream {
        Upstream::Conpeek => json!({"apiKey": "demo-conpeek-key"}),
        Upstream::Thulium => json!({"username": "api_demo", "password": "demo-thulium-password"}),
        Upstream::Ricloud => json!({"token": "demo-ricloud-token"}),
        Upstream::Autocosmos => json!({"appKey": "demo-app-key", "appSecret": "demo-app-secret"}),
    }
}

fn provider(upstream: Upstream, doubles: &Doubles, timeout: Duration) -> Value {
    let url = match upstream {
        Upstream::Conpeek => doubles.conpeek().url(),
        Upstream::Thulium => doubles.thulium().url(),
        Upstream::Ricloud => doubles.ricloud().url(),
        Upstream::Autocosmos => doubles.autocosmos().url(),
    };
    json!({
        "apiVersion": API_VERSION, "kind": "WebhookProvider",
        "metadata": {"name": upstream.name()},
        "spec": {
            "type": upstream.kind(),
            "baseUrl": url,
            "credentialsRef": {"name": upstream.name()},
            "timeout": format!("{}s", timeout.as_secs().max(1)),
            "rateLimit": {"requestsPerSecond": 1000, "burst": 1000, "maxConcurrent": 64},
        },
    })
}
