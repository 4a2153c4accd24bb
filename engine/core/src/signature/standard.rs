//! Standard Webhooks `v1`: HMAC-SHA256 with a secret both sides hold.
//!
//! The key is hashed once, when it is read; each signature starts from a copy
//! of that state.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::{Candidate, Content, KeyError, Version, decode_secret, encode_into};

/// What a symmetric secret begins with.
pub(super) const PREFIX: &str = "whsec_";
/// Lengths of a secret once decoded, from the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// 32 bytes in base64.
const TEXT_LEN: usize = 44;

/// The keyed state; `hmac` and `sha2` wipe it when it is dropped.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let base64 = text.strip_prefix(PREFIX).unwrap_or(text);
        if base64.is_empty() {
            return Err(KeyError::Empty);
        }
        let secret = decode_secret(base64)?;
        if !SECRET_BYTES.contains(&secret.len()) {
            return Err(KeyError::SecretLength {
                bytes: secret.len(),
            });
        }
        let mac = Hmac::new_from_slice(&secret).expect("HMAC takes a key of any length");
        Ok(Self(mac))
    }

    pub(super) fn sign_into(&self, content: &Content<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"v1,");
        encode_into::<TEXT_LEN>(&self.tag(content), out);
    }

    pub(super) fn matches_any(&self, content: &Content<'_>, candidates: &[Candidate]) -> bool {
        let tag = self.tag(content);
        let mut matched = Choice::from(0);
        for signature in candidates.iter().filter_map(|c| c.of(Version::V1)) {
            matched |= tag.as_slice().ct_eq(signature);
        }
        matched.into()
    }

    fn tag(&self, content: &Content<'_>) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in content.0 {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}
