//! The address guard and the transport against real sockets on loopback.
//!
//! `vectors`: the table of addresses and spellings, without sockets. `reach`: nothing refused is ever connected
//! to, asserted by a listener. `bounds`: hostile answers. `tls`: certificates and trust roots. `proxy`: the same
//! guard in front of a proxy. `support`: listeners, scripted servers, a scripted resolver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code: a panic is the way to fail"
)]

mod bounds;
mod proxy;
mod reach;
mod support;
mod tls;
mod vectors;
