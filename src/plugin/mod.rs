//! `kubectl webhook`: the binary under the name `kubectl-webhook`, for people at a terminal and for scripts.
//!
//! It only asks: it reads Webhooks, and sets the request annotations that the operator watches. `cluster` finds the
//! cluster as kubectl does, `list`, `request` and `why` are the verbs, `explain` says in plain words what to do next,
//! `table` prints.

mod cluster;
mod explain;
mod list;
mod request;
mod table;
mod why;

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::{
    cli::{EXIT_FAILURE, EXIT_USAGE},
    yaml,
};

/// Name under which kubectl finds a plugin for `kubectl webhook`.
pub const PROGRAM: &str = "kubectl-webhook";

/// What was asked for was done, and came out badly: a test failed, or the Webhook is not Ready.
pub const EXIT_NOT_WELL: u8 = 3;
/// What was asked for was not over within `--timeout`.
pub const EXIT_TIMEOUT: u8 = 4;

/// Lists, tests and explains the Webhooks of the webhook-operator.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    bin_name = "kubectl webhook",
    version,
    about,
    disable_help_subcommand = true
)]
pub struct Plugin {
    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(subcommand)]
    verb: Verb,
}

/// Where to look, as kubectl's own verbs are told.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// The kubeconfig to use instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// The namespace to look in; by default that of the context
    #[arg(short, long, global = true, value_name = "NS")]
    namespace: Option<String>,

    /// How to print; without it for people
    #[arg(short, long, global = true, value_enum, value_name = "json|yaml|wide|name")]
    output: Option<Output>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
    Wide,
    Name,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List Webhooks: state, last test, reason, age of the signing secret
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Have a Webhook tested now
    ///
    /// With --wait the exit code is 0 if the test passed, 3 if it failed or nobody tests, 4 if it was not over in
    /// time.
    Test(request::RequestArgs),
    /// Have a Webhook compared with the upstream now
    ///
    /// With --wait the exit code is 0 if it is Ready then, 3 if it is not, 4 if it was not over in time.
    Reconcile(request::RequestArgs),
    /// Have the signing secret of a Webhook changed, where the operator makes it
    ///
    /// With --wait the exit code is 0 once the upstream signs with the new secret, 3 if it cannot be changed, 4 if
    /// it was not over in time; receivers are given the time of `rotation.settle`.
    Rotate(request::RequestArgs),
    /// Say what is the matter with a Webhook, and what to do next
    Why(why::WhyArgs),
}

/// Why a verb could not do what it was to.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    /// No way to a cluster.
    #[error("{0}")]
    NoCluster(String),
    /// The API server refuses, or cannot be asked.
    #[error("{}", from_server(.0))]
    Cluster(#[from] kube::Error),
    /// An object is not of the form that this version of the plugin knows.
    #[error(
        "{0} has another form than this version of the plugin knows: {1}; use the version of the operator"
    )]
    Form(String, serde_json::Error),
    /// It cannot be printed.
    #[error("cannot print: {0}")]
    Print(String),
}

/// What the server says, as kubectl shows it.
fn from_server(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 && status.message.contains("page not found") => {
            "the cluster has no kind Webhook; install the operator's CRDs (webhook-operator crds)".to_owned()
        }
        kube::Error::Api(status) => format!("from the API server ({}): {}", status.reason, status.message),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    }
}

/// What a verb has to say.
#[derive(Debug, Default)]
struct Said {
    /// For standard output.
    text: String,
    /// How the process ends.
    code: u8,
}

/// Whether the binary was started as the plugin: `program` is its first argument.
#[must_use]
pub fn is_invoked_as(program: Option<&OsStr>) -> bool {
    program.is_some_and(|program| Path::new(program).file_stem() == Some(OsStr::new(PROGRAM)))
}

