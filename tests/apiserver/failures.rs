//! What is told and done when an upstream refuses or fails, when answers get lost, and when the operator dies.

use std::time::Duration;

use serde_json::{Value, json};
use upstream_doubles::{Effect, Fault, RetryAfter, Upstream};
use webhook_operator::api::{
    WebhookProvider,
    conditions::{
        ConditionType, ProviderReason, ReadyReason, ReconcilingReason, SecretReason, StalledReason,
        SyncedReason,
    },
    provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
};

use crate::world::{World, condition, has_reason, message, name_of, sent, status};

const ALL: [ProviderType; 4] = [Conpeek, Thulium, Ricloud, Autocosmos];

/// A spec that works at an upstream.
fn spec(world: &World, provider: ProviderType) -> Value {
    match provider {
        Conpeek => json!({ "target": "9", "url": "https://a.example/" }),
        Thulium => json!({ "url": "https://a.example/", "events": ["TICKET_CREATED"] }),
        Ricloud => json!({ "url": world.ricloud_receiver("r") }),
        Autocosmos => json!({ "target": "precios", "url": "https://a.example/" }),
    }
}

/// How many registrations an upstream holds.
fn registered(world: &World, provider: ProviderType) -> usize {
    match provider {
        Conpeek => world
            .doubles
            .conpeek()
            .objects()
            .iter()
            .filter(|it| it.url.is_some())
            .count(),
        Thulium => world.doubles.thulium().objects().len(),
        Ricloud => world.doubles.ricloud().objects().len(),
        Autocosmos => world.doubles.autocosmos().objects().len(),
    }
}

fn set_fault(world: &World, provider: ProviderType, fault: Fault) {
    match provider {
        Conpeek => world.doubles.conpeek().set_fault(fault),
        Thulium => world.doubles.thulium().set_fault(fault),
        Ricloud => world.doubles.ricloud().set_fault(fault),
        Autocosmos => world.doubles.autocosmos().set_fault(fault),
    };
}

fn clear_faults(world: &World, provider: ProviderType) {
    match provider {
        Conpeek => world.doubles.conpeek().clear_faults(),
        Thulium => world.doubles.thulium().clear_faults(),
        Ricloud => world.doubles.ricloud().clear_faults(),
        Autocosmos => world.doubles.autocosmos().clear_faults(),
    }
}

