//! Standard Webhooks `v1`: HMAC-SHA256 with a secret both sides hold.

use subtle::{Choice, ConstantTimeEq as _};

use super::mac::Mac;
use super::scheme::Piece;
use super::{Candidate, Content, KeyError, Version, decode_secret, encode_into};

/// What a symmetric secret begins with.
pub(super) const PREFIX: &str = "whsec_";
/// Lengths of a secret once decoded, from the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// 32 bytes in base64.
const TEXT_LEN: usize = 44;

pub(super) const HEADERS: &[(&str, Piece)] = &[
    ("webhook-id", Piece::Id),
    ("webhook-timestamp", Piece::Timestamp),
    ("webhook-signature", Piece::Signature),
];

/// A secret, ready to sign.
#[derive(Clone)]
pub(super) struct Key(Mac);

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
        Ok(Self(Mac::new(&secret)))
    }

    pub(super) fn sign_into(&self, content: &Content<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"v1,");
        encode_into::<TEXT_LEN>(&self.0.tag(&content.0), out);
    }

    pub(super) fn matches_any(&self, content: &Content<'_>, candidates: &[Candidate]) -> bool {
        let tag = self.0.tag(&content.0);
        let mut matched = Choice::from(0);
        for signature in candidates.iter().filter_map(|c| c.of(Version::V1)) {
            matched |= tag.as_slice().ct_eq(signature);
        }
        matched.into()
    }
}
