//! The project's own tasks, as `cargo xtask TASK`.
//!
//! Each task is a file with its arguments (`Args`) and a `run`. A new one is
//! that file, its `mod` line, a variant of [`Task`] and its arm in [`run`].

mod bench;
mod chaos;
mod ci;
mod control_plane;
mod crds;
mod demo;
mod deny;
mod docs;
mod judges;
mod kubectl;
mod licenses;
mod programs;
mod progress;
mod simulation;
mod stand;
mod test;
mod tools;

use std::{
    env,
    process::{ExitCode, Termination},
};

use clap::{Parser, Subcommand};

use self::progress::Failure;

/// Tasks of the webhook-operator project.
///
/// What they build is kept in the user's cache folder ($XDG_CACHE_HOME or
/// ~/.cache, in webhook-operator/). Where KUBEBUILDER_ASSETS is set, the
/// servers are taken from there instead of being built.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show it all: control plane, doubles of the upstreams, operator, examples.
    Demo(demo::Args),
    /// Run all tests, on a real control plane where they need one.
    Test(test::Args),
    /// Start, stop and list control planes: kube-apiserver, controllers, etcd.
    ControlPlane(control_plane::Args),
    /// Write the CustomResourceDefinitions in crds/ and docs/reference.md anew from src/api.
    Crds(crds::Args),
    /// Measure what the operator costs: time, writes, requests, memory.
    Bench(bench::Args),
    /// Kill the operator hundreds of times under faults, and judge what is left of it.
    Chaos(chaos::Args),
    /// Let the operator die, lose answers and meet conflicts at every call of every operation, on virtual time.
    Explore(simulation::Args),
    /// Run lives of many Webhooks that seeds decide, on virtual time: users, strangers, faults, deaths, replicas.
    Simulate(simulation::Args),
    /// Let others' programs judge what is done here.
    Judges(judges::Args),
    /// Do all that a change has to pass: tests, formatting, lints, docs, licences.
    Ci(ci::Args),
    /// Check what the dependencies are: licences, sources, bans, advisories.
    Deny(deny::Args),
    /// Write THIRD-PARTY-LICENSES: the licence texts of all that is linked into the operator.
    Licenses(licenses::Args),
    /// Build the docs as a site in target/book, and follow every link in it.
    Docs(docs::Args),
}

fn run(task: Task) -> Result<(), Failure> {
    match task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::ControlPlane(args) => control_plane::run(args),
        Task::Crds(args) => crds::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Chaos(args) => chaos::run(&args),
        Task::Explore(args) => simulation::run("explore", &args),
        Task::Simulate(args) => simulation::run("simulate", &args),
        Task::Judges(args) => judges::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Deny(args) => deny::run(&args),
        Task::Licenses(args) => licenses::run(&args),
        Task::Docs(args) => docs::run(&args),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    // This executable is also the supervisor of the control planes it starts.
    if let Some((control_plane::SUPERVISOR, rest)) =
        words.split_first().map(|(word, rest)| (word.as_str(), rest))
    {
        return ::control_plane::supervisor::main(rest);
    }
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
