//! The Secret with a signing secret that the operator makes (`secretPolicy.source: Generate`). The secret is in its
//! Secret before the upstream gets it, so a crash in between costs nothing. What is there is never overwritten, and
//! a Secret of somebody else is never touched.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::events::EventType,
};
use serde_json::{Value, json};

use super::{
    context::{Context, SecretContent},
    publish::event,
    resolve::ResolveError,
    signing::{self, Ownership},
};
use crate::{
    api::{
        FIELD_MANAGER, Webhook,
        conditions::SecretReason,
        webhook::{SecretRef, SecretSource},
    },
    domain::{capabilities::SecretRule, mint},
    net::SecretText,
};

/// Others may write the Secret between a read and a write of ours: read again this often before the pass gives up.
const ATTEMPTS: usize = 3;

/// Sees to it that there is a secret where the operator makes it. `None`: somebody else does.
///
/// # Errors
///
/// The Secret is somebody else's, or cannot be written.
pub(super) async fn ensure(
    ctx: &Context,
    webhook: &Webhook,
    rule: SecretRule,
) -> Result<Option<SecretContent>, ResolveError> {
    let (SecretRule::Given { min, max }, Some(SecretSource::Generate)) = (rule, rule.source(&webhook.spec))
    else {
        return Ok(None);
    };
    let reference = webhook.signing_secret();
    let namespace = webhook.namespace().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let written = match ctx.read_secret(&namespace, &reference.name).await? {
            None => create(ctx, webhook, &reference, fresh(ctx, min, max)?).await,
            Some(secret) => match repair(ctx, webhook, &reference, &secret, (min, max))? {
                Some(change) => patch(ctx, webhook, &reference, &secret, change).await,
                None => return Ok(Some(secret)),
            },
        };
        match written {
            Ok((secret, made)) => {
                if made {
                    tell(ctx, webhook, &reference).await;
                }
                return Ok(Some(secret));
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(refused(error, &reference)),
        }
    }
    let message = format!(
        "spec.secretRef: Secret {:?} is changed by somebody else all the time; see who writes it",
        reference.name
    );
    Err(ResolveError::Signing(SecretReason::NotFound, message))
}

/// A new secret.
fn fresh(ctx: &Context, min: usize, max: usize) -> Result<SecretText, ResolveError> {
    let mut bytes = vec![0; mint::length(min, max)];
    ctx.entropy.fill(&mut bytes)?;
    Ok(mint::spell(&bytes))
}

/// What a Secret lacks.
struct Repair {
    /// The owner reference is of an earlier life.
    owners: bool,
    /// The value that the key gets.
    value: Option<SecretText>,
}

/// What is to be written into a Secret that exists; `None`: it is as it shall be.
fn repair(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
    (min, max): (usize, usize),
) -> Result<Option<Repair>, ResolveError> {
    let ownership = signing::ownership(&secret.metadata, webhook);
    if ownership == Ownership::Foreign {
        let message = format!(
            "spec.secretRef: Secret {:?} exists and is not this Webhook's, so no secret is made in it; delete it, name another, or set secretPolicy.source to Existing to use it as it is",
            reference.name
        );
        return Err(ResolveError::Signing(SecretReason::NotOwned, message));
    }
    let empty = secret.data.get(&reference.key).is_none_or(SecretText::is_empty);
    // A value that is no text is not ours, and is not overwritten either: that it cannot be used is said elsewhere.
    let value = if empty && !secret.binary.contains(&reference.key) {
        Some(fresh(ctx, min, max)?)
    } else {
        None
    };
    let owners = ownership == Ownership::Stale;
    Ok((owners || value.is_some()).then_some(Repair { owners, value }))
}

/// The result: the Secret as it was written, and whether a secret was made.
type Written = Result<(SecretContent, bool), kube::Error>;

fn data(key: &str, value: &SecretText) -> BTreeMap<String, ByteString> {
    BTreeMap::from([(key.to_owned(), ByteString(value.expose().as_bytes().to_vec()))])
}

async fn create(ctx: &Context, webhook: &Webhook, reference: &SecretRef, value: SecretText) -> Written {
    let namespace = webhook.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(reference.name.clone()),
            namespace: Some(namespace),
            owner_references: Some(vec![signing::owner(webhook)]),
            ..ObjectMeta::default()
        },
        data: Some(data(&reference.key, &value)),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let written = api.create(&params, &object).await?;
    Ok((SecretContent::from(written), true))
}

async fn patch(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
    change: Repair,
) -> Written {
    // What stays as it is is left out.
    let owners = change.owners.then(|| signing::owners(&secret.metadata, webhook));
    let metadata = match owners {
        Some(owners) => json!({ "resourceVersion": secret.version, "ownerReferences": owners }),
        None => json!({ "resourceVersion": secret.version }),
    };
    let patch = match &change.value {
        Some(value) => json!({ "metadata": metadata, "data": data(&reference.key, value) }),
        None => json!({ "metadata": metadata }),
    };
    let written = send(ctx, webhook, reference, patch).await?;
    Ok((written, change.value.is_some()))
}

/// Sends a merge patch of the Secret.
async fn send(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    patch: Value,
) -> Result<SecretContent, kube::Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &webhook.namespace().unwrap_or_default());
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = api.patch(&reference.name, &params, &Patch::Merge(patch)).await?;
    Ok(SecretContent::from(written))
}

/// A refusal by the API server is something that a user can see to; anything else passes.
fn refused(error: kube::Error, reference: &SecretRef) -> ResolveError {
    let code = match &error {
        kube::Error::Api(status) if matches!(status.code, 403 | 422) => status.code,
        _ => return ResolveError::Kube(error),
    };
    let message = format!(
        "spec.secretRef: Secret {:?} could not be written: the API server refused it ({code}); see the namespace's quota, whether the Secret is immutable, and the operator's rights",
        reference.name
    );
    ResolveError::Signing(SecretReason::NotFound, message)
}

async fn tell(ctx: &Context, webhook: &Webhook, reference: &SecretRef) {
    let note = format!(
        "made a signing secret in Secret {:?} under the key {:?}; let the receiver verify with it",
        reference.name, reference.key
    );
    event(
        ctx,
        webhook,
        EventType::Normal,
        "SecretGenerated",
        &note,
        "Generate",
    )
    .await;
}

/// `SecretReady` of a secret that the operator made.
pub(super) fn describe(webhook: &Webhook) -> String {
    let reference = webhook.signing_secret();
    format!(
        "made by the operator; it is in Secret {:?} under the key {:?}",
        reference.name, reference.key
    )
}
