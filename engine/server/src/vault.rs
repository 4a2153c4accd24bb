//! Secrets at rest: sealed under a master key before they enter the log, opened
//! only where they sign. So are the values of endpoints' own headers, which can
//! be credentials, and answers that can show either.
//!
//! A sealed secret is XChaCha20-Poly1305 under a random nonce, bound to its
//! endpoint and its own id, so that nobody who can write the log moves one
//! elsewhere. The first master key seals, all of them open. What was written
//! before secrets were sealed is read as it stands.

use std::io;
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use posthaste_core::endpoint::{Endpoint, Held, Sealed};
use posthaste_core::id::EndpointId;
use posthaste_core::registry::Registry;
use posthaste_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::config::{Config, LogUrl};

mod source;
#[cfg(test)]
mod tests;

/// The key file that the embedded log's folder has when no key is set.
const KEY_FILE: &str = "secrets.key";
/// Bytes of a nonce that may be drawn at random (XChaCha20's draft, section 1).
const NONCE_BYTES: usize = 24;
/// What a sealed secret is, before endpoint and id.
const PURPOSE: &[u8] = b"posthaste endpoint secret v1";
/// … and a sealed answer, before its key's hash.
const ANSWER_PURPOSE: &[u8] = b"posthaste answer v1";

/// Master keys, at least one. Shows their ids only.
pub struct Vault {
    /// Seals.
    first: MasterKey,
    /// Only open.
    others: Vec<MasterKey>,
}

struct MasterKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Why there are no master keys. Every text begins with the configuration's key
/// and shows nothing of a key.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Kafka's topics are no place beside which to make a key.
    #[error(
        "secrets.keys: none is set: with `log = \"kafka://...\"` expected at least one, such as \
         \"env:POSTHASTE_SECRETS_KEY\" or \"file:/etc/posthaste/secrets.key\", the same on all \
         instances, that holds 32 random bytes in base64 (`head -c 32 /dev/urandom | base64`)"
    )]
    NoKey,
    /// A source holds no key.
    #[error(
        "secrets.keys: `{place}` {problem}: expected 32 random bytes in base64 (`head -c 32 \
         /dev/urandom | base64`)"
    )]
    Unusable {
        /// Where it was looked for.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The folder's own key cannot be made.
    #[error("secrets.keys: none is set, and {path} cannot be made: {error}")]
    NotMade {
        /// The key file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The table has secrets that none of the keys opens.
    #[error(
        "secrets.keys: endpoint {endpoint} has a secret sealed under the master key `{key_id}`, \
         but here are {known}: expected that key too, behind the first"
    )]
    Foreign {
        /// The endpoint.
        endpoint: EndpointId,
        /// The key's id.
        key_id: String,
        /// Those that are here.
        known: String,
    },
}

/// Why a secret cannot be sealed: the system gives no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no randomness: {0}")]
pub struct SealError(#[from] getrandom::Error);

/// Why a secret cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Sealed under a key that is not here.
    #[error("sealed under the master key `{key_id}`, which is not among `secrets.keys`")]
    UnknownKey {
        /// The key's id.
        key_id: String,
    },
    /// Not what was sealed, or not for this endpoint and id.
    #[error("the sealed text is damaged, or another's")]
    Damaged,
}

impl Vault {
    /// The configured keys; `None` where the embedded log's folder has its own,
    /// see [`beside`](Self::beside).
    ///
    /// # Errors
    /// The first source that holds no key, or that Kafka's secrets have none.
    pub fn configured(config: &Config) -> Result<Option<Self>, VaultError> {
        let mut keys = Vec::new();
        for source in &config.secrets.keys {
            let key = source::read(source)?;
            keys.push(MasterKey::new(&key));
        }
        let mut keys = keys.into_iter();
        match (keys.next(), &config.log) {
            (Some(first), _) => Ok(Some(Self {
                first,
                others: keys.collect(),
            })),
            (None, LogUrl::Embedded(_)) => Ok(None),
            (None, LogUrl::Kafka(_)) => Err(VaultError::NoKey),
        }
    }

    /// The key of a folder that is open and ours; made at its first start.
    ///
    /// # Errors
    /// The key file cannot be read or made.
    pub fn beside(folder: &Path) -> Result<Self, VaultError> {
        let key = source::read_or_make(&folder.join(KEY_FILE))?;
        Ok(Self {
            first: MasterKey::new(&key),
            others: Vec::new(),
        })
    }