/// The method that creates.
const fn creates(provider: ProviderType) -> &'static str {
    match provider {
        Conpeek => "PUT",
        Thulium | Ricloud | Autocosmos => "POST",
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_and_the_right_one_goes_on_at_once() {
    let world = World::new("fail-key").await;
    for provider in ALL {
        world.provider(provider).await;
        let name = name_of(provider);
        let wrong: Vec<(&str, String)> = world.credentials(provider);
        let wrong: Vec<(&str, &str)> = wrong
            .iter()
            .map(|(key, value)| match *key {
                "username" | "appKey" => (*key, value.as_str()),
                key => (key, "certainly-the-wrong-one"),
            })
            .collect();
        world.secret(&format!("{name}-account"), &wrong).await;
        world.webhook(&name, provider, spec(&world, provider)).await;
    }
    for provider in ALL {
        let name = name_of(provider);
        let refused = world.wait_ready(&name, ReadyReason::ProviderNotReady).await;
        let said = message(&refused, ConditionType::Ready);
        assert!(said.contains(&format!("WebhookProvider {name:?}")), "{said}");
        assert!(said.to_lowercase().contains("credentials"), "{said}");
        assert!(!said.contains("certainly-the-wrong-one"), "{said}");
        let said = world.wait_provider(&name, ProviderReason::Unauthorized).await;
        assert!(!said.contains("certainly-the-wrong-one"), "{said}");
        assert_eq!(registered(&world, provider), 0);
    }
    for provider in ALL {
        let name = name_of(provider);
        let right = world.credentials(provider);
        let right: Vec<(&str, &str)> = right.iter().map(|(key, value)| (*key, value.as_str())).collect();
        world.secret(&format!("{name}-account"), &right).await;
        world.wait_ready(&name, ReadyReason::Available).await;
        world.wait_provider(&name, ProviderReason::Verified).await;
    }
}

#[tokio::test]
async fn credentials_that_are_missing_or_incomplete_are_told() {
    let world = World::new("fail-missing").await;
    world.apply(&world.provider_manifest(Thulium)).await;
    world.webhook("w", Thulium, spec(&world, Thulium)).await;
    let refused = world.wait_ready("w", ReadyReason::ProviderNotReady).await;
    let said = message(&refused, ConditionType::Ready);
    assert!(
        said.contains("thulium-account") && said.contains("create it with the keys username, password"),
        "{said}"
    );
    world
        .wait_provider("thulium", ProviderReason::SecretNotFound)
        .await;
    world
        .secret("thulium-account", &[("username", &world.account)])
        .await;
    let said = world.wait_provider("thulium", ProviderReason::KeyMissing).await;
    assert!(said.contains("password"), "{said}");
    world
        .secret("thulium-account", &[("password", &world.keys().thulium)])
        .await;
    world.wait_ready("w", ReadyReason::Available).await;
    world.wait_provider("thulium", ProviderReason::Verified).await;
}

#[tokio::test]
async fn a_webhook_s_secrets_are_waited_for_and_judged() {
    let world = World::new("fail-secret").await;
    world.provider(Autocosmos).await;
    let spec =
        json!({ "target": "precios", "url": "https://a.example/", "secretRef": { "name": "signing" } });
    world.webhook("w", Autocosmos, spec).await;
    let missing = world.wait_reason("w", SecretReason::NotFound).await;
    assert!(has_reason(&missing, ReadyReason::SecretNotFound));
    let said = message(&missing, ConditionType::Ready);
    assert!(
        said.contains("spec.secretRef") && said.contains("signing") && said.contains("create it"),
        "{said}"
    );
    assert!(condition(&missing, ConditionType::Stalled).is_none());

    world.secret("signing", &[("other", "text")]).await;
    let missing = world.wait_reason("w", SecretReason::KeyMissing).await;
    assert!(has_reason(&missing, ReadyReason::SecretNotFound));

    world.secret("signing", &[("secret", "fifteen-letters")]).await;
    let short = world.wait_reason("w", SecretReason::TooShort).await;
    assert!(has_reason(&short, ReadyReason::InvalidSpec) && has_reason(&short, StalledReason::InvalidSpec));
    assert!(message(&short, ConditionType::Ready).contains("16 to 256"));

    world.secret("signing", &[("secret", &"x".repeat(257))]).await;
    let long = world.wait_reason("w", SecretReason::TooLong).await;
    assert!(has_reason(&long, ReadyReason::InvalidSpec));
    assert!(sent(world.doubles.autocosmos(), &world.account, "POST").is_empty());

    world.secret("signing", &[("secret", "sixteen-letters!")]).await;
    let ready = world.wait_ready("w", ReadyReason::Available).await;
    assert!(has_reason(&ready, SecretReason::Resolved));
    // Settled, and then it goes: what is registered stays, and the Webhook says what is missing.
    let api: kube::Api<k8s_openapi::api::core::v1::Secret> = world.api();
    api.delete("signing", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    world.wait_ready("w", ReadyReason::SecretNotFound).await;
    assert!(world.doubles.autocosmos().objects()[0].activo);
}

/// A fault at the creating call (or at every call), what is said of it, and that it heals by itself.
async fn fails_and_heals(prefix: &str, fault: Fault, reason: SyncedReason) {
    let world = World::new(prefix).await;
    world.provider_with(Conpeek, json!({ "timeout": "1s" })).await;
    set_fault(&world, Conpeek, fault);
    world.webhook("w", Conpeek, spec(&world, Conpeek)).await;
    let failed = world.wait_reason("w", reason).await;
    assert!(
        has_reason(&failed, ReadyReason::UpstreamError),
        "{}",
        world.report("w").await
    );
    assert!(has_reason(&failed, ReconcilingReason::Retrying));
    assert!(condition(&failed, ConditionType::Stalled).is_none());
    clear_faults(&world, Conpeek);
    let healed = world.wait_ready("w", ReadyReason::Available).await;
    assert!(condition(&healed, ConditionType::Reconciling).is_none());
    assert_eq!(registered(&world, Conpeek), 1);
}

#[tokio::test]
async fn an_upstream_that_is_down_is_tried_again() {
    fails_and_heals(
        "fail-down",
        Fault::new(Effect::ResetBefore),
        SyncedReason::Unreachable,
    )
    .await;
}

#[tokio::test]
async fn an_upstream_with_an_outage_is_tried_again() {
    fails_and_heals("fail-503", Fault::status(503), SyncedReason::Unreachable).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_tried_again() {
    let mut fault = Fault::delay(Duration::from_secs(3));
    fault.handled = Some(false);
    fails_and_heals("fail-slow", fault, SyncedReason::Timeout).await;
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_tried_again() {
    fails_and_heals(
        "fail-html",
        Fault::new(Effect::Html),
        SyncedReason::UnexpectedResponse,
    )
    .await;
}

#[tokio::test]
async fn an_upstream_that_asks_for_fewer_calls_is_given_the_time() {
    let world = World::new("fail-429").await;
    world.provider(Conpeek).await;
    set_fault(
        &world,
        Conpeek,
        Fault::retry_after(429, RetryAfter::Seconds(3)).times(1),
    );
    world.webhook("w", Conpeek, spec(&world, Conpeek)).await;
    let limited = world.wait_reason("w", SyncedReason::RateLimited).await;
    assert!(has_reason(&limited, ReadyReason::UpstreamError));
    world.wait_ready("w", ReadyReason::Available).await;
    let seen = world.doubles.conpeek().requests_of(&world.account);
    let refused = seen.iter().find(|seen| seen.status == Some(429)).unwrap();
    let next = seen.iter().find(|later| later.seq > refused.seq).unwrap();
    assert!(
        next.at_millis - refused.at_millis >= 2_900,
        "{} ms",
        next.at_millis - refused.at_millis
    );
}

#[tokio::test]
async fn what_is_refused_waits_for_a_change() {
    let world = World::new("fail-rejected").await;
    world.provider(Thulium).await;
    set_fault(&world, Thulium, Fault::status(422).method("POST"));
    world.webhook("w", Thulium, spec(&world, Thulium)).await;
    let rejected = world.wait_reason("w", SyncedReason::Rejected).await;
    assert!(
        has_reason(&rejected, StalledReason::Rejected) && has_reason(&rejected, ReadyReason::UpstreamError)
    );
    assert!(
        rejected.metadata.finalizers.unwrap_or_default().is_empty(),
        "nothing was written, so nothing is held"
    );
    clear_faults(&world, Thulium);
    assert_eq!(sent(world.doubles.thulium(), &world.account, "POST").len(), 1);
    world.change("w", json!({ "url": "https://b.example/" })).await;
    world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(sent(world.doubles.thulium(), &world.account, "POST").len(), 2);
}

#[tokio::test]
async fn what_the_credentials_do_not_allow_is_the_webhook_s_trouble() {
    let world = World::new("fail-forbidden").await;
    let mut limited = upstream_doubles::AutocosmosAccount::new(&world.account, &world.keys().autocosmos);
    limited.topics = Some(std::iter::once("permitted".to_owned()).collect());
    world.doubles.autocosmos().add_account(limited);
    world.provider(Autocosmos).await;
    world.webhook("w", Autocosmos, spec(&world, Autocosmos)).await;
    let refused = world.wait_reason("w", SyncedReason::Forbidden).await;
    assert!(has_reason(&refused, ReadyReason::UpstreamError));
    world
        .webhook(
            "p",
            Autocosmos,
            json!({ "target": "permitted", "url": "https://a.example/" }),
        )
        .await;
    world.wait_ready("p", ReadyReason::Available).await;
}

#[tokio::test]
async fn a_target_that_does_not_exist_is_named() {
    let world = World::new("fail-target").await;
    world
        .doubles
        .conpeek()
        .change_behaviour(|behaviour| behaviour.any_application = false);
    world.provider(Conpeek).await;
    world.webhook("w", Conpeek, spec(&world, Conpeek)).await;
    let missing = world.wait_reason("w", SyncedReason::TargetNotFound).await;
    assert!(message(&missing, ConditionType::Ready).contains('9'));
    world.doubles.conpeek().upstream().add_application(9);
    world.ask_read_back("w").await;
    world.wait_ready("w", ReadyReason::Available).await;
}

#[tokio::test]
async fn an_address_that_may_not_be_reached_is_not_reached() {
    let world = World::new("fail-blocked").await;
    world
        .provider_with(Thulium, json!({ "baseUrl": "https://10.1.2.3/api" }))
        .await;
    world.webhook("w", Thulium, spec(&world, Thulium)).await;
    let blocked = world.wait_reason("w", SyncedReason::BlockedAddress).await;
    assert!(
        message(&blocked, ConditionType::Ready).contains("--allow-network"),
        "{}",
        world.report("w").await
    );
    let said = world
        .wait_provider("thulium", ProviderReason::BlockedAddress)
        .await;
    assert!(said.contains("--allow-network"), "{said}");
}

#[tokio::test]
async fn fields_that_an_upstream_lacks_are_refused_and_nothing_is_called() {
    let world = World::new("fail-fields").await;
    world.provider(Conpeek).await;
    let spec = json!({ "target": "9", "url": "https://a.example/", "description": "mine", "active": false });
    world.webhook("w", Conpeek, spec).await;
    let refused = world.wait_ready("w", ReadyReason::UnsupportedField).await;
    assert!(has_reason(&refused, StalledReason::UnsupportedField));
    let said = message(&refused, ConditionType::Stalled);
    assert!(
        said.contains("spec.description") && said.contains("spec.active") && said.contains("remove it"),
        "{said}"
    );
    world
        .change("w", json!({ "description": null, "active": true }))
        .await;
    world.wait_ready("w", ReadyReason::Available).await;

    world
        .webhook(
            "i",
            Conpeek,
            json!({ "target": "nine", "url": "https://a.example/" }),
        )
        .await;
    let invalid = world.wait_ready("i", ReadyReason::InvalidSpec).await;
    assert!(has_reason(&invalid, StalledReason::InvalidSpec));
    assert!(message(&invalid, ConditionType::Ready).contains("spec.target"));
    world
        .webhook(
            "n",
            Conpeek,
            json!({ "target": "10", "url": "https://a.example/", "test": { "mode": "Upstream" } }),
        )
        .await;
    let later = world.wait_ready("n", ReadyReason::UnsupportedField).await;
    assert!(message(&later, ConditionType::Ready).contains("spec.test.mode"));
    assert_eq!(registered(&world, Conpeek), 1);
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_registration() {
    let world = World::new("fail-lost").await;
    for provider in ALL {
        world.provider(provider).await;
        set_fault(
            &world,
            provider,
            Fault::new(Effect::ResetAfter).method(creates(provider)).times(1),
        );
        world
            .webhook(&name_of(provider), provider, spec(&world, provider))
            .await;
    }
    for provider in ALL {
        let ready = world.wait_ready(&name_of(provider), ReadyReason::Available).await;
        assert!(status(&ready).id.is_some());
        assert_eq!(registered(&world, provider), 1, "{provider:?}");
    }
    assert_eq!(sent(world.doubles.thulium(), &world.account, "POST").len(), 1);
    let creates = sent(world.doubles.ricloud(), &world.account, "POST");
    assert_eq!(
        creates
            .iter()
            .filter(|seen| seen.path == "/configs/webhook")
            .count(),
        1
    );
    assert!(world.secret_value("ricloud-signing", "secret").await.is_some());
}

#[tokio::test]
async fn a_request_that_never_arrived_is_sent_again_only_when_it_cannot_arrive_any_more() {
    let world = World::new("fail-unsent").await;
    world.provider_with(Thulium, json!({ "timeout": "1s" })).await;
    set_fault(
        &world,
        Thulium,
        Fault::new(Effect::ResetBefore).method("POST").times(1),
    );
    world.webhook("w", Thulium, spec(&world, Thulium)).await;
    let waiting = world.wait_reason("w", SyncedReason::CreateOutcomeUnknown).await;
    assert!(
        has_reason(&waiting, ReadyReason::Progressing)
            && has_reason(&waiting, ReconcilingReason::Progressing)
    );
    let first = sent(world.doubles.thulium(), &world.account, "POST")[0].at_millis;
    // One call's timeout and 30 s.
    let limit = Duration::from_secs(60);
    let posted = || sent(world.doubles.thulium(), &world.account, "POST");
    let waited = tokio::time::timeout(limit, async {
        while posted().len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("not sent again after {limit:?}"));
    // The mark is a little older than the first request.
    assert!(
        posted()[1].at_millis - first >= 30_000,
        "{}",
        posted()[1].at_millis - first
    );
    world.wait_ready("w", ReadyReason::Available).await;
    assert_eq!(registered(&world, Thulium), 1);
}

/// The operator is killed while a create is under way: before (`handled: false`) or after its effect.
async fn killed_while_creating(handled: bool) {
    let world = World::alone(if handled { "kill-after" } else { "kill-before" }, &[]).await;
    for provider in ALL {
        world.provider(provider).await;
        let mut fault = Fault::delay(Duration::from_millis(2500))
            .method(creates(provider))
            .times(1);
        fault.handled = Some(handled);
        set_fault(&world, provider, fault);
        world
            .webhook(&name_of(provider), provider, spec(&world, provider))
            .await;
    }
    let arrived = |double: usize| double > 0;
    world
        .eventually("all creates to be under way", || {
            let struck = |faults: Vec<upstream_doubles::ActiveFault>| {
                faults.iter().all(|fault| arrived(fault.struck as usize))
            };
            struck(world.doubles.conpeek().faults())
                && struck(world.doubles.thulium().faults())
                && struck(world.doubles.ricloud().faults())
                && struck(world.doubles.autocosmos().faults())
        })
        .await;
    world.operator.crash_and_restart().await;
    for provider in ALL {
        let ready = world.wait_ready(&name_of(provider), ReadyReason::Available).await;
        assert!(status(&ready).id.is_some());
        assert_eq!(registered(&world, provider), 1, "{provider:?}");
        let annotations = ready.metadata.annotations.unwrap_or_default();
        assert!(
            !annotations.contains_key(webhook_operator::api::CREATE_PENDING),
            "{annotations:?}"
        );
    }
    assert_eq!(sent(world.doubles.thulium(), &world.account, "POST").len(), 1);
    let creates = sent(world.doubles.ricloud(), &world.account, "POST");
    assert_eq!(
        creates
            .iter()
            .filter(|seen| seen.path == "/configs/webhook")
            .count(),
        1
    );
    assert!(
        world.doubles.thulium().duplicates().is_empty() && world.doubles.ricloud().duplicates().is_empty()
    );
}

#[tokio::test]
async fn killed_after_the_effect_of_a_create_it_finds_what_it_made() {
    killed_while_creating(true).await;
}

#[tokio::test]
async fn killed_before_the_effect_of_a_create_it_waits_for_it() {
    killed_while_creating(false).await;
}

#[tokio::test]
async fn killed_at_any_moment_there_is_one_registration_for_each_webhook() {
    let world = World::alone("kill-storm", &[]).await;
    world.provider_with(Thulium, json!({ "timeout": "1s" })).await;
    world.provider_with(Ricloud, json!({ "timeout": "1s" })).await;
    world.doubles.thulium().set_latency(Duration::from_millis(30));
    world.doubles.ricloud().set_latency(Duration::from_millis(30));
    for number in 0..10 {
        let thulium = json!({ "url": format!("https://a.example/{number}"), "events": ["TICKET_CREATED"] });
        world.webhook(&format!("t{number}"), Thulium, thulium).await;
        let ricloud = json!({ "url": format!("https://a.example/{number}"), "test": { "mode": "None" } });
        world.webhook(&format!("r{number}"), Ricloud, ricloud).await;
        if number % 3 == 2 {
            tokio::time::sleep(Duration::from_millis(40 * number)).await;
            world.operator.crash_and_restart().await;
        }
    }
    // One that was marked and not sent waits for one call's timeout and 30 s.
    let available = |webhook: &webhook_operator::api::Webhook| has_reason(webhook, ReadyReason::Available);
    for number in 0..10 {
        for name in [format!("t{number}"), format!("r{number}")] {
            world
                .wait_within(Duration::from_secs(60), &name, "Available", available)
                .await;
        }
    }
    assert_eq!(
        (registered(&world, Thulium), registered(&world, Ricloud)),
        (10, 10)
    );
    assert!(
        world.doubles.thulium().duplicates().is_empty() && world.doubles.ricloud().duplicates().is_empty()
    );
}

#[tokio::test]
async fn a_settled_webhook_is_not_bothered_by_a_hiccup() {
    let world = World::new("fail-hiccup").await;
    world.provider(Autocosmos).await;
    world.webhook("w", Autocosmos, spec(&world, Autocosmos)).await;
    let before = world.wait_ready("w", ReadyReason::Available).await;
    set_fault(&world, Autocosmos, Fault::status(502).times(1));
    let after = world.read_back("w").await;
    assert!(has_reason(&after, ReadyReason::Available));
    let since = |webhook: &webhook_operator::api::Webhook| {
        condition(webhook, ConditionType::Ready)
            .unwrap()
            .last_transition_time
    };
    assert_eq!(since(&after), since(&before));
    assert_eq!(world.doubles.autocosmos().faults()[0].struck, 1);
}

#[tokio::test]
async fn a_provider_of_a_wrong_address_says_so() {
    let world = World::new("fail-base").await;
    world
        .provider_with(Ricloud, json!({ "baseUrl": world.doubles.receiver().url() }))
        .await;
    let said = world.wait_provider("ricloud", ProviderReason::Unreachable).await;
    assert!(said.contains("spec.baseUrl"), "{said}");
    // Not there at all.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    world
        .provider_with(Thulium, json!({ "baseUrl": format!("http://{closed}/api") }))
        .await;
    world.wait_provider("thulium", ProviderReason::Unreachable).await;
    // Cannot be carried out.
    world
        .patch::<WebhookProvider>(
            "thulium",
            &json!({ "spec": { "caBundleRef": { "name": "nowhere" } } }),
        )
        .await;
    let said = world.wait_provider("thulium", ProviderReason::InvalidSpec).await;
    assert!(said.contains("spec.caBundleRef"), "{said}");
    // Nothing has been called, so nothing is known.
    world.provider(Autocosmos).await;
    world
        .wait_provider("autocosmos", ProviderReason::NotVerified)
        .await;
    fn used<U: Upstream>(double: &upstream_doubles::Double<U>) -> u64 {
        double.counts().total
    }
    assert_eq!(used(world.doubles.autocosmos()), 0);
}
