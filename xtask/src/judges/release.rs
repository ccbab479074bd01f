//! A release of the chart in a real control plane, with helm itself: what `install` and `upgrade` stand on.
//!
//! The control plane has no nodes, so nobody starts the Deployment's pods. [`Pod`] reads one as the apiserver has it
//! and starts the operator's program with its arguments, its environment and a token of its service account. Two things
//! stand in for a node: the kubeconfig for what a kubelet mounts, and a port of loopback for the pod's own address.

mod pod;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use control_plane::{ControlPlane, Options, assets, progress::human};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};
use upstream_doubles::Doubles;

pub(super) use self::pod::{Pod, Running};
use super::{Lack, chart::tools};
use crate::{control_plane::launcher, kubectl::Kubectl, progress::Failure};

/// Name of the release.
pub(super) const NAME: &str = "hooks";
/// Its namespace.
pub(super) const NAMESPACE: &str = "hooks-system";
/// Everything ends after this long.
pub(super) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Longest wait for what takes a second or two.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// Our three kinds, as CustomResourceDefinitions.
pub(super) const KINDS: [&str; 3] = [
    "clusterwebhookproviders.webhook-operator.dev",
    "webhookproviders.webhook-operator.dev",
    "webhooks.webhook-operator.dev",
];

/// Kinds that the apiserver makes objects of by itself and at any time.
const NOT_COUNTED: [&str; 4] = [
    "events",
    "events.events.k8s.io",
    "apiservices.apiregistration.k8s.io",
    "componentstatuses",
];

/// A control plane, helm and the doubles of the upstreams.
pub(super) struct Site {
    plane: ControlPlane,
    pub(super) kubectl: Kubectl,
    pub(super) doubles: Doubles,
    helm: PathBuf,
}

impl Site {
    /// Starts it.
    pub(super) async fn start() -> Result<Self, Lack> {
        let helm = tools::helm()?.path().to_owned();
        Ok(Self::with(helm).await?)
    }

    async fn with(helm: PathBuf) -> Result<Self, Failure> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubectl = assets::kubectl().await?;
        let options = Options {
            lifetime: LIFETIME,
            launcher: launcher(),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await?;
        let kubectl = Kubectl::with(&kubectl, plane.kubeconfig());
        let doubles = Doubles::start(upstream_doubles::Options::demo()).await?;
        let site = Self {
            plane,
            kubectl,
            doubles,
            helm,
        };
        site.namespace(NAMESPACE).await?;
        Ok(site)
    }

    /// Stops it.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.doubles.stop().await;
        Ok(self.plane.stop().await?)
    }

    /// A folder that goes with the control plane.
    pub(super) fn folder(&self) -> &Path {
        self.plane.folder()
    }

    /// Certificate of the authority of the apiserver, in PEM.
    pub(super) fn authority(&self) -> &str {
        self.plane.ca_pem()
    }

    /// Makes a namespace, and waits for the account that every namespace gets.
    pub(super) async fn namespace(&self, name: &str) -> Result<(), Failure> {
        self.kubectl.run(&["create", "namespace", name]).await?;
        let account = ["get", "serviceaccount", "default", "--namespace", name];
        self.until(&format!("the namespace {name} has no account"), async || {
            Ok(self.kubectl.run(&account).await.is_ok().then_some(()))
        })
        .await
    }

    /// Runs helm for the release; returns what it prints.
    pub(super) async fn helm(&self, words: &[&str]) -> Result<String, Failure> {
        let own = self.folder().join("helm");
        let output = Command::new(&self.helm)
            .args(words)
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(self.plane.kubeconfig())
            // Neither the user's repositories nor their plugins.
            .env("HELM_CACHE_HOME", &own)
            .env("HELM_CONFIG_HOME", &own)
            .env("HELM_DATA_HOME", &own)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(Failure::new(format!(
            "helm {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }

    /// Applies objects.
    pub(super) async fn apply(&self, namespace: &str, objects: &[Value]) -> Result<(), Failure> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl
            .feed(&["apply", "--namespace", namespace, "-f", "-"], &list.to_string())
            .await?;
        Ok(())
    }

    /// Looks again and again until there is something.
    pub(super) async fn until<T>(
        &self,
        complaint: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if began.elapsed() > SOON {
                return Err(Failure::new(format!("{complaint}, after {}", human(SOON))));
            }
            sleep(EVERY).await;
        }
    }

    /// Waits until a Webhook is in this state and Ready; returns it.
    pub(super) async fn settled(&self, namespace: &str, name: &str, state: &str) -> Result<Value, Failure> {
        let mut last = Value::Null;
        let found = self
            .until("", async || {
                let webhook = self
                    .kubectl
                    .json(&["get", "webhook", name, "--namespace", namespace])
                    .await?;
                let settled = webhook.pointer("/status/state") == Some(&json!(state))
                    && webhook.pointer("/status/observedGeneration")
                        == webhook.pointer("/metadata/generation")
                    && condition(&webhook, "Ready") == "True";
                last = webhook.pointer("/status/conditions").cloned().unwrap_or_default();
                Ok(settled.then_some(webhook))
            })
            .await;
        found.map_err(|failure| Failure::new(format!("{name} is not {state}{failure}: {last}")))
    }

    /// Everything that is there, as `Kind namespace/name`, without what comes and goes by itself.
    pub(super) async fn inventory(&self) -> Result<BTreeSet<String>, Failure> {
        let kinds = self
            .kubectl
            .run(&["api-resources", "--verbs=list", "--output=name"])
            .await?;
        let kinds: Vec<&str> = kinds
            .split_whitespace()
            .filter(|kind| !NOT_COUNTED.contains(kind))
            .collect();
        let columns = "-o=custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
        let list = self
            .kubectl
            .run(&[
                "get",
                &kinds.join(","),
                "--all-namespaces",
                "--no-headers",
                columns,
            ])
            .await?;
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [kind, "<none>", name] => Some(format!("{kind} {name}")),
                [kind, namespace, name] => Some(format!("{kind} {namespace}/{name}")),
                _ => None,
            }
        };
        Ok(list.lines().filter_map(line).collect())
    }

    /// Which of our kinds are there.
    pub(super) async fn kinds(&self) -> Result<Vec<String>, Failure> {
        let list = self.kubectl.run(&["get", "crds", "-o", "name"]).await?;
        let names = list.lines().filter_map(|line| line.split('/').next_back());
        let mut ours: Vec<String> = names
            .filter(|name| name.ends_with(".webhook-operator.dev"))
            .map(str::to_owned)
            .collect();
        ours.sort();
        Ok(ours)
    }
}

/// The status of a condition; empty where it is not there.
pub(super) fn condition<'a>(object: &'a Value, type_: &str) -> &'a str {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|condition| condition.get("type") == Some(&json!(type_)))
        .and_then(|condition| condition.get("status")?.as_str())
        .unwrap_or_default()
}
