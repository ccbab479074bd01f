//! kubectl with a kubeconfig of its own, so that it never touches the cluster that happens to be the current one.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::progress::Failure;

/// A kubectl and the kubeconfig that it uses.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Copies the current context of `source` into `folder`, with `namespace` as its namespace.
    pub(super) async fn own(
        program: &Path,
        source: &Path,
        folder: &Path,
        namespace: &str,
    ) -> Result<Self, Failure> {
        let given = Self {
            program: program.to_owned(),
            kubeconfig: source.to_owned(),
        };
        let config = given
            .run(&["config", "view", "--raw", "--minify", "--flatten"])
            .await?;
        let own = Self {
            program: program.to_owned(),
            kubeconfig: folder.join("kubeconfig"),
        };
        write_private(&own.kubeconfig, &config)?;
        own.run(&["config", "set-context", "--current", "--namespace", namespace])
            .await?;
        Ok(own)
    }

    /// The kubeconfig, for the environment variable of that name.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs it and returns what it prints; fails with what it complains of.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String, Failure> {
        self.feed(args, "").await
    }

    /// Runs it with `-o json` and returns the object.
    pub(super) async fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let text = self.run(&[args, &["-o", "json"]].concat()).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs it with `input` as its standard input.
    pub(super) async fn feed(&self, args: &[&str], input: &str) -> Result<String, Failure> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .env_remove("KUBECONFIG")
            // Ctrl-C is for the demo, which may still need the answer.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run {}: {error}", self.program.display())))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Failure::new(format!(
            "kubectl {} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

/// Writes a file that only this user can read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
