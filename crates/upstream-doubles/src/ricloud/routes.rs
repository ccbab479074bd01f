//! Requests of ricloud and what they do.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::shape::{Page, Shape, error, in_use, invalid, list, not_allowed, not_found};
use super::store::{CONFIG, KEY, Key, State, TASK};
use super::verdict::Running;
use super::{ConfigState, DeleteSupport, Ricloud, RicloudBehaviour, StateNew, WebhookConfig};
use crate::double::{Call, Reply};
use crate::{is_http_url, lock, parse_iso};

/// Longest time for which `Ricloud-Await` holds an answer.
const MAX_AWAIT: Duration = Duration::from_secs(10);

/// The token of `Authorization: Token <token>`.
pub(super) fn token(call: &Call) -> Option<&str> {
    call.header("authorization")?.strip_prefix("Token ")
}

/// The parameters of a body: an object, of which only `known` names are taken.
fn params(call: &Call, known: &[&str]) -> Result<Map<String, Value>, Reply> {
    if call.body.is_empty() {
        return Ok(Map::new());
    }
    let malformed = || {
        error(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            "Body is not a JSON object.",
        )
    };
    // The official client (ricloud-py 3.2.0) sends JSON without saying so; any other type is refused.
    if call.header("content-type").is_some() && !call.is_json() {
        return Err(malformed());
    }
    let params: Map<String, Value> = serde_json::from_slice(&call.body).map_err(|_| malformed())?;
    match params.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(invalid(name, "Unknown parameter.")),
        None => Ok(params),
    }
}

fn url_param(value: &Value) -> Result<String, Reply> {
    let url = value.as_str().filter(|url| is_http_url(url));
    url.map(str::to_owned)
        .ok_or_else(|| invalid("url", "Enter a valid URL."))
}

impl Ricloud {
    pub(super) async fn respond(self: Arc<Self>, call: Call) -> Reply {
        let key = token(&call).and_then(|token| lock(&self.state).key_of_token(token).cloned());
        let Some(key) = key else {
            return error(StatusCode::UNAUTHORIZED, "unauthorized", "No valid credentials.");
        };
        if key.read_only && call.method != Method::GET {
            return error(StatusCode::FORBIDDEN, "forbidden", "The key lacks permission.");
        }
        let behaviour = lock(&self.behaviour).clone();
        let request = Request {
            upstream: &self,
            behaviour: &behaviour,
            key: &key,
            call: &call,
        };
        let path: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match (path.as_slice(), call.method.as_str()) {
            (["configs", "webhook"], "POST") => request.create().await,
            (["configs", "webhook"], "GET") => request.list(),
            (["configs", "webhook", id], method) => match request.own_config(id) {
                None => not_found(),
                Some(config) => match method {
                    "GET" => Reply::json(StatusCode::OK, &request.shape(|shape| shape.read(&config))),
                    "POST" => request.update(&config).await,
                    "DELETE" => request.delete(&config),
                    _ => not_allowed(),
                },
            },
            (["configs", "webhook", id, "test"], "POST") => match request.own_config(id) {
                None => not_found(),
                Some(config) => request.test(&config).await,
            },
            (["tasks"], "GET") => request.tasks(),
            (["tasks", id], "GET") => request.task(id),
            (["key"], "GET") => Reply::json(StatusCode::OK, &request.shape(|shape| shape.key(&key))),
            (["keys", id], "GET" | "POST") => request.other_key(id),
            (["organisation"], "GET") => request.organisation(),
            (["organisation"], "POST") => request.set_organisation(),
            (["configs", "webhook"] | ["configs", "webhook", _, "test"], _)
            | (["tasks" | "key" | "organisation"] | ["tasks" | "keys", _], _) => not_allowed(),
            _ => not_found(),
        }
    }
}

/// An authenticated request.
struct Request<'a> {
    upstream: &'a Arc<Ricloud>,
    behaviour: &'a RicloudBehaviour,
    key: &'a Key,
    call: &'a Call,
}

