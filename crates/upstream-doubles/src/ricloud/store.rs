//! What ricloud stores: organisations with their configs, keys, tasks; and how ids are written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ConfigState, IdStyle, RicloudAccount, WebhookConfig};
use crate::Source;
use crate::journal::Duplicate;
use crate::secret::Secret;

/// Tasks kept; older ones answer 404.
const TASK_LIMIT: usize = 10_000;

/// A kind of id and the prefix of its text form.
pub(super) struct IdKind(&'static str);

pub(super) const CONFIG: IdKind = IdKind("cfg");
pub(super) const ORGANISATION: IdKind = IdKind("org");
pub(super) const KEY: IdKind = IdKind("key");
pub(super) const TASK: IdKind = IdKind("task");

impl IdKind {
    pub(super) fn show(&self, style: IdStyle, id: u64) -> Value {
        match style {
            IdStyle::Number => json!(id),
            IdStyle::Text => json!(format!("{}-{id}", self.0)),
        }
    }

    /// Reads an id from a path, in the style in force only.
    pub(super) fn parse(&self, style: IdStyle, text: &str) -> Option<u64> {
        match style {
            IdStyle::Number => text.parse().ok(),
            IdStyle::Text => text.strip_prefix(self.0)?.strip_prefix('-')?.parse().ok(),
        }
    }

    /// Reads an id from a body; a number may also come as its text.
    pub(super) fn parse_json(&self, style: IdStyle, value: &Value) -> Option<u64> {
        match (style, value) {
            (IdStyle::Number, Value::Number(number)) => number.as_u64(),
            (_, Value::String(text)) => self.parse(style, text),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Organisation {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) webhook_config_default: Option<u64>,
    pub(super) configs: BTreeMap<u64, WebhookConfig>,
    pub(super) date_created: String,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) token: Secret,
    /// Position of its organisation, which never changes.
    pub(super) organisation: usize,
    pub(super) webhook_config: Option<u64>,
    pub(super) read_only: bool,
    pub(super) date_created: String,
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) organisation: usize,
    pub(super) key: u64,
    pub(super) target: u64,
    pub(super) state: &'static str,
    pub(super) error: Option<&'static str>,
    pub(super) date_created: String,
    pub(super) date_started: Option<String>,
    pub(super) date_completed: Option<String>,
}

#[derive(Debug)]
pub(super) struct State {
    source: Source,
    last_id: u64,
    organisations: Vec<Organisation>,
    keys: BTreeMap<u64, Key>,
    tokens: BTreeMap<Secret, u64>,
    tasks: BTreeMap<u64, Task>,
}

impl State {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            last_id: 0,
            organisations: Vec::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn add_account(&mut self, account: RicloudAccount) {
        let organisation = self
            .organisations
            .iter()
            .position(|known| known.name == account.organisation);
        let organisation = organisation.unwrap_or_else(|| {
            let id = self.next_id();
            self.organisations.push(Organisation {
                id,
                name: account.organisation.clone(),
                webhook_config_default: None,
                configs: BTreeMap::new(),
                date_created: self.source.iso_now_micros(),
            });
            self.organisations.len() - 1
        });
        // A new token for a key of the same name leaves the key's id and use as they are.
        let before = self
            .key_named(&account.name)
            .cloned()
            .filter(|key| key.organisation == organisation);
        self.remove_account(&account.name);
        let id = before.as_ref().map_or_else(|| self.next_id(), |key| key.id);
        self.tokens.insert(account.token.clone(), id);
        let key = Key {
            id,
            name: account.name,
            token: account.token,
            organisation,
            webhook_config: before.as_ref().and_then(|key| key.webhook_config),
            read_only: account.read_only,
            date_created: before.map_or_else(|| self.source.iso_now_micros(), |key| key.date_created),
        };
        self.keys.insert(id, key);
    }

    pub(super) fn remove_account(&mut self, name: &str) -> bool {
        let Some(key) = self.key_named(name).cloned() else {
            return false;
        };
        self.keys.remove(&key.id);
        self.tokens.remove(&key.token);
        true
    }

    pub(super) fn account_names(&self) -> Vec<String> {
        self.keys.values().map(|key| key.name.clone()).collect()
    }

    pub(super) fn key_named(&self, name: &str) -> Option<&Key> {
        self.keys.values().find(|key| key.name == name)
    }

    pub(super) fn key_of_token(&self, token: &str) -> Option<&Key> {
        self.keys.get(self.tokens.get(&Secret::from(token))?)
    }

    pub(super) fn key(&self, id: u64) -> Option<&Key> {
        self.keys.get(&id)
    }

    pub(super) fn key_mut(&mut self, id: u64) -> Option<&mut Key> {
        self.keys.get_mut(&id)
    }

    pub(super) fn organisation(&self, name: &str) -> Option<&Organisation> {
        self.organisations
            .iter()
            .find(|organisation| organisation.name == name)
    }

    pub(super) fn organisation_at(&self, position: usize) -> Option<&Organisation> {
        self.organisations.get(position)
    }

    pub(super) fn organisation_at_mut(&mut self, position: usize) -> Option<&mut Organisation> {
        self.organisations.get_mut(position)
    }

    /// Stores a new config in state `new`.
    pub(super) fn create(&mut self, organisation: usize, url: &str) -> Option<WebhookConfig> {
        let id = self.next_id();
        let organisation = self.organisations.get_mut(organisation)?;
        let config = WebhookConfig {
            id,
            organisation: organisation.name.clone(),
            url: url.to_owned(),
            secret: format!("{}{}", self.source.uuid().simple(), self.source.uuid().simple()).into(),
            state: ConfigState::New,
            date_created: self.source.iso_now_micros(),
            revision: 0,
        };
        organisation.configs.insert(id, config.clone());
        Some(config)
    }

    pub(super) fn configs(&self) -> impl Iterator<Item = &WebhookConfig> {
        self.organisations
            .iter()
            .flat_map(|organisation| organisation.configs.values())
    }

    pub(super) fn find(&self, id: u64) -> Option<&WebhookConfig> {
        self.organisations
            .iter()
            .find_map(|organisation| organisation.configs.get(&id))
    }

    pub(super) fn find_mut(&mut self, id: u64) -> Option<&mut WebhookConfig> {
        self.organisations
            .iter_mut()
            .find_map(|organisation| organisation.configs.get_mut(&id))
    }

    /// Whether an organisation or a key uses the config.
    pub(super) fn in_use(&self, id: u64) -> bool {
        self.organisations
            .iter()
            .any(|organisation| organisation.webhook_config_default == Some(id))
            || self.keys.values().any(|key| key.webhook_config == Some(id))
    }

    /// Removes a config and every use of it.
    pub(super) fn remove(&mut self, id: u64) -> Option<WebhookConfig> {
        let removed = self
            .organisations
            .iter_mut()
            .find_map(|organisation| organisation.configs.remove(&id))?;
        for organisation in &mut self.organisations {
            organisation.webhook_config_default.take_if(|used| *used == id);
        }
        for key in self.keys.values_mut() {
            key.webhook_config.take_if(|used| *used == id);
        }
        Some(removed)
    }

    pub(super) fn clear(&mut self) {
        for organisation in &mut self.organisations {
            organisation.configs.clear();
            organisation.webhook_config_default = None;
        }
        for key in self.keys.values_mut() {
            key.webhook_config = None;
        }
        self.tasks.clear();
    }

    pub(super) fn add_task(&mut self, organisation: usize, key: u64, target: u64) -> Task {
        let id = self.next_id();
        if self.tasks.len() >= TASK_LIMIT {
            self.tasks.pop_first();
        }
        let task = Task {
            id,
            organisation,
            key,
            target,
            state: "pending",
            error: None,
            date_created: self.source.iso_now_micros(),
            date_started: None,
            date_completed: None,
        };
        self.tasks.insert(id, task.clone());
        task
    }

    pub(super) fn task(&self, id: u64) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub(super) fn task_mut(&mut self, id: u64) -> Option<&mut Task> {
        self.tasks.get_mut(&id)
    }

    pub(super) fn remove_task(&mut self, id: u64) {
        self.tasks.remove(&id);
    }

    pub(super) fn tasks_of(&self, organisation: usize) -> impl DoubleEndedIterator<Item = &Task> {
        self.tasks
            .values()
            .filter(move |task| task.organisation == organisation)
    }

    pub(super) fn duplicates(&self) -> Vec<Duplicate> {
        let mut groups: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for config in self
            .configs()
            .filter(|config| config.state != ConfigState::Deactivated)
        {
            groups
                .entry((&config.organisation, &config.url))
                .or_default()
                .push(config.id);
        }
        groups
            .into_iter()
            .filter(|(_, ids)| ids.len() > 1)
            .map(|((organisation, url), ids)| Duplicate {
                what: format!("same url, not deactivated, in organisation {organisation}"),
                url: url.to_owned(),
                ids: ids.iter().map(u64::to_string).collect(),
            })
            .collect()
    }
}
