//! Thulium: builders and parsers on golden bodies, and the order of calls against scripted answers. The same over
//! real HTTP is in `tests/providers`.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use futures::future::BoxFuture;

use super::*;
use crate::{
    api::provider::ProviderType,
    clock::Clock,
    domain::desired::BasicAuth,
    net::{HttpError, Request},
    provider::{NoFence, NoObserver, Standing, Transport},
};

/// Request and answer of the public page.
const GOLDEN: &str = r#"{"actions":["CHAT_CONVERSATION_CREATED"],"subscription_url":"https://example.pl"}"#;
const GOLDEN_ANSWER: &str = r#"{"id":5,"actions":["CHAT_CONVERSATION_CREATED"],"subscription_url":"https://example.pl","http_auth_user":"","http_auth_password":""}"#;

fn golden() -> Desired {
    Desired {
        url: "https://example.pl".into(),
        events: BTreeSet::from(["CHAT_CONVERSATION_CREATED".to_owned()]),
        active: true,
        ..Desired::default()
    }
}

fn five() -> RemoteId {
    RemoteId("5".into())
}

/// Answers in order; remembers what was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Response>>,
    asked: Mutex<Vec<String>>,
}

impl Transport for Script {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let query = request
            .url()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {}{query}", request.method(), request.url().path()));
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .expect("no call more than scripted");
        Box::pin(async { Ok(answer) })
    }
}

struct Bench {
    script: Arc<Script>,
    account: Account,
}

impl Bench {
    fn new(answers: &[(u16, &str)]) -> Self {
        let script = Arc::new(Script::default());
        let credentials = Credentials::Thulium {
            username: "api_demo".into(),
            password: "s3cr3t pass".into(),
        };
        let (transport, rate) = (Arc::clone(&script) as Arc<dyn Transport>, (1000, 1000, 10));
        let base = "https://demo.thulium.test/api";
        let account = Account::new(
            ProviderType::Thulium,
            base,
            credentials,
            rate,
            transport,
            Clock::system(),
        );
        let bench = Self { script, account };
        bench.then(answers);
        bench
    }

    fn then(&self, answers: &[(u16, &str)]) {
        let mut script = self.script.answers.lock().unwrap();
        script.extend(
            answers
                .iter()
                .map(|(status, body)| Response::new(*status, Vec::new(), *body)),
        );
    }

    fn call(&self) -> Call<'_> {
        Call {
            account: &self.account,
            fence: &NoFence,
            observer: &NoObserver,
            admitted: Instant::now(),
            fresh_after: Instant::now(),
            attempt: 1,
            not_after: None,
        }
    }

    async fn all(&self) -> Result<Vec<u64>, ProviderError> {
        match Thulium.look(&self.call(), &Look::All { inactive: true }).await? {
            Seen::All(listed) => Ok(listed.iter().map(|there| there.id.0.parse().unwrap()).collect()),
            other => panic!("{other:?}"),
        }
    }

    async fn update(&self) -> Result<Remote, ProviderError> {
        Thulium.update(&self.call(), &five(), None, &golden()).await
    }

    async fn remove(&self) -> Result<Removal, ProviderError> {
        Thulium.remove(&self.call(), &five(), None).await
    }

    fn knows(&self, finding: Finding) -> Option<Learned> {
        self.account.findings.get(finding, self.account.clock.now())
    }

    /// What was asked since the last time; all answers must be used up.
    fn asked(&self) -> Vec<String> {
        assert!(
            self.script.answers.lock().unwrap().is_empty(),
            "an answer was not asked for"
        );
        std::mem::take(&mut *self.script.asked.lock().unwrap())
    }
}

/// A list of webhooks with these ids.
fn listed(ids: impl IntoIterator<Item = u64>) -> String {
    let hooks: Vec<_> = ids
        .into_iter()
        .map(|id| GOLDEN_ANSWER.replace(":5,", &format!(":{id},")))
        .collect();
    format!("[{}]", hooks.join(","))
}

const LIST: &str = "GET /api/webhooks";
const PUT: &str = "PUT /api/webhooks/5";
const DELETE: &str = "DELETE /api/webhooks/5";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_request_of_the_page_byte_for_byte() {
    let bench = Bench::new(&[]);
    let body = body(Operation::Create, &golden(), Login::OmittedIfNone).unwrap();
    let exchange = request(&bench.account, Operation::Create, COLLECTION.into(), Some(body)).unwrap();
    assert_eq!(
        (exchange.method, exchange.path.as_str()),
        (Method::Post, "/webhooks")
    );
    assert_eq!(text(exchange.body.unwrap()), GOLDEN);
    let headers: Vec<_> = exchange
        .headers
        .iter()
        .map(|(name, value)| (*name, value.expose()))
        .collect();
    assert_eq!(
        headers,
        [
            ("Authorization", "Basic YXBpX2RlbW86czNjcjN0IHBhc3M="),
            ("Accept", "application/json"),
            ("Content-Type", "application/json; charset=utf-8"),
        ]
    );
    let list = request(&bench.account, Operation::List, COLLECTION.into(), None).unwrap();
    assert_eq!(
        (list.method, list.limit, list.headers.len()),
        (Method::Get, Limit::List, 2)
    );
}

