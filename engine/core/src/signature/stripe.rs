//! Stripe's scheme: `Stripe-Signature: t=<seconds>,v1=<hex>`, one `v1` for each
//! live secret, of `{t}.{body}` (<https://docs.stripe.com/webhooks>).

use super::scheme::Piece;
use super::text::Key;

pub(super) const HEADERS: &[(&str, Piece)] = &[
    ("webhook-id", Piece::Id),
    ("stripe-signature", Piece::Signature),
];

pub(super) fn sign_into(keys: &[Key], timestamp: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"t=");
    out.extend_from_slice(timestamp);
    for key in keys {
        out.extend_from_slice(b",v1=");
        key.sign_into(&[timestamp, b".", body], out);
    }
}
