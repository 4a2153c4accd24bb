//! Slack's scheme: `X-Slack-Signature: v0=<hex>` of `v0:{timestamp}:{body}`
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>).
//!
//! It has room for one signature and none for another: the newest secret signs.

use super::Refusal;
use super::scheme::Piece;
use super::text::Key;
use crate::outcome::Cause;

pub(super) const TIMESTAMP: &str = "x-slack-request-timestamp";
pub(super) const SIGNATURE: &str = "x-slack-signature";
const PREFIX: &str = "v0=";

pub(super) const HEADERS: &[(&str, Piece)] = &[
    ("webhook-id", Piece::Id),
    (TIMESTAMP, Piece::Timestamp),
    (SIGNATURE, Piece::Signature),
    ("x-slack-retry-num", Piece::RetryNumber),
    ("x-slack-retry-reason", Piece::RetryReason),
];

pub(super) fn sign_into(key: &Key, timestamp: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX.as_bytes());
    key.sign_into(&content(timestamp, body), out);
}

pub(super) const fn content<'a>(timestamp: &'a [u8], body: &'a [u8]) -> [&'a [u8]; 4] {
    [b"v0:", timestamp, b":", body]
}

/// The signature a header holds.
pub(super) fn read(header: &str) -> Result<&[u8], Refusal> {
    let signature = header.strip_prefix(PREFIX).map(str::as_bytes);
    signature.ok_or(Refusal::Malformed {
        header: SIGNATURE,
        expected: "`v0=` and hexadecimal digits",
    })
}

/// Slack's word for why there is another attempt.
pub(super) const fn reason(cause: Option<Cause>) -> &'static str {
    match cause {
        Some(Cause::TimeoutHeaders) => "http_timeout",
        Some(Cause::RedirectNotFollowed) => "too_many_redirects",
        Some(Cause::TlsError) => "ssl_error",
        Some(Cause::Http4xx | Cause::Http5xx | Cause::Gone | Cause::RateLimited) => "http_error",
        Some(
            Cause::TimeoutConnect
            | Cause::DnsNxdomain
            | Cause::DnsError
            | Cause::ConnectionRefused
            | Cause::ConnectionReset,
        ) => "connection_failed",
        Some(
            Cause::BlockedAddress
            | Cause::ResponseTooLarge
            | Cause::InvalidResponse
            | Cause::InvalidEndpoint
            | Cause::EgressError,
        )
        | None => "unknown_error",
    }
}
