//! Every crash point of short lives of one rotated secret. The driver does what the shell does, one effect at a time,
//! and is stopped before each of them in turn; what only memory held is then lost. Receivers read the Secret again
//! only every [`RELOAD`], and accept the three values that they then find.

use std::collections::{BTreeMap, BTreeSet};

use super::{at, *};

/// How long a receiver may go on with an older Secret.
const RELOAD: Duration = Duration::from_secs(90);

const KEY: &str = "secret";

/// What a user, the upstream or time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Less than it takes to settle.
    WaitABit,
    /// More than it takes to settle, less than the overlap.
    WaitAWhile,
    /// More than the overlap.
    WaitLong,
    Ask,
    EditNext,
    SpoilNext,
    DropNext,
    WipeJournal,
    WipeStatus,
    EditCurrent,
    DropCurrent,
    DropPrevious,
    DropSecret,
    LoseHashKey,
    ProbePasses,
    ProbeFails,
    /// The upstream cannot be reached; again: it can.
    Outage,
    /// The upstream refuses what it is given; again: it takes it.
    Refusal,
    /// Somebody switches it off at the upstream; again: on.
    SwitchOff,
    /// The Webhook or its provider; again: goes on.
    Suspend,
    /// `secretPolicy.rotation` goes; again: comes back.
    DropPolicy,
    /// The operator stops for a day.
    Night,
}

const OPS: [Op; 22] = [
    Op::WaitABit,
    Op::WaitAWhile,
    Op::WaitLong,
    Op::Ask,
    Op::EditNext,
    Op::SpoilNext,
    Op::DropNext,
    Op::WipeJournal,
    Op::WipeStatus,
    Op::EditCurrent,
    Op::DropCurrent,
    Op::DropPrevious,
    Op::DropSecret,
    Op::LoseHashKey,
    Op::ProbePasses,
    Op::ProbeFails,
    Op::Outage,
    Op::Refusal,
    Op::SwitchOff,
    Op::Suspend,
    Op::DropPolicy,
    Op::Night,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// The effect never happens.
    Before,
    /// It is an update that takes effect after the restart.
    InFlight,
}

#[derive(Debug)]
struct Died;

/// What is played, for the message of a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Life<'a> {
    ops: &'a [Op],
    interval: Option<Duration>,
    death: Option<(usize, Death)>,
    merged: bool,
}

/// What happened, for the message of a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
enum Line {
    Did(Op),
    Died,
    Effect {
        second: i64,
        upstream: String,
        secret: BTreeMap<String, String>,
    },
}

struct World {
    policy: Option<Policy>,
    /// The Secret's data; a value is its own hash, but for the hash key's generation.
    data: BTreeMap<String, String>,
    journal: Journal,
    hash_key: u32,
    /// `appliedHash` stands for the value under the key.
    applied: Option<String>,
    status: Option<RotationStatus>,
    handled: Option<String>,
    asked: Option<String>,
    upstream: String,
    late: Option<String>,
    looked: Option<Timestamp>,
    probe: Option<(Probed, String)>,
    outage: bool,
    refusal: bool,
    off: bool,
    suspended: bool,
    /// What the Secret held, from when on.
    shelves: Vec<(Timestamp, BTreeSet<String>)>,
    /// A user took away what the upstream signs with: refused deliveries are of his making.
    disturbed: bool,
    now: Timestamp,
    made: u32,
    published: u32,
    requests: u32,
    effects: usize,
    death: Option<(usize, Death)>,
    log: Vec<Line>,
}

impl World {
    /// A registration that signs with `a`.
    fn new(interval: Option<Duration>, death: Option<(usize, Death)>) -> Self {
        let mut world = Self {
            policy: Some(Policy { interval, ..POLICY }),
            data: BTreeMap::from([(KEY.to_owned(), "a".to_owned())]),
            journal: Journal {
                key: KEY.to_owned(),
                current: Some(entry("0a", 0)),
                ..Journal::default()
            },
            hash_key: 0,
            applied: Some("0a".to_owned()),
            status: Some(RotationStatus {
                last_time: Some(Time(at(0))),
                ..RotationStatus::default()
            }),
            handled: None,
            asked: None,
            upstream: "a".to_owned(),
            late: None,
            looked: None,
            probe: None,
            outage: false,
            refusal: false,
            off: false,
            suspended: false,
            shelves: Vec::new(),
            disturbed: false,
            now: at(10),
            made: 0,
            published: 0,
            requests: 0,
            effects: 0,
            death,
            log: Vec::new(),
        };
        world.stock();
        world
    }

    fn print(&self, value: &str) -> String {
        format!("{}{value}", self.hash_key)
    }

