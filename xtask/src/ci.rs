//! `cargo xtask ci`: everything that a change has to pass.

use clap::ValueEnum;

use crate::{
    deny,
    progress::{Failure, cargo, step},
    test,
};

/// Arguments of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Steps to do, in this order. All of them where none is named.
    steps: Vec<Step>,
}

/// A step that a change has to pass.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Step {
    /// Unit, contract and control plane tests.
    Test,
    /// Formatting.
    Fmt,
    /// Lints, of tests too.
    Clippy,
    /// Documentation and its links.
    Doc,
    /// Licences, sources, bans and advisories of the dependencies.
    Deny,
}

/// Does the steps in order and ends at the first that fails.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let steps = if args.steps.is_empty() {
        Step::value_variants()
    } else {
        &args.steps
    };
    steps.iter().try_for_each(|one| match one {
        Step::Test => test::run(&test::Args::default()),
        Step::Fmt => step("fmt", cargo().args(["fmt", "--all", "--check"])),
        Step::Clippy => step(
            "clippy",
            cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ),
        Step::Doc => step(
            "doc",
            cargo()
                .args(["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        ),
        Step::Deny => deny::run(&deny::Args {}),
    })
}
