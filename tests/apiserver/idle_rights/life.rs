//! What an operator has to get done, step by step, and what it is given for that.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Secret},
    events::v1::Event,
};
use kube::{
    Api,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
};
use serde_json::{Value, json};
use webhook_operator::api::{
    IN_USE_FINALIZER, RELEASED_ANNOTATION,
    conditions::ReadyReason,
    provider::ProviderType::{self, Autocosmos, Conpeek},
};

use crate::{
    right::{Asked, Right},
    world::{SOON, World, name_of},
};

/// More than a provider of the tests lets through at once, so that notes on it meet each other.
const MANY: usize = 12;

/// What the operator has to get done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It leads and has its caches full.
    Working,
    /// A Webhook whose secret the operator makes is registered.
    Registered,
    /// The provider says that its credentials are good.
    ProviderTold,
    /// Provider and credentials are held as long as they are needed.
    Held,
    /// An Event tells of the Webhook.
    Told,
    /// Trust roots are read.
    Trusted,
    /// A Secret that comes later is noticed.
    Noticed,
    /// The same Event again is counted and not told anew.
    Counted,
    /// A registration is removed.
    Removed,
    /// All of many registrations that are left behind at once are noted on their provider.
    Noted,
    /// Credentials in use are asked to go, and their provider is held all the same.
    Asked,
    /// The Lease is renewed.
    Renewed,
}

impl Step {
    /// What has to be done before it, and nothing more: what else an operator does without a right is no matter here.
    pub(super) fn prepared_by(self) -> &'static [Self] {
        match self {
            Self::Working => &[],
            Self::Registered | Self::Renewed => &[Self::Working],
            Self::Counted => &[Self::Working, Self::Registered, Self::Noticed],
            Self::Noted | Self::Asked => &[Self::Working, Self::Registered, Self::Trusted],
            Self::ProviderTold | Self::Held | Self::Told | Self::Trusted | Self::Noticed | Self::Removed => {
                &[Self::Working, Self::Registered]
            }
        }
    }
}

/// What one operator works on.
pub(super) struct Life {
    pub(super) world: World,
    /// Whether the providers are those of the cluster.
    pub(super) wide: bool,
}

impl Life {
    /// Has a step done, and waits until it is.
    pub(super) async fn reach(&self, step: Step) {
        match step {
            Step::Working => self.world.operator.wait_until_working().await,
            Step::Registered => self.registered().await,
            Step::ProviderTold => {
                let verified = |provider: &Value| provider["status"]["conditions"][0]["reason"] == "Verified";
                self.provider_is("autocosmos", "verified", verified).await;
            }
            Step::Held => self.held().await,
            Step::Told => {
                self.until("an Event", async || !self.world.events("made").await.is_empty())
                    .await
            }
            Step::Trusted => self.trusted().await,
            Step::Noticed => self.noticed().await,
            Step::Counted => self.counted().await,
            Step::Removed => self.world.delete_and_wait("made").await,
            Step::Noted => self.noted().await,
            Step::Asked => self.asked().await,
            Step::Renewed => self.renewed().await,
        }
    }

    async fn registered(&self) {
        // Only now, so that it has to be noticed.
        let label = json!({ "metadata": { "labels": { "served-for": self.world.namespace } } });
        let namespaces: Api<Namespace> = Api::all(self.world.client.clone());
        namespaces
            .patch(
                &self.world.namespace,
                &PatchParams::default(),
                &Patch::Merge(label),
            )
            .await
            .expect("label the namespace");
        self.provider(Autocosmos, json!({})).await;
        let spec = json!({
            "providerRef": self.reference("autocosmos"), "target": "made", "url": "https://hooks.example.com/made",
            "secretRef": { "name": "made" }, "secretPolicy": { "source": "Generate" },
        });
        self.world.webhook("made", Autocosmos, spec).await;
        self.world.wait_ready("made", ReadyReason::Available).await;
    }

    async fn held(&self) {
        self.provider_is("autocosmos", "held", is_held).await;
        let secrets: Api<Secret> = self.world.api();
        self.until("the credentials to be held", async || {
            let secret = secrets.get("autocosmos-account").await.expect("read a Secret");
            is_held(&serde_json::to_value(secret).expect("a Secret"))
        })
        .await;
    }

    async fn trusted(&self) {
        let roots = json!({
            "metadata": { "name": "roots" }, "data": { "ca.crt": self.world.cluster.plane().ca_pem() },
        });
        let maps: Api<ConfigMap> = self.world.api();
        maps.create(
            &PostParams::default(),
            &serde_json::from_value(roots).expect("a ConfigMap"),
        )
        .await
        .expect("make trust roots");
        let mut bundle = json!({ "name": "roots" });
        if self.wide {
            bundle["namespace"] = json!(self.world.namespace);
        }
        self.provider(Conpeek, json!({ "caBundleRef": bundle })).await;
        self.conpeek("trusting", 900).await;
        self.world.wait_ready("trusting", ReadyReason::Available).await;
    }

    async fn conpeek(&self, name: &str, target: usize) {
        let spec = json!({
            "providerRef": self.reference("conpeek"), "target": target.to_string(),
            "url": format!("https://hooks.example.com/{name}"),
        });
        self.world.webhook(name, Conpeek, spec).await;
    }

