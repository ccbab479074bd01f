//! What searches with the simulation have found, each with the way that led there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

use std::time::Duration;

use serde_json::{Value, json};
use simulation::{
    Operator, Rest, World,
    apiserver::Id,
    manifests::{self, Account},
    options,
    wire::{self, Fate, Peer},
};
use tokio::time::Instant;
use upstream_doubles::{ConfigState, RicloudBehaviour, ThuliumBehaviour, Verdict};
use webhook_operator::api::{ID_ANNOTATION, RECONCILE_REQUESTED_AT, provider::ProviderType};

const SILENCE: Duration = Duration::from_secs(80);
const LONGEST: Duration = Duration::from_secs(1200);

fn hook() -> Id {
    Id::new("webhooks", "apps", "a")
}

/// A world with an account at this upstream.
fn world(provider: ProviderType) -> World {
    let world = World::new(1);
    let base = match provider {
        ProviderType::Thulium => world.upstreams().thulium().url(),
        ProviderType::Autocosmos => world.upstreams().autocosmos().url(),
        _ => world.upstreams().ricloud().url(),
    };
    for manifest in manifests::provider("apps", provider, &base, &Account::demo()) {
        world.api().create(&manifest).unwrap();
    }
    world
}

/// Waits until all is done that somebody has just asked for.
async fn quiet(world: &World, operator: &Operator) {
    world.wire().stir();
    assert_eq!(world.rest(operator, SILENCE, LONGEST).await, Rest::Quiet);
}

/// Waits until the Webhook is let go, which it is within this time.
async fn gone_within(world: &World, limit: Duration) {
    let deleted = Instant::now();
    while world.api().get(&hook()).is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(deleted.elapsed() < limit, "it ends");
    }
}

/// Applies a Webhook at Autocosmos that leaves its registration behind when it goes.
fn apply_orphan(world: &World, url: &str) {
    let over = json!({"deletionPolicy": "Orphan", "url": url});
    let manifest = manifests::webhook("apps", "a", ProviderType::Autocosmos, &over);
    world.api().create(&manifest).unwrap();
    world.wire().stir();
}

fn ready(world: &World) -> String {
    let webhook = world.api().get(&hook()).unwrap();
    let conditions = webhook["status"]["conditions"].as_array();
    let ready = conditions.and_then(|conditions| conditions.iter().find(|it| it["type"] == "Ready"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ready.map_or_else(String::new, |ready| {
        format!("{}/{}", text(&ready["status"]), text(&ready["reason"]))
    })
}

/// What replaced a registration whose secret was lost counted as given up as well, and was replaced in its turn, for
/// ever.
#[tokio::test(start_paused = true)]
async fn a_registration_whose_secret_is_lost_is_made_anew_once() {
    let world = world(ProviderType::Ricloud);
    let ricloud = world.upstreams().ricloud();
    ricloud.change_behaviour(|behaviour| behaviour.secret_in_reads = false);
    let operator = Operator::start(&world, options(&[]));
    let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &json!({}));
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    let creates = || {
        let requests = ricloud.requests_where(|it| it.method == "POST" && it.path == "/configs/webhook");
        requests.len()
    };
    assert_eq!(creates(), 1);
    world
        .api()
        .delete(&Id::new("secrets", "apps", "a-signing"))
        .unwrap();
    quiet(&world, &operator).await;
    assert_eq!(creates(), 2);
    assert_eq!(ready(&world), "True/Available");
}

/// A password cannot be read back, so after a death before the status was written it was written once more, which not
/// every Thulium can: `UpdateUnsupported`, although everything was right.
#[tokio::test(start_paused = true)]
async fn what_was_just_created_is_not_written_again_after_a_death() {
    for dies_at in ["POST ", "patch webhooks/apps/a"] {
        let world = world(ProviderType::Thulium);
        let thulium = world.upstreams().thulium();
        thulium.change_behaviour(|behaviour| *behaviour = ThuliumBehaviour::documented());
        let login = [("username", "hooks"), ("password", "password-of-hooks")];
        world
            .api()
            .create(&manifests::secret("apps", "basic", &login))
            .unwrap();
        let over = json!({"basicAuthRef": {"name": "basic"}});
        let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &over);
        world.api().create(&manifest).unwrap();
        let mut posted = false;
        world.wire().set_course(Box::new(move |_, call| {
            let dies = call.text.starts_with(dies_at) && (posted || dies_at == "POST ");
            posted |= call.text.starts_with("POST ");
            wire::passage(call, if dies { Fate::DiesAfter } else { Fate::Arrives })
        }));
        let operator = Operator::start(&world, options(&[]));
        assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Killed);
        operator.kill().await;
        world.wire().set_course(wire::calm());
        let operator = Operator::start(&world, options(&[]));
        assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
        assert_eq!(ready(&world), "True/Available", "after a death at {dies_at}");
        assert_eq!(thulium.objects().len(), 1);
    }
}

