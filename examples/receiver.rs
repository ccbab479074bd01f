//! A receiver that verifies what the four upstreams deliver, to be copied: it uses nothing of the operator.
//!
//! It reads its secrets from the folders at which Kubernetes mounts them, again every few seconds, and accepts the
//! current value of a signing secret, the next and the previous one; so nothing is refused while the operator
//! rotates it. What it leaves to you: doing something with the event, once (both signing upstreams repeat
//! themselves, so remember the ids), and TLS.
//!
//! ```sh
//! cargo run --example receiver -- --ricloud DIR --autocosmos DIR --thulium DIR --conpeek DIR
//! ```
//!
//! | option | files in the folder | deliveries to |
//! |---|---|---|
//! | `--ricloud` | `secret`, `secret.next`, `secret.previous` | `POST /ricloud/{event id}` |
//! | `--autocosmos` | the same | `POST /autocosmos` |
//! | `--thulium` | `username`, `password` (a `kubernetes.io/basic-auth` Secret) | `POST /thulium` |
//! | `--conpeek` | `token`: the value of the header `X-Webhook-Token` | `POST /conpeek` |

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How old a signature may be, in seconds. A kept delivery could be sent again by anybody who saw it.
const TOLERANCE_SECONDS: i64 = 600;

/// How often the folders are read. Kubernetes itself brings a change within a minute or two.
const RELOAD: Duration = Duration::from_secs(5);

/// A receiver of webhooks.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    #[command(flatten)]
    folders: Folders,
}

/// Where the Secrets are mounted.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Folders {
    /// Signing secret of ricloud, which the operator writes
    #[arg(long)]
    pub(crate) ricloud: Option<PathBuf>,
    /// Signing secret of Autocosmos
    #[arg(long)]
    pub(crate) autocosmos: Option<PathBuf>,
    /// Basic authentication of Thulium
    #[arg(long)]
    pub(crate) thulium: Option<PathBuf>,
    /// Header of Conpeek
    #[arg(long)]
    pub(crate) conpeek: Option<PathBuf>,
}

/// What was read from the folders.
#[derive(Default)]
struct Secrets {
    ricloud: Vec<Vec<u8>>,
    autocosmos: Vec<Vec<u8>>,
    thulium: Option<(Vec<u8>, Vec<u8>)>,
    conpeek: Option<Vec<u8>>,
}

/// The receiver.
pub(crate) struct Receiver {
    folders: Folders,
    secrets: RwLock<Secrets>,
    /// Seconds since 1970.
    now: fn() -> i64,
}

impl Receiver {
    /// A receiver with the secrets of these folders.
    ///
    /// # Errors
    ///
    /// A folder or a file in it cannot be read.
    pub(crate) fn new(folders: Folders, now: fn() -> i64) -> io::Result<Self> {
        let secrets = RwLock::new(read(&folders)?);
        Ok(Self {
            folders,
            secrets,
            now,
        })
    }

    /// Reads the folders again. What cannot be read leaves everything as it was.
    ///
    /// # Errors
    ///
    /// As [`Receiver::new`].
    pub(crate) fn reload(&self) -> io::Result<()> {
        let secrets = read(&self.folders)?;
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
        Ok(())
    }

    /// Answers by what `judge` says: 401 makes a test of the operator say `SignatureRejected`.
    fn answer(&self, judge: impl FnOnce(&Secrets) -> bool) -> StatusCode {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        if judge(&secrets) {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::UNAUTHORIZED
        }
    }
}

/// The routes. ricloud appends the id of each event to the URL as one more segment.
pub(crate) fn routes(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/ricloud", post(ricloud))
        .route("/ricloud/{event}", post(ricloud))
        .route("/autocosmos", post(autocosmos))
        .route("/thulium", post(thulium))
        .route("/conpeek", post(conpeek))
        .with_state(receiver)
}

/// The value of a header that stands there once and is text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether `mac` is the HMAC-SHA256 of the parts with one of the secrets; compared in constant time.
fn signed(secrets: &[Vec<u8>], parts: &[&[u8]], mac: &[u8]) -> bool {
    secrets.iter().any(|secret| {
        let Ok(mut own) = Hmac::<Sha256>::new_from_slice(secret) else {
            return false;
        };
        for part in parts {
            own.update(part);
        }
        own.verify_slice(mac).is_ok()
    })
}

