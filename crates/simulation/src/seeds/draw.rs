//! Plans, drawn from a seed.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use webhook_operator::api::{RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT, provider::ProviderType};

use super::plan::{Deed, Event, Hook, Pace, Place, Plan, Replica, Spell, Trouble, Whom};
use crate::{
    apiserver::Blur,
    explore::{Dialect, dialect::DIALECTS},
    manifests,
};

const NAMESPACES: [&str; 3] = ["apps", "lab", "shop"];

const TYPES: [ProviderType; 4] = [
    ProviderType::Conpeek,
    ProviderType::Thulium,
    ProviderType::Ricloud,
    ProviderType::Autocosmos,
];

const EVENTS: [&str; 4] = [
    "CHAT_CREATED",
    "CUSTOMER_UPDATED",
    "RECORDING_READY",
    "TICKET_CREATED",
];

/// The Secrets that Webhooks read, the same in each namespace.
pub(super) const SECRETS: [(&str, &[&str]); 5] = [
    ("basic", &["username", "password"]),
    ("basic-other", &["username", "password"]),
    ("header", &["token"]),
    ("secret", &["secret"]),
    ("secret-other", &["secret"]),
];

/// What a Secret holds in its version of this number.
pub(super) fn secret_data(name: &str, version: u32) -> Vec<(&'static str, String)> {
    let keys = SECRETS
        .iter()
        .find(|(secret, _)| *secret == name)
        .map(|(_, keys)| *keys);
    keys.unwrap_or_default()
        .iter()
        .map(|key| (*key, format!("{key}-of-{name}-version-{version}")))
        .collect()
}

/// The plan of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draw = Draw {
        dice: Rng::with_seed(seed),
        hooks: Vec::new(),
        events: Vec::new(),
        number: 0,
        targets: 100,
    };
    draw.plan(seed)
}

struct Draw {
    dice: Rng,
    hooks: Vec<Hook>,
    events: Vec<(Duration, Deed)>,
    /// Of URLs and values, so that none is used twice.
    number: u32,
    targets: u32,
}

impl Draw {
    fn plan(&mut self, seed: u64) -> Plan {
        let forms: Vec<&'static Dialect> = TYPES.iter().map(|provider| self.form(*provider)).collect();
        let places = self.places();
        let minutes = match self.dice.u8(0..10) {
            0..6 => self.dice.u64(5..=10),
            6..9 => self.dice.u64(10..=25),
            _ => self.dice.u64(25..=60),
        };
        let span = Duration::from_secs(60 * minutes);
        let pair = self.dice.u8(0..3) == 0;
        for number in 0..self.dice.usize(3..=12) {
            let (place, _) = &places[self.dice.usize(0..places.len())];
            let form = forms.iter().find(|form| form.provider == place.provider);
            self.life(&format!("h{number}"), &place.clone(), form.unwrap(), span);
        }
        self.adopt_what_is_changed_by_hand();
        self.drops(&places, span);
        self.troubles(&places, pair, span);
        self.second_thoughts(&places, &forms, span);
        self.events.sort_by_key(|(at, _)| *at);
        let events = std::mem::take(&mut self.events).into_iter().enumerate();
        Plan {
            seed,
            broken: false,
            pair,
            accounts: self.dice.bool(),
            forms,
            places,
            switches: self.dice.u64(..),
            pace: self.pace(),
            hooks: std::mem::take(&mut self.hooks),
            span,
            events: events
                .map(|(number, (at, deed))| Event { number, at, deed })
                .collect(),
        }
    }

