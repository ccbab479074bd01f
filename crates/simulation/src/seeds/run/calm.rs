//! When nothing goes wrong any more: waits until all is well, and sees that it stays so.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Run, TICK};
use crate::{
    seeds::judge,
    wire::{CallKind, Made},
};

/// How long it may take until all is well, once nothing goes wrong any more: the longest pause after failures, twice,
/// and the longest wait for a mark or a doubt, with room for the accounts that allow few calls.
const LONGEST: Duration = Duration::from_secs(1800);

/// The same where something cannot be read: it is written again once an hour, which alone shows that an account works
/// to whoever has missed the news of the call before.
const LONGEST_UNREAD: Duration = Duration::from_secs(3600 + 1800);

/// A bit more than the longest interval of a Webhook here: one read-back at least of each falls into it.
const ANOTHER_PASS: Duration = Duration::from_secs(3 * 60 + 20);

/// More calls than any plan needs: there is no end to them.
const ENOUGH: usize = 200_000;

impl Run<'_> {
    /// Whether something is there that cannot be read back, or that the operator believes it cannot: an answer that
    /// makes no sense, to a call that no document shows, is taken for one of something else, for an hour.
    fn has_unread(&self) -> bool {
        let unread = |provider: &Value| {
            let findings = provider["status"]["findings"].as_array();
            let mut findings = findings.into_iter().flatten();
            findings.any(|it| it["subject"] == "Read" && it["result"] == "Missing")
        };
        let mut places = self.plan.places.iter();
        places.any(|(place, _)| !self.plan.form(place.provider).reads)
            || self.world.api().list("webhookproviders").iter().any(unread)
    }

    /// Waits until all is well. What is still wrong when time is over.
    pub(super) async fn settle(&mut self, from: Instant) -> Vec<String> {
        let longest = if self.has_unread() {
            LONGEST_UNREAD
        } else {
            LONGEST
        };
        loop {
            let mut wrong = judge::judge(self.plan, &self.world, &self.lives);
            if !self.to_apply.is_empty() || !self.later.is_empty() {
                wrong.push("users are not done".to_owned());
            }
            if self.world.wire().count() > ENOUGH {
                wrong.push("it never comes to rest".to_owned());
                return wrong;
            }
            if wrong.is_empty() || from.elapsed() >= longest {
                return wrong;
            }
            self.until(Instant::now() + TICK).await;
        }
    }

    /// Sees that it stays as it is: first what was in doubt is looked at once more, and after that nothing is written by
    /// any further pass, nor by a new process.
    pub(super) async fn stays(&mut self) -> Vec<String> {
        self.until(Instant::now() + ANOTHER_PASS).await;
        let wrong = self.settle(Instant::now()).await;
        if !wrong.is_empty() {
            return wrong
                .into_iter()
                .map(|what| format!("some time later: {what}"))
                .collect();
        }
        for what in ["a further pass", "a restart"] {
            let from = self.world.wire().count();
            let version = self.world.api().version();
            let unread = self.has_unread();
            self.trace.note(self.began, from, what.to_owned());
            if what == "a restart" {
                for slot in &mut self.slots {
                    slot.operator = None;
                }
            }
            self.until(Instant::now() + ANOTHER_PASS).await;
            let made = self.world.wire().made_since(from);
            let mut wrong: Vec<String> = made
                .iter()
                .filter(|made| self.is_idle_write(made, unread))
                .map(|made| format!("{what} wrote: {}", made.call.text))
                .collect();
            wrong.extend(
                self.providers_changed(version)
                    .map(|it| format!("{what} changed: {it}")),
            );
            if !wrong.is_empty() {
                return wrong;
            }
        }
        let wrong = judge::judge(self.plan, &self.world, &self.lives);
        wrong
            .into_iter()
            .map(|what| format!("much later: {what}"))
            .collect()
    }

    /// Whether it is a write that nothing was the reason for.
    fn is_idle_write(&self, made: &Made, unread: bool) -> bool {
        let election = made.call.text.contains(" leases/");
        // What cannot be read is written again now and then.
        let unread = unread && made.call.text.contains("conpeek.example");
        // What is learned about an upstream is forgotten after an hour, in the status as well: see below.
        let provider =
            made.call.text.starts_with("patch webhookproviders/") && made.call.text.ends_with("/status");
        made.call.kind == CallKind::Write && !election && !unread && !provider
    }

    /// Providers that were changed since a version of the cluster, in more than what was learned about the upstream.
    fn providers_changed(&self, version: u64) -> impl Iterator<Item = String> {
        let known = |object: &Value| {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = Value::Null;
            object["status"]["findings"] = Value::Null;
            object
        };
        let now = self.world.api().list("webhookproviders");
        let changes = self.world.api().changes_since(version);
        changes
            .into_iter()
            .filter(|it| it.id.plural == "webhookproviders")
            .filter_map(move |change| {
                // It is as it was if all that it has been since is as it is now.
                let same = now.iter().any(|it| known(it) == known(&change.object));
                (!same).then(|| format!("{} to {}", change.id, change.object["status"]))
            })
    }
}
