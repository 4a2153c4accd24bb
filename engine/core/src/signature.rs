//! Signing what is sent, and verifying what is received, by one of four schemes.
//!
//! What Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>) signs is `{webhook-id}.{webhook-timestamp}.{body}`, byte for byte;
//! one file a scheme says how. Keys have no `Display`, their `Debug` shows
//! nothing, and their memory is wiped when they go. This module never makes up
//! randomness and never reads a clock: both are arguments.

mod ed25519;
mod github;
mod incoming;
mod mac;
mod scheme;
mod signer;
mod slack;
mod standard;
mod stripe;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

pub use self::ed25519::{Jwk, SECRET_PREFIX as KEY_PAIR_PREFIX};
pub use self::incoming::Incoming;
pub use self::scheme::{Algorithm, EVENT_HEADERS, Piece, Scheme, Signed, UnknownScheme};
pub use self::signer::Signer;
use crate::limits::{
    SIGNATURE_TOLERANCE, SIGNATURES_READ_MAX, TEXT_SECRET_BYTES_MAX, TEXT_SECRET_BYTES_MIN,
};
use crate::time::Timestamp;

/// The longest signature read: 64 bytes are 88 characters.
const SIGNATURE_BYTES_MAX: usize = 64;

/// A secret that Standard Webhooks signs with.
pub struct SigningKey(Signing);

enum Signing {
    Hmac(standard::Key),
    Ed25519(Box<ed25519::SecretKey>),
}

/// What a receiver needs to verify: the same secret for `v1`, the public key
/// for `v1a`.
pub struct VerifyingKey(Verifying);

enum Verifying {
    Hmac(standard::Key),
    Ed25519(Box<ed25519::PublicKey>),
}

/// Verifies received webhooks with any of a receiver's keys.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
}

/// A secret as text: wiped when dropped, shown only when asked for by name.
pub struct SecretText(Zeroizing<String>);

/// Key text that is not a key. No variant carries any part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No text, or nothing after the prefix.
    #[error("signing secret is empty: expected `whsec_` and base64")]
    Empty,
    /// Not standard base64 with padding.
    #[error("signing key is not base64: expected the standard alphabet with padding")]
    Base64,
    /// A symmetric secret of a length Standard Webhooks does not allow.
    #[error("signing secret is {bytes} bytes long: expected 24 to 64")]
    SecretLength {
        /// Its length once decoded.
        bytes: usize,
    },
    /// An ed25519 key of another length than its kind has.
    #[error("ed25519 key is {bytes} bytes long: expected {expected}")]
    KeyLength {
        /// Its length once decoded.
        bytes: usize,
        /// The right length.
        expected: usize,
    },
    /// The public half of a `whsk_` key is not the one its seed gives.
    #[error(
        "ed25519 key pair does not match: the last 32 bytes must be the public key of the seed"
    )]
    PairMismatch,
    /// 32 bytes that are no public key, or one that accepts forged signatures.
    #[error("ed25519 public key is not a usable point: expected the 32 bytes of a real key")]
    WeakPublic,
    /// A public key where a secret is needed.
    #[error("`whpk_` is a public key and cannot sign: expected `whsec_` or `whsk_`")]
    PublicOnly,
    /// A key pair where both sides need the same secret.
    #[error(
        "`whsk_` is an ed25519 key, with which only `standard_webhooks` signs: expected a text \
         that the receiver has too"
    )]
    NotShared,
    /// A text too short to be secret, or too long.
    #[error(
        "signing secret is {bytes} bytes long: expected {TEXT_SECRET_BYTES_MIN} to \
         {TEXT_SECRET_BYTES_MAX}"
    )]
    TextLength {
        /// Its length.
        bytes: usize,
    },
    /// A text with something invisible in it.
    #[error(
        "signing secret holds a control character, or a space at an end: expected the text alone"
    )]
    TextShape,
}

