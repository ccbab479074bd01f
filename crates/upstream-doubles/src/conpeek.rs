//! Conpeek: one webhook configuration per application, set by PUT, with a bare API key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::http::header::ALLOW;
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::delivery::{Courier, Delivered};
use crate::double::{Call, Reply, Upstream};
use crate::journal::Duplicate;
use crate::secret::Secret;
use crate::{RouteSupport, is_http_url, lock};

/// An API key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConpeekAccount {
    /// Name in journal and faults.
    pub name: String,
    /// The key, sent bare in `Authorization`.
    pub api_key: Secret,
    /// Applications it may touch; without it, all. Others answer 403.
    #[serde(default)]
    pub applications: Option<BTreeSet<u64>>,
}

impl ConpeekAccount {
    /// A key for all applications.
    pub fn new(name: &str, api_key: &str) -> Self {
        Self {
            name: name.to_owned(),
            api_key: api_key.into(),
            applications: None,
        }
    }
}

/// Which shape of body is taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum BodyStyle {
    /// The fields at the top, as the section "Body" has them.
    #[default]
    Flat,
    /// Under `data`, as the code examples have it.
    Wrapped,
    /// Either, but not both in one body.
    Both,
}

/// What a body of the other shape gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum OtherStyle {
    /// 200, nothing changed, and the echo is what was stored before.
    #[default]
    Ignored,
    /// 400.
    Refused,
}

/// How `retry_enabled` is written in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum FlagEcho {
    /// `1` or `0`.
    #[default]
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `"1"` or `"0"`.
    Text,
}

/// The `success` of an answer with status 200.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Success {
    /// `true`, and the configuration is stored.
    #[default]
    True,
    /// `false`, and nothing is stored.
    False,
    /// Absent, and nothing is stored.
    Absent,
}

/// Switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConpeekBehaviour {
    /// Path of the base URL, such as `/tenant/a`; empty for none. Other paths answer 404.
    pub path_prefix: String,
    /// `GET` of the configuration, which no public document shows.
    pub get: RouteSupport,
    /// Accepted shape of the body.
    pub body_style: BodyStyle,
    /// What the other shape gives.
    pub other_style: OtherStyle,
    /// Answer as `{"success","data"}` (`true`, documented) or as the bare configuration.
    pub wrapped_answer: bool,
    /// How `retry_enabled` is echoed.
    pub flag_echo: FlagEcho,
    /// The `success` of a PUT.
    pub success: Success,
    /// Status of a wrong key, 403 (documented) or 401.
    pub wrong_key_status: u16,
    /// Whether every positive number is an application; else only those added.
    pub any_application: bool,
}

impl Default for ConpeekBehaviour {
    fn default() -> Self {
        Self {
            path_prefix: String::new(),
            get: RouteSupport::Supported,
            body_style: BodyStyle::Flat,
            other_style: OtherStyle::Ignored,
            wrapped_answer: true,
            flag_echo: FlagEcho::Integer,
            success: Success::True,
            wrong_key_status: 403,
            any_application: true,
        }
    }
}

impl ConpeekBehaviour {
    /// Only what the public document shows.
    pub fn documented() -> Self {
        Self {
            get: RouteSupport::NotFound,
            ..Self::default()
        }
    }
}

/// Redelivery as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryConfig {
    /// First wait; unit not documented, assumed seconds.
    pub retry_value: u64,
    /// Number of retries.
    pub max_retries: u64,
    /// Only `multiplier` is known.
    pub backoff_type: String,
    /// Factor.
    pub backoff_value: f64,
}

/// The configuration of one application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConpeekWebhook {
    /// Its application.
    pub application: u64,
    /// Delivery URL.
    pub url: Option<String>,
    /// Whether failed deliveries are repeated.
    pub retry_enabled: Option<bool>,
    /// How.
    pub retry_config: Option<RetryConfig>,
    /// Headers of each delivery.
    pub headers: BTreeMap<String, Secret>,
}

