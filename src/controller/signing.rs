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
    api::{FIELD_MANAGER, GROUP, ID_ANNOTATION, Webhook, conditions::SecretReason},
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
        /// Its owners as they are to be.
        owners: Vec<OwnerReference>,
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
        ..
    } = secret;
    match ownership(&metadata, webhook) {
        Ownership::Foreign => Ok(Holder::Foreign(format!(
            "spec.secretRef: Secret {:?} exists and is not this Webhook's, so the upstream's secret is not written into it; delete it, or name another",
            reference.name
        ))),
        ownership => Ok(Holder::Ours {
            stale_owner: ownership == Ownership::Stale,
            owners: owners(&metadata, webhook),
            id: metadata.annotations.unwrap_or_default().remove(ID_ANNOTATION),
            value: data.get(&reference.key).cloned(),
            version,
        }),
    }
}

/// Whose a Secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This Webhook's.
    Ours,
    /// That of an earlier life of this Webhook: the same name with another uid. It counts as ours, but the garbage
    /// collector takes it away unless the reference is renewed.
    Stale,
    /// Somebody else's, or nobody's.
    Foreign,
}

/// Whose a Secret is.
pub(super) fn ownership(metadata: &ObjectMeta, webhook: &Webhook) -> Ownership {
    let mut owners = metadata
        .owner_references
        .iter()
        .flatten()
        .filter(|owner| is_self(owner, webhook));
    match owners.next() {
        None => Ownership::Foreign,
        Some(owner) if Some(&owner.uid) == webhook.metadata.uid.as_ref() => Ownership::Ours,
        Some(_) => Ownership::Stale,
    }
}

fn is_self(owner: &OwnerReference, webhook: &Webhook) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    group == Some(GROUP) && owner.kind == Webhook::kind(&()) && owner.name == webhook.name_any()
}

/// The owners of a Secret with this Webhook among them; whoever else owns it stays.
pub(super) fn owners(metadata: &ObjectMeta, webhook: &Webhook) -> Vec<OwnerReference> {
    let others = metadata
        .owner_references
        .iter()
        .flatten()
        .filter(|owner| !is_self(owner, webhook))
        .cloned();
    others.chain([owner(webhook)]).collect()
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
            owners,
        } => {
            if held.as_deref() == Some(id.0.as_str()) && value.as_ref() == Some(secret) && !stale_owner {
                return Ok(Ok(version));
            }
            let patch = json!({
                "metadata": {
                    "resourceVersion": version,
                    "annotations": { ID_ANNOTATION: id.0 },
                    "ownerReferences": owners,
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

pub(super) fn owner(webhook: &Webhook) -> OwnerReference {
    OwnerReference {
        api_version: Webhook::api_version(&()).into_owned(),
        kind: Webhook::kind(&()).into_owned(),
        name: webhook.name_any(),
        uid: webhook.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        WebhookSpec,
        webhook::{ProviderKind, ProviderRef},
    };

    fn webhook(uid: &str) -> Webhook {
        let provider = ProviderRef {
            kind: ProviderKind::WebhookProvider,
            name: "p".into(),
        };
        let mut webhook = Webhook::new("w", WebhookSpec::new(provider, "https://a.example/"));
        webhook.metadata.uid = Some(uid.into());
        webhook
    }

    fn owned_by(owners: &[OwnerReference]) -> ObjectMeta {
        ObjectMeta {
            owner_references: Some(owners.to_vec()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_secret_is_this_webhook_s_by_kind_group_and_name() {
        let ours = owner(&webhook("uid-1"));
        let judge = |owners: &[OwnerReference]| ownership(&owned_by(owners), &webhook("uid-1"));
        assert_eq!(judge(std::slice::from_ref(&ours)), Ownership::Ours);
        assert_eq!(judge(&[owner(&webhook("uid-0"))]), Ownership::Stale);
        assert_eq!(judge(&[]), Ownership::Foreign);
        for (field, value) in [
            ("name", "v"),
            ("kind", "WebhookProvider"),
            ("group", "other.dev/v1"),
        ] {
            let mut other = ours.clone();
            match field {
                "name" => other.name = value.into(),
                "kind" => other.kind = value.into(),
                _ => other.api_version = value.into(),
            }
            assert_eq!(judge(&[other]), Ownership::Foreign, "another {field}");
        }
    }

    #[test]
    fn a_renewed_reference_leaves_other_owners_alone() {
        let stale = owner(&webhook("uid-0"));
        let other = OwnerReference {
            kind: "Deployment".into(),
            api_version: "apps/v1".into(),
            name: "w".into(),
            uid: "uid-7".into(),
            controller: None,
            block_owner_deletion: None,
        };
        assert_eq!(
            owners(&owned_by(&[stale, other.clone()]), &webhook("uid-1")),
            [other, owner(&webhook("uid-1"))]
        );
    }
}
