//! A Secret with a signing secret that the operator makes, as the plan sees it, and how it is written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::Patch};
use serde_json::{Map, Value, json};

use crate::{
    api::{ROTATION_ANNOTATION, Webhook, webhook::SecretRef},
    controller::{
        context::{Context, SecretContent},
        generated,
        publish::params,
        signing::{self, Ownership},
    },
    domain::{
        hash::HashKey,
        rotation::{Candidate, Change, Journal, Keys, Policy, Put, Situation, make, next_key, previous_key},
    },
    net::SecretText,
};

/// What a Secret holds of a signing secret, for the plan.
pub(in crate::controller) struct Book {
    /// Name and key.
    pub(super) reference: SecretRef,
    /// What is there.
    pub(super) keys: Keys,
    /// What is noted.
    pub(super) journal: Journal,
}

impl Book {
    /// That of a Secret which does not exist.
    pub(in crate::controller) fn empty(reference: &SecretRef) -> Self {
        Self {
            reference: reference.clone(),
            keys: Keys::default(),
            journal: Journal::default(),
        }
    }

    /// Reads a Secret. The upstream takes secrets of `min` to `max` characters.
    pub(in crate::controller) fn read(
        key: &HashKey,
        reference: &SecretRef,
        secret: &SecretContent,
        (min, max): (usize, usize),
    ) -> Self {
        let value = |key: &str| secret.data.get(key).filter(|value| !value.is_empty());
        let (next, previous) = (next_key(&reference.key), previous_key(&reference.key));
        let exists = |key: &str| secret.data.contains_key(key) || secret.binary.contains(key);
        let usable = value(&next).filter(|value| (min..=max).contains(&value.len_chars()));
        let annotations = secret.metadata.annotations.as_ref();
        let journal = annotations.and_then(|annotations| annotations.get(ROTATION_ANNOTATION));
        Self {
            keys: Keys {
                current: value(&reference.key).map(|value| print(key, value)),
                next: match usable {
                    Some(value) => Some(Candidate::Usable(print(key, value))),
                    None => exists(&next).then_some(Candidate::Unusable),
                },
                previous: exists(&previous),
            },
            journal: Journal::from_text(journal.map(String::as_str)),
            reference: reference.clone(),
        }
    }

    /// The write that makes a secret where there is none.
    pub(in crate::controller) fn make(&self, webhook: &Webhook, now: Timestamp, fresh: &str) -> Change {
        let situation = Situation {
            key: &self.reference.key,
            keys: &self.keys,
            journal: &self.journal,
            policy: Policy::of(&webhook.spec),
            status: webhook
                .status
                .as_ref()
                .and_then(|status| status.rotation.as_ref()),
            handled: None,
            asked: None,
            applied: false,
            free: false,
            looked: None,
            probe: None,
            seed: 0,
            now,
        };
        make(&situation, fresh)
    }
}

/// By which a value is known without being kept.
pub(in crate::controller) fn print(key: &HashKey, value: &SecretText) -> String {
    key.fingerprint("signing secret", value.expose())
}

/// Writes the Secret as it was read, changed.
///
/// # Errors
///
/// Those of the API server; 409 where somebody else wrote it meanwhile.
pub(in crate::controller) async fn write(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
    change: &Change,
    fresh: Option<&SecretText>,
) -> Result<SecretContent, kube::Error> {
    let (next, previous) = (next_key(&reference.key), previous_key(&reference.key));
    let mut data = Map::new();
    for (key, put) in [
        (&reference.key, change.current),
        (&next, change.next),
        (&previous, change.previous),
    ] {
        let value = match put {
            Put::Keep => continue,
            Put::Remove => None,
            Put::Fresh => fresh,
            Put::Current => secret.data.get(&reference.key),
            Put::Next => secret.data.get(&next),
        };
        data.insert(key.clone(), value.map_or(Value::Null, generated::encode));
    }
    for key in change
        .forget
        .iter()
        .flat_map(|key| [next_key(key), previous_key(key)])
    {
        data.entry(key).or_insert(Value::Null);
    }
    let mut metadata = json!({
        "resourceVersion": secret.version,
        "annotations": { ROTATION_ANNOTATION: change.journal.to_text() },
    });
    if signing::ownership(&secret.metadata, webhook) == Ownership::Stale
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.insert(
            "ownerReferences".to_owned(),
            json!(signing::owners(&secret.metadata, webhook)),
        );
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &webhook.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": metadata, "data": data }));
    let written = api.patch(&reference.name, &params(), &patch).await?;
    Ok(SecretContent::from(written))
}