/// `Ricloud-Signature: t=<unix seconds>,s=<base64>` over the time, a full stop and the raw body. The body must be the
/// bytes as they came: parsed and written anew, it is another one.
async fn ricloud(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let parts = || {
        let (time, mac) = header(&headers, "Ricloud-Signature")?.split_once(',')?;
        let time = time.strip_prefix("t=")?;
        let mac = STANDARD.decode(mac.strip_prefix("s=")?).ok()?;
        Some((time, time.parse::<i64>().ok()?, mac))
    };
    let Some((time, seconds, mac)) = parts() else {
        return StatusCode::UNAUTHORIZED;
    };
    receiver.answer(|secrets| {
        signed(&secrets.ricloud, &[time.as_bytes(), b".", &body], &mac)
            && (receiver.now)().saturating_sub(seconds) <= TOLERANCE_SECONDS
    })
}

/// `Notification-Signature` over the values of up to three headers. The body is not covered: fetch what matters from
/// Autocosmos itself. How the signature is written is not public; change the separator here when you know it.
async fn autocosmos(State(receiver): State<Arc<Receiver>>, headers: HeaderMap) -> StatusCode {
    const SEPARATOR: &[u8] = b"";
    let value = |name| header(&headers, name);
    let (Some(id), Some(time), Some(signature)) = (
        value("Notification-Hook-ID"),
        value("Notification-Timestamp"),
        value("Notification-Signature"),
    ) else {
        return StatusCode::UNAUTHORIZED;
    };
    // Hexadecimal digits are Base64 too, of something longer.
    let mac = hex(signature).filter(|mac| mac.len() == 32);
    let Some(mac) = mac.or_else(|| STANDARD.decode(signature).ok()) else {
        return StatusCode::UNAUTHORIZED;
    };
    let mut parts = vec![id.as_bytes(), SEPARATOR, time.as_bytes()];
    if let Some(topic) = value("Notification-Topic") {
        parts.extend([SEPARATOR, topic.as_bytes()]);
    }
    // The form of the time is not public either: only one that can be read is judged.
    let age = time
        .parse::<jiff::Timestamp>()
        .map_or(0, |time| (receiver.now)().saturating_sub(time.as_second()));
    receiver.answer(|secrets| signed(&secrets.autocosmos, &parts, &mac) && age <= TOLERANCE_SECONDS)
}

/// Basic authentication; Thulium signs nothing.
async fn thulium(State(receiver): State<Arc<Receiver>>, headers: HeaderMap) -> StatusCode {
    let given = header(&headers, "Authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok());
    receiver.answer(|secrets| match (&secrets.thulium, given) {
        (Some((username, password)), Some(given)) => {
            let expected = [username.as_slice(), b":", password.as_slice()].concat();
            expected.ct_eq(&given).into()
        }
        _ => false,
    })
}

/// A header with a secret value, from `headers` of the Webhook; Conpeek signs nothing.
async fn conpeek(State(receiver): State<Arc<Receiver>>, headers: HeaderMap) -> StatusCode {
    let given = header(&headers, "X-Webhook-Token");
    receiver.answer(|secrets| match (&secrets.conpeek, given) {
        (Some(expected), Some(given)) => expected.ct_eq(given.as_bytes()).into(),
        _ => false,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .map(|char| char.to_digit(16))
        .collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect()
}

fn read(folders: &Folders) -> io::Result<Secrets> {
    let signing = |folder: &Option<PathBuf>| {
        let Some(folder) = folder else {
            return Ok(Vec::new());
        };
        let mut found = vec![file(folder, "secret")?];
        // These two are there during a rotation only.
        for name in ["secret.next", "secret.previous"] {
            match file(folder, name) {
                Ok(secret) => found.push(secret),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, io::Error>(found)
    };
    let thulium =
        |folder: &PathBuf| Ok::<_, io::Error>((file(folder, "username")?, file(folder, "password")?));
    Ok(Secrets {
        ricloud: signing(&folders.ricloud)?,
        autocosmos: signing(&folders.autocosmos)?,
        thulium: folders.thulium.as_ref().map(thulium).transpose()?,
        conpeek: folders
            .conpeek
            .as_ref()
            .map(|folder| file(folder, "token"))
            .transpose()?,
    })
}

/// A secret as it is. An empty one would let everybody in.
fn file(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let path = folder.join(name);
    let told = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let secret = fs::read(&path).map_err(|error| io::Error::new(error.kind(), told(&error)))?;
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, told(&"empty")));
    }
    Ok(secret)
}

fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let receiver = Arc::new(Receiver::new(options.folders, unix_now)?);
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let reloading = Arc::clone(&receiver);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RELOAD).await;
            if let Err(error) = reloading.reload() {
                eprintln!("the secrets stay as they were: {error}");
            }
        }
    });
    axum::serve(listener, routes(receiver)).await
}
