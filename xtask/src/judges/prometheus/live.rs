//! A Prometheus that scrapes a real run is asked everything that dashboard and alerts ask, and for every metric that the
//! documentation promises. A query that finds nothing would be a panel that stays empty, or an alert that never fires.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    install::Tools,
    queries::{self, OPERATOR_DOWN, Query},
    scene::Scene,
    server::{Series, Server},
};
use crate::{
    programs::Programs,
    progress::{Failure, step},
    stand::Stand,
};

/// Longest wait until every query finds something: rates need a few scrapes.
const LIMIT: Duration = Duration::from_secs(90);

/// Labels that the scrape adds, and the bounds of a histogram.
const NOT_OURS: [&str; 4] = ["__name__", "instance", "job", "le"];

/// Runs it all; says in words what agreed.
pub(super) async fn run(tools: &Tools) -> Result<String, Failure> {
    let programs = Programs::build(false)?;
    let stand = Stand::start(None).await?;
    let folder = tempfile::tempdir()?;
    let mut scene = Scene::start(&programs, &stand, folder.path()).await?;
    let server = Server::start(&tools.prometheus, folder.path(), &scene.target().await?).await?;
    let queries = queries::all()?;
    let (during, after): (Vec<&Query>, Vec<&Query>) =
        queries.iter().partition(|query| query.place != OPERATOR_DOWN);

    eprintln!("  making Webhooks, and letting things go wrong");
    // Counters have to be seen at zero before they rise.
    find(&server, "webhook_operator_leader == 1").await?;
    scene.set().await?;
    scene.happen().await?;
    eprintln!("  asking {} queries", during.len());
    answered(&server, &scene, &during).await?;
    for query in &after {
        if !server.query(&query.expr).await?.is_empty() {
            return Err(Failure::new(format!(
                "{}: fires while the operator leads",
                query.place
            )));
        }
    }
    rules(&server).await?;
    let metrics = promised(&server).await?;
    page(tools, &scene.target().await?, folder.path()).await?;
    if !server.query("webhook_operator_no_such_metric").await?.is_empty() {
        return Err(Failure::new(
            "it finds what is not there, so that it finds the rest shows nothing",
        ));
    }

    eprintln!("  stopping the operator");
    scene.end_operator().await?;
    for query in &after {
        find(&server, &query.expr).await?;
    }
    server.stop().await?;
    scene.stop().await;
    stand.stop().await?;
    Ok(format!(
        "{} queries of dashboard and alerts find something, {metrics} metrics have the documented labels, and promtool \
         finds nothing wrong with the page",
        queries.len()
    ))
}

/// Asks until the query finds something.
async fn find(server: &Server, expr: &str) -> Result<(), Failure> {
    let began = Instant::now();
    while server.query(expr).await?.is_empty() {
        if began.elapsed() > LIMIT {
            return Err(Failure::new(format!("finds nothing: {expr}")));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Asks all until each finds at least one series with a number other than 0, while the operator has something to do. All
/// that can be counted happens in the run, so 0 would be what `or vector(0)` makes of a query that finds nothing; but where
/// a query looks for zeros.
async fn answered(server: &Server, scene: &Scene<'_>, queries: &[&Query]) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        scene.busy().await?;
        let mut empty = Vec::new();
        for query in queries {
            let found = server.query(&query.expr).await;
            let found =
                found.map_err(|error| Failure::new(format!("{}: {error}: {}", query.place, query.expr)))?;
            let zeros = query.expr.ends_with("== 0");
            let telling = |series: &Series| series.number().is_some_and(|number| zeros || number != 0.0);
            if !found.iter().any(telling) {
                empty.push(format!("{}: {}", query.place, query.expr));
            }
        }
        if empty.is_empty() {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            return Err(Failure::new(format!("find nothing, or 0:\n{}", empty.join("\n"))));
        }
        sleep(Duration::from_secs(2)).await;
    }
}

/// The server evaluates every rule without an error.
async fn rules(server: &Server) -> Result<(), Failure> {
    let rules = server.rules().await?;
    match rules.iter().find(|rule| rule.health != "ok") {
        Some(rule) => {
            let error = rule.last_error.as_deref().unwrap_or_default();
            Err(Failure::new(format!(
                "rule {} is {}: {error}",
                rule.name, rule.health
            )))
        }
        None if rules.is_empty() => Err(Failure::new("it has no rules")),
        None => Ok(()),
    }
}

/// Every metric of the documentation is there, with the labels that stand there, and no other of ours is. How many.
async fn promised(server: &Server) -> Result<usize, Failure> {
    let promised = queries::promised()?;
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Series { metric, .. } in server.query(r#"{__name__=~"webhook_operator_.*"}"#).await? {
        let name = metric.get("__name__").cloned().unwrap_or_default();
        let part = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let family = part
            .filter(|family| promised.contains_key(*family))
            .unwrap_or(&name)
            .to_owned();
        let labels = metric
            .into_keys()
            .filter(|label| !NOT_OURS.contains(&label.as_str()));
        there.entry(family).or_default().extend(labels);
    }
    if there == promised {
        Ok(there.len())
    } else {
        Err(Failure::new(format!(
            "the documentation promises {promised:?}, and the scrape has {there:?}"
        )))
    }
}

/// promtool finds nothing wrong with the page that it would be given.
async fn page(tools: &Tools, target: &str, folder: &std::path::Path) -> Result<(), Failure> {
    let page = reqwest::get(format!("http://{target}/metrics"))
        .await?
        .text()
        .await?;
    let file = folder.join("page");
    fs::write(&file, page)?;
    let mut command = Command::new(&tools.promtool);
    command
        .args(["check", "metrics"])
        .stdin(File::open(&file)?)
        .stdout(Stdio::inherit());
    step("promtool-check-metrics", &mut command)
}
