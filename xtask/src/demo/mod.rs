//! `cargo xtask demo`: Webhooks of all four upstreams, registered by a real operator process, in a real
//! kube-apiserver, at doubles of the upstreams.
//!
//! This file is the order of the steps. What each one is made of: the programs that are built ([`crate::programs`]),
//! kubectl ([`crate::kubectl`]), processes that end with this one ([`child`]), the examples with the doubles' addresses
//! ([`overlay`]), what the receiver knows of them ([`receiver`]), and waiting until all are Ready ([`ready`]).

mod child;
mod overlay;
mod ready;
mod receiver;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use control_plane::{ControlPlane, Options, assets, progress::Task, progress::human};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use self::child::{Doubles, Operator};
use crate::{
    control_plane::{launcher, lifetime},
    kubectl::Kubectl,
    programs::Programs,
    progress::{Failure, block_on, root, say},
};

/// Namespace of the examples that name none.
const NAMESPACE: &str = "webhook-demo";
/// Namespace of the operator, and name of its account there; as in `config/rbac.yaml`.
const OPERATOR: &str = "webhook-operator";
/// A demo that nobody ends is over after this long.
const LIFETIME: Duration = Duration::from_secs(8 * 3600);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End as soon as all Webhooks are Ready, with exit code 0; with another one if they do not become so.
    #[arg(long)]
    once: bool,
    /// Build operator and doubles with optimisations.
    #[arg(long)]
    release: bool,
    /// Use the cluster of this kubeconfig instead of starting one.
    ///
    /// CRDs and the operator's rights are installed there and stay; the examples are deleted at the end. Refused
    /// where the cluster has other Webhooks: the demo's operator would work on them.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Longest wait for the Webhooks to be Ready, as `90s` or `5m`.
    #[arg(long, default_value = "2m", value_parser = lifetime)]
    timeout: Duration,
}

/// Runs the demo to its end.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let programs = Programs::build(args.release)?;
    block_on(async {
        // Caught from here on: whenever it comes, everything is stopped in order.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let told = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let mut stage = Stage::default();
        tokio::pin!(told);
        let mut up = false;
        let outcome = tokio::select! {
            outcome = show(args, &programs, &mut stage, &mut up) => outcome,
            () = &mut told => Ok(()),
        };
        let stopped = stage.clear().await;
        outcome?;
        stopped?;
        if up {
            return Ok(());
        }
        // As a shell reports a program that Ctrl-C ended.
        Err(Failure::Exit {
            step: "demo (interrupted)".to_owned(),
            code: 130,
        })
    })
}

/// Everything that has to be stopped. Filled from the top, stopped from the bottom; when this process is killed,
/// the kernel and closed pipes do the same.
#[derive(Default)]
struct Stage {
    plane: Option<ControlPlane>,
    folder: Option<TempDir>,
    doubles: Option<Doubles>,
    /// What to delete at the end, with whom, in a cluster that stays.
    leftovers: Option<(Kubectl, PathBuf)>,
    operator: Option<Operator>,
}

impl Stage {
    /// Stops all of it, also after a failure; the first failure to do so is reported.
    async fn clear(self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        if let Some((kubectl, examples)) = self.leftovers {
            // The operator is still there: it takes the registrations away and lets the objects go.
            outcome = tidy(&kubectl, &examples).await;
        }
        if let Some(operator) = self.operator {
            outcome = outcome.and(operator.stop().await);
        }
        if let Some(doubles) = self.doubles {
            outcome = outcome.and(doubles.stop().await);
        }
        if let Some(plane) = self.plane {
            outcome = outcome.and(plane.stop().await.map_err(Failure::from));
        }
        outcome
    }
}

/// Starts everything, waits, tells, and stays until the operator ends. `up` becomes true once all is Ready.
async fn show(args: &Args, programs: &Programs, stage: &mut Stage, up: &mut bool) -> Result<(), Failure> {
    let kubectl_program = assets::kubectl().await?;
    let (source, folder) = cluster(args, stage).await?;
    let kubectl = Kubectl::own(&kubectl_program, &source, &folder, NAMESPACE).await?;

    let task = Task::talking("== CRDs, rights and the examples' namespace", "demo-install");
    install(&kubectl).await?;
    if args.kubeconfig.is_some() {
        refuse_others(&kubectl).await?;
    }
    task.done();

    let doubles = stage
        .doubles
        .insert(Doubles::start(programs, overlay::RICLOUD_RECEIVER).await?);
    eprintln!("== doubles of the upstreams: {}", doubles.urls);
    let examples = overlay::render(&kubectl, &folder, &doubles.urls).await?;
    receiver::teach(&examples, &doubles.urls).await?;

    let kubeconfig = folder.join("operator.kubeconfig");
    kubectl.account(OPERATOR, OPERATOR, LIFETIME, &kubeconfig).await?;
    let log = folder.join("operator.log");
    let operator = stage
        .operator
        .insert(Operator::start(programs, &kubeconfig, &log)?);
    eprintln!(
        "== operator: process {}, as service account {OPERATOR}/{OPERATOR}",
        operator.pid()
    );

    if args.kubeconfig.is_some() {
        stage.leftovers = Some((kubectl.clone(), examples.clone()));
    }
    eprint!("{}", kubectl.run(&["apply", "-f", &text(&examples)]).await?);
    tokio::select! {
        outcome = ready::wait(&kubectl, args.timeout) => outcome.map_err(|failure| with_log(&failure, &log))?,
        ended = operator.ended() => return Err(with_log(&ended, &log)),
    }
    *up = true;

    say("")?;
    say(kubectl.run(&["get", "webhooks", "-A"]).await?)?;
    say(kubectl.run(&["get", "webhooks", "-A", "-o", "wide"]).await?)?;
    if args.once {
        return Ok(());
    }
    look_around(&kubectl, &doubles.urls, &log)?;
    Err(with_log(&operator.ended().await, &log))
}

