//! The Secret with a signing secret that the operator makes (`secretPolicy.source: Generate`). The secret is in its
//! Secret before the upstream gets it, so a crash in between costs nothing. What is there is never overwritten, and
//! a Secret of somebody else is never touched.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, ResourceExt,
    api::{Patch, PostParams},
    runtime::events::EventType,
};
use serde_json::{Value, json};

use super::{
    context::{Context, SecretContent},
    publish::{event, params},
    resolve::ResolveError,
    rotation::{self, Book},
    signing::{self, Ownership},
};
use crate::{
    api::{
        FIELD_MANAGER, ROTATION_ANNOTATION, Webhook,
        conditions::SecretReason,
        webhook::{SecretRef, SecretSource},
    },
    domain::{capabilities::SecretRule, mint, rotation::Journal},
    entropy::NoEntropy,
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
        let read = ctx.read_secret(&namespace, &reference.name).await?;
        let ownership = match &read {
            Some(secret) => owned(webhook, &reference, secret)?,
            None => Ownership::Ours,
        };
        // A value that is no text is not ours, and is not overwritten: that it cannot be used is said elsewhere.
        let has_value = read.as_ref().is_some_and(|secret| {
            let empty = secret.data.get(&reference.key).is_none_or(SecretText::is_empty);
            !empty || secret.binary.contains(&reference.key)
        });
        let written = match read {
            Some(secret) if has_value && ownership == Ownership::Ours => return Ok(Some(secret)),
            Some(secret) if has_value => renew_owner(ctx, webhook, &reference, &secret).await,
            read => make(ctx, webhook, &reference, read, fresh(ctx, min, max)?, (min, max)).await,
        };
        match written {
            Ok(secret) => {
                if !has_value {
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

/// A new secret of a length that the upstream takes.
///
/// # Errors
///
/// There is no randomness.
pub(super) fn fresh(ctx: &Context, min: usize, max: usize) -> Result<SecretText, NoEntropy> {
    let mut bytes = vec![0; mint::length(min, max)];
    ctx.entropy.fill(&mut bytes)?;
    Ok(mint::spell(&bytes))
}

/// Whose a Secret is, if it is this Webhook's.
fn owned(
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
) -> Result<Ownership, ResolveError> {
    let ownership = signing::ownership(&secret.metadata, webhook);
    if ownership != Ownership::Foreign {
        return Ok(ownership);
    }
    let message = format!(
        "spec.secretRef: Secret {:?} exists and is not this Webhook's, so no secret is made in it; delete it, name another, or set secretPolicy.source to Existing to use it as it is",
        reference.name
    );
    Err(ResolveError::Signing(SecretReason::NotOwned, message))
}

/// A value as it stands in the JSON of a Secret.
pub(super) fn encode(value: &SecretText) -> Value {
    json!(ByteString(value.expose().as_bytes().to_vec()))
}

/// Puts a secret where there is none.
async fn make(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    read: Option<SecretContent>,
    value: SecretText,
    bounds: (usize, usize),
) -> Result<SecretContent, kube::Error> {
    let (now, print) = (ctx.clock.now(), rotation::print(&ctx.key, &value));
    let book = match &read {
        Some(secret) => Book::read(&ctx.key, reference, secret, bounds),
        None => Book::empty(reference),
    };
    let change = book.make(webhook, now, &print);
    match read {
        Some(secret) => rotation::write(ctx, webhook, reference, &secret, &change, Some(&value)).await,
        None => create(ctx, webhook, reference, &value, &change.journal).await,
    }
}

async fn create(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    value: &SecretText,
    journal: &Journal,
) -> Result<SecretContent, kube::Error> {
    let namespace = webhook.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let value = ByteString(value.expose().as_bytes().to_vec());
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(reference.name.clone()),
            namespace: Some(namespace),
            annotations: Some(BTreeMap::from([(
                ROTATION_ANNOTATION.to_owned(),
                journal.to_text(),
            )])),
            owner_references: Some(vec![signing::owner(webhook)]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(reference.key.clone(), value)])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    Ok(SecretContent::from(api.create(&params, &object).await?))
}

/// The Secret is of an earlier life of this Webhook: the garbage collector would take it away.
async fn renew_owner(
    ctx: &Context,
    webhook: &Webhook,
    reference: &SecretRef,
    secret: &SecretContent,
) -> Result<SecretContent, kube::Error> {
    let owners = signing::owners(&secret.metadata, webhook);
    let metadata = json!({ "resourceVersion": secret.version, "ownerReferences": owners });
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &webhook.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let written = api.patch(&reference.name, &params(), &patch).await?;
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
