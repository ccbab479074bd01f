//! What Flux and Argo CD compare stays as it was applied: the operator writes no field that somebody else applies,
//! and neither it nor a default changes what a manifest says. And kustomize brings the whole operator.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::process::Command;
use webhook_operator::{
    api::{
        FIELD_MANAGER, FINALIZER, ID_ANNOTATION, Webhook,
        conditions::ReadyReason,
        provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
    },
    yaml,
};

use crate::{
    kubectl::kubectl,
    world::{World, name_of, pretty, webhook_manifest},
};

const PROVIDERS: [ProviderType; 4] = [Conpeek, Thulium, Ricloud, Autocosmos];

/// Runs kubectl with a manifest; returns its exit code and what it printed.
async fn run(world: &World, args: &[&str], manifest: &Value) -> (Option<i32>, String) {
    let output = kubectl(world, args, Some(manifest)).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

async fn apply_as(world: &World, manager: &str, manifest: &Value) -> (Option<i32>, String) {
    let manager = format!("--field-manager={manager}");
    run(world, &["apply", "--server-side", &manager, "-f", "-"], manifest).await
}

async fn must_apply_as(world: &World, manager: &str, manifest: &Value) {
    let (code, text) = apply_as(world, manager, manifest).await;
    assert_eq!(code, Some(0), "{manager}: {text}");
}

/// What a manager owns of an object, its status aside, as the API server notes it; null where it owns nothing.
fn owned(webhook: &Webhook, manager: &str) -> Value {
    let entries = webhook.metadata.managed_fields.iter().flatten();
    let fields: Vec<Value> = entries
        .filter(|entry| entry.manager.as_deref() == Some(manager) && entry.subresource.is_none())
        .filter_map(|entry| entry.fields_v1.as_ref().map(|fields| fields.0.clone()))
        .collect();
    match fields.as_slice() {
        [] => Value::Null,
        [fields] => fields.clone(),
        more => panic!("{manager} writes in several ways: {more:?}"),
    }
}

#[tokio::test]
async fn two_managers_and_the_operator_keep_each_others_fields() {
    let world = World::new("gitops-managers").await;
    world.provider(Conpeek).await;
    let platform = |url: &str| webhook_manifest("w", Conpeek, json!({ "target": "9", "url": url }));
    must_apply_as(&world, "platform", &platform("https://a.example/")).await;
    world.wait_ready("w", ReadyReason::Available).await;

    let team = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook",
        "metadata": { "name": "w", "labels": { "team": "shop" } },
        "spec": { "interval": "2h" },
    });
    must_apply_as(&world, "team", &team).await;
    world.wait_ready("w", ReadyReason::Available).await;
    must_apply_as(&world, "platform", &platform("https://b.example/")).await;
    let webhook = world.wait_ready("w", ReadyReason::Available).await;
    world
        .eventually("the change to be registered", || {
            let puts = crate::world::bodies(world.doubles.conpeek(), &world.namespace, "PUT");
            puts.last()
                .is_some_and(|body| body["url"] == "https://b.example/")
        })
        .await;

    let labels = webhook.metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels.get("team").map(String::as_str), Some("shop"));
    let live = serde_json::to_value(&webhook).unwrap();
    assert_eq!(live["spec"]["interval"], "2h");
    assert_eq!(live["spec"]["url"], "https://b.example/");
    assert_eq!(webhook.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    assert_eq!(live["metadata"]["annotations"][ID_ANNOTATION], "9");

    let of = |manager| owned(&webhook, manager);
    assert!(
        of("platform")["f:spec"]["f:url"].is_object(),
        "{}",
        pretty(&webhook)
    );
    assert!(of("platform")["f:spec"]["f:interval"].is_null());
    assert_eq!(of("team")["f:spec"], json!({ "f:interval": {} }));
    let operator = of(FIELD_MANAGER);
    assert!(operator["f:metadata"].is_object(), "{operator}");
    assert!(operator["f:spec"].is_null(), "{operator}");
    assert!(operator["f:metadata"]["f:labels"].is_null(), "{operator}");

    // One that takes the other's field is told whose it is.
    let mut greedy = team;
    greedy["spec"]["url"] = json!("https://c.example/");
    let (code, text) = apply_as(&world, "team", &greedy).await;
    assert_ne!(code, Some(0), "{text}");
    assert!(text.contains("platform") && text.contains(".spec.url"), "{text}");
}

