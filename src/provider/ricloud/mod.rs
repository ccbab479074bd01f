//! ricloud (Reincubate): webhook configs with an id, a secret and a verdict of the server's own making.
//!
//! Sources: the vendor's page on webhook configs and, where it is silent, its public client of 2020; what neither
//! says is marked as an assumption. Bodies are in `wire`, the signature of deliveries in [`sign`]. What a config is
//! used for (a key, the organisation) is asked and set by [`Provider::is_used`] and its neighbours; when that
//! happens, when a test is due and what a verdict means is for the callers.

pub mod sign;
mod wire;

use std::collections::HashSet;

use self::wire::{Next, PAGE, Pages};
use super::{
    Call, Credentials, Effect, ErrorClass, Exchange, Operation, Provider, ProviderError, Removal,
    TestProgress, Usage,
    wire::{Room, json_or_nothing, segment},
};
use crate::{
    api::webhook_status::State,
    domain::{
        capabilities::{Capabilities, Identity, ReadRule, RemovalRule, SecretRule, TargetRule},
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, TaskId, same_url},
    },
    net::{Limit, Method, Response, SecretText},
};

/// What ricloud can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    identity: Identity::Assigned,
    target: TargetRule::Use,
    secret: SecretRule::MadeByUpstream,
    events: false,
    max_headers: 0,
    reserved_headers: &[],
    retry: false,
    basic_auth: false,
    max_description: 0,
    // Not documented: the schema's own limit.
    max_url: 2048,
    switch: true,
    upstream_test: true,
    read: ReadRule::OneAndList,
    removal: RemovalRule::DeleteOrSwitchOff,
    write_only_values: false,
    default_rate: (5, 10, 4),
};

/// Most pages of a list that are read. More is taken for a list without an end.
const MAX_PAGES: usize = 200;

const CONFIGS: &str = "/configs/webhook";

/// The dialect of ricloud.
#[derive(Clone, Copy, Debug)]
pub struct Ricloud;

/// One request with the key's token.
fn exchange(
    call: &Call<'_>,
    operation: Operation,
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
) -> Result<Exchange, ProviderError> {
    let Credentials::Ricloud { token } = &call.account.credentials else {
        let message = "the provider's credentials are of another type of upstream";
        return Err(ProviderError::new(
            ErrorClass::Unauthorized,
            operation,
            Effect::None,
            message,
        ));
    };
    let mut headers: Vec<(&'static str, SecretText)> = vec![
        ("Authorization", format!("Token {}", token.expose()).into()),
        ("Accept", "application/json".into()),
    ];
    if body.is_some() {
        headers.push(("Content-Type", "application/json".into()));
    }
    let limit = if operation == Operation::List {
        Limit::List
    } else {
        Limit::Object
    };
    Ok(Exchange {
        operation,
        method,
        path,
        headers,
        body,
        limit,
    })
}

/// Sends it. The outer error is a call without an answer, the inner one an answer other than 2xx.
async fn ask(
    call: &Call<'_>,
    operation: Operation,
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
) -> Result<Result<Response, ProviderError>, ProviderError> {
    send(call, exchange(call, operation, method, path, body)?).await
}

/// The same with a request that is made already.
async fn send(call: &Call<'_>, exchange: Exchange) -> Result<Result<Response, ProviderError>, ProviderError> {
    let operation = exchange.operation;
    let response = call.send(exchange).await?;
    let Some(error) = call.refusal(operation, &response) else {
        return Ok(Ok(response));
    };
    if error.class == ErrorClass::Unauthorized {
        call.credentials_refused();
    }
    Ok(Err(wire::refused(error, &response)))
}

fn config_path(operation: Operation, id: &RemoteId) -> Result<String, ProviderError> {
    Ok(format!("{CONFIGS}/{}", segment(operation, &id.0)?))
}

/// 404 and 410 to a call for an id: it is not there.
fn is_gone(error: &ProviderError) -> bool {
    error.class == ErrorClass::TargetNotFound
}

async fn list(call: &Call<'_>, filter: &str) -> Result<Vec<Remote>, ProviderError> {
    let (mut pages, mut after, mut room) = (Pages::default(), String::new(), Room::new());
    for _ in 0..MAX_PAGES {
        let path = format!("{CONFIGS}?limit={PAGE}{filter}{after}");
        let mut exchange = exchange(call, Operation::List, Method::Get, path, None)?;
        exchange.limit = room.limit();
        let page = send(call, exchange).await??;
        room.take(page.body())?;
        match pages.add(&page)? {
            Next::End => return Ok(pages.configs),
            Next::After(id) => after = format!("&after_id={}", segment(Operation::List, &id)?),
        }
    }
    Err(ProviderError::unexpected(Operation::List, "the list has no end"))
}

