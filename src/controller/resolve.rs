//! Turns a spec and the Secrets it refers to into [`Desired`].

use std::{collections::BTreeMap, time::Duration};

use kube::ResourceExt;

use super::{
    context::{Context, SecretContent},
    index::secret_names,
};
use crate::{
    api::{
        Webhook,
        conditions::SecretReason,
        webhook::{Retry as RetrySpec, SecretSource},
    },
    domain::{
        capabilities::{Capabilities, SecretRule},
        desired::{BasicAuth, Desired, Header, Retry},
    },
    entropy::NoEntropy,
    net::SecretText,
};

/// Why a spec cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The signing secret is missing or does not fit.
    #[error("{1}")]
    Signing(SecretReason, String),
    /// Another referenced Secret is missing or lacks a key.
    #[error("{1}")]
    Other(SecretReason, String),
    /// The API server did not answer as it should.
    #[error("the API server failed: {0}")]
    Kube(#[from] kube::Error),
    /// No secret can be made.
    #[error(transparent)]
    Random(#[from] NoEntropy),
}

/// The versions of everything that [`resolve`] reads, as the caches know them: equal inputs give an equal result.
#[must_use]
pub(super) fn inputs(ctx: &Context, webhook: &Webhook) -> String {
    let namespace = webhook.namespace().unwrap_or_default();
    let mut text = webhook.metadata.generation.unwrap_or_default().to_string();
    for name in secret_names(webhook) {
        text.push(' ');
        text.push_str(ctx.secret_version(&namespace, &name).as_deref().unwrap_or("-"));
    }
    text
}

/// Reads what the spec refers to. `read`: a Secret that was read a moment ago, by name.
///
/// # Errors
///
/// The first reference that does not resolve, by field and object.
pub(super) async fn resolve(
    ctx: &Context,
    webhook: &Webhook,
    capabilities: &Capabilities,
    read: Option<(String, SecretContent)>,
) -> Result<Desired, ResolveError> {
    let mut secrets = Secrets {
        ctx,
        namespace: webhook.namespace().unwrap_or_default(),
        read: read
            .into_iter()
            .map(|(name, secret)| (name, Some(secret)))
            .collect(),
    };
    let spec = &webhook.spec;
    let mut headers = Vec::with_capacity(spec.headers.len());
    for header in &spec.headers {
        let value = match (&header.value, &header.value_from) {
            (Some(value), _) => SecretText::from(value.clone()),
            (None, Some(from)) => {
                let field = format!("spec.headers[{}].valueFrom", header.name);
                let from = &from.secret_key_ref;
                let value = secrets
                    .get(&field, &from.name, &from.key)
                    .await?
                    .map_err(Missing::other)?;
                header_value(&field, value)?
            }
            (None, None) => SecretText::default(),
        };
        headers.push(Header {
            name: header.name.clone(),
            value,
        });
    }
    Ok(Desired {
        target: spec.target().map(str::to_owned),
        url: spec.url.clone(),
        events: spec.events.iter().cloned().collect(),
        description: spec.description.clone().filter(|text| !text.is_empty()),
        active: spec.active,
        secret: signing_secret(&mut secrets, webhook, capabilities.secret).await?,
        basic_auth: basic_auth(&mut secrets, webhook).await?,
        headers,
        retry: spec.retry.as_ref().map(retry),
    })
}

async fn signing_secret(
    secrets: &mut Secrets<'_>,
    webhook: &Webhook,
    rule: SecretRule,
) -> Result<Option<SecretText>, ResolveError> {
    let SecretRule::Given { min, max } = rule else {
        return Ok(None);
    };
    let Some(SecretSource::Existing | SecretSource::Generate) = rule.source(&webhook.spec) else {
        return Ok(None);
    };
    let reference = webhook.signing_secret();
    let secret = secrets
        .get("spec.secretRef", &reference.name, &reference.key)
        .await?
        .map_err(|missing| ResolveError::Signing(missing.reason, missing.message))?;
    let length = secret.len_chars();
    let name = &reference.name;
    let off = |reason, what: &str| {
        let message = format!(
            "spec.secretRef: the secret in Secret {name:?} is {what} than the upstream takes ({min} to {max} characters); replace it"
        );
        Err(ResolveError::Signing(reason, message))
    };
    match length {
        _ if length < min => off(SecretReason::TooShort, "shorter"),
        _ if length > max => off(SecretReason::TooLong, "longer"),
        _ => Ok(Some(secret)),
    }
}

async fn basic_auth(secrets: &mut Secrets<'_>, webhook: &Webhook) -> Result<Option<BasicAuth>, ResolveError> {
    let Some(reference) = &webhook.spec.basic_auth_ref else {
        return Ok(None);
    };
    let field = "spec.basicAuthRef";
    let username = secrets
        .get(field, &reference.name, "username")
        .await?
        .map_err(Missing::other)?;
    let password = secrets
        .get(field, &reference.name, "password")
        .await?
        .map_err(Missing::other)?;
    Ok(Some(BasicAuth {
        username: username.expose().to_owned(),
        password,
    }))
}

fn retry(spec: &RetrySpec) -> Retry {
    let at_least = |number: i32, least: u32| u32::try_from(number).unwrap_or(least).max(least);
    Retry {
        enabled: spec.enabled,
        initial_delay: spec.initial_delay.get().max(Duration::from_secs(1)),
        max_retries: at_least(spec.max_retries, 0),
        factor: at_least(spec.backoff.factor, 1),
    }
}

/// A value that could smuggle in another header is refused; a line break at the end is what `echo` leaves.
fn header_value(field: &str, value: SecretText) -> Result<SecretText, ResolveError> {
    let trimmed = value.expose().trim_end_matches(['\r', '\n']);
    if trimmed.contains(['\r', '\n', '\0']) {
        let message = format!(
            "{field}: the value has a line break, which no header can hold; replace it in the Secret"
        );
        return Err(ResolveError::Other(SecretReason::KeyMissing, message));
    }
    Ok(SecretText::from(trimmed.to_owned()))
}

/// A reference that leads nowhere.
struct Missing {
    reason: SecretReason,
    message: String,
}

impl Missing {
    fn other(self) -> ResolveError {
        ResolveError::Other(self.reason, self.message)
    }
}

/// Reads each Secret once.
struct Secrets<'a> {
    ctx: &'a Context,
    namespace: String,
    read: BTreeMap<String, Option<SecretContent>>,
}

impl Secrets<'_> {
    async fn get(
        &mut self,
        field: &str,
        name: &str,
        key: &str,
    ) -> Result<Result<SecretText, Missing>, kube::Error> {
        if !self.read.contains_key(name) {
            let secret = self.ctx.read_secret(&self.namespace, name).await?;
            self.read.insert(name.to_owned(), secret);
        }
        let Some(secret) = self.read.get(name).and_then(Option::as_ref) else {
            let message = format!("{field}: Secret {name:?} not found; create it with the key {key:?}");
            return Ok(Err(Missing {
                reason: SecretReason::NotFound,
                message,
            }));
        };
        Ok(secret
            .data
            .get(key)
            .filter(|value| !value.is_empty())
            .cloned()
            .ok_or_else(|| {
                let message = format!("{field}: Secret {name:?} has no text under the key {key:?}; add it");
                Missing {
                    reason: SecretReason::KeyMissing,
                    message,
                }
            }))
    }
}
