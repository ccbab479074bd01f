//! `cargo xtask bench --probes N`: thousands of receivers tested every minute. Are tests on schedule, what do they
//! cost, and do they delay the reconciles of other objects?
//!
//! How late a test is, is counted from its own phase of the wall clock (which the operator's schedule gives) to its
//! arrival at the receiver, so it holds the connection too. Of the two sets of other objects, the first is applied
//! with nothing else there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;
use webhook_operator::domain::testing::regular_test;

use super::{
    Args, PAUSE, SETTLE, STOP_LIMIT, build,
    figures::{number, round, spread},
    load::{Load, Pace, Set, prepare},
    receiver::{Arrival, Receiver},
    stand::{Doubles, Operator},
};
use crate::{programs::Programs, progress::Failure, stand::Stand};

/// `test.interval`.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long the receiver takes for an answer.
const RECEIVER_LATENCY: Duration = Duration::from_millis(200);

/// A test that comes later than this after its phase has missed it.
const MISSED: Duration = Duration::from_secs(30);

/// Measures, and gives the line to print.
pub(super) async fn measure(args: &Args, programs: &Programs, count: u32) -> Result<Value, Failure> {
    let stand = Stand::start(None).await?;
    let doubles = Doubles::start(programs, stand.folder(), Duration::from_millis(args.latency)).await?;
    let result = Box::pin(measured(args, programs, &stand, &doubles, count)).await;
    doubles.stop().await;
    stand.stop().await?;
    result
}

async fn measured(
    args: &Args,
    programs: &Programs,
    stand: &Stand,
    doubles: &Doubles,
    count: u32,
) -> Result<Value, Failure> {
    let receiver = Receiver::start(RECEIVER_LATENCY).await?;
    prepare(stand.client(), doubles).await?;
    let operator = Operator::start(programs, stand).await?;
    let limit = Duration::from_secs(args.limit_seconds);
    let window = Duration::from_secs(args.quiet_seconds);
    let others = u32::try_from(window.as_millis() / PAUSE.as_millis()).unwrap_or(u32::MAX);
    let slowly = Pace::one_by_one(PAUSE);

    eprintln!("applying {others} other Webhooks with nothing else there");
    let set = |name, first: u32| Set::plain(name, first..first.saturating_add(others), &args.interval);
    let before = Load::of(stand.client(), &set("before", 100_000))?;
    let before = before.fill(&slowly, limit).await?;

    eprintln!("applying {count} Webhooks that are tested every minute");
    let set_tested = Set::tested(0..count, &args.interval, receiver.url());
    let tested = Load::of(stand.client(), &set_tested)?;
    let at_once = usize::from(args.appliers);
    let filled = tested.fill(&Pace::at_once(at_once), limit).await?;
    sleep(SETTLE).await;
    let uids = tested.uids().await?;

    eprintln!("all are Ready; watching their tests for {} s", window.as_secs());
    receiver.take();
    let (cpu, began, from) = (operator.cpu()?, Instant::now(), Timestamp::now());
    let during = Load::of(stand.client(), &set("during", 200_000))?;
    let during = during.fill(&slowly, limit).await?;
    sleep(window.saturating_sub(began.elapsed())).await;
    let (until, cpu) = (Timestamp::now(), operator.cpu()?.saturating_sub(cpu));
    let (seconds, memory) = (began.elapsed().as_secs_f64(), operator.memory()?);
    // What was due at the end may be on its way.
    sleep(MISSED.min(SETTLE)).await;
    let tests = Tests::of(&receiver.take(), &uids, from, until);
    operator.stop(STOP_LIMIT).await?;

    Ok(json!({
        "probed": count,
        "testInterval": "1m",
        "receiverLatencyMillis": u64::try_from(RECEIVER_LATENCY.as_millis())?,
        "latencyMillis": args.latency,
        "build": build(args),
        "secondsUntilAllReadyAndTested": round(filled.all.as_secs_f64()),
        "seconds": round(seconds),
        "tests": tests.figures(),
        "memoryKiB": { "rss": memory.rss, "peak": memory.peak },
        "cpuSeconds": round(cpu.as_secs_f64()),
        "cpuPercent": round(cpu.as_secs_f64() * 100.0 / seconds),
        "others": others,
        "secondsFromApplyToReadyOfOthers": { "before": spread(&before.each), "during": spread(&during.each) },
    }))
}

/// What arrived of what was due.
#[derive(Debug, Default)]
struct Tests {
    due: usize,
    late: Vec<Duration>,
    missed: usize,
    /// More than one for one phase.
    extra: usize,
    per_second: BTreeMap<i64, u64>,
}

impl Tests {
    /// `uids` by path. Only phases after `from` and up to `until` count.
    fn of(arrivals: &[Arrival], uids: &HashMap<String, String>, from: Timestamp, until: Timestamp) -> Self {
        let mut tests = Self::default();
        let mut due = BTreeSet::new();
        for (path, uid) in uids {
            let mut phase = regular_test(uid, INTERVAL, from);
            while phase <= until {
                due.insert((path.as_str(), phase));
                phase = regular_test(uid, INTERVAL, phase);
            }
        }
        tests.due = due.len();
        for arrival in arrivals {
            let Some(uid) = uids.get(&arrival.path) else {
                continue;
            };
            let earlier = arrival.at.saturating_sub(INTERVAL).unwrap_or(Timestamp::MIN);
            let phase = regular_test(uid, INTERVAL, earlier);
            if phase <= from || phase > until {
                continue;
            }
            *tests.per_second.entry(arrival.at.as_second()).or_default() += 1;
            let late = Duration::try_from(arrival.at.duration_since(phase)).unwrap_or_default();
            if !due.remove(&(arrival.path.as_str(), phase)) {
                tests.extra += 1;
            } else if late > MISSED {
                tests.missed += 1;
            } else {
                tests.late.push(late);
            }
        }
        tests.missed += due.len();
        tests
    }

    fn figures(&self) -> Value {
        let most = self.per_second.values().max().copied().unwrap_or_default();
        let sum = number(self.per_second.values().sum());
        let seconds = number(self.per_second.len().max(1) as u64);
        json!({
            "due": self.due,
            "inTime": self.late.len(),
            "missed": self.missed,
            "extra": self.extra,
            "secondsLate": spread(&self.late),
            "perSecond": { "mean": round(sum / seconds), "max": most },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_from_their_own_phase() {
        let from = Timestamp::from_second(1_800_000_000).unwrap();
        let until = from + INTERVAL + INTERVAL;
        let uids = HashMap::from([
            ("a".to_owned(), "uid-1".to_owned()),
            ("b".to_owned(), "uid-2".to_owned()),
        ]);
        let arrival = |path: &str, uid: &str, round: u32, late: Duration| {
            let mut at = regular_test(uid, INTERVAL, from);
            for _ in 0..round {
                at = regular_test(uid, INTERVAL, at);
            }
            Arrival {
                path: path.to_owned(),
                at: at + late,
            }
        };
        let (soon, late) = (Duration::from_millis(5), Duration::from_secs(31));
        let arrivals = [
            arrival("a", "uid-1", 0, soon),
            arrival("a", "uid-1", 0, late),
            arrival("a", "uid-1", 1, soon),
            arrival("b", "uid-2", 0, late),
            arrival("c", "uid-3", 0, soon),
        ];
        let tests = Tests::of(&arrivals, &uids, from, until);
        assert_eq!((tests.due, tests.late.as_slice()), (4, [soon, soon].as_slice()));
        // One came too late, one not at all.
        assert_eq!((tests.missed, tests.extra), (2, 1));
    }
}
