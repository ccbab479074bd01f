//! The command line: what can be asked for, read into plain data, and the process around it (exit codes,
//! signals, the one TLS provider). What `run` does is handed in by the caller.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    api::{duration::ApiDuration, provider::ProviderType, schema},
    check::{self, input, report},
    net::{AddressPolicy, AllowListError, CheckedUrl},
    plugin,
    telemetry::{self, LogFormat, otlp},
    verify::{self, command::VerifyArgs},
};

#[cfg(test)]
mod tests;

/// The command ended well, or help was asked for.
pub const EXIT_OK: u8 = 0;
/// Something failed; a message says what to do.
pub const EXIT_FAILURE: u8 = 1;
/// The command line cannot be understood.
pub const EXIT_USAGE: u8 = 2;

/// Registers webhooks at SaaS products from Kubernetes manifests.
#[derive(Debug, Parser)]
#[command(name = "webhook-operator", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until it is told to stop
    ///
    /// The cluster is found as every client finds it: KUBECONFIG or ~/.kube/config, else the service account of
    /// the pod. Each option can also be given by its environment variable, lists separated by commas; an empty
    /// variable counts as not set, and the option on the command line wins. SIGTERM and SIGINT end it in good
    /// order: no new work, 25 s for what is in flight, the lease given back.
    Run(Box<RunArgs>),
    /// Judge manifests without a cluster: schema, rules, and what each upstream can do
    ///
    /// Exit code 0: clean; 1: findings; 2: something named could not be read. A Webhook is judged by the type of its
    /// provider, which is looked for among all that is given.
    Check(CheckArgs),
    /// Judge the signature of a delivery that a receiver refused, or should have
    ///
    /// Reads the request as it came in (request line, headers, an empty line, the raw body) from standard input. Exit
    /// code 0: valid; 1: invalid, and what is wrong; 2: nothing that can be judged. Secrets are never printed.
    Verify(VerifyArgs),
    /// Print the three CustomResourceDefinitions as YAML
    ///
    /// For `webhook-operator crds | kubectl apply --server-side -f -`. They belong to this version of the binary.
    Crds,
}

/// The options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, folders (every .yaml, .yml and .json below them), or - for standard input
    ///
    /// `helm template ... | webhook-operator check -` judges what a chart makes.
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// How findings are printed
    #[arg(short, long, value_enum, value_name = "text|json|github", default_value_t = report::Format::Text)]
    output: report::Format,

    /// The type of providers that are not among the files
    #[arg(long, value_name = "TYPE", value_parser = provider_type)]
    provider_type: Option<ProviderType>,
}

/// The options of `run` as they are written.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Serve this namespace only; may be given several times
    ///
    /// Without it all namespaces are served. With it no cluster-wide rights are used, and therefore Webhooks that
    /// refer to a ClusterWebhookProvider are not served: their condition says so.
    #[arg(long, env = "WEBHOOK_OPERATOR_NAMESPACE", value_name = "NS", value_delimiter = ',', value_parser = namespace)]
    namespace: Vec<String>,

    /// Allow connections to this otherwise refused network; may be given several times
    ///
    /// The operator connects to public addresses only, because users of the cluster choose where it connects to.
    /// A network named here (a CIDR, or one address) may be reached too, also by plain http:. The metadata
    /// addresses of clouds are reached only if the very address is named.
    #[arg(long, env = "WEBHOOK_OPERATOR_ALLOW_NETWORK", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    allow_network: Vec<String>,

    /// Where to serve /livez, /readyz and /metrics
    ///
    /// Standby replicas serve them too. Port 0 takes any free port; the log tells which.
    #[arg(
        long,
        env = "WEBHOOK_OPERATOR_HTTP_ADDR",
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:8080"
    )]
    http_addr: SocketAddr,

    /// Work only while holding the Lease, so that several replicas can run
    ///
    /// `false` is for a single replica or for development: two that run without it register webhooks twice.
    #[arg(long, env = "WEBHOOK_OPERATOR_LEADER_ELECT", value_name = "true|false", default_value_t = true,
          action = ArgAction::Set, hide_possible_values = true)]
    leader_elect: bool,

    /// Namespace of the Lease and of the operator's own Secret
    ///
    /// By default the namespace of the service account, else that of the kubeconfig's context, else `default`.
    #[arg(long, env = "WEBHOOK_OPERATOR_LEASE_NAMESPACE", value_name = "NS", value_parser = namespace)]
    lease_namespace: Option<String>,

    /// How long to keep trying to remove a registration whose Webhook is being deleted
    ///
    /// Counted from the first attempt that failed, and at least three attempts are made. Afterwards the Webhook is
    /// released, and a Warning Event names what was left in place at the upstream. Whole numbers with the units h,
    /// m and s.
    #[arg(long, env = "WEBHOOK_OPERATOR_DELETION_DEADLINE", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    deletion_deadline: Duration,

    /// Keep a provider and its credentials Secret from vanishing while registrations depend on them
    ///
    /// By a finalizer on both, so that what was registered can still be removed. `false`: none is ever set.
    #[arg(long, env = "WEBHOOK_OPERATOR_PROTECT_CREDENTIALS", value_name = "true|false", default_value_t = true,
          action = ArgAction::Set, hide_possible_values = true)]
    protect_credentials: bool,

    /// How many Webhooks are worked on at the same time, 1 to 1024
    ///
    /// Calls to one upstream account are also limited by the `rateLimit` of its provider.
    #[arg(long, env = "WEBHOOK_OPERATOR_CONCURRENCY", value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// What a log line looks like; logs go to standard error
    #[arg(long, env = "WEBHOOK_OPERATOR_LOG_FORMAT", value_enum, value_name = "json|text", default_value_t = LogFormat::Json)]
    log_format: LogFormat,

    /// What is logged: a level, or targets with levels, such as info,webhook_operator=debug
    ///
    /// Only the operator's own events go below info, whatever this says: the libraries underneath would print
    /// credentials.
    #[arg(long, env = "WEBHOOK_OPERATOR_LOG_FILTER", value_name = "SPEC", default_value = telemetry::DEFAULT_FILTER, value_parser = log_filter)]
    log_filter: String,

    /// Send traces to this OpenTelemetry collector, by OTLP over HTTP
    ///
    /// Its base address, such as `http://collector.monitoring:4318`; `/v1/traces` is appended. Without it nothing is sent.
    /// Headers that the collector wants come from the variable OTEL_EXPORTER_OTLP_HEADERS.
    #[arg(long, env = "WEBHOOK_OPERATOR_OTLP_ENDPOINT", value_name = "URL", value_parser = otlp::endpoint)]
    otlp_endpoint: Option<CheckedUrl>,
}

