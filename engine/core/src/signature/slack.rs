//! Slack's scheme: `X-Slack-Signature: v0=<hex>` of `v0:{timestamp}:{body}`
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>).
//!
//! It has room for one signature and none for another: the newest secret signs.

use super::scheme::Piece;
use super::text::Key;
use crate::outcome::Cause;

pub(super) const HEADERS: &[(&str, Piece)] = &[
    ("webhook-id", Piece::Id),
    ("x-slack-request-timestamp", Piece::Timestamp),
    ("x-slack-signature", Piece::Signature),
    ("x-slack-retry-num", Piece::RetryNumber),
    ("x-slack-retry-reason", Piece::RetryReason),
];

pub(super) fn sign_into(key: &Key, timestamp: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"v0=");
    key.sign_into(&[b"v0:", timestamp, b":", body], out);
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