/// A Webhook with as many fields as its upstream has, in forms that a tidy mind would write otherwise.
fn full(world: &World, provider: ProviderType) -> Value {
    let spec = match provider {
        Conpeek => json!({
            "target": "9", "url": "https://a.example/hook?b=2&a=1", "interval": "120m",
            "headers": [{ "name": "X-Second", "value": "2" }, { "name": "X-First", "value": "1" }],
            "retry": { "initialDelay": "120s", "maxRetries": 2, "backoff": { "type": "Multiplier", "factor": 2 } },
        }),
        Thulium => json!({
            "url": "https://a.example/", "events": ["TICKET_CREATED", "CHAT_CONVERSATION_CREATED"],
            "interval": "3600s",
        }),
        Ricloud => json!({
            "url": world.ricloud_receiver("a"), "secretRef": { "name": "signing" }, "active": true,
        }),
        Autocosmos => json!({
            "target": "precios", "url": "https://a.example/", "description": "Prices,  for the shop ",
            "headers": [{ "name": "X-Source", "value": "autocosmos" }], "deletionPolicy": "Deactivate",
        }),
    };
    let mut manifest = webhook_manifest(&name_of(provider), provider, spec);
    // By which Argo CD knows what is its own.
    manifest["metadata"]["labels"] = json!({ "app.kubernetes.io/instance": "hooks" });
    manifest["metadata"]["annotations"] = json!({ "argocd.argoproj.io/tracking-id": "hooks:x:y/z" });
    manifest
}

/// Fields of `applied` that are not the same in `live`, by their path: what Argo CD would call OutOfSync.
fn changed(path: &str, applied: &Value, live: &Value, found: &mut Vec<String>) {
    match (applied, live) {
        (Value::Object(applied), Value::Object(live)) => {
            for (name, value) in applied {
                let of_live = live.get(name).unwrap_or(&Value::Null);
                changed(&format!("{path}.{name}"), value, of_live, found);
            }
        }
        (Value::Array(applied), Value::Array(live)) if applied.len() == live.len() => {
            for (index, (value, of_live)) in applied.iter().zip(live).enumerate() {
                changed(&format!("{path}[{index}]"), value, of_live, found);
            }
        }
        _ if applied == live => {}
        _ => found.push(format!("{path}: applied {applied}, live {live}")),
    }
}

/// The object as it is, by kubectl.
async fn live(world: &World, manifest: &Value) -> Value {
    let output = kubectl(world, &["get", "-o", "json", "-f", "-"], Some(manifest)).await;
    let list: Value = serde_json::from_slice(&output.stdout).expect("a list");
    list["items"][0].clone()
}

/// No tool sees a difference between the manifest and the object.
async fn is_in_sync(world: &World, manifest: &Value, server_side: bool) {
    let mut diff = vec!["diff", "-f", "-"];
    if server_side {
        diff.push("--server-side");
    }
    let (code, text) = run(world, &diff, manifest).await;
    assert_eq!(code, Some(0), "{diff:?}: {text}");
    let live = live(world, manifest).await;
    let mut found = Vec::new();
    changed("", manifest, &live, &mut found);
    assert!(found.is_empty(), "{}: {found:#?}", manifest["kind"]);
    assert!(live["status"]["conditions"].is_array(), "{live:#}");
}

