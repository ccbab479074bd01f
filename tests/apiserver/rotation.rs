//! Rotation of a signing secret that the operator makes: what users, receivers and the upstream see of it, and that no
//! delivery is refused meanwhile.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;
use upstream_doubles::Fault;
use webhook_operator::api::{
    ROTATE_REQUESTED_AT, TEST_REQUESTED_AT, Webhook,
    conditions::{ConditionType, ReadyReason, SecretReason, SyncedReason},
    provider::ProviderType::{Autocosmos, Conpeek},
    webhook_status::{RotationPhase, RotationStatus, TestResult},
};

use crate::world::{World, message, sent, status};

fn spec(name: &str, settle: &str, overlap: &str) -> Value {
    json!({
        "target": name,
        "url": "https://hooks.example.com/autocosmos",
        "secretRef": { "name": "made" },
        "secretPolicy": {
            "source": "Generate",
            "rotation": { "interval": "8784h", "settle": settle, "overlap": overlap },
        },
        "test": { "mode": "None" },
    })
}

/// The secret that the upstream has for a topic.
fn at_upstream(world: &World, topic: &str) -> String {
    let double = world.doubles.autocosmos();
    let stored = double.upstream().webhook(&world.account, topic);
    let secret = stored.expect("it is registered").secret;
    secret.expect("it signs").reveal().to_owned()
}

fn rotation(webhook: &Webhook) -> RotationStatus {
    status(webhook).rotation.unwrap_or_default()
}

/// The values under `secret`, `secret.next` and `secret.previous`.
async fn values(world: &World) -> [Option<String>; 3] {
    let secret: Secret = world.api().get("made").await.unwrap();
    let data = secret.data.unwrap_or_default();
    ["secret", "secret.next", "secret.previous"].map(|key| {
        data.get(key)
            .map(|value| String::from_utf8(value.0.clone()).unwrap())
    })
}

async fn wait_phase(world: &World, phase: RotationPhase) -> Webhook {
    let what = format!("phase {phase:?}");
    world
        .wait("w", &what, |webhook| rotation(webhook).phase == phase)
        .await
}

async fn registered(world: &World, settle: &str, overlap: &str) -> String {
    world.provider(Autocosmos).await;
    world
        .webhook("w", Autocosmos, spec("leads", settle, overlap))
        .await;
    let ready = world.wait_ready("w", ReadyReason::Available).await;
    let told = rotation(&ready);
    assert_eq!(told.phase, RotationPhase::Idle);
    assert!(told.last_time.is_some() && told.previous_expires.is_none());
    at_upstream(world, "leads")
}

#[tokio::test]
async fn the_new_secret_is_published_settles_is_given_to_the_upstream_and_the_old_one_goes() {
    let world = World::new("rotation").await;
    let old = registered(&world, "3s", "4s").await;
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;

    let settling = wait_phase(&world, RotationPhase::Settling).await;
    assert_eq!(status(&settling).last_handled_rotate_at.as_deref(), Some("first"));
    let said = message(&settling, ConditionType::SecretReady);
    assert!(said.contains("\"secret.next\""), "{said}");
    let [current, next, previous] = values(&world).await;
    assert_eq!((current.as_ref(), previous), (Some(&old), None));
    let new = next.expect("the next one is published");
    assert_eq!(new.len(), 43);
    assert_ne!(new, old);
    assert_eq!(at_upstream(&world, "leads"), old);

    let overlapping = wait_phase(&world, RotationPhase::Overlapping).await;
    assert_eq!(at_upstream(&world, "leads"), new);
    assert_eq!(values(&world).await, [Some(new.clone()), None, Some(old.clone())]);
    let told = rotation(&overlapping);
    let (last, expires) = (told.last_time.unwrap().0, told.previous_expires.unwrap().0);
    assert!(last > rotation(&settling).last_time.unwrap().0);
    assert_eq!(expires.duration_since(last).as_secs(), 4);
    let said = message(&overlapping, ConditionType::SecretReady);
    assert!(said.contains("\"secret.previous\""), "{said}");

    let idle = wait_phase(&world, RotationPhase::Idle).await;
    assert_eq!(values(&world).await, [Some(new.clone()), None, None]);
    assert_eq!(rotation(&idle).previous_expires, None);
    assert_eq!(sent(world.doubles.autocosmos(), &world.account, "PUT").len(), 1);
    for (reason, word) in [
        ("RotationStarted", "\"secret.next\""),
        ("SecretRotated", "\"secret.previous\""),
        ("RotationCompleted", "\"secret.previous\""),
    ] {
        let (type_, note) = world.wait_event("w", reason).await;
        assert!(type_ == "Normal" && note.contains(word), "{reason}: {note}");
        assert!(!note.contains(&new) && !note.contains(&old));
    }
    let metrics = world.operator.metrics().await;
    assert!(metrics.contains("webhook_operator_secret_rotations_total{provider_type=\"Autocosmos\"}"));
    // The same request is handled once.
    world.read_back("w").await;
    assert_eq!(values(&world).await, [Some(new), None, None]);
}

