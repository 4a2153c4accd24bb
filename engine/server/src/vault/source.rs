//! Where a master key's text comes from.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::VaultError;
use crate::config::KeySource;

type Key = Zeroizing<[u8; 32]>;

/// For its owner alone.
const MODE: u32 = 0o600;

pub(super) fn read(source: &KeySource) -> Result<Key, VaultError> {
    match source {
        KeySource::Env(name) => {
            let place = format!("env:{name}");
            match std::env::var(name) {
                Ok(text) => parse(&place, &Zeroizing::new(text)),
                Err(std::env::VarError::NotPresent) => Err(unusable(&place, "is not set")),
                Err(std::env::VarError::NotUnicode(_)) => Err(unusable(&place, "is not text")),
            }
        }
        KeySource::File(path) => {
            let place = format!("file:{}", path.display());
            match std::fs::read_to_string(path) {
                Ok(text) => parse(&place, &Zeroizing::new(text)),
                Err(error) => Err(unusable(&place, format!("cannot be read: {error}"))),
            }
        }
    }
}

/// The key in that file, which is made if it is not there.
pub(super) fn read_or_make(path: &Path) -> Result<Key, VaultError> {
    let not_made = |error| VaultError::NotMade {
        path: path.display().to_string(),
        error,
    };
    if !path.try_exists().map_err(not_made)? {
        make(path).map_err(not_made)?;
        tracing::info!(file = %path.display(), "made a master key for endpoint secrets");
    }
    read(&KeySource::File(path.to_owned()))
}

/// Whole or not at all, whenever the process ends.
fn make(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let unfinished = path.with_extension("key.new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&unfinished)?;
    let mut text = Zeroizing::new(BASE64.encode(key.as_slice()));
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn parse(place: &str, text: &str) -> Result<Key, VaultError> {
    let bytes = BASE64.decode(text.trim());
    let bytes = bytes.map_err(|_| unusable(place, "does not hold base64"))?;
    let bytes = Zeroizing::new(bytes);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(unusable(place, format!("holds {} bytes", bytes.len())));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

fn unusable(place: &str, problem: impl Into<String>) -> VaultError {
    VaultError::Unusable {
        place: place.to_owned(),
        problem: problem.into(),
    }
}
