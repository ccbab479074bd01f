//! What is registered and what a manifest asks for, in one form in which they can be compared. An independent reading
//! of the contracts: no code of the operator says what a registration has to look like.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use upstream_doubles::{AppWebhook, ConfigState, ConpeekWebhook, Models, ThuliumWebhook, WebhookConfig};
use webhook_operator::api::provider::ProviderType;

use crate::{World, apiserver::Id, manifests};

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// Id, or target.
    pub(crate) id: String,
    /// Delivery URL.
    pub(crate) url: String,
    /// Whether it delivers.
    pub(crate) on: bool,
    /// The upstream's own word for its state.
    pub(crate) state: Option<&'static str>,
    /// All that a spec says about it.
    pub(crate) content: Value,
}

/// All registrations at an upstream.
pub(crate) fn at(models: &Models, provider: ProviderType) -> Vec<Registration> {
    match provider {
        ProviderType::Conpeek => models.conpeek().objects().iter().map(conpeek).collect(),
        ProviderType::Thulium => models.thulium().objects().iter().map(thulium).collect(),
        ProviderType::Ricloud => {
            let shown = |config: &WebhookConfig| models.ricloud().upstream().external_id(config.id);
            let configs = models.ricloud().objects();
            configs
                .iter()
                .map(|config| ricloud(config, shown(config)))
                .collect()
        }
        ProviderType::Autocosmos => models.autocosmos().objects().iter().map(autocosmos).collect(),
    }
}

fn conpeek(it: &ConpeekWebhook) -> Registration {
    let retry = it.retry_config.as_ref();
    Registration {
        id: it.application.to_string(),
        url: it.url.clone().unwrap_or_default(),
        on: true,
        state: None,
        content: json!({
            "headers": it.headers,
            "retry": it.retry_enabled,
            "delay": retry.map(|retry| retry.retry_value),
            "retries": retry.map(|retry| retry.max_retries),
            "factor": retry.map(|retry| retry.backoff_value),
        }),
    }
}

fn thulium(it: &ThuliumWebhook) -> Registration {
    let actions: BTreeSet<&String> = it.actions.iter().collect();
    Registration {
        id: it.id.to_string(),
        url: it.subscription_url.clone(),
        on: true,
        state: None,
        content: json!({"events": actions, "user": it.http_auth_user, "password": it.http_auth_password}),
    }
}

fn ricloud(it: &WebhookConfig, id: String) -> Registration {
    let state = match it.state {
        ConfigState::New => "new",
        ConfigState::Valid => "valid",
        ConfigState::Invalid => "invalid",
        ConfigState::Deactivated => "deactivated",
    };
    Registration {
        id,
        url: it.url.clone(),
        on: it.state != ConfigState::Deactivated,
        state: Some(state),
        content: json!({"secret": it.secret}),
    }
}

fn autocosmos(it: &AppWebhook) -> Registration {
    let headers: BTreeMap<&str, &str> = it
        .headers
        .iter()
        .flatten()
        .map(|header| (header.name.as_str(), header.value.reveal()))
        .collect();
    Registration {
        id: it.topic.clone(),
        url: it.callback.clone().unwrap_or_default(),
        on: it.activo,
        state: None,
        content: json!({
            "secret": it.secret,
            "description": it.description.as_deref().unwrap_or_default(),
            "headers": headers,
        }),
    }
}

/// What the spec of a Webhook, as it is in the cluster, asks for; but for its id and state.
pub(crate) fn wanted(world: &World, provider: ProviderType, webhook: &Value) -> Registration {
    let spec = &webhook["spec"];
    let references = References {
        world,
        namespace: webhook["metadata"]["namespace"].as_str().unwrap_or_default(),
    };
    let content = match provider {
        ProviderType::Conpeek => {
            // Conpeek wants the whole object: what the spec leaves out has the defaults of the documentation.
            let retry = &spec["retry"];
            let number = |value: &Value, default: u64| value.as_u64().unwrap_or(default);
            json!({
                "headers": references.headers(spec),
                "retry": retry["enabled"].as_bool().unwrap_or(true),
                "delay": seconds(retry["initialDelay"].as_str().unwrap_or("10s")),
                "retries": number(&retry["maxRetries"], 2),
                "factor": retry["backoff"]["factor"].as_f64().unwrap_or(2.0),
            })
        }
        ProviderType::Thulium => {
            let mut events: Vec<&str> = spec["events"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            events.sort_unstable();
            let basic = spec["basicAuthRef"]["name"].as_str();
            let part = |key| {
                basic
                    .and_then(|name| references.secret(name, key))
                    .unwrap_or_default()
            };
            json!({"events": events, "user": part("username"), "password": part("password")})
        }
        ProviderType::Ricloud => {
            let default = format!(
                "{}-signing",
                webhook["metadata"]["name"].as_str().unwrap_or_default()
            );
            json!({"secret": references.signing(spec, &default)})
        }
        ProviderType::Autocosmos => json!({
            "secret": references.signing(spec, ""),
            "description": spec["description"].as_str().unwrap_or_default(),
            "headers": references.headers(spec),
        }),
    };
    Registration {
        id: spec["target"].as_str().unwrap_or_default().to_owned(),
        url: spec["url"].as_str().unwrap_or_default().to_owned(),
        on: spec["active"].as_bool().unwrap_or(true),
        state: None,
        content,
    }
}

/// Whole seconds, as the manifests here write them.
fn seconds(text: &str) -> Option<u64> {
    text.strip_suffix('s')?.parse().ok()
}

struct References<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl References<'_> {
    fn secret(&self, name: &str, key: &str) -> Option<String> {
        let secret = self.world.api().get(&Id::new("secrets", self.namespace, name))?;
        manifests::secret_value(&secret, key)
    }

    fn signing(&self, spec: &Value, default: &str) -> Option<String> {
        let reference = &spec["secretRef"];
        let name = reference["name"].as_str().unwrap_or(default);
        self.secret(name, reference["key"].as_str().unwrap_or("secret"))
    }

    fn headers(&self, spec: &Value) -> BTreeMap<String, Option<String>> {
        let headers = spec["headers"].as_array();
        headers
            .into_iter()
            .flatten()
            .map(|header| {
                let from = &header["valueFrom"]["secretKeyRef"];
                let value = header["value"].as_str().map(str::to_owned).or_else(|| {
                    let (name, key) = (from["name"].as_str()?, from["key"].as_str()?);
                    self.secret(name, key)
                });
                (header["name"].as_str().unwrap_or_default().to_owned(), value)
            })
            .collect()
    }
}
