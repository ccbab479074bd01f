//! Conpeek: one webhook configuration for each application, overwritten by `PUT`, echoed in the answer.
//!
//! What the public page leaves open is decided by what comes back: whether the body goes at top level or under
//! `data` (the page shows both), and whether the configuration can be read (no page says so). Both findings are
//! kept in [`Account::findings`](super::Account). There is no call to remove or to switch off a configuration.
//! Which of several Webhooks may write an application, and when, is decided elsewhere.

mod wire;

use self::wire::{Answer, Flag, body};
use super::{
    Call, Credentials, Exchange, Provider, Removal,
    account::{Account, Finding, Learned, Standing},
    error::{Effect, ErrorClass, Operation, ProviderError},
};
use crate::{
    api::provider::BodyStyle,
    domain::{
        capabilities::{Capabilities, Identity, ReadRule, RemovalRule, SecretRule, TargetRule},
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    net::{Limit, Method, Response, SecretText},
};

/// What Conpeek can do. No limit on headers or on the URL is documented: those of the schema stand here.
pub const CAPABILITIES: Capabilities = Capabilities {
    identity: Identity::ByTarget,
    target: TargetRule::PositiveInteger,
    secret: SecretRule::None,
    events: false,
    max_headers: 32,
    reserved_headers: &[],
    retry: true,
    basic_auth: false,
    max_description: 0,
    max_url: 2048,
    switch: false,
    upstream_test: false,
    read: ReadRule::UndocumentedOne,
    removal: RemovalRule::LeftInPlace,
    write_only_values: false,
    default_rate: (5, 10, 4),
};

/// The dialect. Has no state of its own.
#[derive(Clone, Copy, Debug)]
pub struct Conpeek;

impl Provider for Conpeek {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError> {
        match look {
            Look::ById(id) => read(call, id).await,
            Look::All { .. } => Ok(Seen::CannotKnow),
        }
    }

    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError> {
        let id = RemoteId(want.target.clone().unwrap_or_default());
        write(call, Operation::Create, &id, want).await
    }

    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        _there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError> {
        write(call, Operation::Update, id, want).await
    }

    /// Nothing can be removed, so no call is made. Emptying the configuration instead would change what the user
    /// did not ask to be changed, and could not be told from a broken one.
    async fn remove(
        &self,
        _call: &Call<'_>,
        _id: &RemoteId,
        _want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        Ok(Removal::LeftInPlace)
    }
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Flat,
    Wrapped,
}

impl Style {
    const fn learned(self) -> Learned {
        match self {
            Self::Flat => Learned::Flat,
            Self::Wrapped => Learned::Wrapped,
        }
    }
}

/// The styles to try, in order: the one that is set, or the learned one before the other, or flat first.
const fn styles(set: BodyStyle, learned: Option<Learned>) -> &'static [Style] {
    match (set, learned) {
        (BodyStyle::Flat, _) => &[Style::Flat],
        (BodyStyle::Wrapped, _) => &[Style::Wrapped],
        (BodyStyle::Auto, Some(Learned::Wrapped)) => &[Style::Wrapped, Style::Flat],
        (BodyStyle::Auto, _) => &[Style::Flat, Style::Wrapped],
    }
}