/// Every config. Deactivated ones are hidden unless asked for by themselves; one that is in both lists was
/// switched while they were read, and what was read last counts.
async fn list_all(call: &Call<'_>, inactive: bool) -> Result<Vec<Remote>, ProviderError> {
    let mut all = list(call, "").await?;
    if inactive {
        let hidden = list(call, "&state=deactivated").await?;
        let later: HashSet<&RemoteId> = hidden.iter().map(|config| &config.id).collect();
        all.retain(|config| !later.contains(&config.id));
        all.extend(hidden);
    }
    Ok(all)
}

async fn change(
    call: &Call<'_>,
    operation: Operation,
    id: &RemoteId,
    url: Option<&str>,
    state: Option<&str>,
) -> Result<Result<Response, ProviderError>, ProviderError> {
    let path = config_path(operation, id)?;
    ask(
        call,
        operation,
        Method::Post,
        path,
        Some(wire::change(url, state)),
    )
    .await
}

/// The resource of a use, the field of it that names a config, and where to write that field where it is known
/// beforehand (the own key has to be asked for its id).
fn place(usage: &Usage) -> Result<(String, &'static str), ProviderError> {
    Ok(match usage {
        Usage::Organisation => ("/organisation".to_owned(), "webhook_config_default"),
        Usage::OwnKey => ("/key".to_owned(), "webhook_config"),
        Usage::Key(id) => (
            format!("/keys/{}", segment(Operation::Use, id)?),
            "webhook_config",
        ),
    })
}

struct User {
    /// Where to write.
    path: String,
    field: &'static str,
    /// The config it uses now.
    config: Option<String>,
}

/// Who shall use or stop using a config. `None`: there is no such key.
async fn user(call: &Call<'_>, usage: &Usage) -> Result<Option<User>, ProviderError> {
    let (path, field) = place(usage)?;
    // It is only a look, whatever the operation's name says.
    let no_effect = |error| ProviderError {
        effect: Effect::None,
        ..error
    };
    let response = match ask(call, Operation::Use, Method::Get, path.clone(), None)
        .await
        .map_err(no_effect)?
    {
        Ok(response) => response,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(no_effect(error)),
    };
    let (id, config) = wire::user(&response, field).map_err(no_effect)?;
    let path = match (usage, id) {
        (Usage::OwnKey, Some(id)) => format!("/keys/{}", segment(Operation::Use, &id)?),
        (Usage::OwnKey, None) => {
            return Err(no_effect(ProviderError::unexpected(
                Operation::Use,
                "the key has no id",
            )));
        }
        _ => path,
    };
    Ok(Some(User { path, field, config }))
}

async fn point(call: &Call<'_>, user: User, id: Option<&str>) -> Result<(), ProviderError> {
    let body = wire::reference(user.field, id);
    let response = match ask(call, Operation::Use, Method::Post, user.path, Some(body)).await? {
        Ok(response) => response,
        Err(error) if is_gone(&error) => {
            let message = "the upstream does not know the key or organisation of the Webhook's target (404); correct the target";
            return Err(error.reclass(ErrorClass::TargetNotFound, message));
        }
        Err(error) if error.class == ErrorClass::Rejected && id.is_some() => {
            let message = "the upstream refused to let the Webhook's target use this webhook config, which must be valid for that; see its test";
            return Err(error.reclass(ErrorClass::Rejected, message));
        }
        Err(error) => return Err(error),
    };
    json_or_nothing(Operation::Use, &response)
}

impl Provider for Ricloud {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError> {
        match look {
            Look::ById(id) => {
                let path = config_path(Operation::Read, id)?;
                match ask(call, Operation::Read, Method::Get, path, None).await? {
                    Ok(response) => {
                        let config = wire::config(Operation::Read, Some(id), None, &response)?;
                        Ok(Seen::One(Some(Box::new(config))))
                    }
                    Err(error) if is_gone(&error) => Ok(Seen::One(None)),
                    Err(error) => Err(error),
                }
            }
            Look::All { inactive } => {
                let lists = &call.account.lists;
                lists
                    .get(*inactive, call.fresh_after, || list_all(call, *inactive))
                    .await
                    .map(Seen::All)
            }
        }
    }

    /// A config is always made switched on, whatever `want` says: the documents know no other parameter than the
    /// URL. Where it shall be off, the answer differs from `want`, and an update follows.
    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError> {
        let body = wire::change(Some(&want.url), None);
        let response = ask(
            call,
            Operation::Create,
            Method::Post,
            CONFIGS.to_owned(),
            Some(body),
        )
        .await??;
        wire::config(Operation::Create, None, Some(&want.url), &response)
    }

