//! `cargo xtask licenses`: the licence texts of all that is linked into the operator, for its image.
//!
//! Most of these licences ask that their text go where the binary goes. Which licences there may be at all is decided in
//! `deny.toml`; `about.toml` has the same list.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    progress::{Failure, cargo, root, say, step},
    tools::Tool,
};

const CARGO_ABOUT: Tool = Tool {
    name: "cargo-about",
    version: "0.9.3",
    features: &["--features", "cli"],
};
/// Not kept in git: it would be out of date with each change of the lock file.
const FILE: &str = "THIRD-PARTY-LICENSES";
/// What the image is built for first; the crates of the other platform are in the file as well.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Arguments of `licenses`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Writes the file and looks for each crate in it.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    let file = write()?;
    let text = fs::read_to_string(&file)?;
    let crates = linked()?;
    let missing: Vec<&str> = crates
        .iter()
        .map(String::as_str)
        .filter(|one| !text.contains(&format!("\n  {one} ")))
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "{} says nothing of {}; look for their licence and name it in about.toml as clarification",
            file.display(),
            missing.join(", ")
        )));
    }
    say(format_args!("{} ({} crates)", file.display(), crates.len()))
}

fn write() -> Result<PathBuf, Failure> {
    let file = root().join(FILE);
    let tool = CARGO_ABOUT.install()?;
    step(
        "licenses",
        Command::new(tool)
            .args(["generate", "--locked", "--fail", "--manifest-path", "Cargo.toml"])
            .arg("xtask/src/licenses/third-party.hbs")
            .arg("--output-file")
            .arg(&file)
            .current_dir(root()),
    )?;
    Ok(file)
}

/// All crates of the operator's binary as `name version`, by cargo itself.
fn linked() -> Result<BTreeSet<String>, Failure> {
    let output = cargo()
        .args([
            "tree",
            "--locked",
            "--package",
            "webhook-operator",
            "--edges",
            "normal",
        ])
        .args(["--target", TARGET, "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo tree ended with {}", output.status)));
    }
    let text = String::from_utf8(output.stdout)?;
    let crates: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next()?, words.next()?);
            Some(format!("{name} {}", version.strip_prefix('v')?))
        })
        .collect();
    if crates.len() < 2 {
        return Err(Failure::new("cargo tree named no crates"));
    }
    Ok(crates)
}
