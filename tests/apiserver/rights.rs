//! The rights of the operator are what it uses, and nothing beside: the audit log tells what it asked for, and its
//! token is refused what was not granted.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    rbac::v1::PolicyRule,
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use webhook_operator::api::{
    ClusterWebhookProvider,
    conditions::ReadyReason,
    provider::ProviderType::{Autocosmos, Conpeek},
};

use crate::{
    harness::{Cluster, cluster},
    identity::{Identity, plain_manifests},
    operator::Operator,
    right::{Asked, Right, shown, split},
    world::World,
};

/// More than a provider of the tests lets through at once, so that notes on it are written at the same time.
const AT_ONCE: usize = 16;

/// Longest wait for everything granted to be used; the slowest is a renewal of the Lease.
const USED_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that `config/rbac.yaml` grants, one by one.
fn granted() -> BTreeSet<Right> {
    let roles = plain_manifests().into_iter().filter(|object| {
        let kind = object.types.as_ref().map(|types| types.kind.as_str());
        matches!(kind, Some("ClusterRole" | "Role"))
    });
    let rules = roles.flat_map(|role| {
        // Both kinds have their rules in the same place.
        let rules = role.data["rules"].clone();
        serde_json::from_value::<Vec<PolicyRule>>(rules).expect("rules")
    });
    let rules: Vec<PolicyRule> = rules.collect();
    split(&rules).iter().map(Right::of).collect()
}

