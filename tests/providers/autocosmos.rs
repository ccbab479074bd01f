//! Autocosmos against its double, which checks every signature, digest and replay: every operation, every switch
//! of the double, refusals and faults.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use upstream_doubles::{
    AppWebhook, Autocosmos as Upstream, AutocosmosAccount, AutocosmosBehaviour, Double, Doubles, Fault,
    Options, PutMissing, ReplayRule, Seen as Request,
};
use webhook_operator::{
    api::{provider::ProviderType, webhook_status::State},
    clock::Clock,
    domain::{
        desired::{Desired, Header},
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    net::{HttpError, Method, Request as HttpRequest, Response},
    provider::{
        Account, Credentials, Effect, ErrorClass, Provider, ProviderError, Removal, Standing, Transport,
        autocosmos::{Autocosmos, sign::Signed},
    },
};

use crate::rig::{account, assert_holds, call, failed, faults};

const SEED: &str = r#"{"Callback":"https://callbacks.myapp.com/autocosmos/event","Secret":null,"Description":"Mi callback para algo","Activo":true,"HeaderCustom01":{"Name":"X-MYAPP-PRODUCER","Value":"Autocosmos"},"HeaderCustom02":null,"HeaderCustom03":null}"#;
const SECRET: &str = "96d0300081d644d3bdceae8fbfc77955";

struct Rig {
    doubles: Doubles,
    account: Account,
}

impl Rig {
    async fn new(change: impl FnOnce(&mut AutocosmosBehaviour)) -> Self {
        let doubles = Doubles::start(Options::demo()).await.unwrap();
        doubles.autocosmos().change_behaviour(change);
        let account = with_secret(&doubles, "demo-app-secret");
        Self { doubles, account }
    }

    fn double(&self) -> &Double<Upstream> {
        self.doubles.autocosmos()
    }

    fn only(&self) -> AppWebhook {
        let [webhook] = <[_; 1]>::try_from(self.double().objects()).unwrap();
        webhook
    }

    async fn create(&self, want: &Desired) -> Result<Remote, ProviderError> {
        Autocosmos.create(&call(&self.account), want).await
    }

    async fn look(&self, topic: &str) -> Result<Option<Remote>, ProviderError> {
        match Autocosmos
            .look(&call(&self.account), &Look::ById(id(topic)))
            .await?
        {
            Seen::One(remote) => Ok(remote.map(|remote| *remote)),
            seen => panic!("{seen:?}"),
        }
    }

    async fn remove(&self, want: Option<&Desired>) -> Result<Removal, ProviderError> {
        Autocosmos
            .remove(&call(&self.account), &id("invitaciones"), want)
            .await
    }

    fn sent(&self) -> Vec<Request> {
        let requests = self.double().requests();
        self.double().clear_requests();
        requests
    }

    fn methods(&self) -> Vec<String> {
        self.sent()
            .into_iter()
            .map(|seen| format!("{} {}", seen.method, seen.status.unwrap_or_default()))
            .collect()
    }
}

fn with_secret(doubles: &Doubles, app_secret: &str) -> Account {
    let credentials = Credentials::Autocosmos {
        app_key: "demo-app-key".into(),
        app_secret: app_secret.into(),
    };
    account(ProviderType::Autocosmos, &doubles.autocosmos().url(), credentials)
}

fn id(topic: &str) -> RemoteId {
    RemoteId(topic.into())
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

/// What the document's sample asks for.
fn seed() -> Desired {
    Desired {
        target: Some("invitaciones".into()),
        url: "https://callbacks.myapp.com/autocosmos/event".into(),
        description: Some("Mi callback para algo".into()),
        active: true,
        headers: vec![header("X-MYAPP-PRODUCER", "Autocosmos")],
        ..Desired::default()
    }
}

#[tokio::test]
async fn the_documented_request_makes_the_documented_configuration() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create(&seed()).await.unwrap();
    let [request] = <[_; 1]>::try_from(rig.sent()).unwrap();
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.status),
        ("POST", "/v3/appnotificaciones/invitaciones", Some(201))
    );
    assert_eq!(request.body, SEED);
    assert!(request.headers.contains_key("date") && !request.headers.contains_key("x-acs-date"));
    assert!(request.headers["digest"].starts_with("sha-256="));
    assert!(differences(&seed(), &made).is_empty());
    assert_eq!((made.id.0.as_str(), made.state), ("invitaciones", None));
    assert_eq!(rig.look("invitaciones").await.unwrap(), Some(made));
    assert!(
        !rig.sent()[0].headers.contains_key("digest"),
        "there is no body to digest"
    );
}

