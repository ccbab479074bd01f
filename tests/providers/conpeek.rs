//! Conpeek against its double.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::time::Duration;

use tokio::time::Instant;
use upstream_doubles::{
    BodyStyle as Taken, Conpeek as Upstream, ConpeekAccount, ConpeekBehaviour, Double, Doubles,
    Effect as Wire, Fault, FlagEcho, Options, OtherStyle, RetryAfter, RouteSupport, Success,
};
use webhook_operator::{
    api::provider::{BodyStyle, ProviderType},
    domain::{
        desired::{Desired, Header, Retry},
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    provider::{
        Account, Credentials, Effect, ErrorClass, Finding, Learned, Provider, ProviderError, Removal,
        Standing, conpeek::Conpeek,
    },
};

use crate::rig::{account, call};

struct Bench {
    doubles: Doubles,
    account: Account,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut ConpeekBehaviour)) -> Self {
        let doubles = Doubles::start(Options::demo()).await.unwrap();
        doubles.conpeek().change_behaviour(change);
        // Taken after the change: the path of the base URL is one of the switches.
        let account = Self::account(&doubles, "demo-conpeek-key");
        Self { doubles, account }
    }

    fn account(doubles: &Doubles, api_key: &str) -> Account {
        let credentials = Credentials::Conpeek {
            api_key: api_key.into(),
        };
        account(ProviderType::Conpeek, &doubles.conpeek().url(), credentials)
    }

    fn upstream(&self) -> &Double<Upstream> {
        self.doubles.conpeek()
    }

    async fn create(&self) -> Result<Remote, ProviderError> {
        Conpeek.create(&call(&self.account), &want()).await
    }

    async fn update(&self, want: &Desired) -> Result<Remote, ProviderError> {
        Conpeek.update(&call(&self.account), &nine(), None, want).await
    }

    async fn look(&self) -> Result<Seen, ProviderError> {
        Conpeek.look(&call(&self.account), &Look::ById(nine())).await
    }

    fn knows(&self, finding: Finding) -> Option<Learned> {
        self.account.findings.get(finding, self.account.clock.now())
    }

    fn fails(&self, fault: Fault) {
        self.upstream().clear_faults();
        self.upstream().set_fault(fault);
    }

    /// Statuses of the requests since the last time.
    fn answered(&self) -> Vec<(String, Option<u16>)> {
        let seen = self
            .upstream()
            .requests()
            .into_iter()
            .map(|seen| (seen.method, seen.status))
            .collect();
        self.upstream().clear_requests();
        seen
    }

    /// The URL that is configured.
    fn stored(&self) -> Option<String> {
        self.upstream()
            .upstream()
            .webhook(9)
            .and_then(|webhook| webhook.url)
    }
}

fn nine() -> RemoteId {
    RemoteId("9".into())
}

/// The example of the public page.
fn want() -> Desired {
    Desired {
        target: Some("9".into()),
        url: "http://example.xyz/poster.php".into(),
        active: true,
        headers: vec![Header {
            name: "appHash".into(),
            value: "abc".into(),
        }],
        ..Desired::default()
    }
}

fn put(status: u16) -> (String, Option<u16>) {
    ("PUT".to_owned(), Some(status))
}

fn get(status: u16) -> (String, Option<u16>) {
    ("GET".to_owned(), Some(status))
}

#[tokio::test]
async fn the_example_of_the_page_arrives_as_written_and_is_read_back() {
    let bench = Bench::new(|behaviour| behaviour.path_prefix = "/tenant/a".into()).await;
    bench.create().await.unwrap();
    let seen = bench.upstream().requests().pop().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("PUT", "/tenant/a/application/9/webhook")
    );
    assert_eq!(
        seen.body,
        r#"{"url":"http://example.xyz/poster.php","retry_enabled":1,"retry_config":{"retry_value":10,"max_retries":2,"backoff_type":"multiplier","backoff_value":2},"headers":{"appHash":"abc"}}"#
    );
    assert_eq!(
        seen.headers.get("content-type").map(String::as_str),
        Some("application/json")
    );
    let Ok(Seen::One(Some(there))) = bench.look().await else {
        panic!("not seen")
    };
    assert_eq!(there.id, nine());
    assert!(differences(&want(), &there).is_empty());
    assert_eq!(bench.account.standing(), Standing::Accepted);
}

