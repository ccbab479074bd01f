//! The doubles as a process: prints one JSON line with the base URLs, then runs until it is told to end.
//!
//! Everything else is the library's.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use upstream_doubles::{Doubles, Options};

/// Strict doubles of the webhook APIs of Conpeek, Thulium, ricloud and Autocosmos.
///
/// Prints one JSON line with the base URLs once all of them listen. Ends by SIGTERM, Ctrl-C, or as asked below.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Loopback address of Conpeek; the others take the following ports. Port 0: any free ports.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Loopback address of the admin port. Port 0: any free port.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// JSON file with accounts and switches; see the README. Upstreams without an account get the demo account.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without the routes that no public document shows (overrides the switches of the file).
    #[arg(long)]
    documented_only: bool,
    /// Wait before each answer of the upstreams.
    #[arg(long, value_name = "MILLISECONDS")]
    latency: Option<u64>,
    /// Lets deliveries to this host name go to a loopback address. May be given several times.
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = parse_host)]
    host: Vec<(String, SocketAddr)>,
    /// Lets the receiver verify /ricloud/NAME with the secrets of the ricloud double. May be given several times.
    #[arg(long, value_name = "NAME")]
    follow_ricloud: Vec<String>,
    /// Ends when standard input is closed, so that the doubles never outlive who started them.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Ends after so many seconds at the latest.
    #[arg(long, value_name = "SECONDS")]
    lifetime: Option<u64>,
}

fn parse_host(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("NAME=ADDRESS is expected")?;
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not a loopback address"));
    }
    Ok((name.to_owned(), address))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "upstream-doubles: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let doubles = Doubles::start(options(&arguments)?).await?;
    for name in &arguments.follow_ricloud {
        doubles.follow_ricloud(name);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut output = io::stdout();
    writeln!(output, "{}", doubles.urls())?;
    output.flush()?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
        () = stdin_closes(), if arguments.until_stdin_closes => {}
        () = tokio::time::sleep(Duration::from_secs(arguments.lifetime.unwrap_or_default())),
            if arguments.lifetime.is_some() => {}
    }
    doubles.stop().await;
    Ok(())
}

fn options(arguments: &Arguments) -> io::Result<Options> {
    let mut options = match &arguments.config {
        None => Options::default(),
        Some(path) => {
            let explain =
                |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| explain(&error))?;
            serde_json::from_str(&text).map_err(|error| explain(&error))?
        }
    };
    options.add_demo_accounts();
    if arguments.documented_only {
        options.only_documented();
    }
    options.listen = arguments.listen.unwrap_or(options.listen);
    options.admin = arguments.admin.unwrap_or(options.admin);
    options.latency_millis = arguments.latency.unwrap_or(options.latency_millis);
    options.hosts.extend(arguments.host.iter().cloned());
    Ok(options)
}

/// Reads on a thread of its own: nothing waits for it when the process ends for another reason.
async fn stdin_closes() {
    let (closed, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = closed.send(());
    });
    let _ = wait.await;
}
