//! Thulium's JSON: bodies, the webhook, the list, and what an error complains of.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    domain::{desired::Desired, remote::Remote},
    provider::{Effect, ErrorClass, Operation, ProviderError},
};

pub(super) fn whole_number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// What stands in a body where no Basic authentication is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// Nothing, as in the documented sample of a new webhook.
    OmittedIfNone,
    /// Empty texts, as the answers show them: what is left out might be kept.
    EmptyIfNone,
}

pub(super) fn body(operation: Operation, want: &Desired, login: Login) -> Result<Vec<u8>, ProviderError> {
    #[derive(Serialize)]
    struct Body<'a> {
        actions: &'a BTreeSet<String>,
        subscription_url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        http_auth_user: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        http_auth_password: Option<&'a str>,
    }
    let none = (login == Login::EmptyIfNone).then_some("");
    let auth = want.basic_auth.as_ref();
    let body = Body {
        actions: &want.events,
        subscription_url: &want.url,
        http_auth_user: auth.map(|auth| auth.username.as_str()).or(none),
        http_auth_password: auth.map(|auth| auth.password.expose()).or(none),
    };
    serde_json::to_vec(&body).map_err(|_| {
        let message = "the webhook cannot be written as JSON";
        ProviderError::new(ErrorClass::Rejected, operation, Effect::None, message)
    })
}

/// The answer to a `POST`: any 2xx with an id. Without one nobody knows what was made, so the error says that
/// something may have been.
pub(super) fn created(body: &[u8], want: &Desired) -> Result<Remote, ProviderError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Bare(Hook),
        Wrapped { data: Hook },
    }
    // serde would take an array for a struct, field by field.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ProviderError::unexpected(
            Operation::Create,
            "it is no JSON object",
        ));
    }
    let (Answer::Bare(hook) | Answer::Wrapped { data: hook }) = parse(Operation::Create, body)?;
    Ok(hook.remote(Some(&want.url)))
}

/// One webhook. Its password is not among the fields: it is skipped, never kept.
#[derive(Deserialize)]
pub(super) struct Hook {
    pub(super) id: Id,
    #[serde(default, deserialize_with = "shown")]
    actions: Option<BTreeSet<String>>,
    #[serde(default, deserialize_with = "shown")]
    subscription_url: Option<String>,
    #[serde(default, deserialize_with = "shown")]
    http_auth_user: Option<String>,
}

impl Hook {
    /// One entry of a list. `None`: it does not show what it is about. Taken for something else, it would be
    /// registered a second time.
    pub(super) fn listed(self) -> Option<(u64, Remote)> {
        let shown = self.actions.is_some() && self.subscription_url.is_some();
        shown.then(|| (self.id.0, self.remote(None)))
    }

    /// In our words. `sent`: the URL that was sent, for an answer that does not show what it is about.
    pub(super) fn remote(self, sent: Option<&str>) -> Remote {
        let shown = self.subscription_url.filter(|url| !url.is_empty());
        let events = self.actions.filter(|events| sent.is_none() || !events.is_empty());
        Remote {
            events,
            basic_auth_user: self.http_auth_user,
            ..Remote::new(
                self.id.0.to_string(),
                shown.or_else(|| sent.map(str::to_owned)).unwrap_or_default(),
            )
        }
    }
}

/// A value that is there; `null` is shown as empty, and so differs from one that is left out.
fn shown<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

/// A whole number, as number or text.
pub(super) struct Id(pub(super) u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Id, E> {
                Ok(Id(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                whole_number(text).map(Id).ok_or_else(|| E::custom("no id"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A list: an array, or an object with the array under `data`.
pub(super) struct Hooks(pub(super) Vec<Hook>);

impl<'de> Deserialize<'de> for Hooks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Hooks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hooks, A::Error> {
                let mut hooks = Vec::new();
                while let Some(hook) = seq.next_element()? {
                    hooks.push(hook);
                }
                Ok(Hooks(hooks))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hooks, A::Error> {
                let mut hooks = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "data" {
                        map.next_value::<IgnoredAny>()?;
                    } else if hooks.replace(map.next_value::<Vec<Hook>>()?).is_some() {
                        return Err(de::Error::duplicate_field("data"));
                    }
                }
                hooks.map(Hooks).ok_or_else(|| de::Error::missing_field("data"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(
    operation: Operation,
    body: &'a [u8],
) -> Result<T, ProviderError> {
    let unexpected = |what| ProviderError::unexpected(operation, what);
    // serde skips the bytes of unknown strings unread.
    let text = std::str::from_utf8(body).map_err(|_| unexpected("it is not UTF-8"))?;
    // The library's own message quotes what it found, so it is dropped.
    serde_json::from_str(text).map_err(|_| {
        unexpected(if operation == Operation::List {
            "it is no list of webhooks in JSON; see whether the provider's baseUrl ends in /api"
        } else {
            "it is no webhook with an id in JSON"
        })
    })
}

/// Thulium's names of what our spec has, for errors that are about them.
const FIELDS: [(&str, &str); 4] = [
    ("actions", "events"),
    ("subscription_url", "url"),
    ("http_auth_user", "basicAuthRef"),
    ("http_auth_password", "basicAuthRef"),
];

/// What an error body (`{"request_id", "errors": [{"message", "code"}]}`) complains of: fields of the spec and
/// codes. The upstream's own text may quote a password, so none of it is passed on.
pub(super) fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Complaint>,
    }
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(default)]
        message: String,
        code: Option<u64>,
    }
    let Ok(Body { errors }) = serde_json::from_slice(body) else {
        return String::new();
    };
    let named = |text: &str| errors.iter().any(|error| error.message.contains(text));
    let mut parts: Vec<String> = Vec::new();
    for (_, ours) in FIELDS.iter().filter(|(theirs, _)| named(theirs)) {
        if !parts.iter().any(|part| part == ours) {
            parts.push((*ours).to_owned());
        }
    }
    parts.extend(
        errors
            .iter()
            .filter_map(|error| error.code)
            .take(3)
            .map(|code| format!("code {code}")),
    );
    parts.iter().map(|part| format!(", {part}")).collect()
}
