//! A queue of keys with delays: each key is there once, is never out twice at the same time, and rests a little
//! between two runs, so that a storm of events costs one run and not one each.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::poll_fn,
    hash::Hash,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::time::{DelayQueue, delay_queue};

#[cfg(test)]
const REST: Duration = Duration::from_millis(200);

/// The queue.
pub(crate) struct Queue<K> {
    rest: Duration,
    delays: DelayQueue<K>,
    waiting: HashMap<K, (delay_queue::Key, Instant)>,
    /// Keys that are out, and when they are asked for again.
    running: HashMap<K, Option<Instant>>,
    /// Until when a key rests.
    resting: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue whose keys rest this long between two runs.
    pub(crate) fn new(rest: Duration) -> Self {
        Self {
            rest,
            delays: DelayQueue::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            resting: HashMap::new(),
        }
    }

    /// Asks for a key at a time, or earlier where it was asked for earlier already.
    pub(crate) fn push(&mut self, key: K, at: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        let at = self.resting.get(&key).map_or(at, |until| at.max(*until));
        match self.waiting.entry(key) {
            Entry::Occupied(mut entry) => {
                let (timer, due) = entry.get_mut();
                if at < *due {
                    *due = at;
                    self.delays.reset_at(timer, at);
                }
            }
            Entry::Vacant(entry) => {
                let timer = self.delays.insert_at(entry.key().clone(), at);
                entry.insert((timer, at));
            }
        }
    }

    /// Whether a key is out.
    pub(crate) fn is_out(&self, key: &K) -> bool {
        self.running.contains_key(key)
    }

    /// Waits for the next key that is due and takes it out. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> K {
        let key = poll_fn(|cx| match self.delays.poll_expired(cx) {
            Poll::Ready(Some(expired)) => Poll::Ready(expired.into_inner()),
            // Empty: only a push, for which this future is dropped, changes that.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        })
        .await;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), None);
        key
    }

    /// A key that was out is back; it wants to run again at `again`. Returns whether it is in the queue.
    pub(crate) fn done(&mut self, key: K, again: Option<Instant>) -> bool {
        let asked = self.running.remove(&key).flatten();
        let Some(at) = asked.into_iter().chain(again).min() else {
            self.resting.remove(&key);
            return false;
        };
        self.resting.insert(key.clone(), Instant::now() + self.rest);
        self.push(key, at);
        true
    }
}

/// Carries out `work` for each key that is woken or due, never twice at once for one key, until `stopping` turns
/// true; then waits for what is in flight. `work` says when it wants to run again; `tell` is called when a key is
/// woken while it is out.
pub(crate) async fn run<K, F, W>(
    mut queue: Queue<K>,
    mut wakes: mpsc::UnboundedReceiver<K>,
    mut stopping: watch::Receiver<bool>,
    tell: impl Fn(&K),
    work: F,
) where
    K: Clone + Eq + Hash + Send + 'static,
    F: Fn(K) -> W,
    W: Future<Output = Option<Duration>> + Send + 'static,
{
    let mut running: JoinSet<(K, Option<Duration>)> = JoinSet::new();
    let start = |running: &mut JoinSet<(K, Option<Duration>)>, key: K| {
        let work = work(key.clone());
        running.spawn(async move { (key, work.await) });
    };
    loop {
        // In an order that is always the same, so that a simulation of the same seed goes the same way again. Nothing
        // starves: none of the first three is ready for ever, and what is due only starts a task.
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(ended) = running.join_next() => match ended {
                Ok((key, again)) => {
                    queue.done(key, again.map(|after| Instant::now() + after));
                }
                // `work` catches panics; a cancelled task exists only when the process ends.
                Err(error) => tracing::error!(%error, "a pass ended abnormally"),
            },
            Some(key) = wakes.recv() => {
                if queue.is_out(&key) {
                    tell(&key);
                }
                queue.push(key, Instant::now());
            }
            key = queue.next() => start(&mut running, key),
        }
    }
    while running.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn nothing_within(queue: &mut Queue<&'static str>, time: Duration) -> bool {
        timeout(time, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_wish_wins_and_a_key_is_there_once() {
        let mut queue = Queue::new(REST);
        let start = Instant::now();
        queue.push("a", start + 10 * SECOND);
        queue.push("a", start + SECOND);
        queue.push("a", start + 20 * SECOND);
        queue.push("b", start + 2 * SECOND);
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 1);
        assert_eq!(queue.next().await, "b");
        assert!(nothing_within(&mut queue, 60 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_out_twice_and_wishes_meanwhile_are_one() {
        let mut queue = Queue::new(REST);
        queue.push("a", Instant::now());
        assert_eq!(queue.next().await, "a");
        for _ in 0..100 {
            queue.push("a", Instant::now());
        }
        assert!(nothing_within(&mut queue, 60 * SECOND).await);
        assert!(queue.done("a", None));
        let back = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert!(back.elapsed() >= REST, "it rests between two runs");
        assert!(!queue.done("a", None));
        assert!(nothing_within(&mut queue, 60 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_wishes_for_a_resting_key_is_one_run_each_rest() {
        let mut queue = Queue::new(REST);
        let mut runs = 0_u32;
        let start = Instant::now();
        queue.push("a", start);
        while start.elapsed() < SECOND {
            if timeout(Duration::from_millis(1), queue.next()).await.is_ok() {
                runs += 1;
                queue.done("a", Some(start + 600 * SECOND));
            }
            queue.push("a", Instant::now());
        }
        assert!((4..=6).contains(&runs), "{runs}");
    }
}
