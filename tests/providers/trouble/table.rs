//! `docs/upstream-errors.md`: what each class of errors means, and what comes of each trouble.

use std::{fmt::Write, fs, path::Path, time::Duration};

use webhook_operator::{
    api::{
        conditions::{Reason, StalledReason},
        provider::ProviderType,
    },
    domain::{
        retry::Retry,
        status::{Aspect, Assessment},
    },
    net::Response,
    provider::{Effect, ErrorClass, Operation, ProviderError},
};

use super::{
    Bench,
    bodies::ALL,
    calls::{Case, KINDS, cases, outcome},
    connections, lists,
    model::{Model, Route},
    statuses, with_trouble,
};

const PAGE: &str = "docs/upstream-errors.md";

/// What comes out otherwise than by the rule, by outcome.
#[derive(Default, PartialEq)]
struct Row {
    outcome: String,
    statuses: Vec<u16>,
    bodies: Vec<&'static str>,
    connections: Vec<&'static str>,
}

/// The exceptions of one request.
struct Rows {
    changes: bool,
    rows: Vec<Row>,
    /// Those that were tried.
    bodies: Vec<&'static str>,
}

impl Rows {
    fn new(route: &Route) -> Self {
        Self {
            changes: route.changes(),
            rows: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// Takes in what came of one trouble, unless it is what the rule says for a request that changes something.
    fn add(&mut self, rule: &str, outcome: String, note: impl FnOnce(&mut Row)) {
        let rule = if self.changes {
            rule.to_owned()
        } else {
            rule.replace('?', "")
        };
        if outcome == rule {
            return;
        }
        let at = self.rows.iter().position(|row| row.outcome == outcome);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                outcome,
                ..Row::default()
            });
            self.rows.len() - 1
        });
        note(&mut self.rows[at]);
    }

    /// The bodies of a row; by what is missing, where that is shorter.
    fn bodies_of(&self, row: &Row) -> String {
        let tried = self.bodies.iter().copied();
        let others: Vec<&str> = tried.filter(|name| !row.bodies.contains(name)).collect();
        if others.len() > row.bodies.len() {
            return row.bodies.join(", ");
        }
        match others.as_slice() {
            [] => "any".to_owned(),
            others => format!("any but {}", others.join(", ")),
        }
    }
}

fn status_rule(status: u16) -> String {
    let error = ProviderError::from_status(Operation::Update, status, None).unwrap();
    outcome(&Err(error))
}

/// Makes an answer from the good one.
type Make = fn(u16, &serde_json::Value) -> Response;

/// What has no body of its own.
const OTHER: [(&str, Make); 2] = [
    ("the good one as `text/html`", |status, good| {
        let html = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        Response::new(status, html, good.to_string())
    }),
    ("none, with status 204", |_, _| Response::new(204, Vec::new(), "")),
];

const BODY_RULE: &str = "**unexpected?**";

/// `300–399, 401, 403`.
fn ranges(statuses: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for status in statuses {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *status => *last = *status,
            _ => parts.push((*status, *status)),
        }
    }
    let text = parts.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}–{last}"),
    });
    text.collect::<Vec<_>>().join(", ")
}

async fn bodies(case: Case, route: &Route, rows: &mut Rows) {
    for body in ALL {
        let good = Model::new(case.kind).answer(route, b"").1;
        let Some(bytes) = (body.make)(&good) else {
            continue;
        };
        let answer = Response::new(200, super::json_type(), bytes);
        let (_, result) = with_trouble(case, route, move |_, _| answer.clone()).await;
        let place = format!("{case:?}, {route}, {}", body.name);
        assert!(!format!("{result:?}").contains("kr0kodil"), "{place}: {result:?}");
        rows.add(BODY_RULE, outcome(&result), |row| row.bodies.push(body.name));
        rows.bodies.push(body.name);
    }
    for (name, make) in OTHER {
        let (_, result) = with_trouble(case, route, make).await;
        rows.add(BODY_RULE, outcome(&result), |row| row.bodies.push(name));
        rows.bodies.push(name);
    }
}

/// The rule for statuses, bodies and connections, for a request that changes something.
fn rules() -> String {
    let mut text = String::new();
    let mut classes: Vec<(String, Vec<u16>)> = Vec::new();
    for status in statuses::STATUSES {
        let rule = status_rule(status);
        match classes.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, statuses)) => statuses.push(status),
            None => classes.push((rule, vec![status])),
        }
    }
    for (rule, statuses) in &classes {
        writeln!(text, "| status {} | {rule} |", ranges(statuses)).unwrap();
    }
    writeln!(
        text,
        "| 2xx with a body that is not as documented | {BODY_RULE} |"
    )
    .unwrap();
    for (name, rule) in connections::rules() {
        writeln!(text, "| connection: {name} | {rule} |").unwrap();
    }
    text
}

