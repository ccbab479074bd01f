//! Watches that show changes late, merged and twice, and names that pass from one object to another unseen: what is
//! there now counts, not what was heard on the way.

use simulation::{
    apiserver::Blur,
    wire::{self, Fate, Peer},
};

use super::*;

const LONG: Duration = Duration::from_secs(240);

fn url(name: &str) -> Value {
    json!({"url": format!("https://receiver.example/{name}")})
}

/// Creates that were sent, where they are told from changes.
fn creates(scene: &Scene, provider: ProviderType) -> Option<usize> {
    let tells = matches!(provider, ProviderType::Thulium | ProviderType::Ricloud);
    let creates = |seen: &&Seen| {
        seen.method == "POST" && (provider == ProviderType::Thulium || seen.path == "/configs/webhook")
    };
    tells.then(|| scene.requests(provider).iter().filter(creates).count())
}

/// The object goes as it does when somebody takes its finalizers off by force.
fn force_out(scene: &Scene, id: &Id) {
    let api = scene.world.api();
    api.patch(id, &json!({"metadata": {"finalizers": null}})).unwrap();
    api.delete(id).unwrap();
    assert!(api.get(id).is_none());
}

#[tokio::test(start_paused = true)]
async fn late_merged_and_repeated_events_end_as_the_state_says() {
    for provider in ALL {
        for seed in 0..4 {
            let scene = Scene::new(&[provider], &json!({}), &[]);
            scene.world.api().blur(Blur {
                percent: if seed == 0 { 100 } else { 50 },
                longest: Duration::from_secs(30),
                lasts: Duration::from_secs(3600),
                seed,
            });
            let over = |number: usize, turn: usize| url(&format!("{number}/{turn}"));
            let ids: Vec<Id> = (0..3)
                .map(|number| scene.webhook(provider, number, &over(number, 0)))
                .collect();
            for turn in 1..=4 {
                sleep(Duration::from_secs(9)).await;
                for (number, id) in ids.iter().enumerate() {
                    scene.change(id, &over(number, turn));
                }
            }
            scene.delete(&ids[0]);
            scene.until_gone(&ids[..1], LONG).await;
            scene.webhook(provider, 0, &over(0, 5));
            scene.until_ready(&ids, LONG).await;
            scene.quiet(Duration::from_secs(80)).await;

            let wanted = [over(0, 5), over(1, 4), over(2, 4)];
            let wanted: Vec<&str> = wanted.iter().filter_map(|it| it["url"].as_str()).collect();
            assert_eq!(scene.urls(provider), wanted, "{provider:?}, seed {seed}");
            let creates = creates(&scene, provider);
            assert!(
                creates.is_none_or(|creates| creates == 4),
                "{provider:?}: {creates:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_took_the_name_of_another_unseen_is_the_one_that_counts() {
    for provider in ALL {
        let scene = Scene::new(&[provider], &json!({}), &[]);
        let id = scene.webhook(provider, 0, &url("old"));
        scene.until_ready(std::slice::from_ref(&id), LONG).await;
        let before = creates(&scene, provider);

        // The watches are dead and what happens now is forgotten before they are missed: only a new list tells.
        scene.world.api().mute();
        force_out(&scene, &id);
        scene.webhook(provider, 0, &url("old"));
        scene.world.api().compact();
        scene.until_ready(std::slice::from_ref(&id), LONG).await;
        scene.quiet(Duration::from_secs(80)).await;
        assert_eq!(scene.urls(provider).len(), 1, "{provider:?}");
        if matches!(provider, ProviderType::Thulium | ProviderType::Ricloud) {
            assert_eq!(
                creates(&scene, provider),
                before,
                "{provider:?}: it is found and taken"
            );
        }
    }
}

/// Somebody waited for what the old object held; nobody told him that the new one holds something else.
#[tokio::test(start_paused = true)]
async fn who_waited_for_an_object_that_was_replaced_unseen_goes_on() {
    let provider = ProviderType::Thulium;
    let scene = Scene::new(&[provider], &json!({}), &[]);
    let holder = scene.webhook(provider, 0, &url("wanted"));
    scene.until_ready(std::slice::from_ref(&holder), LONG).await;
    let waiting = scene.webhook(provider, 1, &url("wanted"));
    scene
        .until("the second one to see the first", LONG, |scene| {
            scene
                .world
                .api()
                .get(&waiting)
                .is_some_and(|it| ready(&it).is_some())
        })
        .await;
    assert_eq!(scene.reason(&waiting), "Conflict");
    scene.quiet(Duration::from_secs(80)).await;

    scene.world.api().mute();
    force_out(&scene, &holder);
    scene.webhook(provider, 0, &url("other"));
    scene.world.api().compact();
    // A dead watch is missed after 65 s.
    let both = [holder, waiting];
    let took = scene.until_ready(&both, Duration::from_secs(90)).await;
    assert!(
        took > Duration::from_secs(5),
        "nobody could know it sooner: {took:?}"
    );
    scene.quiet(Duration::from_secs(80)).await;
    assert_eq!(
        scene.urls(provider),
        [
            "https://receiver.example/other",
            "https://receiver.example/wanted"
        ]
    );
}

/// Two that ask for the same, and the younger is on its way to create when the older one is seen, which goes before it
/// where neither has begun. The first create that is sent has this fate.
async fn younger_and_older(fate: Fate) -> (Scene, [Id; 2]) {
    let scene = Scene::new(&[ProviderType::Thulium], &json!({}), &[]);
    scene.quiet(Duration::from_secs(80)).await;
    let mut first = true;
    scene.world.wire().set_course(Box::new(move |_, call| {
        let creates = call.text.starts_with("POST ");
        let mut passage = wire::passage(call, if creates && first { fate } else { Fate::Arrives });
        first &= !creates;
        passage.back += Duration::from_secs(if call.peer == Peer::Upstream { 3 } else { 0 });
        passage
    }));
    scene.world.api().blur(Blur {
        percent: 100,
        longest: Duration::from_secs(2),
        lasts: Duration::from_secs(1),
        seed: 5,
    });
    let older = scene.webhook(ProviderType::Thulium, 0, &url("wanted"));
    sleep(Duration::from_millis(10)).await;
    scene.world.api().focus();
    let younger = scene.webhook(ProviderType::Thulium, 1, &url("wanted"));
    (scene, [younger, older])
}

#[tokio::test(start_paused = true)]
async fn an_older_one_that_is_seen_late_makes_no_second_registration() {
    let (scene, [younger, older]) = younger_and_older(Fate::Arrives).await;
    scene.quiet(Duration::from_secs(80)).await;
    assert_eq!(scene.urls(ProviderType::Thulium).len(), 1);
    assert!(scene.is_ready(&younger));
    assert_eq!(scene.reason(&older), "Conflict");

    scene.delete(&younger);
    scene.until_gone(&[younger], LONG).await;
    scene.until_ready(&[older], Duration::from_secs(60)).await;
    assert_eq!(scene.urls(ProviderType::Thulium).len(), 1);
}

/// Who stepped back for a create that came to nothing is told so, and does not wait for its own next read-back.
#[tokio::test(start_paused = true)]
async fn who_stepped_back_for_a_create_that_failed_goes_on() {
    let (scene, [younger, older]) = younger_and_older(Fate::Fails(400)).await;
    scene.until_ready(&[older], Duration::from_secs(60)).await;
    scene.quiet(Duration::from_secs(80)).await;
    assert_eq!(scene.urls(ProviderType::Thulium).len(), 1);
    assert!(!scene.is_ready(&younger));
}
