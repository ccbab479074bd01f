//! Whether a Webhook is as it has to be at rest: its registration, what it has recorded of it, and what it says; and
//! whether an account is held as long as it is needed.

use serde_json::Value;
use webhook_operator::api::{
    CREATE_PENDING, FINALIZER, ID_ANNOTATION, IN_USE_FINALIZER, RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT,
    provider::ProviderType,
};

use super::registered::{self, Registration};
use crate::{World, apiserver::Id};

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The reasons of all conditions.
pub(crate) fn words(status: &Value) -> String {
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

pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .any(|finalizer| finalizer == name)
}

/// Whether the account is held as long as it is needed by these Webhooks, and its status counts right.
pub(crate) fn account(world: &World, provider: &Id, credentials: &Id, webhooks: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let used = webhooks > 0;
    let held = world.api().get(provider);
    for (name, object) in [
        ("provider", &held),
        ("credentials", &world.api().get(credentials)),
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
    if let Some(provider) = held.filter(|_| used) {
        let counts = &provider["status"]["webhooks"];
        let number = u64::try_from(webhooks).unwrap();
        if counts["total"] != number || counts["ready"] != number {
            wrong.push(format!("the provider counts {counts} instead of {number}"));
        }
        let ready = condition(&provider, "Ready");
        if text(&ready["status"]) != "True" {
            wrong.push(format!("the provider: {}", words(&provider["status"])));
        }
    }
    wrong
}

/// Namespaces that should be gone.
pub(crate) fn namespaces(world: &World) -> Vec<String> {
    let namespaces = world.api().list("namespaces");
    let going = namespaces
        .iter()
        .filter(|it| it["metadata"]["deletionTimestamp"].is_string());
    going
        .map(|it| format!("the namespace {} is still there", text(&it["metadata"]["name"])))
        .collect()
}

pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == name)
        .unwrap_or(&Value::Null)
}

/// A Webhook that shall be registered.
pub(crate) struct Found<'a> {
    /// As it is in the cluster.
    pub(crate) webhook: &'a Value,
    /// Type of its upstream.
    pub(crate) provider: ProviderType,
}

impl Found<'_> {
    /// What is wrong with it. Its registration is taken out of `there`.
    pub(crate) fn judge(&self, world: &World, there: &mut Vec<Registration>) -> Vec<String> {
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
        let want = registered::wanted(world, self.provider, self.webhook);
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
        let by_us = match (found.on, self.is_probed()) {
            (true, true) => "valid",
            (true, false) => "new",
            (false, _) => "deactivated",
        };
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

    /// Whether the operator tests it.
    fn is_probed(&self) -> bool {
        self.webhook["spec"]["test"]["mode"] == "Probe"
    }

    fn conditions(&self, on: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let generation = &self.webhook["metadata"]["generation"];
        let status = &self.webhook["status"];
        let tested = match (self.provider, on) {
            (ProviderType::Ricloud, true) => ("True", "Passed"),
            _ if self.is_probed() => ("True", "Passed"),
            _ => ("Unknown", "NotRun"),
        };
        let secret = match self.provider {
            ProviderType::Ricloud => ("True", "Published"),
            // It signs only where a secret is given.
            ProviderType::Autocosmos if self.webhook["spec"]["secretRef"].is_null() => ("", ""),
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