/// What happened while the API server failed was never seen if it had forgotten that time when it came back: a watch was
/// asked for again and again from a version that was gone.
#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_when_the_watch_comes_back_is_not_asked_for_for_ever() {
    let world = world(ProviderType::Thulium);
    let operator = Operator::start(&world, options(&[]));
    let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &json!({"interval": "24h"}));
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    world.wire().set_course(Box::new(|_, call| {
        let fails = call.peer == Peer::ApiServer;
        wire::passage(call, if fails { Fate::Fails(500) } else { Fate::Arrives })
    }));
    // Every watch has ended by then.
    tokio::time::sleep(Duration::from_secs(70)).await;
    let url = "https://hooks.example/other";
    world
        .api()
        .patch(&hook(), &json!({"spec": {"url": url}}))
        .unwrap();
    world.api().compact();
    world.wire().set_course(wire::calm());
    // The pause between two attempts has grown to a minute at most.
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(world.upstreams().thulium().objects()[0].subscription_url, url);
    operator.stop().await.unwrap();
}

/// A start whose first request failed ended the process; whoever started it again did so later and later.
#[tokio::test(start_paused = true)]
async fn a_start_outlives_an_api_server_that_does_not_answer() {
    for fates in [
        [Fate::AnswerLost, Fate::Arrives],
        [Fate::Lost, Fate::Fails(503)],
        [Fate::Fails(500), Fate::Fails(429)],
    ] {
        let world = world(ProviderType::Thulium);
        let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &json!({}));
        world.api().create(&manifest).unwrap();
        world.wire().set_course(Box::new(move |number, call| {
            wire::passage(call, fates.get(number).copied().unwrap_or(Fate::Arrives))
        }));
        let operator = Operator::start(&world, options(&[]));
        world.wire().stir();
        assert_eq!(
            world.rest(&operator, SILENCE, LONGEST).await,
            Rest::Quiet,
            "{fates:?}"
        );
        assert_eq!(ready(&world), "True/Available", "{fates:?}");
        operator.stop().await.unwrap();
    }
}

/// A namespace was deleted, and with it the Secret that ricloud's secret had been written to. The Webhook went as well,
/// but the cache did not know yet: the secret counted as lost, and the registration was removed to be made anew, which its
/// policy had wanted to keep.
#[tokio::test(start_paused = true)]
async fn a_secret_that_goes_with_its_namespace_is_not_lost() {
    let world = world(ProviderType::Ricloud);
    let ricloud = world.upstreams().ricloud();
    ricloud.change_behaviour(|behaviour| behaviour.secret_in_reads = false);
    let operator = Operator::start(&world, options(&[]));
    let over = json!({"interval": "30s", "deletionPolicy": "Orphan"});
    let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &over);
    world.api().create(&manifest).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = ricloud.objects();
    assert_eq!(before.len(), 1);
    let frozen = Duration::from_secs(50);
    world.api().freeze(world.api().version(), Instant::now() + frozen);
    world.api().delete(&Id::new("namespaces", "", "apps")).unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(world.api().get(&hook()).is_none());
    let after = ricloud.objects();
    assert_eq!(after.len(), 1);
    assert_eq!((after[0].id, &after[0].url), (before[0].id, &before[0].url));
    operator.stop().await.unwrap();
}

