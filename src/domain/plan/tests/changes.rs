//! A registration that is there: changes, drift, switches, targets, replacement.

use super::*;

#[test]
fn drift_is_corrected_or_reported_and_a_changed_spec_is_applied_under_either_policy() {
    let drifted = || Remote {
        events: Some(BTreeSet::from(["B".to_owned()])),
        ..same("5")
    };
    let case = |drift, applied| {
        Case {
            drift,
            applied,
            ..thulium()
        }
        .reads(drifted())
        .says()
    };
    assert_eq!(
        case(DriftPolicy::Correct, Applied::Same),
        "update 5 Drift [events]"
    );
    assert_eq!(case(DriftPolicy::Report, Applied::Same), "done [events]");
    assert_eq!(
        case(DriftPolicy::Report, Applied::Changed),
        "update 5 Spec [events]"
    );
    assert_eq!(
        case(DriftPolicy::Report, Applied::OtherKey),
        "update 5 Rewrite [events]"
    );
}

#[test]
fn with_the_hash_key_lost_only_what_cannot_be_compared_is_written_again() {
    let auth = BasicAuth {
        username: "u".into(),
        password: "p".into(),
    };
    let case = Case {
        applied: Applied::OtherKey,
        ..thulium()
    };
    assert_eq!(case.reads(same("5")).says(), "done []");
    let want = Desired {
        basic_auth: Some(auth),
        ..thulium().want
    };
    let case = Case {
        applied: Applied::OtherKey,
        want,
        ..thulium()
    };
    let shown = Remote {
        basic_auth_user: Some("u".into()),
        ..same("5")
    };
    assert_eq!(case.reads(shown).says(), "update 5 Rewrite []");
}

#[test]
fn a_changed_password_is_written_and_a_change_made_by_hand_is_not_written_again() {
    let auth = BasicAuth {
        username: "u".into(),
        password: "p".into(),
    };
    let with = Case {
        want: Desired {
            basic_auth: Some(auth),
            ..thulium().want
        },
        applied: Applied::Changed,
        ..thulium()
    };
    let shown = Remote {
        basic_auth_user: Some("u".into()),
        ..same("5")
    };
    assert_eq!(with.reads(shown).says(), "update 5 Spec []");
    assert_eq!(
        Case {
            applied: Applied::Changed,
            ..thulium()
        }
        .reads(same("5"))
        .says(),
        "done []"
    );
}

#[test]
fn a_changed_header_is_written_where_the_upstream_did_not_show_its_headers() {
    let case = || Case {
        applied: Applied::Changed,
        ..Case::settled(&conpeek::CAPABILITIES)
    };
    let headers = vec![Header {
        name: "X-A".into(),
        value: "1".into(),
    }];
    let with = Case {
        want: Desired {
            headers: headers.clone(),
            ..case().want
        },
        ..case()
    };
    assert_eq!(with.reads(there("9")).says(), "update 9 Spec []");
    // The removal of one as well.
    assert_eq!(case().reads(there("9")).says(), "update 9 Spec []");
    let shown = Remote {
        headers: Some(Vec::new()),
        retry: Some(Retry::default()),
        ..there("9")
    };
    assert_eq!(case().reads(shown).says(), "done []");
}

#[test]
fn a_secret_that_may_still_be_there_is_written_away() {
    let case = Case {
        applied: Applied::Changed,
        ..Case::settled(&autocosmos::CAPABILITIES)
    };
    let shown = Remote {
        headers: Some(Vec::new()),
        description: Some(String::new()),
        ..there("9")
    };
    assert_eq!(case.reads(shown).says(), "update 9 Spec []");
}

#[test]
fn what_cannot_be_read_is_written_again() {
    let blind = |applied| {
        let sight = Sight {
            by_id: Some(ById::CannotKnow),
            all: None,
        };
        Case {
            applied,
            sight,
            ..Case::settled(&conpeek::CAPABILITIES)
        }
        .says()
    };
    assert_eq!(blind(Applied::Same), "update 9 Rewrite []");
    assert_eq!(blind(Applied::Changed), "update 9 Spec []");
}

// Switched off.

