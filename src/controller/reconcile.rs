//! One pass over one Webhook: resolve, check, observe, plan, act, publish. This file holds the order of the steps
//! and decides whether the upstream is needed at all; `act.rs` talks to it.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use super::{
    accounts::AccountProblem,
    act::{self, Pass},
    context::{Context, ProviderObject},
    farewell, generated,
    memory::MemoryCell,
    publish::{self, Journal, PublishError, write_journal, write_status},
    resolve::{self, ResolveError},
    rivals, spans,
};
use crate::{
    api::{
        ClusterWebhookProvider, RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT, Webhook, WebhookStatus,
        conditions::{self, ConditionType, ReadyReason, Reason},
        webhook::ProviderKind,
        webhook_status::State,
    },
    clock::elapsed,
    domain::{
        backoff, bounds,
        capabilities::{ReadRule, SecretRule},
        check::{check, check_unread},
        desired::Desired,
        hash::Applied,
        owner::ProviderKey,
        recorded::{Origin, Recorded, made_of},
        schedule,
        status::{Assessment, is_settled},
        testing::Tester,
    },
    entropy::NoEntropy,
    provider::{Account, Finding, Learned, Priority, Provider, Turn, Upstream},
    telemetry::trace::Span,
};

/// How long the watch of Secrets may take to show what was just written.
const WATCH_LAG: Duration = Duration::from_secs(5);

/// Upstreams that cannot be read are written again, but not more often than this.
const REWRITE_INTERVAL: Duration = Duration::from_secs(3600);

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

/// What a pass has to do.
enum Due {
    /// Nothing: neither the object nor the upstream needs a call.
    Nothing,
    /// An earlier attempt failed, and nothing that it depended on has changed.
    Held(Option<Instant>),
    /// A referenced Secret does not resolve.
    Secret(Assessment),
    /// The upstream.
    Act(Priority),
}

/// Whether the upstream is needed, and how urgently. Fills in what is wanted.
async fn due(pass: &mut Pass) -> Result<Due, PassError> {
    let inputs = resolve::inputs(&pass.ctx, &pass.webhook);
    let known = pass
        .memory
        .with(|memory| memory.wanted.clone())
        .filter(|(of, _)| *of == inputs);
    match known {
        Some((_, wanted)) => pass.wanted = wanted,
        None => match pass.want().await {
            Ok(_) if pass.has_read(&inputs) => pass
                .memory
                .with(|memory| memory.wanted = Some((inputs.clone(), pass.wanted.clone()))),
            Ok(_) => pass.memory.with(|memory| memory.wanted = None),
            Err(ResolveError::Kube(error)) => return Err(error.into()),
            Err(ResolveError::Random(error)) => return Err(error.into()),
            Err(ResolveError::Signing(reason, message)) => {
                return Ok(Due::Secret(Assessment::secret(reason, true, message)));
            }
            Err(ResolveError::Other(reason, message)) => {
                return Ok(Due::Secret(Assessment::secret(reason, false, message)));
            }
        },
    }
    let carried_out = pass.is_carried_out();
    pass.inherit_doubt(carried_out);
    pass.in_doubt = pass
        .memory
        .with(|memory| memory.in_doubt.is_some_and(|until| until <= Instant::now()));
    if carried_out {
        pass.probe().await?;
    }
    let held = pass
        .memory
        .with(|memory| memory.hold.clone())
        .filter(|(_, of)| *of == pass.hold_inputs(&inputs));
    let (now, ctx) = (pass.ctx.clock.now(), Arc::clone(&pass.ctx));
    let read_back = pass.memory.with(|memory| memory.read_back);
    let read_back_due = schedule::is_due(&pass.uid(), pass.interval(), read_back, now);
    if let Some((until, _)) = held {
        match until {
            Some(until) if until > Instant::now() => return Ok(Due::Held(Some(until))),
            None => return Ok(Due::Held(None)),
            Some(_) => {}
        }
    }
    let look = pass.rotate(&inputs).await?;
    if !pass.is_carried_out() || pass.memory.with(|memory| memory.unfinished) {
        return Ok(Due::Act(Priority::Change));
    }
    if look {
        return Ok(Due::Act(Priority::Test));
    }
    if !pass.recorded.annotated && pass.applied() == Applied::Same {
        // Somebody wiped or copied annotations over; the status still knows.
        if let Some(id) = pass.recorded.trusted_id().cloned() {
            let journal = Journal::Recorded {
                id,
                origin: Origin::Adopted,
                retire: None,
                made_of: None,
            };
            pass.webhook = write_journal(&ctx, &pass.memory, &pass.webhook, &journal).await?;
            pass.recorded = Recorded::read(&pass.webhook, &ctx.key);
        }
    }
    Ok(if test_due(pass) {
        Due::Act(Priority::Test)
    } else if read_back_due || pass.in_doubt {
        Due::Act(Priority::ReadBack)
    } else {
        Due::Nothing
    })
}

