//! The bounds of the API's listener.

use std::time::Duration;

/// Connections at once; past it further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Of those, how many negotiate TLS at once; further ones wait …
pub const HANDSHAKES_MAX: usize = 256;
/// … and all of it may take so long; past it the connection is closed.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// A connection is closed when the next request's head does not come within this.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest head; a longer one is answered 431.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one h2 connection; its client waits with further ones.
pub const STREAMS_MAX: u32 = 100;
/// Longest file of certificates or of a key; a longer one is refused.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;

const _: () = assert!(HANDSHAKES_MAX < CONNECTIONS_MAX);
