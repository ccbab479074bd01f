//! The spans of passes and of what they write to the API server; see [`crate::telemetry::trace`].

use kube::ResourceExt;
use opentelemetry::KeyValue;

use super::context::ProviderObject;
use crate::{
    api::Webhook,
    domain::owner::ProviderKey,
    telemetry::trace::{Span, Subject, key},
};

/// Kind of what a pass over a Webhook is about.
const WEBHOOK: &str = "Webhook";

/// The trace of a pass over a Webhook, whose provider is of this type.
pub(super) fn webhook_pass(webhook: &Webhook, provider_type: &str) -> Span {
    let subject = Subject {
        kind: WEBHOOK,
        namespace: webhook.namespace().unwrap_or_default(),
        name: webhook.name_any(),
    };
    let provider = ProviderKey::of(webhook.provider_ref(), &subject.namespace);
    let attributes = vec![
        KeyValue::new(key::OBJECT_UID, webhook.uid().unwrap_or_default()),
        KeyValue::new(
            key::OBJECT_GENERATION,
            webhook.metadata.generation.unwrap_or_default(),
        ),
        KeyValue::new(key::PROVIDER_TYPE, provider_type.to_owned()),
        KeyValue::new(key::PROVIDER_KIND, provider.kind_name()),
        KeyValue::new(key::PROVIDER_NAME, provider.name),
    ];
    Span::pass("webhook pass", subject, attributes)
}

/// The trace of a pass over a provider; `there`: unless it is gone.
pub(super) fn provider_pass(of: &ProviderKey, there: Option<&ProviderObject>) -> Span {
    let subject = Subject {
        kind: of.kind_name(),
        namespace: of.namespace.clone(),
        name: of.name.clone(),
    };
    let mut attributes = Vec::new();
    if let Some(provider) = there {
        let metadata = provider.metadata();
        attributes = vec![
            KeyValue::new(key::OBJECT_UID, metadata.uid.clone().unwrap_or_default()),
            KeyValue::new(key::OBJECT_GENERATION, metadata.generation.unwrap_or_default()),
            KeyValue::new(key::PROVIDER_TYPE, provider.settings().type_name()),
        ];
    }
    Span::pass("provider pass", subject, attributes)
}

/// How a pass ended, in the words of the metric `reconcile_duration_seconds`.
pub(super) fn ended(span: &Span, outcome: &'static str) {
    span.set(key::OUTCOME, outcome);
    if matches!(outcome, "error" | "panic") {
        span.fail(outcome);
    }
}

/// Writes the `metadata` or `status` of the pass's object, within a span.
///
/// # Errors
///
/// Those of `work`.
pub(super) async fn write<T>(
    part: &'static str,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let span = Span::call(format!("write {part}"), vec![KeyValue::new(key::PART, part)]);
    let written = span.around(work).await;
    let outcome = match &written {
        Ok(_) => "ok",
        Err(kube::Error::Api(status)) if status.is_conflict() => "conflict",
        Err(kube::Error::Api(status)) if status.is_not_found() => "gone",
        Err(_) => "error",
    };
    ended(&span, outcome);
    written
}
