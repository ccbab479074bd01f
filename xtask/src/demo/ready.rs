//! Waits until every Webhook is Ready, and tells what is not and why.

use std::{collections::BTreeMap, time::Duration};

use control_plane::progress::Task;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{kubectl::Kubectl, progress::Failure};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// A Webhook, as far as the demo cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Status of `Ready`, of the present generation; empty before there is any.
    ready: &'a str,
    reason: &'a str,
    message: &'a str,
}

/// The Webhooks of a list.
pub(super) fn webhooks(list: &Value) -> impl Iterator<Item = Seen<'_>> {
    list.get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(seen)
}

fn seen(webhook: &Value) -> Seen<'_> {
    let generation = webhook.pointer("/metadata/generation").and_then(Value::as_i64);
    let ready = webhook
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|condition| field(condition, "/type") == "Ready")
        .filter(|condition| condition.get("observedGeneration").and_then(Value::as_i64) == generation)
        .unwrap_or(&Value::Null);
    Seen {
        namespace: field(webhook, "/metadata/namespace"),
        name: field(webhook, "/metadata/name"),
        ready: field(ready, "/status"),
        reason: field(ready, "/reason"),
        message: field(ready, "/message"),
    }
}

fn field<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Looks until all are Ready, and shows each change.
///
/// # Errors
/// Not all are after `limit`: names them with reason and message.
pub(super) async fn wait(kubectl: &Kubectl, limit: Duration) -> Result<(), Failure> {
    let task = Task::talking("== waiting until all Webhooks are Ready", "demo-ready");
    let begun = Instant::now();
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let list = kubectl.json(&["get", "webhooks", "-A"]).await?;
        let mut waiting = Vec::new();
        let mut count = 0;
        for webhook in webhooks(&list) {
            count += 1;
            let name = format!("{}/{}", webhook.namespace, webhook.name);
            if webhook.ready != "True" {
                waiting.push(complaint(&webhook));
            }
            if !webhook.ready.is_empty() {
                let state = format!("Ready={} {}: {}", webhook.ready, webhook.reason, webhook.message);
                if shown.get(&name) != Some(&state) {
                    eprintln!("   {:5.1} s  {name}: {state}", begun.elapsed().as_secs_f64());
                    shown.insert(name, state);
                }
            }
        }
        if count > 0 && waiting.is_empty() {
            task.done();
            return Ok(());
        }
        if begun.elapsed() > limit {
            return Err(Failure::new(format!(
                "after {} s these are not Ready:\n  {}",
                limit.as_secs(),
                waiting.join("\n  ")
            )));
        }
        sleep(EVERY).await;
    }
}

fn complaint(webhook: &Seen<'_>) -> String {
    let Seen {
        namespace,
        name,
        ready,
        reason,
        message,
    } = webhook;
    if ready.is_empty() {
        return format!("{namespace}/{name}: the operator has not looked at it");
    }
    format!("{namespace}/{name}: Ready={ready} {reason}: {message}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(observed: i64) -> Value {
        let ready = json!({"type": "Ready", "status": "False", "reason": "SecretNotFound",
            "message": "create it", "observedGeneration": observed});
        json!({"metadata": {"namespace": "a", "name": "b", "generation": 2}, "status": {"conditions": [ready]}})
    }

    #[test]
    fn what_is_not_ready_is_named_with_its_reason() {
        let text = complaint(&seen(&webhook(2)));
        assert_eq!(text, "a/b: Ready=False SecretNotFound: create it");
    }

    #[test]
    fn a_condition_of_an_older_generation_says_nothing() {
        assert_eq!(
            complaint(&seen(&webhook(1))),
            "a/b: the operator has not looked at it"
        );
        assert_eq!(webhooks(&json!({"items": [webhook(1)]})).count(), 1);
    }
}
