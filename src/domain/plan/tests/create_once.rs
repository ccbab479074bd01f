//! One registration for one Webhook: looking, marks, adoption, hints, absence.

use super::*;

#[test]
fn an_upstream_that_makes_ids_is_looked_at_before_anything_is_created() {
    assert_eq!(fresh_thulium().says(), "list");
    assert_eq!(fresh_thulium().lists([elsewhere("1")]).says(), "create");
}

#[test]
fn hidden_registrations_are_listed_when_one_of_ours_may_be_among_them() {
    let fresh = || Case::new(&ricloud::CAPABILITIES);
    assert_eq!(fresh().says(), "list");
    assert_eq!(
        Case {
            want: Desired {
                active: false,
                ..want()
            },
            ..fresh()
        }
        .says(),
        "list with inactive"
    );
    let recorded = Recorded {
        may_have_written: true,
        ..Recorded::default()
    };
    assert_eq!(
        Case {
            recorded: recorded.clone(),
            ..fresh()
        }
        .says(),
        "list with inactive"
    );
    let recorded = Recorded {
        mark: Some(mark(&want(), 0)),
        ..recorded
    };
    assert_eq!(Case { recorded, ..fresh() }.says(), "list with inactive");
    let recorded = Recorded {
        id: Some((RemoteId("5".into()), Trust::Hint)),
        ..Recorded::default()
    };
    assert_eq!(Case { recorded, ..fresh() }.says(), "list with inactive");
}

#[test]
fn one_that_matches_is_adopted_unless_the_policy_says_never() {
    for (adoption, says) in [
        (AdoptionPolicy::IfMatching, "adopt 3 adopted"),
        (AdoptionPolicy::Always, "adopt 3 adopted"),
        (AdoptionPolicy::Never, "conflict NeverAdopt"),
    ] {
        assert_eq!(
            Case {
                adoption,
                ..fresh_thulium()
            }
            .lists([elsewhere("1"), same("3")])
            .says(),
            says
        );
    }
}

#[test]
fn another_set_of_events_is_another_registration() {
    let other = Remote {
        events: Some(BTreeSet::from(["B".to_owned()])),
        ..same("3")
    };
    assert_eq!(fresh_thulium().lists([other]).says(), "create");
}

#[test]
fn of_several_the_lowest_number_is_taken_and_the_rest_is_told_once_each() {
    let case = fresh_thulium().lists([same("10"), same("9"), same("100"), same("9"), same("10")]);
    let Step::Adopt { remote, rest, .. } = case.next() else {
        panic!("{}", case.says())
    };
    assert_eq!(remote.id.0, "9");
    assert_eq!(rest, [RemoteId("10".into()), RemoteId("100".into())]);
}

#[test]
fn at_ricloud_valid_goes_before_new_and_the_older_before_the_younger() {
    let config = |id, state, created| Remote {
        state: Some(state),
        created: Some(at(created)),
        ..there(id)
    };
    let new = config("a", State::New, 1);
    let invalid = config("b", State::Invalid, 0);
    let valid = config("c", State::Valid, 9);
    let older = config("d", State::Valid, 8);
    let case = |all: &[&Remote]| {
        Case::new(&ricloud::CAPABILITIES)
            .lists(all.iter().map(|it| (*it).clone()))
            .says()
    };
    assert_eq!(case(&[&new, &invalid, &valid, &older]), "adopt d adopted");
    assert_eq!(case(&[&new, &invalid, &valid]), "adopt c adopted");
    assert_eq!(case(&[&new, &invalid]), "adopt a adopted");
}

#[test]
fn what_another_webhook_holds_is_never_taken() {
    let case = Case {
        held: vec!["3"],
        adoption: AdoptionPolicy::Always,
        ..fresh_thulium()
    };
    assert_eq!(case.lists([same("3")]).says(), "conflict HeldByOthers");
    let case = Case {
        held: vec!["3"],
        ..fresh_thulium()
    };
    assert_eq!(case.lists([same("3"), same("4")]).says(), "adopt 4 adopted");
}

// Marks.

#[test]
fn a_mark_takes_the_marked_content_whatever_the_adoption_policy_and_the_spec_say_now() {
    let posted = thulium().want;
    for adoption in [
        AdoptionPolicy::Never,
        AdoptionPolicy::IfMatching,
        AdoptionPolicy::Always,
    ] {
        let case = Case {
            adoption,
            ..marked(mark(&posted, -5))
        };
        let edited = Case {
            want: Desired {
                url: "https://new.example/".into(),
                ..posted.clone()
            },
            ..case
        };
        assert_eq!(edited.says(), "list with inactive");
        assert_eq!(
            edited.lists([elsewhere("1"), same("7")]).says(),
            "adopt 7 created"
        );
    }
}

#[test]
fn a_young_mark_without_its_content_is_looked_at_again_and_an_old_one_is_posted_again() {
    let posted = thulium().want;
    assert_eq!(marked(mark(&posted, -20)).lists([]).says(), "wait 30");
    assert_eq!(marked(mark(&posted, -50)).lists([]).says(), "create");
}

#[test]
fn a_mark_of_a_clock_that_goes_ahead_is_waited_for_and_one_of_the_far_future_is_not() {
    let posted = thulium().want;
    assert_eq!(marked(mark(&posted, 3600)).lists([]).says(), "wait 50");
    assert_eq!(marked(mark(&posted, 86_400)).lists([]).says(), "create");
}

