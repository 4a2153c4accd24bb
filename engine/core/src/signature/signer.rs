//! Signs what is sent, with an endpoint's live keys.

use std::fmt;

use super::scheme::{Piece, Scheme, Signed};
use super::{Content, KeyError, SigningKey, github, slack, stripe, text};
use crate::limits::SIGNING_KEYS_MAX;

/// Longest decimal text of a `u64`.
pub(super) const DIGITS_MAX: usize = 20;
/// Signs deliveries with an endpoint's live keys, newest first. Shows nothing of
/// them.
pub struct Signer(Keys);

enum Keys {
    Standard(Vec<SigningKey>),
    Stripe(Vec<text::Key>),
    Github(Vec<text::Key>),
    Slack(Vec<text::Key>),
}

impl Signer {
    /// A Standard Webhooks signer for `keys`, newest first; keys past
    /// [`SIGNING_KEYS_MAX`] are dropped, oldest first.
    pub fn new(mut keys: Vec<SigningKey>) -> Self {
        keys.truncate(SIGNING_KEYS_MAX);
        Self(Keys::Standard(keys))
    }

    /// A signer that has no key yet.
    pub const fn of(scheme: Scheme) -> Self {
        Self(match scheme {
            Scheme::StandardWebhooks => Keys::Standard(Vec::new()),
            Scheme::Stripe => Keys::Stripe(Vec::new()),
            Scheme::Github => Keys::Github(Vec::new()),
            Scheme::Slack => Keys::Slack(Vec::new()),
        })
    }

    /// Takes a secret, older than those it has; one past [`SIGNING_KEYS_MAX`]
    /// signs nothing.
    ///
    /// # Errors
    /// What is wrong with the text, without showing it.
    pub fn add(&mut self, secret: &str) -> Result<(), KeyError> {
        match &mut self.0 {
            Keys::Standard(keys) => {
                keys.push(SigningKey::parse(secret)?);
                keys.truncate(SIGNING_KEYS_MAX);
            }
            Keys::Stripe(keys) | Keys::Github(keys) | Keys::Slack(keys) => {
                keys.push(text::Key::parse(secret)?);
                keys.truncate(SIGNING_KEYS_MAX);
            }
        }
        Ok(())
    }

    /// Whether it has no key, so signs nothing.
    pub const fn is_empty(&self) -> bool {
        match &self.0 {
            Keys::Standard(keys) => keys.is_empty(),
            Keys::Stripe(keys) | Keys::Github(keys) | Keys::Slack(keys) => keys.is_empty(),
        }
    }

    /// Appends what stands in one of the scheme's headers; appends nothing and
    /// answers false where this attempt does not send it.
    pub fn write(&self, piece: Piece, signed: &Signed<'_>, out: &mut Vec<u8>) -> bool {
        match piece {
            Piece::Id => out.extend_from_slice(signed.id),
            Piece::Timestamp => {
                out.extend_from_slice(decimal(signed.timestamp_s, &mut [0; DIGITS_MAX]));
            }
            Piece::Signature => self.sign_into(signed.id, signed.timestamp_s, signed.body, out),
            Piece::PreviousSignature => match &self.0 {
                Keys::Github(keys) if keys.len() > 1 => {
                    github::sign_into(&keys[1], signed.body, out);
                }
                _ => return false,
            },
            Piece::EventType => out.extend_from_slice(signed.event_type.as_bytes()),
            Piece::DeliveryGuid => github::guid_into(signed.endpoint, signed.id, out),
            Piece::Endpoint => out.extend_from_slice(signed.endpoint_text.as_bytes()),
            Piece::Attempt => {
                let number = u64::from(signed.retries) + 1;
                out.extend_from_slice(decimal(number, &mut [0; DIGITS_MAX]));
            }
            Piece::RetryNumber | Piece::RetryReason if signed.retries == 0 => return false,
            Piece::RetryNumber => {
                out.extend_from_slice(decimal(signed.retries.into(), &mut [0; DIGITS_MAX]));
            }
            Piece::RetryReason => {
                out.extend_from_slice(slack::reason(signed.last_cause).as_bytes());
            }
        }
        true
    }

    /// Appends the value of the scheme's signature header. Standard Webhooks
    /// signs `id.timestamp.body`: one `v1,<base64>` or `v1a,<base64>` a key, a
    /// space between them. `id` must hold no `.`; `timestamp_s` is the attempt's
    /// time in seconds since 1970.
    pub fn sign_into(&self, id: &[u8], timestamp_s: u64, body: &[u8], out: &mut Vec<u8>) {
        debug_assert!(!id.contains(&b'.'), "a signed id holds no dot");
        let mut digits = [0; DIGITS_MAX];
        let timestamp = decimal(timestamp_s, &mut digits);
        match &self.0 {
            Keys::Standard(keys) => {
                let content = Content::new(id, timestamp, body);
                for (place, key) in keys.iter().enumerate() {
                    if place > 0 {
                        out.push(b' ');
                    }
                    key.sign_into(&content, out);
                }
            }
            Keys::Stripe(keys) => stripe::sign_into(keys, timestamp, body, out),
            Keys::Github(keys) => {
                if let Some(newest) = keys.first() {
                    github::sign_into(newest, body, out);
                }
            }
            Keys::Slack(keys) => {
                if let Some(newest) = keys.first() {
                    slack::sign_into(newest, timestamp, body, out);
                }
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// `value` in decimal, at the end of `buffer`: no allocation, no `fmt`.
pub(super) fn decimal(mut value: u64, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        let digit = u8::try_from(value % 10).expect("a digit is below 10");
        buffer[start] = b'0' + digit;
        value /= 10;
        if value == 0 {
            return &buffer[start..];
        }
    }
}
