//! HMAC-SHA256, which all schemes but ed25519 sign with.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A secret's keyed state: the secret is hashed once, and each signature starts
/// from a copy. `hmac` and `sha2` wipe it when it is dropped.
#[derive(Clone)]
pub(super) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// The tag of these pieces, one after another.
    pub(super) fn tag(&self, content: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for piece in content {
            mac.update(piece);
        }
        mac.finalize().into_bytes().into()
    }
}
