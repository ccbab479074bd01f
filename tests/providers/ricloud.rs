//! ricloud against its double: every operation, every switch of the double, paging, refusals and faults.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::time::Duration;

use futures::{StreamExt, stream};
use upstream_doubles::{
    ConfigState, DeleteSupport, Double, Doubles, Fault, IdStyle, ImplicitTest, Options, References,
    Ricloud as Upstream, RicloudAccount, RicloudBehaviour, StateNew, TaskCourse, Verdict, WebhookConfig,
};
use webhook_operator::{
    api::{provider::ProviderType, webhook_status::State},
    domain::{
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    provider::{
        Account, Credentials, Effect, ErrorClass, Provider, Removal, Standing, TestProgress, Usage,
        ricloud::Ricloud,
    },
};

use crate::rig::{account, assert_holds, call, failed, faults};

const URL: &str = "https://www.mywebhook.com/webhooks/";

struct Rig {
    doubles: Doubles,
    account: Account,
}

impl Rig {
    /// The demo account at a double whose tests pass without a delivery, 20 ms after they began.
    async fn new(change: impl FnOnce(&mut RicloudBehaviour)) -> Self {
        let doubles = Doubles::start(Options::demo()).await.unwrap();
        doubles.ricloud().change_behaviour(|behaviour| {
            behaviour.verdict = Verdict::AlwaysValid;
            behaviour.test_millis = 20;
            change(behaviour);
        });
        let account = with_token(&doubles, "demo-ricloud-token");
        Self { doubles, account }
    }

    fn double(&self) -> &Double<Upstream> {
        self.doubles.ricloud()
    }

    fn only(&self) -> WebhookConfig {
        let [config] = <[_; 1]>::try_from(self.double().objects()).unwrap();
        config
    }

    /// Changes the only config behind the API's back.
    fn edit(&self, change: impl FnMut(&mut WebhookConfig)) {
        assert!(self.double().edit(&self.only().id.to_string(), change));
    }

    async fn create(&self) -> Remote {
        Ricloud.create(&call(&self.account), &want()).await.unwrap()
    }

    async fn read(&self, id: &RemoteId) -> Option<Remote> {
        match Ricloud
            .look(&call(&self.account), &Look::ById(id.clone()))
            .await
            .unwrap()
        {
            Seen::One(remote) => remote.map(|remote| *remote),
            seen => panic!("{seen:?}"),
        }
    }

    async fn list(&self, inactive: bool) -> Vec<Remote> {
        match Ricloud
            .look(&call(&self.account), &Look::All { inactive })
            .await
            .unwrap()
        {
            Seen::All(all) => all.to_vec(),
            seen => panic!("{seen:?}"),
        }
    }

    /// Method, path with query, body of every request since the last time.
    fn sent(&self) -> Vec<(String, String, String)> {
        let requests = self.double().requests();
        self.double().clear_requests();
        let path = |path: &str, query: Option<String>| {
            query.map_or(path.to_owned(), |query| format!("{path}?{query}"))
        };
        requests
            .into_iter()
            .map(|seen| (seen.method, path(&seen.path, seen.query), seen.body))
            .collect()
    }
}

fn with_token(doubles: &Doubles, token: &str) -> Account {
    account(
        ProviderType::Ricloud,
        &doubles.ricloud().url(),
        Credentials::Ricloud { token: token.into() },
    )
}

fn want() -> Desired {
    Desired {
        url: URL.into(),
        active: true,
        ..Desired::default()
    }
}

fn request(method: &str, path: &str, body: &str) -> (String, String, String) {
    (method.into(), path.into(), body.into())
}

#[tokio::test]
async fn a_config_is_made_with_its_url_alone_and_brings_its_secret() {
    for ids in [IdStyle::Text, IdStyle::Number] {
        let rig = Rig::new(|behaviour| {
            behaviour.ids = ids;
            behaviour.implicit_test = ImplicitTest::Lost;
        })
        .await;
        let made = rig.create().await;
        assert_eq!(
            rig.sent(),
            [request(
                "POST",
                "/configs/webhook",
                r#"{"url":"https://www.mywebhook.com/webhooks/"}"#
            )]
        );
        let stored = rig.only();
        assert_eq!(made.id.0, rig.double().upstream().external_id(stored.id));
        assert_eq!(made.secret.as_ref().unwrap().expose(), stored.secret.reveal());
        assert_eq!((made.state, made.url.as_str()), (Some(State::New), URL));
        assert!(made.created.is_some());
        assert!(differences(&want(), &made).is_empty());
        assert_eq!(rig.read(&made.id).await, Some(made.clone()));
        assert_eq!(rig.list(false).await, [made]);
    }
}

#[tokio::test]
async fn reads_may_hide_the_secret_and_what_is_gone_is_none() {
    let rig = Rig::new(|behaviour| behaviour.secret_in_reads = false).await;
    let made = rig.create().await;
    assert!(made.secret.is_some());
    assert_eq!(rig.read(&made.id).await.unwrap().secret, None);
    rig.double().remove(&rig.only().id.to_string());
    assert_eq!(rig.read(&made.id).await, None);
    assert_eq!(rig.read(&RemoteId("a/../b?c".into())).await, None);
    let unsafe_id = Look::ById(RemoteId("..".into()));
    let sent = rig.double().counts().total;
    assert_eq!(
        failed(Ricloud.look(&call(&rig.account), &unsafe_id).await).0,
        ErrorClass::Rejected
    );
    assert_eq!(
        rig.double().counts().total,
        sent,
        "nothing is sent for an id that cannot be a path segment"
    );
    rig.double().set_fault(Fault::status(410).times(1));
    assert_eq!(rig.read(&made.id).await, None);
}

#[tokio::test]
async fn every_page_is_read_and_deactivated_ones_only_when_asked_for() {
    let rig = Rig::new(|behaviour| behaviour.implicit_test = ImplicitTest::Lost).await;
    let add = async |count: usize| {
        let make = |number| {
            let want = Desired {
                url: format!("https://hooks.example.test/{number}"),
                ..want()
            };
            async { Ricloud.create(&call(&rig.account), &{ want }).await.unwrap() }
        };
        stream::iter(0..count)
            .map(make)
            .buffer_unordered(8)
            .for_each(async |_| {})
            .await;
    };
    add(25).await;
    assert_eq!(rig.list(false).await.len(), 25);
    add(2475).await;
    let hidden: Vec<u64> = rig
        .double()
        .objects()
        .iter()
        .map(|config| config.id)
        .take(30)
        .collect();
    for id in &hidden {
        assert!(
            rig.double()
                .edit(&id.to_string(), |config| config.state = ConfigState::Deactivated)
        );
    }
    for newest_first in [true, false] {
        rig.double()
            .change_behaviour(|behaviour| behaviour.newest_first = newest_first);
        rig.sent();
        let active = rig.list(false).await;
        let paths: Vec<String> = rig.sent().into_iter().map(|(_, path, _)| path).collect();
        assert_eq!(paths.len(), 3, "{paths:?}");
        assert_eq!(paths[0], "/configs/webhook?limit=1000");
        assert_eq!(
            paths[1],
            format!("/configs/webhook?limit=1000&after_id={}", active[999].id)
        );
        assert_eq!(active.len(), 2470);
        assert!(active.iter().all(Remote::is_on));

        let all = rig.list(true).await;
        let mut ids: Vec<&str> = all.iter().map(|config| config.id.0.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((all.len(), ids.len()), (2500, 2500));
        assert_eq!(all.iter().filter(|config| !config.is_on()).count(), 30);
        assert!(
            rig.sent()
                .iter()
                .any(|(_, path, _)| path == "/configs/webhook?limit=1000&state=deactivated")
        );
    }
}

#[tokio::test]
async fn a_list_that_fails_half_way_is_no_list() {
    let rig = Rig::new(|behaviour| behaviour.implicit_test = ImplicitTest::Lost).await;
    rig.create().await;
    for (fault, class, effect) in faults(false) {
        rig.double().set_fault(fault.clone().times(1));
        let mut account = with_token(&rig.doubles, "demo-ricloud-token");
        account.timeout = Duration::from_secs(2);
        let look = Look::All { inactive: true };
        assert_eq!(
            failed(Ricloud.look(&call(&account), &look).await),
            (class, effect),
            "{fault:?}"
        );
        assert_eq!(rig.list(true).await.len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_update_sends_what_differs_and_nothing_when_nothing_does() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create().await;
    rig.sent();
    let path = format!("/configs/webhook/{}", made.id);
    let update = async |there: Option<&Remote>, want: Desired| {
        Ricloud
            .update(&call(&rig.account), &made.id, there, &want)
            .await
            .unwrap()
    };
    assert_eq!(update(Some(&made), want()).await, made);
    assert_eq!(rig.sent(), []);

    let moved = update(
        Some(&made),
        Desired {
            url: "https://b.example/".into(),
            ..want()
        },
    )
    .await;
    assert_eq!(
        (moved.url.as_str(), moved.state),
        ("https://b.example/", Some(State::New))
    );
    assert_eq!(
        rig.sent(),
        [request("POST", &path, r#"{"url":"https://b.example/"}"#)]
    );

    let both = Desired {
        url: "https://c.example/".into(),
        active: false,
        ..want()
    };
    let off = update(Some(&moved), both.clone()).await;
    assert!(differences(&both, &off).is_empty());
    assert_eq!(
        rig.sent(),
        [request(
            "POST",
            &path,
            r#"{"url":"https://c.example/","state":"deactivated"}"#
        )]
    );

    let on = update(
        Some(&off),
        Desired {
            active: true,
            ..both.clone()
        },
    )
    .await;
    assert_eq!(on.state, Some(State::New));
    assert_eq!(rig.sent(), [request("POST", &path, r#"{"state":"new"}"#)]);

    let blind = update(None, both.clone()).await;
    assert!(differences(&both, &blind).is_empty());
    assert_eq!(
        rig.sent(),
        [request(
            "POST",
            &path,
            r#"{"url":"https://c.example/","state":"deactivated"}"#
        )]
    );

    rig.double().remove(&rig.only().id.to_string());
    let gone = Ricloud
        .update(&call(&rig.account), &made.id, Some(&off), &want())
        .await;
    assert_eq!(failed(gone), (ErrorClass::TargetNotFound, Effect::None));
}

#[tokio::test]
async fn a_config_that_shall_be_off_is_made_on_and_then_differs() {
    let rig = Rig::new(|_| {}).await;
    let off = Desired {
        active: false,
        ..want()
    };
    let made = Ricloud.create(&call(&rig.account), &off).await.unwrap();
    assert_eq!(differences(&off, &made), ["active"]);
    let now = Ricloud
        .update(&call(&rig.account), &made.id, Some(&made), &off)
        .await
        .unwrap();
    assert!(differences(&off, &now).is_empty());
    assert_eq!(rig.only().state, ConfigState::Deactivated);
}

#[tokio::test]
async fn reactivation_takes_the_second_way_where_the_first_is_refused() {
    for (state_new, url_reactivates, bodies, state) in [
        (StateNew::Allowed, false, vec![r#"{"state":"new"}"#], State::New),
        (
            StateNew::Refused,
            true,
            vec![
                r#"{"state":"new"}"#,
                r#"{"url":"https://www.mywebhook.com/webhooks/"}"#,
            ],
            State::New,
        ),
        (
            StateNew::Refused,
            false,
            vec![
                r#"{"state":"new"}"#,
                r#"{"url":"https://www.mywebhook.com/webhooks/"}"#,
            ],
            State::Deactivated,
        ),
        (
            StateNew::Ignored,
            false,
            vec![r#"{"state":"new"}"#],
            State::Deactivated,
        ),
    ] {
        let rig = Rig::new(|behaviour| {
            behaviour.state_new = state_new;
            behaviour.url_reactivates = url_reactivates;
            behaviour.implicit_test = ImplicitTest::Lost;
        })
        .await;
        let made = rig.create().await;
        rig.edit(|config| config.state = ConfigState::Deactivated);
        let there = rig.read(&made.id).await.unwrap();
        rig.sent();
        let now = Ricloud
            .update(&call(&rig.account), &made.id, Some(&there), &want())
            .await
            .unwrap();
        assert_eq!(now.state, Some(state), "{state_new:?}");
        let sent: Vec<String> = rig.sent().into_iter().map(|(_, _, body)| body).collect();
        assert_eq!(sent, bodies, "{state_new:?}");
    }
}

#[tokio::test]
async fn removal_deletes_or_else_deactivates() {
    for (support, removal) in [
        (DeleteSupport::Supported, Removal::Removed),
        (DeleteSupport::MethodNotAllowed, Removal::SwitchedOff),
        (DeleteSupport::Forbidden, Removal::SwitchedOff),
    ] {
        let rig = Rig::new(|behaviour| behaviour.delete = support).await;
        let made = rig.create().await;
        let remove = async || Ricloud.remove(&call(&rig.account), &made.id, None).await.unwrap();
        assert_eq!(remove().await, removal, "{support:?}");
        match removal {
            Removal::Removed => assert_eq!(rig.double().objects(), []),
            _ => assert_eq!(rig.only().state, ConfigState::Deactivated),
        }
        for gone in rig.double().objects() {
            rig.double().remove(&gone.id.to_string());
        }
        assert_eq!(remove().await, Removal::AlreadyGone);
        let off = Ricloud
            .switch_off(&call(&rig.account), &made.id, None)
            .await
            .unwrap();
        assert_eq!(off, Removal::AlreadyGone);
    }
}

#[tokio::test]
async fn a_config_in_use_that_cannot_be_deleted_is_deactivated() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create().await;
    rig.edit(|config| config.state = ConfigState::Valid);
    Ricloud
        .use_it(&call(&rig.account), &made.id, &Usage::Organisation)
        .await
        .unwrap();
    let removal = Ricloud
        .remove(&call(&rig.account), &made.id, Some(&want()))
        .await
        .unwrap();
    assert_eq!(
        (removal, rig.only().state),
        (Removal::SwitchedOff, ConfigState::Deactivated)
    );
}

#[tokio::test]
async fn a_page_of_html_never_counts_as_removed() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create().await;
    let html = || Fault::new(upstream_doubles::Effect::Html).handled(false).times(1);
    rig.double().set_fault(html());
    let answer = Ricloud.remove(&call(&rig.account), &made.id, None).await;
    assert_eq!(failed(answer), (ErrorClass::Unexpected, Effect::Unknown));
    rig.double().set_fault(html());
    let answer = Ricloud.switch_off(&call(&rig.account), &made.id, None).await;
    assert_eq!(failed(answer), (ErrorClass::Unexpected, Effect::Unknown));
    rig.double().set_fault(html());
    let answer = Ricloud.look(&call(&rig.account), &Look::ById(made.id)).await;
    assert_eq!(failed(answer), (ErrorClass::Unexpected, Effect::None));
}

#[tokio::test]
async fn switching_off_keeps_it_and_a_server_fault_is_passed_on() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create().await;
    rig.double().set_fault(Fault::status(503).times(1));
    let answer = Ricloud.remove(&call(&rig.account), &made.id, None).await;
    assert_eq!(failed(answer), (ErrorClass::Unreachable, Effect::Unknown));
    rig.sent();
    let off = Ricloud
        .switch_off(&call(&rig.account), &made.id, Some(&want()))
        .await
        .unwrap();
    assert_eq!(off, Removal::SwitchedOff);
    assert_eq!(rig.only().state, ConfigState::Deactivated);
    let path = format!("/configs/webhook/{}", made.id);
    assert_eq!(rig.sent(), [request("POST", &path, r#"{"state":"deactivated"}"#)]);
}

#[tokio::test]
async fn a_test_is_started_and_polled_to_its_end() {
    for refuse_test_body in [false, true] {
        for ids in [IdStyle::Text, IdStyle::Number] {
            let rig = Rig::new(|behaviour| {
                behaviour.refuse_test_body = refuse_test_body;
                behaviour.ids = ids;
                behaviour.implicit_test = ImplicitTest::Lost;
            })
            .await;
            let made = rig.create().await;
            rig.sent();
            let task = Ricloud.start_test(&call(&rig.account), &made.id).await.unwrap();
            let bodies: Vec<String> = rig.sent().into_iter().map(|(_, _, body)| body).collect();
            assert_eq!(
                bodies,
                if refuse_test_body {
                    vec!["{}", ""]
                } else {
                    vec!["{}"]
                }
            );
            let mut polls = 0;
            while Ricloud.poll_test(&call(&rig.account), &task).await.unwrap() == TestProgress::Running {
                polls += 1;
                assert!(polls < 200, "the test never ends");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(rig.read(&made.id).await.unwrap().state, Some(State::Valid));
        }
    }
}

#[tokio::test]
async fn tasks_that_hang_or_vanish_say_so() {
    for (course, progress) in [
        (TaskCourse::Hangs, TestProgress::Running),
        (TaskCourse::Suspended, TestProgress::Running),
        (TaskCourse::Vanishes, TestProgress::Vanished),
    ] {
        let rig = Rig::new(|behaviour| behaviour.tasks = course).await;
        let made = rig.create().await;
        let task = Ricloud.start_test(&call(&rig.account), &made.id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(
            Ricloud.poll_test(&call(&rig.account), &task).await.unwrap(),
            progress,
            "{course:?}"
        );
    }
    let rig = Rig::new(|behaviour| behaviour.verdict = Verdict::AlwaysInvalid).await;
    let made = rig.create().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.read(&made.id).await.unwrap().state, Some(State::Invalid));
    rig.edit(|config| config.state = ConfigState::Deactivated);
    let answer = Ricloud.start_test(&call(&rig.account), &made.id).await;
    assert_eq!(failed(answer), (ErrorClass::Rejected, Effect::None));
    let answer = Ricloud
        .start_test(&call(&rig.account), &RemoteId("cfg-999".into()))
        .await;
    assert_eq!(failed(answer), (ErrorClass::TargetNotFound, Effect::None));
}

#[tokio::test]
async fn organisation_and_keys_use_a_config_until_they_stop() {
    for (ids, references) in [
        (IdStyle::Text, References::Id),
        (IdStyle::Number, References::Object),
    ] {
        let rig = Rig::new(|behaviour| {
            behaviour.ids = ids;
            behaviour.references = references;
            behaviour.implicit_test = ImplicitTest::Lost;
        })
        .await;
        rig.double()
            .add_account(RicloudAccount::new("other", "other-token", "demo"));
        let other = rig.double().upstream().external_key_id("other").unwrap();
        let (made, second) = (rig.create().await, rig.create().await);
        for config in rig.double().objects() {
            rig.double()
                .edit(&config.id.to_string(), |config| config.state = ConfigState::Valid);
        }
        let stored = rig.double().objects()[0].id;
        for usage in [Usage::Organisation, Usage::OwnKey, Usage::Key(other)] {
            let used = || match &usage {
                Usage::Organisation => rig.double().upstream().organisation_default("demo"),
                Usage::OwnKey => rig.double().upstream().key_config("demo"),
                Usage::Key(_) => rig.double().upstream().key_config("other"),
            };
            let (account, id) = (&rig.account, &made.id);
            assert!(!Ricloud.is_used(&call(account), id, &usage).await.unwrap());
            Ricloud.use_it(&call(account), id, &usage).await.unwrap();
            assert_eq!(used(), Some(stored), "{usage:?}");
            assert!(Ricloud.is_used(&call(account), id, &usage).await.unwrap());
            assert!(!Ricloud.is_used(&call(account), &second.id, &usage).await.unwrap());

            // Somebody else's choice is left alone.
            Ricloud
                .stop_using(&call(account), &second.id, &usage)
                .await
                .unwrap();
            assert_eq!(used(), Some(stored), "{usage:?}");
            Ricloud.stop_using(&call(account), id, &usage).await.unwrap();
            assert_eq!(used(), None, "{usage:?}");
            Ricloud.stop_using(&call(account), id, &usage).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_there_uses_nothing() {
    let rig = Rig::new(|_| {}).await;
    let made = rig.create().await;
    let usage = Usage::Key("key-999".into());
    assert!(
        !Ricloud
            .is_used(&call(&rig.account), &made.id, &usage)
            .await
            .unwrap()
    );
    Ricloud
        .stop_using(&call(&rig.account), &made.id, &usage)
        .await
        .unwrap();
    let error = Ricloud
        .use_it(&call(&rig.account), &made.id, &usage)
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::TargetNotFound, Effect::None)
    );
    assert!(error.to_string().contains("correct the target"), "{error}");
    // Not valid yet: refused.
    rig.edit(|config| config.state = ConfigState::New);
    let answer = Ricloud
        .use_it(&call(&rig.account), &made.id, &Usage::Organisation)
        .await;
    assert_eq!(failed(answer), (ErrorClass::Rejected, Effect::None));
}

#[tokio::test]
async fn wrong_credentials_and_missing_permission_are_told_apart() {
    let rig = Rig::new(|_| {}).await;
    rig.create().await;
    assert_eq!(rig.account.standing(), Standing::Accepted);
    let wrong = with_token(&rig.doubles, "not-the-token");
    for look in [
        Look::All { inactive: false },
        Look::ById(RemoteId("cfg-1".into())),
    ] {
        let answer = Ricloud.look(&call(&wrong), &look).await;
        assert_eq!(failed(answer), (ErrorClass::Unauthorized, Effect::None));
    }
    assert!(matches!(wrong.standing(), Standing::Refused { .. }));
    assert!(wrong.admit().is_err());

    let mut reader = RicloudAccount::new("reader", "reader-token", "demo");
    reader.read_only = true;
    rig.double().add_account(reader);
    let reader = with_token(&rig.doubles, "reader-token");
    assert_eq!(
        failed(Ricloud.create(&call(&reader), &want()).await),
        (ErrorClass::Forbidden, Effect::None)
    );
    assert!(
        !matches!(reader.standing(), Standing::Refused { .. }),
        "403 is the Webhook's"
    );
}

#[tokio::test]
async fn a_refusal_names_the_field() {
    let rig = Rig::new(|_| {}).await;
    let bad = Desired {
        url: "nonsense".into(),
        ..want()
    };
    let error = Ricloud.create(&call(&rig.account), &bad).await.unwrap_err();
    assert_eq!(
        (error.class, error.effect, error.status),
        (ErrorClass::Rejected, Effect::None, Some(400))
    );
    assert!(error.to_string().contains("because of: url"), "{error}");
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_may_have_happened() {
    for (fault, class, effect) in faults(true) {
        let rig = Rig::new(|behaviour| behaviour.implicit_test = ImplicitTest::Lost).await;
        let mut account = with_token(&rig.doubles, "demo-ricloud-token");
        account.timeout = Duration::from_secs(2);
        rig.double().set_fault(fault.clone().times(1));
        assert_eq!(
            failed(Ricloud.create(&call(&account), &want()).await),
            (class, effect),
            "{fault:?}"
        );
        assert_eq!(
            rig.double().counts().total,
            1,
            "a POST is never sent twice: {fault:?}"
        );
        if !rig.double().objects().is_empty() {
            assert_eq!(effect, Effect::Unknown, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn retry_after_makes_the_whole_account_wait() {
    let rig = Rig::new(|_| {}).await;
    assert_holds(rig.double(), &rig.account, async || {
        Ricloud.create(&call(&rig.account), &want()).await
    })
    .await;
}

#[tokio::test]
async fn those_who_ask_together_share_a_list() {
    let rig = Rig::new(|behaviour| behaviour.implicit_test = ImplicitTest::Lost).await;
    rig.create().await;
    rig.double().set_latency(Duration::from_millis(100));
    rig.sent();
    let look = Look::All { inactive: false };
    let at_once = call(&rig.account);
    let asked = (0..20).map(|_| Ricloud.look(&at_once, &look));
    assert!(futures::future::join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!(rig.sent().len(), 1);
}
