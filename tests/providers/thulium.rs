//! Thulium against its double.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use tokio::time::Instant;
use upstream_doubles::{
    Double, Doubles, Effect as Wire, Fault, Options, Paging, PasswordEcho, RefusalBody, RetryAfter,
    RouteSupport, Thulium as Upstream, ThuliumAccount, ThuliumBehaviour, ThuliumWebhook,
};
use webhook_operator::{
    api::provider::ProviderType,
    domain::{
        desired::{BasicAuth, Desired},
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    provider::{
        Account, Credentials, Effect, ErrorClass, Finding, Learned, Provider, ProviderError, Removal,
        Standing, thulium::Thulium,
    },
};

use crate::rig::{account, call};

struct Bench {
    doubles: Doubles,
    account: Account,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut ThuliumBehaviour)) -> Self {
        let doubles = Doubles::start(Options::demo()).await.unwrap();
        doubles.thulium().change_behaviour(change);
        let account = Self::account(&doubles, "demo-thulium-password");
        Self { doubles, account }
    }

    fn account(doubles: &Doubles, password: &str) -> Account {
        let credentials = Credentials::Thulium {
            username: "api_demo".into(),
            password: password.into(),
        };
        account(ProviderType::Thulium, &doubles.thulium().url(), credentials)
    }

    fn upstream(&self) -> &Double<Upstream> {
        self.doubles.thulium()
    }

    async fn create(&self) -> Result<Remote, ProviderError> {
        Thulium.create(&call(&self.account), &want()).await
    }

    async fn look(&self, id: &RemoteId) -> Option<Box<Remote>> {
        match Thulium
            .look(&call(&self.account), &Look::ById(id.clone()))
            .await
            .unwrap()
        {
            Seen::One(there) => there,
            other => panic!("{other:?}"),
        }
    }

    async fn all(&self) -> Result<usize, ProviderError> {
        match Thulium
            .look(&call(&self.account), &Look::All { inactive: false })
            .await?
        {
            Seen::All(listed) => Ok(listed.len()),
            other => panic!("{other:?}"),
        }
    }

    async fn update(&self, id: &RemoteId, want: &Desired) -> Result<Remote, ProviderError> {
        Thulium.update(&call(&self.account), id, None, want).await
    }

    async fn remove(&self, id: &RemoteId) -> Result<Removal, ProviderError> {
        Thulium.remove(&call(&self.account), id, None).await
    }

    fn knows(&self, finding: Finding) -> Option<Learned> {
        self.account.findings.get(finding, self.account.clock.now())
    }

    fn fails(&self, fault: Fault) {
        self.upstream().clear_faults();
        self.upstream().set_fault(fault);
    }

    /// Methods and statuses of the requests since the last time.
    fn answered(&self) -> Vec<(String, u16)> {
        let seen = self.upstream().requests().into_iter();
        let seen = seen
            .map(|seen| (seen.method, seen.status.unwrap_or_default()))
            .collect();
        self.upstream().clear_requests();
        seen
    }

    /// So many webhooks of other people.
    fn fill(&self, count: usize) {
        for number in 0..count {
            self.upstream().upstream().insert(ThuliumWebhook {
                id: 0,
                actions: vec!["TICKET_CREATED".into()],
                subscription_url: format!("https://other.example/{number}"),
                http_auth_user: "other".into(),
                http_auth_password: "c4nary".into(),
            });
        }
    }
}

/// The example of the public page.
fn want() -> Desired {
    Desired {
        url: "https://example.pl".into(),
        events: BTreeSet::from(["CHAT_CONVERSATION_CREATED".to_owned()]),
        active: true,
        ..Desired::default()
    }
}

fn with_login() -> Desired {
    let auth = BasicAuth {
        username: "hookuser".into(),
        password: "hookpass".into(),
    };
    Desired {
        basic_auth: Some(auth),
        ..want()
    }
}

fn changed() -> Desired {
    let events = ["TICKET_CREATED", "CUSTOMER_UPDATED"].map(str::to_owned);
    Desired {
        url: "https://b.example/".into(),
        events: events.into(),
        ..want()
    }
}

fn answer(method: &str, status: u16) -> (String, u16) {
    (method.to_owned(), status)
}

