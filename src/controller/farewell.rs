//! One pass over a Webhook that is being deleted. It always ends: with the registration removed, or after a
//! deadline with an Event that names what is left.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use super::{
    act::MARK_GRACE,
    breaker::{self, Held, Verdict},
    conclude::usage,
    context::{Context, ProviderObject},
    memory::MemoryCell,
    publish::{self, Journal, PublishError, event, write_journal, write_status},
    reconcile::{Next, PassError},
    released, resolve, rivals,
};
use crate::{
    api::{Webhook, WebhookStatus, webhook::DeletionPolicy},
    domain::{
        backoff,
        capabilities::TargetRule,
        desired::Desired,
        owner::ProviderKey,
        provider_status::RESYNC,
        recorded::Recorded,
        remote::{RemoteId, Seen},
        retire::{Farewell, Retirement, farewell, wait_for_create},
        schedule,
        status::Assessment,
    },
    provider::{Account, Call, ErrorClass, Priority, Provider, ProviderError, Removal, Upstream},
};

/// Attempts that are made in any case.
const LEAST_ATTEMPTS: u32 = 3;

/// How often a create of unknown outcome is looked for while the object waits to go.
const MARK_RECHECK: Duration = Duration::from_secs(5);

/// Why it takes longer than one pass.
struct Trouble {
    message: String,
    /// How long the upstream asked to wait, which does not count against the deadline.
    asked: Option<Duration>,
    /// Not the upstream's doing: does not count at all.
    ours: bool,
}

impl From<ProviderError> for Trouble {
    fn from(error: ProviderError) -> Self {
        Self {
            ours: error.class == ErrorClass::Held,
            asked: error.retry_after,
            message: error.message,
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
    let now = Instant::now();
    if let Some((Some(until), _)) = memory.with(|memory| memory.hold.clone())
        && memory.with(|memory| memory.farewell.is_some())
        && until > now
    {
        return Ok(Some(until - now));
    }
    let provider = ctx.provider(&key);
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
                turn = account.turns.take(Priority::Change) => turn,
                _ = stopping.wait_for(|stop| *stop) => return Ok(None),
            };
            let _worker = ctx.workers.acquire().await.ok();
            let outcome = dismiss(ctx, &webhook, &recorded, &account, provider.as_ref(), memory).await;
            drop(turn);
            outcome
        }
        Ok(Reach::NotNeeded) => Ok(Outcome::Untouched),
        Err(trouble) => Err(trouble),
    };
    match outcome {
        Ok(Outcome::NotYet(wait)) => Ok(Some(wait.min(MARK_RECHECK))),
        Ok(Outcome::Held(held)) => hold_back(ctx, &webhook, memory, held).await,
        Ok(outcome) => {
            tell(ctx, &webhook, &recorded, &outcome).await;
            if let (Some(provider), Some(target)) = (&provider, webhook.spec.target())
                && matches!(outcome, Outcome::LeftInPlace(_) | Outcome::Untouched)
            {
                released::remember(ctx, provider, target, &webhook.spec.url).await;
            }
            release(ctx, &webhook, memory).await
        }
        Err(trouble) => struggle(ctx, webhook, &recorded, memory, trouble).await,
    }
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
    let account = match provider {
        Some(provider) => ctx
            .accounts
            .get(ctx, provider)
            .await
            .map_err(|problem| problem.to_string()),
        None => Err(format!("{} {:?} not found", key.kind_name(), key.name)),
    };
    match account {
        Ok(account) => match account.admit() {
            Ok(()) => Ok(Reach::Account(account)),
            Err(_) => {
                let message = "the upstream refused the provider's credentials".to_owned();
                Err(Trouble {
                    message,
                    asked: None,
                    ours: false,
                })
            }
        },
        Err(message) => match ctx.accounts.last_known(key).await {
            // Nobody could count it, and nobody could confirm it: what is left is told in the end.
            Some(account) if account.limited && provider.is_none() => {
                let message = format!("{message}, and it limited deletions (spec.deletionLimit)");
                Err(Trouble {
                    message,
                    asked: None,
                    ours: false,
                })
            }
            // The Secret went first; what this process still knows is good enough to clean up with.
            Some(account) => Ok(Reach::Account(account)),
            None => Err(Trouble {
                message,
                asked: None,
                ours: false,
            }),
        },
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
    /// A create that was sent may still take effect: not yet.
    NotYet(Duration),
    /// The provider's limit holds it back.
    Held(Held),
}