/// Why a received webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header is absent or empty.
    #[error("`{0}` header is missing")]
    Missing(&'static str),
    /// The id holds a `.`, which would let its end pass for the timestamp.
    #[error("`webhook-id` header is malformed: expected no `.` in it")]
    MalformedId,
    /// The timestamp is not a plain decimal number.
    #[error("the timestamp is malformed: expected seconds since 1970 in digits")]
    MalformedTimestamp,
    /// A header has not the form its scheme gives it.
    #[error("`{header}` header is malformed: expected {expected}")]
    Malformed {
        /// Its name.
        header: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Signed longer ago than the tolerance.
    #[error(
        "the timestamp is too old: expected at most the tolerance, 300 s by default, before now"
    )]
    TooOld,
    /// Signed further ahead than the tolerance.
    #[error(
        "the timestamp lies ahead: expected at most the tolerance, 300 s by default, after now"
    )]
    TooNew,
    /// No signature of a known version is right for any key.
    #[error("no signature in the header matches the body and a known key")]
    NoMatch,
}

/// The signed bytes, in the pieces they come in so that no body is copied.
struct Content<'a>([&'a [u8]; 5]);

impl SigningKey {
    /// Reads `whsec_` and base64 of 24 to 64 bytes (the prefix may be left out,
    /// as the reference libraries allow), or `whsk_` and base64 of a 32-byte
    /// ed25519 seed followed by its public key.
    ///
    /// # Errors
    /// What is wrong with the text, without showing it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.starts_with(ed25519::PUBLIC_PREFIX) {
            return Err(KeyError::PublicOnly);
        }
        match text.strip_prefix(ed25519::SECRET_PREFIX) {
            Some(pair) => {
                let key = ed25519::SecretKey::parse(pair)?;
                Ok(Self(Signing::Ed25519(Box::new(key))))
            }
            None => standard::Key::parse(text).map(|key| Self(Signing::Hmac(key))),
        }
    }

    /// The key a receiver verifies this one's signatures with.
    pub fn verifying(&self) -> VerifyingKey {
        VerifyingKey(match &self.0 {
            Signing::Hmac(key) => Verifying::Hmac(key.clone()),
            Signing::Ed25519(key) => Verifying::Ed25519(Box::new(key.public())),
        })
    }

    fn sign_into(&self, content: &Content<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Signing::Hmac(key) => key.sign_into(content, out),
            Signing::Ed25519(key) => key.sign_into(content, out),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl VerifyingKey {
    /// Reads `whpk_` and base64 of a 32-byte ed25519 public key, or any text
    /// [`SigningKey::parse`] reads.
    ///
    /// # Errors
    /// What is wrong with the text, without showing it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        match text.strip_prefix(ed25519::PUBLIC_PREFIX) {
            Some(public) => {
                let key = ed25519::PublicKey::parse(public)?;
                Ok(Self(Verifying::Ed25519(Box::new(key))))
            }
            None => SigningKey::parse(text).map(|key| key.verifying()),
        }
    }

    /// The `whpk_` text to publish; `None` for a shared secret, which is never
    /// published.
    pub fn public_text(&self) -> Option<String> {
        match &self.0 {
            Verifying::Hmac(_) => None,
            Verifying::Ed25519(key) => Some(key.text()),
        }
    }

    /// The public key as a JSON Web Key; `None` for a shared secret.
    pub fn jwk(&self) -> Option<Jwk> {
        match &self.0 {
            Verifying::Hmac(_) => None,
            Verifying::Ed25519(key) => Some(key.jwk()),
        }
    }

    /// Whether any of `candidates` is this key's signature of `content`. Looks
    /// at all of them: the time taken does not tell which one matched.
    fn matches_any(&self, content: &Content<'_>, candidates: &[Candidate]) -> bool {
        match &self.0 {
            Verifying::Hmac(key) => key.matches_any(content, candidates),
            Verifying::Ed25519(key) => key.matches_any(content, candidates),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(..)")
    }
}

impl Verifier {
    /// A verifier that believes any one of `keys`.
    pub fn new(keys: Vec<VerifyingKey>) -> Self {
        Self { keys }
    }

