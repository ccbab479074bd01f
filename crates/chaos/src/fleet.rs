//! The Webhooks as their users want them, and what the users do next.
//!
//! Pure: a [`Fleet`] decides by its seed, [`crate::user`] carries out. Every Webhook has URLs of its own, so no two
//! of them ever mean the same registration and whatever is there twice is the operator's doing.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

/// Version of every kind of the operator.
pub const API_VERSION: &str = "webhook-operator.dev/v1alpha1";

/// Signing secrets that Webhooks at Autocosmos share.
pub const SIGNING_SECRETS: usize = 4;

/// Name of the Secret with what Thulium sends as Basic auth.
pub const BASIC_SECRET: &str = "basic";

/// Login and password in it.
pub const BASIC: (&str, &str) = ("receiver", "the-receivers-password");

/// The four products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upstream {
    /// One configuration for each application; cannot be removed.
    Conpeek,
    /// Makes the id; any number of equal ones.
    Thulium,
    /// Makes id and secret, tests by itself.
    Ricloud,
    /// One configuration for each topic; is switched off instead of removed.
    Autocosmos,
}

impl Upstream {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conpeek, Self::Thulium, Self::Ricloud, Self::Autocosmos];

    /// As in `spec.type`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Conpeek => "Conpeek",
            Self::Thulium => "Thulium",
            Self::Ricloud => "Ricloud",
            Self::Autocosmos => "Autocosmos",
        }
    }

    /// Name of the provider and of its Secret.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conpeek => "conpeek",
            Self::Thulium => "thulium",
            Self::Ricloud => "ricloud",
            Self::Autocosmos => "autocosmos",
        }
    }
}

/// One Webhook as its user wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the object.
    pub name: String,
    /// Where it is registered.
    pub upstream: Upstream,
    /// Application at Conpeek, topic at Autocosmos, else `None`.
    pub target: Option<String>,
    /// Where deliveries go.
    pub url: String,
    /// Whether it is switched on.
    pub active: bool,
    /// Thulium's actions.
    pub events: BTreeSet<&'static str>,
    /// Whether Thulium sends Basic auth.
    pub basic_auth: bool,
    /// Autocosmos' free text.
    pub description: Option<String>,
    /// Headers of deliveries at Conpeek and Autocosmos.
    pub headers: BTreeMap<&'static str, String>,
    /// `retry.maxRetries` at Conpeek.
    pub max_retries: Option<u64>,
    /// Which of the signing secrets, at Autocosmos.
    pub signing: usize,
    /// Takes over what an earlier Webhook left at the same target, whatever its URL.
    pub take_over: bool,
}

impl Hook {
    /// The manifest, as a user would write it.
    #[must_use]
    pub fn manifest(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": "Webhook",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": self.spec(),
        })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "providerRef": {"name": self.upstream.name()},
            "url": self.url,
            // No read-back by chance: what is repaired here is repaired by what the operator wrote down.
            "interval": "24h",
        });
        let mut set = |name: &str, value: Value| {
            if let Some(spec) = spec.as_object_mut() {
                spec.insert(name.to_owned(), value);
            }
        };
        let mode = if self.upstream == Upstream::Ricloud {
            "Upstream"
        } else {
            "None"
        };
        set("test", json!({"mode": mode}));
        if let Some(target) = &self.target {
            set("target", json!(target));
        }
        if !self.active {
            set("active", json!(false));
        }
        if !self.events.is_empty() {
            set("events", json!(self.events));
        }
        if self.basic_auth {
            set("basicAuthRef", json!({"name": BASIC_SECRET}));
        }
        if let Some(text) = &self.description {
            set("description", json!(text));
        }
        if !self.headers.is_empty() {
            let headers: Vec<Value> = self
                .headers
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
            set("headers", json!(headers));
        }
        if let Some(max) = self.max_retries {
            set("retry", json!({"maxRetries": max}));
        }
        if self.upstream == Upstream::Autocosmos {
            set("secretRef", json!({"name": signing_name(self.signing)}));
        }
        if self.take_over {
            set("adoptionPolicy", json!("Always"));
        }
        spec
    }
}

/// Name of a signing Secret.
#[must_use]
pub fn signing_name(number: usize) -> String {
    format!("signing-{number}")
}

/// What a user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Applies a manifest: a new one, or a change.
    Apply(Hook),
    /// Deletes one; the same name may come back as the other Webhook, once it is gone.
    Delete {
        /// Which.
        name: String,
        /// What comes back under its name.
        again: Option<Hook>,
    },
    /// Puts a new value into a signing Secret.
    Rotate {
        /// Which.
        number: usize,
        /// The value.
        value: String,
    },
}