#[test]
fn who_switched_it_off_is_told_apart() {
    let ricloud = || Case::settled(&ricloud::CAPABILITIES);
    assert_eq!(ricloud().reads(off(there("5"))).says(), "done [] off by Upstream");
    let reactivate = Case {
        on_deactivation: OnUpstreamDeactivation::Reactivate,
        ..ricloud()
    };
    assert_eq!(
        reactivate.reads(off(there("5"))).says(),
        "update 5 Reactivate [active]"
    );
    let by_spec = Case {
        want: Desired {
            active: false,
            ..want()
        },
        ..ricloud()
    };
    assert_eq!(by_spec.reads(off(there("5"))).says(), "done [] off by Spec");
    let lost_key = Case {
        applied: Applied::OtherKey,
        ..ricloud()
    };
    assert_eq!(lost_key.reads(off(there("5"))).says(), "done [] off by Upstream");
}

#[test]
fn switched_off_by_the_spec_and_wanted_on_again_it_is_switched_on() {
    let on_again = Case {
        deactivated_by: Some(DeactivatedBy::Spec),
        ..Case::settled(&ricloud::CAPABILITIES)
    };
    assert_eq!(on_again.reads(off(there("5"))).says(), "update 5 Drift [active]");
    let changed = Case {
        applied: Applied::Changed,
        ..Case::settled(&ricloud::CAPABILITIES)
    };
    assert_eq!(changed.reads(off(there("5"))).says(), "update 5 Spec [active]");
}

#[test]
fn somebody_who_switched_on_what_shall_be_off_is_drift() {
    let case = || Case {
        want: Desired {
            active: false,
            ..want()
        },
        ..Case::settled(&ricloud::CAPABILITIES)
    };
    assert_eq!(case().reads(there("5")).says(), "update 5 Drift [active]");
    assert_eq!(
        Case {
            drift: DriftPolicy::Report,
            ..case()
        }
        .reads(there("5"))
        .says(),
        "done [active]"
    );
}

#[test]
fn what_keeps_failing_is_switched_off_and_that_is_nobody_elses_doing() {
    let tripped = |deactivated_by, drift| Case {
        want: Desired {
            active: false,
            ..want()
        },
        tripped: true,
        deactivated_by,
        drift,
        ..Case::settled(&ricloud::CAPABILITIES)
    };
    let by_tests = Some(DeactivatedBy::TestFailure);
    for drift in [DriftPolicy::Correct, DriftPolicy::Report] {
        // Not recorded yet: to be done, or done right before a death.
        let case = || tripped(None, drift);
        assert_eq!(case().reads(there("5")).says(), "update 5 TestFailure [active]");
        let case = || tripped(None, drift);
        assert_eq!(case().reads(off(there("5"))).says(), "done [] off by TestFailure");
        let case = || tripped(by_tests, drift);
        assert_eq!(case().reads(off(there("5"))).says(), "done [] off by TestFailure");
    }
    // Somebody switched it on again: as any other change.
    let case = |drift| tripped(by_tests, drift).reads(there("5")).says();
    assert_eq!(case(DriftPolicy::Correct), "update 5 Drift [active]");
    assert_eq!(case(DriftPolicy::Report), "done [active]");
    // Off or not, the rest is kept in step.
    assert_eq!(
        tripped(by_tests, DriftPolicy::Correct)
            .reads(off(elsewhere("5")))
            .says(),
        "update 5 Drift [url]"
    );
}

#[test]
fn only_what_was_switched_off_for_its_tests_is_switched_on_for_them() {
    let case = |deactivated_by, on_deactivation| {
        Case {
            deactivated_by,
            on_deactivation,
            ..Case::settled(&ricloud::CAPABILITIES)
        }
        .reads(off(there("5")))
        .says()
    };
    use OnUpstreamDeactivation::{Reactivate, Report};
    for policy in [Report, Reactivate] {
        assert_eq!(
            case(Some(DeactivatedBy::TestFailure), policy),
            "update 5 TryAgain [active]"
        );
    }
    for by in [None, Some(DeactivatedBy::Upstream)] {
        assert_eq!(case(by, Report), "done [] off by Upstream");
        assert_eq!(case(by, Reactivate), "update 5 Reactivate [active]");
    }
}