/// What a Webhook had left at its target was remembered by the URL of its spec, which had been changed a moment before it
/// was deleted: what was registered counted as somebody else's, and the next Webhook there said `Conflict`.
#[tokio::test(start_paused = true)]
async fn what_is_left_at_a_target_is_remembered_as_it_is_registered() {
    let world = world(ProviderType::Autocosmos);
    let operator = Operator::start(&world, options(&[]));
    apply_orphan(&world, "https://hooks.example/registered");
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    world
        .api()
        .freeze(world.api().version(), Instant::now() + Duration::from_secs(30));
    let edit = json!({"spec": {"url": "https://hooks.example/never-registered"}});
    world.api().patch(&hook(), &edit).unwrap();
    world.api().delete(&hook()).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.api().get(&hook()).is_none());
    apply_orphan(&world, "https://hooks.example/next");
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    assert_eq!(ready(&world), "True/Available");
    operator.stop().await.unwrap();
}

/// A process that was started with a cache of the past looked once more for a late update, found what the newest spec had
/// made, and put it back to the spec before: a registration that had just been switched on again counted as switched off
/// by somebody else from then on.
#[tokio::test(start_paused = true)]
async fn nothing_is_corrected_on_the_strength_of_a_stale_cache() {
    let world = world(ProviderType::Thulium);
    let thulium = world.upstreams().thulium();
    let operator = Operator::start(&world, options(&[]));
    let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &json!({"interval": "24h"}));
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    let edit = async |url: &str| {
        let patch = json!({"spec": {"url": url}});
        world.api().patch(&hook(), &patch).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    edit("https://hooks.example/second").await;
    let before = world.api().version();
    edit("https://hooks.example/third").await;
    operator.kill().await;
    world
        .api()
        .freeze(before, Instant::now() + Duration::from_secs(90));
    let writes = || thulium.requests_where(|it| it.method != "GET").len();
    let (written, looks) = (writes(), thulium.requests_where(|_| true).len());
    let operator = Operator::start(&world, options(&[]));
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert!(thulium.requests_where(|_| true).len() > looks, "it has looked");
    assert_eq!(writes(), written, "nothing was to be corrected");
    assert_eq!(
        thulium.objects()[0].subscription_url,
        "https://hooks.example/third"
    );
    assert_eq!(ready(&world), "True/Available");
    operator.stop().await.unwrap();
}

/// The note of what a Webhook leaves at its target was given up when the API server failed at that one call, and the next
/// Webhook there said `Conflict`.
#[tokio::test(start_paused = true)]
async fn a_note_of_what_is_left_is_made_again_when_the_api_server_fails() {
    let world = world(ProviderType::Autocosmos);
    let operator = Operator::start(&world, options(&[]));
    apply_orphan(&world, "https://hooks.example/first");
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    let mut failed = false;
    world.wire().set_course(Box::new(move |_, call| {
        let fails = !failed && call.text == "patch webhookproviders/apps/autocosmos";
        failed |= fails;
        wire::passage(call, if fails { Fate::Fails(503) } else { Fate::Arrives })
    }));
    world.api().delete(&hook()).unwrap();
    quiet(&world, &operator).await;
    assert!(world.api().get(&hook()).is_none());
    assert!(
        world
            .wire()
            .made()
            .iter()
            .any(|made| made.fate == Fate::Fails(503))
    );
    apply_orphan(&world, "https://hooks.example/next");
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Quiet);
    assert_eq!(ready(&world), "True/Available");
    operator.stop().await.unwrap();
}

