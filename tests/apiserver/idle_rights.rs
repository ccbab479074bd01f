//! No right is idle: each one of the manifests is taken away in turn, and the operator, which has all the others, is
//! refused just that request and does not get past the named step of its work.
//!
//! Confined to a namespace (the Roles of the chart) many are tried at a time. In the whole cluster (the ClusterRole), where
//! an operator works on everything that there is, one has to follow another. What the chart's ClusterRole grants is the
//! same, which `crd_files` compares.

mod life;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::json;

use self::life::{Life, Step};
use crate::{
    harness::{Cluster, cluster},
    identity::{Identity, own_rules, plain_manifests, served_rules},
    operator::Operator,
    right::{Asked, Right, split},
    world::World,
};

/// How long a step may go on after the refusal before it counts as failed. It takes a fraction of that where it goes well.
const GRACE: Duration = Duration::from_secs(1);

/// How many operators run at a time.
const AT_ONCE: usize = 6;

/// The steps of an operator that is confined, and of one that serves the cluster.
const CONFINED: [Step; 11] = [
    Step::Working,
    Step::Registered,
    Step::ProviderTold,
    Step::Held,
    Step::Told,
    Step::Trusted,
    Step::Noticed,
    Step::Counted,
    Step::Removed,
    Step::Noted,
    Step::Renewed,
];
const WIDE: [Step; 11] = [
    Step::Working,
    Step::Registered,
    Step::ProviderTold,
    Step::Held,
    Step::Told,
    Step::Trusted,
    Step::Noticed,
    Step::Counted,
    Step::Removed,
    Step::Noted,
    Step::Asked,
];

/// The step that a right is there for; `own`: where it is a right in the operator's own namespace.
fn needed_for(right: &Right, own: bool) -> Step {
    match (right.resource.as_str(), right.verb.as_str()) {
        ("leases", "update") => Step::Renewed,
        ("leases", _) => Step::Working,
        // The key of the hashes.
        ("secrets", "get" | "create") if own => Step::Working,
        ("webhooks" | "webhookproviders" | "clusterwebhookproviders" | "secrets" | "namespaces", "list") => {
            Step::Working
        }
        ("webhooks" | "webhookproviders" | "clusterwebhookproviders" | "namespaces", "watch")
        | ("webhooks" | "webhooks/status", "patch")
        // What is needed is held before the first call, so that it cannot go in between.
        | ("webhookproviders" | "clusterwebhookproviders", "patch")
        | ("secrets", "get" | "create" | "patch") => Step::Registered,
        ("webhookproviders/status" | "clusterwebhookproviders/status", "patch") => Step::ProviderTold,
        ("events", "create") => Step::Told,
        ("configmaps", "get") => Step::Trusted,
        ("secrets", "watch") => Step::Noticed,
        ("events", "patch") => Step::Counted,
        ("webhooks", "get") => Step::Removed,
        ("webhookproviders" | "clusterwebhookproviders", "get") => Step::Noted,
        ("namespaces", "get") => Step::Asked,
        _ => panic!("name the step that needs the right to {right}, and let it be taken away"),
    }
}

/// Goes through all steps, or to the one that needs a right that was taken away, and must not be done.
async fn live(
    life: &Life,
    steps: &[Step],
    without: Option<(&Right, Step)>,
    asked: &mut Asked,
) -> Result<(), String> {
    let steps = without.map_or(steps, |(_, step)| step.prepared_by());
    for step in steps {
        life.reach(*step).await;
    }
    let Some((right, step)) = without else {
        return Ok(());
    };
    tokio::select! {
        () = life.reach(step) => Err(format!("{step:?} is reached without the right to {right}")),
        () = refused(right, asked) => Ok(()),
    }
}

/// Ends [`GRACE`] after a request was refused for want of this right.
async fn refused(right: &Right, asked: &mut Asked) {
    while !asked.refused.contains(right) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked.read();
    }
    tokio::time::sleep(GRACE).await;
}

/// Whether this was refused, and nothing else.
fn only(right: Option<&Right>, asked: &mut Asked) -> Result<(), String> {
    asked.read();
    let mut refused = asked.refused.clone();
    let found = right.is_none_or(|right| refused.remove(right));
    if right.is_some_and(|right| right.resource == "events") {
        // An Event that is refused may regard a namespace that is going: it is told in `default` then, which is refused
        // to a confined operator as well.
        refused.retain(|other| (other.resource.as_str(), other.verb.as_str()) != ("events", "create"));
    }
    match found && refused.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "taken away was {right:?}, refused was {:?}",
            asked.refused
        )),
    }
}

/// What came of a life, a step that was never reached included: the others are to be told of as well.
async fn judged(
    life: impl Future<Output = Result<(), String>>,
    without: Option<(&Right, Step)>,
) -> Result<(), String> {
    let lived = AssertUnwindSafe(life).catch_unwind().await;
    lived.unwrap_or_else(|_| {
        Err(format!(
            "a step was not reached, without {without:?}; which, stands above"
        ))
    })
}

/// One right of a confined operator.
struct Case {
    /// In the operator's own namespace, not in the one that it serves.
    own: bool,
    /// Its place among the rights of that Role.
    number: usize,
}