async fn what_was_applied_stays(prefix: &str, server_side: bool) {
    let world = World::new(prefix).await;
    let mut apply = vec!["apply", "-f", "-"];
    if server_side {
        apply.push("--server-side");
    }
    let mut manifests = Vec::new();
    for provider in PROVIDERS {
        let name = format!("{}-account", name_of(provider));
        let credentials = world.credentials(provider);
        let credentials: Vec<(&str, &str)> = credentials.iter().map(|(k, v)| (*k, v.as_str())).collect();
        world.secret(&name, &credentials).await;
        manifests.push(world.provider_manifest(provider));
        manifests.push(full(&world, provider));
    }
    for manifest in &manifests {
        let (code, text) = run(&world, &apply, manifest).await;
        assert_eq!(code, Some(0), "{text}\n{manifest:#}");
    }
    for provider in PROVIDERS {
        world.wait_ready(&name_of(provider), ReadyReason::Available).await;
        world.read_back(&name_of(provider)).await;
    }
    for manifest in &manifests {
        is_in_sync(&world, manifest, server_side).await;
        // And a second apply changes nothing.
        let before = live(&world, manifest).await["metadata"]["generation"].clone();
        let (code, text) = run(&world, &apply, manifest).await;
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(live(&world, manifest).await["metadata"]["generation"], before);
    }
}

#[tokio::test]
async fn a_settled_object_does_not_differ_from_its_manifest() {
    what_was_applied_stays("gitops-client-side", false).await;
}

#[tokio::test]
async fn a_settled_object_does_not_differ_from_its_manifest_applied_by_the_server() {
    what_was_applied_stays("gitops-server-side", true).await;
}

/// What kustomize makes of a folder.
async fn kustomize(folder: &Path) -> Vec<Value> {
    let program = control_plane::assets::kubectl().await.expect("find kubectl");
    let output = Command::new(program)
        .arg("kustomize")
        .arg(folder)
        .output()
        .await
        .expect("run kubectl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", folder.display());
    yaml::parse_all(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap()
}

/// Kind and name, and the object, in an order of their own; bounds in kinds as the number that they are, for kustomize
/// writes 1.0 as 1.
fn by_name(objects: Vec<Value>) -> Vec<(String, Value)> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let tidy = |object: Value| match object["kind"].as_str() {
        Some("CustomResourceDefinition") => {
            let typed: CustomResourceDefinition = serde_json::from_value(object).unwrap();
            serde_json::to_value(typed).unwrap()
        }
        _ => object,
    };
    let mut all: Vec<_> = objects
        .into_iter()
        .map(|object| (name(&object), tidy(object)))
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[tokio::test]
async fn kustomize_brings_the_kinds_the_rights_and_the_operator() {
    let mut files = vec![
        root().join("config/rbac.yaml"),
        root().join("config/deployment.yaml"),
    ];
    let crds = fs::read_dir(root().join("crds")).unwrap();
    files.extend(crds.map(|entry| entry.unwrap().path()));
    let objects = files
        .iter()
        .flat_map(|path| yaml::parse_all::<Value>(&fs::read_to_string(path).unwrap()).unwrap());
    assert_eq!(by_name(kustomize(&root()).await), by_name(objects.collect()));
}

/// A folder outside of the repository that builds on it, as users have one; removed when dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn new(text: &str) -> Self {
        let folder = env::temp_dir().canonicalize().unwrap();
        let folder = folder.join(format!("webhook-operator-overlay-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let up = "../".repeat(folder.components().count() - 1);
        let base = format!("{up}{}", root().strip_prefix("/").unwrap().display());
        fs::write(
            folder.join("kustomization.yaml"),
            format!("resources: ['{base}']\n{text}"),
        )
        .unwrap();
        Self(folder)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn an_overlay_moves_the_operator_with_all_that_names_its_namespace() {
    let overlay = Overlay::new(
        "namespace: hooks\nimages: [{name: ghcr.io/webhook-operator/webhook-operator, newTag: v9}]\n",
    );
    let objects = kustomize(&overlay.0).await;
    let text = objects.iter().map(pretty).collect::<String>();
    assert!(!text.contains("namespace: webhook-operator\n"), "{text}");
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    for namespace in of("Namespace") {
        assert_eq!(namespace["metadata"]["name"], "hooks");
    }
    for bound in of("ClusterRoleBinding").chain(of("RoleBinding")) {
        assert_eq!(bound["subjects"][0]["namespace"], "hooks");
    }
    for deployment in of("Deployment") {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "ghcr.io/webhook-operator/webhook-operator:v9");
    }
    assert_eq!(of("Deployment").count(), 1);
}
