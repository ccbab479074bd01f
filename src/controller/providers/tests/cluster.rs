//! An API server in memory, as far as a controller can tell: lists, watches, merge patches with versions,
//! finalizers and the status subresource. Schema, admission and garbage collection are left to the real one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

/// Names one object: plural of its kind, namespace (empty for a cluster object), name.
pub(super) type Id = (String, String, String);

/// One accepted patch.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) at: Instant,
    pub(super) id: Id,
    pub(super) patch: Value,
}

struct Event {
    version: u64,
    plural: String,
    line: String,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Id, Value>,
    events: Vec<Event>,
    writes: Vec<Write>,
    conflicts: usize,
    told: Vec<(String, String)>,
}

/// The API server; clones are the same one.
#[derive(Clone)]
pub(super) struct Cluster {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

/// Where a request goes.
struct Route {
    plural: String,
    namespace: String,
    name: Option<String>,
    status: bool,
}

fn route(path: &str) -> Route {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let status = parts.last() == Some(&"status");
    if status {
        parts.pop();
    }
    let (namespace, rest) = match parts.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    Route {
        plural: rest[0].to_owned(),
        namespace: namespace.to_owned(),
        name: rest.get(1).map(|name| (*name).to_owned()),
        status,
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], change);
        }
    }
}

fn refusal(code: u16, reason: &str) -> (u16, String) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": reason});
    (code, status.to_string())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty())
}

impl State {
    fn store(&mut self, id: &Id, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let gone = object["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&object);
        let existed = self.objects.contains_key(id);
        let kind = match (gone, existed) {
            (true, _) => "DELETED",
            (false, true) => "MODIFIED",
            (false, false) => "ADDED",
        };
        if gone {
            self.objects.remove(id);
        } else {
            self.objects.insert(id.clone(), object.clone());
        }
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        self.events.push(Event {
            version: self.version,
            plural: id.0.clone(),
            line,
        });
        object
    }

    fn patch(&mut self, id: Id, status: bool, patch: Value) -> (u16, String) {
        let Some(old) = self.objects.get(&id).cloned() else {
            return refusal(404, "NotFound");
        };
        let version = &patch["metadata"]["resourceVersion"];
        assert!(version.is_string(), "an unconditional write: {patch}");
        if *version != old["metadata"]["resourceVersion"] {
            self.conflicts += 1;
            return refusal(409, "Conflict");
        }
        let mut new = old.clone();
        if status {
            merge(&mut new["status"], &patch["status"]);
        } else {
            assert!(
                patch.get("status").is_none(),
                "status goes through its subresource"
            );
            merge(&mut new, &patch);
        }
        self.writes.push(Write {
            at: Instant::now(),
            id: id.clone(),
            patch,
        });
        let new = if new == old { old } else { self.store(&id, new) };
        (200, new.to_string())
    }
}

impl Cluster {
    pub(super) fn new() -> Self {
        let state = State {
            version: 1,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(1),
        }
    }

    /// A client without retries and without a network.
    pub(super) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (code, answer) = cluster.answer(request).await;
                let response = Response::builder().status(code);
                Ok::<_, Infallible>(response.body(Body::from(answer.into_bytes())).unwrap())
            }
        });
        Client::new(service, "ops")
    }

    async fn answer(&self, request: Request<Body>) -> (u16, String) {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let Route {
            plural,
            namespace,
            name,
            status,
        } = route(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let id = |name: String| (plural.clone(), namespace.clone(), name);
        match (&parts.method, name) {
            (&Method::GET, None) if query.contains("watch=true") => {
                let since = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("resourceVersion="))
                    .unwrap();
                (200, self.watch(&plural, since.parse().unwrap()).await)
            }
            (&Method::GET, None) => self.list(&plural),
            (&Method::GET, Some(name)) => {
                let state = self.state.lock().unwrap();
                state
                    .objects
                    .get(&id(name))
                    .map_or_else(|| refusal(404, "NotFound"), |object| (200, object.to_string()))
            }
            (&Method::PATCH, Some(name)) => {
                let patch = serde_json::from_slice(&body).unwrap();
                let answer = self.state.lock().unwrap().patch(id(name), status, patch);
                self.announce();
                answer
            }
            (&Method::POST, None) if plural == "events" => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                let told = (text(&event["regarding"]["name"]), text(&event["reason"]));
                self.state.lock().unwrap().told.push(told);
                (201, event.to_string())
            }
            (method, name) => panic!("{method} {plural} {name:?}"),
        }
    }

    fn list(&self, plural: &str) -> (u16, String) {
        let state = self.state.lock().unwrap();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(id, _)| id.0 == plural)
            .map(|(_, object)| object)
            .collect();
        let list = json!({
            "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": state.version.to_string()},
        });
        (200, list.to_string())
    }

    /// All events after a version, once there is one; then the watch ends and is started again.
    async fn watch(&self, plural: &str, since: u64) -> String {
        let mut changed = self.changed.subscribe();
        loop {
            let lines: String = self
                .state
                .lock()
                .unwrap()
                .events
                .iter()
                .filter(|event| event.plural == plural && event.version > since)
                .map(|event| event.line.as_str())
                .collect();
            if !lines.is_empty() {
                return lines;
            }
            changed.changed().await.unwrap();
        }
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Creates an object or changes it as a user does: what is given replaces fields, a new spec is a new generation.
    pub(super) fn apply(&self, plural: &str, object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let id = (plural.to_owned(), text("namespace"), text("name"));
        let mut state = self.state.lock().unwrap();
        let old = state.objects.get(&id).cloned();
        let mut new = old.clone().unwrap_or_else(
            || json!({"metadata": {"uid": format!("uid-{}", state.version), "generation": 0}}),
        );
        merge(&mut new, &object);
        if old.is_none_or(|old| old["spec"] != new["spec"]) {
            new["metadata"]["generation"] = json!(new["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        state.store(&id, new);
        drop(state);
        self.announce();
    }

    /// Deletes as a user does: at once, or when the last finalizer goes.
    pub(super) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects[&id].clone();
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        state.store(&id, object);
        drop(state);
        self.announce();
    }

    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&id).cloned()
    }

    /// The accepted patches so far.
    pub(super) fn writes(&self) -> Vec<Write> {
        self.state.lock().unwrap().writes.clone()
    }

    /// Events that were published: the name of the object, the reason.
    pub(super) fn told(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().told.clone()
    }

    /// How many patches met a newer version.
    pub(super) fn conflicts(&self) -> usize {
        self.state.lock().unwrap().conflicts
    }
}
