//! `cargo xtask control-plane`: a control plane that outlives the command.
//!
//! This executable is its own supervisor: see [`SUPERVISOR`].

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use control_plane::{
    AuditLevel, Launcher, Options, State,
    assets::{self, Binary},
    progress::human,
    registry, start_detached,
};
use jiff::SignedDuration;

use crate::progress::{Failure, block_on, say};

/// First word of the command line that makes this executable a supervisor. Not
/// a task for people, so it is not one of clap's.
pub(crate) const SUPERVISOR: &str = "control-plane-supervisor";

/// The launcher for control planes of this executable.
pub(crate) fn launcher() -> Launcher {
    Launcher::Myself(vec![SUPERVISOR.to_owned()])
}

/// Arguments of `control-plane`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start one in the background and print the KUBECONFIG to use.
    ///
    /// Only the `export` line goes to standard output, so that this works:
    /// eval "$(cargo xtask control-plane up)"
    Up {
        /// Its name; several may run side by side.
        #[arg(long, default_value = "default")]
        name: String,
        /// Everything stops after this long, as `30m` or `2h`.
        #[arg(long, default_value = "2h", value_parser = lifetime)]
        lifetime: Duration,
        /// Write an audit log.
        #[arg(long, value_enum)]
        audit: Option<Audit>,
    },
    /// Stop one, or all, and remove its data.
    Down {
        /// Which one.
        #[arg(long, default_value = "default")]
        name: String,
        /// All that `up` started; those of tests end with their tests.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// List those that run.
    Status,
    /// Print the path of a kubectl, building one where the machine has none.
    Kubectl {
        /// One of the servers' version, even where the machine has another.
        #[arg(long)]
        matching: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Audit {
    /// Who did what to which object.
    Metadata,
    /// The bodies of requests too, Secrets in clear included.
    Request,
}

/// Does what is asked for.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Up {
            name,
            lifetime,
            audit,
        } => up(name, lifetime, audit),
        Action::Down { all: true, .. } => down_all(),
        Action::Down { name, .. } => down(&name),
        Action::Status => status(),
        Action::Kubectl { matching } => {
            let found = if matching {
                block_on(assets::prepare(&[Binary::Kubectl]))?.path(Binary::Kubectl)
            } else {
                block_on(assets::kubectl())?
            };
            say(found.display())
        }
    }
}

fn up(name: String, lifetime: Duration, audit: Option<Audit>) -> Result<(), Failure> {
    let state = match registry::running()?
        .into_iter()
        .find(|state| state.id == name && state.ready)
    {
        Some(state) => {
            eprintln!("{name} is up already");
            state
        }
        None => {
            let audit = audit.map(|level| match level {
                Audit::Metadata => AuditLevel::Metadata,
                Audit::Request => AuditLevel::Request,
            });
            let options = Options {
                name: Some(name),
                lifetime,
                audit,
                launcher: launcher(),
                ..Options::default()
            };
            block_on(start_detached(options))?
        }
    };
    eprintln!("{} serves at {}", state.id, state.url);
    eprintln!("it stops by itself in {}; sooner with:", human(state.remaining()));
    eprintln!("  cargo xtask control-plane down --name {}", state.id);
    say(format_args!("export KUBECONFIG={}", state.kubeconfig().display()))
}

fn down(name: &str) -> Result<(), Failure> {
    let state = block_on(registry::stop(name))?;
    eprintln!("{name} is stopped, after {}", human(state.age()));
    Ok(())
}

fn down_all() -> Result<(), Failure> {
    let running = registry::running()?;
    running
        .iter()
        .filter(|state| state.detached)
        .try_for_each(|state| down(&state.id))
}

fn status() -> Result<(), Failure> {
    let running = registry::running()?;
    if running.is_empty() {
        eprintln!("no control plane is running; start one with: cargo xtask control-plane up");
    }
    running.iter().try_for_each(|state| say(described(state)))
}

fn described(state: &State) -> String {
    let pid = |pid: Option<u32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    format!(
        "{}: {}, {}\n  url         {}\n  kubeconfig  {}\n  age         {}, ends in {}\n  \
         processes   supervisor {}, kube-apiserver {}, kube-controller-manager {}, etcd {}",
        state.id,
        if state.ready { "ready" } else { "starting" },
        if state.detached {
            "stays until `down`"
        } else {
            "ends with the process that started it"
        },
        state.url,
        state.kubeconfig().display(),
        human(state.age()),
        human(state.remaining()),
        state.pids.supervisor,
        pid(state.pids.apiserver),
        pid(state.pids.controller_manager),
        pid(state.pids.etcd),
    )
}

/// A duration of at least a second, as people write it.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from(parsed) {
        Ok(lifetime) if lifetime >= Duration::from_secs(1) => Ok(lifetime),
        _ => Err("must be at least a second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_people_write_them() {
        assert_eq!(lifetime("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(lifetime("90m"), Ok(Duration::from_secs(5400)));
        assert!(lifetime("0s").is_err());
        assert!(lifetime("-1h").is_err());
        assert!(lifetime("soon").is_err());
    }
}