/// All that is wanted at a time.
#[derive(Debug)]
pub struct Fleet {
    rng: Rng,
    next: u32,
    version: u32,
    aim: usize,
    live: BTreeMap<String, Hook>,
    /// How many objects there have been.
    made: BTreeMap<Upstream, u32>,
    signing: Vec<String>,
    /// URLs that each target of Conpeek had, because what was there last stays when its Webhook goes.
    left_at_conpeek: BTreeMap<String, BTreeSet<String>>,
}

const ACTIONS: [&str; 4] = [
    "TICKET_CREATED",
    "TICKET_CLOSED",
    "CHAT_CONVERSATION_CREATED",
    "CALL_ENDED",
];

const HEADERS: [&str; 3] = ["X-Team", "X-Stage", "X-Trace"];

impl Fleet {
    /// `count` Webhooks, spread evenly over the upstreams.
    #[must_use]
    pub fn new(seed: u64, count: usize) -> Self {
        let mut fleet = Self {
            rng: Rng::with_seed(seed),
            next: 0,
            version: 0,
            aim: count,
            live: BTreeMap::new(),
            made: BTreeMap::new(),
            signing: Vec::new(),
            left_at_conpeek: BTreeMap::new(),
        };
        for number in 0..SIGNING_SECRETS {
            let value = fleet.secret_value(number);
            fleet.signing.push(value);
        }
        for _ in 0..count {
            let hook = fleet.new_hook();
            fleet.note(hook);
        }
        fleet
    }

    /// The Webhooks that shall be there, by name.
    #[must_use]
    pub fn live(&self) -> &BTreeMap<String, Hook> {
        &self.live
    }

    /// Values of the signing Secrets.
    #[must_use]
    pub fn signing(&self) -> &[String] {
        &self.signing
    }

    /// Whether a Webhook of this fleet may have left this URL at this application.
    #[must_use]
    pub fn left(&self, application: &str, url: &str) -> bool {
        self.left_at_conpeek
            .get(application)
            .is_some_and(|urls| urls.contains(url))
    }

    /// How many Webhooks there have been at an upstream; one that came back under an old name is another one.
    #[must_use]
    pub fn made(&self, upstream: Upstream) -> u32 {
        self.made.get(&upstream).copied().unwrap_or_default()
    }

    /// What a user does next. It counts as done.
    pub fn deed(&mut self) -> Deed {
        // More creates than deletes while there are too few of them, and the other way round.
        let few = self.live.len() < self.aim;
        match self.rng.u32(0..100) {
            0..=1 => self.rotate(),
            2..=54 => self.change(),
            55..=64 => self.delete(true),
            65..=99 if few => {
                let hook = self.new_hook();
                self.note(hook.clone());
                Deed::Apply(hook)
            }
            _ => self.delete(false),
        }
    }

    /// Notes that a Webhook is wanted so from now on.
    pub fn note(&mut self, hook: Hook) {
        if let (Upstream::Conpeek, Some(target)) = (hook.upstream, &hook.target) {
            let urls = self.left_at_conpeek.entry(target.clone()).or_default();
            urls.insert(hook.url.clone());
        }
        let upstream = hook.upstream;
        if self.live.insert(hook.name.clone(), hook).is_none() {
            *self.made.entry(upstream).or_default() += 1;
        }
    }

    /// All of them are to go.
    pub fn clear(&mut self) {
        self.live.clear();
    }

    fn rotate(&mut self) -> Deed {
        let number = self.rng.usize(0..SIGNING_SECRETS);
        let value = self.secret_value(number);
        if let Some(slot) = self.signing.get_mut(number) {
            slot.clone_from(&value);
        }
        Deed::Rotate { number, value }
    }

    fn secret_value(&mut self, number: usize) -> String {
        format!("signing-secret-{number}-{:016x}", self.rng.u64(..))
    }

    fn any(&mut self) -> Option<Hook> {
        let at = self.rng.usize(0..self.live.len().max(1));
        self.live.values().nth(at).cloned()
    }

    fn change(&mut self) -> Deed {
        let Some(mut hook) = self.any() else {
            return self.rotate();
        };
        match self.rng.u32(0..10) {
            0..=4 => hook.url = self.url(&hook.name),
            5 if matches!(hook.upstream, Upstream::Ricloud | Upstream::Autocosmos) => {
                hook.active = !hook.active;
            }
            _ => self.dress(&mut hook),
        }
        self.note(hook.clone());
        Deed::Apply(hook)
    }

    fn delete(&mut self, comes_back: bool) -> Deed {
        let Some(mut hook) = self.any() else {
            return self.rotate();
        };
        self.live.remove(&hook.name);
        let name = hook.name.clone();
        let again = comes_back.then(|| {
            hook.url = self.url(&hook.name);
            hook.active = true;
            hook.take_over = hook.upstream == Upstream::Conpeek;
            hook
        });
        Deed::Delete { name, again }
    }

