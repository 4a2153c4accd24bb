//! Where the master keys are that seal endpoints' secrets.

use std::path::PathBuf;

use serde::Deserialize;

/// The master keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// The first seals, all open. Empty for the embedded log's own.
    pub keys: Vec<KeySource>,
}

/// Where a master key is read from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
}

impl TryFrom<String> for KeySource {
    type Error = &'static str;

    /// What is refused is not shown: it may be the key itself.
    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("expected \"env:NAME\" or \"file:PATH\", where the key is"),
        }
    }
}
