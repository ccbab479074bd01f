//! Single steps of a rotation; `explore.rs` plays whole ones.

use super::*;

mod explore;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

const POLICY: Policy = Policy {
    interval: None,
    overlap: Duration::from_secs(600),
    settle: Duration::from_secs(120),
};

fn entry(print: &str, since: i64) -> Entry {
    Entry {
        print: print.to_owned(),
        since: at(since),
    }
}

/// A Webhook whose secret `a` the upstream signs with since second 0.
struct Case {
    keys: Keys,
    journal: Journal,
    policy: Policy,
    status: RotationStatus,
    asked: Option<&'static str>,
    applied: bool,
    free: bool,
    looked: Option<Timestamp>,
    probe: Option<Probed>,
    seed: u64,
    now: Timestamp,
}

impl Case {
    fn idle() -> Self {
        Self {
            keys: Keys {
                current: Some("a".into()),
                ..Keys::default()
            },
            journal: Journal {
                key: "secret".into(),
                current: Some(entry("a", 0)),
                ..Journal::default()
            },
            policy: POLICY,
            status: RotationStatus {
                last_time: Some(Time(at(0))),
                ..RotationStatus::default()
            },
            asked: None,
            applied: true,
            free: true,
            looked: None,
            probe: None,
            seed: 0,
            now: at(1000),
        }
    }

    /// The new secret `b` was published at second 1000.
    fn settling() -> Self {
        let mut case = Self::idle();
        case.keys.next = Some(Candidate::Usable("b".into()));
        case.journal.next = Some(entry("b", 1000));
        case
    }

    /// The secret `b` took the place of `a` and the upstream confirmed it at second 2000.
    fn overlapping() -> Self {
        let mut case = Self::idle();
        case.keys.current = Some("b".into());
        case.keys.previous = true;
        case.journal.current = Some(entry("b", 1990));
        case.status.last_time = Some(Time(at(2000)));
        case.now = at(2001);
        case
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            key: "secret",
            keys: &self.keys,
            journal: &self.journal,
            policy: self.policy,
            status: Some(&self.status),
            handled: None,
            asked: self.asked,
            applied: self.applied,
            free: self.free,
            looked: self.looked,
            probe: self.probe,
            seed: self.seed,
            now: self.now,
        }
    }

    fn step(&self) -> Step {
        next_step(&self.situation())
    }
}

#[test]
fn a_secret_is_replaced_when_it_is_too_old_or_somebody_asks() {
    let mut case = Case::idle();
    assert_eq!(case.step(), Step::Rest(None));
    case.policy.interval = Some(Duration::from_secs(2000));
    assert_eq!(case.step(), Step::Rest(Some(at(2000))));
    case.now = at(2000);
    assert_eq!(case.step(), Step::Publish);
    // Not all that are of the same age at once, and none later than asked.
    for seed in [0, 1, 500, 999, 12_345] {
        case.seed = seed;
        case.now = at(1000);
        let Step::Rest(Some(due)) = case.step() else {
            panic!("it is not due yet")
        };
        assert!(
            due > at(1800) - Duration::from_secs(1) && due <= at(2000),
            "{due}"
        );
    }
    case = Case::idle();
    case.asked = Some("now");
    assert_eq!(case.step(), Step::Publish);
    let published = change(&case.situation(), Step::Publish, "b").unwrap();
    assert_eq!((published.current, published.next), (Put::Keep, Put::Fresh));
    assert_eq!(published.journal.next, Some(entry("b", 1000)));
    assert_eq!(published.journal.request.as_deref(), Some("now"));
    // Asked for once.
    case.journal.request = Some("now".into());
    assert_eq!(case.step(), Step::Rest(None));
    assert_eq!(case.situation().next_handled(), Some("now"));
    case.asked = Some("once more");
    assert_eq!(case.step(), Step::Publish);
    assert_eq!(case.situation().next_handled(), None);
}

