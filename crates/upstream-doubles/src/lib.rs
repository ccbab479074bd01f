//! Strict doubles of the webhook APIs of Conpeek, Thulium, ricloud and Autocosmos, and a receiver for deliveries.
//!
//! They are an independent reading of the four contracts and share no code with the operator: they refuse what the
//! contracts do not allow, lack what may be lacking (switchable), fail on request, and remember what they saw.
//! Everything binds loopback addresses only, and deliveries go to loopback addresses only.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use upstream_doubles::{Doubles, Fault, Options, ThuliumAccount};
//!
//! let doubles = Doubles::start(Options::default()).await?;
//! doubles.thulium().add_account(ThuliumAccount::new("team-a", "secret"));
//! doubles.thulium().set_fault(Fault::status(503).method("POST").times(1));
//! // ... point a client at doubles.thulium().url() ...
//! assert!(doubles.thulium().duplicates().is_empty());
//! doubles.stop().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod autocosmos;
mod conpeek;
mod delivery;
mod double;
mod faults;
mod journal;
mod models;
mod receiver;
mod ricloud;
mod secret;
mod server;
pub mod sign;
mod source;
mod thulium;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use autocosmos::{
    AppWebhook, Autocosmos, AutocosmosAccount, AutocosmosBehaviour, CustomHeader, PutMissing, ReplayRule,
};
pub use conpeek::{
    BodyStyle, Conpeek, ConpeekAccount, ConpeekBehaviour, ConpeekWebhook, FlagEcho, OtherStyle, RetryConfig,
    Success,
};
pub use delivery::{DELIVERY_TIMEOUT, Delivered, HostMap};
pub use double::{Call, Double, Reply, Upstream};
pub use faults::{ActiveFault, Effect, Fault, FaultId, RetryAfter};
pub use journal::{Counts, DEFAULT_JOURNAL_LIMIT, Duplicate, JOURNAL_BODY_BYTES, Seen};
pub use models::Models;
pub use receiver::{Judgement, RECEIVED_BODY_BYTES, RECEIVED_LIMIT, Received, Receiver};
pub use ricloud::{
    ConfigState, DeleteSupport, IdStyle, ImplicitTest, References, Ricloud, RicloudAccount, RicloudBehaviour,
    StateNew, TaskCourse, Verdict, WebhookConfig,
};
pub use secret::Secret;
pub use server::Reset;
pub use source::Source;
pub use thulium::{
    Paging, PasswordEcho, RefusalBody, Thulium, ThuliumAccount, ThuliumBehaviour, ThuliumWebhook,
};

use delivery::Courier;
use double::Setting;
use server::StopHandle;

/// Whether a route that no public document shows exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum RouteSupport {
    /// It works.
    #[default]
    Supported,
    /// 404, as for any path that is not there.
    NotFound,
    /// 405 with `Allow`.
    MethodNotAllowed,
}

/// Accounts and switches of one upstream at the start.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setup<A, B: Default> {
    /// Accounts; more can be added later.
    #[serde(default = "Vec::new")]
    pub accounts: Vec<A>,
    /// Switches; they can be changed later.
    #[serde(default)]
    pub behaviour: B,
}

impl<A, B: Default> Default for Setup<A, B> {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            behaviour: B::default(),
        }
    }
}

/// How to start. As JSON it is the file that the binary takes by `--config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Options {
    /// Loopback address of Conpeek; the others take the following ports (Thulium, ricloud, Autocosmos, receiver).
    /// Port 0, the default: any five free ports.
    pub listen: SocketAddr,
    /// Loopback address of the admin port. Port 0, the default: any free port.
    pub admin: SocketAddr,
    /// Waits before each answer of the upstreams, in milliseconds.
    pub latency_millis: u64,
    /// Requests kept per upstream.
    pub journal_limit: usize,
    /// Names that deliveries may go to, and the loopback addresses they lead to.
    pub hosts: HostMap,
    /// Conpeek.
    pub conpeek: Setup<ConpeekAccount, ConpeekBehaviour>,
    /// Thulium.
    pub thulium: Setup<ThuliumAccount, ThuliumBehaviour>,
    /// ricloud.
    pub ricloud: Setup<RicloudAccount, RicloudBehaviour>,
    /// Autocosmos.
    pub autocosmos: Setup<AutocosmosAccount, AutocosmosBehaviour>,
}

