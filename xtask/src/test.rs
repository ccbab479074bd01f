//! `cargo xtask test`: what the tests need, then the tests.

use control_plane::assets::{self, Binary};

use crate::progress::{Failure, block_on, cargo, step};

/// Arguments of `test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Handed to `cargo test --workspace`, as in `cargo xtask test -- --test apiserver_schema`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds the servers where they are missing, then runs all tests.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Before the tests, so that none of them waits minutes without a word.
    block_on(assets::prepare(&[
        Binary::Etcd,
        Binary::KubeApiserver,
        Binary::KubeControllerManager,
    ]))?;
    let mut tests = cargo();
    tests.args(["test", "--workspace"]).args(&args.rest);
    // Most of them wait for a server: more at a time than there are cores take half the time.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        tests.env("RUST_TEST_THREADS", "8");
    }
    step("test", &mut tests)
}