#[test]
fn what_was_taken_over_switched_off_is_switched_on_whatever_the_policy() {
    for on_deactivation in [OnUpstreamDeactivation::Report, OnUpstreamDeactivation::Reactivate] {
        for applied in [Applied::Same, Applied::OtherKey] {
            let case = Case {
                took_another: true,
                on_deactivation,
                applied,
                ..Case::settled(&ricloud::CAPABILITIES)
            };
            assert_eq!(case.reads(off(there("5"))).says(), "update 5 Spec [active]");
        }
    }
}

#[test]
fn what_was_made_anew_is_finished_even_where_differences_are_only_reported() {
    for drift in [DriftPolicy::Report, DriftPolicy::Correct] {
        let case = Case {
            took_another: true,
            drift,
            want: Desired {
                active: false,
                ..want()
            },
            ..Case::settled(&ricloud::CAPABILITIES)
        };
        assert_eq!(case.reads(there("5")).says(), "update 5 Spec [active]");
    }
}

#[test]
fn a_secret_that_may_have_been_left_is_written_away_on_adoption() {
    let taken = |can| Case {
        applied: Applied::Never,
        ..Case::settled(can)
    };
    let case = taken(&autocosmos::CAPABILITIES).reads(there("5"));
    assert_eq!(case.says(), "update 5 Spec []");
    let case = taken(&ricloud::CAPABILITIES).reads(there("5"));
    assert_eq!(case.says(), "done []", "its secret is its own");
}

// Keyed by target.

#[test]
fn a_foreign_configuration_of_the_target_is_a_conflict_unless_it_is_free_or_the_policy_is_always() {
    let case = |adoption, remote| {
        Case {
            adoption,
            ..Case::new(&autocosmos::CAPABILITIES)
        }
        .reads(remote)
        .says()
    };
    use AdoptionPolicy::{Always, IfMatching, Never};
    assert_eq!(case(IfMatching, elsewhere("9")), "conflict ForeignUrl");
    assert_eq!(case(Never, elsewhere("9")), "conflict ForeignUrl");
    assert_eq!(case(Always, elsewhere("9")), "adopt 9 created");
    assert_eq!(case(Never, there("9")), "conflict NeverAdopt");
    assert_eq!(case(IfMatching, there("9")), "adopt 9 adopted");
    for adoption in [Never, IfMatching, Always] {
        assert_eq!(case(adoption, Remote::new("9", "")), "adopt 9 created");
        assert_eq!(case(adoption, off(elsewhere("9"))), "adopt 9 created");
        let released = BTreeSet::from(["https://OTHER.example/".to_owned()]);
        let gone = Case {
            adoption,
            released,
            ..Case::new(&conpeek::CAPABILITIES)
        };
        assert_eq!(gone.reads(elsewhere("9")).says(), "adopt 9 created");
    }
}

#[test]
fn a_target_whose_record_was_wiped_is_still_ours_unless_another_webhook_took_it() {
    let recorded = Recorded {
        may_have_written: true,
        ..Recorded::default()
    };
    let case = || Case {
        recorded: recorded.clone(),
        adoption: AdoptionPolicy::Never,
        ..Case::new(&conpeek::CAPABILITIES)
    };
    assert_eq!(case().reads(elsewhere("9")).says(), "adopt 9 created");
    assert_eq!(
        Case {
            held: vec!["9"],
            ..case()
        }
        .reads(elsewhere("9"))
        .says(),
        "conflict ForeignUrl"
    );
}

#[test]
fn a_target_without_a_configuration_or_that_cannot_be_read_is_written() {
    let case = || Case::new(&conpeek::CAPABILITIES);
    assert_eq!(case().says(), "look 9");
    assert_eq!(case().absent().says(), "create");
    let blind = Case {
        sight: Sight {
            by_id: Some(ById::CannotKnow),
            all: None,
        },
        ..case()
    };
    assert_eq!(blind.says(), "create");
    // Gone is registered again at once: a second PUT does no harm.
    assert_eq!(Case::settled(&conpeek::CAPABILITIES).absent().says(), "create");
}

