//! Which other Webhooks mean the same registration: asked before anything is written, through the index.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::context::Context;
use crate::{
    api::{
        Webhook,
        conditions::{self, ConditionType, ReadyReason, Reason},
    },
    domain::{
        capabilities::{Capabilities, Identity, TargetRule},
        claim::{Claimant, conflict_message, winner_over},
        owner::ProviderKey,
        recorded::Recorded,
        remote::RemoteId,
        status::is_settled,
    },
    provider::Account,
};

/// The provider objects that stand for one account at one upstream: most often just one.
pub(super) type SameAccount = HashSet<ProviderKey>;

/// All provider objects whose account is `account`.
pub(super) async fn same_account(ctx: &Context, account: &Account) -> SameAccount {
    let mut same = SameAccount::from([account.owner.clone()]);
    for provider in ctx.providers() {
        let settings = provider.settings();
        if settings.is_unread("type")
            || settings.type_ != account.provider_type
            || provider.key() == account.owner
        {
            continue;
        }
        let base = settings
            .base_url()
            .and_then(|text| super::accounts::base_url(settings.type_, text).ok());
        if base.as_deref() != Some(account.base.as_str()) {
            continue;
        }
        // One that cannot be used holds nothing that it could write.
        if ctx
            .accounts
            .known(ctx, &provider)
            .await
            .is_some_and(|other| other.credentials.scope() == account.credentials.scope())
        {
            same.insert(provider.key());
        }
    }
    same
}

/// Another Webhook in its newest form.
fn newest(ctx: &Context, other: Arc<Webhook>) -> Arc<Webhook> {
    match other.uid().and_then(|uid| ctx.memories.get(&uid)) {
        Some(memory) => memory.newest(other),
        None => other,
    }
}

fn others(ctx: &Context, me: &Webhook, same: &SameAccount, capabilities: &Capabilities) -> Vec<Arc<Webhook>> {
    let spec = &me.spec;
    let mut references = match capabilities.identity {
        Identity::ByTarget => spec
            .target()
            .map(|target| ctx.index.by_target(target))
            .unwrap_or_default(),
        Identity::Assigned => ctx.index.by_url(&spec.url),
    };
    let events: BTreeSet<&String> = spec.events.iter().collect();
    let by_use = capabilities.target == TargetRule::Use && spec.target().is_some();
    if by_use {
        references.extend(
            spec.target()
                .map(|target| ctx.index.by_target(target))
                .unwrap_or_default(),
        );
    }
    references
        .into_iter()
        .filter_map(|reference| ctx.caches.webhooks.get(&reference))
        .filter(|other| other.uid() != me.uid())
        .map(|other| newest(ctx, other))
        .filter(|other| {
            let key = ProviderKey::of(other.provider_ref(), &other.namespace().unwrap_or_default());
            let same_content = || other.spec.events.iter().collect::<BTreeSet<_>>() == events;
            let same_use = by_use && other.spec.target() == spec.target();
            same.contains(&key) && (capabilities.identity == Identity::ByTarget || same_use || same_content())
        })
        .collect()
}

fn claimant(ctx: &Context, webhook: &Webhook, at_work: &HashSet<String>) -> Claimant {
    let recorded = Recorded::read(webhook, &ctx.key);
    let uid = webhook.uid().unwrap_or_default();
    Claimant {
        namespace: webhook.namespace().unwrap_or_default(),
        name: webhook.name_any(),
        at_work: recorded.mark.is_some() || at_work.contains(&uid),
        uid,
        created: webhook
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MAX, |time| time.0),
        holds: recorded.trusted_id().is_some(),
        settled: webhook
            .status
            .as_ref()
            .is_some_and(|status| is_settled(status, webhook.metadata.generation.unwrap_or_default())),
    }
}

/// What keeps `me` from its registration: another Webhook that goes before it.
pub(super) fn conflict(
    ctx: &Context,
    me: &Webhook,
    same: &SameAccount,
    capabilities: &Capabilities,
) -> Option<String> {
    conflict_among(ctx, me, same, capabilities, &ctx.claims.lock())
}

