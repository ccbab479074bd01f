//! What has to be true once everything is at rest.

use serde_json::Value;
use webhook_operator::api::{
    CREATE_PENDING, FINALIZER, ID_ANNOTATION, IN_USE_FINALIZER, RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT,
    provider::ProviderType,
};

use super::{
    Case,
    dialect::Left,
    registered::{self, Registration},
    stage::{Stage, URL},
};

/// All that is wrong, in words.
pub(super) fn judge(case: &Case, stage: &Stage) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut there = registered::at(stage.world.upstreams(), case.dialect.provider);
    let webhooks = stage.api().list("webhooks");
    for webhook in &webhooks {
        let name = text(&webhook["metadata"]["name"]);
        if webhook["metadata"]["deletionTimestamp"].is_string() {
            wrong.push(format!("{name} is still there: {}", words(&webhook["status"])));
            continue;
        }
        let found = Found {
            webhook,
            provider: case.dialect.provider,
        };
        for what in found.judge(stage, &mut there) {
            wrong.push(format!("{name}: {what}"));
        }
    }
    wrong.extend(leftovers(case, &webhooks, there));
    wrong.extend(account(stage, &webhooks));
    wrong
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The reasons of all conditions.
fn words(status: &Value) -> String {
    let conditions = status["conditions"].as_array();
    let words = conditions.into_iter().flatten().map(|condition| {
        format!(
            "{}={}/{} ({})",
            text(&condition["type"]),
            text(&condition["status"]),
            text(&condition["reason"]),
            text(&condition["message"]),
        )
    });
    words.collect::<Vec<_>>().join(", ")
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .any(|finalizer| finalizer == name)
}

/// What is registered and belongs to no Webhook that is there.
fn leftovers(case: &Case, webhooks: &[Value], mut rest: Vec<Registration>) -> Vec<String> {
    let mut wrong = Vec::new();
    if webhooks.is_empty() {
        let left = case.operation.left(case.dialect);
        let on = left == Left::AsItWas;
        let kept = rest.iter().position(|it| it.url == URL && it.on == on);
        match (left, kept) {
            (Left::Nothing, _) => {}
            (_, Some(kept)) => drop(rest.remove(kept)),
            (_, None) if case.operation.hasty => {}
            (_, None) => wrong.push(format!("the policy keeps it ({left:?}), and it is not there")),
        }
    }
    wrong.extend(
        rest.iter()
            .map(|it| format!("registered and nobody's: {} {} (on: {})", it.id, it.url, it.on)),
    );
    wrong
}

/// Whether the account is held as long as it is needed, and its status counts right.
fn account(stage: &Stage, webhooks: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let used = !webhooks.is_empty();
    let provider = stage.api().get(&stage.provider());
    for (name, object) in [
        ("provider", &provider),
        ("credentials", &stage.api().get(&stage.credentials())),
    ] {
        match object {
            Some(object) if has_finalizer(object, IN_USE_FINALIZER) != used => {
                wrong.push(format!("{name} held: {}", !used));
            }
            Some(object) if object["metadata"]["deletionTimestamp"].is_string() && !used => {
                wrong.push(format!("{name} is still there"));
            }
            None if used => wrong.push(format!("{name} is gone")),
            _ => {}
        }
    }
    if let Some(provider) = provider.filter(|_| used) {
        let counts = &provider["status"]["webhooks"];
        let number = u64::try_from(webhooks.len()).unwrap();
        if counts["total"] != number || counts["ready"] != number {
            wrong.push(format!("the provider counts {counts} instead of {number}"));
        }
        let ready = condition(&provider, "Ready");
        if text(&ready["status"]) != "True" {
            wrong.push(format!("the provider: {}", words(&provider["status"])));
        }
    }
    for namespace in stage.api().list("namespaces") {
        if namespace["metadata"]["deletionTimestamp"].is_string() {
            wrong.push("the namespace is still there".to_owned());
        }
    }
    wrong
}

fn condition<'a>(object: &'a Value, name: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == name)
        .unwrap_or(&Value::Null)
}

