//! The supervisor as an executable of its own, for callers that cannot be their
//! own supervisor, such as tests. All of it is in the library.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    control_plane::supervisor::main(&env::args().skip(1).collect::<Vec<_>>())
}