async fn dismiss(
    ctx: &Context,
    webhook: &Webhook,
    recorded: &Recorded,
    account: &Account,
    provider: Option<&ProviderObject>,
    memory: &MemoryCell,
) -> Result<Outcome, Trouble> {
    let upstream = Upstream::from(account.provider_type);
    let capabilities = upstream.capabilities();
    let same = rivals::same_account(ctx, account).await;
    let held = |id: &RemoteId| rivals::is_held_by_others(ctx, webhook, &same, id);
    let events: BTreeSet<String> = webhook.spec.events.iter().cloned().collect();
    let call = ctx.call(account, Instant::now());
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
        match farewell(&retirement) {
            Farewell::Nothing => return Ok(Outcome::Gone),
            Farewell::Leave(_) => return Ok(Outcome::Untouched),
            Farewell::Look(look) => match upstream.look(&call, &look).await? {
                Seen::All(list) => all = Some(list),
                Seen::One(_) | Seen::CannotKnow => return Ok(Outcome::Gone),
            },
            Farewell::SwitchOff(id) => {
                let call = match allowed(ctx, webhook, provider, memory, &call, 1).await? {
                    Ok(call) => call,
                    Err(held) => return Ok(Outcome::Held(held)),
                };
                let want = last_wanted(ctx, webhook, upstream).await;
                return Ok(match upstream.switch_off(&call, &id, want.as_ref()).await? {
                    Removal::LeftInPlace => Outcome::LeftInPlace(vec![id]),
                    Removal::AlreadyGone => Outcome::Gone,
                    Removal::Removed | Removal::SwitchedOff => Outcome::SwitchedOff(vec![id]),
                });
            }
            Farewell::Remove(ids) => {
                let removals = if account.can_remove(capabilities) {
                    ids.len()
                } else {
                    0
                };
                let call = match allowed(ctx, webhook, provider, memory, &call, removals).await? {
                    Ok(call) => call,
                    Err(held) => return Ok(Outcome::Held(held)),
                };
                return remove(ctx, webhook, upstream, &call, ids).await;
            }
        }
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
            Err(Trouble {
                message: "the API server failed".to_owned(),
                asked: None,
                ours: true,
            })
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
        memory.hold = None;
    });
    let assessment = Assessment::deletion_held(held.message);
    let change = |status: &mut WebhookStatus| status.deletion_held = Some(held.status);
    match write_status(ctx, memory, webhook, assessment, change).await {
        Ok(written) => {
            let key = ProviderKey::of(written.provider_ref(), &written.namespace().unwrap_or_default());
            let provider = ctx.provider(&key);
            let provider_type = provider.map_or("unknown", |provider| provider.settings().type_.as_str());
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
        match upstream.remove(call, &id, want.as_ref()).await? {
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
        Outcome::SwitchedOff(off)
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
        Outcome::Untouched => {
            let note = format!(
                "registration {} was left at the upstream as it is (deletionPolicy Orphan, or suspended)",
                id()
            );
            event(ctx, webhook, EventType::Normal, "Orphaned", &note, "Delete").await;
        }
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
        .map_or("unknown", |provider| provider.settings().type_.as_str());
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
    let now = Instant::now();
    let (began, attempts) = memory.with(|memory| {
        let (began, attempts) = memory.farewell.unwrap_or((now, 0));
        // A wait that the upstream asked for is not held against it.
        let began = trouble.asked.map_or(began, |asked| began + asked);
        memory.farewell = Some((began, attempts.saturating_add(1)));
        (began, attempts.saturating_add(1))
    });
    if attempts >= LEAST_ATTEMPTS && now.saturating_duration_since(began) >= ctx.settings.deletion_deadline {
        let id = recorded
            .id
            .as_ref()
            .map_or("(id unknown)", |(id, _)| id.0.as_str());
        left_in_place(ctx, &webhook, id, &trouble.message).await;
        return release(ctx, &webhook, memory).await;
    }
    let delay = backoff::delay(attempts, schedule::seed(&uid));
    let left = ctx
        .settings
        .deletion_deadline
        .saturating_sub(now.saturating_duration_since(began));
    // The last attempt falls on the deadline, not minutes behind it.
    let wait = match trouble.asked {
        Some(asked) => asked.max(delay),
        None if attempts >= LEAST_ATTEMPTS => delay.min(left),
        None => delay,
    };
    memory.with(|memory| memory.hold = Some((Some(now + wait), String::new())));
    let message = format!(
        "its registration could not be removed yet: {}; tried again until it works, or let go with an Event after {} s",
        trouble.message,
        ctx.settings.deletion_deadline.as_secs()
    );
    match write_status(ctx, memory, &webhook, Assessment::deleting(message), |_| {}).await {
        Ok(_) | Err(PublishError::Conflict) => Ok(Some(wait)),
        Err(PublishError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
