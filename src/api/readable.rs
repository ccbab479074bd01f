//! What of a status can be read.
//!
//! Lists and watches of the API server come as a whole: one object whose status another version of the operator wrote,
//! in a form that this one does not know, would keep this one from seeing any object. After `helm rollback` that is
//! what a newer version has left behind. So a part of a status that cannot be read counts as one that is not there. Every
//! part can be missing, as after a restore from a backup without status; the next pass writes it anew.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The value of a field, or its default where there is something else.
pub(super) fn part<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

/// The items of a list that can be read.
pub(super) fn items<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let Value::Array(items) = Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    Ok(items
        .into_iter()
        .filter_map(|item| T::deserialize(item).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;
    use crate::api::{ClusterWebhookProvider, Webhook, WebhookProvider, WebhookStatus, schema};

    /// A list with one object of this kind, whose status has this in one of its fields.
    fn list(kind: &str, spec: &Value, field: &str, odd: &Value) -> Value {
        json!({
            "apiVersion": "webhook-operator.dev/v1alpha1", "kind": format!("{kind}List"), "metadata": {},
            "items": [{
                "apiVersion": "webhook-operator.dev/v1alpha1", "kind": kind, "metadata": { "name": "a" },
                "spec": spec, "status": { field: odd },
            }],
        })
    }

    /// The fields of a status in the schema of its kind.
    fn fields(kind: &str) -> Vec<String> {
        let crds = schema::crds();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap();
        let schema = schema.open_api_v3_schema.as_ref().unwrap();
        let status = &schema.properties.as_ref().unwrap()["status"];
        status.properties.as_ref().unwrap().keys().cloned().collect()
    }

    #[test]
    fn no_status_keeps_a_list_from_being_read() {
        let webhook = json!({"providerRef": {"name": "a"}, "url": "https://example.com"});
        let provider = json!({"type": "Ricloud", "credentialsRef": {"name": "a", "namespace": "b"}});
        for odd in [
            json!("of another version"),
            json!({"of": "another"}),
            json!([{"of": 1}, 2]),
            json!(7.5),
            Value::Null,
        ] {
            for (kind, spec) in [
                ("Webhook", &webhook),
                ("WebhookProvider", &provider),
                ("ClusterWebhookProvider", &provider),
            ] {
                let fields = fields(kind);
                assert!(fields.len() > 5, "{kind} has {fields:?}");
                for field in &fields {
                    let list = list(kind, spec, field, &odd);
                    let count = match kind {
                        "Webhook" => {
                            serde_json::from_value::<ObjectList<Webhook>>(list).map(|list| list.items.len())
                        }
                        "WebhookProvider" => serde_json::from_value::<ObjectList<WebhookProvider>>(list)
                            .map(|list| list.items.len()),
                        _ => serde_json::from_value::<ObjectList<ClusterWebhookProvider>>(list)
                            .map(|list| list.items.len()),
                    };
                    assert_eq!(count.ok(), Some(1), "{kind} with status.{field}: {odd}");
                }
            }
        }
    }

    #[test]
    fn what_can_be_read_stays() {
        let status = json!({
            "id": "7", "state": "paused", "url": "https://example.com",
            "gaps": [{"from": "yesterday"}, {"from": "2026-01-01T00:00:00Z", "reason": "TestFailed"}],
            "test": {"consecutiveFailures": 2, "result": "Skipped", "history": [{"result": "Skipped"}]},
            "rotation": {"phase": "Resting"},
        });
        let status: WebhookStatus = serde_json::from_value(status).unwrap();
        assert_eq!(status.id.as_deref(), Some("7"));
        assert_eq!(status.url.as_deref(), Some("https://example.com"));
        assert_eq!((status.state, status.gaps.len()), (None, 1));
        let test = status.test.unwrap();
        assert_eq!(
            (test.consecutive_failures, test.result, test.history.len()),
            (2, None, 0)
        );
        assert_eq!(status.rotation.unwrap_or_default().last_time, None);
    }
}
