//! The documentation says what the code does: every reason has its row in `docs/conditions.md`, every upstream its
//! page, its example and its row in the README, every fault its row in `docs/faults.md` with tests that exist, and links
//! between the pages lead somewhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use webhook_operator::{
    api::conditions::{
        ProviderReason, ReadyReason, Reason, ReconcilingReason, SecretReason, StalledReason, SyncedReason,
        TestedReason,
    },
    check,
    metrics::{Format, Metrics, WebhookSample},
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

/// Files under a folder whose name ends so.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

/// What a page says outside of code: fenced blocks and code spans left out.
fn without_code(text: &str) -> String {
    let mut said = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            said.push_str(line);
        }
        said.push('\n');
    }
    // Spans of two backticks first: they may hold one.
    let outside = |text: &str, mark: &str| text.split(mark).step_by(2).collect::<Vec<_>>().join("x");
    outside(&outside(&said, "``"), "`")
}

/// Targets of the links of a page.
fn links(text: &str) -> Vec<String> {
    without_code(text)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(str::to_owned)
        .collect()
}

/// Names by which a page's headings can be linked to, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            let kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
            let name: String = title.trim().to_lowercase().chars().filter(kept).collect();
            found.insert(name.replace(' ', "-"));
        }
    }
    found
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut found: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    files(&root().join("docs"), "md", &mut found);
    files(&root().join("examples"), "md", &mut found);
    let mut looked_at = 0;
    for page in found {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            looked_at += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let is_there = || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(
                anchor.is_empty() || is_there(),
                "{}: {link}: that page has no such heading",
                page.display()
            );
        }
    }
    assert!(looked_at > 20, "only {looked_at} links were looked at");
}

#[test]
fn every_page_is_in_the_summary() {
    let folder = root().join("docs");
    let mut found = Vec::new();
    files(&folder, "md", &mut found);
    let mut pages: BTreeSet<String> = found
        .iter()
        .map(|page| page.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned())
        .collect();
    // Decisions are for developers, who read them beside the code.
    pages.retain(|page| page != "SUMMARY.md" && !page.starts_with("adr/"));
    let named: BTreeSet<String> = links(&read("docs/SUMMARY.md"))
        .into_iter()
        .filter(|link| !link.is_empty())
        .collect();
    assert_eq!(
        named, pages,
        "docs/SUMMARY.md (left) and the pages in docs/ (right)"
    );
}

/// Metrics with their labels as `docs/observability.md` has them.
fn documented_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/observability.md");
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let row = |line: &str| -> Option<(String, BTreeSet<String>)> {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_matches('`');
        let labels = cells
            .next()?
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty());
        Some((
            format!("webhook_operator_{name}"),
            labels.map(str::to_owned).collect(),
        ))
    };
    section.lines().filter_map(row).collect()
}

/// Metrics with their labels as the operator writes them, once each has a series.
fn measured() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new();
    metrics.webhook(WebhookSample {
        namespace: "shop",
        name: "orders",
        provider_type: "Ricloud",
        state: Some("valid"),
        ready: true,
        deactivated_upstream: false,
    });
    metrics.provider("WebhookProvider", "shop", "acme", true);
    metrics.deletions_held("WebhookProvider", "shop", "acme", 0);
    metrics.reconciled("ok", Duration::from_millis(20));
    metrics.request("Thulium", "create", "201", Duration::from_millis(300));
    metrics.test_result("Ricloud", "Upstream", "Passed");
    let page = metrics.encode(Format::Classic);
    let typed = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    let mut measured: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    measured.extend(page.lines().filter_map(typed).map(|name| (name, BTreeSet::new())));
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = family(name);
        let labels = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0));
        let labels = labels.filter(|label| *label != "le").map(str::to_owned);
        measured.get_mut(name).unwrap().extend(labels);
    }
    measured
}

/// The histogram of which this is a part, else the name itself.
fn family(name: &str) -> &str {
    let part = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    part.unwrap_or(name)
}

#[test]
fn metrics_are_documented_and_what_asks_for_one_asks_for_what_is_there() {
    let there = measured();
    assert_eq!(documented_metrics(), there);
    // Alerts and dashboard, with what a histogram is read by.
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = read(&format!("charts/webhook-operator/files/{file}"));
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let asked: BTreeSet<&str> = words
            .filter(|word| word.starts_with("webhook_operator_"))
            .collect();
        assert!(asked.len() > 4, "{file}: {asked:?}");
        for name in asked {
            let known = there.contains_key(family(name));
            assert!(known, "{file} asks for {name}, which nobody measures");
        }
    }
}

