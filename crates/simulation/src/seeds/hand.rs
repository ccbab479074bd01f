//! What people do at an upstream without the operator.

use bytes::Bytes;
use upstream_doubles::{Models, ThuliumWebhook};
use webhook_operator::api::provider::ProviderType;

use crate::{explore::registered, manifests::Account};

/// Gives the registration with one of these URLs another one. Its id, if there was one.
pub(super) fn change_url(
    models: &Models,
    provider: ProviderType,
    urls: &[String],
    new: &str,
) -> Option<String> {
    let found = registered::at(models, provider)
        .into_iter()
        .find(|it| urls.contains(&it.url))?;
    each(models, provider, &found.url, Some(new));
    Some(found.id)
}

/// Removes the registration with one of these URLs. Its id, if there was one.
pub(super) fn remove(models: &Models, provider: ProviderType, urls: &[String]) -> Option<String> {
    let found = registered::at(models, provider)
        .into_iter()
        .find(|it| urls.contains(&it.url))?;
    each(models, provider, &found.url, None);
    Some(found.id)
}

/// Every registration with this URL gets another one, or is removed.
fn each(models: &Models, provider: ProviderType, url: &str, new: Option<&str>) {
    match provider {
        ProviderType::Conpeek => {
            let double = models.conpeek();
            for it in double.objects() {
                let key = it.application.to_string();
                match new {
                    _ if it.url.as_deref() != Some(url) => false,
                    Some(new) => double.edit(&key, |it| it.url = Some(new.to_owned())),
                    None => double.remove(&key),
                };
            }
        }
        ProviderType::Thulium => {
            let double = models.thulium();
            for it in double.objects() {
                let key = it.id.to_string();
                match new {
                    _ if it.subscription_url != url => false,
                    Some(new) => double.edit(&key, |it| new.clone_into(&mut it.subscription_url)),
                    None => double.remove(&key),
                };
            }
        }
        ProviderType::Ricloud => {
            let double = models.ricloud();
            for it in double.objects() {
                let key = it.id.to_string();
                match new {
                    _ if it.url != url => false,
                    Some(new) => double.edit(&key, |it| new.clone_into(&mut it.url)),
                    None => double.remove(&key),
                };
            }
        }
        ProviderType::Autocosmos => {
            let double = models.autocosmos();
            for it in double.objects() {
                let key = format!("{}/{}", it.app_key, it.topic);
                match new {
                    _ if it.callback.as_deref() != Some(url) => false,
                    Some(new) => double.edit(&key, |it| it.callback = Some(new.to_owned())),
                    None => double.remove(&key),
                };
            }
        }
    }
}

/// Registers something that no Webhook asks for. Its id; `None`: it could not be done, or there is no way here.
pub(super) async fn register(
    models: &Models,
    provider: ProviderType,
    account: &Account,
    url: &str,
) -> Option<String> {
    let before: Vec<String> = registered::at(models, provider)
        .into_iter()
        .map(|it| it.id)
        .collect();
    match provider {
        ProviderType::Thulium => {
            models.thulium().upstream().insert(ThuliumWebhook {
                id: 0,
                actions: vec!["CHAT_CREATED".to_owned()],
                subscription_url: url.to_owned(),
                http_auth_user: String::new(),
                http_auth_password: "".into(),
            });
        }
        ProviderType::Ricloud => {
            let request = http::Request::post(format!("{}/configs/webhook", models.ricloud().url()))
                .header("authorization", format!("Token {}", account.password))
                .header("content-type", "application/json")
                .body(Bytes::from(format!("{{\"url\":\"{url}\"}}")))
                .unwrap();
            // Faults in force meet people as well.
            let _ = models.exchange(request).await;
        }
        ProviderType::Conpeek | ProviderType::Autocosmos => return None,
    }
    registered::at(models, provider)
        .into_iter()
        .map(|it| it.id)
        .find(|id| !before.contains(id))
}