impl ConpeekWebhook {
    fn empty(application: u64) -> Self {
        Self {
            application,
            url: None,
            retry_enabled: None,
            retry_config: None,
            headers: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    accounts: Vec<ConpeekAccount>,
    applications: BTreeSet<u64>,
    webhooks: BTreeMap<u64, ConpeekWebhook>,
}

/// The upstream.
#[derive(Debug)]
pub struct Conpeek {
    behaviour: Mutex<ConpeekBehaviour>,
    state: Mutex<State>,
    courier: Courier,
}

impl Conpeek {
    pub(crate) fn new(behaviour: ConpeekBehaviour, accounts: Vec<ConpeekAccount>, courier: Courier) -> Self {
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

    /// Makes an application known; needed when `any_application` is off.
    pub fn add_application(&self, application: u64) {
        lock(&self.state).applications.insert(application);
    }

    /// Removes an application with its configuration; with `any_application` it comes back at the next PUT.
    pub fn remove_application(&self, application: u64) {
        let mut state = lock(&self.state);
        state.applications.remove(&application);
        state.webhooks.remove(&application);
    }

    /// The configuration of an application.
    pub fn webhook(&self, application: u64) -> Option<ConpeekWebhook> {
        lock(&self.state).webhooks.get(&application).cloned()
    }

    fn respond(&self, call: &Call) -> Reply {
        let behaviour = lock(&self.behaviour).clone();
        let mut state = lock(&self.state);
        let key = call.header("authorization").unwrap_or_default();
        let Some(account) = state
            .accounts
            .iter()
            .find(|account| account.api_key.reveal() == key && !key.is_empty())
        else {
            let status = StatusCode::from_u16(behaviour.wrong_key_status).unwrap_or(StatusCode::FORBIDDEN);
            return refusal(status, "action not allowed");
        };
        let Some(application) = application_of(&behaviour.path_prefix, &call.path) else {
            return refusal(StatusCode::NOT_FOUND, "resource not found");
        };
        if account
            .applications
            .as_ref()
            .is_some_and(|allowed| !allowed.contains(&application))
        {
            return refusal(StatusCode::FORBIDDEN, "action not allowed");
        }
        if !behaviour.any_application && !state.applications.contains(&application) {
            return refusal(StatusCode::NOT_FOUND, "resource not found");
        }
        match call.method {
            Method::PUT => put(&behaviour, &mut state, application, call),
            Method::GET => get(&behaviour, &state, application),
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed").header(ALLOW, "PUT"),
        }
    }
}

/// The application of `/application/{id}/webhook` below the prefix.
fn application_of(prefix: &str, path: &str) -> Option<u64> {
    let number = path
        .strip_prefix(prefix)?
        .strip_prefix("/application/")?
        .strip_suffix("/webhook")?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse().ok().filter(|number| *number > 0)
}

fn refusal(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({"success": false, "message": message}))
}

fn get(behaviour: &ConpeekBehaviour, state: &State, application: u64) -> Reply {
    match behaviour.get {
        RouteSupport::NotFound => refusal(StatusCode::NOT_FOUND, "resource not found"),
        RouteSupport::MethodNotAllowed => {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed").header(ALLOW, "PUT")
        }
        // The configuration exists with the application, so there is always something to show.
        RouteSupport::Supported => {
            let empty = ConpeekWebhook::empty(application);
            echo(behaviour, state.webhooks.get(&application).unwrap_or(&empty))
        }
    }
}

fn put(behaviour: &ConpeekBehaviour, state: &mut State, application: u64, call: &Call) -> Reply {
    if !call.is_json() {
        return refusal(StatusCode::BAD_REQUEST, "Content-Type must be application/json");
    }
    let Ok(Value::Object(body)) = serde_json::from_slice(&call.body) else {
        return refusal(StatusCode::BAD_REQUEST, "body must be a JSON object");
    };
    let stored = state.webhooks.get(&application).cloned();
    let stored = stored.unwrap_or_else(|| ConpeekWebhook::empty(application));
    let wrapped = body.get("data").is_some();
    if wrapped && FIELDS.iter().any(|field| body.contains_key(*field)) {
        return refusal(StatusCode::BAD_REQUEST, "fields both at the top and under data");
    }
    let taken_in = match behaviour.body_style {
        BodyStyle::Flat => !wrapped,
        BodyStyle::Wrapped => wrapped,
        BodyStyle::Both => true,
    };
    if !taken_in {
        return match behaviour.other_style {
            OtherStyle::Ignored => echo(behaviour, &stored),
            OtherStyle::Refused => refusal(StatusCode::BAD_REQUEST, "unexpected body"),
        };
    }
    let fields = match body.get("data") {
        Some(Value::Object(fields)) => fields,
        Some(_) => return refusal(StatusCode::BAD_REQUEST, "data must be an object"),
        None => &body,
    };
    let mut wanted = stored.clone();
    if let Err(message) = apply(&mut wanted, fields) {
        return refusal(StatusCode::BAD_REQUEST, message);
    }
    if behaviour.success != Success::True {
        return echo(behaviour, &stored);
    }
    let reply = echo(behaviour, &wanted);
    state.webhooks.insert(application, wanted);
    reply.effect()
}

const FIELDS: [&str; 4] = ["url", "retry_enabled", "retry_config", "headers"];

/// Takes the sent fields over; those left out keep their value, unknown ones are ignored.
fn apply(webhook: &mut ConpeekWebhook, fields: &Map<String, Value>) -> Result<(), &'static str> {
    if let Some(url) = fields.get("url") {
        let url = url
            .as_str()
            .filter(|url| is_http_url(url))
            .ok_or("url must be an http or https URL")?;
        webhook.url = Some(url.to_owned());
    }
    if let Some(flag) = fields.get("retry_enabled") {
        webhook.retry_enabled = Some(read_flag(flag).ok_or("retry_enabled must be 0 or 1")?);
    }
    if let Some(config) = fields.get("retry_config") {
        let config: RetryConfig =
            serde_json::from_value(config.clone()).map_err(|_| "retry_config is not complete")?;
        if config.backoff_type != "multiplier" {
            return Err("backoff_type must be multiplier");
        }
        webhook.retry_config = Some(config);
    }
    if let Some(headers) = fields.get("headers") {
        webhook.headers =
            serde_json::from_value(headers.clone()).map_err(|_| "headers must be an object of strings")?;
    }
    Ok(())
}

fn read_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_u64()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Value::String(text) => match text.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        },
        _ => None,
    }
}

