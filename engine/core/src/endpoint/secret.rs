//! An endpoint's signing secrets: how the log holds one, when it is live, and
//! how one follows another.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use posthaste_proto as proto;
use zeroize::Zeroizing;

use super::Endpoint;
use crate::limits::SECRETS_MAX;
use crate::signature::{KEY_PAIR_PREFIX, SigningKey};
use crate::time::Timestamp;

/// A signing secret and when it is live.
#[derive(Clone)]
pub struct Secret {
    /// Names it without showing it.
    pub id: String,
    /// Its text, as the log holds it.
    pub held: Held,
    /// Of a key pair the half that verifies, `whpk_…`.
    pub public: Option<String>,
    /// When it was made; zero if with its endpoint.
    pub created_at: Timestamp,
    /// Signs from then on.
    pub not_before: Timestamp,
    /// Signs until then; `None` for ever.
    pub expires_at: Option<Timestamp>,
}

/// A text that is not to be read in the log: a secret in the form of its
/// endpoint's scheme, or a header's value.
#[derive(Clone)]
pub enum Held {
    /// As it is: written before secrets were sealed.
    Clear(Zeroizing<String>),
    /// As it is kept.
    Sealed(Sealed),
}

/// A text that only a master key opens.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key.
    pub key_id: String,
    /// What the cipher needs besides.
    pub nonce: Bytes,
    /// Unreadable, with its tag.
    pub text: Bytes,
}

/// An endpoint has no room for another secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the endpoint has {SECRETS_MAX} live secrets: delete one, wait until one expires, or take an \
     `overlap` of \"0s\""
)]
pub struct TooManySecrets;

/// Why a secret cannot be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// It is not there.
    #[error("no such secret")]
    Unknown,
    /// Without it nothing would sign, now or later.
    #[error("it is the newest secret, which stays: rotate it with an `overlap` of \"0s\"")]
    Newest,
}

impl Held {
    /// As a record has it: in the clear, or sealed.
    pub(super) fn to_proto(&self) -> (String, Option<proto::Sealed>) {
        match self {
            Self::Clear(text) => (text.as_str().to_owned(), None),
            Self::Sealed(sealed) => (String::new(), Some(sealed.clone().into())),
        }
    }
}

impl From<Sealed> for proto::Sealed {
    fn from(sealed: Sealed) -> Self {
        Self {
            key_id: sealed.key_id,
            nonce: sealed.nonce,
            text: sealed.text,
        }
    }
}

impl From<proto::Sealed> for Sealed {
    fn from(record: proto::Sealed) -> Self {
        Self {
            key_id: record.key_id,
            nonce: record.nonce,
            text: record.text,
        }
    }
}

impl Secret {
    /// A secret that signs at once and for ever. `text` is what `held` holds.
    pub fn new(id: String, text: &str, held: Held, now: Timestamp) -> Self {
        Self {
            id,
            held,
            public: public_half(text),
            created_at: now,
            // Not `now`: an instance whose clock is behind would have no secret.
            not_before: Timestamp::default(),
            expires_at: None,
        }
    }

    /// Whether it signs at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.not_before <= now && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it is a key pair, whose public half is published.
    pub const fn is_key_pair(&self) -> bool {
        self.public.is_some()
    }

    /// As its record.
    pub fn to_proto(&self) -> proto::Secret {
        let (text, sealed) = self.held.to_proto();
        proto::Secret {
            id: self.id.clone(),
            text,
            not_before_ms: self.not_before.as_millis(),
            expires_at_ms: self.expires_at.map_or(0, Timestamp::as_millis),
            sealed,
            public: self.public.clone().unwrap_or_default(),
            created_at_ms: self.created_at.as_millis(),
        }
    }

    pub(super) fn from_proto(record: proto::Secret) -> Self {
        let public = Some(record.public).filter(|public| !public.is_empty());
        Self {
            public: public.or_else(|| public_half(&record.text)),
            id: record.id,
            held: match record.sealed {
                None => Held::Clear(Zeroizing::new(record.text)),
                Some(sealed) => Held::Sealed(sealed.into()),
            },
            created_at: Timestamp::from_millis(record.created_at_ms),
            not_before: Timestamp::from_millis(record.not_before_ms),
            expires_at: (record.expires_at_ms > 0)
                .then(|| Timestamp::from_millis(record.expires_at_ms)),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.id)
    }
}

