//! Thulium: any number of webhooks with server-made integer ids in one system, visible to all its API users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::http::header::{ALLOW, WWW_AUTHENTICATE};
use axum::http::{HeaderName, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::delivery::{Courier, Delivered};
use crate::double::{Call, Reply, Upstream};
use crate::journal::Duplicate;
use crate::secret::Secret;
use crate::{RouteSupport, is_http_url, lock, sign};

/// An API user.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThuliumAccount {
    /// Login; also the name in journal and faults.
    pub username: String,
    /// Password.
    pub password: Secret,
    /// Allowed methods of the API, such as `GET webhooks`, or `*` for all. Others answer 403.
    #[serde(default = "all")]
    pub permissions: BTreeSet<String>,
}

fn all() -> BTreeSet<String> {
    BTreeSet::from(["*".to_owned()])
}

impl ThuliumAccount {
    /// A user who may do everything.
    pub fn new(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.into(),
            permissions: all(),
        }
    }

    fn may(&self, method: &Method) -> bool {
        self.permissions.contains("*") || self.permissions.contains(&format!("{method} webhooks"))
    }
}

/// Whether the list comes in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Paging {
    /// `limit` (100 unless given, 1000 at most) and `offset`, as other lists of this API.
    #[default]
    LimitOffset,
    /// Everything, whatever the query says.
    Ignored,
}

/// How a stored password comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum PasswordEcho {
    /// As it was given.
    #[default]
    Clear,
    /// As `***`.
    Masked,
    /// As `""`.
    Empty,
}

/// Body of a refused route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum RefusalBody {
    /// The error shape of the API.
    #[default]
    Json,
    /// A page of a web server.
    Html,
}

/// Switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ThuliumBehaviour {
    /// `PUT /webhooks/{id}`, which no public document shows.
    pub update: RouteSupport,
    /// `DELETE /webhooks/{id}`, which no public document shows.
    pub delete: RouteSupport,
    /// Whether `OPTIONS /webhooks/{id}` answers with `Allow`; else 404.
    pub options: bool,
    /// Body of answers to routes that are missing.
    pub refusal_body: RefusalBody,
    /// Pages of the list.
    pub paging: Paging,
    /// Status of a successful POST, 200 (documented) or 201.
    pub created_status: u16,
    /// Status of invalid input, 400 or 422.
    pub invalid_status: u16,
    /// How passwords are echoed.
    pub password_echo: PasswordEcho,
    /// Whether `actions` come back sorted instead of as sent.
    pub sorted_actions: bool,
    /// Known actions; without it, every non-empty name is.
    pub known_actions: Option<BTreeSet<String>>,
}

impl Default for ThuliumBehaviour {
    fn default() -> Self {
        Self {
            update: RouteSupport::Supported,
            delete: RouteSupport::Supported,
            options: true,
            refusal_body: RefusalBody::Json,
            paging: Paging::LimitOffset,
            created_status: 200,
            invalid_status: 400,
            password_echo: PasswordEcho::Clear,
            sorted_actions: false,
            known_actions: None,
        }
    }
}

impl ThuliumBehaviour {
    /// Only what the public documents show.
    pub fn documented() -> Self {
        Self {
            update: RouteSupport::NotFound,
            delete: RouteSupport::NotFound,
            options: false,
            paging: Paging::Ignored,
            ..Self::default()
        }
    }
}

/// A webhook, in the shape of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThuliumWebhook {
    /// Made by the server, from 1.
    pub id: u64,
    /// Subscribed actions.
    pub actions: Vec<String>,
    /// Delivery URL.
    pub subscription_url: String,
    /// Basic login of deliveries, `""` for none.
    pub http_auth_user: String,
    /// Basic password of deliveries, `""` for none.
    pub http_auth_password: Secret,
}

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<String, ThuliumAccount>,
    webhooks: BTreeMap<u64, ThuliumWebhook>,
    last_id: u64,
    last_request: u64,
}

/// The upstream: one system.
#[derive(Debug)]
pub struct Thulium {
    behaviour: Mutex<ThuliumBehaviour>,
    state: Mutex<State>,
    courier: Courier,
}

/// What a path names.
enum Place {
    All,
    One(u64),
}

impl Thulium {
    pub(crate) fn new(behaviour: ThuliumBehaviour, accounts: Vec<ThuliumAccount>, courier: Courier) -> Self {
        let accounts = accounts
            .into_iter()
            .map(|account| (account.username.clone(), account))
            .collect();
        let state = State {
            accounts,
            ..State::default()
        };
        Self {
            behaviour: Mutex::new(behaviour),
            state: Mutex::new(state),
            courier,
        }
    }