/// A Webhook was deleted whose create was still on its way, and whose policy leaves what it made: it was let go at once,
/// and the same one applied again saw nothing there and made a second registration.
#[tokio::test(start_paused = true)]
async fn a_create_that_may_still_come_is_waited_for_under_orphan_too() {
    let world = world(ProviderType::Thulium);
    let mut late = true;
    world.wire().set_course(Box::new(move |_, call| {
        let comes_late = late && call.text.starts_with("POST ");
        late &= !comes_late;
        let fate = if comes_late {
            Fate::Late(Duration::from_secs(27))
        } else {
            Fate::Arrives
        };
        wire::passage(call, fate)
    }));
    let operator = Operator::start(&world, options(&[]));
    let over = json!({"deletionPolicy": "Orphan"});
    let apply = || {
        let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &over);
        world.api().create(&manifest).unwrap();
    };
    apply();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.api().delete(&hook()).unwrap();
    gone_within(&world, Duration::from_secs(120)).await;
    apply();
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "True/Available");
    assert_eq!(world.upstreams().thulium().objects().len(), 1);
    operator.stop().await.unwrap();
}

/// A deletion that switches off got no answer and was repeated. The first call came after the next Webhook of the same
/// target had been registered, and switched that one off.
#[tokio::test(start_paused = true)]
async fn a_late_call_that_switches_off_does_not_meet_the_next_webhook() {
    // Autocosmos switches off what it cannot remove.
    for policy in ["Deactivate", "Delete"] {
        late_switch(policy, false).await;
    }
}

/// The same where the process that sent the call has died: the next one repeats it and has to wait as well.
#[tokio::test(start_paused = true)]
async fn a_late_call_of_a_dead_process_does_not_switch_off_the_next_webhook() {
    for policy in ["Deactivate", "Delete"] {
        late_switch(policy, true).await;
    }
}

async fn late_switch(policy: &str, dies: bool) {
    let world = world(ProviderType::Autocosmos);
    let mut operator = Operator::start(&world, options(&[]));
    let over = json!({"deletionPolicy": policy, "interval": "1m"});
    let manifest = manifests::webhook("apps", "a", ProviderType::Autocosmos, &over);
    world.api().create(&manifest).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ready(&world), "True/Available");
    let mut late = true;
    world.wire().set_course(Box::new(move |_, call| {
        let comes_late = late && call.text.starts_with("PUT ");
        late &= !comes_late;
        let fate = if comes_late {
            Fate::Late(Duration::from_secs(34))
        } else {
            Fate::Arrives
        };
        wire::passage(call, fate)
    }));
    world.api().delete(&hook()).unwrap();
    if dies {
        tokio::time::sleep(Duration::from_secs(5)).await;
        operator.kill().await;
        operator = Operator::start(&world, options(&[]));
    }
    gone_within(&world, Duration::from_secs(120)).await;
    world.api().create(&manifest).unwrap();
    // It has come by then, and what it did has been seen.
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(ready(&world), "True/Available", "{policy}");
    operator.stop().await.unwrap();
}

