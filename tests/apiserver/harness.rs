//! The control planes of all tests of this executable, with the three CRDs installed: one in which no operator
//! touches what a test does not give it, and one that an operator serves as a whole.
//!
//! Each is started by the first test that asks for it and ends with the process, also when tests fail or the
//! process is killed: the supervisor of `control-plane` sees to that. Every test works in a namespace of its
//! own ([`Cluster::namespace`]) and with a client of its own, because a client belongs to the runtime of the
//! test that made it.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use control_plane::{AuditLevel, ControlPlane, Options};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use tokio::sync::OnceCell;
use webhook_operator::api::{FIELD_MANAGER, schema};

/// Longest wait for a CRD to be served.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(30);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static OPERATED: OnceCell<Cluster> = OnceCell::const_new();
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// The control plane that all tests of this executable share.
pub(crate) struct Cluster {
    plane: ControlPlane,
}

/// The shared control plane, started if no test did so before.
pub(crate) async fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(Cluster::start).await
}

/// A second control plane, in which the operator of `operator.rs` serves all namespaces. Tests that write status by
/// hand, or have an operator of their own (confined to their namespace), use [`cluster`].
pub(crate) async fn operated() -> &'static Cluster {
    OPERATED.get_or_init(Cluster::start).await
}

impl Cluster {
    /// One of its own, for a test that stops its servers.
    pub(crate) async fn start() -> Self {
        let options = Options {
            audit: Some(AuditLevel::Metadata),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await.expect("start a control plane");
        let cluster = Self { plane };
        cluster.install_crds().await;
        cluster
    }

    async fn install_crds(&self) {
        let api: Api<CustomResourceDefinition> = Api::all(self.client().await);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        for crd in schema::crds() {
            // The apiserver refuses here what its cost budget for rules does not allow.
            api.create(&params, &crd)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", crd.name_any()));
        }
        for crd in schema::crds() {
            let name = crd.name_any();
            let established = await_condition(api.clone(), &name, is_crd_established());
            tokio::time::timeout(ESTABLISHED_TIMEOUT, established)
                .await
                .unwrap_or_else(|_| panic!("{name} is not served after {ESTABLISHED_TIMEOUT:?}"))
                .expect("watch a CRD");
        }
    }

    /// A new client with the administrator's rights.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("read the kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("use the kubeconfig");
        Client::try_from(config).expect("make a client")
    }

    /// Path of the administrator's kubeconfig, for processes that a test starts.
    pub(crate) fn kubeconfig(&self) -> &Path {
        self.plane.kubeconfig()
    }

    /// The servers, for the test that started them.
    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The audit log, one JSON event a line, at the level Metadata.
    pub(crate) fn audit_log(&self) -> &Path {
        self.plane.audit_log().expect("there is an audit log")
    }

    /// A new namespace whose name begins with `prefix` and is used by nobody else.
    pub(crate) async fn namespace(&self, client: &Client, prefix: &str) -> String {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{number}");
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .expect("create a namespace");
        name
    }
}
