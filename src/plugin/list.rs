//! `kubectl webhook list`: what `kubectl get webhooks` has no room for.

use std::io::{self, Write};

use clap::Args;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{
    Output, PluginError, Said,
    cluster::{Cluster, Item},
    object_name, objects,
    table::{Table, age},
};
use crate::api::{
    WebhookStatus,
    conditions::{self, ConditionType, ReadyReason, Reason},
};

/// Secrets that are looked at at the same time.
const AT_ONCE: usize = 8;

/// The options of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only these
    #[arg(value_name = "NAME", value_parser = object_name)]
    names: Vec<String>,

    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    all_namespaces: bool,

    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    selector: Option<String>,

    /// Leave the headings out
    #[arg(long)]
    no_headers: bool,
}

pub(super) async fn run(
    cluster: &Cluster,
    args: &ListArgs,
    output: Option<Output>,
) -> Result<Said, PluginError> {
    let items = if args.names.is_empty() {
        cluster
            .list(args.all_namespaces, args.selector.as_deref())
            .await?
    } else {
        let mut items = Vec::new();
        for name in &args.names {
            items.push(cluster.get(name).await?);
        }
        items
    };
    let text = match output {
        Some(output @ (Output::Json | Output::Yaml | Output::Name)) => {
            let raw: Vec<_> = items.into_iter().map(|item| item.raw).collect();
            objects(output, &raw, args.names.len() != 1)?
        }
        wide => {
            if items.is_empty() {
                // On standard error, as kubectl says it, so that scripts see an empty output.
                let place = if args.all_namespaces {
                    "No Webhooks found".to_owned()
                } else {
                    format!("No Webhooks found in namespace {}", cluster.namespace)
                };
                let _ = writeln!(io::stderr(), "{place}");
                return Ok(Said::default());
            }
            let ages = secret_ages(cluster, &items).await;
            let table = table(
                &items,
                &ages,
                args.all_namespaces,
                wide.is_some(),
                Timestamp::now(),
            );
            let text = table.print(0);
            if args.no_headers {
                text.split_once('\n')
                    .map(|(_, rows)| rows.to_owned())
                    .unwrap_or_default()
            } else {
                text
            }
        }
    };
    Ok(Said { text, code: 0 })
}

fn table(items: &[Item], secrets: &[Option<Time>], everywhere: bool, wide: bool, now: Timestamp) -> Table {
    let mut headings = vec![
        "NAME", "PROVIDER", "STATE", "READY", "REASON", "TEST", "TESTED", "SECRET", "AGE",
    ];
    if everywhere {
        headings.insert(0, "NAMESPACE");
    }
    if wide {
        headings.extend(["TARGET", "ID", "URL", "EVENTS"]);
    }
    let mut table = Table::new(&headings);
    for (item, secret) in items.iter().zip(secrets) {
        let (spec, metadata) = (&item.webhook.spec, &item.webhook.metadata);
        let nothing = WebhookStatus::default();
        let status = item.webhook.status.as_ref().unwrap_or(&nothing);
        let ready = conditions::find(&status.conditions, ConditionType::Ready);
        let tested = status.test.as_ref().and_then(|test| test.last_time.as_ref());
        let mut cells = vec![
            item.name(),
            spec.provider_ref.name.clone(),
            status
                .state
                .map(|state| state.as_str().to_owned())
                .unwrap_or_default(),
            ready.map(|ready| ready.status.clone()).unwrap_or_default(),
            reason(status),
            test(status),
            age(tested, now),
            age(secret.as_ref(), now),
            age(metadata.creation_timestamp.as_ref(), now),
        ];
        if everywhere {
            cells.insert(0, item.namespace());
        }
        if wide {
            cells.extend([
                spec.target().unwrap_or_default().to_owned(),
                status.id.clone().unwrap_or_default(),
                spec.url.clone(),
                spec.events.join(","),
            ]);
        }
        table.row(cells);
    }
    table
}

/// Why it is ready or not; `UpstreamError` says nothing without what happened there.
fn reason(status: &WebhookStatus) -> String {
    let of = |type_| conditions::find(&status.conditions, type_).map(|condition| condition.reason.as_str());
    match (of(ConditionType::Ready), of(ConditionType::Synced)) {
        (Some(ready), Some(synced)) if ready == ReadyReason::UpstreamError.as_str() => {
            format!("{ready}/{synced}")
        }
        (ready, _) => ready.unwrap_or_default().to_owned(),
    }
}

/// How the last test ended: `Passed`, or why not, with the receiver's status.
fn test(status: &WebhookStatus) -> String {
    let Some(test) = &status.test else {
        return String::new();
    };
    let reason = test.reason.clone().unwrap_or_default();
    match test.http_status {
        Some(code) if !(200..300).contains(&code) => format!("{reason} ({code})"),
        _ => reason,
    }
}

/// Since when each signing secret has its value. What cannot be looked at stays empty, which is said once.
async fn secret_ages(cluster: &Cluster, items: &[Item]) -> Vec<Option<Time>> {
    let looks = items.iter().map(|item| async move {
        let spec = &item.webhook.spec;
        if spec.secret_ref.is_none() && spec.secret_policy.is_none() && !has_signing_secret(item) {
            return Ok(None);
        }
        let reference = item.webhook.signing_secret();
        let secret = cluster.secret(&item.namespace(), &reference.name).await?;
        Ok(secret.and_then(|secret| value_since(&secret.metadata, &reference.key)))
    });
    let ages: Vec<Result<Option<Time>, kube::Error>> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    if let Some(error) = ages.iter().find_map(|age| age.as_ref().err()) {
        let said = super::from_server(error);
        let _ = writeln!(io::stderr(), "note: not every Secret could be looked at: {said}");
    }
    ages.into_iter().map(Result::unwrap_or_default).collect()
}

/// An upstream that makes the secret has it written without being asked.
fn has_signing_secret(item: &Item) -> bool {
    let status = item.webhook.status.as_ref();
    status.is_some_and(|status| conditions::find(&status.conditions, ConditionType::SecretReady).is_some())
}

/// When the value under a key was last written, as far as the server knows; else when the Secret was made.
fn value_since(metadata: &ObjectMeta, key: &str) -> Option<Time> {
    let field = format!("f:{key}");
    let managed = metadata.managed_fields.as_deref().unwrap_or_default();
    managed
        .iter()
        .filter(|entry| {
            entry.fields_v1.as_ref().is_some_and(|fields| {
                fields
                    .0
                    .get("f:data")
                    .is_some_and(|data| data.get(&field).is_some())
            })
        })
        .filter_map(|entry| entry.time.clone())
        .max_by_key(|time| time.0)
        .or_else(|| metadata.creation_timestamp.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_as_old_as_its_value() {
        let metadata: ObjectMeta = serde_json::from_value(json!({
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [
                { "manager": "a", "time": "2026-01-02T00:00:00Z", "fieldsV1": { "f:data": { "f:secret": {} } } },
                { "manager": "b", "time": "2026-01-03T00:00:00Z", "fieldsV1": { "f:data": { "f:other": {} } } },
                { "manager": "c", "time": "2026-01-04T00:00:00Z", "fieldsV1": { "f:metadata": {} } },
            ],
        }))
        .unwrap();
        let since = |key| value_since(&metadata, key).map(|time| time.0.to_string());
        assert_eq!(since("secret").as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(since("other").as_deref(), Some("2026-01-03T00:00:00Z"));
        assert_eq!(since("unknown").as_deref(), Some("2026-01-01T00:00:00Z"));
    }
}
