//! Whether a browser was led here: checked where everybody who reaches the
//! listener is let in.
//!
//! A page of anybody's can have a name of its own point at a loopback address
//! and ask this API by it (DNS rebinding), or post to the address itself. The
//! first shows in `Host`, the second in `Origin`: both must be a name this API
//! goes by. Other clients send what they were given, and no `Origin`.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, Version, header};

use super::problem::Problem;

/// Whether a call was meant for this API, which goes by these names too.
///
/// # Errors
/// It was not.
pub(super) fn check(parts: &Parts, hosts: &[String]) -> Result<(), Problem> {
    // h2 and a proxy's form of a request say it in the target.
    let named = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(&parts.headers, header::HOST)?,
    };
    match named {
        // Before 1.1 there was none, and no browser speaks that.
        None if parts.version < Version::HTTP_11 => {}
        Some(named) if goes_by(named, hosts) => {}
        Some(_) | None => return Err(Problem::misdirected()),
    }
    let Some(origin) = only(&parts.headers, header::ORIGIN)? else {
        return Ok(());
    };
    let origin: Option<Uri> = origin.parse().ok();
    let authority = origin.as_ref().and_then(Uri::authority);
    match authority.is_some_and(|authority| goes_by(authority.as_str(), hosts)) {
        true => Ok(()),
        false => Err(Problem::foreign_origin()),
    }
}

/// The header's one value, if there is one.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let wanted = || Problem::malformed(format!("`{name}`: expected one, of visible ASCII"));
    text.map(Some).ok_or_else(wanted)
}

/// An address, `localhost`, or one of these names; whatever the port.
fn goes_by(named: &str, hosts: &[String]) -> bool {
    let Ok(authority) = named.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bare.unwrap_or(host).parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let names = hosts.iter().map(String::as_str).chain(["localhost"]);
    names
        .into_iter()
        .any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn judged(version: Version, target: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        match check(&parts, &["posthaste.internal".to_owned()]) {
            Ok(()) => "taken",
            Err(problem) => problem.code(),
        }
    }

    #[test]
    fn it_goes_by_addresses_localhost_and_its_names() {
        let host = |host| judged(Version::HTTP_11, "/v1/keys", &[("host", host)]);
        for own in [
            "127.0.0.1",
            "127.0.0.1:8400",
            "[::1]:8400",
            "10.1.2.3:1",
            "localhost",
            "LocalHost.:8400",
            "posthaste.internal",
            "Posthaste.Internal:8400",
        ] {
            assert_eq!(host(own), "taken", "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8400",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "user@localhost",
            "127.1",
            "0x7f.1",
            "internal",
            "",
            " ",
        ] {
            assert_eq!(host(foreign), "misdirected", "{foreign}");
        }
    }

    #[test]
    fn the_target_wins_and_doubt_is_refused() {
        let own = ("host", "localhost");
        let judged = |version, target, headers: &[_]| judged(version, target, headers);
        let absolute = "http://evil.example/v1/keys";
        assert_eq!(judged(Version::HTTP_11, absolute, &[own]), "misdirected");
        assert_eq!(judged(Version::HTTP_2, "https://[::1]/", &[]), "taken");
        assert_eq!(judged(Version::HTTP_11, "/", &[]), "misdirected");
        assert_eq!(judged(Version::HTTP_10, "/", &[]), "taken");
        assert_eq!(judged(Version::HTTP_11, "/", &[own, own]), "malformed");
    }

    #[test]
    fn a_page_of_somebody_elses_is_refused() {
        let origin = |origin| {
            let headers = [("host", "127.0.0.1:8400"), ("origin", origin)];
            judged(Version::HTTP_11, "/v1/keys", &headers)
        };
        for own in [
            "http://localhost:3000",
            "https://posthaste.internal",
            "http://[::1]",
        ] {
            assert_eq!(origin(own), "taken", "{own}");
        }
        for foreign in ["https://evil.example", "null", "", "file://"] {
            assert_eq!(origin(foreign), "foreign_origin", "{foreign}");
        }
    }
}
