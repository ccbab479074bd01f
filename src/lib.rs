//! The library behind the `webhook-operator` binary.

pub mod api;
pub mod clock;
pub mod domain;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod net;
pub mod provider;
pub mod telemetry;
pub mod yaml;
