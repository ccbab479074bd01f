//! Docker builds the image of the Dockerfile twice, and runs what it built: nothing in it but the operator and licences,
//! the same binary both times, and it works with neither a shell, a writable file, a right nor a network. Then it builds
//! the one for arm64, which QEMU runs where it is there.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Outcome, run_with_input};
use crate::progress::{Failure, root, step};

/// Both builds; the second is taken away again.
const TAGS: [&str; 2] = ["webhook-operator:judged", "webhook-operator:judged-again"];
/// The one for the other architecture.
const ARM64: &str = "webhook-operator:judged-arm64";
/// What the binary says when it is asked for its version.
const VERSION: &str = concat!("webhook-operator ", env!("CARGO_PKG_VERSION"));
/// What runs its binary.
const QEMU: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];
/// The number of the architecture in the header of its binary: EM_AARCH64.
const AARCH64: u16 = 183;
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
    build("image", first, &[])?;
    let (size, files) = contents(first)?;
    let version = works(first)?;
    build("image-again", second, &["--no-cache"])?;
    let binaries = (digest(first)?, digest(second)?);
    docker(&["image", "rm", second])?;
    if binaries.0 != binaries.1 {
        return Err(Failure::new(format!(
            "the same sources gave two binaries: {} and {}",
            binaries.0, binaries.1
        )));
    }
    build("image-arm64", ARM64, &["--platform", "linux/arm64"])?;
    let (arm64_size, arm64_files) = contents(ARM64)?;
    if arm64_files != files {
        return Err(Failure::new(format!(
            "the image for arm64 has other files: {arm64_files:?}"
        )));
    }
    let arm64 = with_binary(ARM64, runs_on_arm64)?;
    Ok(Outcome::Agrees(format!(
        "{version} runs read-only, without rights and network; {:.1} MB with {}; built twice: {}; arm64: {:.1} MB, {arm64}",
        size / 1e6,
        files.into_iter().collect::<Vec<_>>().join(", "),
        binaries.0,
        arm64_size / 1e6,
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

fn build(name: &str, tag: &str, how: &[&str]) -> Result<(), Failure> {
    let mut docker = Command::new("docker");
    docker
        .args(["build", "--progress=plain", "--tag", tag])
        .args(how)
        .arg(".")
        .env("DOCKER_BUILDKIT", "1")
        .current_dir(root());
    step(name, &mut docker)
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
    if version.trim() != VERSION {
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

/// Does something with a copy of the binary.
fn with_binary<T>(tag: &str, work: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("webhook-operator");
    with_container(tag, |container| {
        let from = format!("{container}:/webhook-operator");
        docker(&["cp", &from, &binary.to_string_lossy()])
    })?;
    work(&binary)
}

/// SHA-256 of the binary.
fn digest(tag: &str) -> Result<String, Failure> {
    let output = with_binary(tag, |binary| {
        Ok(Command::new("sha256sum").arg(binary).output()?)
    })?;
    let text = String::from_utf8(output.stdout)?;
    match text.split_whitespace().next() {
        Some(digest) => Ok(format!("sha256:{digest}")),
        None => Err(Failure::new("sha256sum said nothing")),
    }
}

/// That it is a binary for arm64, and what it says about itself if there is something that runs it.
fn runs_on_arm64(binary: &Path) -> Result<String, Failure> {
    // e_machine of the ELF header.
    let head = fs::read(binary)?;
    let machine = head
        .get(18..20)
        .and_then(|bytes| <[u8; 2]>::try_from(bytes).ok())
        .map(u16::from_le_bytes);
    if machine != Some(AARCH64) {
        return Err(Failure::new(format!("its binary is for machine {machine:?}")));
    }
    for qemu in QEMU {
        let Ok(output) = Command::new(qemu).arg(binary).arg("--version").output() else {
            continue;
        };
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said != VERSION {
            return Err(Failure::new(format!("{qemu} runs it, and it says {said:?}")));
        }
        return Ok(format!("{qemu} runs it"));
    }
    Ok("not run: no qemu-user-static here".to_owned())
}
