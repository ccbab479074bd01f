//! What the chart says and what its own tests set, read as text: helm itself is asked by `cargo xtask judges chart`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use webhook_operator::{check, yaml};

const CHART: &str = "charts/webhook-operator";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML files of a folder of the chart.
fn files(folder: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        // helm-unittest leaves a folder for snapshots there.
        if path.is_file() {
            files.push(yaml::parse(&fs::read_to_string(path).unwrap()).unwrap());
        }
    }
    files
}

/// Every value that a user may set, as the README lists them.
fn documented() -> Vec<String> {
    let readme = read("README.md");
    let (_, table) = readme.split_once("\n|-----|").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| row.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Adds the paths of everything that is set, maps on the way included; a key may be a path itself.
fn set(prefix: &str, values: &Value, paths: &mut BTreeSet<String>) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let mut path = prefix.to_owned();
        for part in name.split('.') {
            path += part;
            paths.insert(path.clone());
            path += ".";
        }
        set(&path, value, paths);
    }
}

#[test]
fn every_value_is_set_by_a_unit_test() {
    let mut paths = BTreeSet::new();
    for suite in files("tests") {
        set("", &suite["set"], &mut paths);
        for test in suite["tests"].as_array().unwrap() {
            set("", &test["set"], &mut paths);
        }
    }
    let mut values = documented();
    assert!(values.len() > 50, "only {} values were found", values.len());
    values.retain(|value| !paths.contains(value));
    assert!(values.is_empty(), "no unit test of the chart sets {values:#?}");
}

#[test]
fn every_value_is_set_in_what_the_judges_render() {
    let mut paths = BTreeSet::new();
    for values in files("ci") {
        set("", &values, &mut paths);
    }
    let mut values = documented();
    values.retain(|value| !paths.contains(value));
    assert!(values.is_empty(), "no file in ci/ sets {values:#?}");
}

/// What a user pastes from the notes is what a cluster would take.
#[test]
fn the_manifests_of_the_notes_are_clean() {
    let notes = read("templates/NOTES.txt");
    let (_, manifests) = notes.split_once("<<'EOF'\n").unwrap();
    let (manifests, _) = manifests.split_once("\nEOF\n").unwrap();
    assert!(!manifests.contains("{{"), "the manifests are not plain");
    let documents = check::input::parse("NOTES.txt", manifests).unwrap();
    let verdict = check::Judge::new().unwrap().judge(&documents, None);
    assert!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
    assert_eq!(verdict.checked, 2, "the provider and the Webhook");
}

/// What docs/benchmarks.md measured fits into what the chart asks for, with room in its limit for several times as much.
#[test]
fn the_memory_that_was_measured_fits() {
    let values: Value = yaml::parse(&read("values.yaml")).unwrap();
    let mebibytes = |path: &str| -> u64 {
        let quantity = values.pointer(path).and_then(Value::as_str).expect(path);
        quantity.strip_suffix("Mi").expect("in MiB").parse().unwrap()
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let page = fs::read_to_string(page).unwrap();
    let cells = |row: &str| -> Vec<String> {
        let line = page.lines().find(|line| line.starts_with(row)).expect(row);
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let (webhooks, peak) = (cells("| Webhooks |"), cells("| peak |"));
    assert_eq!(webhooks.last().map(String::as_str), Some("1000"));
    let most = peak
        .last()
        .and_then(|cell| cell.strip_suffix(" MiB"))
        .expect("in MiB");
    let most: u64 = most.parse().unwrap();
    assert!(most < mebibytes("/resources/requests/memory"), "{most} MiB");
    assert!(4 * most < mebibytes("/resources/limits/memory"), "{most} MiB");
}
