//! Traces, at a collector: that the spans of a pass arrive and belong together, that the log names the same ids, that
//! nothing secret is in them, and that a collector that is away or stuck holds up nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use webhook_operator::api::{Webhook, conditions::ReadyReason, provider::ProviderType};

use crate::{
    collector::{Collector, Told},
    world::{SOON, World, uid},
};

/// The SDK's own delay is 5 s.
const QUICK: &str = "OTEL_BSP_SCHEDULE_DELAY=200";

/// How long the end of the process may take: the operator's own, and the flush of 3 s.
const END: Duration = Duration::from_secs(10);

const DOCUMENTED: &str = include_str!("../../docs/observability.md");

/// Lines of the log that are about a Webhook.
fn lines(world: &World, name: &str) -> Vec<Value> {
    world
        .operator
        .log()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line| line["kind"] == "Webhook" && line["name"] == name)
        .collect()
}

/// A Webhook at Thulium that the operator tests at the receiver, Ready.
async fn tested(world: &World, name: &str) -> Webhook {
    world.provider(ProviderType::Thulium).await;
    let url = format!("{}/ok/{name}?token=in-the-query", world.doubles.receiver().url());
    let spec = json!({"url": url, "events": ["TICKET_CREATED"], "test": {"mode": "Probe"}});
    world.webhook(name, ProviderType::Thulium, spec).await;
    world.wait_ready(name, ReadyReason::Available).await
}

async fn end(world: &World) {
    let began = Instant::now();
    let ended = world.operator.terminate(END).await;
    assert_eq!(ended.code(), Some(0), "{}", world.operator.log_tail(""));
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
}

/// Spans of one trace by id, and the one that has no parent.
fn trees(spans: &[Told]) -> BTreeMap<&str, Vec<&Told>> {
    let mut trees: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for span in spans {
        trees.entry(&span.trace).or_default().push(span);
    }
    trees
}

#[tokio::test]
async fn the_spans_of_a_pass_arrive_together_and_the_log_names_their_trace() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let args = [
        "OTEL_EXPORTER_OTLP_HEADERS=x-scope=of%20the%20test",
        "--otlp-endpoint",
        &endpoint,
        "--log-filter",
        "info",
    ];
    let world = World::alone("traces", &args).await;
    let webhook = tested(&world, "traced").await;
    // What is queued is sent at the end.
    end(&world).await;

    let spans = collector.spans();
    let trees = trees(&spans);
    for (trace, spans) in &trees {
        let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
        assert_eq!(roots.len(), 1, "{trace}: {spans:#?}");
        assert!(roots[0].name.ends_with(" pass"), "{:?}", roots[0]);
        for part in spans.iter().filter(|span| !span.parent.is_empty()) {
            assert_eq!(part.parent, roots[0].id, "{trace}: {part:?}");
            assert!(
                part.time.0 >= roots[0].time.0 && part.time.1 >= part.time.0,
                "{part:?}"
            );
            // A probe outlives the pass that asked for it; nothing else does.
            assert!(part.name == "probe" || part.time.1 <= roots[0].time.1, "{part:?}");
        }
    }
    the_create(&world, &webhook, &trees);
    the_log(&world, &trees);
    let probe = spans.iter().find(|span| span.name == "probe").expect("a probe");
    assert_eq!(
        (
            probe.attribute("http.response.status_code"),
            probe.attribute("tested")
        ),
        ("200", "Passed")
    );
    assert_eq!(collector.resource()["service.name"], "webhook-operator");
    let scopes = collector.headers("x-scope");
    assert!(
        !scopes.is_empty() && scopes.iter().all(|scope| scope == "of the test"),
        "{scopes:?}"
    );
    only_what_is_documented(&spans);
    let raw = collector.raw();
    for word in [
        "in-the-query",
        "/ok/",
        "/api/",
        &world.keys().thulium,
        "Authorization",
        "authorization",
    ] {
        assert!(!raw.contains(word), "{word} is in a trace");
    }
}

/// The pass that made the registration has one span for each thing that it did.
fn the_create(world: &World, webhook: &Webhook, trees: &BTreeMap<&str, Vec<&Told>>) {
    let of = |name: &str| {
        trees
            .values()
            .filter(|spans| spans.iter().any(|span| span.name == name))
            .collect::<Vec<_>>()
    };
    let creating = of("upstream create");
    assert_eq!(creating.len(), 1, "one create, one trace: {creating:#?}");
    let find = |name: &str| -> &Told {
        let span = creating[0].iter().find(|span| span.name == name);
        span.unwrap_or_else(|| panic!("no {name}: {:#?}", creating[0]))
    };
    let pass = find("webhook pass");
    let expected = [
        ("object.kind", "Webhook"),
        ("object.name", "traced"),
        ("object.generation", "1"),
        ("object.uid", &uid(webhook)),
        ("k8s.namespace.name", &world.namespace),
        ("provider.type", "Thulium"),
        ("provider.kind", "WebhookProvider"),
        ("provider.name", "thulium"),
        ("outcome", "ok"),
    ];
    for (key, value) in expected {
        assert_eq!(pass.attribute(key), value, "{key}: {pass:?}");
    }
    let create = find("upstream create");
    let base = url::Url::parse(&world.base_url(ProviderType::Thulium)).unwrap();
    let expected = [
        ("http.request.method", "POST"),
        ("server.address", "127.0.0.1"),
        ("server.port", &base.port().unwrap().to_string()),
        ("upstream.operation", "create"),
        ("provider.type", "Thulium"),
        ("attempt", "1"),
    ];
    for (key, value) in expected {
        assert_eq!(create.attribute(key), value, "{key}: {create:?}");
    }
    assert!(create.attribute("http.response.status_code").starts_with('2') && !create.failed);
    // Mark, list and create, in this order, then the id.
    let writes: Vec<_> = creating[0]
        .iter()
        .filter(|span| span.name == "write metadata")
        .collect();
    assert_eq!(writes.len(), 2, "{writes:#?}");
    assert!(writes.iter().all(|write| write.attribute("outcome") == "ok"));
    assert!(find("upstream list").time.1 <= create.time.0);
    assert!(writes.iter().any(|write| write.time.1 <= create.time.0));
    assert!(writes.iter().any(|write| write.time.0 >= create.time.1));
    assert!(find("write status").time.0 >= create.time.1);
}

