//! An API server in memory, as far as a controller and its users can tell: versions and conflicts, lists in pages and
//! watches, merge patches, the status subresource, finalizers, namespaces that end with everything in them, and owner
//! references. Defaults come from the operator's own CRDs; validation and admission are left to the real one.

mod blur;
mod request;
mod schema;
mod store;
mod watch;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};
use webhook_operator::clock::Clock;

pub use self::{
    blur::Blur,
    store::{Change, ChangeKind, Id, Refusal},
};
use self::{blur::Blurred, request::Target, store::State};
use crate::wire::{Call, CallKind, Line, Peer};

/// Answers of a request: all at once, or as a watch goes on.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The API server; clones are the same one.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Wakes watches in the order in which they wait, and not, as a channel of tokio does, in any.
    changed: Arc<Notify>,
    blurred: Arc<Mutex<Blurred>>,
    clock: Clock,
}

impl ApiServer {
    /// An API server with the namespaces `default` and `kube-system`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let server = Self {
            state: Arc::new(Mutex::new(State::new(clock.clone()))),
            changed: Arc::default(),
            blurred: Arc::default(),
            clock,
        };
        for name in ["default", "kube-system"] {
            server.namespace(name);
        }
        server
    }

    /// A client whose calls go over `line`; without retries and with `default` as its namespace.
    #[must_use]
    pub fn client(&self, line: &Line, default_namespace: &str) -> Client {
        let (server, line) = (self.clone(), line.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, line) = (server.clone(), line.clone());
            async move { server.receive(&line, request).await }
        });
        Client::new(service, default_namespace)
    }

    async fn receive(&self, line: &Line, request: Request<Body>) -> Result<Answer, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let target = Target::read(&parts, &body);
        let call = Call {
            process: line.process(),
            peer: Peer::ApiServer,
            kind: target.kind(),
            text: target.to_string(),
        };
        let written = target.written();
        let touch = || {
            if let Some(id) = written {
                self.touch(&id);
            }
        };
        let (server, gone) = (self.clone(), line.clone());
        let carry_out = async move { server.answer(&target, gone) };
        line.carry(call, touch, carry_out)
            .await
            .map_err(|lost| std::io::Error::other(lost.to_string()))
            .map(|answer| answer.unwrap_or_else(|status| json_answer(&Refusal::failure(status).body())))
    }

    /// Carries out a request at once.
    fn answer(&self, target: &Target, line: Line) -> Answer {
        if let Target::Watch(watching) = target {
            return self.watching(watching.clone(), line);
        }
        match self.change(|state| target.carry_out(state)) {
            Ok(object) => json_answer(&(200, object)),
            Err(refusal) => json_answer(&refusal.body()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let before = state.version();
        let result = change(&mut state);
        if state.version() != before {
            self.changed.notify_waiters();
        }
        result
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) {
        self.create(
            &serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .unwrap();
    }

    /// Creates an object as `kubectl create` does.
    ///
    /// # Errors
    ///
    /// It is there already, or its namespace is not there or going.
    pub fn create(&self, object: &Value) -> Result<Value, Refusal> {
        let id = Id::of(object);
        self.change(|state| state.create(&id, object.clone()))
    }

    /// Changes an object by a merge patch, as a user does.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn patch(&self, id: &Id, patch: &Value) -> Result<Value, Refusal> {
        self.change(|state| state.patch(id, false, patch))
    }

    /// Changes the status of an object by a merge patch.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn patch_status(&self, id: &Id, patch: &Value) -> Result<Value, Refusal> {
        self.change(|state| state.patch(id, true, patch))
    }

    /// Deletes an object as a user does: at once, or when its last finalizer goes; a namespace when it is empty.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn delete(&self, id: &Id) -> Result<(), Refusal> {
        self.change(|state| state.delete(id))
    }

    /// Somebody else changes something about the object that nobody looks at: its version grows.
    pub fn touch(&self, id: &Id) {
        self.change(|state| state.touch(id));
    }

    /// An object as it is now.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<Value> {
        self.lock().get(id).map(|object| (*object).clone())
    }

    /// The same, typed.
    #[must_use]
    pub fn typed<K: DeserializeOwned>(&self, id: &Id) -> Option<K> {
        self.get(id).map(|object| serde_json::from_value(object).unwrap())
    }

    /// All objects of a kind (`webhooks`), of all namespaces, in the order of namespace and name.
    #[must_use]
    pub fn list(&self, plural: &str) -> Vec<Value> {
        self.lock().list(plural)
    }

    /// The version of the newest change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version()
    }

    /// All changes after a version, in order.
    #[must_use]
    pub fn changes_since(&self, version: u64) -> Vec<Change> {
        self.lock().changes_since(version).to_vec()
    }

    /// Until then lists and watches show nothing newer than `version`; single objects are read as they are.
    pub fn freeze(&self, version: u64, until: Instant) {
        self.lock().freeze(version, until);
        self.changed.notify_waiters();
    }

    /// Watches that are open stay open and show nothing any more, not even their end: the connection is dead and
    /// nobody has said so.
    pub fn mute(&self) {
        self.lock().mute();
        self.changed.notify_waiters();
    }

    /// For a while watches show some changes late, merged with what follows, or twice.
    pub fn blur(&self, blur: Blur) {
        self.blurred.lock().unwrap().begin(blur);
    }

    /// From now on they show every change as it comes.
    pub fn focus(&self) {
        self.blurred.lock().unwrap().end();
    }

    /// Forgets all changes until now: watches that want to go on from an older version get 410.
    pub fn compact(&self) {
        self.lock().compact();
    }

    /// The time of the cluster.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// An answer of one piece.
fn json_answer((status, object): &(u16, Value)) -> Answer {
    Response::builder()
        .status(*status)
        .header("content-type", "application/json")
        .body(Full::from(object.to_string().into_bytes()).boxed_unsync())
        .unwrap()
}

impl Target {
    fn kind(&self) -> CallKind {
        match self {
            Self::Watch(_) => CallKind::Watch,
            Self::List { .. } | Self::Get { .. } => CallKind::Read,
            Self::Create { .. } | Self::Patch { .. } | Self::Replace { .. } | Self::Delete { .. } => {
                CallKind::Write
            }
        }
    }
}
