//! Finds the executables of the servers, or builds them.
//!
//! `KUBEBUILDER_ASSETS`, where set, is the only place looked at (the convention
//! of envtest). Otherwise they live in the user's cache folder, in a folder
//! named after the version of Kubernetes and the hash of the Go module they are
//! built from, and are built when missing.

use std::{
    env, fs,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use crate::{Error, cache, progress::Task, protocol::tail};

/// Part of the folder's name: raise it when the build's flags change.
const FLAGS_VERSION: &str = "1";

/// An executable of the Go module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// The store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers. envtest's archives lack it.
    KubeControllerManager,
    /// The command line client.
    Kubectl,
}

impl Binary {
    /// Name of the executable file.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Etcd => "etcd",
            Binary::KubeApiserver => "kube-apiserver",
            Binary::KubeControllerManager => "kube-controller-manager",
            Binary::Kubectl => "kubectl",
        }
    }
}

/// Where the executables of one control plane are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    folder: PathBuf,
}

impl Assets {
    /// The path of one executable. It exists if it was among those asked of
    /// [`prepare`].
    pub fn path(&self, binary: Binary) -> PathBuf {
        self.folder.join(binary.name())
    }
}

/// Makes sure that all of `binaries` exist, building those that are missing.
/// Shows progress on standard error. Two processes that build at once take
/// turns; the second one finds the work done.
///
/// # Errors
/// Go is missing or too old, a build fails, or `KUBEBUILDER_ASSETS` lacks one.
pub async fn prepare(binaries: &[Binary]) -> Result<Assets, Error> {
    let binaries = binaries.to_vec();
    tokio::task::spawn_blocking(move || prepare_blocking(&binaries))
        .await
        .map_err(|join| Error::Io {
            what: "build the control plane".into(),
            source: io::Error::other(join),
        })?
}

/// A kubectl: the one of `KUBEBUILDER_ASSETS`, else the one on `PATH`, else one
/// that is built.
///
/// # Errors
/// As [`prepare`].
pub async fn kubectl() -> Result<PathBuf, Error> {
    let name = Binary::Kubectl.name();
    let on_path = env::var_os("PATH").unwrap_or_default();
    let from_env = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let found = from_env
        .into_iter()
        .chain(env::split_paths(&on_path))
        .map(|folder| folder.join(name));
    match found.into_iter().find(|path| is_executable(path)) {
        Some(path) => Ok(path),
        None => build_missing(&[Binary::Kubectl])
            .await
            .map(|assets| assets.path(Binary::Kubectl)),
    }
}

async fn build_missing(binaries: &[Binary]) -> Result<Assets, Error> {
    let binaries = binaries.to_vec();
    tokio::task::spawn_blocking(move || in_cache(&module_folder(), &binaries))
        .await
        .map_err(|join| Error::Io {
            what: "build kubectl".into(),
            source: io::Error::other(join),
        })?
}

fn prepare_blocking(binaries: &[Binary]) -> Result<Assets, Error> {
    match env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()) {
        Some(folder) => in_given_folder(PathBuf::from(folder), binaries),
        None => in_cache(&module_folder(), binaries),
    }
}

fn in_given_folder(folder: PathBuf, binaries: &[Binary]) -> Result<Assets, Error> {
    match binaries
        .iter()
        .find(|binary| !is_executable(&folder.join(binary.name())))
    {
        Some(binary) => Err(Error::AssetMissing {
            folder,
            binary: binary.name(),
        }),
        None => Ok(Assets { folder }),
    }
}

fn in_cache(module: &Path, binaries: &[Binary]) -> Result<Assets, Error> {
    let source = Source::read(module)?;
    let folder = cache::folder()?.join("control-plane").join(source.key());
    let assets = Assets { folder };
    let missing = || {
        binaries
            .iter()
            .copied()
            .filter(|binary| !assets.path(*binary).is_file())
    };
    if missing().next().is_none() {
        return Ok(assets);
    }
    fs::create_dir_all(&assets.folder).map_err(Error::io(format!("create {}", assets.folder.display())))?;
    let _lock = lock(&assets.folder)?;
    // Whoever held the lock before may have built them.
    let missing: Vec<_> = missing().collect();
    if missing.is_empty() {
        return Ok(assets);
    }
    check_go(&source.go)?;
    for (done, binary) in missing.iter().enumerate() {
        let label = format!(
            "[{}/{}] building {} {}",
            done + 1,
            missing.len(),
            binary.name(),
            source.version
        );
        build(module, &source.version, *binary, &assets.folder, label)?;
    }
    Ok(assets)
}

/// The Go module in the checkout that this crate was compiled from.
fn module_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/control-plane")
}

/// What the Go module says about itself.
struct Source {
    /// Version of Kubernetes, as `v1.36.3`.
    version: String,
    /// Oldest Go that builds it, as `1.26`.
    go: String,
    hash: String,
}

