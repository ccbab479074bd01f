//! What the apiserver says was asked of it, from its audit log: counts that do not rely on the operator's word.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    time::Duration,
};

use serde_json::Value;

use crate::world::World;

/// One request that has been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// `create`, `patch`, `get`, ...
    pub(crate) verb: String,
    /// `webhooks`, `webhooks/status`, ...
    pub(crate) resource: String,
    /// Name of the object; empty where a create leaves it out of the path.
    pub(crate) name: String,
    /// HTTP status.
    pub(crate) status: i64,
}

impl Request {
    /// Whether it is meant to change something.
    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }
}

/// The operator's requests about one namespace since this value was made.
pub(crate) struct Audit {
    file: File,
    namespace: String,
    user: String,
}

impl Audit {
    /// Begins to listen.
    pub(crate) fn begin(world: &World) -> Self {
        let mut file = File::open(world.cluster.audit_log()).expect("open the audit log");
        file.seek(SeekFrom::End(0)).expect("go to its end");
        Self {
            file,
            namespace: world.namespace.clone(),
            user: world.operator.identity().user(),
        }
    }

    /// All requests in the namespace so far, in the order of their answers. Only the operator's own: the tests and the
    /// controller-manager are other users.
    pub(crate) async fn requests(&mut self) -> Vec<Request> {
        // The log is written before the answer goes out, but what an answer set off may still be on its way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut text = String::new();
        self.file.read_to_string(&mut text).expect("read the audit log");
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let unread = i64::try_from(text.len() - whole).expect("a short line");
        self.file
            .seek(SeekFrom::Current(-unread))
            .expect("go back to the line that is being written");
        // The first line may be the rest of one that was being written at the start.
        let entries = text[..whole]
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        entries.filter_map(|entry: Value| self.request(&entry)).collect()
    }

    /// Those of them that are meant to change something, Leases left out.
    pub(crate) async fn writes(&mut self) -> Vec<Request> {
        let mut requests = self.requests().await;
        requests.retain(|request| request.is_write() && request.resource != "leases");
        requests
    }

    fn request(&self, entry: &Value) -> Option<Request> {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let ours = text("/stage") == "ResponseComplete"
            && text("/objectRef/namespace") == self.namespace
            && text("/user/username") == self.user;
        ours.then(|| {
            let resource = match (text("/objectRef/resource"), text("/objectRef/subresource")) {
                (resource, "") => resource.to_owned(),
                (resource, subresource) => format!("{resource}/{subresource}"),
            };
            Request {
                verb: text("/verb").to_owned(),
                resource,
                name: text("/objectRef/name").to_owned(),
                status: entry
                    .pointer("/responseStatus/code")
                    .and_then(Value::as_i64)
                    .unwrap_or_default(),
            }
        })
    }
}

/// The operator's writes to one Webhook and its status.
pub(crate) fn patches<'a>(requests: &'a [Request], webhook: &str) -> Vec<&'a Request> {
    requests
        .iter()
        .filter(|request| {
            matches!(request.verb.as_str(), "patch" | "update")
                && matches!(request.resource.as_str(), "webhooks" | "webhooks/status")
                && request.name == webhook
        })
        .collect()
}
