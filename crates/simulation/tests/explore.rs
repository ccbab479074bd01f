//! Crash points of every operation: the short form of `cargo xtask explore`, which goes through all of them.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failure is told in full, and so is what was explored"
)]

use simulation::explore::{Case, Choice, Hunt, hunt};

/// Explores what is wanted of it; at least so many points with one fault, and so many with two.
fn explore(wanted: impl Fn(&Case) -> bool, every: usize, every_pair: usize) -> (usize, usize) {
    let (figures, failures) = hunt(&Hunt {
        cases: Case::all().filter(wanted).collect(),
        singles: Choice::Main,
        every,
        every_pair,
        threads: 1,
        progress: &|_| {},
    });
    println!("{}", figures.table());
    if let Some(first) = failures.first() {
        let others: Vec<&str> = failures.iter().skip(1).map(|it| it.point.as_str()).collect();
        panic!("{}: {}\nalso wrong: {others:#?}", first.point, first.report);
    }
    (figures.singles(), figures.pairs())
}

/// Every point of what makes and removes registrations, and every third of everything else. Pairs are left to
/// `cargo xtask explore`.
fn upstream(name: &str) {
    let makes_or_removes = |case: &Case| case.dialect.name == name && case.operation.pairs;
    let (singles, pairs) = explore(makes_or_removes, 1, 0);
    assert!(singles >= 90 && pairs == 0, "{singles} points, {pairs} pairs");
    let changes = |case: &Case| case.dialect.name == name && !case.operation.pairs;
    let (singles, _) = explore(changes, 3, 0);
    assert!(singles >= 120, "{singles} points");
}

#[test]
fn conpeek() {
    upstream("conpeek");
}

#[test]
fn thulium() {
    upstream("thulium");
}

#[test]
fn ricloud() {
    upstream("ricloud");
}

#[test]
fn autocosmos() {
    upstream("autocosmos");
}

#[test]
fn other_forms_of_the_upstreams() {
    let (singles, _) = explore(|case| case.dialect.name.contains('-'), 10, 0);
    assert!(singles >= 200, "{singles} points");
}

/// Without the look before a create there are points at which something is registered twice, and they are found.
#[test]
fn a_missing_look_is_found() {
    for dialect in ["thulium", "ricloud"] {
        let create = |case: &Case| case.dialect.name == dialect && case.operation.name == "create";
        let (_, failures) = hunt(&Hunt {
            cases: Case::all()
                .filter(create)
                .map(|case| Case { broken: true, ..case })
                .collect(),
            singles: Choice::Main,
            every: 1,
            every_pair: 0,
            threads: 1,
            progress: &|_| {},
        });
        let twice = failures
            .iter()
            .filter(|failure| failure.report.contains("nobody's"))
            .count();
        assert!(
            twice > 0 && twice == failures.len(),
            "{dialect}: {twice} of {} failures are registrations too many",
            failures.len()
        );
    }
}