    fn keys(&self) -> Keys {
        let value = |key: &str| self.data.get(key).filter(|value| !value.is_empty());
        Keys {
            current: value(KEY).map(|value| self.print(value)),
            next: value(&next_key(KEY)).map(|value| match value.as_str() {
                "!" => Candidate::Unusable,
                value => Candidate::Usable(self.print(value)),
            }),
            previous: value(&previous_key(KEY)).is_some(),
        }
    }

    fn is_applied(&self) -> bool {
        self.applied.is_some() && self.applied == self.keys().current
    }

    fn next_value(&self) -> Option<&String> {
        self.data.get(&next_key(KEY))
    }

    fn effect(&mut self, what: impl FnOnce(&mut Self)) -> Result<(), Died> {
        if self.death == Some((self.effects, Death::Before)) {
            return Err(Died);
        }
        what(self);
        self.effects += 1;
        self.log.push(Line::Effect {
            second: self.now.as_second() - at(0).as_second(),
            upstream: self.upstream.clone(),
            secret: self.data.clone(),
        });
        Ok(())
    }

    /// Receivers find this in the Secret from now on.
    fn stock(&mut self) {
        let shelf = self.data.values().cloned().collect();
        self.shelves.push((self.now, shelf));
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap();
    }

    /// No receiver refuses what the upstream signs, however old its copy of the Secret may be.
    fn check(&mut self, life: &Life<'_>) {
        let oldest = self.now.checked_sub(RELOAD).unwrap();
        // The last that was there at that moment, and all since.
        let from = self.shelves.iter().rposition(|(since, _)| *since <= oldest);
        self.shelves.drain(..from.unwrap_or(0));
        let upstream = &self.upstream;
        let (_, there) = self.shelves.last().unwrap();
        if self.disturbed {
            // Over when every receiver has what the upstream signs with.
            let over = self.shelves.len() == 1 && there.contains(upstream) && self.is_applied();
            self.disturbed = !over;
            return;
        }
        for (since, shelf) in &self.shelves {
            assert!(
                shelf.contains(upstream),
                "refused: {life:?}\nupstream signs with {upstream:?}, a receiver since {since} takes {shelf:?}\n{:#?}",
                self.log
            );
        }
    }

    /// The Secret was edited by hand.
    fn edited(&mut self) {
        self.stock();
        let (_, there) = self.shelves.last().unwrap();
        self.disturbed |= !there.contains(&self.upstream);
    }
}

/// What a user does; `false`: it makes no sense now.
fn apply(world: &mut World, op: Op) -> bool {
    let has = |world: &World, key: String| world.data.contains_key(&key);
    match op {
        Op::WaitABit | Op::WaitAWhile | Op::WaitLong | Op::Night => {}
        Op::Ask => {
            world.requests += 1;
            world.asked = Some(format!("r{}", world.requests));
        }
        Op::EditNext => {
            world.made += 1;
            let value = format!("by-hand-{}", world.made);
            world.data.insert(next_key(KEY), value);
            world.published += 1;
            world.edited();
        }
        Op::SpoilNext => {
            world.data.insert(next_key(KEY), "!".to_owned());
            world.edited();
        }
        Op::DropNext | Op::DropPrevious | Op::DropCurrent => {
            let key = match op {
                Op::DropNext => next_key(KEY),
                Op::DropPrevious => previous_key(KEY),
                _ => KEY.to_owned(),
            };
            if !has(world, key.clone()) {
                return false;
            }
            world.data.remove(&key);
            world.edited();
            // A new one is made, the upstream gets it at once, and receivers do not know it yet.
            world.disturbed |= op == Op::DropCurrent;
        }
        Op::EditCurrent => {
            world.made += 1;
            let value = format!("by-hand-{}", world.made);
            world.data.insert(KEY.to_owned(), value);
            world.edited();
            world.disturbed = true;
        }
        Op::DropSecret => {
            world.data.clear();
            world.journal = Journal::default();
            world.edited();
            world.disturbed = true;
        }
        Op::WipeJournal => world.journal = Journal::default(),
        Op::WipeStatus => {
            world.status = None;
            world.applied = None;
            world.handled = None;
        }
        Op::LoseHashKey => world.hash_key += 1,
        Op::ProbePasses | Op::ProbeFails => {
            let Some(next) = world.next_value().cloned() else {
                return false;
            };
            let result = if op == Op::ProbePasses {
                // What it proves: receivers have it.
                let last = world.shelves.pop().unwrap();
                world.shelves = vec![last];
                Probed::Passed
            } else {
                Probed::Failed
            };
            world.probe = Some((result, next));
        }
        Op::Outage => world.outage = !world.outage,
        Op::Refusal => world.refusal = !world.refusal,
        Op::SwitchOff => world.off = !world.off,
        Op::Suspend => world.suspended = !world.suspended,
        Op::DropPolicy => {
            world.policy = match world.policy {
                Some(_) => None,
                None => Some(POLICY),
            }
        }
    }
    world.log.push(Line::Did(op));
    true
}

