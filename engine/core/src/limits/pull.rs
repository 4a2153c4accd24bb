//! Bounds of events that are pulled instead of pushed.

use std::time::Duration;

use super::BODY_BYTES_MAX;
use super::listen::{CONNECTIONS_MAX, HEAD_BYTES_MAX};

/// Calls that pull at once in one process, most of which wait; a further one is
/// answered 503 …
pub const PULLS_MAX: usize = 256;
/// … as it is past so many of one tenant.
pub const PULLS_TENANT_MAX: usize = 32;
/// Of them read at once; the others wait for their turn.
pub const PULL_READS_MAX: usize = 2;
/// Longest time a call waits for something to come.
pub const PULL_WAIT_MAX: Duration = Duration::from_secs(30);
/// While calls wait, the ends of the source topics are asked for this often, once
/// for all calls …
pub const PULL_LOOK_EVERY: Duration = Duration::from_millis(500);
/// … and for new partitions …
pub const PULL_TOPICS_EVERY: Duration = Duration::from_secs(30);
/// … of so many partitions at once.
pub const PULL_ASKS_MAX: usize = 16;
/// Events in one answer unless the request says otherwise.
pub const PULL_PAGE_DEFAULT: usize = 100;
/// Most in one answer.
pub const PULL_PAGE_MAX: usize = 1_000;
/// Bytes of their bodies; one event always fits.
pub const PULL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Partitions a cursor holds; events in more cannot be pulled.
pub const PULL_PARTITIONS_MAX: usize = 1_024;
/// Longest cursor.
pub const PULL_CURSOR_BYTES_MAX: usize = 48 * 1024;

const _: () = {
    assert!(PULLS_TENANT_MAX < PULLS_MAX && PULL_READS_MAX < PULLS_MAX);
    // Others still get a connection.
    assert!(PULLS_MAX <= CONNECTIONS_MAX / 2);
    assert!(PULL_PAGE_DEFAULT <= PULL_PAGE_MAX && BODY_BYTES_MAX <= PULL_BYTES_MAX);
    // An offset and its dot, a topic's name and its; and a head has room for it.
    assert!(PULL_PARTITIONS_MAX * (21 + 18) + 128 <= PULL_CURSOR_BYTES_MAX);
    assert!(PULL_CURSOR_BYTES_MAX < HEAD_BYTES_MAX);
};
