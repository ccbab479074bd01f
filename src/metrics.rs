//! What the operator counts and measures, as a page for scrapers.
//!
//! The names and labels are part of the interface that users build alerts on; a test holds each of them. Labels
//! are bounded: fixed words, and an object's own kind, namespace and name, whose series go when the object goes.
//! Who calls these methods, and when, is the controller's business.

mod format;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

pub use self::format::Format;
use crate::api::provider_settings::ProviderType;

/// Every metric is named `webhook_operator_…`.
const PREFIX: &str = "webhook_operator";

/// The value of the label `state` for a Webhook that has none, because it is not registered.
pub const NO_STATE: &str = "none";

/// Upper bounds in seconds for one pass: from one that finds nothing to do to one that waits for an upstream.
const RECONCILE_SECONDS: [f64; 11] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds in seconds for one call; the default timeout is 20 s.
const REQUEST_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// All metrics of the process. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

/// A Webhook as its gauges show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebhookSample<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The upstream it is for, as in `spec.type` of the provider.
    pub provider_type: &'a str,
    /// `status.state`; `None` before it is registered (label value [`NO_STATE`]).
    pub state: Option<&'a str>,
    /// Whether its condition `Ready` is `True`.
    pub ready: bool,
    /// Whether somebody else switched it off at the upstream (`status.deactivatedBy: Upstream`).
    pub deactivated_upstream: bool,
}

struct Inner {
    registry: Registry,
    seen: Mutex<HashMap<ObjectLabels, Counted>>,
    webhooks: Family<StateLabels, Gauge<i64, AtomicI64>>,
    webhook_ready: Family<ObjectLabels, Gauge<i64, AtomicI64>>,
    provider_ready: Family<ProviderLabels, Gauge<i64, AtomicI64>>,
    deletions_held: Family<ProviderLabels, Gauge<i64, AtomicI64>>,
    deactivated_upstream: Family<TypeLabels, Gauge<i64, AtomicI64>>,
    reconcile_duration: Family<ResultLabels, Histogram, Buckets>,
    request_duration: Family<OperationLabels, Histogram, Buckets>,
    requests: Family<RequestLabels, Counter>,
    test_results: Family<TestLabels, Counter>,
    drift_corrections: Family<TypeLabels, Counter>,
    secret_rotations: Family<TypeLabels, Counter>,
    left_in_place: Family<TypeLabels, Counter>,
    throttled: Family<TypeLabels, Counter<f64, AtomicU64>>,
    leader: Gauge<i64, AtomicI64>,
    tasks: Gauge<i64, AtomicI64>,
}