fn duration(op: Op) -> Duration {
    Duration::from_secs(match op {
        Op::WaitABit => 50,
        Op::WaitAWhile => 300,
        Op::WaitLong => 2000,
        _ => 1,
    })
}

/// Passes until nothing is left to do now; when to look again.
fn pass(world: &mut World, life: &Life<'_>) -> Result<Option<Timestamp>, Died> {
    for _ in 0..30 {
        if world.suspended {
            return Ok(None);
        }
        let (keys, journal, status) = (world.keys(), world.journal.clone(), world.status.clone());
        let (handled, asked) = (world.handled.clone(), world.asked.clone());
        // Nothing says that nothing else is to be done, but that everything is applied.
        let applied = world.is_applied();
        let probe = world
            .probe
            .clone()
            .filter(|(_, of)| Some(of) == world.next_value());
        let s = Situation {
            key: KEY,
            keys: &keys,
            journal: &journal,
            policy: world.policy.unwrap_or(POLICY),
            status: status.as_ref(),
            handled: handled.as_deref(),
            asked: asked.as_deref(),
            applied,
            free: applied && !world.off,
            looked: world.looked,
            probe: probe.map(|(result, _)| result),
            seed: 0,
            now: world.now,
        };
        if applied {
            let (told, answered) = (next_status(&s), s.next_handled().map(str::to_owned));
            if Some(&told) != status.as_ref() || answered != handled {
                world.effect(|world| {
                    world.status = Some(told);
                    world.handled = answered;
                })?;
                continue;
            }
        }
        let step = next_step(&s);
        match step {
            Step::Rest(_) if !applied && keys.current.is_some() => {
                if world.outage || world.refusal {
                    return Ok(None);
                }
                update(world)?;
                world.check(life);
            }
            Step::Rest(until) => return Ok(until),
            Step::Look if world.outage => return Ok(None),
            Step::Look => world.looked = Some(world.now),
            _ => {
                let fresh = format!("made-{}", world.made + 1);
                let change = change(&s, step, &world.print(&fresh)).unwrap();
                world.effect(|world| write(world, &change, &fresh, step))?;
                world.check(life);
            }
        }
    }
    panic!("does not come to rest: {life:?}\n{:#?}", world.log)
}

fn write(world: &mut World, change: &Change, fresh: &str, step: Step) {
    let before = world.data.clone();
    for (key, put) in [
        (KEY.to_owned(), change.current),
        (next_key(KEY), change.next),
        (previous_key(KEY), change.previous),
    ] {
        let value = match put {
            Put::Keep => continue,
            Put::Remove => None,
            Put::Fresh => {
                world.made += 1;
                Some(fresh.to_owned())
            }
            Put::Current => before.get(KEY).cloned(),
            Put::Next => before.get(&next_key(KEY)).cloned(),
        };
        match value {
            Some(value) => world.data.insert(key, value),
            None => world.data.remove(&key),
        };
    }
    world.published += u32::from(step == Step::Publish);
    world.journal = change.journal.clone();
    world.stock();
}

/// The ordinary update, and the status that follows it.
fn update(world: &mut World) -> Result<(), Died> {
    let value = world.data.get(KEY).cloned().unwrap();
    if world.death == Some((world.effects, Death::InFlight)) {
        world.late = Some(value);
        return Err(Died);
    }
    world.effect(|world| {
        world.upstream = value;
        world.looked = Some(world.now);
    })?;
    let (keys, journal) = (world.keys(), world.journal.clone());
    let s = Situation {
        key: KEY,
        keys: &keys,
        journal: &journal,
        policy: world.policy.unwrap_or(POLICY),
        status: world.status.as_ref(),
        handled: world.handled.as_deref(),
        asked: world.asked.as_deref(),
        applied: true,
        free: false,
        looked: None,
        probe: None,
        seed: 0,
        now: world.now,
    };
    let (told, answered) = (next_status(&s), s.next_handled().map(str::to_owned));
    world.effect(|world| {
        world.applied = world.keys().current;
        world.status = Some(told);
        world.handled = answered;
    })
}

/// Lets time pass, with passes when they are due.
fn live_on(world: &mut World, time: Duration, life: &Life<'_>) -> Result<(), Died> {
    let end = world.now.checked_add(time).unwrap();
    let mut turns = 0;
    loop {
        turns += 1;
        assert!(turns < 100, "too many passes: {life:?}\n{:#?}", world.log);
        world.check(life);
        let next = pass(world, life)?;
        world.check(life);
        // Nothing happens in between: whatever is not a matter of time wakes the operator.
        let soon = world.now.checked_add(Duration::from_secs(1)).unwrap();
        let next = next.unwrap_or(end).max(soon);
        if next >= end {
            world.now = end;
            world.check(life);
            return Ok(());
        }
        world.now = next;
    }
}

