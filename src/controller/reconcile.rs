//! One pass over one Webhook: resolve, check, observe, plan, act, publish. This file holds the order of the steps;
//! `due.rs` decides whether the upstream is needed at all, and `act.rs` talks to it.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use super::{
    accounts::AccountProblem,
    act::{self, Pass},
    context::{Context, ProviderObject},
    due::{Due, due, until_read_back},
    farewell,
    memory::MemoryCell,
    publish::{self, PublishError, write_status},
    rivals, spans,
};
use crate::{
    api::{ClusterWebhookProvider, Webhook, conditions::ReadyReason, webhook::ProviderKind},
    domain::{
        backoff,
        check::{check, check_unread},
        owner::ProviderKey,
        recorded::Recorded,
        schedule,
        status::Assessment,
    },
    entropy::NoEntropy,
    provider::{Account, Priority, Provider, Turn, Upstream},
    telemetry::trace::Span,
};

/// How long a new object may wait for what it refers to.
const GRACE: Duration = Duration::from_secs(2);

/// What ends a pass early, other than the upstream: nothing that a user has to know.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The object could not be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Something else could not be read or written.
    #[error("the API server failed: {0}")]
    Kube(#[from] kube::Error),
    /// No secret can be made.
    #[error(transparent)]
    Random(#[from] NoEntropy),
}

/// When to look again; `None`: when something changes.
pub type Next = Option<Duration>;

/// Looks at one Webhook and does what is due. Never fails and never panics: one object's trouble is its own.
pub async fn reconcile(ctx: &Arc<Context>, object: &ObjectRef<Webhook>) -> Next {
    let webhook = ctx.caches.webhooks.get(object)?;
    let span = spans::webhook_pass(&webhook, &provider_type(ctx, &webhook));
    span.around(Box::pin(traced(ctx, object, webhook, &span))).await
}

async fn traced(ctx: &Arc<Context>, object: &ObjectRef<Webhook>, webhook: Arc<Webhook>, span: &Span) -> Next {
    let uid = webhook.uid().unwrap_or_default();
    let memory = ctx.memories.of(&uid, ctx.clock.now());
    let began = Instant::now();
    let outcome = AssertUnwindSafe(Box::pin(pass(ctx, webhook, &memory)))
        .catch_unwind()
        .await;
    let (result, next) = match outcome {
        Ok(Ok(next)) => ("ok", next),
        Ok(Err(PassError::Publish(PublishError::Gone))) => ("gone", None),
        Ok(Err(PassError::Publish(PublishError::Conflict))) => ("conflict", Some(retry_delay(&memory, &uid))),
        Ok(Err(error)) => {
            tracing::warn!(%object, %error, "the pass failed; it is tried again");
            ("error", Some(retry_delay(&memory, &uid)))
        }
        Err(_) => {
            tracing::error!(%object, "the pass panicked; the object is tried again later, others go on");
            ("panic", Some(backoff::MAX))
        }
    };
    ctx.metrics.reconciled(result, began.elapsed());
    spans::ended(span, result);
    // Tests keep their time whatever became of the pass: the receiver has nothing to do with the upstream.
    let probe = memory.with(|memory| memory.probe.next);
    let probe = probe.map(|next| next.saturating_duration_since(Instant::now()));
    next.into_iter().chain(probe).min()
}

/// Backoff of failures that are not the upstream's.
fn retry_delay(memory: &MemoryCell, uid: &str) -> Duration {
    let failures = memory.with(|memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    backoff::delay(failures, schedule::seed(uid))
}

async fn pass(ctx: &Arc<Context>, cached: Arc<Webhook>, memory: &MemoryCell) -> Result<Next, PassError> {
    memory.with(|memory| memory.probe.next = None);
    let object = ObjectRef::from_obj(cached.as_ref());
    let mut webhook = memory.newest(cached);
    let (mut place, mut turn) = (None, None);
    loop {
        let woken = memory.with(|memory| Arc::clone(&memory.woken));
        let mut woken = pin!(woken.notified());
        woken.as_mut().enable();
        // Bounds what is prepared at the same time. Given back before this one waits for its turn and for the upstream:
        // what does is bounded by the turns of its account, and many dead accounts must not keep all permits.
        let worker = ctx.workers.acquire().await.ok();
        if webhook.metadata.deletion_timestamp.is_some() {
            // It takes a permit and a turn of its own: deletions at a dead upstream must not keep all workers waiting,
            // and who holds a turn must not wait for another one.
            drop((worker, turn, place));
            return farewell::pass(ctx, webhook, memory).await;
        }
        let mut pass = match prepare(ctx, Arc::clone(&webhook), memory).await? {
            Prepared::Go(pass) => pass,
            Prepared::Blocked(assessment) => {
                if let Some(grace) = grace(&webhook, memory, &assessment) {
                    return Ok(Some(grace));
                }
                let written = write_status(ctx, memory, &webhook, assessment, |_| {}).await?;
                publish::sample(ctx, &written, &provider_type(ctx, &webhook));
                // What blocks is watched; the interval is for what is not (a CA bundle, a lost event).
                return Ok(Some(until_read_back(
                    &webhook,
                    webhook.spec.interval.get(),
                    ctx.clock.now(),
                )));
            }
        };
        let due = due(&mut pass).await?;
        let priority = match due {
            Due::Nothing => {
                publish::sample(ctx, &pass.webhook, pass.account.provider_type.as_str());
                return Ok(pass.next());
            }
            Due::Held(until) => return Ok(until.map(|until| until.saturating_duration_since(Instant::now()))),
            Due::Secret(assessment) => {
                if let Some(grace) = grace(&webhook, memory, &assessment) {
                    return Ok(Some(grace));
                }
                let written = write_status(ctx, memory, &webhook, assessment, |_| {}).await?;
                publish::sample(ctx, &written, pass.account.provider_type.as_str());
                return Ok(Some(Duration::from_secs(300)));
            }
            Due::Act(priority) => priority,
        };
        if turn.is_none() {
            if let Some(next) = refused(&pass).await? {
                return Ok(Some(next));
            }
            drop(worker);
            let mut waiting = Place::keep_or_take(place.take(), &pass.account, priority);
            let mut stopping = ctx.stopping.clone();
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return Ok(None),
                taken = &mut waiting.turn => turn = Some(taken),
                // What has changed may be more urgent than what it waits for.
                () = woken => place = Some(waiting),
            }
            // The queue may have been long: what counts is what is true now.
            let Some(now) = ctx.caches.webhooks.get(&object) else {
                return Ok(None);
            };
            let now = memory.newest(now);
            if turn.is_none() || now.metadata.resource_version != webhook.metadata.resource_version {
                webhook = now;
                continue;
            }
            return work(pass).await;
        }
        drop(worker);
        return work(pass).await;
    }
}

/// A place in the queue of an account.
struct Place {
    account: Arc<Account>,
    priority: Priority,
    turn: BoxFuture<'static, Turn>,
}

impl Place {
    /// The place that there is already, or one of its own where that would be too far behind.
    fn keep_or_take(place: Option<Self>, account: &Arc<Account>, priority: Priority) -> Self {
        let kept = place.filter(|place| place.priority <= priority && Arc::ptr_eq(&place.account, account));
        kept.unwrap_or_else(|| {
            let turns = account.turns.clone();
            Self {
                account: Arc::clone(account),
                priority,
                turn: async move { turns.take(priority).await }.boxed(),
            }
        })
    }
}

/// The pass has its turn. While it waited the upstream may have refused the credentials to others.
async fn work(pass: Box<Pass>) -> Result<Next, PassError> {
    if let Err(next_try) = pass.account.admit() {
        return Ok(Some(say_refused(&pass, next_try).await?));
    }
    Box::pin(act::act(pass)).await
}

/// One `kubectl apply` brings a Webhook, its provider and its Secrets one after the other: what is missing from an
/// object that has just come is waited for before it is said.
fn grace(webhook: &Webhook, memory: &MemoryCell, assessment: &Assessment) -> Option<Duration> {
    let missing = matches!(
        assessment.ready.0,
        ReadyReason::ProviderNotReady | ReadyReason::SecretNotFound
    );
    let untouched = webhook
        .status
        .as_ref()
        .and_then(|status| status.observed_generation)
        .unwrap_or(-1)
        < 0;
    let seen = memory.with(|memory| memory.first_seen.elapsed());
    (missing && untouched && seen < GRACE).then(|| GRACE - seen)
}

/// What is known before the upstream is asked.
enum Prepared {
    Go(Box<Pass>),
    Blocked(Assessment),
}

async fn prepare(
    ctx: &Arc<Context>,
    webhook: Arc<Webhook>,
    memory: &MemoryCell,
) -> Result<Prepared, PassError> {
    let unread = check_unread(&webhook.spec.unread);
    if !unread.is_empty() {
        return Ok(Prepared::Blocked(Assessment::problems(&unread)));
    }
    let namespace = webhook.namespace().unwrap_or_default();
    let key = ProviderKey::of(webhook.provider_ref(), &namespace);
    let not_ready = |message: String| Ok(Prepared::Blocked(Assessment::provider_not_ready(message)));
    if key.kind == ProviderKind::ClusterWebhookProvider && !ctx.settings.serve_cluster_providers {
        return not_ready("ClusterWebhookProviders are not served, because the operator is confined to namespaces (--namespace); use a WebhookProvider".to_owned());
    }
    let Some(provider) = ctx.provider(&key) else {
        return not_ready(format!(
            "{} {:?} not found; create it (spec.providerRef cannot be changed)",
            key.kind_name(),
            key.name
        ));
    };
    if let ProviderObject::Cluster(cluster) = &provider
        && !provider.settings().is_unread("allowedNamespaces")
        && !allows(ctx, cluster, &namespace)
    {
        return not_ready(format!(
            "ClusterWebhookProvider {:?} does not allow namespace {namespace:?}; ask its owner to add it to spec.allowedNamespaces",
            key.name
        ));
    }
    if let Some(unread) = provider.unread() {
        return not_ready(format!("{} {:?}: {unread}", key.kind_name(), key.name));
    }
    if webhook.spec.suspend || provider.settings().suspend {
        return Ok(Prepared::Blocked(Assessment::suspended(!webhook.spec.suspend)));
    }
    let upstream = Upstream::from(provider.settings().type_);
    let problems = check(
        &webhook.spec,
        upstream.capabilities(),
        provider.settings().type_.as_str(),
    );
    if !problems.is_empty() {
        return Ok(Prepared::Blocked(Assessment::problems(&problems)));
    }
    let account = match ctx.accounts.get(ctx, &provider).await {
        Ok(account) => account,
        Err(AccountProblem::Kube(error)) => return Err(error.into()),
        Err(AccountProblem::Refused(_, message)) => {
            return not_ready(format!("{} {:?}: {message}", key.kind_name(), key.name));
        }
    };
    let recorded = Recorded::read(&webhook, &ctx.key);
    Ok(Prepared::Go(Box::new(Pass {
        ctx: Arc::clone(ctx),
        memory: memory.clone(),
        webhook,
        provider,
        account,
        upstream,
        recorded,
        wanted: String::new(),
        want: None,
        made: None,
        mutated: false,
        in_doubt: false,
    })))
}

/// Whether a cluster provider may be used from a namespace. Nobody may, unless named.
fn allows(ctx: &Context, provider: &ClusterWebhookProvider, namespace: &str) -> bool {
    let object = ctx.caches.namespaces.get(&ObjectRef::new(namespace));
    let none = BTreeMap::new();
    let labels = object.as_ref().map_or(&none, |object| object.labels());
    provider.spec.allows(namespace, labels)
}

fn provider_type(ctx: &Context, webhook: &Webhook) -> String {
    let key = ProviderKey::of(webhook.provider_ref(), &webhook.namespace().unwrap_or_default());
    ctx.provider(&key)
        .map_or("unknown", |provider| provider.settings().type_name())
        .to_owned()
}

/// The upstream has refused the account's credentials, or another Webhook holds the registration: said at once,
/// without waiting in the queue.
async fn refused(pass: &Pass) -> Result<Option<Duration>, PassError> {
    let carried_out = pass.is_carried_out();
    if !carried_out {
        let same = rivals::same_account(&pass.ctx, &pass.account).await;
        if let Some(message) = rivals::conflict(&pass.ctx, &pass.webhook, &same, pass.upstream.capabilities())
        {
            return Ok(Some(pass.refuse(Assessment::conflict(message)).await?));
        }
    }
    match pass.account.refused_until() {
        Some(next_try) => say_refused(pass, next_try).await.map(Some),
        None => Ok(None),
    }
}

/// Says that the upstream refuses the account's credentials, unless what is wanted is there already.
async fn say_refused(pass: &Pass, next_try: Instant) -> Result<Duration, PassError> {
    if !pass.is_carried_out() {
        let key = pass.provider.key();
        let message = format!(
            "{} {:?}: the upstream refused its credentials; correct the credentials Secret {:?}",
            key.kind_name(),
            key.name,
            pass.provider.credentials().name
        );
        let assessment = Assessment::provider_not_ready(message);
        let written = write_status(&pass.ctx, &pass.memory, &pass.webhook, assessment, |_| {}).await?;
        publish::sample(&pass.ctx, &written, pass.account.provider_type.as_str());
    }
    Ok(next_try.saturating_duration_since(Instant::now()))
}
