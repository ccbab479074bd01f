//! ricloud: webhook configs with server-made ids and secrets, tested in the background by a real delivery.
//!
//! Here are the public types; `routes.rs` handles requests, `shape.rs` writes answers, `store.rs` keeps the data,
//! `verdict.rs` runs the tests.

mod routes;
mod shape;
mod store;
mod verdict;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::delivery::{Courier, Delivered};
use crate::double::{Call, Reply, Upstream};
use crate::journal::Duplicate;
use crate::secret::Secret;
use crate::server::Stop;
use crate::{Source, lock};
use store::State;

/// A key of an organisation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RicloudAccount {
    /// Name of the key, in journal and faults.
    pub name: String,
    /// The token, sent as `Authorization: Token <token>`.
    pub token: Secret,
    /// Name of the organisation it belongs to; made if there is none of that name.
    pub organisation: String,
    /// Whether it may only read; writes then answer 403.
    #[serde(default)]
    pub read_only: bool,
}

impl RicloudAccount {
    /// A key that may do everything in its organisation.
    pub fn new(name: &str, token: &str, organisation: &str) -> Self {
        Self {
            name: name.to_owned(),
            token: token.into(),
            organisation: organisation.to_owned(),
            read_only: false,
        }
    }
}

/// How ids are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum IdStyle {
    /// As text, such as `"cfg-77"`.
    #[default]
    Text,
    /// As numbers, such as `77`.
    Number,
}

/// What becomes of the test after create or update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum ImplicitTest {
    /// It runs.
    #[default]
    Runs,
    /// It never starts, and the state stays `new`.
    Lost,
}

/// How tasks go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum TaskCourse {
    /// `pending`, `processing`, then `succeeded` or `failed`.
    #[default]
    Completes,
    /// Stays `processing`; no verdict.
    Hangs,
    /// Stays `suspended`; no verdict.
    Suspended,
    /// Answers 404; the verdict comes nevertheless.
    Vanishes,
}

/// Who decides a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Verdict {
    /// The receiver's answer to the delivery: 2xx passes.
    #[default]
    Receiver,
    /// Passes without a delivery, for URLs that nothing serves.
    AlwaysValid,
    /// Fails without a delivery.
    AlwaysInvalid,
}

/// An update with `state: new` on a deactivated config.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum StateNew {
    /// Reactivates, as the parameter table says.
    #[default]
    Allowed,
    /// 400, as the prose says (only `deactivated` may be set).
    Refused,
    /// 200, and the config stays deactivated.
    Ignored,
}

/// `DELETE` of a config, which only the official client knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum DeleteSupport {
    /// Removes it and answers with the config.
    #[default]
    Supported,
    /// 405.
    MethodNotAllowed,
    /// 403.
    Forbidden,
}

/// How key and organisation show the config they use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum References {
    /// By id.
    #[default]
    Id,
    /// As the nested object.
    Object,
}

/// Switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RicloudBehaviour {
    /// How ids are written.
    pub ids: IdStyle,
    /// Whether reads show the secret; the create answer always does.
    pub secret_in_reads: bool,
    /// The test after create and update.
    pub implicit_test: ImplicitTest,
    /// How tasks go.
    pub tasks: TaskCourse,
    /// From start to end of a test, the delivery not counted; half of it `pending`, half `processing`.
    pub test_millis: u64,
    /// Who decides.
    pub verdict: Verdict,
    /// Whether an explicit test refuses (400) a request that has a body.
    pub refuse_test_body: bool,
    /// An update with `state: new`.
    pub state_new: StateNew,
    /// Whether an update of `url` brings a deactivated config back.
    pub url_reactivates: bool,
    /// `DELETE` of a config.
    pub delete: DeleteSupport,
    /// Whether a config in use as default or by a key cannot be deleted (400); else the use ends with it.
    pub refuse_delete_in_use: bool,
    /// How key and organisation show the config they use.
    pub references: References,
    /// Lists begin with the newest (`true`) or the oldest.
    pub newest_first: bool,
    /// Whether an event id is put behind a slash even where the URL already ends in one.
    pub double_slash: bool,
}

impl Default for RicloudBehaviour {
    fn default() -> Self {
        Self {
            ids: IdStyle::Text,
            secret_in_reads: true,
            implicit_test: ImplicitTest::Runs,
            tasks: TaskCourse::Completes,
            test_millis: 100,
            verdict: Verdict::Receiver,
            refuse_test_body: false,
            state_new: StateNew::Allowed,
            url_reactivates: true,
            delete: DeleteSupport::Supported,
            refuse_delete_in_use: true,
            references: References::Id,
            newest_first: true,
            double_slash: false,
        }
    }
}

impl RicloudBehaviour {
    /// Only what the public pages show: no DELETE.
    pub fn documented() -> Self {
        Self {
            delete: DeleteSupport::MethodNotAllowed,
            ..Self::default()
        }
    }
}

/// State of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigState {
    /// Created or changed, not yet tested.
    New,
    /// The last test passed.
    Valid,
    /// The last test failed.
    Invalid,
    /// Retired by its owner.
    Deactivated,
}