    fn form(&mut self, provider: ProviderType) -> &'static Dialect {
        let forms: Vec<&'static Dialect> = DIALECTS.iter().filter(|form| form.provider == provider).collect();
        forms[self.dice.usize(0..forms.len())]
    }

    fn places(&mut self) -> Vec<(Place, u32)> {
        let mut all: Vec<Place> = NAMESPACES
            .into_iter()
            .flat_map(|namespace| TYPES.map(|provider| Place { namespace, provider }))
            .collect();
        self.dice.shuffle(&mut all);
        all.truncate(self.dice.usize(1..=5));
        all.sort_by_key(|place| (place.namespace, place.provider.as_str()));
        let rates = [2, 5, 20, 100];
        all.into_iter()
            .map(|place| (place, rates[self.dice.usize(0..rates.len())]))
            .collect()
    }

    fn pace(&mut self) -> Pace {
        let millis = |dice: &mut Rng, from: u64, to: u64| Duration::from_millis(dice.u64(from..=to));
        Pace {
            api_server: millis(&mut self.dice, 1, 40),
            upstream: millis(&mut self.dice, 10, 800),
            watch: millis(&mut self.dice, 1, 3000),
            restart: millis(&mut self.dice, 100, 15_000),
        }
    }

    /// Some time between the beginning and the end, in milliseconds.
    fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (from.as_millis(), to.as_millis());
        let (from, to) = (u64::try_from(from).unwrap(), u64::try_from(to).unwrap());
        Duration::from_millis(self.dice.u64(from..=to.max(from)))
    }

    fn add(&mut self, at: Duration, deed: Deed) {
        self.events.push((at, deed));
    }

    fn url(&mut self, name: &str) -> String {
        self.number += 1;
        format!("https://hooks.example/{name}/{}", self.number)
    }

    /// A Webhook from its first life to its last.
    fn life(&mut self, name: &str, place: &Place, form: &'static Dialect, span: Duration) {
        let spec = self.spec(name, place, form);
        // Half of them are there from the beginning or soon, as after an apply of a whole folder.
        let latest = if self.dice.bool() { span / 20 } else { span };
        let mut at = self.time(Duration::ZERO, latest);
        let mut hook = self.hook(place, name, spec);
        self.add(at, Deed::Apply(hook));
        loop {
            let gone = self.dice.u8(0..10) < 4;
            let end = if gone { self.time(at, span) } else { span };
            self.changes(hook, form, at, end);
            if !gone {
                return;
            }
            self.add(end, Deed::Delete(hook));
            if self.dice.bool() {
                return;
            }
            at = self.time(end, span);
            let spec = self.again(hook, form);
            hook = self.hook(place, name, spec);
            self.add(at, Deed::Apply(hook));
        }
    }

    /// A target that delivers to where no Webhook has ever asked it to is somebody else's, unless the spec says otherwise.
    /// So it has to say so where somebody changes what one life has left and the next one finds; and where its own user
    /// changes it: of two URLs that were sent before a death, the operator need not know which one has stayed.
    fn adopt_what_is_changed_by_hand(&mut self) {
        let changed = self.events.iter().filter_map(|(_, deed)| match deed {
            Deed::ByHandUrl(hook, _) => Some(*hook),
            Deed::Edit(hook, spec) if spec["url"].is_string() => Some(*hook),
            _ => None,
        });
        let names: Vec<String> = changed.map(|hook| self.hooks[hook].name.clone()).collect();
        for hook in &mut self.hooks {
            if hook.spec["target"].is_string() && names.contains(&hook.name) {
                hook.spec["adoptionPolicy"] = json!("Always");
            }
        }
    }

    fn hook(&mut self, place: &Place, name: &str, spec: Value) -> usize {
        self.hooks.push(Hook {
            place: place.clone(),
            name: name.to_owned(),
            spec,
        });
        self.hooks.len() - 1
    }

    /// What is applied under the name of what was deleted: the same, or something else at the same target.
    fn again(&mut self, hook: usize, form: &'static Dialect) -> Value {
        let Hook { place, name, spec } = self.hooks[hook].clone();
        // A secret that ricloud does not show again went with the life before: what has been left cannot be used.
        if form.name != "ricloud-secretive" && self.dice.bool() {
            return spec;
        }
        let mut new = self.spec(&name, &place, form);
        if spec["target"].is_string() {
            manifests::overlay(&mut new, &json!({"target": spec["target"]}));
        }
        new
    }

    fn spec(&mut self, name: &str, place: &Place, form: &'static Dialect) -> Value {
        let intervals = ["1m", "2m", "3m"];
        let mut spec = json!({
            "url": self.url(name),
            "interval": intervals[self.dice.usize(0..intervals.len())],
        });
        let switch = has_switch(place.provider);
        match self.dice.u8(0..10) {
            0 | 1 => spec["deletionPolicy"] = json!("Orphan"),
            2 | 3 if switch => spec["deletionPolicy"] = json!("Deactivate"),
            _ => {}
        }
        if switch && self.dice.u8(0..8) == 0 {
            spec["active"] = json!(false);
        }
        self.targets += 1;
        match place.provider {
            ProviderType::Conpeek => spec["target"] = json!(self.targets.to_string()),
            ProviderType::Autocosmos => spec["target"] = json!(format!("topic-{}", self.targets)),
            ProviderType::Thulium | ProviderType::Ricloud => {}
        }
        if place.provider == ProviderType::Ricloud {
            spec["test"] = json!({"mode": "Upstream"});
        }
        for _ in 0..2 {
            let more = self.dress(place.provider, form);
            manifests::overlay(&mut spec, &more);
        }
        spec
    }

    /// Other values for what the upstream knows besides URL and switch.
    fn dress(&mut self, provider: ProviderType, form: &Dialect) -> Value {
        self.number += 1;
        let number = self.number;
        match (provider, self.dice.u8(0..3)) {
            (ProviderType::Conpeek, 0) => {
                json!({"retry": {"initialDelay": "20s", "maxRetries": number % 20}})
            }
            (ProviderType::Autocosmos, 0) => json!({"description": format!("description {number}")}),
            (ProviderType::Autocosmos, 1) => {
                let name = if self.dice.bool() {
                    "secret"
                } else {
                    "secret-other"
                };
                json!({"secretRef": {"name": name}})
            }
            (ProviderType::Conpeek | ProviderType::Autocosmos, _) => {
                let header = json!({
                    "name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "header", "key": "token"}},
                });
                let mut headers = vec![json!({"name": "X-Team", "value": format!("team {number}")})];
                headers.extend(self.dice.bool().then_some(header));
                json!({ "headers": headers })
            }
            // Where nothing can be changed, a Secret that changes would leave what nobody can put right.
            (ProviderType::Thulium, 0) if form.updates => {
                let names = [
                    json!(null),
                    json!({"name": "basic"}),
                    json!({"name": "basic-other"}),
                ];
                json!({"basicAuthRef": names[self.dice.usize(0..names.len())]})
            }
            (ProviderType::Thulium, _) => {
                let first = self.dice.usize(0..EVENTS.len());
                let count = self.dice.usize(1..EVENTS.len());
                let events: Vec<&str> = EVENTS.into_iter().cycle().skip(first).take(count).collect();
                json!({ "events": events })
            }
            (ProviderType::Ricloud, _) => json!({}),
        }
    }

    /// What users do with a Webhook during its life, and strangers with its registration.
    fn changes(&mut self, hook: usize, form: &'static Dialect, from: Duration, to: Duration) {
        for _ in 0..self.dice.usize(0..=4) {
            let at = self.time(from, to);
            let deed = self.change(hook, form);
            self.add(at, deed);
        }
    }

    fn change(&mut self, hook: usize, form: &'static Dialect) -> Deed {
        let Hook { place, name, .. } = self.hooks[hook].clone();
        let switch = has_switch(place.provider);
        loop {
            match self.dice.u8(0..16) {
                0..4 if form.updates => return Deed::Edit(hook, json!({"url": self.url(&name)})),
                4..7 if form.updates && place.provider != ProviderType::Ricloud => {
                    let spec = self.dress(place.provider, form);
                    return Deed::Edit(hook, spec);
                }
                7 | 8 if switch => return Deed::Edit(hook, json!({"active": self.dice.bool()})),
                9 => return Deed::Edit(hook, json!({"interval": "90s"})),
                10 => return Deed::Ask(hook, RECONCILE_REQUESTED_AT),
                11 if place.provider == ProviderType::Ricloud => return Deed::Ask(hook, TEST_REQUESTED_AT),
                12 => return Deed::Suspend(hook, Duration::from_secs(self.dice.u64(1..=120))),
                13 if form.updates && form.reads => {
                    return Deed::ByHandUrl(hook, self.url("by-hand"));
                }
                14 if form.reads => return Deed::ByHandRemove(hook),
                15 if place.provider != ProviderType::Ricloud => {
                    let (name, _) = SECRETS[self.dice.usize(0..SECRETS.len())];
                    self.number += 1;
                    return Deed::EditSecret {
                        namespace: place.namespace,
                        name,
                        data: secret_data(name, self.number),
                    };
                }
                _ => {}
            }
        }
    }

    /// A provider or a namespace goes, now and then.
    fn drops(&mut self, places: &[(Place, u32)], span: Duration) {
        let (place, _) = &places[self.dice.usize(0..places.len())];
        let at = self.time(span / 2, span);
        match self.dice.u8(0..6) {
            0 => {
                let after = Duration::from_secs(self.dice.u64(0..=30));
                self.add(at, Deed::DropProvider(place.clone(), after));
            }
            1 => self.add(at, Deed::DropNamespace(place.namespace)),
            _ => {}
        }
    }

    /// What came to mind when the rest was long known: drawn from dice of its own, so that a seed keeps what it had.
    fn second_thoughts(&mut self, places: &[(Place, u32)], forms: &[&'static Dialect], span: Duration) {
        let seed = self.dice.clone().u64(..);
        let first = std::mem::replace(&mut self.dice, Rng::with_seed(seed));
        self.revoke(places, span);
        for hook in 0..self.hooks.len() {
            self.switch_by_hand(hook, span);
            self.test(hook);
            self.rival(hook, forms, span);
        }
        self.blur(span);
        self.report();
        self.dice = first;
    }

    /// What differs at the upstream is only reported, by some.
    fn report(&mut self) {
        for hook in &mut self.hooks {
            if self.dice.u8(0..6) == 0 {
                hook.spec["driftPolicy"] = json!("Report");
            }
        }
    }

    /// Watches show things late, merged and twice for a while, in every third plan.
    fn blur(&mut self, span: Duration) {
        if self.dice.u8(0..3) > 0 {
            return;
        }
        let at = self.time(Duration::ZERO, span);
        let blur = Blur {
            percent: [20, 50, 100][self.dice.usize(0..3)],
            longest: Duration::from_secs(self.dice.u64(1..=40)),
            lasts: Duration::from_secs(self.dice.u64(30..=300)),
            seed: self.dice.u64(..),
        };
        self.add(at, Deed::Blur(blur));
    }

    /// A key is refused for a while, now and then.
    fn revoke(&mut self, places: &[(Place, u32)], span: Duration) {
        if self.dice.u8(0..4) > 0 {
            return;
        }
        let (place, _) = &places[self.dice.usize(0..places.len())];
        let at = self.time(Duration::ZERO, span);
        let time = Duration::from_secs(self.dice.u64(5..=240));
        self.add(at, Deed::Revoke(place.clone(), time));
    }

    /// Somebody switches it off; the operator or somebody switches it on again.
    fn switch_by_hand(&mut self, hook: usize, span: Duration) {
        if !has_switch(self.hooks[hook].place.provider) || self.dice.u8(0..3) > 0 {
            return;
        }
        let at = self.time(Duration::ZERO, span);
        self.add(at, Deed::ByHandSwitch(hook, false));
        if self.dice.bool() {
            let all = self.hooks[hook].name.clone();
            for hook in self.hooks.iter_mut().filter(|it| it.name == all) {
                hook.spec["onUpstreamDeactivation"] = json!("Reactivate");
            }
        } else {
            let later = self.time(at, span);
            self.add(later, Deed::ByHandSwitch(hook, true));
        }
    }

    /// The operator tests it.
    fn test(&mut self, hook: usize) {
        if !has_switch(self.hooks[hook].place.provider) && self.dice.u8(0..4) == 0 {
            self.hooks[hook].spec["test"] = json!({"mode": "Probe"});
        }
    }

    /// Another one asks for the same as it, for a while.
    fn rival(&mut self, hook: usize, forms: &[&'static Dialect], span: Duration) {
        // A secret that ricloud does not show again is the one's own: the other can never take it over.
        let provider = self.hooks[hook].place.provider;
        let secretive = forms
            .iter()
            .any(|form| form.provider == provider && form.name == "ricloud-secretive");
        if secretive || self.dice.u8(0..12) > 0 {
            return;
        }
        self.hooks.push(self.hooks[hook].rival());
        let rival = self.hooks.len() - 1;
        let at = self.time(Duration::ZERO, span);
        self.add(at, Deed::Apply(rival));
        let end = self.time(at, span);
        self.add(end, Deed::Delete(rival));
    }

    fn troubles(&mut self, places: &[(Place, u32)], pair: bool, span: Duration) {
        for _ in 0..self.dice.usize(0..=10) {
            let at = self.time(Duration::ZERO, span);
            let (place, _) = &places[self.dice.usize(0..places.len())];
            let deed = self.trouble(place.provider, pair);
            self.add(at, deed);
        }
    }

    fn trouble(&mut self, provider: ProviderType, pair: bool) -> Deed {
        let replica = if pair && self.dice.u8(0..3) == 0 {
            Replica::Standby
        } else {
            Replica::Leader
        };
        match self.dice.u8(0..16) {
            0..4 => Deed::Kill(replica),
            4 if pair => Deed::CutOff(replica, Duration::from_secs(self.dice.u64(5..=60))),
            5 => Deed::Freeze(Duration::from_secs(self.dice.u64(5..=60))),
            6 => Deed::Mute,
            7 => Deed::Compact,
            8 => {
                self.number += 1;
                let url = format!("https://stranger.example/{}", self.number);
                Deed::Stranger(provider, url)
            }
            9..12 => {
                let trouble = self.trouble_of_api_server();
                self.spell(Whom::ApiServer, trouble)
            }
            _ => {
                let trouble = self.trouble_of_upstream();
                self.spell(Whom::Upstream(provider), trouble)
            }
        }
    }

    fn spell(&mut self, whom: Whom, trouble: Trouble) -> Deed {
        let percent = [10, 25, 50, 100][self.dice.usize(0..4)];
        Deed::Spell(Spell {
            whom,
            trouble,
            percent,
            lasts: Duration::from_secs(self.dice.u64(2..=180)),
            seed: self.dice.u64(..),
        })
    }

    fn trouble_of_api_server(&mut self) -> Trouble {
        match self.dice.u8(0..10) {
            0 => Trouble::Refused,
            1 => Trouble::Lost,
            2 => Trouble::AnswerLost,
            3 => Trouble::Fails(500),
            4 => Trouble::Fails(503),
            5 => Trouble::Fails(429),
            6 => Trouble::Slow(self.dice.u64(100..=5000)),
            7 => Trouble::Conflicts,
            8 => Trouble::DiesBefore,
            _ => Trouble::DiesAfter,
        }
    }

    fn trouble_of_upstream(&mut self) -> Trouble {
        match self.dice.u8(0..15) {
            0 => Trouble::Refused,
            1 => Trouble::Lost,
            2 | 3 => Trouble::AnswerLost,
            // The operator reckons with what comes up to 30 s after the end of a call, which takes 20 s.
            4 | 5 => Trouble::Late(self.dice.u64(1..=45)),
            6 => Trouble::Fails(500),
            7 => Trouble::Fails(503),
            8 => Trouble::TooMany(self.dice.u64(1..=90)),
            9 => Trouble::Malformed,
            10 => [Trouble::Page, Trouble::Truncated][self.dice.usize(0..2)],
            11 => Trouble::Slow(self.dice.u64(100..=25_000)),
            12 => Trouble::SlowAnswer(self.dice.u64(100..=25_000)),
            13 => Trouble::DiesBefore,
            _ => Trouble::DiesAfter,
        }
    }
}

/// Whether registrations can be switched off.
fn has_switch(provider: ProviderType) -> bool {
    matches!(provider, ProviderType::Ricloud | ProviderType::Autocosmos)
}
