//! What a process remembers of each object between passes. All of it may be lost at any time: it only saves calls
//! and keeps order, it never decides whether something is registered twice or forgotten.

use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::{sync::Notify, time::Instant};

use super::prober::ProbeMemory;
use crate::{
    api::Webhook,
    domain::{breaker::Counted, patience::Patience, remote::TaskId, rotation::Proof},
};

/// A test that runs at the upstream.
#[derive(Clone, Debug, Default)]
pub struct TestMemory {
    /// The explicit test that runs, and since when.
    pub task: Option<(TaskId, Instant)>,
    /// The request that it answers.
    pub answers: Option<String>,
    /// Tests in a row that did not end in time.
    pub timeouts: u32,
    /// After one that did not end in time: no other test before this.
    pub not_before: Option<Instant>,
    /// Why the last attempt to start one failed.
    pub trouble: Option<String>,
    /// How often this test was asked about.
    pub polls: u32,
    /// When something is due about it.
    pub next: Option<Instant>,
    /// The verdict that the upstream shows may be of an older URL.
    pub doubtful: bool,
}

/// What is due about the rotation of a signing secret.
#[derive(Clone, Debug, Default)]
pub struct RotationMemory {
    /// What the last look at the Secret depended on.
    pub of: String,
    /// When the next one is due, if nothing of that changes.
    pub next: Option<Timestamp>,
    /// When the upstream was last seen to be as wanted.
    pub looked: Option<Timestamp>,
    /// Probes signed with the next secret.
    pub probe: ProbeMemory,
    /// What they have shown so far, and of which secret (as keyed hash).
    pub proof: Option<(String, Proof)>,
    /// When the last one was sent.
    pub launched: Option<Timestamp>,
    /// One of them was sent, and how it ended is not noted yet.
    pub sent: bool,
}

/// One object's memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The object as our last write left it; newer than the cache until the watch has delivered it.
    latest: Option<Arc<Webhook>>,
    /// When this process first saw it.
    pub first_seen: Instant,
    /// The same by the wall clock.
    pub first_seen_at: Timestamp,
    /// Failed attempts in a row.
    pub failures: u32,
    /// No attempt before this (`None`: none at all), as long as the inputs are these.
    pub hold: Option<(Option<Instant>, String)>,
    /// The hash of what is wanted, and the inputs it was made of.
    pub wanted: Option<(String, String)>,
    /// When it was read back last (or first seen).
    pub read_back: Timestamp,
    /// When this process last found everything right.
    pub good: Option<Timestamp>,
    /// When this process last wrote at the upstream for it.
    pub wrote: Option<Instant>,
    /// Until when an update of unknown outcome may still take effect, over a newer one: then it is looked at once more.
    pub in_doubt: Option<Instant>,
    /// Whether this process has looked for what an earlier one may have left in flight.
    pub inherited: bool,
    /// The doubt is about a write of this process, and not about one that the process before it may have begun.
    pub doubts_itself: bool,
    /// When a list first lacked every known id.
    pub absent_since: Option<Instant>,
    /// The upstream was asked to switch it on again and did not.
    pub cannot_reactivate: bool,
    /// The registration was removed by ourselves, or switched off where it cannot be removed, to be made anew.
    pub removed: bool,
    /// The upstream's test.
    pub test: TestMemory,
    /// The operator's own test of the receiver.
    pub probe: ProbeMemory,
    /// When the Secret for a secret made by the upstream was written; the watch may not have delivered it yet.
    pub published: Option<Instant>,
    /// The rotation of its signing secret.
    pub rotation: RotationMemory,
    /// One more change is to be made at the upstream, in a pass of its own.
    pub unfinished: bool,
    /// How often its removal has failed, and how much of the deadline that took.
    pub farewell: Option<Patience>,
    /// Until when a call that switched it off in vain, as far as is known, may still take effect.
    pub late_switch: Option<Instant>,
    /// It is switched off, and is let go once no such call can come any more.
    pub is_off: bool,
    /// There was no account to remove it with: none could be made, or the upstream refuses its credentials.
    pub no_account: bool,
    /// Told when something happens to the object while a pass of it is under way.
    pub woken: Arc<Notify>,
    /// Removals that were counted for it and are not known to be made, and until when they may be made.
    pub counted: Option<(Counted, Instant)>,
}

impl Memory {
    fn new(now: Timestamp) -> Self {
        Self {
            latest: None,
            first_seen: Instant::now(),
            first_seen_at: now,
            failures: 0,
            hold: None,
            wanted: None,
            read_back: now,
            good: None,
            wrote: None,
            in_doubt: None,
            inherited: false,
            doubts_itself: false,
            absent_since: None,
            cannot_reactivate: false,
            removed: false,
            test: TestMemory::default(),
            probe: ProbeMemory::default(),
            published: None,
            rotation: RotationMemory::default(),
            unfinished: false,
            farewell: None,
            late_switch: None,
            is_off: false,
            no_account: false,
            woken: Arc::default(),
            counted: None,
        }
    }
}

