//! The library behind the `webhook-operator` binary.

pub mod api;
pub mod clock;
pub mod domain;
pub mod net;
pub mod provider;
pub mod yaml;
