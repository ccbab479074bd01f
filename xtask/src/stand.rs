//! What a benchmark or a run under trouble stands on: a control plane with the CRDs, and an account for the operator
//! with the rights that the project's manifests give it. It ends with this process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use control_plane::{AuditLevel, ControlPlane, Options};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::{process::Child, time::sleep};

use crate::{
    control_plane::launcher,
    progress::{Failure, root},
};

/// Longest wait for a process to be ready.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

/// Everything ends after this long, whatever happens to this process.
pub(crate) const LIFETIME: Duration = Duration::from_secs(90 * 60);

/// Where the operator would run, and as whom; as in `config/rbac.yaml`.
pub(crate) const OPERATOR_NAMESPACE: &str = "webhook-operator";
const OPERATOR_ACCOUNT: &str = "webhook-operator";

/// A control plane with the CRDs and an account for the operator.
pub(crate) struct Stand {
    plane: ControlPlane,
    client: Client,
    operator_kubeconfig: PathBuf,
}

impl Stand {
    /// Starts it, with an audit log or without.
    pub(crate) async fn start(audit: Option<AuditLevel>) -> Result<Self, Failure> {
        Self::start_for(audit, LIFETIME).await
    }

    /// The same, for a run that takes as long as this.
    pub(crate) async fn start_for(audit: Option<AuditLevel>, lifetime: Duration) -> Result<Self, Failure> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        eprintln!("starting a control plane");
        let options = Options {
            audit,
            lifetime,
            launcher: launcher(),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await?;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        install_crds(&client).await?;
        let operator_kubeconfig = operator_account(&client, &plane, lifetime).await?;
        Ok(Self {
            plane,
            client,
            operator_kubeconfig,
        })
    }

    /// The administrator's client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A folder that goes with the control plane.
    pub(crate) fn folder(&self) -> &Path {
        self.plane.folder()
    }

    /// Who the operator is for the apiserver, and the log in which that is written, if there is one.
    pub(crate) fn audit(&self) -> Option<(&Path, String)> {
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}");
        Some((self.plane.audit_log()?, user))
    }

    /// The operator's kubeconfig.
    pub(crate) fn operator_kubeconfig(&self) -> &Path {
        &self.operator_kubeconfig
    }

    /// The servers, for those who stop and start them.
    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Stops all servers.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        Ok(self.plane.stop().await?)
    }
}

async fn install_crds(client: &Client) -> Result<(), Failure> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for file in ["webhooks", "webhookproviders", "clusterwebhookproviders"] {
        let text = fs::read_to_string(root().join("crds").join(file).with_extension("yaml"))?;
        let crd: DynamicObject = webhook_operator::yaml::parse(&text)?;
        api.create(&PostParams::default(), &crd).await?;
    }
    let began = Instant::now();
    loop {
        let crds = api.list(&kube::api::ListParams::default()).await?;
        let established = |crd: &DynamicObject| {
            let conditions = crd.data.pointer("/status/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|condition| {
                condition.get("type") == Some(&json!("Established"))
                    && condition.get("status") == Some(&json!("True"))
            })
        };
        if crds.items.iter().all(established) {
            return Ok(());
        }
        if began.elapsed() > START_LIMIT {
            return Err(Failure::new("the CRDs are not served"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The operator's account with the rights that the project's manifests give it, so that the audit log tells its
/// requests from ours; returns its kubeconfig, which is good for this long.
async fn operator_account(
    client: &Client,
    plane: &ControlPlane,
    lifetime: Duration,
) -> Result<PathBuf, Failure> {
    let text = fs::read_to_string(root().join("config/rbac.yaml"))?;
    let params = PostParams::default();
    for object in webhook_operator::yaml::parse_all::<DynamicObject>(&text)? {
        let types = object.types.clone().unwrap_or_default();
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        api.create(&params, &object).await?;
    }
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ServiceAccount"));
    let accounts: Api<DynamicObject> = Api::namespaced_with(client.clone(), OPERATOR_NAMESPACE, &kind);
    let seconds = lifetime.as_secs();
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}});
    let answer: Value = accounts
        .create_subresource("token", OPERATOR_ACCOUNT, &params, &request)
        .await?;
    let token = answer
        .pointer("/status/token")
        .and_then(Value::as_str)
        .unwrap_or_default();

    let mut kubeconfig: Value = webhook_operator::yaml::parse(&fs::read_to_string(plane.kubeconfig())?)?;
    if let Some(user) = kubeconfig.pointer_mut("/users/0/user") {
        *user = json!({"token": token});
    }
    let path = plane.folder().join("operator.kubeconfig");
    fs::write(&path, serde_json::to_vec(&kubeconfig)?)?;
    Ok(path)
}

/// What the kernel says about a process, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) rss: u64,
    /// Resident at most so far.
    pub(crate) peak: u64,
}

impl Memory {
    /// That of a process.
    pub(crate) fn of(pid: Pid) -> Result<Self, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|figure| figure.parse().ok())
        };
        match (field("VmRSS:"), field("VmHWM:")) {
            (Some(rss), Some(peak)) => Ok(Self { rss, peak }),
            _ => Err(Failure::new("/proc does not tell the operator's memory")),
        }
    }
}

/// The id of a child that has not been waited for.
pub(crate) fn pid_of(child: &Child) -> Result<Pid, Failure> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    pid.and_then(Pid::from_raw)
        .ok_or_else(|| Failure::new("the operator ended at once"))
}
