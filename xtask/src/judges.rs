//! `cargo xtask judges`: others' programs, which know nothing of this project, judge what it does.
//!
//! A judge is a file in `judges/` with a `run`, and its line in [`JUDGES`]. What it needs it installs into the cache
//! folder, and never into the checkout; what it cannot get, it names.

mod chart;
mod gitops;
mod go;
mod image;
mod install;
mod prometheus;
mod python;
mod release;
mod ricloud;
mod upgrade;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    thread,
};

use crate::progress::{Failure, say};

/// A program of others.
struct Judge {
    /// What it is asked for by.
    name: &'static str,
    /// Who judges what.
    about: &'static str,
    run: fn() -> Result<Outcome, Failure>,
}

/// What came of asking one. That it disagrees is a [`Failure`].
enum Outcome {
    /// It agrees; in how many cases, in words.
    Agrees(String),
    /// It cannot be asked here; what is missing, with the cure.
    Missing(String),
}

const JUDGES: &[Judge] = &[
    Judge {
        name: "ricloud",
        about: "the vendor's client (PyPI ricloud) verifies our ricloud signatures, and we verify its own",
        run: ricloud::run,
    },
    Judge {
        name: "gitops",
        about: "kstatus, by which Flux waits, and the Lua of Argo CD say of every status what docs/gitops.md says",
        run: gitops::run,
    },
    Judge {
        name: "prometheus",
        about: "promtool tests the alerts of the chart; a Prometheus that scrapes a run answers dashboard and alerts",
        run: prometheus::run,
    },
    Judge {
        name: "image",
        about: "Docker builds the Dockerfile twice, and runs what it built as a cluster would",
        run: image::run,
    },
    Judge {
        name: "chart",
        about: "helm lints the chart, kubeconform holds it against the served schemas; kube-score, helm-unittest, helm-docs",
        run: chart::run,
    },
    Judge {
        name: "install",
        about: "helm installs the chart into a real control plane, the operator runs as its Deployment, a Webhook is valid",
        run: install::run,
    },
    Judge {
        name: "upgrade",
        about: "helm upgrades an earlier chart to this one and rolls it back, with the operator of each, over every field",
        run: upgrade::run,
    },
];

/// Arguments of `judges`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those to ask. All of them where none is named; then one that cannot be asked is passed over.
    names: Vec<String>,
    /// Only say who they are.
    #[arg(long)]
    list: bool,
}

/// Asks them one after the other, and tells at the end who disagrees or, if it was named, cannot be asked.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let known: Vec<&str> = JUDGES.iter().map(|judge| judge.name).collect();
    if let Some(name) = args.names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Failure::new(format!(
            "there is no judge {name:?}; known are {}",
            known.join(", ")
        )));
    }
    let mut failed = Vec::new();
    for judge in JUDGES {
        if !args.names.is_empty() && !args.names.iter().any(|name| name == judge.name) {
            continue;
        }
        if args.list {
            say(format!("{:<12} {}", judge.name, judge.about))?;
            continue;
        }
        eprintln!("== {}: {}", judge.name, judge.about);
        match (judge.run)() {
            Ok(Outcome::Agrees(cases)) => say(format!("{}: agrees: {cases}", judge.name))?,
            Ok(Outcome::Missing(what)) => {
                say(format!("{}: SKIPPED: {what}", judge.name))?;
                if !args.names.is_empty() {
                    failed.push(judge.name);
                }
            }
            Err(failure) => {
                say(format!("{}: DISAGREES or failed: {failure}", judge.name))?;
                failed.push(judge.name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("not agreed: {}", failed.join(", "))))
}

/// Runs a judge's program with `input`; returns what it prints.
fn run_with_input(program: &mut Command, input: String) -> Result<String, Failure> {
    let output = ask(program.stderr(Stdio::inherit()), input)?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "the judge's program ended with {}",
            output.status
        )));
    }
    String::from_utf8(output.stdout).map_err(Into::into)
}

/// Runs a judge's program with `input`; returns what it prints and how it ended.
fn ask(program: &mut Command, input: String) -> Result<Output, Failure> {
    let name = program.get_program().to_string_lossy().into_owned();
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("cannot run {name}: {error}")))?;
    let stdin = child.stdin.take();
    // Beside the reading: both pipes are shorter than what goes through them.
    let writing = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    let _ = writing.join();
    Ok(output)
}

/// Why a judge's programs are not there.
enum Lack {
    /// They cannot be had here; what is missing, with the cure.
    Missing(String),
    /// Getting them went wrong.
    Failed(Failure),
}

impl From<Failure> for Lack {
    fn from(failure: Failure) -> Self {
        Lack::Failed(failure)
    }
}

/// What a judge needs, or why it is not there.
fn have<T>(needed: Result<Result<T, String>, Failure>) -> Result<T, Lack> {
    needed?.map_err(Lack::Missing)
}
