//! ricloud's bodies: builders of what is sent, readers of what is answered. Pure, tolerant where the documents
//! leave something open, and strict where a wrong guess would make a second registration.

use std::collections::{HashMap, HashSet};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{json, value::RawValue};

use crate::{
    api::webhook_status::State,
    domain::remote::{Remote, RemoteId, TaskId},
    net::{Response, SecretText},
    provider::{
        Operation, ProviderError, TestProgress,
        wire::{WireId, id_json, named_fields, too_long, with_fields},
    },
};

/// Most that a list gives at once.
pub(super) const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Config {
    id: WireId,
    /// `null` is an empty one.
    #[serde(default, deserialize_with = "shown")]
    url: Option<String>,
    secret: Option<SecretWire>,
    state: Option<String>,
    date_created: Option<String>,
}

/// A text that is there; `null` is shown as empty, and so differs from one that is left out.
fn shown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

/// A secret on its way in: never printed, wiped when dropped.
struct SecretWire(SecretText);

impl<'de> Deserialize<'de> for SecretWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl Config {
    /// In our words. `sent`: the URL that was sent, for an answer that does not show it. `None`: without that, and
    /// taken for something else, it would be registered a second time.
    fn remote(self, sent: Option<&str>) -> Option<Remote> {
        let url = match sent {
            Some(sent) => self
                .url
                .filter(|url| !url.is_empty())
                .unwrap_or_else(|| sent.to_owned()),
            None => self.url?,
        };
        Some(Remote {
            // An unknown word is as good as none: nothing is known against it being on.
            state: self.state.as_deref().and_then(state_of),
            secret: self.secret.map(|secret| secret.0).filter(is_shown),
            created: self.date_created.as_deref().and_then(time_of),
            ..Remote::new(self.id.0, url)
        })
    }
}

fn state_of(word: &str) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|state| state.as_str().eq_ignore_ascii_case(word))
}

/// A row of asterisks or bullets stands for a secret that is not shown; taken for the secret itself, it would be
/// published and every delivery refused.
fn is_shown(secret: &SecretText) -> bool {
    secret
        .expose()
        .chars()
        .any(|c| !matches!(c, '*' | '•' | '●') && !c.is_whitespace())
}

/// ISO 8601 in UTC; without a zone it is UTC too.
fn time_of(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        text.parse::<DateTime>()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })
}

fn read<T: DeserializeOwned>(
    operation: Operation,
    response: &Response,
    what: &str,
) -> Result<T, ProviderError> {
    // serde skips the bytes of unknown strings unread. Its own message can quote the answer, so it stays here.
    let text = std::str::from_utf8(response.body()).ok();
    text.and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| ProviderError::unexpected(operation, what))
}

/// The config with this id, or the one that was just made. `sent`: the URL that was sent, for an answer that does
/// not show it.
pub(super) fn config(
    operation: Operation,
    id: Option<&RemoteId>,
    sent: Option<&str>,
    response: &Response,
) -> Result<Remote, ProviderError> {
    let unexpected = |what| ProviderError::unexpected(operation, what);
    let config: Config = read(operation, response, "it is not a webhook config with an id")?;
    let remote = config
        .remote(sent)
        .ok_or_else(|| unexpected("the webhook config shows no url"))?;
    match id {
        Some(id) if remote.id != *id => Err(unexpected("it is another webhook config")),
        _ => Ok(remote),
    }
}

/// One page of a list.
#[derive(Deserialize)]
struct PageWire {
    data: Vec<Config>,
    has_more: Option<bool>,
    total_count: Option<u64>,
}

/// The configs of all pages so far.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) configs: Vec<Remote>,
    /// Their ids: one that comes twice, in one page or in two, counts once.
    seen: HashSet<String>,
}

/// What follows a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is a page after this id.
    After(String),
    /// That was the last one.
    End,
}

