//! Requests as the client sends them, read into what is to be done.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use http::request::Parts;
use serde_json::{Value, json};

use super::store::{Id, Refusal, State};

/// Which objects a list or a watch is about, and how it shows them.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) plural: String,
    /// Empty: all.
    pub(super) namespace: String,
    /// Metadata only.
    pub(super) partial: bool,
}

impl Selection {
    pub(super) fn holds(&self, id: &Id) -> bool {
        id.plural == self.plural && (self.namespace.is_empty() || self.namespace == id.namespace)
    }

    pub(super) fn show(&self, object: &Value) -> Value {
        if self.partial {
            partial(object)
        } else {
            object.clone()
        }
    }
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
    })
}

/// A watch that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Watching {
    pub(super) selection: Selection,
    pub(super) since: u64,
    pub(super) timeout_seconds: u64,
    pub(super) bookmarks: bool,
}

/// What a request is to do.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Watch(Watching),
    List {
        selection: Selection,
        limit: usize,
        /// Version and last object of the page before.
        from: Option<(u64, Id)>,
    },
    Get {
        id: Id,
        partial: bool,
    },
    Create {
        id: Id,
        object: Value,
    },
    Patch {
        id: Id,
        status: bool,
        partial: bool,
        patch: Value,
    },
    Replace {
        id: Id,
        status: bool,
        object: Value,
    },
    Delete {
        id: Id,
    },
}

/// What a path names.
struct Place {
    plural: String,
    namespace: String,
    name: Option<String>,
    status: bool,
}

fn place(path: &str) -> Place {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let (namespace, rest) = match parts.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, status) = match rest {
        [plural] => (*plural, None, false),
        [plural, name] => (*plural, Some(*name), false),
        [plural, name, "status"] => (*plural, Some(*name), true),
        _ => panic!("no such path: {path}"),
    };
    Place {
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.map(str::to_owned),
        status,
    }
}

impl Target {
    /// What the operator does not do is not understood, so that the model is extended before it is relied on.
    pub(super) fn read(parts: &Parts, body: &Bytes) -> Self {
        let Place {
            plural,
            namespace,
            name,
            status,
        } = place(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        let query: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let asked = |name: &str| query.get(name).map(String::as_str);
        for selector in ["labelSelector", "fieldSelector", "sendInitialEvents", "dryRun"] {
            assert!(asked(selector).is_none(), "{selector} is not modelled");
        }
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let partial = header("accept").is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
        let object = || serde_json::from_slice::<Value>(body).unwrap();
        let selection = Selection {
            plural: plural.clone(),
            namespace: namespace.clone(),
            partial,
        };
        let id = |name: String| Id {
            plural: plural.clone(),
            namespace: namespace.clone(),
            name,
        };
        match (parts.method.as_str(), name) {
            ("GET", None) if asked("watch") == Some("true") => Self::Watch(Watching {
                selection,
                since: asked("resourceVersion").unwrap().parse().unwrap(),
                timeout_seconds: asked("timeoutSeconds").map_or(300, |text| text.parse().unwrap()),
                bookmarks: asked("allowWatchBookmarks") == Some("true"),
            }),
            ("GET", None) => Self::List {
                selection,
                limit: asked("limit").map_or(usize::MAX, |text| text.parse().unwrap()),
                from: asked("continue").map(|token| {
                    let mut parts = token.splitn(3, '/');
                    let mut part = || parts.next().unwrap_or_default();
                    (part().parse().unwrap(), Id::new(&plural, part(), part()))
                }),
            },
            ("GET", Some(name)) => Self::Get {
                id: id(name),
                partial,
            },
            ("POST", None) => {
                let object = object();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                Self::Create { id: id(name), object }
            }
            ("PATCH", Some(name)) => {
                assert_eq!(header("content-type"), Some("application/merge-patch+json"));
                Self::Patch {
                    id: id(name),
                    status,
                    partial,
                    patch: object(),
                }
            }
            ("PUT", Some(name)) => Self::Replace {
                id: id(name),
                status,
                object: object(),
            },
            ("DELETE", Some(name)) => Self::Delete { id: id(name) },
            (method, name) => panic!("{method} {plural} {name:?} is not modelled"),
        }
    }

    /// The object that it writes to, if that is there already.
    pub(super) fn written(&self) -> Option<Id> {
        match self {
            Self::Patch { id, .. } | Self::Replace { id, .. } | Self::Delete { id } => Some(id.clone()),
            Self::Create { .. } | Self::Watch(_) | Self::List { .. } | Self::Get { .. } => None,
        }
    }

    /// Does it, all but a watch.
    pub(super) fn carry_out(&self, state: &mut State) -> Result<Value, Refusal> {
        match self {
            Self::Watch(_) => unreachable!("a watch is not carried out at once"),
            Self::List {
                selection,
                limit,
                from,
            } => list(state, selection, *limit, from.as_ref()),
            Self::Get { id, partial: part } => {
                let object = state.get(id).ok_or_else(|| Refusal::not_found(id))?;
                Ok(if *part {
                    partial(&object)
                } else {
                    (*object).clone()
                })
            }
            Self::Create { id, object } => state.create(id, object.clone()),
            Self::Patch {
                id,
                status,
                partial: part,
                patch,
            } => {
                let object = state.patch(id, *status, patch)?;
                Ok(if *part { partial(&object) } else { object })
            }
            Self::Replace { id, status, object } => state.replace(id, *status, object.clone()),
            Self::Delete { id } => state
                .delete(id)
                .map(|()| json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})),
        }
    }
}

fn list(
    state: &mut State,
    selection: &Selection,
    limit: usize,
    from: Option<&(u64, Id)>,
) -> Result<Value, Refusal> {
    let version = from.map_or_else(|| state.shown(), |(version, _)| *version);
    if version < state.compacted() {
        return Err(Refusal::expired(version));
    }
    let objects = state.objects_at(version);
    let mut rest = objects
        .iter()
        .filter(|(id, _)| selection.holds(id) && from.is_none_or(|(_, last)| *id > last));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let (Some((last, _)), true) = (page.last(), rest.next().is_some()) {
        metadata["continue"] = json!(format!("{version}/{}/{}", last.namespace, last.name));
    }
    let items: Vec<Value> = page.iter().map(|(_, object)| selection.show(object)).collect();
    Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sub = |status: &bool| if *status { "/status" } else { "" };
        match self {
            Self::Watch(watching) => write!(f, "watch {}", watching.selection.plural),
            Self::List { selection, .. } => write!(f, "list {}", selection.plural),
            Self::Get { id, .. } => write!(f, "get {id}"),
            Self::Create { id, object } if id.plural == "events" => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                write!(
                    f,
                    "create event {} of {}",
                    text(&object["reason"]),
                    text(&object["regarding"]["name"])
                )
            }
            Self::Create { id, .. } => write!(f, "create {id}"),
            // The rest of its name is the time of the machine.
            Self::Patch { id, .. } if id.plural == "events" => {
                let about = id
                    .name
                    .rsplit_once('.')
                    .map_or(id.name.as_str(), |(about, _)| about);
                write!(f, "patch event of {about}")
            }
            Self::Patch { id, status, .. } => write!(f, "patch {id}{}", sub(status)),
            Self::Replace { id, status, .. } => write!(f, "replace {id}{}", sub(status)),
            Self::Delete { id } => write!(f, "delete {id}"),
        }
    }
}
