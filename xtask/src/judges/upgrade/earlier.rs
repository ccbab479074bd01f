//! The version that an upgrade begins with: the chart, the kinds and the operator of a commit, built once into the cache
//! folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::cache;
use serde_json::Value;

use crate::{
    judges::Lack,
    progress::{Failure, cargo, root, step},
};

/// The oldest commit with a chart to which there is a way back. Those before it had another form of a provider's
/// `status.deletions`: given the present one, their operator can list no provider at all.
const COMMIT: &str = "f11dfc032fd21a8e990755b5bde8d6a2dcb04474";

/// It, unpacked and built.
pub(super) struct Earlier {
    source: PathBuf,
    operator: PathBuf,
}

impl Earlier {
    /// Takes it from the history of the checkout, and builds its operator where that was not done yet.
    pub(super) fn get() -> Result<Self, Lack> {
        let short = COMMIT.get(..12).unwrap_or(COMMIT);
        let folder = cache::folder()
            .map_err(Failure::from)?
            .join("judges")
            .join(format!("upgrade-{short}"));
        let earlier = Self {
            source: folder.join("source"),
            operator: folder.join("webhook-operator"),
        };
        if earlier.operator.is_file() {
            return Ok(earlier);
        }
        let commit = format!("{COMMIT}^{{commit}}");
        let there = Command::new("git")
            .args(["cat-file", "-e", &commit])
            .current_dir(root())
            .output();
        if !there.is_ok_and(|output| output.status.success()) {
            return Err(Lack::Missing(format!(
                "git is needed, and the history of this checkout back to commit {COMMIT}: `git fetch --unshallow` in a \
                 shallow clone; an archive of the sources has none"
            )));
        }
        earlier.unpack(&folder)?;
        earlier.build(&folder)?;
        Ok(earlier)
    }

    fn unpack(&self, folder: &Path) -> Result<(), Failure> {
        if self.source.exists() {
            fs::remove_dir_all(&self.source)?;
        }
        fs::create_dir_all(&self.source)?;
        let archive = folder.join("source.tar");
        let mut command = Command::new("git");
        command
            .args(["archive", "--format=tar", "--output"])
            .arg(&archive)
            .arg(COMMIT);
        step("git-archive", command.current_dir(root()))?;
        let mut command = Command::new("tar");
        command.arg("-xf").arg(&archive).arg("-C").arg(&self.source);
        step("tar", &mut command)?;
        Ok(fs::remove_file(archive)?)
    }

    fn build(&self, folder: &Path) -> Result<(), Failure> {
        // A target folder of its own: in that of the checkout it would stand in the place of the present operator.
        let target = folder.join("target");
        step(
            "build-earlier-operator",
            cargo()
                .args([
                    "build",
                    "--locked",
                    "-p",
                    "webhook-operator",
                    "--bin",
                    "webhook-operator",
                    "--target-dir",
                ])
                .arg(&target)
                .current_dir(&self.source),
        )?;
        fs::rename(target.join("debug/webhook-operator"), &self.operator)?;
        Ok(fs::remove_dir_all(&target)?)
    }

    /// The chart.
    pub(super) fn chart(&self) -> PathBuf {
        self.source.join("charts/webhook-operator")
    }

    /// The operator.
    pub(super) fn operator(&self) -> &Path {
        &self.operator
    }

    /// As what it is spoken of.
    pub(super) fn name(&self) -> &'static str {
        COMMIT.get(..7).unwrap_or(COMMIT)
    }

    /// The CustomResourceDefinitions.
    pub(super) fn kinds(&self) -> Result<Vec<Value>, Failure> {
        let mut kinds = Vec::new();
        for file in fs::read_dir(self.chart().join("files/crds"))? {
            kinds.push(webhook_operator::yaml::parse(&fs::read_to_string(file?.path())?)?);
        }
        Ok(kinds)
    }
}