impl Pages {
    /// Takes one page in. `has_more` and `total_count` may both be missing: then a full page is followed by
    /// another look, which at worst finds nothing.
    ///
    /// # Errors
    ///
    /// An answer that is no list, and a page that was seen before: an incomplete list must not pass for a whole
    /// one, or what it lacks would be registered a second time.
    pub(super) fn add(&mut self, response: &Response) -> Result<Next, ProviderError> {
        let page: PageWire = read(Operation::List, response, "it is not a list of webhook configs")?;
        let length = page.data.len();
        let last = page.data.last().map(|config| config.id.0.clone());
        let before = self.configs.len();
        for config in page.data {
            if self.seen.insert(config.id.0.clone()) {
                let what = "an entry of the list shows no url";
                let remote = config
                    .remote(None)
                    .ok_or_else(|| ProviderError::unexpected(Operation::List, what))?;
                self.configs.push(remote);
            }
        }
        if let Some(error) = too_long(self.configs.len()) {
            return Err(error);
        }
        let repeated = length > 0 && self.configs.len() == before;
        let more = page.has_more.unwrap_or(match page.total_count {
            Some(total) => u64::try_from(self.configs.len()).is_ok_and(|read| read < total),
            None => length >= PAGE,
        });
        match last {
            Some(_) if more && repeated => Err(ProviderError::unexpected(
                Operation::List,
                "a page of the list came twice",
            )),
            Some(last) if more => Ok(Next::After(last)),
            _ => Ok(Next::End),
        }
    }
}

/// The id of a test task.
pub(super) fn task(response: &Response) -> Result<TaskId, ProviderError> {
    #[derive(Deserialize)]
    struct Task {
        id: WireId,
    }
    read::<Task>(Operation::Test, response, "it is not a task with an id").map(|task| TaskId(task.id.0))
}

/// How a task goes. A word that is not known counts as running: the wait for it is bounded elsewhere.
pub(super) fn progress(response: &Response) -> Result<TestProgress, ProviderError> {
    #[derive(Deserialize)]
    struct Task {
        state: String,
    }
    let task: Task = read(Operation::Poll, response, "it is not a task with a state")?;
    let done = ["succeeded", "failed"]
        .iter()
        .any(|word| task.state.eq_ignore_ascii_case(word));
    Ok(if done {
        TestProgress::Done
    } else {
        TestProgress::Running
    })
}

/// A key or an organisation: its id, and the config that its field `names` (an id, the config itself, or null).
pub(super) fn user(
    response: &Response,
    names: &str,
) -> Result<(Option<String>, Option<String>), ProviderError> {
    #[derive(Deserialize)]
    struct Nested {
        id: WireId,
    }
    let what = "it is not a key or organisation";
    let body: HashMap<String, Box<RawValue>> = read(Operation::Use, response, what)?;
    let take = |name: &str| {
        let Some(raw) = body.get(name).map(|raw| raw.get()).filter(|raw| *raw != "null") else {
            return Ok(None);
        };
        WireId::read(raw)
            .or_else(|| serde_json::from_str::<Nested>(raw).ok().map(|nested| nested.id))
            .map(|id| Some(id.0))
            .ok_or_else(|| ProviderError::unexpected(Operation::Use, what))
    };
    Ok((take("id")?, take(names)?))
}

/// `{"url":...}`, `{"state":...}` or both, in this order.
pub(super) fn change(url: Option<&str>, state: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Change<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<&'a str>,
    }
    // Two strings always have a JSON form.
    serde_json::to_vec(&Change { url, state }).unwrap_or_default()
}

/// `{"<field>":<id>}`, or null for no id.
pub(super) fn reference(field: &str, id: Option<&str>) -> Vec<u8> {
    json!({ field: id.map(id_json) }).to_string().into_bytes()
}

