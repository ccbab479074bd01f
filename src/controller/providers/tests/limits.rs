//! Removals are counted before they are made, by whoever asks and however many ask at once.

use super::*;
use crate::controller::{
    breaker::{Verdict, ask},
    memory::MemoryCell,
};

/// A provider `p` that lets so many removals go in an hour, and this many Webhooks of it.
fn limited(count: u32, webhooks: usize) -> Cluster {
    let cluster = cluster_with("Ricloud");
    let mut manifest = provider("p", "Ricloud", "c");
    manifest["spec"]["deletionLimit"] = json!({"count": count, "window": "1h"});
    cluster.apply(PROVIDERS, manifest);
    for number in 0..webhooks {
        cluster.apply("webhooks", webhook(&name(number), "p", true));
    }
    cluster
}

fn name(number: usize) -> String {
    format!("w{number}")
}

impl Bench {
    /// Asks for the removal of one Webhook; its memory lasts as long as the process.
    async fn ask(&self, number: usize) -> Result<Verdict, kube::Error> {
        let object = ObjectRef::new(&name(number)).within("ns");
        let webhook = self.ctx.caches.webhooks.get(&object).unwrap();
        let provider = self.ctx.providers().remove(0);
        ask(&self.ctx, &provider, &webhook, &self.memory(number), 1).await
    }

    fn memory(&self, number: usize) -> MemoryCell {
        self.ctx.memories.of(&name(number), self.ctx.clock.now())
    }

    /// How many of these may go, all asking at the same time.
    async fn ask_all(&self, numbers: impl Iterator<Item = usize>) -> usize {
        let asked = futures::future::join_all(numbers.map(|number| self.ask(number))).await;
        asked
            .into_iter()
            .filter(|verdict| matches!(verdict, Ok(Verdict::Go(Some(_)))))
            .count()
    }

    fn counted(&self) -> i64 {
        let provider = self.cluster.get(PROVIDERS, "ns", "p").unwrap();
        let recent = provider["status"]["deletions"]["recent"].as_array().cloned();
        recent
            .unwrap_or_default()
            .iter()
            .map(|entry| entry["removals"].as_i64().unwrap())
            .sum()
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_are_counted_together_and_never_more_than_the_limit() {
    let cluster = limited(5, 50);
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    let writes = cluster.writes().len();
    assert_eq!(bench.ask_all(0..50).await, 5);
    // The first does not know of the others yet.
    assert_eq!(cluster.writes().len() - writes, 2);
    assert_eq!(bench.counted(), 5);
    assert_eq!(bench.ask_all(0..50).await, 5, "the same ones may try again");
    assert_eq!(cluster.writes().len() - writes, 2, "and are not counted again");
    seconds(200).await;
    assert_eq!(
        bench.ask_all(0..50).await,
        5,
        "also later, at the cost of a write"
    );
    assert_eq!(bench.counted(), 5);
    bench.stop().await;

    // The next process knows of them; it does not know which they were.
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    assert_eq!(bench.ask_all(0..50).await, 0);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_count_together() {
    let cluster = limited(7, 40);
    let (one, two) = (Bench::start(&cluster).await, Bench::start(&cluster).await);
    seconds(30).await;
    let conflicts = cluster.conflicts();
    let (first, second) = futures::future::join(one.ask_all(0..20), two.ask_all(20..40)).await;
    assert_eq!(first + second, 7);
    assert!(cluster.conflicts() > conflicts, "they met");
    assert_eq!(one.counted(), 7);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_made_is_counted_and_the_next_removal_is_another_one() {
    let cluster = limited(2, 1);
    let bench = Bench::start(&cluster).await;
    seconds(5).await;
    for expected in [1, 1, 0] {
        assert_eq!(bench.ask_all(0..1).await, expected);
        crate::controller::breaker::spent(&bench.memory(0));
    }
    assert_eq!(bench.counted(), 2);
    bench.stop().await;
}

/// A Webhook that an earlier pass has found held back.
fn held(number: usize, confirmation: Option<&str>) -> Value {
    let mut webhook = webhook(&name(number), "p", false);
    let held = json!({"since": "2026-01-01T00:00:00Z", "confirmation": confirmation});
    webhook["status"]["deletionHeld"] = held;
    webhook
}

#[tokio::test(start_paused = true)]
async fn what_is_held_waits_for_a_new_value_however_long_and_then_goes_uncounted() {
    let cluster = limited(1, 0);
    for number in 0..3 {
        cluster.apply("webhooks", held(number, None));
    }
    let mut bench = Bench::start(&cluster).await;
    seconds(20).await;
    let shown = &cluster.get(PROVIDERS, "ns", "p").unwrap()["status"]["deletions"]["held"];
    assert_eq!(*shown, 3);
    let metric = r#"deletions_held{kind="WebhookProvider",namespace="ns",name="p"} 3"#;
    assert!(
        bench
            .ctx
            .metrics
            .encode(crate::metrics::Format::Classic)
            .contains(metric)
    );
    let told = |reason: &str| {
        let told = cluster.told();
        told.iter()
            .filter(|(name, of)| name == "p" && of == reason)
            .count()
    };
    assert_eq!((told("DeletionsHeld"), told("DeletionsConfirmed")), (1, 0));
    seconds(100_000).await;
    assert!(
        matches!(bench.ask(0).await, Ok(Verdict::Held(_))),
        "although the window is empty"
    );
    assert_eq!(told("DeletionsHeld"), 1, "told once");

    bench.woken();
    cluster.apply(
        PROVIDERS,
        json!({"metadata": {"name": "p", "namespace": "ns", "annotations": {
            "webhook-operator.dev/confirm-deletions": "1",
        }}}),
    );
    seconds(20).await;
    assert_eq!(bench.woken(), 3);
    for number in 0..3 {
        assert!(matches!(bench.ask(number).await, Ok(Verdict::Go(None))));
    }
    assert_eq!(bench.counted(), 0);
    assert_eq!((told("DeletionsHeld"), told("DeletionsConfirmed")), (1, 1));
    let status = cluster.get(PROVIDERS, "ns", "p").unwrap()["status"].clone();
    assert_eq!(
        (
            &status["lastHandledConfirmDeletions"],
            &status["deletions"]["held"]
        ),
        (&json!("1"), &json!(0))
    );

    // What comes later is not meant by it.
    cluster.apply("webhooks", held(4, Some("1")));
    seconds(20).await;
    assert!(matches!(bench.ask(4).await, Ok(Verdict::Held(_))));
    let metric = r#"deletions_held{kind="WebhookProvider",namespace="ns",name="p"} 1"#;
    assert!(
        bench
            .ctx
            .metrics
            .encode(crate::metrics::Format::Classic)
            .contains(metric)
    );
    bench.stop().await;
}