/// The options of `run`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Namespaces to serve, sorted, each once. Empty: all of them, with cluster-wide rights.
    pub namespaces: Vec<String>,
    /// Which addresses may be connected to: the public ones and `--allow-network`.
    pub addresses: AddressPolicy,
    /// Where [`crate::health::Server`] listens; port 0: any.
    pub http_addr: SocketAddr,
    /// Whether to work only while holding the Lease ([`crate::lease`]).
    pub leader_elect: bool,
    /// Namespace of the Lease and of the Secret with the hash key. `None`: the namespace that kube's client takes
    /// from its configuration (`Client::default_namespace`).
    pub lease_namespace: Option<String>,
    /// How long a removal that fails is tried again, since its first failed attempt. At least one second.
    pub deletion_deadline: Duration,
    /// Whether providers in use and their credentials Secrets get the finalizer `webhook-operator.dev/in-use`.
    pub protect_credentials: bool,
    /// How many passes run at the same time, 1 to 1024.
    pub concurrency: u16,
    /// What a log line looks like.
    pub log_format: LogFormat,
    /// What is logged; a valid filter.
    pub log_filter: String,
    /// Where traces are sent. `None`: nowhere.
    pub otlp_endpoint: Option<CheckedUrl>,
}

impl TryFrom<RunArgs> for RunOptions {
    type Error = AllowListError;

    fn try_from(args: RunArgs) -> Result<Self, AllowListError> {
        let mut namespaces = args.namespace;
        namespaces.sort();
        namespaces.dedup();
        Ok(Self {
            namespaces,
            addresses: AddressPolicy::parse(&args.allow_network)?,
            http_addr: args.http_addr,
            leader_elect: args.leader_elect,
            lease_namespace: args.lease_namespace,
            deletion_deadline: args.deletion_deadline,
            protect_credentials: args.protect_credentials,
            concurrency: args.concurrency,
            log_format: args.log_format,
            log_filter: args.log_filter,
            otlp_endpoint: args.otlp_endpoint,
        })
    }
}

