//! Who the operator is at the apiserver: a ServiceAccount with the rights that the project's manifests give it, and a
//! token that the apiserver made for it. No operator of these tests has the administrator's rights, so that a right
//! that is missing fails a test.
//!
//! Serving the whole cluster it has `config/rbac.yaml` as it stands; confined to a namespace it has the Roles of the
//! chart's `watchNamespaces`, read from the text of the chart.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use webhook_operator::yaml;

use crate::harness::Cluster;

/// Name of the account, and of its namespace where it serves the whole cluster; as in `config/rbac.yaml`.
const ACCOUNT: &str = "webhook-operator";

/// Longer than any run of the tests.
const TOKEN_SECONDS: u64 = 24 * 60 * 60;

/// Longest wait for the apiserver to honour Roles that were just made.
const HONOURED_TIMEOUT: Duration = Duration::from_secs(30);

/// An account of the operator.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    namespace: String,
    kubeconfig: PathBuf,
}

impl Identity {
    /// With what `config/rbac.yaml` gives, once for a control plane.
    pub(crate) async fn of_the_cluster(cluster: &Cluster) -> Self {
        let objects = plain_manifests();
        let role = objects.iter().find(|object| kind(object) == "ClusterRole");
        let rules = serde_json::to_value(role.expect("it has a ClusterRole")).expect("an object");
        let rules: ClusterRole = serde_json::from_value(rules).expect("a ClusterRole");
        let rules = rules.rules.unwrap_or_default();
        Self::of(cluster, ACCOUNT, &objects, (&rules, None), &own_rules()).await
    }

    /// With what the chart gives an operator that is installed in the namespace `own` and serves `served` only.
    pub(crate) async fn confined(cluster: &Cluster, own: &str, served: &str) -> Self {
        Self::confined_with(cluster, (own, &own_rules()), (served, &served_rules())).await
    }

    /// The same with these rules in its own and in the served namespace.
    pub(crate) async fn confined_with(
        cluster: &Cluster,
        (own, own_rules): (&str, &[PolicyRule]),
        (served, rules): (&str, &[PolicyRule]),
    ) -> Self {
        let mut objects = vec![object(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT, "namespace": own },
        }))];
        objects.extend(role(own, "own", own, own_rules));
        objects.extend(role(served, "served", own, rules));
        Self::of(cluster, own, &objects, (rules, Some(served)), own_rules).await
    }

    /// Makes these objects and a kubeconfig of the account, and waits until the first of the rules and the right on
    /// Leases are honoured: the apiserver sees Roles and their bindings by watches.
    async fn of(
        cluster: &Cluster,
        namespace: &str,
        objects: &[DynamicObject],
        (rules, served): (&[PolicyRule], Option<&str>),
        own_rules: &[PolicyRule],
    ) -> Self {
        let admin = cluster.client().await;
        make(&admin, objects).await;
        let identity = Self {
            namespace: namespace.to_owned(),
            kubeconfig: kubeconfig(cluster, &admin, namespace).await,
        };
        let client = identity.client().await;
        honoured(&client, &rules[0], served, true).await;
        honoured(&client, &own_rules[0], Some(namespace), true).await;
        identity
    }

    /// Changes the rules of the whole cluster to these, of which `sign` tells that they are honoured: it is among them
    /// now and was not before, or the other way round.
    pub(crate) async fn change_cluster_rules(&self, admin: &Client, rules: &[PolicyRule], sign: &PolicyRule) {
        let api: Api<ClusterRole> = Api::all(admin.clone());
        let patch = json!({ "rules": rules });
        api.patch(ACCOUNT, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("change the rules");
        honoured(&self.client().await, sign, None, rules.contains(sign)).await;
    }

    /// Namespace of the operator: of its account, its Lease and its key of hashes.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name in the audit log.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{ACCOUNT}", self.namespace)
    }

    /// For processes that are to be the operator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the operator's rights.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("read the kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("use the kubeconfig")).expect("make a client")
    }
}

/// Everything in `config/rbac.yaml`.
pub(crate) fn plain_manifests() -> Vec<DynamicObject> {
    yaml::parse_all(&read("config/rbac.yaml")).expect("config/rbac.yaml holds objects")
}

