//! One pass over a Webhook that is being deleted. It always ends: with the registration removed, or after a
//! deadline with an Event that names what is left.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use super::{
    act::MARK_GRACE,
    breaker::{self, Held, Verdict},
    conclude::usage,
    context::{Context, ProviderObject},
    doubt::{inherited, late_switch, note_late},
    memory::MemoryCell,
    publish::{self, Journal, PublishError, event, write_journal, write_status},
    reconcile::{Next, PassError},
    released, resolve, rivals,
};
use crate::{
    api::{Webhook, WebhookStatus, provider::ProviderType, webhook::DeletionPolicy},
    domain::{
        backoff,
        capabilities::TargetRule,
        desired::Desired,
        owner::ProviderKey,
        provider_status::RESYNC,
        recorded::Recorded,
        remote::{RemoteId, Seen},
        retire::{Farewell, Retirement, farewell, wait_for_create, wait_for_left_create},
        schedule,
        status::Assessment,
    },
    provider::{
        Account, Call, ErrorClass, Observer, Operation, Priority, Provider, ProviderError, Removal, Standing,
        Upstream,
    },
};

/// How often a create of unknown outcome is looked for while the object waits to go.
const MARK_RECHECK: Duration = Duration::from_secs(5);

/// How long the cache is given to come up to date.
const STALE_RECHECK: Duration = Duration::from_secs(1);

/// Why it takes longer than one pass.
struct Trouble {
    message: String,
    /// How long the upstream asked to wait, which does not count against the deadline.
    asked: Option<Duration>,
    /// Not the upstream's doing: does not count at all.
    ours: bool,
    /// There is no account that could make the call: it is worth another look as soon as anything happens.
    no_account: bool,
    /// For how long the upstream was waited for.
    calls: Duration,
}

impl Trouble {
    fn no_account(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            asked: None,
            ours: false,
            no_account: true,
            calls: Duration::ZERO,
        }
    }

    fn refused() -> Self {
        Self::no_account("the upstream refused the provider's credentials")
    }
}

impl From<ProviderError> for Trouble {
    fn from(error: ProviderError) -> Self {
        Self {
            ours: error.class == ErrorClass::Held,
            no_account: error.class == ErrorClass::Unauthorized,
            asked: error.retry_after,
            message: error.message,
            calls: Duration::ZERO,
        }
    }
}

/// Takes the registration away, then lets the object go.
///
/// # Errors
///
/// Those of the API server.
pub(super) async fn pass(
    ctx: &Arc<Context>,
    webhook: Arc<Webhook>,
    memory: &MemoryCell,
) -> Result<Next, PassError> {
    let recorded = Recorded::read(&webhook, &ctx.key);
    if !recorded.may_have_written {
        return Ok(None);
    }
    let key = ProviderKey::of(webhook.provider_ref(), &webhook.namespace().unwrap_or_default());
    let provider = ctx.provider(&key);
    if let Some(left) = pause(memory)
        && !(memory.with(|memory| memory.no_account)
            && reach(ctx, &webhook, &recorded, &key, provider.as_ref())
                .await
                .is_ok())
    {
        return Ok(Some(left));
    }
    if let Some(provider) = provider
        .as_ref()
        .filter(|provider| !is_left_alone(&webhook, Some(provider)))
        && let Some(held) = breaker::held(ctx, provider, &webhook)
    {
        return hold_back(ctx, &webhook, memory, held).await;
    }
    let outcome = match reach(ctx, &webhook, &recorded, &key, provider.as_ref()).await {
        Ok(Reach::Account(account)) => {
            let mut stopping = ctx.stopping.clone();
            let turn = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return Ok(None),
                turn = account.turns.take(Priority::Change) => turn,
            };
            // While it waited the upstream may have refused the credentials to others.
            let outcome = match account.admit() {
                Ok(()) => dismiss(ctx, &webhook, &recorded, &account, provider.as_ref(), memory).await,
                Err(_) => Err(Trouble::refused()),
            };
            drop(turn);
            outcome
        }
        Ok(Reach::NotNeeded) => {
            let timeout = provider
                .as_ref()
                .map(|provider| provider.settings().timeout.get());
            let grace = timeout.unwrap_or_default() + MARK_GRACE;
            Ok(wait_for_left_create(&recorded, ctx.clock.now(), grace)
                .map_or(Outcome::Untouched, Outcome::NotYet))
        }
        Err(trouble) => Err(trouble),
    };
    match outcome {
        Ok(Outcome::NotYet(wait)) => Ok(Some(wait.min(MARK_RECHECK))),
        Ok(Outcome::Held(held)) => hold_back(ctx, &webhook, memory, held).await,
        Ok(outcome) => {
            if let (Some(provider), Some(target)) = (&provider, webhook.spec.target())
                && matches!(outcome, Outcome::LeftInPlace(_) | Outcome::Untouched)
            {
                let registered = webhook.status.as_ref().and_then(|status| status.url.as_deref());
                let urls = [Some(webhook.spec.url.as_str()), registered];
                released::remember(ctx, provider, target, urls.into_iter().flatten()).await?;
            }
            tell(ctx, &webhook, &recorded, &outcome).await;
            release(ctx, &webhook, memory).await
        }
        Err(trouble) => struggle(ctx, webhook, &recorded, memory, trouble).await,
    }
}

