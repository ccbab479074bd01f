//! The library behind the `webhook-operator` binary.

pub mod api;
pub mod net;
pub mod yaml;
