//! Where things are kept between runs: the user's cache folder.
//!
//! Nothing in it is precious; removing it costs a build.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::Error;

/// The project's folder in the user's cache: `$XDG_CACHE_HOME/webhook-operator`,
/// or `~/.cache/webhook-operator`. Created where missing. A relative
/// `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.
///
/// # Errors
/// [`Error::NoCacheFolder`], or the folder cannot be created.
pub fn folder() -> Result<PathBuf, Error> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let folder = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or(Error::NoCacheFolder)?
        .join("webhook-operator");
    fs::create_dir_all(&folder).map_err(Error::io(format!("create {}", folder.display())))?;
    Ok(folder)
}

/// How long the work named `key` took last time; `None` where it was never
/// finished, or nothing can be read.
pub fn last_duration(key: &str) -> Option<Duration> {
    let path = folder().ok()?.join("durations.json");
    read_durations(&path)
        .get(key)
        .and_then(|&secs| Duration::try_from_secs_f64(secs).ok())
}

/// Remembers how long the work named `key` took. Failing to is no failure of
/// the work, so nothing is reported.
pub fn remember_duration(key: &str, took: Duration) {
    let Ok(folder) = folder() else { return };
    let path = folder.join("durations.json");
    let mut all = read_durations(&path);
    all.insert(key.to_owned(), (took.as_secs_f64() * 10.0).round() / 10.0);
    // Two writers at once lose one figure at worst; neither leaves half a file.
    let _ = serde_json::to_vec_pretty(&all)
        .map_err(std::io::Error::from)
        .and_then(|bytes| write_atomically(&path, &bytes));
}

fn read_durations(path: &Path) -> BTreeMap<String, f64> {
    fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}
