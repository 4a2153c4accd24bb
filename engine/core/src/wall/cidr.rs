//! Blocks of addresses as an operator writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A block of addresses of one family, `10.0.0.0/8` or `fd00::/8`; a lone
/// address is a block of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A block let through on every port, `127.0.0.0/8`, or on one,
/// `10.1.0.0/16:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allow {
    cidr: Cidr,
    port: Option<u16>,
}

/// Text that is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Neither an address nor a block.
    #[error("`{0}` is not a block of addresses: expected one such as `10.0.0.0/8` or `fd00::/8`")]
    Syntax(String),
    /// A prefix longer than the family's addresses.
    #[error("`{text}` has too long a prefix: expected at most /{max}")]
    Prefix {
        /// What was read.
        text: String,
        /// The family's longest.
        max: u8,
    },
    /// Bits set past the prefix: which block was meant?
    #[error("`{text}` names an address inside a block: expected `{block}`")]
    HostBits {
        /// What was read.
        text: String,
        /// The block it lies in.
        block: Cidr,
    },
    /// A port that is not a number from 1 to 65535.
    #[error("`{0}` has a malformed port: expected a number from 1 to 65535 after the last `:`")]
    Port(String),
}

impl Cidr {
    /// A block this crate knows to be well-formed.
    pub(super) const fn fixed(network: IpAddr, prefix: u8) -> Self {
        Self { network, prefix }
    }

    /// Whether `address` lies in it. IPv4 and IPv6 never match each other.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => mask_v4(address, self.prefix) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => mask_v6(address, self.prefix) == network,
            _ => false,
        }
    }

    /// The block of one address.
    pub const fn host(address: IpAddr) -> Self {
        Self {
            network: address,
            prefix: prefix_max(address),
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| syntax());
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(syntax());
        }
        let max = prefix_max(address);
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= max);
        let prefix = prefix.ok_or_else(|| CidrError::Prefix {
            text: text.to_owned(),
            max,
        })?;
        let network = match address {
            IpAddr::V4(address) => IpAddr::V4(mask_v4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(mask_v6(address, prefix)),
        };
        let block = Self { network, prefix };
        if network != address {
            return Err(CidrError::HostBits {
                text: text.to_owned(),
                block,
            });
        }
        Ok(block)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Allow {
    /// A block on every port, or on one.
    pub const fn new(cidr: Cidr, port: Option<u16>) -> Self {
        Self { cidr, port }
    }

    /// Whether it lets a connection to `at` through.
    pub fn covers(&self, at: SocketAddr) -> bool {
        self.cidr.contains(at.ip()) && self.port.is_none_or(|port| port == at.port())
    }
}

impl FromStr for Allow {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        // A lone IPv6 address with a port needs its brackets.
        if let Ok(at) = text.parse::<SocketAddr>() {
            return port_of(text, Cidr::host(at.ip()), &at.port().to_string());
        }
        let Some((address, rest)) = text.split_once('/') else {
            return text.parse().map(|cidr| Self::new(cidr, None));
        };
        match rest.split_once(':') {
            None => text.parse().map(|cidr| Self::new(cidr, None)),
            Some((prefix, port)) => {
                let cidr = format!("{address}/{prefix}").parse()?;
                port_of(text, cidr, port)
            }
        }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.cidr),
            None => write!(f, "{}", self.cidr),
        }
    }
}

fn port_of(text: &str, cidr: Cidr, port: &str) -> Result<Allow, CidrError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port > 0 => Ok(Allow::new(cidr, Some(port))),
        _ => Err(CidrError::Port(text.to_owned())),
    }
}

const fn prefix_max(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix))
        .unwrap_or_default();
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX
        .checked_shl(128 - u32::from(prefix))
        .unwrap_or_default();
    Ipv6Addr::from_bits(address.to_bits() & mask)
}
