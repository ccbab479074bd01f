//! A real run in which everything that can be measured has happened: Webhooks that are fine, one whose receiver fails,
//! one that somebody switched off, one that somebody changed, one whose deletion is held, one that could only be left in
//! place, and a provider whose credentials are refused.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::Child,
    time::{sleep, timeout},
};
use upstream_doubles::{Doubles, Options, ReplayRule, Verdict};

use crate::{
    programs::{Programs, tied},
    progress::Failure,
    stand::{OPERATOR_NAMESPACE, START_LIMIT, Stand, pid_of},
};

const NAMESPACE: &str = "watched";
const API_VERSION: &str = "webhook-operator.dev/v1alpha1";

/// Longest wait for one thing to happen.
const LIMIT: Duration = Duration::from_secs(60);

/// Longer than what the operator takes for its end.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Those that are read back again and again, so that there are calls to be measured: more of them at the slow provider
/// than its limit lets through.
const BUSY: [&str; 5] = [
    "drifting",
    "ricloud-fine",
    "topic-fine",
    "second-topic",
    "switched-off",
];

/// The one that is tested again and again.
const TESTED: &str = "application";

/// The run.
pub(super) struct Scene<'a> {
    client: &'a Client,
    doubles: Doubles,
    operator: Child,
    log: PathBuf,
}

