//! The examples, with the doubles' addresses in the place of the upstreams'.
//!
//! Done by kustomize, as users do it for their own stages: a `kustomization.yaml` beside copies of `examples/`.
//! What comes out is checked before anything is applied: no example may lead to a real upstream.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{NAMESPACE, text};
use crate::{
    kubectl::Kubectl,
    progress::{Failure, root},
};

/// Last segment of the path at which the receiver verifies what the ricloud double sends.
pub(super) const RICLOUD_RECEIVER: &str = "backups";

/// A value of an example that the demo replaces.
struct Change {
    kind: &'static str,
    name: &'static str,
    path: &'static str,
    /// Name among the doubles' URLs.
    double: &'static str,
    /// Appended to that URL.
    suffix: &'static str,
}

/// A provider of the examples leads to the double of this name.
const fn provider(name: &'static str) -> Change {
    Change {
        kind: "WebhookProvider",
        name,
        path: "/spec/baseUrl",
        double: name,
        suffix: "",
    }
}

/// A Webhook of the examples is delivered to the doubles' receiver.
const fn webhook(name: &'static str, suffix: &'static str) -> Change {
    Change {
        kind: "Webhook",
        name,
        path: "/spec/url",
        double: "receiver",
        suffix,
    }
}

const CHANGES: [Change; 11] = [
    provider("conpeek"),
    provider("thulium"),
    provider("ricloud"),
    provider("autocosmos"),
    Change {
        kind: "ClusterWebhookProvider",
        name: "example-thulium-shared",
        ..provider("thulium")
    },
    // Where the paths say so, the receiver judges what arrives: see `receiver.rs`.
    webhook("backups", "/ricloud/backups"),
    webhook("calls", "/ok/calls"),
    webhook("chats", "/basic/chats"),
    webhook("leads", "/autocosmos/leads"),
    webhook("reviews", "/ok/reviews"),
    webhook("tickets", "/ok/tickets"),
];

/// Whether the examples have Webhooks there.
pub(super) fn is_example_namespace(namespace: &str) -> bool {
    namespace == NAMESPACE || namespace.starts_with("example-")
}

/// Writes the changed examples into `folder`, tells what was changed, and returns the file to apply.
pub(super) async fn render(kubectl: &Kubectl, folder: &Path, urls: &Value) -> Result<PathBuf, Failure> {
    let overlay = folder.join("overlay");
    let resources = copy_examples(&root().join("examples"), &overlay)?;
    let mut patches = Vec::new();
    eprintln!("== examples, with these values replaced:");
    for change in &CHANGES {
        let base = urls
            .get(change.double)
            .and_then(Value::as_str)
            .ok_or_else(|| Failure::new(format!("the doubles named no URL of {}", change.double)))?;
        let value = format!("{base}{}", change.suffix);
        eprintln!("   {} {}: {} = {value}", change.kind, change.name, change.path);
        // `add` replaces what is there.
        let patch = json!([{"op": "add", "path": change.path, "value": value}]);
        patches.push(json!({
            "target": {"kind": change.kind, "name": change.name},
            "patch": patch.to_string(),
        }));
    }
    // JSON is YAML, too.
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        // As `kubectl apply -f` would: providers and Secrets first, so that no Webhook waits for them.
        "sortOptions": {"order": "fifo"},
        "resources": resources,
        "patches": patches,
    });
    fs::write(overlay.join("kustomization.yaml"), format!("{kustomization:#}\n"))?;
    let rendered = kubectl.run(&["kustomize", &text(&overlay)]).await?;
    check(&rendered, urls)?;
    let file = folder.join("examples.yaml");
    fs::write(&file, rendered)?;
    Ok(file)
}

/// Copies `examples/*/*.yaml`, because kustomize reads no files outside of its folder. Returns their paths there.
fn copy_examples(from: &Path, to: &Path) -> Result<Vec<String>, Failure> {
    let mut copied = Vec::new();
    for folder in fs::read_dir(from)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        fs::create_dir_all(to.join(folder.file_name()))?;
        for file in fs::read_dir(folder.path())? {
            let file = file?.path();
            let relative = file.strip_prefix(from)?.to_owned();
            if relative.extension().is_some_and(|extension| extension == "yaml") {
                fs::copy(&file, to.join(&relative))?;
                copied.push(text(&relative));
            }
        }
    }
    copied.sort();
    Ok(copied)
}

/// Every provider has a `baseUrl`, and each is one of the doubles'; every Webhook leads to their receiver. `baseUrl` has a default for some types, so a
/// provider without one would lead to the real upstream.
fn check(rendered: &str, urls: &Value) -> Result<(), Failure> {
    let known: Vec<&str> = urls
        .as_object()
        .into_iter()
        .flat_map(|urls| urls.values())
        .filter_map(Value::as_str)
        .collect();
    let base_urls: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("baseUrl: "))
        .collect();
    let foreign = base_urls.iter().find(|url| !known.contains(url));
    if let Some(url) = foreign {
        return Err(Failure::new(format!(
            "an example leads to {url}, which is no double; see xtask/src/demo/overlay.rs"
        )));
    }
    let providers = rendered
        .lines()
        .filter(|line| matches!(*line, "kind: WebhookProvider" | "kind: ClusterWebhookProvider"))
        .count();
    let receiver = urls.get("receiver").and_then(Value::as_str).unwrap_or("-");
    let elsewhere = rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("url: "))
        .find(|url| !url.starts_with(receiver));
    if let Some(url) = elsewhere {
        return Err(Failure::new(format!(
            "an example would be tested at {url}, which is not the doubles' receiver; see xtask/src/demo/overlay.rs"
        )));
    }
    if base_urls.len() == providers {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the examples have {providers} providers and {} of them lead to a double; see xtask/src/demo/overlay.rs",
        base_urls.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_lead_to_a_real_upstream() {
        let urls = json!({"conpeek": "http://127.0.0.1:1", "admin": "http://127.0.0.1:9", "receiver": "http://127.0.0.1:5"});
        let good = "kind: WebhookProvider\nspec:\n  baseUrl: http://127.0.0.1:1\n---\nkind: Webhook\nspec:\n  url: http://127.0.0.1:5/ok\n";
        assert!(check(good, &urls).is_ok());
        let tested_elsewhere = good.replace("http://127.0.0.1:5/ok", "https://hooks.example.com/");
        assert!(
            check(&tested_elsewhere, &urls)
                .unwrap_err()
                .to_string()
                .contains("https://hooks.example.com/")
        );
        let real = good.replace("http://127.0.0.1:1", "https://api.example.com");
        assert!(
            check(&real, &urls)
                .unwrap_err()
                .to_string()
                .contains("https://api.example.com")
        );
        let by_default = format!("{good}---\nkind: ClusterWebhookProvider\nspec:\n  type: Ricloud\n");
        assert!(
            check(&by_default, &urls)
                .unwrap_err()
                .to_string()
                .contains("2 providers")
        );
    }
}