impl Default for Options {
    /// No accounts, every undocumented route supported, free ports.
    fn default() -> Self {
        Self {
            listen: server::any_port(),
            admin: server::any_port(),
            latency_millis: 0,
            journal_limit: DEFAULT_JOURNAL_LIMIT,
            hosts: HostMap::new(),
            conpeek: Setup::default(),
            thulium: Setup::default(),
            ricloud: Setup::default(),
            autocosmos: Setup::default(),
        }
    }
}

impl Options {
    /// The default with one account per upstream, named in the README.
    pub fn demo() -> Self {
        let mut options = Self::default();
        options.add_demo_accounts();
        options
    }

    /// Adds the demo account wherever there is no account.
    pub fn add_demo_accounts(&mut self) {
        if self.conpeek.accounts.is_empty() {
            self.conpeek
                .accounts
                .push(ConpeekAccount::new("demo", "demo-conpeek-key"));
        }
        if self.thulium.accounts.is_empty() {
            self.thulium
                .accounts
                .push(ThuliumAccount::new("api_demo", "demo-thulium-password"));
        }
        if self.ricloud.accounts.is_empty() {
            self.ricloud
                .accounts
                .push(RicloudAccount::new("demo", "demo-ricloud-token", "demo"));
        }
        if self.autocosmos.accounts.is_empty() {
            self.autocosmos
                .accounts
                .push(AutocosmosAccount::new("demo-app-key", "demo-app-secret"));
        }
    }

    /// Takes away what no public document shows: Conpeek GET, Thulium PUT and DELETE, ricloud DELETE.
    pub fn only_documented(&mut self) {
        self.conpeek.behaviour = ConpeekBehaviour::documented();
        self.thulium.behaviour = ThuliumBehaviour::documented();
        self.ricloud.behaviour = RicloudBehaviour::documented();
    }
}

/// What handles and admin port share.
pub(crate) struct Parts {
    conpeek: Arc<Double<Conpeek>>,
    thulium: Arc<Double<Thulium>>,
    ricloud: Arc<Double<Ricloud>>,
    autocosmos: Arc<Double<Autocosmos>>,
    receiver: Arc<Receiver>,
    admin: SocketAddr,
}

impl Parts {
    fn urls(&self) -> Value {
        json!({
            "conpeek": self.conpeek.url(),
            "thulium": self.thulium.url(),
            "ricloud": self.ricloud.url(),
            "autocosmos": self.autocosmos.url(),
            "receiver": self.receiver.url(),
            "admin": format!("http://{}", self.admin),
        })
    }

    fn reset(&self) {
        self.conpeek.reset();
        self.thulium.reset();
        self.ricloud.reset();
        self.autocosmos.reset();
        self.receiver.clear();
    }

    fn follow_ricloud(&self, name: &str) {
        let ricloud = Arc::clone(self.ricloud.upstream());
        let path = format!("/ricloud/{name}");
        self.receiver
            .expect_ricloud_from(name, move || ricloud.secrets_for_path(&path));
    }
}

/// The running doubles. Dropping them stops everything soon; [`Doubles::stop`] waits until the ports are closed.
pub struct Doubles {
    parts: Arc<Parts>,
    tasks: Vec<JoinHandle<Option<()>>>,
    stop: StopHandle,
}

impl Doubles {
    /// Binds all ports and serves them on the current tokio runtime.
    ///
    /// # Errors
    /// A port is taken, or an address is not a loopback address.
    pub async fn start(options: Options) -> io::Result<Self> {
        let [conpeek, thulium, ricloud, autocosmos, receiver] = bind_five(options.listen).await?;
        let admin = server::bind(options.admin).await?;
        let (handle, stop) = server::stop_pair();
        let courier = Courier::new(options.hosts);
        let source = Source::real();
        let setting = Setting {
            journal_limit: options.journal_limit,
            latency: Duration::from_millis(options.latency_millis),
            stop: stop.clone(),
            source: source.clone(),
        };

        let Setup { accounts, behaviour } = options.conpeek;
        let upstream = Arc::new(Conpeek::new(behaviour, accounts, courier.clone()));
        let (conpeek, conpeek_task) = Double::start(upstream, conpeek, &setting)?;
        let Setup { accounts, behaviour } = options.thulium;
        let upstream = Arc::new(Thulium::new(behaviour, accounts, courier.clone()));
        let (thulium, thulium_task) = Double::start(upstream, thulium, &setting)?;
        let Setup { accounts, behaviour } = options.ricloud;
        let upstream = Arc::new(Ricloud::new(
            behaviour,
            accounts,
            courier.clone(),
            stop.clone(),
            source.clone(),
        ));
        let (ricloud, ricloud_task) = Double::start(upstream, ricloud, &setting)?;
        let Setup { accounts, behaviour } = options.autocosmos;
        let upstream = Arc::new(Autocosmos::new(behaviour, accounts, courier, source));
        let (autocosmos, autocosmos_task) = Double::start(upstream, autocosmos, &setting)?;

        let receiver_state = Receiver::new(receiver.local_addr()?);
        let router = receiver_state.router();
        let receiver_task = stop.spawn(server::serve_router(receiver, stop.clone(), router));
        let parts = Arc::new(Parts {
            conpeek,
            thulium,
            ricloud,
            autocosmos,
            receiver: receiver_state,
            admin: admin.local_addr()?,
        });
        let admin_task = stop.spawn(server::serve_router(admin, stop.clone(), admin::router(&parts)));
        let tasks = vec![
            conpeek_task,
            thulium_task,
            ricloud_task,
            autocosmos_task,
            receiver_task,
            admin_task,
        ];
        Ok(Self {
            parts,
            tasks,
            stop: handle,
        })
    }

