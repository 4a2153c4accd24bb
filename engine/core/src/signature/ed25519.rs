//! Standard Webhooks `v1a`: ed25519, so that receivers hold no secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use ed25519_dalek::ed25519::signature::{MultipartSigner as _, MultipartVerifier as _};
use ed25519_dalek::{
    KEYPAIR_LENGTH, PUBLIC_KEY_LENGTH, SECRET_KEY_LENGTH, Signature, SigningKey, VerifyingKey,
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Candidate, Content, KeyError, Version, decode_secret, encode_into};

/// What a seed and its public key begin with.
pub const SECRET_PREFIX: &str = "whsk_";
/// What a public key begins with.
pub(super) const PUBLIC_PREFIX: &str = "whpk_";
/// 64 bytes in base64.
const TEXT_LEN: usize = 88;

/// A seed with its public key; wiped when dropped.
pub(super) struct SecretKey(SigningKey);

/// What verifies.
pub(super) struct PublicKey(VerifyingKey);

/// What varies in a public key's JSON Web Key (RFC 8037): its type is `OKP`, its
/// curve `Ed25519`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jwk {
    /// Names the key: its thumbprint (RFC 7638).
    pub kid: String,
    /// The public key in base64url.
    pub x: String,
}

/// A new key pair, `whsk_` and base64, from its seed.
pub(super) fn generate(seed: &[u8; SECRET_KEY_LENGTH]) -> Zeroizing<String> {
    let pair = Zeroizing::new(SigningKey::from_bytes(seed).to_keypair_bytes());
    let mut base64 = Zeroizing::new([0; TEXT_LEN]);
    let len = BASE64
        .encode_slice(pair.as_slice(), base64.as_mut_slice())
        .expect("88 characters hold 64 bytes of base64");
    // Sized in advance: a string that grows leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + len));
    text.push_str(SECRET_PREFIX);
    text.extend(base64[..len].iter().copied().map(char::from));
    text
}

impl SecretKey {
    /// Reads what follows `whsk_`.
    pub(super) fn parse(base64: &str) -> Result<Self, KeyError> {
        let pair = decode_secret(base64)?;
        if pair.len() != KEYPAIR_LENGTH {
            return Err(KeyError::KeyLength {
                bytes: pair.len(),
                expected: KEYPAIR_LENGTH,
            });
        }
        let (seed, public) = pair.split_at(SECRET_KEY_LENGTH);
        let key = SigningKey::try_from(seed).expect("a seed of 32 bytes is a key");
        // Signing with a public key that is not the seed's gives the seed away
        // (the double public key oracle).
        if key.verifying_key().as_bytes() != public {
            return Err(KeyError::PairMismatch);
        }
        Ok(Self(key))
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign_into(&self, content: &Content<'_>, out: &mut Vec<u8>) {
        let signature: Signature = self.0.multipart_sign(&content.0);
        out.extend_from_slice(b"v1a,");
        encode_into::<TEXT_LEN>(&signature.to_bytes(), out);
    }
}

impl PublicKey {
    /// Reads what follows `whpk_`.
    pub(super) fn parse(base64: &str) -> Result<Self, KeyError> {
        let bytes = BASE64.decode(base64).map_err(|_| KeyError::Base64)?;
        let bytes: [u8; PUBLIC_KEY_LENGTH] =
            bytes
                .try_into()
                .map_err(|bytes: Vec<u8>| KeyError::KeyLength {
                    bytes: bytes.len(),
                    expected: PUBLIC_KEY_LENGTH,
                })?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::WeakPublic)?;
        // A key of small order accepts one signature for many bodies.
        if key.is_weak() {
            return Err(KeyError::WeakPublic);
        }
        Ok(Self(key))
    }

    pub(super) fn text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", BASE64.encode(self.0.as_bytes()))
    }

    pub(super) fn jwk(&self) -> Jwk {
        let x = URL_SAFE_NO_PAD.encode(self.0.as_bytes());
        // The members that are required, in the order of their names (RFC 7638, 3).
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()));
        Jwk { kid, x }
    }

    pub(super) fn matches_any(&self, content: &Content<'_>, candidates: &[Candidate]) -> bool {
        let mut matched = false;
        for bytes in candidates.iter().filter_map(|c| c.of(Version::V1a)) {
            let Ok(signature) = Signature::from_slice(bytes) else {
                continue;
            };
            matched |= self.0.multipart_verify(&content.0, &signature).is_ok();
        }
        matched
    }
}