    fn new_hook(&mut self) -> Hook {
        let number = self.next;
        self.next += 1;
        let upstream = match number % 4 {
            0 => Upstream::Conpeek,
            1 => Upstream::Thulium,
            2 => Upstream::Ricloud,
            _ => Upstream::Autocosmos,
        };
        let name = format!("{}-{number}", upstream.name());
        let target = match upstream {
            Upstream::Conpeek => Some((number + 1).to_string()),
            Upstream::Autocosmos => Some(format!("topic-{number}")),
            Upstream::Thulium | Upstream::Ricloud => None,
        };
        let mut hook = Hook {
            url: self.url(&name),
            name,
            upstream,
            target,
            active: true,
            events: BTreeSet::new(),
            basic_auth: false,
            description: None,
            headers: BTreeMap::new(),
            max_retries: None,
            signing: 0,
            take_over: false,
        };
        self.dress(&mut hook);
        hook
    }

    /// A URL that nothing had before.
    fn url(&mut self, name: &str) -> String {
        self.version += 1;
        format!("https://hooks.example.test/{name}/{}", self.version)
    }

    /// New values for what this upstream knows besides URL and switch.
    fn dress(&mut self, hook: &mut Hook) {
        match hook.upstream {
            Upstream::Conpeek => {
                hook.max_retries = self.rng.bool().then(|| self.rng.u64(0..=20));
                hook.headers = self.headers();
            }
            Upstream::Thulium => {
                let first = self.rng.usize(0..ACTIONS.len());
                let count = self.rng.usize(1..ACTIONS.len());
                hook.events = ACTIONS.into_iter().cycle().skip(first).take(count).collect();
                hook.basic_auth = self.rng.bool();
            }
            // There is nothing else: a new URL, so that a change is one.
            Upstream::Ricloud => hook.url = self.url(&hook.name),
            Upstream::Autocosmos => {
                hook.description = self.rng.bool().then(|| format!("of {}", self.rng.u32(..)));
                hook.headers = self.headers();
                hook.signing = self.rng.usize(0..SIGNING_SECRETS);
            }
        }
    }

    fn headers(&mut self) -> BTreeMap<&'static str, String> {
        let count = self.rng.usize(0..=HEADERS.len());
        let names = HEADERS.into_iter().take(count);
        names
            .map(|name| (name, format!("value-{}", self.rng.u32(..))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deeds(seed: u64, count: usize) -> (Fleet, Vec<Deed>) {
        let mut fleet = Fleet::new(seed, 40);
        let deeds = (0..count).map(|_| fleet.deed()).collect();
        (fleet, deeds)
    }

    #[test]
    fn a_seed_fixes_what_is_wanted_and_done() {
        assert_eq!(deeds(7, 200).1, deeds(7, 200).1);
        assert_ne!(deeds(7, 200).1, deeds(8, 200).1);
    }

    #[test]
    fn users_do_everything_and_keep_about_as_many_as_they_began_with() {
        let (fleet, deeds) = deeds(1, 2000);
        let count = |wanted: fn(&Deed) -> bool| deeds.iter().filter(|deed| wanted(deed)).count();
        assert!(count(|deed| matches!(deed, Deed::Apply(_))) > 1000);
        assert!(count(|deed| matches!(deed, Deed::Delete { again: Some(_), .. })) > 50);
        assert!(count(|deed| matches!(deed, Deed::Delete { again: None, .. })) > 50);
        assert!(count(|deed| matches!(deed, Deed::Rotate { .. })) > 10);
        let live = fleet.live().len();
        assert!((25..=45).contains(&live), "{live}");
        let made: u32 = Upstream::ALL
            .into_iter()
            .map(|upstream| fleet.made(upstream))
            .sum();
        assert!(made > 300, "{made}");
    }

    #[test]
    fn no_url_is_used_twice() {
        let (_, deeds) = deeds(3, 2000);
        let mut of: BTreeMap<String, String> = BTreeMap::new();
        for deed in deeds {
            let (Deed::Apply(hook)
            | Deed::Delete {
                again: Some(hook), ..
            }) = deed
            else {
                continue;
            };
            let owner = of.entry(hook.url).or_insert_with(|| hook.name.clone());
            assert_eq!(*owner, hook.name);
        }
    }

    #[test]
    fn what_conpeek_may_keep_is_remembered() {
        let (mut fleet, _) = deeds(5, 500);
        let hook = fleet
            .live()
            .values()
            .find(|hook| hook.upstream == Upstream::Conpeek)
            .unwrap()
            .clone();
        fleet.clear();
        assert!(fleet.live().is_empty());
        assert!(fleet.left(hook.target.as_deref().unwrap(), &hook.url));
        assert!(!fleet.left(hook.target.as_deref().unwrap(), "https://elsewhere.example/"));
    }
}