/// Each line about the Webhook names a trace that has arrived, of a pass over it that did what the line says.
fn the_log(world: &World, trees: &BTreeMap<&str, Vec<&Told>>) {
    let lines = lines(world, "traced");
    assert!(lines.len() >= 2, "{lines:#?}");
    for line in &lines {
        let trace = line["trace_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no trace: {line}"));
        let spans = trees
            .get(trace)
            .unwrap_or_else(|| panic!("no such trace: {line}"));
        let did = match line["message"].as_str() {
            Some("changed at the upstream") => format!("upstream {}", line["operation"].as_str().unwrap()),
            Some("Ready changed") => "write status".to_owned(),
            _ => panic!("what is this line? {line}"),
        };
        assert!(spans.iter().any(|span| span.name == did), "{line}: {spans:#?}");
        let root = spans.iter().find(|span| span.parent.is_empty()).unwrap();
        assert_eq!(root.attribute("object.name"), "traced", "{line}");
    }
}

/// What a span has stands in the documentation.
fn only_what_is_documented(spans: &[Told]) {
    let keys: BTreeSet<&str> = spans
        .iter()
        .flat_map(|span| span.attributes.keys())
        .map(String::as_str)
        .collect();
    for key in keys {
        assert!(
            DOCUMENTED.contains(&format!("`{key}`")),
            "{key} is in no table of docs/observability.md"
        );
    }
    for name in spans
        .iter()
        .map(|span| span.name.as_str())
        .collect::<BTreeSet<_>>()
    {
        let known = name.starts_with("upstream ") || DOCUMENTED.contains(&format!("`{name}`"));
        assert!(known, "{name} is in no table of docs/observability.md");
    }
}

#[tokio::test]
async fn a_failing_upstream_shows_which_attempt_failed_and_how() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let world = World::alone("traces", &[QUICK, "--otlp-endpoint", &endpoint]).await;
    let fault = upstream_doubles::Fault::status(429).method("POST").times(2);
    world.doubles.thulium().set_fault(fault);
    tested(&world, "failing").await;
    let creates = |spans: &[Told]| -> Vec<Told> {
        spans
            .iter()
            .filter(|span| span.name == "upstream create")
            .cloned()
            .collect()
    };
    let spans = collector
        .wait("three attempts", |spans| creates(spans).len() == 3)
        .await;
    let mut creates = creates(&spans);
    creates.sort_by_key(|span| span.time);
    let told: Vec<_> = creates
        .iter()
        .map(|span| {
            (
                span.attribute("attempt"),
                span.attribute("http.response.status_code"),
                span.failed,
            )
        })
        .collect();
    assert_eq!(told[..2], [("1", "429", true), ("2", "429", true)], "{told:?}");
    let (attempt, status, failed) = told[2];
    assert!(attempt == "3" && status.starts_with('2') && !failed, "{told:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_one_warning_and_is_used_when_it_is_back() {
    let free = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let endpoint = format!("http://{address}");
    let world = World::alone("traces", &[QUICK, "--otlp-endpoint", &endpoint]).await;
    tested(&world, "unseen").await;
    let told = || world.operator.log().matches("traces cannot be sent").count();
    world.eventually("the warning", || told() > 0).await;
    // More spans, and more batches that go nowhere.
    world.read_back("unseen").await;
    let collector = Collector::start_at(address).await;
    let later = async {
        loop {
            world.read_back("unseen").await;
            if !collector.spans().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(SOON, later)
        .await
        .expect("spans, now that it is back");
    let log = || world.operator.log();
    world
        .eventually("it to be told", || {
            log().contains("the collector takes traces again")
        })
        .await;
    assert_eq!(told(), 1, "{}", world.operator.log_tail("traces"));
    end(&world).await;
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_work_nor_end() {
    let stuck = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let endpoint = format!("http://{}", stuck.local_addr().unwrap());
    // Accepted by the kernel and read by nobody.
    let world = World::alone("traces", &[QUICK, "--otlp-endpoint", &endpoint]).await;
    tested(&world, "patient").await;
    let (_held, _) = tokio::time::timeout(SOON, stuck.accept())
        .await
        .expect("a batch is on its way")
        .unwrap();
    world.read_back("patient").await;
    end(&world).await;
}

#[tokio::test]
async fn without_the_flag_nothing_is_sent_and_lines_have_their_trace_all_the_same() {
    let collector = Collector::start().await;
    let variable = format!("OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.endpoint());
    let world = World::alone(
        "traces",
        &[
            QUICK,
            &variable,
            "OTEL_TRACES_EXPORTER=otlp",
            "--log-filter",
            "info",
        ],
    )
    .await;
    tested(&world, "quiet").await;
    world.delete_and_wait("quiet").await;
    end(&world).await;
    assert_eq!(collector.spans().len(), 0);
    let lines = lines(&world, "quiet");
    let ids: BTreeSet<&str> = lines
        .iter()
        .map(|line| line["trace_id"].as_str().unwrap_or_default())
        .collect();
    assert!(
        ids.len() >= 2,
        "a create and a deletion are two passes: {lines:#?}"
    );
    for id in ids {
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id:?}"
        );
    }
}
