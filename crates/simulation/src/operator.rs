//! One process of the operator: what the binary runs, without its sockets and signals.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};
use webhook_operator::{
    cli::{Cli, Command, RunOptions},
    clock::Clock,
    controller::{self, Ground, RunError},
    entropy::Entropy,
    health::Readiness,
    metrics::Metrics,
    provider::NoFence,
};

use crate::{upstreams::Way, wire::Line, world::World};

/// The namespace of the Lease and of the key of hashes.
pub(crate) const OWN_NAMESPACE: &str = "webhook-operator";

/// A running process. Dropping it kills it.
pub struct Operator {
    line: Line,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
}

/// The options of `webhook-operator run` with these arguments.
#[must_use]
pub fn options(args: &[&str]) -> RunOptions {
    let args = ["webhook-operator", "run"]
        .into_iter()
        .chain(args.iter().copied());
    match Cli::read(args).map(|cli| cli.command) {
        Ok(Command::Run(args)) => RunOptions::try_from(*args).unwrap(),
        other => panic!("not the options of a run: {other:?}"),
    }
}

fn ground(world: &World, line: &Line) -> Ground {
    let way = Way {
        models: Arc::clone(world.upstreams()),
        line: line.clone(),
    };
    Ground {
        client: world.api().client(line, OWN_NAMESPACE),
        transports: Arc::new(way),
        clock: world.clock().clone(),
        metrics: Metrics::new(),
        looks_first: world.looks_first(),
        identity: format!("operator_{}", line.process()),
        entropy: Entropy::seeded(line.process() as u64),
    }
}

impl Operator {
    /// Starts a process that works at once, without a Lease.
    #[must_use]
    pub fn start(world: &World, options: RunOptions) -> Self {
        let line = world.wire().line();
        let ground = ground(world, &line);
        let (stop, stopping) = watch::channel(false);
        let task =
            tokio::spawn(
                async move { controller::work(ground, &options, Arc::new(NoFence), stopping).await },
            );
        Self { line, stop, task }
    }

    /// Starts a process that works while it holds the Lease.
    #[must_use]
    pub fn contend(world: &World, options: RunOptions) -> Self {
        Self::contend_on(world, options, world.clock().clone())
    }

    /// The same on a machine whose clock is another.
    #[must_use]
    pub fn contend_on(world: &World, options: RunOptions, clock: Clock) -> Self {
        let line = world.wire().line();
        let ground = Ground {
            clock,
            ..ground(world, &line)
        };
        let (stop, stopping) = watch::channel(false);
        let ends = stop.clone();
        let task = tokio::spawn(async move {
            let readiness = Readiness::new();
            controller::lead(ground, &options, &readiness, &ends, stopping).await
        });
        Self { line, stop, task }
    }

    /// Its end of the wire.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it in good order, as SIGTERM does.
    ///
    /// # Errors
    ///
    /// What it ends with.
    pub async fn stop(mut self) -> Result<(), RunError> {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap()
    }

    /// Ends it as SIGKILL does: nothing that it has begun goes on, and what it has sent has arrived or not.
    pub async fn kill(mut self) {
        self.line.kill();
        self.task.abort();
        // Cancelled, which is what was asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.line.kill();
        self.task.abort();
    }
}