    /// The webhook of this id.
    pub fn webhook(&self, id: u64) -> Option<ThuliumWebhook> {
        lock(&self.state).webhooks.get(&id).cloned()
    }

    /// Stores a webhook as a colleague in the panel would; `id` is ignored. Its id.
    pub fn insert(&self, mut webhook: ThuliumWebhook) -> u64 {
        let mut state = lock(&self.state);
        state.last_id += 1;
        webhook.id = state.last_id;
        let id = webhook.id;
        state.webhooks.insert(id, webhook);
        id
    }

    fn respond(&self, call: &Call) -> Reply {
        let behaviour = lock(&self.behaviour).clone();
        let mut state = lock(&self.state);
        state.last_request += 1;
        let errors = Errors {
            behaviour: &behaviour,
            request: state.last_request,
        };
        let credentials = call.header("authorization").and_then(sign::parse_basic);
        let account = credentials.and_then(|(user, password)| {
            let account = state.accounts.get(&user)?;
            sign::equal(account.password.reveal().as_bytes(), password.as_bytes()).then_some(account)
        });
        let Some(account) = account else {
            let reply = errors.json(StatusCode::UNAUTHORIZED, "Invalid API user or password.", 100_401);
            return reply.header(WWW_AUTHENTICATE, "Basic realm=\"API\"");
        };
        let Some(place) = place_of(&call.path) else {
            return errors.missing();
        };
        let probe = call.method == Method::OPTIONS;
        if !probe && !account.may(&call.method) {
            return errors.json(
                StatusCode::FORBIDDEN,
                "API method not permitted for this user.",
                100_403,
            );
        }
        match (place, call.method.as_str()) {
            (Place::All, "GET") => list(&behaviour, &state, call, &errors),
            (Place::All, "POST") => create(&behaviour, &mut state, call, &errors),
            (Place::All, "OPTIONS") if behaviour.options => {
                allow(StatusCode::NO_CONTENT, "GET, POST, OPTIONS")
            }
            (Place::All, _) => errors.refused("GET, POST"),
            (Place::One(_), "OPTIONS") if behaviour.options => {
                allow(StatusCode::NO_CONTENT, &allowed(&behaviour))
            }
            (Place::One(id), "PUT") => match behaviour.update {
                RouteSupport::Supported => update(&behaviour, &mut state, id, call, &errors),
                RouteSupport::NotFound => errors.missing(),
                RouteSupport::MethodNotAllowed => errors.refused(&allowed(&behaviour)),
            },
            (Place::One(id), "DELETE") => match behaviour.delete {
                RouteSupport::Supported => match state.webhooks.remove(&id) {
                    Some(_) => Reply::empty(StatusCode::NO_CONTENT).effect(),
                    None => errors.missing(),
                },
                RouteSupport::NotFound => errors.missing(),
                RouteSupport::MethodNotAllowed => errors.refused(&allowed(&behaviour)),
            },
            // Reading one is not known to exist.
            (Place::One(_), _) => errors.missing(),
        }
    }
}

fn place_of(path: &str) -> Option<Place> {
    match path.strip_prefix("/api/webhooks")? {
        "" | "/" => Some(Place::All),
        rest => rest.strip_prefix('/')?.parse().ok().map(Place::One),
    }
}

fn allowed(behaviour: &ThuliumBehaviour) -> String {
    let mut methods = vec!["OPTIONS"];
    if behaviour.update == RouteSupport::Supported {
        methods.push("PUT");
    }
    if behaviour.delete == RouteSupport::Supported {
        methods.push("DELETE");
    }
    methods.join(", ")
}

fn allow(status: StatusCode, methods: &str) -> Reply {
    Reply::empty(status).header(ALLOW, methods)
}

/// Error answers of one request.
struct Errors<'a> {
    behaviour: &'a ThuliumBehaviour,
    request: u64,
}

impl Errors<'_> {
    fn json(&self, status: StatusCode, message: &str, code: u32) -> Reply {
        let request = format!("{:08x}", self.request);
        let body = json!({"request_id": request, "errors": [{"message": message, "code": code}]});
        Reply::json(status, &body).header(HeaderName::from_static("x-request-id"), &request)
    }

    fn invalid(&self, message: &str) -> Reply {
        let status = StatusCode::from_u16(self.behaviour.invalid_status).unwrap_or(StatusCode::BAD_REQUEST);
        self.json(status, message, 100_400)
    }

    fn missing(&self) -> Reply {
        self.shaped(StatusCode::NOT_FOUND, "Not found.", 100_404)
    }

    fn refused(&self, methods: &str) -> Reply {
        self.shaped(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.", 100_405)
            .header(ALLOW, methods)
    }

    fn shaped(&self, status: StatusCode, message: &str, code: u32) -> Reply {
        match self.behaviour.refusal_body {
            RefusalBody::Json => self.json(status, message, code),
            RefusalBody::Html => {
                let page = format!(
                    "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>",
                    status
                );
                Reply::new(status, "text/html", page)
            }
        }
    }
}

