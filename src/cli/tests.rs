//! What the command line accepts, and what it says to what it does not.

use super::*;

fn run_options(args: &[&str]) -> Result<RunOptions, String> {
    let line = ["webhook-operator", "run"].iter().chain(args);
    match Cli::read(line).map_err(|error| error.to_string())?.command {
        Command::Run(args) => RunOptions::try_from(*args).map_err(|error| error.to_string()),
        Command::Crds | Command::Check(_) | Command::Verify(_) => panic!("asked for run"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let options = run_options(&[]).unwrap();
    let expected = RunOptions {
        namespaces: vec![],
        addresses: AddressPolicy::default(),
        http_addr: SocketAddr::from(([0, 0, 0, 0], 8080)),
        leader_elect: true,
        lease_namespace: None,
        deletion_deadline: Duration::from_secs(600),
        protect_credentials: true,
        concurrency: 32,
        log_format: LogFormat::Json,
        log_filter: telemetry::DEFAULT_FILTER.to_owned(),
        otlp_endpoint: None,
    };
    assert_eq!(options, expected);
}

#[test]
fn every_option_is_read() {
    let options = run_options(&[
        "--namespace=shop",
        "--namespace",
        "a,shop",
        "--allow-network=10.0.0.0/8,fd00::/8",
        "--allow-network=127.0.0.1",
        "--http-addr=[::1]:0",
        "--leader-elect=false",
        "--lease-namespace=ops",
        "--deletion-deadline=1h30m",
        "--protect-credentials",
        "false",
        "--concurrency=4",
        "--log-format=text",
        "--log-filter=debug",
        "--otlp-endpoint=http://collector.monitoring:4318",
    ])
    .unwrap();
    assert_eq!(options.namespaces, ["a", "shop"]);
    let networks: Vec<_> = options
        .addresses
        .networks()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.0/8", "fd00::/8", "127.0.0.1/32"]);
    assert_eq!(options.http_addr.to_string(), "[::1]:0");
    assert!(!options.leader_elect && !options.protect_credentials);
    assert_eq!(options.lease_namespace.as_deref(), Some("ops"));
    assert_eq!(options.deletion_deadline, Duration::from_secs(5400));
    assert_eq!(options.concurrency, 4);
    assert_eq!(
        (options.log_format, options.log_filter.as_str()),
        (LogFormat::Text, "debug")
    );
    let collector = options.otlp_endpoint.unwrap();
    assert_eq!(collector.origin(), "http://collector.monitoring:4318");
}

#[test]
fn what_is_wrong_is_named_with_the_cure() {
    for (arg, says) in [
        ("--namespace=Shop", "a-z, 0-9 and -"),
        ("--namespace=-a", "neither begins nor ends"),
        ("--allow-network=10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("--allow-network=lan", "give a CIDR"),
        ("--deletion-deadline=10", "such as 30s, 5m"),
        ("--deletion-deadline=0s", "at least 1s"),
        ("--concurrency=0", "1..=1024"),
        ("--leader-elect=maybe", "[possible values: true, false]"),
        ("--log-filter=kube=loud", "is no log filter"),
        ("--log-format=xml", "[possible values: json, text]"),
        ("--otlp-endpoint=collector:4318", "such as http://collector"),
        (
            "--otlp-endpoint=https://user:word@collector",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        ("--lease-namespaces=x", "--lease-namespace"),
    ] {
        let message = run_options(&[arg]).unwrap_err();
        assert!(message.contains(says), "{arg}: {message}");
    }
}

#[test]
fn each_option_has_its_variable() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let mut options = 0;
    for arg in run.get_arguments() {
        let flag = arg.get_long().unwrap();
        let variable = format!("WEBHOOK_OPERATOR_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(arg.get_env().unwrap(), variable.as_str());
        assert!(arg.get_help().is_some(), "{flag} has no help");
        options += 1;
    }
    assert_eq!(options, 11);
}

#[test]
fn exit_codes_of_the_command_line() {
    let code = |args: &[&str]| Cli::read(args).unwrap_err().exit_code();
    assert_eq!(code(&["webhook-operator", "--help"]), i32::from(EXIT_OK));
    assert_eq!(code(&["webhook-operator", "run", "--help"]), i32::from(EXIT_OK));
    assert_eq!(code(&["webhook-operator", "--version"]), i32::from(EXIT_OK));
    assert_eq!(code(&["webhook-operator"]), i32::from(EXIT_USAGE));
    assert_eq!(code(&["webhook-operator", "walk"]), i32::from(EXIT_USAGE));
    assert_eq!(
        code(&["webhook-operator", "run", "--concurrency=x"]),
        i32::from(EXIT_USAGE)
    );
}

#[test]
fn the_printed_crds_are_the_three() {
    let mut out = Vec::new();
    print_crds(&mut out).unwrap();
    let crds: Vec<serde_json::Value> = crate::yaml::parse_all(std::str::from_utf8(&out).unwrap()).unwrap();
    let names: Vec<_> = crds
        .iter()
        .map(|crd| crd["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "webhooks.webhook-operator.dev",
            "webhookproviders.webhook-operator.dev",
            "clusterwebhookproviders.webhook-operator.dev",
        ]
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_but_a_full_disk_is() {
    struct Broken(io::ErrorKind);
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(print_crds(&mut Broken(io::ErrorKind::BrokenPipe)).is_ok());
    assert!(print_crds(&mut Broken(io::ErrorKind::StorageFull)).is_err());
}

#[tokio::test]
async fn run_gets_its_options_and_its_failure_is_exit_code_1() {
    let line = ["webhook-operator", "run", "--concurrency=7", "--log-filter=off"];
    let command = Cli::read(line).unwrap().command;
    let code = execute(command, async |options: RunOptions| {
        assert_eq!(options.concurrency, 7);
        assert!(
            rustls::crypto::CryptoProvider::get_default().is_some(),
            "TLS works before anything is called"
        );
        Err("no cluster: set KUBECONFIG")
    })
    .await;
    assert_eq!(code, EXIT_FAILURE);
}

#[tokio::test]
async fn a_signal_is_told_by_name_even_if_it_came_early() {
    for (name, flag) in [("SIGTERM", "-TERM"), ("SIGINT", "-INT")] {
        let told = shutdown_signal().unwrap();
        let send = format!("kill {flag} {}", std::process::id());
        assert!(
            tokio::process::Command::new("sh")
                .args(["-c", &send])
                .status()
                .await
                .unwrap()
                .success()
        );
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), told).await, Ok(name));
    }
}

/// Runs `check` on a text of standard input.
fn check_stdin(args: &[&str], text: &str) -> (u8, String) {
    let line = ["webhook-operator", "check"].iter().chain(args);
    let Command::Check(args) = Cli::read(line).unwrap().command else {
        panic!("asked for check");
    };
    let mut out = Vec::new();
    let code = check_manifests(&args, text.as_bytes(), &mut out);
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn check_ends_with_a_code_that_says_how_it_went() {
    let good = "apiVersion: webhook-operator.dev/v1alpha1
kind: Webhook
metadata: {name: w}
spec: {providerRef: {name: p}, target: '9', url: 'https://hooks.example.com/'}
";
    // A provider that is not there is no finding, unless its type is said.
    assert_eq!(check_stdin(&["-"], good).0, EXIT_OK);
    assert_eq!(check_stdin(&["-", "--provider-type", "conpeek"], good).0, EXIT_OK);
    let (code, out) = check_stdin(&["-", "--provider-type", "Thulium", "-o", "json"], good);
    assert_eq!(code, EXIT_FAILURE, "{out}");
    assert!(out.contains("\"field\": \"spec.target\""), "{out}");
    assert_eq!(check_stdin(&["-"], "a: [").0, EXIT_USAGE);
    assert_eq!(check_stdin(&["/nowhere/at/all"], "").0, EXIT_USAGE);
    // Nothing to look at is said, and is no failure.
    assert_eq!(check_stdin(&["-"], "").0, EXIT_OK);
    let unknown = Cli::read(["webhook-operator", "check", "-", "--provider-type", "acme"]).unwrap_err();
    assert!(unknown.to_string().contains("known are Conpeek"), "{unknown}");
}
