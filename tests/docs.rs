//! The documentation says what the code does: every reason has its row in `docs/conditions.md`, every upstream its
//! page, its example and its row in the README, and links between the pages lead somewhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use webhook_operator::api::conditions::{
    ProviderReason, ReadyReason, Reason, ReconcilingReason, SecretReason, StalledReason, SyncedReason,
    TestedReason,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Cells of the table rows under `## kind` and `### type`.
fn rows(text: &str, kind: &str, condition: &str) -> Vec<Vec<String>> {
    let heading = |line: &str, mark: &str| line.strip_prefix(mark).map(str::to_owned);
    let (mut in_kind, mut in_condition) = (false, false);
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(title) = heading(line, "## ") {
            (in_kind, in_condition) = (title == kind, false);
        } else if let Some(title) = heading(line, "### ") {
            in_condition = title == condition;
        } else if in_kind && in_condition && line.starts_with("| `") {
            rows.push(
                line.trim_matches('|')
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            );
        }
    }
    rows
}

/// Compares one table with the reasons of the code.
fn compare<R: Reason>(text: &str, kind: &str) {
    let table = rows(text, kind, R::TYPE.as_str());
    let mut documented: BTreeMap<String, &Vec<String>> = BTreeMap::new();
    for row in &table {
        let name = row[0].trim_end_matches('†').trim().trim_matches('`').to_owned();
        assert!(
            documented.insert(name.clone(), row).is_none(),
            "{kind} {}: {name} stands twice",
            R::TYPE
        );
    }
    for reason in R::ALL {
        let place = format!("docs/conditions.md, {kind}, {}", R::TYPE);
        let row = documented
            .remove(reason.as_str())
            .unwrap_or_else(|| panic!("{place}: {} has no row", reason.as_str()));
        assert_eq!(
            row.len(),
            4,
            "{place}: {} needs reason, status, cause and cure",
            reason.as_str()
        );
        assert_eq!(
            row[1],
            reason.status().as_str(),
            "{place}: status of {}",
            reason.as_str()
        );
        assert!(
            row[2].len() > 10 && row[3].len() > 3,
            "{place}: {} lacks cause or cure",
            reason.as_str()
        );
    }
    assert!(
        documented.is_empty(),
        "{kind} {}: no such reasons: {:?}",
        R::TYPE,
        documented.keys()
    );
}

#[test]
fn every_reason_has_cause_and_cure() {
    let text = read("docs/conditions.md");
    compare::<ReadyReason>(&text, "Webhook");
    compare::<SyncedReason>(&text, "Webhook");
    compare::<TestedReason>(&text, "Webhook");
    compare::<SecretReason>(&text, "Webhook");
    compare::<ReconcilingReason>(&text, "Webhook");
    compare::<StalledReason>(&text, "Webhook");
    compare::<ProviderReason>(&text, "WebhookProvider and ClusterWebhookProvider");
}

#[test]
fn every_upstream_has_a_page_an_example_and_a_row() {
    let readme = read("README.md");
    for upstream in ["conpeek", "thulium", "ricloud", "autocosmos"] {
        assert!(
            readme.contains(&format!("docs/providers/{upstream}.md")),
            "README.md: {upstream}"
        );
        for path in [
            format!("docs/providers/{upstream}.md"),
            format!("examples/{upstream}/webhook.yaml"),
        ] {
            assert!(root().join(&path).is_file(), "{path} is missing");
        }
    }
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut found: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    pages(&root().join("docs"), &mut found);
    pages(&root().join("examples"), &mut found);
    let mut links = 0;
    for page in found {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            links += 1;
            assert!(
                page.parent().unwrap().join(path).exists(),
                "{}: {link} leads nowhere",
                page.display()
            );
        }
    }
    assert!(links > 20, "only {links} links were looked at");
}
