//! The log at the default filter: one line for each change, none for what stays as it is, each of them an object of JSON
//! with the fields that `docs/observability.md` has.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use upstream_doubles::Verdict;
use webhook_operator::{
    api::{conditions::ProviderReason, provider::ProviderType},
    telemetry::DEFAULT_FILTER,
};

use crate::world::World;

const DOCUMENTED: &str = include_str!("../../docs/observability.md");

/// How long a settled operator is listened to.
const WINDOW: Duration = Duration::from_secs(5);

/// Longer than SIGTERM takes with nothing in flight.
const END: Duration = Duration::from_secs(10);

/// What is within backquotes in the cells of the rows of a table: `columns` of each row, in order.
fn table(after: &str) -> Vec<Vec<Vec<String>>> {
    let (_, rest) = DOCUMENTED
        .split_once(after)
        .unwrap_or_else(|| panic!("no {after:?}"));
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(quoted).collect())
        .collect()
}

fn names(after: &str) -> BTreeSet<String> {
    table(after)
        .into_iter()
        .flat_map(|mut row| row.swap_remove(0))
        .collect()
}

/// The lines since the log was this long.
fn since(world: &World, from: usize) -> Vec<Map<String, Value>> {
    parse(&world.operator.log()[from..])
}

/// All lines that are written to their end.
fn whole(world: &World) -> Vec<Map<String, Value>> {
    let log = world.operator.log();
    let end = log.rfind('\n').map_or(0, |at| at + 1);
    parse(&log[..end])
}

fn parse(log: &str) -> Vec<Map<String, Value>> {
    let line = |line: &str| match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object,
        other => panic!("no object of JSON: {line}: {other:?}"),
    };
    log.lines().map(line).collect()
}

fn text<'a>(line: &'a Map<String, Value>, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// What the lines about a Webhook say, each in a few words.
fn told(lines: &[Map<String, Value>], name: &str) -> Vec<String> {
    lines
        .iter()
        .filter(|line| text(line, "kind") == "Webhook" && text(line, "name") == name)
        .map(|line| match text(line, "message") {
            "changed at the upstream" => text(line, "operation").to_owned(),
            "Ready changed" => format!("{}/{}", text(line, "ready"), text(line, "reason")),
            other => other.to_owned(),
        })
        .collect()
}

/// Waits until the lines about a Webhook say this, from the beginning of the log on, and nothing else. What a test sees in
/// an object may be written to the log a moment later.
async fn said(world: &World, name: &str, expected: &[&str]) {
    world
        .eventually(&format!("as many lines about {name} as {expected:?}"), || {
            told(&whole(world), name).len() >= expected.len()
        })
        .await;
    let lines = whole(world);
    assert_eq!(told(&lines, name), expected, "{lines:#?}");
}

/// Ids of traces in lines about a Webhook.
fn traces(lines: &[Map<String, Value>], name: &str) -> Vec<String> {
    let about = lines.iter().filter(|line| text(line, "name") == name);
    about.map(|line| text(line, "trace_id").to_owned()).collect()
}

/// Every line has what all have, and those of a pass have nothing that is not documented.
fn check(lines: &[Map<String, Value>]) {
    let (every, pass) = (names("Fields of every line:"), names("looks at one object:"));
    let own: Vec<(String, Vec<String>)> = table("none for what stays as it is:")
        .into_iter()
        .map(|mut row| (row[0].remove(0), row.swap_remove(2)))
        .collect();
    assert!(
        every.len() == 4 && pass.len() == 4 && own.len() == 3,
        "{every:?} {pass:?} {own:?}"
    );
    for line in lines {
        let keys: BTreeSet<String> = line.keys().cloned().collect();
        assert!(every.is_subset(&keys), "{line:?}");
        assert!(text(line, "timestamp").parse::<Timestamp>().is_ok(), "{line:?}");
        assert!(
            ["INFO", "WARN", "ERROR"].contains(&text(line, "level")),
            "{line:?}"
        );
        let Some((_, own)) = own.iter().find(|(message, _)| message == text(line, "message")) else {
            assert!(
                !line.contains_key("trace_id"),
                "a line of a pass that is in no table: {line:?}"
            );
            continue;
        };
        let documented: BTreeSet<String> = every.iter().chain(&pass).chain(own).cloned().collect();
        assert_eq!(keys, documented, "{line:?}");
        assert!(text(line, "trace_id").len() == 32, "{line:?}");
    }
}

#[tokio::test]
async fn one_change_is_one_line_and_what_is_settled_says_nothing() {
    let world = World::alone("logs", &["--log-filter", DEFAULT_FILTER]).await;
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
    for provider in [ProviderType::Thulium, ProviderType::Ricloud] {
        world.provider(provider).await;
    }
    for provider in ["thulium", "ricloud"] {
        world.wait_provider(provider, ProviderReason::Verified).await;
    }
    let spec = json!({"url": "https://hooks.example.com/a", "events": ["TICKET_CREATED"]});
    world.webhook("orders", ProviderType::Thulium, spec).await;
    let mut orders = vec!["create", "True/Available"];
    said(&world, "orders", &orders).await;
    let ids = traces(&whole(&world), "orders");
    assert_eq!(ids[0], ids[1], "both of one pass");

    let spec = json!({"url": "https://hooks.example.com/b"});
    world.webhook("exports", ProviderType::Ricloud, spec).await;
    let exports = ["create", "Unknown/NotYetTested", "True/Available"];
    said(&world, "exports", &exports).await;

    // Settled: by time, by a look at the upstream, and by a restart.
    let from = world.operator.log().len();
    tokio::time::sleep(WINDOW).await;
    world.read_back("orders").await;
    world.read_back("exports").await;
    let lines = since(&world, from);
    assert!(lines.is_empty(), "{lines:#?}");
    let ended = world.operator.terminate(END).await;
    assert_eq!(ended.code(), Some(0));
    world.operator.go().await;
    world.read_back("orders").await;
    world.read_back("exports").await;

    world
        .change("orders", json!({"url": "https://hooks.example.com/c"}))
        .await;
    orders.push("update");
    said(&world, "orders", &orders).await;
    world.delete_and_wait("orders").await;
    orders.push("delete");
    // Nothing else was said at any time.
    said(&world, "orders", &orders).await;
    said(&world, "exports", &exports).await;
    check(&whole(&world));
}
