//! The controller of `WebhookProvider` and `ClusterWebhookProvider`: shows whether an account can be used, keeps
//! it as long as Webhooks need it, and wakes them when that changes.
//!
//! Both kinds go through the same code. What the status says and who holds a finalizer is decided in
//! [`crate::domain::provider_status`]; here is the I/O around it, in `protect` the finalizers, in `verify` the
//! calls. Watches belong to whoever feeds [`run`].

mod protect;
mod verify;

use std::{collections::HashMap, fmt::Debug, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{events::EventType, reflector::ObjectRef},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

pub use self::protect::protect;
use self::verify::{Examined, Known};
use super::{
    context::{Context, ProviderObject},
    patch::merge_diff,
    publish::provider_event,
    queue::Queue,
    spans,
};
use crate::{
    api::{
        CONFIRM_DELETIONS, FIELD_MANAGER, ProviderStatus, Webhook,
        conditions::{self, ConditionStatus, ConditionType, ProviderReason, Reason},
        provider::{SecretLocation, UndocumentedCalls},
        provider_status::WebhookCounts,
        webhook::ProviderKind,
    },
    domain::{
        backoff,
        breaker::is_confirmed,
        owner::ProviderKey,
        provider_status::{self as status, COUNTS_INTERVAL, Facts, RESYNC, Usage},
        schedule,
    },
    provider::{Provider as _, Standing, Upstream},
    telemetry::trace::Span,
};

/// Passes that may run at the same time. Most only look at caches; a few wait for an upstream, and a dead one
/// must not keep the others from being looked at.
const AT_ONCE: usize = 128;
/// Shortest time between two passes of one provider: a storm of events of its Webhooks costs one pass, not one each.
const REST: Duration = Duration::from_millis(200);
/// How long passes under way may take when the process stops.
const FINISH: Duration = Duration::from_secs(20);
/// When to try again after somebody else has written the object; the watch usually brings it sooner.
const CONFLICT_RETRY: Duration = Duration::from_secs(1);

/// What is remembered of one provider between its passes. All of it may be lost.
#[derive(Default)]
struct Memory {
    /// The object as our last write left it; newer than the cache until the watch has delivered it.
    latest: Option<ProviderObject>,
    /// What is known of its account.
    known: Known,
    /// The numbers that the status shows, and when it was written.
    shown: Option<(Usage, Instant)>,
    /// The Secret that it referred to last.
    credentials: Option<SecretLocation>,
    /// What its account's calls had said at the last pass.
    refused: Option<bool>,
    /// Failed passes in a row.
    failures: u32,
}

impl Memory {
    fn newest(&mut self, cached: ProviderObject) -> ProviderObject {
        match self.latest.take() {
            Some(ours) if ours.is_ahead_of(&cached) => {
                self.latest = Some(ours.clone());
                ours
            }
            _ => cached,
        }
    }
}

/// One pass is over.
struct Done {
    key: ProviderKey,
    memory: Memory,
    again: Option<Instant>,
}

/// Everything that [`run`] holds.
struct Controller {
    ctx: Arc<Context>,
    queue: Queue<ProviderKey>,
    memories: HashMap<ProviderKey, Memory>,
    /// How often the standing of an account changed since the last pass.
    flips: HashMap<ProviderKey, u32>,
    passes: JoinSet<Done>,
    sweeps: JoinSet<()>,
}

/// Runs the controller until `ctx.stopping` turns true, then lets passes under way end (at most 20 s).
///
/// Caches and index have to be filled before: what is not in them counts as gone, and finalizers are taken off
/// accordingly. `wakes`: providers to look at, because they, their credentials Secret, their trust roots or one
/// of their Webhooks changed or went. `standings`: providers whose upstream accepted or refused the credentials
/// (the other end of [`super::context::CallObserver::standings`]). All providers are looked at once at the start.
pub async fn run(
    ctx: Arc<Context>,
    mut wakes: mpsc::UnboundedReceiver<ProviderKey>,
    mut standings: mpsc::UnboundedReceiver<ProviderKey>,
) {
    let mut stopping = ctx.stopping.clone();
    let mut sweep = interval(RESYNC);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut controller = Controller::new(ctx);
    loop {
        // Always in this order, as in the queue of Webhooks.
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(done) = controller.passes.join_next(), if !controller.passes.is_empty() => controller.end(done),
            Some(_) = controller.sweeps.join_next(), if !controller.sweeps.is_empty() => {}
            Some(key) = wakes.recv() => controller.queue.push(key, Instant::now()),
            Some(key) = standings.recv() => {
                *controller.flips.entry(key.clone()).or_default() += 1;
                controller.queue.push(key, Instant::now());
            }
            key = controller.queue.next(), if controller.passes.len() < AT_ONCE => controller.begin(key),
            _ = sweep.tick() => controller.sweep(),
        }
    }
    let finish = async { while controller.passes.join_next().await.is_some() {} };
    // What is still under way after that is dropped with the set.
    let _ = timeout(FINISH, finish).await;
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender is gone only when the process ends.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

impl Controller {
    fn new(ctx: Arc<Context>) -> Self {
        let mut queue = Queue::new(REST);
        let now = Instant::now();
        for provider in ctx.providers() {
            queue.push(provider.key(), now);
        }
        let (memories, flips) = (HashMap::new(), HashMap::new());
        Self {
            ctx,
            queue,
            memories,
            flips,
            passes: JoinSet::new(),
            sweeps: JoinSet::new(),
        }
    }

    fn begin(&mut self, key: ProviderKey) {
        let (ctx, flips) = (Arc::clone(&self.ctx), self.flips.remove(&key).unwrap_or_default());
        let memory = self.memories.remove(&key).unwrap_or_default();
        self.passes.spawn(async move {
            let span = spans::provider_pass(&key, ctx.provider(&key).as_ref());
            span.around(Box::pin(contained(&ctx, key, memory, flips, &span)))
                .await
        });
    }

    fn end(&mut self, done: Result<Done, JoinError>) {
        // Panics are caught within, and nobody aborts a single pass.
        let Ok(Done { key, memory, again }) = done else {
            return;
        };
        if self.queue.done(key.clone(), again) {
            self.memories.insert(key, memory);
        }
    }

    fn sweep(&mut self) {
        if self.sweeps.is_empty() {
            let ctx = Arc::clone(&self.ctx);
            self.sweeps.spawn(async move { protect::sweep(&ctx).await });
        }
    }
}

/// One pass, which never fails and never panics: one object's trouble must not take the others down with it.
async fn contained(ctx: &Context, key: ProviderKey, mut memory: Memory, flips: u32, span: &Span) -> Done {
    let ended = AssertUnwindSafe(Box::pin(pass(ctx, &key, &mut memory, flips)))
        .catch_unwind()
        .await;
    let (outcome, again) = match ended {
        Ok(Ok(again)) => {
            memory.failures = 0;
            ("ok", again)
        }
        Ok(Err(error)) => {
            let outcome = if is_conflict(&error) { "conflict" } else { "error" };
            let delay = delay_after(&key, &mut memory, &error);
            (outcome, Some(Instant::now() + delay))
        }
        Err(_) => {
            let failures = memory.failures.saturating_add(1);
            memory = Memory {
                failures,
                ..Memory::default()
            };
            tracing::error!(provider = ?key, "a pass panicked; it is tried again");
            (
                "panic",
                Some(Instant::now() + backoff::delay(failures, seed(&key))),
            )
        }
    };
    spans::ended(span, outcome);
    Done { key, memory, again }
}

/// Spreads the retries of providers that failed together.
fn seed(key: &ProviderKey) -> u64 {
    let ProviderKey { namespace, name, .. } = key;
    schedule::seed(&format!("{}/{namespace}/{name}", key.kind_name()))
}

fn delay_after(key: &ProviderKey, memory: &mut Memory, error: &kube::Error) -> Duration {
    if is_conflict(error) {
        memory.latest = None;
        tracing::debug!(provider = ?key, "somebody else wrote the object meanwhile");
        return CONFLICT_RETRY;
    }
    memory.failures = memory.failures.saturating_add(1);
    tracing::warn!(provider = ?key, %error, failures = memory.failures, "the API server failed; the pass is tried again");
    backoff::delay(memory.failures, seed(key))
}

/// One pass. Returns when the next is due; `None`: when something happens.
async fn pass(
    ctx: &Context,
    key: &ProviderKey,
    memory: &mut Memory,
    flips: u32,
) -> Result<Option<Instant>, kube::Error> {
    if key.kind == ProviderKind::ClusterWebhookProvider && !ctx.settings.serve_cluster_providers {
        return Ok(None);
    }
    let Some(cached) = ctx.provider(key) else {
        return gone(ctx, key, memory).await;
    };
    let mut provider = ctx.breakers.newest(&memory.newest(cached));
    let usage = Usage {
        counts: counts(ctx, key),
        holders: protect::holders(ctx, &provider),
        held: held(ctx, &provider),
    };
    ctx.metrics
        .deletions_held(key.kind_name(), &key.namespace, &key.name, usage.held);
    let guarded = guard(ctx, &mut provider, usage.holders, memory).await;
    match &guarded {
        // It goes, or only others' finalizers hold it: nobody needs to know how it is.
        Ok(there) if !there || (usage.holders == 0 && provider.metadata().deletion_timestamp.is_some()) => {
            return Ok(None);
        }
        // The status would meet the same conflict.
        Err(error) if is_conflict(error) => return guarded.map(|_| None),
        // Whatever else the finalizers ran into, the status is worth showing first.
        Ok(_) | Err(_) => {}
    }
    let examined = verify::examine(ctx, &provider, memory).await?;
    let facts = facts(&provider, &examined);
    let before = provider.status().and_then(status::reason_of);
    let due = publish(ctx, &provider, memory, &facts, usage).await?;
    let ready = facts.ready.0.status() == ConditionStatus::True;
    ctx.metrics
        .provider(key.kind_name(), &key.namespace, &key.name, ready);
    wake(ctx, key, memory, before, &examined, flips);
    guarded?;
    Ok(Some(due.map_or(examined.again, |due| due.min(examined.again))))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// The object is gone. The account stays as long as Webhooks refer to it, because it is all that their removal can
/// go on with.
async fn gone(ctx: &Context, key: &ProviderKey, memory: &mut Memory) -> Result<Option<Instant>, kube::Error> {
    ctx.metrics
        .forget_provider(key.kind_name(), &key.namespace, &key.name);
    ctx.breakers.forget(key);
    if let Some(location) = &memory.credentials {
        protect::guard_secret(ctx, location, false).await?;
        memory.credentials = None;
    }
    if ctx.index.by_provider(key).is_empty() {
        ctx.accounts.forget(key);
        return Ok(None);
    }
    Ok(Some(Instant::now() + RESYNC))
}

/// Puts the finalizers of the provider and of its Secret right, and of the Secret that it no longer refers to.
/// `provider` becomes what was written. Whether the object is still there.
async fn guard(
    ctx: &Context,
    provider: &mut ProviderObject,
    holders: usize,
    memory: &mut Memory,
) -> Result<bool, kube::Error> {
    let location = provider.credentials();
    let left = memory
        .credentials
        .replace(location.clone())
        .filter(|old| *old != location);
    if let Some(left) = left
        && let Err(error) = protect::guard_secret(ctx, &left, false).await
    {
        memory.credentials = Some(left);
        return Err(error);
    }
    // The Secret first on the way in and out: while the provider is there, somebody comes back for the Secret.
    protect::guard_secret(ctx, &location, holders > 0).await?;
    let Some(after) = protect::guard_provider(ctx, provider, holders).await? else {
        return Ok(false);
    };
    // Of another generation it is only where it was written on a version that the cache does not have yet: the spec
    // at hand is old, and so is the version that the status would be written against.
    let changed = after.metadata().resource_version != provider.metadata().resource_version;
    if changed && after.metadata().generation == provider.metadata().generation {
        *provider = after.clone();
        memory.latest = Some(after);
    }
    Ok(true)
}

fn counts(ctx: &Context, key: &ProviderKey) -> WebhookCounts {
    let objects = ctx.index.by_provider(key);
    let is_ready = |object: &&ObjectRef<Webhook>| {
        ctx.caches.webhooks.get(object).and_then(|webhook| {
            let status = webhook.status.as_ref()?;
            let ready = conditions::find(&status.conditions, ConditionType::Ready)?;
            Some(ready.status == ConditionStatus::True.as_str())
        }) == Some(true)
    };
    let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    WebhookCounts {
        total: number(objects.len()),
        ready: number(objects.iter().filter(is_ready).count()),
    }
}

/// Webhooks whose removal the provider's limit holds back, and goes on to do so when its newest confirmation is
/// handled.
fn held(ctx: &Context, provider: &ProviderObject) -> usize {
    if provider.settings().deletion_limit.is_none() {
        return 0;
    }
    let handled = provider
        .annotation(CONFIRM_DELETIONS)
        .or_else(|| provider.status()?.last_handled_confirm_deletions.as_deref());
    let is_held = |object: &&ObjectRef<Webhook>| {
        ctx.caches.webhooks.get(object).is_some_and(|webhook| {
            let held = webhook
                .status
                .as_ref()
                .and_then(|status| status.deletion_held.as_ref());
            held.is_some_and(|held| !is_confirmed(held, handled))
        })
    };
    ctx.index
        .by_provider(&provider.key())
        .iter()
        .filter(is_held)
        .count()
}

fn facts(provider: &ProviderObject, examined: &Examined) -> Facts {
    let settings = provider.settings();
    let undocumented = settings.undocumented_calls == UndocumentedCalls::Allow;
    Facts {
        generation: provider.metadata().generation,
        ready: examined.ready.clone(),
        capabilities: (!settings.is_unread("type"))
            .then(|| status::capabilities(Upstream::from(settings.type_).capabilities(), undocumented)),
        findings: examined.findings.clone(),
        deleting: provider.metadata().deletion_timestamp.is_some(),
        limited: settings.deletion_limit.is_some() || settings.is_unread("deletionLimit"),
        confirmation: provider.annotation(CONFIRM_DELETIONS).map(str::to_owned),
    }
}

/// Writes the status if it differs. Returns when numbers that are held back now are due.
async fn publish(
    ctx: &Context,
    provider: &ProviderObject,
    memory: &mut Memory,
    facts: &Facts,
    usage: Usage,
) -> Result<Option<Instant>, kube::Error> {
    let old = provider.status().cloned().unwrap_or_default();
    let now = ctx.clock.now();
    let recent = memory
        .shown
        .filter(|(shown, at)| *shown != usage && at.elapsed() < COUNTS_INTERVAL);
    if let Some((shown, at)) = recent
        && difference(&old, &status::next_status(&old, facts, shown, now))?.is_none()
    {
        return Ok(Some(at + COUNTS_INTERVAL));
    }
    let new = status::next_status(&old, facts, usage, now);
    let Some(change) = difference(&old, &new)? else {
        return Ok(None);
    };
    let patch =
        json!({"metadata": {"resourceVersion": provider.metadata().resource_version}, "status": change});
    let written = store_status(ctx, provider, &patch).await?;
    if let Some(written) = &written {
        ctx.breakers.wrote(written);
        announce(ctx, written, &old, &new).await;
    }
    memory.latest = written;
    memory.shown = Some((usage, Instant::now()));
    Ok(None)
}

/// Tells once that removals are held back, and once that they were confirmed. Those that are held go on then.
async fn announce(ctx: &Context, provider: &ProviderObject, old: &ProviderStatus, new: &ProviderStatus) {
    let held = |status: &ProviderStatus| status.deletions.as_ref().map_or(0, |deletions| deletions.held);
    if held(old) == 0 && held(new) > 0 {
        let note = format!(
            "removals are held back, because there are more than spec.deletionLimit lets go ({} now); see why so much is deleted; to let all go that are held, give the annotation {CONFIRM_DELETIONS} a new value",
            held(new)
        );
        provider_event(ctx, provider, EventType::Warning, "DeletionsHeld", &note, "Hold").await;
    }
    if old.last_handled_confirm_deletions == new.last_handled_confirm_deletions {
        return;
    }
    tracing::info!(provider = ?provider.key(), "the removals that are held back were confirmed");
    if held(old) > 0 {
        let note = "the removals that were held back were confirmed, and are made now";
        provider_event(
            ctx,
            provider,
            EventType::Normal,
            "DeletionsConfirmed",
            note,
            "Confirm",
        )
        .await;
    }
    ctx.wake_webhooks_of(&provider.key());
}

/// Writes the status of a provider of either kind. The provider after that; `None`: it is gone.
pub(super) async fn store_status(
    ctx: &Context,
    provider: &ProviderObject,
    patch: &Value,
) -> Result<Option<ProviderObject>, kube::Error> {
    let ProviderKey { namespace, name, .. } = provider.key();
    Ok(match provider {
        ProviderObject::Namespaced(_) => {
            let api = Api::namespaced(ctx.client.clone(), &namespace);
            write_status(&api, &name, patch)
                .await?
                .map(|object| ProviderObject::Namespaced(Arc::new(object)))
        }
        ProviderObject::Cluster(_) => {
            let api = Api::all(ctx.client.clone());
            write_status(&api, &name, patch)
                .await?
                .map(|object| ProviderObject::Cluster(Arc::new(object)))
        }
    })
}

/// What has to be written. Compared as they are written: times have whole seconds there.
fn difference(old: &ProviderStatus, new: &ProviderStatus) -> Result<Option<Value>, kube::Error> {
    let value = |status: &ProviderStatus| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    Ok(merge_diff(&value(old)?, &value(new)?))
}

async fn write_status<K>(api: &Api<K>, name: &str, patch: &Value) -> Result<Option<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(patch);
    match spans::write("status", api.patch_status(name, &params, &patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Wakes the Webhooks when what holds them up came or went.
fn wake(
    ctx: &Context,
    key: &ProviderKey,
    memory: &mut Memory,
    before: Option<ProviderReason>,
    examined: &Examined,
    flips: u32,
) {
    let now = examined
        .account
        .as_ref()
        .map(|account| matches!(account.standing(), Standing::Refused { .. }));
    let earlier = std::mem::replace(&mut memory.refused, now);
    if holds_up_changed(before, examined.ready.0) || accepted_again(earlier, now, flips) {
        tracing::debug!(provider = ?key, ready = %examined.ready.0, "wakes the provider's Webhooks");
        ctx.wake_webhooks_of(key);
    }
}

/// Whether the reason changed from or to one that holds Webhooks up. `NotVerified` does not.
fn holds_up_changed(before: Option<ProviderReason>, after: ProviderReason) -> bool {
    let holds_up = |reason: ProviderReason| reason.status() == ConditionStatus::False;
    before != Some(after) && (before.is_some_and(holds_up) || holds_up(after))
}

/// Whether the upstream accepts the credentials after it refused them. Both may have happened since the last pass:
/// from unknown to accepted is one change, with a refusal between them it is two.
const fn accepted_again(refused_before: Option<bool>, refused_now: Option<bool>, flips: u32) -> bool {
    match (refused_before, refused_now) {
        (_, None | Some(true)) => false,
        (Some(true), Some(false)) => true,
        (None | Some(false), Some(false)) => flips > 1,
    }
}

#[cfg(test)]
mod tests;