#[test]
fn a_spoiled_mark_makes_it_look_and_then_look_by_content() {
    assert_eq!(marked(Mark::unknown()).says(), "list with inactive");
    assert_eq!(
        marked(Mark::unknown()).lists([same("3")]).says(),
        "adopt 3 adopted"
    );
    assert_eq!(marked(Mark::unknown()).lists([]).says(), "create");
}

#[test]
fn a_mark_made_with_a_lost_key_still_finds_the_content_of_the_spec_even_with_policy_never() {
    let lost = Mark {
        hash: HashKey::new([9; 32]).content(&url(), &thulium().want.events),
        ..mark(&want(), -60)
    };
    let case = Case {
        adoption: AdoptionPolicy::Never,
        ..marked(lost)
    };
    assert_eq!(case.lists([same("3")]).says(), "adopt 3 adopted");
}

#[test]
fn a_spoiled_mark_beside_a_recorded_id_makes_no_second_one_when_the_url_was_edited() {
    let recorded = Recorded {
        mark: Some(Mark::unknown()),
        ..owns("5")
    };
    let edited = Desired {
        url: "https://new.example/".into(),
        ..thulium().want
    };
    let case = Case {
        recorded,
        want: edited,
        applied: Applied::Changed,
        ..thulium()
    };
    assert_eq!(case.lists([same("5")]).says(), "adopt 5 created");
}

#[test]
fn a_create_after_a_loss_that_had_no_effect_is_made_again() {
    let recorded = Recorded {
        mark: Some(mark(&thulium().want, -60)),
        ..owns("5")
    };
    assert_eq!(
        Case {
            recorded,
            ..thulium()
        }
        .lists([elsewhere("1")])
        .says(),
        "create"
    );
}

#[test]
fn marked_content_that_another_webhook_holds_is_not_taken() {
    let case = Case {
        held: vec!["7"],
        ..marked(mark(&thulium().want, -60))
    };
    assert_eq!(case.lists([same("7")]).says(), "conflict HeldByOthers");
}

// Hints and trust.

#[test]
fn a_hint_goes_first_among_what_matches_and_counts_for_nothing_else() {
    let hint = Recorded {
        id: Some((RemoteId("9".into()), Trust::Hint)),
        ..Recorded::default()
    };
    let case = || Case {
        recorded: hint.clone(),
        ..fresh_thulium()
    };
    assert_eq!(case().says(), "list with inactive");
    let matching = case().lists([same("3"), same("9")]);
    let Step::Adopt { remote, rest, .. } = matching.next() else {
        panic!("{}", matching.says())
    };
    assert_eq!((remote.id.0.as_str(), rest), ("9", vec![RemoteId("3".into())]));
    assert_eq!(
        case().lists([same("3"), elsewhere("9")]).says(),
        "adopt 3 adopted"
    );
    assert_eq!(case().lists([elsewhere("9")]).says(), "create");
    assert_eq!(
        Case {
            held: vec!["9"],
            ..case()
        }
        .lists([same("9"), same("3")])
        .says(),
        "adopt 3 adopted"
    );
}

#[test]
fn annotations_and_status_wiped_it_finds_its_own_again_even_with_policy_never() {
    let recorded = Recorded {
        may_have_written: true,
        ..Recorded::default()
    };
    let case = Case {
        recorded,
        adoption: AdoptionPolicy::Never,
        ..fresh_thulium()
    };
    assert_eq!(case.lists([same("5")]).says(), "adopt 5 adopted");
}

#[test]
fn policy_never_does_not_take_a_foreign_one_for_an_own_one_that_is_gone() {
    let case = Case {
        adoption: AdoptionPolicy::Never,
        absent_since: Some(Duration::from_secs(5)),
        ..thulium()
    };
    assert_eq!(case.absent().lists([same("6")]).says(), "conflict NeverAdopt");
}

// Read back.

#[test]
fn a_settled_registration_is_done() {
    assert_eq!(thulium().says(), "look 5");
    assert_eq!(thulium().reads(same("5")).says(), "done []");
}

#[test]
fn what_is_gone_is_registered_again_when_another_known_one_is_still_listed() {
    assert_eq!(thulium().absent().says(), "list with inactive");
    assert_eq!(
        Case {
            held: vec!["8"],
            ..thulium()
        }
        .absent()
        .lists([elsewhere("8")])
        .says(),
        "create"
    );
}

#[test]
fn a_list_that_lacks_every_known_id_is_believed_only_when_a_second_one_agrees_five_seconds_later() {
    let case = |since: Option<u64>| {
        Case {
            absent_since: since.map(Duration::from_secs),
            ..thulium()
        }
        .absent()
        .lists([elsewhere("1")])
        .says()
    };
    assert_eq!(case(None), "look again in 5");
    assert_eq!(case(Some(2)), "look again in 3");
    assert_eq!(case(Some(5)), "create");
}

#[test]
fn a_list_may_lag_behind_a_create_for_a_minute() {
    let case = |wrote| {
        let case = Case {
            wrote: Some(Duration::from_secs(wrote)),
            held: vec!["8"],
            ..thulium()
        };
        case.absent().lists([elsewhere("8")]).says()
    };
    assert_eq!(case(10), "look again in 5");
    assert_eq!(case(58), "look again in 2");
    assert_eq!(case(60), "create");
}