impl Cli {
    /// Reads a command line, the program's name first, and the environment.
    ///
    /// # Errors
    ///
    /// It cannot be understood, or asks for help or the version; the error prints itself and knows its exit code.
    pub fn read(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let command = Self::command().mut_subcommands(|command| {
            // Charts and compose files set a variable to nothing where they mean not to set it.
            command.mut_args(|arg| {
                let empty = arg
                    .get_env()
                    .and_then(std::env::var_os)
                    .is_some_and(|value| value.is_empty());
                if empty { arg.env(Resettable::Reset) } else { arg }
            })
        });
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}

/// The whole process, under the name of the plugin that one's ([`plugin`]): reads the command line, starts what every command needs, and carries it out; `run` is given
/// the options of the command `run`. Returns how the process is to end.
pub async fn main<E: Display>(run: impl AsyncFnOnce(RunOptions) -> Result<(), E>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if plugin::is_invoked_as(args.first().map(OsString::as_os_str)) {
        return Box::pin(plugin::main(args)).await;
    }
    match Cli::read(args) {
        Ok(cli) => ExitCode::from(execute(cli.command, run).await),
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
    }
}

/// Carries out one command; returns the exit code. A failure is told on standard error, by the log once there is
/// one.
pub async fn execute<E: Display>(command: Command, run: impl AsyncFnOnce(RunOptions) -> Result<(), E>) -> u8 {
    match command {
        Command::Crds => match print_crds(&mut io::stdout().lock()) {
            Ok(()) => EXIT_OK,
            Err(error) => complain(&format!("could not print the CRDs: {error}")),
        },
        Command::Check(args) => check_manifests(&args, io::stdin().lock(), &mut io::stdout().lock()),
        Command::Verify(args) => {
            let (stdin, mut out, mut err) = (io::stdin().lock(), io::stdout().lock(), io::stderr().lock());
            verify::command::run(&args, Timestamp::now(), stdin, &mut out, &mut err)
        }
        Command::Run(args) => {
            let options = match RunOptions::try_from(*args) {
                Ok(options) => options,
                Err(error) => {
                    complain(&error.to_string());
                    return EXIT_USAGE;
                }
            };
            operate(options, run).await
        }
    }
}

/// Runs the operator between the start of its telemetry and the end; returns the exit code.
async fn operate<E: Display>(options: RunOptions, run: impl AsyncFnOnce(RunOptions) -> Result<(), E>) -> u8 {
    if let Err(error) = telemetry::init(options.log_format, &options.log_filter) {
        return complain(&error.to_string());
    }
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let traces = match otlp::start(options.otlp_endpoint.as_ref()) {
        Ok(traces) => traces,
        Err(error) => return complain(&error.to_string()),
    };
    let code = match Box::pin(run(options)).await {
        Ok(()) => EXIT_OK,
        Err(error) => complain(&error.to_string()),
    };
    traces.end().await;
    code
}

/// Resolves at the first SIGTERM or SIGINT, with its name. The signals are caught from the call on, before the
/// answer is awaited.
///
/// # Errors
///
/// The operating system refuses the handler.
pub fn shutdown_signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Judges manifests; returns the exit code.
fn check_manifests(args: &CheckArgs, stdin: impl io::Read, out: &mut impl Write) -> u8 {
    let (documents, errors) = input::read(&args.paths, stdin);
    let verdict = match check::Judge::new() {
        Ok(judge) => judge.judge(&documents, args.provider_type),
        Err(error) => {
            complain(&format!("the rules of this build cannot be read: {error}"));
            return EXIT_USAGE;
        }
    };
    for error in &errors {
        complain(&error.to_string());
    }
    match report::print(&verdict, args.output, out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("the findings could not be printed: {error}"));
            EXIT_USAGE
        }
        _ if !errors.is_empty() => EXIT_USAGE,
        _ if verdict.is_clean() => EXIT_OK,
        _ => EXIT_FAILURE,
    }
}

fn print_crds(out: &mut impl Write) -> io::Result<()> {
    let yaml = schema::to_yaml(&schema::crds()).map_err(io::Error::other)?;
    match out.write_all(yaml.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Tells why the process ends, as a log line where logs are read, else in words. Returns the exit code.
fn complain(message: &str) -> u8 {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{message}");
    } else {
        let _ = writeln!(io::stderr(), "error: {message}");
    }
    EXIT_FAILURE
}

/// A namespace's name: a DNS label, as Kubernetes wants it.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=63).contains(&text.len()) && text.chars().all(inner);
    if fits && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err(
        "a namespace has 1 to 63 of the characters a-z, 0-9 and -, and neither begins nor ends with -"
            .to_owned(),
    )
}

/// One entry of the allow list; checked alone so that the message names it.
fn network(text: &str) -> Result<String, AllowListError> {
    AddressPolicy::parse([text]).map(|_| text.to_owned())
}

/// A duration of at least one second, as manifests write them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse::<ApiDuration>()
        .map_err(|error| error.to_string())?
        .get();
    if duration < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(duration)
}

/// The name of an upstream, in any case.
pub(crate) fn provider_type(text: &str) -> Result<ProviderType, String> {
    let known = ProviderType::ALL;
    known
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            let known: Vec<&str> = known.iter().map(|kind| kind.as_str()).collect();
            format!("known are {}", known.join(", "))
        })
}

fn log_filter(text: &str) -> Result<String, String> {
    telemetry::check_filter(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}
