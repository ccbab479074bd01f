//! Every crash point of short lives of one Webhook, against a model of an upstream. The driver does what the shell
//! does, one effect at a time, and is stopped after each of them in turn; what only memory held is then lost.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{applied, at, desired, key};
use crate::{
    api::{
        CLAIM_ANNOTATION, CREATE_PENDING, FINALIZER, ID_ANNOTATION, TEST_REQUESTED_AT, Webhook, WebhookSpec,
        conditions::{ReadyReason, TestedReason},
        webhook::{
            DeletionPolicy, OnTestFailure, OnUpstreamDeactivation, ProviderKind, ProviderRef, TestMode,
        },
        webhook_status::{DeactivatedBy, State, WebhookStatus},
    },
    domain::{
        capabilities::{Capabilities, Identity, RemovalRule},
        desired::Desired,
        plan::{ById, Sight, Situation, Step, Why, plan},
        recorded::{Mark, Origin, Recorded},
        remote::{Look, Remote, RemoteId, differences},
        retire::{Farewell, Retirement, farewell, wait_for_create},
        status::{Assessment, next_status, note_registration, state_of},
        testing::{Tally, Verdict, note_test},
    },
    provider::{autocosmos, conpeek, ricloud, thulium},
};

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Create,
    EditUrl,
    EditEvents,
    SwitchOff,
    SwitchOn,
    WipeStatus,
    WipeAnnotations,
    SpoilMark,
    TestsFail,
    TestPasses,
    AskForTest,
    Delete,
}

const OPS: [Op; 12] = [
    Op::Create,
    Op::EditUrl,
    Op::EditEvents,
    Op::SwitchOff,
    Op::SwitchOn,
    Op::WipeStatus,
    Op::WipeAnnotations,
    Op::SpoilMark,
    Op::TestsFail,
    Op::TestPasses,
    Op::AskForTest,
    Op::Delete,
];

/// What becomes of the effect at which the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// It was the last that had an effect.
    After,
    /// A create that is still on its way, and takes effect after the restart.
    InFlight,
}

/// A variant of an upstream.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    name: &'static str,
    can: &'static Capabilities,
    readable: bool,
    replaces: bool,
}

const DIALECTS: [Dialect; 6] = [
    Dialect {
        name: "Thulium",
        can: &thulium::CAPABILITIES,
        readable: true,
        replaces: false,
    },
    Dialect {
        name: "Thulium without PUT",
        can: &thulium::CAPABILITIES,
        readable: true,
        replaces: true,
    },
    Dialect {
        name: "ricloud",
        can: &ricloud::CAPABILITIES,
        readable: true,
        replaces: false,
    },
    Dialect {
        name: "Autocosmos",
        can: &autocosmos::CAPABILITIES,
        readable: true,
        replaces: false,
    },
    Dialect {
        name: "Conpeek",
        can: &conpeek::CAPABILITIES,
        readable: true,
        replaces: false,
    },
    Dialect {
        name: "Conpeek without GET",
        can: &conpeek::CAPABILITIES,
        readable: false,
        replaces: false,
    },
];

/// The operator died.
#[derive(Debug)]
struct Died;

#[derive(Clone)]
struct World {
    dialect: Dialect,
    upstream: Vec<Remote>,
    late: Vec<Remote>,
    ids: u64,
    uids: u64,
    webhook: Option<Webhook>,
    now: Timestamp,
    effects: usize,
    /// After how many effects the operator dies, and how.
    death: Option<(usize, Death)>,
    /// Every step and effect, for the message of a failure.
    log: Vec<String>,
}