/// An operator with the chart's Roles but for one right.
async fn confined(cluster: &'static Cluster, case: Option<Case>) -> Result<(), String> {
    let admin = cluster.client().await;
    let own = cluster.namespace(&admin, "operator").await;
    let served = cluster.namespace(&admin, "idle").await;
    let (mut own_rights, mut rights) = (split(&own_rules()), split(&served_rules()));
    let taken = case.map(|Case { own, number }| {
        let rule = if own {
            own_rights.remove(number)
        } else {
            rights.remove(number)
        };
        let right = Right::of(&rule);
        let step = needed_for(&right, own);
        (right, step)
    });
    let identity = Identity::confined_with(cluster, (&own, &own_rights), (&served, &rights)).await;
    let mut asked = Asked::from_now_on(cluster.audit_log(), identity.user());
    let args = [
        "--namespace",
        &served,
        "--lease-namespace",
        &own,
        "--leader-elect",
        "true",
    ];
    let operator = Operator::unstarted(&identity, &args);
    operator.launch();
    let life = Life {
        world: World::of(cluster, Arc::clone(&operator), served).await,
        wide: false,
    };
    let without = taken.as_ref().map(|(right, step)| (right, *step));
    judged(Box::pin(live(&life, &CONFINED, without, &mut asked)), without).await?;
    only(taken.as_ref().map(|(right, _)| right), &mut asked)
}

#[tokio::test]
async fn without_any_right_of_the_roles_a_confined_operator_fails() {
    let cluster = cluster().await;
    let mut cases = vec![None];
    for (own, rules) in [(true, own_rules()), (false, served_rules())] {
        let rights = 0..split(&rules).len();
        cases.extend(rights.map(|number| Some(Case { own, number })));
    }
    let count = cases.len();
    assert!(count > 20, "only {count} rights were found");
    let lives = stream::iter(cases).map(|case| confined(cluster, case));
    let outcomes: Vec<Result<(), String>> = lives.buffer_unordered(AT_ONCE).collect().await;
    let wrong: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "of {count}: {wrong:#?}");
}

#[tokio::test]
async fn without_any_right_of_the_cluster_role_an_operator_fails() {
    // Its servers end with the process.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await));
    let identity = Identity::of_the_cluster(cluster).await;
    let admin = cluster.client().await;
    let all = cluster_rules();
    let cases: Vec<Option<&PolicyRule>> = [None].into_iter().chain(all.iter().map(Some)).collect();
    assert!(cases.len() > 20, "only {} rights were found", cases.len() - 1);
    let mut wrong = Vec::new();
    for taken in cases {
        let mut rules = all.clone();
        rules.retain(|rule| Some(rule) != taken);
        if let Some(taken) = taken {
            identity.change_cluster_rules(&admin, &rules, taken).await;
        }
        let mut asked = Asked::from_now_on(cluster.audit_log(), identity.user());
        let operator = Operator::unstarted(&identity, &[]);
        operator.launch();
        let namespace = cluster.namespace(&admin, "idle").await;
        let life = Life {
            world: World::of(cluster, Arc::clone(&operator), namespace).await,
            // The rights on providers of namespaces are of no use to those of the cluster.
            wide: taken.is_none_or(|taken| !Right::of(taken).resource.starts_with("webhookproviders")),
        };
        let right = taken.map(Right::of);
        // The key of the hashes is there since the first life: it is read by this right, and not made any more.
        let reads = |right: &Right| (right.resource.as_str(), right.verb.as_str()) == ("secrets", "get");
        let without = right
            .as_ref()
            .map(|right| (right, needed_for(right, reads(right))));
        let outcome = judged(Box::pin(live(&life, &WIDE, without, &mut asked)), without).await;
        wrong.extend(outcome.and_then(|()| only(right.as_ref(), &mut asked)).err());
        operator.kill();
        clear(&life).await;
        if let Some(taken) = taken {
            identity.change_cluster_rules(&admin, &all, taken).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rights of the ClusterRole in `config/rbac.yaml`.
fn cluster_rules() -> Vec<PolicyRule> {
    let objects = plain_manifests();
    let is_role = |object: &&DynamicObject| {
        object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "ClusterRole")
    };
    let role = objects.iter().find(is_role).expect("it has a ClusterRole");
    split(&serde_json::from_value::<Vec<PolicyRule>>(role.data["rules"].clone()).expect("rules"))
}

/// Takes away what one operator worked on, so that the next one finds nothing of it. Nobody waits for it any more.
async fn clear(life: &Life) {
    let ours = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("webhook-operator.dev", "v1alpha1", kind));
    let client = || life.world.client.clone();
    let namespace = &life.world.namespace;
    let secrets = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"));
    for api in [
        Api::<DynamicObject>::namespaced_with(client(), namespace, &ours("Webhook")),
        Api::namespaced_with(client(), namespace, &ours("WebhookProvider")),
        Api::all_with(client(), &ours("ClusterWebhookProvider")),
        Api::namespaced_with(client(), namespace, &secrets),
    ] {
        for object in api.list(&ListParams::default()).await.expect("list what is left") {
            let name = object.metadata.name.unwrap_or_default();
            let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            // What is being deleted may go at any time.
            let _ = api.patch(&name, &PatchParams::default(), &patch).await;
            let _ = api.delete(&name, &DeleteParams::default()).await;
        }
    }
}