/// The operator dies in each phase, and goes on where it was.
#[tokio::test]
async fn each_phase_survives_the_death_of_the_operator() {
    let world = World::alone("rotation-crash", &[]).await;
    let old = registered(&world, "4s", "5s").await;
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    wait_phase(&world, RotationPhase::Settling).await;
    world.operator.kill();
    let [_, next, _] = values(&world).await;
    let new = next.expect("the next one is published");
    // The upstream is away when the secret is to be given to it.
    let down = Fault::status(503).method("PUT").account(&world.account);
    world.doubles.autocosmos().set_fault(down);
    world.operator.go().await;
    let until = Instant::now() + Duration::from_secs(30);
    while values(&world).await[0].as_ref() != Some(&new) {
        assert!(Instant::now() < until, "the next one is promoted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.operator.kill();
    assert_eq!(at_upstream(&world, "leads"), old);
    assert_eq!(values(&world).await, [Some(new.clone()), None, Some(old.clone())]);
    // However long it stays away: the old one does not go before the upstream has the new one.
    world.operator.go().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(values(&world).await, [Some(new.clone()), None, Some(old.clone())]);
    world.doubles.autocosmos().clear_faults();
    wait_phase(&world, RotationPhase::Overlapping).await;
    assert_eq!(at_upstream(&world, "leads"), new);
    assert_eq!(values(&world).await, [Some(new.clone()), None, Some(old)]);
    world.operator.crash_and_restart().await;
    wait_phase(&world, RotationPhase::Idle).await;
    assert_eq!(values(&world).await, [Some(new.clone()), None, None]);
    assert_eq!(at_upstream(&world, "leads"), new, "one request, one secret");
}

#[tokio::test]
async fn an_upstream_that_refuses_the_new_secret_goes_on_with_the_old_one_which_stays() {
    let world = World::new("rotation-refused").await;
    let old = registered(&world, "1s", "1s").await;
    world
        .doubles
        .autocosmos()
        .set_fault(Fault::status(400).method("PUT").account(&world.account));
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    world.wait_reason("w", SyncedReason::Rejected).await;
    let [new, next, previous] = values(&world).await;
    assert_eq!((next, previous.as_ref()), (None, Some(&old)));
    // Longer than the overlap.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(at_upstream(&world, "leads"), old);
    assert_eq!(values(&world).await, [new.clone(), None, previous]);
    world.doubles.autocosmos().clear_faults();
    world.change("w", json!({ "description": "changed" })).await;
    wait_phase(&world, RotationPhase::Idle).await;
    assert_eq!(Some(at_upstream(&world, "leads")), new);
    assert_eq!(values(&world).await, [new, None, None]);
}

#[tokio::test]
async fn what_users_do_in_the_middle_of_a_rotation() {
    let world = World::new("rotation-users").await;
    registered(&world, "2s", "24h").await;
    // A value of one's own may settle as well; one that cannot be used is taken away.
    let own = "put-there-by-hand-and-long-enough";
    world.secret("made", &[("secret.next", "too-short")]).await;
    let (type_, note) = world.wait_event("w", "RotationWithdrawn").await;
    assert!(type_ == "Warning" && note.contains("\"secret.next\""), "{note}");
    assert_eq!(values(&world).await[1], None);
    world.secret("made", &[("secret.next", own)]).await;
    wait_phase(&world, RotationPhase::Overlapping).await;
    assert_eq!(at_upstream(&world, "leads"), own);
    // Asked for while the one before is still there, and suspended right after.
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    let settling = wait_phase(&world, RotationPhase::Settling).await;
    assert_eq!(status(&settling).last_handled_rotate_at.as_deref(), Some("first"));
    world.change("w", json!({ "suspend": true })).await;
    world.wait_ready("w", ReadyReason::Suspended).await;
    let [current, next, _] = values(&world).await;
    assert_eq!(current.as_deref(), Some(own));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(values(&world).await[0].as_deref(), Some(own));
    assert_eq!(at_upstream(&world, "leads"), own);
    // Without a policy what has begun goes on, with the default times.
    world
        .change(
            "w",
            json!({ "suspend": false, "secretPolicy": { "rotation": null } }),
        )
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(values(&world).await[1], next);
    let policy = json!({ "interval": "1h", "settle": "1s" });
    world
        .change("w", json!({ "secretPolicy": { "rotation": policy } }))
        .await;
    wait_phase(&world, RotationPhase::Overlapping).await;
    assert_eq!(Some(at_upstream(&world, "leads")), next);
    assert_eq!(values(&world).await[2].as_deref(), Some(own));
    // The old one goes at once where no overlap is wanted any more.
    let policy = json!({ "interval": "1h", "overlap": "0s" });
    world
        .change("w", json!({ "secretPolicy": { "rotation": policy } }))
        .await;
    wait_phase(&world, RotationPhase::Idle).await;
    assert_eq!(values(&world).await, [next, None, None]);
    // The Webhook goes in the middle of the next one.
    world
        .change(
            "w",
            json!({ "secretPolicy": { "rotation": { "settle": "24h" } } }),
        )
        .await;
    world.annotate("w", ROTATE_REQUESTED_AT, "second").await;
    wait_phase(&world, RotationPhase::Settling).await;
    world.delete_and_wait("w").await;
}

#[tokio::test]
async fn a_rotation_that_cannot_be_is_refused_once() {
    let world = World::new("rotation-unsupported").await;
    world.provider(Conpeek).await;
    world
        .webhook(
            "w",
            Conpeek,
            json!({ "target": "9", "url": "https://hooks.example.com/", "test": { "mode": "None" } }),
        )
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    let (type_, note) = world.wait_event("w", "RotationUnsupported").await;
    assert!(type_ == "Warning" && note.contains("does not sign"), "{note}");
    let handled = |webhook: &Webhook| status(webhook).last_handled_rotate_at.as_deref() == Some("first");
    world.wait("w", "the request is handled", handled).await;
}

/// The receiver's part of a Secret: what it takes, read again now.
async fn learn(world: &World, name: &str) {
    let taken: Vec<upstream_doubles::Secret> = values(world)
        .await
        .into_iter()
        .flatten()
        .map(|value| value.as_str().into())
        .collect();
    let receiver = world.doubles.receiver();
    receiver.expect_autocosmos_from(name, None, move || taken.clone());
}

/// A spec with a receiver that judges, which the operator tests.
fn judged(world: &World, settle: &str) -> Value {
    let mut spec = spec("leads", settle, "24h");
    let url = format!(
        "{}/autocosmos/{}",
        world.doubles.receiver().url(),
        world.namespace
    );
    spec["url"] = json!(url);
    spec["test"] = json!({ "mode": "Auto" });
    spec
}

async fn registered_and_judged(world: &World, settle: &str) {
    world.provider(Autocosmos).await;
    world.webhook("w", Autocosmos, judged(world, settle)).await;
    world.wait_reason("w", SecretReason::Published).await;
    learn(world, &world.namespace).await;
    world.annotate("w", TEST_REQUESTED_AT, "when it knows").await;
    world.wait_ready("w", ReadyReason::Available).await;
}

#[tokio::test]
async fn a_receiver_that_takes_the_new_secret_need_not_settle() {
    let world = World::new("rotation-proof").await;
    registered_and_judged(&world, "24h").await;
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    let unknown = |webhook: &Webhook| {
        rotation(webhook).phase == RotationPhase::Settling
            && message(webhook, ConditionType::SecretReady).contains("SignatureRejected")
    };
    world
        .wait("w", "the receiver does not know it yet", unknown)
        .await;
    let [old, new, _] = values(&world).await;
    assert_eq!(Some(at_upstream(&world, "leads")), old);
    learn(&world, &world.namespace).await;
    let overlapping = |webhook: &Webhook| rotation(webhook).phase == RotationPhase::Overlapping;
    let limit = Duration::from_secs(90);
    world
        .wait_within(limit, "w", "the receiver knows it", overlapping)
        .await;
    assert_eq!(Some(at_upstream(&world, "leads")), new);
    // Tested after the change like any other, and never found wanting meanwhile.
    world.wait_ready("w", ReadyReason::Available).await;
    let history = status(&world.get("w").await).test.unwrap().history;
    assert_eq!(history.first().unwrap().result, TestResult::Passed);
    let unproven = world.events("w").await;
    assert!(unproven.iter().all(|(_, reason, _)| reason != "RotationUnproven"));
}

#[tokio::test]
async fn a_receiver_that_never_takes_the_new_secret_is_told_of_and_not_waited_for() {
    let world = World::new("rotation-unproven").await;
    registered_and_judged(&world, "5s").await;
    world.annotate("w", ROTATE_REQUESTED_AT, "first").await;
    wait_phase(&world, RotationPhase::Overlapping).await;
    let (type_, note) = world.wait_event("w", "RotationUnproven").await;
    assert!(type_ == "Warning" && note.contains("SignatureRejected"), "{note}");
    assert_eq!(Some(at_upstream(&world, "leads")), values(&world).await[0]);
    world.wait_ready("w", ReadyReason::TestFailed).await;
}

/// Three replicas of a receiver. Each reads the Secret every three seconds, one after the other.
#[derive(Default)]
struct Fleet {
    copies: Mutex<[BTreeSet<String>; 3]>,
}

impl Fleet {
    /// What every replica takes.
    fn takes(&self) -> Vec<upstream_doubles::Secret> {
        let copies = self.copies.lock().unwrap();
        let [first, rest @ ..] = &*copies;
        let everywhere = first
            .iter()
            .filter(|value| rest.iter().all(|copy| copy.contains(*value)));
        everywhere.map(|value| value.as_str().into()).collect()
    }

    async fn reload(&self, api: &Api<Secret>, replica: usize) {
        let data = api.get("made").await.unwrap().data.unwrap_or_default();
        let values = data
            .into_values()
            .map(|value| String::from_utf8(value.0).unwrap())
            .collect();
        self.copies.lock().unwrap()[replica] = values;
    }
}

/// Deliveries signed with whatever the upstream has, 50 a second, to a receiver that is behind by up to three seconds
/// and takes the current, the next and the previous secret. The operator dies in the middle.
#[tokio::test]
async fn no_delivery_is_refused_through_two_rotations() {
    let world = World::alone("rotation-traffic", &[]).await;
    let receiver = world.doubles.receiver();
    let name = world.namespace.clone();
    world.provider(Autocosmos).await;
    let mut spec = spec("leads", "5s", "6s");
    spec["url"] = json!(format!("{}/autocosmos/{name}", receiver.url()));
    world.webhook("w", Autocosmos, spec).await;
    world.wait_ready("w", ReadyReason::Available).await;

    let fleet = Arc::new(Fleet::default());
    let api: Api<Secret> = world.api();
    for replica in 0..3 {
        fleet.reload(&api, replica).await;
    }
    let behind = Arc::clone(&fleet);
    let reloads = tokio::spawn(async move {
        for replica in (0..3).cycle() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            behind.reload(&api, replica).await;
        }
    });
    let taken = Arc::clone(&fleet);
    receiver.expect_autocosmos_from(&name, None, move || taken.takes());

    let story = async {
        for round in ["first", "second"] {
            world.annotate("w", ROTATE_REQUESTED_AT, round).await;
            wait_phase(&world, RotationPhase::Settling).await;
            if round == "second" {
                world.operator.crash_and_restart().await;
            }
            wait_phase(&world, RotationPhase::Overlapping).await;
            wait_phase(&world, RotationPhase::Idle).await;
        }
        // Until every replica has seen the end.
        tokio::time::sleep(Duration::from_secs(4)).await;
    };
    let (double, account) = (Arc::clone(world.doubles.autocosmos()), world.account.clone());
    let mut signed_with = BTreeSet::new();
    let (mut accepted, mut refused) = (0_u32, Vec::new());
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    tokio::pin!(story);
    loop {
        tokio::select! {
            () = &mut story => break,
            _ = ticks.tick() => {
                signed_with.insert(at_upstream(&world, "leads"));
                let order = json!({ "appKey": account, "topic": "leads", "body": { "lead": accepted } });
                for delivered in double.deliver(order).await.unwrap() {
                    if delivered.accepted() {
                        accepted += 1;
                    } else {
                        refused.push((began.elapsed(), delivered));
                    }
                }
            }
        }
    }
    reloads.abort();
    let per_second = f64::from(accepted) / began.elapsed().as_secs_f64();
    println!(
        "{accepted} deliveries in {:.0} s ({per_second:.0} a second), signed with {} secrets: {} refused",
        began.elapsed().as_secs_f64(),
        signed_with.len(),
        refused.len()
    );
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(signed_with.len(), 3);
    assert!(accepted > 1000, "{accepted}");
    // What would be refused is: a secret of long ago.
    let now = at_upstream(&world, "leads");
    let long_ago = signed_with.into_iter().find(|secret| *secret != now).unwrap();
    double.edit(&format!("{account}/leads"), |webhook| {
        webhook.secret = Some(long_ago.as_str().into());
    });
    let order = json!({ "appKey": account, "topic": "leads", "body": {} });
    let delivered = double.deliver(order).await.unwrap();
    assert!(
        delivered.iter().all(|delivered| delivered.status == Some(401)),
        "{delivered:?}"
    );
}
