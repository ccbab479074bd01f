//! Asks the breaker before each removal: counts it in the provider's status, or says that it is held back.
//!
//! Every call that deletes or switches off goes through `ask`. What is counted is written with the version that it
//! was decided on, before the call is made; so a crash, or a leader that is none any more, makes no call that is not
//! counted. Passes that ask at the same time share one write. The arithmetic is in [`crate::domain::breaker`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use super::{
    context::{Context, ProviderObject},
    memory::MemoryCell,
    providers::store_status,
};
use crate::{
    api::{ApiDuration, CONFIRM_DELETIONS, Webhook, webhook_status::DeletionHeld},
    clock::elapsed,
    domain::{
        breaker::{Counted, Ledger, Limit, is_confirmed},
        owner::ProviderKey,
    },
};

/// How often a write that met a newer version is made again on that one.
const ATTEMPTS: usize = 5;

/// What the breaker says.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The removal may be made, not after this.
    Go(Option<Instant>),
    /// It is held back.
    Held(Held),
}

/// A removal that is held back.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What the Webhook's status remembers of it.
    pub status: DeletionHeld,
    /// What to tell the user.
    pub message: String,
}

/// One who waits to be counted.
struct Asked {
    removals: u32,
    before: Option<Counted>,
    answer: oneshot::Sender<Answer>,
}

/// What becomes of it.
#[derive(Clone, Copy)]
enum Answer {
    Counted(Counted),
    /// That is more than the limit allows.
    TooMany,
    /// The limit was taken away meanwhile.
    NoLimit,
}

/// The breaker of one provider.
#[derive(Default)]
struct Breaker {
    /// The provider as the last write of this process left it; newer than the cache until the watch has delivered it.
    latest: Mutex<Option<ProviderObject>>,
    waiting: Mutex<Vec<Asked>>,
    /// Held by whoever writes, for all who wait.
    writing: tokio::sync::Mutex<()>,
}

