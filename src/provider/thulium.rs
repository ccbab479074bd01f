//! Thulium: a list of webhooks of the whole system, each with an id of the upstream's and a set of actions.
//!
//! Documented are the list and the `POST` that makes one; a second `POST` makes a second webhook. `PUT` and
//! `DELETE` by id are in no public document: whether they work is found out by using them and then reading the
//! list again, and kept in [`Account::findings`](super::Account). When to look, create or replace is decided
//! elsewhere.
//!
//! The list shows the passwords of all webhooks of the system: they are skipped while it is read, and no part of
//! any answer enters a message.

mod wire;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::Instant;

use self::wire::{Hooks, Login, body, complaint, created, parse, whole_number};
use super::{
    Call, Credentials, Exchange, Provider, Removal,
    account::{Account, Finding, Learned},
    error::{Effect, ErrorClass, Operation, ProviderError},
    wire::{Room, json_or_nothing, too_long},
};
use crate::{
    domain::{
        capabilities::{Capabilities, Identity, ReadRule, RemovalRule, SecretRule, TargetRule},
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, differences},
    },
    net::{Limit, Method, Response, SecretText},
};

/// What Thulium can do. No limit on the URL is documented: that of the schema stands here.
pub const CAPABILITIES: Capabilities = Capabilities {
    identity: Identity::Assigned,
    target: TargetRule::Unsupported,
    secret: SecretRule::None,
    events: true,
    max_headers: 0,
    reserved_headers: &[],
    retry: false,
    basic_auth: true,
    max_description: 0,
    max_url: 2048,
    switch: false,
    upstream_test: false,
    read: ReadRule::ListOnly,
    removal: RemovalRule::UndocumentedDelete,
    // The password of the Basic authentication, which may come back masked.
    write_only_values: true,
    default_rate: (5, 10, 4),
};

/// The dialect. Has no state of its own.
#[derive(Clone, Copy, Debug)]
pub struct Thulium;

impl Provider for Thulium {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError> {
        let listed = list(call, call.fresh_after).await?;
        Ok(match look {
            Look::ById(id) => Seen::One(find(&listed, id).map(|there| Box::new(there.clone()))),
            // Nothing can be switched off, so nothing is hidden.
            Look::All { .. } => Seen::All(listed),
        })
    }

    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError> {
        let operation = Operation::Create;
        let body = body(operation, want, Login::OmittedIfNone)?;
        let response = call
            .send(request(
                call.account,
                operation,
                COLLECTION.to_owned(),
                Some(body),
            )?)
            .await?;
        match refusal(call, operation, &response) {
            Some(error) => Err(error),
            None => created(response.body(), want),
        }
    }

    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError> {
        update(call, id, there, want).await
    }

    async fn remove(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        _want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        remove(call, id).await
    }
}

/// Below the base URL, which ends in `/api`.
const COLLECTION: &str = "/webhooks";

/// Page size of this API's other lists where none is asked for, and their largest.
const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// How far each further page reaches back into the one before: so many webhooks may be removed while the list
/// is read, and none is skipped for that.
const OVERLAP: usize = 10;

/// Most pages of one list. More means an upstream that never ends.
const MOST_PAGES: usize = 100;

/// Webhooks by id.
type Listed = BTreeMap<u64, Remote>;

/// All webhooks of the system, read at or after `not_before`.
async fn list(call: &Call<'_>, not_before: Instant) -> Result<Arc<Vec<Remote>>, ProviderError> {
    call.account
        .lists
        .get(false, not_before, || read_pages(call))
        .await
}

/// A list that was begun after this call, and so shows what the calls before it have done.
async fn list_again(call: &Call<'_>) -> Result<Arc<Vec<Remote>>, ProviderError> {
    // A nanosecond more, because under a paused clock a list may have been begun at this very instant.
    list(call, Instant::now() + Duration::from_nanos(1)).await
}

/// Reads page by page, ascending by id. The documents show no paging: the first request has no parameters, and
/// only an answer of exactly the default page size of this API's other lists makes it ask for more. An upstream
/// that ignores the parameters or shows an id twice does no harm: a page without a new id is the last, unless it is as
/// long as a page can be.
async fn read_pages(call: &Call<'_>) -> Result<Vec<Remote>, ProviderError> {
    let (mut all, mut room) = (Listed::new(), Room::new());
    if page(call, COLLECTION.to_owned(), &mut room, &mut all).await?.read != DEFAULT_PAGE {
        return Ok(all.into_values().collect());
    }
    let mut offset = 0;
    for number in 0..MOST_PAGES {
        let path = format!("{COLLECTION}?limit={LARGEST_PAGE}&offset={offset}");
        let page = match page(call, path, &mut room, &mut all).await {
            // It knows no parameters: then what it listed without them is all there is.
            Err(error) if number == 0 && refuses_parameters(&error) => break,
            result => result?,
        };
        // The first of these repeats what is known already, so it is no wonder that it has nothing new.
        let last = page.read < DEFAULT_PAGE
            || (DEFAULT_PAGE + 1..LARGEST_PAGE).contains(&page.read)
            || (offset > 0 && page.new == 0);
        if offset > 0 && page.read >= LARGEST_PAGE && page.new == 0 {
            // It heeds the limit and not the offset: what comes after is out of reach, and must not pass for missing.
            let what = "a full page of its list came twice";
            return Err(ProviderError::unexpected(Operation::List, what));
        }
        if last {
            break;
        }
        if number + 1 == MOST_PAGES {
            return Err(ProviderError::unexpected(
                Operation::List,
                "its list does not end",
            ));
        }
        offset += page.read - OVERLAP;
    }
    Ok(all.into_values().collect())
}

