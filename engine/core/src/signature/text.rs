//! Secrets whose text is the key, as Stripe, GitHub and Slack use them: no
//! base64, any prefix is part of the key.

use subtle::{Choice, ConstantTimeEq as _};

use super::mac::Mac;
use super::{KeyError, ed25519};
use crate::limits::{TEXT_SECRET_BYTES_MAX, TEXT_SECRET_BYTES_MIN};

/// Of HMAC-SHA256.
const TAG_BYTES: usize = 32;

/// A secret, ready to sign and to verify.
pub(super) struct Key(Mac);

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        // Nobody means a private key to be shared with the receiver.
        if text.starts_with(ed25519::SECRET_PREFIX) {
            return Err(KeyError::NotShared);
        }
        if text.starts_with(ed25519::PUBLIC_PREFIX) {
            return Err(KeyError::PublicOnly);
        }
        if !(TEXT_SECRET_BYTES_MIN..=TEXT_SECRET_BYTES_MAX).contains(&text.len()) {
            return Err(KeyError::TextLength { bytes: text.len() });
        }
        // A line's end that came along would sign, and never verify.
        if text.trim() != text || text.contains(char::is_control) {
            return Err(KeyError::TextShape);
        }
        Ok(Self(Mac::new(text.as_bytes())))
    }

    /// The signature of these pieces, in lower-case hex.
    pub(super) fn sign_into(&self, content: &[&[u8]], out: &mut Vec<u8>) {
        hex_into(&self.0.tag(content), out);
    }

    /// Whether any of `candidates` is the signature of these pieces, digit for
    /// digit. Looks at all of them.
    pub(super) fn matches_any(&self, content: &[&[u8]], candidates: &[&[u8]]) -> bool {
        let mut tag = Vec::with_capacity(2 * TAG_BYTES);
        self.sign_into(content, &mut tag);
        let mut matched = Choice::from(0);
        for candidate in candidates {
            matched |= tag.as_slice().ct_eq(candidate);
        }
        matched.into()
    }
}

/// `bytes` in lower-case hex.
pub(super) fn hex_into(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
