//! The objects: one provider for each upstream with its limits lifted, and Webhooks that want everything at once.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta, PostParams,
    },
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::stand::Doubles;
use crate::progress::Failure;

/// Namespace of everything that a user would write.
const NAMESPACE: &str = "bench";

/// Tells sets of Webhooks from one another.
const LABEL: &str = "bench-set";

const API_VERSION: &str = "webhook-operator.dev/v1alpha1";

/// The Webhooks of one run.
pub(super) struct Load {
    webhooks: Api<DynamicObject>,
    manifests: Vec<DynamicObject>,
    /// Tells them from other Webhooks.
    selector: String,
}

/// How long it took.
pub(super) struct Times {
    /// From the first request to the last Webhook's Ready.
    pub(super) all: Duration,
    /// From the first request to the answer to the last.
    pub(super) apply: Duration,
    /// From each Webhook's own request to its Ready, as a watch saw it.
    pub(super) each: Vec<Duration>,
}

/// When each Webhook was seen Ready.
type Seen = Arc<Mutex<HashMap<String, Instant>>>;

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("webhook-operator.dev", "v1alpha1", kind))
}

fn object(value: Value) -> Result<DynamicObject, Failure> {
    Ok(serde_json::from_value(value)?)
}

/// Makes namespace, accounts and providers.
pub(super) async fn prepare(client: &Client, doubles: &Doubles) -> Result<(), Failure> {
    let core = |kind: &str| ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let params = PostParams::default();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Api::all_with(client.clone(), &core("Namespace"))
        .create(&params, &object(namespace)?)
        .await?;
    let secrets: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &core("Secret"));
    for (name, data) in doubles.credentials() {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        secrets.create(&params, &object(secret)?).await?;
    }
    let providers: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), NAMESPACE, &resource("WebhookProvider"));
    for upstream in doubles.upstreams() {
        providers
            .create(&params, &object(provider(&upstream.name, &upstream.url))?)
            .await?;
    }
    Ok(())
}

/// Webhooks of one kind, spread evenly over the upstreams.
pub(super) struct Set {
    /// Value of the label that tells them from others, and the beginning of their names.
    name: String,
    /// Their numbers, of which no other set has any: upstreams take each target once.
    numbers: Range<u32>,
    /// `spec.interval`.
    interval: String,
    /// Where they are tested every minute, if they are.
    receiver: Option<String>,
}

impl Set {
    /// Those that the operator does not test.
    pub(super) fn plain(name: &str, numbers: Range<u32>, interval: &str) -> Self {
        Self {
            name: name.to_owned(),
            numbers,
            interval: interval.to_owned(),
            receiver: None,
        }
    }

    /// Those that the operator tests every minute, at `receiver/NAME`.
    pub(super) fn tested(numbers: Range<u32>, interval: &str, receiver: &str) -> Self {
        Self {
            receiver: Some(receiver.to_owned()),
            ..Self::plain("tested", numbers, interval)
        }
    }
}

/// How they are applied.
pub(super) struct Pace {
    /// So many requests at the same time.
    pub(super) at_once: usize,
    /// Wait of each before the next.
    pub(super) pause: Duration,
}

impl Pace {
    /// Without waits.
    pub(super) fn at_once(at_once: usize) -> Self {
        Self {
            at_once,
            pause: Duration::ZERO,
        }
    }

    /// One after the other.
    pub(super) fn one_by_one(pause: Duration) -> Self {
        Self { at_once: 1, pause }
    }
}

impl Load {
    /// The Webhooks of a set, not applied yet.
    pub(super) fn of(client: &Client, set: &Set) -> Result<Self, Failure> {
        let manifests = set
            .numbers
            .clone()
            .map(|number| object(webhook(number, set)))
            .collect::<Result<_, _>>()?;
        let webhooks = Api::namespaced_with(client.clone(), NAMESPACE, &resource("Webhook"));
        Ok(Self {
            webhooks,
            manifests,
            selector: format!("{LABEL}={}", set.name),
        })
    }

    /// The uids of those that are applied, by name.
    pub(super) async fn uids(&self) -> Result<HashMap<String, String>, Failure> {
        let params = ListParams::default().labels(&self.selector);
        let list = self.webhooks.list_metadata(&params).await?;
        let of = |object: PartialObjectMeta<DynamicObject>| object.metadata.name.zip(object.metadata.uid);
        Ok(list.items.into_iter().filter_map(of).collect())
    }

    /// Creates all Webhooks and waits until all are Ready.
    pub(super) async fn fill(&self, pace: &Pace, limit: Duration) -> Result<Times, Failure> {
        let seen = Seen::default();
        let (count, counted) = watch::channel(0);
        let watching = tokio::spawn(follow(
            self.webhooks.clone(),
            self.selector.clone(),
            Arc::clone(&seen),
            count,
        ));
        let began = Instant::now();
        let applied: HashMap<String, Instant> = stream::iter(&self.manifests)
            .map(|manifest| async move {
                let sent = Instant::now();
                self.webhooks.create(&PostParams::default(), manifest).await?;
                sleep(pace.pause).await;
                Ok::<_, Failure>((manifest.metadata.name.clone().unwrap_or_default(), sent))
            })
            .buffer_unordered(pace.at_once)
            .try_collect()
            .await?;
        let apply = began.elapsed();
        let ready = wait(counted, self.manifests.len(), limit).await;
        watching.abort();
        if let Err(failure) = ready {
            return Err(self.explain(&seen, failure).await);
        }
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let each = applied
            .iter()
            .filter_map(|(name, sent)| seen.get(name).map(|ready| ready.saturating_duration_since(*sent)))
            .collect();
        let last = seen.values().max().copied().unwrap_or(began);
        Ok(Times {
            all: last.saturating_duration_since(began),
            apply,
            each,
        })
    }