#[test]
fn an_id_of_another_target_does_not_count() {
    let case = Case {
        recorded: Recorded {
            may_have_written: false,
            ..owns("8")
        },
        ..Case::new(&conpeek::CAPABILITIES)
    };
    assert_eq!(case.reads(elsewhere("9")).says(), "conflict ForeignUrl");
}

// Replacement.

#[test]
fn without_put_it_is_replaced_new_one_first() {
    let edited = Desired {
        url: "https://new.example/".into(),
        ..thulium().want
    };
    let new = Remote {
        url: edited.url.clone(),
        ..same("6")
    };
    let case = || Case {
        want: edited.clone(),
        applied: Applied::Changed,
        replace: true,
        ..thulium()
    };
    assert_eq!(case().reads(same("5")).says(), "list with inactive");
    assert_eq!(case().lists([same("5")]).says(), "create for 5");
    let pending = Mark {
        replaces: Some(RemoteId("5".into())),
        ..mark(&edited, -5)
    };
    let replacing = || Case {
        recorded: Recorded {
            mark: Some(pending.clone()),
            ..owns("5")
        },
        ..case()
    };
    assert_eq!(replacing().lists([same("5")]).says(), "wait 45");
    assert_eq!(
        replacing().lists([same("5"), new.clone()]).says(),
        "adopt 6 created for 5"
    );
    let retiring = Mark {
        retire: Some(RemoteId("5".into())),
        replaces: None,
        ..pending.clone()
    };
    assert_eq!(
        Case {
            recorded: Recorded {
                mark: Some(retiring),
                ..owns("6")
            },
            ..case()
        }
        .says(),
        "retire 5"
    );
    // The POST had no effect.
    let old = Mark {
        time: at(-60),
        ..pending.clone()
    };
    assert_eq!(
        Case {
            recorded: Recorded {
                mark: Some(old),
                ..owns("5")
            },
            ..case()
        }
        .lists([same("5")])
        .says(),
        "create for 5"
    );
}

#[test]
fn a_replacement_with_equal_content_is_not_taken_for_the_old_one() {
    // Only the password changed, so old and new look alike.
    let auth = BasicAuth {
        username: "u".into(),
        password: "p".into(),
    };
    let want = Desired {
        basic_auth: Some(auth),
        ..thulium().want
    };
    let shown = |id| Remote {
        basic_auth_user: Some("u".into()),
        ..same(id)
    };
    let case = || Case {
        want: want.clone(),
        applied: Applied::Changed,
        replace: true,
        ..thulium()
    };
    assert_eq!(case().lists([shown("5")]).says(), "create for 5");
    let pending = Mark {
        replaces: Some(RemoteId("5".into())),
        ..mark(&want, -5)
    };
    let recorded = Recorded {
        mark: Some(pending),
        ..owns("5")
    };
    assert_eq!(
        Case { recorded, ..case() }.lists([shown("5"), shown("6")]).says(),
        "adopt 6 created for 5"
    );
}

#[test]
fn an_edited_mark_never_removes_what_this_or_another_webhook_holds() {
    let retire = |id: &str| Mark {
        retire: Some(RemoteId(id.into())),
        ..Mark::unknown()
    };
    let own = Case {
        recorded: Recorded {
            mark: Some(retire("5")),
            ..owns("5")
        },
        ..thulium()
    };
    assert_eq!(own.lists([same("5")]).says(), "adopt 5 created");
    let recorded = Recorded {
        mark: Some(retire("8")),
        ..owns("5")
    };
    let foreign = Case {
        recorded,
        held: vec!["8"],
        ..thulium()
    };
    assert_eq!(
        foreign.lists([same("5"), elsewhere("8")]).says(),
        "adopt 5 created"
    );
    let replaces = Mark {
        replaces: Some(RemoteId("8".into())),
        ..mark(&thulium().want, -5)
    };
    let case = Case {
        held: vec!["8"],
        ..marked(replaces)
    };
    assert_eq!(case.lists([same("5"), elsewhere("8")]).says(), "adopt 5 created");
}