/// What is left of the pause after a failed attempt.
fn pause(memory: &MemoryCell) -> Option<Duration> {
    let (hold, failed) = memory.with(|memory| (memory.hold.clone(), memory.farewell.is_some()));
    let until = hold?.0.filter(|_| failed)?;
    Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

enum Reach {
    Account(Arc<Account>),
    /// The policy leaves the registration alone: no account is needed.
    NotNeeded,
}

/// Whether the registration is left as it is, by the policy or because no call may be made.
fn is_left_alone(webhook: &Webhook, provider: Option<&ProviderObject>) -> bool {
    webhook.spec.suspend
        || provider.is_some_and(|provider| provider.settings().suspend)
        || webhook.spec.deletion_policy == DeletionPolicy::Orphan
}

async fn reach(
    ctx: &Context,
    webhook: &Webhook,
    recorded: &Recorded,
    key: &ProviderKey,
    provider: Option<&ProviderObject>,
) -> Result<Reach, Trouble> {
    if is_left_alone(webhook, provider) && recorded.may_have_written {
        return Ok(Reach::NotNeeded);
    }
    if let Some(unread) = provider.and_then(ProviderObject::unread) {
        // Not what was known before either: it may be that the new words are to keep from just this call.
        return Err(Trouble::no_account(format!(
            "{} {:?}: {unread}",
            key.kind_name(),
            key.name
        )));
    }
    let account = match provider {
        Some(provider) => ctx
            .accounts
            .get(ctx, provider)
            .await
            .map_err(|problem| problem.to_string()),
        None => Err(format!("{} {:?} not found", key.kind_name(), key.name)),
    };
    let account = match account {
        Ok(account) => account,
        Err(message) => match ctx.accounts.last_known(key).await {
            // Nobody could count it, and nobody could confirm it: what is left is told in the end.
            Some(account) if account.limited && provider.is_none() => {
                return Err(Trouble::no_account(format!(
                    "{message}, and it limited deletions (spec.deletionLimit)"
                )));
            }
            // The Secret went first; what this process still knows is good enough to clean up with.
            Some(account) => account,
            None => return Err(Trouble::no_account(message)),
        },
    };
    match account.refused_until() {
        None => Ok(Reach::Account(account)),
        Some(_) => Err(Trouble::refused()),
    }
}

/// How it ended.
enum Outcome {
    /// Nothing was ever registered, or it is gone.
    Gone,
    /// Switched off and kept.
    SwitchedOff(Vec<RemoteId>),
    /// Left as it was, by policy or because it was suspended.
    Untouched,
    /// The upstream cannot remove it.
    LeftInPlace(Vec<RemoteId>),
    /// A create or an update that was sent may still take effect: not yet.
    NotYet(Duration),
    /// The provider's limit holds it back.
    Held(Held),
}

/// Adds up for how long the upstream is waited for: that counts towards the deadline, unlike the operator's own queue
/// and budget.
struct Stopwatch<'a> {
    told: &'a dyn Observer,
    calls: Mutex<Duration>,
}

