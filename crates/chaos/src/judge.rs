//! Registrations against Webhooks: what is missing, doubled, left over, different or not Ready.
//!
//! Pure, and an independent reading of the contracts: what a registration has to look like is worked out here from
//! what the user wrote, with no code of the operator. Compared is the meaning and not the text: order, defaults and
//! whether a number is one do not matter, as in the operator's own normal form.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kube::{ResourceExt, api::DynamicObject};
use serde::Serialize;
use serde_json::{Value, json};
use upstream_doubles::{AppWebhook, ConfigState, ConpeekWebhook, Doubles, ThuliumWebhook, WebhookConfig};

use crate::fleet::{BASIC, Fleet, Hook, Upstream, signing_name};

/// Annotations of the operator, as its documentation has them.
const ID: &str = "webhook-operator.dev/id";
const PENDING: &str = "webhook-operator.dev/create-pending";

/// What is wrong with a Webhook or a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wrong {
    /// A Webhook is wanted and not registered.
    Missing,
    /// Several registrations are one and the same.
    Duplicate,
    /// A registration belongs to no Webhook.
    Orphan,
    /// A registration is not as its Webhook says.
    Different,
    /// Id, journal or Secret do not tell what is there.
    Record,
    /// A Webhook is not Ready for its present generation.
    NotReady,
    /// An object that should be gone is there.
    LeftBehind,
    /// Something was written although nothing had to be.
    Restless,
    /// What was taken away was not only written down again.
    Forgot,
    /// The process holds more and more under the same load.
    Growing,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Missing,
        Self::Duplicate,
        Self::Orphan,
        Self::Different,
        Self::Record,
        Self::NotReady,
        Self::LeftBehind,
        Self::Restless,
        Self::Forgot,
        Self::Growing,
    ];
}

/// One of them, with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub wrong: Wrong,
    /// Which one, and what is the matter.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.wrong, self.what)
    }
}

/// All that is registered.
pub struct Registered {
    conpeek: Vec<ConpeekWebhook>,
    thulium: Vec<ThuliumWebhook>,
    /// By the id that the API shows.
    ricloud: BTreeMap<String, WebhookConfig>,
    autocosmos: Vec<AppWebhook>,
    duplicates: Vec<String>,
}

impl Registered {
    /// As it is now.
    #[must_use]
    pub fn read(doubles: &Doubles) -> Self {
        let ricloud = doubles.ricloud().objects();
        let shown = |config: &WebhookConfig| doubles.ricloud().upstream().external_id(config.id);
        Self {
            conpeek: doubles.conpeek().objects(),
            thulium: doubles.thulium().objects(),
            ricloud: ricloud
                .into_iter()
                .map(|config| (shown(&config), config))
                .collect(),
            autocosmos: doubles.autocosmos().objects(),
            duplicates: duplicates(doubles),
        }
    }

    /// How many count, by upstream: what was left at Conpeek counts, what is switched off at Autocosmos does not.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::from([
            ("conpeek", self.conpeek.len()),
            ("thulium", self.thulium.len()),
            ("ricloud", self.ricloud.len()),
            (
                "autocosmos",
                self.autocosmos.iter().filter(|it| it.activo).count(),
            ),
        ])
    }

    /// The ids or keys of everything there, switched off or not, by upstream.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<(&'static str, String)> {
        let conpeek = self
            .conpeek
            .iter()
            .map(|it| ("conpeek", it.application.to_string()));
        let thulium = self.thulium.iter().map(|it| ("thulium", it.id.to_string()));
        let ricloud = self.ricloud.keys().map(|id| ("ricloud", id.clone()));
        let autocosmos = self.autocosmos.iter().map(|it| ("autocosmos", it.topic.clone()));
        conpeek.chain(thulium).chain(ricloud).chain(autocosmos).collect()
    }
}

/// What is there more than once, in words.
#[must_use]
pub fn duplicates(doubles: &Doubles) -> Vec<String> {
    let thulium = doubles.thulium().duplicates();
    let ricloud = doubles.ricloud().duplicates();
    let told = |upstream: &'static str| {
        move |it: upstream_doubles::Duplicate| format!("{upstream}: {} has ids {}", it.url, it.ids.join(", "))
    };
    let thulium = thulium.into_iter().map(told("thulium"));
    thulium.chain(ricloud.into_iter().map(told("ricloud"))).collect()
}

/// What is in the cluster.
pub struct InCluster {
    /// All Webhooks.
    pub webhooks: Vec<DynamicObject>,
    /// What Secrets hold under the key `secret`, by name.
    pub secrets: BTreeMap<String, String>,
}

