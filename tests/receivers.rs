//! `docs/receivers.md` says what is so: its commands print what stands there, its vectors are right, and the small
//! receiver of the examples accepts its requests and nothing that was changed about them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use jiff::Timestamp;
use tower::ServiceExt;
use webhook_operator::{
    api::provider::SignatureEncoding,
    cli::{Cli, Command},
    net::SecretText,
    provider::autocosmos::sign::{DeliveryStyle, Notification, sign_delivery, verify_delivery_any},
    verify::{self, request::Delivery},
};

#[allow(dead_code, reason = "its main and command line are not called here")]
#[path = "../examples/receiver.rs"]
mod receiver;

use receiver::{Folders, Receiver};

/// When the two signatures of the page were made.
const RICLOUD_TIME: i64 = 1_700_000_000;
const AUTOCOSMOS_TIME: i64 = 1_714_564_800;

/// The page, taken apart.
struct Page {
    text: String,
    /// Requests by upstream, the first of each under its plain name.
    requests: BTreeMap<String, Vec<String>>,
    /// Secrets by file name.
    secrets: BTreeMap<String, String>,
    /// Command lines with what they print.
    commands: Vec<(String, String)>,
}

impl Page {
    fn read() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/receivers.md");
        let text = fs::read_to_string(path).unwrap();
        let mut page = Self {
            text: text.clone(),
            requests: BTreeMap::new(),
            secrets: BTreeMap::new(),
            commands: Vec::new(),
        };
        let mut fences = text.split("\n```");
        fences.next();
        for block in fences.step_by(2) {
            let (kind, content) = block.split_once('\n').unwrap();
            match kind {
                "http" => {
                    let upstream = content.split(['/', ' ']).nth(2).unwrap().to_owned();
                    page.requests
                        .entry(upstream)
                        .or_default()
                        .push(content.to_owned());
                }
                "console" => page.console(content),
                _ => {}
            }
        }
        page
    }

    fn console(&mut self, block: &str) {
        for entry in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, output) = entry.split_once('\n').unwrap_or((entry, ""));
            match command.strip_prefix("cat ") {
                Some(file) => {
                    self.secrets.insert(file.to_owned(), output.trim_end().to_owned());
                }
                None => self
                    .commands
                    .push((command.to_owned(), output.trim_end().to_owned())),
            }
        }
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("receivers-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `verify` as the command line does; returns its exit code and what it prints on both streams.
fn run(line: &str, stdin: &str) -> (u8, String, String) {
    let Command::Verify(args) = Cli::read(line.split_whitespace()).unwrap().command else {
        panic!("{line}: not verify");
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let now = Timestamp::from_second(2_000_000_000).unwrap();
    let code = verify::command::run(&args, now, stdin.as_bytes(), &mut out, &mut err);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn the_commands_print_what_the_page_says() {
    let page = Page::read();
    let folder = Folder::new("commands");
    for (file, secret) in &page.secrets {
        folder.put(file, secret);
    }
    assert_eq!((page.secrets.len(), page.commands.len()), (4, 5));
    for (command, expected) in &page.commands {
        let (line, file) = command.split_once(" < ").unwrap();
        let request = &page.requests[file.strip_suffix(".http").unwrap()][0];
        let path = format!("{}/", folder.0.display());
        let line = line.replace("--secret-file ", &format!("--secret-file {path}"));
        let (code, out, err) = run(&line, request);
        assert_eq!(out.replace(&path, "").trim_end(), expected, "{command}");
        assert_eq!(
            (code, err.as_str()),
            (u8::from(!expected.starts_with("valid")), ""),
            "{command}"
        );
    }
}

#[test]
fn the_vectors_are_right() {
    let page = Page::read();
    let secret = SecretText::from(page.secrets["autocosmos.key"].as_str());
    let delivery = Delivery::read(page.requests["autocosmos"][0].as_bytes()).unwrap();
    let mut of = Notification {
        hook_id: delivery.header("Notification-Hook-ID").unwrap(),
        timestamp: delivery.header("Notification-Timestamp").unwrap(),
        topic: delivery.header("Notification-Topic"),
    };
    let mut seen = Vec::new();
    for row in page
        .text
        .replace("\\|", "PIPE")
        .lines()
        .filter(|line| line.ends_with("` |"))
    {
        let cells: Vec<&str> = row
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let [name, base64, hex] = cells[..] else { continue };
        let separator = match name {
            "none" => "",
            "LF" => "\n",
            "PIPE" => "|",
            other => other,
        };
        for (encoding, expected) in [(SignatureEncoding::Base64, base64), (SignatureEncoding::Hex, hex)] {
            let style = DeliveryStyle { separator, encoding };
            assert_eq!(sign_delivery(&secret, of, style), expected, "{row}");
        }
        seen.push(separator.to_owned());
    }
    assert_eq!(seen, ["", "\n", ".", "|"]);
    of.topic = None;
    let plain = page.text.split("Without `Notification-Topic`: `").nth(1).unwrap();
    assert!(verify_delivery_any(&secret, of, plain.split('`').next().unwrap()).is_some());
    // Every request of the page is whole, and the second one of ricloud is signed as the first is.
    let folder = Folder::new("vectors");
    let key = folder.put("key", &page.secrets["ricloud.key"]);
    assert_eq!(page.requests["ricloud"].len(), 2);
    for request in &page.requests["ricloud"] {
        let line = format!(
            "webhook-operator verify --provider ricloud --at {RICLOUD_TIME} --secret-file {}",
            key.display()
        );
        assert_eq!(run(&line, request).0, 0, "{request}");
    }
}

/// The receiver with the secrets of the page.
fn receiver(folder: &Folder, now: fn() -> i64) -> Arc<Receiver> {
    let page = Page::read();
    let secret = |name: &str| page.secrets[&format!("{name}.key")].clone();
    folder.put("ricloud/secret", &secret("ricloud"));
    folder.put("autocosmos/secret", &secret("autocosmos"));
    folder.put("thulium/username", "hookuser");
    folder.put("thulium/password", &secret("thulium"));
    folder.put("conpeek/token", &secret("conpeek"));
    let path = |name| Some(folder.0.join(name));
    let folders = Folders {
        ricloud: path("ricloud"),
        autocosmos: path("autocosmos"),
        thulium: path("thulium"),
        conpeek: path("conpeek"),
    };
    Arc::new(Receiver::new(folders, now).unwrap())
}

async fn deliver(receiver: &Arc<Receiver>, raw: &str) -> StatusCode {
    let path = raw.split(' ').nth(1).unwrap();
    let delivery = Delivery::read(raw.as_bytes()).unwrap();
    let mut request = Request::post(path);
    for (name, value) in &delivery.headers {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(delivery.body)).unwrap();
    receiver::routes(Arc::clone(receiver))
        .oneshot(request)
        .await
        .unwrap()
        .status()
}

#[tokio::test]
async fn the_small_receiver_accepts_what_is_genuine_and_nothing_else() {
    let page = Page::read();
    let folder = Folder::new("genuine");
    for (upstream, now, changes) in [
        (
            "ricloud",
            (|| RICLOUD_TIME + 600) as fn() -> i64,
            &[
                ("cfg-77", "cfg-78"),
                ("t=1700000000", "t=1700000001"),
                ("s=ebim", "s=ebin"),
                (
                    "Ricloud-Signature: ",
                    "Ricloud-Signature: t=1,s=AAAA\nRicloud-Signature: ",
                ),
                ("Ricloud-Signature", "X-Other"),
            ][..],
        ),
        (
            "autocosmos",
            || AUTOCOSMOS_TIME + 600,
            &[
                ("12:00:00Z", "12:00:01Z"),
                ("invitaciones", "otra"),
                ("ID: 3f2a", "ID: 3f2b"),
                ("Signature: Omwk", "Signature: Omwl"),
                ("Notification-Signature", "X-Other"),
                ("Notification-Topic: invitaciones\n", ""),
            ],
        ),
        (
            "thulium",
            || 0,
            &[
                ("aG9va3VzZXI6aG9va3Bhc3M=", "aG9va3VzZXI6aG9va3Bhc3N="),
                ("Authorization", "X-Other"),
            ],
        ),
        (
            "conpeek",
            || 0,
            &[("token-0001", "token-0002"), ("X-Webhook-Token", "X-Other")],
        ),
    ] {
        let receiver = receiver(&folder, now);
        for request in &page.requests[upstream] {
            assert_eq!(
                deliver(&receiver, request).await,
                StatusCode::NO_CONTENT,
                "{request}"
            );
        }
        let request = &page.requests[upstream][0];
        for (from, to) in changes {
            let changed = request.replacen(from, to, 1);
            assert_ne!(&changed, request, "{from}");
            assert_eq!(
                deliver(&receiver, &changed).await,
                StatusCode::UNAUTHORIZED,
                "{from}: {changed}"
            );
        }
    }
    for (upstream, now) in [
        ("ricloud", (|| RICLOUD_TIME + 601) as fn() -> i64),
        ("autocosmos", || AUTOCOSMOS_TIME + 601),
    ] {
        let late = receiver(&folder, now);
        assert_eq!(
            deliver(&late, &page.requests[upstream][0]).await,
            StatusCode::UNAUTHORIZED,
            "{upstream}"
        );
    }
}

#[tokio::test]
async fn the_small_receiver_follows_a_rotation() {
    let page = Page::read();
    let folder = Folder::new("rotation");
    let receiver = receiver(&folder, || AUTOCOSMOS_TIME);
    let old = page.requests["autocosmos"][0].clone();
    let secret = page.secrets["autocosmos.key"].clone();
    let new_secret = "a-second-secret-of-many-characters";
    let delivery = Delivery::read(old.as_bytes()).unwrap();
    let of = Notification {
        hook_id: delivery.header("Notification-Hook-ID").unwrap(),
        timestamp: delivery.header("Notification-Timestamp").unwrap(),
        topic: delivery.header("Notification-Topic"),
    };
    let style = |encoding| DeliveryStyle {
        separator: "",
        encoding,
    };
    let signature = |encoding| sign_delivery(&new_secret.into(), of, style(encoding));
    let given = delivery.header("Notification-Signature").unwrap();
    let new = old.replace(given, &signature(SignatureEncoding::Base64));
    let hex = old.replace(given, &signature(SignatureEncoding::Hex));
    let verdicts = async || {
        [
            deliver(&receiver, &old).await.is_success(),
            deliver(&receiver, &new).await.is_success(),
        ]
    };
    assert_eq!(verdicts().await, [true, false]);

    folder.put("autocosmos/secret.next", new_secret);
    assert_eq!(verdicts().await, [true, false], "not read again yet");
    receiver.reload().unwrap();
    assert_eq!(verdicts().await, [true, true]);
    assert!(deliver(&receiver, &hex).await.is_success());

    folder.put("autocosmos/secret", new_secret);
    folder.put("autocosmos/secret.previous", &secret);
    fs::remove_file(folder.0.join("autocosmos/secret.next")).unwrap();
    receiver.reload().unwrap();
    assert_eq!(verdicts().await, [true, true]);

    fs::remove_file(folder.0.join("autocosmos/secret.previous")).unwrap();
    receiver.reload().unwrap();
    assert_eq!(verdicts().await, [false, true]);

    // An empty secret would let everybody in; a missing one means that something is being written.
    folder.put("autocosmos/secret", "");
    assert!(
        receiver
            .reload()
            .unwrap_err()
            .to_string()
            .ends_with("autocosmos/secret: empty")
    );
    fs::remove_file(folder.0.join("autocosmos/secret")).unwrap();
    assert!(receiver.reload().is_err());
    assert_eq!(verdicts().await, [false, true], "the secrets stay as they were");
}