    /// Verifies one received webhook: its three headers, its body as the bytes
    /// that came over the wire, and the receiver's clock. Unknown signature
    /// versions are ignored; a timestamp exactly 300 s off passes.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub fn verify(
        &self,
        id: Option<&str>,
        timestamp: Option<&str>,
        signature: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let headers = [
            present(id, "webhook-id")?,
            present(timestamp, "webhook-timestamp")?,
            present(signature, "webhook-signature")?,
        ];
        self.verify_within(headers, body, now, SIGNATURE_TOLERANCE)
    }

    fn verify_within(
        &self,
        [id, timestamp, signature]: [&str; 3],
        body: &[u8],
        now: Timestamp,
        tolerance: Duration,
    ) -> Result<(), Refusal> {
        if id.contains('.') {
            return Err(Refusal::MalformedId);
        }
        within_tolerance(timestamp, now, tolerance)?;
        let content = Content::new(id.as_bytes(), timestamp.as_bytes(), body);
        let candidates = Candidate::read(signature);
        let mut matched = false;
        for key in &self.keys {
            matched |= key.matches_any(&content, &candidates);
        }
        if matched {
            Ok(())
        } else {
            Err(Refusal::NoMatch)
        }
    }
}

impl SecretText {
    pub(crate) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text itself: for the one answer that shows a new secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// A new symmetric secret, `whsec_` and base64, from 32 random bytes of the
/// operating system.
pub fn generate_secret(random: [u8; 32]) -> SecretText {
    let random = Zeroizing::new(random);
    let mut base64 = Zeroizing::new([0; 44]);
    let len = BASE64
        .encode_slice(random.as_slice(), base64.as_mut_slice())
        .expect("44 characters hold 32 bytes of base64");
    // Sized in advance: a string that grows leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(standard::PREFIX.len() + len));
    text.push_str(standard::PREFIX);
    text.extend(base64[..len].iter().copied().map(char::from));
    SecretText(text)
}

/// One entry of a received `webhook-signature` header.
struct Candidate {
    version: Version,
    bytes: [u8; SIGNATURE_BYTES_MAX],
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V1a,
}

impl Candidate {
    /// The entries of known versions that are base64; the rest are no
    /// signatures and match nothing.
    fn read(header: &str) -> Vec<Self> {
        let mut seen = [0_usize; 2];
        header
            .split(' ')
            .filter_map(|entry| {
                let (version, base64) = entry.split_once(',')?;
                let version = match version {
                    "v1" => Version::V1,
                    "v1a" => Version::V1a,
                    _ => return None,
                };
                let count = &mut seen[usize::from(version == Version::V1a)];
                *count += 1;
                if *count > SIGNATURES_READ_MAX {
                    return None;
                }
                let mut bytes = [0; SIGNATURE_BYTES_MAX];
                let len = BASE64.decode_slice(base64, &mut bytes).ok()?;
                Some(Self {
                    version,
                    bytes,
                    len,
                })
            })
            .collect()
    }

    fn of(&self, version: Version) -> Option<&[u8]> {
        (self.version == version).then(|| &self.bytes[..self.len])
    }
}

impl<'a> Content<'a> {
    fn new(id: &'a [u8], timestamp: &'a [u8], body: &'a [u8]) -> Self {
        Self([id, b".", timestamp, b".", body])
    }
}

/// Base64 of a secret, decoded into memory that is wiped.
fn decode_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bytes = BASE64.decode(text).map_err(|_| KeyError::Base64)?;
    Ok(Zeroizing::new(bytes))
}

/// `N` bytes, which become at most `M` characters, as base64.
fn encode_into<const M: usize>(bytes: &[u8], out: &mut Vec<u8>) {
    let mut text = [0; M];
    let len = BASE64
        .encode_slice(bytes, &mut text)
        .expect("the buffer is sized for the signature");
    out.extend_from_slice(&text[..len]);
}

fn present<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, Refusal> {
    value
        .filter(|text| !text.is_empty())
        .ok_or(Refusal::Missing(name))
}

fn within_tolerance(timestamp: &str, now: Timestamp, tolerance: Duration) -> Result<(), Refusal> {
    // `parse` alone would take a `+`.
    if !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::MalformedTimestamp);
    }
    let signed_s: u64 = timestamp.parse().map_err(|_| Refusal::MalformedTimestamp)?;
    let tolerance_s = tolerance.as_secs();
    let now_s = now.as_secs();
    if now_s.saturating_sub(signed_s) > tolerance_s {
        return Err(Refusal::TooOld);
    }
    if signed_s.saturating_sub(now_s) > tolerance_s {
        return Err(Refusal::TooNew);
    }
    Ok(())
}
