//! Autocosmos API v3: one configuration per application and topic, every request signed.
//!
//! Here are the public types, the routing and the answers; `auth.rs` judges callers, `fields.rs` reads bodies.

mod auth;
mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::http::header::{ALLOW, LOCATION, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::delivery::{Courier, Delivered};
use crate::double::{Call, Reply, Upstream};
use crate::journal::Duplicate;
use crate::secret::Secret;
use crate::sign::DeliverySignature;
use crate::{Source, lock};
use auth::{Replays, authenticate, parse_authorization};
use fields::Errors;

const ROOT: &str = "/v3/appnotificaciones/";

/// A pair of AppKey and AppSecret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AutocosmosAccount {
    /// The AppKey; also the name in journal and faults.
    pub app_key: String,
    /// The AppSecret, which signs requests.
    pub app_secret: Secret,
    /// Topics available to it; without it, all. Others answer 403 (404 to a GET).
    #[serde(default)]
    pub topics: Option<BTreeSet<String>>,
}

impl AutocosmosAccount {
    /// A pair to which all topics are available.
    pub fn new(app_key: &str, app_secret: &str) -> Self {
        Self {
            app_key: app_key.to_owned(),
            app_secret: app_secret.into(),
            topics: None,
        }
    }

    fn may(&self, topic: &str) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.contains(topic))
    }
}

/// Which requests the replay rule is for; the documentation says both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum ReplayRule {
    /// Every method.
    #[default]
    All,
    /// Not GET.
    NonIdempotent,
    /// None.
    Off,
}

/// A PUT on a topic that was never configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum PutMissing {
    /// 404.
    #[default]
    NotFound,
    /// Creates it, 200.
    Create,
}

/// Switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AutocosmosBehaviour {
    /// How far request dates may be off, either way, in seconds.
    pub clock_skew_seconds: u64,
    /// Which requests the replay rule is for.
    pub replay_rule: ReplayRule,
    /// How long an HMAC is remembered, in milliseconds.
    pub replay_window_millis: u64,
    /// A PUT on a topic never configured.
    pub put_missing: PutMissing,
    /// Whether `_links` offer a DELETE, which then works; else DELETE answers 405.
    pub delete_link: bool,
    /// Whether answers show the secret; else null.
    pub secret_echo: bool,
    /// Whether unknown fields of a body are refused by 400.
    pub refuse_unknown_fields: bool,
    /// Whether `Location` carries scheme and host.
    pub absolute_location: bool,
    /// How deliveries are signed.
    pub delivery_signature: DeliverySignature,
}

impl Default for AutocosmosBehaviour {
    fn default() -> Self {
        Self {
            clock_skew_seconds: 300,
            replay_rule: ReplayRule::All,
            replay_window_millis: 1000,
            put_missing: PutMissing::NotFound,
            delete_link: false,
            secret_echo: false,
            refuse_unknown_fields: false,
            absolute_location: false,
            delivery_signature: DeliverySignature::default(),
        }
    }
}

/// A header of deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CustomHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
}

/// The configuration of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AppWebhook {
    /// Application that owns it.
    pub app_key: String,
    /// Topic, decoded.
    pub topic: String,
    /// Delivery URL.
    pub callback: Option<String>,
    /// Signs deliveries.
    pub secret: Option<Secret>,
    /// Free text.
    pub description: Option<String>,
    /// Active or suspended.
    pub activo: bool,
    /// The three custom headers.
    pub headers: [Option<CustomHeader>; 3],
}

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<String, AutocosmosAccount>,
    webhooks: BTreeMap<(String, String), AppWebhook>,
    replays: Replays,
}

/// The upstream.
#[derive(Debug)]
pub struct Autocosmos {
    behaviour: Mutex<AutocosmosBehaviour>,
    state: Mutex<State>,
    courier: Courier,
    source: Source,
}

impl Autocosmos {
    pub(crate) fn new(
        behaviour: AutocosmosBehaviour,
        accounts: Vec<AutocosmosAccount>,
        courier: Courier,
        source: Source,
    ) -> Self {
        let accounts = accounts
            .into_iter()
            .map(|account| (account.app_key.clone(), account))
            .collect();
        let state = State {
            accounts,
            ..State::default()
        };
        Self {
            behaviour: Mutex::new(behaviour),
            state: Mutex::new(state),
            courier,
            source,
        }
    }

    /// The configuration of a topic.
    pub fn webhook(&self, app_key: &str, topic: &str) -> Option<AppWebhook> {
        lock(&self.state)
            .webhooks
            .get(&(app_key.to_owned(), topic.to_owned()))
            .cloned()
    }

