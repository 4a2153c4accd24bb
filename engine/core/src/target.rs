//! Where an endpoint's deliveries go: the rules for its URL.
//!
//! One strict reading of the text, refused wherever two parsers could read it
//! differently. It refuses what must never be dialled by its look alone; what
//! a name resolves to is for [`crate::wall`] to judge at each connection. No
//! look-up happens here.

#[cfg(test)]
pub(crate) mod corpus;
mod host;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;

use http::uri::PathAndQuery;

pub use self::host::Host;
use crate::limits::URL_BYTES_MAX;

/// Ports from 1,024 up that speak another protocol: the WHATWG Fetch standard's
/// bad ports, then stores, brokers and control planes.
const PORTS_DENIED: [u16; 37] = [
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669,
    6679, 6697, 10080, // Fetch
    2375, 2376, 2379, 2380, 3306, 5432, 5672, 6379, 6443, 9042, 9092, 9200, 9300, 10250, 10255,
    11211, 15672, 27017,
];

/// Which URLs are taken; the default takes `https` to public names only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UrlPolicy {
    /// Takes `http` as well: deliveries then travel in the clear.
    pub allow_http: bool,
    /// Takes single-label and special-use host names and every port: for
    /// receivers inside the operator's own network. The wall still judges
    /// their addresses.
    pub allow_private_names: bool,
}

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// A URL that follows every rule, in its normal form, which `Display` gives
/// and [`Target::parse`] reads back. Paths and queries are often secrets:
/// `Debug` leaves them out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: u16,
    path_and_query: String,
}

/// The rule a URL breaks, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than the bound.
    #[error("url is {bytes} bytes long: expected at most {URL_BYTES_MAX}")]
    TooLong {
        /// Its length, or that of its normal form.
        bytes: usize,
    },
    /// A character outside ASCII.
    #[error("url holds a character outside ASCII: {hint}")]
    NotAscii {
        /// How to write it instead.
        hint: String,
    },
    /// White space, a control character or a backslash.
    #[error(
        "url holds byte 0x{byte:02x} at {at}: expected no space, control character or backslash"
    )]
    ForbiddenByte {
        /// The byte.
        byte: u8,
        /// Where it stands, from 0.
        at: usize,
    },
    /// Another scheme, or none.
    #[error("url scheme is not supported: expected it to begin with `https://`")]
    Scheme,
    /// `http` where only `https` is taken.
    #[error("url scheme is `http`: expected `https`, deliveries are not sent in the clear")]
    HttpNotAllowed,
    /// The scheme is not followed by exactly two slashes.
    #[error("url scheme is not followed by `//` and a host: expected `https://host/path`")]
    Slashes,
    /// A `#`.
    #[error("url holds a `#`: expected none, a fragment is never sent")]
    Fragment,
    /// An `@` before the path.
    #[error(
        "url holds `@` before its path: expected no user or password, set credentials as a header of the endpoint"
    )]
    Userinfo,
    /// A `%` before the path.
    #[error("url host holds a `%`: expected no escapes and no zone id in it")]
    PercentInAuthority,
    /// No host.
    #[error("url has no host: expected `https://host/path`")]
    NoHost,
    /// A host that ends in a number but is not four plain decimals.
    #[error(
        "url host looks like an IPv4 address: expected four decimal numbers from 0 to 255 without leading zeros"
    )]
    Ipv4Spelling,
    /// Brackets, or colons, that hold no IPv6 address.
    #[error(
        "url host is not an IPv6 address: expected groups of hexadecimal digits in brackets, as in `[2606:4700::1]`"
    )]
    Ipv6Syntax,
    /// An IPv6 address that spells an IPv4 one.
    #[error("url host is an IPv4 address written as IPv6: expected its four decimal numbers")]
    Ipv6Embedded,
    /// A host name longer than DNS carries.
    #[error("url host is {bytes} bytes long: expected at most 253")]
    NameLength {
        /// Its length.
        bytes: usize,
    },
    /// A label of a host name that DNS does not carry.
    #[error(
        "url host has a malformed label: expected 1 to 63 letters, digits, `-` or `_`, without `-` at either end"
    )]
    NameLabel,
    /// A host name of one label.
    #[error("url host is a single label: expected a public name such as `hooks.example.com`")]
    SingleLabel,
    /// A last label no public name has.
    #[error("url host ends in a label that no public name has: expected letters or `xn--`")]
    LastLabel,
    /// A name that never leads to the public internet.
    #[error(
        "url host ends in `.{suffix}`, which is not on the public internet: expected a public name"
    )]
    SpecialUse {
        /// The suffix.
        suffix: &'static str,
    },
    /// A port that is not a plain number.
    #[error(
        "url port is malformed: expected a number from 1 to 65535 without sign or leading zeros"
    )]
    PortSyntax,
    /// A port kept for another protocol.
    #[error("url port {port} is not allowed: expected 80, 443 or a web server's port from 1024 up")]
    PortDenied {
        /// The port.
        port: u16,
    },
    /// A path or query that cannot stand in a request.
    #[error("url path or query holds a character that must be percent-encoded")]
    Path,
    /// The URL standard refuses what was left.
    #[error("url is refused by the WHATWG URL standard: {0}")]
    Standard(url::ParseError),
    /// Two parsers read another host or port.
    #[error("url is read differently by different parsers: expected plain `https://host/path`")]
    Ambiguous,
}