/// A process died with its first call for a target on its way, and the Webhook was deleted. The next process found nothing
/// to switch off and let it go; then the call came, and nobody knew of what it made.
#[tokio::test(start_paused = true)]
async fn what_a_dead_process_has_sent_for_a_target_is_waited_for_before_it_goes() {
    let world = world(ProviderType::Autocosmos);
    world.wire().set_course(Box::new(|_, call| {
        let late = call.text.starts_with("POST ");
        let fate = if late {
            Fate::Late(Duration::from_secs(34))
        } else {
            Fate::Arrives
        };
        wire::passage(call, fate)
    }));
    let operator = Operator::start(&world, options(&[]));
    let manifest = manifests::webhook("apps", "a", ProviderType::Autocosmos, &json!({}));
    world.api().create(&manifest).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    operator.kill().await;
    world.wire().set_course(wire::calm());
    let operator = Operator::start(&world, options(&[]));
    world.api().delete(&hook()).unwrap();
    gone_within(&world, Duration::from_secs(90)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = world.upstreams().autocosmos().objects();
    assert_eq!(left.len(), 1, "the call has come");
    assert!(!left[0].activo, "{left:?}");
    operator.stop().await.unwrap();
}

/// A registration that was switched off at the upstream was taken over in the place of one that was gone, and the process
/// died before it was switched on. The next process found its status settled and took the switch for somebody else's:
/// the Webhook said `DeactivatedUpstream` for ever.
#[tokio::test(start_paused = true)]
async fn what_was_taken_over_switched_off_is_switched_on_after_a_death() {
    let world = world(ProviderType::Ricloud);
    let operator = Operator::start(&world, options(&[]));
    let over = json!({"test": {"mode": "Upstream"}});
    let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &over);
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    let ricloud = world.upstreams().ricloud();
    let first = ricloud.objects()[0].id;
    let request = http::Request::post(format!("{}/configs/webhook", ricloud.url()))
        .header("authorization", format!("Token {}", Account::demo().password))
        .header("content-type", "application/json")
        .body(json!({"url": manifest["spec"]["url"]}).to_string().into())
        .unwrap();
    world.upstreams().exchange(request).await.unwrap();
    let second = ricloud.objects()[1].id;
    let shown = |id| json!(ricloud.upstream().external_id(id));
    assert!(ricloud.edit(&second.to_string(), |it| it.state = ConfigState::Deactivated));
    assert!(ricloud.remove(&first.to_string()));
    world.wire().set_course(Box::new(|_, call| {
        let recorded = call.text == "patch webhooks/apps/a";
        wire::passage(call, if recorded { Fate::DiesAfter } else { Fate::Arrives })
    }));
    let ask = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_AT: "now"}}});
    world.api().patch(&hook(), &ask).unwrap();
    world.wire().stir();
    assert_eq!(world.rest(&operator, SILENCE, LONGEST).await, Rest::Killed);
    operator.kill().await;
    let webhook = world.api().get(&hook()).unwrap();
    assert_eq!(webhook["metadata"]["annotations"][ID_ANNOTATION], shown(second));
    assert_eq!(
        webhook["status"]["id"],
        shown(first),
        "the status tells of the one that is gone"
    );
    world.wire().set_course(wire::calm());
    let operator = Operator::start(&world, options(&[]));
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "True/Available");
    let states: Vec<ConfigState> = ricloud.objects().iter().map(|it| it.state).collect();
    assert_eq!(states, [ConfigState::Valid]);
    operator.stop().await.unwrap();
}

/// A Webhook was changed into what another one already was. The older one went first, although what it held was something
/// else: the upstream had the same registration twice.
#[tokio::test(start_paused = true)]
async fn who_is_changed_into_another_one_waits_for_it_to_go() {
    let world = world(ProviderType::Thulium);
    let thulium = world.upstreams().thulium();
    let operator = Operator::start(&world, options(&[]));
    let url = "https://hooks.example/same";
    for (name, event) in [("a", "CHAT_CREATED"), ("b", "TICKET_CREATED")] {
        let over = json!({"url": url, "events": [event]});
        let manifest = manifests::webhook("apps", name, ProviderType::Thulium, &over);
        world.api().create(&manifest).unwrap();
        quiet(&world, &operator).await;
    }
    let edit = json!({"spec": {"events": ["TICKET_CREATED"]}});
    world.api().patch(&hook(), &edit).unwrap();
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "False/Conflict");
    assert_eq!(thulium.duplicates(), []);
    assert_eq!(thulium.objects().len(), 2, "what it had stays as it was");
    world.api().delete(&Id::new("webhooks", "apps", "b")).unwrap();
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "True/Available");
    let left = thulium.objects();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].actions, ["TICKET_CREATED"]);
    operator.stop().await.unwrap();
}