    fn respond(&self, call: &Call) -> Reply {
        let behaviour = lock(&self.behaviour).clone();
        let mut state = lock(&self.state);
        let account = match authenticate(&behaviour, &mut state, call) {
            Ok(account) => account,
            Err(detail) => {
                let reply = problem(call, StatusCode::UNAUTHORIZED, "No autorizado", detail);
                return reply.header(WWW_AUTHENTICATE, "ACS-HMAC");
            }
        };
        let topic = call
            .path
            .strip_prefix(ROOT)
            .filter(|topic| !topic.is_empty() && !topic.contains('/'));
        let topic = topic.and_then(|topic| percent_decode_str(topic).decode_utf8().ok());
        let Some(topic) = topic else {
            return problem(call, StatusCode::NOT_FOUND, "No encontrado", "La ruta no existe.");
        };
        let request = Target {
            behaviour: &behaviour,
            call,
            available: account.may(&topic),
            key: (account.app_key, topic.into_owned()),
        };
        match call.method {
            Method::GET => request.get(&state),
            Method::POST => request.post(&mut state),
            Method::PUT => request.put(&mut state),
            Method::DELETE if behaviour.delete_link => request.delete(&mut state),
            _ => problem(call, StatusCode::METHOD_NOT_ALLOWED, "Método no permitido", "")
                .header(ALLOW, "GET, POST, PUT"),
        }
    }
}

fn problem_body(call: &Call, status: u16, title: &str, detail: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert(
        "Type".to_owned(),
        json!(format!("https://httpstatuses.com/{status}")),
    );
    body.insert("Title".to_owned(), json!(title));
    body.insert("Status".to_owned(), json!(status));
    body.insert("Detail".to_owned(), json!(detail));
    body.insert("Instance".to_owned(), json!(call.path));
    body.insert("Extensions".to_owned(), json!({}));
    body
}

fn problem_reply(status: StatusCode, body: Map<String, Value>) -> Reply {
    Reply::new(
        status,
        "application/problem+json",
        Value::Object(body).to_string(),
    )
}

fn problem(call: &Call, status: StatusCode, title: &str, detail: &str) -> Reply {
    problem_reply(status, problem_body(call, status.as_u16(), title, detail))
}

/// 400 and 409 have the same body, which says 400 in both cases.
fn invalid(call: &Call, status: StatusCode, errors: &Errors) -> Reply {
    let title = "Validación de información esperada fallida";
    let mut body = problem_body(
        call,
        400,
        title,
        "Alguna información contiene valores no validos.",
    );
    body.insert("Errors".to_owned(), json!(errors));
    problem_reply(status, body)
}

/// A request on one topic.
struct Target<'a> {
    behaviour: &'a AutocosmosBehaviour,
    call: &'a Call,
    available: bool,
    key: (String, String),
}

impl Target<'_> {
    fn get(&self, state: &State) -> Reply {
        match state.webhooks.get(&self.key).filter(|_| self.available) {
            Some(webhook) => self.shown(StatusCode::OK, webhook),
            None => self.missing(),
        }
    }

    fn post(&self, state: &mut State) -> Reply {
        if !self.available {
            return self.unavailable();
        }
        let webhook = match self.read() {
            Ok(webhook) => webhook,
            Err(errors) => return invalid(self.call, StatusCode::BAD_REQUEST, &errors),
        };
        if state.webhooks.contains_key(&self.key) {
            let text = "La configuración del webhook ya fue creada (usa el PUT).".to_owned();
            return invalid(
                self.call,
                StatusCode::CONFLICT,
                &Errors::from([("_".to_owned(), vec![text])]),
            );
        }
        let host = self.call.header("host").unwrap_or_default();
        let location = match self.behaviour.absolute_location {
            true => format!("http://{host}{}", self.call.path),
            false => self.call.path.clone(),
        };
        let reply = self
            .shown(StatusCode::CREATED, &webhook)
            .header(LOCATION, &location)
            .effect();
        state.webhooks.insert(self.key.clone(), webhook);
        reply
    }

    fn put(&self, state: &mut State) -> Reply {
        if !self.available {
            return self.unavailable();
        }
        if self.behaviour.put_missing == PutMissing::NotFound && !state.webhooks.contains_key(&self.key) {
            return self.missing();
        }
        match self.read() {
            Ok(webhook) => {
                let reply = self.shown(StatusCode::OK, &webhook).effect();
                state.webhooks.insert(self.key.clone(), webhook);
                reply
            }
            Err(errors) => invalid(self.call, StatusCode::BAD_REQUEST, &errors),
        }
    }

    fn delete(&self, state: &mut State) -> Reply {
        match state.webhooks.remove(&self.key) {
            Some(_) => Reply::empty(StatusCode::NO_CONTENT).effect(),
            None => self.missing(),
        }
    }

    fn missing(&self) -> Reply {
        problem(
            self.call,
            StatusCode::NOT_FOUND,
            "No encontrado",
            "El webhook no está configurado.",
        )
    }

    fn unavailable(&self) -> Reply {
        problem(
            self.call,
            StatusCode::FORBIDDEN,
            "Topic no disponible",
            "El topic no está disponible.",
        )
    }

    fn shown(&self, status: StatusCode, webhook: &AppWebhook) -> Reply {
        let path = &self.call.path;
        // The relations have no published names: the documentation's own placeholders are used on purpose.
        let mut links = json!({"rel1": {"href": path}, "rel2": {"href": path, "method": "PUT"}});
        if self.behaviour.delete_link
            && let Some(links) = links.as_object_mut()
        {
            links.insert("rel3".to_owned(), json!({"href": path, "method": "DELETE"}));
        }
        let [first, second, third] = &webhook.headers;
        let body = json!({
            "Callback": webhook.callback,
            "Secret": webhook.secret.as_ref().filter(|_| self.behaviour.secret_echo),
            "Description": webhook.description,
            "Activo": webhook.activo,
            "HeaderCustom01": first,
            "HeaderCustom02": second,
            "HeaderCustom03": third,
            "_links": links,
        });
        Reply::new(status, self.media_type(), body.to_string())
    }

    fn media_type(&self) -> &'static str {
        let accept = self.call.header("accept").unwrap_or_default();
        [
            "application/json",
            "application/vnd.autocosmos.entry+json",
            "text/json",
        ]
        .into_iter()
        .find(|name| accept.contains(name))
        .unwrap_or("application/json")
    }
}