#[tokio::test]
async fn a_second_create_is_refused_and_an_update_replaces_the_whole() {
    let rig = Rig::new(|behaviour| behaviour.secret_echo = true).await;
    let first = Desired {
        secret: Some(SECRET.into()),
        ..seed()
    };
    let made = rig.create(&first).await.unwrap();
    assert_eq!(
        made.secret, None,
        "what the upstream shows of the secret is not kept"
    );
    let second = Desired {
        url: "https://b.example/".into(),
        headers: Vec::new(),
        description: None,
        ..first
    };
    let error = rig.create(&second).await.unwrap_err();
    assert_eq!(
        (error.class, error.effect, error.status),
        (ErrorClass::AlreadyExists, Effect::None, Some(409))
    );

    let three = Desired {
        headers: vec![header("C", "3"), header("A", "1"), header("B", "2")],
        ..second.clone()
    };
    for want in [second, three] {
        let now = Autocosmos
            .update(&call(&rig.account), &id("invitaciones"), None, &want)
            .await
            .unwrap();
        assert!(differences(&want, &now).is_empty());
        let stored = rig.only();
        assert_eq!(
            stored.secret.as_ref().unwrap().reveal(),
            SECRET,
            "the secret goes along every time"
        );
        let names: Vec<String> = stored
            .headers
            .into_iter()
            .flatten()
            .map(|header| header.name)
            .collect();
        let wanted: Vec<String> = want.headers.iter().map(|header| header.name.clone()).collect();
        assert_eq!(names, wanted, "in the order of the manifest");
    }
}

#[tokio::test]
async fn one_can_be_made_switched_off_and_switched_on_later() {
    let rig = Rig::new(|_| {}).await;
    let off = Desired {
        active: false,
        ..seed()
    };
    let made = rig.create(&off).await.unwrap();
    assert_eq!(made.state, Some(State::Deactivated));
    assert!(differences(&off, &made).is_empty());
    let now = Autocosmos
        .update(&call(&rig.account), &made.id, Some(&made), &seed())
        .await
        .unwrap();
    assert_eq!(now.state, None);
    assert!(rig.only().activo);
}

#[tokio::test]
async fn topics_are_one_path_segment_and_some_are_not_available() {
    let rig = Rig::new(|_| {}).await;
    let odd = "a/b ç?x=1#y%2e";
    rig.create(&Desired {
        target: Some(odd.into()),
        ..seed()
    })
    .await
    .unwrap();
    assert_eq!(rig.only().topic, odd);
    assert!(rig.look(odd).await.unwrap().is_some());
    assert_eq!(rig.look("never").await.unwrap(), None);
    rig.sent();
    assert_eq!(failed(rig.look("..").await).0, ErrorClass::Rejected);
    assert_eq!(rig.sent().len(), 0);

    let mut limited = AutocosmosAccount::new("demo-app-key", "demo-app-secret");
    limited.topics = Some(BTreeSet::from(["other".to_owned()]));
    rig.double().add_account(limited);
    let error = rig.create(&seed()).await.unwrap_err();
    assert_eq!((error.class, error.effect), (ErrorClass::Forbidden, Effect::None));
    assert!(error.to_string().contains("topic"), "{error}");
    assert_eq!(rig.look("invitaciones").await.unwrap(), None);
    let all = Autocosmos
        .look(&call(&rig.account), &Look::All { inactive: true })
        .await
        .unwrap();
    assert!(matches!(all, Seen::CannotKnow));
}

#[tokio::test]
async fn a_refusal_names_the_fields() {
    let rig = Rig::new(|_| {}).await;
    let bad = Desired {
        secret: Some("short".into()),
        description: Some("x".repeat(300)),
        ..seed()
    };
    let error = rig.create(&bad).await.unwrap_err();
    assert_eq!((error.class, error.effect), (ErrorClass::Rejected, Effect::None));
    assert!(
        error.to_string().contains("because of: secretRef, description;"),
        "{error}"
    );
    assert!(!error.to_string().contains("short"), "{error}");
}

#[tokio::test]
async fn equal_requests_wait_for_seconds_of_their_own() {
    let rig = Rig::new(|_| {}).await;
    rig.create(&seed()).await.unwrap();
    rig.sent();
    let began = Instant::now();
    let looks = (0..3).map(|_| rig.look("invitaciones"));
    assert!(futures::future::join_all(looks).await.iter().all(Result::is_ok));
    assert_eq!(
        rig.methods(),
        ["GET 200", "GET 200", "GET 200"],
        "no replay was refused"
    );
    assert!(began.elapsed() > Duration::from_millis(1000));
}