fn refuses_parameters(error: &ProviderError) -> bool {
    matches!(
        error.class,
        ErrorClass::Rejected | ErrorClass::TargetNotFound | ErrorClass::Unsupported
    )
}

/// How many webhooks a page had, and how many of them were not known before.
struct Page {
    read: usize,
    new: usize,
}

async fn page(
    call: &Call<'_>,
    path: String,
    room: &mut Room,
    all: &mut Listed,
) -> Result<Page, ProviderError> {
    let mut exchange = request(call.account, Operation::List, path, None)?;
    exchange.limit = room.limit();
    let response = call.send(exchange).await?;
    if let Some(error) = refusal(call, Operation::List, &response) {
        return Err(error);
    }
    room.take(response.body())?;
    let Hooks(hooks) = parse(Operation::List, response.body())?;
    let (read, before) = (hooks.len(), all.len());
    for hook in hooks {
        let Some((id, there)) = hook.listed() else {
            let what = "an entry of its list shows no subscription_url or no actions";
            return Err(ProviderError::unexpected(Operation::List, what));
        };
        // Of an id shown twice the later one counts: it was read later.
        all.insert(id, there);
    }
    if let Some(error) = too_long(all.len()) {
        return Err(error);
    }
    Ok(Page {
        read,
        new: all.len() - before,
    })
}

fn find<'a>(listed: &'a [Remote], id: &RemoteId) -> Option<&'a Remote> {
    listed.iter().find(|there| there.id == *id)
}

/// Changes by the undocumented `PUT`, and believes only what the list then shows.
async fn update(
    call: &Call<'_>,
    id: &RemoteId,
    there: Option<&Remote>,
    want: &Desired,
) -> Result<Remote, ProviderError> {
    let operation = Operation::Update;
    let Account {
        findings,
        clock,
        undocumented,
        ..
    } = call.account;
    if !undocumented {
        return Err(update_unsupported(
            id,
            there,
            want,
            "and the provider's undocumentedCalls is Deny",
        ));
    }
    if findings.get(Finding::ThuliumUpdate, clock.now()) == Some(Learned::Unsupported) {
        return Err(update_unsupported(id, there, want, NOT_HERE));
    }
    let Some(path) = item(id) else {
        return Err(gone(id));
    };
    let body = body(operation, want, Login::EmptyIfNone)?;
    let response = call
        .send(request(call.account, operation, path, Some(body))?)
        .await?;
    let refused = refusal(call, operation, &response);
    if let Some(error) = refused.as_ref().filter(|error| !may_lack_route(error)) {
        return Err(error.clone());
    }
    let listed = list_again(call).await?;
    let Some(now) = find(&listed, id) else {
        return Err(gone(id));
    };
    if refused.is_some() {
        findings.learn(Finding::ThuliumUpdate, Learned::Unsupported, clock.now());
        return Err(update_unsupported(id, Some(now), want, NOT_HERE));
    }
    let fields = differences(want, now);
    if !fields.is_empty() {
        let what = format!(
            "it accepted the change of webhook {id}, and its list shows another {}",
            fields.join(", ")
        );
        return Err(ProviderError::unexpected(operation, &what));
    }
    findings.learn(Finding::ThuliumUpdate, Learned::Supported, clock.now());
    Ok(now.clone())
}

const NOT_HERE: &str = "and this system does not know the undocumented one";

/// Says what a person has to do, because the operator cannot.
fn update_unsupported(id: &RemoteId, there: Option<&Remote>, want: &Desired, why: &str) -> ProviderError {
    let fields = there.map(|there| differences(want, there)).unwrap_or_default();
    // What differs and is not shown can only be the password.
    let fields = if fields.is_empty() {
        "basicAuthRef".to_owned()
    } else {
        fields.join(", ")
    };
    let message = format!(
        "Thulium has no documented call to change a webhook, {why}: in Thulium's panel set webhook {id} as the spec says ({fields}), or delete it there and it is registered anew"
    );
    ProviderError::new(ErrorClass::Unsupported, Operation::Update, Effect::None, message)
}

