//! The operator with an upstream in trouble: credentials that are refused, calls that are to be fewer, an outage, and
//! deletions meanwhile; with specs that it cannot read, and with watches that tell things late. All on virtual time, so
//! that hours and many objects cost little; what only a real API server or a real connection shows is in the operator's
//! own tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

mod budget;
mod bulkhead;
mod deletions;
mod events;
mod outage;
mod revoked;
mod words;

use std::time::Duration;

use serde_json::{Value, json};
use simulation::{
    Operator, Rest, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
};
use tokio::time::{Instant, sleep};
use upstream_doubles::{Fault, Seen};
use webhook_operator::api::provider::ProviderType;

const ALL: [ProviderType; 4] = [
    ProviderType::Conpeek,
    ProviderType::Thulium,
    ProviderType::Ricloud,
    ProviderType::Autocosmos,
];

/// A call to the double of an upstream, whichever it is.
macro_rules! double {
    ($world:expr, $provider:expr, $double:ident => $call:expr) => {{
        let upstreams = $world.upstreams();
        match $provider {
            ProviderType::Conpeek => {
                let $double = upstreams.conpeek();
                $call
            }
            ProviderType::Thulium => {
                let $double = upstreams.thulium();
                $call
            }
            ProviderType::Ricloud => {
                let $double = upstreams.ricloud();
                $call
            }
            ProviderType::Autocosmos => {
                let $double = upstreams.autocosmos();
                $call
            }
        }
    }};
}

pub(crate) use double;

/// A world with an operator in it.
struct Scene {
    world: World,
    operator: Operator,
}

impl Scene {
    /// Providers of these types, whose specs say what `over` says, and an operator with these arguments.
    fn new(providers: &[ProviderType], over: &Value, args: &[&str]) -> Self {
        let world = World::new(1);
        for provider in providers {
            let base = double!(world, provider, double => double.url());
            let [secret, mut provider] = manifests::provider("apps", *provider, &base, &Account::demo());
            manifests::overlay(&mut provider["spec"], over);
            for manifest in [secret, provider] {
                world.api().create(&manifest).unwrap();
            }
        }
        let operator = Operator::start(&world, options(args));
        Self { world, operator }
    }

    /// Creates a Webhook of its own target.
    fn webhook(&self, provider: ProviderType, number: usize, over: &Value) -> Id {
        let name = format!("{}-{number}", manifests::name_of(provider));
        let mut manifest = manifests::webhook("apps", &name, provider, &json!({}));
        match provider {
            ProviderType::Conpeek => manifest["spec"]["target"] = json!((number + 1).to_string()),
            ProviderType::Autocosmos => manifest["spec"]["target"] = json!(format!("topic-{number}")),
            ProviderType::Thulium | ProviderType::Ricloud => {}
        }
        manifests::overlay(&mut manifest["spec"], over);
        self.world.api().create(&manifest).unwrap();
        Id::new("webhooks", "apps", &name)
    }

    fn webhooks(&self, provider: ProviderType, count: usize, over: &Value) -> Vec<Id> {
        (0..count)
            .map(|number| self.webhook(provider, number, over))
            .collect()
    }

    /// Waits until a condition holds; looks every 100 ms.
    async fn until(&self, what: &str, longest: Duration, met: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !met(self) {
            assert!(
                began.elapsed() < longest,
                "waited {longest:?} in vain for {what}; the last calls:\n{}",
                self.last_calls()
            );
            assert!(!self.operator.has_ended(), "the operator ended");
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    fn last_calls(&self) -> String {
        let made = self.world.wire().made();
        let tail: Vec<String> = made.iter().rev().take(30).map(ToString::to_string).collect();
        tail.join("\n")
    }

    async fn until_ready(&self, ids: &[Id], longest: Duration) -> Duration {
        self.until("all to be ready", longest, |scene| {
            ids.iter().all(|id| scene.is_ready(id))
        })
        .await
    }

    async fn until_gone(&self, ids: &[Id], longest: Duration) -> Duration {
        self.until("all to be gone", longest, |scene| {
            ids.iter().all(|id| scene.world.api().get(id).is_none())
        })
        .await
    }

    fn is_ready(&self, id: &Id) -> bool {
        let Some(webhook) = self.world.api().get(id) else {
            return false;
        };
        let current = webhook["status"]["observedGeneration"] == webhook["metadata"]["generation"];
        current && ready(&webhook).is_some_and(|ready| ready["status"] == "True")
    }

    fn reason(&self, id: &Id) -> String {
        let webhook = self.world.api().get(id).unwrap();
        let ready = ready(&webhook).cloned().unwrap_or_default();
        ready["reason"].as_str().unwrap_or_default().to_owned()
    }

    fn requests(&self, provider: ProviderType) -> Vec<Seen> {
        double!(self.world, provider, double => double.requests())
    }

    fn fault(&self, provider: ProviderType, fault: Fault) {
        double!(self.world, provider, double => { double.set_fault(fault); });
    }

    fn heal(&self, provider: ProviderType) {
        double!(self.world, provider, double => double.clear_faults());
    }

    /// What delivers at the upstream.
    fn registrations(&self, provider: ProviderType) -> usize {
        self.urls(provider).len()
    }

    /// The URLs that the upstream delivers to, in order.
    fn urls(&self, provider: ProviderType) -> Vec<String> {
        let upstreams = self.world.upstreams();
        let mut urls: Vec<String> = match provider {
            ProviderType::Conpeek => {
                let all = upstreams.conpeek().objects();
                all.into_iter().map(|it| it.url.unwrap_or_default()).collect()
            }
            ProviderType::Thulium => {
                let all = upstreams.thulium().objects();
                all.into_iter().map(|it| it.subscription_url).collect()
            }
            ProviderType::Ricloud => {
                let all = upstreams.ricloud().objects();
                all.into_iter().map(|it| it.url).collect()
            }
            ProviderType::Autocosmos => {
                let all = upstreams.autocosmos().objects();
                let on = all.into_iter().filter(|it| it.activo);
                on.map(|it| it.callback.unwrap_or_default()).collect()
            }
        };
        urls.sort_unstable();
        urls
    }

    /// How many Webhooks an Event with this reason tells of.
    fn told(&self, reason: &str) -> usize {
        let events = self.world.api().list("events");
        events.iter().filter(|event| event["reason"] == reason).count()
    }

    fn delete(&self, id: &Id) {
        self.world.api().delete(id).unwrap();
        self.world.wire().stir();
    }

    fn change(&self, id: &Id, spec: &Value) {
        self.world.api().patch(id, &json!({ "spec": spec })).unwrap();
        self.world.wire().stir();
    }

    /// The wall clock in milliseconds, as the upstreams' journals have it.
    fn now(&self) -> u64 {
        u64::try_from(self.world.clock().now().as_millisecond()).unwrap()
    }

    /// Waits until the upstream has had no call for a second.
    async fn quiet_calls(&self, provider: ProviderType) {
        self.until("a pause", Duration::from_secs(120), |scene| {
            let last = scene.requests(provider).last().map_or(0, |seen| seen.at_millis);
            scene.now() >= last + 1000
        })
        .await;
    }

    async fn quiet(&self, silence: Duration) {
        let rest = self.world.rest(&self.operator, silence, silence * 20).await;
        assert_eq!(rest, Rest::Quiet, "{}", self.last_calls());
    }
}

fn ready(webhook: &Value) -> Option<&Value> {
    let conditions = webhook["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}
