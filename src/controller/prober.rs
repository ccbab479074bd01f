//! Sends probes: takes them from passes, lets as many fly at once as hosts and machine bear, and wakes the Webhook
//! when the verdict is there. A probe holds no worker and no turn of an account; the pass that wanted it has long
//! ended, and another one records the verdict.
//!
//! Nothing here survives the process, and nothing has to: what was not recorded is sent again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::runtime::reflector::ObjectRef;
use opentelemetry::KeyValue;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    context::Context,
    memory::{Memory, MemoryCell},
};
use crate::{
    api::{Webhook, conditions::Reason},
    domain::testing::Verdict,
    net::Method,
    probe::{self, NotSent, Probe},
    provider::Transport,
    telemetry::trace::{Origin, Span, key},
};

/// Probes that are on their way at once, each with a connection of its own.
const AT_ONCE: usize = 2048;

/// The same towards one host: a receiver that does not answer delays its own tests only.
const AT_ONCE_PER_HOST: usize = 128;

/// How many hosts without a probe are kept in mind.
const IDLE_HOSTS: usize = 64;

/// Wait after a probe that could not be sent. It keeps its place meanwhile, so that fewer are tried.
const NOT_SENT_PAUSE: Duration = Duration::from_secs(5);

/// What a probe is sent for. Its verdict counts as long as all but the request is still so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Generation of the spec.
    pub generation: i64,
    /// Hash of what is registered.
    pub wanted: String,
    /// Version of the Secret that holds what the upstream made.
    pub secret: Option<String>,
    /// Value of the request annotation that is handled by it.
    pub request: Option<String>,
}

impl Purpose {
    /// Whether the verdict on this one is one on `other`.
    #[must_use]
    pub fn serves(&self, other: &Self) -> bool {
        (self.generation, &self.wanted, &self.secret) == (other.generation, &other.wanted, &other.secret)
    }
}

/// What a process remembers of the probes of one object.
#[derive(Clone, Debug, Default)]
pub struct ProbeMemory {
    /// Counts the probes of this object, so that one that was overtaken is told from its successor.
    sent: u64,
    /// The one on its way.
    flying: Option<(u64, Purpose)>,
    /// The verdict that is not recorded yet.
    landed: Option<(Purpose, Verdict)>,
    /// When something is due about it.
    pub next: Option<Instant>,
}

impl ProbeMemory {
    /// Notes that a probe is on its way; an earlier one no longer counts. Returns its number.
    fn begin(&mut self, purpose: Purpose) -> u64 {
        self.sent = self.sent.wrapping_add(1);
        self.flying = Some((self.sent, purpose));
        self.landed = None;
        self.sent
    }

    /// Notes how probe `number` ended; `None`: without a verdict.
    fn end(&mut self, number: u64, verdict: Option<Verdict>) {
        if self.flying.as_ref().is_some_and(|(flying, _)| *flying == number)
            && let Some((_, purpose)) = self.flying.take()
        {
            self.landed = verdict.map(|verdict| (purpose, verdict));
        }
    }

    /// Whether a probe for this purpose is on its way, or its verdict waits to be recorded.
    #[must_use]
    pub fn is_served(&self, purpose: &Purpose) -> bool {
        let flying = self.flying.as_ref().map(|(_, purpose)| purpose);
        let landed = self.landed.as_ref().map(|(purpose, _)| purpose);
        flying.into_iter().chain(landed).any(|of| of.serves(purpose))
    }

    /// The verdict that waits, if it is on this purpose; one on anything else is dropped.
    pub fn verdict(&mut self, purpose: &Purpose) -> Option<(Purpose, Verdict)> {
        self.landed = self.landed.take().filter(|(of, _)| of.serves(purpose));
        self.landed.clone()
    }

    /// Whether one is on its way.
    #[must_use]
    pub fn is_flying(&self) -> bool {
        self.flying.is_some()
    }

    /// The verdict is recorded.
    pub fn recorded(&mut self) {
        self.landed = None;
    }
}

/// Which of an object's two kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The test of what is registered.
    Test,
    /// Whether the receiver knows the secret that it gets next.
    NextSecret,
}

impl Kind {
    fn of(self, memory: &mut Memory) -> &mut ProbeMemory {
        match self {
            Self::Test => &mut memory.probe,
            Self::NextSecret => &mut memory.rotation.probe,
        }
    }
}

/// A probe to be sent.
pub struct Job {
    object: ObjectRef<Webhook>,
    memory: MemoryCell,
    kind: Kind,
    number: u64,
    probe: Probe,
    origin: Origin,
}

/// Hands a probe over; its verdict comes into `memory`, and the object is woken.
pub fn launch(
    ctx: &Context,
    object: ObjectRef<Webhook>,
    memory: &MemoryCell,
    kind: Kind,
    purpose: Purpose,
    probe: Probe,
) {
    let number = memory.with(|memory| kind.of(memory).begin(purpose));
    // The receiver is gone only when the process ends.
    let _ = ctx.probes.send(Job {
        object,
        memory: memory.clone(),
        kind,
        number,
        probe,
        origin: Origin::current(),
    });
}

