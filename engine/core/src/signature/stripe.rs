//! Stripe's scheme: `Stripe-Signature: t=<seconds>,v1=<hex>`, one `v1` for each
//! live secret, of `{t}.{body}` (<https://docs.stripe.com/webhooks>).

use super::Refusal;
use super::scheme::Piece;
use super::text::Key;
use crate::limits::SIGNATURES_READ_MAX;

pub(super) const SIGNATURE: &str = "stripe-signature";

pub(super) const HEADERS: &[(&str, Piece)] =
    &[("webhook-id", Piece::Id), (SIGNATURE, Piece::Signature)];

pub(super) fn sign_into(keys: &[Key], timestamp: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"t=");
    out.extend_from_slice(timestamp);
    for key in keys {
        out.extend_from_slice(b",v1=");
        key.sign_into(&content(timestamp, body), out);
    }
}

pub(super) const fn content<'a>(timestamp: &'a [u8], body: &'a [u8]) -> [&'a [u8]; 3] {
    [timestamp, b".", body]
}

/// The timestamp and the `v1` signatures of a header, in any order. `v0` is of
/// Stripe's test mode and never counts, nor does what is unknown.
pub(super) fn read(header: &str) -> Result<(&str, Vec<&[u8]>), Refusal> {
    let malformed = Refusal::Malformed {
        header: SIGNATURE,
        expected: "one `t=` and at least one `v1=`",
    };
    let items = || header.split(',').filter_map(|item| item.split_once('='));
    let of = |wanted| items().filter_map(move |(name, value)| (name == wanted).then_some(value));
    let mut timestamps = of("t");
    let (Some(timestamp), None) = (timestamps.next(), timestamps.next()) else {
        return Err(malformed);
    };
    let signatures: Vec<_> = of("v1")
        .map(str::as_bytes)
        .take(SIGNATURES_READ_MAX)
        .collect();
    match signatures.is_empty() {
        true => Err(malformed),
        false => Ok((timestamp, signatures)),
    }
}
