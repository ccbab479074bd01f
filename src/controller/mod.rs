//! The thin shell of I/O around the pure core: watches, passes, and the process from start to graceful stop.
//!
//! One pass over a Webhook ([`reconcile`]): resolve → check → observe → plan → act → publish. Everything that a
//! pass must get right after a crash is written into the object before it is needed; what a process remembers
//! ([`memory`]) only saves calls.

pub mod accounts;
mod act;
mod conclude;
pub mod context;
mod farewell;
pub mod hash_key;
pub mod index;
pub mod memory;
pub mod patch;
pub mod providers;
pub mod publish;
mod queue;
pub mod reconcile;
mod released;
mod resolve;
mod rivals;
mod signing;
pub mod watches;

use std::{io, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    Api, Client, Config,
    runtime::events::{Recorder, Reporter},
};
use tokio::sync::{Semaphore, mpsc, watch};

use self::{
    accounts::Accounts,
    context::{CallObserver, Context, Settings, Transports, Wake},
    index::Index,
    memory::Memories,
};
use crate::{
    api::{FIELD_MANAGER, Webhook},
    cli::{RunOptions, shutdown_signal},
    clock::Clock,
    health::{Liveness, Readiness, Server},
    lease::{self, Lease},
    metrics::Metrics,
    net::{AddressPolicy, CheckedUrl, HttpClient, SetupError},
    provider::{Fence, NoFence, transport::Transport},
};

/// How long work in flight may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// The API server may be silent for this long before a connection counts as dead. Watches end by themselves
/// before that.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

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

/// HTTP clients behind the address guard: one shared, one for each set of trust roots and proxy.
struct HttpTransports {
    policy: AddressPolicy,
    plain: Arc<HttpClient>,
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
    let result = lead(client, &options, &metrics, &readiness, &stop, stopping).await;
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

/// Waits for the CRDs and the lead, works, and gives the lead back.
async fn lead(
    client: Client,
    options: &RunOptions,
    metrics: &Metrics,
    readiness: &Readiness,
    stop: &watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let namespace = options
        .lease_namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    tokio::select! {
        () = crds(&client, options, readiness) => {}
        () = wait(stopping.clone()) => return Ok(()),
    }
    if !options.leader_elect {
        metrics.leader(true);
        return work(
            client,
            options,
            metrics.clone(),
            &namespace,
            Arc::new(NoFence),
            stopping,
        )
        .await;
    }
    let lease = Lease::new(client.clone(), &namespace, lease::identity());
    let (fence, mut leading) = (lease.fence(), lease.leading());
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let contending = tokio::spawn(lease.run(released.map(|_| ())));
    let elected = tokio::select! {
        elected = leading.wait_for(|leads| *leads) => elected.is_ok(),
        () = wait(stopping.clone()) => false,
    };
    let result = if elected {
        metrics.leader(true);
        tracing::info!("leading");
        let mut lost = false;
        let working = work(
            client,
            options,
            metrics.clone(),
            &namespace,
            fence,
            stopping.clone(),
        );
        let mut working = std::pin::pin!(working);
        let result = tokio::select! {
            result = &mut working => result,
            _ = leading.wait_for(|leads| !*leads) => {
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
    let _ = contending.await;
    result
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

/// Watches and works until told to stop, then lets what is in flight end.
async fn work(
    client: Client,
    options: &RunOptions,
    metrics: Metrics,
    namespace: &str,
    fence: Arc<dyn Fence>,
    stopping: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let key = hash_key::obtain(&client, namespace).await?;
    let plain = HttpClient::builder(options.addresses.clone())
        .build()
        .map_err(RunError::Http)?;
    let transports = HttpTransports {
        policy: options.addresses.clone(),
        plain: Arc::new(plain),
    };
    let (caches, feeds) = watches::prepare(&client, &options.namespaces);
    let (wake_webhooks, webhooks_woken) = mpsc::unbounded_channel();
    let (wake_providers, providers_woken) = mpsc::unbounded_channel();
    let (standings, standings_changed) = mpsc::unbounded_channel();
    let reporter = Reporter {
        controller: FIELD_MANAGER.to_owned(),
        instance: Some(lease::identity()),
    };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        caches,
        clock: Clock::system(),
        key,
        fence,
        observer: CallObserver {
            metrics: metrics.clone(),
            standings,
        },
        metrics,
        accounts: Accounts::default(),
        memories: Memories::default(),
        index: Arc::new(Index::default()),
        wake: Wake {
            webhooks: wake_webhooks,
            providers: wake_providers,
        },
        transports: Arc::new(transports),
        settings: Settings {
            deletion_deadline: options.deletion_deadline,
            protect_credentials: options.protect_credentials,
            serve_cluster_providers: options.namespaces.is_empty(),
        },
        workers: Semaphore::new(usize::from(options.concurrency)),
        protected: tokio::sync::Mutex::default(),
        stopping: stopping.clone(),
    });
    let watching = tokio::spawn(watches::run(Arc::clone(&ctx), feeds, stopping.clone()));
    tokio::select! {
        () = ctx.caches.ready() => tracing::info!(webhooks = ctx.index.objects().len(), "caches are full; working"),
        () = wait(stopping.clone()) => return Ok(()),
    }
    let webhooks = queue::run(
        queue::Queue::new(Duration::ZERO),
        webhooks_woken,
        stopping.clone(),
        {
            let ctx = Arc::clone(&ctx);
            move |object| {
                let ctx = Arc::clone(&ctx);
                async move { reconcile::reconcile(&ctx, &object).await }
            }
        },
    );
    let providers = providers::run(Arc::clone(&ctx), providers_woken, standings_changed);
    let mut draining = stopping;
    let deadline = async {
        let _ = draining.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        _ = futures::future::join(webhooks, providers) => {}
        () = deadline => tracing::warn!("work in flight did not end in time; it is taken up again at the next start"),
    }
    watching.abort();
    Ok(())
}