/// The conditions and the next attempt for each class, in each kind of call in which they differ.
fn classes() -> String {
    const CLASSES: [ErrorClass; 12] = [
        ErrorClass::Unauthorized,
        ErrorClass::Forbidden,
        ErrorClass::TargetNotFound,
        ErrorClass::AlreadyExists,
        ErrorClass::Rejected,
        ErrorClass::RateLimited,
        ErrorClass::Timeout,
        ErrorClass::Unreachable,
        ErrorClass::BlockedAddress,
        ErrorClass::Unsupported,
        ErrorClass::Unexpected,
        ErrorClass::Held,
    ];
    const OPERATIONS: [Operation; 9] = [
        Operation::Read,
        Operation::List,
        Operation::Create,
        Operation::Update,
        Operation::Switch,
        Operation::Delete,
        Operation::Test,
        Operation::Poll,
        Operation::Use,
    ];
    let mut text = String::new();
    for class in CLASSES {
        let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
        for operation in OPERATIONS {
            let row = class_row(class, operation);
            match kinds.iter_mut().find(|(known, _)| *known == row) {
                Some((_, operations)) => operations.push(operation.as_str()),
                None => kinds.push((row, vec![operation.as_str()])),
            }
        }
        for (row, operations) in &kinds {
            let of = if kinds.len() == 1 {
                String::new()
            } else {
                format!(" ({})", operations.join(", "))
            };
            writeln!(text, "| {}{of} | {row} |", class.as_str()).unwrap();
        }
    }
    text
}

fn class_row(class: ErrorClass, operation: Operation) -> String {
    let error = ProviderError::new(class, operation, Effect::None, "said");
    let assessment = Assessment::failed(&error);
    let Aspect::Is(synced, _) = assessment.synced else {
        panic!("{class:?} says nothing of Synced")
    };
    let ready = assessment.ready.0;
    let stalled = assessment
        .stalled
        .map(|(reason, _): (StalledReason, _)| format!("Stalled/{}", reason.as_str()));
    let also = stalled.or(assessment
        .reconciling
        .map(|(reason, _)| format!("Reconciling/{}", reason.as_str())));
    let asked = ProviderError {
        retry_after: Some(Duration::from_secs(7)),
        ..error.clone()
    };
    let next = match (Retry::after(&error), Retry::after(&asked)) {
        (Retry::OnChange, Retry::OnChange) => "when something changes",
        (Retry::Growing, Retry::Growing) => "after 1 s, doubled up to 5 min",
        (Retry::Growing, Retry::NotBefore(_)) => "the same, and not before `Retry-After`",
        (Retry::Slow, Retry::Slow) => "every 15 min",
        (Retry::Credentials, Retry::Credentials) => "one call of the account in 5 min",
        other => panic!("{class:?} {operation}: {other:?}"),
    };
    format!(
        "{}/{} | {}/{} | {} | {next}",
        synced.status().as_str(),
        synced.as_str(),
        ready.status().as_str(),
        ready.as_str(),
        also.unwrap_or_default(),
    )
}

fn section(text: &mut String, calls: &str, route: &Route, rows: &Rows) {
    for row in &rows.rows {
        writeln!(
            text,
            "| {calls} | `{route}` | {} | {} | {} | {} |",
            row.outcome,
            ranges(&row.statuses),
            rows.bodies_of(row),
            row.connections.join(", "),
        )
        .unwrap();
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Statuses and bodies of each request of one call.
async fn without_sockets(case: Case) -> Vec<(Case, Route, Rows)> {
    let mut all = Vec::new();
    for route in Bench::routes(case).await {
        let mut rows = Rows::new(&route);
        for (status, outcome) in statuses::outcomes(case, &route).await {
            rows.add(&status_rule(status), outcome, |row| row.statuses.push(status));
        }
        bodies(case, &route, &mut rows).await;
        all.push((case, route, rows));
    }
    all
}

/// All exceptions; requests whose exceptions are the same in several calls stand once.
fn exceptions() -> Vec<(ProviderType, String, Route, Rows)> {
    let mut found: Vec<(Case, Route, Rows)> = Vec::new();
    for case in KINDS.into_iter().flat_map(cases) {
        found.extend(paused().block_on(without_sockets(case)));
    }
    let requests: Vec<_> = found
        .iter()
        .map(|(case, route, _)| (*case, route.clone()))
        .collect();
    let broken = connections::outcomes(&requests);
    let mut merged: Vec<(ProviderType, String, Route, Rows)> = Vec::new();
    for ((case, route, mut rows), broken) in found.into_iter().zip(broken) {
        for (name, outcome) in broken {
            let rule = connections::rules().find(|(known, _)| *known == name).unwrap().1;
            rows.add(rule, outcome, |row| row.connections.push(name));
        }
        let same =
            |(_, _, known, others): &&mut (_, _, Route, Rows)| *known == route && others.rows == rows.rows;
        match merged.iter_mut().find(same) {
            Some((_, calls, ..)) => *calls = format!("{calls}; {}", case.name()),
            None => merged.push((case.kind, case.name(), route, rows)),
        }
    }
    merged
}

fn page() -> String {
    let mut text = INTRODUCTION
        .replace("CLASSES\n", &classes())
        .replace("RULES\n", &rules());
    let all = exceptions();
    for kind in KINDS {
        let heading = "call | request | outcome | statuses | bodies of a 2xx | connections";
        let line = heading.split('|').map(|_| "---").collect::<Vec<_>>().join("|");
        write!(text, "\n### {}\n\n| {heading} |\n|{line}|\n", kind.as_str()).unwrap();
        for (_, calls, route, rows) in all.iter().filter(|(of, ..)| *of == kind) {
            section(&mut text, calls, route, rows);
        }
    }
    text.push_str(&lists::section());
    text
}

const INTRODUCTION: &str = include_str!("introduction.md");

#[test]
fn every_trouble_comes_out_as_the_table_says() {
    let made = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = made
        .lines()
        .zip(written.lines())
        .find(|(made, written)| made != written);
    assert!(
        made == written,
        "{PAGE} says something else (UPDATE_DOCS=1 writes it anew); first difference:\nnow:  {}\npage: {}",
        differs.map_or("(its end)", |(made, _)| made),
        differs.map_or("(its end)", |(_, written)| written),
    );
}
