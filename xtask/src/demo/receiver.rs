//! What the doubles' receiver knows of the examples, so that it judges the operator's tests as a real one would: the
//! Basic credentials that Thulium sends, and the secret with which Autocosmos signs. ricloud's secret it has from the
//! double that makes it.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::progress::Failure;

/// Tells the receiver what the Secrets of the examples hold.
pub(super) async fn teach(examples: &Path, urls: &Value) -> Result<(), Failure> {
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let objects: Vec<Value> = webhook_operator::yaml::parse_all(&fs::read_to_string(examples)?)?;
    let value = |secret: &str, key: &str| {
        let of = |object: &&Value| {
            object.pointer("/kind") == Some(&json!("Secret"))
                && object.pointer("/metadata/name") == Some(&json!(secret))
        };
        objects
            .iter()
            .find(of)
            .and_then(|object| object.get("stringData")?.get(key))
            .cloned()
            .ok_or_else(|| Failure::new(format!("no example has the Secret {secret} with {key}")))
    };
    let lessons = [
        (
            "basic/chats",
            json!({
                "username": value("thulium-receiver", "username")?,
                "password": value("thulium-receiver", "password")?,
            }),
        ),
        (
            "autocosmos/leads",
            json!({ "secret": value("leads-signing", "secret")? }),
        ),
    ];
    let admin = urls.get("admin").and_then(Value::as_str).unwrap_or_default();
    let http = reqwest::Client::new();
    for (path, lesson) in lessons {
        http.put(format!("{admin}/receiver/{path}"))
            .json(&lesson)
            .send()
            .await?
            .error_for_status()?;
    }
    Ok(())
}