    /// Seals a text for its endpoint and id, under the first key.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn seal(&self, endpoint: EndpointId, id: &str, text: &str) -> Result<Sealed, SealError> {
        self.seal_for(&bound_to(endpoint, id), text.as_bytes())
    }

    /// Seals what a request with an idempotency key was answered, for that key's
    /// hash.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn seal_answer(&self, key: &[u8; 32], answer: &[u8]) -> Result<Sealed, SealError> {
        self.seal_for(&[ANSWER_PURPOSE, key].concat(), answer)
    }

    fn seal_for(&self, aad: &[u8], msg: &[u8]) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let payload = Payload { msg, aad };
        let text = self.first.cipher.encrypt(&XNonce::from(nonce), payload);
        Ok(Sealed {
            key_id: self.first.id.clone(),
            nonce: nonce.to_vec().into(),
            text: text.expect("far below the cipher's bound").into(),
        })
    }

    /// A text that is kept for an endpoint under this id.
    ///
    /// # Errors
    /// Its key is not here, or it is not what was sealed.
    pub fn open(
        &self,
        endpoint: EndpointId,
        id: &str,
        held: &Held,
    ) -> Result<Zeroizing<String>, OpenError> {
        let sealed = match held {
            Held::Clear(text) => return Ok(text.clone()),
            Held::Sealed(sealed) => sealed,
        };
        let text = self.open_for(&bound_to(endpoint, id), sealed)?;
        String::from_utf8(text)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Damaged)
    }

    /// The answer that is kept for a key's hash.
    ///
    /// # Errors
    /// Its key is not here, or it is not what was sealed.
    pub fn open_answer(
        &self,
        key: &[u8; 32],
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_for(&[ANSWER_PURPOSE, key].concat(), sealed)
            .map(Zeroizing::new)
    }

    fn open_for(&self, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, OpenError> {
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        let key = keys.find(|key| key.id == sealed.key_id);
        let key = key.ok_or_else(|| OpenError::UnknownKey {
            key_id: sealed.key_id.clone(),
        })?;
        let nonce = <[u8; NONCE_BYTES]>::try_from(sealed.nonce.as_ref());
        let nonce = nonce.map_err(|_| OpenError::Damaged)?;
        let payload = Payload {
            msg: sealed.text.as_ref(),
            aad,
        };
        let text = key.cipher.decrypt(&XNonce::from(nonce), payload);
        text.map_err(|_| OpenError::Damaged)
    }

    /// Whether everything of an endpoint is sealed as it would be now.
    pub fn is_current(&self, endpoint: &Endpoint) -> bool {
        endpoint.kept().all(|(_, held)| self.has_sealed(held))
    }

    fn has_sealed(&self, held: &Held) -> bool {
        matches!(held, Held::Sealed(sealed) if sealed.key_id == self.first.id)
    }

    /// Seals of an endpoint's secrets and headers those that are not current.
    ///
    /// # Errors
    /// One cannot be opened, or sealed.
    pub fn reseal(&self, endpoint: &mut Endpoint) -> Result<(), ResealError> {
        let whose = endpoint.id;
        for (id, held) in endpoint.kept_mut() {
            if !self.has_sealed(held) {
                let text = self.open(whose, &id, held)?;
                *held = Held::Sealed(self.seal(whose, &id, &text)?);
            }
        }
        Ok(())
    }

    /// Looks through the table: how many endpoints have secrets in the clear or
    /// under an older key.
    ///
    /// # Errors
    /// A live secret's key is not here.
    pub fn judge(&self, registry: &Registry, now: Timestamp) -> Result<usize, VaultError> {
        let mut stale = 0;
        for endpoint in registry.endpoints() {
            stale += usize::from(!self.is_current(endpoint));
            let secrets = endpoint.secrets.iter().filter(|s| s.is_live(now));
            let headers = endpoint.headers.iter().map(|header| &header.held);
            for held in secrets.map(|secret| &secret.held).chain(headers) {
                if let Held::Sealed(sealed) = held
                    && !self.ids().any(|id| id == sealed.key_id)
                {
                    let known: Vec<_> = self.ids().map(|id| format!("`{id}`")).collect();
                    return Err(VaultError::Foreign {
                        endpoint: endpoint.id,
                        key_id: sealed.key_id.clone(),
                        known: known.join(", "),
                    });
                }
            }
        }
        Ok(stale)
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        let keys = std::iter::once(&self.first).chain(&self.others);
        keys.map(|key| key.id.as_str())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// Why an endpoint's secrets cannot be sealed anew.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// One cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKey {
    fn new(key: &[u8; 32]) -> Self {
        // Says which key it is and nothing of the key, which is random.
        let hash = blake3::derive_key("posthaste master key id v1", key);
        let id = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id,
            cipher: XChaCha20Poly1305::new(key.into()),
        }
    }
}

/// What a sealed secret is bound to. The endpoint's id has a fixed length, so no
/// two of them are the same bytes.
fn bound_to(endpoint: EndpointId, id: &str) -> Vec<u8> {
    [PURPOSE, endpoint.as_bytes(), id.as_bytes()].concat()
}
