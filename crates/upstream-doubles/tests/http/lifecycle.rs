//! Starting and ending, in the process and as a process.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use upstream_doubles::{Doubles, Options, RouteSupport};

use crate::common::{client, send, until};

fn addresses(urls: &Value) -> Vec<SocketAddr> {
    let text = |url: &Value| url.as_str().unwrap().replace("http://", "").replace("/api", "");
    urls.as_object()
        .unwrap()
        .values()
        .map(|url| text(url).parse().unwrap())
        .collect()
}

fn open(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok()
}

/// A loopback address that only one test uses: another's server may get a free port again at once, and would answer
/// for the one whose end is waited for. Only Linux has all of 127.0.0.0/8 without being told.
fn alone(host: u8) -> Options {
    let ip = if cfg!(target_os = "linux") {
        [127, 0, 7, host]
    } else {
        [127, 0, 0, 1]
    };
    let address = SocketAddr::from((ip, 0));
    Options {
        listen: address,
        admin: address,
        ..Options::demo()
    }
}

#[tokio::test]
async fn several_run_side_by_side_and_stop_closes_all_ports() {
    let first = Doubles::start(alone(1)).await.unwrap();
    let second = Doubles::start(alone(1)).await.unwrap();
    let urls = first.urls();
    assert_eq!(addresses(&urls).len(), 6);
    first.stop().await;
    // At once but for a process that another test is just starting: until it runs its program it holds all that this
    // one has open.
    until("the ports of the first to close", || {
        addresses(&urls).iter().all(|address| !open(address))
    })
    .await;
    assert!(addresses(&second.urls()).iter().all(open));
    let urls = second.urls();
    drop(second);
    until("the ports to close", || {
        addresses(&urls).iter().all(|address| !open(address))
    })
    .await;
}

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    for wrong in ["0.0.0.0:0", "[::]:0"] {
        let listen = Options {
            listen: wrong.parse().unwrap(),
            ..Options::default()
        };
        assert!(Doubles::start(listen).await.is_err(), "{wrong}");
        let admin = Options {
            admin: wrong.parse().unwrap(),
            ..Options::default()
        };
        assert!(Doubles::start(admin).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn only_documented_takes_the_rest_away() {
    let mut options = Options::demo();
    options.only_documented();
    let doubles = Doubles::start(options).await.unwrap();
    assert_eq!(doubles.conpeek().behaviour().get, RouteSupport::NotFound);
    let url = format!("{}/webhooks/1", doubles.thulium().url());
    let request = client()
        .delete(url)
        .basic_auth("api_demo", Some("demo-thulium-password"));
    assert_eq!(send(request).await.status, 404);
}

/// The binary; killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(arguments: &[&str]) -> (Self, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upstream-doubles"));
        command.args(arguments).args(["--lifetime", "60"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Self(child), serde_json::from_str(&line).unwrap())
    }

    fn ends(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

#[test]
fn the_binary_ends_with_standard_input() {
    let listen = alone(2).listen.to_string();
    let (mut running, urls) =
        Running::start(&["--until-stdin-closes", "--listen", &listen, "--admin", &listen]);
    assert!(addresses(&urls).iter().all(open));
    running
        .0
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"still here\n")
        .unwrap();
    assert!(running.0.try_wait().unwrap().is_none());
    drop(running.0.stdin.take());
    assert!(running.ends());
    assert!(addresses(&urls).iter().all(|address| !open(address)));
}

#[test]
fn the_binary_ends_by_sigterm() {
    let (mut running, _) = Running::start(&[]);
    let status = Command::new("kill")
        .arg(running.0.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(running.ends());
}

#[test]
fn the_binary_ends_after_its_lifetime() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upstream-doubles"));
    let begin = Instant::now();
    let output = command.args(["--lifetime", "1"]).output().unwrap();
    assert!(output.status.success() && begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn the_binary_takes_a_file() {
    let path = std::env::temp_dir().join(format!("upstream-doubles-{}.json", std::process::id()));
    let config = r#"{"ricloud": {"accounts": [{"name": "k", "token": "file-token", "organisation": "o"}],
                                 "behaviour": {"ids": "Number"}}}"#;
    std::fs::write(&path, config).unwrap();
    let (_running, urls) = Running::start(&["--config", path.to_str().unwrap()]);
    let key = client().get(format!("{}/key", urls["ricloud"].as_str().unwrap()));
    let answer = send(key.header("Authorization", "Token file-token")).await;
    assert!(answer.json()["id"].is_u64(), "{answer:?}");
    std::fs::write(&path, r#"{"ricloud": {"acounts": []}}"#).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_upstream-doubles"));
    let output = command.arg("--config").arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("acounts"));
}
