//! Signing secrets that the operator makes: made once, before the upstream has them, and never over something that
//! is there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use upstream_doubles::{Effect, Fault};
use webhook_operator::api::{
    Webhook,
    conditions::{ConditionType, ReadyReason, SecretReason, StalledReason},
    provider::ProviderType::Autocosmos,
};

use crate::world::{World, has_reason, message, sent, uid};

/// The garbage collector looks for kinds that are new to it twice a minute.
const COLLECTED: Duration = Duration::from_secs(120);

fn spec(name: &str) -> Value {
    json!({
        "target": name,
        "url": "https://hooks.example.com/autocosmos",
        "secretRef": { "name": "made" },
        "secretPolicy": { "source": "Generate" },
        "test": { "mode": "None" },
    })
}

/// The secret that the upstream has for a topic.
fn at_upstream(world: &World, topic: &str) -> Option<String> {
    let stored = world
        .doubles
        .autocosmos()
        .upstream()
        .webhook(&world.account, topic)?;
    stored.secret.map(|secret| secret.reveal().to_owned())
}

async fn secret(world: &World, name: &str) -> Option<Secret> {
    world.api::<Secret>().get_opt(name).await.unwrap()
}

async fn delete_secret(world: &World, name: &str) {
    world
        .api::<Secret>()
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
}

/// Waits until the upstream has another secret than this one, and it is the one in the Secret.
async fn wait_for_another(world: &World, topic: &str, old: &str) -> String {
    world
        .eventually("another secret at the upstream", || {
            at_upstream(world, topic).is_some_and(|secret| secret != old)
        })
        .await;
    let now = at_upstream(world, topic).unwrap();
    assert_eq!(world.secret_value("made", "secret").await.as_ref(), Some(&now));
    now
}

#[tokio::test]
async fn a_missing_secret_is_made_once_and_goes_with_its_webhook() {
    let world = World::new("generate").await;
    world.provider(Autocosmos).await;
    world.webhook("w", Autocosmos, spec("leads")).await;
    let ready = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&ready, SecretReason::Published));
    let said = message(&ready, ConditionType::SecretReady);
    assert!(said.contains("\"made\"") && said.contains("\"secret\""), "{said}");
    let (_, note) = world.wait_event("w", "SecretGenerated").await;
    assert!(note.contains("\"made\""), "{note}");

    let made = world.secret_value("made", "secret").await.unwrap();
    assert_eq!(made.len(), 43);
    assert!(
        made.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    );
    assert_eq!(at_upstream(&world, "leads"), Some(made.clone()));
    let object = secret(&world, "made").await.unwrap();
    let owner = &object.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("Webhook", uid(&ready).as_str())
    );
    assert_eq!(object.type_.as_deref(), Some("Opaque"));

    // Neither a read-back nor another change makes another one.
    world.read_back("w").await;
    world.change("w", json!({ "description": "changed" })).await;
    world
        .eventually("the change", || {
            sent(world.doubles.autocosmos(), &world.account, "PUT").len() == 1
        })
        .await;
    assert_eq!(at_upstream(&world, "leads"), Some(made.clone()));
    assert_eq!(world.secret_value("made", "secret").await, Some(made));

    world.delete_and_wait("w").await;
    let until = Instant::now() + COLLECTED;
    while secret(&world, "made").await.is_some() {
        assert!(Instant::now() < until, "the Secret goes with its owner");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_a_reference_the_secret_has_a_name_of_its_own() {
    let world = World::new("generate-name").await;
    world.provider(Autocosmos).await;
    let mut spec = spec("leads");
    spec.as_object_mut().unwrap().remove("secretRef");
    world.webhook("w", Autocosmos, spec).await;
    world.wait_ready("w", ReadyReason::Available).await;
    let made = world.secret_value("w-signing", "secret").await;
    assert!(made.is_some());
    assert_eq!(at_upstream(&world, "leads"), made);
}

/// The upstream's answer is lost, the operator dies: what it made before is what the upstream gets.
#[tokio::test]
async fn the_secret_is_stored_before_the_upstream_gets_it() {
    let world = World::alone("generate-crash", &[]).await;
    world.provider(Autocosmos).await;
    let down = Fault::new(Effect::Status {
        status: 503,
        body: None,
        headers: Default::default(),
        retry_after: None,
    });
    world.doubles.autocosmos().set_fault(down);
    world.webhook("w", Autocosmos, spec("leads")).await;
    world.wait_ready("w", ReadyReason::UpstreamError).await;
    let made = world.secret_value("made", "secret").await;
    assert!(made.is_some());
    assert_eq!(at_upstream(&world, "leads"), None);
    world.operator.kill();
    world.doubles.autocosmos().clear_faults();
    world.operator.go().await;
    world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(at_upstream(&world, "leads"), made);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone_and_nothing_is_registered() {
    let world = World::new("generate-foreign").await;
    world.provider(Autocosmos).await;
    let theirs = "their-own-secret-of-some-length";
    // With the key or without it.
    for (name, key) in [("with", "secret"), ("without", "other")] {
        world.secret(name, &[(key, theirs)]).await;
        let mut spec = spec(name);
        spec["secretRef"]["name"] = json!(name);
        world.webhook(name, Autocosmos, spec).await;
        let conflict = world.wait_reason(name, SecretReason::NotOwned).await;
        assert!(has_reason(&conflict, ReadyReason::Conflict));
        assert!(has_reason(&conflict, StalledReason::Conflict));
        let said = message(&conflict, ConditionType::SecretReady);
        assert!(said.contains("Existing") && said.contains(name), "{said}");
        let data = secret(&world, name).await.unwrap().data.unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), [key]);
        assert_eq!(data[key].0, theirs.as_bytes());
    }
    assert!(world.doubles.autocosmos().requests_of(&world.account).is_empty());

    // As the message says: used as it is, or out of the way.
    world
        .change("with", json!({ "secretPolicy": { "source": "Existing" } }))
        .await;
    let ready = world.wait_ready("with", ReadyReason::Available).await;
    assert!(has_reason(&ready, SecretReason::Resolved));
    assert_eq!(at_upstream(&world, "with").as_deref(), Some(theirs));
    delete_secret(&world, "without").await;
    world.wait_ready("without", ReadyReason::Available).await;
    assert_eq!(
        at_upstream(&world, "without"),
        world.secret_value("without", "secret").await
    );
    // One Secret is one Webhook's.
    let mut third = spec("third");
    third["secretRef"]["name"] = json!("without");
    world.webhook("third", Autocosmos, third).await;
    world.wait_reason("third", SecretReason::NotOwned).await;
}

