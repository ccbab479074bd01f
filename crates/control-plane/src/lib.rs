//! A real Kubernetes control plane on loopback, without containers: etcd,
//! kube-apiserver and, where asked for, kube-controller-manager.
//!
//! ```no_run
//! # async fn example() -> Result<(), control_plane::Error> {
//! use control_plane::{ControlPlane, Options};
//!
//! let plane = ControlPlane::start(Options::default()).await?;
//! println!("export KUBECONFIG={}", plane.kubeconfig().display());
//! plane.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! * [`assets`] finds the server binaries, or builds them once per version into
//!   the user's cache folder from the Go module in `tests/control-plane`.
//! * [`ControlPlane`] is what tests and tools hold. It talks to a *supervisor*
//!   process, which owns the servers.
//! * [`supervisor`] is that process. It ends, and the servers with it, as soon
//!   as its caller is gone, however the caller went; the kernel ends the servers
//!   when the supervisor is killed; and [`registry`] finds what is left where a
//!   kernel cannot do that.
//!
//! Left to others: Kubernetes clients. A kubeconfig file is the interface.

pub mod assets;
pub mod cache;
mod error;
mod plane;
pub mod progress;
mod protocol;
pub mod registry;
pub mod supervisor;

pub use error::Error;
pub use plane::{ControlPlane, Options, start_detached};
pub use protocol::{AuditLevel, Pids, Server, State, Token};
pub use supervisor::launch::Launcher;