impl Stopwatch<'_> {
    fn read(&self) -> Duration {
        // A duration cannot be torn.
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Stopwatch<'_> {
    fn request(&self, provider_type: ProviderType, operation: Operation, code: &str, took: Duration) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) += took;
        self.told.request(provider_type, operation, code, took);
    }

    fn throttled(&self, provider_type: ProviderType, waited: Duration) {
        self.told.throttled(provider_type, waited);
    }

    fn standing(&self, account: &Account, standing: Standing) {
        self.told.standing(account, standing);
    }
}

async fn dismiss(
    ctx: &Context,
    webhook: &Webhook,
    recorded: &Recorded,
    account: &Account,
    provider: Option<&ProviderObject>,
    memory: &MemoryCell,
) -> Result<Outcome, Trouble> {
    let failures = memory.with(|memory| memory.farewell.map_or(0, |patience| patience.attempts()));
    let call = ctx.call(account, Instant::now(), failures);
    let stopwatch = Stopwatch {
        told: call.observer,
        calls: Mutex::default(),
    };
    let call = Call {
        observer: &stopwatch,
        ..call
    };
    let outcome = take_away(ctx, webhook, recorded, &call, provider, memory).await;
    outcome.map_err(|trouble| Trouble {
        calls: stopwatch.read(),
        ..trouble
    })
}

async fn take_away(
    ctx: &Context,
    webhook: &Webhook,
    recorded: &Recorded,
    call: &Call<'_>,
    provider: Option<&ProviderObject>,
    memory: &MemoryCell,
) -> Result<Outcome, Trouble> {
    let account = call.account;
    let upstream = Upstream::from(account.provider_type);
    let capabilities = upstream.capabilities();
    let same = rivals::same_account(ctx, account).await;
    let held = |id: &RemoteId| rivals::is_held_by_others(ctx, webhook, &same, id);
    let events: BTreeSet<String> = webhook.spec.events.iter().cloned().collect();
    let mut all = None;
    loop {
        let retirement = Retirement {
            capabilities,
            recorded,
            target: webhook.spec.target(),
            url: &webhook.spec.url,
            events: &events,
            policy: webhook.spec.deletion_policy,
            suspended: false,
            key: &ctx.key,
            held_by_others: &held,
            all: all.as_ref(),
        };
        if let Some(wait) = wait_for_create(&retirement, ctx.clock.now(), account.timeout + MARK_GRACE) {
            return Ok(Outcome::NotYet(wait));
        }
        // What is switched off stays there, and a late update would switch it on again.
        let doubt = memory
            .with(|memory| memory.in_doubt)
            .max(inherited(webhook, memory, account, capabilities))
            .filter(|_| capabilities.switch);
        let left = doubt.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok(Outcome::NotYet(left));
        }
        match farewell(&retirement) {
            Farewell::Nothing => return Ok(Outcome::Gone),
            Farewell::Leave(_) => return Ok(Outcome::Untouched),
            Farewell::Look(look) => match upstream.look(call, &look).await? {
                Seen::All(list) => all = Some(list),
                Seen::One(_) | Seen::CannotKnow => return Ok(Outcome::Gone),
            },
            Farewell::SwitchOff(_) | Farewell::Remove(_)
                if !publish::is_current(ctx, webhook)
                    .await
                    .map_err(|_| api_failed())? =>
            {
                return Ok(Outcome::NotYet(STALE_RECHECK));
            }
            Farewell::SwitchOff(id) if memory.with(|memory| memory.is_off) => {
                return Ok(switched_off(webhook, memory, account, vec![id]));
            }
            Farewell::Remove(ids) if memory.with(|memory| memory.is_off) => {
                return Ok(switched_off(webhook, memory, account, ids));
            }
            Farewell::SwitchOff(id) => {
                let call = match allowed(ctx, webhook, provider, memory, call, 1).await? {
                    Ok(call) => call,
                    Err(held) => return Ok(Outcome::Held(held)),
                };
                let want = last_wanted(ctx, webhook, upstream).await;
                let off = upstream.switch_off(&call, &id, want.as_ref()).await;
                return Ok(match note_late(memory, account, off)? {
                    Removal::LeftInPlace => Outcome::LeftInPlace(vec![id]),
                    Removal::AlreadyGone => Outcome::Gone,
                    Removal::Removed | Removal::SwitchedOff => {
                        switched_off(webhook, memory, account, vec![id])
                    }
                });
            }
            Farewell::Remove(ids) => {
                let removals = if account.can_remove(capabilities) {
                    ids.len()
                } else {
                    0
                };
                let call = match allowed(ctx, webhook, provider, memory, call, removals).await? {
                    Ok(call) => call,
                    Err(held) => return Ok(Outcome::Held(held)),
                };
                return remove(ctx, webhook, memory, upstream, &call, ids).await;
            }
        }
    }
}

