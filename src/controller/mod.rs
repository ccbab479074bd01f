//! The thin shell of I/O around the pure core: watches, passes, and the process from start to graceful stop.
//!
//! One pass over a Webhook ([`reconcile`]): resolve → check → observe → plan → act → publish. Everything that a
//! pass must get right after a crash is written into the object before it is needed; what a process remembers
//! ([`memory`]) only saves calls.

pub mod accounts;
mod act;
pub mod breaker;
mod conclude;
pub mod context;
mod created;
mod doubt;
mod due;
mod farewell;
mod generated;
pub mod hash_key;
pub mod index;
pub mod memory;
pub mod patch;
pub mod prober;
mod probing;
pub mod providers;
pub mod publish;
mod queue;
pub mod reconcile;
pub mod released;
mod resolve;
mod rivals;
mod rotation;
mod signing;
mod spans;
mod switch;
mod upstream_test;
pub mod watches;

use std::{io, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    Api, Client, Config,
    runtime::events::{Recorder, Reporter},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use self::{
    accounts::Accounts,
    breaker::Breakers,
    context::{CallObserver, Context, Settings, Transports, Wake},
    index::Index,
    memory::Memories,
    released::Noting,
    rivals::Claims,
};
use crate::{
    api::{FIELD_MANAGER, Webhook},
    cli::{RunOptions, shutdown_signal},
    clock::Clock,
    entropy::Entropy,
    health::{Liveness, Readiness, Server},
    lease::{self, Lease},
    metrics::Metrics,
    net::{AddressPolicy, CheckedUrl, HttpClient, SetupError, SharedLookups, SystemResolver},
    provider::{Fence, NoFence, transport::Transport},
};

/// How long work in flight may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// The API server may be silent for this long before a connection counts as dead. Watches end by themselves
/// before that.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// Longest time of a probe: what the schema takes as `spec.test.timeout`.
const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// Names of receivers that are looked up at once, each name once: dead ones take the resolver many seconds.
const PROBE_LOOKUPS: usize = 256;

/// How often the main loop says that it is alive, and after what silence it is not.
const BEAT: Duration = Duration::from_secs(5);
const BEAT_LIMIT: Duration = Duration::from_secs(60);

/// What ends the operator.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no cluster to talk to.
    #[error("no cluster: {0}; set KUBECONFIG, or run in a pod with a service account")]
    Config(Box<kube::config::InferConfigError>),
    /// No client can be made for the cluster.
    #[error("the API server's address or certificates cannot be used: {0}")]
    Client(Box<kube::Error>),
    /// The health server has no port.
    #[error("cannot listen on {0}: {1}; choose another --http-addr")]
    Listen(std::net::SocketAddr, io::Error),
    /// No signals.
    #[error("cannot catch signals: {0}")]
    Signal(io::Error),
    /// No client for upstreams.
    #[error("cannot make the HTTP client: {0}")]
    Http(SetupError),
    /// No key for hashes.
    #[error(transparent)]
    HashKey(#[from] hash_key::HashKeyError),
    /// Another replica leads now.
    #[error("the lease was lost; this process ends so that it starts again as a standby")]
    LeaseLost,
}

/// What the work stands on. The process has a real cluster, HTTP clients and the machine's clock; a simulation has
/// models of all of them, and runs the same work.
pub struct Ground {
    /// Client of the API server.
    pub client: Client,
    /// Makes the transports to upstreams.
    pub transports: Arc<dyn Transports>,
    /// Wall clock.
    pub clock: Clock,
    /// Metrics.
    pub metrics: Metrics,
    /// Name of this replica in the Lease and in Events; no other process has it.
    pub identity: String,
    /// Where secrets come from.
    pub entropy: Entropy,
    /// Look before each create. `false` registers twice: only for searches that have to be shown to find that.
    #[doc(hidden)]
    pub looks_first: bool,
}

/// HTTP clients behind the address guard: one shared, one for each set of trust roots and proxy.
struct HttpTransports {
    policy: AddressPolicy,
    plain: Arc<HttpClient>,
    probes: Arc<HttpClient>,
}

impl HttpTransports {
    fn new(policy: &AddressPolicy) -> Result<Self, SetupError> {
        let lookups = Arc::new(SystemResolver::with_lookups(PROBE_LOOKUPS));
        let probes = HttpClient::builder(policy.clone())
            .resolver(Arc::new(SharedLookups::new(lookups)))
            .connect_anew()
            // Each probe has a limit of its own, which covers this as well.
            .connect_timeout(LONGEST_PROBE)
            .build()?;
        Ok(Self {
            policy: policy.clone(),
            plain: Arc::new(HttpClient::builder(policy.clone()).build()?),
            probes: Arc::new(probes),
        })
    }
}

impl Transports for HttpTransports {
    fn make(
        &self,
        ca_bundle: Option<Vec<u8>>,
        proxy: Option<CheckedUrl>,
    ) -> Result<Arc<dyn Transport>, SetupError> {
        if ca_bundle.is_none() && proxy.is_none() {
            return Ok(Arc::clone(&self.plain) as Arc<dyn Transport>);
        }
        let mut builder = HttpClient::builder(self.policy.clone());
        if let Some(pem) = ca_bundle {
            builder = builder.ca_bundle(pem);
        }
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy);
        }
        Ok(Arc::new(builder.build()?))
    }

    fn probes(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.probes) as Arc<dyn Transport>
    }
}

