//! Writes to the Webhook itself: metadata (finalizer, mark, id) and status, each only where something differs and
//! each with the version that it was decided on; and Events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        events::{Event, EventType},
        reflector::ObjectRef,
    },
};
use serde_json::{Map, Value, json};

use super::{
    context::{Context, ProviderObject},
    memory::MemoryCell,
    patch::merge_diff,
    spans,
};
use crate::{
    api::{
        CLAIM_ANNOTATION, CREATE_PENDING, FIELD_MANAGER, FINALIZER, ID_ANNOTATION, Webhook, WebhookStatus,
        conditions::{self, ConditionType},
        webhook_status::DeactivatedBy,
    },
    domain::{
        owner::ProviderKey,
        recorded::{Mark, Origin, Recorded},
        remote::RemoteId,
        status::{Assessment, next_status},
    },
    metrics::WebhookSample,
};

/// A write to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else changed the object meanwhile: look again.
    #[error("the object was changed by somebody else meanwhile")]
    Conflict,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// Anything else.
    #[error("the API server failed: {0}")]
    Kube(kube::Error),
}

impl From<kube::Error> for PublishError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            _ => Self::Kube(error),
        }
    }
}

/// What becomes of the journal in the metadata.
#[derive(Clone, Debug)]
pub enum Journal {
    /// Set the finalizer and the mark of a create.
    Pending(Mark),
    /// Set the finalizer, the id and its proof; the mark goes, or says what is still to be removed.
    Recorded {
        /// The id.
        id: RemoteId,
        /// Created or adopted.
        origin: Origin,
        /// What a replacement has replaced.
        retire: Option<RemoteId>,
        /// What it was made of, where that is known.
        made_of: Option<String>,
    },
    /// Nothing was written after all: mark and finalizer go, an older id stays.
    Withdrawn,
    /// The same for a target: the id goes as well.
    Unclaimed,
    /// The replaced registration is gone.
    Retired,
    /// The registration is gone: the object may go.
    Released,
}

fn api(ctx: &Context, webhook: &Webhook) -> Api<Webhook> {
    Api::namespaced(ctx.client.clone(), &webhook.namespace().unwrap_or_default())
}

/// Whether the API server has the object just as the cache shows it. A cache may show the past, after a restart for
/// minutes: what goes there may be gone for long, and its registration may belong to another that came after it; what
/// lives there may be going.
pub(super) async fn is_current(ctx: &Context, webhook: &Webhook) -> Result<bool, kube::Error> {
    match api(ctx, webhook).get_metadata_opt(&webhook.name_any()).await {
        Ok(newest) => Ok(newest.is_some_and(|newest| {
            newest.uid() == webhook.uid() && newest.resource_version() == webhook.resource_version()
        })),
        Err(error) => {
            tracing::warn!(name = webhook.name_any(), %error, "the object could not be read before what is registered is touched; it is tried again");
            Err(error)
        }
    }
}

