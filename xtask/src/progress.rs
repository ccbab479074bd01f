//! Runs the steps of a task: shows each one's name, how long it took and how
//! long it took last time, and hands on the exit code of the one that fails.

use std::{
    error::Error,
    ffi::OsString,
    fmt::{self, Display, Write as _},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Termination},
};

use control_plane::progress::Task;

/// Why a task failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A command ended with this code after it had said why itself.
    Exit {
        /// The step it was.
        step: String,
        /// Its exit code; 1 where a signal ended it.
        code: u8,
    },
    /// Anything else; the message names the cure where there is one.
    Other(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure::Other(message.into().into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Other(Box::new(error))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Exit { step, code } => write!(f, "{step} failed with exit code {code}"),
            Failure::Other(error) => {
                write!(f, "{error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

impl Termination for Failure {
    fn report(self) -> ExitCode {
        eprintln!("error: {self}");
        match self {
            Failure::Exit { code, .. } => ExitCode::from(code),
            Failure::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs one command that prints its own output. `step` names it on the screen
/// and in the memory of durations.
pub(crate) fn step(step: &str, command: &mut Command) -> Result<(), Failure> {
    let task = Task::talking(format!("== {step}"), format!("step-{step}"));
    eprintln!("   {}", shown(command));
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("cannot run {program}: {error}")))?;
    if !status.success() {
        let code = status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1);
        return Err(Failure::Exit {
            step: step.to_owned(),
            code,
        });
    }
    task.done();
    Ok(())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut line = program.to_string_lossy().into_owned();
    for word in command.get_args() {
        // Writing to a String does not fail.
        let _ = write!(line, " {}", word.to_string_lossy());
    }
    line
}

/// The cargo that runs this task, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // What cargo tells this task about its own package is news to build scripts (ring's): with it, this cargo and the
    // next one at the prompt would each build anew what the other has built.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// Root of the workspace that this executable was compiled from.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Prints one line of a task's result to standard output, apart from progress,
/// which goes to standard error.
pub(crate) fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

/// Runs asynchronous work to its end.
pub(crate) fn block_on<T, E: Into<Failure>>(work: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
        .map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_failed_step_is_handed_on() {
        let failure = step("exit-code-test", Command::new("sh").args(["-c", "exit 7"])).unwrap_err();
        assert!(matches!(failure, Failure::Exit { code: 7, .. }), "{failure}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = step("missing-test", &mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(
            failure.to_string().contains("no-such-program-anywhere"),
            "{failure}"
        );
    }
}