impl Source {
    fn read(module: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = module.join(name);
            fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
        };
        let go_mod = read("go.mod")?;
        let mut hasher = Sha256::new();
        for text in [
            FLAGS_VERSION,
            env::consts::OS,
            env::consts::ARCH,
            &go_mod,
            &read("go.sum")?,
        ] {
            hasher.update(text);
        }
        for binary in [
            Binary::Etcd,
            Binary::KubeApiserver,
            Binary::KubeControllerManager,
            Binary::Kubectl,
        ] {
            hasher.update(read(&format!("cmd/{}/main.go", binary.name()))?);
        }
        let hash = hasher
            .finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let bad = |what: &str| Error::Io {
            what: format!("read {}", module.join("go.mod").display()),
            source: io::Error::other(format!("names no {what}")),
        };
        let version = word_after(&go_mod, "k8s.io/kubernetes").ok_or_else(|| bad("k8s.io/kubernetes"))?;
        let go = word_after(&go_mod, "go").ok_or_else(|| bad("version of Go"))?;
        let go = go.split('.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self {
            version: version.to_owned(),
            go,
            hash,
        })
    }

    fn key(&self) -> String {
        format!("{}-{}", self.version, self.hash)
    }
}

fn word_after<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()).flatten()
    })
}

/// Held until dropped, by one process at a time.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let waiting = Task::silent(
                "waiting for another process that builds the control plane",
                "build-wait",
            );
            file.lock()
                .map_err(Error::io(format!("lock {}", path.display())))?;
            waiting.done();
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::Io {
                what: format!("lock {}", path.display()),
                source,
            });
        }
    }
    Ok(file)
}

fn go() -> Command {
    let mut go = Command::new("go");
    // A fixed tool chain, no workspace around the module, no C compiler.
    go.env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null());
    go
}

fn check_go(needed: &str) -> Result<(), Error> {
    // Outside of the module: inside, an old Go refuses to answer.
    let output = match go()
        .args(["env", "GOVERSION"])
        .current_dir(env::temp_dir())
        .output()
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::GoMissing {
                needed: needed.to_owned(),
            });
        }
        other => other.map_err(Error::io("run go env GOVERSION"))?,
    };
    let found = String::from_utf8_lossy(&output.stdout)
        .trim()
        .trim_start_matches("go")
        .to_owned();
    if go_is_older(&found, needed) {
        return Err(Error::GoTooOld {
            found,
            needed: needed.to_owned(),
        });
    }
    Ok(())
}

/// Whether `found` (`1.25.3`, `1.26rc1`) is below `needed` (`1.26`). A version
/// that cannot be read, such as `devel`, is left to Go itself to judge.
fn go_is_older(found: &str, needed: &str) -> bool {
    let pair = |text: &str| {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    matches!((pair(found), pair(needed)), (Some(found), Some(needed)) if found < needed)
}

fn build(module: &Path, version: &str, binary: Binary, folder: &Path, label: String) -> Result<(), Error> {
    let name = binary.name();
    let log_path = folder.join(format!("{name}.build.log"));
    let log = File::create(&log_path).map_err(Error::io(format!("create {}", log_path.display())))?;
    let log_too = log.try_clone().map_err(Error::io("duplicate a file handle"))?;
    // Renamed once complete, so a build that was cut short is never taken for one.
    let part = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .tempdir_in(folder);
    let part = part.map_err(Error::io(format!("create a folder in {}", folder.display())))?;
    let task = Task::silent(label, format!("build-{name}"));
    let status = go()
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &link_flags(version),
            "-o",
        ])
        .arg(part.path().join(name))
        .arg(format!("./cmd/{name}"))
        .current_dir(module)
        .stdout(log)
        .stderr(log_too)
        .status()
        .map_err(Error::io("run go build"))?;
    if !status.success() {
        return Err(Error::Build {
            binary: name,
            tail: tail(&log_path, 20),
            log: log_path,
        });
    }
    fs::rename(part.path().join(name), folder.join(name))
        .map_err(Error::io(format!("move {name} to {}", folder.display())))?;
    let _ = fs::remove_file(log_path);
    task.done();
    Ok(())
}

/// Without the version the apiserver reports one that clients cannot parse.
fn link_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    let values = [
        ("gitVersion", version),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
    ];
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (key, value) in values {
            flags.push_str(&format!(" -X {package}.{key}={value}"));
        }
    }
    flags
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_its_version() {
        let source = Source::read(&module_folder()).unwrap();
        assert!(source.version.starts_with("v1."), "{}", source.version);
        assert_eq!(source.go, "1.26");
        assert_eq!(source.hash.len(), 12);
    }

    #[test]
    fn an_old_go_is_told_from_a_new_one() {
        assert!(go_is_older("1.25.7", "1.26"));
        assert!(go_is_older("1.9", "1.26"));
        assert!(!go_is_older("1.26rc1", "1.26"));
        assert!(!go_is_older("1.26.8", "1.26"));
        assert!(!go_is_older("devel", "1.26"));
    }

    #[test]
    fn a_given_folder_without_the_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = in_given_folder(folder.path().to_owned(), &[Binary::KubeControllerManager]).unwrap_err();
        assert!(error.to_string().contains("kube-controller-manager"), "{error}");
    }

    #[test]
    fn the_link_flags_carry_the_version() {
        let flags = link_flags("v1.36.3");
        assert!(
            flags.contains("-X k8s.io/component-base/version.gitVersion=v1.36.3"),
            "{flags}"
        );
        assert!(
            flags.contains("-X k8s.io/component-base/version.gitMinor=36"),
            "{flags}"
        );
    }
}