impl Endpoint {
    /// Lets a new secret sign; those before it sign for `overlap` more, at most.
    /// Those that are over are forgotten.
    ///
    /// # Errors
    /// Too many of them are live.
    pub fn rotate(
        &mut self,
        secret: Secret,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<(), TooManySecrets> {
        let end = now.after(overlap);
        let mut older = self.secrets.clone();
        for one in &mut older {
            one.expires_at = Some(one.expires_at.map_or(end, |at| at.min(end)));
        }
        older.retain(|one| one.expires_at.is_some_and(|at| now < at));
        if older.len() >= SECRETS_MAX {
            return Err(TooManySecrets);
        }
        older.insert(0, secret);
        self.secrets = older;
        Ok(())
    }

    /// Takes back a secret before it expires: not the newest.
    ///
    /// # Errors
    /// It is not there, or the newest.
    pub fn remove_secret(&mut self, id: &str) -> Result<(), RemoveError> {
        match self.secrets.iter().position(|secret| secret.id == id) {
            None => Err(RemoveError::Unknown),
            Some(0) => Err(RemoveError::Newest),
            Some(place) => {
                self.secrets.remove(place);
                Ok(())
            }
        }
    }
}

/// The public half of a key pair's text.
fn public_half(text: &str) -> Option<String> {
    let is_pair = text.starts_with(KEY_PAIR_PREFIX);
    let key = is_pair.then(|| SigningKey::parse(text).ok()).flatten()?;
    key.verifying().public_text()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const HOUR: Duration = Duration::from_secs(3_600);

    fn secret(id: &str, text: &str) -> Secret {
        let sealed = Sealed {
            key_id: "k".into(),
            nonce: Bytes::from_static(b"nonce"),
            text: Bytes::from_static(b"sealed"),
        };
        Secret::new(id.into(), text, Held::Sealed(sealed), at(0))
    }

    const fn at(hour: u64) -> Timestamp {
        Timestamp::from_millis(hour * 3_600_000)
    }

    fn live(endpoint: &Endpoint, now: Timestamp) -> Vec<&str> {
        let live = endpoint.secrets.iter().filter(|s| s.is_live(now));
        live.map(|secret| secret.id.as_str()).collect()
    }

    #[test]
    fn a_sealed_secret_reads_back_and_a_clear_one_too() {
        for text in ["whsec_x", PAIR] {
            let record = secret("a", text).to_proto();
            assert_eq!(record.text, "", "its text does not stand beside it");
            let again = Secret::from_proto(record.clone());
            assert_eq!(again.to_proto(), record);
            assert_eq!(again.is_key_pair(), text == PAIR);
        }
        let clear = proto::Secret {
            id: "a".into(),
            text: PAIR.into(),
            ..Default::default()
        };
        let again = Secret::from_proto(clear);
        assert!(matches!(&again.held, Held::Clear(text) if text.as_str() == PAIR));
        assert_eq!(again.public.as_deref(), Some(PUBLIC));
    }

    #[test]
    fn a_rotated_secret_signs_beside_the_new_one_for_the_overlap() {
        let mut endpoint = Endpoint::from_proto(sample(1, "acme", &[])).unwrap();
        endpoint.rotate(secret("b", "x"), 24 * HOUR, at(1)).unwrap();
        assert_eq!(live(&endpoint, at(24)), ["b", "s1"]);
        assert_eq!(live(&endpoint, at(25)), ["b"]);
        // A longer overlap does not bring back what is on its way out.
        endpoint.rotate(secret("c", "x"), 99 * HOUR, at(2)).unwrap();
        assert_eq!(live(&endpoint, at(2)), ["c", "b", "s1"]);
        assert_eq!(live(&endpoint, at(25)), ["c", "b"]);
        let full = endpoint.rotate(secret("d", "x"), HOUR, at(3));
        assert_eq!(full, Err(TooManySecrets));
        assert_eq!(live(&endpoint, at(3)), ["c", "b", "s1"], "unchanged");
        endpoint.rotate(secret("d", "x"), HOUR, at(25)).unwrap();
        assert_eq!(live(&endpoint, at(25)), ["d", "c", "b"]);
        endpoint
            .rotate(secret("e", "x"), Duration::ZERO, at(25))
            .unwrap();
        assert_eq!(live(&endpoint, at(25)), ["e"]);
        assert_eq!(endpoint.secrets.len(), 1, "the others are forgotten");
    }

    #[test]
    fn the_newest_secret_stays() {
        let mut endpoint = Endpoint::from_proto(sample(1, "acme", &[])).unwrap();
        endpoint.rotate(secret("b", "x"), HOUR, at(1)).unwrap();
        assert_eq!(endpoint.remove_secret("b"), Err(RemoveError::Newest));
        assert_eq!(endpoint.remove_secret("x"), Err(RemoveError::Unknown));
        assert_eq!(endpoint.remove_secret("s1"), Ok(()));
        assert_eq!(live(&endpoint, at(1)), ["b"]);
    }
}
