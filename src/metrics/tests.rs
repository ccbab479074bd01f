//! Names and labels as scrapers see them, and what happens to series when objects go.

use super::*;

/// The value of the one series that is written exactly so; `None`: there is none.
fn read(metrics: &Metrics, series: &str) -> Option<f64> {
    let page = metrics.encode(Format::OpenMetrics);
    let mut found = page
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = found.next().map(|value| value.parse().unwrap());
    assert_eq!(found.next(), None, "{series} is there twice");
    value
}

fn sample<'a>(name: &'a str, state: Option<&'a str>) -> WebhookSample<'a> {
    WebhookSample {
        namespace: "shop",
        name,
        provider_type: "Ricloud",
        state,
        ready: state == Some("valid"),
        deactivated_upstream: state == Some("deactivated"),
    }
}

fn webhooks(metrics: &Metrics, state: &str) -> Option<f64> {
    read(
        metrics,
        &format!(r#"webhook_operator_webhooks{{provider_type="Ricloud",state="{state}"}}"#),
    )
}

#[test]
fn every_name_and_label_is_as_documented() {
    let metrics = Metrics::new();
    metrics.webhook(sample("a", Some("valid")));
    metrics.provider("WebhookProvider", "shop", "acme", true);
    metrics.deletions_held("ClusterWebhookProvider", "", "acme", 3);
    metrics.reconciled("ok", Duration::from_millis(20));
    metrics.request("Thulium", "create", "201", Duration::from_millis(300));
    metrics.test_result("Ricloud", "Upstream", "Passed");
    metrics.drift_corrected("Conpeek");
    metrics.secret_rotated("Autocosmos");
    metrics.left_in_place("Conpeek");
    metrics.throttled("Autocosmos", Duration::from_millis(1500));
    metrics.leader(true);
    metrics.tasks(12);
    for (series, value) in [
        (
            r#"webhook_operator_webhooks{provider_type="Ricloud",state="valid"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_webhook_ready{namespace="shop",name="a"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_provider_ready{kind="WebhookProvider",namespace="shop",name="acme"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_deletions_held{kind="ClusterWebhookProvider",namespace="",name="acme"}"#,
            3.0,
        ),
        (
            r#"webhook_operator_deactivated_upstream{provider_type="Ricloud"}"#,
            0.0,
        ),
        (
            r#"webhook_operator_reconcile_duration_seconds_count{result="ok"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_reconcile_duration_seconds_sum{result="ok"}"#,
            0.02,
        ),
        (
            r#"webhook_operator_reconcile_duration_seconds_bucket{le="0.01",result="ok"}"#,
            0.0,
        ),
        (
            r#"webhook_operator_reconcile_duration_seconds_bucket{le="0.05",result="ok"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_upstream_requests_total{provider_type="Thulium",operation="create",code="201"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_upstream_request_duration_seconds_sum{provider_type="Thulium",operation="create"}"#,
            0.3,
        ),
        (
            r#"webhook_operator_test_results_total{provider_type="Ricloud",mode="Upstream",result="Passed"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_drift_corrections_total{provider_type="Conpeek"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_secret_rotations_total{provider_type="Autocosmos"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_left_in_place_total{provider_type="Conpeek"}"#,
            1.0,
        ),
        (
            r#"webhook_operator_throttled_seconds_total{provider_type="Autocosmos"}"#,
            1.5,
        ),
        ("webhook_operator_leader", 1.0),
        ("webhook_operator_tasks", 12.0),
    ] {
        assert_eq!(
            read(&metrics, series),
            Some(value),
            "{series} in\n{}",
            metrics.encode(Format::OpenMetrics)
        );
    }
    let page = metrics.encode(Format::OpenMetrics);
    assert!(page.ends_with("# EOF\n"));
    let families: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    assert_eq!(
        families.len(),
        15,
        "a new metric needs a line above and one in the documentation: {families:#?}"
    );
    assert!(
        !page.contains("_total_total") && !page.contains("_seconds_seconds"),
        "{page}"
    );
}

#[test]
fn in_the_classic_format_each_series_has_its_type_and_help() {
    let metrics = Metrics::new();
    metrics.webhook(sample("a", Some("valid")));
    metrics.reconciled("ok", Duration::from_millis(20));
    metrics.request("Thulium", "create", "201", Duration::from_millis(300));
    let (page, open) = (
        metrics.encode(Format::Classic),
        metrics.encode(Format::OpenMetrics),
    );
    for line in [
        "# TYPE webhook_operator_upstream_requests_total counter",
        "# TYPE webhook_operator_throttled_seconds_total counter",
        "# TYPE webhook_operator_webhooks gauge",
        "# TYPE webhook_operator_reconcile_duration_seconds histogram",
    ] {
        assert!(page.lines().any(|written| written == line), "{line}: {page}");
    }
    assert!(!page.contains("# EOF") && !page.contains("# UNIT"), "{page}");
    let series = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(series(&page), series(&open), "the series are the same");
    let about = |name: &str| ["HELP", "TYPE"].map(|mark| page.contains(&format!("# {mark} {name} ")));
    for line in series(&page) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        assert_eq!(about(family.unwrap_or(name)), [true, true], "{name}: {page}");
    }
}

