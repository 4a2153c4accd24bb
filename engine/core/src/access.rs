//! Who may do what: API keys, folded from the endpoints table, and the
//! short-lived tokens of tenants' portals.
//!
//! A key is `pk_<id>_<secret>`. Its secret is 32 random bytes, so there is
//! nothing to guess and a slow hash would only be work that anybody may cause: a
//! fast one is kept, BLAKE3 keyed by what it is for, and compared in constant
//! time. The key itself stands nowhere.
//!
//! ```text
//!  Authorization: Bearer pk_… --> key by id --> hash agrees --> Grant
//!                        pt_… --> key by id --> MAC, expiry --> Grant
//! ```
//!
//! A [`Grant`] is the only thing that lets a call in. Everything it was not
//! given, it may not.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::event::check_tenant;
use crate::id::KeyId;
use crate::limits::{CREDENTIAL_BYTES_MAX, KEY_DESCRIPTION_BYTES_MAX};
use crate::signature::SecretText;
use crate::time::Timestamp;

mod portal;

pub use portal::{Capability, portal_token};

/// Before a key's id in the endpoints table's keys.
const KEY_PREFIX: &str = "k/";
/// Bytes of a key's secret.
const SECRET_BYTES: usize = 32;
/// What the secrets of keys are hashed for.
const HASH_CONTEXT: &str = "posthaste 2026-11 api key";

/// What a key was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Events in.
    Publish,
    /// Looking, changing nothing.
    Read,
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Looking.
    Read,
    /// Events in.
    Publish,
    /// Making and changing a tenant's endpoints.
    Endpoints,
    /// Everything else.
    Admin,
}

/// A key as the log has it.
#[derive(Clone)]
pub struct ApiKey {
    /// Names it; the public part of the key.
    pub id: KeyId,
    hash: [u8; 32],
    /// What it is for, each once.
    pub scopes: Vec<Scope>,
    /// The only tenant it is for; `None` for all, and for what is no tenant's.
    pub tenant: Option<String>,
    /// What it is for, in people's words.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// At least one.
    pub scopes: Vec<Scope>,
    /// The only tenant it is for.
    pub tenant: Option<String>,
    /// In people's words.
    pub description: String,
}

/// The fold of the keys: those that are not revoked.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    by_id: BTreeMap<KeyId, Arc<ApiKey>>,
}

/// A caller who proved who they are, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The key, or the one that stands behind a portal token.
    pub key: KeyId,
    /// Came by a portal token.
    pub portal: bool,
    /// The only tenant it is for.
    pub tenant: Option<String>,
    /// Bits of [`Need`].
    powers: u8,
}

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger {
    /// The key that was named, whether there is one of that name or not.
    pub claimed: Option<KeyId>,
    /// Its time is over; otherwise it never was right, or is so no more.
    pub expired: bool,
}

/// What is wrong with a key to be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {problem}")]
pub struct KeyProblem {
    /// The field.
    pub param: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// The table's key of an API key.
pub fn key_key(id: KeyId) -> Bytes {
    Bytes::from(format!("{KEY_PREFIX}{id}"))
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Publish, Self::Read];

    /// Its name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::Read => "read",
        }
    }

    const fn powers(self) -> u8 {
        match self {
            Self::Admin => {
                Need::Read.bit() | Need::Publish.bit() | Need::Endpoints.bit() | Need::Admin.bit()
            }
            Self::Publish => Need::Publish.bit(),
            Self::Read => Need::Read.bit(),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| {
            let shown = text.escape_default();
            format!("`{shown}`: expected `admin`, `publish` or `read`")
        })
    }
}

impl Need {
    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Publish => 2,
            Self::Endpoints => 4,
            Self::Admin => 8,
        }
    }

    /// What would do, for people.
    pub const fn wanted(self) -> &'static str {
        match self {
            Self::Read => "the scope `read` or `admin`",
            Self::Publish => "the scope `publish` or `admin`",
            Self::Endpoints => "the scope `admin`, or a portal token with `endpoints`",
            Self::Admin => "the scope `admin`",
        }
    }
}

/// Portal tokens are signed with what follows from the hash: it is not shown.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

impl ApiKey {
    /// A new key from 32 random bytes of the operating system, and its text, to
    /// be shown this once.
    ///
    /// # Errors
    /// No scope, a tenant that is none, a description that is too long.
    pub fn make(
        id: KeyId,
        random: [u8; SECRET_BYTES],
        new: NewKey,
        now: Timestamp,
    ) -> Result<(Self, SecretText), KeyProblem> {
        let random = Zeroizing::new(random);
        let mut secret = Zeroizing::new([0; 43]);
        BASE64URL
            .encode_slice(random.as_slice(), secret.as_mut_slice())
            .expect("43 characters hold 32 bytes of base64");
        // Sized in advance: a string that grows leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(128));
        text.push_str(&id.to_string());
        text.push('_');
        text.extend(secret.iter().copied().map(char::from));
        let mut scopes = new.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let key = Self {
            id,
            hash: hash_of(random.as_slice()),
            scopes,
            tenant: new.tenant,
            description: new.description,
            created_at: now,
        };
        key.check()?;
        Ok((key, SecretText::new(text)))
    }