#[tokio::test]
async fn a_change_replaces_everything() {
    let bench = Bench::new(|_| {}).await;
    bench.create().await.unwrap();
    let retry = Retry {
        enabled: false,
        initial_delay: Duration::from_millis(2500),
        max_retries: 7,
        factor: 3,
    };
    let changed = Desired {
        url: "https://b.example/x?y=ż".into(),
        headers: Vec::new(),
        retry: Some(retry),
        ..want()
    };
    bench.update(&changed).await.unwrap();
    let stored = bench.upstream().upstream().webhook(9).unwrap();
    let config = stored.retry_config.unwrap();
    assert_eq!(
        (stored.url.as_deref(), stored.retry_enabled),
        (Some("https://b.example/x?y=ż"), Some(false))
    );
    assert_eq!((config.retry_value, config.max_retries), (3, 7));
    assert!(stored.headers.is_empty());
    bench
        .upstream()
        .edit("9", |webhook| webhook.url = Some("https://else.example/".into()));
    let Ok(Seen::One(Some(there))) = bench.look().await else {
        panic!("not seen")
    };
    assert_eq!(differences(&changed, &there), ["url"]);
}

#[tokio::test]
async fn each_form_of_the_echo_is_understood() {
    for flag_echo in [FlagEcho::Integer, FlagEcho::Boolean, FlagEcho::Text] {
        for wrapped_answer in [true, false] {
            let bench = Bench::new(|behaviour| {
                behaviour.flag_echo = flag_echo;
                behaviour.wrapped_answer = wrapped_answer;
            })
            .await;
            bench.create().await.unwrap();
            assert!(
                matches!(bench.look().await, Ok(Seen::One(Some(_)))),
                "{flag_echo:?}"
            );
            assert_eq!(bench.answered(), [put(200), get(200)]);
        }
    }
}

#[tokio::test]
async fn the_body_style_is_learned_and_learned_anew() {
    for other_style in [OtherStyle::Ignored, OtherStyle::Refused] {
        let bench = Bench::new(|behaviour| {
            behaviour.body_style = Taken::Wrapped;
            behaviour.other_style = other_style;
        })
        .await;
        let other = if other_style == OtherStyle::Ignored {
            200
        } else {
            400
        };
        bench.create().await.unwrap();
        assert_eq!(bench.answered(), [put(other), put(200)]);
        assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Wrapped));
        assert_eq!(bench.stored(), Some(want().url));
        bench
            .update(&Desired {
                url: "https://b.example/".into(),
                ..want()
            })
            .await
            .unwrap();
        assert_eq!(bench.answered(), [put(200)]);

        bench
            .upstream()
            .change_behaviour(|behaviour| behaviour.body_style = Taken::Flat);
        bench.update(&want()).await.unwrap();
        assert_eq!(bench.answered(), [put(other), put(200)]);
        assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Flat));
    }
}

#[tokio::test]
async fn a_style_that_is_set_is_not_left() {
    let mut bench = Bench::new(|behaviour| behaviour.body_style = Taken::Wrapped).await;
    bench.account.body_style = BodyStyle::Flat;
    let error = bench.create().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unexpected);
    assert_eq!((bench.answered(), bench.stored()), (vec![put(200)], None));
    bench.account.body_style = BodyStyle::Wrapped;
    bench.create().await.unwrap();
    assert_eq!(bench.answered(), [put(200)]);
}

#[tokio::test]
async fn accepted_without_success_is_no_success() {
    let bench = Bench::new(|behaviour| behaviour.success = Success::False).await;
    assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Rejected);
    bench
        .upstream()
        .change_behaviour(|behaviour| behaviour.success = Success::Absent);
    assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Unexpected);
    assert_eq!(bench.stored(), None);
}

#[tokio::test]
async fn what_is_refused_is_said_to_be() {
    let bench = Bench::new(|_| {}).await;
    let error = bench
        .update(&Desired {
            url: "not a url".into(),
            ..want()
        })
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.status, error.effect),
        (ErrorClass::Rejected, Some(400), Effect::None)
    );

    let bench = Bench::new(|behaviour| behaviour.any_application = false).await;
    assert!(
        matches!(bench.look().await, Ok(Seen::CannotKnow)),
        "a 404 to GET says too little"
    );
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.status),
        (ErrorClass::TargetNotFound, Some(404))
    );
    bench.upstream().upstream().add_application(9);
    bench.create().await.unwrap();
    assert!(matches!(bench.look().await, Ok(Seen::One(Some(_)))));
    bench.upstream().upstream().remove_application(9);
    assert!(
        matches!(bench.look().await, Ok(Seen::One(None))),
        "the route is known to work"
    );
}