#[test]
fn the_login_is_left_out_on_create_and_emptied_on_update() {
    let empty = body(Operation::Update, &golden(), Login::EmptyIfNone).unwrap();
    assert_eq!(
        text(empty),
        r#"{"actions":["CHAT_CONVERSATION_CREATED"],"subscription_url":"https://example.pl","http_auth_user":"","http_auth_password":""}"#
    );
    let auth = BasicAuth {
        username: "hookuser".into(),
        password: "hookpass".into(),
    };
    let want = Desired {
        basic_auth: Some(auth),
        ..golden()
    };
    let sent = text(body(Operation::Create, &want, Login::OmittedIfNone).unwrap());
    assert!(
        sent.ends_with(r#","http_auth_user":"hookuser","http_auth_password":"hookpass"}"#),
        "{sent}"
    );
}

#[test]
fn the_answer_of_the_page_is_understood_and_its_password_dropped() {
    let remote = created(GOLDEN_ANSWER.as_bytes(), &golden()).unwrap();
    assert_eq!(remote.id, five());
    assert_eq!(remote.basic_auth_user.as_deref(), Some(""));
    assert!(differences(&golden(), &remote).is_empty());
    for (body, id) in [
        (r#"{"id":"17"}"#, "17"),
        (
            r#" {"id":17,"actions":null,"subscription_url":null,"new":[{"deep":{}}]}"#,
            "17",
        ),
        (r#"{"data":{"id":17}}"#, "17"),
        (r#"{"id":18446744073709551615}"#, "18446744073709551615"),
    ] {
        let remote = created(body.as_bytes(), &golden()).unwrap();
        assert_eq!(
            (remote.id.0.as_str(), remote.url.as_str()),
            (id, "https://example.pl"),
            "{body}"
        );
        assert!(
            differences(&golden(), &remote).is_empty(),
            "what is not shown is no difference: {body}"
        );
    }
}

#[test]
fn an_answer_without_a_whole_id_leaves_the_outcome_open() {
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "[5]",
        "{}",
        "<html>c4nary</html>",
        r#"{"id":-5}"#,
        r#"{"id":5.5}"#,
        r#"{"id":5.0}"#,
        r#"{"id":"+5"}"#,
        r#"{"id":""}"#,
        r#"{"id":"c4nary"}"#,
        r#"{"id":null}"#,
        r#"{"id":true}"#,
        r#"{"id":18446744073709551616}"#,
        r#"{"id":5,"id":6}"#,
        r#"{"id":5,"actions":"c4nary"}"#,
        r#"{"id":5,"actions":[1]}"#,
        r#"{"id":5,"subscription_url":1}"#,
        deep.as_str(),
    ] {
        let error = created(body.as_bytes(), &golden()).unwrap_err();
        assert_eq!(
            (error.class, error.effect),
            (ErrorClass::Unexpected, Effect::Unknown),
            "{body:.60}"
        );
        assert!(!format!("{error} {error:?}").contains("c4nary"), "{error:?}");
    }
    let not_utf8 = [br#"{"id":5,"note":""#.as_slice(), &[0xff], br#""}"#].concat();
    assert_eq!(
        created(&not_utf8, &golden()).unwrap_err().class,
        ErrorClass::Unexpected
    );
}

#[test]
fn lists_of_another_shape_are_unexpected() {
    let deep = format!(r#"[{{"id":{}"#, "[".repeat(100_000));
    for body in [
        "",
        "null",
        "{}",
        "5",
        "[5]",
        r#"[{"subscription_url":"x"}]"#,
        r#"{"data":{}}"#,
        r#"{"data":[],"data":[]}"#,
        &deep,
    ] {
        let error = parse::<Hooks>(Operation::List, body.as_bytes()).err().unwrap();
        assert_eq!(
            (error.class, error.effect),
            (ErrorClass::Unexpected, Effect::None),
            "{body:.60}"
        );
    }
    assert!(parse::<Hooks>(Operation::List, b"[]").unwrap().0.is_empty());
    assert_eq!(
        parse::<Hooks>(Operation::List, br#"{"total":1,"data":[{"id":1}]}"#)
            .unwrap()
            .0
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_does_not_show_what_it_is_about_spoils_the_list() {
    let shown = r#"{"id":1,"actions":["X"],"subscription_url":"https://a/"}"#;
    for (other, listed) in [
        (r#"{"id":2,"actions":null,"subscription_url":null}"#, true),
        (r#"{"id":2,"actions":["X"]}"#, false),
        (r#"{"id":2,"subscription_url":"https://a/"}"#, false),
    ] {
        let bench = Bench::new(&[(200, &format!("[{shown},{other}]"))]);
        match bench.all().await {
            Ok(ids) => assert!(listed && ids == [1, 2], "{other}"),
            Err(error) => assert!(
                !listed && error.class == ErrorClass::Unexpected,
                "{other}: {error}"
            ),
        }
    }
}

#[test]
fn a_refusal_names_fields_and_codes_and_quotes_nothing() {
    let body = r#"{"request_id":"c4nary","errors":[{"message":"Bad subscription_url c4nary","code":111222},{"message":"http_auth_password c4nary; http_auth_user"}]}"#;
    assert_eq!(complaint(body.as_bytes()), ", url, basicAuthRef, code 111222");
    for body in ["", "c4nary", "[]", r#"{"errors":"c4nary"}"#, r#"{"errors":[]}"#] {
        assert_eq!(complaint(body.as_bytes()), "");
    }
}

#[test]
fn an_id_is_one_path_segment_or_no_call_is_made() {
    for id in ["", "-1", "+1", "1.5", "5/../6", "5?x", "a", "%35", "٥"] {
        assert_eq!(item(&RemoteId(id.into())), None, "{id}");
    }
    assert_eq!(item(&five()).unwrap(), "/webhooks/5");
}

#[tokio::test]
async fn a_short_list_is_one_call_for_all_who_ask_at_once() {
    let bench = Bench::new(&[(200, &listed([9, 5]))]);
    let call = bench.call();
    let found = Thulium.look(&call, &Look::ById(five())).await.unwrap();
    assert!(matches!(found, Seen::One(Some(there)) if there.id == five()));
    assert!(matches!(
        Thulium.look(&call, &Look::ById(RemoteId("05".into()))).await,
        Ok(Seen::One(None))
    ));
    assert_eq!(bench.asked(), [LIST]);
}

#[tokio::test]
async fn further_pages_are_read_until_one_has_nothing_new() {
    let bench = Bench::new(&[
        (200, &listed(0..100)),
        (200, &listed(0..1000)),
        (200, &listed(990..1200)),
    ]);
    assert_eq!(bench.all().await.unwrap(), (0..1200).collect::<Vec<_>>());
    assert_eq!(
        bench.asked(),
        [
            LIST,
            "GET /api/webhooks?limit=1000&offset=0",
            "GET /api/webhooks?limit=1000&offset=990"
        ]
    );
}

#[tokio::test]
async fn exactly_one_page_with_parameters_ignored_or_refused() {
    let hundred = listed(0..100);
    let want: Vec<_> = (0..100).collect();
    let bench = Bench::new(&[(200, &hundred), (200, &hundred), (200, &hundred)]);
    assert_eq!(bench.all().await.unwrap(), want);
    for status in [400, 404, 405, 422] {
        let bench = Bench::new(&[(200, &hundred), (status, "")]);
        assert_eq!(bench.all().await.unwrap(), want);
    }
    // But what says nothing about the parameters must not pass a part of the list for the whole.
    for (status, class) in [
        (500, ErrorClass::Unreachable),
        (429, ErrorClass::RateLimited),
        (403, ErrorClass::Forbidden),
    ] {
        let bench = Bench::new(&[(200, &hundred), (status, "")]);
        assert_eq!(bench.all().await.unwrap_err().class, class);
    }
    let bench = Bench::new(&[(200, &hundred), (200, &listed(0..1000)), (400, "")]);
    assert_eq!(bench.all().await.unwrap_err().class, ErrorClass::Rejected);
}

#[tokio::test]
async fn repeated_pages_end_and_endless_ones_are_an_error() {
    let page = listed((0..50).chain(0..50));
    let bench = Bench::new(&[(200, &page), (200, &page), (200, &page)]);
    assert_eq!(bench.all().await.unwrap().len(), 50);

    let full = listed(0..LARGEST_PAGE as u64);
    let bench = Bench::new(&[(200, &listed(0..100)), (200, &full), (200, &full)]);
    assert_eq!(bench.all().await.unwrap_err().class, ErrorClass::Unexpected);

    let pages: Vec<_> = (0..=MOST_PAGES as u64)
        .map(|page| listed(page * 100..(page + 1) * 100))
        .collect();
    let answers: Vec<_> = pages.iter().map(|page| (200, page.as_str())).collect();
    let bench = Bench::new(&answers);
    assert_eq!(bench.all().await.unwrap_err().class, ErrorClass::Unexpected);
    assert_eq!(bench.asked().len(), MOST_PAGES + 1);
}

#[tokio::test]
async fn a_change_counts_once_the_list_shows_it() {
    let other = listed([5]).replace("example.pl", "old.example.pl");
    let bench = Bench::new(&[(200, ""), (200, &other), (204, ""), (200, &listed([5]))]);
    let error = bench.update().await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Unexpected, Effect::Unknown)
    );
    assert!(error.message.contains("another url"), "{error}");
    assert_eq!(bench.knows(Finding::ThuliumUpdate), None);
    assert_eq!(bench.update().await.unwrap().id, five());
    assert_eq!(bench.knows(Finding::ThuliumUpdate), Some(Learned::Supported));
    assert_eq!(bench.asked(), [PUT, LIST, PUT, LIST]);
}

#[tokio::test]
async fn a_change_without_a_route_is_learned_from_the_list() {
    let other = listed([5]).replace("example.pl", "old.example.pl");
    for status in [404, 405, 501] {
        let bench = Bench::new(&[(status, "<html>"), (200, &other)]);
        for _ in 0..2 {
            let error = bench.update().await.unwrap_err();
            assert_eq!(
                (error.class, error.effect),
                (ErrorClass::Unsupported, Effect::None)
            );
            assert!(
                error.message.contains("set webhook 5 as the spec says"),
                "{error}"
            );
        }
        assert_eq!(bench.asked(), [PUT, LIST], "no second try");

        let bench = Bench::new(&[(status, ""), (200, "[]")]);
        assert_eq!(
            bench.update().await.unwrap_err().class,
            ErrorClass::TargetNotFound
        );
        assert_eq!(bench.knows(Finding::ThuliumUpdate), None);
    }
    let mut bench = Bench::new(&[]);
    bench.account.undocumented = false;
    let error = bench.update().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unsupported);
    assert!(error.message.contains("undocumentedCalls is Deny"), "{error}");
}

#[tokio::test]
async fn a_removal_is_checked_the_first_time() {
    let bench = Bench::new(&[(204, ""), (200, "[]"), (200, "{}")]);
    assert_eq!(bench.remove().await.unwrap(), Removal::Removed);
    assert_eq!(bench.knows(Finding::ThuliumDelete), Some(Learned::Supported));
    assert_eq!(bench.remove().await.unwrap(), Removal::Removed);
    assert_eq!(bench.asked(), [DELETE, LIST, DELETE]);

    let bench = Bench::new(&[(200, "<html>"), (200, &listed([5]))]);
    assert_eq!(
        bench.remove().await.unwrap(),
        Removal::LeftInPlace,
        "an answer that did nothing"
    );
    assert_eq!(bench.knows(Finding::ThuliumDelete), Some(Learned::Unsupported));

    // Later its word is enough, but not that of something in between.
    let bench = Bench::new(&[(204, ""), (200, "[]"), (200, "<html>"), (200, &listed([5]))]);
    assert_eq!(bench.remove().await.unwrap(), Removal::Removed);
    assert_eq!(bench.remove().await.unwrap(), Removal::LeftInPlace);
}

#[tokio::test]
async fn a_removal_without_a_route_is_tried_each_time() {
    for status in [404, 405, 501] {
        let bench = Bench::new(&[
            (status, ""),
            (200, &listed([5])),
            (status, ""),
            (200, &listed([5, 6])),
        ]);
        assert_eq!(bench.remove().await.unwrap(), Removal::LeftInPlace);
        assert_eq!(bench.remove().await.unwrap(), Removal::LeftInPlace);
        assert_eq!(bench.asked(), [DELETE, LIST, DELETE, LIST]);
        let bench = Bench::new(&[(status, ""), (200, &listed([6]))]);
        assert_eq!(bench.remove().await.unwrap(), Removal::AlreadyGone);
        assert_eq!(bench.knows(Finding::ThuliumDelete), None);
    }
    let mut bench = Bench::new(&[]);
    assert_eq!(
        Thulium
            .remove(&bench.call(), &RemoteId("../5".into()), None)
            .await
            .unwrap(),
        Removal::AlreadyGone
    );
    bench.account.undocumented = false;
    assert_eq!(bench.remove().await.unwrap(), Removal::LeftInPlace);
}

#[tokio::test]
async fn refusals_say_what_to_correct() {
    let bench = Bench::new(&[(404, ""), (401, ""), (403, "")]);
    let error = bench.all().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::TargetNotFound);
    assert!(error.message.contains("must end in /api"), "{error}");
    assert_eq!(bench.remove().await.unwrap_err().class, ErrorClass::Unauthorized);
    assert!(matches!(bench.account.standing(), Standing::Refused { .. }));
    let error = bench.remove().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Forbidden);
    assert!(
        error.message.contains("forbids the API user to delete webhooks"),
        "{error}"
    );
}
