//! The `webhook_config.test` of ricloud: a task in the background, a signed delivery, and the verdict.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use url::Url;

use super::{ConfigState, ImplicitTest, Ricloud, TaskCourse, Verdict, WebhookConfig, store};
use crate::delivery::Delivered;
use crate::{Source, lock, sign};

/// An `event` object; its id is also the last segment of the URL it is sent to.
pub(super) struct Event {
    id: String,
    body: Value,
}

pub(super) fn event(source: &Source, kind: &str, action: &str, data: Value) -> Event {
    let id = source.uuid().to_string();
    let body = json!({
        "id": id,
        "resource": "event",
        "type": kind,
        "action": action,
        "data": data,
        "state": "pending",
        "retries": 0,
        "date_created": source.iso_now_micros(),
        "date_delivered": null,
    });
    Event { id, body }
}

/// `url` with the event id as a further path segment, before any query.
fn event_url(url: &str, id: &str, double_slash: bool) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return url.to_owned();
    };
    if let Ok(mut segments) = parsed.path_segments_mut() {
        if !double_slash {
            segments.pop_if_empty();
        }
        segments.push(id);
    }
    parsed.into()
}

/// A test under way.
pub(super) struct Running {
    /// As it was when it started.
    pub(super) task: store::Task,
    pub(super) done: JoinHandle<Option<()>>,
}

impl Ricloud {
    /// Starts the test that follows create and update, unless it is to be lost.
    pub(super) fn start_implicit_test(self: &Arc<Self>, key: &store::Key, config: u64) -> Option<Running> {
        let lost = lock(&self.behaviour).implicit_test == ImplicitTest::Lost;
        if lost {
            None
        } else {
            Some(self.start_test(key, config))
        }
    }

    pub(super) fn start_test(self: &Arc<Self>, key: &store::Key, config: u64) -> Running {
        let task = lock(&self.state).add_task(key.organisation, key.id, config);
        let done = self.stop.spawn(Arc::clone(self).run_test(task.id, config));
        Running { task, done }
    }

    async fn run_test(self: Arc<Self>, task: u64, id: u64) {
        let behaviour = lock(&self.behaviour).clone();
        if behaviour.tasks == TaskCourse::Vanishes {
            lock(&self.state).remove_task(task);
        }
        let half = Duration::from_millis(behaviour.test_millis / 2);
        tokio::time::sleep(half).await;
        if let Some(task) = lock(&self.state).task_mut(task) {
            task.date_started = Some(self.source.iso_now_micros());
            task.state = if behaviour.tasks == TaskCourse::Suspended {
                "suspended"
            } else {
                "processing"
            };
        }
        if matches!(behaviour.tasks, TaskCourse::Hangs | TaskCourse::Suspended) {
            return;
        }
        tokio::time::sleep(half).await;
        let Some(config) = self.config(id) else {
            return self.finish(task, Some("webhook_config_gone"));
        };
        let passed = match behaviour.verdict {
            Verdict::AlwaysValid => true,
            Verdict::AlwaysInvalid => false,
            Verdict::Receiver => {
                let data = json!({
                    "id": store::CONFIG.show(behaviour.ids, id),
                    "resource": "webhook_config",
                    "url": config.url,
                    "state": config.state,
                    "date_created": config.date_created,
                });
                self.send(&config, &event(&self.source, "webhook_config", "test", data))
                    .await
                    .accepted()
            }
        };
        self.judge(&config, passed);
        self.finish(task, (!passed).then_some("webhook_config_test_failed"));
    }

    /// Sets the state, unless the config has changed or been retired in the meantime.
    fn judge(&self, tested: &WebhookConfig, passed: bool) {
        let mut state = lock(&self.state);
        let config = state
            .find_mut(tested.id)
            .filter(|config| config.revision == tested.revision && config.state != ConfigState::Deactivated);
        if let Some(config) = config {
            config.state = if passed {
                ConfigState::Valid
            } else {
                ConfigState::Invalid
            };
        }
    }

    fn finish(&self, task: u64, error: Option<&'static str>) {
        if let Some(task) = lock(&self.state).task_mut(task) {
            task.state = if error.is_none() { "succeeded" } else { "failed" };
            task.error = error;
            task.date_completed = Some(self.source.iso_now_micros());
        }
    }

    /// One signed delivery, without retries.
    pub(super) async fn send(&self, config: &WebhookConfig, event: &Event) -> Delivered {
        let double_slash = lock(&self.behaviour).double_slash;
        let url = event_url(&config.url, &event.id, double_slash);
        let body = event.body.to_string().into_bytes();
        let seconds = i64::try_from(self.source.unix_millis() / 1000).unwrap_or(i64::MAX);
        let signature = sign::ricloud_signature(config.secret.reveal(), seconds, &body);
        let headers = [
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Ricloud-Signature".to_owned(), signature),
        ];
        self.courier.post(&url, &headers, body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_id_becomes_the_last_segment() {
        for (url, double_slash, expected) in [
            ("http://h.test/webhooks", false, "http://h.test/webhooks/e1"),
            ("http://h.test/webhooks/", false, "http://h.test/webhooks/e1"),
            ("http://h.test/webhooks/", true, "http://h.test/webhooks//e1"),
            ("http://h.test", false, "http://h.test/e1"),
            ("http://h.test/a?b=c", false, "http://h.test/a/e1?b=c"),
        ] {
            assert_eq!(event_url(url, "e1", double_slash), expected);
        }
    }
}