fn conflict_among(
    ctx: &Context,
    me: &Webhook,
    same: &SameAccount,
    capabilities: &Capabilities,
    at_work: &HashSet<String>,
) -> Option<String> {
    let rivals: Vec<Claimant> = others(ctx, me, same, capabilities)
        .iter()
        .map(|other| claimant(ctx, other, at_work))
        .collect();
    let me = claimant(ctx, me, at_work);
    winner_over(&me, &rivals).map(|winner| conflict_message(&me, winner))
}

/// The uids of Webhooks that have found that they go before all others, and write now.
#[derive(Debug, Default)]
pub struct Claims(Mutex<HashSet<String>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of texts cannot be torn.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Webhook goes before all others until this is dropped.
pub(super) struct Claim {
    ctx: Arc<Context>,
    webhook: Arc<Webhook>,
}

/// Asks as [`conflict`] does, and in the same moment lets everybody who asks later come after `me`: of two that mean the
/// same both may be on their way to write it, and the second one, seen late, may be the older.
pub(super) fn claim(
    ctx: &Arc<Context>,
    me: &Arc<Webhook>,
    same: &SameAccount,
    capabilities: &Capabilities,
) -> Result<Claim, String> {
    let mut at_work = ctx.claims.lock();
    if let Some(message) = conflict_among(ctx, me, same, capabilities, &at_work) {
        return Err(message);
    }
    at_work.insert(me.uid().unwrap_or_default());
    Ok(Claim {
        ctx: Arc::clone(ctx),
        webhook: Arc::clone(me),
    })
}

impl Drop for Claim {
    fn drop(&mut self) {
        let ctx = &self.ctx;
        ctx.claims.lock().remove(&self.webhook.uid().unwrap_or_default());
        // What it wrote, if anything, is recorded by now: else somebody may have stepped back for nothing.
        let me = claimant(ctx, &newest(ctx, Arc::clone(&self.webhook)), &HashSet::new());
        if !me.holds && !me.at_work {
            wake(ctx, &self.webhook, is_refused);
        }
    }
}

/// Whether another Webhook of the account has recorded this id.
pub(super) fn is_held_by_others(ctx: &Context, me: &Webhook, same: &SameAccount, id: &RemoteId) -> bool {
    ctx.index
        .by_id(&id.0)
        .into_iter()
        .filter_map(|reference| ctx.caches.webhooks.get(&reference))
        .filter(|other| other.uid() != me.uid())
        .map(|other| newest(ctx, other))
        .any(|other| {
            let key = ProviderKey::of(other.provider_ref(), &other.namespace().unwrap_or_default());
            same.contains(&key) && Recorded::read(&other, &ctx.key).trusted_id() == Some(id)
        })
}

/// Wakes those that wait for what `gone` held, or holds no more. Their refusal is no reason to wait any longer.
pub(super) fn wake_rivals(ctx: &Context, gone: &Webhook) {
    wake(ctx, gone, |_| true);
}

/// Wakes those others that mean what `gone` meant or had, and for which `whom` is true.
fn wake(ctx: &Context, gone: &Webhook, whom: fn(&Webhook) -> bool) {
    let target = gone
        .spec
        .target()
        .map(|target| ctx.index.by_target(target))
        .unwrap_or_default();
    let registered = gone.status.as_ref().and_then(|status| status.url.as_deref());
    let urls = [Some(gone.spec.url.as_str()), registered];
    let same_url = urls.into_iter().flatten().flat_map(|url| ctx.index.by_url(url));
    for reference in same_url.chain(target) {
        let Some(other) = ctx
            .caches
            .webhooks
            .get(&reference)
            .filter(|other| other.uid() != gone.uid())
        else {
            continue;
        };
        let uid = other.uid().unwrap_or_default();
        let other = newest(ctx, other);
        if !whom(&other) {
            continue;
        }
        if is_refused(&other)
            && let Some(memory) = ctx.memories.get(&uid)
        {
            memory.with(|memory| memory.hold = None);
        }
        // The receiver is gone only when the process ends.
        let _ = ctx.wake.webhooks.send(reference);
    }
}

fn is_refused(webhook: &Webhook) -> bool {
    let ready = webhook
        .status
        .as_ref()
        .and_then(|status| conditions::find(&status.conditions, ConditionType::Ready));
    ready.is_some_and(|ready| ready.reason == ReadyReason::Conflict.as_str())
}
