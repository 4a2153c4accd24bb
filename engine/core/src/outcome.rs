//! What an attempt came to: whether the delivery is settled, who is at fault
//! otherwise, and what the receiver asked for.
//!
//! The classes follow Standard Webhooks, and the CloudEvents HTTP webhook
//! specification (section 3.4) for 410 and 429.

use std::time::Duration;

use crate::limits::RETRY_AFTER_MAX;
use crate::time::Timestamp;

/// The end of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the delivery is settled by it.
    pub verdict: Verdict,
    /// What went wrong; `None` when it was delivered.
    pub cause: Option<Cause>,
    /// The status of the response, if one came.
    pub status: Option<u16>,
    /// How long the receiver asked to be left alone, at most
    /// [`RETRY_AFTER_MAX`]. Only of statuses that may ask so.
    pub retry_after: Option<Duration>,
}

/// What becomes of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// Try again later.
    Retry,
    /// The receiver wants no deliveries any more (410).
    Gone,
}

/// Who has to act for it to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The receiver's application.
    Receiver,
    /// Something between us, or the receiver's hosting.
    Network,
    /// We, or our operator.
    Sender,
    /// A rule forbids it.
    Policy,
}

/// What went wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// 400 to 499, but for those with a cause of their own.
    Http4xx,
    /// 500 to 599.
    Http5xx,
    /// 300 to 399.
    RedirectNotFollowed,
    /// 410.
    Gone,
    /// 429.
    RateLimited,
    /// No connection, TLS included, in time.
    TimeoutConnect,
    /// No response head in time.
    TimeoutHeaders,
    /// The name does not exist.
    DnsNxdomain,
    /// The name could not be looked up.
    DnsError,
    /// The receiver's host refused the connection.
    ConnectionRefused,
    /// The connection broke before a response head.
    ConnectionReset,
    /// No TLS session: certificate, version or protocol.
    TlsError,
    /// The wall forbids the address.
    BlockedAddress,
    /// More bytes than are read for one response, before its head ended.
    ResponseTooLarge,
    /// Not an HTTP response, or one that ends nothing (1xx, 101, 600 and up).
    InvalidResponse,
    /// The endpoint's URL, headers or secrets cannot be used.
    InvalidEndpoint,
    /// We lack something of our own: sockets, ports, a route.
    EgressError,
}

impl Outcome {
    /// Of a response: its status and the text of its `Retry-After`.
    pub fn response(status: u16, retry_after: Option<&str>, now: Timestamp) -> Self {
        let cause = match status {
            200..=299 => {
                return Self {
                    verdict: Verdict::Delivered,
                    cause: None,
                    status: Some(status),
                    retry_after: None,
                };
            }
            300..=399 => Cause::RedirectNotFollowed,
            410 => Cause::Gone,
            429 => Cause::RateLimited,
            400..=499 => Cause::Http4xx,
            500..=599 => Cause::Http5xx,
            _ => Cause::InvalidResponse,
        };
        let may_ask = matches!(status, 429 | 502..=504);
        Self {
            verdict: if cause == Cause::Gone {
                Verdict::Gone
            } else {
                Verdict::Retry
            },
            cause: Some(cause),
            status: Some(status),
            retry_after: retry_after
                .filter(|_| may_ask)
                .and_then(|text| read_retry_after(text, now)),
        }
    }

    /// Whether it counts as an attempt of the delivery's schedule. A failure on
    /// our side, or one the wall forbids, says nothing about the receiver.
    pub fn counts(&self) -> bool {
        self.cause
            .is_none_or(|cause| matches!(cause.blame(), Blame::Receiver | Blame::Network))
    }

    /// Of an attempt that got no response.
    pub fn failed(cause: Cause) -> Self {
        Self {
            verdict: Verdict::Retry,
            cause: Some(cause),
            status: None,
            retry_after: None,
        }
    }
}

