//! Manifests as users write them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use webhook_operator::{api::provider::ProviderType, controller::hash_key};

/// A login at every upstream.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name, login or public half.
    pub name: String,
    /// Password, token or private half.
    pub password: String,
}

impl Account {
    /// The one that every world has.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            name: "demo".to_owned(),
            password: "password-of-demo".to_owned(),
        }
    }

    /// The keys of a credentials Secret.
    #[must_use]
    pub fn keys(&self, provider: ProviderType) -> Vec<(&'static str, &str)> {
        match provider {
            ProviderType::Conpeek => vec![("apiKey", &self.password)],
            ProviderType::Thulium => vec![("username", &self.name), ("password", &self.password)],
            ProviderType::Ricloud => vec![("token", &self.password)],
            ProviderType::Autocosmos => vec![("appKey", &self.name), ("appSecret", &self.password)],
        }
    }
}

/// Sets what `over` says, as a merge patch does.
pub fn overlay(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    into.remove(name);
                } else {
                    overlay(into.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, over) => *into = over.clone(),
    }
}

/// A Secret.
#[must_use]
pub fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": name, "namespace": namespace }, "data": data,
    })
}

/// What a Secret holds under a key.
#[must_use]
pub fn secret_value(secret: &Value, key: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(secret["data"][key].as_str()?).unwrap();
    Some(String::from_utf8(bytes).unwrap())
}

/// The operator's Secret with the key of its hashes.
#[must_use]
pub fn hash_key(namespace: &str, seed: u64) -> Value {
    let mut manifest = secret(namespace, hash_key::SECRET_NAME, &[]);
    let key: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    manifest["data"]["key"] = json!(BASE64_STANDARD.encode(key));
    manifest
}

/// Name of the provider object of a type: the type in lower case.
#[must_use]
pub fn name_of(provider: ProviderType) -> String {
    provider.as_str().to_ascii_lowercase()
}

/// A WebhookProvider and its credentials Secret `<name>-account`, in the order in which they are applied.
#[must_use]
pub fn provider(namespace: &str, type_: ProviderType, base_url: &str, account: &Account) -> [Value; 2] {
    let name = name_of(type_);
    let credentials = format!("{name}-account");
    let provider = json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "WebhookProvider",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "type": type_.as_str(),
            "baseUrl": base_url,
            "credentialsRef": { "name": credentials },
            "rateLimit": { "requestsPerSecond": 100, "burst": 100, "maxConcurrent": 4 },
        },
    });
    [secret(namespace, &credentials, &account.keys(type_)), provider]
}

/// A Webhook at the provider of [`provider`], with the least that its upstream needs, and `over` on top of the spec.
#[must_use]
pub fn webhook(namespace: &str, name: &str, provider: ProviderType, over: &Value) -> Value {
    let mut spec = json!({
        "providerRef": { "name": name_of(provider) },
        "url": format!("https://hooks.example/{namespace}/{name}"),
        "test": { "mode": "None" },
    });
    let needed = match provider {
        ProviderType::Conpeek => json!({ "target": "9" }),
        ProviderType::Thulium => json!({ "events": ["CHAT_CREATED"] }),
        ProviderType::Ricloud => json!({}),
        ProviderType::Autocosmos => json!({ "target": "leads" }),
    };
    overlay(&mut spec, &needed);
    overlay(&mut spec, over);
    json!({
        "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook",
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    })
}
