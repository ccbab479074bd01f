//! Makes [`Account`]s from provider objects: credentials and trust roots are read once per version, not per pass.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::time::Instant;

use super::context::{Context, ProviderObject};
use crate::{
    api::{
        conditions::ProviderReason,
        provider::{CaBundleLocation, ProviderType, UndocumentedCalls},
    },
    domain::owner::ProviderKey,
    net::{CheckedUrl, SecretText},
    provider::{Account, Credentials},
};

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum AccountProblem {
    /// The user has to do something; reason and message of the provider's `Ready` condition.
    #[error("{1}")]
    Refused(ProviderReason, String),
    /// The API server did not answer as it should.
    #[error("the API server failed: {0}")]
    Kube(#[from] kube::Error),
}

struct Entry {
    /// Provider's uid and generation, versions of credentials and trust roots.
    version: String,
    /// Provider's uid and generation only: findings survive new credentials.
    spec_version: String,
    /// Extra trust roots, and when they were read. Nothing watches ConfigMaps for their sake.
    trust: Option<(Vec<u8>, Instant)>,
    account: Arc<Account>,
}

/// How old trust roots may be when the account is used.
const TRUST_LIFETIME: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Held {
    entry: Option<Entry>,
    /// The version for which there was none.
    refused: Option<String>,
}

type Slot = Arc<tokio::sync::Mutex<Held>>;

/// The accounts of all providers.
#[derive(Default)]
pub struct Accounts(Mutex<HashMap<ProviderKey, Slot>>);

impl Accounts {
    /// The account of a provider, made anew when the provider, its credentials or its trust roots have changed.
    ///
    /// # Errors
    ///
    /// What keeps the provider from being used.
    pub async fn get(
        &self,
        ctx: &Context,
        provider: &ProviderObject,
    ) -> Result<Arc<Account>, AccountProblem> {
        match provider.unread() {
            None => self.make(ctx, provider).await,
            Some(message) => Err(AccountProblem::Refused(ProviderReason::InvalidSpec, message)),
        }
    }

    /// The same, also of a provider of which not all can be read.
    async fn make(&self, ctx: &Context, provider: &ProviderObject) -> Result<Arc<Account>, AccountProblem> {
        let slot = self.slot(&provider.key());
        let mut held = slot.lock().await;
        let Held { entry, refused } = &mut *held;
        let location = provider.credentials();
        *refused = Some(attempted(ctx, provider));
        let cached = ctx.secret_version(&location.namespace, &location.name);
        let spec_version = spec_version(provider);
        if let (Some(entry), Some(cached)) = (entry.as_ref(), cached.as_ref())
            && entry.version == format!("{spec_version} {cached}")
            && entry
                .trust
                .as_ref()
                .is_none_or(|(_, read)| read.elapsed() < TRUST_LIFETIME)
        {
            return Ok(Arc::clone(&entry.account));
        }
        let trust = match provider.ca_bundle() {
            Some(location) => Some((read_ca_bundle(ctx, &location).await?, Instant::now())),
            None => None,
        };
        let secret = ctx
            .read_secret(&location.namespace, &location.name)
            .await?
            .ok_or_else(|| {
                let message = format!(
                    "credentials Secret {:?} not found in namespace {:?}; create it with the keys {}",
                    location.name,
                    location.namespace,
                    Credentials::keys(provider.settings().type_).join(", ")
                );
                AccountProblem::Refused(ProviderReason::SecretNotFound, message)
            })?;
        let version = format!("{spec_version} {}", secret.version);
        let credentials = Credentials::read(provider.settings().type_, &secret.data).map_err(|key| {
            let message = format!(
                "credentials Secret {:?} lacks the key {key:?}, or it is empty or not plain text; add it",
                location.name
            );
            AccountProblem::Refused(ProviderReason::KeyMissing, message)
        })?;
        let pem = trust.as_ref().map(|(pem, _)| pem.clone());
        if let Some(old) = entry.as_mut().filter(|old| old.spec_version == spec_version)
            && old.account.credentials == credentials
            && old.trust.as_ref().map(|(pem, _)| pem) == pem.as_ref()
        {
            // Only metadata changed: what the calls have taught and what they have used up stays.
            old.version = version;
            old.trust = trust;
            return Ok(Arc::clone(&old.account));
        }
        let account = build(ctx, provider, credentials, pem)?;
        if let Some(old) = entry.as_ref().filter(|old| old.spec_version == spec_version) {
            account.findings.inherit(&old.account.findings);
        } else {
            seed_findings(&account, provider);
        }
        let account = Arc::new(account);
        *entry = Some(Entry {
            version,
            spec_version,
            trust,
            account: Arc::clone(&account),
        });
        Ok(account)
    }

    /// The account of a provider as it is known, made only if nobody has tried yet: for comparisons, which must not
    /// cost a call for each provider that cannot be used.
    pub async fn known(&self, ctx: &Context, provider: &ProviderObject) -> Option<Arc<Account>> {
        if let Some(account) = self.last_known(&provider.key()).await {
            return Some(account);
        }
        let slot = self.slot(&provider.key());
        let tried = slot.lock().await.refused.clone();
        if tried.is_some_and(|version| version == attempted(ctx, provider)) {
            return None;
        }
        // Whose account it is may be known all the same, and what its Webhooks hold there is theirs.
        let known = !["type", "baseUrl", "credentialsRef"]
            .iter()
            .any(|field| provider.settings().is_unread(field));
        if !known {
            return None;
        }
        self.make(ctx, provider).await.ok()
    }

    fn slot(&self, key: &ProviderKey) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// The account that a provider had last, whatever has become of its Secret: deletions go on with it.
    pub async fn last_known(&self, key: &ProviderKey) -> Option<Arc<Account>> {
        let slot = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key)?);
        slot.lock()
            .await
            .entry
            .as_ref()
            .map(|entry| Arc::clone(&entry.account))
    }

    /// Makes the account anew at the next use: its trust roots may have changed, or it is gone.
    pub fn forget(&self, key: &ProviderKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// What an attempt to make an account depends on.
fn attempted(ctx: &Context, provider: &ProviderObject) -> String {
    let location = provider.credentials();
    let secret = ctx.secret_version(&location.namespace, &location.name);
    format!("{} {}", spec_version(provider), secret.as_deref().unwrap_or("-"))
}

fn spec_version(provider: &ProviderObject) -> String {
    let metadata = provider.metadata();
    format!(
        "{} {}",
        metadata.uid.as_deref().unwrap_or_default(),
        metadata.generation.unwrap_or_default()
    )
}

/// What the provider's status still knows of an earlier process.
fn seed_findings(account: &Account, provider: &ProviderObject) {
    let Some(status) = provider.status() else { return };
    if status.observed_generation != provider.metadata().generation {
        return;
    }
    for finding in &status.findings {
        account.findings.restore(finding);
    }
}

fn build(
    ctx: &Context,
    provider: &ProviderObject,
    credentials: Credentials,
    ca_bundle: Option<Vec<u8>>,
) -> Result<Account, AccountProblem> {
    let settings = provider.settings();
    let invalid = |message: String| AccountProblem::Refused(ProviderReason::InvalidSpec, message);
    let base = base_url(settings.type_, settings.base_url().unwrap_or_default())
        .map_err(|problem| invalid(format!("spec.baseUrl: {problem}; correct it")))?;
    let proxy = settings
        .proxy_url
        .as_deref()
        .map(CheckedUrl::parse)
        .transpose()
        .map_err(|problem| invalid(format!("spec.proxyUrl: {problem}; correct it")))?;
    let transport = ctx
        .transports
        .make(ca_bundle, proxy)
        .map_err(|problem| invalid(format!("spec.caBundleRef: {problem}; correct the certificates")))?;
    let rate = settings.rate_limit();
    let rate = (rate.requests_per_second, rate.burst, rate.max_concurrent);
    let mut account = Account::new(
        settings.type_,
        &base,
        credentials,
        rate,
        transport,
        ctx.clock.clone(),
    );
    account.owner = provider.key();
    account.undocumented = settings.undocumented_calls == UndocumentedCalls::Allow;
    account.limited = settings.deletion_limit.is_some();
    account.body_style = settings.body_style();
    account.timeout = settings.timeout.get();
    Ok(account)
}

/// The base URL in the one form in which it is compared and called: as the URL parser writes it, without a slash
/// at the end; Thulium's with `/api` where it has no path.
///
/// # Errors
///
/// What is wrong with it.
pub fn base_url(provider_type: ProviderType, text: &str) -> Result<String, crate::net::UrlProblem> {
    let url = CheckedUrl::parse(text)?;
    let base = url.as_str().trim_end_matches('/');
    Ok(match provider_type {
        ProviderType::Thulium if url.path().trim_matches('/').is_empty() => format!("{base}/api"),
        ProviderType::Conpeek | ProviderType::Thulium | ProviderType::Ricloud | ProviderType::Autocosmos => {
            base.to_owned()
        }
    })
}

async fn read_ca_bundle(ctx: &Context, location: &CaBundleLocation) -> Result<Vec<u8>, AccountProblem> {
    let CaBundleLocation {
        in_secret,
        namespace,
        name,
        key,
    } = location;
    let (kind, value) = if *in_secret {
        let secret = ctx.read_secret(namespace, name).await?;
        (
            "Secret",
            secret.and_then(|secret| secret.data.get(key).map(SecretText::expose).map(str::to_owned)),
        )
    } else {
        let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
        let map = api.get_opt(name).await?;
        (
            "ConfigMap",
            map.and_then(|map| map.data.unwrap_or_default().remove(key)),
        )
    };
    value.map(String::into_bytes).ok_or_else(|| {
        let message = format!("spec.caBundleRef: {kind} {name:?} with the key {key:?} not found in namespace {namespace:?}; create it");
        AccountProblem::Refused(ProviderReason::InvalidSpec, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_have_one_form() {
        let base = |kind, text| base_url(kind, text).unwrap();
        assert_eq!(
            base(ProviderType::Thulium, "https://X.thulium.com"),
            "https://x.thulium.com/api"
        );
        assert_eq!(
            base(ProviderType::Thulium, "https://x.thulium.com/api/"),
            "https://x.thulium.com/api"
        );
        assert_eq!(
            base(ProviderType::Conpeek, "https://a.example:443/"),
            "https://a.example"
        );
        assert_eq!(
            base(ProviderType::Conpeek, "https://a.example/prefix/"),
            "https://a.example/prefix"
        );
        assert!(base_url(ProviderType::Conpeek, "ftp://a.example").is_err());
    }
}