/// What a create of unknown outcome had made was found by a look, which changes nothing: the receiver was never tested, and
/// the Webhook stayed `new`.
#[tokio::test(start_paused = true)]
async fn what_a_create_of_unknown_outcome_has_made_is_tested() {
    let world = world(ProviderType::Thulium);
    let mut lost = false;
    world.wire().set_course(Box::new(move |_, call| {
        let loses = !lost && call.text.starts_with("POST ");
        lost |= loses;
        wire::passage(call, if loses { Fate::AnswerLost } else { Fate::Arrives })
    }));
    let operator = Operator::start(&world, options(&[]));
    let over = json!({"test": {"mode": "Probe"}});
    let manifest = manifests::webhook("apps", "a", ProviderType::Thulium, &over);
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "True/Available");
    assert_eq!(world.api().get(&hook()).unwrap()["status"]["state"], "valid");
    let probes = world.wire().made();
    let probes = probes.iter().filter(|made| made.call.text.starts_with("probe "));
    assert_eq!(probes.count(), 1);
    operator.stop().await.unwrap();
}

/// A create failed without a trace, and the look for what it might have made found what the Webhook before had left
/// switched off. That was taken for the new one, switched off by somebody else.
#[tokio::test(start_paused = true)]
async fn what_is_found_switched_off_after_a_create_is_switched_on() {
    let world = world(ProviderType::Ricloud);
    let ricloud = world.upstreams().ricloud();
    ricloud.change_behaviour(|behaviour| {
        *behaviour = RicloudBehaviour {
            verdict: Verdict::AlwaysValid,
            ..RicloudBehaviour::documented()
        };
    });
    let operator = Operator::start(&world, options(&[]));
    let over = json!({"test": {"mode": "Upstream"}});
    let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &over);
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    world.api().delete(&hook()).unwrap();
    gone_within(&world, Duration::from_secs(120)).await;
    assert_eq!(ricloud.objects()[0].state, ConfigState::Deactivated);
    let mut failed = false;
    world.wire().set_course(Box::new(move |_, call| {
        let fails = !failed && call.text.starts_with("POST ");
        failed |= fails;
        wire::passage(call, if fails { Fate::Fails(500) } else { Fate::Arrives })
    }));
    world.api().create(&manifest).unwrap();
    quiet(&world, &operator).await;
    assert_eq!(ready(&world), "True/Available");
    let states: Vec<ConfigState> = ricloud.objects().iter().map(|it| it.state).collect();
    assert_eq!(states, [ConfigState::Valid]);
    operator.stop().await.unwrap();
}

/// The registration that the create had made delivers, and a second call switches it off. Between the two it counted as
/// changed by somebody: with `driftPolicy: Report` it stayed on, and else an Event blamed that somebody.
#[tokio::test(start_paused = true)]
async fn what_is_made_to_be_off_is_switched_off_whatever_the_drift_policy() {
    for policy in ["Report", "Correct"] {
        let world = world(ProviderType::Ricloud);
        let operator = Operator::start(&world, options(&[]));
        let over = json!({"active": false, "driftPolicy": policy});
        let manifest = manifests::webhook("apps", "a", ProviderType::Ricloud, &over);
        world.api().create(&manifest).unwrap();
        quiet(&world, &operator).await;
        let states = || -> Vec<ConfigState> {
            let configs = world.upstreams().ricloud().objects();
            configs.iter().map(|it| it.state).collect()
        };
        assert_eq!(states(), [ConfigState::Deactivated], "{policy}");
        assert_eq!(ready(&world), "True/Deactivated", "{policy}");
        let events = world.api().list("events");
        let drift: Vec<&Value> = events
            .iter()
            .map(|event| &event["reason"])
            .filter(|reason| reason.as_str().is_some_and(|reason| reason.contains("Drift")))
            .collect();
        assert!(drift.is_empty(), "{policy}: {drift:?}");

        // The same once more for what takes its place after somebody has removed it.
        let ricloud = world.upstreams().ricloud();
        ricloud.remove(&ricloud.objects()[0].id.to_string());
        let now = world.clock().now().to_string();
        let ask = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_AT: now}}});
        world.api().patch(&hook(), &ask).unwrap();
        quiet(&world, &operator).await;
        assert_eq!(states(), [ConfigState::Deactivated], "{policy}, again");
        assert_eq!(ready(&world), "True/Deactivated", "{policy}, again");
        operator.stop().await.unwrap();
    }
}