/// The chart's rules in a namespace of `watchNamespaces`.
pub(crate) fn served_rules() -> Vec<PolicyRule> {
    let text = read("charts/webhook-operator/templates/_helpers.tpl");
    let (_, rules) = text
        .split_once("{{- define \"webhook-operator.rules\" -}}")
        .expect("the chart defines rules");
    let (rules, _) = rules.split_once("{{- end }}").expect("their end");
    yaml::parse(rules).expect("a list of rules")
}

/// The chart's rules in the operator's own namespace if it has `watchNamespaces`: the first Role, whose only
/// condition is that.
pub(crate) fn own_rules() -> Vec<PolicyRule> {
    let text = read("charts/webhook-operator/templates/rbac.yaml");
    let (_, rules) = text.split_once("\nrules:\n").expect("the chart has a Role");
    let (rules, _) = rules.split_once("\n---").expect("its end");
    let plain = rules.lines().filter(|line| !line.trim_start().starts_with("{{"));
    yaml::parse(&plain.collect::<Vec<_>>().join("\n")).expect("a list of rules")
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

/// A Role of a namespace, bound to the account in the namespace `own`.
fn role(namespace: &str, purpose: &str, own: &str, rules: &[PolicyRule]) -> [DynamicObject; 2] {
    let name = format!("{ACCOUNT}-{purpose}");
    let role = Role {
        rules: Some(rules.to_vec()),
        ..Role::default()
    };
    let mut role = serde_json::to_value(role).expect("a Role");
    role["metadata"] = json!({ "name": name, "namespace": namespace });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": own }],
    });
    [object(role), object(binding)]
}

/// Makes objects of any kind.
async fn make(admin: &Client, objects: &[DynamicObject]) {
    for object in objects {
        let types = object.types.clone().unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).expect("a kind"));
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &resource),
            None => Api::all_with(admin.clone(), &resource),
        };
        api.create(&PostParams::default(), object)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", types.kind));
    }
}

/// The administrator's kubeconfig with the token of the account, and with its namespace as a pod would have it.
async fn kubeconfig(cluster: &Cluster, admin: &Client, namespace: &str) -> PathBuf {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ServiceAccount"));
    let accounts: Api<DynamicObject> = Api::namespaced_with(admin.clone(), namespace, &resource);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "expirationSeconds": TOKEN_SECONDS },
    });
    let answer: Value = accounts
        .create_subresource("token", ACCOUNT, &PostParams::default(), &request)
        .await
        .expect("ask for a token");
    let token = answer.pointer("/status/token").expect("a token");

    let text = fs::read_to_string(cluster.kubeconfig()).expect("read the kubeconfig");
    let mut kubeconfig: Value = yaml::parse(&text).expect("a kubeconfig");
    kubeconfig["users"][0]["user"] = json!({ "token": token });
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(namespace);
    let path = cluster
        .plane()
        .folder()
        .join(format!("operator-of-{namespace}.kubeconfig"));
    fs::write(&path, kubeconfig.to_string()).expect("write a kubeconfig");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("keep it to ourselves");
    path
}

/// Waits until a client may, or may not, do what a rule says first.
async fn honoured(client: &Client, rule: &PolicyRule, namespace: Option<&str>, may: bool) {
    let first = |names: &Option<Vec<String>>| names.as_ref().and_then(|names| names.first().cloned());
    let resource = first(&rule.resources).unwrap_or_default();
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: first(&rule.api_groups),
                resource: resource.split('/').next().map(str::to_owned),
                subresource: resource.split_once('/').map(|(_, part)| part.to_owned()),
                name: first(&rule.resource_names),
                verb: rule.verbs.first().cloned(),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let began = Instant::now();
    loop {
        let answer = api.create(&PostParams::default(), &review).await;
        if answer
            .expect("ask for the rights")
            .status
            .is_some_and(|status| status.allowed == may)
        {
            return;
        }
        assert!(
            began.elapsed() < HONOURED_TIMEOUT,
            "after {HONOURED_TIMEOUT:?} it is not so that what {rule:?} says is allowed: {may}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