#[tokio::test]
async fn the_example_of_the_page_arrives_as_written_and_is_listed() {
    for created_status in [200, 201] {
        let bench = Bench::new(|behaviour| behaviour.created_status = created_status).await;
        let made = bench.create().await.unwrap();
        let seen = bench.upstream().requests().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.path.as_str()),
            ("POST", "/api/webhooks")
        );
        assert_eq!(
            seen.body,
            r#"{"actions":["CHAT_CONVERSATION_CREATED"],"subscription_url":"https://example.pl"}"#
        );
        let there = bench.look(&made.id).await.unwrap();
        assert_eq!(*there, made);
        assert!(differences(&want(), &there).is_empty());
        assert_eq!(bench.account.standing(), Standing::Accepted);
    }
}

#[tokio::test]
async fn every_page_of_the_list_is_read_and_no_password_kept() {
    for (paging, requests) in [(Paging::LimitOffset, 2), (Paging::Ignored, 1)] {
        let bench = Bench::new(|behaviour| behaviour.paging = paging).await;
        bench.fill(250);
        let seen = Thulium
            .look(&call(&bench.account), &Look::All { inactive: false })
            .await
            .unwrap();
        let Seen::All(listed) = &seen else {
            panic!("{seen:?}")
        };
        let ids: BTreeSet<_> = listed.iter().map(|there| &there.id).collect();
        assert_eq!((listed.len(), ids.len()), (250, 250));
        assert!(!format!("{seen:?}").contains("c4nary"));
        assert_eq!(bench.answered().len(), requests);
        assert!(bench.look(&RemoteId("250".into())).await.is_some());
    }
    let bench = Bench::new(|_| {}).await;
    bench.fill(2150);
    assert_eq!(bench.all().await.unwrap(), 2150);
    // Exactly one page: whether it is all of them must be asked.
    for paging in [Paging::LimitOffset, Paging::Ignored] {
        let bench = Bench::new(|behaviour| behaviour.paging = paging).await;
        bench.fill(100);
        assert_eq!(bench.all().await.unwrap(), 100);
        assert!(bench.answered().len() <= 3);
    }
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_list() {
    let bench = Bench::new(|_| {}).await;
    bench.fill(3);
    let call = call(&bench.account);
    let asked = (1..=3).map(|id| {
        let look = Look::ById(RemoteId(id.to_string()));
        async move { Thulium.look(&call, &look).await.unwrap() }
    });
    for seen in join_all(asked).await {
        assert!(matches!(seen, Seen::One(Some(_))));
    }
    assert_eq!(bench.answered().len(), 1);
}

#[tokio::test]
async fn a_change_is_checked_by_the_list() {
    for password_echo in [PasswordEcho::Clear, PasswordEcho::Masked, PasswordEcho::Empty] {
        let bench = Bench::new(|behaviour| {
            behaviour.password_echo = password_echo;
            behaviour.sorted_actions = true;
        })
        .await;
        let made = bench.create().await.unwrap();
        bench.update(&made.id, &with_login()).await.unwrap();
        let stored = || {
            bench
                .upstream()
                .upstream()
                .webhook(made.id.0.parse().unwrap())
                .unwrap()
        };
        assert_eq!(
            (
                stored().http_auth_user.as_str(),
                stored().http_auth_password.reveal()
            ),
            ("hookuser", "hookpass")
        );
        // No longer wanted: cleared, not left as it was.
        let now = bench.update(&made.id, &changed()).await.unwrap();
        assert!(differences(&changed(), &now).is_empty());
        assert!(stored().http_auth_user.is_empty() && stored().http_auth_password.is_empty());
        assert_eq!(bench.upstream().objects().len(), 1);
        assert_eq!(bench.knows(Finding::ThuliumUpdate), Some(Learned::Supported));
    }
}

#[tokio::test]
async fn a_missing_change_route_is_learned_and_not_asked_again() {
    for (update, status) in [
        (RouteSupport::NotFound, 404),
        (RouteSupport::MethodNotAllowed, 405),
    ] {
        for refusal_body in [RefusalBody::Json, RefusalBody::Html] {
            let bench = Bench::new(|behaviour| {
                behaviour.update = update;
                behaviour.refusal_body = refusal_body;
            })
            .await;
            let made = bench.create().await.unwrap();
            bench.answered();
            for _ in 0..2 {
                let error = bench.update(&made.id, &changed()).await.unwrap_err();
                assert_eq!(
                    (error.class, error.effect),
                    (ErrorClass::Unsupported, Effect::None)
                );
                assert!(error.message.contains(&format!("webhook {}", made.id)), "{error}");
            }
            assert_eq!(bench.answered(), [answer("PUT", status), answer("GET", 200)]);
            assert_eq!(bench.knows(Finding::ThuliumUpdate), Some(Learned::Unsupported));
        }
    }
    let bench = Bench::new(|_| {}).await;
    let error = bench
        .update(&RemoteId("77".into()), &changed())
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TargetNotFound);
    assert_eq!(
        bench.knows(Finding::ThuliumUpdate),
        None,
        "the webhook was missing, not the route"
    );
}

