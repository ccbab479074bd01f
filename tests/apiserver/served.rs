//! What the apiserver serves: defaults, statuses, columns and explanations arrive as the code means them.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use webhook_operator::api::{
    FIELD_MANAGER, ProviderStatus, Webhook, WebhookProvider, WebhookSpec, WebhookStatus,
    conditions::{ProviderReason, ReadyReason, Reason, SyncedReason},
    provider_status::{
        Capabilities, DeleteSupport, DeletionWindow, Finding, FindingResult, FindingSubject, RecentRemovals,
        Support, WebhookCounts,
    },
    schema,
    webhook::{ProviderKind, ProviderRef, SecretSource, TestMode},
    webhook_status::{
        DeactivatedBy, DeletionHeld, Drift, Gap, RotationPhase, RotationStatus, State, TestRecord,
        TestResult, TestStatus,
    },
};

use crate::{
    harness::cluster,
    raw::{collection, create},
};

#[tokio::test]
async fn defaults_are_served_as_the_code_has_them() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "defaults").await;
    let minimal = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook", "metadata": { "name": "minimal" },
        "spec": { "providerRef": { "name": "p" }, "url": "https://hooks.example.com/a" },
    });
    let served = create(&client, &namespace, &minimal).await.unwrap();
    let provider = ProviderRef {
        kind: ProviderKind::WebhookProvider,
        name: "p".to_owned(),
    };
    let mine = WebhookSpec::new(provider, "https://hooks.example.com/a");
    assert_eq!(served["spec"], serde_json::to_value(&mine).unwrap());
    // kstatus takes an object without it for done.
    assert_eq!(served["status"], json!({ "observedGeneration": -1 }));
    let read: Webhook = serde_json::from_value(served).unwrap();
    assert_eq!(read.spec, mine);
    let status = WebhookStatus {
        observed_generation: Some(-1),
        ..WebhookStatus::default()
    };
    assert_eq!(read.status, Some(status));

    let written = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook", "metadata": { "name": "written" },
        "spec": {
            "providerRef": { "name": "p" }, "url": "https://hooks.example.com/a", "interval": "1h0m0s",
            "retry": {}, "test": { "timeout": "1500ms" },
            "secretPolicy": { "source": "Generate", "rotation": { "interval": "720h" } },
        },
    });
    let served = create(&client, &namespace, &written).await.unwrap();
    assert_eq!(served["spec"]["interval"], "1h0m0s", "stays as the user wrote it");
    assert_eq!(served["spec"]["test"]["timeout"], "1500ms");
    assert_eq!(
        served["spec"]["retry"],
        json!({
            "enabled": true, "initialDelay": "10s", "maxRetries": 2, "backoff": { "type": "Multiplier", "factor": 2 },
        })
    );
    assert_eq!(
        served["spec"]["secretPolicy"]["rotation"],
        json!({
            "interval": "720h", "overlap": "24h", "settle": "2m",
        })
    );

    let provider = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "WebhookProvider", "metadata": { "name": "minimal" },
        "spec": { "type": "Ricloud", "credentialsRef": { "name": "c" } },
    });
    let served = create(&client, &namespace, &provider).await.unwrap();
    assert_eq!(served["status"], json!({ "observedGeneration": -1 }));
    assert_eq!(
        served["spec"],
        json!({
            "type": "Ricloud", "credentialsRef": { "name": "c" }, "timeout": "20s", "undocumentedCalls": "Allow",
            "suspend": false,
        })
    );
    let read: WebhookProvider = serde_json::from_value(served.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read.spec).unwrap(), served["spec"]);
}

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn full_status() -> WebhookStatus {
    let now = Timestamp::from_second(1_000).unwrap();
    WebhookStatus {
        observed_generation: Some(1),
        state: Some(State::Deactivated),
        deactivated_by: Some(DeactivatedBy::TestFailure),
        id: Some("77".to_owned()),
        url: Some("https://hooks.example.com/a".to_owned()),
        last_sync_time: Some(time(1)),
        last_handled_reconcile_at: Some("r".to_owned()),
        last_handled_test_at: Some("t".to_owned()),
        last_handled_rotate_at: Some("o".to_owned()),
        applied_hash: Some("abc".to_owned()),
        drift: Some(Drift {
            fields: vec!["url".to_owned()],
            last_time: Some(time(2)),
            corrections: 3,
        }),
        gaps: vec![Gap {
            from: time(3),
            to: Some(time(4)),
            reason: "Gone".to_owned(),
        }],
        deletion_held: Some(DeletionHeld {
            since: time(8),
            confirmation: Some("c".to_owned()),
        }),
        rotation: Some(RotationStatus {
            phase: RotationPhase::Overlapping,
            last_time: Some(time(5)),
            previous_expires: Some(time(6)),
        }),
        test: Some(TestStatus {
            last_time: Some(time(7)),
            result: Some(TestResult::Failed),
            mode: Some(TestMode::Probe),
            reason: Some("HttpStatus".to_owned()),
            http_status: Some(500),
            latency_milliseconds: Some(12),
            message: Some("answered 500".to_owned()),
            consecutive_failures: 2,
            forged_accepted: Some(false),
            history: vec![TestRecord {
                time: time(7),
                result: TestResult::Failed,
                mode: TestMode::Probe,
                reason: "HttpStatus".to_owned(),
                http_status: Some(500),
                latency_milliseconds: Some(12),
            }],
        }),
        conditions: vec![
            ReadyReason::TestFailed.condition(Some(1), "failed", now),
            SyncedReason::InSync.condition(Some(1), "", now),
        ],
    }
}

