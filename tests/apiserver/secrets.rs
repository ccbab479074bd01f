//! No credential is found where it does not belong. Every secret of the run is a random text; everything that can
//! go wrong is made to go wrong, with upstreams that echo the secrets; then all that is not a Secret is searched
//! for each of them, whole and in part, plain and encoded.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use upstream_doubles::{
    AutocosmosAccount, ConpeekAccount, Effect, Fault, ReplayRule, RicloudAccount, ThuliumAccount, Verdict,
};
use webhook_operator::api::{
    ROTATE_REQUESTED_AT, Webhook, conditions::ReadyReason, provider::ProviderType,
    webhook_status::RotationPhase,
};

use crate::{
    collector::{Collector, Told},
    world::{World, name_of, status},
};

/// What follows the random part: characters that URLs, JSON and HTML escape, and that a header may carry.
const SPECIAL: &str = "/+&%\"\\<=";

/// A text that occurs nowhere else. Its first eight bytes alone do not either.
fn canary() -> String {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    format!("{random}{SPECIAL}")
}

/// One without characters that need quoting, for places that allow few.
fn plain_canary(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(length)
        .collect()
}

/// Every text by which a secret would be recognised.
fn needles(secret: &str) -> BTreeSet<String> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let listed: Vec<String> = bytes.iter().take(8).map(u8::to_string).collect();
    let json = json!(secret).to_string();
    let encoded: String = url::form_urlencoded::byte_serialize(bytes).collect();
    let base64 = general_purpose::STANDARD.encode(bytes);
    let mut needles = BTreeSet::from([
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        encoded,
        general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        hex.to_uppercase(),
        // As Debug prints bytes.
        listed.join(", "),
    ]);
    // Prefixes: a text cut off, or "only the beginning, so that one can tell them apart".
    needles.insert(secret.chars().take(8).collect());
    needles.insert(hex.chars().take(16).collect());
    needles.insert(base64.chars().take(10).collect());
    needles.insert(hex);
    needles.insert(base64);
    needles
}

/// The secrets of a run.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn fresh(&mut self) -> String {
        self.keep(canary())
    }

    fn keep(&mut self, secret: String) -> String {
        self.0.push(secret.clone());
        secret
    }

    /// Where any of them is found, and in which form.
    fn found_in(&self, sinks: &[(String, String)]) -> Vec<String> {
        let mut found = Vec::new();
        for (number, secret) in self.0.iter().enumerate() {
            for needle in needles(secret) {
                for (sink, text) in sinks {
                    if let Some(at) = text.find(&needle) {
                        let from = text.floor_char_boundary(at.saturating_sub(200));
                        let to = text.ceil_char_boundary((at + needle.len() + 60).min(text.len()));
                        found.push(format!(
                            "secret {number} as {needle:?} in {sink}: …{}…",
                            &text[from..to]
                        ));
                    }
                }
            }
        }
        found
    }
}

/// Everything that can be read without the right to read Secrets.
async fn sinks(world: &World, when: &str) -> Vec<(String, String)> {
    let namespace = &world.namespace;
    let ours = format!("/apis/webhook-operator.dev/v1alpha1/namespaces/{namespace}");
    let paths = [
        format!("{ours}/webhooks"),
        format!("{ours}/webhookproviders"),
        format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"),
        format!("/api/v1/namespaces/{namespace}/configmaps"),
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
    ];
    let mut sinks = Vec::new();
    for path in paths {
        let request = http::Request::get(&path).body(Vec::new()).unwrap();
        let text = world.client.request_text(request).await.unwrap();
        // JSON inside JSON (managed fields, annotations) is searched in the form that it has in YAML, too.
        let value: Value = serde_json::from_str(&text).unwrap();
        let yaml = serde_yaml::to_string(&value).unwrap();
        sinks.push((format!("{path} {when}"), text));
        sinks.push((format!("{path} as YAML {when}"), yaml));
    }
    sinks.push((format!("/metrics {when}"), world.operator.metrics().await));
    sinks
}

/// The credentials of one account of each upstream.
struct Account {
    conpeek: String,
    thulium: String,
    ricloud: String,
    app_key: String,
    app_secret: String,
}

impl Account {
    fn new(secrets: &mut Secrets) -> Self {
        Self {
            conpeek: secrets.fresh(),
            thulium: secrets.fresh(),
            // Its header is made of words.
            ricloud: secrets.keep(plain_canary(40)),
            app_key: secrets.keep(plain_canary(24)),
            app_secret: secrets.fresh(),
        }
    }

