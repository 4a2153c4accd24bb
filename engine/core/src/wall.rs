//! Which addresses a delivery may connect to.
//!
//! IPv4 is a list of what is refused; IPv6 is the global unicast block less a
//! list, so that unallocated space is refused unasked. Refuses to look
//! anything up, to translate embedded addresses, and to keep "the good ones"
//! of a mixed answer. The operator's allow-list is the only way through, even
//! through the operator's own deny-list.

mod cidr;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use self::cidr::{Allow, Cidr, CidrError};

/// Judges addresses. The default lets only public ones through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wall {
    allow: Vec<Allow>,
    deny: Vec<Cidr>,
}

/// An address was refused. Its text goes to customers and tells nothing about
/// the address, so that nobody maps a network with it; `reason` is for metrics
/// and operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address refused: expected a host that resolves to public addresses only")]
pub struct Refused {
    /// What kind of address it was.
    pub reason: Reason,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Means this host: loopback, or 0.0.0.0/8, which Linux connects to it.
    Loopback,
    /// Private, shared or unique-local networks.
    Private,
    /// Link-local, where clouds serve credentials.
    LinkLocal,
    /// An address a cloud's host agent answers on.
    CloudHost,
    /// Documentation, benchmarking, protocol assignments and AS112.
    SpecialPurpose,
    /// Carries an IPv4 address inside: mapped, NAT64, 6to4, Teredo, ISATAP.
    Transition,
    /// Multicast.
    Multicast,
    /// Reserved or unallocated space.
    Reserved,
    /// On the operator's deny-list.
    Denied,
    /// A look-up that gave no address.
    NoAddress,
}

const V4_REFUSED: [(Cidr, Reason); 19] = [
    (v4([0, 0, 0, 0], 8), Reason::Loopback),
    (v4([10, 0, 0, 0], 8), Reason::Private),
    (v4([100, 64, 0, 0], 10), Reason::Private),
    (v4([127, 0, 0, 0], 8), Reason::Loopback),
    (v4([168, 63, 129, 16], 32), Reason::CloudHost), // Azure WireServer
    (v4([169, 254, 0, 0], 16), Reason::LinkLocal),
    (v4([172, 16, 0, 0], 12), Reason::Private),
    (v4([192, 0, 0, 0], 24), Reason::SpecialPurpose),
    (v4([192, 0, 2, 0], 24), Reason::SpecialPurpose), // TEST-NET-1
    (v4([192, 31, 196, 0], 24), Reason::SpecialPurpose), // AS112
    (v4([192, 52, 193, 0], 24), Reason::SpecialPurpose), // AMT
    (v4([192, 88, 99, 0], 24), Reason::Transition),   // 6to4 relays
    (v4([192, 168, 0, 0], 16), Reason::Private),
    (v4([192, 175, 48, 0], 24), Reason::SpecialPurpose), // AS112
    (v4([198, 18, 0, 0], 15), Reason::SpecialPurpose),   // benchmarking
    (v4([198, 51, 100, 0], 24), Reason::SpecialPurpose), // TEST-NET-2
    (v4([203, 0, 113, 0], 24), Reason::SpecialPurpose),  // TEST-NET-3
    (v4([224, 0, 0, 0], 4), Reason::Multicast),
    (v4([240, 0, 0, 0], 4), Reason::Reserved),
];

/// All that is handed out of IPv6 to this day.
const V6_GLOBAL: Cidr = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const V6_REFUSED: [(Cidr, Reason); 6] = [
    // Teredo, benchmarking, AMT, AS112, ORCHID, DRIP.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Reason::Transition),
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        Reason::SpecialPurpose,
    ),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Reason::Transition), // 6to4
    (
        v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
        Reason::SpecialPurpose,
    ), // AS112
    (v6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), Reason::Reserved),   // 6bone
    (
        v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
        Reason::SpecialPurpose,
    ), // RFC 9637
];

/// Refused with the rest outside [`V6_GLOBAL`]; listed to name the reason.
const V6_NAMED: [(Cidr, Reason); 6] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 127), Reason::Loopback),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 32), Reason::Transition), // compatible, SIIT
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32), Reason::Transition), // NAT64
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Reason::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 9), Reason::LinkLocal), // and site-local
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Reason::Multicast),
];

impl Wall {
    /// A wall with the operator's lists. `deny` should hold what only this
    /// deployment knows: its own addresses, its brokers' and its resolvers'.
    pub fn new(allow: Vec<Allow>, deny: Vec<Cidr>) -> Self {
        Self { allow, deny }
    }

    /// Whether a connection to `at` may be made.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, at: SocketAddr) -> Result<(), Refused> {
        let refused = |reason| Err(Refused { reason });
        // Before the allow-list: `::/0` must not open IPv4 by another name.
        if let IpAddr::V6(address) = at.ip()
            && address.to_ipv4_mapped().is_some()
        {
            return refused(Reason::Transition);
        }
        if self.allow.iter().any(|allow| allow.covers(at)) {
            return Ok(());
        }
        if self.deny.iter().any(|cidr| cidr.contains(at.ip())) {
            return refused(Reason::Denied);
        }
        match built_in(at.ip()) {
            Some(reason) => refused(reason),
            None => Ok(()),
        }
    }

    /// Whether a look-up's answers may be used: all of them, or none.
    ///
    /// # Errors
    /// Why the first refused one is; or that there is no answer at all.
    pub fn judge_all(&self, answers: &[SocketAddr]) -> Result<(), Refused> {
        if answers.is_empty() {
            return Err(Refused {
                reason: Reason::NoAddress,
            });
        }
        answers.iter().try_for_each(|at| self.judge(*at))
    }
}

impl Reason {
    /// Its name as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::CloudHost => "cloud_host",
            Self::SpecialPurpose => "special_purpose",
            Self::Transition => "transition",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Denied => "denied",
            Self::NoAddress => "no_address",
        }
    }
}

/// The verdict that holds everywhere; `None` for a public address.
fn built_in(address: IpAddr) -> Option<Reason> {
    let listed = |list: &[(Cidr, Reason)]| {
        let mut hits = list.iter().filter(|(cidr, _)| cidr.contains(address));
        hits.next().map(|(_, reason)| *reason)
    };
    let IpAddr::V6(v6) = address else {
        return listed(&V4_REFUSED);
    };
    if !V6_GLOBAL.contains(address) {
        return listed(&V6_NAMED).or(Some(Reason::Reserved));
    }
    // ISATAP, RFC 5214: an interface id of ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d.
    let [.., flags, oui, _, _] = v6.segments();
    if oui == 0x5efe && (flags == 0 || flags == 0x200) {
        return Some(Reason::Transition);
    }
    listed(&V6_REFUSED)
}

const fn v4(network: [u8; 4], prefix: u8) -> Cidr {
    let [a, b, c, d] = network;
    Cidr::fixed(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(network: [u16; 8], prefix: u8) -> Cidr {
    let [a, b, c, d, e, f, g, h] = network;
    Cidr::fixed(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix)
}