fn list(behaviour: &ThuliumBehaviour, state: &State, call: &Call, errors: &Errors<'_>) -> Reply {
    let (mut limit, mut offset) = (100, 0);
    if behaviour.paging == Paging::Ignored {
        limit = usize::MAX;
    } else {
        for (name, value) in call.query_pairs() {
            let target = match name.as_str() {
                "limit" => &mut limit,
                "offset" => &mut offset,
                _ => continue,
            };
            match value.parse() {
                Ok(number) => *target = number,
                Err(_) => return errors.invalid(&format!("Parameter {name} must be a number.")),
            }
        }
        if !(1..=1000).contains(&limit) {
            return errors.invalid("Parameter limit must be from 1 to 1000.");
        }
    }
    let page: Vec<ThuliumWebhook> = state
        .webhooks
        .values()
        .skip(offset)
        .take(limit)
        .map(|webhook| shown(behaviour, webhook))
        .collect();
    Reply::json(StatusCode::OK, &page)
}

/// The webhook as answers show it.
fn shown(behaviour: &ThuliumBehaviour, webhook: &ThuliumWebhook) -> ThuliumWebhook {
    let mut webhook = webhook.clone();
    if behaviour.sorted_actions {
        webhook.actions.sort();
    }
    if !webhook.http_auth_password.is_empty() {
        match behaviour.password_echo {
            PasswordEcho::Clear => {}
            PasswordEcho::Masked => webhook.http_auth_password = "***".into(),
            PasswordEcho::Empty => webhook.http_auth_password = "".into(),
        }
    }
    webhook
}

fn create(behaviour: &ThuliumBehaviour, state: &mut State, call: &Call, errors: &Errors<'_>) -> Reply {
    let blank = ThuliumWebhook {
        id: 0,
        actions: Vec::new(),
        subscription_url: String::new(),
        http_auth_user: String::new(),
        http_auth_password: Secret::default(),
    };
    let mut webhook = match read(behaviour, blank, call) {
        Ok(webhook) => webhook,
        Err(message) => return errors.invalid(&message),
    };
    state.last_id += 1;
    webhook.id = state.last_id;
    let status = StatusCode::from_u16(behaviour.created_status).unwrap_or(StatusCode::OK);
    let reply = Reply::json(status, &shown(behaviour, &webhook)).effect();
    state.webhooks.insert(webhook.id, webhook);
    reply
}

fn update(
    behaviour: &ThuliumBehaviour,
    state: &mut State,
    id: u64,
    call: &Call,
    errors: &Errors<'_>,
) -> Reply {
    let Some(stored) = state.webhooks.get(&id) else {
        return errors.missing();
    };
    match read(behaviour, stored.clone(), call) {
        Ok(webhook) => {
            let reply = Reply::json(StatusCode::OK, &shown(behaviour, &webhook)).effect();
            state.webhooks.insert(id, webhook);
            reply
        }
        Err(message) => errors.invalid(&message),
    }
}

/// The body over `base`: `actions` and `subscription_url` are required, login and password stay when left out.
fn read(
    behaviour: &ThuliumBehaviour,
    mut base: ThuliumWebhook,
    call: &Call,
) -> Result<ThuliumWebhook, String> {
    if !call.is_json() {
        return Err("Content-Type must be application/json.".to_owned());
    }
    let body: Map<String, Value> =
        serde_json::from_slice(&call.body).map_err(|_| "Body must be a JSON object.".to_owned())?;
    base.actions = body
        .get("actions")
        .and_then(Value::as_array)
        .and_then(|actions| {
            actions
                .iter()
                .map(|action| action.as_str().map(str::to_owned))
                .collect()
        })
        .filter(|actions: &Vec<String>| {
            !actions.is_empty() && actions.iter().all(|action| !action.is_empty())
        })
        .ok_or("Parameter actions must be a non-empty array of strings.")?;
    if let Some(known) = &behaviour.known_actions
        && let Some(unknown) = base.actions.iter().find(|action| !known.contains(*action))
    {
        return Err(format!("Unknown action {unknown}."));
    }
    base.subscription_url = body
        .get("subscription_url")
        .and_then(Value::as_str)
        .filter(|url| is_http_url(url))
        .ok_or("Parameter subscription_url must be an http or https URL.")?
        .to_owned();
    if let Some(user) = optional_text(&body, "http_auth_user")? {
        base.http_auth_user = user;
    }
    if let Some(password) = optional_text(&body, "http_auth_password")? {
        base.http_auth_password = password.into();
    }
    Ok(base)
}