    async fn noticed(&self) {
        let spec = json!({
            "providerRef": self.reference("autocosmos"), "target": "waiting",
            "url": "https://hooks.example.com/waiting", "secretRef": { "name": "late" },
        });
        self.world.webhook("waiting", Autocosmos, spec).await;
        self.world
            .wait_ready("waiting", ReadyReason::SecretNotFound)
            .await;
        self.world
            .secret("late", &[("secret", "a-secret-that-comes-late")])
            .await;
        self.world.wait_ready("waiting", ReadyReason::Available).await;
    }

    async fn counted(&self) {
        let secrets: Api<Secret> = self.world.api();
        secrets
            .delete("late", &DeleteParams::default())
            .await
            .expect("delete a Secret");
        self.world
            .wait_ready("waiting", ReadyReason::SecretNotFound)
            .await;
        let events: Api<Event> = self.world.api();
        self.until("an Event that is counted", async || {
            let all = events.list(&ListParams::default()).await.expect("list Events");
            all.items.iter().any(|event| event.series.is_some())
        })
        .await;
    }

    async fn noted(&self) {
        let name = |number: usize| format!("left-{number}");
        for number in 0..MANY {
            self.conpeek(&name(number), number + 1).await;
        }
        for number in 0..MANY {
            self.world.wait_ready(&name(number), ReadyReason::Available).await;
        }
        for number in 0..MANY {
            self.world.delete(&name(number)).await;
        }
        for number in 0..MANY {
            self.world.wait_gone(&name(number)).await;
        }
        self.provider_is("conpeek", "marked with all that was left", |provider| {
            let noted = provider["metadata"]["annotations"][RELEASED_ANNOTATION].as_str();
            let noted: Value = noted.map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"));
            noted.as_object().is_some_and(|targets| targets.len() == MANY)
        })
        .await;
    }

    async fn asked(&self) {
        let user = self.world.operator.identity().user();
        let mut asked = Asked::from_now_on(self.world.cluster.audit_log(), user);
        let question = Right {
            group: String::new(),
            resource: "namespaces".to_owned(),
            verb: "get".to_owned(),
        };
        let secrets: Api<Secret> = self.world.api();
        secrets
            .delete("conpeek-account", &DeleteParams::default())
            .await
            .expect("delete credentials");
        self.until("the operator to ask whether the namespace goes", async || {
            asked.read();
            asked.used.contains(&question) || asked.refused.contains(&question)
        })
        .await;
        // Somebody takes the finalizer off the provider: it is needed, so it comes back.
        let (api, name) = self.provider_api("conpeek");
        let patch = json!({ "metadata": { "finalizers": null } });
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("change a provider");
        self.provider_is("conpeek", "held again", is_held).await;
    }

    async fn renewed(&self) {
        let own = self.world.operator.identity().namespace();
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), own);
        let time = async || {
            let lease = leases.get("webhook-operator").await.expect("read the Lease");
            lease.spec.and_then(|spec| spec.renew_time)
        };
        let before = time().await;
        self.until("the Lease to be renewed", async || time().await != before)
            .await;
    }

    /// Name of the provider of a type: those of the cluster are not alone.
    fn provider_name(&self, name: &str) -> String {
        match self.wide {
            true => format!("{name}-of-{}", self.world.namespace),
            false => name.to_owned(),
        }
    }

    fn reference(&self, name: &str) -> Value {
        let kind = if self.wide {
            "ClusterWebhookProvider"
        } else {
            "WebhookProvider"
        };
        json!({ "kind": kind, "name": self.provider_name(name) })
    }

    async fn provider(&self, of: ProviderType, spec: Value) {
        if !self.wide {
            return self.world.provider_with(of, spec).await;
        }
        let credentials = self.world.credentials(of);
        let credentials: Vec<(&str, &str)> = credentials.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let name = format!("{}-account", name_of(of));
        self.world.secret(&name, &credentials).await;
        let mut manifest = self.world.provider_manifest(of);
        manifest["kind"] = json!("ClusterWebhookProvider");
        manifest["metadata"]["name"] = json!(self.provider_name(&name_of(of)));
        manifest["spec"]["credentialsRef"]["namespace"] = json!(self.world.namespace);
        manifest["spec"]["allowedNamespaces"] =
            json!({ "selector": { "matchLabels": { "served-for": self.world.namespace } } });
        for (field, value) in spec.as_object().into_iter().flatten() {
            manifest["spec"][field] = value.clone();
        }
        self.world.apply(&manifest).await;
    }

    fn provider_api(&self, name: &str) -> (Api<DynamicObject>, String) {
        let kind =
            |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("webhook-operator.dev", "v1alpha1", kind));
        let (client, namespace) = (self.world.client.clone(), &self.world.namespace);
        let api = match self.wide {
            true => Api::all_with(client, &kind("ClusterWebhookProvider")),
            false => Api::namespaced_with(client, namespace, &kind("WebhookProvider")),
        };
        (api, self.provider_name(name))
    }

    async fn provider_is(&self, name: &str, what: &str, met: impl Fn(&Value) -> bool) {
        let (api, name) = self.provider_api(name);
        self.until(&format!("{name} to be {what}"), async || {
            let provider = api.get(&name).await.expect("read a provider");
            met(&serde_json::to_value(provider).expect("an object"))
        })
        .await;
    }

    async fn until(&self, what: &str, mut met: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !met().await {
            assert!(
                began.elapsed() < SOON,
                "waited {SOON:?} for {what}\n{}",
                self.world.operator.log_tail(&self.world.namespace)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether an object has the operator's finalizer.
fn is_held(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.contains(&json!(IN_USE_FINALIZER)))
}
