//! Tokens for a tenant's portal: `pt_<key id>.<expiry>.<capabilities>.<tenant>.<MAC>`.
//!
//! The MAC is HMAC-SHA256 over everything before the last dot, and there is no
//! other: nothing in a token says how it is verified. Its key follows from the
//! hash of the API key that asked for the token. So every instance that reads
//! the endpoints table can verify it, nothing more has to be kept, and a key
//! that is revoked takes its tokens with it.

use std::fmt::Write as _;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ApiKey, Grant, Keys, Need, Stranger};
use crate::event::check_tenant;
use crate::id::KeyId;
use crate::signature::SecretText;
use crate::time::Timestamp;

/// What a token begins with.
pub(super) const PREFIX: &str = "pt_";
/// What the keys of tokens are derived for.
const MAC_CONTEXT: &str = "posthaste 2026-11 portal token";
/// Before the id in a key's text form.
const KEY_PREFIX: &str = "pk_";

/// What a portal's token lets be done to its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Looking.
    Read,
    /// Making and changing endpoints, and looking.
    Endpoints,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Read, Self::Endpoints];

    /// Its name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Endpoints => "endpoints",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Read => 'r',
            Self::Endpoints => 'e',
        }
    }

    const fn powers(self) -> u8 {
        match self {
            Self::Read => Need::Read.bit(),
            Self::Endpoints => Need::Read.bit() | Need::Endpoints.bit(),
        }
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.name() == text);
        found.ok_or_else(|| {
            let shown = text.escape_default();
            format!("`{shown}`: expected `read` or `endpoints`")
        })
    }
}

/// A token in the name of `key`, good until `expires_at`.
pub fn portal_token(
    key: &ApiKey,
    tenant: &str,
    capabilities: &[Capability],
    expires_at: Timestamp,
) -> SecretText {
    let id = key.id.to_string();
    let id = id.trim_start_matches(KEY_PREFIX);
    let letters: String = capabilities.iter().map(|one| one.letter()).collect();
    let tenant = BASE64URL.encode(tenant);
    let at = expires_at.as_millis();
    let mut text = Zeroizing::new(format!("{PREFIX}{id}.{at}.{letters}.{tenant}"));
    let tag = mac(key, &text).finalize().into_bytes();
    let _ = write!(text, ".{}", BASE64URL.encode(tag));
    SecretText::new(text)
}

fn mac(key: &ApiKey, signed: &str) -> Hmac<Sha256> {
    let derived = Zeroizing::new(blake3::derive_key(MAC_CONTEXT, &key.hash));
    let mut mac =
        Hmac::<Sha256>::new_from_slice(derived.as_slice()).expect("HMAC takes a key of any length");
    mac.update(signed.as_bytes());
    mac
}

/// Whom a token lets in.
pub(super) fn admit(keys: &Keys, token: &str, now: Timestamp) -> Result<Grant, Stranger> {
    let mut stranger = Stranger {
        claimed: None,
        expired: false,
    };
    let (signed, tag) = token.rsplit_once('.').ok_or(stranger)?;
    let id = signed[PREFIX.len()..].split('.').next().unwrap_or_default();
    let id: KeyId = format!("{KEY_PREFIX}{id}").parse().map_err(|_| stranger)?;
    stranger.claimed = Some(id);
    let key = keys.get(id).ok_or(stranger)?;
    let tag = BASE64URL.decode(tag).map_err(|_| stranger)?;
    mac(key, signed).verify_slice(&tag).map_err(|_| stranger)?;
    // From here on it is ours: whoever holds it may know what is wrong with it.
    let (expires_at, powers, tenant) = read(signed).ok_or(stranger)?;
    if now >= expires_at {
        stranger.expired = true;
        return Err(stranger);
    }
    Ok(Grant {
        key: id,
        portal: true,
        tenant: Some(tenant),
        powers,
    })
}

fn read(signed: &str) -> Option<(Timestamp, u8, String)> {
    let mut parts = signed.split('.').skip(1);
    let (at, letters, tenant) = (parts.next()?, parts.next()?, parts.next()?);
    let known = |letter| Capability::ALL.into_iter().find(|c| c.letter() == letter);
    let mut powers = 0;
    for letter in letters.chars() {
        powers |= known(letter)?.powers();
    }
    let tenant = String::from_utf8(BASE64URL.decode(tenant).ok()?).ok()?;
    check_tenant(&tenant).ok()?;
    Some((Timestamp::from_millis(at.parse().ok()?), powers, tenant))
}