#[test]
fn the_next_secret_settles_or_is_proven_before_the_upstream_gets_it() {
    let mut case = Case::settling();
    assert_eq!(case.step(), Step::Rest(Some(at(1120))));
    case.probe = Some(Probed::Failed);
    assert_eq!(case.step(), Step::Rest(Some(at(1120))));
    case.probe = Some(Probed::Passed);
    assert_eq!(case.step(), Step::Look);
    case.probe = Some(Probed::Failed);
    case.now = at(1120);
    assert_eq!(case.step(), Step::Look);
    case.looked = Some(at(1089));
    assert_eq!(case.step(), Step::Look, "what was seen is too old");
    case.looked = Some(at(1119));
    assert_eq!(case.step(), Step::Promote);
    let promoted = change(&case.situation(), Step::Promote, "").unwrap();
    assert_eq!(
        (promoted.current, promoted.next, promoted.previous),
        (Put::Next, Put::Remove, Put::Current)
    );
    assert_eq!(promoted.journal.current, Some(entry("b", 1120)));
    assert_eq!(promoted.journal.next, None);
    // A request meanwhile means this one.
    case.asked = Some("now");
    assert_eq!(case.step(), Step::Promote);
    assert_eq!(case.situation().next_handled(), Some("now"));
}

#[test]
fn nothing_moves_before_the_upstream_has_confirmed_or_while_it_must_not_be_written() {
    for mut case in [Case::settling(), Case::overlapping()] {
        case.asked = Some("now");
        case.now = at(100_000);
        case.looked = Some(case.now);
        case.applied = false;
        assert_eq!(case.step(), Step::Rest(None));
        // It has, and that is not recorded yet.
        case.applied = true;
        case.status.last_time = None;
        assert_eq!(case.step(), Step::Rest(None));
    }
    let mut case = Case::settling();
    case.now = at(100_000);
    case.free = false;
    assert_eq!(case.step(), Step::Rest(None));
    case = Case::idle();
    case.asked = Some("now");
    case.free = false;
    assert_eq!(case.step(), Step::Rest(None));
    // What only the Secret is written for does not wait.
    case = Case::overlapping();
    case.free = false;
    assert_eq!(case.step(), Step::Rest(Some(at(2600))));
    case.now = at(2600);
    assert_eq!(case.step(), Step::Expire);
}

#[test]
fn the_old_secret_stays_for_the_overlap_counted_from_the_confirmation() {
    let mut case = Case::overlapping();
    case.policy.interval = Some(Duration::from_secs(60));
    assert_eq!(case.step(), Step::Rest(Some(at(2600))), "one after the other");
    let told = next_status(&case.situation());
    assert_eq!(told.phase, RotationPhase::Overlapping);
    assert_eq!(told.last_time, Some(Time(at(2000))));
    assert_eq!(told.previous_expires, Some(Time(at(2600))));
    case.asked = Some("now");
    assert_eq!(case.step(), Step::Publish, "unless somebody asks");
    case.asked = None;
    case.now = at(2600);
    assert_eq!(case.step(), Step::Expire);
    let expired = change(&case.situation(), Step::Expire, "").unwrap();
    assert_eq!((expired.current, expired.previous), (Put::Keep, Put::Remove));
}

#[test]
fn the_status_tells_what_the_upstream_signs_with() {
    let mut case = Case::overlapping();
    case.status = RotationStatus {
        phase: RotationPhase::Settling,
        last_time: Some(Time(at(0))),
        previous_expires: None,
    };
    case.applied = false;
    assert_eq!(next_status(&case.situation()), case.status, "it does not have it");
    case.applied = true;
    let told = next_status(&case.situation());
    assert_eq!(told.phase, RotationPhase::Overlapping);
    assert_eq!(told.last_time, Some(Time(at(2001))));
    assert_eq!(told.previous_expires, Some(Time(at(2601))));
    // However short it is, a rotation is later than the one before.
    let mut quick = Case::settling();
    quick.status.last_time = Some(Time(at(1000)));
    let promoted = change(&quick.situation(), Step::Promote, "").unwrap();
    assert_eq!(promoted.journal.current, Some(entry("b", 1001)));
}