/// A webhook config, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookConfig {
    /// Made by the server; written by the API as the switch says.
    pub id: u64,
    /// Name of its organisation.
    pub organisation: String,
    /// Delivery URL.
    pub url: String,
    /// Made by the server.
    pub secret: Secret,
    /// State.
    pub state: ConfigState,
    /// ISO 8601, UTC, microseconds.
    pub date_created: String,
    /// Counts changes, so that the outcome of an old test cannot judge a new URL.
    #[serde(default)]
    pub revision: u64,
}

/// The upstream.
#[derive(Debug)]
pub struct Ricloud {
    behaviour: Mutex<RicloudBehaviour>,
    state: Mutex<State>,
    courier: Courier,
    stop: Stop,
    source: Source,
}

impl Ricloud {
    pub(crate) fn new(
        behaviour: RicloudBehaviour,
        accounts: Vec<RicloudAccount>,
        courier: Courier,
        stop: Stop,
        source: Source,
    ) -> Self {
        let mut state = State::new(source.clone());
        for account in accounts {
            state.add_account(account);
        }
        Self {
            behaviour: Mutex::new(behaviour),
            state: Mutex::new(state),
            courier,
            stop,
            source,
        }
    }

    /// The config of this number.
    pub fn config(&self, id: u64) -> Option<WebhookConfig> {
        lock(&self.state).find(id).cloned()
    }

    /// The id of a config as the API writes it at present, as text.
    pub fn external_id(&self, id: u64) -> String {
        match store::CONFIG.show(lock(&self.behaviour).ids, id) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// The number of the config that an organisation uses as default.
    pub fn organisation_default(&self, organisation: &str) -> Option<u64> {
        lock(&self.state)
            .organisation(organisation)?
            .webhook_config_default
    }

    /// The number of the config that a key uses, by the key's name.
    pub fn key_config(&self, account: &str) -> Option<u64> {
        lock(&self.state).key_named(account)?.webhook_config
    }

    /// The id of a key as the API writes it at present, as text; by its name.
    pub fn external_key_id(&self, account: &str) -> Option<String> {
        let id = lock(&self.state).key_named(account)?.id;
        match store::KEY.show(lock(&self.behaviour).ids, id) {
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }

    /// Secrets of the configs, not deactivated, whose URL has this path; for receivers that have no other source.
    pub fn secrets_for_path(&self, path: &str) -> Vec<Secret> {
        let at_path = |config: &&WebhookConfig| {
            let url = url::Url::parse(&config.url).ok();
            config.state != ConfigState::Deactivated
                && url.is_some_and(|url| url.path().trim_end_matches('/') == path.trim_end_matches('/'))
        };
        lock(&self.state)
            .configs()
            .filter(at_path)
            .map(|config| config.secret.clone())
            .collect()
    }
}

/// An order to [`Ricloud::deliver`](Upstream::deliver).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    id: u64,
    /// First half of the event's slug, such as `task`.
    r#type: String,
    /// Second half, such as `failed`.
    action: String,
    #[serde(default)]
    data: Value,
}

impl Upstream for Ricloud {
    const NAME: &'static str = "ricloud";
    type Account = RicloudAccount;
    type Behaviour = RicloudBehaviour;
    type Object = WebhookConfig;

    fn base_path(&self) -> String {
        String::new()
    }

    fn behaviour(&self) -> &Mutex<RicloudBehaviour> {
        &self.behaviour
    }

    fn add_account(&self, account: RicloudAccount) {
        lock(&self.state).add_account(account);
    }

    fn remove_account(&self, name: &str) -> bool {
        lock(&self.state).remove_account(name)
    }

    fn accounts(&self) -> Vec<String> {
        lock(&self.state).account_names()
    }

    fn account_of(&self, call: &Call) -> Option<String> {
        let token = routes::token(call)?;
        lock(&self.state).key_of_token(token).map(|key| key.name.clone())
    }

    async fn answer(self: Arc<Self>, call: Call) -> Reply {
        self.respond(call).await
    }

    fn objects(&self) -> Vec<WebhookConfig> {
        let mut configs: Vec<_> = lock(&self.state).configs().cloned().collect();
        configs.sort_by_key(|config| config.id);
        configs
    }

    /// The key is the number of the config.
    fn edit(&self, key: &str, change: &mut dyn FnMut(&mut WebhookConfig)) -> bool {
        let mut state = lock(&self.state);
        key.parse()
            .ok()
            .and_then(|id| state.find_mut(id))
            .map(change)
            .is_some()
    }

    fn remove(&self, key: &str) -> bool {
        key.parse().is_ok_and(|id| lock(&self.state).remove(id).is_some())
    }

    /// Tasks go too; ids are not used again.
    fn clear(&self) {
        lock(&self.state).clear();
    }

    /// Configs, not deactivated, of one organisation with the same URL.
    fn duplicates(&self) -> Vec<Duplicate> {
        lock(&self.state).duplicates()
    }

    async fn deliver(&self, order: Value) -> Result<Vec<Delivered>, String> {
        let order: Order = serde_json::from_value(order).map_err(|error| error.to_string())?;
        let config = self.config(order.id).ok_or("no such config")?;
        let event = verdict::event(&self.source, &order.r#type, &order.action, order.data);
        Ok(vec![self.send(&config, &event).await])
    }
}