#[test]
fn every_alert_has_its_entry_in_the_runbook() {
    let alerts = read("charts/webhook-operator/files/alerts.yaml");
    let entries: Vec<String> = read("docs/runbook.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    let mut names = Vec::new();
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap().to_owned();
        let link = format!("docs/runbook.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&link), "{name}: its runbook_url is not {link}");
        names.push(name);
    }
    assert!(names.len() >= 7, "alerts were lost");
    assert_eq!(
        names, entries,
        "alerts.yaml (left) and the entries of docs/runbook.md (right)"
    );
}

/// Module path of a source file in its executable; `None` for a file that holds no module of its own.
fn module(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "main" | "lib")) {
        parts.pop();
    }
    parts
}

/// Names of the tests in a file, with the module inside of the file that they are in.
fn tests_of(text: &str, module: &[String], found: &mut BTreeSet<String>) {
    let (mut inner, mut is_test) = (None, false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner = Some(name.to_owned());
        }
        let line = line.trim_start();
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = declared.and_then(|rest| rest.split('(').next()) {
            if is_test {
                let path = module.iter().cloned().chain(inner.clone());
                let path: Vec<String> = path.chain([name.to_owned()]).collect();
                found.insert(path.join("::"));
            }
            is_test = false;
        }
    }
}

/// All tests: `lib::…`, an executable of `tests/`, or a package of `crates/` and the rest of the path.
fn all_tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut look = |folder: &Path, before: &[&str], skip_first: bool| {
        let mut sources = Vec::new();
        files(folder, "rs", &mut sources);
        for source in sources {
            let inside = module(source.strip_prefix(folder).unwrap());
            let inside = inside.into_iter().skip(usize::from(skip_first));
            let path: Vec<String> = before.iter().map(|&part| part.to_owned()).chain(inside).collect();
            tests_of(&fs::read_to_string(&source).unwrap(), &path, &mut found);
        }
    };
    look(&root().join("src"), &["lib"], false);
    look(&root().join("tests"), &[], false);
    look(&root().join("xtask/src"), &["xtask"], false);
    for package in fs::read_dir(root().join("crates")).unwrap() {
        let package = package.unwrap().path();
        let name = package.file_name().unwrap().to_str().unwrap();
        look(&package.join("src"), &[name], false);
        if package.join("tests").is_dir() {
            // The executable's name is no part of a test's.
            look(&package.join("tests"), &[name], true);
        }
    }
    found
}

/// Whether the task is there, with the options that are named.
fn is_a_task(command: &str) -> bool {
    let mut words = command.split(' ').skip(2);
    let Some(task) = words.next() else { return false };
    // The programs of the simulation know their arguments themselves.
    let sources = ["xtask/src", "crates/simulation/src/bin"]
        .map(|folder| root().join(folder).join(task).with_extension("rs"));
    let has = |option: &str| {
        let field = format!(" {}: ", option.replace('-', "_"));
        sources
            .iter()
            .any(|source| fs::read_to_string(source).is_ok_and(|text| text.contains(&field)))
    };
    let variant: String = task
        .split('-')
        .flat_map(|word| {
            let (first, rest) = word.split_at(1);
            [first.to_uppercase(), rest.to_owned()]
        })
        .collect();
    read("xtask/src/main.rs").contains(&format!(" Task::{variant}("))
        && words.filter_map(|word| word.strip_prefix("--")).all(has)
}

/// Whether what a row names exists, a test or a task.
fn is_there(name: &str, tests: &BTreeSet<String>) -> bool {
    if name.starts_with("cargo xtask ") {
        is_a_task(name)
    } else {
        tests.contains(name)
    }
}

