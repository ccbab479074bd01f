//! Docker builds the image of the Dockerfile twice, and runs what it built: nothing in it but the operator and licences,
//! the same binary both times, and it works with neither a shell, a writable file, a right nor a network.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Outcome, run_with_input};
use crate::progress::{Failure, root, step};

/// Both builds; the second is taken away again.
const TAGS: [&str; 2] = ["webhook-operator:judged", "webhook-operator:judged-again"];
/// All that may be in the image. The last is there after `cargo xtask licenses` only.
const FILES: [&str; 3] = ["webhook-operator", "LICENSE", "THIRD-PARTY-LICENSES"];
/// What Docker puts into each container for itself.
const DOCKERS: [&str; 4] = [".dockerenv", "dev/", "etc/", "proc/"];

/// Builds, looks and runs.
pub(super) fn run() -> Result<Outcome, Failure> {
    if let Err(missing) = server() {
        return Ok(Outcome::Missing(missing));
    }
    let [first, second] = TAGS;
    build(first, false)?;
    let (size, files) = contents(first)?;
    let version = works(first)?;
    build(second, true)?;
    let binaries = (digest(first)?, digest(second)?);
    docker(&["image", "rm", second])?;
    if binaries.0 != binaries.1 {
        return Err(Failure::new(format!(
            "the same sources gave two binaries: {} and {}",
            binaries.0, binaries.1
        )));
    }
    Ok(Outcome::Agrees(format!(
        "{version} runs read-only, without rights and network; {:.1} MB with {}; built twice: {}",
        size / 1e6,
        files.into_iter().collect::<Vec<_>>().join(", "),
        binaries.0
    )))
}

/// That there is a Docker that can build.
fn server() -> Result<(), String> {
    let cure = "Docker 23 or newer, or one with DOCKER_BUILDKIT=1, and its daemon running are needed";
    match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(_) => Ok(()),
        Err(failure) => Err(format!("{cure}: {failure}")),
    }
}

/// Runs docker with these arguments; returns what it prints.
fn docker(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("cannot run docker: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn build(tag: &str, anew: bool) -> Result<(), Failure> {
    let mut docker = Command::new("docker");
    docker
        .args(["build", "--progress=plain", "--tag", tag])
        .args(anew.then_some("--no-cache"))
        .arg(".")
        .env("DOCKER_BUILDKIT", "1")
        .current_dir(root());
    step(if anew { "image-again" } else { "image" }, &mut docker)
}

/// The size in bytes, and the files. Who it runs as and what it starts are judged.
fn contents(tag: &str) -> Result<(f64, BTreeSet<String>), Failure> {
    let inspected: Value = serde_json::from_str(&docker(&["image", "inspect", tag])?)?;
    for (pointer, wanted) in [
        ("/0/Config/User", "65532:65532"),
        ("/0/Config/Entrypoint/0", "/webhook-operator"),
        ("/0/Config/Cmd/0", "run"),
    ] {
        let found = inspected.pointer(pointer).and_then(Value::as_str);
        if found != Some(wanted) {
            return Err(Failure::new(format!(
                "{pointer} is {found:?} instead of {wanted}"
            )));
        }
    }
    let files = with_container(tag, |container| {
        let archive = tempfile::NamedTempFile::new()?;
        let path = archive.path().to_string_lossy();
        docker(&["export", "--output", &path, container])?;
        let list = Command::new("tar").arg("-tf").arg(archive.path()).output()?;
        Ok(String::from_utf8(list.stdout)?)
    })?;
    let files: BTreeSet<String> = files
        .lines()
        .filter(|file| !DOCKERS.iter().any(|own| file.starts_with(own)) && *file != "sys/")
        .map(str::to_owned)
        .collect();
    let strange: Vec<_> = files
        .iter()
        .filter(|file| !FILES.contains(&file.as_str()))
        .collect();
    if !strange.is_empty() || !files.contains("webhook-operator") || !files.contains("LICENSE") {
        return Err(Failure::new(format!("the image has {files:?}")));
    }
    let size = inspected.pointer("/0/Size").and_then(Value::as_f64);
    Ok((size.unwrap_or_default(), files))
}

/// Does something with a container that was made and not started.
fn with_container<T>(tag: &str, work: impl FnOnce(&str) -> Result<T, Failure>) -> Result<T, Failure> {
    let container = docker(&["create", tag])?;
    let done = work(container.trim());
    docker(&["rm", container.trim()])?;
    done
}

/// Its version, after it checked a manifest.
fn works(tag: &str) -> Result<String, Failure> {
    let confined = |arguments: &[&str]| {
        let mut docker = Command::new("docker");
        docker
            .args([
                "run",
                "--rm",
                "--interactive",
                "--network=none",
                "--read-only",
                "--cap-drop=ALL",
            ])
            .args(["--security-opt=no-new-privileges", tag])
            .args(arguments);
        docker
    };
    let version = run_with_input(&mut confined(&["--version"]), String::new())?;
    if version.trim() != concat!("webhook-operator ", env!("CARGO_PKG_VERSION")) {
        return Err(Failure::new(format!("its version is {version:?}")));
    }
    let example = fs::read_to_string(root().join("examples/conpeek/webhook.yaml"))?;
    run_with_input(&mut confined(&["check", "-"]), example.clone())?;
    let broken = example.replace("  url: ", "  url: not-a-url-");
    if broken == example || run_with_input(&mut confined(&["check", "-"]), broken).is_ok() {
        return Err(Failure::new(
            "its check found nothing wrong with a broken manifest",
        ));
    }
    Ok(version.trim().to_owned())
}

/// SHA-256 of the binary.
fn digest(tag: &str) -> Result<String, Failure> {
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("webhook-operator");
    with_container(tag, |container| {
        let from = format!("{container}:/webhook-operator");
        docker(&["cp", &from, &binary.to_string_lossy()])
    })?;
    let output = Command::new("sha256sum").arg(&binary).output()?;
    let text = String::from_utf8(output.stdout)?;
    match text.split_whitespace().next() {
        Some(digest) => Ok(format!("sha256:{digest}")),
        None => Err(Failure::new("sha256sum said nothing")),
    }
}