#[tokio::test]
async fn a_change_that_is_answered_and_not_made_is_noticed() {
    let bench = Bench::new(|_| {}).await;
    let made = bench.create().await.unwrap();
    bench.fails(Fault::new(Wire::Html).method("PUT").handled(false));
    let error = bench.update(&made.id, &changed()).await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Unexpected, Effect::Unknown)
    );
}

#[tokio::test]
async fn a_removal_is_checked_by_the_list_until_it_is_trusted() {
    let bench = Bench::new(|_| {}).await;
    let (first, second) = (bench.create().await.unwrap().id, bench.create().await.unwrap().id);
    bench.answered();
    assert_eq!(bench.remove(&first).await.unwrap(), Removal::Removed);
    assert_eq!(bench.remove(&second).await.unwrap(), Removal::Removed);
    assert_eq!(
        bench.answered(),
        [answer("DELETE", 204), answer("GET", 200), answer("DELETE", 204)]
    );
    assert_eq!(bench.remove(&second).await.unwrap(), Removal::AlreadyGone);
    assert!(bench.upstream().objects().is_empty());
    assert_eq!(bench.knows(Finding::ThuliumDelete), Some(Learned::Supported));
}

#[tokio::test]
async fn a_missing_removal_route_leaves_it_in_place_and_is_tried_each_time() {
    for (delete, status) in [
        (RouteSupport::NotFound, 404),
        (RouteSupport::MethodNotAllowed, 405),
    ] {
        let bench = Bench::new(|behaviour| behaviour.delete = delete).await;
        let id = bench.create().await.unwrap().id;
        bench.answered();
        assert_eq!(bench.remove(&id).await.unwrap(), Removal::LeftInPlace);
        assert_eq!(bench.answered(), [answer("DELETE", status), answer("GET", 200)]);
        assert_eq!(bench.knows(Finding::ThuliumDelete), Some(Learned::Unsupported));
        bench
            .upstream()
            .change_behaviour(|behaviour| behaviour.delete = RouteSupport::Supported);
        assert_eq!(bench.remove(&id).await.unwrap(), Removal::Removed);
        assert_eq!(bench.knows(Finding::ThuliumDelete), Some(Learned::Supported));
    }
}

#[tokio::test]
async fn nothing_undocumented_is_called_where_that_is_denied() {
    let mut bench = Bench::new(|_| {}).await;
    bench.account.undocumented = false;
    let id = bench.create().await.unwrap().id;
    bench.answered();
    assert_eq!(
        bench.update(&id, &changed()).await.unwrap_err().class,
        ErrorClass::Unsupported
    );
    assert_eq!(bench.remove(&id).await.unwrap(), Removal::LeftInPlace);
    assert!(bench.answered().is_empty());
    assert_eq!(bench.upstream().objects().len(), 1);
}

