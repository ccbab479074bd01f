//! Seeds: the short form of `cargo xtask simulate`, which goes through as many as one likes.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failure is told in full, and so is what was gone through"
)]

use std::{collections::BTreeSet, ops::Range, time::Duration};

use simulation::seeds::{Deed, Figures, Plan, Sweep, plan, shrink, sweep};

/// How many seeds every run of the tests goes through.
const SEEDS: Range<u64> = 0..160;

/// How many runs are spent on making a failure smaller.
const TRIES: usize = 60;

fn go_through(seeds: Range<u64>) -> Figures {
    let (figures, failures) = sweep(&Sweep {
        seeds,
        broken: false,
        threads: 1,
        progress: &|_, _| {},
    });
    println!("{}", figures.json(Duration::ZERO));
    if let Some(first) = failures.first() {
        let others: Vec<u64> = failures.iter().skip(1).map(|it| it.plan.seed).collect();
        let small = shrink(&first.plan, TRIES, |_, _| {});
        panic!(
            "seed {} (cargo xtask simulate --seed {}): {}\nin its smallest form: {}\nalso wrong: {others:?}",
            first.plan.seed,
            first.plan.seed,
            first.outcome.wrong.join("\n"),
            small.report(&small.run())
        );
    }
    figures
}

/// Two halves, so that two cores share them.
#[test]
fn seeds_of_the_first_half_end_well() {
    let figures = go_through(SEEDS.start..SEEDS.end / 2);
    assert!(figures.kills > 80 && figures.faults > 1000, "{figures:?}");
}

#[test]
fn seeds_of_the_second_half_end_well() {
    let figures = go_through(SEEDS.end / 2..SEEDS.end);
    assert!(figures.kills > 80 && figures.faults > 1000, "{figures:?}");
}

/// What a seed brings about is all that a failure can be told by: it has to come again, in another thread too.
#[test]
fn a_seed_goes_the_same_way_again() {
    for seed in SEEDS.step_by(40) {
        let first = plan(seed).run().trace;
        let again = std::thread::spawn(move || plan(seed).run().trace).join();
        let Ok(again) = again else {
            panic!("seed {seed}: the second run panicked")
        };
        let differs = first.lines().zip(again.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), again.len(), "seed {seed}");
    }
}

/// Without the look before a create something is registered twice in some of them, and that is found and told.
#[test]
fn a_broken_journal_is_found() {
    let (figures, failures) = sweep(&Sweep {
        seeds: 20..40,
        broken: true,
        threads: 1,
        progress: &|_, _| {},
    });
    assert!(figures.duplicates > 0, "{figures:?}");
    let doubled = failures.iter().filter(|it| twice(&it.outcome.wrong));
    let Some(first) = doubled.min_by_key(|it| it.plan.events.len()) else {
        panic!("none of {} failures is a registration too many", failures.len())
    };
    let small = shrink(&first.plan, TRIES, |_, _| {});
    let outcome = small.run();
    assert!(!outcome.wrong.is_empty());
    assert!(
        small.events.len() <= first.plan.events.len() / 2,
        "not made smaller: {}",
        small.report(&outcome)
    );
}

fn twice(wrong: &[String]) -> bool {
    wrong.iter().any(|what| what.contains("registered twice"))
}

/// The plans have everything in them that they are there for.
#[test]
fn plans_have_everything_in_them() {
    let plans: Vec<Plan> = SEEDS.map(plan).collect();
    let deeds: BTreeSet<&str> = plans
        .iter()
        .flat_map(|plan| &plan.events)
        .map(|it| kind(&it.deed))
        .collect();
    assert_eq!(deeds.len(), KINDS.len(), "{deeds:?}");
    let forms: BTreeSet<&str> = plans
        .iter()
        .flat_map(|plan| &plan.forms)
        .map(|form| form.name)
        .collect();
    assert_eq!(
        forms.len(),
        simulation::explore::dialect::DIALECTS.len(),
        "{forms:?}"
    );
    let pairs = plans.iter().filter(|plan| plan.pair).count();
    assert!((30..=80).contains(&pairs), "{pairs}");
}

const KINDS: [&str; 21] = [
    "apply",
    "edit",
    "ask",
    "suspend",
    "delete",
    "secret",
    "provider",
    "namespace",
    "url by hand",
    "removed by hand",
    "stranger",
    "kill",
    "cut off",
    "freeze",
    "mute",
    "compact",
    "API server",
    "upstream",
    "switched by hand",
    "key",
    "blur",
];

fn kind(deed: &Deed) -> &'static str {
    let position = match deed {
        Deed::Apply(_) => 0,
        Deed::Edit(..) => 1,
        Deed::Ask(..) => 2,
        Deed::Suspend(..) => 3,
        Deed::Delete(_) => 4,
        Deed::EditSecret { .. } => 5,
        Deed::DropProvider(..) => 6,
        Deed::DropNamespace(_) => 7,
        Deed::ByHandUrl(..) => 8,
        Deed::ByHandRemove(_) => 9,
        Deed::Stranger(..) => 10,
        Deed::Kill(_) => 11,
        Deed::CutOff(..) => 12,
        Deed::Freeze(_) => 13,
        Deed::Mute => 14,
        Deed::Compact => 15,
        Deed::Spell(spell) => match spell.whom {
            simulation::seeds::Whom::ApiServer => 16,
            simulation::seeds::Whom::Upstream(_) => 17,
        },
        Deed::ByHandSwitch(..) => 18,
        Deed::Revoke(..) => 19,
        Deed::Blur(_) => 20,
    };
    KINDS.get(position).copied().unwrap_or_default()
}