/// Everything that is wrong, the worst first. Empty: all is well.
#[must_use]
pub fn judge(fleet: &Fleet, cluster: &InCluster, registered: &Registered) -> Vec<Finding> {
    let mut case = Case {
        fleet,
        cluster,
        registered,
        claimed: BTreeSet::new(),
        found: Vec::new(),
    };
    for what in &registered.duplicates {
        case.add(Wrong::Duplicate, what.clone());
    }
    let there: BTreeMap<String, &DynamicObject> = cluster
        .webhooks
        .iter()
        .map(|object| (object.name_any(), object))
        .collect();
    for (name, hook) in fleet.live() {
        match there.get(name) {
            Some(object) => case.webhook(hook, object),
            None => case.add(Wrong::Missing, format!("{name}: the Webhook itself is not there")),
        }
    }
    for (name, object) in there {
        if !fleet.live().contains_key(&name) {
            let since = object.metadata.deletion_timestamp.is_some();
            let state = if since { "still terminating" } else { "not deleted" };
            case.add(Wrong::LeftBehind, format!("{name}: {state}"));
        }
    }
    case.secrets();
    case.orphans();
    case.found.sort_by_key(|finding| finding.wrong);
    case.found
}

/// How many of each kind there are.
#[must_use]
pub fn count(findings: &[Finding], wrong: Wrong) -> usize {
    findings.iter().filter(|finding| finding.wrong == wrong).count()
}

struct Case<'a> {
    fleet: &'a Fleet,
    cluster: &'a InCluster,
    registered: &'a Registered,
    /// Registrations that a Webhook holds.
    claimed: BTreeSet<(Upstream, String)>,
    found: Vec<Finding>,
}

impl Case<'_> {
    fn add(&mut self, wrong: Wrong, what: String) {
        self.found.push(Finding { wrong, what });
    }

    fn webhook(&mut self, hook: &Hook, object: &DynamicObject) {
        let name = &hook.name;
        let note = |name: &str| object.annotations().get(name).map(String::as_str);
        if object.metadata.deletion_timestamp.is_some() {
            self.add(
                Wrong::LeftBehind,
                format!("{name}: an earlier one is still terminating"),
            );
            return;
        }
        if note(PENDING).is_some() {
            self.add(Wrong::Record, format!("{name}: a mark of a create is left"));
        }
        if let Some(why) = not_ready(object) {
            self.add(Wrong::NotReady, format!("{name}: {why}"));
        }
        let in_status = object.data.pointer("/status/id").and_then(Value::as_str);
        let Some(id) = note(ID).filter(|id| !id.is_empty()) else {
            self.add(Wrong::Missing, format!("{name}: no id is recorded"));
            return;
        };
        if in_status != Some(id) {
            let told = in_status.unwrap_or("none");
            self.add(
                Wrong::Record,
                format!("{name}: id {id} in the annotation, {told} in status"),
            );
        }
        if !self.claimed.insert((hook.upstream, id.to_owned())) {
            self.add(
                Wrong::Record,
                format!("{name}: another Webhook records the same id {id}"),
            );
        }
        match self.difference(hook, id) {
            Some(Some(what)) => self.add(Wrong::Different, format!("{name} ({id}): {what}")),
            Some(None) => {}
            None => self.add(Wrong::Missing, format!("{name}: there is no registration {id}")),
        }
    }

    /// How the registration of this id differs from what is wanted. `None`: there is none of this id.
    fn difference(&self, hook: &Hook, id: &str) -> Option<Option<String>> {
        let (want, there) = match hook.upstream {
            Upstream::Conpeek => {
                let found = self
                    .registered
                    .conpeek
                    .iter()
                    .find(|it| it.application.to_string() == id)?;
                (conpeek_wanted(hook), conpeek_there(found))
            }
            Upstream::Thulium => {
                let found = self
                    .registered
                    .thulium
                    .iter()
                    .find(|it| it.id.to_string() == id)?;
                (thulium_wanted(hook), thulium_there(found))
            }
            Upstream::Ricloud => {
                let found = self.registered.ricloud.get(id)?;
                let held = self.cluster.secrets.get(&published(hook));
                (ricloud_wanted(hook, held), ricloud_there(found))
            }
            Upstream::Autocosmos => {
                let found = self.registered.autocosmos.iter().find(|it| it.topic == id)?;
                let secret = self.fleet.signing().get(hook.signing);
                (autocosmos_wanted(hook, secret), autocosmos_there(found))
            }
        };
        Some((want != there).then(|| differing(&want, &there)))
    }

    /// Secrets that the operator wrote and nobody needs any more.
    fn secrets(&mut self) {
        let ours: BTreeSet<String> = (0..self.fleet.signing().len()).map(signing_name).collect();
        let needed = |name: &str| {
            let mut hooks = self.fleet.live().values();
            ours.contains(name)
                || hooks.any(|hook| hook.upstream == Upstream::Ricloud && published(hook) == name)
        };
        let left: Vec<String> = self
            .cluster
            .secrets
            .keys()
            .filter(|name| !needed(name))
            .cloned()
            .collect();
        for name in left {
            self.add(Wrong::LeftBehind, format!("Secret {name}"));
        }
    }

    fn orphans(&mut self) {
        let held = |upstream, id: &str| self.claimed.contains(&(upstream, id.to_owned()));
        let mut orphans = Vec::new();
        for it in &self.registered.thulium {
            if !held(Upstream::Thulium, &it.id.to_string()) {
                orphans.push(format!("thulium {}: {}", it.id, it.subscription_url));
            }
        }
        for (id, it) in &self.registered.ricloud {
            if !held(Upstream::Ricloud, id) {
                orphans.push(format!("ricloud {id}: {} ({:?})", it.url, it.state));
            }
        }
        for it in self.registered.autocosmos.iter().filter(|it| it.activo) {
            if !held(Upstream::Autocosmos, &it.topic) {
                orphans.push(format!("autocosmos {}", it.topic));
            }
        }
        for it in &self.registered.conpeek {
            let id = it.application.to_string();
            let url = it.url.as_deref().unwrap_or_default();
            // There is no delete: what stays must be what one of its Webhooks wanted.
            if !held(Upstream::Conpeek, &id) && !self.fleet.left(&id, url) {
                orphans.push(format!("conpeek {id}: {url}"));
            }
        }
        for what in orphans {
            self.add(Wrong::Orphan, what);
        }
    }
}