/// The process is gone: so is what it only remembered.
fn restart(world: &mut World) {
    world.death = None;
    world.looked = None;
    world.probe = None;
    if let Some(late) = world.late.take() {
        world.upstream = late;
    }
    world.log.push(Line::Died);
}

fn check_rest(world: &mut World, life: &Life<'_>, exact: bool) {
    // Whatever was switched off is on again, and everybody has time.
    (world.outage, world.refusal, world.off, world.suspended) = (false, false, false, false);
    world.policy = Some(POLICY);
    assert!(live_on(world, Duration::from_secs(3000), life).is_ok());
    let effects = world.effects;
    assert!(live_on(world, Duration::from_secs(3000), life).is_ok());
    assert_eq!(
        world.effects, effects,
        "a settled Webhook was written: {life:?}\n{:#?}",
        world.log
    );
    let values: Vec<&String> = world.data.values().collect();
    assert_eq!(values, [&world.upstream], "{life:?}\n{:#?}", world.log);
    let status = world.status.as_ref().unwrap();
    assert_eq!(status.phase, RotationPhase::Idle, "{life:?}");
    assert_eq!(status.previous_expires, None, "{life:?}");
    assert_eq!(
        world.handled, world.asked,
        "a request is left: {life:?}\n{:#?}",
        world.log
    );
    if exact {
        // Requests that come while one settles mean that one.
        let least = u32::from(world.requests > 0);
        assert!(
            (least..=world.requests).contains(&world.published),
            "{} rotations for {} requests: {life:?}\n{:#?}",
            world.published,
            world.requests,
            world.log
        );
    }
}

/// One life; `None`: something in it made no sense, or the death never came; else the count of its effects.
fn live(
    ops: &[Op],
    interval: Option<Duration>,
    death: Option<(usize, Death)>,
    merged: bool,
) -> Option<usize> {
    let life = Life {
        ops,
        interval,
        death,
        merged,
    };
    let mut world = World::new(interval, death);
    let (mut died, mut skipped) = (false, false);
    for op in ops {
        if *op == Op::Night {
            world.wait(Duration::from_secs(86_400));
        }
        skipped |= !apply(&mut world, *op);
        if live_on(&mut world, duration(*op), &life).is_err() {
            restart(&mut world);
            died = true;
            if !merged || Some(op) == ops.last() {
                assert!(live_on(&mut world, Duration::from_secs(1), &life).is_ok());
            }
        }
    }
    if skipped && death.is_none() {
        return None;
    }
    let effects = world.effects;
    // What the last steps are is part of the life as well.
    if live_on(&mut world, Duration::from_secs(1000), &life).is_err() {
        restart(&mut world);
        died = true;
    }
    let effects = effects.max(world.effects);
    let lost = |op: &Op| {
        matches!(
            op,
            Op::WipeJournal
                | Op::WipeStatus
                | Op::DropSecret
                | Op::EditNext
                | Op::SpoilNext
                | Op::DropNext
                | Op::LoseHashKey
        )
    };
    let exact = interval.is_none() && !ops.iter().any(lost);
    check_rest(&mut world, &life, exact);
    (died || death.is_none()).then_some(effects)
}

#[test]
fn no_delivery_is_refused_at_any_crash_point_of_any_short_life() {
    let mut lives = vec![vec![Op::Ask]];
    for first in OPS {
        lives.push(vec![Op::Ask, first]);
        for second in OPS {
            lives.push(vec![Op::Ask, first, second]);
            if matches!(first, Op::WaitABit | Op::WaitAWhile | Op::WaitLong) {
                lives.extend(OPS.iter().map(|third| vec![Op::Ask, first, second, *third]));
            }
        }
    }
    let mut points = 0_usize;
    for interval in [None, Some(Duration::from_secs(1500))] {
        for ops in &lives {
            // A regular rotation is due within the waits; longer lives add nothing to it.
            if interval.is_some() && ops.len() > 3 {
                continue;
            }
            let Some(effects) = live(ops, interval, None, false) else {
                continue;
            };
            points += 1;
            for k in 0..effects {
                for death in [Death::Before, Death::InFlight] {
                    for merged in [false, true] {
                        points += usize::from(live(ops, interval, Some((k, death)), merged).is_some());
                    }
                }
            }
        }
    }
    eprintln!("{points} crash points explored");
    assert!(points > 25_000, "only {points} were explored");
}
