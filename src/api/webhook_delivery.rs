//! Parts of `Webhook.spec` about deliveries: how the upstream repeats them, and how they are tested.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ApiDuration,
    schema::{duration_between, duration_from},
};

/// Redelivery by the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Whether the upstream delivers again at all. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Wait before the first redelivery: a duration from 1s to 24h. Default: 10s.
    #[serde(default = "default_initial_delay")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("retry.initialDelay", "1s", "24h")]))]
    pub initial_delay: ApiDuration,

    /// Most redeliveries of one event, from 0 to 20. Default: 2.
    #[serde(default = "default_max_retries")]
    #[schemars(range(min = 0, max = 20))]
    pub max_retries: i32,

    /// How the wait grows from one redelivery to the next.
    #[serde(default)]
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_delay: default_initial_delay(),
            max_retries: default_max_retries(),
            backoff: Backoff::default(),
        }
    }
}

/// Growth of the wait between redeliveries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The way it grows. `Multiplier`: each wait is `factor` times the one before. Default: Multiplier.
    #[serde(default, rename = "type")]
    pub type_: BackoffType,

    /// What each wait is multiplied with, from 1 to 10. Default: 2.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: i32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            type_: BackoffType::default(),
            factor: default_factor(),
        }
    }
}

/// Ways a wait grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum BackoffType {
    /// Each wait is `factor` times the one before.
    #[default]
    Multiplier,
}

/// How deliveries are tested.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestSpec {
    /// Who tests. `Auto`: the upstream's own test where it has one, else a probe by the operator.
    /// `Upstream`: the upstream's own test. `Probe`: a signed POST to `url` by the operator. `None`: nobody;
    /// Ready then does not wait for a test. Default: Auto.
    #[serde(default)]
    pub mode: TestMode,

    /// Test again this often: a duration of at least 1m. Left out: only after a change, a failure or a
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [duration_from("test.interval", "1m")]))]
    pub interval: Option<ApiDuration>,

    /// Longest time one probe may take: a duration from 1s to 30s. Default: 10s.
    #[serde(default = "default_test_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("test.timeout", "1s", "30s")]))]
    pub timeout: ApiDuration,

    /// Failures in a row before `onFailure` is carried out, from 1 to 100. Default: 3.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,

    /// What to do after `failureThreshold` failures in a row. `None`: only said in the status. `Deactivate`:
    /// switched off at the upstream until the spec changes, a test is asked for, or a probe passes. Default:
    /// None.
    #[serde(default)]
    pub on_failure: OnTestFailure,

    /// Also sends a wrongly signed probe, which the receiver must refuse. Default: false.
    #[serde(default)]
    pub check_forgery: bool,

    /// How many results `status.test.history` keeps, from 0 to 20. Default: 10.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub history_limit: i32,
}

impl Default for TestSpec {
    fn default() -> Self {
        Self {
            mode: TestMode::default(),
            interval: None,
            timeout: default_test_timeout(),
            failure_threshold: default_failure_threshold(),
            on_failure: OnTestFailure::default(),
            check_forgery: false,
            history_limit: default_history_limit(),
        }
    }
}

/// Who tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(description = "")]
pub enum TestMode {
    /// The upstream where it can, else the operator.
    #[default]
    Auto,
    /// The upstream.
    Upstream,
    /// The operator.
    Probe,
    /// Nobody.
    None,
}

impl TestMode {
    /// The word in spec, status and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Upstream => "Upstream",
            Self::Probe => "Probe",
            Self::None => "None",
        }
    }
}

/// What to do when tests keep failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum OnTestFailure {
    /// Only said in the status.
    #[default]
    None,
    /// Switched off at the upstream.
    Deactivate,
}

const fn yes() -> bool {
    true
}

const fn default_initial_delay() -> ApiDuration {
    ApiDuration::from_secs(10)
}

const fn default_max_retries() -> i32 {
    2
}

const fn default_factor() -> i32 {
    2
}

const fn default_test_timeout() -> ApiDuration {
    ApiDuration::from_secs(10)
}

const fn default_failure_threshold() -> i32 {
    3
}

const fn default_history_limit() -> i32 {
    10
}