#[tokio::test]
async fn what_somebody_takes_away_is_made_again_and_what_somebody_puts_in_is_used() {
    let world = World::new("generate-edit").await;
    world.provider(Autocosmos).await;
    world.webhook("w", Autocosmos, spec("leads")).await;
    world.wait_ready("w", ReadyReason::Available).await;
    let first = at_upstream(&world, "leads").unwrap();

    delete_secret(&world, "made").await;
    let second = wait_for_another(&world, "leads", &first).await;
    assert_eq!(second.len(), 43);
    world
        .patch::<Secret>("made", &json!({ "data": { "secret": null } }))
        .await;
    let third = wait_for_another(&world, "leads", &second).await;

    let own = "put-there-by-hand-and-long-enough";
    world.secret("made", &[("secret", own)]).await;
    assert_eq!(wait_for_another(&world, "leads", &third).await, own);
    // What the upstream would refuse is said and stays.
    world.secret("made", &[("secret", "too-short")]).await;
    let refused = world.wait_reason("w", SecretReason::TooShort).await;
    assert!(has_reason(&refused, ReadyReason::InvalidSpec));
    world
        .patch::<Secret>("made", &json!({ "data": { "secret": "/////w==" } }))
        .await;
    world.wait_reason("w", SecretReason::KeyMissing).await;
    assert_eq!(at_upstream(&world, "leads").as_deref(), Some(own));
    let data = secret(&world, "made").await.unwrap().data.unwrap();
    assert_eq!(data["secret"].0, [0xff, 0xff, 0xff, 0xff]);
    world
        .patch::<Webhook>("w", &json!({ "spec": { "secretRef": { "key": "second" } } }))
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(
        at_upstream(&world, "leads"),
        world.secret_value("made", "second").await
    );
}
