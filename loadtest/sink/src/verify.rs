//! Whether a request's signature is checked, and what came of it.

use std::str::FromStr;

use posthaste_core::signature::{Refusal, Verifier, VerifyingKey};
use posthaste_core::time::Timestamp;
use serde::Serialize;

use crate::request::Request;

/// Signature failures kept with their reason.
const FAILURES_SHOWN_MAX: usize = 20;

/// Which requests are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Every one.
    All,
    /// None.
    None,
    /// One in so many.
    OneIn(u64),
}

/// Checks Standard Webhooks signatures with one secret for all endpoints.
#[derive(Debug)]
pub(crate) struct Verification {
    share: Share,
    verifier: Verifier,
}

/// Counts of checks.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Signatures {
    /// Found right.
    pub(crate) verified: u64,
    /// Found wrong, and answered 401.
    pub(crate) failed: u64,
    /// Not looked at.
    pub(crate) unchecked: u64,
    /// The first few that were wrong.
    pub(crate) failures: Vec<Failure>,
}

/// A wrong signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// The request path.
    pub(crate) path: String,
    /// `webhook-id`, if there was one.
    pub(crate) id: Option<String>,
    /// What is wrong.
    pub(crate) reason: String,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is unknown: expected all, none or 1/N");
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => text
                .strip_prefix("1/")
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .map(Self::OneIn)
                .ok_or_else(problem),
        }
    }
}

impl Verification {
    /// Checks `share` of the requests with `secret`, which may be left out only
    /// when none is checked.
    ///
    /// # Errors
    /// The secret is missing or no key.
    pub(crate) fn new(share: Share, secret: Option<&str>) -> Result<Self, String> {
        let keys = match (share, secret) {
            (_, Some(text)) => vec![VerifyingKey::parse(text).map_err(|e| e.to_string())?],
            (Share::None, None) => vec![],
            (_, None) => return Err("signatures are verified with --secret whsec_...".to_owned()),
        };
        Ok(Self {
            share,
            verifier: Verifier::new(keys),
        })
    }

    /// Checks the `nth` request of a thread, if it is one to check, and counts
    /// it. Answers whether it may be believed.
    pub(crate) fn check(
        &self,
        request: &Request<'_>,
        nth: u64,
        now: Timestamp,
        signatures: &mut Signatures,
    ) -> bool {
        let chosen = match self.share {
            Share::All => true,
            Share::None => false,
            Share::OneIn(n) => nth.is_multiple_of(n),
        };
        if !chosen {
            signatures.unchecked += 1;
            return true;
        }
        let (id, timestamp, signature) = (request.id, request.timestamp, request.signature);
        match self
            .verifier
            .verify(id, timestamp, signature, request.body, now)
        {
            Ok(()) => {
                signatures.verified += 1;
                true
            }
            Err(reason) => {
                signatures.fail(request, reason);
                false
            }
        }
    }
}

impl Signatures {
    /// Adds a turn's counts.
    pub(crate) fn add(&mut self, turn: &mut Self) {
        self.verified += turn.verified;
        self.failed += turn.failed;
        self.unchecked += turn.unchecked;
        let room = FAILURES_SHOWN_MAX.saturating_sub(self.failures.len());
        self.failures.extend(turn.failures.drain(..).take(room));
        *turn = Self::default();
    }

    fn fail(&mut self, request: &Request<'_>, reason: Refusal) {
        self.failed += 1;
        if self.failures.len() < FAILURES_SHOWN_MAX {
            self.failures.push(Failure {
                path: request.path.to_owned(),
                id: request.id.map(str::to_owned),
                reason: reason.to_string(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read() {
        assert_eq!("all".parse(), Ok(Share::All));
        assert_eq!("none".parse(), Ok(Share::None));
        assert_eq!("1/100".parse(), Ok(Share::OneIn(100)));
        for text in ["", "1/0", "1/", "2/3", "some"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_needed_to_check_and_must_be_one() {
        assert!(Verification::new(Share::None, None).is_ok());
        assert!(Verification::new(Share::All, None).is_err());
        assert!(Verification::new(Share::All, Some("whsec_")).is_err());
    }

    #[test]
    fn one_in_n_is_checked_and_the_rest_believed() {
        let secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let verification = Verification::new(Share::OneIn(3), secret).unwrap();
        let request = Request {
            method: "POST",
            path: "/e/1",
            query: "",
            id: Some("a"),
            timestamp: None,
            signature: None,
            keep_alive: true,
            body: b"",
        };
        let mut turn = Signatures::default();
        let now = Timestamp::default();
        let believed = (0..30).filter(|&nth| verification.check(&request, nth, now, &mut turn));
        assert_eq!(believed.count(), 20);
        assert_eq!((turn.failed, turn.unchecked), (10, 20));
        assert!(turn.failures[0].reason.contains("webhook-timestamp"));
        let mut all = Signatures::default();
        for _ in 0..3 {
            all.add(&mut turn.clone());
        }
        assert_eq!((all.failed, all.failures.len()), (30, FAILURES_SHOWN_MAX));
    }
}
