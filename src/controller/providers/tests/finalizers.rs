//! Who is protected, and until when.

use super::*;

#[tokio::test(start_paused = true)]
async fn provider_and_secret_are_protected_while_webhooks_use_them() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    cluster.apply("webhooks", webhook("w", "p", true));
    seconds(5).await;
    assert_eq!(bench.protected(), [true, true]);
    seconds(20).await;
    let idle = cluster.writes().len();
    seconds(7200).await;
    assert_eq!(cluster.writes().len(), idle, "an idle provider costs no write");
    assert_eq!(
        bench.calls(),
        1,
        "our own finalizer on the Secret is no new credential"
    );

    cluster.delete(PROVIDERS, "ns", "p");
    seconds(15).await;
    assert!(
        bench.message("p").contains("1 Webhook(s)"),
        "{}",
        bench.message("p")
    );
    cluster.delete("webhooks", "ns", "w");
    seconds(5).await;
    assert!(
        cluster.get(PROVIDERS, "ns", "p").is_none(),
        "it goes when its last Webhook is gone"
    );
    assert!(!bench.guarded("secrets", "ns", "c"));
    assert!(
        !bench
            .ctx
            .metrics
            .encode(crate::metrics::Format::Classic)
            .contains("name=\"p\"")
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_two_providers_read_is_protected_until_neither_is_used() {
    let cluster = cluster_with("Ricloud");
    cluster.apply(PROVIDERS, provider("q", "Ricloud", "c"));
    cluster.apply("webhooks", webhook("w", "p", true));
    cluster.apply("webhooks", webhook("v", "q", true));
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    assert_eq!(bench.protected(), [true, true]);
    cluster.delete("webhooks", "ns", "w");
    seconds(5).await;
    assert_eq!(bench.protected(), [false, true], "q still needs the Secret");
    // q changes to another Secret: the old one is free, the new one is not.
    cluster.apply("secrets", secret("d", GOOD));
    cluster.apply(PROVIDERS, provider("q", "Ricloud", "d"));
    seconds(5).await;
    assert_eq!(bench.protected(), [false, false]);
    assert!(bench.guarded("secrets", "ns", "d"));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_deleted_by_hand_goes_at_once_and_one_in_a_terminating_namespace_waits() {
    for terminating in [false, true] {
        let cluster = cluster_with("Ricloud");
        cluster.apply("webhooks", webhook("w", "p", true));
        let bench = Bench::start(&cluster).await;
        seconds(5).await;
        assert_eq!(bench.protected(), [true, true]);
        if terminating {
            cluster.apply(
                "namespaces",
                json!({"metadata": {"name": "ns", "finalizers": ["kubernetes"]}}),
            );
            cluster.delete("namespaces", "", "ns");
        }
        cluster.delete("secrets", "ns", "c");
        seconds(30).await;
        assert_eq!(cluster.get("secrets", "ns", "c").is_some(), terminating);
        cluster.delete("webhooks", "ns", "w");
        seconds(5).await;
        assert!(cluster.get("secrets", "ns", "c").is_none());
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn finalizers_left_behind_are_taken_off_at_the_start() {
    for protect in [true, false] {
        let cluster = cluster_with("Ricloud");
        let finalizers = json!([IN_USE_FINALIZER, "example.com/other"]);
        for (plural, name) in [(PROVIDERS, "p"), ("secrets", "c"), ("secrets", "orphan")] {
            if name == "orphan" {
                cluster.apply("secrets", secret(name, GOOD));
            }
            cluster.apply(
                plural,
                json!({"metadata": {"name": name, "namespace": "ns", "finalizers": finalizers}}),
            );
        }
        if !protect {
            // Even in use: the option is off.
            cluster.apply("webhooks", webhook("w", "p", true));
        }
        let bench = Bench::start_with(&cluster, protect).await;
        seconds(5).await;
        assert_eq!(bench.protected(), [false, false], "protect: {protect}");
        assert!(!bench.guarded("secrets", "ns", "orphan"));
        let left = cluster.get("secrets", "ns", "orphan").unwrap();
        assert_eq!(left["metadata"]["finalizers"], json!(["example.com/other"]));
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unprotected_provider_that_is_gone_leaves_its_account_to_the_webhooks_that_are_left() {
    let cluster = cluster_with("Ricloud");
    cluster.apply("webhooks", webhook("w", "p", true));
    let bench = Bench::start_with(&cluster, false).await;
    seconds(5).await;
    cluster.delete(PROVIDERS, "ns", "p");
    seconds(5).await;
    assert!(cluster.get(PROVIDERS, "ns", "p").is_none());
    assert!(
        !bench
            .ctx
            .metrics
            .encode(crate::metrics::Format::Classic)
            .contains("name=\"p\"")
    );
    let key = ProviderKey {
        namespace: "ns".into(),
        name: "p".into(),
        ..ProviderKey::default()
    };
    assert!(bench.ctx.accounts.last_known(&key).await.is_some());
    cluster.delete("webhooks", "ns", "w");
    seconds(5).await;
    assert!(bench.ctx.accounts.last_known(&key).await.is_none());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_may_not_use_a_cluster_provider_cannot_hold_it() {
    let cluster = Cluster::new();
    cluster.apply("namespaces", namespace("ns"));
    cluster.apply("secrets", secret("c", GOOD));
    let shared = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "ClusterWebhookProvider", "metadata": {"name": "p"},
        "spec": {"type": "Ricloud", "credentialsRef": {"name": "c", "namespace": "ns"}},
    });
    cluster.apply(CLUSTER_PROVIDERS, shared);
    let mut user = webhook("w", "p", false);
    user["spec"]["providerRef"]["kind"] = json!("ClusterWebhookProvider");
    cluster.apply("webhooks", user);
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    assert!(!bench.guarded(CLUSTER_PROVIDERS, "", "p"));
    let allowed = json!({"metadata": {"name": "p"}, "spec": {"allowedNamespaces": {"names": ["ns"]}}});
    cluster.apply(CLUSTER_PROVIDERS, allowed);
    seconds(5).await;
    assert!(bench.guarded(CLUSTER_PROVIDERS, "", "p"));
    assert!(bench.guarded("secrets", "ns", "c"));
    // Taken off the list, with something registered: it can still delete, so the account stays.
    cluster.apply(
        "webhooks",
        json!({"metadata": {"name": "w", "namespace": "ns", "finalizers": [crate::api::FINALIZER]}}),
    );
    cluster.apply(
        CLUSTER_PROVIDERS,
        json!({"metadata": {"name": "p"}, "spec": {"allowedNamespaces": null}}),
    );
    seconds(5).await;
    assert!(bench.guarded(CLUSTER_PROVIDERS, "", "p"));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn protecting_twice_writes_once_and_a_stale_cache_does_no_harm() {
    let cluster = cluster_with("Ricloud");
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    let key = ProviderKey {
        namespace: "ns".into(),
        name: "p".into(),
        ..ProviderKey::default()
    };
    let stale = bench.ctx.provider(&key).unwrap();
    bench.stop.send_replace(true);
    seconds(1).await;
    let (before, conflicts) = (cluster.writes().len(), cluster.conflicts());
    protect(&bench.ctx, &stale).await.unwrap();
    assert_eq!(bench.protected(), [true, true]);
    // The caches have not seen it yet, and the second of a burst knows that.
    protect(&bench.ctx, &stale).await.unwrap();
    assert_eq!(cluster.conflicts() - conflicts, 0);
    // Caches that lag for longer: it is refused for its version, looks, and finds nothing to do.
    seconds(5).await;
    protect(&bench.ctx, &stale).await.unwrap();
    assert_eq!(cluster.writes().len() - before, 2, "one for each object");
    assert_eq!(cluster.conflicts() - conflicts, 2);
    bench.stop().await;
}