#[tokio::test]
async fn reading_is_learned_to_be_missing() {
    for (get_route, status) in [
        (RouteSupport::NotFound, 404),
        (RouteSupport::MethodNotAllowed, 405),
    ] {
        let bench = Bench::new(|behaviour| behaviour.get = get_route).await;
        bench.create().await.unwrap();
        for _ in 0..2 {
            assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
        }
        assert_eq!(bench.answered(), [put(200), get(status)]);
        assert_eq!(bench.knows(Finding::ConpeekRead), Some(Learned::Unsupported));
    }
    let mut bench = Bench::new(|_| {}).await;
    bench.account.undocumented = false;
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
    assert!(bench.answered().is_empty());
}

#[tokio::test]
async fn an_application_that_nobody_configured_shows_an_empty_url() {
    let bench = Bench::new(|_| {}).await;
    let Ok(Seen::One(Some(there))) = bench.look().await else {
        panic!("not seen")
    };
    assert_eq!(there.url, "");
}

#[tokio::test]
async fn a_wrong_key_is_told_from_a_missing_permission() {
    for wrong_key_status in [403, 401] {
        let mut bench = Bench::new(|behaviour| behaviour.wrong_key_status = wrong_key_status).await;
        bench.account = Bench::account(&bench.doubles, "c4nary");
        let error = bench.create().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unauthorized);
        assert!(matches!(bench.account.standing(), Standing::Refused { .. }));
        assert!(bench.account.admit().is_err(), "the whole provider waits");
        assert!(!format!("{error} {error:?} {:?}", bench.account.credentials).contains("c4nary"));
    }
    let bench = Bench::new(|_| {}).await;
    let limited = ConpeekAccount {
        applications: Some([9].into()),
        ..ConpeekAccount::new("demo", "demo-conpeek-key")
    };
    bench.upstream().add_account(limited);
    bench.create().await.unwrap();
    let eight = Desired {
        target: Some("8".into()),
        ..want()
    };
    assert_eq!(
        Conpeek
            .create(&call(&bench.account), &eight)
            .await
            .unwrap_err()
            .class,
        ErrorClass::Forbidden
    );
    assert_eq!(bench.account.standing(), Standing::Accepted);
}

#[tokio::test]
async fn nothing_is_removed() {
    let bench = Bench::new(|_| {}).await;
    bench.create().await.unwrap();
    bench.upstream().clear_requests();
    let removal = Conpeek
        .remove(&call(&bench.account), &nine(), Some(&want()))
        .await
        .unwrap();
    assert_eq!(removal, Removal::LeftInPlace);
    assert!(bench.answered().is_empty());
    assert!(bench.stored().is_some());
}

#[tokio::test]
async fn what_the_wire_does_to_a_put() {
    let bench = Bench::new(|_| {}).await;
    for (wire, class) in [
        (Wire::ResetBefore, ErrorClass::Unreachable),
        (Wire::ResetAfter, ErrorClass::Unreachable),
        (Wire::Truncate, ErrorClass::Unreachable),
        (Wire::MalformedJson, ErrorClass::Unexpected),
        (Wire::Html, ErrorClass::Unexpected),
        (Wire::HugeBody { bytes: 3 << 20 }, ErrorClass::Unexpected),
    ] {
        bench.fails(Fault::new(wire.clone()));
        let error = bench.create().await.unwrap_err();
        assert_eq!(
            (error.class, error.effect),
            (class, Effect::Unknown),
            "{wire:?}: {error}"
        );
    }
    for (status, class, effect) in [
        (500, ErrorClass::Unreachable, Effect::Unknown),
        (503, ErrorClass::Unreachable, Effect::Unknown),
        (302, ErrorClass::Unexpected, Effect::Unknown),
        (429, ErrorClass::RateLimited, Effect::None),
    ] {
        bench.fails(Fault::status(status));
        let error = bench.create().await.unwrap_err();
        assert_eq!((error.class, error.effect), (class, effect), "{status}");
    }
    // Odd, and all the same understood.
    for wire in [
        Wire::ContentType {
            value: "text/html".into(),
        },
        Wire::Drip {
            chunk_bytes: 40,
            milliseconds: 1,
        },
    ] {
        bench.fails(Fault::new(wire));
        bench.create().await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout_and_may_have_had_its_effect() {
    let mut bench = Bench::new(|_| {}).await;
    bench.account.timeout = Duration::from_millis(200);
    bench.fails(Fault::delay(Duration::from_secs(20)));
    let began = Instant::now();
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Timeout, Effect::Unknown)
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn retry_after_holds_everybody() {
    let bench = Bench::new(|_| {}).await;
    bench.fails(Fault::retry_after(429, RetryAfter::Seconds(2)).times(1));
    let began = Instant::now();
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.retry_after),
        (ErrorClass::RateLimited, Some(Duration::from_secs(2)))
    );
    bench.look().await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
}
