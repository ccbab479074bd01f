//! `kubectl webhook`, through the kubectl of the control plane, as people call it. What it prints is printed here too,
//! so that `--nocapture` shows it.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::Command;
use webhook_operator::{
    api::{
        ROTATE_REQUESTED_AT, TEST_REQUESTED_AT, Webhook,
        conditions::{ReadyReason, SyncedReason},
        provider::ProviderType::{Autocosmos, Conpeek, Ricloud, Thulium},
    },
    yaml,
};

use crate::world::{World, status, webhook_manifest};

/// Longest wait for a command, above its own `--timeout`.
const ENDS: Duration = Duration::from_secs(90);

/// A folder with the binary under the name of the plugin, first in `PATH`.
fn path_with_plugin(world: &World) -> OsString {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "plugin-{}-{}",
        std::process::id(),
        world.namespace
    ));
    fs::create_dir_all(&folder).expect("make a folder");
    let link = folder.join("kubectl-webhook");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_webhook-operator"), link).expect("link the plugin");
    }
    let others = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&others).collect::<Vec<PathBuf>>());
    std::env::join_paths(folders).expect("a PATH")
}

/// What a command printed, and its exit code.
struct Told {
    code: i32,
    out: String,
    err: String,
}

impl Told {
    fn new(line: &str, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let told = Self {
            code: output.status.code().expect("an exit code"),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        eprintln!(
            "$ kubectl webhook {line}\n{}{}[{}]\n",
            told.out, told.err, told.code
        );
        told
    }

    /// Cells of the row of this name, three blanks apart.
    fn row(&self, name: &str) -> Vec<String> {
        let line = self
            .out
            .lines()
            .find(|line| line.split_whitespace().any(|word| word == name));
        let line = line.unwrap_or_else(|| panic!("no row of {name}: {}", self.out));
        line.split("   ")
            .map(|cell| cell.trim().to_owned())
            .filter(|cell| !cell.is_empty())
            .collect()
    }
}

async fn plugin(world: &World, line: &str) -> Told {
    let kubectl = control_plane::assets::kubectl().await.expect("find kubectl");
    let child = Command::new(kubectl)
        .arg("webhook")
        .args(line.split_whitespace())
        .args(["--namespace", &world.namespace])
        .env("PATH", path_with_plugin(world))
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ENDS, child)
        .await
        .expect("kubectl ends in time")
        .expect("run kubectl");
    Told::new(line, output)
}

/// URL at the receiver of the doubles.
fn receiver(world: &World, path: &str) -> String {
    format!("{}/{path}", world.doubles.receiver().url())
}

/// A Webhook at Conpeek that the operator tests at this path of the receiver.
async fn probed(world: &World, name: &str, target: &str, path: &str) {
    let spec = json!({ "target": target, "url": receiver(world, path), "test": { "mode": "Probe" } });
    world.webhook(name, Conpeek, spec).await;
}

#[tokio::test]
async fn list_shows_state_last_test_reason_and_the_age_of_the_secret() {
    let world = World::new("plugin-list").await;
    world.provider(Ricloud).await;
    world.provider(Conpeek).await;
    let empty = plugin(&world, "list").await;
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(
        empty
            .err
            .contains(&format!("No Webhooks found in namespace {}", world.namespace))
    );

    let spec = json!({ "url": world.ricloud_receiver("good") });
    world.webhook("good", Ricloud, spec).await;
    probed(&world, "bad", "9", "status/503").await;
    world.wait_ready("good", ReadyReason::Available).await;
    world.wait_ready("bad", ReadyReason::TestFailed).await;

    let list = plugin(&world, "list").await;
    assert_eq!(list.code, 0);
    let headings: Vec<&str> = list.out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        headings,
        [
            "NAME", "PROVIDER", "STATE", "READY", "REASON", "TEST", "TESTED", "SECRET", "AGE"
        ]
    );
    let good = list.row("good");
    assert_eq!(good[1..6], ["ricloud", "valid", "True", "Available", "Passed"]);
    assert!(
        good[7].ends_with('s'),
        "the secret was published seconds ago: {good:?}"
    );
    let bad = list.row("bad");
    assert_eq!(
        bad[1..6],
        ["conpeek", "invalid", "False", "TestFailed", "HttpStatus (503)"]
    );
    assert_eq!(bad[7], "-", "nothing is signed: {bad:?}");

    let one = plugin(&world, "list wh/bad --no-headers").await;
    assert_eq!(one.out.lines().count(), 1);
    let wide = plugin(&world, "list -o wide").await;
    assert!(wide.row("bad").contains(&receiver(&world, "status/503")));
    let everywhere = plugin(&world, "list -A").await;
    assert_eq!(everywhere.row("good")[0], world.namespace.as_str().to_owned());
    let names = plugin(&world, "list -o name").await;
    assert_eq!(
        names.out,
        "webhook.webhook-operator.dev/bad\nwebhook.webhook-operator.dev/good\n"
    );
    let json: Value = serde_json::from_str(&plugin(&world, "list -o json").await.out).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["items"].as_array().unwrap().len()),
        (Some("List"), 2)
    );
    let same: Webhook = yaml::parse(&plugin(&world, "list good -o yaml").await.out).unwrap();
    assert_eq!(same.status, world.get("good").await.status);
}