/// Why a Webhook is not Ready for its generation.
fn not_ready(object: &DynamicObject) -> Option<String> {
    let generation = json!(object.metadata.generation);
    let conditions = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type") == Some(&json!("Ready")));
    let Some(ready) = ready else {
        return Some("no condition Ready".to_owned());
    };
    let text = |name: &str| ready.get(name).and_then(Value::as_str).unwrap_or_default();
    if ready.get("observedGeneration") != Some(&generation) {
        return Some(format!("{} is of an earlier generation", text("reason")));
    }
    (text("status") != "True").then(|| format!("{}: {}", text("reason"), text("message")))
}

/// Name of the Secret that ricloud's secret is written to.
fn published(hook: &Hook) -> String {
    format!("{}-signing", hook.name)
}

fn conpeek_wanted(hook: &Hook) -> Value {
    json!({
        "url": hook.url,
        "retry": [true, 10, hook.max_retries.unwrap_or(2), "multiplier", 2.0],
        "headers": hook.headers,
    })
}

fn conpeek_there(it: &ConpeekWebhook) -> Value {
    let retry = it.retry_config.as_ref().map(|retry| {
        json!([
            it.retry_enabled,
            retry.retry_value,
            retry.max_retries,
            retry.backoff_type,
            retry.backoff_value
        ])
    });
    json!({"url": it.url, "retry": retry, "headers": it.headers})
}

fn thulium_wanted(hook: &Hook) -> Value {
    let (user, password) = if hook.basic_auth { BASIC } else { ("", "") };
    json!({"url": hook.url, "actions": hook.events, "user": user, "password": password})
}

fn thulium_there(it: &ThuliumWebhook) -> Value {
    let actions: BTreeSet<&String> = it.actions.iter().collect();
    json!({
        "url": it.subscription_url, "actions": actions,
        "user": it.http_auth_user, "password": it.http_auth_password,
    })
}

/// The secret that the upstream made has to be in the Secret; what it is, only the upstream knows.
fn ricloud_wanted(hook: &Hook, held: Option<&String>) -> Value {
    json!({"url": hook.url, "active": hook.active, "secret": held})
}

fn ricloud_there(it: &WebhookConfig) -> Value {
    json!({"url": it.url, "active": it.state != ConfigState::Deactivated, "secret": it.secret})
}

fn autocosmos_wanted(hook: &Hook, secret: Option<&String>) -> Value {
    json!({
        "url": hook.url, "active": hook.active, "secret": secret,
        "description": hook.description.as_deref().unwrap_or_default(), "headers": hook.headers,
    })
}

fn autocosmos_there(it: &AppWebhook) -> Value {
    let headers: BTreeMap<&str, &str> = it
        .headers
        .iter()
        .flatten()
        .map(|header| (header.name.as_str(), header.value.reveal()))
        .collect();
    json!({
        "url": it.callback, "active": it.activo, "secret": it.secret,
        "description": it.description.as_deref().unwrap_or_default(), "headers": headers,
    })
}

