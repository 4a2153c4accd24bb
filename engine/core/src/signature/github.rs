//! GitHub's scheme: `X-Hub-Signature-256: sha256=<hex>` of the body alone
//! (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
//!
//! It has room for one signature. While a secret is rotated the older one's
//! stands in a header of our own, `X-Hub-Signature-256-Previous`.

use super::Refusal;
use super::scheme::Piece;
use super::text::{Key, hex_into};

pub(super) const SIGNATURE: &str = "x-hub-signature-256";
pub(super) const PREVIOUS: &str = "x-hub-signature-256-previous";
const PREFIX: &str = "sha256=";

pub(super) const HEADERS: &[(&str, Piece)] = &[
    ("webhook-id", Piece::Id),
    ("x-github-event", Piece::EventType),
    ("x-github-delivery", Piece::DeliveryGuid),
    ("x-github-hook-id", Piece::Endpoint),
    (SIGNATURE, Piece::Signature),
    (PREVIOUS, Piece::PreviousSignature),
];

/// Bytes of each group of a GUID.
const GROUPS: [usize; 5] = [4, 2, 2, 2, 6];

pub(super) fn sign_into(key: &Key, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX.as_bytes());
    key.sign_into(&[body], out);
}

/// The signature a header holds.
pub(super) fn read(header: &str) -> Result<&[u8], Refusal> {
    let signature = header.strip_prefix(PREFIX).map(str::as_bytes);
    signature.ok_or(Refusal::Malformed {
        header: SIGNATURE,
        expected: "`sha256=` and hexadecimal digits",
    })
}

/// A GUID of one event for one endpoint: the same in every attempt, as
/// GitHub's is in every redelivery. Version 8 (RFC 9562, 5.8).
pub(super) fn guid_into(endpoint: &[u8; 16], event_id: &[u8], out: &mut Vec<u8>) {
    let mut hash = blake3::Hasher::new();
    hash.update(endpoint).update(event_id);
    let mut guid = [0; 16];
    guid.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    guid[6] = guid[6] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    let mut rest = &guid[..];
    for (place, bytes) in GROUPS.into_iter().enumerate() {
        if place > 0 {
            out.push(b'-');
        }
        let (group, behind) = rest.split_at(bytes);
        hex_into(group, out);
        rest = behind;
    }
}
