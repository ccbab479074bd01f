//! One pass over a Webhook that is being deleted. It always ends: with the registration removed, or after a
//! deadline with an Event that names what is left.

mod removal;

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};
use tokio::time::Instant;

use self::removal::{Outcome, dismiss};
use super::{
    act::MARK_GRACE,
    breaker::{self, Held},
    context::{Context, ProviderObject},
    memory::MemoryCell,
    publish::{self, Journal, PublishError, event, write_journal, write_status},
    reconcile::{Next, PassError},
    released, rivals,
};
use crate::{
    api::{Webhook, WebhookStatus, webhook::DeletionPolicy},
    domain::{
        backoff, owner::ProviderKey, provider_status::RESYNC, recorded::Recorded, remote::RemoteId,
        retire::wait_for_left_create, schedule, status::Assessment,
    },
    provider::{Account, ErrorClass, Priority, ProviderError},
};

/// How often a create of unknown outcome is looked for while the object waits to go.
const MARK_RECHECK: Duration = Duration::from_secs(5);

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