/// Nothing of a status is lost on the way: a field that the schema does not know would be dropped in silence.
#[tokio::test]
async fn statuses_arrive_whole_and_columns_show_them() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "status").await;
    let api: Api<Webhook> = Api::namespaced(client.clone(), &namespace);
    let provider = ProviderRef {
        kind: ProviderKind::WebhookProvider,
        name: "shop".to_owned(),
    };
    let mut spec = WebhookSpec::new(provider, "https://hooks.example.com/a");
    spec.target = Some("9".to_owned());
    spec.events = vec!["A".to_owned(), "B".to_owned()];
    api.create(&PostParams::default(), &Webhook::new("full", spec))
        .await
        .unwrap();

    let status = full_status();
    let patch = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook", "metadata": { "name": "full" },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    let served = api
        .patch_status("full", &params, &Patch::Apply(&patch))
        .await
        .unwrap();
    assert_eq!(served.status, Some(status));

    let row = columns(&client, &collection(&patch, &namespace)).await;
    let shown = [
        "PROVIDER", "TARGET", "STATE", "READY", "REASON", "ID", "URL", "EVENTS",
    ]
    .map(|name| &row[name]);
    assert_eq!(
        json!(shown),
        json!([
            "shop",
            "9",
            "deactivated",
            "False",
            "TestFailed",
            "77",
            "https://hooks.example.com/a",
            r#"["A","B"]"#
        ])
    );
    assert!(!row["TESTED"].is_null() && !row["AGE"].is_null(), "{row:?}");
}

#[tokio::test]
async fn provider_statuses_arrive_whole_and_columns_show_them() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "provider-status").await;
    let object = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "WebhookProvider", "metadata": { "name": "full" },
        "spec": { "type": "Conpeek", "baseUrl": "https://api.example.com", "credentialsRef": { "name": "c" } },
    });
    create(&client, &namespace, &object).await.unwrap();

    let status = ProviderStatus {
        observed_generation: Some(1),
        capabilities: Some(Capabilities {
            target: Support::Required,
            events: Support::Unsupported,
            secret: Some(SecretSource::Existing),
            max_headers: 32,
            max_url_length: 2048,
            max_description_length: 0,
            retry: true,
            basic_auth: false,
            deactivate: false,
            upstream_test: false,
            delete: DeleteSupport::LeftInPlace,
        }),
        findings: vec![
            Finding {
                subject: FindingSubject::Read,
                result: FindingResult::Works,
                time: time(1),
            },
            Finding {
                subject: FindingSubject::BodyStyle,
                result: FindingResult::Flat,
                time: time(2),
            },
        ],
        webhooks: Some(WebhookCounts { total: 3, ready: 2 }),
        deletions: Some(DeletionWindow {
            recent: vec![RecentRemovals {
                time: time(3),
                removals: 4,
            }],
            held: 1,
        }),
        last_handled_confirm_deletions: Some("yes".to_owned()),
        conditions: vec![ProviderReason::Verified.condition(Some(1), "", Timestamp::from_second(9).unwrap())],
    };
    let mut patch = object.clone();
    patch.as_object_mut().unwrap().remove("spec");
    patch["status"] = serde_json::to_value(&status).unwrap();
    let api: Api<WebhookProvider> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    let served = api
        .patch_status("full", &params, &Patch::Apply(&patch))
        .await
        .unwrap();
    assert_eq!(served.status, Some(status));

    let row = columns(&client, &collection(&object, &namespace)).await;
    let shown = ["TYPE", "BASE URL", "READY", "WEBHOOKS"].map(|name| &row[name]);
    assert_eq!(
        json!(shown),
        json!(["Conpeek", "https://api.example.com", "True", 3])
    );
}

/// The only row of a list as `kubectl get -o wide` gets it.
async fn columns(client: &Client, path: &str) -> BTreeMap<String, Value> {
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 1, "{table}");
    let names = table["columnDefinitions"].as_array().unwrap().iter();
    let names = names.map(|column| column["name"].as_str().unwrap().to_owned());
    names
        .zip(table["rows"][0]["cells"].as_array().unwrap().iter().cloned())
        .collect()
}

/// What `kubectl explain` reads: the document that the apiserver publishes, not the one that was sent.
#[tokio::test]
async fn every_field_is_explained_in_the_published_document() {
    fn unexplained(path: &str, node: &Value, bad: &mut Vec<String>) {
        for (name, field) in node["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().unwrap_or_default().is_empty() {
                bad.push(path.clone());
            }
            unexplained(&path, field, bad);
            unexplained(&format!("{path}[]"), &field["items"], bad);
        }
    }
    let client = cluster().await.client().await;
    let mut document = Value::Null;
    // The document follows the CRDs within a second or so.
    for _ in 0..100 {
        let request = http::Request::get("/openapi/v3/apis/webhook-operator.dev/v1alpha1")
            .body(Vec::new())
            .unwrap();
        document = client.request(request).await.unwrap_or_default();
        if document["components"]["schemas"]
            .as_object()
            .is_some_and(|schemas| schemas.len() > 6)
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let mut bad = Vec::new();
    for crd in schema::crds() {
        let kind = crd.spec.names.kind;
        let schema = &document["components"]["schemas"][format!("dev.webhook-operator.v1alpha1.{kind}")];
        assert!(
            schema["properties"]["spec"]["properties"].is_object(),
            "{kind} is not published: {document}"
        );
        for part in ["spec", "status"] {
            unexplained(&format!("{kind}.{part}"), &schema["properties"][part], &mut bad);
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
