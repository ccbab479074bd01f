//! Operator and doubles as programs: builds them, tells where cargo put them, and starts processes that end with this
//! one.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use control_plane::progress::Task;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    control_plane::SUPERVISOR,
    progress::{Failure, cargo},
};

/// The executables that demo and benchmark start.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `webhook-operator`.
    pub(crate) operator: PathBuf,
    /// `upstream-doubles`.
    pub(crate) doubles: PathBuf,
}

impl Programs {
    /// Those that lie in this folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            operator: folder.join("webhook-operator"),
            doubles: folder.join("upstream-doubles"),
        }
    }

    /// Builds both; cargo shows its own progress.
    pub(crate) fn build(release: bool) -> Result<Self, Failure> {
        Self::build_with(release, &[])
    }

    /// Builds both with these features of the operator.
    pub(crate) fn build_with(release: bool, features: &[&str]) -> Result<Self, Failure> {
        let profile = if release { "release" } else { "debug" };
        let task = Task::talking(
            "== building operator and doubles",
            format!("demo-build-{profile}"),
        );
        let mut command = cargo();
        command
            .args(["build", "--message-format=json-render-diagnostics"])
            .args(["-p", "webhook-operator", "--bin", "webhook-operator"])
            .args(["-p", "upstream-doubles", "--bin", "upstream-doubles"])
            .stdout(Stdio::piped());
        if release {
            command.arg("--release");
        }
        for feature in features {
            command.args(["--features", &format!("webhook-operator/{feature}")]);
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run cargo: {error}")))?;
        let mut built = Vec::new();
        for line in child
            .stdout
            .take()
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines())
        {
            let message: Value = serde_json::from_str(&line?).unwrap_or_default();
            built.extend(
                message
                    .get("executable")
                    .and_then(Value::as_str)
                    .map(PathBuf::from),
            );
        }
        let status = child.wait()?;
        if !status.success() {
            let code = status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1);
            return Err(Failure::Exit {
                step: "cargo build".to_owned(),
                code,
            });
        }
        let programs = Self {
            operator: find(&built, "webhook-operator")?,
            doubles: find(&built, "upstream-doubles")?,
        };
        task.done();
        Ok(programs)
    }
}

/// A command that becomes `program` and ends with this process, where the kernel can do that. To be spawned from the
/// main thread: for the kernel, that is the parent with whose end the child ends.
pub(crate) fn tied(program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        // The supervisor's way for its servers; not the path of the executable, which a build may have replaced.
        let mut command = Command::new("/proc/self/exe");
        command
            .args([SUPERVISOR, "exec", &std::process::id().to_string()])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn find(built: &[PathBuf], name: &str) -> Result<PathBuf, Failure> {
    built
        .iter()
        .find(|path| {
            path.file_stem()
                .is_some_and(|stem| Path::new(stem) == Path::new(name))
        })
        .cloned()
        .ok_or_else(|| Failure::new(format!("cargo built no executable {name}")))
}