/// The kubeconfig of the cluster to use, and a folder for the demo's files that goes with the demo.
async fn cluster(args: &Args, stage: &mut Stage) -> Result<(PathBuf, PathBuf), Failure> {
    if let Some(file) = &args.kubeconfig {
        let file = fs::canonicalize(file)
            .map_err(|error| Failure::new(format!("cannot use --kubeconfig {}: {error}", file.display())))?;
        let folder = stage.folder.insert(
            tempfile::Builder::new()
                .prefix("webhook-operator-demo-")
                .tempdir()?,
        );
        return Ok((file, folder.path().to_owned()));
    }
    let task = Task::talking("== control plane", "demo-control-plane");
    let options = Options {
        lifetime: LIFETIME,
        launcher: launcher(),
        ..Options::default()
    };
    let plane = stage.plane.insert(ControlPlane::start(options).await?);
    task.done();
    // In the control plane's own folder, which goes with it even when this process is killed.
    let folder = plane.folder().join("demo");
    fs::create_dir(&folder)?;
    Ok((plane.kubeconfig().to_owned(), folder))
}

/// CRDs, the operator's account and rights, and the namespace of the examples.
async fn install(kubectl: &Kubectl) -> Result<(), Failure> {
    let crds = text(&root().join("crds"));
    kubectl.run(&["apply", "--server-side", "-f", &crds]).await?;
    kubectl
        .run(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "-f",
            &crds,
        ])
        .await?;
    kubectl
        .run(&["apply", "-f", &text(&root().join("config/rbac.yaml"))])
        .await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    kubectl
        .feed(&["apply", "-f", "-"], &namespace.to_string())
        .await?;
    Ok(())
}

/// The operator serves all namespaces, so a cluster in which somebody uses Webhooks already is none for a demo.
async fn refuse_others(kubectl: &Kubectl) -> Result<(), Failure> {
    let list = kubectl.json(&["get", "webhooks", "-A"]).await?;
    let others: Vec<String> = ready::webhooks(&list)
        .filter(|webhook| !overlay::is_example_namespace(webhook.namespace))
        .map(|webhook| format!("{}/{}", webhook.namespace, webhook.name))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this cluster has Webhooks already, and the demo's operator would work on them: {}; use another cluster, \
         or leave --kubeconfig out to have one made",
        others.join(", ")
    )))
}

/// Deletes the examples, and with them what is registered for them.
async fn tidy(kubectl: &Kubectl, examples: &Path) -> Result<(), Failure> {
    let task = Task::silent("== deleting the examples", "demo-tidy");
    let delete = ["delete", "--ignore-not-found", "--timeout=60s"];
    kubectl
        .run(&[&delete[..], &["-f", &text(examples)]].concat())
        .await?;
    kubectl
        .run(&[&delete[..], &["namespace", NAMESPACE]].concat())
        .await?;
    task.done();
    eprintln!("   CRDs, namespace {OPERATOR} and the ClusterRole {OPERATOR} stay in the cluster");
    Ok(())
}

/// What to type next.
fn look_around(kubectl: &Kubectl, urls: &Value, log: &Path) -> Result<(), Failure> {
    let url = |name: &str| {
        urls.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let admin = url("admin");
    say(format_args!(
        "Look around, in another terminal:\n\n  \
         export KUBECONFIG={}\n  \
         kubectl get webhooks -A --watch\n  \
         kubectl describe webhook backups                  conditions and Events of one\n  \
         kubectl get secret backups-signing -o yaml        the secret that ricloud made\n  \
         kubectl patch webhook leads --type merge -p '{{\"spec\":{{\"description\":\"changed\"}}}}'\n  \
         kubectl delete webhook chats                      takes the registration away\n\n  \
         curl -s {admin}/thulium/objects      what is registered there\n  \
         curl -s {admin}/ricloud/requests     what the operator asked\n  \
         curl -s {admin}/receiver/received    what it sent to test the receiver\n  \
         tail -f {}\n",
        kubectl.kubeconfig().display(),
        log.display(),
    ))?;
    eprintln!("== up; ends with Ctrl-C, after {} at the latest", human(LIFETIME));
    Ok(())
}

/// A failure with the end of the operator's log.
fn with_log(failure: &Failure, log: &Path) -> Failure {
    const LINES: usize = 20;
    let whole = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = whole.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n");
    Failure::new(format!("{failure}\nthe end of the operator's log:\n{tail}"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