impl<'a> Scene<'a> {
    /// Starts doubles and operator. On the main thread, see [`tied`].
    pub(super) async fn start(programs: &Programs, stand: &'a Stand, folder: &Path) -> Result<Self, Failure> {
        let doubles = Doubles::start(Options::demo()).await?;
        doubles
            .ricloud()
            .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
        doubles
            .autocosmos()
            .change_behaviour(|behaviour| behaviour.replay_rule = ReplayRule::Off);
        let log = folder.join("operator.log");
        let operator = tied(&programs.operator)
            .args(["run", "--allow-network", "127.0.0.1/32"])
            .args([
                "--http-addr",
                "127.0.0.1:0",
                "--lease-namespace",
                OPERATOR_NAMESPACE,
            ])
            .env("KUBECONFIG", stand.operator_kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let scene = Self {
            client: stand.client(),
            doubles,
            operator,
            log,
        };
        scene.line("caches are full").await?;
        Ok(scene)
    }

    /// The first line of the operator's log with this message.
    async fn line(&self, message: &str) -> Result<Value, Failure> {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log)?;
            let found = log.lines().find(|line| line.contains(message));
            // The last line may not be whole yet.
            if let Some(line) = found.and_then(|line| serde_json::from_str(line).ok()) {
                return Ok(line);
            }
            if began.elapsed() > START_LIMIT {
                return Err(Failure::new(format!(
                    "the operator does not say {message:?}:\n{log}"
                )));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where the metrics are.
    pub(super) async fn target(&self) -> Result<String, Failure> {
        let line = self.line("serving /livez").await?;
        let address = line.get("address").and_then(Value::as_str);
        address
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("the operator does not say where it serves"))
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let group = GroupVersionKind::gvk("webhook-operator.dev", "v1alpha1", kind);
        Api::namespaced_with(self.client.clone(), NAMESPACE, &ApiResource::from_gvk(&group))
    }

    /// Makes everything, and lets it come to rest.
    pub(super) async fn set(&self) -> Result<(), Failure> {
        let core = |kind: &str| ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let namespaces = Api::all_with(self.client.clone(), &core("Namespace"));
        let secrets = Api::namespaced_with(self.client.clone(), NAMESPACE, &core("Secret"));
        let object =
            |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        create(&namespaces, object("Namespace", NAMESPACE)).await?;
        for (name, data) in credentials() {
            let secret = with(object("Secret", name), json!({"stringData": data}));
            create(&secrets, secret).await?;
        }
        for (name, spec) in self.providers() {
            create(&self.api("WebhookProvider"), ours("WebhookProvider", name, &spec)).await?;
        }
        for (name, spec) in self.webhooks() {
            create(&self.api("Webhook"), ours("Webhook", name, &spec)).await?;
        }
        for (name, _) in self.webhooks() {
            let reason = match name {
                "failing" => "TestFailed",
                "refused" => "ProviderNotReady",
                _ => "Available",
            };
            self.reason(name, reason).await?;
        }
        Ok(())
    }

    fn providers(&self) -> [(&'static str, Value); 5] {
        let doubles = &self.doubles;
        let provider = |kind: &str, url: String, secret: &str, own: Value| {
            let rate = json!({"requestsPerSecond": 20, "burst": 20, "maxConcurrent": 4});
            let spec = json!({
                "type": kind, "baseUrl": url, "credentialsRef": {"name": secret}, "rateLimit": rate,
            });
            with(spec, own)
        };
        let limit = json!({"deletionLimit": {"count": 0, "window": "1h"}});
        // So that calls have to wait.
        let slow = json!({"rateLimit": {"requestsPerSecond": 1, "burst": 1}});
        let (conpeek, thulium) = (doubles.conpeek().url(), doubles.thulium().url());
        let (ricloud, autocosmos) = (doubles.ricloud().url(), doubles.autocosmos().url());
        [
            ("conpeek", provider("Conpeek", conpeek, "conpeek", json!({}))),
            (
                "thulium",
                provider("Thulium", thulium.clone(), "thulium", json!({})),
            ),
            ("refusing", provider("Thulium", thulium, "wrong", json!({}))),
            ("ricloud", provider("Ricloud", ricloud, "ricloud", limit)),
            (
                "autocosmos",
                provider("Autocosmos", autocosmos, "autocosmos", slow),
            ),
        ]
    }

    fn webhooks(&self) -> [(&'static str, Value); 10] {
        let at = |path: &str| format!("{}{path}", self.doubles.receiver().url());
        let webhook = |provider: &str, url: String, own: Value| {
            with(json!({"providerRef": {"name": provider}, "url": url}), own)
        };
        let events = || json!({"events": ["TICKET_CREATED"]});
        let topic =
            |name: &str| json!({"target": name, "secretRef": {"name": "signing"}, "test": {"mode": "None"}});
        [
            ("left", webhook("conpeek", at("/ok/left"), json!({"target": "1"}))),
            (
                "application",
                webhook("conpeek", at("/ok/application"), json!({"target": "2"})),
            ),
            ("drifting", webhook("thulium", at("/ok/drifting"), events())),
            ("failing", webhook("thulium", at("/status/500"), events())),
            ("refused", webhook("refusing", at("/ok/refused"), events())),
            ("ricloud-fine", webhook("ricloud", at("/ok/fine"), json!({}))),
            ("ricloud-held", webhook("ricloud", at("/ok/held"), json!({}))),
            (
                "topic-fine",
                webhook("autocosmos", at("/ok/topic"), topic("fine")),
            ),
            ("switched-off", webhook("autocosmos", at("/ok/off"), topic("off"))),
            (
                "second-topic",
                webhook("autocosmos", at("/ok/second"), topic("second")),
            ),
        ]
    }

    /// Lets people do what they do, here and at the upstreams.
    pub(super) async fn happen(&self) -> Result<(), Failure> {
        let webhooks = self.api("Webhook");
        for name in ["left", "ricloud-held"] {
            webhooks.delete(name, &DeleteParams::default()).await?;
        }
        let off = self
            .doubles
            .autocosmos()
            .edit("demo-app-key/off", |webhook| webhook.activo = false);
        let thulium = self.doubles.thulium();
        let drifting = thulium
            .objects()
            .into_iter()
            .find(|webhook| webhook.subscription_url.ends_with("/drifting"));
        let moved = drifting.is_some_and(|webhook| {
            thulium.edit(&webhook.id.to_string(), |webhook| {
                webhook.subscription_url.push_str("/elsewhere");
            })
        });
        if !(off && moved) {
            return Err(Failure::new(
                "what should be changed at the upstreams is not there",
            ));
        }
        self.busy().await?;
        self.reason("ricloud-held", "DeletionHeld").await?;
        self.reason("switched-off", "DeactivatedUpstream").await
    }

    /// Makes some calls, passes and tests.
    pub(super) async fn busy(&self) -> Result<(), Failure> {
        for name in BUSY {
            self.ask(name, "reconcile-requested-at").await?;
        }
        self.ask(TESTED, "test-requested-at").await
    }

    /// Gives an annotation of a Webhook a new value: do it now.
    async fn ask(&self, name: &str, what: &str) -> Result<(), Failure> {
        let value = format!("{:?}", std::time::SystemTime::now());
        let annotation = format!("webhook-operator.dev/{what}");
        let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}));
        self.api("Webhook")
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits until `Ready` of a Webhook has this reason.
    async fn reason(&self, name: &str, reason: &str) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let webhook = self.api("Webhook").get(name).await?;
            let conditions = webhook
                .data
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let ready = conditions
                .into_iter()
                .flatten()
                .find(|condition| condition.get("type") == Some(&json!("Ready")));
            if ready.and_then(|ready| ready.get("reason")) == Some(&json!(reason)) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                let status = webhook.data.get("status").unwrap_or(&Value::Null);
                return Err(Failure::new(format!("{name} is not {reason} in time: {status}")));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends the operator as Kubernetes does.
    pub(super) async fn end_operator(&mut self) -> Result<(), Failure> {
        kill_process(pid_of(&self.operator)?, Signal::TERM)?;
        let status = timeout(STOP_LIMIT, self.operator.wait()).await??;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("the operator ended with {status}")))
        }
    }

    /// Ends what is left.
    pub(super) async fn stop(self) {
        self.doubles.stop().await;
    }
}

fn credentials() -> [(&'static str, Value); 6] {
    [
        ("conpeek", json!({"apiKey": "demo-conpeek-key"})),
        (
            "thulium",
            json!({"username": "api_demo", "password": "demo-thulium-password"}),
        ),
        ("ricloud", json!({"token": "demo-ricloud-token"})),
        (
            "autocosmos",
            json!({"appKey": "demo-app-key", "appSecret": "demo-app-secret"}),
        ),
        ("wrong", json!({"username": "api_demo", "password": "mistyped"})),
        ("signing", json!({"secret": "a-signing-secret-of-some-length"})),
    ]
}

/// An object with these members too, or instead.
fn with(mut object: Value, own: Value) -> Value {
    if let (Some(object), Value::Object(own)) = (object.as_object_mut(), own) {
        object.extend(own);
    }
    object
}

fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

async fn create(api: &Api<DynamicObject>, object: Value) -> Result<(), Failure> {
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}