    /// URL and state go in one call. Switching on again is `state: new`, which one place of the documents allows
    /// and another does not: after a 400 the URL is sent again, which makes a config `new` as well. Where it is
    /// still off then, the answer says so, and the caller makes a new one.
    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError> {
        let url = there
            .is_none_or(|there| !same_url(&there.url, &want.url))
            .then_some(want.url.as_str());
        let state = match (want.active, there.is_none_or(Remote::is_on)) {
            (true, true) => None,
            (true, false) => Some("new"),
            (false, true) => Some("deactivated"),
            (false, false) => None,
        };
        let operation = if url.is_some() {
            Operation::Update
        } else {
            Operation::Switch
        };
        if let (None, None, Some(there)) = (url, state, there) {
            // Every write starts a test, so none goes without a reason.
            return Ok(there.clone());
        }
        let response = match change(call, operation, id, url, state).await? {
            Err(error) if error.class == ErrorClass::Rejected && state == Some("new") => {
                change(call, operation, id, Some(&want.url), None).await??
            }
            answer => answer?,
        };
        wire::config(operation, Some(id), Some(&want.url), &response)
    }

    async fn switch_off(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        _want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        match change(call, Operation::Switch, id, None, Some("deactivated")).await? {
            Ok(response) => {
                json_or_nothing(Operation::Switch, &response)?;
                // An answer that shows it still on is no success; one without a state has to be believed.
                match wire::config(Operation::Switch, Some(id), Some(""), &response)
                    .ok()
                    .and_then(|config| config.state)
                {
                    None | Some(State::Deactivated) => Ok(Removal::SwitchedOff),
                    Some(_) => Err(ProviderError::unexpected(
                        Operation::Switch,
                        "the webhook config stays on",
                    )),
                }
            }
            Err(error) if is_gone(&error) => Ok(Removal::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    /// The delete call is in the vendor's client and not in its documents, so a refusal leads to the documented
    /// way: `deactivated`. A config that is in use may be refused as well and then ends the same way.
    async fn remove(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        let path = config_path(Operation::Delete, id)?;
        match ask(call, Operation::Delete, Method::Delete, path, None).await? {
            Ok(response) => json_or_nothing(Operation::Delete, &response).map(|()| Removal::Removed),
            Err(error) => match error.class {
                ErrorClass::TargetNotFound => Ok(Removal::AlreadyGone),
                ErrorClass::Rejected
                | ErrorClass::Forbidden
                | ErrorClass::Unsupported
                | ErrorClass::AlreadyExists => self.switch_off(call, id, want).await,
                ErrorClass::Unauthorized
                | ErrorClass::RateLimited
                | ErrorClass::Timeout
                | ErrorClass::Unreachable
                | ErrorClass::BlockedAddress
                | ErrorClass::Unexpected
                | ErrorClass::Held => Err(error),
            },
        }
    }

    /// POST, although the document's sample would GET. An empty object first; the vendor's client sends none.
    async fn start_test(&self, call: &Call<'_>, id: &RemoteId) -> Result<TaskId, ProviderError> {
        let path = format!("{}/test", config_path(Operation::Test, id)?);
        let first = ask(
            call,
            Operation::Test,
            Method::Post,
            path.clone(),
            Some(b"{}".to_vec()),
        )
        .await?;
        let response = match first {
            Err(error) if error.status == Some(400) => {
                ask(call, Operation::Test, Method::Post, path, None).await??
            }
            answer => answer?,
        };
        wire::task(&response)
    }

    async fn poll_test(&self, call: &Call<'_>, task: &TaskId) -> Result<TestProgress, ProviderError> {
        let path = format!("/tasks/{}", segment(Operation::Poll, &task.0)?);
        match ask(call, Operation::Poll, Method::Get, path, None).await? {
            Ok(response) => wire::progress(&response),
            Err(error) if is_gone(&error) => Ok(TestProgress::Vanished),
            Err(error) => Err(error),
        }
    }

    async fn is_used(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<bool, ProviderError> {
        Ok(user(call, usage)
            .await?
            .is_some_and(|user| user.config.as_deref() == Some(id.0.as_str())))
    }

    async fn use_it(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<(), ProviderError> {
        // Only the own key's place has to be asked for.
        let user = match usage {
            Usage::OwnKey => user(call, usage).await?,
            Usage::Organisation | Usage::Key(_) => {
                let (path, field) = place(usage)?;
                Some(User {
                    path,
                    field,
                    config: None,
                })
            }
        };
        match user {
            Some(user) => point(call, user, Some(&id.0)).await,
            None => {
                let message = "the upstream does not show the key that calls (404); use key:<id> or organisation as target";
                Err(ProviderError::new(
                    ErrorClass::TargetNotFound,
                    Operation::Use,
                    Effect::None,
                    message,
                ))
            }
        }
    }

    async fn stop_using(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<(), ProviderError> {
        match user(call, usage).await? {
            Some(user) if user.config.as_deref() == Some(id.0.as_str()) => {
                match point(call, user, None).await {
                    Err(error) if is_gone(&error) => Ok(()),
                    done => done,
                }
            }
            _ => Ok(()),
        }
    }
}
