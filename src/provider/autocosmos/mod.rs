//! Autocosmos API v3 (`appnotificaciones`): one webhook configuration per application and topic, keyed by the
//! topic in the path, every request signed.
//!
//! Sources: the vendor's pages on POST, GET and PUT and, for the signature of requests, its introduction and a
//! public client. Bodies are in `wire`, both signatures in [`sign`]. When to look, to write or to give up is for
//! the callers; here a request is sent twice only after a first 401, which may mean a replay.

pub mod sign;
mod wire;

use std::time::Duration;

use serde_json::{Map, Value};

pub use self::sign::SignLog;
use self::sign::{Signed, digest, http_date};
use super::{
    Call, Credentials, Effect, ErrorClass, Exchange, Operation, Provider, ProviderError, Removal, Standing,
    wire::{json_or_nothing, segment},
};
use crate::{
    domain::{
        capabilities::{Capabilities, Identity, ReadRule, RemovalRule, SecretRule, TargetRule},
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen},
    },
    net::{CheckedUrl, Limit, Method, Response, SecretText},
};

/// What Autocosmos can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    identity: Identity::ByTarget,
    target: TargetRule::Opaque,
    secret: SecretRule::Given { min: 16, max: 256 },
    events: false,
    max_headers: 3,
    reserved_headers: &["notification-", "content-"],
    retry: false,
    basic_auth: false,
    max_description: 256,
    max_url: 1024,
    switch: true,
    upstream_test: false,
    read: ReadRule::OneByKey,
    removal: RemovalRule::DeleteOrSwitchOff,
    // Whether GET shows the secret is not documented.
    write_only_values: true,
    // No figures are public; the vendor threatens to block applications that misbehave.
    default_rate: (1, 1, 1),
};

/// After a 401 that may mean a replay: certainly in another second.
const REPLAY_WAIT: Duration = Duration::from_millis(1100);

/// The dialect of Autocosmos.
#[derive(Clone, Copy, Debug)]
pub struct Autocosmos;

fn topic_path(operation: Operation, topic: &str) -> Result<String, ProviderError> {
    Ok(format!("/v3/appnotificaciones/{}", segment(operation, topic)?))
}

/// A request with the date of now, signed.
async fn signed(
    call: &Call<'_>,
    operation: Operation,
    method: Method,
    path: &str,
    body: Option<&[u8]>,
) -> Result<Exchange, ProviderError> {
    let account = call.account;
    let Credentials::Autocosmos { app_key, app_secret } = &account.credentials else {
        let message = "the provider's credentials are of another type of upstream";
        return Err(ProviderError::new(
            ErrorClass::Unauthorized,
            operation,
            Effect::None,
            message,
        ));
    };
    // What is signed must be what the HTTP library sends, so it is taken from the parsed URL. A URL that does not
    // parse is refused, with the reason, where it is sent.
    let path_and_query = CheckedUrl::parse(&format!("{}{path}", account.base)).map_or_else(
        |_| path.to_owned(),
        |url| {
            url.query().map_or_else(
                || url.path().to_owned(),
                |query| format!("{}?{query}", url.path()),
            )
        },
    );
    let digest = body.map(digest);
    let digest_text = digest.as_deref().unwrap_or_default();
    let date = account
        .sign_log
        .next_date(&account.clock, method, &path_and_query, digest_text)
        .await;
    let date = http_date(date);
    let authorization = Signed {
        method,
        digest: digest_text,
        date: &date,
        acs_headers: &[],
        path_and_query: &path_and_query,
    }
    .authorization(app_key, app_secret);
    let mut headers: Vec<(&'static str, SecretText)> = vec![
        ("Authorization", authorization),
        ("Date", date.into()),
        ("Accept", "application/json".into()),
    ];
    if let Some(digest) = digest {
        headers.push(("Digest", digest.into()));
        headers.push(("Content-Type", "application/json".into()));
    }
    let body = body.map(<[u8]>::to_vec);
    Ok(Exchange {
        operation,
        method,
        path: path.to_owned(),
        headers,
        body,
        limit: Limit::Object,
    })
}

/// Sends it, signed afresh for each attempt. The outer error is a call without an answer, the inner one an answer
/// other than 2xx; only the HTTP status counts, because the bodies are known to contradict it.
async fn ask(
    call: &Call<'_>,
    operation: Operation,
    method: Method,
    path: &str,
    body: Option<&[u8]>,
) -> Result<Result<Response, ProviderError>, ProviderError> {
    call.wait_for_budget(operation).await;
    let mut response = call
        .transmit(signed(call, operation, method, path, body).await?)
        .await?;
    // With credentials that are refused already this was the one call that is made now and then to see whether they
    // still are: one answer is enough.
    if response.status() == 401 && !matches!(call.account.standing(), Standing::Refused { .. }) {
        tokio::time::sleep(REPLAY_WAIT).await;
        call.wait_for_budget(operation).await;
        response = call
            .transmit(signed(call, operation, method, path, body).await?)
            .await?;
    }
    let Some(error) = call.refusal(operation, &response) else {
        return Ok(Ok(response));
    };
    Ok(Err(match error.class {
        ErrorClass::Unauthorized => {
            call.credentials_refused();
            let message = "the upstream refused the signature twice (401); correct appKey and appSecret in the provider's credentials Secret, and see that the node's clock is right";
            error.reclass(ErrorClass::Unauthorized, message)
        }
        ErrorClass::Forbidden => {
            let message = "the topic is not available to this application (403); correct the Webhook's target or ask the upstream to open the topic";
            error.reclass(ErrorClass::Forbidden, message)
        }
        _ => wire::refused(error, &response),
    }))
}