    /// Lets the doubles know it, under this name.
    fn known(&self, world: &World, name: &str) {
        let doubles = &world.doubles;
        doubles
            .conpeek()
            .add_account(ConpeekAccount::new(name, &self.conpeek));
        doubles
            .thulium()
            .add_account(ThuliumAccount::new(name, &self.thulium));
        doubles
            .ricloud()
            .add_account(RicloudAccount::new(name, &self.ricloud, name));
        doubles
            .autocosmos()
            .add_account(AutocosmosAccount::new(&self.app_key, &self.app_secret));
    }

    fn all(&self) -> String {
        [
            &self.conpeek,
            &self.thulium,
            &self.ricloud,
            &self.app_key,
            &self.app_secret,
        ]
        .map(String::as_str)
        .join(" ")
    }

    /// Providers with these credentials, named `<name>-<type>`; what the upstream sees as the user is `name`.
    async fn providers(&self, world: &World, name: &str) {
        for provider in ProviderType::ALL {
            let data: Vec<(&str, &str)> = match provider {
                ProviderType::Conpeek => vec![("apiKey", &self.conpeek)],
                ProviderType::Thulium => vec![("username", name), ("password", &self.thulium)],
                ProviderType::Ricloud => vec![("token", &self.ricloud)],
                ProviderType::Autocosmos => vec![("appKey", &self.app_key), ("appSecret", &self.app_secret)],
            };
            let object = format!("{name}-{}", name_of(provider));
            world.secret(&object, &data).await;
            let mut manifest = world.provider_manifest(provider);
            manifest["metadata"]["name"] = json!(object);
            manifest["spec"]["credentialsRef"]["name"] = json!(object);
            world.apply(&manifest).await;
        }
    }
}

/// What the upstreams send with deliveries.
struct Given {
    header: String,
    password: String,
    signing: String,
}

impl Given {
    async fn publish(secrets: &mut Secrets, world: &World) -> Self {
        let given = Self {
            header: secrets.fresh(),
            password: secrets.fresh(),
            signing: secrets.fresh(),
        };
        world.secret("header", &[("value", &given.header)]).await;
        world
            .secret(
                "basic",
                &[("username", "receiver"), ("password", &given.password)],
            )
            .await;
        world.secret("signing", &[("secret", &given.signing)]).await;
        given
    }
}