    /// Conpeek.
    pub fn conpeek(&self) -> &Arc<Double<Conpeek>> {
        &self.parts.conpeek
    }

    /// Thulium.
    pub fn thulium(&self) -> &Arc<Double<Thulium>> {
        &self.parts.thulium
    }

    /// ricloud.
    pub fn ricloud(&self) -> &Arc<Double<Ricloud>> {
        &self.parts.ricloud
    }

    /// Autocosmos.
    pub fn autocosmos(&self) -> &Arc<Double<Autocosmos>> {
        &self.parts.autocosmos
    }

    /// The receiver.
    pub fn receiver(&self) -> &Arc<Receiver> {
        &self.parts.receiver
    }

    /// Base URL of the admin port, without a slash at the end.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.parts.admin)
    }

    /// All base URLs by name: `conpeek`, `thulium`, `ricloud`, `autocosmos`, `receiver`, `admin`.
    pub fn urls(&self) -> Value {
        self.parts.urls()
    }

    /// Lets the receiver verify `/ricloud/{name}` with the secrets that the ricloud double made for that URL.
    pub fn follow_ricloud(&self, name: &str) {
        self.parts.follow_ricloud(name);
    }

    /// Forgets objects, requests, faults and deliveries; accounts, switches and latency stay.
    pub fn reset(&self) {
        self.parts.reset();
    }

    /// Ends everything and waits until the ports are closed.
    pub async fn stop(self) {
        let Self { tasks, stop, .. } = self;
        drop(stop);
        for task in tasks {
            // A task that panicked has closed its port as well.
            let _ = task.await;
        }
    }
}

async fn bind_five(first: SocketAddr) -> io::Result<[TcpListener; 5]> {
    let at = |offset: u16| {
        let mut address = first;
        if first.port() != 0 {
            address.set_port(first.port().saturating_add(offset));
        }
        server::bind(address)
    };
    Ok([
        at(0).await?,
        at(1).await?,
        at(2).await?,
        at(3).await?,
        at(4).await?,
    ])
}

/// A lock that outlives a panic of another holder: the data are plain values, whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An absolute http or https URL with a host.
pub(crate) fn is_http_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

pub(crate) fn parse_iso(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// `Wed, 01 May 2024 12:00:00 GMT`.
pub(crate) fn http_date(time: SystemTime) -> String {
    let format = |time: Timestamp| rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
    Timestamp::try_from(time).and_then(format).unwrap_or_default()
}

/// Reads an HTTP date in its one current form; other zones and the two obsolete forms are refused.
pub(crate) fn parse_http_date(text: &str) -> Option<SystemTime> {
    let time = SystemTime::from(rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?);
    (http_date(time) == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn http_dates_are_read_strictly() {
        let text = "Wed, 01 May 2024 12:00:00 GMT";
        let time = parse_http_date(text).unwrap();
        assert_eq!(time.duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_714_564_800);
        for wrong in [
            "Wed, 1 May 2024 12:00:00 GMT",
            "Wed, 01 May 2024 12:00:00 +0000",
            "Thu, 01 May 2024 12:00:00 GMT",
            "",
        ] {
            assert!(parse_http_date(wrong).is_none(), "{wrong}");
        }
    }
}