impl Target {
    /// Reads a URL as a customer wrote it.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn parse(raw: &str, policy: &UrlPolicy) -> Result<Self, TargetError> {
        check_bytes(raw)?;
        let (scheme, rest) = split_scheme(raw, policy)?;
        let (authority, tail) = split_authority(rest)?;
        let (host, port) = split_port(authority)?;
        let host = Host::parse(host, policy)?;
        let port = match port {
            Some(text) => parse_port(text)?,
            None => scheme.default_port(),
        };
        if !policy.allow_private_names && !is_web_port(port) {
            return Err(TargetError::PortDenied { port });
        }
        let target = Self {
            scheme,
            host,
            port,
            path_and_query: normal_path(tail)?,
        };
        target.require_agreement(raw)?;
        Ok(target)
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whom to look up and, over TLS, whom to expect.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port, from 1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The request's path and query, beginning with `/`, as the customer wrote
    /// them.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The `Host` header: the host, and the port unless it is the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Scheme and authority: what may be logged of a target.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority())
    }

    /// Refuses what `url` or `http`, the parsers others use, read otherwise.
    fn require_agreement(&self, raw: &str) -> Result<(), TargetError> {
        let normal = self.to_string();
        if normal.len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong {
                bytes: normal.len(),
            });
        }
        let standard = url::Url::parse(raw).map_err(TargetError::Standard)?;
        let uri: http::Uri = normal.parse().map_err(|_| TargetError::Ambiguous)?;
        let same = standard.scheme() == self.scheme.as_str()
            && standard.host().is_some_and(|host| self.host.is(&host))
            && standard.port_or_known_default() == Some(self.port)
            && uri.host() == Some(self.host.to_string().as_str())
            && uri.port_u16().unwrap_or(self.scheme.default_port()) == self.port
            && uri.path_and_query().map(PathAndQuery::as_str) == Some(&self.path_and_query);
        if same {
            Ok(())
        } else {
            Err(TargetError::Ambiguous)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path_and_query)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}/..)", self.origin())
    }
}

impl Scheme {
    /// Its name in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port a URL of this scheme means when it names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn check_bytes(raw: &str) -> Result<(), TargetError> {
    if raw.len() > URL_BYTES_MAX {
        return Err(TargetError::TooLong { bytes: raw.len() });
    }
    if !raw.is_ascii() {
        return Err(TargetError::NotAscii {
            hint: ascii_hint(raw),
        });
    }
    let forbidden = |byte: &u8| *byte <= b' ' || *byte == 0x7f || *byte == b'\\';
    match raw.bytes().enumerate().find(|(_, byte)| forbidden(byte)) {
        Some((at, byte)) => Err(TargetError::ForbiddenByte { byte, at }),
        None => Ok(()),
    }
}

/// The punycode form of a foreign host where there is one.
fn ascii_hint(raw: &str) -> String {
    let standard = url::Url::parse(raw).ok();
    match standard.as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) if name.contains("xn--") && !raw.contains(name) => {
            format!("expected the host written as `{name}`")
        }
        _ => "expected it percent-encoded in a path or query, and as `xn--` in a host".to_owned(),
    }
}

fn split_scheme<'a>(raw: &'a str, policy: &UrlPolicy) -> Result<(Scheme, &'a str), TargetError> {
    let (name, rest) = raw.split_once(':').ok_or(TargetError::Scheme)?;
    let scheme = if name.eq_ignore_ascii_case("https") {
        Scheme::Https
    } else if name.eq_ignore_ascii_case("http") {
        Scheme::Http
    } else {
        return Err(TargetError::Scheme);
    };
    if scheme == Scheme::Http && !policy.allow_http {
        return Err(TargetError::HttpNotAllowed);
    }
    match rest.strip_prefix("//") {
        Some(rest) if !rest.starts_with('/') => Ok((scheme, rest)),
        _ => Err(TargetError::Slashes),
    }
}

fn split_authority(rest: &str) -> Result<(&str, &str), TargetError> {
    if rest.contains('#') {
        return Err(TargetError::Fragment);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.contains('@') {
        return Err(TargetError::Userinfo);
    }
    if authority.contains('%') {
        return Err(TargetError::PercentInAuthority);
    }
    Ok((authority, tail))
}

/// The host, in its brackets if it has them, and the text of the port.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), TargetError> {
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(TargetError::Ipv6Syntax);
    }
    let host_len = if authority.starts_with('[') {
        authority.find(']').ok_or(TargetError::Ipv6Syntax)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_len);
    if rest.is_empty() {
        return Ok((host, None));
    }
    let port = rest.strip_prefix(':').ok_or(TargetError::Ipv6Syntax)?;
    Ok((host, Some(port)))
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(TargetError::PortSyntax);
    }
    text.parse().map_err(|_| TargetError::PortSyntax)
}

fn is_web_port(port: u16) -> bool {
    match port {
        80 | 443 => true,
        0..1024 => false,
        _ => !PORTS_DENIED.contains(&port),
    }
}

fn normal_path(tail: &str) -> Result<String, TargetError> {
    let slash = if tail.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{tail}");
    match path.parse::<PathAndQuery>() {
        Ok(read) if read.as_str() == path => Ok(path),
        _ => Err(TargetError::Path),
    }
}