    /// Adds why one of those that are not Ready is not.
    async fn explain(&self, seen: &Seen, failure: Failure) -> Failure {
        let missing = {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let names = self
                .manifests
                .iter()
                .filter_map(|manifest| manifest.metadata.name.as_deref());
            names
                .filter(|name| !seen.contains_key(*name))
                .map(str::to_owned)
                .next()
        };
        let Some(name) = missing else { return failure };
        match self.webhooks.get(&name).await {
            Ok(object) => Failure::new(format!(
                "{failure}; {name}: {}",
                object.data.get("status").unwrap_or(&Value::Null)
            )),
            Err(error) => Failure::new(format!("{failure}; {name}: {error}")),
        }
    }

    /// Deletes all Webhooks and waits until they are gone.
    pub(super) async fn delete(&self, limit: Duration) -> Result<Duration, Failure> {
        let began = Instant::now();
        let all = ListParams::default().labels(&self.selector);
        // The API server ends a request after a minute, which does not do for thousands: it is asked again.
        while let Err(error) = self
            .webhooks
            .delete_collection(&DeleteParams::default(), &all)
            .await
        {
            if began.elapsed() > limit || matches!(&error, kube::Error::Api(status) if status.is_forbidden())
            {
                return Err(error.into());
            }
            eprintln!("  deleting goes on after: {error}");
            sleep(Duration::from_secs(1)).await;
        }
        let one = all.limit(1);
        while !self.webhooks.list_metadata(&one).await?.items.is_empty() {
            if began.elapsed() > limit {
                return Err(Failure::new("not all Webhooks went in time"));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(began.elapsed())
    }
}

/// Notes when each Webhook becomes Ready for the generation that it has.
async fn follow(webhooks: Api<DynamicObject>, selector: String, seen: Seen, count: watch::Sender<usize>) {
    let stream = watcher(webhooks, watcher::Config::default().labels(&selector))
        .default_backoff()
        .applied_objects();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let Ok(object) = event else { continue };
        if !is_ready(&object) {
            continue;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(object.metadata.name.unwrap_or_default())
            .or_insert_with(Instant::now);
        count.send_replace(seen.len());
    }
}

fn is_ready(object: &DynamicObject) -> bool {
    let generation = json!(object.metadata.generation);
    let conditions = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type") == Some(&json!("Ready"))
            && condition.get("status") == Some(&json!("True"))
            && condition.get("observedGeneration") == Some(&generation)
    })
}

async fn wait(mut counted: watch::Receiver<usize>, wanted: usize, limit: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < limit {
        // Either all are there, or it is time to tell how many.
        if let Ok(result) = timeout(Duration::from_secs(5), counted.wait_for(|count| *count >= wanted)).await
        {
            result?;
            return Ok(());
        }
        eprintln!(
            "  {} of {wanted} Ready after {} s",
            *counted.borrow(),
            began.elapsed().as_secs()
        );
    }
    Err(Failure::new(format!(
        "{} of {wanted} Webhooks Ready after {} s",
        *counted.borrow(),
        limit.as_secs()
    )))
}

fn provider(upstream: &str, url: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "WebhookProvider",
        "metadata": {"name": upstream.to_lowercase()},
        "spec": {
            "type": upstream,
            "baseUrl": url,
            "credentialsRef": {"name": upstream.to_lowercase()},
            "rateLimit": {"requestsPerSecond": 1000, "burst": 1000, "maxConcurrent": 64},
        }
    })
}

/// One Webhook with what a user of that upstream would typically set.
fn webhook(number: u32, set: &Set) -> Value {
    let (upstream, own) = match number % 4 {
        0 => ("conpeek", json!({"target": (number + 1).to_string()})),
        1 => (
            "thulium",
            json!({"events": ["TICKET_CREATED", "CHAT_CONVERSATION_CREATED"]}),
        ),
        2 => ("ricloud", json!({})),
        _ => (
            "autocosmos",
            json!({"target": format!("topic-{number}"), "secretRef": {"name": "signing"}}),
        ),
    };
    let name = format!("{}-{upstream}-{number}", set.name);
    let (url, test) = match &set.receiver {
        Some(receiver) => (
            format!("{receiver}/{name}"),
            Some(json!({"mode": "Probe", "interval": "1m"})),
        ),
        // Nobody is delivered to: the verdict of the ricloud double is switched to "valid", the operator tests nobody.
        None => (
            format!("https://hooks.example.test/receiver/{number}"),
            (upstream != "ricloud").then(|| json!({"mode": "None"})),
        ),
    };
    let mut spec = json!({"providerRef": {"name": upstream}, "url": url, "interval": set.interval});
    if let (Some(spec), Some(own)) = (spec.as_object_mut(), own.as_object()) {
        spec.extend(own.clone());
        spec.extend(test.map(|test| ("test".to_owned(), test)));
    }
    json!({
        "apiVersion": API_VERSION, "kind": "Webhook",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: set.name}},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_counts_only_for_the_present_generation() {
        let webhook = |generation: i64, observed: i64, status: &str| {
            let condition = json!({"type": "Ready", "status": status, "observedGeneration": observed});
            let value = json!({
                "apiVersion": API_VERSION, "kind": "Webhook",
                "metadata": {"name": "a", "generation": generation},
                "status": {"conditions": [condition]},
            });
            object(value).unwrap()
        };
        assert!(is_ready(&webhook(2, 2, "True")));
        assert!(!is_ready(&webhook(2, 1, "True")));
        assert!(!is_ready(&webhook(2, 2, "False")));
    }
}
