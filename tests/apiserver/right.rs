//! Single rights: what the manifests grant, and what an audit log says was asked for.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

/// What one rule grants, or one request asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    pub(crate) group: String,
    /// `webhooks`, `webhooks/status`, ...
    pub(crate) resource: String,
    pub(crate) verb: String,
}

impl Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.verb, self.resource, self.group)
    }
}

impl Right {
    /// The one that a rule of [`split`] grants.
    pub(crate) fn of(rule: &PolicyRule) -> Self {
        let only = |names: &Option<Vec<String>>| names.iter().flatten().next().cloned().unwrap_or_default();
        Self {
            group: only(&rule.api_groups),
            resource: only(&rule.resources),
            verb: rule.verbs.first().cloned().unwrap_or_default(),
        }
    }
}

/// These rules as rules of one right each.
pub(crate) fn split(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut single = Vec::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    single.push(PolicyRule {
                        api_groups: Some(vec![group.clone()]),
                        resources: Some(vec![resource.clone()]),
                        resource_names: rule.resource_names.clone(),
                        verbs: vec![verb.clone()],
                        ..PolicyRule::default()
                    });
                }
            }
        }
    }
    single
}

/// The names of rights, for failure messages.
pub(crate) fn shown<'a>(rights: impl IntoIterator<Item = &'a Right>) -> Vec<String> {
    rights.into_iter().map(ToString::to_string).collect()
}

/// What one user has asked for.
pub(crate) struct Asked {
    log: File,
    user: String,
    /// What was granted.
    pub(crate) used: BTreeSet<Right>,
    /// What was refused for want of a right.
    pub(crate) refused: BTreeSet<Right>,
}

impl Asked {
    /// From the beginning of an audit log.
    pub(crate) fn from_the_start(log: &Path, user: String) -> Self {
        Self {
            log: File::open(log).expect("open the audit log"),
            user,
            used: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// From now on.
    pub(crate) fn from_now_on(log: &Path, user: String) -> Self {
        let mut asked = Self::from_the_start(log, user);
        asked
            .log
            .seek(SeekFrom::End(0))
            .expect("go to the end of the log");
        asked
    }

    /// Reads what has come.
    pub(crate) fn read(&mut self) {
        let mut text = Vec::new();
        self.log.read_to_end(&mut text).expect("read the audit log");
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        // The last line may be one that is being written.
        let unread = i64::try_from(text.len() - whole).expect("a short line");
        self.log
            .seek(SeekFrom::Current(-unread))
            .expect("go back to the last line");
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            if line.contains(&self.user)
                && let Ok(entry) = serde_json::from_str(line)
            {
                self.note(&entry);
            }
        }
    }

    fn note(&mut self, entry: &Value) {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
        // What belongs to everybody: questions of the harness about its own rights.
        let basic = text("/objectRef/apiGroup") == "authorization.k8s.io";
        if text("/user/username") != self.user || text("/objectRef/resource").is_empty() || basic {
            return;
        }
        let right = Right {
            group: text("/objectRef/apiGroup").to_owned(),
            resource: match (text("/objectRef/resource"), text("/objectRef/subresource")) {
                (resource, "") => resource.to_owned(),
                (resource, subresource) => format!("{resource}/{subresource}"),
            },
            verb: text("/verb").to_owned(),
        };
        if text("/annotations/authorization.k8s.io~1decision") == "forbid" {
            self.refused.insert(right);
        } else {
            self.used.insert(right);
        }
    }
}