fn echo(behaviour: &ConpeekBehaviour, webhook: &ConpeekWebhook) -> Reply {
    let flag = webhook.retry_enabled.map(|flag| match behaviour.flag_echo {
        FlagEcho::Integer => json!(u8::from(flag)),
        FlagEcho::Boolean => json!(flag),
        FlagEcho::Text => json!(u8::from(flag).to_string()),
    });
    let config = webhook.retry_config.as_ref().map(|config| {
        // A whole factor is written as an integer, as in the document.
        let factor = config.backoff_value;
        let whole = format!("{factor}")
            .parse::<u64>()
            .map_or(json!(factor), |whole| json!(whole));
        json!({
            "retry_value": config.retry_value,
            "max_retries": config.max_retries,
            "backoff_type": config.backoff_type,
            "backoff_value": whole,
        })
    });
    let data = json!({
        "url": webhook.url,
        "retry_enabled": flag,
        "retry_config": config,
        "headers": webhook.headers,
    });
    let body = match (behaviour.wrapped_answer, behaviour.success) {
        (false, _) => data,
        (true, Success::True) => json!({"success": true, "data": data}),
        (true, Success::False) => json!({"success": false, "data": data}),
        (true, Success::Absent) => json!({"data": data}),
    };
    Reply::json(StatusCode::OK, &body)
}

/// An order to [`Conpeek::deliver`](Upstream::deliver).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    application: u64,
    /// The payload, which is not documented.
    #[serde(default)]
    body: Value,
}

impl Upstream for Conpeek {
    const NAME: &'static str = "conpeek";
    type Account = ConpeekAccount;
    type Behaviour = ConpeekBehaviour;
    type Object = ConpeekWebhook;

    fn base_path(&self) -> String {
        lock(&self.behaviour).path_prefix.clone()
    }

    fn behaviour(&self) -> &Mutex<ConpeekBehaviour> {
        &self.behaviour
    }

    fn add_account(&self, account: ConpeekAccount) {
        let mut state = lock(&self.state);
        state.accounts.retain(|present| present.name != account.name);
        state.accounts.push(account);
    }

    fn remove_account(&self, name: &str) -> bool {
        let mut state = lock(&self.state);
        let before = state.accounts.len();
        state.accounts.retain(|account| account.name != name);
        state.accounts.len() != before
    }

    fn accounts(&self) -> Vec<String> {
        lock(&self.state)
            .accounts
            .iter()
            .map(|account| account.name.clone())
            .collect()
    }

    fn account_of(&self, call: &Call) -> Option<String> {
        let key = call.header("authorization")?;
        let state = lock(&self.state);
        let account = state
            .accounts
            .iter()
            .find(|account| account.api_key.reveal() == key)?;
        Some(account.name.clone())
    }

    async fn answer(self: Arc<Self>, call: Call) -> Reply {
        self.respond(&call)
    }

    fn objects(&self) -> Vec<ConpeekWebhook> {
        lock(&self.state).webhooks.values().cloned().collect()
    }

    fn edit(&self, key: &str, change: &mut dyn FnMut(&mut ConpeekWebhook)) -> bool {
        let mut state = lock(&self.state);
        let webhook = key
            .parse()
            .ok()
            .and_then(|application: u64| state.webhooks.get_mut(&application));
        webhook.map(change).is_some()
    }

    fn remove(&self, key: &str) -> bool {
        let application: Option<u64> = key.parse().ok();
        application.is_some_and(|application| lock(&self.state).webhooks.remove(&application).is_some())
    }

    fn clear(&self) {
        lock(&self.state).webhooks.clear();
    }

    /// None are possible: the application is the key.
    fn duplicates(&self) -> Vec<Duplicate> {
        Vec::new()
    }

    async fn deliver(&self, order: Value) -> Result<Vec<Delivered>, String> {
        let order: Order = serde_json::from_value(order).map_err(|error| error.to_string())?;
        let webhook = self.webhook(order.application).ok_or("no such application")?;
        let url = webhook.url.ok_or("the application has no url")?;
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(
            webhook
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.reveal().to_owned())),
        );
        let body = serde_json::to_vec(&order.body).map_err(|error| error.to_string())?;
        Ok(vec![self.courier.post(&url, &headers, body).await])
    }
}