/// How one `PUT` ended that came back without an error of the account as a whole.
enum Attempt {
    /// The echo is what was sent.
    Applied(Remote),
    /// 4xx, or 200 with `success` false.
    Refused(ProviderError),
    /// Accepted, and the echo differs in these fields: the body was not understood in this style.
    NotEchoed(Vec<&'static str>),
}

/// Writes the whole configuration. A second `PUT` in the other style goes out only if the first was refused or
/// not echoed: sending both shapes in one body would be guessing in a way that nobody could check.
async fn write(
    call: &Call<'_>,
    operation: Operation,
    id: &RemoteId,
    want: &Desired,
) -> Result<Remote, ProviderError> {
    let Account {
        findings,
        clock,
        body_style,
        ..
    } = call.account;
    let learned = findings.get(Finding::ConpeekBodyStyle, clock.now());
    let (mut refused, mut not_echoed) = (None, None);
    for style in styles(*body_style, learned) {
        match attempt(call, operation, id, want, *style).await? {
            Attempt::Applied(remote) => {
                findings.learn(Finding::ConpeekBodyStyle, style.learned(), clock.now());
                return Ok(remote);
            }
            Attempt::Refused(error) => refused = refused.or(Some(error)),
            Attempt::NotEchoed(fields) => not_echoed = not_echoed.or(Some(fields)),
        }
    }
    // A style that is refused is one that is read: the content is wrong, whatever the other style gave.
    if let Some(error) = refused {
        return Err(error);
    }
    findings.forget(Finding::ConpeekBodyStyle);
    let what = format!(
        "it accepted the configuration of application {id} and then showed another {}; see `bodyStyle` of the provider",
        not_echoed.unwrap_or_default().join(", ")
    );
    Err(ProviderError::unexpected(operation, &what))
}

async fn attempt(
    call: &Call<'_>,
    operation: Operation,
    id: &RemoteId,
    want: &Desired,
    style: Style,
) -> Result<Attempt, ProviderError> {
    let response = call
        .send(put_request(call.account, operation, id, want, style)?)
        .await?;
    if let Some(error) = refusal(call, operation, id, &response) {
        return match error.class {
            ErrorClass::Rejected => Ok(Attempt::Refused(error)),
            ErrorClass::TargetNotFound => {
                // Without the application, a read that answered 404 has said nothing about the route.
                call.account.findings.forget(Finding::ConpeekRead);
                Err(error)
            }
            _ => Err(error),
        };
    }
    let answer = Answer::parse(operation, response.body())?;
    if answer.success == Some(Flag(false)) {
        let message = format!(
            "{}: it answered that it did not succeed; {CURE}",
            refused_text(id)
        );
        let error = ProviderError::new(ErrorClass::Rejected, operation, Effect::None, message);
        return Ok(Attempt::Refused(ProviderError {
            status: Some(response.status()),
            ..error
        }));
    }
    let remote = answer.config().remote(id);
    let fields = differences(want, &remote);
    Ok(if fields.is_empty() {
        Attempt::Applied(remote)
    } else {
        Attempt::NotEchoed(fields)
    })
}

const CURE: &str = "correct the Webhook's url, headers or retry";

fn refused_text(id: &RemoteId) -> String {
    format!("Conpeek refused the configuration of application {id}")
}

/// The error that a status stands for at Conpeek; `None`: 2xx.
fn refusal(
    call: &Call<'_>,
    operation: Operation,
    id: &RemoteId,
    response: &Response,
) -> Option<ProviderError> {
    let error = call.refusal(operation, response)?;
    let status = response.status();
    Some(match error.class {
        ErrorClass::Unauthorized => {
            call.credentials_refused();
            error
        }
        // The page lists 403 and no 401, so 403 may mean a wrong key, until this key has been seen to work.
        ErrorClass::Forbidden if call.account.standing() == Standing::Accepted => {
            let message = format!(
                "Conpeek does not allow this for application {id} (403); let the API key manage this application, or correct spec.target"
            );
            error.reclass(ErrorClass::Forbidden, message)
        }
        ErrorClass::Forbidden => {
            call.credentials_refused();
            let message = format!(
                "Conpeek answered 403: the API key is wrong, or it may not manage application {id}; correct `apiKey` in the provider's credentials Secret or spec.target"
            );
            error.reclass(ErrorClass::Unauthorized, message)
        }
        ErrorClass::TargetNotFound => {
            let message = format!(
                "Conpeek has no application {id} ({status}); correct spec.target, or the provider's baseUrl if it is wrong for all"
            );
            error.reclass(ErrorClass::TargetNotFound, message)
        }
        ErrorClass::Rejected => error.reclass(
            ErrorClass::Rejected,
            format!("{} ({status}); {CURE}", refused_text(id)),
        ),
        _ => error,
    })
}

/// Reads by the undocumented `GET`. What this call cannot do must never stand in the way of the documented
/// `PUT`: so all that may come of a missing route is `CannotKnow`.
async fn read(call: &Call<'_>, id: &RemoteId) -> Result<Seen, ProviderError> {
    let Account { findings, clock, .. } = call.account;
    let known = findings.get(Finding::ConpeekRead, clock.now());
    if !call.account.undocumented || known == Some(Learned::Unsupported) {
        return Ok(Seen::CannotKnow);
    }
    let answer = match call.send(get_request(call.account, id)?).await {
        Ok(response) => judge_read(&response, id),
        // An answer too large or garbled to be taken in is one of another shape.
        Err(error) if error.class == ErrorClass::Unexpected => Read::OtherShape(error),
        Err(error) => return Err(error),
    };
    match answer {
        Read::Found(remote) => {
            findings.learn(Finding::ConpeekRead, Learned::Supported, clock.now());
            Ok(Seen::One(Some(remote)))
        }
        // The route has answered others, so it is the application that is missing. The write that follows says so
        // with certainty.
        Read::NotThere if known == Some(Learned::Supported) => Ok(Seen::One(None)),
        // May be a wrong key, or one that may write and not read. The write that follows tells them apart.
        Read::Forbidden if call.account.standing() != Standing::Accepted => Ok(Seen::CannotKnow),
        // Once is an accident; if it stays so, the next read finds nothing known and takes the branch below.
        Read::OtherShape(error) if known == Some(Learned::Supported) => {
            findings.forget(Finding::ConpeekRead);
            Err(error)
        }
        Read::NotThere | Read::NoRoute | Read::Forbidden | Read::OtherShape(_) => {
            findings.learn(Finding::ConpeekRead, Learned::Unsupported, clock.now());
            Ok(Seen::CannotKnow)
        }
        Read::Failed(response) => match refusal(call, Operation::Read, id, &response) {
            Some(error) => Err(error),
            None => Ok(Seen::CannotKnow),
        },
    }
}

/// What an answer to `GET` means.
enum Read {
    Found(Box<Remote>),
    NotThere,
    NoRoute,
    Forbidden,
    OtherShape(ProviderError),
    Failed(Response),
}

fn judge_read(response: &Response, id: &RemoteId) -> Read {
    let other = |what: &str| Read::OtherShape(ProviderError::unexpected(Operation::Read, what));
    match response.status() {
        200..=299 => match Answer::parse(Operation::Read, response.body()) {
            Err(error) => Read::OtherShape(error),
            Ok(answer) if answer.success == Some(Flag(false)) => other("it says that it did not succeed"),
            Ok(answer) => match answer.config() {
                config if config.url.is_some() => Read::Found(Box::new(config.remote(id))),
                _ => other("it shows no url"),
            },
        },
        404 | 410 => Read::NotThere,
        405 | 501 => Read::NoRoute,
        403 => Read::Forbidden,
        401 | 408 | 425 | 429 | 500.. => Read::Failed(response.clone()),
        _ => other("it does not read a configuration"),
    }
}

fn put_request(
    account: &Account,
    operation: Operation,
    id: &RemoteId,
    want: &Desired,
    style: Style,
) -> Result<Exchange, ProviderError> {
    Ok(Exchange {
        operation,
        method: Method::Put,
        path: path(operation, id)?,
        headers: vec![
            authorization(account, operation)?,
            ("Content-Type", "application/json".into()),
        ],
        body: Some(body(operation, want, style)?),
        limit: Limit::Object,
    })
}

fn get_request(account: &Account, id: &RemoteId) -> Result<Exchange, ProviderError> {
    Ok(Exchange {
        operation: Operation::Read,
        method: Method::Get,
        path: path(Operation::Read, id)?,
        headers: vec![authorization(account, Operation::Read)?],
        body: None,
        limit: Limit::Object,
    })
}

/// `/application/{id}/webhook`. The id may come from an annotation that anybody can edit: digits only, so that
/// it can be nothing but one path segment.
fn path(operation: Operation, id: &RemoteId) -> Result<String, ProviderError> {
    match Some(id.0.as_str())
        .filter(|text| digits(text))
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(application) if application > 0 => Ok(format!("/application/{application}/webhook")),
        _ => {
            let message = "spec.target must be the id of a Conpeek application: a positive whole number";
            Err(ProviderError::new(
                ErrorClass::Rejected,
                operation,
                Effect::None,
                message,
            ))
        }
    }
}

/// The bare key: no scheme word goes before it.
fn authorization(
    account: &Account,
    operation: Operation,
) -> Result<(&'static str, SecretText), ProviderError> {
    match &account.credentials {
        Credentials::Conpeek { api_key } => Ok(("Authorization", api_key.clone())),
        _ => {
            let message =
                "the provider's credentials are not those of Conpeek; its Secret needs the key `apiKey`";
            Err(ProviderError::new(
                ErrorClass::Unauthorized,
                operation,
                Effect::None,
                message,
            ))
        }
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