#[test]
fn a_webhook_is_counted_once_wherever_it_goes() {
    let metrics = Metrics::new();
    metrics.webhook(sample("a", None));
    metrics.webhook(sample("b", Some("new")));
    assert_eq!(
        (webhooks(&metrics, NO_STATE), webhooks(&metrics, "new")),
        (Some(1.0), Some(1.0))
    );
    metrics.webhook(sample("a", Some("new")));
    metrics.webhook(sample("a", Some("new")));
    assert_eq!(
        (webhooks(&metrics, NO_STATE), webhooks(&metrics, "new")),
        (Some(0.0), Some(2.0))
    );
    metrics.webhook(sample("a", Some("deactivated")));
    let off = r#"webhook_operator_deactivated_upstream{provider_type="Ricloud"}"#;
    assert_eq!(read(&metrics, off), Some(1.0));
    metrics.webhook(sample("a", Some("valid")));
    assert_eq!(read(&metrics, off), Some(0.0));
    assert_eq!(webhooks(&metrics, "valid"), Some(1.0));
    assert_eq!(
        read(
            &metrics,
            r#"webhook_operator_webhook_ready{namespace="shop",name="a"}"#
        ),
        Some(1.0)
    );
    metrics.forget_webhook("shop", "a");
    metrics.forget_webhook("shop", "a");
    metrics.forget_webhook("shop", "never seen");
    assert_eq!(
        (webhooks(&metrics, "valid"), webhooks(&metrics, "new")),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(
        read(
            &metrics,
            r#"webhook_operator_webhook_ready{namespace="shop",name="a"}"#
        ),
        None
    );
    assert_eq!(
        read(
            &metrics,
            r#"webhook_operator_webhook_ready{namespace="shop",name="b"}"#
        ),
        Some(0.0)
    );
}

#[test]
fn a_provider_leaves_no_series_behind() {
    let metrics = Metrics::new();
    metrics.provider("WebhookProvider", "shop", "acme", false);
    metrics.deletions_held("WebhookProvider", "shop", "acme", 1);
    assert!(metrics.encode(Format::OpenMetrics).contains("acme"));
    metrics.forget_provider("WebhookProvider", "shop", "acme");
    assert!(!metrics.encode(Format::OpenMetrics).contains("acme"));
}

#[test]
fn a_replica_that_lost_the_lead_shows_no_object_but_keeps_its_counters() {
    let metrics = Metrics::new();
    metrics.webhook(sample("a", Some("deactivated")));
    metrics.provider("WebhookProvider", "shop", "acme", true);
    metrics.drift_corrected("Conpeek");
    metrics.forget_all();
    let page = metrics.encode(Format::OpenMetrics);
    assert!(
        !page.contains("shop") && !page.contains("deactivated_upstream{") && !page.contains("state="),
        "{page}"
    );
    assert_eq!(
        read(
            &metrics,
            r#"webhook_operator_drift_corrections_total{provider_type="Conpeek"}"#
        ),
        Some(1.0)
    );
    metrics.webhook(sample("a", Some("deactivated")));
    assert_eq!(webhooks(&metrics, "deactivated"), Some(1.0));
}

#[test]
fn counters_by_upstream_begin_at_zero() {
    let metrics = Metrics::new();
    for counter in [
        "drift_corrections",
        "secret_rotations",
        "left_in_place",
        "throttled_seconds",
    ] {
        for provider_type in ["Conpeek", "Thulium", "Ricloud", "Autocosmos"] {
            let series = format!(r#"webhook_operator_{counter}_total{{provider_type="{provider_type}"}}"#);
            assert_eq!(read(&metrics, &series), Some(0.0), "{series}");
        }
    }
}

#[test]
fn a_name_cannot_forge_a_series() {
    let metrics = Metrics::new();
    metrics.provider("WebhookProvider", "shop", "x\"} 1\nforged 1", true);
    assert!(
        metrics
            .encode(Format::OpenMetrics)
            .lines()
            .all(|line| !line.starts_with("forged"))
    );
}