/// A life in which everything granted is of use: a right that nothing here needs is one too many, and one that is
/// missing shows as a refusal.
#[tokio::test]
async fn everything_granted_is_used_and_nothing_else_is_asked_for() {
    // Its servers end with the process.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await));
    let identity = Identity::of_the_cluster(cluster).await;
    let operator = Operator::start(&identity, &["--leader-elect", "true"]).await;
    let world = World::served_by(cluster, operator, "rights").await;
    a_namespaced_provider_with_trust_roots_and_a_secret_made_here(&world).await;
    a_provider_of_the_cluster_that_is_taken_away_and_given_back(&world).await;
    credentials_that_are_deleted_while_in_use(&world).await;

    let granted = granted();
    let began = Instant::now();
    let mut asked = Asked::from_the_start(cluster.audit_log(), identity.user());
    loop {
        asked.read();
        let (used, refused) = (&asked.used, &asked.refused);
        assert!(refused.is_empty(), "refused: {:#?}", shown(refused));
        if *used == granted {
            return;
        }
        assert!(
            began.elapsed() < USED_TIMEOUT,
            "granted, not used: {:#?}\nused, not granted: {:#?}",
            shown(granted.difference(used)),
            shown(used.difference(&granted))
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Of the namespace: objects of all kinds that a namespace has, and many registrations left behind at once, which
/// read a provider again that another of them wrote.
async fn a_namespaced_provider_with_trust_roots_and_a_secret_made_here(world: &World) {
    let roots: Api<ConfigMap> = world.api();
    let map =
        json!({ "metadata": { "name": "roots" }, "data": { "ca.crt": world.cluster.plane().ca_pem() } });
    let map = serde_json::from_value(map).expect("a ConfigMap");
    roots
        .create(&PostParams::default(), &map)
        .await
        .expect("make trust roots");
    world.provider(Autocosmos).await;
    let spec = json!({
        "target": "made", "url": "https://hooks.example.com/made",
        "secretRef": { "name": "made" }, "secretPolicy": { "source": "Generate" },
    });
    world.webhook("made", Autocosmos, spec).await;
    world.wait_ready("made", ReadyReason::Available).await;

    let spec = json!({ "caBundleRef": { "name": "roots" } });
    world.provider_with(Conpeek, spec).await;
    leave_many_behind(world, 0, json!({ "name": "conpeek" })).await;
}

/// Of the cluster: the same there, and an Event that is told once more.
async fn a_provider_of_the_cluster_that_is_taken_away_and_given_back(world: &World) {
    world.secret("shared", &[("apiKey", &world.keys().conpeek)]).await;
    let mut manifest = world.provider_manifest(Conpeek);
    manifest["kind"] = json!("ClusterWebhookProvider");
    manifest["metadata"]["name"] = json!("shared");
    manifest["spec"]["credentialsRef"] = json!({ "namespace": world.namespace, "name": "shared" });
    manifest["spec"]["allowedNamespaces"] = json!({ "names": [world.namespace] });
    world.apply(&manifest).await;
    let provider = json!({ "kind": "ClusterWebhookProvider", "name": "shared" });
    leave_many_behind(world, AT_ONCE, provider.clone()).await;

    let spec =
        json!({ "providerRef": provider, "target": "40", "url": "https://hooks.example.com/taken-away" });
    world.webhook("taken-away", Conpeek, spec).await;
    world.wait_ready("taken-away", ReadyReason::Available).await;
    let api: Api<ClusterWebhookProvider> = Api::all(world.client.clone());
    for _ in 0..2 {
        for (names, reason) in [
            (json!(["nowhere"]), ReadyReason::ProviderNotReady),
            (json!([world.namespace]), ReadyReason::Available),
        ] {
            let patch = json!({ "spec": { "allowedNamespaces": { "names": names } } });
            api.patch("shared", &PatchParams::default(), &Patch::Merge(patch))
                .await
                .expect("change who may use it");
            world.wait_ready("taken-away", reason).await;
        }
    }
}

/// Registers many, and deletes all at once: Conpeek has no delete, so each is noted on the provider.
async fn leave_many_behind(world: &World, from: usize, provider: Value) {
    let name = |number: usize| format!("left-{}", from + number);
    for number in 0..AT_ONCE {
        let target = (from + number + 1).to_string();
        let url = format!("https://hooks.example.com/left/{target}");
        let spec = json!({ "providerRef": provider, "target": target, "url": url });
        world.webhook(&name(number), Conpeek, spec).await;
    }
    for number in 0..AT_ONCE {
        world.wait_ready(&name(number), ReadyReason::Available).await;
    }
    for number in 0..AT_ONCE {
        world.delete(&name(number)).await;
    }
    for number in 0..AT_ONCE {
        world.wait_gone(&name(number)).await;
    }
}

/// The operator holds them with its finalizer, and asks whether the namespace goes as a whole.
async fn credentials_that_are_deleted_while_in_use(world: &World) {
    let secrets: Api<Secret> = world.api();
    secrets
        .delete("autocosmos-account", &DeleteParams::default())
        .await
        .expect("delete credentials");
}

/// What the token of an operator that is confined to a namespace must not do, as `(method, path)`. `SERVED`, `OWN`
/// and `OTHER` stand for the namespace that it serves, its own, and somebody else's.
const REFUSED: [(&str, &str); 34] = [
    // Other namespaces, and the cluster as a whole.
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/OTHER/secrets"),
    ("GET", "/api/v1/namespaces/OTHER/secrets/theirs"),
    ("PATCH", "/api/v1/namespaces/OTHER/secrets/theirs"),
    ("POST", "/api/v1/namespaces/OTHER/secrets"),
    ("GET", "/api/v1/namespaces/OTHER/configmaps/theirs"),
    ("GET", "/apis/webhook-operator.dev/v1alpha1/webhooks"),
    (
        "GET",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/OTHER/webhooks",
    ),
    (
        "PATCH",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/OTHER/webhooks/w/status",
    ),
    (
        "GET",
        "/apis/webhook-operator.dev/v1alpha1/clusterwebhookproviders",
    ),
    (
        "PATCH",
        "/apis/webhook-operator.dev/v1alpha1/clusterwebhookproviders/p",
    ),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/namespaces/SERVED"),
    // Its own namespace, where only its key of hashes is its business.
    ("GET", "/api/v1/namespaces/OWN/secrets"),
    ("GET", "/api/v1/namespaces/OWN/secrets/theirs"),
    (
        "PATCH",
        "/api/v1/namespaces/OWN/secrets/webhook-operator-hash-key",
    ),
    (
        "DELETE",
        "/apis/coordination.k8s.io/v1/namespaces/OWN/leases/webhook-operator",
    ),
    (
        "GET",
        "/apis/coordination.k8s.io/v1/namespaces/SERVED/leases/webhook-operator",
    ),
    // No right to delete, or to make what users make.
    (
        "DELETE",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/SERVED/webhooks/w",
    ),
    (
        "DELETE",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/SERVED/webhooks",
    ),
    (
        "POST",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/SERVED/webhooks",
    ),
    (
        "PUT",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/SERVED/webhooks/w",
    ),
    (
        "DELETE",
        "/apis/webhook-operator.dev/v1alpha1/namespaces/SERVED/webhookproviders/p",
    ),
    ("DELETE", "/api/v1/namespaces/SERVED/secrets/theirs"),
    ("DELETE", "/api/v1/namespaces/SERVED/secrets"),
    ("DELETE", "/apis/events.k8s.io/v1/namespaces/SERVED/events"),
    // Finalizers and contents of foreign kinds.
    ("PATCH", "/api/v1/namespaces/SERVED/configmaps/theirs"),
    ("GET", "/api/v1/namespaces/SERVED/configmaps"),
    ("PATCH", "/api/v1/namespaces/SERVED/serviceaccounts/default"),
    ("POST", "/api/v1/namespaces/SERVED/pods"),
    // What is called a webhook elsewhere.
    (
        "GET",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    ),
    (
        "PATCH",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/w",
    ),
    // More rights for itself.
    (
        "POST",
        "/api/v1/namespaces/OWN/serviceaccounts/webhook-operator/token",
    ),
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/SERVED/rolebindings",
    ),
];

/// Sends a request with an empty object; the HTTP status of the answer.
async fn status_of(client: &Client, method: &str, path: &str) -> u16 {
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(b"{}".to_vec())
        .expect("a request");
    match client.request::<Value>(request).await {
        Ok(_) => 200,
        Err(Error::Api(status)) => status.code,
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

#[tokio::test]
async fn what_is_not_granted_is_refused() {
    let cluster = cluster().await;
    let admin = cluster.client().await;
    let own = cluster.namespace(&admin, "operator").await;
    let served = cluster.namespace(&admin, "rights-served").await;
    let other = cluster.namespace(&admin, "rights-other").await;
    let identity = Identity::confined(cluster, &own, &served).await;
    let client = identity.client().await;
    let path = |path: &str| {
        path.replace("SERVED", &served)
            .replace("OWN", &own)
            .replace("OTHER", &other)
    };
    let mut allowed = Vec::new();
    for (method, to) in REFUSED {
        let status = status_of(&client, method, &path(to)).await;
        if status != 403 {
            allowed.push(format!("{method} {to}: {status}"));
        }
    }
    assert!(allowed.is_empty(), "not refused: {allowed:#?}");

    // The control: this token is good for what it is for.
    let secrets = path("/api/v1/namespaces/SERVED/secrets");
    assert_eq!(status_of(&client, "GET", &secrets).await, 200);
    let key = path("/api/v1/namespaces/OWN/secrets/webhook-operator-hash-key");
    assert_eq!(status_of(&client, "GET", &key).await, 404);
    // And no request is refused because its path leads nowhere.
    for (method, to) in REFUSED {
        if method == "GET" {
            let status = status_of(&admin, method, &path(to)).await;
            let named = to
                .rsplit('/')
                .next()
                .is_some_and(|last| matches!(last, "theirs" | "webhook-operator"));
            assert_eq!(status, if named { 404 } else { 200 }, "{to}");
        }
    }
}
