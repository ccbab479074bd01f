//! What becomes of each call: how long it takes, and whether one of the spells in force meets it.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;
use upstream_doubles::{Double, Effect, Fault, FaultId, Models, RetryAfter, Upstream};
use webhook_operator::api::provider::ProviderType;

use super::plan::{Pace, Spell, Trouble, Whom};
use crate::wire::{Call, CallKind, Course, Fate, Passage, Peer};

/// How often a process dies at most in one spell.
const DEATHS: usize = 3;

/// A spell that is carried out on the wire.
struct Running {
    spell: Spell,
    until: Instant,
    dice: Rng,
    struck: usize,
}

/// A spell that a double carries out, because what it answers is more than a status.
struct Faulty {
    provider: ProviderType,
    id: FaultId,
    until: Instant,
}

struct State {
    pace: Pace,
    dice: Rng,
    running: Vec<Running>,
    /// Processes that have no API server, and until when.
    cut: Vec<(usize, Instant)>,
    struck: usize,
    deaths: usize,
    /// What was registered twice, and before which call that was seen.
    doubled: Option<String>,
}

/// The weather; clones are the same.
#[derive(Clone)]
pub(super) struct Weather(Arc<Mutex<State>>);

/// Base URL of an upstream.
pub(super) fn base_url(models: &Models, provider: ProviderType) -> String {
    match provider {
        ProviderType::Conpeek => models.conpeek().url(),
        ProviderType::Thulium => models.thulium().url(),
        ProviderType::Ricloud => models.ricloud().url(),
        ProviderType::Autocosmos => models.autocosmos().url(),
    }
}

fn drawn(dice: &mut Rng, longest: Duration) -> Duration {
    let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(dice.u64(0..=micros))
}

impl Weather {
    pub(super) fn new(pace: Pace, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            pace,
            dice: Rng::with_seed(seed),
            running: Vec::new(),
            cut: Vec::new(),
            struck: 0,
            deaths: 0,
            doubled: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The course that all calls take. `doubled` says what is registered twice at this moment.
    pub(super) fn course(
        &self,
        models: &Arc<Models>,
        doubled: impl Fn() -> Option<String> + Send + 'static,
    ) -> Course {
        let weather = self.clone();
        let hosts = [
            ProviderType::Conpeek,
            ProviderType::Thulium,
            ProviderType::Ricloud,
            ProviderType::Autocosmos,
        ]
        .map(|provider| (provider, format!(" {}", base_url(models, provider))));
        Box::new(move |number, call| {
            let mut state = weather.lock();
            if call.peer == Peer::Upstream
                && state.doubled.is_none()
                && let Some(what) = doubled()
            {
                state.doubled = Some(format!("before call #{number}: {what}"));
            }
            let host = hosts.iter().find(|(_, host)| call.text.contains(host.as_str()));
            state.passage(call, host.map(|(provider, _)| *provider))
        })
    }

    /// Begins a spell.
    pub(super) fn begin(&self, spell: &Spell) {
        self.lock().running.push(Running {
            until: Instant::now() + spell.lasts,
            dice: Rng::with_seed(spell.seed),
            spell: spell.clone(),
            struck: 0,
        });
    }

    /// Until then a process has no API server.
    pub(super) fn cut_off(&self, process: usize, until: Instant) {
        self.lock().cut.push((process, until));
    }

    /// Everything goes well from now on.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.running.clear();
        state.cut.clear();
    }

    /// Calls that were met on the wire, and how many of them were deaths.
    pub(super) fn struck(&self) -> (usize, usize) {
        let state = self.lock();
        (state.struck, state.deaths)
    }

    /// What was registered twice.
    pub(super) fn doubled(&self) -> Option<String> {
        self.lock().doubled.clone()
    }
}

impl State {
    fn passage(&mut self, call: &Call, upstream: Option<ProviderType>) -> Passage {
        let longest = match call.peer {
            Peer::ApiServer => self.pace.api_server,
            Peer::Upstream => self.pace.upstream,
        };
        let mut passage = Passage {
            there: drawn(&mut self.dice, longest),
            fate: Fate::Arrives,
            back: drawn(&mut self.dice, longest),
        };
        let now = Instant::now();
        let cut = |(process, until): &(usize, Instant)| *process == call.process && now < *until;
        if call.peer == Peer::ApiServer && self.cut.iter().any(cut) {
            passage.fate = Fate::Lost;
            self.struck += 1;
            return passage;
        }
        self.running.retain(|running| now < running.until);
        let met = self
            .running
            .iter_mut()
            .find_map(|running| running.meets(call, upstream).then_some(running.spell.trouble));
        if let Some(trouble) = met {
            self.struck += 1;
            self.deaths += usize::from(trouble.kills());
            change(&mut passage, trouble);
        }
        passage
    }
}