impl Blame {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Network => "network",
            Self::Sender => "sender",
            Self::Policy => "policy",
        }
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Http4xx,
        Self::Http5xx,
        Self::RedirectNotFollowed,
        Self::Gone,
        Self::RateLimited,
        Self::TimeoutConnect,
        Self::TimeoutHeaders,
        Self::DnsNxdomain,
        Self::DnsError,
        Self::ConnectionRefused,
        Self::ConnectionReset,
        Self::TlsError,
        Self::BlockedAddress,
        Self::ResponseTooLarge,
        Self::InvalidResponse,
        Self::InvalidEndpoint,
        Self::EgressError,
    ];

    /// The cause of that stable name.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// Its stable name.
    pub const fn code(self) -> &'static str {
        self.row().0
    }

    /// Who has to act.
    pub const fn blame(self) -> Blame {
        self.row().1
    }

    /// A short text for the customer.
    pub const fn text(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, Blame, &'static str) {
        use Blame::{Network, Policy, Receiver, Sender};
        match self {
            Self::Http4xx => ("http_4xx", Receiver, "the endpoint refused the webhook"),
            Self::Http5xx => ("http_5xx", Receiver, "the endpoint failed"),
            Self::RedirectNotFollowed => (
                "redirect_not_followed",
                Receiver,
                "the endpoint redirects; redirects are not followed: set the final URL",
            ),
            Self::Gone => ("gone", Receiver, "the endpoint says it is gone"),
            Self::RateLimited => (
                "rate_limited",
                Receiver,
                "the endpoint asks for fewer requests",
            ),
            Self::TimeoutConnect => ("timeout_connect", Network, "no connection in time"),
            Self::TimeoutHeaders => (
                "timeout_headers",
                Receiver,
                "no response in time: answer first, work later",
            ),
            Self::DnsNxdomain => ("dns_nxdomain", Receiver, "the host name does not exist"),
            Self::DnsError => ("dns_error", Network, "the host name could not be looked up"),
            Self::ConnectionRefused => (
                "connection_refused",
                Receiver,
                "the host refuses connections",
            ),
            Self::ConnectionReset => (
                "connection_reset",
                Network,
                "the connection broke before a response",
            ),
            Self::TlsError => (
                "tls_error",
                Receiver,
                "no TLS session: check the certificate, its chain and its name",
            ),
            Self::BlockedAddress => (
                "blocked_address",
                Policy,
                "the host does not resolve to public addresses only",
            ),
            Self::ResponseTooLarge => ("response_too_large", Receiver, "the response is too large"),
            Self::InvalidResponse => (
                "invalid_response",
                Receiver,
                "the response is not valid HTTP",
            ),
            Self::InvalidEndpoint => (
                "invalid_endpoint",
                Sender,
                "the endpoint's settings cannot be used",
            ),
            Self::EgressError => ("egress_error", Sender, "the sender could not connect out"),
        }
    }
}

/// RFC 9110, section 10.2.3: seconds, or an HTTP date. Nothing else is
/// honoured, and nothing beyond [`RETRY_AFTER_MAX`].
fn read_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if text.len() <= 9 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: u64 = text.parse().ok()?;
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    let at = Timestamp::from_millis(u64::try_from(at.as_millis()).ok()?);
    Some(at.since(now).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_700_000);

    #[test]
    fn statuses_fall_into_their_classes() {
        let of = |status| {
            let outcome = Outcome::response(status, None, NOW);
            (outcome.verdict, outcome.cause.map(Cause::code))
        };
        for status in [200, 201, 204, 299] {
            assert_eq!(of(status), (Verdict::Delivered, None));
        }
        for (status, code) in [
            (300, "redirect_not_followed"),
            (399, "redirect_not_followed"),
            (400, "http_4xx"),
            (401, "http_4xx"),
            (408, "http_4xx"),
            (409, "http_4xx"),
            (411, "http_4xx"),
            (425, "http_4xx"),
            (429, "rate_limited"),
            (499, "http_4xx"),
            (500, "http_5xx"),
            (501, "http_5xx"),
            (503, "http_5xx"),
            (599, "http_5xx"),
            (101, "invalid_response"),
            (600, "invalid_response"),
            (999, "invalid_response"),
        ] {
            assert_eq!(of(status), (Verdict::Retry, Some(code)), "{status}");
        }
        assert_eq!(of(410), (Verdict::Gone, Some("gone")));
    }

    #[test]
    fn retry_after_is_read_where_it_may_be_asked() {
        let of = |status, text| Outcome::response(status, Some(text), NOW).retry_after;
        let seconds = |n| Some(Duration::from_secs(n));
        let day = 24 * 3_600;
        for status in [429, 502, 503, 504] {
            for (text, asked) in [
                ("120", 120),
                (" 7 ", 7),
                ("0", 0),
                ("86399", day - 1),
                ("86400", day),
                ("86401", day),
                ("999999999", day),
                // RFC 9110's own example date, 77 s after `NOW`.
                ("Sun, 06 Nov 1994 08:49:37 GMT", 77),
                ("Sun, 06 Nov 1994 08:48:20 GMT", 0),
                ("Sun, 06 Nov 1994 08:48:21 GMT", 1),
                ("Sat, 06 Nov 1993 08:49:37 GMT", 0),
                ("Mon, 07 Nov 1994 08:48:19 GMT", day - 1),
                ("Mon, 07 Nov 1994 08:48:20 GMT", day),
                ("Mon, 07 Nov 1994 08:48:21 GMT", day),
                ("Fri, 31 Dec 9999 23:59:59 GMT", day),
            ] {
                assert_eq!(of(status, text), seconds(asked), "{status} {text}");
            }
            for bad in ["", "-1", "1.5", "1e3", "soon", "9999999999", "+3"] {
                assert_eq!(of(status, bad), None, "{status} {bad}");
            }
        }
        for status in (200..600).filter(|s| !matches!(s, 429 | 502..=504)) {
            assert_eq!(of(status, "120"), None, "{status}");
        }
    }

    #[test]
    fn only_what_the_receiver_or_the_way_to_it_did_counts() {
        for status in [200, 301, 400, 410, 429, 500, 600] {
            assert!(Outcome::response(status, None, NOW).counts(), "{status}");
        }
        for cause in [Cause::DnsError, Cause::TlsError, Cause::TimeoutConnect] {
            assert!(Outcome::failed(cause).counts(), "{cause:?}");
        }
        for cause in [
            Cause::EgressError,
            Cause::BlockedAddress,
            Cause::InvalidEndpoint,
        ] {
            assert!(!Outcome::failed(cause).counts(), "{cause:?}");
        }
    }
}