/// Whether a test of the upstream has to be asked about, repeated or taken up again after a restart.
fn test_due(pass: &Pass) -> bool {
    let status = pass.webhook.status.as_ref();
    if pass.tester() != Tester::Upstream {
        return false;
    }
    match pass.memory.with(|memory| memory.test.next) {
        Some(next) => next <= Instant::now(),
        None => {
            let waiting = status
                .and_then(|status| conditions::find(&status.conditions, ConditionType::Ready))
                .is_some_and(|ready| ready.reason == ReadyReason::NotYetTested.as_str());
            waiting || status.and_then(|status| status.state) == Some(State::Invalid)
        }
    }
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

impl Pass {
    /// What is wanted, with every reference resolved. Reads the Secrets once per pass.
    pub(super) async fn want(&mut self) -> Result<Arc<Desired>, ResolveError> {
        if let Some(want) = &self.want {
            return Ok(Arc::clone(want));
        }
        let capabilities = self.upstream.capabilities();
        if self.made.is_none() {
            self.made = generated::ensure(&self.ctx, &self.webhook, capabilities.secret).await?;
        }
        let made = self.made.clone();
        let made = made.map(|secret| (self.webhook.signing_secret().name, secret));
        let want = Arc::new(resolve::resolve(&self.ctx, &self.webhook, capabilities, made).await?);
        self.wanted = self.ctx.key.applied(&want);
        self.want = Some(Arc::clone(&want));
        Ok(want)
    }

    /// Whether `inputs` is what was read. A Secret that the operator has just written is newer than what the cache
    /// knows; and if it were gone again before the cache has seen it, it would look as if it had never been.
    fn has_read(&self, inputs: &str) -> bool {
        let written = self.made.as_ref().is_some_and(|secret| {
            let known = self
                .ctx
                .secret_version(&self.namespace(), &self.webhook.signing_secret().name);
            known.as_ref() != Some(&secret.version)
        });
        !written && resolve::inputs(&self.ctx, &self.webhook) == inputs
    }

    /// The status says that everything wanted was done, and nothing has been asked for since.
    pub(super) fn is_carried_out(&self) -> bool {
        let webhook = &self.webhook;
        let Some(status) = &webhook.status else {
            return false;
        };
        let handled = |annotation: &str, handled: Option<&String>| {
            webhook
                .annotations()
                .get(annotation)
                .is_none_or(|asked| Some(&bounds::request(asked)) == handled)
        };
        let lost = self.secret_missing_for() == Some(Duration::ZERO);
        // The operator's own test takes no look at the upstream.
        let probed = self.tester() == Tester::Operator && status.deactivated_by.is_none();
        is_settled(status, webhook.metadata.generation.unwrap_or_default())
            && matches!(self.applied(), Applied::Same | Applied::OtherKey)
            && self.recorded.mark.is_none()
            && handled(RECONCILE_REQUESTED_AT, status.last_handled_reconcile_at.as_ref())
            && (probed || handled(TEST_REQUESTED_AT, status.last_handled_test_at.as_ref()))
            && !self.switch_is_due()
            && !lost
    }

    /// How the recorded hash relates to what is wanted.
    pub(super) fn applied(&self) -> Applied {
        let recorded = self
            .webhook
            .status
            .as_ref()
            .and_then(|status| status.applied_hash.as_deref());
        if recorded.is_none()
            && self.recorded.made_of.is_some()
            && self.recorded.made_of == Some(self.made_of())
        {
            // The process that made it died before it could say so in the status.
            return Applied::Same;
        }
        self.ctx.key.compare(recorded, &self.wanted)
    }

    /// What a registration that is made now is made of.
    pub(super) fn made_of(&self) -> String {
        let generation = self.webhook.metadata.generation.unwrap_or_default();
        made_of(&self.ctx.key, &self.uid(), generation, &self.wanted)
    }

    /// Everything on which the success of an attempt may depend.
    pub(super) fn hold_inputs(&self, inputs: &str) -> String {
        let asked = |name: &str| {
            self.webhook
                .annotations()
                .get(name)
                .map(String::as_str)
                .unwrap_or_default()
        };
        // The account is made anew when the provider or its credentials change.
        let account = Arc::as_ptr(&self.account) as usize;
        format!(
            "{inputs} {account} {} {} {}",
            asked(RECONCILE_REQUESTED_AT),
            asked(TEST_REQUESTED_AT),
            self.ctx.breakers.confirmation(&self.provider).unwrap_or_default()
        )
    }

    /// The spec's interval; longer where an upstream cannot be read and is written again instead.
    pub(super) fn interval(&self) -> Duration {
        let interval = self.webhook.spec.interval.get();
        let unread = self.upstream.capabilities().read == ReadRule::UndocumentedOne
            && (!self.account.undocumented
                || self
                    .account
                    .findings
                    .get(Finding::ConpeekRead, self.ctx.clock.now())
                    == Some(Learned::Unsupported));
        if unread {
            interval.max(REWRITE_INTERVAL)
        } else {
            interval
        }
    }

    /// The Secret with the secret that the upstream made is not there: for how long that may still be the watch,
    /// which has not delivered our own write yet. `None`: it is there, or there is no such Secret.
    fn secret_missing_for(&self) -> Option<Duration> {
        let published = self.upstream.capabilities().secret == SecretRule::MadeByUpstream
            && self
                .ctx
                .secret_version(&self.namespace(), &self.webhook.signing_secret().name)
                .is_none();
        let since = self.memory.with(|memory| memory.published);
        published.then(|| since.map_or(Duration::ZERO, |since| WATCH_LAG.saturating_sub(since.elapsed())))
    }

    /// Time until something is due that no change announces.
    pub(super) fn next(&self) -> Next {
        let read_back = until_read_back(&self.webhook, self.interval(), self.ctx.clock.now());
        let test = self.memory.with(|memory| memory.test.next);
        let test = test.map(|next| next.saturating_duration_since(Instant::now()));
        let doubt = self.memory.with(|memory| memory.in_doubt);
        let doubt = doubt.map(|until| until.saturating_duration_since(Instant::now()));
        let secret = self
            .secret_missing_for()
            .map(|left| if left.is_zero() { WATCH_LAG } else { left });
        let rotation = self.memory.with(|memory| memory.rotation.next);
        let rotation = rotation.map(|next| elapsed(self.ctx.clock.now(), next));
        [test, doubt, secret, rotation]
            .into_iter()
            .flatten()
            .chain([read_back])
            .min()
    }

    /// Publishes why there is no attempt, and when there will be one: at the next read-back, or when something
    /// changes.
    pub(super) async fn refuse(&self, assessment: Assessment) -> Result<Duration, PassError> {
        self.refuse_with(assessment, |_| {}).await
    }

    /// The same, with a change of what is no condition.
    pub(super) async fn refuse_with(
        &self,
        assessment: Assessment,
        change: impl FnOnce(&mut WebhookStatus),
    ) -> Result<Duration, PassError> {
        let written = write_status(&self.ctx, &self.memory, &self.webhook, assessment, change).await?;
        publish::sample(&self.ctx, &written, self.account.provider_type.as_str());
        let wait = until_read_back(
            &self.webhook,
            self.webhook.spec.interval.get(),
            self.ctx.clock.now(),
        );
        self.hold(Some(wait));
        Ok(wait)
    }

    /// No further attempt for this time (`None`: at all), unless something changes.
    pub(super) fn hold(&self, wait: Option<Duration>) {
        let inputs = self.hold_inputs(&resolve::inputs(&self.ctx, &self.webhook));
        self.memory
            .with(|memory| memory.hold = Some((wait.map(|wait| Instant::now() + wait), inputs)));
    }
}

/// Time until the next read-back.
fn until_read_back(webhook: &Webhook, interval: Duration, now: Timestamp) -> Duration {
    let uid = webhook.uid().unwrap_or_default();
    elapsed(now, schedule::next(&uid, interval, now))
}