#[test]
fn what_somebody_puts_there_is_noted_and_settles_anew() {
    let mut case = Case::settling();
    case.now = at(5000);
    case.keys.next = Some(Candidate::Usable("c".into()));
    assert_eq!(case.step(), Step::Note);
    let noted = change(&case.situation(), Step::Note, "").unwrap();
    assert_eq!(noted.journal.current, Some(entry("a", 0)));
    assert_eq!(noted.journal.next, Some(entry("c", 5000)));
    case.keys.next = None;
    assert_eq!(case.step(), Step::Note);
    for unusable in [Candidate::Unusable, Candidate::Usable("a".into())] {
        case.keys.next = Some(unusable);
        assert_eq!(case.step(), Step::Withdraw);
    }
    let mut case = Case::idle();
    case.keys.current = Some("c".into());
    assert_eq!(case.step(), Step::Note);
    case.keys.current = None;
    assert_eq!(case.step(), Step::Make);
    let made = change(&case.situation(), Step::Make, "d").unwrap();
    assert_eq!((made.current, made.next), (Put::Fresh, Put::Keep));
    // Receivers know the next one.
    case.keys.next = Some(Candidate::Usable("b".into()));
    let made = change(&case.situation(), Step::Make, "d").unwrap();
    assert_eq!((made.current, made.next), (Put::Next, Put::Remove));
    assert_eq!(made.journal.current, Some(entry("b", 1000)));
}

#[test]
fn a_lost_spoiled_or_impossible_journal_begins_anew() {
    assert_eq!(Journal::from_text(None), Journal::default());
    assert_eq!(Journal::from_text(Some("spoiled")), Journal::default());
    let journal = Case::settling().journal;
    assert_eq!(Journal::from_text(Some(&journal.to_text())), journal);
    let mut case = Case::settling();
    case.journal = Journal::default();
    assert_eq!(case.step(), Step::Note);
    let noted = change(&case.situation(), Step::Note, "").unwrap();
    assert_eq!(noted.journal.current, Some(entry("a", 1000)));
    assert_eq!(noted.journal.next, Some(entry("b", 1000)));
    assert_eq!(noted.forget, None);
    case.journal = noted.journal;
    case.journal.next = Some(entry("b", 1_000_000));
    assert_eq!(case.step(), Step::Note, "nobody waits for that day");
    // A status from such a day does not count either.
    case = Case::idle();
    case.status.last_time = Some(Time(at(1_000_000)));
    assert_eq!(next_status(&case.situation()).last_time, Some(Time(at(1000))));
}

#[test]
fn another_key_is_another_secret_and_the_former_one_s_leftovers_go() {
    let mut case = Case::idle();
    case.journal.key = "former".into();
    case.applied = false;
    assert_eq!(
        case.step(),
        Step::Rest(None),
        "the upstream may still sign with one of them"
    );
    case.applied = true;
    assert_eq!(case.step(), Step::Note);
    let noted = change(&case.situation(), Step::Note, "").unwrap();
    assert_eq!(noted.forget.as_deref(), Some("former"));
    assert_eq!(noted.journal.key, "secret");
    assert_eq!(noted.journal.current, Some(entry("a", 1000)));
}

#[test]
fn a_receiver_has_shown_it_when_it_took_several_in_a_row() {
    let mut proof = Proof::default();
    assert_eq!(proof.probed(), None);
    let (first, second) = (Duration::ZERO, Duration::from_secs(100));
    assert_eq!(
        (proof.pause(first).as_secs(), proof.pause(second).as_secs()),
        (3, 5)
    );
    assert_eq!(proof.pause(Duration::from_secs(86_400)).as_secs(), 300);
    proof.note(TestedReason::SignatureRejected);
    assert_eq!(proof.probed(), Some(Probed::Failed));
    assert_eq!(proof.failure(), Some(TestedReason::SignatureRejected));
    // One replica has it, the next one not yet.
    for _ in 1..PROOFS {
        proof.note(TestedReason::Passed);
        assert_eq!((proof.probed(), proof.failure()), (None, None));
        assert_eq!(proof.pause(Duration::from_secs(86_400)).as_secs(), 3);
    }
    proof.note(TestedReason::SignatureRejected);
    for _ in 1..PROOFS {
        proof.note(TestedReason::Passed);
    }
    assert_eq!(proof.probed(), None);
    proof.note(TestedReason::Passed);
    assert_eq!(proof.probed(), Some(Probed::Passed));
}