impl World {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            upstream: Vec::new(),
            late: Vec::new(),
            ids: 0,
            uids: 0,
            webhook: None,
            now: at(0),
            effects: 0,
            death: None,
            log: Vec::new(),
        }
    }

    /// One effect: on the object, or at the upstream.
    fn effect(&mut self, what: impl FnOnce(&mut Self)) -> Result<(), Died> {
        if self.death == Some((self.effects, Death::After)) {
            return Err(Died);
        }
        what(self);
        self.effects += 1;
        Ok(())
    }

    fn post(&mut self, remote: Remote) -> Result<(), Died> {
        if self.death == Some((self.effects, Death::InFlight)) {
            self.late.push(remote);
            return Err(Died);
        }
        self.effect(|world| world.upstream.push(remote))
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap();
        self.upstream.append(&mut self.late);
    }

    fn object(&mut self) -> &mut Webhook {
        self.webhook.as_mut().unwrap()
    }

    fn annotate(&mut self, name: &str, text: Option<String>) {
        let annotations = self.object().metadata.annotations.get_or_insert_default();
        match text {
            Some(text) => annotations.insert(name.to_owned(), text),
            None => annotations.remove(name),
        };
    }

    fn record(&mut self, id: &RemoteId, origin: Origin, retire: Option<RemoteId>) -> Result<(), Died> {
        self.effect(|world| {
            let uid = world.object().metadata.uid.clone().unwrap();
            let mark = retire.map(|old| {
                Mark {
                    hash: String::new(),
                    time: world.now,
                    replaces: None,
                    retire: Some(old),
                    made_of: None,
                }
                .to_text(&key(), &uid)
            });
            world.object().metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            world.annotate(ID_ANNOTATION, Some(id.0.clone()));
            world.annotate(
                CLAIM_ANNOTATION,
                Some(Recorded::proof_text(&key(), &uid, id, origin, None)),
            );
            world.annotate(CREATE_PENDING, mark);
        })
    }

    fn write_status(
        &mut self,
        id: &RemoteId,
        hash: Option<String>,
        off: Option<DeactivatedBy>,
    ) -> Result<(), Died> {
        let now = self.now;
        let webhook = self.object().clone();
        let generation = webhook.metadata.generation.unwrap();
        let url = webhook.spec.url.clone();
        let old = webhook.status.clone().unwrap_or_default();
        assert_ne!(
            off,
            Some(DeactivatedBy::Upstream),
            "nobody else is here: {:#?}",
            self.log
        );
        let new = next_status(
            &old,
            generation,
            now,
            Assessment::ready(ReadyReason::Available, ""),
            |status| {
                with_tally(&webhook, |tally| tally.forgive(status));
                note_registration(status, id, &url, hash, false, now);
                status.deactivated_by = off;
                status.state = Some(state_of(None, off));
            },
        );
        if new == old {
            return Ok(());
        }
        self.effect(|world| world.object().status = Some(new))
    }

    fn list(&self, inactive: bool) -> Arc<Vec<Remote>> {
        Arc::new(
            self.upstream
                .iter()
                .filter(|remote| inactive || remote.is_on())
                .cloned()
                .collect(),
        )
    }

    fn at_id(&mut self, id: &RemoteId) -> Option<&mut Remote> {
        self.upstream.iter_mut().find(|remote| remote.id == *id)
    }
}

