//! Whether an update may still come late, over a newer one: this process knows of its own that have no answer, and
//! suspects those of the processes before it. When nothing can come any more, there is one more look.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    act::{MARK_GRACE, Pass},
    memory::{Memory, MemoryCell},
};
use crate::{
    api::Webhook,
    clock::elapsed,
    domain::{
        capabilities::{Capabilities, Identity},
        status::is_settled,
    },
    provider::{Account, Effect, Provider, ProviderError},
};

/// A process that works sees a new object sooner than this. Kubernetes tells times in whole seconds.
const SEEN_AT_ONCE: Duration = Duration::from_secs(3);

impl Pass {
    /// A write that sets what is there has failed. Where it may have been sent it may also come late, over one that
    /// follows it, so there has to be a look after its last moment.
    pub(super) fn doubt(&self, error: &ProviderError) {
        if error.effect == Effect::Unknown {
            let until = Instant::now() + self.account.timeout + MARK_GRACE;
            self.memory.with(|memory| {
                memory.in_doubt = Some(until);
                memory.doubts_itself = true;
            });
        }
    }

    /// The process before this one may have died with a write in flight, if it left something undone where something
    /// was written before; and so may the one before that, if the last write is so young that an older one may still
    /// come over it. A create needs no such doubt where its id is assigned: its mark is waited for. And before its spec
    /// was changed an object has only one content to be written.
    pub(super) fn inherit_doubt(&self, carried_out: bool) {
        let by_target = self.upstream.capabilities().identity == Identity::ByTarget;
        let status = self.webhook.status.as_ref();
        let written = status.is_some_and(|status| status.applied_hash.is_some())
            || (by_target && self.recorded.trusted_id().is_some());
        let longest = self.account.timeout + MARK_GRACE;
        let changed = self
            .webhook
            .metadata
            .generation
            .is_some_and(|generation| generation > 1);
        let last_write = status
            .and_then(|status| status.last_sync_time.as_ref())
            .map(|time| elapsed(time.0, self.ctx.clock.now()));
        self.memory.with(|memory| {
            if memory.inherited {
                return;
            }
            memory.inherited = true;
            memory.in_doubt = match last_write {
                _ if !written => None,
                _ if !carried_out => Some(memory.first_seen + longest),
                Some(age) if changed && age < longest => Some(Instant::now() + (longest - age)),
                _ => None,
            };
        });
    }
}

/// Until when a write of the process before this one may still take effect: it may have died with one in flight where
/// its status does not say that all was done. Where the upstream makes the id, the mark of a create is waited for instead.
pub(super) fn inherited(
    webhook: &Webhook,
    memory: &MemoryCell,
    account: &Account,
    capabilities: &Capabilities,
) -> Option<Instant> {
    // Being deleted is a generation of its own.
    let generation = webhook.metadata.generation.unwrap_or_default();
    let settled = webhook.status.as_ref().is_some_and(|status| {
        is_settled(status, generation) || is_settled(status, generation.saturating_sub(1))
    });
    if settled || capabilities.identity != Identity::ByTarget {
        return None;
    }
    let born = webhook.metadata.creation_timestamp.as_ref()?.0;
    memory.with(|memory| of_a_dead_process(born, memory, account))
}

/// Until when a call may still take effect that a process before this one has sent, if it can have known of what has been
/// there since then.
fn of_a_dead_process(since: Timestamp, memory: &Memory, account: &Account) -> Option<Instant> {
    let older = elapsed(since, memory.first_seen_at) > SEEN_AT_ONCE;
    older.then(|| memory.first_seen + account.timeout + MARK_GRACE)
}

/// Until when a call may still take effect that switches off what a deleted Webhook leaves: one of this process that had
/// no answer, or one that the process before it may have died with, where the deletion is older than this process.
pub(super) fn late_switch(webhook: &Webhook, memory: &MemoryCell, account: &Account) -> Option<Instant> {
    let deleted = webhook.metadata.deletion_timestamp.as_ref();
    memory.with(|memory| {
        let inherited = deleted.and_then(|deleted| of_a_dead_process(deleted.0, memory, account));
        memory.late_switch.max(inherited)
    })
}

/// Notes until when a call that had no answer may still come.
pub(super) fn note_late<T>(
    memory: &MemoryCell,
    account: &Account,
    called: Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    if called
        .as_ref()
        .is_err_and(|error| error.effect == Effect::Unknown)
    {
        let until = Instant::now() + account.timeout + MARK_GRACE;
        memory.with(|memory| memory.late_switch = Some(until));
    }
    called
}