#[test]
fn every_fault_names_what_shows_it() {
    let tests = all_tests();
    assert!(tests.len() > 500, "only {} tests were found", tests.len());
    let text = read("docs/faults.md");
    let mut numbers = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<usize>() else {
            continue;
        };
        numbers.push(number);
        let place = format!("docs/faults.md, row {number}");
        let [_, fault, must_hold, shown_by, figure] = cells[..] else {
            panic!("{place} has {} cells", cells.len());
        };
        assert!(
            fault.len() > 5 && must_hold.len() > 5 && figure.len() > 5,
            "{place} lacks fault, what must hold or a figure"
        );
        let named: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(
            !named.is_empty() || figure.starts_with("not shown: "),
            "{place} names no test and does not say why"
        );
        for name in named {
            assert!(is_there(name, &tests), "{place}: there is no {name}");
        }
    }
    numbers.sort_unstable();
    assert!(numbers.len() >= 30, "docs/faults.md: rows were lost");
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "docs/faults.md");
}

#[test]
fn every_defence_names_what_shows_it() {
    let tests = all_tests();
    let text = read("docs/threat-model.md");
    let (_, defended) = text.split_once("\n## What is defended\n").unwrap();
    let (defended, _) = defended.split_once("\n## ").unwrap();
    let mut rows = 0;
    for line in defended.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [threat, defence, shown_by] = cells[..] else {
            panic!("docs/threat-model.md: not three cells: {line}");
        };
        if threat == "threat" {
            continue;
        }
        rows += 1;
        let named: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(
            defence.len() > 5 && !named.is_empty(),
            "docs/threat-model.md: {threat}: no defence, or nothing that shows it"
        );
        for name in named {
            assert!(
                is_there(name, &tests),
                "docs/threat-model.md: {threat}: there is no {name}"
            );
        }
    }
    assert!(rows > 20, "docs/threat-model.md: rows were lost");
}

/// What a reader of the tutorial types into a file is what a cluster would take.
#[test]
fn manifests_of_the_tutorial_are_clean() {
    let text = read("docs/tutorial.md");
    let mut manifests = 0;
    for block in text.split("```yaml\n").skip(1) {
        let manifest = block.split("```").next().unwrap();
        let documents = check::input::parse("docs/tutorial.md", manifest).unwrap();
        let verdict = check::Judge::new().unwrap().judge(&documents, None);
        assert!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
        manifests += verdict.checked;
    }
    assert!(manifests >= 2, "only {manifests} manifests were looked at");
}

/// `docs/threat-model.md` and `docs/releasing.md` say so.
#[test]
fn workflows_are_pinned_and_release_the_image_of_the_chart() {
    let mut found = Vec::new();
    files(&root().join(".github/workflows"), "yml", &mut found);
    let mut actions = 0;
    for workflow in found {
        let text = fs::read_to_string(&workflow).unwrap();
        assert!(
            text.contains("\npermissions:"),
            "{}: no permissions",
            workflow.display()
        );
        for line in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let (_, commit) = line.1.split_once('@').unwrap();
            let (commit, version) = commit.split_once(" # v").unwrap_or((commit, ""));
            let is_commit = commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
            assert!(
                is_commit && !version.is_empty(),
                "{}: {}: pin it by commit, with its version behind it",
                workflow.display(),
                line.1
            );
            actions += 1;
        }
    }
    assert!(actions > 10, "only {actions} uses of actions were looked at");
    let values = read("charts/webhook-operator/values.yaml");
    let (_, image) = values.split_once("\n  repository: ").unwrap();
    let image = image.lines().next().unwrap();
    assert!(
        read(".github/workflows/release.yml").contains(&format!("\n  IMAGE: {image}\n")),
        "the chart runs {image}, which the workflow release does not push"
    );
}

/// The published package is what `include` in Cargo.toml names; a file that the code reads must be among it.
#[test]
fn what_the_code_includes_is_in_the_package() {
    let manifest = read("Cargo.toml");
    let (_, list) = manifest.split_once("\ninclude = [").unwrap();
    let list = list.split(']').next().unwrap();
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    for source in sources {
        let text = fs::read_to_string(&source).unwrap();
        for name in text.split("include_str!(\"").skip(1) {
            let name = name.split('"').next().unwrap();
            let file = source.parent().unwrap().join(name).canonicalize().unwrap();
            let path = file.strip_prefix(root().canonicalize().unwrap()).unwrap();
            let path = format!("/{}", path.to_str().unwrap());
            assert!(
                path.starts_with("/src/") || list.contains(&format!("\"{path}\"")),
                "{}: {path} is not in `include` of Cargo.toml",
                source.display()
            );
        }
    }
}
