//! The host of a URL: an address in its one spelling, or a public name.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{TargetError, UrlPolicy};

/// Longest name DNS carries, without the trailing dot (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Longest label (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Suffixes that never lead to the public internet: RFC 6761, 6762, 7686, 8375
/// and 9476, ICANN's `internal`, and what private networks use in practice.
const SPECIAL_USE: [&str; 18] = [
    "alt",
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "svc",
    "test",
    "workgroup",
];

/// Whom a target names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name in lower case, without a trailing dot.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

impl Host {
    pub(super) fn parse(text: &str, policy: &UrlPolicy) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix('[') {
            return parse_v6(rest.strip_suffix(']').ok_or(TargetError::Ipv6Syntax)?);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(TargetError::NoHost);
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if is_number(last) {
            return text
                .parse()
                .map(Self::V4)
                .map_err(|_| TargetError::Ipv4Spelling);
        }
        let name = name.to_ascii_lowercase();
        check_name(&name, policy)?;
        Ok(Self::Name(name))
    }

    /// Whether `url` read the same host.
    pub(super) fn is(&self, other: &url::Host<&str>) -> bool {
        match (self, other) {
            (Self::Name(name), url::Host::Domain(other)) => {
                name == other.strip_suffix('.').unwrap_or(other)
            }
            (Self::V4(address), url::Host::Ipv4(other)) => address == other,
            (Self::V6(address), url::Host::Ipv6(other)) => address == other,
            _ => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

fn parse_v6(text: &str) -> Result<Host, TargetError> {
    let address: Ipv6Addr = text.parse().map_err(|_| TargetError::Ipv6Syntax)?;
    if text.contains('.') || address.to_ipv4_mapped().is_some() {
        return Err(TargetError::Ipv6Embedded);
    }
    Ok(Host::V6(address))
}

/// Whether the URL standard takes a host ending in this label for IPv4.
fn is_number(label: &str) -> bool {
    let hexadecimal = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

fn check_name(name: &str, policy: &UrlPolicy) -> Result<(), TargetError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(TargetError::NameLength { bytes: name.len() });
    }
    if !name.split('.').all(is_label) {
        return Err(TargetError::NameLabel);
    }
    if policy.allow_private_names {
        return Ok(());
    }
    let (_, last) = name.rsplit_once('.').ok_or(TargetError::SingleLabel)?;
    if let Some(suffix) = SPECIAL_USE.into_iter().find(|suffix| *suffix == last) {
        return Err(TargetError::SpecialUse { suffix });
    }
    if !last.starts_with("xn--") && !last.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(TargetError::LastLabel);
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}
