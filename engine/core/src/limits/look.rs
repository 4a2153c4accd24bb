//! Bounds of looks through the log for what people ask of it.

use std::time::Duration;

use super::SNAPSHOT_TAIL_BYTES_MAX;

/// Looks for deliveries and events that go on at once in one process; a further
/// one is answered 503.
pub const LOOKS_MAX: usize = 4;
/// Bytes one of them reads; past it, it answers how far it came …
pub const LOOK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// … as it does after this time.
pub const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a lane that one reads which asks what is owed: back to its owner's
/// last snapshot and forth again, and as much over; past it, it is answered 503.
pub const LOOK_LANE_BYTES_MAX: usize = 4 * SNAPSHOT_TAIL_BYTES_MAX;
/// Bytes of one partition it reads at once …
pub const LOOK_READ_BYTES: usize = 256 * 1024;
/// … and partitions.
pub const LOOK_READS_MAX: usize = 4;
/// Deliveries or attempts it gathers; past it, it ends as well.
pub const LOOK_FOUND_MAX: usize = 20_000;
/// Deliveries, or events, on one page unless the request says otherwise.
pub const LOOK_PAGE_DEFAULT: usize = 50;
/// Most on one page.
pub const LOOK_PAGE_MAX: usize = 250;
/// Bytes of a body that an event is shown with.
pub const EVENT_SHOWN_BYTES_MAX: usize = 64 * 1024;
/// Stretch that an endpoint's figures are of, unless the request says otherwise.
pub const STATS_SPAN_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// Equal parts of it that are told apart.
pub const STATS_BUCKETS: usize = 24;
/// Last records of a source that are shown unless the request says otherwise.
pub const PREVIEW_DEFAULT: usize = 10;
/// Most of them …
pub const PREVIEW_MAX: usize = 50;
/// … each with so many bytes of its body …
pub const PREVIEW_BODY_BYTES_MAX: usize = 4 * 1024;
/// … and so many of its headers …
pub const PREVIEW_HEADERS_MAX: usize = 64;
/// … and of each header's value.
pub const PREVIEW_HEADER_BYTES_MAX: usize = 256;

const _: () = {
    assert!(LOOK_PAGE_DEFAULT <= LOOK_PAGE_MAX && LOOK_PAGE_MAX <= LOOK_FOUND_MAX);
    assert!(PREVIEW_DEFAULT <= PREVIEW_MAX && PREVIEW_MAX <= LOOK_PAGE_MAX);
    assert!(LOOK_READS_MAX * LOOK_READ_BYTES <= LOOK_BYTES_MAX);
    assert!(2 * SNAPSHOT_TAIL_BYTES_MAX < LOOK_LANE_BYTES_MAX);
    assert!(STATS_BUCKETS > 0);
};