/// Webhooks at the four providers of an account, with every kind of secret that their upstreams take.
async fn webhooks(world: &World, account: &str) -> Vec<String> {
    let header =
        json!([{"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "header", "key": "value"}}}]);
    let mut names = Vec::new();
    for provider in ProviderType::ALL {
        let name = format!("{account}-{}", name_of(provider));
        let url = format!("https://hooks.example.com/{name}");
        let mut spec = match provider {
            ProviderType::Conpeek => json!({"target": account.len().to_string(), "headers": header}),
            ProviderType::Thulium => json!({"events": ["TICKET_CREATED"], "basicAuthRef": {"name": "basic"}}),
            ProviderType::Ricloud => json!({}),
            ProviderType::Autocosmos => {
                json!({"target": account, "secretRef": {"name": "signing"}, "headers": header})
            }
        };
        spec["url"] = json!(url);
        spec["providerRef"] = json!({"name": name});
        world.webhook(&name, provider, spec).await;
        names.push(name);
    }
    names
}

/// Upstreams that answer like this, to one account, with the secrets in the body.
fn echo(world: &World, account: &str, known: &Account, effect: &Effect) {
    let doubles = &world.doubles;
    doubles.conpeek().clear_faults();
    doubles.thulium().clear_faults();
    doubles.ricloud().clear_faults();
    doubles.autocosmos().clear_faults();
    doubles
        .conpeek()
        .set_fault(Fault::new(effect.clone()).account(account));
    doubles
        .thulium()
        .set_fault(Fault::new(effect.clone()).account(account));
    doubles
        .ricloud()
        .set_fault(Fault::new(effect.clone()).account(account));
    doubles
        .autocosmos()
        .set_fault(Fault::new(effect.clone()).account(&known.app_key));
}

/// Answers of every kind, each with this text in body and header.
fn echoes(text: &str) -> Vec<Effect> {
    let body =
        json!({"error": text, "message": text, "Message": text, "errors": [{"detail": text}]}).to_string();
    let echo = |status: u16, body: &str| {
        let header = text.replace(['\\', '"', '<'], "");
        serde_json::from_value::<Effect>(json!({
            "kind": "status", "status": status, "body": body, "headers": {"X-Debug": header, "Location": header},
        }))
        .unwrap()
    };
    let mut effects: Vec<_> = [400, 401, 403, 404, 409, 422, 429, 500, 302]
        .into_iter()
        .map(|status| echo(status, &body))
        .collect();
    effects.push(echo(200, &body));
    effects.push(echo(200, &format!("<html>{text}</html>")));
    effects.push(echo(200, &json!([text]).to_string()));
    effects.push(echo(
        201,
        &json!({"id": text, "subscription_url": text, "result": text}).to_string(),
    ));
    effects
}

#[tokio::test]
async fn no_secret_is_found_where_it_does_not_belong() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let args = [
        "OTEL_BSP_SCHEDULE_DELAY=200",
        "--otlp-endpoint",
        &endpoint,
        "--log-filter",
        "trace",
    ];
    let world = World::alone("secrets", &args).await;
    world
        .doubles
        .autocosmos()
        .change_behaviour(|behaviour| behaviour.replay_rule = ReplayRule::Off);
    world
        .doubles
        .ricloud()
        .change_behaviour(|behaviour| behaviour.verdict = Verdict::AlwaysValid);
    let mut secrets = Secrets::default();
    let mut seen = Vec::new();

    // All is well.
    let good = Account::new(&mut secrets);
    good.known(&world, "good");
    good.providers(&world, "good").await;
    let given = Given::publish(&mut secrets, &world).await;
    let names = webhooks(&world, "good").await;
    for name in &names {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let made = world
        .secret_value("good-ricloud-signing", "secret")
        .await
        .expect("ricloud's own secret");
    secrets.keep(made);
    made_by_the_operator(&world, &mut secrets).await;
    assert_they_arrived(&world, &given);
    seen.extend(sinks(&world, "when all is well").await);

    // Keys that nobody knows.
    let wrong = Account::new(&mut secrets);
    wrong.providers(&world, "wrong").await;
    for name in webhooks(&world, "wrong").await {
        world
            .wait(&name, "it to fail", |webhook| {
                webhook.status.as_ref().is_some_and(|s| !s.conditions.is_empty())
            })
            .await;
    }
    seen.extend(sinks(&world, "with wrong keys").await);

    // Upstreams that echo what they should not.
    let echoed = Account::new(&mut secrets);
    echoed.known(&world, "echo");
    let text = format!(
        "{} {} {} {}",
        echoed.all(),
        given.header,
        given.password,
        given.signing
    );
    let effects = echoes(&text);
    echo(&world, "echo", &echoed, &effects[0]);
    echoed.providers(&world, "echo").await;
    let names = webhooks(&world, "echo").await;
    for (round, effect) in effects.iter().enumerate() {
        echo(&world, "echo", &echoed, effect);
        for name in &names {
            world
                .change(
                    name,
                    json!({"url": format!("https://hooks.example.com/{name}/{round}")}),
                )
                .await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        seen.extend(sinks(&world, &format!("after echo {round}")).await);
    }
    drift_and_rotation(&world, &mut secrets).await;
    seen.extend(sinks(&world, "after drift and rotation").await);

    world.operator.crash_and_restart().await;
    for name in ["good-conpeek", "good-thulium", "good-ricloud", "good-autocosmos"] {
        world.delete_and_wait(name).await;
    }
    seen.extend(sinks(&world, "after deletion").await);
    seen.push(("the log".to_owned(), world.operator.log()));
    let removed = |spans: &[Told]| spans.iter().filter(|span| span.name == "upstream delete").count() >= 2;
    collector.wait("traces of the deletions", removed).await;
    seen.push(("traces".to_owned(), collector.raw()));
    let found = secrets.found_in(&seen);
    assert!(found.is_empty(), "{} finds:\n{}", found.len(), found.join("\n"));
    control(&world, &secrets, &seen).await;
}

/// A signing secret that the operator makes, between the one before and the next one.
async fn made_by_the_operator(world: &World, secrets: &mut Secrets) {
    let spec = json!({
        "providerRef": {"name": "good-autocosmos"}, "target": "made", "url": "https://hooks.example.com/made",
        "secretPolicy": {"source": "Generate", "rotation": {"interval": "8784h", "settle": "1s"}},
        "test": {"mode": "None"},
    });
    world.webhook("good-made", ProviderType::Autocosmos, spec).await;
    world.wait_ready("good-made", ReadyReason::Available).await;
    let reached = async |phase: RotationPhase| {
        let met = |webhook: &Webhook| status(webhook).rotation.unwrap_or_default().phase == phase;
        world.wait("good-made", "a step of the rotation", met).await
    };
    world.annotate("good-made", ROTATE_REQUESTED_AT, "first").await;
    reached(RotationPhase::Overlapping).await;
    let slow = json!({"secretPolicy": {"rotation": {"settle": "24h"}}});
    world.change("good-made", slow).await;
    world.annotate("good-made", ROTATE_REQUESTED_AT, "second").await;
    reached(RotationPhase::Settling).await;
    for key in ["secret", "secret.next", "secret.previous"] {
        let made = world.secret_value("good-made-signing", key).await;
        secrets.keep(made.expect("the operator's own secret"));
    }
}

/// The secrets were used: what is searched for exists.
fn assert_they_arrived(world: &World, given: &Given) {
    let bodies =
        |seen: Vec<upstream_doubles::Seen>| -> String { seen.into_iter().map(|seen| seen.body).collect() };
    let in_json = |secret: &str| json!(secret).to_string().trim_matches('"').to_owned();
    assert!(
        bodies(world.doubles.conpeek().requests()).contains(&in_json(&given.header)),
        "Conpeek got the header"
    );
    assert!(
        bodies(world.doubles.thulium().requests()).contains(&in_json(&given.password)),
        "Thulium got the password"
    );
    let autocosmos = bodies(world.doubles.autocosmos().requests());
    assert!(
        autocosmos.contains(&in_json(&given.signing)),
        "Autocosmos got the signing secret"
    );
}

/// Somebody changes the upstream, and a user changes a secret; one that is too short is refused.
async fn drift_and_rotation(world: &World, secrets: &mut Secrets) {
    let elsewhere = format!(
        "https://elsewhere.example.com/?token={}",
        secrets.keep(plain_canary(24))
    );
    for object in world.doubles.thulium().objects() {
        let id = object.id.to_string();
        world
            .doubles
            .thulium()
            .edit(&id, |object| object.subscription_url = elsewhere.clone());
    }
    world.read_back("good-thulium").await;
    let signing = secrets.fresh();
    world.secret("signing", &[("secret", &signing)]).await;
    let got = |secret: &str| {
        let secret = json!(secret).to_string().trim_matches('"').to_owned();
        !world
            .doubles
            .autocosmos()
            .requests_where(|seen| seen.body.contains(&secret))
            .is_empty()
    };
    world
        .eventually("the new signing secret at the upstream", || got(&signing))
        .await;
    let short = secrets.keep(plain_canary(12));
    world.secret("signing", &[("secret", &short)]).await;
    world
        .wait_ready("good-autocosmos", ReadyReason::InvalidSpec)
        .await;
    assert!(!got(&short));
    let signing = secrets.fresh();
    world.secret("signing", &[("secret", &signing)]).await;
    world.wait_ready("good-autocosmos", ReadyReason::Available).await;
}

/// The search would have found something: in each sink, in each form.
async fn control(world: &World, secrets: &Secrets, seen: &[(String, String)]) {
    let log = seen.iter().find(|(sink, _)| sink == "the log").unwrap();
    for word in ["good-conpeek", "echo-thulium", "DEBUG"] {
        assert!(log.1.contains(word), "the log is one of this test: {word}");
    }
    let traces = seen.iter().find(|(sink, _)| sink == "traces").unwrap();
    for word in ["good-conpeek", "echo-thulium", "upstream create", "write status"] {
        assert!(traces.1.contains(word), "the traces are of this test: {word}");
    }
    assert!(
        seen.iter()
            .any(|(sink, text)| sink.contains("/events") && text.contains("echo-ricloud"))
    );
    assert!(
        seen.iter()
            .any(|(sink, text)| sink.contains("/metrics") && text.contains("good-ricloud"))
    );
    for secret in &secrets.0 {
        for needle in needles(secret) {
            let planted = [("a sink".to_owned(), format!("before {needle} after"))];
            assert!(!secrets.found_in(&planted).is_empty());
        }
    }
    let planted = ConfigMap {
        metadata: ObjectMeta {
            name: Some("planted".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("note".to_owned(), secrets.0[0].chars().take(8).collect())].into()),
        ..ConfigMap::default()
    };
    world
        .api::<ConfigMap>()
        .create(&PostParams::default(), &planted)
        .await
        .unwrap();
    let planted = json!({"metadata": {"annotations": {"planted": secrets.0[1]}}});
    world.patch::<Webhook>("wrong-conpeek", &planted).await;
    let found = secrets.found_in(&sinks(world, "with plants").await);
    assert!(
        found.iter().any(|found| found.contains("/configmaps")),
        "{found:?}"
    );
    assert!(found.iter().any(|found| found.contains("/webhooks")), "{found:?}");
}
