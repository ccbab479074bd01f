//! How ricloud writes what it answers: errors, pages, and objects as the switches say.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::store::{CONFIG, KEY, Key, ORGANISATION, Organisation, State, TASK, Task};
use super::{References, RicloudBehaviour, WebhookConfig};
use crate::double::{Call, Reply};

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"error": code, "message": message}))
}

pub(super) fn invalid(field: &str, message: &str) -> Reply {
    let body = json!({
        "error": "invalid_params",
        "message": "Validation failed.",
        "params": {field: [message]},
    });
    Reply::json(StatusCode::BAD_REQUEST, &body)
}

pub(super) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "not_found", "Not found.")
}

pub(super) fn not_allowed() -> Reply {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "Method not allowed.",
    )
}

pub(super) fn in_use() -> Reply {
    error(
        StatusCode::BAD_REQUEST,
        "webhook_config_in_use",
        "The webhook config is in use.",
    )
}

/// One page of a list: `limit` (10 unless given, 1000 at most), `after_id`, `before_id`.
pub(super) struct Page {
    limit: usize,
    after: Option<u64>,
    before: Option<u64>,
}

impl Page {
    pub(super) fn read(call: &Call, ids: impl Fn(&str) -> Option<u64>) -> Result<Self, Reply> {
        let mut page = Self {
            limit: 10,
            after: None,
            before: None,
        };
        for (name, value) in call.query_pairs() {
            match name.as_str() {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=1000).contains(&limit) => page.limit = limit,
                    _ => return Err(invalid("limit", "Must be from 1 to 1000.")),
                },
                "after_id" => {
                    page.after = Some(ids(&value).ok_or_else(|| invalid("after_id", "Unknown id."))?)
                }
                "before_id" => {
                    page.before = Some(ids(&value).ok_or_else(|| invalid("before_id", "Unknown id."))?);
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// Cuts the page out of `all`, which is in the order of the list. `after_id` and `before_id` are positions
    /// in that order, whether or not the object named is in the list. With `before_id` alone the page is the one
    /// that ends there.
    pub(super) fn cut<'a, T>(&self, all: Vec<(u64, &'a T)>, newest_first: bool) -> (Vec<&'a T>, bool) {
        let later = |id: u64, mark: u64| if newest_first { id < mark } else { id > mark };
        let mut rest: Vec<_> = all
            .into_iter()
            .filter(|(id, _)| self.after.is_none_or(|mark| later(*id, mark)))
            .filter(|(id, _)| self.before.is_none_or(|mark| *id != mark && !later(*id, mark)))
            .map(|(_, item)| item)
            .collect();
        let more = rest.len() > self.limit;
        if more && self.before.is_some() && self.after.is_none() {
            rest = rest.split_off(rest.len() - self.limit);
        }
        rest.truncate(self.limit);
        (rest, more)
    }
}

pub(super) fn list(path: &str, data: Vec<Value>, more: bool, total: usize) -> Reply {
    let body = json!({"resource": "list", "data": data, "has_more": more, "total_count": total, "url": path});
    Reply::json(StatusCode::OK, &body)
}

/// Writes objects as the switches say.
pub(super) struct Shape<'a> {
    pub(super) behaviour: &'a RicloudBehaviour,
    pub(super) state: &'a State,
}

impl Shape<'_> {
    pub(super) fn config(&self, config: &WebhookConfig, with_secret: bool) -> Value {
        let organisation = self
            .state
            .organisation(&config.organisation)
            .map(|organisation| organisation.id);
        let mut body = json!({
            "id": CONFIG.show(self.behaviour.ids, config.id),
            "resource": "webhook_config",
            "organisation": organisation.map(|id| ORGANISATION.show(self.behaviour.ids, id)),
            "url": config.url,
            "state": config.state,
            "date_created": config.date_created,
        });
        if with_secret && let Some(body) = body.as_object_mut() {
            body.insert("secret".to_owned(), json!(config.secret));
        }
        body
    }

    pub(super) fn read(&self, config: &WebhookConfig) -> Value {
        self.config(config, self.behaviour.secret_in_reads)
    }

    pub(super) fn reference(&self, id: Option<u64>) -> Value {
        match (id, self.behaviour.references) {
            (None, _) => Value::Null,
            (Some(id), References::Id) => CONFIG.show(self.behaviour.ids, id),
            (Some(id), References::Object) => self
                .state
                .find(id)
                .map_or(Value::Null, |config| self.read(config)),
        }
    }

    pub(super) fn key(&self, key: &Key) -> Value {
        let organisation = self
            .state
            .organisation_at(key.organisation)
            .map(|organisation| organisation.id);
        json!({
            "id": KEY.show(self.behaviour.ids, key.id),
            "resource": "key",
            "organisation": organisation.map(|id| ORGANISATION.show(self.behaviour.ids, id)),
            "name": key.name,
            "webhook_config": self.reference(key.webhook_config),
            "date_created": key.date_created,
        })
    }

    pub(super) fn organisation(&self, organisation: &Organisation) -> Value {
        json!({
            "id": ORGANISATION.show(self.behaviour.ids, organisation.id),
            "resource": "organisation",
            "name": organisation.name,
            "webhook_config_default": self.reference(organisation.webhook_config_default),
            "date_created": organisation.date_created,
        })
    }

    pub(super) fn task(&self, task: &Task) -> Value {
        let organisation = self
            .state
            .organisation_at(task.organisation)
            .map(|organisation| organisation.id);
        let mut body = json!({
            "id": TASK.show(self.behaviour.ids, task.id),
            "resource": "task",
            "organisation": organisation.map(|id| ORGANISATION.show(self.behaviour.ids, id)),
            "key": KEY.show(self.behaviour.ids, task.key),
            "type": "webhook_config.test",
            "target": CONFIG.show(self.behaviour.ids, task.target),
            "state": task.state,
            "results": [],
            "date_created": task.date_created,
        });
        let optional = [
            ("error", task.error.map(|code| json!(code))),
            ("date_started", task.date_started.as_ref().map(|date| json!(date))),
            (
                "date_completed",
                task.date_completed.as_ref().map(|date| json!(date)),
            ),
        ];
        if let Some(body) = body.as_object_mut() {
            let present = optional
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            body.extend(present);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(limit: usize, after: Option<u64>, before: Option<u64>, newest_first: bool) -> (Vec<u64>, bool) {
        let ids: Vec<u64> = if newest_first {
            (1..=5).rev().collect()
        } else {
            (1..=5).collect()
        };
        let all = ids.iter().map(|id| (*id, id)).collect();
        let (page, more) = Page { limit, after, before }.cut(all, newest_first);
        (page.into_iter().copied().collect(), more)
    }

    #[test]
    fn pages_follow_the_order_of_the_list() {
        assert_eq!(cut(2, None, None, true), (vec![5, 4], true));
        assert_eq!(cut(2, Some(4), None, true), (vec![3, 2], true));
        assert_eq!(cut(2, Some(2), None, true), (vec![1], false));
        assert_eq!(cut(2, None, Some(2), true), (vec![4, 3], true));
        assert_eq!(cut(2, None, Some(4), true), (vec![5], false));
        assert_eq!(cut(2, None, None, false), (vec![1, 2], true));
        assert_eq!(cut(2, Some(2), None, false), (vec![3, 4], true));
        assert_eq!(cut(9, Some(1), Some(4), false), (vec![2, 3], false));
    }
}
