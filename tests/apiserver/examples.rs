//! What users copy: everything in `examples/` and `config/` is accepted by the apiserver as it stands, fits its
//! upstream, and refers to nothing that the same folder does not bring along.
//!
//! Providers and Webhooks are only tried (`dryRun`): they name real upstreams, and an operator that another test
//! runs must not see them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kube::{Client, Error};
use serde_json::{Value, json};
use webhook_operator::{
    api::{
        Webhook,
        provider::ProviderType,
        webhook::{ProviderKind, WebhookSpec},
    },
    domain::{capabilities::SecretRule, check::check},
    provider::{Provider, Upstream},
    yaml,
};

use super::harness::cluster;

/// The manifests of one file.
struct File {
    path: PathBuf,
    objects: Vec<Value>,
}

fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{folder} has no manifests");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let objects = yaml::parse_all(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        File { path, objects }
    };
    found.into_iter().map(read).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Folder of the object's kind in the API, from the kind's name.
fn collection(object: &Value, namespace: &str) -> String {
    let version = text(object, "/apiVersion");
    let root = if version.contains('/') {
        format!("/apis/{version}")
    } else {
        format!("/api/{version}")
    };
    let kind = text(object, "/kind");
    let plural = format!("{}s", kind.to_lowercase());
    match kind {
        "Namespace" | "ClusterWebhookProvider" | "ClusterRole" | "ClusterRoleBinding" => {
            format!("{root}/{plural}")
        }
        _ => format!("{root}/namespaces/{namespace}/{plural}"),
    }
}

/// Creates an object, or only tries to; strictly, so that a field with a typing error is refused.
async fn create(client: &Client, namespace: &str, object: &Value, place: &Path) {
    let kind = text(object, "/kind");
    // Others are created in it.
    let dry_run = if kind == "Namespace" { "" } else { "&dryRun=All" };
    let request = http::Request::post(format!(
        "{}?fieldValidation=Strict{dry_run}",
        collection(object, namespace)
    ))
    .header("content-type", "application/json")
    .body(serde_json::to_vec(object).unwrap())
    .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => {}
        Err(Error::Api(status)) if kind == "Namespace" && status.code == 409 => {}
        Err(error) => panic!(
            "{}: {kind} {}: {error}",
            place.display(),
            text(object, "/metadata/name")
        ),
    }
}

#[tokio::test]
async fn the_apiserver_takes_every_example_as_it_stands() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let home = cluster.namespace(&client, "examples").await;
    // Argo CD brings its own.
    let argocd = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "argocd" } });
    create(&client, "", &argocd, Path::new("config/argocd")).await;
    let files: Vec<File> = ["examples", "config"].into_iter().flat_map(files).collect();
    // As kubectl and kustomize have it: what others are created in comes first.
    for namespaces in [true, false] {
        for File { path, objects } in &files {
            let now = |object: &&Value| (text(object, "/kind") == "Namespace") == namespaces;
            for object in objects.iter().filter(now) {
                let namespace = Some(text(object, "/metadata/namespace")).filter(|name| !name.is_empty());
                create(&client, namespace.unwrap_or(&home), object, path).await;
            }
        }
    }
}

/// A Secret or provider as the examples know it: kind, namespace, name.
fn key(kind: &str, namespace: &str, name: &str) -> [String; 3] {
    [kind, namespace, name].map(str::to_owned)
}

/// Keys of the credentials Secret.
fn credentials(type_: ProviderType) -> &'static [&'static str] {
    match type_ {
        ProviderType::Conpeek => &["apiKey"],
        ProviderType::Thulium => &["username", "password"],
        ProviderType::Ricloud => &["token"],
        ProviderType::Autocosmos => &["appKey", "appSecret"],
    }
}

/// The objects of one folder of `examples/`, for looking things up.
struct Folder {
    objects: Vec<Value>,
}

impl Folder {
    fn find(&self, kind: &str, namespace: &str, name: &str) -> &Value {
        let wanted = key(kind, namespace, name);
        let of = |object: &&Value| {
            key(
                text(object, "/kind"),
                text(object, "/metadata/namespace"),
                text(object, "/metadata/name"),
            ) == wanted
        };
        self.objects
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("the folder lacks {wanted:?}"))
    }

    fn secret_has(&self, namespace: &str, name: &str, key: &str) {
        let secret = self.find("Secret", namespace, name);
        let value = text(secret, &format!("/stringData/{key}"));
        assert!(!value.is_empty(), "Secret {name} lacks {key}");
    }

    /// The provider of a Webhook; its credentials are there.
    fn provider_type(&self, spec: &WebhookSpec, namespace: &str) -> ProviderType {
        let reference = &spec.provider_ref;
        let (kind, namespace) = match reference.kind {
            ProviderKind::WebhookProvider => ("WebhookProvider", namespace),
            ProviderKind::ClusterWebhookProvider => ("ClusterWebhookProvider", ""),
        };
        let provider = self.find(kind, namespace, &reference.name);
        let type_: ProviderType = serde_json::from_value(provider["spec"]["type"].clone()).unwrap();
        let secret = &provider["spec"]["credentialsRef"];
        let of = if namespace.is_empty() {
            text(secret, "/namespace")
        } else {
            namespace
        };
        for key in credentials(type_) {
            self.secret_has(of, text(secret, "/name"), key);
        }
        type_
    }
}

#[test]
fn every_example_fits_its_upstream_and_is_complete() {
    let mut seen = BTreeSet::new();
    let mut folders: std::collections::BTreeMap<PathBuf, Vec<Value>> = Default::default();
    for File { path, objects } in files("examples") {
        folders
            .entry(path.parent().unwrap().to_owned())
            .or_default()
            .extend(objects);
    }
    for (place, objects) in folders {
        let folder = Folder { objects };
        let webhooks: Vec<Webhook> = folder
            .objects
            .iter()
            .filter(|object| object["kind"] == json!("Webhook"))
            .map(|object| serde_json::from_value(object.clone()).unwrap())
            .collect();
        assert!(!webhooks.is_empty(), "{} has no Webhook", place.display());
        for webhook in webhooks {
            let spec = &webhook.spec;
            let namespace = webhook.metadata.namespace.clone().unwrap_or_default();
            let type_ = folder.provider_type(spec, &namespace);
            let capabilities = Upstream::from(type_).capabilities();
            assert_eq!(
                check(spec, capabilities, type_.as_str()),
                [],
                "{}",
                place.display()
            );
            for header in &spec.headers {
                if let Some(from) = &header.value_from {
                    folder.secret_has(&namespace, &from.secret_key_ref.name, &from.secret_key_ref.key);
                }
            }
            if let Some(basic) = &spec.basic_auth_ref {
                folder.secret_has(&namespace, &basic.name, "username");
                folder.secret_has(&namespace, &basic.name, "password");
            }
            if let (Some(secret), SecretRule::Given { .. }) = (&spec.secret_ref, capabilities.secret) {
                folder.secret_has(&namespace, &secret.name, &secret.key);
            }
            seen.insert(type_.as_str());
        }
    }
    assert_eq!(seen.len(), 4, "an upstream has no example: {seen:?}");
}