fn change(passage: &mut Passage, trouble: Trouble) {
    match trouble {
        Trouble::Refused => passage.fate = Fate::Refused,
        Trouble::Lost => passage.fate = Fate::Lost,
        Trouble::AnswerLost => passage.fate = Fate::AnswerLost,
        Trouble::Late(seconds) => passage.fate = Fate::Late(Duration::from_secs(seconds)),
        Trouble::Fails(status) => passage.fate = Fate::Fails(status),
        Trouble::Conflicts => passage.fate = Fate::Conflicts,
        Trouble::DiesBefore => passage.fate = Fate::DiesBefore,
        Trouble::DiesAfter => passage.fate = Fate::DiesAfter,
        Trouble::Slow(millis) => passage.there += Duration::from_millis(millis),
        Trouble::SlowAnswer(millis) => passage.back += Duration::from_millis(millis),
        Trouble::TooMany(_) | Trouble::Malformed | Trouble::Page | Trouble::Truncated => {
            unreachable!("a double carries it out")
        }
    }
}

impl Running {
    fn meets(&mut self, call: &Call, upstream: Option<ProviderType>) -> bool {
        let theirs = match self.spell.whom {
            Whom::ApiServer => call.peer == Peer::ApiServer,
            Whom::Upstream(provider) => upstream == Some(provider),
        };
        let writes = call.kind == CallKind::Write;
        let able = match self.spell.trouble {
            Trouble::Conflicts => writes && !call.text.starts_with("create "),
            // A watch takes as long as it takes.
            Trouble::Slow(_) | Trouble::SlowAnswer(_) => call.kind != CallKind::Watch,
            trouble if trouble.kills() => writes && self.struck < DEATHS,
            _ => true,
        };
        // Drawn for each of its calls, so that leaving something else out changes as little as can be.
        let met = theirs && able && self.dice.u8(0..100) < self.spell.percent;
        self.struck += usize::from(met);
        met
    }
}

/// The spells that doubles carry out.
#[derive(Default)]
pub(super) struct Faults {
    active: Vec<Faulty>,
    struck: usize,
}

impl Faults {
    /// Begins a spell if a double has to carry it out. Whether it does.
    pub(super) fn begin(&mut self, models: &Models, spell: &Spell) -> bool {
        let Whom::Upstream(provider) = spell.whom else {
            return false;
        };
        let fault = match spell.trouble {
            Trouble::TooMany(seconds) => Fault::retry_after(429, RetryAfter::Seconds(seconds)),
            Trouble::Malformed => Fault::new(Effect::MalformedJson),
            Trouble::Page => Fault::new(Effect::Html),
            Trouble::Truncated => Fault::new(Effect::Truncate),
            _ => return false,
        };
        let fault = fault.chance(f64::from(spell.percent) / 100.0, spell.seed);
        let id = match provider {
            ProviderType::Conpeek => models.conpeek().set_fault(fault),
            ProviderType::Thulium => models.thulium().set_fault(fault),
            ProviderType::Ricloud => models.ricloud().set_fault(fault),
            ProviderType::Autocosmos => models.autocosmos().set_fault(fault),
        };
        self.active.push(Faulty {
            provider,
            id,
            until: Instant::now() + spell.lasts,
        });
        true
    }

    /// Ends what is over by then.
    pub(super) fn end(&mut self, models: &Models, now: Instant) {
        let (over, active) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|it: &Faulty| it.until <= now);
        self.active = active;
        for it in over {
            self.struck += match it.provider {
                ProviderType::Conpeek => end(models.conpeek(), it.id),
                ProviderType::Thulium => end(models.thulium(), it.id),
                ProviderType::Ricloud => end(models.ricloud(), it.id),
                ProviderType::Autocosmos => end(models.autocosmos(), it.id),
            };
        }
    }

    /// Ends all.
    pub(super) fn clear(&mut self, models: &Models) {
        let last = self.active.iter().map(|it| it.until).max();
        if let Some(last) = last {
            self.end(models, last);
        }
    }

    /// How many requests were met.
    pub(super) fn struck(&self) -> usize {
        self.struck
    }
}

fn end<U: Upstream>(double: &Double<U>, id: FaultId) -> usize {
    let fault = double.faults().into_iter().find(|it| it.id == id);
    double.remove_fault(id);
    fault.map_or(0, |it| usize::try_from(it.struck).unwrap_or(usize::MAX))
}
