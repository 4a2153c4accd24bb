//! Verifying what is received, by the scheme its sender uses.
//!
//! It looks at the headers its scheme signs by and at no others, compares in
//! constant time, and never says which secret matched.

use std::fmt;
use std::time::Duration;

use super::scheme::Scheme;
use super::{
    KeyError, Refusal, Verifier, VerifyingKey, github, present, slack, stripe, text,
    within_tolerance,
};
use crate::limits::SIGNATURE_TOLERANCE;
use crate::time::Timestamp;

/// Verifies received webhooks of one scheme with any of some secrets. Shows
/// nothing of them.
pub struct Incoming {
    keys: Keys,
    tolerance: Duration,
}

enum Keys {
    Standard(Verifier),
    Stripe(Vec<text::Key>),
    Github(Vec<text::Key>),
    Slack(Vec<text::Key>),
}

impl Incoming {
    /// Believes whatever any of `secrets` signed, by the scheme, within
    /// [`SIGNATURE_TOLERANCE`] of now.
    ///
    /// # Errors
    /// What is wrong with a secret, without showing it; [`KeyError::Empty`]
    /// without any.
    pub fn new(scheme: Scheme, secrets: &[&str]) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::Empty);
        }
        let texts = || secrets.iter().map(|secret| text::Key::parse(secret));
        let keys = match scheme {
            Scheme::StandardWebhooks => {
                let keys = secrets.iter().map(|secret| VerifyingKey::parse(secret));
                Keys::Standard(Verifier::new(keys.collect::<Result<_, _>>()?))
            }
            Scheme::Stripe => Keys::Stripe(texts().collect::<Result<_, _>>()?),
            Scheme::Github => Keys::Github(texts().collect::<Result<_, _>>()?),
            Scheme::Slack => Keys::Slack(texts().collect::<Result<_, _>>()?),
        };
        Ok(Self {
            keys,
            tolerance: SIGNATURE_TOLERANCE,
        })
    }

    /// With another tolerance, to whole seconds, where the scheme signs a time.
    #[must_use]
    pub fn with_tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }

    /// Verifies one received webhook. `header` gives the value of a header by
    /// its name in lower case; `body` is the bytes that came over the wire.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub fn verify<'a>(
        &self,
        header: impl Fn(&'static str) -> Option<&'a str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let needed = |name| present(header(name), name);
        match &self.keys {
            Keys::Standard(verifier) => verifier.verify_within(
                [
                    needed("webhook-id")?,
                    needed("webhook-timestamp")?,
                    needed("webhook-signature")?,
                ],
                body,
                now,
                self.tolerance,
            ),
            Keys::Stripe(keys) => {
                let (timestamp, candidates) = stripe::read(needed(stripe::SIGNATURE)?)?;
                within_tolerance(timestamp, now, self.tolerance)?;
                any_matches(
                    keys,
                    &stripe::content(timestamp.as_bytes(), body),
                    &candidates,
                )
            }
            Keys::Github(keys) => {
                let mut candidates = vec![github::read(needed(github::SIGNATURE)?)?];
                // The older secret's, while the sender changes it.
                if let Some(previous) = header(github::PREVIOUS) {
                    candidates.push(github::read(previous)?);
                }
                any_matches(keys, &[body], &candidates)
            }
            Keys::Slack(keys) => {
                let timestamp = needed(slack::TIMESTAMP)?;
                within_tolerance(timestamp, now, self.tolerance)?;
                let candidate = slack::read(needed(slack::SIGNATURE)?)?;
                any_matches(
                    keys,
                    &slack::content(timestamp.as_bytes(), body),
                    &[candidate],
                )
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming(..)")
    }
}

/// Tries all keys: the time taken does not tell which one matched.
fn any_matches(keys: &[text::Key], content: &[&[u8]], candidates: &[&[u8]]) -> Result<(), Refusal> {
    let mut matched = false;
    for key in keys {
        matched |= key.matches_any(content, candidates);
    }
    match matched {
        true => Ok(()),
        false => Err(Refusal::NoMatch),
    }
}