/// It is off. An earlier call for that, which had no answer, may still come, and would switch off what the next Webhook
/// of the same target writes: until then this one stays.
fn switched_off(webhook: &Webhook, memory: &MemoryCell, account: &Account, ids: Vec<RemoteId>) -> Outcome {
    memory.with(|memory| memory.is_off = true);
    let late = late_switch(webhook, memory, account);
    let left = late.map(|until| until.saturating_duration_since(Instant::now()));
    match left.filter(|left| !left.is_zero()) {
        Some(left) => Outcome::NotYet(left),
        None => Outcome::SwitchedOff(ids),
    }
}

fn api_failed() -> Trouble {
    Trouble {
        message: "the API server failed".to_owned(),
        asked: None,
        ours: true,
        no_account: false,
        calls: Duration::ZERO,
    }
}

/// The call with which so many registrations may be removed now, unless the provider's limit holds that back.
async fn allowed<'a>(
    ctx: &Context,
    webhook: &Webhook,
    provider: Option<&ProviderObject>,
    memory: &MemoryCell,
    call: &Call<'a>,
    removals: usize,
) -> Result<Result<Call<'a>, Held>, Trouble> {
    let Some(provider) = provider.filter(|_| removals > 0) else {
        return Ok(Ok(*call));
    };
    match breaker::ask(ctx, provider, webhook, memory, removals).await {
        Ok(Verdict::Go(not_after)) => Ok(Ok(Call { not_after, ..*call })),
        Ok(Verdict::Held(held)) => Ok(Err(held)),
        Err(error) => {
            tracing::warn!(name = webhook.name_any(), %error, "the removal could not be counted; it is tried again");
            Err(api_failed())
        }
    }
}

