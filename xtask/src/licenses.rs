//! `cargo xtask licenses`: the licence texts of all that is linked into the operator, for its image.
//!
//! Most of these licences ask that their text go where the binary goes. Which licences there may be at all is decided in
//! `deny.toml`; `about.toml` has the same list.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

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

/// Writes the file, and adds what cargo-about has left out: it reckons with features on its own, and some crate that cargo
/// links is off in its reckoning.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    let file = write()?;
    let mut text = fs::read_to_string(&file)?;
    let crates = linked()?;
    let missing: Vec<&String> = crates
        .iter()
        .filter(|one| !text.contains(&format!("\n  {one} ")))
        .collect();
    if !missing.is_empty() {
        let packages = packages()?;
        for one in missing {
            let Some(manifest) = packages.get(one) else {
                return Err(Failure::new(format!("cargo metadata says nothing of {one}")));
            };
            text.push_str(&section(one, manifest)?);
        }
        fs::write(&file, text)?;
    }
    say(format_args!("{} ({} crates)", file.display(), crates.len()))
}

/// Where the manifests of all packages are, by `name version`.
fn packages() -> Result<BTreeMap<String, PathBuf>, Failure> {
    let output = cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "cargo metadata ended with {}",
            output.status
        )));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let text = |package: &Value, field: &str| package.get(field).and_then(Value::as_str).map(str::to_owned);
    let packages = metadata.get("packages").and_then(Value::as_array);
    Ok(packages
        .into_iter()
        .flatten()
        .filter_map(|package| {
            let name = format!("{} {}", text(package, "name")?, text(package, "version")?);
            Some((name, PathBuf::from(text(package, "manifest_path")?)))
        })
        .collect())
}

/// The licence files that a crate has beside its manifest.
fn section(one: &str, manifest: &Path) -> Result<String, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(manifest.parent().unwrap_or(manifest))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        if path.is_file() && (name.starts_with("LICEN") || name.starts_with("COPYING")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!(
            "{one} has no licence file beside {}; name its licence in about.toml as a clarification",
            manifest.display()
        )));
    }
    files.sort();
    let mut text = format!("\n{}\nUsed by:\n  {one} \n", "=".repeat(80));
    for file in files {
        text.push('\n');
        text.push_str(&fs::read_to_string(file)?);
    }
    Ok(text)
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