    fn check(&self) -> Result<(), KeyProblem> {
        let problem = |param, problem: String| Err(KeyProblem { param, problem });
        if self.scopes.is_empty() {
            let wanted = "expected at least one of `admin`, `publish` and `read`";
            return problem("scopes", wanted.to_owned());
        }
        if let Some(Err(error)) = self.tenant.as_deref().map(check_tenant) {
            return problem("tenant", error.to_string());
        }
        if self.description.len() > KEY_DESCRIPTION_BYTES_MAX {
            let most = format!("expected at most {KEY_DESCRIPTION_BYTES_MAX} bytes");
            return problem("description", most);
        }
        Ok(())
    }

    /// From its record.
    ///
    /// # Errors
    /// The field that is wrong: a scope of a newer version, too, which gives
    /// nothing here.
    pub fn from_proto(record: proto::ApiKey) -> Result<Self, KeyProblem> {
        let bytes = |param| KeyProblem {
            param,
            problem: "of the wrong length".to_owned(),
        };
        let scopes = record.scopes.iter().map(|scope| scope.parse());
        let scopes = scopes.collect::<Result<_, _>>();
        let key = Self {
            id: KeyId::from_bytes(record.id.as_ref().try_into().map_err(|_| bytes("id"))?),
            hash: record.hash.as_ref().try_into().map_err(|_| bytes("hash"))?,
            scopes: scopes.map_err(|problem| KeyProblem {
                param: "scopes",
                problem,
            })?,
            tenant: Some(record.tenant).filter(|tenant| !tenant.is_empty()),
            description: record.description,
            created_at: Timestamp::from_millis(record.created_at_ms),
        };
        key.check()?;
        Ok(key)
    }

    /// As its record.
    pub fn to_proto(&self) -> proto::ApiKey {
        proto::ApiKey {
            id: self.id.as_bytes().to_vec().into(),
            hash: self.hash.to_vec().into(),
            scopes: self.scopes.iter().map(|s| s.name().to_owned()).collect(),
            tenant: self.tenant.clone().unwrap_or_default(),
            description: self.description.clone(),
            created_at_ms: self.created_at.as_millis(),
        }
    }

    fn grant(&self) -> Grant {
        Grant {
            key: self.id,
            portal: false,
            tenant: self.tenant.clone(),
            powers: self.scopes.iter().fold(0, |all, one| all | one.powers()),
        }
    }
}

fn hash_of(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key(HASH_CONTEXT, secret)
}

impl Keys {
    /// Folds one record of the endpoints table; answers whether it was about a
    /// key. An empty value revokes.
    ///
    /// # Errors
    /// What cannot be read. It lets nobody in who was not in before.
    pub fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<bool, String> {
        let text = std::str::from_utf8(key).unwrap_or_default();
        let Some(id) = text.strip_prefix(KEY_PREFIX) else {
            return Ok(false);
        };
        let id: KeyId = id.parse().map_err(|e| format!("key `{text}`: {e}"))?;
        if value.is_empty() {
            self.by_id.remove(&id);
            return Ok(true);
        }
        let record = proto::ApiKey::from_value(value).map_err(|e| e.to_string())?;
        let read = ApiKey::from_proto(record).map_err(|e| e.to_string())?;
        if read.id != id {
            return Err(format!("key names {id}, the record {}", read.id));
        }
        self.by_id.insert(id, Arc::new(read));
        Ok(true)
    }

    /// A key that is not revoked.
    pub fn get(&self, id: KeyId) -> Option<&Arc<ApiKey>> {
        self.by_id.get(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<ApiKey>> {
        self.by_id.values()
    }

    /// Whom a credential lets in.
    ///
    /// # Errors
    /// Nobody. A wrong secret, a revoked key and one that never was are the
    /// same to whoever asks.
    pub fn admit(&self, credential: &str, now: Timestamp) -> Result<Grant, Stranger> {
        let stranger = Stranger {
            claimed: None,
            expired: false,
        };
        if credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(stranger);
        }
        if credential.starts_with(portal::PREFIX) {
            return portal::admit(self, credential, now);
        }
        let (id, secret) = split_key(credential).ok_or(stranger)?;
        let stranger = Stranger {
            claimed: Some(id),
            ..stranger
        };
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        let read = BASE64URL.decode_slice(secret, bytes.as_mut_slice());
        if read != Ok(SECRET_BYTES) {
            return Err(stranger);
        }
        let key = self.get(id).ok_or(stranger)?;
        let agrees = key.hash.ct_eq(&hash_of(bytes.as_slice()));
        match bool::from(agrees) {
            true => Ok(key.grant()),
            false => Err(stranger),
        }
    }
}

/// A key's id and secret. The cut is behind the id: a secret may hold a `_` of
/// its own.
fn split_key(text: &str) -> Option<(KeyId, &str)> {
    let (at, _) = text.match_indices('_').nth(1)?;
    let id = text[..at].parse().ok()?;
    Some((id, &text[at + 1..]))
}

impl Grant {
    /// Whether it lets this be done, to whichever tenant it is for.
    pub fn may(&self, need: Need) -> bool {
        self.powers & need.bit() != 0
    }
}

#[cfg(test)]
mod tests;