/// The refusal, with the fields that it names.
pub(super) fn refused(error: ProviderError, response: &Response) -> ProviderError {
    with_fields(
        error,
        &named_fields(response, "params", &[("url", "url"), ("state", "active")]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{Effect, ErrorClass};

    fn answer(body: &str) -> Response {
        Response::new(200, Vec::new(), body)
    }

    const CONFIG: &str = r#"{"id":"cfg-77","resource":"webhook_config","organisation":"org-1","url":"https://hooks.example.test/ricloud/",
 "secret":"rc-demo-secret-0123456789","state":"new","date_created":"2024-05-01T12:00:00Z"}"#;

    #[test]
    fn the_documented_config() {
        let remote = config(Operation::Read, None, None, &answer(CONFIG)).unwrap();
        assert_eq!(remote.id.0, "cfg-77");
        assert_eq!(remote.url, "https://hooks.example.test/ricloud/");
        assert_eq!(
            remote.secret.as_ref().unwrap().expose(),
            "rc-demo-secret-0123456789"
        );
        assert_eq!(remote.state, Some(State::New));
        assert_eq!(remote.created, Some("2024-05-01T12:00:00Z".parse().unwrap()));
        assert!(!format!("{remote:?}").contains("rc-demo-secret"));
    }

    #[test]
    fn the_bodies_of_the_documents() {
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        assert_eq!(
            text(change(Some("https://www.mywebhook.com/webhooks/"), None)),
            r#"{"url":"https://www.mywebhook.com/webhooks/"}"#
        );
        assert_eq!(
            text(change(None, Some("deactivated"))),
            r#"{"state":"deactivated"}"#
        );
        assert_eq!(
            text(change(Some("https://a/"), Some("new"))),
            r#"{"url":"https://a/","state":"new"}"#
        );
        assert_eq!(
            text(reference("webhook_config", Some("7"))),
            r#"{"webhook_config":7}"#
        );
        assert_eq!(
            text(reference("webhook_config", Some("cfg-7"))),
            r#"{"webhook_config":"cfg-7"}"#
        );
        assert_eq!(
            text(reference("webhook_config_default", None)),
            r#"{"webhook_config_default":null}"#
        );
    }

    #[test]
    fn what_may_be_missing_or_odd() {
        let read = |body: &str| config(Operation::Create, None, Some("https://sent/"), &answer(body));
        let bare = read(r#"{"id":-7,"new_field":{"x":[1]}}"#).unwrap();
        assert_eq!(
            (bare.id.0.as_str(), bare.url.as_str(), bare.state),
            ("-7", "https://sent/", None)
        );
        assert_eq!(read(r#"{"id":-7,"url":null}"#).unwrap().url, "https://sent/");
        for hidden in ["null", "\"\"", "\"****\"", "\" \"", "\"••••\""] {
            assert_eq!(
                read(&format!(r#"{{"id":1,"secret":{hidden}}}"#)).unwrap().secret,
                None,
                "{hidden}"
            );
        }
        let created = |text: &str| {
            read(&format!(r#"{{"id":1,"date_created":"{text}"}}"#))
                .unwrap()
                .created
        };
        let noon: Timestamp = "2019-01-31T12:00:00.123456Z".parse().unwrap();
        assert_eq!(created("2019-01-31T12:00:00.123456Z"), Some(noon));
        assert_eq!(created("2019-01-31T12:00:00.123456"), Some(noon));
        assert_eq!(created("yesterday"), None);
        assert_eq!(
            read(r#"{"id":1,"state":"VALID"}"#).unwrap().state,
            Some(State::Valid)
        );
        assert_eq!(read(r#"{"id":1,"state":"paused"}"#).unwrap().state, None);
    }

    #[test]
    fn a_config_that_is_read_shows_its_url_and_the_id_that_was_asked_for() {
        let read = |body: &str| {
            let id = RemoteId("7".into());
            config(Operation::Read, Some(&id), None, &answer(body)).map(|config| config.url)
        };
        assert_eq!(read(r#"{"id":"7","url":"https://a/"}"#).unwrap(), "https://a/");
        assert_eq!(read(r#"{"id":7,"url":null}"#).unwrap(), "");
        for body in [r#"{"id":7}"#, r#"{"id":8,"url":"https://a/"}"#] {
            assert_eq!(read(body).unwrap_err().class, ErrorClass::Unexpected, "{body}");
        }
        // Also where the bytes belong to a member that nobody reads.
        let mojibake = [br#"{"id":7,"url":"https://a/","x":""#.as_slice(), &[0xff], b"\"}"].concat();
        let response = Response::new(200, Vec::new(), mojibake);
        assert!(config(Operation::Read, None, None, &response).is_err());
    }

    #[test]
    fn an_entry_that_comes_twice_counts_once_and_one_without_a_url_spoils_the_list() {
        let mut pages = Pages::default();
        let twice = page([1, 1, 2, 2], r#","has_more":true"#);
        assert_eq!(pages.add(&twice).unwrap(), Next::After("2".into()));
        assert_eq!(pages.add(&page([2, 3, 3], "")).unwrap(), Next::End);
        let ids: Vec<&str> = pages.configs.iter().map(|config| config.id.0.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        let bare = answer(r#"{"data":[{"id":1,"url":"https://a/"},{"id":2}]}"#);
        assert!(Pages::default().add(&bare).is_err());
    }

    #[test]
    fn other_shapes_are_unexpected_and_not_quoted() {
        for body in [
            "",
            "[]",
            "{}",
            "null",
            "<html>kr0kodil</html>",
            r#"{"id":null}"#,
            r#"{"id":1,"url":7}"#,
        ] {
            let error = config(Operation::Create, None, None, &answer(body)).unwrap_err();
            assert_eq!(
                (error.class, error.effect),
                (ErrorClass::Unexpected, Effect::Unknown),
                "{body}"
            );
            assert!(!error.to_string().contains("kr0kodil"));
        }
        assert!(task(&answer(r#"{"id":{}}"#)).is_err());
        assert!(progress(&answer(r#"{"state":3}"#)).is_err());
        assert!(user(&answer("[]"), "webhook_config").is_err());
        assert!(user(&answer(r#"{"id":1,"webhook_config":true}"#), "webhook_config").is_err());
    }

    fn page(ids: impl IntoIterator<Item = usize>, rest: &str) -> Response {
        let data: Vec<String> = ids
            .into_iter()
            .map(|id| format!(r#"{{"id":{id},"url":"https://a/"}}"#))
            .collect();
        answer(&format!(
            r#"{{"resource":"list","data":[{}]{rest}}}"#,
            data.join(",")
        ))
    }

    #[test]
    fn pages_are_followed_to_the_end() {
        let next = |pages: &mut Pages, answer: &Response| pages.add(answer).unwrap();
        let mut pages = Pages::default();
        assert_eq!(
            next(&mut pages, &page(1..3, r#","has_more":true"#)),
            Next::After("2".into())
        );
        assert_eq!(
            next(&mut pages, &page(3..4, r#","has_more":false,"total_count":99"#)),
            Next::End
        );
        assert_eq!(pages.configs.len(), 3);

        let mut pages = Pages::default();
        assert_eq!(
            next(&mut pages, &page(1..3, r#","total_count":3"#)),
            Next::After("2".into())
        );
        assert_eq!(next(&mut pages, &page(3..4, r#","total_count":3"#)), Next::End);

        let mut pages = Pages::default();
        assert_eq!(next(&mut pages, &page(0..PAGE, "")), Next::After("999".into()));
        assert_eq!(
            next(&mut pages, &page([], r#","has_more":true"#)),
            Next::End,
            "an empty page ends it"
        );
        assert_eq!(next(&mut Pages::default(), &page(0..10, "")), Next::End);
    }

    #[test]
    fn a_list_that_goes_round_is_an_error() {
        let mut pages = Pages::default();
        pages.add(&page(1..3, r#","has_more":true"#)).unwrap();
        let error = pages.add(&page(1..3, r#","has_more":true"#)).unwrap_err();
        assert_eq!(
            (error.class, error.operation),
            (ErrorClass::Unexpected, Operation::List)
        );
        for body in [
            "[]",
            r#"{"data":{}}"#,
            r#"{"data":[{"id":null}]}"#,
            r#"{"has_more":false}"#,
        ] {
            assert!(Pages::default().add(&answer(body)).is_err(), "{body}");
        }
    }

    #[test]
    fn tasks() {
        assert_eq!(task(&answer(r#"{"id":12,"resource":"task"}"#)).unwrap().0, "12");
        assert_eq!(task(&answer(r#"{"id":"t-12"}"#)).unwrap().0, "t-12");
        for (word, is) in [
            ("pending", TestProgress::Running),
            ("processing", TestProgress::Running),
            ("suspended", TestProgress::Running),
            ("succeeded", TestProgress::Done),
            ("failed", TestProgress::Done),
            ("new-word", TestProgress::Running),
        ] {
            assert_eq!(
                progress(&answer(&format!(r#"{{"id":1,"state":"{word}"}}"#))).unwrap(),
                is,
                "{word}"
            );
        }
    }

    #[test]
    fn a_key_names_its_config_by_id_whole_or_not_at_all() {
        let read = |body: &str| user(&answer(body), "webhook_config").unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"id":5,"webhook_config":7}"#), (some("5"), some("7")));
        assert_eq!(
            read(r#"{"id":"k","webhook_config":{"id":"cfg-7","secret":"x"}}"#),
            (some("k"), some("cfg-7"))
        );
        assert_eq!(read(r#"{"id":"k","webhook_config":null}"#), (some("k"), None));
        assert_eq!(
            read(r#"{"webhook_config":99999999999999999999}"#),
            (None, some("99999999999999999999"))
        );
    }

    #[test]
    fn a_refusal_names_our_field_and_quotes_nothing() {
        let body =
            r#"{"error":"invalid_params","message":"kr0kodil","params":{"url":["kr0kodil"],"kr0kodil":[]}}"#;
        let response = Response::new(400, Vec::new(), body);
        let error = refused(
            ProviderError::from_status(Operation::Create, 400, None).unwrap(),
            &response,
        );
        assert_eq!(
            error.to_string(),
            "the upstream refused to create (400) because of: url; correct the Webhook's spec"
        );
    }
}