/// The same for a verdict that takes no probe.
pub fn conclude(
    ctx: &Context,
    object: ObjectRef<Webhook>,
    memory: &MemoryCell,
    purpose: Purpose,
    verdict: Verdict,
) {
    memory.with(|memory| {
        let number = memory.probe.begin(purpose);
        memory.probe.end(number, Some(verdict));
    });
    let _ = ctx.wake.webhooks.send(object);
}

/// Sends what passes hand over until told to stop. What is on its way then is given up; nothing of it is recorded.
pub async fn run(ctx: Arc<Context>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let transport = ctx.transports.probes();
    let all = Arc::new(Semaphore::new(AT_ONCE));
    let mut hosts: HashMap<String, Arc<Semaphore>> = HashMap::new();
    let mut flying = JoinSet::new();
    let mut stopping = ctx.stopping.clone();
    loop {
        // Always in this order, as in the queue of Webhooks.
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            job = jobs.recv() => {
                let Some(job) = job else { return };
                let host = hosts
                    .entry(job.probe.url.host().to_owned())
                    .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_PER_HOST)));
                let (ctx, all, host) = (Arc::clone(&ctx), Arc::clone(&all), Arc::clone(host));
                flying.spawn(fly(ctx, Arc::clone(&transport), all, host, job));
            }
            Some(ended) = flying.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a probe ended abnormally");
                }
                if hosts.len() > flying.len() + IDLE_HOSTS {
                    hosts.retain(|_, host| Arc::strong_count(host) > 1);
                }
            }
        }
    }
}

/// Waits for its turn, sends, and leaves the verdict where the next pass finds it.
async fn fly(
    ctx: Arc<Context>,
    transport: Arc<dyn Transport>,
    all: Arc<Semaphore>,
    host: Arc<Semaphore>,
    job: Job,
) {
    // The host's first: who waits for it must not keep others waiting. Neither is ever closed.
    let _host = host.acquire_owned().await;
    let _all = all.acquire_owned().await;
    let verdict = if ctx.fence.remaining().is_none() {
        // Another replica leads, or soon will, and tests by itself.
        None
    } else {
        let attributes = vec![
            KeyValue::new(key::METHOD, Method::Post.as_str()),
            KeyValue::new(key::HOST, job.probe.url.host().to_owned()),
            KeyValue::new(key::PORT, i64::from(job.probe.url.port())),
        ];
        let span = Span::call_of(&job.origin, "probe", attributes);
        span.around(Box::pin(send(&ctx, transport.as_ref(), &job, &span)))
            .await
    };
    job.memory
        .with(|memory| job.kind.of(memory).end(job.number, verdict));
    let _ = ctx.wake.webhooks.send(job.object);
}

/// Sends one. `None`: it could not be.
async fn send(ctx: &Context, transport: &dyn Transport, job: &Job, span: &Span) -> Option<Verdict> {
    match Box::pin(probe::send(transport, &ctx.clock, &job.probe)).await {
        Ok(verdict) => {
            span.set(key::TESTED, verdict.reason.as_str());
            if let Some(status) = verdict.http_status {
                span.set(key::STATUS_CODE, i64::from(status));
            }
            Some(verdict)
        }
        Err(NotSent(error)) => {
            span.fail("not sent");
            tracing::warn!(object = %job.object, %error, "a probe could not be sent and is sent again; see the process's limits on open files");
            sleep(NOT_SENT_PAUSE).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::{conditions::TestedReason, webhook::TestMode};

    fn purpose(generation: i64, request: Option<&str>) -> Purpose {
        Purpose {
            generation,
            wanted: "w".into(),
            secret: None,
            request: request.map(str::to_owned),
        }
    }

    fn verdict() -> Verdict {
        Verdict::new(
            TestMode::Probe,
            TestedReason::Passed,
            "taken",
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn only_the_newest_probe_counts_and_only_for_what_it_was_sent_for() {
        let mut memory = ProbeMemory::default();
        let old = memory.begin(purpose(1, None));
        assert!(memory.is_served(&purpose(1, Some("asked meanwhile"))));
        assert!(!memory.is_served(&purpose(2, None)));
        let new = memory.begin(purpose(2, Some("a")));
        memory.end(old, Some(verdict()));
        assert_eq!(memory.verdict(&purpose(2, None)), None, "overtaken");
        memory.end(new, Some(verdict()));
        let recorded = memory.verdict(&purpose(2, Some("b")));
        assert_eq!(recorded, Some((purpose(2, Some("a")), verdict())));
        // Kept until it is recorded: the write may fail.
        assert!(memory.is_served(&purpose(2, None)));
        memory.recorded();
        assert!(!memory.is_served(&purpose(2, None)));

        let number = memory.begin(purpose(2, None));
        memory.end(number, Some(verdict()));
        assert_eq!(memory.verdict(&purpose(3, None)), None, "of an older spec");
        assert_eq!(memory.verdict(&purpose(2, None)), None, "and dropped");
        let number = memory.begin(purpose(3, None));
        memory.end(number, None);
        assert!(!memory.is_served(&purpose(3, None)), "to be sent again");
    }
}
