//! Specs with words that only a newer version of the operator knows, as a rollback leaves them behind: the object waits,
//! nothing is done for it or to it, and no other object notices.

use super::*;

const LONG: Duration = Duration::from_secs(120);
/// Longer than anything is waited for, and than all providers are gone through; shorter than findings live.
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
const IN_USE: &str = "webhook-operator.dev/in-use";

fn provider_id(name: &str) -> Id {
    Id::new("webhookproviders", "apps", name)
}

/// Nothing is read back within the test.
fn daily() -> Value {
    json!({"interval": "24h"})
}

/// The older version takes over: its first lists have what is there now.
async fn rolled_back(scene: Scene) -> Scene {
    let Scene { world, operator } = scene;
    operator.kill().await;
    let operator = Operator::start(&world, options(&[]));
    Scene { world, operator }
}

impl Scene {
    /// A condition as `status/reason: message`; empty: it is not there.
    fn says(&self, id: &Id, type_: &str) -> String {
        let object = self.world.api().get(id).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned();
        let found = conditions
            .unwrap_or_default()
            .into_iter()
            .find(|it| it["type"] == type_);
        let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
        found.map_or_else(String::new, |it| {
            format!(
                "{}/{}: {}",
                text(&it, "status"),
                text(&it, "reason"),
                text(&it, "message")
            )
        })
    }

    async fn until_says(&self, id: &Id, type_: &str, what: &str) {
        self.until(what, LONG, |scene| scene.says(id, type_).contains(what))
            .await;
    }

    fn is_in_use(&self, id: &Id) -> bool {
        let object = self.world.api().get(id).unwrap();
        let finalizers = object["metadata"]["finalizers"].as_array().cloned();
        finalizers.unwrap_or_default().iter().any(|it| it == IN_USE)
    }

