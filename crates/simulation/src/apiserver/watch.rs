//! Watches: every change after a version, as it becomes visible, until the time that was asked for is over.

use std::{convert::Infallible, fmt::Write, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    Answer, ApiServer, json_answer,
    request::Watching,
    store::{Change, Refusal},
};
use crate::wire::Line;

impl Refusal {
    /// Nobody knows any more what happened since then.
    pub(super) fn expired(version: u64) -> Self {
        Self {
            code: 410,
            reason: "Expired",
            about: format!("version {version} is too old"),
        }
    }
}

/// A watch under way.
struct Running {
    server: ApiServer,
    watching: Watching,
    line: Line,
    since: u64,
    until: Instant,
    ended: bool,
    /// How often watches had been muted when this one began.
    mutes: u64,
}

/// What a look at the changes has found.
enum Look {
    Events(String),
    /// Nothing yet; not before this time, unless something changes.
    Wait(Option<Instant>),
    /// The last piece.
    End(String),
}

impl ApiServer {
    pub(super) fn watching(&self, watching: Watching, line: Line) -> Answer {
        if watching.since < self.lock().compacted() {
            return json_answer(&Refusal::expired(watching.since).body());
        }
        let running = Running {
            server: self.clone(),
            mutes: self.lock().mutes(),
            since: watching.since,
            until: Instant::now() + Duration::from_secs(watching.timeout_seconds),
            watching,
            line,
            ended: false,
        };
        let pieces = stream::unfold(running, |mut running| async move {
            let piece = running.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(piece))), running))
        });
        Response::builder()
            .header("content-type", "application/json")
            .body(StreamBody::new(pieces).boxed_unsync())
            .unwrap()
    }
}

impl Running {
    async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        loop {
            if self.mutes < self.server.lock().mutes() {
                return std::future::pending().await;
            }
            // From here on no change is missed.
            let changed = self.server.changed.clone();
            let changed = changed.notified();
            let wake = match self.look() {
                Look::Events(events) => return Some(events),
                Look::End(last) => {
                    self.ended = true;
                    return (!last.is_empty()).then_some(last);
                }
                Look::Wait(until) => until.map_or(self.until, |until| until.min(self.until)),
            };
            tokio::select! {
                biased;
                () = self.line.cut() => std::future::pending().await,
                () = changed => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn look(&mut self) -> Look {
        let now = Instant::now();
        let mut state = self.server.lock();
        if self.since < state.compacted() {
            let (_, status) = Refusal::expired(self.since).body();
            return Look::End(line("ERROR", &status));
        }
        let shown = state.shown();
        let lag = self.line.lag();
        let mut blurred = self.server.blurred.lock().unwrap();
        let selection = &self.watching.selection;
        let process = self.line.process();
        let mut events = String::new();
        let mut next = None;
        for change in state.changes_since(self.since) {
            if change.version > shown {
                next = state.frozen_until();
                break;
            }
            if change.at + lag > now {
                next = Some(change.at + lag);
                break;
            }
            self.since = change.version;
            if !selection.holds(&change.id) {
                continue;
            }
            let (now, later) = blurred.meet(process, selection, change);
            if now {
                events += &self.event(change);
            }
            if let Some(later) = later {
                self.line.expect_until(later);
            }
        }
        let ends = now >= self.until;
        for change in blurred.due(process, selection, (!ends).then_some(now)) {
            // Another watch may have been the last to see this object, or a list.
            if state.is_newest(&change) {
                events += &self.event(&change);
            }
        }
        if !events.is_empty() {
            return Look::Events(events);
        }
        if ends {
            return Look::End(if self.watching.bookmarks {
                self.bookmark()
            } else {
                String::new()
            });
        }
        let kept = blurred.next(process, selection);
        Look::Wait([next, kept].into_iter().flatten().min())
    }

    fn event(&self, change: &Change) -> String {
        line(
            change.kind.as_str(),
            &self.watching.selection.show(&change.object),
        )
    }

    /// How far the watch has come, so that the next one need not begin at its last event.
    fn bookmark(&self) -> String {
        let selection = &self.watching.selection;
        let (kind, version) = match selection.plural.as_str() {
            "webhooks" => ("Webhook", "webhook-operator.dev/v1alpha1"),
            "webhookproviders" => ("WebhookProvider", "webhook-operator.dev/v1alpha1"),
            "clusterwebhookproviders" => ("ClusterWebhookProvider", "webhook-operator.dev/v1alpha1"),
            "secrets" => ("Secret", "v1"),
            _ => ("Namespace", "v1"),
        };
        let metadata = json!({ "resourceVersion": self.since.to_string() });
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> String {
    let mut text = String::new();
    writeln!(text, "{}", json!({"type": kind, "object": object})).unwrap();
    text
}
