//! Tests of the last step of a Webhook's life: what is removed, and what never is.

use super::*;
use crate::{
    api::webhook_status::State,
    domain::recorded::{Mark, Origin, Trust},
    provider::{autocosmos, conpeek, ricloud, thulium},
};

const GRACE: Duration = Duration::from_secs(50);

fn key() -> HashKey {
    HashKey::new([7; 32])
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id(text: &str) -> RemoteId {
    RemoteId(text.to_owned())
}

/// A deletion with owned parts; each test changes what it is about.
struct Case {
    can: &'static Capabilities,
    recorded: Recorded,
    url: &'static str,
    policy: DeletionPolicy,
    suspended: bool,
    held: Vec<&'static str>,
    all: Option<Arc<Vec<Remote>>>,
}

impl Case {
    /// It wrote, and nothing else is known.
    fn wiped(can: &'static Capabilities) -> Self {
        Self {
            can,
            recorded: Recorded {
                may_have_written: true,
                ..Recorded::default()
            },
            url: "https://a.example/x",
            policy: DeletionPolicy::Delete,
            suspended: false,
            held: Vec::new(),
            all: None,
        }
    }

    fn owns(can: &'static Capabilities, text: &str) -> Self {
        let case = Self::wiped(can);
        let recorded = Recorded {
            id: Some((id(text), Trust::Proven(Origin::Created))),
            ..case.recorded
        };
        Self { recorded, ..case }
    }

    fn marked(self, mark: Mark) -> Self {
        Self {
            recorded: Recorded {
                mark: Some(mark),
                ..self.recorded
            },
            ..self
        }
    }

    fn lists<const N: usize>(self, all: [Remote; N]) -> Self {
        Self {
            all: Some(Arc::new(all.into())),
            ..self
        }
    }

    fn with<R>(&self, ask: impl FnOnce(&Retirement<'_>) -> R) -> R {
        let (key, events) = (key(), BTreeSet::new());
        let held = |id: &RemoteId| self.held.contains(&id.0.as_str());
        ask(&Retirement {
            capabilities: self.can,
            recorded: &self.recorded,
            target: (self.can.identity == Identity::ByTarget).then_some("9"),
            url: self.url,
            events: &events,
            policy: self.policy,
            suspended: self.suspended,
            key: &key,
            held_by_others: &held,
            all: self.all.as_ref(),
        })
    }

    fn ends(&self) -> Farewell {
        self.with(farewell)
    }

    fn waits(&self) -> Option<u64> {
        self.with(|it| wait_for_create(it, at(0), GRACE))
            .map(|time| time.as_secs())
    }
}

fn mark(seconds: i64) -> Mark {
    let hash = key().content("https://a.example/x", &BTreeSet::new());
    Mark {
        hash,
        time: at(seconds),
        replaces: None,
        retire: None,
        made_of: None,
    }
}

fn there(text: &str) -> Remote {
    Remote::new(text, "https://a.example/x")
}

fn elsewhere(text: &str) -> Remote {
    Remote::new(text, "https://other.example/")
}

fn remove(ids: &[&str]) -> Farewell {
    Farewell::Remove(ids.iter().map(|text| id(text)).collect())
}

const LIST: Farewell = Farewell::Look(Look::All { inactive: true });

#[test]
fn who_never_wrote_removes_nothing() {
    for can in [
        &thulium::CAPABILITIES,
        &ricloud::CAPABILITIES,
        &conpeek::CAPABILITIES,
        &autocosmos::CAPABILITIES,
    ] {
        let case = Case::owns(can, "5").marked(mark(0));
        let recorded = Recorded {
            may_have_written: false,
            ..case.recorded
        };
        assert_eq!(
            Case {
                recorded,
                ..Case::wiped(can)
            }
            .lists([there("5")])
            .ends(),
            Farewell::Nothing
        );
    }
}

#[test]
fn a_recorded_registration_is_removed_without_a_list() {
    assert_eq!(Case::owns(&thulium::CAPABILITIES, "5").ends(), remove(&["5"]));
    assert_eq!(Case::owns(&conpeek::CAPABILITIES, "9").ends(), remove(&["9"]));
    // The finalizer stands only where the target was claimed.
    assert_eq!(Case::wiped(&autocosmos::CAPABILITIES).ends(), remove(&["9"]));
}

#[test]
fn deactivate_switches_off_where_that_can_be_done() {
    let case = |can, text| {
        Case {
            policy: DeletionPolicy::Deactivate,
            ..Case::owns(can, text)
        }
        .ends()
    };
    assert_eq!(case(&ricloud::CAPABILITIES, "5"), Farewell::SwitchOff(id("5")));
    assert_eq!(case(&autocosmos::CAPABILITIES, "9"), Farewell::SwitchOff(id("9")));
}

#[test]
fn deactivate_keeps_the_registration_even_when_an_older_one_is_recorded_that_is_gone() {
    let case = Case {
        policy: DeletionPolicy::Deactivate,
        ..Case::owns(&ricloud::CAPABILITIES, "5")
    };
    assert_eq!(
        case.marked(mark(-60)).lists([there("6")]).ends(),
        Farewell::SwitchOff(id("6"))
    );
}

#[test]
fn orphan_and_suspended_leave_it_untouched() {
    for can in [&thulium::CAPABILITIES, &ricloud::CAPABILITIES] {
        let orphan = Case {
            policy: DeletionPolicy::Orphan,
            ..Case::owns(can, "5")
        };
        assert_eq!(orphan.ends(), Farewell::Leave(Some(id("5"))));
        let suspended = Case {
            suspended: true,
            ..Case::owns(can, "5")
        };
        assert_eq!(suspended.ends(), Farewell::Leave(Some(id("5"))));
        assert_eq!(
            Case {
                suspended: true,
                ..Case::wiped(can)
            }
            .ends(),
            Farewell::Leave(None)
        );
        assert_eq!(
            Case {
                suspended: true,
                ..Case::wiped(can)
            }
            .marked(mark(0))
            .waits(),
            None
        );
    }
}

#[test]
fn a_create_with_unknown_outcome_is_looked_for_and_what_it_made_is_removed() {
    let case = || Case::wiped(&thulium::CAPABILITIES).marked(mark(-60));
    assert_eq!(case().ends(), LIST);
    assert_eq!(case().lists([elsewhere("1"), there("7")]).ends(), remove(&["7"]));
    assert_eq!(case().lists([elsewhere("1")]).ends(), Farewell::Nothing);
    // The spec was edited after the POST.
    let edited = Case {
        url: "https://new.example/",
        ..case()
    };
    assert_eq!(edited.lists([there("7")]).ends(), remove(&["7"]));
}

#[test]
fn one_create_made_one_registration_and_others_of_its_content_stay() {
    let case =
        Case::wiped(&thulium::CAPABILITIES)
            .marked(mark(-60))
            .lists([there("10"), there("9"), there("11")]);
    assert_eq!(case.ends(), remove(&["9"]));
}

#[test]
fn a_create_that_may_still_take_effect_is_waited_for() {
    let case = |seconds| Case::wiped(&thulium::CAPABILITIES).marked(mark(seconds));
    assert_eq!(case(-20).lists([elsewhere("1")]).waits(), Some(30));
    assert_eq!(case(-20).lists([there("7")]).waits(), None);
    assert_eq!(case(-50).lists([]).waits(), None);
    assert_eq!(case(86_400).lists([]).waits(), None);
    assert_eq!(Case::owns(&thulium::CAPABILITIES, "5").lists([]).waits(), None);
    let retiring = Mark {
        retire: Some(id("4")),
        ..mark(0)
    };
    assert_eq!(
        Case::owns(&thulium::CAPABILITIES, "5")
            .marked(retiring)
            .lists([])
            .waits(),
        None
    );
}

#[test]
fn an_interrupted_replacement_removes_both() {
    let replacing = Mark {
        replaces: Some(id("5")),
        ..mark(-5)
    };
    let case = || Case::owns(&thulium::CAPABILITIES, "5").marked(replacing.clone());
    assert_eq!(
        case().lists([elsewhere("5"), there("6")]).ends(),
        remove(&["5", "6"])
    );
    // Old and new look alike when only a password changed.
    assert_eq!(case().lists([there("5"), there("6")]).ends(), remove(&["5", "6"]));
    let retiring = Mark {
        retire: Some(id("5")),
        hash: String::new(),
        ..mark(-5)
    };
    let case = Case::owns(&thulium::CAPABILITIES, "6").marked(retiring);
    assert_eq!(
        case.lists([elsewhere("5"), there("6"), there("7")]).ends(),
        remove(&["6", "5"])
    );
}

#[test]
fn everything_wiped_it_finds_its_own_by_content_lowest_number_first() {
    let case = || Case::wiped(&thulium::CAPABILITIES);
    assert_eq!(case().ends(), LIST);
    assert_eq!(
        case().lists([there("10"), there("9"), elsewhere("1")]).ends(),
        remove(&["9"])
    );
    assert_eq!(case().lists([elsewhere("1")]).ends(), Farewell::Nothing);
    // A spoiled mark tells no more than none.
    let spoiled = case().marked(Mark::unknown());
    assert_eq!(spoiled.lists([there("10"), there("9")]).ends(), remove(&["9"]));
}

#[test]
fn a_hint_goes_first_only_among_what_has_the_content() {
    let hinted = |text: &str| {
        let case = Case::wiped(&thulium::CAPABILITIES);
        Case {
            recorded: Recorded {
                id: Some((id(text), Trust::Hint)),
                ..case.recorded
            },
            ..case
        }
    };
    assert_eq!(
        hinted("10").lists([there("10"), there("9")]).ends(),
        remove(&["10"])
    );
    assert_eq!(
        hinted("1").lists([elsewhere("1"), there("9")]).ends(),
        remove(&["9"])
    );
    assert_eq!(hinted("1").lists([elsewhere("1")]).ends(), Farewell::Nothing);
}

#[test]
fn what_another_webhook_holds_is_never_removed() {
    let wiped = Case {
        held: vec!["9"],
        ..Case::wiped(&thulium::CAPABILITIES)
    };
    assert_eq!(wiped.lists([there("9"), there("10")]).ends(), remove(&["10"]));
    let marked = Case {
        held: vec!["7"],
        ..Case::wiped(&thulium::CAPABILITIES)
    }
    .marked(mark(-60));
    assert_eq!(marked.lists([there("7")]).ends(), Farewell::Nothing);
    let edited = Mark {
        retire: Some(id("8")),
        replaces: Some(id("8")),
        ..mark(-60)
    };
    let edited = Case {
        held: vec!["8"],
        ..Case::owns(&thulium::CAPABILITIES, "5")
    }
    .marked(edited);
    assert_eq!(
        edited.lists([elsewhere("5"), elsewhere("8")]).ends(),
        remove(&["5"])
    );
    for can in [&conpeek::CAPABILITIES, &autocosmos::CAPABILITIES] {
        // Its record was wiped, and another Webhook took the target over.
        assert_eq!(
            Case {
                held: vec!["9"],
                ..Case::wiped(can)
            }
            .ends(),
            Farewell::Nothing
        );
    }
}

#[test]
fn a_switched_off_registration_is_removed_as_well() {
    let hidden = Remote {
        state: Some(State::Deactivated),
        ..there("5")
    };
    assert_eq!(
        Case::wiped(&ricloud::CAPABILITIES).lists([hidden]).ends(),
        remove(&["5"])
    );
}
