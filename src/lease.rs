//! Leader election: of several replicas, at most one works, decided by one `Lease` object.
//!
//! Every write carries the resource version that was read, so that of two writers one gets a conflict. Time is
//! measured on this machine's monotonic clock only: the times that stand in the Lease are for people to read and
//! are never compared with the clock here, so replicas whose clocks disagree by an hour take nothing from each
//! other. Two spans, both counted on one machine each, keep the leaders apart:
//!
//! * who holds the Lease counts from the moment *before* it sent its last successful renewal, and stops
//!   [`SAFETY_MARGIN`] early ([`LeaseFence::remaining`]);
//! * who waits for it counts from the moment *after* it first saw the version that is there now, and takes it
//!   only if that version is still the same [`DURATION`] later.
//!
//! Two things undo that: deleting the Lease by hand while its holder works (the next replica makes a new one at
//! once), and a virtual machine that was suspended (the monotonic clock of Linux stands still meanwhile, until
//! the first renewal fails).
//!
//! This module does not decide what a replica does when it gains or loses the lead; it tells by
//! [`Lease::leading`] and closes the fence.
//!
//! No crate was found that fits: `kubert` and `kube-leader-election` build on older majors of kube and judge
//! expiry by comparing the wall clock with the time in the Lease.

use std::{
    convert::Infallible,
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use k8s_openapi::{api::coordination::v1 as coordination, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{clock::Clock, provider::Fence};

#[cfg(test)]
mod tests;

/// Name of the Lease object. Two installations in one namespace share it, and then only one of them works.
pub const LEASE_NAME: &str = "webhook-operator";

/// How long a renewal lasts: a Lease that nobody renewed for this long may be taken.
pub const DURATION: Duration = Duration::from_secs(15);

/// Longest time between two renewals; up to a tenth is taken off at random, so that replicas do not march in step.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A holder whose last successful renewal is older than this gives up the lead by itself.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How long before the end of [`DURATION`] the fence closes. Covers clocks that run at different speeds, and the
/// time that a request needs to leave this machine after the fence was asked.
pub const SAFETY_MARGIN: Duration = Duration::from_secs(2);

/// Pause between two looks at a Lease that somebody else holds, and between two attempts that failed. Together
/// with [`POLL_JITTER`] it is how late a takeover or a hand-over may be.
const POLL: Duration = Duration::from_millis(1500);

/// Largest random addition to [`POLL`].
const POLL_JITTER: Duration = Duration::from_millis(400);

/// Longest time for one request, so that one dead connection does not use up the renewal deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time for giving the Lease back. Afterwards it expires by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A name for this process that no other has, not even the same pod after a restart: the pod's name (`POD_NAME`,
/// else the host name, which in a pod is the same) and 8 random hex digits.
#[must_use]
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| hostname::get().ok().and_then(|name| name.into_string().ok()));
    let host = host.unwrap_or_else(|| "webhook-operator".to_owned());
    // The standard library seeds this from the operating system; the crate used for jitter below seeds itself
    // from the clock, which two pods that start together share.
    let random = RandomState::new().build_hasher().finish() & 0xffff_ffff;
    format!("{host}_{random:08x}")
}

/// Says until when this process may act as the leader. Made by [`Lease::fence`].
#[derive(Debug, Default)]
pub struct LeaseFence {
    /// When the Lease stops being provably ours. `None`: we do not lead.
    until: Mutex<Option<Instant>>,
}

impl LeaseFence {
    /// How long the Lease is still provably ours. `None`: this process does not lead, or can no longer prove it,
    /// and must not begin anything. Never zero.
    ///
    /// The answer needs no running task: it runs out by itself even if the task that renews is stuck.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.lock())?;
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    fn open_until(&self, until: Instant) {
        *self.lock() = Some(until);
    }

    fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Nothing can panic while it is held, and an `Option<Instant>` is never half written.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence for LeaseFence {
    fn remaining(&self) -> Option<Duration> {
        Self::remaining(self)
    }
}

/// One replica's part in the election. Make it, hand out [`Lease::fence`] and [`Lease::leading`], then await
/// [`Lease::run`].
#[derive(Debug)]
pub struct Lease {
    api: Api<coordination::Lease>,
    namespace: String,
    identity: String,
    clock: Clock,
    fence: Arc<LeaseFence>,
    leading: watch::Sender<bool>,
    /// The last trouble that was logged, so that an outage is one line and not one every two seconds.
    trouble: Option<String>,
}

/// What this process wrote last.
struct Held {
    lease: coordination::Lease,
    /// When the request that wrote it was begun.
    since: Instant,
}

/// A Lease that somebody else holds.
struct Sighting {
    version: String,
    /// When it may be taken, if its version is still the same.
    expires: Instant,
}

/// What came of a renewal.
enum Renewal {
    Renewed(Box<Held>),
    /// Somebody else has it, or it was deleted.
    Lost(String),
}

/// What kept a request from succeeding.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("somebody else wrote it first")]
    Conflict,
    #[error("it is gone")]
    Gone,
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error(
        "not allowed: the service account needs get, create and update on leases.coordination.k8s.io there"
    )]
    Forbidden,
    #[error("the namespace does not exist: create it, or name another with --lease-namespace")]
    NoNamespace,
    #[error("{0}")]
    Other(#[source] kube::Error),
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict,
                404 => Self::Gone,
                403 => Self::Forbidden,
                _ => Self::Other(error),
            },
            _ => Self::Other(error),
        }
    }
}

