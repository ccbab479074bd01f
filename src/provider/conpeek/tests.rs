//! Conpeek: builders and parsers on golden bodies, and the order of calls against scripted answers. The same over
//! real HTTP is in `tests/providers`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::*;
use crate::{
    api::provider::ProviderType,
    clock::Clock,
    domain::desired::{Header, Retry},
    net::{HttpError, Request},
    provider::{NoFence, NoObserver, Transport},
};

/// The example of the public page, for application 9.
const GOLDEN: &str = r#"{"url":"http://example.xyz/poster.php","retry_enabled":1,"retry_config":{"retry_value":10,"max_retries":2,"backoff_type":"multiplier","backoff_value":2},"headers":{"appHash":"abc"}}"#;

fn golden() -> Desired {
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

fn nine() -> RemoteId {
    RemoteId("9".into())
}

fn echoed(body: &str) -> String {
    format!(r#"{{"success":true,"data":{body}}}"#)
}

/// Answers in order; remembers what was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Response>>,
    asked: Mutex<Vec<String>>,
}

impl Transport for Script {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let body = request
            .body_bytes()
            .map(|body| String::from_utf8(body.to_vec()).unwrap());
        let line = format!(
            "{} {} {}",
            request.method(),
            request.url().path(),
            body.unwrap_or_default()
        );
        self.asked.lock().unwrap().push(line.trim_end().to_owned());
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
        let credentials = Credentials::Conpeek {
            api_key: "k3y".into(),
        };
        let (transport, rate) = (Arc::clone(&script) as Arc<dyn Transport>, (1000, 1000, 10));
        let base = "https://api.conpeek.test/";
        let account = Account::new(
            ProviderType::Conpeek,
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

    async fn create(&self) -> Result<Remote, ProviderError> {
        Conpeek.create(&self.call(), &golden()).await
    }

    async fn look(&self) -> Result<Seen, ProviderError> {
        Conpeek.look(&self.call(), &Look::ById(nine())).await
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

fn flat_put() -> String {
    format!("PUT /application/9/webhook {GOLDEN}")
}

fn wrapped_put() -> String {
    format!(r#"PUT /application/9/webhook {{"data":{GOLDEN}}}"#)
}

#[test]
fn the_request_of_the_page_byte_for_byte() {
    let bench = Bench::new(&[]);
    let exchange = put_request(&bench.account, Operation::Create, &nine(), &golden(), Style::Flat).unwrap();
    assert_eq!(exchange.method, Method::Put);
    assert_eq!(exchange.path, "/application/9/webhook");
    assert_eq!(String::from_utf8(exchange.body.clone().unwrap()).unwrap(), GOLDEN);
    let headers: Vec<_> = exchange
        .headers
        .iter()
        .map(|(name, value)| (*name, value.expose()))
        .collect();
    assert_eq!(
        headers,
        [("Authorization", "k3y"), ("Content-Type", "application/json")]
    );
    let wrapped = body(Operation::Create, &golden(), Style::Wrapped).unwrap();
    assert_eq!(
        String::from_utf8(wrapped).unwrap(),
        format!(r#"{{"data":{GOLDEN}}}"#)
    );
}

#[test]
fn the_whole_object_is_sent_and_delays_are_rounded_up() {
    let retry = Retry {
        enabled: false,
        initial_delay: Duration::from_millis(14_001),
        max_retries: 0,
        factor: 1,
    };
    let want = Desired {
        retry: Some(retry),
        headers: Vec::new(),
        ..golden()
    };
    let sent = String::from_utf8(body(Operation::Update, &want, Style::Flat).unwrap()).unwrap();
    assert_eq!(
        sent,
        r#"{"url":"http://example.xyz/poster.php","retry_enabled":0,"retry_config":{"retry_value":15,"max_retries":0,"backoff_type":"multiplier","backoff_value":1},"headers":{}}"#
    );
}

#[test]
fn an_id_is_one_path_segment_or_no_call_is_made() {
    for id in [
        "",
        "0",
        "000",
        "-1",
        "+1",
        "1.5",
        "9/../10",
        "9?x",
        "a",
        "%39",
        "９",
        "99999999999999999999999",
    ] {
        let error = path(Operation::Read, &RemoteId(id.into())).unwrap_err();
        assert_eq!(error.class, ErrorClass::Rejected, "{id}");
    }
    assert_eq!(
        path(Operation::Read, &RemoteId("007".into())).unwrap(),
        "/application/7/webhook"
    );
}

fn shown(body: &str) -> Result<Vec<&'static str>, ProviderError> {
    let answer = Answer::parse(Operation::Read, body.as_bytes())?;
    Ok(differences(&golden(), &answer.config().remote(&nine())))
}

#[test]
fn answers_that_say_the_same_are_the_same() {
    for body in [
        GOLDEN.to_owned(),
        echoed(GOLDEN),
        format!(r#"{{"data":{GOLDEN},"request":{{"x":[1,{{}}]}}}}"#),
        format!(r#"{{"success":"1","data":{GOLDEN}}}"#),
        GOLDEN.replace(r#""retry_enabled":1"#, r#""retry_enabled":true"#),
        GOLDEN.replace(r#""retry_enabled":1"#, r#""retry_enabled":"1""#),
        GOLDEN.replace(r#""retry_value":10"#, r#""retry_value":"10""#),
        GOLDEN.replace(r#""backoff_value":2"#, r#""backoff_value":2.0"#),
        GOLDEN.replace("http://example.xyz", "HTTP://Example.xyz"),
        GOLDEN.replace("appHash", "Apphash"),
        GOLDEN.replace(r#""url""#, r#""updated_at":null,"url""#),
        // What is not shown is no difference, as long as the url is there.
        r#"{"success":true,"data":{"url":"http://example.xyz/poster.php"}}"#.to_owned(),
    ] {
        assert_eq!(shown(&body).unwrap(), [""; 0], "{body}");
    }
    let numeric = Desired {
        headers: vec![Header {
            name: "n".into(),
            value: "17".into(),
        }],
        ..golden()
    };
    let answer = GOLDEN.replace(r#""appHash":"abc""#, r#""n":17"#);
    let there = Answer::parse(Operation::Read, answer.as_bytes())
        .unwrap()
        .config()
        .remote(&nine());
    assert!(differences(&numeric, &there).is_empty());
}

#[test]
fn answers_that_differ_name_the_field() {
    for (body, fields) in [
        ("{}".to_owned(), "url"),
        (r#"{"success":true}"#.to_owned(), "url"),
        (r#"{"success":true,"data":{"url":null}}"#.to_owned(), "url"),
        (GOLDEN.replace("poster.php", "other.php"), "url"),
        (GOLDEN.replace("poster.php", "poster.php/"), "url"),
        (GOLDEN.replace(r#"{"appHash":"abc"}"#, "[]"), "headers"),
        (GOLDEN.replace(r#"{"appHash":"abc"}"#, "null"), "headers"),
        (GOLDEN.replace("abc", "abC"), "headers"),
        (
            GOLDEN.replace(r#""retry_enabled":1"#, r#""retry_enabled":0"#),
            "retry",
        ),
        (
            GOLDEN.replace(r#""retry_value":10"#, r#""retry_value":10.5"#),
            "retry",
        ),
        (
            GOLDEN.replace(r#""backoff_value":2"#, r#""backoff_value":2.5"#),
            "retry",
        ),
        (GOLDEN.replace("multiplier", "linear"), "retry"),
    ] {
        assert_eq!(shown(&body).unwrap(), [fields], "{body}");
    }
}

#[test]
fn answers_of_another_shape_are_unexpected_and_quoted_nowhere() {
    let deep = format!(r#"{{"url":{}"#, "[".repeat(100_000));
    for body in [
        "",
        "null",
        "[]",
        r#"[true,{"url":"c4nary"}]"#,
        r#""c4nary""#,
        "<html>c4nary</html>",
        r#"{"url":"c4nary"#,
        r#"{"url":["c4nary"]}"#,
        r#"{"url":"a","url":"c4nary"}"#,
        r#"{"headers":{"a":"1","A":"c4nary"}}"#,
        r#"{"headers":["c4nary"]}"#,
        r#"{"headers":{"a":{"c4nary":1}}}"#,
        r#"{"retry_enabled":2}"#,
        r#"{"retry_enabled":"c4nary"}"#,
        r#"{"retry_config":{"retry_value":-1}}"#,
        r#"{"retry_config":{"retry_value":1e300}}"#,
        r#"{"retry_config":{"retry_value":"NaN"}}"#,
        r#"{"retry_config":{"max_retries":"c4nary"}}"#,
        r#"{"data":"c4nary"}"#,
        r#"{"success":"c4nary","data":{}}"#,
        deep.as_str(),
    ] {
        let error = shown(body).unwrap_err();
        assert_eq!(error.class, ErrorClass::Unexpected, "{body:.60}");
        assert!(!format!("{error} {error:?}").contains("c4nary"), "{error:?}");
    }
    let not_utf8 = [br#"{"url":"x","note":""#.as_slice(), &[0xff], br#""}"#].concat();
    let error = Answer::parse(Operation::Update, &not_utf8).err().unwrap();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Unexpected, Effect::Unknown)
    );
}

#[tokio::test]
async fn flat_first_and_what_worked_is_remembered() {
    let bench = Bench::new(&[(200, &echoed(GOLDEN)), (202, GOLDEN)]);
    let remote = bench.create().await.unwrap();
    assert_eq!((remote.id, remote.retry), (nine(), Some(Retry::default())));
    assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Flat));
    Conpeek
        .update(&bench.call(), &nine(), None, &golden())
        .await
        .unwrap();
    assert_eq!(bench.asked(), [flat_put(), flat_put()]);
}

#[tokio::test]
async fn a_flat_body_that_is_ignored_or_refused_is_sent_wrapped() {
    let old = GOLDEN.replace("poster", "old");
    for first in [
        (200, echoed(&old)),
        (400, "?".to_owned()),
        (200, r#"{"success":false}"#.to_owned()),
    ] {
        let bench = Bench::new(&[(first.0, &first.1), (200, &echoed(GOLDEN))]);
        bench.create().await.unwrap();
        assert_eq!(bench.asked(), [flat_put(), wrapped_put()]);
        assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Wrapped));
        bench.then(&[(200, &echoed(GOLDEN))]);
        bench.create().await.unwrap();
        assert_eq!(bench.asked(), [wrapped_put()]);
    }
}

#[tokio::test]
async fn a_style_that_stops_working_is_learned_anew() {
    let bench = Bench::new(&[
        (200, &echoed(GOLDEN)),
        (200, r#"{"success":true}"#),
        (200, &echoed(GOLDEN)),
    ]);
    bench.create().await.unwrap();
    bench.create().await.unwrap();
    assert_eq!(bench.asked(), [flat_put(), flat_put(), wrapped_put()]);
    assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Wrapped));
}

#[tokio::test]
async fn neither_style_echoed_is_unexpected_and_forgets() {
    let bench = Bench::new(&[(200, &echoed(GOLDEN)), (200, r#"{"success":true}"#), (200, "{}")]);
    bench.create().await.unwrap();
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::Unexpected, Effect::Unknown)
    );
    assert!(error.message.contains("another url"), "{error}");
    assert_eq!(bench.knows(Finding::ConpeekBodyStyle), None);
}

#[tokio::test]
async fn what_a_known_style_refuses_is_wrong_in_itself() {
    let bench = Bench::new(&[(200, GOLDEN), (400, r#"{"message":"c4nary"}"#), (200, "{}")]);
    bench.create().await.unwrap();
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.status, error.effect),
        (ErrorClass::Rejected, Some(400), Effect::None)
    );
    assert!(!error.message.contains("c4nary"));
    assert_eq!(bench.knows(Finding::ConpeekBodyStyle), Some(Learned::Flat));

    let bench = Bench::new(&[(200, r#"{"success":0}"#), (200, r#"{"success":"0"}"#)]);
    assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Rejected);
}

#[tokio::test]
async fn a_style_that_is_set_is_the_only_one() {
    for (style, put) in [(BodyStyle::Flat, flat_put()), (BodyStyle::Wrapped, wrapped_put())] {
        let mut bench = Bench::new(&[(200, "{}")]);
        bench.account.body_style = style;
        assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Unexpected);
        assert_eq!(bench.asked(), [put]);
    }
}

#[tokio::test]
async fn a_403_is_the_keys_until_the_key_has_worked() {
    let bench = Bench::new(&[(403, "")]);
    let error = bench.create().await.unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Unauthorized, Some(403)));
    assert!(
        error
            .message
            .contains("API key is wrong, or it may not manage application 9"),
        "{error}"
    );
    assert!(matches!(bench.account.standing(), Standing::Refused { .. }));

    let bench = Bench::new(&[(200, GOLDEN), (403, ""), (401, "")]);
    bench.create().await.unwrap();
    assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Forbidden);
    assert_eq!(bench.account.standing(), Standing::Accepted);
    assert_eq!(bench.create().await.unwrap_err().class, ErrorClass::Unauthorized);
    assert!(matches!(bench.account.standing(), Standing::Refused { .. }));
}

#[tokio::test]
async fn a_read_that_works_is_believed() {
    let bench = Bench::new(&[
        (200, &echoed(GOLDEN)),
        (404, ""),
        (200, r#"{"data":{"url":null,"headers":{}}}"#),
    ]);
    let Ok(Seen::One(Some(there))) = bench.look().await else {
        panic!("not seen")
    };
    assert!(differences(&golden(), &there).is_empty());
    assert_eq!(bench.knows(Finding::ConpeekRead), Some(Learned::Supported));
    assert!(
        matches!(bench.look().await, Ok(Seen::One(None))),
        "the route answered before"
    );
    let Ok(Seen::One(Some(there))) = bench.look().await else {
        panic!("not seen")
    };
    assert_eq!(there.url, "", "an application that nobody has configured");
    assert_eq!(bench.asked(), ["GET /application/9/webhook"; 3]);
}

#[tokio::test]
async fn a_read_that_does_not_work_is_not_asked_again() {
    for (status, body) in [
        (404, ""),
        (405, ""),
        (501, ""),
        (302, ""),
        (400, ""),
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"success":false}"#),
    ] {
        let bench = Bench::new(&[(status, body)]);
        assert!(
            matches!(bench.look().await, Ok(Seen::CannotKnow)),
            "{status} {body}"
        );
        assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
        assert_eq!(bench.asked().len(), 1);
        assert_eq!(bench.knows(Finding::ConpeekRead), Some(Learned::Unsupported));
    }
    let mut bench = Bench::new(&[]);
    bench.account.undocumented = false;
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
}

#[tokio::test]
async fn a_missing_application_says_nothing_about_the_read() {
    let bench = Bench::new(&[(404, ""), (404, "")]);
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
    let error = bench.create().await.unwrap_err();
    assert_eq!(
        (error.class, error.status),
        (ErrorClass::TargetNotFound, Some(404))
    );
    assert_eq!(bench.knows(Finding::ConpeekRead), None);
}

#[tokio::test]
async fn one_garbled_read_is_an_error_and_the_second_a_finding() {
    let bench = Bench::new(&[(200, GOLDEN), (200, "<html>"), (200, "<html>")]);
    bench.look().await.unwrap();
    assert_eq!(bench.look().await.unwrap_err().class, ErrorClass::Unexpected);
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
}

#[tokio::test]
async fn a_read_never_stands_in_the_way_of_the_write() {
    let bench = Bench::new(&[(403, ""), (200, GOLDEN), (403, "")]);
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
    assert_eq!(
        bench.knows(Finding::ConpeekRead),
        None,
        "it may have been the key"
    );
    bench.create().await.unwrap();
    assert!(matches!(bench.look().await, Ok(Seen::CannotKnow)));
    assert_eq!(bench.knows(Finding::ConpeekRead), Some(Learned::Unsupported));

    for (status, class) in [
        (401, ErrorClass::Unauthorized),
        (429, ErrorClass::RateLimited),
        (500, ErrorClass::Unreachable),
    ] {
        let bench = Bench::new(&[(status, "")]);
        assert_eq!(bench.look().await.unwrap_err().class, class);
        assert_eq!(bench.knows(Finding::ConpeekRead), None);
    }
}

#[tokio::test]
async fn nothing_is_removed_and_no_call_made_for_it() {
    let bench = Bench::new(&[]);
    assert_eq!(
        Conpeek
            .remove(&bench.call(), &nine(), Some(&golden()))
            .await
            .unwrap(),
        Removal::LeftInPlace
    );
    let error = Conpeek
        .switch_off(&bench.call(), &nine(), None)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Unsupported);
    assert!(bench.asked().is_empty());
}
