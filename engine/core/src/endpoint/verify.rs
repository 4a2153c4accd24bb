//! Whether a receiver is asked before it gets events, and when it has to be
//! asked again.

use posthaste_proto as proto;

use super::{Endpoint, EndpointError, error};

/// Why an endpoint is disabled whose receiver has not answered a challenge.
pub const UNVERIFIED: &str = "verification";

/// How a receiver is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Not at all.
    #[default]
    None,
    /// It gets one event of type `ping`, whatever it makes of it.
    Ping,
    /// It has to answer a challenge before it gets events, as Slack's receivers
    /// do.
    Challenge,
}

impl Verify {
    pub(super) fn from_proto(number: i32) -> Result<Self, EndpointError> {
        match proto::Verify::try_from(number) {
            Ok(proto::Verify::Unspecified) => Ok(Self::None),
            Ok(proto::Verify::Ping) => Ok(Self::Ping),
            Ok(proto::Verify::Challenge) => Ok(Self::Challenge),
            Err(_) => Err(error(
                "verify",
                format!("number {number} is unknown: expected one that this version knows"),
            )),
        }
    }

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ping => "ping",
            Self::Challenge => "challenge",
        }
    }
}

impl From<Verify> for proto::Verify {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::None => Self::Unspecified,
            Verify::Ping => Self::Ping,
            Verify::Challenge => Self::Challenge,
        }
    }
}

impl Endpoint {
    /// Whether it is disabled because its receiver has not answered a challenge.
    pub fn is_unverified(&self) -> bool {
        self.verify == Verify::Challenge && self.disabled && self.disabled_reason == UNVERIFIED
    }

    /// With the status that follows from what it was `before`. Only a receiver
    /// that has answered a challenge gets events, and of another URL nobody has.
    #[must_use]
    pub fn with_trust_of(self, before: Option<&Self>) -> Self {
        let known = before
            .is_some_and(|before| before.verify == Verify::Challenge && before.url == self.url);
        let unverified_before = before.is_some_and(Self::is_unverified);
        match self.verify {
            // Disabled for another reason it is asked before it is enabled.
            Verify::Challenge if !known && !self.disabled => Self {
                disabled: true,
                disabled_reason: UNVERIFIED.to_owned(),
                ..self
            },
            Verify::None | Verify::Ping if unverified_before => self.enabled(),
            _ => self,
        }
    }

    /// Takes deliveries.
    #[must_use]
    pub fn enabled(self) -> Self {
        Self {
            disabled: false,
            disabled_reason: String::new(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::sample;

    fn of(verify: Verify, url: &str) -> Endpoint {
        let mut record = sample(1, "acme", &[]);
        record.url = url.into();
        record.verify = proto::Verify::from(verify).into();
        Endpoint::from_proto(record).unwrap()
    }

    fn status(endpoint: &Endpoint) -> (bool, &str) {
        (endpoint.disabled, &endpoint.disabled_reason)
    }

    #[test]
    fn only_a_challenged_url_is_trusted() {
        let (old, new) = ("https://a.example/", "https://b.example/");
        for verify in [Verify::None, Verify::Ping] {
            assert_eq!(status(&of(verify, old).with_trust_of(None)), (false, ""));
        }
        let asked = of(Verify::Challenge, old).with_trust_of(None);
        assert_eq!(status(&asked), (true, "verification"));
        assert!(asked.is_unverified());
        // A change of something else leaves both kinds as they are.
        assert!(asked.clone().with_trust_of(Some(&asked)).is_unverified());
        let trusted = asked.clone().enabled();
        let same = trusted.clone().with_trust_of(Some(&trusted));
        assert_eq!(status(&same), (false, ""));
        // Another URL, or a challenge where there was none, is asked.
        let moved = of(Verify::Challenge, new).with_trust_of(Some(&trusted));
        assert!(moved.is_unverified());
        let stricter = of(Verify::Challenge, old).with_trust_of(Some(&of(Verify::Ping, old)));
        assert!(stricter.is_unverified());
        // Without a challenge nothing is owed.
        let looser = Endpoint {
            verify: Verify::None,
            ..asked.clone()
        };
        assert_eq!(status(&looser.with_trust_of(Some(&asked))), (false, ""));
    }

    #[test]
    fn another_reason_stays() {
        let gone = |verify, url| Endpoint {
            disabled: true,
            disabled_reason: "gone".to_owned(),
            ..of(verify, url)
        };
        let before = gone(Verify::Challenge, "https://a.example/");
        for after in [
            gone(Verify::Challenge, "https://b.example/"),
            gone(Verify::None, "https://a.example/"),
        ] {
            let after = after.with_trust_of(Some(&before));
            assert_eq!(status(&after), (true, "gone"));
        }
    }

    #[test]
    fn a_choice_reads_back_and_an_unknown_one_is_refused() {
        for verify in [Verify::None, Verify::Ping, Verify::Challenge] {
            let record = of(verify, "https://a.example/").to_proto();
            assert_eq!(Endpoint::from_proto(record).unwrap().verify, verify);
        }
        let mut record = sample(1, "acme", &[]);
        record.verify = 99;
        assert_eq!(Endpoint::from_proto(record).unwrap_err().param, "verify");
    }
}
