//! Reads `tests/manifests`: what the apiserver must accept, and what it must refuse with which message.
//!
//! A file holds cases, separated by `---`. The first comment of a case is its title. `# expect:` gives a part
//! of the message of a refusal. A document that begins with `# then update:` belongs to the case before it and
//! replaces its object.

use std::{fs, path::PathBuf};

use serde_json::Value;
use webhook_operator::yaml;

const THEN_UPDATE: &str = "# then update:";
const EXPECT: &str = "# expect: ";

/// One manifest, or two of which the second replaces the first.
#[derive(Debug)]
pub(crate) struct Case {
    /// File and title.
    pub(crate) title: String,
    pub(crate) object: Value,
    pub(crate) update: Option<Value>,
    /// Part of the message of the refusal.
    pub(crate) expect: Option<String>,
}

impl Case {
    /// The documents in the order in which they are sent.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Value> {
        [Some(&self.object), self.update.as_ref()].into_iter().flatten()
    }
}

/// All cases of `tests/manifests/<folder>`.
pub(crate) fn cases(folder: &str) -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/manifests")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for document in text.split("---\n") {
            let title = format!(
                "{}: {}",
                file.display(),
                document.lines().next().unwrap_or_default()
            );
            let expect = document
                .lines()
                .find_map(|line| line.strip_prefix(EXPECT))
                .map(str::to_owned);
            let object: Value = yaml::parse(document).unwrap_or_else(|error| panic!("{title}: {error}"));
            if document.starts_with(THEN_UPDATE) {
                let case = cases.last_mut().unwrap();
                assert!(
                    case.update.is_none() && case.expect.is_none(),
                    "{title}: one update at most"
                );
                case.update = Some(object);
                case.expect = expect;
            } else {
                cases.push(Case {
                    title,
                    object,
                    update: None,
                    expect,
                });
            }
        }
    }
    cases
}
