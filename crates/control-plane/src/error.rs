//! What can go wrong, each with what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// A failure to find, build, start or steer the servers. Every message names
/// the cure where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither `XDG_CACHE_HOME` nor `HOME` names an absolute folder.
    #[error("no cache folder: set XDG_CACHE_HOME or HOME to an absolute path")]
    NoCacheFolder,
    /// The Go tool chain is missing.
    #[error(
        "`go` was not found: building the control plane needs Go {needed} or newer (https://go.dev/dl/); \
         or set KUBEBUILDER_ASSETS to a folder that has etcd and kube-apiserver"
    )]
    GoMissing {
        /// Oldest version that works, as `1.26`.
        needed: String,
    },
    /// The Go tool chain is older than the module asks for.
    #[error(
        "Go {found} is too old: building the control plane needs Go {needed} or newer (https://go.dev/dl/); \
         or set KUBEBUILDER_ASSETS to a folder that has etcd and kube-apiserver"
    )]
    GoTooOld {
        /// Version that `go env GOVERSION` reported.
        found: String,
        /// Oldest version that works, as `1.26`.
        needed: String,
    },
    /// `KUBEBUILDER_ASSETS` is set and lacks a server.
    #[error(
        "KUBEBUILDER_ASSETS={folder} has no {binary}: put one of the same version there, \
         or unset KUBEBUILDER_ASSETS to have it built"
    )]
    AssetMissing {
        /// Value of the variable.
        folder: PathBuf,
        /// File that was looked for.
        binary: &'static str,
    },
    /// `go build` failed.
    #[error("building {binary} failed; the end of {log}:\n{tail}")]
    Build {
        /// What was being built.
        binary: &'static str,
        /// File with the whole output.
        log: PathBuf,
        /// Last lines of the output.
        tail: String,
    },
    /// The supervisor's executable cannot be found or built.
    #[error("no control-plane-supervisor: {0}; `cargo build -p control-plane` makes one")]
    NoSupervisor(String),
    /// A control plane of this name runs already.
    #[error("a control plane named {0} is running already: use it, or stop it first")]
    AlreadyRunning(String),
    /// No control plane of this name runs.
    #[error("no control plane named {0} is running")]
    NotRunning(String),
    /// A name that cannot be a file name.
    #[error("{0:?} is no name for a control plane: 1 to 40 of a-z, 0-9 and -")]
    BadName(String),
    /// The servers did not do what they were told; with the end of their logs.
    #[error("{0}")]
    Servers(String),
    /// The supervisor did not answer in time, or ended.
    #[error("the supervisor {0}")]
    Lost(String),
    /// The supervisor did not end although it was told to.
    #[error("process {pid} is still there {} s after it was told to stop", waited.as_secs())]
    WontStop {
        /// Process id of the supervisor.
        pid: u32,
        /// How long was waited.
        waited: Duration,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
