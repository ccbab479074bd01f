//! `kubectl webhook test`, `reconcile` and `rotate`: set the annotation that asks the operator, and wait for its
//! answer in the status if that is wanted.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    EXIT_NOT_WELL, EXIT_TIMEOUT, Output, PROGRAM, PluginError, Said,
    cluster::{Cluster, Item, full_name},
    duration, explain, object_name, objects,
};
use crate::{
    api::{
        RECONCILE_REQUESTED_AT, ROTATE_REQUESTED_AT, TEST_REQUESTED_AT, WebhookStatus,
        conditions::{self, ConditionType},
        webhook_status::RotationPhase,
    },
    cli::EXIT_OK,
};

/// How often is looked while waiting.
const POLL: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Test,
    Reconcile,
    Rotate,
}

impl Kind {
    const fn annotation(self) -> &'static str {
        match self {
            Self::Test => TEST_REQUESTED_AT,
            Self::Reconcile => RECONCILE_REQUESTED_AT,
            Self::Rotate => ROTATE_REQUESTED_AT,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Reconcile => "reconciliation",
            Self::Rotate => "rotation",
        }
    }

    /// Long enough for what usually happens: ricloud's test takes up to five minutes, a rotation first waits for the
    /// receivers.
    const fn usual(self) -> Duration {
        Duration::from_secs(match self {
            Self::Test => 300,
            Self::Reconcile => 60,
            Self::Rotate => 600,
        })
    }

    fn handled(self, status: &WebhookStatus) -> Option<&str> {
        match self {
            Self::Test => status.last_handled_test_at.as_deref(),
            Self::Reconcile => status.last_handled_reconcile_at.as_deref(),
            Self::Rotate => status.last_handled_rotate_at.as_deref(),
        }
    }
}

/// The options of `test`, `reconcile` and `rotate`.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The Webhooks
    #[arg(required = true, value_name = "NAME", value_parser = object_name)]
    names: Vec<String>,

    /// Wait for the outcome, which the exit code tells
    #[arg(long)]
    wait: bool,

    /// How long to wait for all of them. By default 5m for a test, 1m for a reconciliation, 10m for a rotation
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = duration)]
    timeout: Option<Duration>,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well(String),
    NotWell(String),
    TimedOut(String),
}

impl Ended {
    fn code(&self) -> u8 {
        match self {
            Self::Well(_) => EXIT_OK,
            Self::NotWell(_) => EXIT_NOT_WELL,
            Self::TimedOut(_) => EXIT_TIMEOUT,
        }
    }

    fn text(&self) -> &str {
        let (Self::Well(text) | Self::NotWell(text) | Self::TimedOut(text)) = self;
        text
    }
}