/// Says that the removal is held back. Nothing is tried and no deadline runs until it is confirmed; whoever handles
/// the confirmation wakes this object.
async fn hold_back(
    ctx: &Context,
    webhook: &Webhook,
    memory: &MemoryCell,
    held: Held,
) -> Result<Next, PassError> {
    memory.with(|memory| {
        memory.farewell = None;
        memory.no_account = false;
        memory.hold = None;
    });
    let assessment = Assessment::deletion_held(held.message);
    let change = |status: &mut WebhookStatus| status.deletion_held = Some(held.status);
    match write_status(ctx, memory, webhook, assessment, change).await {
        Ok(written) => {
            let key = ProviderKey::of(written.provider_ref(), &written.namespace().unwrap_or_default());
            let provider = ctx.provider(&key);
            let provider_type = provider.map_or("unknown", |provider| provider.settings().type_name());
            publish::sample(ctx, &written, provider_type);
            Ok(Some(RESYNC))
        }
        Err(PublishError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn remove(
    ctx: &Context,
    webhook: &Webhook,
    memory: &MemoryCell,
    upstream: Upstream,
    call: &Call<'_>,
    ids: Vec<RemoteId>,
) -> Result<Outcome, Trouble> {
    let want = last_wanted(ctx, webhook, upstream).await;
    let mut left = Vec::new();
    let mut off = Vec::new();
    for id in ids {
        if upstream.capabilities().target == TargetRule::Use
            && let Some(usage) = usage(webhook.spec.target())
        {
            upstream.stop_using(call, &id, &usage).await?;
        }
        // Where it cannot be removed it is switched off.
        let removed = upstream.remove(call, &id, want.as_ref()).await;
        match note_late(memory, call.account, removed)? {
            Removal::Removed | Removal::AlreadyGone => {}
            Removal::SwitchedOff => off.push(id),
            Removal::LeftInPlace => left.push(id),
        }
    }
    Ok(if !left.is_empty() {
        Outcome::LeftInPlace(left)
    } else if off.is_empty() {
        Outcome::Gone
    } else {
        switched_off(webhook, memory, call.account, off)
    })
}

/// What was registered, as far as it can still be resolved: an upstream may want the whole object to switch it off.
async fn last_wanted(ctx: &Context, webhook: &Webhook, upstream: Upstream) -> Option<Desired> {
    resolve::resolve(ctx, webhook, upstream.capabilities(), None)
        .await
        .ok()
}

async fn tell(ctx: &Context, webhook: &Webhook, recorded: &Recorded, outcome: &Outcome) {
    let id = || recorded.id.as_ref().map_or("unknown", |(id, _)| id.0.as_str());
    match outcome {
        Outcome::Gone | Outcome::NotYet(_) | Outcome::Held(_) => {}
        Outcome::SwitchedOff(ids) => {
            let note = format!(
                "registration {} was switched off and stays at the upstream",
                join(ids)
            );
            event(ctx, webhook, EventType::Normal, "SwitchedOff", &note, "Delete").await;
        }
        Outcome::Untouched => match webhook.spec.undecided() {
            Some(unread) => {
                let why = format!("spec.{}: {}", unread.field, unread.fault());
                left_in_place(ctx, webhook, id(), &why).await;
            }
            None => {
                let note = format!(
                    "registration {} was left at the upstream as it is (deletionPolicy Orphan, or suspended)",
                    id()
                );
                event(ctx, webhook, EventType::Normal, "Orphaned", &note, "Delete").await;
            }
        },
        Outcome::LeftInPlace(ids) => {
            left_in_place(ctx, webhook, &join(ids), "the upstream has no call to remove it").await;
        }
    }
}

fn join(ids: &[RemoteId]) -> String {
    ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(", ")
}

async fn left_in_place(ctx: &Context, webhook: &Webhook, ids: &str, why: &str) {
    let note = format!(
        "registration {ids} for {} is still at the upstream: {why}; remove it there by hand",
        webhook.spec.url
    );
    tracing::warn!(
        namespace = webhook.namespace().unwrap_or_default(),
        name = webhook.name_any(),
        note,
        "left in place"
    );
    event(ctx, webhook, EventType::Warning, "LeftInPlace", &note, "Delete").await;
    let key = ProviderKey::of(webhook.provider_ref(), &webhook.namespace().unwrap_or_default());
    let provider_type = ctx
        .provider(&key)
        .map_or("unknown", |provider| provider.settings().type_name());
    ctx.metrics.left_in_place(provider_type);
}

async fn release(ctx: &Context, webhook: &Webhook, memory: &MemoryCell) -> Result<Next, PassError> {
    match write_journal(ctx, memory, webhook, &Journal::Released).await {
        Ok(_) | Err(PublishError::Gone) => {
            rivals::wake_rivals(ctx, webhook);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// It did not work. Tried again until the deadline, then let go.
async fn struggle(
    ctx: &Arc<Context>,
    webhook: Arc<Webhook>,
    recorded: &Recorded,
    memory: &MemoryCell,
    trouble: Trouble,
) -> Result<Next, PassError> {
    let uid = webhook.uid().unwrap_or_default();
    if trouble.ours {
        return Ok(Some(backoff::delay(1, schedule::seed(&uid))));
    }
    let deadline = ctx.settings.deletion_deadline;
    let mut patience = memory.with(|memory| memory.farewell).unwrap_or_default();
    patience.fail(trouble.calls);
    if patience.is_over(deadline) {
        let id = recorded
            .id
            .as_ref()
            .map_or("(id unknown)", |(id, _)| id.0.as_str());
        left_in_place(ctx, &webhook, id, &trouble.message).await;
        return release(ctx, &webhook, memory).await;
    }
    let delay = backoff::delay(patience.attempts(), schedule::seed(&uid));
    let wait = patience.wait(delay, trouble.asked, deadline);
    memory.with(|memory| {
        memory.farewell = Some(patience);
        memory.no_account = trouble.no_account;
        memory.hold = Some((Some(Instant::now() + wait), String::new()));
    });
    let message = format!(
        "its registration could not be removed yet: {}; tried again until it works, or let go with an Event after {} s",
        trouble.message,
        deadline.as_secs()
    );
    match write_status(ctx, memory, &webhook, Assessment::deleting(message), |_| {}).await {
        Ok(_) | Err(PublishError::Conflict) => Ok(Some(wait)),
        Err(PublishError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
