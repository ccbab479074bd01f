//! What people do at an upstream without the operator.

use bytes::Bytes;
use upstream_doubles::{ConfigState, Models, ThuliumWebhook};
use webhook_operator::api::provider::ProviderType;

use crate::{explore::registered, manifests::Account};

/// What somebody does to a registration.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Url(&'a str),
    Switch(bool),
    Remove,
}

/// Does it. Whether it was there, and had a switch where one is needed.
pub(super) fn change(models: &Models, provider: ProviderType, id: &str, change: Change<'_>) -> bool {
    match provider {
        ProviderType::Conpeek => match change {
            Change::Url(new) => models.conpeek().edit(id, |it| it.url = Some(new.to_owned())),
            Change::Remove => models.conpeek().remove(id),
            Change::Switch(_) => false,
        },
        ProviderType::Thulium => match change {
            Change::Url(new) => models
                .thulium()
                .edit(id, |it| new.clone_into(&mut it.subscription_url)),
            Change::Remove => models.thulium().remove(id),
            Change::Switch(_) => false,
        },
        ProviderType::Ricloud => {
            let shown = |id: u64| models.ricloud().upstream().external_id(id);
            let configs = models.ricloud().objects();
            let Some(key) = configs
                .iter()
                .find(|it| shown(it.id) == id)
                .map(|it| it.id.to_string())
            else {
                return false;
            };
            match change {
                Change::Url(new) => models.ricloud().edit(&key, |it| new.clone_into(&mut it.url)),
                Change::Switch(on) => models
                    .ricloud()
                    .edit(&key, |it| it.state = switched(it.state, on)),
                Change::Remove => models.ricloud().remove(&key),
            }
        }
        ProviderType::Autocosmos => {
            let topics = models.autocosmos().objects();
            let Some(topic) = topics.iter().find(|it| it.topic == id) else {
                return false;
            };
            let key = format!("{}/{}", topic.app_key, topic.topic);
            match change {
                Change::Url(new) => models
                    .autocosmos()
                    .edit(&key, |it| it.callback = Some(new.to_owned())),
                Change::Switch(on) => models.autocosmos().edit(&key, |it| it.activo = on),
                Change::Remove => models.autocosmos().remove(&key),
            }
        }
    }
}

/// Who switches on in the panel has it tested there as well.
fn switched(state: ConfigState, on: bool) -> ConfigState {
    match (state, on) {
        (_, false) => ConfigState::Deactivated,
        (ConfigState::Deactivated, true) => ConfigState::Valid,
        (state, true) => state,
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