#[tokio::test]
async fn wrong_credentials_missing_permissions_and_refused_content() {
    let mut bench = Bench::new(|behaviour| behaviour.invalid_status = 422).await;
    let error = bench
        .update(
            &RemoteId("1".into()),
            &Desired {
                url: "x".into(),
                ..want()
            },
        )
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TargetNotFound);
    let error = Thulium
        .create(
            &call(&bench.account),
            &Desired {
                url: "x".into(),
                ..want()
            },
        )
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.status, error.effect),
        (ErrorClass::Rejected, Some(422), Effect::None)
    );
    assert!(
        error.message.contains("url") && error.message.contains("code 100400"),
        "{error}"
    );

    let reader = ThuliumAccount {
        permissions: ["GET webhooks".to_owned()].into(),
        ..ThuliumAccount::new("api_demo", "demo-thulium-password")
    };
    bench.upstream().add_account(reader);
    assert_eq!(bench.all().await.unwrap(), 0);
    let error = bench.create().await.unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Forbidden, Some(403)));
    assert_eq!(
        bench.account.standing(),
        Standing::Accepted,
        "it is the Webhook's, not the provider's"
    );

    bench.account = Bench::account(&bench.doubles, "c4nary");
    let error = bench.all().await.unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Unauthorized, Some(401)));
    assert!(matches!(bench.account.standing(), Standing::Refused { .. }));
    assert!(!format!("{error} {error:?} {:?}", bench.account.credentials).contains("c4nary"));
}

#[tokio::test]
async fn a_base_url_without_api_is_named() {
    let mut bench = Bench::new(|_| {}).await;
    bench.account.base = bench.account.base.trim_end_matches("/api").to_owned();
    let error = bench.all().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::TargetNotFound);
    assert!(error.message.contains("must end in /api"), "{error}");
}

#[tokio::test]
async fn what_the_wire_does_to_a_post_and_to_a_list() {
    let bench = Bench::new(|_| {}).await;
    let mut made = 0;
    for (wire, class, makes) in [
        (Wire::ResetBefore, ErrorClass::Unreachable, 0),
        (Wire::ResetAfter, ErrorClass::Unreachable, 1),
        (Wire::Truncate, ErrorClass::Unreachable, 1),
        (Wire::MalformedJson, ErrorClass::Unexpected, 1),
        (Wire::Html, ErrorClass::Unexpected, 1),
        (Wire::HugeBody { bytes: 3 << 20 }, ErrorClass::Unexpected, 1),
    ] {
        bench.fails(Fault::new(wire.clone()).method("POST").times(1));
        let error = bench.create().await.unwrap_err();
        assert_eq!(
            (error.class, error.effect),
            (class, Effect::Unknown),
            "{wire:?}: {error}"
        );
        made += makes;
        assert_eq!(
            bench.all().await.unwrap(),
            made,
            "{wire:?}: the list tells what became of it"
        );
        bench.fails(Fault::new(wire.clone()).method("GET").times(1));
        let error = bench.all().await.unwrap_err();
        assert_eq!(
            (error.class, error.effect),
            (class, Effect::None),
            "{wire:?}: {error}"
        );
    }
    bench.fails(Fault::new(Wire::HugeBody { bytes: 33 << 20 }).method("GET"));
    assert_eq!(bench.all().await.unwrap_err().class, ErrorClass::Unexpected);
    for (status, class, effect) in [
        (500, ErrorClass::Unreachable, Effect::Unknown),
        (302, ErrorClass::Unexpected, Effect::Unknown),
        (409, ErrorClass::AlreadyExists, Effect::None),
        (429, ErrorClass::RateLimited, Effect::None),
    ] {
        bench.fails(Fault::status(status));
        let error = bench.create().await.unwrap_err();
        assert_eq!((error.class, error.effect), (class, effect), "{status}");
    }
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout_and_may_have_had_its_effect() {
    let mut bench = Bench::new(|_| {}).await;
    bench.account.timeout = Duration::from_millis(200);
    bench.fails(Fault::delay(Duration::from_secs(20)).method("POST"));
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Timeout, Effect::Unknown)
    );
}

#[tokio::test]
async fn retry_after_holds_everybody() {
    let bench = Bench::new(|_| {}).await;
    bench.fails(Fault::retry_after(429, RetryAfter::Seconds(2)).times(1));
    let began = Instant::now();
    let error = bench.all().await.unwrap_err();
    assert_eq!(
        (error.class, error.retry_after),
        (ErrorClass::RateLimited, Some(Duration::from_secs(2)))
    );
    bench.create().await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
}
