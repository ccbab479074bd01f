//! Objects and their history: every change is a version, and every version can be looked at again.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};
use tokio::time::Instant;
use webhook_operator::clock::Clock;

use super::schema;

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Plural of its kind, such as `webhooks`.
    pub plural: String,
    /// Empty for an object of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Id {
    /// From its parts.
    #[must_use]
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self {
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The name that a manifest gives itself.
    #[must_use]
    pub fn of(manifest: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &manifest["metadata"];
        Self {
            // Good for every kind that there is here.
            plural: text(&manifest["kind"]).to_ascii_lowercase() + "s",
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{}/{}", self.plural, self.name);
        }
        write!(f, "{}/{}/{}", self.plural, self.namespace, self.name)
    }
}

/// A request that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code.
    pub code: u16,
    /// Reason, such as `Conflict`.
    pub reason: &'static str,
    /// What about.
    pub about: String,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, about: impl fmt::Display) -> Self {
        Self {
            code,
            reason,
            about: about.to_string(),
        }
    }

    pub(super) fn not_found(id: &Id) -> Self {
        Self::new(404, "NotFound", id)
    }

    /// An answer that has nothing to do with the request.
    pub(crate) fn failure(code: u16) -> Self {
        Self::new(code, "InternalError", "a failure that was asked for")
    }

    /// Status code and body.
    pub(super) fn body(&self) -> (u16, Value) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": self.code, "reason": self.reason, "message": self.about,
        });
        (self.code, status)
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It differs.
    Modified,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// When.
    pub at: Instant,
    /// Of what.
    pub id: Id,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it; as it was last, where it is gone.
    pub object: Arc<Value>,
}

type Objects = BTreeMap<Id, Arc<Value>>;

/// All objects, and how they came to be what they are.
pub(super) struct State {
    clock: Clock,
    version: u64,
    uids: u64,
    objects: Objects,
    log: Vec<Change>,
    /// The objects at the version that the log begins with.
    base: Objects,
    compacted: u64,
    frozen: Option<(u64, Instant)>,
    mutes: u64,
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

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty())
}

fn is_going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .filter_map(|owner| owner["uid"].as_str())
}

/// Fields of the metadata that no request sets.
const KEPT: [&str; 6] = [
    "uid",
    "name",
    "namespace",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
];