/// Parameters of every patch.
pub(super) fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Writes the journal. Conditional on the version of `webhook`, so that a stale view, or a leader that is none
/// any more, writes nothing.
///
/// # Errors
///
/// See [`PublishError`].
pub async fn write_journal(
    ctx: &Context,
    memory: &MemoryCell,
    webhook: &Webhook,
    journal: &Journal,
) -> Result<Arc<Webhook>, PublishError> {
    let mut annotations = Map::new();
    let mut set = |name: &str, value: Option<String>| {
        annotations.insert(name.to_owned(), value.map_or(Value::Null, Value::String));
    };
    let mut finalizer = true;
    let uid = webhook.uid().unwrap_or_default();
    match journal {
        Journal::Pending(mark) => set(CREATE_PENDING, Some(mark.to_text(&ctx.key, &uid))),
        Journal::Recorded {
            id,
            origin,
            retire,
            made_of,
        } => {
            set(ID_ANNOTATION, Some(id.0.clone()));
            set(
                CLAIM_ANNOTATION,
                Some(Recorded::proof_text(
                    &ctx.key,
                    &uid,
                    id,
                    *origin,
                    made_of.as_deref(),
                )),
            );
            let rest = retire.as_ref().map(|old| {
                let mark = Mark {
                    hash: String::new(),
                    time: ctx.clock.now(),
                    replaces: None,
                    retire: Some(old.clone()),
                    made_of: None,
                };
                mark.to_text(&ctx.key, &uid)
            });
            set(CREATE_PENDING, rest);
        }
        Journal::Withdrawn => {
            set(CREATE_PENDING, None);
            let status_id = webhook.status.as_ref().and_then(|status| status.id.as_ref());
            finalizer = webhook.annotations().contains_key(ID_ANNOTATION) || status_id.is_some();
        }
        Journal::Unclaimed => {
            set(ID_ANNOTATION, None);
            set(CLAIM_ANNOTATION, None);
            finalizer = false;
        }
        Journal::Retired => set(CREATE_PENDING, None),
        Journal::Released => {
            set(CREATE_PENDING, None);
            finalizer = false;
        }
    }
    // A merge patch with null for what is not there would be a write that changes nothing but its version.
    annotations.retain(|name, value| webhook.annotations().get(name).map(String::as_str) != value.as_str());
    let mut finalizers: Vec<String> = webhook
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    if finalizer {
        finalizers.push(FINALIZER.to_owned());
    }
    let mut metadata = Map::new();
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
    }
    if finalizers != webhook.finalizers() {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    if metadata.is_empty() {
        return Ok(Arc::new(webhook.clone()));
    }
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(webhook.metadata.resource_version),
    );
    metadata.insert("uid".to_owned(), json!(webhook.metadata.uid));
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let (api, name) = (api(ctx, webhook), webhook.name_any());
    let written = spans::write("metadata", api.patch(&name, &params(), &patch)).await?;
    Ok(remember(ctx, memory, written))
}

/// Writes the status that follows from an assessment, if it differs from the present one.
///
/// # Errors
///
/// See [`PublishError`].
pub async fn write_status(
    ctx: &Context,
    memory: &MemoryCell,
    webhook: &Webhook,
    assessment: Assessment,
    change: impl FnOnce(&mut WebhookStatus),
) -> Result<Arc<Webhook>, PublishError> {
    let old = webhook.status.clone().unwrap_or_default();
    let generation = webhook.metadata.generation.unwrap_or_default();
    let new = next_status(&old, generation, ctx.clock.now(), assessment, change);
    replace_status(ctx, memory, webhook, &new).await
}

/// Writes a status, if it differs from the present one.
///
/// # Errors
///
/// See [`PublishError`].
pub async fn replace_status(
    ctx: &Context,
    memory: &MemoryCell,
    webhook: &Webhook,
    new: &WebhookStatus,
) -> Result<Arc<Webhook>, PublishError> {
    let old = webhook.status.clone().unwrap_or_default();
    let (before, after) = (json!(old), json!(new));
    let Some(difference) = merge_diff(&before, &after) else {
        return Ok(Arc::new(webhook.clone()));
    };
    let metadata =
        json!({ "resourceVersion": webhook.metadata.resource_version, "uid": webhook.metadata.uid });
    let patch = Patch::Merge(json!({ "metadata": metadata, "status": difference }));
    let (api, name) = (api(ctx, webhook), webhook.name_any());
    let written = spans::write("status", api.patch_status(&name, &params(), &patch)).await?;
    let written = remember(ctx, memory, written);
    announce(ctx, &old, &written).await;
    Ok(written)
}

/// Memory, index and metrics learn of our own write at once, not when the watch delivers it.
fn remember(ctx: &Context, memory: &MemoryCell, mut written: Webhook) -> Arc<Webhook> {
    written.metadata.managed_fields = None;
    let written = Arc::new(written);
    memory.wrote(&written);
    ctx.index.update(&written);
    // The watch may have delivered the object's end before this write's answer came: then nobody else would take
    // it out of the index again, and it would hold its provider and credentials for ever.
    let object = ObjectRef::from_obj(written.as_ref());
    match ctx.caches.webhooks.get(&object) {
        Some(cached) if cached.uid() == written.uid() => {}
        Some(successor) => ctx.index.update(&successor),
        None => {
            ctx.index.remove(&object);
            let namespace = written.namespace().unwrap_or_default();
            let _ = ctx
                .wake
                .providers
                .send(ProviderKey::of(written.provider_ref(), &namespace));
        }
    }
    written
}