    /// Half an hour passes in which nothing is written and this upstream is not called.
    async fn is_at_rest(&self, provider: ProviderType) {
        self.quiet(Duration::from_secs(80)).await;
        let before = (self.world.api().version(), self.requests(provider).len());
        sleep(HALF_AN_HOUR).await;
        let after = (self.world.api().version(), self.requests(provider).len());
        assert_eq!(before, after, "{provider:?}\n{}", self.last_calls());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_word_stops_one_webhook_and_no_other() {
    for provider in ALL {
        let scene = Scene::new(&[provider], &json!({}), &[]);
        let both = scene.webhooks(provider, 2, &daily());
        let [odd, sound] = [&both[0], &both[1]];
        scene.until_ready(&both, LONG).await;
        // Short, so that anything that still goes on for it shows.
        scene.change(odd, &json!({"driftPolicy": "Negotiate", "interval": "30s"}));
        let scene = rolled_back(scene).await;
        let new = scene.webhook(provider, 2, &daily());
        scene.until_ready(&[sound.clone(), new.clone()], LONG).await;

        let text = r#"spec.driftPolicy: "Negotiate" is not known to this version of the operator; use Correct or Report, or run the version that wrote it"#;
        let said = format!("False/UnsupportedField: {text}");
        scene.until_says(odd, "Ready", &said).await;
        assert_eq!(
            scene.says(odd, "Stalled"),
            format!("True/UnsupportedField: {text}")
        );
        scene.is_at_rest(provider).await;

        let spec = scene.world.api().get(odd).unwrap()["spec"].clone();
        let mut same = daily();
        for field in ["url", "target", "events"] {
            if let Some(value) = spec.get(field) {
                same[field] = value.clone();
            }
        }
        let calls = scene.requests(provider).len();
        let rival = scene.webhook(provider, 3, &same);
        scene.until_says(&rival, "Ready", "False/Conflict").await;
        assert_eq!(scene.requests(provider).len(), calls, "{provider:?}");
        assert_eq!(scene.registrations(provider), 3, "{provider:?}");

        let others = [rival, sound.clone(), new];
        for id in &others {
            scene.delete(id);
        }
        scene.until_gone(&others, LONG).await;
        sleep(HALF_AN_HOUR).await;
        let name = manifests::name_of(provider);
        let secret = Id::new("secrets", "apps", &format!("{name}-account"));
        assert!(scene.is_in_use(&provider_id(&name)) && scene.is_in_use(&secret));

        scene.change(odd, &json!({"driftPolicy": "Correct"}));
        scene.until_ready(std::slice::from_ref(odd), LONG).await;
        assert_eq!(scene.says(odd, "Stalled"), "");
        // What Conpeek has stays there.
        let left = if provider == ProviderType::Conpeek { 3 } else { 1 };
        assert_eq!(scene.registrations(provider), left, "{provider:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_webhook_with_an_unknown_word_can_be_deleted() {
    for provider in ALL {
        for (over, stays) in [
            (json!({"test": {"mode": "Dream"}}), false),
            (json!({"deletionPolicy": "Archive"}), true),
        ] {
            let scene = Scene::new(&[provider], &json!({}), &[]);
            let id = scene.webhook(provider, 0, &daily());
            scene.until_ready(std::slice::from_ref(&id), LONG).await;
            scene.change(&id, &over);
            let scene = rolled_back(scene).await;
            scene.until_says(&id, "Stalled", "True/UnsupportedField").await;
            scene.quiet(Duration::from_secs(80)).await;
            let calls = scene.requests(provider).len();
            scene.delete(&id);
            scene.until_gone(std::slice::from_ref(&id), LONG).await;
            let stays_anyway = provider == ProviderType::Conpeek;
            assert_eq!(
                scene.registrations(provider),
                usize::from(stays || stays_anyway),
                "{provider:?} {over}"
            );
            scene
                .until("the Event", LONG, |scene| {
                    scene.told("LeftInPlace") == usize::from(stays || stays_anyway)
                })
                .await;
            if stays {
                assert_eq!(scene.requests(provider).len(), calls, "{provider:?}");
                let events = json!(scene.world.api().list("events")).to_string();
                let said = r#"spec.deletionPolicy: \"Archive\" is not known"#;
                assert!(events.contains(said), "{events}");
            }
            let name = manifests::name_of(provider);
            scene
                .until("the provider to be free", LONG, |scene| {
                    !scene.is_in_use(&provider_id(&name))
                })
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_word_stops_one_provider_and_no_other() {
    let (odd, sound) = (ProviderType::Thulium, ProviderType::Ricloud);
    for (over, back, text) in [
        (
            json!({"undocumentedCalls": "Ask"}),
            json!({"undocumentedCalls": "Allow"}),
            r#"spec.undocumentedCalls: "Ask" is not known to this version of the operator; use Allow or Deny, or run the version that wrote it"#,
        ),
        (
            json!({"type": "Pigeon"}),
            json!({"type": "Thulium"}),
            r#"spec.type: "Pigeon" is not known to this version of the operator; run the version that wrote it, or create the object anew with Conpeek, Thulium, Ricloud or Autocosmos"#,
        ),
        (
            json!({"credentialsRef": "vault:thulium"}),
            json!({"credentialsRef": {"name": "thulium-account"}}),
            "spec.credentialsRef: this version of the operator cannot read its value; use another value, or run the version that wrote it",
        ),
        (
            json!({"deletionLimit": {"count": "10%", "window": "1h"}, "suspend": true}),
            json!({"deletionLimit": null, "suspend": false}),
            "spec.deletionLimit.count: this version of the operator cannot read its value; use another value, or run the version that wrote it",
        ),
    ] {
        let scene = Scene::new(&[odd, sound], &json!({}), &[]);
        let before = [scene.webhook(odd, 0, &daily()), scene.webhook(sound, 0, &daily())];
        scene.until_ready(&before, LONG).await;
        scene.change(&provider_id("thulium"), &over);
        let scene = rolled_back(scene).await;
        let after = [scene.webhook(odd, 1, &daily()), scene.webhook(sound, 1, &daily())];
        scene
            .until_ready(&[before[1].clone(), after[1].clone()], LONG)
            .await;
        scene
            .until_says(
                &provider_id("thulium"),
                "Ready",
                &format!("False/InvalidSpec: {text}"),
            )
            .await;
        for id in [&before[0], &after[0]] {
            let said = format!("False/ProviderNotReady: WebhookProvider \"thulium\": {text}");
            scene.until_says(id, "Ready", &said).await;
        }
        scene.is_at_rest(odd).await;
        let secret = Id::new("secrets", "apps", "thulium-account");
        assert!(
            scene.is_in_use(&provider_id("thulium")) && scene.is_in_use(&secret),
            "{text}"
        );
        scene.change(&provider_id("thulium"), &back);
        scene
            .until_ready(&[before[0].clone(), after[0].clone()], LONG)
            .await;
        assert_eq!(scene.registrations(odd), 2, "{text}");
    }
}

/// Whose account it is can be read: what its Webhooks have registered is theirs.
#[tokio::test(start_paused = true)]
async fn a_provider_with_an_unknown_word_loses_nothing_to_another_of_its_account() {
    let provider = ProviderType::Thulium;
    let scene = Scene::new(&[provider], &json!({}), &[]);
    let id = scene.webhook(provider, 0, &daily());
    scene.until_ready(std::slice::from_ref(&id), LONG).await;
    scene.change(&provider_id("thulium"), &json!({"undocumentedCalls": "Ask"}));
    let scene = rolled_back(scene).await;
    scene
        .until_says(&provider_id("thulium"), "Ready", "InvalidSpec")
        .await;
    let base = scene.world.upstreams().thulium().url();
    let [_, mut twin] = manifests::provider("apps", provider, &base, &Account::demo());
    twin["metadata"]["name"] = json!("twin");
    scene.world.api().create(&twin).unwrap();
    let mut same = daily();
    same["url"] = scene.world.api().get(&id).unwrap()["spec"]["url"].clone();
    same["providerRef"] = json!({"name": "twin"});
    let rival = scene.webhook(provider, 1, &same);
    scene.until_says(&rival, "Ready", "False/Conflict").await;
    assert_eq!(scene.registrations(provider), 1);
    scene.delete(&rival);
    scene.until_gone(&[rival], LONG).await;
    assert_eq!(scene.registrations(provider), 1);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_whose_provider_has_an_unknown_word_can_be_deleted() {
    let provider = ProviderType::Thulium;
    for over in [json!({"undocumentedCalls": "Ask"}), json!({"type": "Pigeon"})] {
        let scene = Scene::new(&[provider], &json!({}), &[]);
        let id = scene.webhook(provider, 0, &daily());
        scene.until_ready(std::slice::from_ref(&id), LONG).await;
        // The process that knew the account is the one that meets the word.
        scene.change(&provider_id("thulium"), &over);
        scene
            .until_says(&provider_id("thulium"), "Ready", "InvalidSpec")
            .await;
        let calls = scene.requests(provider).len();
        scene.delete(&id);
        scene.until_says(&id, "Ready", "Unknown/Deleting").await;
        scene
            .until_gone(std::slice::from_ref(&id), Duration::from_secs(900))
            .await;
        assert_eq!(scene.requests(provider).len(), calls, "{over}");
        assert_eq!(scene.registrations(provider), 1);
        scene
            .until("the Event", LONG, |scene| scene.told("LeftInPlace") == 1)
            .await;
        scene.delete(&provider_id("thulium"));
        scene.until_gone(&[provider_id("thulium")], LONG).await;
    }
}
