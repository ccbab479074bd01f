//! The Secret that receives a secret made by the upstream (ricloud). It is written only where it is absent or
//! ours; it says for which registration it holds.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::context::{Context, SecretContent};
use crate::{
    api::{FIELD_MANAGER, ID_ANNOTATION, Webhook, conditions::SecretReason},
    domain::remote::RemoteId,
    net::SecretText,
};

/// What is there.
#[derive(Debug)]
pub(super) enum Holder {
    /// No Secret: it may be made.
    Absent,
    /// Ours, and it has a value for this registration.
    Ours {
        /// The registration that its value is for.
        id: Option<String>,
        /// The value, if it has one.
        value: Option<SecretText>,
        /// Version of the object.
        version: String,
        /// The owner reference names an older object of the same name: to be renewed.
        stale_owner: bool,
    },
    /// Somebody else's.
    Foreign(String),
}

/// Looks at the Secret.
///
/// # Errors
///
/// Those of the API server.
pub(super) async fn inspect(ctx: &Context, webhook: &Webhook) -> Result<Holder, kube::Error> {
    let reference = webhook.signing_secret();
    let namespace = webhook.namespace().unwrap_or_default();
    let Some(secret) = ctx.read_secret(&namespace, &reference.name).await? else {
        return Ok(Holder::Absent);
    };
    let SecretContent {
        version,
        data,
        metadata,
    } = secret;
    // An owner of the same name with another uid is an earlier life of this Webhook.
    let owner = metadata
        .owner_references
        .unwrap_or_default()
        .into_iter()
        .find(|owner| owner.kind == "Webhook" && owner.name == webhook.name_any());
    match owner {
        Some(owner) => Ok(Holder::Ours {
            id: metadata.annotations.unwrap_or_default().remove(ID_ANNOTATION),
            value: data.get(&reference.key).cloned(),
            version,
            stale_owner: Some(owner.uid) != webhook.uid(),
        }),
        None => Ok(Holder::Foreign(format!(
            "spec.secretRef: Secret {:?} exists and is not this Webhook's, so the upstream's secret is not written into it; delete it, or name another",
            reference.name
        ))),
    }
}

/// Writes the upstream's secret. Returns the version written, or why not.
///
/// # Errors
///
/// Those of the API server, a conflict among them.
pub(super) async fn publish(
    ctx: &Context,
    webhook: &Webhook,
    id: &RemoteId,
    secret: &SecretText,
) -> Result<Result<String, (SecretReason, String)>, kube::Error> {
    let reference = webhook.signing_secret();
    let namespace = webhook.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    match inspect(ctx, webhook).await? {
        Holder::Foreign(message) => Ok(Err((SecretReason::NotOwned, message))),
        Holder::Absent => {
            let object = Secret {
                metadata: ObjectMeta {
                    name: Some(reference.name),
                    namespace: Some(namespace),
                    annotations: Some(BTreeMap::from([(ID_ANNOTATION.to_owned(), id.0.clone())])),
                    owner_references: Some(vec![owner(webhook)]),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(
                    reference.key,
                    ByteString(secret.expose().as_bytes().to_vec()),
                )])),
                type_: Some("Opaque".to_owned()),
                ..Secret::default()
            };
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let written = api.create(&params, &object).await?;
            Ok(Ok(written.metadata.resource_version.unwrap_or_default()))
        }
        Holder::Ours {
            id: held,
            value,
            version,
            stale_owner,
        } => {
            if held.as_deref() == Some(id.0.as_str()) && value.as_ref() == Some(secret) && !stale_owner {
                return Ok(Ok(version));
            }
            let patch = json!({
                "metadata": {
                    "resourceVersion": version,
                    "annotations": { ID_ANNOTATION: id.0 },
                    "ownerReferences": [owner(webhook)],
                },
                "data": { reference.key: ByteString(secret.expose().as_bytes().to_vec()) },
            });
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let written = api.patch(&reference.name, &params, &Patch::Merge(patch)).await?;
            Ok(Ok(written.metadata.resource_version.unwrap_or_default()))
        }
    }
}

fn owner(webhook: &Webhook) -> OwnerReference {
    OwnerReference {
        api_version: Webhook::api_version(&()).into_owned(),
        kind: Webhook::kind(&()).into_owned(),
        name: webhook.name_any(),
        uid: webhook.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