/// The breakers of all providers.
#[derive(Default)]
pub struct Breakers(Mutex<HashMap<ProviderKey, Arc<Breaker>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Breakers {
    fn of(&self, key: &ProviderKey) -> Arc<Breaker> {
        Arc::clone(lock(&self.0).entry(key.clone()).or_default())
    }

    /// The newer of the provider as the cache has it and as the last write of this process left it.
    pub(super) fn newest(&self, cached: &ProviderObject) -> ProviderObject {
        let breaker = lock(&self.0).get(&cached.key()).cloned();
        let latest = breaker.and_then(|breaker| lock(&breaker.latest).clone());
        latest
            .filter(|ours| ours.is_ahead_of(cached))
            .unwrap_or_else(|| cached.clone())
    }

    /// Remembers a provider as a write returned it.
    pub(super) fn wrote(&self, provider: &ProviderObject) {
        let breaker = self.of(&provider.key());
        let mut latest = lock(&breaker.latest);
        if latest.as_ref().is_none_or(|ours| !ours.is_ahead_of(provider)) {
            *latest = Some(provider.clone());
        }
    }

    /// The provider is gone.
    pub(super) fn forget(&self, key: &ProviderKey) {
        lock(&self.0).remove(key);
    }

    /// The value of `confirm-deletions` that was handled last.
    pub(super) fn confirmation(&self, provider: &ProviderObject) -> Option<String> {
        let provider = self.newest(provider);
        provider
            .status()
            .and_then(|status| status.last_handled_confirm_deletions.clone())
    }
}

/// Whether a removal of this Webhook is held back already, which costs nothing to find out.
pub(super) fn held(ctx: &Context, provider: &ProviderObject, webhook: &Webhook) -> Option<Held> {
    let provider = ctx.breakers.newest(provider);
    let limit = Limit::of(provider.settings())?;
    let held = webhook.status.as_ref()?.deletion_held.as_ref()?;
    (!is_confirmed(held, handled(&provider))).then(|| Held {
        status: held.clone(),
        message: message(&provider, limit),
    })
}

/// Asks whether so many registrations of a Webhook may be removed now. The answer is good for retries as well.
///
/// # Errors
///
/// Those of the API server.
pub(super) async fn ask(
    ctx: &Context,
    provider: &ProviderObject,
    webhook: &Webhook,
    memory: &MemoryCell,
    removals: usize,
) -> Result<Verdict, kube::Error> {
    let newest = ctx.breakers.newest(provider);
    let Some(limit) = Limit::of(newest.settings()) else {
        return Ok(Verdict::Go(None));
    };
    if let Some(held) = held(ctx, &newest, webhook) {
        return Ok(Verdict::Held(held));
    }
    if webhook
        .status
        .as_ref()
        .is_some_and(|status| status.deletion_held.is_some())
    {
        return Ok(Verdict::Go(None));
    }
    let removals = u32::try_from(removals).unwrap_or(u32::MAX);
    let before = memory.with(|memory| memory.counted);
    if let Some((counted, until)) = before
        && counted.removals >= removals
        && Instant::now() < until
    {
        return Ok(Verdict::Go(Some(until)));
    }
    let breaker = ctx.breakers.of(&newest.key());
    let before = before.map(|(counted, _)| counted);
    match breaker.count(ctx, &newest, removals, before).await? {
        Answer::NoLimit => Ok(Verdict::Go(None)),
        Answer::Counted(counted) => {
            let until = Instant::now() + elapsed(ctx.clock.now(), counted.until);
            memory.with(|memory| memory.counted = Some((counted, until)));
            Ok(Verdict::Go(Some(until)))
        }
        Answer::TooMany => {
            let newest = ctx.breakers.newest(provider);
            let status = DeletionHeld {
                since: Time(ctx.clock.now()),
                confirmation: handled(&newest).map(str::to_owned),
            };
            let message = message(&newest, limit);
            Ok(Verdict::Held(Held { status, message }))
        }
    }
}

/// What was counted for a Webhook was made: the next removal is another one.
pub(super) fn spent(memory: &MemoryCell) {
    memory.with(|memory| memory.counted = None);
}

fn handled(provider: &ProviderObject) -> Option<&str> {
    provider.status()?.last_handled_confirm_deletions.as_deref()
}

fn message(provider: &ProviderObject, limit: Limit) -> String {
    let key = provider.key();
    let window = ApiDuration::from(limit.window);
    format!(
        "the removal of its registration is held back: spec.deletionLimit of {} {:?} lets {} go in {window}; to let all go that are held now, give the annotation {CONFIRM_DELETIONS} there a new value",
        key.kind_name(),
        key.name,
        limit.count
    )
}

impl Breaker {
    /// Counts removals, together with those of all who ask meanwhile.
    async fn count(
        &self,
        ctx: &Context,
        provider: &ProviderObject,
        removals: u32,
        before: Option<Counted>,
    ) -> Result<Answer, kube::Error> {
        loop {
            let (answer, mut answered) = oneshot::channel();
            lock(&self.waiting).push(Asked {
                removals,
                before,
                answer,
            });
            let _writing = self.writing.lock().await;
            match answered.try_recv() {
                Ok(answer) => return Ok(answer),
                // Whoever asked for this one failed, and has told nobody else.
                Err(TryRecvError::Closed) => continue,
                Err(TryRecvError::Empty) => {}
            }
            let batch = std::mem::take(&mut *lock(&self.waiting));
            let answers = write(ctx, provider, &batch).await?;
            for (asked, answer) in batch.into_iter().zip(answers) {
                // Whoever does not wait any more makes no call: what was counted for it counts all the same.
                let _ = asked.answer.send(answer);
            }
            if let Ok(answer) = answered.try_recv() {
                return Ok(answer);
            }
        }
    }
}

/// Counts as much as the limit allows, in one write.
async fn write(
    ctx: &Context,
    provider: &ProviderObject,
    batch: &[Asked],
) -> Result<Vec<Answer>, kube::Error> {
    let mut provider = ctx.breakers.newest(provider);
    let mut attempt = 1;
    loop {
        let Some(limit) = Limit::of(provider.settings()) else {
            return Ok(batch.iter().map(|_| Answer::NoLimit).collect());
        };
        let deletions = provider.status().and_then(|status| status.deletions.as_ref());
        let recent = deletions.map_or(&[][..], |deletions| &deletions.recent);
        let mut ledger = Ledger::read(limit, recent, ctx.clock.now());
        let mut count = |asked: &Asked| {
            ledger
                .take(asked.removals, asked.before)
                .map_or(Answer::TooMany, Answer::Counted)
        };
        let answers: Vec<_> = batch.iter().map(&mut count).collect();
        if answers.iter().all(|answer| matches!(answer, Answer::TooMany)) {
            return Ok(answers);
        }
        let patch = json!({
            "metadata": { "resourceVersion": provider.metadata().resource_version },
            "status": { "deletions": { "recent": ledger.recent() } },
        });
        match store_status(ctx, &provider, &patch).await {
            Ok(Some(written)) => {
                ctx.breakers.wrote(&written);
                return Ok(answers);
            }
            // Gone, or another one of that name by now: reading it tells.
            Ok(None) => {}
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
        provider = read(ctx, &provider).await?;
    }
}

async fn read(ctx: &Context, provider: &ProviderObject) -> Result<ProviderObject, kube::Error> {
    let ProviderKey { namespace, name, .. } = provider.key();
    Ok(match provider {
        ProviderObject::Namespaced(_) => {
            let api = Api::namespaced(ctx.client.clone(), &namespace);
            ProviderObject::Namespaced(Arc::new(api.get(&name).await?))
        }
        ProviderObject::Cluster(_) => {
            let api = Api::all(ctx.client.clone());
            ProviderObject::Cluster(Arc::new(api.get(&name).await?))
        }
    })
}
