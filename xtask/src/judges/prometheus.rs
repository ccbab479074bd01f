//! promtool judges the alerts of the chart: their syntax, and by tests when each fires and when not. Where it comes from
//! is [`install`]'s.

mod install;

use std::process::Command;

use super::Outcome;
use crate::progress::{Failure, root, step};

const ALERTS: &str = "charts/webhook-operator/files/alerts.yaml";
const ALERT_TESTS: &str = "tests/prometheus/alerts.yaml";

/// Checks the rules and tests them.
pub(super) fn run() -> Result<Outcome, Failure> {
    let promtool = match install::promtool()? {
        Ok(promtool) => promtool,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    for (verb, file) in [("check", ALERTS), ("test", ALERT_TESTS)] {
        let mut command = Command::new(&promtool);
        command.args([verb, "rules", file]).current_dir(root());
        step(&format!("promtool-{verb}-rules"), &mut command)?;
    }
    Ok(Outcome::Agrees("the rules, and all tests of them".to_owned()))
}