#[tokio::test]
async fn a_test_is_waited_for_and_its_end_is_the_exit_code() {
    let world = World::new("plugin-test").await;
    world.provider(Conpeek).await;
    world.provider(Thulium).await;
    probed(&world, "w", "1", "ok/w").await;
    world.wait_ready("w", ReadyReason::Available).await;
    let passed = plugin(&world, "test w --wait --timeout 60s").await;
    assert_eq!(passed.code, 0);
    assert!(
        passed
            .out
            .starts_with("webhook.webhook-operator.dev/w test passed (HTTP 200, "),
        "{}",
        passed.out
    );

    world
        .change("w", json!({ "url": receiver(&world, "status/500") }))
        .await;
    world.wait_ready("w", ReadyReason::TestFailed).await;
    let failed = plugin(&world, "test w --wait --timeout 60s").await;
    assert_eq!(failed.code, 3);
    assert!(failed.out.contains("test failed: HttpStatus: "), "{}", failed.out);
    assert!(
        failed.out.contains("next: Look into the receiver's log."),
        "{}",
        failed.out
    );
    let reconciled = plugin(&world, "reconcile w --wait").await;
    assert_eq!(reconciled.code, 3);
    assert!(
        reconciled.out.contains("done, but it is not Ready: TestFailed: "),
        "{}",
        reconciled.out
    );

    // For programs the object, and the words aside.
    let structured = plugin(&world, "test w --wait -o json").await;
    assert_eq!(structured.code, 3);
    assert!(structured.err.contains("test failed"));
    let object: Webhook = serde_json::from_str(&structured.out).unwrap();
    let handled = status(&object)
        .last_handled_test_at
        .expect("the request is handled");
    assert_eq!(
        Some(&handled),
        object.metadata.annotations.unwrap().get(TEST_REQUESTED_AT)
    );

    let spec =
        json!({ "url": receiver(&world, "ok/n"), "events": ["TICKET_CREATED"], "test": { "mode": "None" } });
    world.webhook("untested", Thulium, spec).await;
    world.wait_ready("untested", ReadyReason::Available).await;
    let nobody = plugin(&world, "test untested --wait").await;
    assert_eq!(nobody.code, 3);
    assert!(
        nobody.out.contains("test has no result: NotRun"),
        "{}",
        nobody.out
    );
    assert_eq!(plugin(&world, "reconcile untested --wait").await.code, 0);
}