/// The whole process: reads the command line, the program's name first, and carries it out.
pub async fn main(args: Vec<OsString>) -> ExitCode {
    let plugin = match Plugin::try_parse_from(args) {
        Ok(plugin) => plugin,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ExitCode::from(match Box::pin(execute(&plugin)).await {
        Ok(said) => match io::stdout().lock().write_all(said.text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => EXIT_FAILURE,
            _ => said.code,
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            EXIT_FAILURE
        }
    })
}

async fn execute(plugin: &Plugin) -> Result<Said, PluginError> {
    let cluster = cluster::connect(&plugin.cluster).await?;
    let output = plugin.cluster.output;
    match &plugin.verb {
        Verb::List(args) => list::run(&cluster, args, output).await,
        Verb::Test(args) => request::run(&cluster, request::Kind::Test, args, output).await,
        Verb::Reconcile(args) => request::run(&cluster, request::Kind::Reconcile, args, output).await,
        Verb::Rotate(args) => request::run(&cluster, request::Kind::Rotate, args, output).await,
        Verb::Why(args) => why::run(&cluster, args, output).await,
    }
}

/// Objects in a form for programs: one alone as it is, several as a List, names a line each.
fn objects(output: Output, objects: &[DynamicObject], as_list: bool) -> Result<String, PluginError> {
    if output == Output::Name {
        let name = |object: &DynamicObject| object.metadata.name.clone().unwrap_or_default();
        return Ok(objects
            .iter()
            .map(|object| format!("{}\n", cluster::full_name(&name(object))))
            .collect());
    }
    match objects {
        [one] if !as_list => printed(output, &value(one)?),
        many => {
            let items: Vec<Value> = many.iter().map(value).collect::<Result<_, _>>()?;
            printed(
                output,
                &json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }),
            )
        }
    }
}

/// An object without what nobody reads, as kubectl leaves it out too.
fn value(object: &DynamicObject) -> Result<Value, PluginError> {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    serde_json::to_value(object).map_err(|error| PluginError::Print(error.to_string()))
}

/// A value as JSON or YAML.
fn printed(output: Output, value: &Value) -> Result<String, PluginError> {
    match output {
        Output::Yaml => yaml::to_string(value).map_err(|error| PluginError::Print(error.to_string())),
        Output::Json | Output::Wide | Output::Name => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|error| PluginError::Print(error.to_string())),
    }
}

/// Where a duration is asked for: those of manifests, at least a second.
fn duration(text: &str) -> Result<Duration, String> {
    crate::cli::duration(text)
}

/// The name of a Webhook, with or without its kind before it (`webhook/orders`), as kubectl takes it.
fn object_name(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("webhook", text));
    let kinds = [
        "webhook",
        "webhooks",
        "wh",
        "webhook.webhook-operator.dev",
        "webhooks.webhook-operator.dev",
    ];
    if !kinds.contains(&kind) {
        return Err(format!("{kind:?} is no Webhook; give the name of one"));
    }
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "-.".contains(char);
    if name.is_empty() || name.len() > 253 || !name.chars().all(allowed) {
        return Err("a name has 1 to 253 of the characters a-z, 0-9, - and .".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Plugin::command().debug_assert();
    }

    #[test]
    fn the_name_of_the_program_decides() {
        for (name, expected) in [
            ("kubectl-webhook", true),
            ("/usr/local/bin/kubectl-webhook", true),
            ("kubectl-webhook.exe", true),
            ("webhook-operator", false),
            ("kubectl", false),
        ] {
            assert_eq!(is_invoked_as(Some(OsStr::new(name))), expected, "{name}");
        }
        assert!(!is_invoked_as(None));
    }

    #[test]
    fn options_may_stand_behind_the_verb_as_with_kubectl() {
        for line in [
            "kubectl-webhook -n shop -o wide --context c list",
            "kubectl-webhook list --namespace=shop -owide --context=c",
        ] {
            let plugin = Plugin::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(plugin.cluster.namespace.as_deref(), Some("shop"));
            assert_eq!(plugin.cluster.context.as_deref(), Some("c"));
            assert_eq!(plugin.cluster.output, Some(Output::Wide));
        }
        assert!(Plugin::try_parse_from("kubectl-webhook test".split(' ')).is_err());
        assert!(Plugin::try_parse_from("kubectl-webhook test w --timeout 5s".split(' ')).is_err());
    }

    #[test]
    fn names_are_taken_with_their_kind() {
        assert_eq!(object_name("orders").unwrap(), "orders");
        assert_eq!(object_name("wh/orders").unwrap(), "orders");
        assert_eq!(object_name("webhook.webhook-operator.dev/a.b").unwrap(), "a.b");
        for refused in ["", "pod/orders", "webhook/", "a/b/c", "Orders", "a b"] {
            assert!(object_name(refused).is_err(), "{refused:?}");
        }
    }
}