/// An order to [`Autocosmos::deliver`](Upstream::deliver).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    app_key: String,
    topic: String,
    /// The payload, which is not documented.
    #[serde(default)]
    body: Value,
    /// Leaves the topic out of headers and signature.
    #[serde(default)]
    without_topic: bool,
}

impl Upstream for Autocosmos {
    const NAME: &'static str = "autocosmos";
    type Account = AutocosmosAccount;
    type Behaviour = AutocosmosBehaviour;
    type Object = AppWebhook;

    fn base_path(&self) -> String {
        String::new()
    }

    fn behaviour(&self) -> &Mutex<AutocosmosBehaviour> {
        &self.behaviour
    }

    fn add_account(&self, account: AutocosmosAccount) {
        lock(&self.state)
            .accounts
            .insert(account.app_key.clone(), account);
    }

    fn remove_account(&self, name: &str) -> bool {
        lock(&self.state).accounts.remove(name).is_some()
    }

    fn accounts(&self) -> Vec<String> {
        lock(&self.state).accounts.keys().cloned().collect()
    }

    fn account_of(&self, call: &Call) -> Option<String> {
        let (app_key, _) = parse_authorization(call)?;
        lock(&self.state)
            .accounts
            .contains_key(app_key)
            .then(|| app_key.to_owned())
    }

    async fn answer(self: Arc<Self>, call: Call) -> Reply {
        self.respond(&call)
    }

    fn objects(&self) -> Vec<AppWebhook> {
        lock(&self.state).webhooks.values().cloned().collect()
    }

    /// The key is `{AppKey}/{topic}`.
    fn edit(&self, key: &str, change: &mut dyn FnMut(&mut AppWebhook)) -> bool {
        let Some(key) = split_key(key) else { return false };
        lock(&self.state).webhooks.get_mut(&key).map(change).is_some()
    }

    fn remove(&self, key: &str) -> bool {
        split_key(key).is_some_and(|key| lock(&self.state).webhooks.remove(&key).is_some())
    }

    fn clear(&self) {
        lock(&self.state).webhooks.clear();
    }

    /// None are possible: application and topic are the key.
    fn duplicates(&self) -> Vec<Duplicate> {
        Vec::new()
    }

    async fn deliver(&self, order: Value) -> Result<Vec<Delivered>, String> {
        let order: Order = serde_json::from_value(order).map_err(|error| error.to_string())?;
        let webhook = self
            .webhook(&order.app_key, &order.topic)
            .ok_or("no such configuration")?;
        if !webhook.activo {
            return Err("the configuration is suspended".to_owned());
        }
        let url = webhook
            .callback
            .filter(|url| !url.is_empty())
            .ok_or("the configuration has no Callback")?;
        let scheme = lock(&self.behaviour).delivery_signature.clone();
        let (hook_id, timestamp) = (self.source.uuid().to_string(), self.source.iso_now());
        let topic = (!order.without_topic).then_some(order.topic.as_str());
        let mut headers = vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Notification-Hook-ID".to_owned(), hook_id.clone()),
            ("Notification-Timestamp".to_owned(), timestamp.clone()),
        ];
        headers.extend(topic.map(|topic| ("Notification-Topic".to_owned(), topic.to_owned())));
        if let Some(secret) = &webhook.secret {
            let signature = scheme.sign(secret.reveal(), &hook_id, &timestamp, topic);
            headers.push(("Notification-Signature".to_owned(), signature));
        }
        for header in webhook.headers.into_iter().flatten() {
            headers.push((header.name, header.value.reveal().to_owned()));
        }
        let body = serde_json::to_vec(&order.body).map_err(|error| error.to_string())?;
        Ok(vec![self.courier.post(&url, &headers, body).await])
    }
}

fn split_key(key: &str) -> Option<(String, String)> {
    key.split_once('/')
        .map(|(app_key, topic)| (app_key.to_owned(), topic.to_owned()))
}
