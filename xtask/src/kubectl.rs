//! kubectl with a kubeconfig of its own, so that it never touches the cluster that happens to be the current one.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::progress::Failure;

/// A kubectl and the kubeconfig that it uses.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Copies the current context of `source` into `folder`, with `namespace` as its namespace.
    pub(crate) async fn own(
        program: &Path,
        source: &Path,
        folder: &Path,
        namespace: &str,
    ) -> Result<Self, Failure> {
        let given = Self::with(program, source);
        let config = given
            .run(&["config", "view", "--raw", "--minify", "--flatten"])
            .await?;
        let own = Self::with(program, &folder.join("kubeconfig"));
        write_private(&own.kubeconfig, &config)?;
        own.run(&["config", "set-context", "--current", "--namespace", namespace])
            .await?;
        Ok(own)
    }

    /// The kubeconfig, for the environment variable of that name.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl for the cluster of this kubeconfig.
    pub(crate) fn with(program: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Writes a kubeconfig with which one is a service account, and not an administrator, in its namespace; the
    /// apiserver makes the token.
    pub(crate) async fn account(
        &self,
        namespace: &str,
        account: &str,
        lifetime: Duration,
        path: &Path,
    ) -> Result<(), Failure> {
        let duration = format!("{}s", lifetime.as_secs());
        let token = self
            .run(&[
                "create",
                "token",
                account,
                "--namespace",
                namespace,
                "--duration",
                &duration,
            ])
            .await?;
        let admin = self
            .json(&["config", "view", "--raw", "--minify", "--flatten"])
            .await?;
        let cluster = admin
            .pointer("/clusters/0/cluster")
            .ok_or_else(|| Failure::new("the kubeconfig names no cluster"))?;
        // JSON is YAML, too.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": account, "user": {"token": token.trim()}}],
            "contexts": [{"name": "account", "context": {"cluster": "cluster", "user": account, "namespace": namespace}}],
            "current-context": "account",
        });
        write_private(path, &config.to_string())
    }

    /// Runs it and returns what it prints; fails with what it complains of.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String, Failure> {
        self.feed(args, "").await
    }

    /// Runs it with `-o json` and returns the object.
    pub(crate) async fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let text = self.run(&[args, &["-o", "json"]].concat()).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs it with `input` as its standard input.
    pub(crate) async fn feed(&self, args: &[&str], input: &str) -> Result<String, Failure> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .env_remove("KUBECONFIG")
            // Ctrl-C is for the task, which may still need the answer.
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
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