impl State {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            version: 1,
            uids: 0,
            objects: Objects::new(),
            log: Vec::new(),
            base: Objects::new(),
            compacted: 1,
            frozen: None,
            mutes: 0,
        }
    }

    pub(super) fn mutes(&self) -> u64 {
        self.mutes
    }

    pub(super) fn mute(&mut self) {
        self.mutes += 1;
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The version that lists and watches show.
    pub(super) fn shown(&mut self) -> u64 {
        match self.frozen {
            Some((version, until)) if Instant::now() < until => version,
            _ => {
                self.frozen = None;
                self.version
            }
        }
    }

    pub(super) fn frozen_until(&self) -> Option<Instant> {
        self.frozen.map(|(_, until)| until)
    }

    pub(super) fn freeze(&mut self, version: u64, until: Instant) {
        self.frozen = Some((version.max(self.compacted), until));
    }

    pub(super) fn compact(&mut self) {
        self.base = self.objects.clone();
        self.compacted = self.version;
        self.log.clear();
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Whether nothing has happened to its object since.
    pub(super) fn is_newest(&self, change: &Change) -> bool {
        match self.objects.get(&change.id) {
            Some(object) => Arc::ptr_eq(object, &change.object),
            None => change.kind == ChangeKind::Deleted,
        }
    }

    pub(super) fn get(&self, id: &Id) -> Option<Arc<Value>> {
        self.objects.get(id).cloned()
    }

    pub(super) fn list(&self, plural: &str) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|(id, _)| id.plural == plural)
            .map(|(_, object)| (**object).clone())
            .collect()
    }

    pub(super) fn changes_since(&self, version: u64) -> &[Change] {
        let from = self.log.partition_point(|change| change.version <= version);
        &self.log[from..]
    }

    /// The objects as they were.
    pub(super) fn objects_at(&self, version: u64) -> std::borrow::Cow<'_, Objects> {
        if version >= self.version {
            return std::borrow::Cow::Borrowed(&self.objects);
        }
        let mut objects = self.base.clone();
        for change in self.log.iter().take_while(|change| change.version <= version) {
            if change.kind == ChangeKind::Deleted {
                objects.remove(&change.id);
            } else {
                objects.insert(change.id.clone(), Arc::clone(&change.object));
            }
        }
        std::borrow::Cow::Owned(objects)
    }

    fn existing(&self, id: &Id) -> Result<Arc<Value>, Refusal> {
        self.get(id).ok_or_else(|| Refusal::not_found(id))
    }

    fn check_namespace(&self, id: &Id) -> Result<(), Refusal> {
        if id.namespace.is_empty() {
            return Ok(());
        }
        let namespace = self.existing(&Id::new("namespaces", "", &id.namespace))?;
        if is_going(&namespace) {
            let about = format!("{id}: because its namespace is being terminated");
            return Err(Refusal::new(403, "Forbidden", about));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, id: &Id, mut object: Value) -> Result<Value, Refusal> {
        self.check_namespace(id)?;
        if self.objects.contains_key(id) {
            return Err(Refusal::new(409, "AlreadyExists", id));
        }
        self.uids += 1;
        schema::fill_in_new(&id.plural, &mut object);
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        metadata["creationTimestamp"] = json!(self.seconds());
        if schema::is_custom(&id.plural) {
            metadata["generation"] = json!(1);
        }
        if id.plural == "namespaces" {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(id.name);
            object["status"] = json!({ "phase": "Active" });
        }
        let object = self.commit(id, object);
        if owners(&object).any(|uid| !self.is_alive(uid)) && owners(&object).next().is_some() {
            // The garbage collector finds that the owner is gone.
            self.collect(id);
        }
        Ok((*object).clone())
    }

    pub(super) fn patch(&mut self, id: &Id, status: bool, patch: &Value) -> Result<Value, Refusal> {
        let old = self.existing(id)?;
        for field in ["resourceVersion", "uid"] {
            let wanted = &patch["metadata"][field];
            if wanted.is_string() && *wanted != old["metadata"][field] {
                return Err(Refusal::new(409, "Conflict", id));
            }
        }
        let mut new = (*old).clone();
        merge(&mut new, patch);
        self.update(id, status, &old, new)
    }

    pub(super) fn replace(&mut self, id: &Id, status: bool, new: Value) -> Result<Value, Refusal> {
        let old = self.existing(id)?;
        let wanted = &new["metadata"]["resourceVersion"];
        if wanted.is_string() && *wanted != old["metadata"]["resourceVersion"] {
            return Err(Refusal::new(409, "Conflict", id));
        }
        self.update(id, status, &old, new)
    }

    /// Stores what a request made of an object, as far as the request may change it.
    fn update(&mut self, id: &Id, status: bool, old: &Value, mut new: Value) -> Result<Value, Refusal> {
        let has_status = schema::is_custom(&id.plural);
        if status {
            let changed = new["status"].take();
            new = old.clone();
            new["status"] = changed;
        } else if has_status {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop(new.as_object_mut().map(|object| object.remove("status"))),
            }
        }
        schema::fill_in(&id.plural, &mut new);
        for field in KEPT {
            match old["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => drop(
                    new["metadata"]
                        .as_object_mut()
                        .map(|metadata| metadata.remove(field)),
                ),
            }
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if has_status && old["spec"] != new["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if *old == new {
            // Nothing is written, and nobody is told.
            return Ok(new);
        }
        if is_going(&new) && !has_finalizers(&new) {
            // The answer shows the object at the version at which it was deleted.
            let answer = new.clone();
            self.commit(id, new);
            return Ok(answer);
        }
        Ok((*self.commit(id, new)).clone())
    }

    pub(super) fn delete(&mut self, id: &Id) -> Result<(), Refusal> {
        let old = self.existing(id)?;
        if is_going(&old) {
            return Ok(());
        }
        let mut new = (*old).clone();
        new["metadata"]["deletionTimestamp"] = json!(self.seconds());
        if let Some(generation) = new["metadata"]["generation"].as_i64() {
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if id.plural == "namespaces" {
            new["status"]["phase"] = json!("Terminating");
            self.log_change(id, ChangeKind::Modified, new);
            let inside: Vec<Id> = self
                .objects
                .keys()
                .filter(|inner| inner.namespace == id.name)
                .cloned()
                .collect();
            for inner in inside {
                // Gone already, with its owner.
                let _ = self.delete(&inner);
            }
            self.end_namespace(&id.name);
            return Ok(());
        }
        self.commit(id, new);
        Ok(())
    }

    pub(super) fn touch(&mut self, id: &Id) {
        if let Some(old) = self.get(id) {
            let mut new = (*old).clone();
            new["metadata"]["annotations"]["touched.example/at"] = json!(self.version.to_string());
            self.commit(id, new);
        }
    }

    /// Stores a version of an object, or its end.
    fn commit(&mut self, id: &Id, object: Value) -> Arc<Value> {
        let kind = match (
            is_going(&object) && !has_finalizers(&object),
            self.objects.contains_key(id),
        ) {
            (true, _) => ChangeKind::Deleted,
            (false, true) => ChangeKind::Modified,
            (false, false) => ChangeKind::Added,
        };
        let object = self.log_change(id, kind, object);
        if kind == ChangeKind::Deleted {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            let owned: Vec<Id> = self
                .objects
                .iter()
                .filter(|(_, other)| owners(other).any(|owner| owner == uid))
                .map(|(id, _)| id.clone())
                .collect();
            owned.iter().for_each(|id| self.collect(id));
            self.end_namespace(&id.namespace);
        }
        object
    }

    fn log_change(&mut self, id: &Id, kind: ChangeKind, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        if kind == ChangeKind::Deleted {
            self.objects.remove(id);
        } else {
            self.objects.insert(id.clone(), Arc::clone(&object));
        }
        self.log.push(Change {
            version: self.version,
            at: Instant::now(),
            id: id.clone(),
            kind,
            object: Arc::clone(&object),
        });
        object
    }

    /// Deletes an object none of whose owners is alive.
    fn collect(&mut self, id: &Id) {
        let Some(object) = self.get(id) else { return };
        if !owners(&object).any(|uid| self.is_alive(uid)) {
            let _ = self.delete(id);
        }
    }

    fn is_alive(&self, uid: &str) -> bool {
        self.objects
            .values()
            .any(|object| object["metadata"]["uid"].as_str() == Some(uid))
    }

    /// A namespace that is going goes with the last object in it.
    fn end_namespace(&mut self, name: &str) {
        let id = Id::new("namespaces", "", name);
        let Some(namespace) = self.get(&id).filter(|namespace| is_going(namespace)) else {
            return;
        };
        if !self.objects.keys().any(|inner| inner.namespace == name) {
            self.log_change(&id, ChangeKind::Deleted, (*namespace).clone());
        }
    }

    fn seconds(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}