impl Request<'_> {
    fn shape<T>(&self, show: impl FnOnce(&Shape<'_>) -> T) -> T {
        let state = lock(&self.upstream.state);
        show(&Shape {
            behaviour: self.behaviour,
            state: &state,
        })
    }

    /// A config of the caller's own organisation.
    fn own_config(&self, id: &str) -> Option<WebhookConfig> {
        let id = CONFIG.parse(self.behaviour.ids, id)?;
        lock(&self.upstream.state)
            .organisation_at(self.key.organisation)?
            .configs
            .get(&id)
            .cloned()
    }

    /// Holds the answer as `Ricloud-Await` asks.
    async fn wait_for(&self, running: Option<Running>) {
        let seconds = self
            .call
            .header("ricloud-await")
            .and_then(|value| value.trim().parse().ok());
        if let (Some(running), Some(seconds)) = (running, seconds) {
            let _ = tokio::time::timeout(Duration::from_secs(seconds).min(MAX_AWAIT), running.done).await;
        }
    }

    async fn create(&self) -> Reply {
        let url = match params(self.call, &["url"]).and_then(|params| match params.get("url") {
            Some(url) => url_param(url),
            None => Err(invalid("url", "This field is required.")),
        }) {
            Ok(url) => url,
            Err(reply) => return reply,
        };
        let created = lock(&self.upstream.state).create(self.key.organisation, &url);
        let Some(config) = created else { return not_found() };
        let running = self.upstream.start_implicit_test(self.key, config.id);
        self.wait_for(running).await;
        let config = self.upstream.config(config.id).unwrap_or(config);
        Reply::json(
            StatusCode::CREATED,
            &self.shape(|shape| shape.config(&config, true)),
        )
        .effect()
    }

    fn list(&self) -> Reply {
        let page = match Page::read(self.call, |id| CONFIG.parse(self.behaviour.ids, id)) {
            Ok(page) => page,
            Err(reply) => return reply,
        };
        let (mut wanted, mut created) = (None, None);
        for (name, value) in self.call.query_pairs() {
            match name.as_str() {
                "state" => match serde_json::from_value::<ConfigState>(json!(value)) {
                    Ok(state) => wanted = Some(state),
                    Err(_) => return invalid("state", "Not a state."),
                },
                // The syntax of the filter is not documented; an exact time is the only sure reading.
                "date_created" => match parse_iso(&value) {
                    Some(time) => created = Some(time),
                    None => return invalid("date_created", "Not a datetime."),
                },
                _ => {}
            }
        }
        let state = lock(&self.upstream.state);
        let Some(organisation) = state.organisation_at(self.key.organisation) else {
            return not_found();
        };
        let visible = |config: &&WebhookConfig| {
            wanted.map_or(config.state != ConfigState::Deactivated, |wanted| {
                config.state == wanted
            }) && created.is_none_or(|time| parse_iso(&config.date_created) == Some(time))
        };
        let mut all: Vec<_> = organisation
            .configs
            .values()
            .filter(visible)
            .map(|config| (config.id, config))
            .collect();
        if self.behaviour.newest_first {
            all.reverse();
        }
        let total = all.len();
        let (configs, more) = page.cut(all, self.behaviour.newest_first);
        let shape = Shape {
            behaviour: self.behaviour,
            state: &state,
        };
        list(
            &self.call.path,
            configs.into_iter().map(|config| shape.read(config)).collect(),
            more,
            total,
        )
    }

    async fn update(&self, config: &WebhookConfig) -> Reply {
        let params = match params(self.call, &["url", "state"]) {
            Ok(params) if params.is_empty() => return invalid("url", "Nothing to change."),
            Ok(params) => params,
            Err(reply) => return reply,
        };
        let url = match params.get("url").map(url_param).transpose() {
            Ok(url) => url,
            Err(reply) => return reply,
        };
        let deactivated = config.state == ConfigState::Deactivated;
        let next = match params.get("state").map(Value::as_str) {
            None if deactivated && !self.behaviour.url_reactivates => ConfigState::Deactivated,
            None => ConfigState::New,
            Some(Some("deactivated")) => ConfigState::Deactivated,
            Some(Some("new")) => match self.behaviour.state_new {
                StateNew::Refused => return invalid("state", "May only be set to deactivated."),
                StateNew::Ignored => config.state,
                StateNew::Allowed => ConfigState::New,
            },
            Some(_) => return invalid("state", "Must be new or deactivated."),
        };
        let updated = {
            let mut state = lock(&self.upstream.state);
            let Some(stored) = state.find_mut(config.id) else {
                return not_found();
            };
            stored.url = url.unwrap_or_else(|| stored.url.clone());
            stored.state = next;
            stored.revision += 1;
            stored.clone()
        };
        if next == ConfigState::New {
            let running = self.upstream.start_implicit_test(self.key, config.id);
            self.wait_for(running).await;
        }
        let shown = self.upstream.config(config.id).unwrap_or(updated);
        Reply::json(StatusCode::OK, &self.shape(|shape| shape.read(&shown))).effect()
    }

    async fn test(&self, config: &WebhookConfig) -> Reply {
        if self.behaviour.refuse_test_body && !self.call.body.is_empty() {
            return error(StatusCode::BAD_REQUEST, "invalid_params", "No body is expected.");
        }
        // The official client sends the literal `null` without a content type.
        let no_params = self.call.body.trim_ascii() == b"null" || params(self.call, &[]).is_ok();
        if !no_params {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_params",
                "No parameters are expected.",
            );
        }
        if config.state == ConfigState::Deactivated {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_state",
                "The webhook config is deactivated.",
            );
        }
        let running = self.upstream.start_test(self.key, config.id);
        let started = running.task.clone();
        self.wait_for(Some(running)).await;
        let task = lock(&self.upstream.state)
            .task(started.id)
            .cloned()
            .unwrap_or(started);
        Reply::json(StatusCode::CREATED, &self.shape(|shape| shape.task(&task))).effect()
    }

    fn delete(&self, config: &WebhookConfig) -> Reply {
        match self.behaviour.delete {
            DeleteSupport::MethodNotAllowed => return not_allowed(),
            DeleteSupport::Forbidden => {
                return error(StatusCode::FORBIDDEN, "forbidden", "Deleting is not permitted.");
            }
            DeleteSupport::Supported => {}
        }
        let mut state = lock(&self.upstream.state);
        if self.behaviour.refuse_delete_in_use && state.in_use(config.id) {
            return in_use();
        }
        let shown = Shape {
            behaviour: self.behaviour,
            state: &state,
        }
        .read(config);
        match state.remove(config.id) {
            Some(_) => Reply::json(StatusCode::OK, &shown).effect(),
            None => not_found(),
        }
    }

    fn tasks(&self) -> Reply {
        let page = match Page::read(self.call, |id| TASK.parse(self.behaviour.ids, id)) {
            Ok(page) => page,
            Err(reply) => return reply,
        };
        let state = lock(&self.upstream.state);
        let mut all: Vec<_> = state
            .tasks_of(self.key.organisation)
            .map(|task| (task.id, task))
            .collect();
        if self.behaviour.newest_first {
            all.reverse();
        }
        let total = all.len();
        let (tasks, more) = page.cut(all, self.behaviour.newest_first);
        let shape = Shape {
            behaviour: self.behaviour,
            state: &state,
        };
        list(
            &self.call.path,
            tasks.into_iter().map(|task| shape.task(task)).collect(),
            more,
            total,
        )
    }

    fn task(&self, id: &str) -> Reply {
        let state = lock(&self.upstream.state);
        let task = TASK.parse(self.behaviour.ids, id).and_then(|id| state.task(id));
        match task.filter(|task| task.organisation == self.key.organisation) {
            Some(task) => {
                let shape = Shape {
                    behaviour: self.behaviour,
                    state: &state,
                };
                Reply::json(StatusCode::OK, &shape.task(task))
            }
            None => not_found(),
        }
    }

    /// The config named by a body, which must be the organisation's own and `valid`; null ends the use.
    fn usable(&self, field: &str, state: &State) -> Result<Option<u64>, Reply> {
        let params = params(self.call, &[field])?;
        let value = params
            .get(field)
            .ok_or_else(|| invalid(field, "This field is required."))?;
        if value.is_null() {
            return Ok(None);
        }
        let id = CONFIG.parse_json(self.behaviour.ids, value);
        let organisation = state.organisation_at(self.key.organisation);
        let config = id.and_then(|id| organisation?.configs.get(&id));
        match config {
            None => Err(invalid(field, "No such webhook config.")),
            Some(config) if config.state != ConfigState::Valid => {
                Err(invalid(field, "The webhook config is not valid."))
            }
            Some(config) => Ok(Some(config.id)),
        }
    }

    fn other_key(&self, id: &str) -> Reply {
        let mut state = lock(&self.upstream.state);
        let id = KEY.parse(self.behaviour.ids, id);
        let key = id
            .and_then(|id| state.key(id))
            .filter(|key| key.organisation == self.key.organisation);
        let Some(id) = key.map(|key| key.id) else {
            return not_found();
        };
        let write = self.call.method == Method::POST;
        if write {
            match self.usable("webhook_config", &state) {
                Ok(config) => {
                    if let Some(key) = state.key_mut(id) {
                        key.webhook_config = config;
                    }
                }
                Err(reply) => return reply,
            }
        }
        let Some(key) = state.key(id) else {
            return not_found();
        };
        let mut reply = Reply::json(
            StatusCode::OK,
            &Shape {
                behaviour: self.behaviour,
                state: &state,
            }
            .key(key),
        );
        reply.effect = write;
        reply
    }

    fn organisation(&self) -> Reply {
        let state = lock(&self.upstream.state);
        let Some(organisation) = state.organisation_at(self.key.organisation) else {
            return not_found();
        };
        let shape = Shape {
            behaviour: self.behaviour,
            state: &state,
        };
        Reply::json(StatusCode::OK, &shape.organisation(organisation))
    }

    fn set_organisation(&self) -> Reply {
        {
            let mut state = lock(&self.upstream.state);
            let config = match self.usable("webhook_config_default", &state) {
                Ok(config) => config,
                Err(reply) => return reply,
            };
            if let Some(organisation) = state.organisation_at_mut(self.key.organisation) {
                organisation.webhook_config_default = config;
            }
        }
        self.organisation().effect()
    }
}