/// Looks at what failed tests ask for.
fn with_tally<R>(webhook: &Webhook, look: impl FnOnce(&Tally<'_>) -> R) -> R {
    let status = webhook.status.clone().unwrap_or_default();
    let annotations = webhook.metadata.annotations.as_ref();
    let asked = annotations.and_then(|annotations| annotations.get(TEST_REQUESTED_AT));
    look(&Tally {
        spec: &webhook.spec,
        status: &status,
        generation: webhook.metadata.generation,
        requested: asked.is_some() && asked != status.last_handled_test_at.as_ref(),
    })
}

/// What is to be reached, and whose switch it is where that is off.
fn goal(webhook: &Webhook) -> (Desired, Option<DeactivatedBy>) {
    let mut want = desired(&webhook.spec);
    let tripped = with_tally(webhook, |tally| tally.is_tripped());
    want.active &= !tripped;
    let by = if tripped {
        DeactivatedBy::TestFailure
    } else {
        DeactivatedBy::Spec
    };
    let off = (!want.active).then_some(by);
    (want, off)
}

/// The registration that an upstream shows after it took the spec.
fn shown(world: &mut World, id: Option<&RemoteId>) -> Remote {
    let can = world.dialect.can;
    let (want, _) = goal(world.object());
    let id = id.cloned().unwrap_or_else(|| {
        world.ids += 1;
        RemoteId(world.ids.to_string())
    });
    let state = if want.active {
        State::New
    } else {
        State::Deactivated
    };
    Remote {
        events: can.events.then(|| want.events.clone()),
        headers: (can.max_headers > 0).then(Vec::new),
        retry: can.retry.then(crate::domain::desired::Retry::default),
        description: (can.max_description > 0).then(String::new),
        basic_auth_user: can.basic_auth.then(String::new),
        state: can.switch.then_some(state),
        ..Remote::new(id.0, want.url)
    }
}

/// What a user does to the object; `false`: it makes no sense now, or this upstream has no such thing.
fn apply(world: &mut World, op: Op) -> bool {
    let can = world.dialect.can;
    let deleted = world
        .webhook
        .as_ref()
        .is_some_and(|webhook| webhook.metadata.deletion_timestamp.is_some());
    match (op, &mut world.webhook) {
        (Op::Create, None) => {
            world.uids += 1;
            let provider = ProviderRef {
                kind: ProviderKind::WebhookProvider,
                name: "p".into(),
            };
            let mut webhook = Webhook::new("w", WebhookSpec::new(provider, "https://a.example/0"));
            webhook.metadata.uid = Some(format!("uid-{}", world.uids));
            webhook.metadata.generation = Some(1);
            webhook.spec.target = (can.identity == Identity::ByTarget).then(|| "9".to_owned());
            if can.switch {
                webhook.spec.test.on_failure = OnTestFailure::Deactivate;
            }
            webhook.spec.events = if can.events {
                vec!["A".to_owned()]
            } else {
                Vec::new()
            };
            world.webhook = Some(webhook);
            return true;
        }
        (Op::Create, Some(_)) | (_, None) => return false,
        _ if deleted => return false,
        (Op::EditUrl, Some(webhook)) => webhook.spec.url.push('1'),
        (Op::EditEvents, Some(webhook)) if can.events => webhook.spec.events.push("B".to_owned()),
        (Op::SwitchOff, Some(webhook)) if can.switch && webhook.spec.active => webhook.spec.active = false,
        (Op::SwitchOn, Some(webhook)) if can.switch && !webhook.spec.active => webhook.spec.active = true,
        (Op::EditEvents | Op::SwitchOff | Op::SwitchOn, Some(_)) => return false,
        (Op::WipeStatus, Some(webhook)) => webhook.status = Some(WebhookStatus::default()),
        (Op::WipeAnnotations, Some(webhook)) => webhook.metadata.annotations = None,
        // Where the target is the id there are no marks, and nobody reads them.
        (Op::SpoilMark, Some(_)) if can.identity == Identity::ByTarget => return false,
        (Op::SpoilMark, Some(webhook)) => {
            let annotations = webhook.metadata.annotations.get_or_insert_default();
            annotations.insert(CREATE_PENDING.to_owned(), "spoiled".to_owned());
        }
        (Op::TestsFail | Op::TestPasses | Op::AskForTest, Some(_)) if !can.switch => return false,
        // Tests come after a registration.
        (Op::TestsFail | Op::TestPasses, Some(webhook)) => match &mut webhook.status {
            Some(status) if status.id.is_some() => test(status, op),
            _ => return false,
        },
        (Op::AskForTest, Some(webhook)) => {
            let annotations = webhook.metadata.annotations.get_or_insert_default();
            let before = annotations.get(TEST_REQUESTED_AT).cloned().unwrap_or_default();
            annotations.insert(TEST_REQUESTED_AT.to_owned(), before + "x");
        }
        (Op::Delete, Some(webhook)) if webhook.metadata.finalizers.is_none() => world.webhook = None,
        (Op::Delete, Some(webhook)) => webhook.metadata.deletion_timestamp = Some(Time(at(0))),
    }
    if let Some(webhook) = &mut world.webhook {
        let generation = webhook.metadata.generation.get_or_insert(1);
        *generation += i64::from(matches!(
            op,
            Op::EditUrl | Op::EditEvents | Op::SwitchOff | Op::SwitchOn | Op::Delete
        ));
    }
    true
}

/// The verdicts of tests, as they are noted before anything follows from them.
fn test(status: &mut WebhookStatus, op: Op) {
    let reason = if op == Op::TestsFail {
        TestedReason::HttpStatus
    } else {
        TestedReason::Passed
    };
    for _ in 0..3 {
        note_test(status, &Verdict::new(TestMode::Probe, reason, "", at(0)), 0);
    }
}

/// Passes until nothing is left to do.
fn settle(world: &mut World) -> Result<(), Died> {
    let mut sight = Sight::default();
    let mut absent_since: Option<Duration> = None;
    for _ in 0..60 {
        let Some(webhook) = world.webhook.clone() else {
            return Ok(());
        };
        if webhook.metadata.deletion_timestamp.is_some() {
            return part(world);
        }
        let recorded = Recorded::read(&webhook, &key());
        let (want, _) = goal(&webhook);
        let wanted = desired(&webhook.spec);
        let status = webhook.status.clone().unwrap_or_default();
        let step = plan(
            &Situation {
                capabilities: world.dialect.can,
                want: &want,
                recorded: &recorded,
                applied: applied(status.applied_hash.as_deref(), &wanted),
                took_another: status
                    .id
                    .as_deref()
                    .zip(recorded.trusted_id())
                    .is_some_and(|(told, recorded)| told != recorded.0),
                key: &key(),
                adoption: webhook.spec.adoption_policy,
                drift: webhook.spec.drift_policy,
                on_deactivation: OnUpstreamDeactivation::Report,
                deactivated_by: with_tally(&webhook, |tally| tally.recorded_switch()),
                tripped: with_tally(&webhook, |tally| tally.is_tripped()),
                held_by_others: &|_| false,
                released_urls: &BTreeSet::new(),
                now: world.now,
                mark_grace: Duration::from_secs(50),
                wrote: None,
                absent_since,
                replace_instead_of_update: world.dialect.replaces,
                given_up: false,
                in_doubt: false,
                looks_first: true,
            },
            &sight,
        );
        world.log.push(format!("{step:?}"));
        match step {
            Step::Look(Look::ById(_)) if !world.dialect.readable => sight.by_id = Some(ById::CannotKnow),
            Step::Look(Look::ById(id)) => {
                let found = world
                    .at_id(&id)
                    .map(|remote| ById::Present(Box::new(remote.clone())));
                sight.by_id = Some(found.unwrap_or(ById::Absent));
            }
            Step::Look(Look::All { inactive }) => sight.all = Some(world.list(inactive)),
            Step::LookAgain(time) => {
                absent_since = Some(absent_since.unwrap_or_default() + time);
                world.wait(time);
                sight = Sight::default();
            }
            Step::WaitForMark(time) => {
                world.wait(time);
                sight = Sight::default();
            }
            Step::Update {
                why: Why::Rewrite, ..
            } => return Ok(()),
            Step::Done {
                remote,
                deactivated_by,
                ..
            } => {
                let id = recorded.id.clone().unwrap().0;
                assert_eq!(remote.unwrap().id, id);
                if !recorded.annotated {
                    world.record(&id, Origin::Adopted, None)?;
                }
                world.write_status(&id, Some(key().applied(&wanted)), deactivated_by)?;
                return answer_request(world);
            }
            other => {
                carry_out(world, &recorded, other)?;
                sight = Sight::default();
            }
        }
    }
    panic!("does not come to rest: {:#?}", world.log)
}

/// The test that was asked for has ended.
fn answer_request(world: &mut World) -> Result<(), Died> {
    let annotations = world.object().metadata.annotations.clone().unwrap_or_default();
    let asked = annotations.get(TEST_REQUESTED_AT).cloned();
    let status = world.object().status.clone().unwrap_or_default();
    if asked == status.last_handled_test_at {
        return Ok(());
    }
    world.effect(|world| {
        let status = world.object().status.get_or_insert_default();
        status.last_handled_test_at = asked;
    })
}

/// Carries out a step that changes something.
fn carry_out(world: &mut World, recorded: &Recorded, step: Step) -> Result<(), Died> {
    let (want, off) = goal(world.object());
    let applied = key().applied(&desired(&world.object().spec));
    match step {
        Step::Create { replaces } if world.dialect.can.identity == Identity::Assigned => {
            let hash = key().content(&want.url, &want.events);
            let mark = Mark {
                hash,
                time: world.now,
                replaces: replaces.clone(),
                retire: None,
                made_of: None,
            };
            world.effect(|world| {
                let uid = world.object().metadata.uid.clone().unwrap();
                world.object().metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
                world.annotate(CREATE_PENDING, Some(mark.to_text(&key(), &uid)));
            })?;
            let mut made = shown(world, None);
            // As ricloud: always made switched on.
            made.state = made.state.map(|_| State::New);
            world.post(made.clone())?;
            world.record(&made.id, Origin::Created, replaces.clone())?;
            if replaces.is_some() {
                // The status goes on naming the old one until it is removed.
                return Ok(());
            }
            let whole = differences(&want, &made).is_empty();
            world.write_status(&made.id, whole.then_some(applied), off)
        }
        Step::Create { .. } => {
            let id = RemoteId(want.target.clone().unwrap());
            if recorded.trusted_id() != Some(&id) {
                world.record(&id, Origin::Created, None)?;
            }
            write_at(world, &id)?;
            world.write_status(&id, Some(applied), off)
        }
        Step::Adopt {
            remote,
            origin,
            replaces,
            ..
        } => world.record(&remote.id, origin, replaces),
        Step::Update { id, why, .. } => {
            let begun = |status: &WebhookStatus| status.deactivated_by == Some(DeactivatedBy::TestFailure);
            if why == Why::TestFailure && !world.object().status.as_ref().is_some_and(begun) {
                world.effect(|world| {
                    world.object().status.get_or_insert_default().deactivated_by =
                        Some(DeactivatedBy::TestFailure);
                })?;
            }
            write_at(world, &id)?;
            world.write_status(&id, Some(applied), off)
        }
        Step::Retire(old) => {
            world.effect(|world| world.upstream.retain(|remote| remote.id != old))?;
            world.effect(|world| world.annotate(CREATE_PENDING, None))
        }
        other => panic!("{other:?} in {:#?}", world.log),
    }
}

fn write_at(world: &mut World, id: &RemoteId) -> Result<(), Died> {
    let new = shown(world, Some(id));
    world.effect(|world| match world.at_id(id) {
        Some(there) => *there = new,
        None => world.upstream.push(new),
    })
}

/// The object is being deleted.
fn part(world: &mut World) -> Result<(), Died> {
    let mut all = None;
    for _ in 0..20 {
        let webhook = world.webhook.clone().unwrap();
        let recorded = Recorded::read(&webhook, &key());
        let events = webhook.spec.events.iter().cloned().collect();
        let hash_key = key();
        let retirement = Retirement {
            capabilities: world.dialect.can,
            recorded: &recorded,
            target: webhook.spec.target.as_deref(),
            url: &webhook.spec.url,
            events: &events,
            policy: DeletionPolicy::Delete,
            suspended: false,
            key: &hash_key,
            held_by_others: &|_| false,
            all: all.as_ref(),
        };
        let last = farewell(&retirement);
        world.log.push(format!("{last:?}"));
        match last {
            Farewell::Look(Look::All { inactive }) => {
                all = Some(world.list(inactive));
                continue;
            }
            Farewell::Nothing | Farewell::Remove(_) => {}
            other => panic!("{other:?}"),
        }
        if let Some(time) = wait_for_create(&retirement, world.now, Duration::from_secs(50)) {
            world.wait(time);
            all = None;
            continue;
        }
        if let Farewell::Remove(ids) = last {
            for id in ids {
                world.effect(|world| remove(world, &id))?;
            }
        }
        return world.effect(|world| world.webhook = None);
    }
    panic!("does not let go: {:#?}", world.log)
}

fn remove(world: &mut World, id: &RemoteId) {
    let can = world.dialect.can;
    match can.removal {
        RemovalRule::LeftInPlace => {}
        RemovalRule::DeleteOrSwitchOff if can.identity == Identity::ByTarget => {
            if let Some(there) = world.at_id(id) {
                there.state = Some(State::Deactivated);
            }
        }
        RemovalRule::UndocumentedDelete | RemovalRule::DeleteOrSwitchOff => {
            world.upstream.retain(|remote| remote.id != *id);
        }
    }
}

fn check_rest(world: &mut World, life: &str) {
    world.wait(Duration::from_secs(120));
    let effects = world.effects;
    assert!(settle(world).is_ok());
    assert_eq!(
        world.effects, effects,
        "a settled object was written: {life}\n{:#?}",
        world.log
    );
    let Some(webhook) = world.webhook.clone() else {
        let left = world.upstream.iter().filter(|remote| remote.is_on()).count();
        let allowed = usize::from(world.dialect.can.removal == RemovalRule::LeftInPlace);
        assert!(
            left <= allowed,
            "something is left: {life}\n{:#?}\n{:#?}",
            world.upstream,
            world.log
        );
        return;
    };
    assert_eq!(
        world.upstream.len(),
        1,
        "not exactly one: {life}\n{:#?}\n{:#?}",
        world.upstream,
        world.log
    );
    let there = &world.upstream[0];
    let (want, off) = goal(&webhook);
    assert!(
        differences(&want, there).is_empty(),
        "it differs: {life}\n{there:#?}\n{:#?}",
        world.log
    );
    let recorded_off = webhook.status.as_ref().and_then(|status| status.deactivated_by);
    assert_eq!(recorded_off, off, "{life}\n{:#?}", world.log);
    assert!(
        with_tally(&webhook, |tally| !tally.is_due()),
        "{life}\n{:#?}",
        world.log
    );
    let recorded = Recorded::read(&webhook, &key());
    assert_eq!(recorded.mark, None, "a mark is left: {life}");
    assert_eq!(
        recorded.trusted_id(),
        Some(&there.id),
        "another id is recorded: {life}"
    );
}

/// What only a mark says is lost with the mark, and nobody could know it any more: that a create is on its way, and
/// that a replaced registration is still to be removed.
fn loses_the_only_trace(world: &World, op: Op) -> bool {
    let retiring = world.webhook.as_ref().is_some_and(|webhook| {
        Recorded::read(webhook, &key())
            .mark
            .is_some_and(|mark| mark.retire.is_some())
    });
    match op {
        Op::WipeAnnotations => !world.late.is_empty(),
        Op::SpoilMark => !world.late.is_empty() || retiring,
        _ => false,
    }
}

/// One life; `None` if it is none of its own (something in it made no sense, or the death never came), else the count
/// of its effects. `merged`: the user acts between death and restart.
fn live(dialect: Dialect, ops: &[Op], death: Option<(usize, Death)>, merged: bool) -> Option<usize> {
    let life = format!("{} {ops:?} {death:?} merged: {merged}", dialect.name);
    let mut world = World::new(dialect);
    world.death = death;
    let (mut skipped, mut died) = (false, false);
    for op in ops {
        if loses_the_only_trace(&world, *op) {
            return None;
        }
        skipped |= !apply(&mut world, *op);
        world.log.push(format!("{op:?}"));
        if settle(&mut world).is_err() {
            world.death = None;
            died = true;
            world.log.push("died".to_owned());
            if !merged || op == ops.last()? {
                assert!(settle(&mut world).is_ok());
            }
        }
    }
    if skipped && death.is_none() {
        return None;
    }
    check_rest(&mut world, &life);
    (died || death.is_none()).then_some(world.effects)
}

/// What of a life's end the model says about `active`, without the plan.
#[test]
fn failed_tests_switch_off_and_each_way_back_switches_on() {
    let ends = |ops: &[Op]| {
        let mut world = World::new(DIALECTS[2]);
        for op in ops {
            assert!(apply(&mut world, *op));
            assert!(settle(&mut world).is_ok());
        }
        let status = world.object().status.clone().unwrap();
        (
            world.upstream[0].is_on(),
            status.deactivated_by,
            status.test.map_or(0, |test| test.consecutive_failures),
        )
    };
    use Op::{AskForTest, Create, EditUrl, SwitchOff, SwitchOn, TestPasses, TestsFail};
    let failing = (false, Some(DeactivatedBy::TestFailure), 3);
    assert_eq!(ends(&[Create, TestsFail]), failing);
    for way in [AskForTest, EditUrl, TestPasses] {
        assert_eq!(ends(&[Create, TestsFail, way]), (true, None, 0), "{way:?}");
        assert_eq!(ends(&[Create, TestsFail, way, TestsFail]), failing, "{way:?}");
    }
    let by_spec = (false, Some(DeactivatedBy::Spec), 0);
    assert_eq!(ends(&[Create, TestsFail, SwitchOff]), by_spec);
    assert_eq!(ends(&[Create, TestsFail, SwitchOff, TestPasses]), by_spec);
    assert_eq!(ends(&[Create, TestsFail, SwitchOff, SwitchOn]), (true, None, 0));
}

#[test]
fn every_crash_point_of_every_short_life_ends_with_exactly_one_registration_or_none() {
    let mut points = 0_usize;
    let mut lives = vec![vec![Op::Create]];
    for first in OPS {
        lives.push(vec![Op::Create, first]);
        lives.extend(OPS.iter().map(|second| vec![Op::Create, first, *second]));
    }
    for dialect in DIALECTS {
        for ops in &lives {
            let Some(effects) = live(dialect, ops, None, false) else {
                continue;
            };
            points += 1;
            for k in 0..effects {
                for death in [Death::After, Death::InFlight] {
                    for merged in [false, true] {
                        points += usize::from(live(dialect, ops, Some((k, death)), merged).is_some());
                    }
                }
            }
        }
    }
    eprintln!("{points} crash points explored");
    assert!(points > 2500, "only {points} were explored");
}
