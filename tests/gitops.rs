//! What GitOps tools are given: Argo CD's health checks stand in their file and in the ConfigMap as one text, and the
//! statuses in `tests/gitops/`, which `cargo xtask judges gitops` lets kstatus and Argo CD's Lua judge, are such as
//! the operator writes, with none of its verdicts left out. And the plain Deployment is the chart's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use webhook_operator::{
    api::{
        ClusterWebhookProvider, Webhook, WebhookProvider,
        conditions::{
            ProviderReason, ReadyReason, Reason, ReconcilingReason, SecretReason, StalledReason,
            SyncedReason, TestedReason,
        },
    },
    yaml,
};

const KINDS: [(&str, &str); 3] = [
    ("Webhook", "webhook.yaml"),
    ("WebhookProvider", "provider.yaml"),
    ("ClusterWebhookProvider", "cluster-provider.yaml"),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_config_map_carries_the_health_check_of_the_file_for_each_kind() {
    let script = read("config/argocd/health.lua");
    let map: Value = yaml::parse(&read("config/argocd/argocd-cm.yaml")).unwrap();
    let data = map["data"].as_object().unwrap();
    let keys: BTreeSet<String> = data.keys().cloned().collect();
    let wanted = KINDS.map(|(kind, _)| format!("resource.customizations.health.webhook-operator.dev_{kind}"));
    assert_eq!(keys, BTreeSet::from(wanted));
    for (key, text) in data {
        assert_eq!(text.as_str(), Some(script.as_str()), "{key}");
    }
}

/// The statuses of a file in `tests/gitops/`.
fn cases(file: &str) -> Vec<Value> {
    yaml::parse_all(&read(&format!("tests/gitops/{file}"))).unwrap()
}

/// Type, status and reason of each condition of a case.
fn conditions(case: &Value) -> Vec<[String; 3]> {
    let conditions = case["object"]["status"]["conditions"].as_array();
    let word = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
    conditions
        .into_iter()
        .flatten()
        .map(|condition| ["type", "status", "reason"].map(|field| word(condition, field)))
        .collect()
}

/// All that the operator can say under one type.
fn known<R: Reason>() -> impl Iterator<Item = [String; 3]> {
    let words = |reason: &R| [R::TYPE.as_str(), reason.status().as_str(), reason.as_str()];
    R::ALL.iter().map(move |reason| words(reason).map(str::to_owned))
}

#[test]
fn the_statuses_say_what_the_operator_says_and_leave_no_verdict_out() {
    let providers: BTreeSet<_> = known::<ProviderReason>().collect();
    let verdicts: BTreeSet<_> = known::<ReadyReason>()
        .chain(known::<ReconcilingReason>())
        .chain(known::<StalledReason>())
        .collect();
    let aspects = known::<SyncedReason>()
        .chain(known::<TestedReason>())
        .chain(known::<SecretReason>());
    let webhooks: BTreeSet<_> = verdicts.iter().cloned().chain(aspects).collect();
    for (kind, file) in KINDS {
        let (possible, needed) = match kind {
            "Webhook" => (&webhooks, &verdicts),
            _ => (&providers, &providers),
        };
        let mut seen = BTreeSet::new();
        for case in cases(file) {
            for condition in conditions(&case) {
                assert!(
                    possible.contains(&condition),
                    "{file}, {}: {condition:?}",
                    case["title"]
                );
                seen.insert(condition);
            }
        }
        let left_out: Vec<_> = needed.iter().filter(|reason| !seen.contains(*reason)).collect();
        assert!(left_out.is_empty(), "{file} has none with {left_out:?}");
    }
}

#[test]
fn the_statuses_are_of_our_kinds() {
    for (kind, file) in KINDS {
        let mut titles = BTreeSet::new();
        for case in cases(file) {
            let (title, object) = (case["title"].to_string(), &case["object"]);
            assert_eq!(object["kind"], kind, "{title}");
            let parsed = match kind {
                "Webhook" => serde_json::from_value::<Webhook>(object.clone()).map(drop),
                "WebhookProvider" => serde_json::from_value::<WebhookProvider>(object.clone()).map(drop),
                _ => serde_json::from_value::<ClusterWebhookProvider>(object.clone()).map(drop),
            };
            parsed.unwrap_or_else(|error| panic!("{file}, {title}: {error}"));
            assert!(titles.insert(title.clone()), "{file}: {title} stands twice");
        }
    }
}

/// A value of the chart, by its path.
fn value<'a>(values: &'a Value, path: &str) -> &'a Value {
    path.trim().split('.').fold(values, |value, name| &value[name])
}

/// A line of a template with the chart's values in it.
fn filled(line: &str, values: &Value) -> String {
    // `- {{ printf "--flag=%s" .Values.path | quote }}`
    if let Some((before, call)) = line.split_once("{{ printf \"") {
        let (format, path) = call.split_once("\" .Values.").unwrap();
        let path = path.strip_suffix(" | quote }}").unwrap();
        let text = format.replace("%s", value(values, path).as_str().unwrap());
        return format!("{before}{}", Value::from(text));
    }
    let mut parts = line.split("{{ .Values.");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (path, rest) = part.split_once("}}").unwrap();
        let value = value(values, path);
        text += &value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += rest;
    }
    text
}

/// The container in the chart's template, without what only stands there under a condition or comes from elsewhere.
fn charts_container(values: &Value) -> Value {
    let template = read("charts/webhook-operator/templates/deployment.yaml");
    let (_, container) = template.split_once("      containers:\n").unwrap();
    let mut depth = 0;
    let mut text = String::new();
    for line in container.lines().take_while(|line| !line.starts_with("      {{")) {
        let word = line.trim();
        if word.starts_with("{{- range") || word.starts_with("{{- with") {
            depth += 1;
        } else if word.starts_with("{{- end") {
            depth -= 1;
        } else if let Some(path) = word
            .strip_prefix("{{- toYaml .Values.")
            .and_then(|rest| rest.split_once(" |"))
            .filter(|_| depth == 0)
        {
            text += &format!("            {}\n", value(values, path.0));
        } else if depth == 0 && !word.starts_with("image: ") {
            text += &format!("{}\n", filled(line, values));
        }
    }
    let mut containers: Vec<Value> = yaml::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    containers.remove(0)
}

#[test]
fn the_plain_deployment_is_the_charts() {
    let values: Value = yaml::parse(&read("charts/webhook-operator/values.yaml")).unwrap();
    let chart: Value = yaml::parse(&read("charts/webhook-operator/Chart.yaml")).unwrap();
    let plain: Value = yaml::parse(&read("config/deployment.yaml")).unwrap();
    let pod = &plain["spec"]["template"]["spec"];
    assert_eq!(plain["spec"]["replicas"], values["replicas"]);
    assert_eq!(pod["securityContext"], values["podSecurityContext"]);
    let grace = "terminationGracePeriodSeconds";
    assert_eq!(pod[grace], values[grace]);
    let mut container = pod["containers"][0].clone();
    let image = container.as_object_mut().unwrap().remove("image").unwrap();
    let repository = values["image"]["repository"].as_str().unwrap();
    assert_eq!(
        image,
        format!("{repository}:{}", chart["appVersion"].as_str().unwrap())
    );
    assert_eq!(container, charts_container(&values));
}