impl Lease {
    /// A candidate named `identity` (see [`identity()`]) for the Lease [`LEASE_NAME`] in `namespace`. Nothing is
    /// sent before [`Lease::run`].
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: impl Into<String>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity: identity.into(),
            clock: Clock::system(),
            fence: Arc::default(),
            leading: watch::Sender::new(false),
            trouble: None,
        }
    }

    /// Takes the times that are written into the Lease from `clock`. They decide nothing.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What every writer asks right before it writes.
    #[must_use]
    pub fn fence(&self) -> Arc<LeaseFence> {
        Arc::clone(&self.fence)
    }

    /// Whether this process leads, as it changes. Ends when [`Lease::run`] has ended or was dropped.
    ///
    /// It may still say `true` for a moment when the fence is closed already: start work by this, write by the
    /// fence.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Contends for the Lease, renews it, contends again after losing it, until `shutdown` resolves; then gives it
    /// back, so that another replica takes over within two seconds, and returns.
    ///
    /// `shutdown` must resolve only when the work in flight has ended: from then on the fence is closed. Dropping
    /// the future closes the fence too, but the others then have to wait until the Lease expires.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let shutdown = pin!(shutdown);
        tokio::select! {
            biased;
            () = shutdown => {}
            never = self.contend() => match never {},
        }
        self.step_down();
        match timeout(RELEASE_TIMEOUT, self.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                self.complain("could not give the lease back, it expires by itself", &problem)
            }
            Err(_) => self.complain(
                "could not give the lease back, it expires by itself",
                &Problem::Timeout,
            ),
        }
    }

    async fn contend(&mut self) -> Infallible {
        loop {
            let held = self.acquire().await;
            tracing::info!(
                namespace = self.namespace,
                identity = self.identity,
                "this replica leads"
            );
            self.leading.send_replace(true);
            let reason = self.hold(held).await;
            self.step_down();
            tracing::warn!(
                namespace = self.namespace,
                identity = self.identity,
                reason,
                "this replica no longer leads"
            );
        }
    }

    /// Returns once the Lease is ours.
    async fn acquire(&mut self) -> Held {
        let mut seen = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(held)) => return held,
                Ok(None) => self.trouble = None,
                // The other one leads now: that is how elections end, not a trouble.
                Err(Problem::Conflict) => {}
                Err(problem) => self.complain("cannot take part in leader election", &problem),
            }
            let pause = pause();
            // Wakes exactly when the other one's time is over, if that is sooner; once it is over, and taking it
            // failed, the pause holds, or this would be a hot loop.
            let until_expiry = seen
                .as_ref()
                .map(|seen| seen.expires.saturating_duration_since(Instant::now()));
            sleep(
                until_expiry
                    .filter(|left| !left.is_zero())
                    .map_or(pause, |left| left.min(pause)),
            )
            .await;
        }
    }

    /// One look, and one write if the Lease is free. `None`: it is not.
    async fn try_acquire(&self, seen: &mut Option<Sighting>) -> Result<Option<Held>, Problem> {
        let Some(lease) = self.read().await? else {
            return self.create().await.map(Some);
        };
        if self.holder(&lease).is_some_and(|holder| holder != self.identity) {
            let now = Instant::now();
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            match seen {
                Some(before) if before.version == version => {
                    if now < before.expires {
                        return Ok(None);
                    }
                }
                _ => {
                    *seen = Some(Sighting {
                        version,
                        expires: now + lasts(&lease),
                    });
                    return Ok(None);
                }
            }
        }
        // If the holder has renewed since that look, its version has moved on and this is a conflict.
        self.write(lease).await.map(Some)
    }

    /// Renews until that fails for too long or somebody else has the Lease; returns why.
    async fn hold(&mut self, mut held: Held) -> String {
        loop {
            let deadline = held.since + RENEW_DEADLINE;
            sleep_until(held.since + RENEW_EVERY.mul_f64(1.0 - 0.1 * fastrand::f64())).await;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match timeout(left, self.renew(&held)).await {
                    Ok(Ok(Renewal::Renewed(new))) => {
                        self.trouble = None;
                        held = *new;
                        break;
                    }
                    Ok(Ok(Renewal::Lost(reason))) => return reason,
                    Ok(Err(problem)) => self.complain("cannot renew the lease", &problem),
                    Err(_) => return format!("no renewal succeeded for {} s", RENEW_DEADLINE.as_secs()),
                }
                sleep(pause().min(deadline.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    async fn renew(&self, held: &Held) -> Result<Renewal, Problem> {
        match self.write(held.lease.clone()).await {
            Ok(held) => return Ok(Renewal::Renewed(Box::new(held))),
            Err(Problem::Gone) => return Ok(Renewal::Lost("the lease was deleted".to_owned())),
            Err(Problem::Conflict) => {}
            Err(problem) => return Err(problem),
        }
        // Most often it was this process itself: a renewal that arrived, but whose answer did not. Until that is
        // certain nothing may be written.
        self.fence.close();
        match self.read().await? {
            Some(lease) if self.holder(&lease) == Some(&self.identity) => self
                .write(lease)
                .await
                .map(|held| Renewal::Renewed(Box::new(held))),
            Some(lease) => {
                let holder = self.holder(&lease).unwrap_or("nobody");
                Ok(Renewal::Lost(format!("{holder} holds the lease")))
            }
            None => Ok(Renewal::Lost("the lease was deleted".to_owned())),
        }
    }

    /// Clears the holder, if that is this process.
    async fn release(&self) -> Result<(), Problem> {
        loop {
            let Some(mut lease) = self.read().await? else {
                return Ok(());
            };
            if self.holder(&lease) != Some(&self.identity) {
                return Ok(());
            }
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.renew_time = Some(self.now_unlike(spec.renew_time.as_ref()));
            match self.replace(&lease).await {
                // A renewal that was cut off by the shutdown arrived just now.
                Err(Problem::Conflict) => {}
                Err(Problem::Gone) => return Ok(()),
                Err(problem) => return Err(problem),
                Ok(_) => {
                    tracing::info!(
                        namespace = self.namespace,
                        identity = self.identity,
                        "gave the lease back"
                    );
                    return Ok(());
                }
            }
        }
    }

    fn step_down(&self) {
        self.fence.close();
        self.leading
            .send_if_modified(|leading| std::mem::replace(leading, false));
    }

    fn holder<'a>(&self, lease: &'a coordination::Lease) -> Option<&'a str> {
        lease
            .spec
            .as_ref()?
            .holder_identity
            .as_deref()
            .filter(|holder| !holder.is_empty())
    }

    /// `None`: there is no Lease.
    async fn read(&self) -> Result<Option<coordination::Lease>, Problem> {
        in_time(self.api.get_opt(LEASE_NAME)).await
    }

    async fn replace(&self, lease: &coordination::Lease) -> Result<coordination::Lease, Problem> {
        in_time(self.api.replace(LEASE_NAME, &PostParams::default(), lease)).await
    }

    async fn create(&self) -> Result<Held, Problem> {
        let metadata = ObjectMeta {
            name: Some(LEASE_NAME.to_owned()),
            ..ObjectMeta::default()
        };
        let lease = self.claim(coordination::Lease { metadata, spec: None });
        let since = Instant::now();
        match in_time(self.api.create(&PostParams::default(), &lease)).await {
            Ok(lease) => Ok(self.own(lease, since)),
            Err(Problem::Gone) => Err(Problem::NoNamespace),
            Err(problem) => Err(problem),
        }
    }

    /// Makes `lease`, as it was read, ours for another [`DURATION`].
    async fn write(&self, lease: coordination::Lease) -> Result<Held, Problem> {
        let lease = self.claim(lease);
        let since = Instant::now();
        let lease = self.replace(&lease).await?;
        Ok(self.own(lease, since))
    }

    fn own(&self, lease: coordination::Lease, since: Instant) -> Held {
        self.fence
            .open_until(since + DURATION.saturating_sub(SAFETY_MARGIN));
        Held { lease, since }
    }

    fn claim(&self, mut lease: coordination::Lease) -> coordination::Lease {
        let transitions = lease
            .spec
            .as_ref()
            .map_or(0, |spec| spec.lease_transitions.unwrap_or(0).saturating_add(1));
        let spec = lease.spec.get_or_insert_default();
        let now = self.now_unlike(spec.renew_time.as_ref());
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(transitions);
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// The time now, but not `before`: a write that changes nothing would not change the resource version, and
    /// the others would take this process for dead. Matters where the wall clock stands still or is set back.
    fn now_unlike(&self, before: Option<&MicroTime>) -> MicroTime {
        let now = self.clock.now();
        // Compared in microseconds: the field holds no more.
        if before.is_some_and(|before| before.0.as_microsecond() == now.as_microsecond()) {
            let step = SignedDuration::from_micros(1);
            return MicroTime(
                now.checked_sub(step)
                    .or_else(|_| now.checked_add(step))
                    .unwrap_or(now),
            );
        }
        MicroTime(now)
    }

    fn complain(&mut self, what: &str, problem: &Problem) {
        let text = problem.to_string();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(
                lease = LEASE_NAME,
                namespace = self.namespace,
                error = text,
                "{what}"
            );
            self.trouble = Some(text);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever still holds the fence must not go on when nobody renews any more.
        self.step_down();
    }
}

/// How long to wait before taking `lease` from its holder: as long as the holder itself promises, at least
/// [`DURATION`].
fn lasts(lease: &coordination::Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(DURATION, Duration::from_secs)
        .max(DURATION)
}

fn pause() -> Duration {
    POLL + POLL_JITTER.mul_f64(fastrand::f64())
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Problem> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::Timeout),
    }
}