/// Runs the operator until a signal, or until it may not go on.
///
/// # Errors
///
/// What kept it from starting, or ended it.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let signal = shutdown_signal().map_err(RunError::Signal)?;
    let client = client().await?;
    let metrics = Metrics::new();
    let liveness = Liveness::new(BEAT_LIMIT);
    let readiness = Readiness::new();
    readiness.missing(
        "crds",
        "the CustomResourceDefinitions have not been seen yet; apply crds/",
    );
    let server = Server::bind(
        options.http_addr,
        liveness.clone(),
        readiness.clone(),
        metrics.clone(),
    )
    .await
    .map_err(|error| RunError::Listen(options.http_addr, error))?;
    if let Ok(address) = server.local_addr() {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving /livez, /readyz and /metrics");
    }
    let ground = Ground {
        client,
        transports: Arc::new(HttpTransports::new(&options.addresses).map_err(RunError::Http)?),
        clock: Clock::system(),
        metrics,
        identity: lease::identity(),
        entropy: Entropy::system(),
        looks_first: !cfg!(feature = "break-journal"),
    };
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn(server.run(wait(stopping.clone())));
    let beating = tokio::spawn(beat(liveness, stopping.clone()));
    let told = tokio::spawn({
        let stop = stop.clone();
        async move {
            let name = signal.await;
            tracing::info!(signal = name, "stopping: no new work, what is in flight may end");
            stop.send_replace(true);
        }
    });
    let result = lead(ground, &options, &readiness, &stop, stopping).await;
    stop.send_replace(true);
    told.abort();
    beating.abort();
    // It drains for at most three seconds; a scrape that is cut off is no reason to fail.
    let _ = served.await;
    result
}

async fn client() -> Result<Client, RunError> {
    let mut config = Config::infer()
        .await
        .map_err(|error| RunError::Config(Box::new(error)))?;
    // Retries belong to the passes, which look before they write again; the client's would repeat a POST.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))
}

async fn wait(mut stopping: watch::Receiver<bool>) {
    // A dropped sender means that the process ends.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn beat(liveness: Liveness, stopping: watch::Receiver<bool>) {
    while !*stopping.borrow() {
        liveness.beat();
        tokio::time::sleep(BEAT).await;
    }
}

/// The whole operator but for its sockets and signals: waits for the CRDs and the lead, works, and gives the lead
/// back. Ends when `stopping` turns true; `stop` is its other end, through which losing the lead ends the work.
///
/// # Errors
///
/// What kept it from starting, or that the lead was lost.
pub async fn lead(
    ground: Ground,
    options: &RunOptions,
    readiness: &Readiness,
    stop: &watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let metrics = ground.metrics.clone();
    tokio::select! {
        biased;
        () = crds(&ground.client, options, readiness) => {}
        () = wait(stopping.clone()) => return Ok(()),
    }
    if !options.leader_elect {
        metrics.leader(true);
        return work(ground, options, Arc::new(NoFence), stopping).await;
    }
    let namespace = own_namespace(&ground.client, options);
    let lease = Lease::new(ground.client.clone(), &namespace, ground.identity.clone())
        .with_clock(ground.clock.clone());
    let (fence, mut leading) = (lease.fence(), lease.leading());
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let mut contending = JoinSet::new();
    contending.spawn(lease.run(released.map(|_| ())));
    let elected = tokio::select! {
        biased;
        elected = becomes(&mut leading, true) => elected,
        () = wait(stopping.clone()) => false,
    };
    let result = if elected {
        metrics.leader(true);
        tracing::info!("leading");
        let mut lost = false;
        let working = work(ground, options, fence, stopping.clone());
        let mut working = std::pin::pin!(working);
        let result = tokio::select! {
            biased;
            result = &mut working => result,
            _ = becomes(&mut leading, false) => {
                lost = true;
                stop.send_replace(true);
                working.await
            }
        };
        metrics.leader(false);
        metrics.forget_all();
        if lost { Err(RunError::LeaseLost) } else { result }
    } else {
        Ok(())
    };
    let _ = release.send(());
    // The release is bounded by the lease itself.
    let _ = contending.join_next().await;
    result
}

/// Waits for the lead, or for its loss; `false`: the election is over.
async fn becomes(leading: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    leading.wait_for(|leads| *leads == wanted).await.is_ok()
}

