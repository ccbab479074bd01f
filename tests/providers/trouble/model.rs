//! An upstream that answers everything as documented, for one registration; the trouble is put in its way by the
//! others. Deliberately simple: the strict doubles are what the contract tests use.

use serde_json::{Value, json};
use webhook_operator::{api::provider::ProviderType, net::Method};

/// One request of a dialect: method and path, without the query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    method: &'static str,
    path: String,
}

impl Route {
    pub(super) fn new(method: &str, path_and_query: &str) -> Self {
        let method = [
            Method::Get,
            Method::Post,
            Method::Put,
            Method::Patch,
            Method::Delete,
        ]
        .into_iter()
        .find(|known| known.as_str() == method)
        .unwrap_or_else(|| panic!("no dialect uses {method}"));
        let path = path_and_query.split('?').next().unwrap_or_default();
        Self {
            method: method.as_str(),
            path: path.to_owned(),
        }
    }

    /// Whether it changes something at the upstream.
    pub(super) fn changes(&self) -> bool {
        self.method != "GET"
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What is registered. The same words as in [`super::calls::want`].
pub(super) struct Model {
    kind: ProviderType,
    removed: bool,
}

impl Model {
    pub(super) fn new(kind: ProviderType) -> Self {
        Self { kind, removed: false }
    }

    /// Whose it is.
    pub(super) fn kind(&self) -> ProviderType {
        self.kind
    }

    /// Takes the effect of a request, if it has one, and answers it.
    pub(super) fn answer(&mut self, route: &Route, body: &[u8]) -> (u16, Value) {
        let body = String::from_utf8_lossy(body);
        let off = body.contains(r#""Activo":false"#) || body.contains(r#""state":"deactivated""#);
        if route.method == "DELETE" {
            self.removed = true;
            return (200, json!({}));
        }
        let body = match self.kind {
            ProviderType::Conpeek => conpeek(),
            ProviderType::Thulium => self.thulium(route),
            ProviderType::Ricloud => ricloud(route, off),
            ProviderType::Autocosmos => autocosmos(off),
        };
        (200, body)
    }

    fn thulium(&self, route: &Route) -> Value {
        let hook = json!({
            "id": 7, "actions": ["TICKET_CREATED"], "subscription_url": "https://a.example/",
            "http_auth_user": "", "http_auth_password": "kr0kodil",
        });
        let other = json!({
            "id": 8, "actions": ["TICKET_CREATED"], "subscription_url": "https://b.example/",
            "http_auth_user": "bob", "http_auth_password": "kr0kodil",
        });
        match route.method {
            "GET" if self.removed => json!([other]),
            "GET" => json!([hook, other]),
            _ => hook,
        }
    }
}

fn conpeek() -> Value {
    json!({
        "success": true,
        "data": {
            "url": "https://a.example/", "retry_enabled": 1, "headers": {},
            "retry_config": { "retry_value": 10, "max_retries": 2, "backoff_type": "multiplier", "backoff_value": 2 },
        },
    })
}

fn ricloud(route: &Route, off: bool) -> Value {
    let config = json!({
        "id": 7, "resource": "webhook_config", "url": "https://a.example/", "secret": "kr0kodil-secret",
        "state": if off { "deactivated" } else { "new" }, "date_created": "2024-05-01T12:00:00Z",
    });
    match (route.method, route.path.as_str()) {
        ("GET", "/configs/webhook") => json!({ "data": [config], "has_more": false, "total_count": 1 }),
        (_, "/configs/webhook/7/test") => json!({ "id": 5, "state": "pending" }),
        (_, "/tasks/5") => json!({ "id": 5, "state": "succeeded" }),
        (_, "/key" | "/keys/3") => json!({ "id": 3, "webhook_config": 7 }),
        (_, "/organisation") => json!({ "id": 1, "webhook_config_default": 7 }),
        _ => config,
    }
}

fn autocosmos(off: bool) -> Value {
    json!({
        "Callback": "https://a.example/", "Secret": null, "Description": "", "Activo": !off,
        "HeaderCustom01": null, "HeaderCustom02": null, "HeaderCustom03": null,
        "_links": { "self": { "href": "/v3/appnotificaciones/precios", "method": "DELETE" } },
    })
}