#[tokio::test]
async fn what_cannot_end_is_told_apart() {
    let world = World::new("plugin-not").await;
    world.provider(Conpeek).await;
    let spec = json!({ "target": "1", "url": receiver(&world, "ok/s"), "suspend": true });
    world.webhook("s", Conpeek, spec).await;
    world.wait_ready("s", ReadyReason::Suspended).await;
    let late = plugin(&world, "test s --wait --timeout 2s").await;
    assert_eq!(late.code, 4);
    assert!(
        late.out
            .contains("was not over in time: the Webhook is suspended (spec.suspend)"),
        "{}",
        late.out
    );
    // Not waited for, it is only asked; and asked for again has another value.
    let before = world.get("s").await.metadata.annotations.unwrap();
    let asked = plugin(&world, "test s").await;
    assert_eq!(
        (asked.code, asked.out.as_str()),
        (0, "webhook.webhook-operator.dev/s test requested\n")
    );
    let rotate = plugin(&world, "rotate s").await;
    assert_eq!(rotate.out, "webhook.webhook-operator.dev/s rotation requested\n");
    let after = world.get("s").await.metadata.annotations.unwrap();
    assert_ne!(before.get(TEST_REQUESTED_AT), after.get(TEST_REQUESTED_AT));
    assert!(after.contains_key(ROTATE_REQUESTED_AT));

    for verb in ["test", "reconcile", "rotate", "why"] {
        let missing = plugin(&world, &format!("{verb} nowhere")).await;
        assert_eq!((missing.code, missing.out.as_str()), (1, ""), "{verb}");
        assert!(missing.err.contains("\"nowhere\" not found"), "{}", missing.err);
    }
    let context = plugin(&world, "list --context nowhere").await;
    assert_eq!(context.code, 1);
    assert!(
        context.err.contains("no cluster: ") && context.err.contains("--context"),
        "{}",
        context.err
    );
    assert_eq!(plugin(&world, "list --nonsense").await.code, 2);
}

#[tokio::test]
async fn why_puts_everything_in_one_place_and_names_the_next_step() {
    let world = World::new("plugin-why").await;
    world.provider(Conpeek).await;
    world.provider(Autocosmos).await;
    probed(&world, "w", "1", "status/500").await;
    world.wait_ready("w", ReadyReason::TestFailed).await;
    world.wait_event("w", "TestFailed").await;
    let why = plugin(&world, "why w").await;
    assert_eq!(why.code, 0);
    for part in [
        &format!("Webhook {}/w at WebhookProvider conpeek\n", world.namespace),
        "  state:  invalid\n",
        "  TestFailed: ",
        "\nConditions\n  TYPE",
        "\nTests, the last first\n  AGO",
        "\nEvents, the last one last\n  AGO",
        "\nNext\n  Look into the receiver's log.\n  Then `kubectl webhook test w --wait`\n",
    ] {
        assert!(why.out.contains(part), "{part:?} is not in\n{}", why.out);
    }
    assert_eq!(why.row("Failed")[1..4], ["Failed", "HttpStatus", "500"]);
    let structured: Value = serde_json::from_str(&plugin(&world, "why w -o json").await.out).unwrap();
    assert_eq!(structured["state"], "invalid");
    assert_eq!(structured["next"][0], "Look into the receiver's log.");
    assert_eq!(structured["test"]["history"][0]["httpStatus"], 500);
    assert!(!structured["events"].as_array().unwrap().is_empty());

    // A secret that is missing, then wrong: the condition that knows is asked. What it holds is never shown.
    let spec = json!({ "target": "t", "url": receiver(&world, "ok/t"), "secretRef": { "name": "signing" } });
    world.apply(&webhook_manifest("signed", Autocosmos, spec)).await;
    world.wait_ready("signed", ReadyReason::SecretNotFound).await;
    let missing = plugin(&world, "why signed").await;
    assert!(missing.out.contains("  state:  not registered\n"));
    assert!(
        missing
            .out
            .contains("Next\n  Create it; it is noticed at once.\n"),
        "{}",
        missing.out
    );
    world.secret("signing", &[("secret", "shortsecret")]).await;
    world.wait_ready("signed", ReadyReason::InvalidSpec).await;
    let short = plugin(&world, "why signed").await;
    assert!(short.out.contains("Next\n  Use a longer one.\n"), "{}", short.out);
    assert!(!short.out.contains("shortsecret"));
    world
        .secret("signing", &[("secret", "a-secret-of-enough-characters")])
        .await;
    world
        .change("signed", json!({ "test": { "mode": "None" } }))
        .await;
    world.wait_reason("signed", SyncedReason::Applied).await;
    let fine = plugin(&world, "why signed").await;
    assert!(
        fine.out.contains("  Available: ") && fine.out.ends_with("\nNext\n  Nothing to do\n"),
        "{}",
        fine.out
    );
}