/// What is configured for the topic, with the answer itself. `None`: nothing is.
async fn read(
    call: &Call<'_>,
    topic: &RemoteId,
) -> Result<Option<(Remote, Map<String, Value>)>, ProviderError> {
    let path = topic_path(Operation::Read, &topic.0)?;
    match ask(call, Operation::Read, Method::Get, &path, None).await? {
        Ok(response) => wire::read(&topic.0, &response).map(Some),
        Err(error) if error.class == ErrorClass::TargetNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn write(
    call: &Call<'_>,
    operation: Operation,
    method: Method,
    topic: &str,
    want: &Desired,
) -> Result<Result<Remote, ProviderError>, ProviderError> {
    let path = topic_path(operation, topic)?;
    match ask(call, operation, method, &path, Some(&wire::body(want))).await? {
        Ok(response) => wire::written(operation, topic, want, &response).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// Suspends the configuration: everything as it was read, but off, with these headers. The secret goes along
/// where it is known; otherwise null, because what the upstream shows of it may be a mask.
async fn suspend(
    call: &Call<'_>,
    there: Remote,
    want: Option<&Desired>,
    headers: Vec<crate::domain::desired::Header>,
) -> Result<Removal, ProviderError> {
    let off = Desired {
        target: Some(there.id.0.clone()),
        url: there.url,
        description: there.description.filter(|text| !text.is_empty()),
        active: false,
        secret: want.and_then(|want| want.secret.clone()),
        headers,
        ..Desired::default()
    };
    match write(call, Operation::Switch, Method::Put, &there.id.0, &off).await? {
        Ok(now) if now.is_on() => Err(ProviderError::unexpected(
            Operation::Switch,
            "the configuration stays on",
        )),
        Ok(_) => Ok(Removal::SwitchedOff),
        Err(error) if error.class == ErrorClass::TargetNotFound => Ok(Removal::AlreadyGone),
        Err(error) => Err(error),
    }
}

impl Provider for Autocosmos {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError> {
        match look {
            Look::ById(topic) => {
                let seen = read(call, topic).await?;
                Ok(Seen::One(seen.map(|(remote, _)| Box::new(remote))))
            }
            Look::All { .. } => Ok(Seen::CannotKnow),
        }
    }

    /// A configuration that is there already is [`ErrorClass::AlreadyExists`] (409), never a second one.
    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError> {
        let topic = want.target.as_deref().unwrap_or_default();
        write(call, Operation::Create, Method::Post, topic, want).await?
    }

    /// Replaces the whole. Whether PUT makes a missing one is not documented; where it does not, the error is
    /// [`ErrorClass::TargetNotFound`].
    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        _there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError> {
        write(call, Operation::Update, Method::Put, &id.0, want).await?
    }

    async fn switch_off(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        let Some((there, _)) = read(call, id).await? else {
            return Ok(Removal::AlreadyGone);
        };
        let headers = want
            .map(|want| want.headers.clone())
            .or_else(|| there.headers.clone())
            .unwrap_or_default();
        suspend(call, there, want, headers).await
    }

    /// No delete call is documented, but an answer may offer one among its links. Without one, or where it is
    /// refused, the configuration is suspended and its headers, which may hold secrets, are taken away.
    async fn remove(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        let Some((there, object)) = read(call, id).await? else {
            return Ok(Removal::AlreadyGone);
        };
        let own = topic_path(Operation::Delete, &id.0)?;
        if let Some(link) = wire::delete_link(&object, &call.account.base, &own) {
            match ask(call, Operation::Delete, Method::Delete, &link, None).await? {
                Ok(response) => {
                    return json_or_nothing(Operation::Delete, &response).map(|()| Removal::Removed);
                }
                Err(error) => match error.class {
                    ErrorClass::TargetNotFound => return Ok(Removal::Removed),
                    ErrorClass::Rejected
                    | ErrorClass::Forbidden
                    | ErrorClass::Unsupported
                    | ErrorClass::AlreadyExists => {}
                    ErrorClass::Unauthorized
                    | ErrorClass::RateLimited
                    | ErrorClass::Timeout
                    | ErrorClass::Unreachable
                    | ErrorClass::BlockedAddress
                    | ErrorClass::Unexpected
                    | ErrorClass::Held => return Err(error),
                },
            }
        }
        suspend(call, there, want, Vec::new()).await
    }
}