/// The shared series in which one Webhook is counted.
#[derive(Clone, PartialEq, Eq)]
struct Counted {
    state: StateLabels,
    deactivated_upstream: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    provider_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    provider_type: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    provider_type: String,
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    provider_type: String,
    operation: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TestLabels {
    provider_type: String,
    mode: String,
    result: String,
}

/// Makes the histograms of a family, all with the same bounds.
#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics; the counters by upstream are there at zero, so that `increase()` sees the first event. A second set
    /// is independent of the first.
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix(PREFIX),
            seen: Mutex::default(),
            webhooks: Family::default(),
            webhook_ready: Family::default(),
            provider_ready: Family::default(),
            deletions_held: Family::default(),
            deactivated_upstream: Family::default(),
            reconcile_duration: Family::new_with_constructor(Buckets(&RECONCILE_SECONDS)),
            request_duration: Family::new_with_constructor(Buckets(&REQUEST_SECONDS)),
            requests: Family::default(),
            test_results: Family::default(),
            drift_corrections: Family::default(),
            secret_rotations: Family::default(),
            left_in_place: Family::default(),
            throttled: Family::default(),
            leader: Gauge::default(),
            tasks: Gauge::default(),
        };
        inner.register();
        inner.start_counters();
        Self(Arc::new(inner))
    }

    /// Everything, in this format.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &self.0.registry) {
            // Writing into a `String` does not fail, so this is a defect of an encoder. A page without its `# EOF`
            // is refused by the scraper, which is what should become of it.
            tracing::error!(%error, "could not write the metrics page");
        }
        format.write(page)
    }

    /// Shows a Webhook as it is now, in place of what was shown for it before.
    pub fn webhook(&self, sample: WebhookSample<'_>) {
        let object = ObjectLabels {
            namespace: sample.namespace.to_owned(),
            name: sample.name.to_owned(),
        };
        let state = StateLabels {
            provider_type: sample.provider_type.to_owned(),
            state: sample.state.unwrap_or(NO_STATE).to_owned(),
        };
        let new = Counted {
            state,
            deactivated_upstream: sample.deactivated_upstream,
        };
        let mut seen = self.0.lock();
        self.0
            .webhook_ready
            .get_or_create(&object)
            .set(i64::from(sample.ready));
        if seen.get(&object) == Some(&new) {
            return;
        }
        self.0.count(&new, 1);
        if let Some(old) = seen.insert(object, new) {
            self.0.count(&old, -1);
        }
    }

    /// Takes a Webhook that is gone out of all gauges. Without effect if it was never shown.
    pub fn forget_webhook(&self, namespace: &str, name: &str) {
        let object = ObjectLabels {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut seen = self.0.lock();
        self.0.webhook_ready.remove(&object);
        if let Some(old) = seen.remove(&object) {
            self.0.count(&old, -1);
        }
    }

    /// Shows a provider. `kind`: `WebhookProvider` or `ClusterWebhookProvider`, the latter with an empty namespace.
    pub fn provider(&self, kind: &str, namespace: &str, name: &str, ready: bool) {
        let labels = ProviderLabels::new(kind, namespace, name);
        self.0.provider_ready.get_or_create(&labels).set(i64::from(ready));
    }

    /// Shows how many removals a provider's `deletionLimit` holds back now.
    pub fn deletions_held(&self, kind: &str, namespace: &str, name: &str, held: usize) {
        let labels = ProviderLabels::new(kind, namespace, name);
        self.0
            .deletions_held
            .get_or_create(&labels)
            .set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Takes a provider that is gone out of all gauges.
    pub fn forget_provider(&self, kind: &str, namespace: &str, name: &str) {
        let labels = ProviderLabels::new(kind, namespace, name);
        self.0.provider_ready.remove(&labels);
        self.0.deletions_held.remove(&labels);
    }

    /// Takes all objects out of all gauges: this replica no longer leads, and another shows them.
    pub fn forget_all(&self) {
        let mut seen = self.0.lock();
        seen.clear();
        self.0.webhooks.clear();
        self.0.webhook_ready.clear();
        self.0.provider_ready.clear();
        self.0.deletions_held.clear();
        self.0.deactivated_upstream.clear();
    }

    /// One pass ended. `result`: one of a fixed set of words, such as `ok` or the class of the error.
    pub fn reconciled(&self, result: &str, took: Duration) {
        let labels = ResultLabels {
            result: result.to_owned(),
        };
        self.0
            .reconcile_duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// One request to an upstream ended. `code`: the HTTP status, or the class of the error where none came.
    pub fn request(&self, provider_type: &str, operation: &str, code: &str, took: Duration) {
        let (provider_type, operation) = (provider_type.to_owned(), operation.to_owned());
        let labels = OperationLabels {
            provider_type: provider_type.clone(),
            operation: operation.clone(),
        };
        self.0
            .request_duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        self.0
            .requests
            .get_or_create(&RequestLabels {
                provider_type,
                operation,
                code: code.to_owned(),
            })
            .inc();
    }

    /// One test has its verdict. `mode`: `Upstream` or `Probe`; `result`: `Passed` or `Failed`.
    pub fn test_result(&self, provider_type: &str, mode: &str, result: &str) {
        let labels = TestLabels {
            provider_type: provider_type.to_owned(),
            mode: mode.to_owned(),
            result: result.to_owned(),
        };
        self.0.test_results.get_or_create(&labels).inc();
    }

    /// A registration that differed from its spec was put right.
    pub fn drift_corrected(&self, provider_type: &str) {
        self.0
            .drift_corrections
            .get_or_create(&TypeLabels::new(provider_type))
            .inc();
    }

    /// An upstream began to sign with a new secret that the operator made.
    pub fn secret_rotated(&self, provider_type: &str) {
        self.0
            .secret_rotations
            .get_or_create(&TypeLabels::new(provider_type))
            .inc();
    }

    /// A registration was left at the upstream when its Webhook went.
    pub fn left_in_place(&self, provider_type: &str) {
        self.0
            .left_in_place
            .get_or_create(&TypeLabels::new(provider_type))
            .inc();
    }

    /// A request waited for the budget of its provider.
    pub fn throttled(&self, provider_type: &str, waited: Duration) {
        self.0
            .throttled
            .get_or_create(&TypeLabels::new(provider_type))
            .inc_by(waited.as_secs_f64());
    }

    /// Whether this replica leads.
    pub fn leader(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// How many tasks the process has now: passes, watches, connections. With a steady load it stays about the same.
    pub fn tasks(&self, alive: usize) {
        self.0.tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
    }
}

impl TypeLabels {
    fn new(provider_type: &str) -> Self {
        Self {
            provider_type: provider_type.to_owned(),
        }
    }
}

impl ProviderLabels {
    fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl Inner {
    /// Gives each metric its name. The crate appends the unit, `_total` to counters, and a full stop to the help.
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "webhooks",
            "Webhooks by upstream and state",
            self.webhooks.clone(),
        );
        registry.register(
            "webhook_ready",
            "Whether a Webhook is ready",
            self.webhook_ready.clone(),
        );
        registry.register(
            "provider_ready",
            "Whether a provider is ready",
            self.provider_ready.clone(),
        );
        let help = "Removals that the deletion limit of a provider holds back";
        registry.register("deletions_held", help, self.deletions_held.clone());
        let help = "Webhooks that somebody else switched off at the upstream";
        registry.register("deactivated_upstream", help, self.deactivated_upstream.clone());
        let help = "Duration of one pass over a Webhook";
        let family = self.reconcile_duration.clone();
        registry.register_with_unit("reconcile_duration", help, Unit::Seconds, family);
        let help = "Duration of one request to an upstream, without waiting for its budget";
        let family = self.request_duration.clone();
        registry.register_with_unit("upstream_request_duration", help, Unit::Seconds, family);
        let help = "Requests to upstreams by HTTP status or class of error";
        registry.register("upstream_requests", help, self.requests.clone());
        registry.register(
            "test_results",
            "Verdicts of delivery tests",
            self.test_results.clone(),
        );
        let help = "Registrations that differed from their spec and were put right";
        registry.register("drift_corrections", help, self.drift_corrections.clone());
        let help = "Signing secrets made by the operator that took the place of another one";
        registry.register("secret_rotations", help, self.secret_rotations.clone());
        let help = "Registrations that were left at the upstream when their Webhook went";
        registry.register("left_in_place", help, self.left_in_place.clone());
        let help = "Time that requests waited for the budget of their provider";
        registry.register_with_unit("throttled", help, Unit::Seconds, self.throttled.clone());
        registry.register("leader", "Whether this replica leads", self.leader.clone());
        let help = "Tasks that are alive in the process: passes, watches, connections";
        registry.register("tasks", help, self.tasks.clone());
    }

    /// Prometheus takes the first value of a counter as where it began: one that appears at 1 never rose.
    fn start_counters(&self) {
        for provider_type in ProviderType::ALL {
            let labels = TypeLabels::new(provider_type.as_str());
            drop(self.drift_corrections.get_or_create(&labels));
            drop(self.secret_rotations.get_or_create(&labels));
            drop(self.left_in_place.get_or_create(&labels));
            drop(self.throttled.get_or_create(&labels));
        }
    }

    /// Moves the shared gauges of one Webhook by `step`. Called with [`Inner::lock`] held.
    fn count(&self, counted: &Counted, step: i64) {
        self.webhooks.get_or_create(&counted.state).inc_by(step);
        // Also by nothing, so that an upstream without such a Webhook shows a zero that an alert can see end.
        let labels = TypeLabels::new(&counted.state.provider_type);
        let step = if counted.deactivated_upstream { step } else { 0 };
        self.deactivated_upstream.get_or_create(&labels).inc_by(step);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectLabels, Counted>> {
        // After a panic elsewhere a count may be off by one: better than no metrics at all.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