/// Versions of one object are whole numbers that grow; anything else is not compared.
fn version(webhook: &Webhook) -> Option<u64> {
    webhook.metadata.resource_version.as_ref()?.parse().ok()
}

fn is_ahead(ours: &Webhook, cached: &Webhook) -> bool {
    match version(ours).cmp(&version(cached)) {
        Ordering::Greater => true,
        Ordering::Equal => ours.finalizers() != cached.finalizers(),
        Ordering::Less => false,
    }
}

/// Handle of one object's memory.
#[derive(Clone, Debug)]
pub struct MemoryCell(Arc<Mutex<Memory>>);

impl MemoryCell {
    /// Looks at it or changes it. Never held across an await.
    pub fn with<R>(&self, f: impl FnOnce(&mut Memory) -> R) -> R {
        f(&mut lock(&self.0))
    }

    /// The newer of the cached object and the one that our last write returned, which is kept no longer than needed.
    /// Ours also at the same version with other finalizers: the write that takes the last finalizer off returns the
    /// object without it, but at the version at which it was deleted.
    #[must_use]
    pub fn newest(&self, cached: Arc<Webhook>) -> Arc<Webhook> {
        let mut memory = lock(&self.0);
        match memory.latest.take() {
            Some(ours) if ours.uid() == cached.uid() && is_ahead(&ours, &cached) => {
                memory.latest = Some(Arc::clone(&ours));
                ours
            }
            _ => cached,
        }
    }

    /// Remembers the object as a write returned it.
    pub fn wrote(&self, webhook: &Arc<Webhook>) {
        lock(&self.0).latest = Some(Arc::clone(webhook));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memories of all objects, by uid.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, MemoryCell>>);

impl Memories {
    /// The memory of an object; an empty one if it has none.
    #[must_use]
    pub fn of(&self, uid: &str, now: Timestamp) -> MemoryCell {
        lock(&self.0)
            .entry(uid.to_owned())
            .or_insert_with(|| MemoryCell(Arc::new(Mutex::new(Memory::new(now)))))
            .clone()
    }

    /// The memory of an object, if it has one.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<MemoryCell> {
        lock(&self.0).get(uid).cloned()
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;
    use crate::{api::FINALIZER, yaml};

    fn webhook(version: &str, finalizer: Option<&str>) -> Arc<Webhook> {
        let mut webhook: Webhook = yaml::parse(
            "{apiVersion: webhook-operator.dev/v1alpha1, kind: Webhook, metadata: {name: a},
              spec: {providerRef: {name: p}, url: 'https://hooks.example.com/'}}",
        )
        .unwrap();
        webhook.metadata = ObjectMeta {
            name: Some("a".to_owned()),
            uid: Some("uid-a".to_owned()),
            resource_version: Some(version.to_owned()),
            finalizers: finalizer.map(|finalizer| vec![finalizer.to_owned()]),
            ..ObjectMeta::default()
        };
        Arc::new(webhook)
    }

    #[test]
    fn our_own_write_counts_until_the_cache_has_something_newer() {
        let memory = Memories::default().of("uid-a", Timestamp::UNIX_EPOCH);
        memory.wrote(&webhook("8", None));
        // The watch has not delivered the end of the object yet, and its last event comes once more.
        assert!(
            memory
                .newest(webhook("8", Some(FINALIZER)))
                .finalizers()
                .is_empty()
        );
        assert!(
            memory
                .newest(webhook("7", Some(FINALIZER)))
                .finalizers()
                .is_empty()
        );
        assert!(memory.with(|memory| memory.latest.is_some()));
        // Somebody put the finalizer back: there is something to do again.
        assert!(
            !memory
                .newest(webhook("9", Some(FINALIZER)))
                .finalizers()
                .is_empty()
        );
        assert!(
            !memory
                .newest(webhook("8", Some(FINALIZER)))
                .finalizers()
                .is_empty()
        );
    }

    #[test]
    fn what_the_cache_has_as_well_is_not_kept_twice() {
        let memory = Memories::default().of("uid-a", Timestamp::UNIX_EPOCH);
        memory.wrote(&webhook("8", Some(FINALIZER)));
        let cached = webhook("8", Some(FINALIZER));
        assert!(Arc::ptr_eq(&memory.newest(Arc::clone(&cached)), &cached));
        assert!(memory.with(|memory| memory.latest.is_none()));
    }
}
