//! Prometheus judges what it is given. Its `promtool` the alerts of the chart: their syntax, and by tests when each
//! fires and when not. Its server, which scrapes a real run, whether every query of dashboard and alerts finds
//! something, and whether the metrics are those of the documentation. Where both come from is [`install`]'s.

mod install;
mod live;
mod queries;
mod scene;
mod server;

use std::process::Command;

use super::Outcome;
use crate::progress::{Failure, block_on, root, step};

const ALERTS: &str = "charts/webhook-operator/files/alerts.yaml";
const ALERT_TESTS: &str = "tests/prometheus/alerts.yaml";
const DASHBOARD: &str = "charts/webhook-operator/files/dashboard.json";
const METRICS: &str = "docs/observability.md";

/// Checks the rules and tests them, then lets a server answer for a real run.
pub(super) fn run() -> Result<Outcome, Failure> {
    let tools = match install::tools()? {
        Ok(tools) => tools,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    for (verb, file) in [("check", ALERTS), ("test", ALERT_TESTS)] {
        let mut command = Command::new(&tools.promtool);
        command.args([verb, "rules", file]).current_dir(root());
        step(&format!("promtool-{verb}-rules"), &mut command)?;
    }
    let live = block_on(live::run(&tools))?;
    Ok(Outcome::Agrees(format!(
        "the rules, and all tests of them; in a run, {live}"
    )))
}