#[tokio::test]
async fn a_first_401_is_signed_again_and_a_second_one_is_believed() {
    let rig = Rig::new(|_| {}).await;
    rig.create(&seed()).await.unwrap();
    // Another process with the same AppKey knows nothing of the dates used here.
    let other = with_secret(&rig.doubles, "demo-app-secret");
    let mut replayed = false;
    for _ in 0..10 {
        rig.sent();
        rig.look("invitaciones").await.unwrap();
        let look = Look::ById(id("invitaciones"));
        assert!(Autocosmos.look(&call(&other), &look).await.is_ok());
        let answers = rig.methods();
        // Unless the second turned in between.
        if answers == ["GET 200", "GET 401", "GET 200"] {
            replayed = true;
            break;
        }
        assert_eq!(answers, ["GET 200", "GET 200"]);
    }
    assert!(replayed, "no replay in ten tries");
    assert_eq!(other.standing(), Standing::Accepted);

    let wrong = with_secret(&rig.doubles, "wrong");
    rig.sent();
    let error = Autocosmos.create(&call(&wrong), &seed()).await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Unauthorized, Effect::None)
    );
    assert_eq!(rig.methods(), ["POST 401", "POST 401"]);
    assert!(matches!(wrong.standing(), Standing::Refused { .. }));
    assert_eq!(
        failed(Autocosmos.create(&call(&wrong), &seed()).await).0,
        ErrorClass::Unauthorized
    );
    assert_eq!(
        rig.methods(),
        ["POST 401"],
        "credentials known to be refused are tried once"
    );
}

#[tokio::test]
async fn a_wrong_clock_is_named_among_the_causes() {
    let rig = Rig::new(|behaviour| behaviour.replay_rule = ReplayRule::Off).await;
    let mut account = with_secret(&rig.doubles, "demo-app-secret");
    account.clock = Clock::starting_at("2001-01-01T00:00:00Z".parse().unwrap());
    let error = Autocosmos.create(&call(&account), &seed()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unauthorized);
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test]
async fn put_on_a_topic_without_configuration() {
    let rig = Rig::new(|_| {}).await;
    let update = async || {
        Autocosmos
            .update(&call(&rig.account), &id("invitaciones"), None, &seed())
            .await
    };
    assert_eq!(failed(update().await), (ErrorClass::TargetNotFound, Effect::None));
    rig.double()
        .change_behaviour(|behaviour| behaviour.put_missing = PutMissing::Create);
    assert!(differences(&seed(), &update().await.unwrap()).is_empty());
}

#[tokio::test]
async fn removal_follows_the_link_of_the_answer() {
    let rig = Rig::new(|behaviour| behaviour.delete_link = true).await;
    rig.create(&seed()).await.unwrap();
    rig.sent();
    assert_eq!(rig.remove(Some(&seed())).await.unwrap(), Removal::Removed);
    assert_eq!(rig.methods(), ["GET 200", "DELETE 204"]);
    assert_eq!(rig.double().objects(), []);
    assert_eq!(rig.remove(None).await.unwrap(), Removal::AlreadyGone);

    rig.create(&seed()).await.unwrap();
    rig.double().set_fault(Fault::status(405).method("DELETE"));
    assert_eq!(rig.remove(None).await.unwrap(), Removal::SwitchedOff);
    assert!(!rig.only().activo);
}

#[tokio::test]
async fn removal_without_a_link_suspends_and_takes_the_headers_away() {
    for with_want in [true, false] {
        let rig = Rig::new(|behaviour| behaviour.secret_echo = true).await;
        let want = Desired {
            secret: Some(SECRET.into()),
            ..seed()
        };
        rig.create(&want).await.unwrap();
        let removal = rig.remove(with_want.then_some(&want)).await.unwrap();
        assert_eq!(removal, Removal::SwitchedOff);
        let left = rig.only();
        assert!(!left.activo);
        assert_eq!(left.callback.as_deref(), Some(want.url.as_str()));
        assert_eq!(left.description, want.description);
        assert_eq!(left.headers, [None, None, None]);
        assert_eq!(left.secret.is_some(), with_want);
    }
}

