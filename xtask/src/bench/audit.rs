//! What the apiserver says that the operator asked of it: its audit log at the level Metadata.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::Deserialize;

use crate::progress::Failure;

/// One finished request, or one watch that began.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    stage: String,
    /// `get`, `patch`, `watch`, ...
    pub(super) verb: String,
    user: User,
    /// Absent for paths that are no objects, such as `/version`.
    #[serde(default)]
    object_ref: Object,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
}

impl Entry {
    /// `webhooks`, `webhooks/status`, ...
    pub(super) fn resource(&self) -> String {
        match (
            self.object_ref.resource.as_str(),
            self.object_ref.subresource.as_str(),
        ) {
            ("", _) => "other".to_owned(),
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        }
    }

    /// Whether it changes something.
    pub(super) fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    /// A watch counts when it begins, everything else when it ends.
    fn counts(&self) -> bool {
        (self.verb == "watch") == (self.stage == "ResponseStarted")
    }
}

/// Reads the log on from where it stopped the last time.
pub(super) struct Audit {
    file: File,
    user: String,
    /// Of a line that was not complete yet.
    rest: Vec<u8>,
}

impl Audit {
    /// Only requests of `user` are of interest.
    pub(super) fn open(path: &Path, user: &str) -> Result<Self, Failure> {
        Ok(Self {
            file: File::open(path)?,
            user: user.to_owned(),
            rest: Vec::new(),
        })
    }

    /// Everything so far is of no interest.
    pub(super) fn skip(&mut self) -> Result<(), Failure> {
        self.file.seek(SeekFrom::End(0))?;
        self.rest.clear();
        Ok(())
    }

    /// The requests since the last call, in the order in which they ended.
    pub(super) fn read(&mut self) -> Result<Vec<Entry>, Failure> {
        self.file.read_to_end(&mut self.rest)?;
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let tail = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, tail);
        let mut entries = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // `skip` may have landed inside a line; the rest of it is no entry.
            let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
                continue;
            };
            if entry.user.username == self.user && entry.counts() {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(user: &str, stage: &str, verb: &str, resource: &str) -> String {
        format!(
            r#"{{"stage":"{stage}","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{resource}}}"#
        )
    }

    #[test]
    fn reads_on_counts_watches_once_and_leaves_others_out() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "{}",
            line("me", "ResponseComplete", "get", r#"{"resource":"before"}"#)
        )
        .unwrap();
        let mut audit = Audit::open(file.path(), "me").unwrap();
        audit.skip().unwrap();
        let status = r#"{"resource":"webhooks","subresource":"status"}"#;
        writeln!(file, "{}", line("me", "ResponseComplete", "patch", status)).unwrap();
        writeln!(
            file,
            "{}",
            line("me", "ResponseStarted", "watch", r#"{"resource":"webhooks"}"#)
        )
        .unwrap();
        writeln!(
            file,
            "{}",
            line("me", "ResponseComplete", "watch", r#"{"resource":"webhooks"}"#)
        )
        .unwrap();
        writeln!(file, "{}", line("you", "ResponseComplete", "patch", status)).unwrap();
        write!(file, r#"{{"stage":"ResponseComplete","verb":"get","#).unwrap();
        let read: Vec<_> = audit
            .read()
            .unwrap()
            .iter()
            .map(|e| (e.verb.clone(), e.resource()))
            .collect();
        assert_eq!(
            read,
            [
                ("patch".into(), "webhooks/status".into()),
                ("watch".into(), "webhooks".into())
            ]
        );
        writeln!(file, r#""user":{{"username":"me"}}}}"#).unwrap();
        let read: Vec<_> = audit.read().unwrap().iter().map(Entry::resource).collect();
        assert_eq!(read, ["other"]);
    }
}