/// Names of the fields that differ; the values may be secrets.
fn differing(want: &Value, there: &Value) -> String {
    let fields = want.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| there.get(name.as_str()) != Some(value));
    let told = fields.map(|(name, value)| match name.as_str() {
        "url" | "active" | "actions" => {
            format!(
                "{name} is {} instead of {value}",
                there.get(name).unwrap_or(&Value::Null)
            )
        }
        _ => name.clone(),
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use upstream_doubles::Options;

    use super::*;

    /// One Webhook at Thulium, Ready and registered, in a fleet of four.
    async fn settled() -> (Doubles, Fleet, DynamicObject, u64) {
        let doubles = Doubles::start(Options::demo()).await.unwrap();
        let mut fleet = Fleet::new(1, 4);
        let hook = fleet
            .live()
            .values()
            .find(|hook| hook.upstream == Upstream::Thulium)
            .unwrap()
            .clone();
        fleet.clear();
        fleet.note(hook.clone());
        let (user, password) = if hook.basic_auth { BASIC } else { ("", "") };
        let id = doubles.thulium().upstream().insert(ThuliumWebhook {
            id: 0,
            actions: hook.events.iter().rev().map(|name| (*name).to_owned()).collect(),
            subscription_url: hook.url.clone(),
            http_auth_user: user.into(),
            http_auth_password: password.into(),
        });
        let object = json!({
            "apiVersion": crate::fleet::API_VERSION, "kind": "Webhook",
            "metadata": {"name": hook.name, "generation": 2, "annotations": {ID: id.to_string()}},
            "status": {"id": id.to_string(), "conditions": [
                {"type": "Ready", "status": "True", "reason": "Available", "observedGeneration": 2},
            ]},
        });
        (doubles, fleet, serde_json::from_value(object).unwrap(), id)
    }

    fn found(doubles: &Doubles, fleet: &Fleet, objects: &[&DynamicObject]) -> Vec<Wrong> {
        let cluster = InCluster {
            webhooks: objects.iter().map(|object| (*object).clone()).collect(),
            secrets: BTreeMap::new(),
        };
        let found = judge(fleet, &cluster, &Registered::read(doubles));
        found.into_iter().map(|finding| finding.wrong).collect()
    }

    #[tokio::test]
    async fn what_is_as_wanted_is_let_pass() {
        let (doubles, fleet, object, _) = settled().await;
        assert_eq!(found(&doubles, &fleet, &[&object]), []);
    }

    #[tokio::test]
    async fn a_second_registration_is_a_duplicate_and_an_orphan() {
        let (doubles, fleet, object, id) = settled().await;
        let twin = doubles.thulium().upstream().webhook(id).unwrap();
        doubles.thulium().upstream().insert(twin);
        assert_eq!(
            found(&doubles, &fleet, &[&object]),
            [Wrong::Duplicate, Wrong::Orphan]
        );
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_as_wanted_is_told() {
        let (doubles, fleet, object, id) = settled().await;
        doubles.thulium().edit(&id.to_string(), |it| {
            it.subscription_url = "https://x.test/".into()
        });
        assert_eq!(found(&doubles, &fleet, &[&object]), [Wrong::Different]);
        doubles.thulium().remove(&id.to_string());
        assert_eq!(found(&doubles, &fleet, &[&object]), [Wrong::Missing]);
        assert_eq!(found(&doubles, &fleet, &[]), [Wrong::Missing]);
    }

    #[tokio::test]
    async fn records_and_conditions_have_to_tell_the_truth() {
        let (doubles, fleet, object, _) = settled().await;
        let mut stale = object.clone();
        stale.metadata.generation = Some(3);
        assert_eq!(found(&doubles, &fleet, &[&stale]), [Wrong::NotReady]);
        let mut marked = object.clone();
        marked.annotations_mut().insert(PENDING.into(), "{}".into());
        assert_eq!(found(&doubles, &fleet, &[&marked]), [Wrong::Record]);
        let mut other = object.clone();
        other.data["status"]["id"] = json!("999");
        assert_eq!(found(&doubles, &fleet, &[&other]), [Wrong::Record]);
    }

    #[tokio::test]
    async fn what_should_be_gone_is_told() {
        let (doubles, mut fleet, object, _) = settled().await;
        fleet.clear();
        assert_eq!(
            found(&doubles, &fleet, &[&object]),
            [Wrong::Orphan, Wrong::LeftBehind]
        );
    }
}