fn gone(id: &RemoteId) -> ProviderError {
    let message = format!("webhook {id} is no longer in Thulium's list");
    ProviderError::new(
        ErrorClass::TargetNotFound,
        Operation::Update,
        Effect::None,
        message,
    )
}

/// Removes by the undocumented `DELETE`. A finding that it does not work does not keep it from being tried: a
/// deletion comes once, and leaving something behind for want of a call would be worse than the call.
async fn remove(call: &Call<'_>, id: &RemoteId) -> Result<Removal, ProviderError> {
    let operation = Operation::Delete;
    let Account {
        findings,
        clock,
        undocumented,
        ..
    } = call.account;
    if !undocumented {
        return Ok(Removal::LeftInPlace);
    }
    // No webhook can have such an id.
    let Some(path) = item(id) else {
        return Ok(Removal::AlreadyGone);
    };
    let known = findings.get(Finding::ThuliumDelete, clock.now());
    let response = call.send(request(call.account, operation, path, None)?).await?;
    let refused = refusal(call, operation, &response);
    if let Some(error) = refused.as_ref().filter(|error| !may_lack_route(error)) {
        return Err(error.clone());
    }
    // Once the list has shown that the call does what it says, its word is enough; the word of something in between,
    // which answers with a page, is not.
    let said = refused.is_none() && json_or_nothing(operation, &response).is_ok();
    if said && known == Some(Learned::Supported) {
        return Ok(Removal::Removed);
    }
    if find(&list_again(call).await?, id).is_some() {
        findings.learn(Finding::ThuliumDelete, Learned::Unsupported, clock.now());
        return Ok(Removal::LeftInPlace);
    }
    if refused.is_some() {
        return Ok(Removal::AlreadyGone);
    }
    findings.learn(Finding::ThuliumDelete, Learned::Supported, clock.now());
    Ok(Removal::Removed)
}

/// Whether an answer to an undocumented call may mean that there is no such call; the list then decides.
fn may_lack_route(error: &ProviderError) -> bool {
    matches!(error.class, ErrorClass::TargetNotFound | ErrorClass::Unsupported)
}

/// Path of one webhook; `None`: not an id of Thulium's. The id may come from an annotation that anybody can
/// edit, so it must be nothing but a number.
fn item(RemoteId(id): &RemoteId) -> Option<String> {
    whole_number(id).map(|id| format!("{COLLECTION}/{id}"))
}

fn request(
    account: &Account,
    operation: Operation,
    path: String,
    body: Option<Vec<u8>>,
) -> Result<Exchange, ProviderError> {
    let (method, limit) = match operation {
        Operation::Create => (Method::Post, Limit::Object),
        Operation::Update => (Method::Put, Limit::Object),
        Operation::Delete => (Method::Delete, Limit::Object),
        _ => (Method::Get, Limit::List),
    };
    let mut headers = vec![
        ("Authorization", authorization(account, operation)?),
        ("Accept", "application/json".into()),
    ];
    if body.is_some() {
        headers.push(("Content-Type", "application/json; charset=utf-8".into()));
    }
    Ok(Exchange {
        operation,
        method,
        path,
        headers,
        body,
        limit,
    })
}

fn authorization(account: &Account, operation: Operation) -> Result<SecretText, ProviderError> {
    match &account.credentials {
        Credentials::Thulium { username, password } => {
            let login = SecretText::from(format!("{username}:{}", password.expose()));
            Ok(format!("Basic {}", STANDARD.encode(login.expose())).into())
        }
        _ => {
            let message = "the provider's credentials are not those of Thulium; its Secret needs the keys `username` and `password`";
            Err(ProviderError::new(
                ErrorClass::Unauthorized,
                operation,
                Effect::None,
                message,
            ))
        }
    }
}

/// The error that a status stands for at Thulium; `None`: 2xx.
fn refusal(call: &Call<'_>, operation: Operation, response: &Response) -> Option<ProviderError> {
    let error = call.refusal(operation, response)?;
    let status = response.status();
    Some(match error.class {
        ErrorClass::Unauthorized => {
            call.credentials_refused();
            error
        }
        ErrorClass::Forbidden => {
            let message = format!(
                "Thulium forbids the API user to {operation} webhooks (403); in the panel add the webhook methods to what this API user may call"
            );
            error.reclass(ErrorClass::Forbidden, message)
        }
        ErrorClass::TargetNotFound if matches!(operation, Operation::List | Operation::Create) => {
            let message =
                format!("there is no webhooks API at the provider's baseUrl ({status}); it must end in /api");
            error.reclass(ErrorClass::TargetNotFound, message)
        }
        ErrorClass::Rejected => {
            let message = format!(
                "Thulium refused the webhook ({status}{}); correct the Webhook's spec",
                complaint(response.body())
            );
            error.reclass(ErrorClass::Rejected, message)
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests;
