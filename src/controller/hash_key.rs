//! The operator's own Secret with the key of all hashes. Made once; whoever comes second takes what is there.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};

use crate::{
    api::FIELD_MANAGER,
    domain::hash::HashKey,
    entropy::{Entropy, NoEntropy},
};

/// Name of the Secret.
pub const SECRET_NAME: &str = "webhook-operator-hash-key";

/// Key in its data.
const DATA_KEY: &str = "key";

/// Pause before the API server is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// The API server refused or failed.
    #[error(
        "Secret {SECRET_NAME:?} in namespace {namespace:?} could not be read or made: {source}; the service account needs get and create on secrets there"
    )]
    Kube {
        /// Where.
        namespace: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Somebody changed it.
    #[error(
        "Secret {SECRET_NAME:?} in namespace {namespace:?} does not hold 32 bytes under the key \"key\"; delete it: a new one is made, and each Webhook is applied once more"
    )]
    Spoiled {
        /// Where.
        namespace: String,
    },
    /// There are no random bytes.
    #[error(transparent)]
    Random(#[from] NoEntropy),
}

/// The key, waited for as long as the API server fails or refuses: what else a start needs is waited for as well, and a
/// process that ended would be started again later and later.
///
/// # Errors
///
/// What waiting does not cure: a Secret that holds no key, no random bytes.
pub async fn wait_for(client: &Client, namespace: &str, entropy: &Entropy) -> Result<HashKey, HashKeyError> {
    let mut told = false;
    loop {
        match obtain(client, namespace, entropy).await {
            Err(error @ HashKeyError::Kube { .. }) => {
                if !told {
                    told = true;
                    tracing::warn!(%error, "there is no key for hashes yet; it is asked for again");
                }
                tokio::time::sleep(AGAIN).await;
            }
            ended => return ended,
        }
    }
}

/// Reads the key, or makes it.
///
/// # Errors
///
/// See [`HashKeyError`].
pub async fn obtain(client: &Client, namespace: &str, entropy: &Entropy) -> Result<HashKey, HashKeyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let failed = |source| HashKeyError::Kube {
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    if let Some(secret) = api.get_opt(SECRET_NAME).await.map_err(failed)? {
        return read(&secret, namespace);
    }
    let mut key = [0; 32];
    entropy.fill(&mut key)?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(DATA_KEY.to_owned(), ByteString(key.to_vec()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, &secret).await {
        Ok(_) => Ok(HashKey::new(key)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            read(&api.get(SECRET_NAME).await.map_err(failed)?, namespace)
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(secret: &Secret, namespace: &str) -> Result<HashKey, HashKeyError> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(DATA_KEY))
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.0.as_slice()).ok())
        .map(HashKey::new)
        .ok_or_else(|| HashKeyError::Spoiled {
            namespace: namespace.to_owned(),
        })
}
