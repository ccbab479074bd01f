//! Everything that outlives a process of the operator: API server, upstreams, time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use upstream_doubles::{
    AutocosmosAccount, ConpeekAccount, Models, Options, RicloudAccount, Source, ThuliumAccount, Verdict,
};
use webhook_operator::clock::Clock;

use crate::{
    Operator,
    apiserver::ApiServer,
    manifests::{self, Account},
    operator::OWN_NAMESPACE,
    wire::Wire,
};

/// When every world begins.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

/// The world around the operator. Belongs to one tokio runtime, whose time has to be paused.
pub struct World {
    api: ApiServer,
    upstreams: Arc<Models>,
    wire: Wire,
    clock: Clock,
    looks_first: bool,
}

/// What a wait has ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nobody has called, changed or waited for anything for the time that was asked for.
    Quiet,
    /// The process was killed on the wire.
    Killed,
    /// The process has ended by itself.
    Ended,
    /// Something still happened at the end of the longest time.
    Never,
}

impl World {
    /// A world with the namespaces `apps` and the operator's own, the operator's key of hashes, and
    /// [`Account::demo`] at each upstream. Nothing random in it depends on anything but `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let beginning: Timestamp = BEGINNING.parse().unwrap();
        let clock = Clock::starting_at(beginning);
        let api = ApiServer::new(clock.clone());
        api.namespace(OWN_NAMESPACE);
        api.namespace("apps");
        api.create(&manifests::hash_key(OWN_NAMESPACE, seed)).unwrap();
        let now = clock.clone();
        let source = Source::simulated(move || now.now().into(), seed);
        let world = Self {
            api,
            upstreams: Arc::new(Models::new(Options::default(), &source)),
            wire: Wire::default(),
            clock,
            looks_first: true,
        };
        world.open(&Account::demo());
        // Deliveries go nowhere here.
        let ricloud = world.upstreams.ricloud();
        ricloud.change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
        world
    }

    /// From now on processes create without looking first, which registers twice: to show that a search finds it.
    pub fn break_journal(&mut self) {
        self.looks_first = false;
    }

    pub(crate) fn looks_first(&self) -> bool {
        self.looks_first
    }

    /// Opens an account at every upstream.
    pub fn open(&self, account: &Account) {
        let upstreams = &self.upstreams;
        let Account { name, password } = account;
        upstreams
            .conpeek()
            .add_account(ConpeekAccount::new(name, password));
        upstreams
            .thulium()
            .add_account(ThuliumAccount::new(name, password));
        upstreams
            .ricloud()
            .add_account(RicloudAccount::new(name, password, name));
        upstreams
            .autocosmos()
            .add_account(AutocosmosAccount::new(name, password));
    }

    /// The API server.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The upstreams.
    #[must_use]
    pub fn upstreams(&self) -> &Arc<Models> {
        &self.upstreams
    }

    /// The wire.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The clock that all of it is on.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Waits until nothing has happened or been on its way for `silence`, or the process is no more, or `longest` is over.
    pub async fn rest(&self, operator: &Operator, silence: Duration, longest: Duration) -> Rest {
        let end = Instant::now() + longest;
        loop {
            let quiet_at = self.wire.active().max(self.wire.pending()) + silence;
            if Instant::now() >= quiet_at {
                return Rest::Quiet;
            }
            if Instant::now() >= end {
                return Rest::Never;
            }
            tokio::select! {
                biased;
                () = operator.line().cut() => return Rest::Killed,
                () = sleep_until(quiet_at.min(end)) => {}
            }
            if operator.has_ended() {
                return Rest::Ended;
            }
        }
    }
}
