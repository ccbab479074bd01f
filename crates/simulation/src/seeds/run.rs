//! Carries a plan out.

mod calm;

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use webhook_operator::{
    api::{ID_ANNOTATION, provider::ProviderType},
    lease::LEASE_NAME,
};

use super::{
    Outcome,
    hand::{self, Change},
    judge::doubled,
    lives::Lives,
    plan::{Deed, Place, Plan, Replica},
    stage,
    trace::Trace,
    weather::{Faults, Weather},
};
use crate::{
    Operator, World,
    apiserver::Id,
    explore::webhook::annotation,
    manifests::{self, Account},
    operator::OWN_NAMESPACE,
    options,
    wire::{Made, Peer},
};

/// How often it is looked whether something is due: a process to be started again, a Webhook to be applied again.
const TICK: Duration = Duration::from_secs(1);

/// What is done later, because of something that was done.
enum Later {
    Resume(usize),
    DeleteAll(Vec<Id>),
    /// The provider's Secret gets the key that is valid.
    GiveKey(Place),
}

/// A replica, and when it is started again.
struct Slot {
    operator: Option<Operator>,
    back: Instant,
}

/// Carries a plan out on a clock of its own.
pub(super) fn run(plan: &Plan) -> Outcome {
    // The pauses of the election and of watches that fail are drawn from the generator of the thread.
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Inside, where the time is the one that stands still.
    runtime.block_on(async { Run::new(plan).whole().await })
}

