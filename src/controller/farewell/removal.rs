//! Takes away what a Webhook leaves at its upstream, as far as the upstream and the provider's limit let it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::ResourceExt;
use tokio::time::Instant;

use super::Trouble;
use crate::{
    api::{Webhook, provider::ProviderType},
    controller::{
        act::MARK_GRACE,
        breaker::{self, Held, Verdict},
        conclude::usage,
        context::{Context, ProviderObject},
        doubt::{inherited, late_switch, note_late},
        memory::MemoryCell,
        publish, resolve, rivals,
    },
    domain::{
        capabilities::TargetRule,
        desired::Desired,
        recorded::Recorded,
        remote::{RemoteId, Seen},
        retire::{Farewell, Retirement, farewell, wait_for_create},
    },
    provider::{Account, Call, Observer, Operation, Provider, Removal, Standing, Upstream},
};

/// How long the cache is given to come up to date.
const STALE_RECHECK: Duration = Duration::from_secs(1);

/// How it ended.
pub(super) enum Outcome {
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

pub(super) async fn dismiss(
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
