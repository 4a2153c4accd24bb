//! The schemes an endpoint can choose: which headers each sends, and what form
//! its secrets have.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::{
    KeyError, SecretText, SigningKey, ed25519, generate_secret, github, slack, standard, stripe,
    text,
};
use crate::outcome::Cause;

/// How an endpoint's deliveries are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Standard Webhooks: `v1` and `v1a`, every live secret signs.
    #[default]
    StandardWebhooks,
    /// `Stripe-Signature`, every live secret signs.
    Stripe,
    /// `X-Hub-Signature-256`, the two newest live secrets sign.
    Github,
    /// `X-Slack-Signature`, the newest live secret signs.
    Slack,
}

/// What stands in one header of a signed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The event's id.
    Id,
    /// The attempt's time, seconds since 1970.
    Timestamp,
    /// The scheme's signature, or signatures.
    Signature,
    /// The older secret's signature, while there is one.
    PreviousSignature,
    /// The event's type.
    EventType,
    /// A GUID of the event for this endpoint.
    DeliveryGuid,
    /// The endpoint's id.
    Endpoint,
    /// Which attempt it is, from 1.
    Attempt,
    /// Which retry it is, from 1; none on a first attempt.
    RetryNumber,
    /// Why there is a retry; none on a first attempt.
    RetryReason,
}

/// What one attempt signs and says.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The event's id. It must hold no `.`.
    pub id: &'a [u8],
    /// The attempt's time, seconds since 1970.
    pub timestamp_s: u64,
    /// The body.
    pub body: &'a [u8],
    /// The event's type.
    pub event_type: &'a str,
    /// The endpoint's id, as bytes.
    pub endpoint: &'a [u8; 16],
    /// … and as text.
    pub endpoint_text: &'a str,
    /// Attempts made before.
    pub retries: u32,
    /// What the last of them came to, where it is known.
    pub last_cause: Option<Cause>,
}

/// What a new secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// One that both sides hold.
    #[default]
    HmacSha256,
    /// A key pair, whose public half the receiver holds.
    Ed25519,
}

/// A name that is no scheme's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `standard_webhooks`, `stripe`, `github` or `slack`")]
pub struct UnknownScheme;

/// What an endpoint can ask for beside its scheme's headers. No signature covers
/// them.
pub const EVENT_HEADERS: &[(&str, Piece)] = &[
    ("webhook-event-type", Piece::EventType),
    ("webhook-attempt", Piece::Attempt),
    ("webhook-retry-reason", Piece::RetryReason),
];

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::StandardWebhooks,
        Self::Stripe,
        Self::Github,
        Self::Slack,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard_webhooks",
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Slack => "slack",
        }
    }

    /// The headers of a signed request, names in lower case. All schemes send
    /// `webhook-id`, by which a receiver knows what it has had before.
    pub const fn headers(self) -> &'static [(&'static str, Piece)] {
        match self {
            Self::StandardWebhooks => standard::HEADERS,
            Self::Stripe => stripe::HEADERS,
            Self::Github => github::HEADERS,
            Self::Slack => slack::HEADERS,
        }
    }

    /// Whether a header, its name in lower case, is the scheme's own to set.
    pub fn owns_header(self, name: &str) -> bool {
        let prefixes: &[&str] = match self {
            Self::StandardWebhooks => &[],
            Self::Stripe => &["stripe-signature"],
            Self::Github => &["x-github-", "x-hub-signature"],
            Self::Slack => &["x-slack-"],
        };
        name.starts_with("webhook-") || prefixes.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Whether a text is a secret of this scheme.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn check_secret(self, text: &str) -> Result<(), KeyError> {
        match self {
            Self::StandardWebhooks => SigningKey::parse(text).map(drop),
            Self::Stripe | Self::Github | Self::Slack => text::Key::parse(text).map(drop),
        }
    }

    /// A new secret from 32 random bytes of the operating system; `None` where
    /// the scheme does not know the algorithm.
    pub fn generate_secret(self, algorithm: Algorithm, random: [u8; 32]) -> Option<SecretText> {
        match (self, algorithm) {
            (Self::StandardWebhooks, Algorithm::HmacSha256) => Some(generate_secret(random)),
            (Self::StandardWebhooks, Algorithm::Ed25519) => {
                Some(SecretText(ed25519::generate(&random)))
            }
            (Self::Stripe, Algorithm::HmacSha256) => Some(hex_secret(standard::PREFIX, random)),
            (Self::Github | Self::Slack, Algorithm::HmacSha256) => Some(hex_secret("", random)),
            (Self::Stripe | Self::Github | Self::Slack, Algorithm::Ed25519) => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, UnknownScheme> {
        let known = Self::ALL.into_iter().find(|scheme| scheme.name() == name);
        known.ok_or(UnknownScheme)
    }
}

impl Algorithm {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac_sha256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// The random bytes in hex behind `prefix`.
fn hex_secret(prefix: &str, random: [u8; 32]) -> SecretText {
    let random = Zeroizing::new(random);
    let mut hex = Zeroizing::new(Vec::with_capacity(2 * random.len()));
    text::hex_into(random.as_slice(), &mut hex);
    // Sized in advance: a string that grows leaves a copy behind.
    let mut secret = Zeroizing::new(String::with_capacity(prefix.len() + hex.len()));
    secret.push_str(prefix);
    secret.extend(hex.iter().copied().map(char::from));
    SecretText(secret)
}