#[tokio::test]
async fn switching_off_keeps_everything_else() {
    for with_want in [true, false] {
        let rig = Rig::new(|_| {}).await;
        let want = Desired {
            secret: Some(SECRET.into()),
            ..seed()
        };
        rig.create(&want).await.unwrap();
        let before = rig.only();
        let topic = id("invitaciones");
        let switch_off = async || {
            Autocosmos
                .switch_off(&call(&rig.account), &topic, with_want.then_some(&want))
                .await
                .unwrap()
        };
        assert_eq!(switch_off().await, Removal::SwitchedOff);
        let left = rig.only();
        let secret = before.secret.clone().filter(|_| with_want);
        assert_eq!(
            left,
            AppWebhook {
                activo: false,
                secret,
                ..before
            }
        );
        rig.double().clear_faults();
        rig.double().remove("demo-app-key/invitaciones");
        assert_eq!(switch_off().await, Removal::AlreadyGone);
    }
}

#[tokio::test]
async fn what_goes_away_between_two_steps_is_gone() {
    let rig = Rig::new(|_| {}).await;
    rig.create(&seed()).await.unwrap();
    rig.double().set_fault(Fault::status(404).method("PUT").times(1));
    assert_eq!(rig.remove(None).await.unwrap(), Removal::AlreadyGone);
    rig.double()
        .change_behaviour(|behaviour| behaviour.delete_link = true);
    rig.double()
        .set_fault(Fault::status(404).method("DELETE").times(1));
    assert_eq!(rig.remove(None).await.unwrap(), Removal::Removed);
    rig.double()
        .set_fault(Fault::status(503).method("DELETE").times(1));
    assert_eq!(
        failed(rig.remove(None).await),
        (ErrorClass::Unreachable, Effect::Unknown)
    );
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_may_have_happened() {
    for (fault, class, effect) in faults(true) {
        let mut rig = Rig::new(|_| {}).await;
        rig.account.timeout = Duration::from_secs(2);
        rig.double().set_fault(fault.clone().times(1));
        assert_eq!(failed(rig.create(&seed()).await), (class, effect), "{fault:?}");
        assert_eq!(rig.double().counts().total, 1, "nothing is sent twice: {fault:?}");
        if !rig.double().objects().is_empty() {
            assert_eq!(effect, Effect::Unknown, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_read_that_fails_has_no_effect() {
    let mut rig = Rig::new(|_| {}).await;
    rig.account.timeout = Duration::from_secs(2);
    rig.create(&seed()).await.unwrap();
    for (fault, class, effect) in faults(false) {
        rig.double().set_fault(fault.clone().times(1));
        assert_eq!(
            failed(rig.look("invitaciones").await),
            (class, effect),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn retry_after_makes_the_whole_account_wait() {
    let rig = Rig::new(|_| {}).await;
    assert_holds(rig.double(), &rig.account, async || rig.create(&seed()).await).await;
}

/// Keeps the requests and answers 404.
#[derive(Default)]
struct Recorder(Mutex<Vec<HttpRequest>>);

impl Transport for Recorder {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<Response, HttpError>> {
        self.0.lock().unwrap().push(request);
        Box::pin(async { Ok(Response::new(404, Vec::new(), "")) })
    }
}

#[tokio::test]
async fn the_path_of_the_base_url_is_signed_as_it_is_sent() {
    let recorder = Arc::new(Recorder::default());
    let credentials = Credentials::Autocosmos {
        app_key: "k".into(),
        app_secret: "s".into(),
    };
    let base = "https://gateway.example.test/Acs v3/é/".replace(' ', "%20");
    let account = Account::new(
        ProviderType::Autocosmos,
        &base,
        credentials,
        (1, 1, 1),
        recorder.clone(),
        Clock::starting_at("2024-05-01T12:00:00.9Z".parse().unwrap()),
    );
    let look = Look::ById(id("a b"));
    assert!(matches!(
        Autocosmos.look(&call(&account), &look).await.unwrap(),
        Seen::One(None)
    ));
    let sent = recorder.0.lock().unwrap();
    let [request] = sent.as_slice() else {
        panic!("{} requests", sent.len())
    };
    let path = "/Acs%20v3/%C3%A9/v3/appnotificaciones/a%20b";
    assert_eq!(request.url().path(), path);
    let header = |wanted: &str| {
        request
            .exposed_headers()
            .find(|(name, _)| *name == wanted)
            .unwrap()
            .1
    };
    let date = "Wed, 01 May 2024 12:00:00 GMT";
    assert_eq!(header("Date"), date);
    let signed = Signed {
        method: Method::Get,
        digest: "",
        date,
        acs_headers: &[],
        path_and_query: path,
    };
    assert_eq!(
        header("Authorization"),
        signed.authorization("k", &"s".into()).expose()
    );
}
