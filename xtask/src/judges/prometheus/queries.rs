//! What is asked: every query of every panel of the dashboard and every expression of an alert, and the metrics with
//! their labels that the documentation promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::Deserialize;
use serde_json::Value;

use super::{ALERTS, DASHBOARD, METRICS};
use crate::progress::{Failure, root};

/// What Grafana puts in for its variables at a scrape every second. (By its rule four times the interval; longer here,
/// so that a machine under load has two samples in it.)
const RATE_INTERVAL: &str = "20s";

/// The alert that fires when nobody leads, so that it finds nothing while somebody does.
pub(super) const OPERATOR_DOWN: &str = "alert OperatorDown";

/// One query and where it stands.
#[derive(Debug)]
pub(super) struct Query {
    /// `panel TITLE` or `alert NAME`.
    pub(super) place: String,
    /// In PromQL, without variables.
    pub(super) expr: String,
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
}

/// All of them.
pub(super) fn all() -> Result<Vec<Query>, Failure> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(root().join(DASHBOARD))?)?;
    let mut queries = Vec::new();
    panels(dashboard.get("panels").unwrap_or(&Value::Null), &mut queries)?;
    let rules: Rules = webhook_operator::yaml::parse(&fs::read_to_string(root().join(ALERTS))?)?;
    let rules = rules.groups.into_iter().flat_map(|group| group.rules);
    queries.extend(rules.map(|rule| Query {
        place: format!("alert {}", rule.alert),
        expr: rule.expr,
    }));
    Ok(queries)
}

/// Adds those of the panels, of rows that are folded too.
fn panels(list: &Value, queries: &mut Vec<Query>) -> Result<(), Failure> {
    let each = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    for panel in list.as_array().into_iter().flatten() {
        let title = panel
            .get("title")
            .and_then(Value::as_str)
            .unwrap_or("without a title");
        let targets = each(panel, "targets");
        let kind = panel.get("type").and_then(Value::as_str).unwrap_or_default();
        if targets.is_empty() && !matches!(kind, "row" | "text") {
            return Err(Failure::new(format!("panel {title:?} has no query")));
        }
        for target in targets {
            let expr = target.get("expr").and_then(Value::as_str).unwrap_or_default();
            let expr = expr.replace("$__rate_interval", RATE_INTERVAL);
            if expr.is_empty() || expr.contains('$') {
                return Err(Failure::new(format!(
                    "panel {title:?}: {expr:?} is empty, or has a variable that this judge does not know: add it to RATE_INTERVAL's"
                )));
            }
            queries.push(Query {
                place: format!("panel {title}"),
                expr,
            });
        }
        panels(panel.get("panels").unwrap_or(&Value::Null), queries)?;
    }
    Ok(())
}

/// The metrics that the documentation promises, each with its labels.
pub(super) fn promised() -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let text = fs::read_to_string(root().join(METRICS))?;
    let section = text
        .split_once("\n## Metrics\n")
        .map_or("", |(_, section)| section);
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
    let promised: BTreeMap<_, _> = section.lines().filter_map(row).collect();
    if promised.is_empty() {
        return Err(Failure::new(format!(
            "{METRICS} has no table of metrics any more"
        )));
    }
    Ok(promised)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_panel_is_asked_and_a_variable_that_is_not_known_is_refused() {
        let folded = json!([
            {"title": "a", "type": "stat", "targets": [{"expr": "up[$__rate_interval]"}, {"expr": "b"}]},
            {"title": "row", "type": "row", "panels": [{"title": "c", "type": "stat", "targets": [{"expr": "c"}]}]},
        ]);
        let mut queries = Vec::new();
        panels(&folded, &mut queries).unwrap();
        let asked: Vec<_> = queries.iter().map(|query| query.expr.as_str()).collect();
        assert_eq!(asked, ["up[20s]", "b", "c"]);
        for bad in [
            json!([{"title": "a", "type": "stat", "targets": [{"expr": "up{namespace=\"$namespace\"}"}]}]),
            json!([{"title": "a", "type": "stat", "targets": []}]),
        ] {
            assert!(panels(&bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn dashboard_alerts_and_documentation_are_read() {
        let queries = all().unwrap();
        let of = |kind: &str| {
            queries
                .iter()
                .filter(|query| query.place.starts_with(kind))
                .count()
        };
        assert!(of("panel ") > 10 && of("alert ") > 5, "{queries:?}");
        assert!(queries.iter().any(|query| query.place == OPERATOR_DOWN));
        assert!(promised().unwrap()["webhook_operator_provider_ready"].contains("kind"));
    }
}