pub(super) async fn run(
    cluster: &Cluster,
    kind: Kind,
    args: &RequestArgs,
    output: Option<Output>,
) -> Result<Said, PluginError> {
    let since = Timestamp::now();
    // All are asked before any is waited for.
    for name in &args.names {
        ask(cluster, kind, name, &since.to_string()).await?;
    }
    let deadline = Instant::now() + args.timeout.unwrap_or(kind.usual());
    let mut said = Said::default();
    let mut items = Vec::new();
    for name in &args.names {
        if !args.wait {
            items.push(cluster.get(name).await?);
            said.text
                .push_str(&format!("{} {} requested\n", full_name(name), kind.noun()));
            continue;
        }
        let (item, ended) = wait(cluster, kind, name, since, deadline).await?;
        let line = format!("{} {} {}\n", full_name(name), kind.noun(), ended.text());
        said.text.push_str(&line);
        said.code = said.code.max(ended.code());
        items.extend(item);
        if output.is_some_and(|output| output != Output::Wide) {
            // What is printed is for programs; people still want to know.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
    if let Some(output @ (Output::Json | Output::Yaml | Output::Name)) = output {
        let raw: Vec<_> = items.into_iter().map(|item| item.raw).collect();
        said.text = objects(output, &raw, args.names.len() > 1)?;
    }
    Ok(said)
}

async fn ask(cluster: &Cluster, kind: Kind, name: &str, value: &str) -> Result<(), PluginError> {
    let mut annotations = serde_json::Map::new();
    annotations.insert(kind.annotation().to_owned(), json!(value));
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let params = PatchParams {
        field_manager: Some(PROGRAM.to_owned()),
        ..PatchParams::default()
    };
    cluster.typed().patch_metadata(name, &params, &patch).await?;
    Ok(())
}

/// Looks until the request is handled. A server that cannot be asked for a moment is asked again.
async fn wait(
    cluster: &Cluster,
    kind: Kind,
    name: &str,
    since: Timestamp,
    deadline: Instant,
) -> Result<(Option<Item>, Ended), PluginError> {
    let value = since.to_string();
    let mut last = None;
    loop {
        match cluster.get(name).await {
            Ok(item) => {
                if let Some(ended) = ended(kind, &item, &value, since) {
                    return Ok((Some(item), ended));
                }
                last = Some(item);
            }
            Err(PluginError::Cluster(kube::Error::Api(status))) if status.code == 404 => {
                let gone = "cannot end: the Webhook was deleted meanwhile".to_owned();
                return Ok((None, Ended::NotWell(gone)));
            }
            Err(PluginError::Cluster(kube::Error::Api(status))) if (400..429).contains(&status.code) => {
                return Err(PluginError::Cluster(kube::Error::Api(status)));
            }
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            let why = last.as_ref().map(unfinished).unwrap_or_default();
            return Ok((last, Ended::TimedOut(format!("was not over in time{why}"))));
        }
        sleep(POLL.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// What keeps a request waiting, as far as the status tells.
fn unfinished(item: &Item) -> String {
    let webhook = &item.webhook;
    if webhook.spec.suspend {
        return ": the Webhook is suspended (spec.suspend), so nothing is done for it".to_owned();
    }
    let explanation = explain::explain(webhook);
    format!(": {}{}", one_line(&explanation.matter), next(&explanation.next))
}

/// What became of a request. `None`: it is not over.
fn ended(kind: Kind, item: &Item, value: &str, since: Timestamp) -> Option<Ended> {
    let status = item.webhook.status.as_ref()?;
    // A later request of somebody else also answers this one, but only ours can be told from older ones.
    if kind.handled(status) != Some(value) {
        return None;
    }
    match kind {
        Kind::Test => Some(tested(status)),
        Kind::Reconcile => Some(reconciled(item, status)),
        Kind::Rotate => rotated(status, since),
    }
}

fn tested(status: &WebhookStatus) -> Ended {
    let Some(tested) = conditions::find(&status.conditions, ConditionType::Tested) else {
        return Ended::NotWell("ended without a result".to_owned());
    };
    if tested.status == "True" {
        let test = status.test.as_ref();
        let http = test
            .and_then(|test| test.http_status)
            .map(|code| format!("HTTP {code}"));
        let took = test
            .and_then(|test| test.latency_milliseconds)
            .map(|millis| format!("{millis} ms"));
        let known: Vec<String> = [http, took].into_iter().flatten().collect();
        return Ended::Well(if known.is_empty() {
            "passed".to_owned()
        } else {
            format!("passed ({})", known.join(", "))
        });
    }
    let verb = if tested.status == "False" {
        "failed"
    } else {
        "has no result"
    };
    let cure = explain::cure(&tested.type_, &tested.reason).map(|cure| format!("{cure}."));
    Ended::NotWell(format!(
        "{verb}: {}: {}{}",
        tested.reason,
        one_line(&tested.message),
        next(cure.as_slice())
    ))
}

fn reconciled(item: &Item, status: &WebhookStatus) -> Ended {
    let ready = conditions::find(&status.conditions, ConditionType::Ready);
    if let Some(ready) = ready.filter(|ready| ready.status == "True") {
        return Ended::Well(format!("done: {}", ready.reason));
    }
    let explanation = explain::explain(&item.webhook);
    Ended::NotWell(format!(
        "done, but it is not Ready: {}{}",
        one_line(&explanation.matter),
        next(&explanation.next)
    ))
}

fn rotated(status: &WebhookStatus, since: Timestamp) -> Option<Ended> {
    let refused = || {
        Ended::NotWell("refused: see the Events of the Webhook; the operator changes only secrets that it made (spec.secretPolicy.source: Generate)".to_owned())
    };
    let Some(rotation) = &status.rotation else {
        return Some(refused());
    };
    if rotation.phase == RotationPhase::Settling {
        return None;
    }
    // Times in a status are whole seconds.
    let fresh = rotation
        .last_time
        .as_ref()
        .is_some_and(|time| time.0.as_second() >= since.as_second());
    if !fresh {
        return Some(refused());
    }
    Some(Ended::Well(match &rotation.previous_expires {
        Some(until) => format!("done: the previous secret stays in the Secret until {}", until.0),
        None => "done".to_owned(),
    }))
}

fn next(steps: &[String]) -> String {
    steps.iter().map(|step| format!("\n  next: {step}")).collect()
}

fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> WebhookStatus {
        crate::yaml::parse(text).unwrap()
    }

    fn since() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_test_ends_with_its_verdict() {
        let condition = |status: &str, reason: &str| {
            format!(
                "conditions: [{{type: Tested, status: {status:?}, reason: {reason}, message: it says, lastTransitionTime: '2026-01-01T00:00:00Z'}}]"
            )
        };
        let passed = condition("True", "Passed") + "\ntest: {httpStatus: 204, latencyMilliseconds: 35}";
        assert_eq!(
            tested(&status(&passed)),
            Ended::Well("passed (HTTP 204, 35 ms)".to_owned())
        );
        assert_eq!(
            tested(&status(&condition("True", "Passed"))),
            Ended::Well("passed".to_owned())
        );
        let failed = tested(&status(&condition("False", "HttpStatus")));
        assert_eq!(
            failed,
            Ended::NotWell("failed: HttpStatus: it says\n  next: Look into the receiver's log.".to_owned())
        );
        let nobody = tested(&status(&condition("Unknown", "NotRun")));
        assert!(nobody.text().starts_with("has no result: NotRun"), "{nobody:?}");
        assert_eq!(nobody.code(), EXIT_NOT_WELL);
        assert_eq!(tested(&WebhookStatus::default()).code(), EXIT_NOT_WELL);
    }

    #[test]
    fn a_rotation_ends_when_the_upstream_has_the_new_secret() {
        let at = |phase: &str, last: &str| {
            let text = format!("rotation: {{phase: {phase}, lastTime: '{last}'}}");
            rotated(&status(&text), since()).map(|ended| ended.code())
        };
        assert_eq!(at("Settling", "2025-01-01T00:00:00Z"), None);
        assert_eq!(at("Overlapping", "2026-01-01T00:00:00Z"), Some(EXIT_OK));
        assert_eq!(at("Idle", "2026-01-01T00:00:09Z"), Some(EXIT_OK));
        assert_eq!(at("Idle", "2025-12-31T23:59:59Z"), Some(EXIT_NOT_WELL), "refused");
        assert_eq!(
            rotated(&WebhookStatus::default(), since()).unwrap().code(),
            EXIT_NOT_WELL
        );
    }
}
