//! What went wrong, from the errors of the libraries underneath to a cause.
//!
//! Their texts are for the operator, at debug level; a customer is told the
//! cause alone.

use std::error::Error;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use posthaste_core::outcome::{Cause, Outcome};

use super::Attempted;
use super::meter::Meter;

/// The process (`EMFILE`) or the host (`ENFILE`) has no file descriptor left;
/// std has no name for these.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

/// An attempt that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", cause.code())]
pub struct Failure {
    cause: Cause,
}

impl Failure {
    /// Of this cause.
    pub(super) const fn of(cause: Cause) -> Self {
        Self { cause }
    }

    /// The endpoint is not in the registry any more.
    pub const fn endpoint_gone() -> Self {
        Self::of(Cause::InvalidEndpoint)
    }

    /// A new connection was closed before anything could be sent on it.
    pub const fn never_sent() -> Self {
        Self::of(Cause::ConnectionReset)
    }

    /// Others opened a connection for too long.
    pub const fn no_connection_in_time() -> Self {
        Self::of(Cause::TimeoutConnect)
    }

    /// Its cause.
    pub const fn cause(self) -> Cause {
        self.cause
    }
}

impl From<Failure> for Attempted {
    fn from(failure: Failure) -> Self {
        Self {
            outcome: Outcome::failed(failure.cause),
            excerpt: Bytes::new(),
        }
    }
}

/// Of a TCP connect that failed.
pub(super) fn connect_cause(error: &io::Error) -> Cause {
    if error
        .raw_os_error()
        .is_some_and(|code| NO_DESCRIPTORS.contains(&code))
    {
        return Cause::EgressError;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => Cause::ConnectionRefused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Cause::ConnectionReset,
        // A router answers for a host that does not, or nobody does.
        ErrorKind::TimedOut | ErrorKind::HostUnreachable => Cause::TimeoutConnect,
        _ => Cause::EgressError,
    }
}

/// Of a connector that came back without a TLS session.
pub(super) fn session_cause(error: &(dyn Error + 'static), wire: &Meter) -> Cause {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.cause;
    }
    match error.downcast_ref() {
        Some(error) if !wire.is_spent() => stream_cause(error),
        _ => Cause::TlsError,
    }
}

/// Of a TLS handshake that failed, or of a stream that broke.
pub(super) fn stream_cause(mut error: &io::Error) -> Cause {
    // The connector wraps a handshake's error in another of its kind.
    while let Some(inner) = error.get_ref() {
        if inner.is::<rustls::Error>() {
            return Cause::TlsError;
        }
        let Some(inner) = inner.downcast_ref() else {
            break;
        };
        error = inner;
    }
    Cause::ConnectionReset
}

/// Of an HTTP/2 session that did not come about, or a request on it that got no
/// response head.
pub(super) fn exchange_cause(error: &hyper::Error, meter: &Meter) -> Cause {
    if meter.is_spent() || error.is_parse_too_large() {
        return Cause::ResponseTooLarge;
    }
    if error.is_parse() {
        return Cause::InvalidResponse;
    }
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return stream_cause(error);
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.get_io() {
                Some(error) => stream_cause(error),
                // What the peer did wrong, we end; what it ends is a reset.
                None if error.is_remote() => Cause::ConnectionReset,
                None => Cause::InvalidResponse,
            };
        }
        source = error.source();
    }
    Cause::ConnectionReset
}

/// Whether an HTTP/2 peer says it has not looked at the request: it refused the
/// stream, or went away before it (RFC 9113, sections 6.8 and 8.7).
pub(super) fn unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
    else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}