/// One log line and, where it tells a user something, one Event per change of `Ready`.
async fn announce(ctx: &Context, old: &WebhookStatus, webhook: &Webhook) {
    let Some(ready) = webhook
        .status
        .as_ref()
        .and_then(|new| conditions::find(&new.conditions, ConditionType::Ready))
    else {
        return;
    };
    let before = conditions::find(&old.conditions, ConditionType::Ready);
    if before.is_some_and(|before| before.status == ready.status && before.reason == ready.reason) {
        return;
    }
    tracing::info!(
        namespace = webhook.namespace().unwrap_or_default(),
        name = webhook.name_any(),
        ready = ready.status,
        reason = ready.reason,
        note = ready.message,
        "Ready changed"
    );
    let type_ = match ready.status.as_str() {
        "False" => EventType::Warning,
        // On the way to the first registration there is nothing to tell yet.
        "Unknown" => return,
        _ => EventType::Normal,
    };
    event(ctx, webhook, type_, &ready.reason, &ready.message, "Reconcile").await;
}

/// Publishes an Event about a Webhook. A failure to do so is logged, never an error of the pass.
pub async fn event(
    ctx: &Context,
    webhook: &Webhook,
    type_: EventType,
    reason: &str,
    note: &str,
    action: &str,
) {
    publish_event(ctx, &webhook.object_ref(&()), told(type_, reason, note, action)).await;
}

/// The same about a provider.
pub async fn provider_event(
    ctx: &Context,
    provider: &ProviderObject,
    type_: EventType,
    reason: &str,
    note: &str,
    action: &str,
) {
    publish_event(ctx, &provider.reference(), told(type_, reason, note, action)).await;
}

fn told(type_: EventType, reason: &str, note: &str, action: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// The API server takes notes of up to 1024 bytes.
fn clip(note: String) -> String {
    match note
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= 1021)
        .last()
    {
        Some((at, c)) if at + c.len_utf8() < note.len() => {
            format!("{}…", note.get(..at + c.len_utf8()).unwrap_or_default())
        }
        _ => note,
    }
}

async fn publish_event(ctx: &Context, about: &ObjectReference, event: Event) {
    let event = Event {
        note: event.note.map(clip),
        ..event
    };
    let Err(error) = ctx.recorder.publish(&event, about).await else {
        return;
    };
    // A namespace that is going takes no new objects: then the Event regards the namespace and stands in `default`.
    let refused = matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 404));
    let namespace = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: about.namespace.clone(),
        ..ObjectReference::default()
    };
    let (kind, name) = (
        about.kind.as_deref().unwrap_or_default(),
        about.name.as_deref().unwrap_or_default(),
    );
    let note = event.note.unwrap_or_default();
    let reason = event.reason.clone();
    let event = Event {
        note: Some(clip(format!("{kind} {name:?}: {note}"))),
        ..event
    };
    if !refused || namespace.name.is_none() || ctx.recorder.publish(&event, &namespace).await.is_err() {
        tracing::warn!(reason, %error, "the Event could not be published");
    }
}

/// The metrics of one object.
pub fn sample(ctx: &Context, webhook: &Webhook, provider_type: &str) {
    let status = webhook.status.as_ref();
    let ready = status
        .and_then(|status| conditions::find(&status.conditions, ConditionType::Ready))
        .is_some_and(|ready| ready.status == "True");
    ctx.metrics.webhook(WebhookSample {
        namespace: &webhook.namespace().unwrap_or_default(),
        name: &webhook.name_any(),
        provider_type,
        state: status.and_then(|status| status.state).map(|state| state.as_str()),
        ready,
        deactivated_upstream: status.and_then(|status| status.deactivated_by)
            == Some(DeactivatedBy::Upstream),
    });
}