/// `None` when left out; null clears, as `""` does.
fn optional_text(body: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match body.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(String::new())),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("Parameter {name} must be a string.")),
    }
}

/// An order to [`Thulium::deliver`](Upstream::deliver): to one webhook, or to all that subscribe the action.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    id: Option<u64>,
    action: String,
    /// Further fields of the form; empty values are sent as the literal text `null`.
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

fn form(order: &Order) -> Vec<u8> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("action", &order.action);
    for (name, value) in &order.fields {
        form.append_pair(name, if value.is_empty() { "null" } else { value });
    }
    form.finish().into_bytes()
}

impl Upstream for Thulium {
    const NAME: &'static str = "thulium";
    type Account = ThuliumAccount;
    type Behaviour = ThuliumBehaviour;
    type Object = ThuliumWebhook;

    fn base_path(&self) -> String {
        "/api".to_owned()
    }

    fn behaviour(&self) -> &Mutex<ThuliumBehaviour> {
        &self.behaviour
    }

    fn add_account(&self, account: ThuliumAccount) {
        lock(&self.state)
            .accounts
            .insert(account.username.clone(), account);
    }

    fn remove_account(&self, name: &str) -> bool {
        lock(&self.state).accounts.remove(name).is_some()
    }

    fn accounts(&self) -> Vec<String> {
        lock(&self.state).accounts.keys().cloned().collect()
    }

    fn account_of(&self, call: &Call) -> Option<String> {
        let (user, _) = call.header("authorization").and_then(sign::parse_basic)?;
        lock(&self.state).accounts.contains_key(&user).then_some(user)
    }

    async fn answer(self: Arc<Self>, call: Call) -> Reply {
        self.respond(&call)
    }

    fn objects(&self) -> Vec<ThuliumWebhook> {
        lock(&self.state).webhooks.values().cloned().collect()
    }

    fn edit(&self, key: &str, change: &mut dyn FnMut(&mut ThuliumWebhook)) -> bool {
        let mut state = lock(&self.state);
        let webhook = key.parse().ok().and_then(|id: u64| state.webhooks.get_mut(&id));
        webhook.map(change).is_some()
    }

    fn remove(&self, key: &str) -> bool {
        let id: Option<u64> = key.parse().ok();
        id.is_some_and(|id| lock(&self.state).webhooks.remove(&id).is_some())
    }

    /// Ids are not used again.
    fn clear(&self) {
        lock(&self.state).webhooks.clear();
    }

    fn duplicates(&self) -> Vec<Duplicate> {
        let state = lock(&self.state);
        let mut groups: BTreeMap<(&str, BTreeSet<&str>), Vec<u64>> = BTreeMap::new();
        for webhook in state.webhooks.values() {
            let actions = webhook.actions.iter().map(String::as_str).collect();
            groups
                .entry((&webhook.subscription_url, actions))
                .or_default()
                .push(webhook.id);
        }
        groups
            .into_iter()
            .filter(|(_, ids)| ids.len() > 1)
            .map(|((url, actions), ids)| Duplicate {
                what: format!("same url and actions {actions:?}"),
                url: url.to_owned(),
                ids: ids.iter().map(u64::to_string).collect(),
            })
            .collect()
    }

    async fn deliver(&self, order: Value) -> Result<Vec<Delivered>, String> {
        let order: Order = serde_json::from_value(order).map_err(|error| error.to_string())?;
        let wanted = |webhook: &ThuliumWebhook| match order.id {
            Some(id) => webhook.id == id,
            None => webhook.actions.contains(&order.action),
        };
        let targets: Vec<_> = self.objects().into_iter().filter(wanted).collect();
        if targets.is_empty() {
            return Err("no webhook for it".to_owned());
        }
        let mut results = Vec::new();
        for webhook in targets {
            let media_type = "application/x-www-form-urlencoded".to_owned();
            let mut headers = vec![("Content-Type".to_owned(), media_type)];
            if !webhook.http_auth_user.is_empty() || !webhook.http_auth_password.is_empty() {
                let value = sign::basic(&webhook.http_auth_user, webhook.http_auth_password.reveal());
                headers.push(("Authorization".to_owned(), value));
            }
            results.push(
                self.courier
                    .post(&webhook.subscription_url, &headers, form(&order))
                    .await,
            );
        }
        Ok(results)
    }
}