/// A Webhook that shall be registered.
struct Found<'a> {
    webhook: &'a Value,
    provider: ProviderType,
}

impl Found<'_> {
    /// What is wrong with it. Its registration is taken out of `there`.
    fn judge(&self, stage: &Stage, there: &mut Vec<Registration>) -> Vec<String> {
        let mut wrong = Vec::new();
        let status = &self.webhook["status"];
        let id = annotation(self.webhook, ID_ANNOTATION).unwrap_or_default();
        if text(&status["id"]) != id {
            wrong.push(format!("annotation says id {id:?}, status {}", status["id"]));
        }
        if annotation(self.webhook, CREATE_PENDING).is_some() {
            wrong.push("a mark is left".to_owned());
        }
        if !has_finalizer(self.webhook, FINALIZER) {
            wrong.push("it has no finalizer".to_owned());
        }
        let want = registered::wanted(&stage.world, self.provider, self.webhook);
        match there.iter().position(|it| it.id == id) {
            None => wrong.push(format!("there is no registration {id:?}: {}", words(status))),
            Some(position) => {
                let found = there.remove(position);
                if (&found.url, found.on, &found.content) != (&want.url, want.on, &want.content) {
                    wrong.push(format!("registered is {found:?}, wanted {want:?}"));
                }
                wrong.extend(self.state(&found));
            }
        }
        wrong.extend(self.conditions(want.on));
        wrong
    }

    /// State word, switch, URL and handled requests.
    fn state(&self, found: &Registration) -> Vec<String> {
        let status = &self.webhook["status"];
        let by_us = if found.on { "new" } else { "deactivated" };
        let handled = |name: &str| annotation(self.webhook, name).unwrap_or_default();
        let deactivated_by = if found.on { "" } else { "Spec" };
        let expected = [
            ("state", found.state.unwrap_or(by_us)),
            ("deactivatedBy", deactivated_by),
            ("url", &found.url),
            ("lastHandledReconcileAt", handled(RECONCILE_REQUESTED_AT)),
            ("lastHandledTestAt", handled(TEST_REQUESTED_AT)),
        ];
        expected
            .into_iter()
            .filter(|(field, value)| text(&status[field]) != *value)
            .map(|(field, value)| format!("status.{field} is {} instead of {value:?}", status[field]))
            .chain(found.state.filter(|state| *state == "new").map(|_| {
                // The upstream's own test takes a moment, and has had it.
                "the upstream has not tested it".to_owned()
            }))
            .collect()
    }

    fn conditions(&self, on: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let generation = &self.webhook["metadata"]["generation"];
        let status = &self.webhook["status"];
        let tested = match (self.provider, on) {
            (ProviderType::Ricloud, true) => ("True", "Passed"),
            _ => ("Unknown", "NotRun"),
        };
        let secret = match self.provider {
            ProviderType::Ricloud => ("True", "Published"),
            ProviderType::Autocosmos => ("True", "Resolved"),
            ProviderType::Conpeek | ProviderType::Thulium => ("", ""),
        };
        let ready = ("True", if on { "Available" } else { "Deactivated" });
        for (name, (expected, reason)) in [
            ("Ready", ready),
            ("Tested", tested),
            ("SecretReady", secret),
            ("Reconciling", ("", "")),
            ("Stalled", ("", "")),
        ] {
            let found = condition(self.webhook, name);
            if (text(&found["status"]), text(&found["reason"])) != (expected, reason) {
                wrong.push(format!("{name} is not {expected}/{reason}: {}", words(status)));
            }
        }
        let synced = condition(self.webhook, "Synced");
        if text(&synced["status"]) != "True" {
            wrong.push(format!("Synced is not True: {}", words(status)));
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let of = conditions.map(|condition| &condition["observedGeneration"]);
        if of
            .chain([&status["observedGeneration"]])
            .any(|of| of != generation)
        {
            wrong.push(format!(
                "not all of generation {generation} is observed: {status}"
            ));
        }
        wrong
    }
}
