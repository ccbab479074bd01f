//! `kubectl webhook why`: what is the matter with one Webhook, everything that tells about it in one place, and the
//! next step.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::{
    Output, PluginError, Said,
    cluster::{Cluster, Item},
    explain::{Explanation, explain},
    from_server, object_name, objects, printed,
    table::{Table, age},
};
use crate::api::{WebhookStatus, webhook::ProviderKind};

/// Events that are shown: the last ones.
const EVENTS: usize = 10;

/// The options of `why`.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The Webhook
    #[arg(value_name = "NAME", value_parser = object_name)]
    name: String,
}

pub(super) async fn run(
    cluster: &Cluster,
    args: &WhyArgs,
    output: Option<Output>,
) -> Result<Said, PluginError> {
    let item = cluster.get(&args.name).await?;
    if output == Some(Output::Name) {
        return Ok(Said {
            text: objects(Output::Name, &[item.raw], false)?,
            code: 0,
        });
    }
    let events = events(cluster, &item).await;
    let explanation = explain(&item.webhook);
    let text = match output {
        Some(output @ (Output::Json | Output::Yaml)) => {
            printed(output, &structured(&item, &explanation, &events)?)?
        }
        Some(Output::Wide | Output::Name) | None => told(&item, &explanation, &events, Timestamp::now()),
    };
    Ok(Said { text, code: 0 })
}

/// The last Events about this very object, oldest first; in words why there are none.
async fn events(cluster: &Cluster, item: &Item) -> Result<Vec<Event>, String> {
    let fields = format!(
        "regarding.kind=Webhook,regarding.name={},regarding.uid={}",
        item.name(),
        item.webhook.uid().unwrap_or_default()
    );
    let params = ListParams::default().fields(&fields);
    let list = cluster.api::<Event>().list(&params).await;
    let mut events = list.map_err(|error| from_server(&error))?.items;
    events.sort_by_key(|event| last_seen(event).map(|time| time.0));
    let surplus = events.len().saturating_sub(EVENTS);
    Ok(events.split_off(surplus))
}

fn last_seen(event: &Event) -> Option<Time> {
    let micro = |time: &MicroTime| Time(time.0);
    let series = event
        .series
        .as_ref()
        .map(|series| micro(&series.last_observed_time));
    series
        .or_else(|| event.event_time.as_ref().map(micro))
        .or_else(|| event.deprecated_last_timestamp.clone())
        .or_else(|| event.metadata.creation_timestamp.clone())
}

/// For people.
fn told(
    item: &Item,
    explanation: &Explanation,
    events: &Result<Vec<Event>, String>,
    now: Timestamp,
) -> String {
    let spec = &item.webhook.spec;
    let nothing = WebhookStatus::default();
    let status = item.webhook.status.as_ref().unwrap_or(&nothing);
    let provider = &spec.provider_ref;
    let kind = match provider.kind {
        ProviderKind::WebhookProvider => "WebhookProvider",
        ProviderKind::ClusterWebhookProvider => "ClusterWebhookProvider",
    };
    let state = status.state.map_or("not registered", |state| state.as_str());
    let by = status
        .deactivated_by
        .map(|by| format!(" (by {by:?})"))
        .unwrap_or_default();
    let mut text = format!(
        "Webhook {}/{} at {} {}\n  url:    {}\n  state:  {state}{by}\n  {}\n",
        item.namespace(),
        item.name(),
        kind,
        provider.name,
        spec.url,
        explanation.matter.replace('\n', "\n  "),
    );
    text.push_str("\nConditions\n");
    text.push_str(&conditions(status, now));
    if let Some(history) = history(status, now) {
        text.push_str("\nTests, the last first\n");
        text.push_str(&history);
    }
    if !status.gaps.is_empty() {
        text.push_str("\nGaps, in which no delivery can have arrived\n");
        text.push_str(&gaps(status));
    }
    text.push_str("\nEvents, the last one last\n");
    match events {
        Ok(events) if events.is_empty() => text.push_str("  none; the API server keeps them for an hour\n"),
        Ok(events) => text.push_str(&event_table(events, now)),
        Err(why) => text.push_str(&format!("  cannot be read: {why}\n")),
    }
    text.push_str("\nNext\n");
    for step in &explanation.next {
        text.push_str(&format!("  {step}\n"));
    }
    text
}

fn conditions(status: &WebhookStatus, now: Timestamp) -> String {
    if status.conditions.is_empty() {
        return "  none\n".to_owned();
    }
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in &status.conditions {
        table.row(vec![
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
            age(Some(&condition.last_transition_time), now),
            condition.message.clone(),
        ]);
    }
    table.print(2)
}

fn history(status: &WebhookStatus, now: Timestamp) -> Option<String> {
    let records = &status.test.as_ref()?.history;
    if records.is_empty() {
        return None;
    }
    let mut table = Table::new(&["AGO", "RESULT", "REASON", "HTTP", "TOOK", "BY"]);
    for record in records {
        table.row(vec![
            age(Some(&record.time), now),
            record.result.as_str().to_owned(),
            record.reason.clone(),
            record
                .http_status
                .map(|code| code.to_string())
                .unwrap_or_default(),
            record
                .latency_milliseconds
                .map(|millis| format!("{millis} ms"))
                .unwrap_or_default(),
            record.mode.as_str().to_owned(),
        ]);
    }
    Some(table.print(2))
}

fn gaps(status: &WebhookStatus) -> String {
    let mut table = Table::new(&["FROM", "TO", "REASON"]);
    for gap in &status.gaps {
        table.row(vec![
            gap.from.0.to_string(),
            gap.to
                .as_ref()
                .map_or_else(|| "still open".to_owned(), |to| to.0.to_string()),
            gap.reason.clone(),
        ]);
    }
    table.print(2)
}

fn event_table(events: &[Event], now: Timestamp) -> String {
    let mut table = Table::new(&["AGO", "TYPE", "REASON", "COUNT", "NOTE"]);
    for event in events {
        let count = event.series.as_ref().map_or(1, |series| series.count);
        table.row(vec![
            age(last_seen(event).as_ref(), now),
            event.type_.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
            count.to_string(),
            event.note.clone().unwrap_or_default(),
        ]);
    }
    table.print(2)
}

/// For programs.
fn structured(
    item: &Item,
    explanation: &Explanation,
    events: &Result<Vec<Event>, String>,
) -> Result<Value, PluginError> {
    let status = item.webhook.status.clone().unwrap_or_default();
    let to_print = |error: serde_json::Error| PluginError::Print(error.to_string());
    let events: Vec<Value> = events
        .iter()
        .flatten()
        .map(|event| {
            json!({
                "time": last_seen(event),
                "type": event.type_,
                "reason": event.reason,
                "note": event.note,
                "count": event.series.as_ref().map_or(1, |series| series.count),
            })
        })
        .collect();
    Ok(json!({
        "namespace": item.namespace(),
        "name": item.name(),
        "state": serde_json::to_value(status.state).map_err(to_print)?,
        "matter": explanation.matter,
        "next": explanation.next,
        "conditions": serde_json::to_value(&status.conditions).map_err(to_print)?,
        "test": serde_json::to_value(&status.test).map_err(to_print)?,
        "gaps": serde_json::to_value(&status.gaps).map_err(to_print)?,
        "events": events,
    }))
}