/// Where the Lease and the key of hashes are.
fn own_namespace(client: &Client, options: &RunOptions) -> String {
    let named = options.lease_namespace.clone();
    named.unwrap_or_else(|| client.default_namespace().to_owned())
}

/// Waits until the kinds are served. Also what makes a replica ready: a standby needs them as well.
async fn crds(client: &Client, options: &RunOptions, readiness: &Readiness) {
    let mut told = false;
    loop {
        let served = match options.namespaces.first() {
            // Confined to namespaces there is no right to look at CRDs; that the kind can be listed says enough.
            Some(namespace) => {
                let api: Api<Webhook> = Api::namespaced(client.clone(), namespace);
                api.list(&kube::api::ListParams::default().limit(1))
                    .await
                    .map(|_| ())
            }
            None => {
                let api: Api<Webhook> = Api::all(client.clone());
                api.list(&kube::api::ListParams::default().limit(1))
                    .await
                    .map(|_| ())
            }
        };
        match served {
            Ok(()) => return readiness.met("crds"),
            Err(error) => {
                if !told {
                    told = true;
                    tracing::warn!(%error, "Webhooks cannot be listed yet; apply the CRDs (webhook-operator crds) and the rights");
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// Watches and works until `stopping` turns true, then lets what is in flight end. `fence` says whether upstreams
/// may be called. Dropping the future ends everything that it started.
///
/// # Errors
///
/// There is no key for hashes, and waiting brings none.
pub async fn work(
    ground: Ground,
    options: &RunOptions,
    fence: Arc<dyn Fence>,
    stopping: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let Ground {
        client,
        transports,
        clock,
        metrics,
        identity,
        entropy,
        looks_first,
    } = ground;
    let own = own_namespace(&client, options);
    let key = tokio::select! {
        biased;
        () = wait(stopping.clone()) => return Ok(()),
        key = hash_key::wait_for(&client, &own, &entropy) => key?,
    };
    let (caches, feeds) = watches::prepare(&client, &options.namespaces);
    let (wake_webhooks, webhooks_woken) = mpsc::unbounded_channel();
    let (wake_providers, providers_woken) = mpsc::unbounded_channel();
    let (standings, standings_changed) = mpsc::unbounded_channel();
    let (probes, probes_wanted) = mpsc::unbounded_channel();
    let reporter = Reporter {
        controller: FIELD_MANAGER.to_owned(),
        instance: Some(identity),
    };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        caches,
        clock,
        entropy,
        key,
        fence,
        observer: CallObserver {
            metrics: metrics.clone(),
            standings,
        },
        metrics,
        accounts: Accounts::default(),
        breakers: Breakers::default(),
        claims: Claims::default(),
        noting: Noting::default(),
        memories: Memories::default(),
        index: Arc::new(Index::default()),
        wake: Wake {
            webhooks: wake_webhooks,
            providers: wake_providers,
        },
        transports,
        probes,
        settings: Settings {
            deletion_deadline: options.deletion_deadline,
            protect_credentials: options.protect_credentials,
            serve_cluster_providers: options.namespaces.is_empty(),
            looks_first,
        },
        workers: Semaphore::new(usize::from(options.concurrency)),
        protected: tokio::sync::Mutex::default(),
        stopping: stopping.clone(),
    });
    let mut watching = JoinSet::new();
    watching.spawn(watches::run(Arc::clone(&ctx), feeds, stopping.clone()));
    tokio::select! {
        biased;
        () = ctx.caches.ready() => tracing::info!(webhooks = ctx.index.objects().len(), "caches are full; working"),
        () = wait(stopping.clone()) => return Ok(()),
    }
    let webhooks = queue::run(
        queue::Queue::new(Duration::ZERO),
        webhooks_woken,
        stopping.clone(),
        |object| {
            let uid = ctx
                .caches
                .webhooks
                .get(object)
                .and_then(|webhook| webhook.metadata.uid.clone());
            if let Some(memory) = uid.and_then(|uid| ctx.memories.get(&uid)) {
                memory.with(|memory| memory.woken.notify_waiters());
            }
        },
        {
            let ctx = Arc::clone(&ctx);
            move |object| {
                let ctx = Arc::clone(&ctx);
                async move { reconcile::reconcile(&ctx, &object).await }
            }
        },
    );
    let providers = providers::run(Arc::clone(&ctx), providers_woken, standings_changed);
    let probing = prober::run(Arc::clone(&ctx), probes_wanted);
    let mut draining = stopping;
    let deadline = async {
        let _ = draining.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        biased;
        _ = futures::future::join3(webhooks, providers, probing) => {}
        () = deadline => tracing::warn!("work in flight did not end in time; it is taken up again at the next start"),
    }
    watching.abort_all();
    Ok(())
}
