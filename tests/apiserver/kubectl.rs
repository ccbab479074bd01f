//! What a user reads when something is wrong: `kubectl apply`, `get` and `describe` name the cause and the cure.
//! The texts are printed, so that `--nocapture` shows them as they are.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};
use upstream_doubles::{Effect, Fault};
use webhook_operator::api::{
    conditions::{ReadyReason, SyncedReason},
    provider::ProviderType::{Autocosmos, Conpeek, Thulium},
};

use crate::world::{World, webhook_manifest};

pub(crate) async fn kubectl(world: &World, args: &[&str], input: Option<&Value>) -> Output {
    let program = control_plane::assets::kubectl().await.expect("find kubectl");
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(world.cluster.kubeconfig())
        .args(["--namespace", &world.namespace])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start kubectl");
    let mut stdin = child.stdin.take().expect("a pipe");
    if let Some(input) = input {
        stdin
            .write_all(input.to_string().as_bytes())
            .await
            .expect("write a manifest");
    }
    drop(stdin);
    let output = tokio::time::timeout(crate::world::SOON, child.wait_with_output()).await;
    output.expect("kubectl ends in time").expect("run kubectl")
}

/// What kubectl prints, which must succeed.
async fn told(world: &World, args: &[&str]) -> String {
    let output = kubectl(world, args, None).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("$ kubectl {}\n{text}", args.join(" "));
    text
}

/// The line of `get` and the text of `describe` with words wrapped by nothing, so that sentences can be found.
async fn shown(world: &World, name: &str) -> (String, String) {
    let all = told(world, &["get", "webhooks"]).await;
    let line = all
        .lines()
        .find(|line| line.starts_with(name))
        .expect("a line of its own")
        .to_owned();
    let description = told(world, &["describe", "webhook", name]).await;
    let words: Vec<&str> = description.split_whitespace().collect();
    (line, words.join(" "))
}

#[tokio::test]
async fn a_manifest_that_cannot_be_is_refused_when_it_is_applied() {
    let world = World::new("text-manifest").await;
    let spec = json!({
        "target": "9", "url": "ftp://a.example/", "interval": "5s",
        "headers": [{ "name": "Authorization", "value": "Bearer in-the-manifest" }],
    });
    let manifest = webhook_manifest("w", Conpeek, spec);
    let output = kubectl(&world, &["apply", "-f", "-"], Some(&manifest)).await;
    let text = String::from_utf8_lossy(&output.stderr);
    eprintln!("$ kubectl apply -f -\n{text}");
    assert!(!output.status.success());
    for part in ["spec.url", "http", "spec.interval", "spec.headers", "valueFrom"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_missing_secret_is_named_with_what_to_create() {
    let world = World::new("text-secret").await;
    world.provider(Autocosmos).await;
    let spec =
        json!({ "target": "precios", "url": "https://a.example/", "secretRef": { "name": "signing" } });
    world.webhook("w", Autocosmos, spec).await;
    world.wait_ready("w", ReadyReason::SecretNotFound).await;
    world.wait_event("w", "SecretNotFound").await;
    let (line, text) = shown(&world, "w").await;
    assert!(
        line.contains("False") && line.contains("SecretNotFound"),
        "{line}"
    );
    let cause = r#"spec.secretRef: Secret "signing" not found; create it with the key "secret""#;
    assert!(text.contains(cause), "{text}");
    let (_, events) = text.split_once("Events:").expect("Events");
    assert!(
        events.contains("Warning SecretNotFound") && events.contains(cause),
        "{events}"
    );
}

#[tokio::test]
async fn a_wrong_key_is_told_at_webhook_and_provider() {
    let world = World::new("text-key").await;
    world.provider(Thulium).await;
    world
        .secret("thulium-account", &[("password", "certainly-the-wrong-one")])
        .await;
    world
        .webhook(
            "w",
            Thulium,
            json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        )
        .await;
    world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    world.wait_event("w", "ProviderNotReady").await;
    let (line, text) = shown(&world, "w").await;
    assert!(
        line.contains("False") && line.contains("ProviderNotReady"),
        "{line}"
    );
    assert!(
        text.contains(r#"WebhookProvider "thulium": the upstream refused"#),
        "{text}"
    );
    assert!(text.contains("correct"), "{text}");
    assert!(!text.contains("certainly-the-wrong-one"));
    let providers = told(&world, &["get", "webhookproviders"]).await;
    assert!(providers.contains("False"), "{providers}");
    let provider = told(&world, &["describe", "webhookprovider", "thulium"]).await;
    assert!(
        provider.contains("thulium-account") && provider.contains("Unauthorized"),
        "{provider}"
    );
    assert!(!provider.contains("certainly-the-wrong-one"));
}

#[tokio::test]
async fn an_upstream_that_is_down_is_told_with_its_address() {
    let world = World::new("text-down").await;
    world.provider(Conpeek).await;
    world.doubles.conpeek().set_fault(Fault::new(Effect::ResetBefore));
    world
        .webhook(
            "w",
            Conpeek,
            json!({ "target": "9", "url": "https://a.example/" }),
        )
        .await;
    world.wait_reason("w", SyncedReason::Unreachable).await;
    world.wait_event("w", "UpstreamError").await;
    let (line, text) = shown(&world, "w").await;
    assert!(line.contains("False") && line.contains("UpstreamError"), "{line}");
    assert!(
        text.contains("Reason: Unreachable") && text.contains("Reason: Retrying"),
        "{text}"
    );
    assert!(text.contains(&world.doubles.conpeek().url()), "{text}");
    assert!(text.contains("tried again"), "{text}");
}

#[tokio::test]
async fn a_field_that_the_upstream_lacks_is_told_by_its_path() {
    let world = World::new("text-field").await;
    world.provider(Thulium).await;
    let spec = json!({
        "url": "https://a.example/", "events": ["TICKET_CREATED"], "retry": { "maxRetries": 3 }, "deletionPolicy": "Deactivate",
    });
    world.webhook("w", Thulium, spec).await;
    world.wait_ready("w", ReadyReason::UnsupportedField).await;
    world.wait_event("w", "UnsupportedField").await;
    let (line, text) = shown(&world, "w").await;
    assert!(
        line.contains("False") && line.contains("UnsupportedField"),
        "{line}"
    );
    assert!(
        text.contains("spec.retry: Thulium has no such thing; remove it"),
        "{text}"
    );
    assert!(
        text.contains("spec.deletionPolicy: Thulium cannot switch a webhook off; use Delete or Orphan"),
        "{text}"
    );
}