struct Run<'a> {
    plan: &'a Plan,
    world: World,
    weather: Weather,
    faults: Faults,
    lives: Lives,
    slots: Vec<Slot>,
    /// Webhooks by the number of their life, as soon as they are applied.
    ids: BTreeMap<usize, Id>,
    to_apply: Vec<usize>,
    later: Vec<(Instant, Later)>,
    dice: Rng,
    kills: usize,
    /// Nothing is only reported any more.
    corrects: bool,
    began: Instant,
    trace: Trace,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Self {
        let world = stage::world(plan);
        let weather = Weather::new(plan.pace, plan.seed);
        let course = weather.course(world.upstreams(), doubled(plan, &world));
        world.wire().set_course(course);
        let began = Instant::now();
        let slots = (0..if plan.pair { 2 } else { 1 }).map(|_| Slot {
            operator: None,
            back: began,
        });
        Self {
            plan,
            weather,
            faults: Faults::default(),
            lives: Lives::default(),
            slots: slots.collect(),
            ids: BTreeMap::new(),
            to_apply: Vec::new(),
            later: Vec::new(),
            dice: Rng::with_seed(!plan.seed),
            kills: 0,
            corrects: false,
            began,
            trace: Trace::default(),
            world,
        }
    }

    async fn whole(mut self) -> Outcome {
        for event in &self.plan.events {
            self.until(self.began + event.at).await;
            let count = self.world.wire().count();
            let came = self.perform(&event.deed).await;
            let came = came.map_or_else(String::new, |came| format!(" ({came})"));
            let text = format!("[{}] {}{came}", event.number, self.plan.tell(&event.deed));
            self.trace.note(self.began, count, text);
        }
        self.until(self.began + self.plan.span).await;
        self.part_rivals();
        self.have_corrected();
        self.weather.clear();
        self.world.api().focus();
        self.faults.clear(self.world.upstreams());
        self.trace.note(
            self.began,
            self.world.wire().count(),
            "nothing goes wrong any more".to_owned(),
        );
        let calm = Instant::now();
        let mut wrong = self.settle(calm).await;
        let recovery = calm.elapsed();
        if wrong.is_empty() {
            wrong = self.stays().await;
        }
        if let Some(doubled) = self.weather.doubled() {
            wrong.insert(0, format!("registered twice: {doubled}"));
        }
        let (struck, deaths) = self.weather.struck();
        Outcome {
            events: self.plan.events.len(),
            kills: self.kills + deaths,
            faults: struck + self.faults.struck(),
            made: self.made(),
            recovery,
            trace: self.trace.finish(self.began, &self.world),
            wrong,
        }
    }

    /// Two that ask for the same cannot both be well: the rivals go, also where a smaller plan has left that out.
    fn part_rivals(&mut self) {
        self.to_apply.retain(|hook| !self.plan.hooks[*hook].is_rival());
        let rivals: Vec<Id> = self
            .ids
            .iter()
            .filter(|(hook, _)| self.plan.hooks[**hook].is_rival())
            .map(|(_, id)| id.clone())
            .collect();
        for id in &rivals {
            self.delete(id);
        }
    }

    /// What was only reported is put right from now on, also by those that are still to be applied: in the end all are as
    /// their specs say.
    fn have_corrected(&mut self) {
        self.corrects = true;
        for id in self.webhooks(|_, webhook| webhook["spec"]["driftPolicy"] == "Report") {
            let patch = json!({"spec": {"driftPolicy": "Correct"}});
            self.world.api().patch(&id, &patch).unwrap();
        }
    }

    /// How many registrations there were that the operator has made, counting each id once.
    fn made(&self) -> usize {
        let creates = |made: &Made| made.call.peer == Peer::Upstream && made.call.text.starts_with("POST ");
        self.world
            .wire()
            .made()
            .iter()
            .filter(|made| creates(made))
            .count()
    }

    /// Lets time pass until then.
    async fn until(&mut self, end: Instant) {
        loop {
            self.look_after_processes();
            self.later_deeds();
            self.apply_again();
            let now = Instant::now();
            self.faults.end(self.world.upstreams(), now);
            if now >= end {
                return;
            }
            sleep_until(end.min(now + TICK)).await;
        }
    }

    /// Starts again what has ended or died, after a while.
    fn look_after_processes(&mut self) {
        for slot in &mut self.slots {
            let gone = slot.operator.as_ref().is_some_and(|operator| {
                operator.has_ended() || operator.line().cut().now_or_never().is_some()
            });
            if gone {
                slot.operator = None;
                let longest = u64::try_from(self.plan.pace.restart.as_millis()).unwrap();
                slot.back = Instant::now() + Duration::from_millis(self.dice.u64(0..=longest));
            }
            if slot.operator.is_none() && Instant::now() >= slot.back {
                slot.operator = Some(if self.plan.pair {
                    Operator::contend(&self.world, options(&[]))
                } else {
                    Operator::start(&self.world, options(&[]))
                });
            }
        }
    }

    fn later_deeds(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, deed) in due {
            match deed {
                Later::Resume(hook) => {
                    self.edit(hook, &json!({"suspend": false}));
                }
                Later::DeleteAll(ids) => {
                    for id in &ids {
                        self.delete(id);
                    }
                }
                Later::GiveKey(place) => {
                    let account = stage::account(self.plan, place.namespace);
                    self.write_key(&place, &account);
                }
            }
        }
    }

    fn apply_again(&mut self) {
        for hook in std::mem::take(&mut self.to_apply) {
            self.apply(hook);
        }
    }

    /// Applies a Webhook, or sees to it that this is tried again.
    fn apply(&mut self, number: usize) -> Option<&'static str> {
        let hook = &self.plan.hooks[number];
        let mut spec = hook.spec.clone();
        if self.corrects {
            spec["driftPolicy"] = json!("Correct");
        }
        let manifest = manifests::webhook(hook.place.namespace, &hook.name, hook.place.provider, &spec);
        let id = Id::of(&manifest);
        if let Some(other) = self.world.api().get(&id) {
            if other["metadata"]["deletionTimestamp"].is_null() {
                return Some("there is one");
            }
            self.to_apply.push(number);
            return Some("one is on its way out");
        }
        let name = manifests::name_of(hook.place.provider);
        let provider = Id::new("webhookproviders", hook.place.namespace, &name);
        let there = self.world.api().get(&provider);
        if !there.is_some_and(|it| it["metadata"]["deletionTimestamp"].is_null()) {
            // Nobody applies what he knows to have no provider any more.
            return Some("not any more");
        }
        match self.world.api().create(&manifest) {
            Ok(webhook) => {
                self.lives.begin(&webhook, self.plan.form(hook.place.provider));
                self.ids.insert(number, id);
                None
            }
            Err(_) => Some("refused"),
        }
    }

    /// The Webhook of this life as it is now, unless it is going or another has its name.
    fn webhook(&mut self, number: usize) -> Option<Value> {
        let webhook = self.world.api().get(self.ids.get(&number)?)?;
        let life = self.lives.of(&webhook)?;
        let urls = life.urls.clone();
        let own = self.plan.hooks[number].spec["url"].as_str().unwrap_or_default();
        (webhook["metadata"]["deletionTimestamp"].is_null() && urls.first().is_some_and(|url| url == own))
            .then_some(webhook)
    }

    fn edit(&mut self, number: usize, spec: &Value) -> Option<&'static str> {
        let Some(webhook) = self.webhook(number) else {
            return Some("it is not there");
        };
        if let Some(url) = spec["url"].as_str() {
            self.lives.moves(&webhook, url);
        }
        let id = Id::of(&webhook);
        self.world.api().patch(&id, &json!({ "spec": spec })).unwrap();
        None
    }

    fn delete(&mut self, id: &Id) -> Option<&'static str> {
        let Some(webhook) = self.world.api().get(id) else {
            return Some("it is not there");
        };
        self.lives.end(&webhook, self.world.upstreams());
        self.world.api().delete(id).unwrap();
        None
    }

    /// Writes a key into the Secret of a provider. Whether it was there.
    fn write_key(&self, place: &Place, account: &Account) -> bool {
        let name = format!("{}-account", manifests::name_of(place.provider));
        let new = manifests::secret(place.namespace, &name, &account.keys(place.provider));
        let patch = json!({"data": new["data"]});
        let api = self.world.api();
        api.patch(&Id::new("secrets", place.namespace, &name), &patch)
            .is_ok()
    }

    /// The Webhooks that are there and for which this is true.
    fn webhooks(&self, wanted: impl Fn(&Id, &Value) -> bool) -> Vec<Id> {
        let webhooks = self.world.api().list("webhooks");
        let ids = webhooks.iter().map(|webhook| (Id::of(webhook), webhook));
        ids.filter(|(id, webhook)| wanted(id, webhook))
            .map(|(id, _)| id)
            .collect()
    }

    /// Does it. What came of it, where it was not done.
    async fn perform(&mut self, deed: &Deed) -> Option<&'static str> {
        match deed {
            Deed::Apply(hook) => return self.apply(*hook),
            Deed::Edit(hook, spec) => return self.edit(*hook, spec),
            Deed::Ask(hook, what) => {
                let Some(webhook) = self.webhook(*hook) else {
                    return Some("it is not there");
                };
                let value = self.world.clock().now().to_string();
                let patch = json!({"metadata": {"annotations": {*what: value}}});
                self.world.api().patch(&Id::of(&webhook), &patch).unwrap();
            }
            Deed::Suspend(hook, time) => {
                let came = self.edit(*hook, &json!({"suspend": true}));
                self.later.push((Instant::now() + *time, Later::Resume(*hook)));
                return came;
            }
            Deed::Delete(hook) => {
                let Some(webhook) = self.webhook(*hook) else {
                    self.to_apply.retain(|number| number != hook);
                    return Some("it is not there");
                };
                return self.delete(&Id::of(&webhook));
            }
            Deed::EditSecret {
                namespace,
                name,
                data,
            } => {
                let data: Vec<(&str, &str)> =
                    data.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let new = manifests::secret(namespace, name, &data);
                let id = Id::new("secrets", namespace, name);
                if self
                    .world
                    .api()
                    .patch(&id, &json!({"data": new["data"]}))
                    .is_err()
                {
                    return Some("it is not there");
                }
            }
            Deed::Revoke(place, time) => {
                let mut account = stage::account(self.plan, place.namespace);
                account.password = "refused".to_owned();
                if !self.write_key(place, &account) {
                    return Some("it is not there");
                }
                self.later
                    .push((Instant::now() + *time, Later::GiveKey(place.clone())));
            }
            Deed::DropProvider(place, after) => {
                let name = manifests::name_of(place.provider);
                let id = Id::new("webhookproviders", place.namespace, &name);
                if self.world.api().delete(&id).is_err() {
                    return Some("it is not there");
                }
                let ids = self.webhooks(|id, webhook| {
                    id.namespace == place.namespace && webhook["spec"]["providerRef"]["name"] == name
                });
                self.later.push((Instant::now() + *after, Later::DeleteAll(ids)));
            }
            Deed::DropNamespace(namespace) => {
                for id in self.webhooks(|id, _| id.namespace == *namespace) {
                    self.delete(&id);
                }
                let _ = self.world.api().delete(&Id::new("namespaces", "", namespace));
            }
            Deed::Spell(spell) => {
                if !self.faults.begin(self.world.upstreams(), spell) {
                    self.weather.begin(spell);
                }
            }
            Deed::Freeze(time) => {
                let api = self.world.api();
                api.freeze(api.version(), Instant::now() + *time);
            }
            Deed::Mute => self.world.api().mute(),
            Deed::Blur(blur) => self.world.api().blur(*blur),
            Deed::Compact => self.world.api().compact(),
            Deed::Kill(_) | Deed::CutOff(..) => return self.at_process(deed).await,
            Deed::ByHandUrl(..) | Deed::ByHandRemove(_) | Deed::ByHandSwitch(..) | Deed::Stranger(..) => {
                return self.by_hand(deed).await;
            }
        }
        None
    }

    async fn by_hand(&mut self, deed: &Deed) -> Option<&'static str> {
        let models = std::sync::Arc::clone(self.world.upstreams());
        match deed {
            Deed::ByHandUrl(hook, _) | Deed::ByHandRemove(hook) | Deed::ByHandSwitch(hook, _) => {
                let Some((provider, id, webhook)) = self.registered(*hook) else {
                    return Some("it is not registered");
                };
                let change = match deed {
                    Deed::ByHandUrl(_, url) => Change::Url(url),
                    Deed::ByHandSwitch(_, on) => Change::Switch(*on),
                    _ => Change::Remove,
                };
                if !hand::change(&models, provider, &id, change) {
                    return Some("it is not registered");
                }
                match change {
                    Change::Url(url) => self.lives.moves(&webhook, url),
                    Change::Remove => self.lives.removed(provider, id),
                    Change::Switch(_) => {}
                }
            }
            Deed::Stranger(provider, url) => {
                let place = self
                    .plan
                    .places
                    .iter()
                    .find(|(place, _)| place.provider == *provider);
                let account = stage::account(self.plan, place.map_or("", |(place, _)| place.namespace));
                match hand::register(&models, *provider, &account, url).await {
                    Some(id) => self.lives.registered(&models, *provider, &id),
                    None => return Some("it could not be done"),
                }
            }
            _ => unreachable!("not by hand"),
        }
        None
    }

    /// Where the registration of this life is, and its id, as the Webhook has recorded it. An earlier life of the same
    /// URL may have left another one.
    fn registered(&mut self, number: usize) -> Option<(ProviderType, String, Value)> {
        let webhook = self.webhook(number)?;
        let id = annotation(&webhook, ID_ANNOTATION)?.to_owned();
        let life = self.lives.of(&webhook)?;
        Some((life.form.provider, id, webhook))
    }

    async fn at_process(&mut self, deed: &Deed) -> Option<&'static str> {
        let (Deed::Kill(replica) | Deed::CutOff(replica, _)) = deed else {
            unreachable!("not at a process")
        };
        let Some(slot) = self.slot(*replica) else {
            return Some("there is none");
        };
        match deed {
            Deed::CutOff(_, time) => {
                let process = self.slots[slot]
                    .operator
                    .as_ref()
                    .map(|operator| operator.line().process());
                self.weather
                    .cut_off(process.unwrap_or_default(), Instant::now() + *time);
            }
            _ => {
                // It is found dead at the next tick, and started again.
                if let Some(operator) = self.slots[slot].operator.as_ref() {
                    operator.line().kill();
                    self.kills += 1;
                }
            }
        }
        None
    }

    /// The replica that is meant, if it runs.
    fn slot(&self, replica: Replica) -> Option<usize> {
        let lease = self
            .world
            .api()
            .get(&Id::new("leases", OWN_NAMESPACE, LEASE_NAME));
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned));
        let leads = |slot: &Slot| {
            slot.operator.as_ref().is_some_and(|operator| {
                !self.plan.pair || holder == Some(format!("operator_{}", operator.line().process()))
            })
        };
        self.slots
            .iter()
            .position(|slot| slot.operator.is_some() && leads(slot) == (replica == Replica::Leader))
    }
}
