//! From requests and times to figures.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::audit::Entry;

/// Requests to the apiserver by verb and resource.
#[derive(Debug, Default)]
pub(super) struct Costs {
    requests: BTreeMap<String, u64>,
    writes: BTreeMap<String, u64>,
    lease: u64,
    lease_writes: u64,
}

impl Costs {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut costs = Self::default();
        for entry in entries {
            let name = format!("{} {}", entry.verb, entry.resource());
            let is_lease = entry.resource() == "leases";
            costs.lease += u64::from(is_lease);
            if entry.is_write() {
                costs.lease_writes += u64::from(is_lease);
                *costs.writes.entry(name.clone()).or_default() += 1;
            }
            *costs.requests.entry(name).or_default() += 1;
        }
        costs
    }

    /// All requests by verb and resource.
    pub(super) fn requests(&self) -> Value {
        json!(self.requests)
    }

    /// Those that change something.
    pub(super) fn writes(&self) -> Value {
        json!(self.writes)
    }

    /// How many writes there were, renewals of the Lease left out.
    pub(super) fn writes_except_lease(&self) -> u64 {
        self.writes.values().sum::<u64>() - self.lease_writes
    }

    pub(super) fn total(&self) -> f64 {
        number(self.requests.values().sum())
    }

    pub(super) fn total_except_lease(&self) -> f64 {
        number(self.requests.values().sum::<u64>() - self.lease)
    }

    fn sum_of(&self, fits: impl Fn(&str) -> bool) -> f64 {
        number(
            self.writes
                .iter()
                .filter(|(name, _)| fits(name))
                .map(|(_, count)| count)
                .sum(),
        )
    }
}

/// Writes divided by the number of Webhooks.
pub(super) struct PerObject;

impl PerObject {
    pub(super) fn of(costs: &Costs, objects: f64) -> Value {
        let to_webhook = |name: &str| name.ends_with(" webhooks") || name.ends_with(" webhooks/status");
        let is_event = |name: &str| name.ends_with(" events");
        let is_lease = |name: &str| name.ends_with(" leases");
        json!({
            "toTheWebhook": round(costs.sum_of(to_webhook) / objects),
            "events": round(costs.sum_of(is_event) / objects),
            "others": round(costs.sum_of(|name| !to_webhook(name) && !is_event(name) && !is_lease(name)) / objects),
        })
    }
}

/// Median, 99th percentile and longest, in seconds.
pub(super) fn spread(times: &[Duration]) -> Value {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).map(|time| round(time.as_secs_f64()))
    };
    json!({ "p50": at(50), "p99": at(99), "max": at(100) })
}

/// Two digits after the point: more is noise.
pub(super) fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// Counts stay far below the 52 bits that a float keeps exactly.
#[allow(clippy::cast_precision_loss, reason = "counts of requests are small")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_secs).collect();
        assert_eq!(spread(&times), json!({"p50": 100.0, "p99": 198.0, "max": 200.0}));
        assert_eq!(
            spread(&[Duration::from_secs(7)]),
            json!({"p50": 7.0, "p99": 7.0, "max": 7.0})
        );
        assert_eq!(spread(&[]), json!({"p50": null, "p99": null, "max": null}));
    }
}
