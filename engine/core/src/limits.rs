//! Every bound in one place, each with what happens when it is reached.

use std::time::Duration;

mod api;
mod buried;
mod endpoint;
pub mod listen;
mod look;
mod pull;
mod records;

pub use api::*;
pub use buried::*;
pub use endpoint::*;
pub use look::*;
pub use pull::*;
pub use records::*;

/// Longest event body. Longer records become dead letters (`oversize`); the
/// HTTP ingest answers 413.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest HTTP request body: an event's body and an envelope round it.
pub const REQUEST_BYTES_MAX: usize = BODY_BYTES_MAX + 64 * 1024;
/// Further bytes of a longer request that are read and thrown away, so that its
/// client hears why it is refused; past it the connection is closed on it.
pub const REQUEST_DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// … and the time that may take.
pub const REQUEST_DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Idempotency keys one process remembers; past it new keys are answered 503.
pub const IDEMPOTENCY_KEYS_MAX: usize = 1_000_000;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Longest event id (the `webhook-id`).
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Longest event type, and pattern over types.
pub const EVENT_TYPE_BYTES_MAX: usize = 256;
/// Longest ordering key an event names. Of a longer record key, which nobody
/// meant for it, the hash takes its place.
pub const ORDERING_KEY_BYTES_MAX: usize = 256;
/// Longest tenant name.
pub const TENANT_BYTES_MAX: usize = 128;
/// Longest URL (security rules of the target parser).
pub const URL_BYTES_MAX: usize = 2_048;
/// Patterns one endpoint may list.
pub const EVENT_TYPES_MAX: usize = 200;
/// Secrets that may sign for one endpoint at once.
pub const SECRETS_MAX: usize = 3;
/// A secret that is followed by another signs on for so long, unless the request
/// says otherwise …
pub const SECRET_OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// … and at most.
pub const SECRET_OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Endpoints whose secrets are sealed anew by one request.
pub const RESEAL_PAGE_MAX: usize = 100;
/// Public keys published at once; past it those of the newest endpoints are left
/// out.
pub const PUBLISHED_KEYS_MAX: usize = 10_000;
/// Custom headers of one endpoint, names and values together.
pub const HEADERS_BYTES_MAX: usize = 8 * 1024;

/// Longest filter of one endpoint, as JSON. Longer ones are refused, as are
/// those past the next three bounds.
pub const FILTER_BYTES_MAX: usize = 4 * 1024;
/// Filters inside each other, by `$and`, `$or` and `$not`.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Paths, operators and constants of one filter, so that judging an event has a bound.
pub const FILTER_NODES_MAX: usize = 256;
/// Names in one path of a filter, which is how deep a body is followed.
pub const FILTER_PATH_NAMES_MAX: usize = 16;
/// JSON text of a string, number or array that a filter compares; of a longer
/// one it only knows that it is there.
pub const FILTER_VALUE_BYTES_MAX: usize = 16 * 1024;
/// … and elements of an array.
pub const FILTER_ELEMENTS_MAX: usize = 1_024;

/// Most endpoints one event may match. Further ones are refused when they are
/// created.
pub const ENDPOINTS_PER_TENANT_MAX: usize = 10_000;

/// Operations an endpoint has that are not over; further ones are refused.
pub const OPERATIONS_PER_ENDPOINT_MAX: usize = 16;
/// Operations that are kept, over or not; further ones are refused.
pub const OPERATIONS_MAX: usize = 10_000;
/// How long one that is over is shown.
pub const OPERATION_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Partitions one reads.
pub const OPERATION_RANGES_MAX: usize = 4_096;
/// Deliveries one names.
pub const OPERATION_OFFSETS_MAX: usize = 10_000;

/// Deliveries waiting for one endpoint in memory; past it they go to the lane.
pub const QUEUE_ITEMS_MAX: usize = 256;
/// Payload waiting for one endpoint in memory; past it they go to the lane.
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait in an endpoint's queue; older deliveries go to the lane. Keeps
/// queues short where work is perishable (Huang et al., OSDI 2022).
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);
/// An endpoint may always queue this many, however full its shard is.
pub const QUEUE_ITEMS_FAIR: usize = 16;

/// Deliveries waiting in one shard, all endpoints together. Past it an endpoint
/// may queue only [`QUEUE_ITEMS_FAIR`]; then intake waits, or what a slow
/// endpoint cannot take goes to the lane.
pub const SHARD_QUEUED_MAX: usize = 1_024;
/// Time intake may wait for one endpoint's full queue while all others stand
/// idle; past it that endpoint counts as slow, and what it cannot take goes to
/// the lane.
pub const INTAKE_PATIENCE: Duration = Duration::from_millis(10);
/// Patience spent comes back in so many times the time it took, so that waiting
/// costs at most a twentieth of the throughput for long.
pub const INTAKE_PATIENCE_RETURN: i64 = 20;
/// Attempts in flight in one shard. At the bound endpoints take turns.
pub const SHARD_IN_FLIGHT_MAX: usize = 512;
/// Bytes of bodies waiting in one shard, an event's counted for each of its
/// deliveries. At the bound intake stops, and what an owner hands over bounces.
pub const SHARD_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An endpoint whose attempts take longer than this on average is slow. All such
/// together have at most [`SHARD_SLOW_MAX`] attempts in flight; past it they wait.
pub const SLOW_MS: u32 = 1_000;
/// Half of the slots.
pub const SHARD_SLOW_MAX: usize = SHARD_IN_FLIGHT_MAX / 2;
/// … and one whose attempts take longer than this is very slow.
pub const VERY_SLOW_MS: u32 = 5_000;
/// A quarter of the slots.
pub const SHARD_VERY_SLOW_MAX: usize = SHARD_IN_FLIGHT_MAX / 4;
/// Retries in flight while first attempts wait: half of the slots.
pub const SHARD_RETRIES_MAX: usize = SHARD_IN_FLIGHT_MAX / 2;
/// First attempts for each retry of one endpoint while both wait: retries are a
/// fifth (Finagle's retry budget).
pub const FRESH_PER_OWED: u32 = 4;
/// Attempts in flight of one tenant while others wait: a quarter of the slots.
pub const TENANT_IN_FLIGHT_MAX: usize = SHARD_IN_FLIGHT_MAX / 4;
/// A delivery costs one turn and one more for so many bytes of its body.
pub const COST_BYTES: usize = 16 * 1024;

/// Percent of endpoints that newly cannot be reached past which a shard suspects
/// itself …
pub const PANIC_ENTER_PERCENT: u64 = 30;
/// … out of at least so many …
pub const PANIC_ENDPOINTS_MIN: u64 = 20;
/// … with an attempt within this time.
pub const PANIC_SPAN: Duration = Duration::from_secs(10);
/// Below this percentage …
pub const PANIC_LEAVE_PERCENT: u64 = 10;
/// … for this long, it does so no longer.
pub const PANIC_LEAVE_AFTER: Duration = Duration::from_secs(3);
/// It does so no longer than this: what still cannot be reached then is down, as
/// far as can be told, and its breaker holds it. Longer than an outage of our own
/// lasts unnoticed.
pub const PANIC_MAX: Duration = Duration::from_secs(10 * 60);
/// Attempts in flight meanwhile: a tenth of the slots.
pub const PANIC_IN_FLIGHT_MAX: usize = SHARD_IN_FLIGHT_MAX / 10;

/// Attempts at once that a shard always may have young in flight; up to
/// [`SHARD_IN_FLIGHT_MAX`] while that does not make answers late.
pub const PACE_MIN: usize = 64;
/// Attempts at once that one endpoint may always have in flight, within its own
/// bound.
pub const PACE_PART_MIN: u32 = 2;
/// An attempt is young for so long; older ones do not count against the pace.
pub const PACE_YOUNG_MS: u64 = 100;
/// The pace is judged so often.
pub const PACE_EVERY: Duration = Duration::from_millis(100);
/// Answers that take less than this on average are never late.
pub const PACE_LATE: Duration = Duration::from_millis(3);
/// Receivers that answer sooner at their best need few attempts at once, and
/// only they are paced.
pub const PACE_PROMPT: Duration = Duration::from_millis(10);
/// Answers that take more than this on average are the receivers' own time:
/// nothing is concluded from them.
pub const PACE_QUICK: Duration = Duration::from_millis(25);
/// Bytes of lane and dead-letter records of one shard not yet acknowledged by
/// the log. At the bound the shard starts no new attempt and takes in nothing
/// that would have to be appended.
pub const SHARD_UNACKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Deliveries handed to a shard at once.
pub const MAILBOX_BATCH: usize = 64;
/// Batches waiting in a shard's mailbox. At the bound ingest stops reading.
pub const MAILBOX_BATCHES_MAX: usize = 8;

/// Batches of reports, and of closed tickets, waiting for owner and ingest. At
/// the bound they wait in the shard, which holds no more than its deliveries.
pub const REPORT_BATCHES_MAX: usize = 64;
/// Records a shard appends at once.
pub const APPEND_BATCH_RECORDS: usize = 512;
/// … and bytes.
pub const APPEND_BATCH_BYTES: usize = 1024 * 1024;
/// Attempt records written at once.
pub const AUDIT_BATCH: usize = 256;
/// Batches of attempt records waiting; past it they are dropped and counted.
pub const AUDIT_BATCHES_MAX: usize = 64;

/// Attempts in flight to one endpoint unless it says otherwise.
pub const IN_FLIGHT_DEFAULT: u32 = 10;
/// Most attempts in flight to one endpoint, whatever it says.
pub const IN_FLIGHT_MAX: u32 = 256;
/// Time to connect, TLS included, unless the endpoint says otherwise.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Time for a whole attempt unless the endpoint says otherwise
/// (Standard Webhooks recommends 15 to 30 s).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// Longest time for a whole attempt.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Plaintext bytes read from a receiver for one response, head and body. Past
/// it the connection is dropped; a 2xx already seen stays a success.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Response body kept as an excerpt.
pub const EXCERPT_BYTES_MAX: usize = 1_024;
/// Time to read a body once the head is known, within the attempt's deadline.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(2);
/// Attempts made on one connection before it is closed.
pub const CONNECTION_ATTEMPTS_MAX: u32 = 1_000;
/// Age at which a connection is closed, so that DNS changes take effect.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// An idle connection is closed after this.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(60);

/// Plaintext bytes read from a receiver that owes no response, such as HTTP/2
/// pings; past it the connection is dropped.
pub const IDLE_BYTES_MAX: usize = 1_024;
/// Bytes read from a TLS socket until a handshake is done, and again for each
/// response: its plaintext, and room for what TLS adds and for records that hold
/// none. Past it the connection is dropped.
pub const WIRE_BYTES_MAX: usize = 256 * 1024;
/// Head of one HTTP/1.1 response, and header list of an HTTP/2 one; past it the
/// connection is dropped.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one HTTP/1.1 response; past it the connection is dropped.
pub const HEAD_FIELDS_MAX: usize = 64;
/// Body bytes written to a connection at once, so that a long body is never
/// copied whole into a connection's buffer.
pub const WRITE_BYTES_MAX: usize = 16 * 1024;
/// What one HTTP/2 receiver may send unasked: one stream's window.
pub const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// … and all of a connection's streams together.
pub const HTTP2_CONNECTION_WINDOW: u32 = 128 * 1024;
/// HTTP/2 streams we reset and still remember; past it late frames of them end
/// the connection.
pub const HTTP2_RESETS_MAX: usize = 10;

/// Name look-ups at once in one process; further ones wait for their turn.
pub const LOOKUPS_MAX: usize = 64;
/// Time for one look-up; past it the attempt fails.
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(3);
/// Addresses of one name that are judged and tried; later ones are not looked
/// at.
pub const LOOKUP_ADDRESSES_MAX: usize = 16;
/// A look-up's answer is used for this long.
pub const LOOKUP_KEPT: Duration = Duration::from_secs(30);
/// … and its failure for this long.
pub const LOOKUP_FAILURE_KEPT: Duration = Duration::from_secs(5);
/// Names remembered in one process; past it all are forgotten.
pub const LOOKUP_NAMES_MAX: usize = 16_384;

/// Keys one endpoint signs with at once, newest first; older ones fall away.
pub const SIGNING_KEYS_MAX: usize = 3;
/// Shortest secret of a scheme whose key is the secret's text …
pub const TEXT_SECRET_BYTES_MIN: usize = 8;
/// … and longest.
pub const TEXT_SECRET_BYTES_MAX: usize = 256;
/// Signatures of one version read from a received header; later ones are not
/// looked at, so that a long header costs a bounded number of verifications.
pub const SIGNATURES_READ_MAX: usize = 16;
/// How far a received timestamp may lie from the receiver's clock, either way
/// (Standard Webhooks reference libraries); further off is refused.
pub const SIGNATURE_TOLERANCE: Duration = Duration::from_secs(300);

/// The retry policy of an endpoint that names none.
pub const STANDARD_POLICY: &str = "standard";
/// Retry policies a configuration may define; with more it is refused. As many
/// more may have a record; past it no further one is made.
pub const RETRY_POLICIES_MAX: usize = 100;
/// Longest name of one.
pub const POLICY_NAME_BYTES_MAX: usize = 128;
/// Gaps of one; with more it is refused.
pub const RETRY_GAPS_MAX: usize = 30;
/// Shortest gap: a shorter one is no pause to a receiver that fails.
pub const RETRY_GAP_MIN: Duration = Duration::from_secs(1);
/// Longest gap.
pub const RETRY_GAP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Age at which a delivery is given up, counted from its first attempt.
pub const DELIVERY_AGE_MAX: Duration = Duration::from_secs(72 * 3_600);
/// Longest Retry-After that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Failures in a row that trip an endpoint's breaker …
pub const BREAKER_FAILURES: u32 = 5;
/// … when they span so long: a burst that meets one moment is one failure.
pub const BREAKER_FAILURES_SPAN: Duration = Duration::from_secs(1);
/// Percent of failures that trip it …
pub const BREAKER_RATE_PERCENT: u64 = 50;
/// … of at least so many attempts …
pub const BREAKER_RATE_MIN: u64 = 20;
/// … within so many slices of time, the current one being the last …
pub const BREAKER_SLICES: usize = 6;
/// … of so long: 30 s in all.
pub const BREAKER_SLICE_MS: u64 = 5_000;
/// First pause before a probe; every failed probe doubles it.
pub const COOLDOWN_FIRST: Duration = Duration::from_secs(5);
/// Longest pause: this part of the time the endpoint has been down, so that its
/// return is noticed within as much …
pub const COOLDOWN_CAP_PART: u32 = 20;
/// … but so long at least …
pub const COOLDOWN_CAP_MIN: Duration = Duration::from_secs(60);
/// … and at most.
pub const COOLDOWN_CAP_MAX: Duration = Duration::from_secs(600);

/// Attempts at once to an endpoint that never took anything …
pub const WINDOW_FIRST: u32 = 1;
/// … once it took one …
pub const WINDOW_START: u32 = 4;
/// … and once it is back after it was down. From there it is found by trying.
pub const WINDOW_RECOVERED: u32 = 2;
/// Attempts an endpoint's rate may save up: one, and this part of a second's.
pub const RATE_BURST_PART: u64 = 10;
/// Up to this part of a Retry-After is added to it.
pub const RETRY_AFTER_JITTER_PART: u32 = 10;

/// Dead letters of unreadable records being written. At the bound ingest stops
/// routing.
pub const BURIALS_MAX: usize = 256;
/// Bytes of an unreadable record kept in its dead letter.
pub const DEAD_RECORD_BYTES_MAX: usize = 256 * 1024;

/// Dead letters on one page unless the request says otherwise.
pub const DEAD_PAGE_DEFAULT: usize = 50;
/// Most on one page.
pub const DEAD_PAGE_MAX: usize = 250;
/// Bytes of one partition of dead letters read at once.
pub const DEAD_READ_BYTES: usize = 256 * 1024;
/// Bytes of dead letters read for one page; past it the page ends, and may be
/// empty.
pub const DEAD_SCAN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Offsets one source partition may span between its lowest incomplete and its
/// newest, a bit each. At the bound the partition is not read further. Attempts
/// that hang stay open for up to 25 s (queue and timeout): a smaller span stops
/// a partition of more than 40,000 records a second for one dead endpoint.
pub const SOURCE_SPAN_MAX: u64 = 1 << 20;
/// A source partition's offsets are committed at least this often while dirty.
pub const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// … or after this many completions.
pub const COMMIT_COMPLETIONS_MAX: usize = 5_000;
/// Characters of commit metadata; Kafka's default bound is 4,096 bytes
/// (`offset.metadata.max.bytes`).
pub const COMMIT_METADATA_MAX: usize = 4_000;

/// Offsets commit metadata tells about; what lies beyond is unknown to it.
pub const COMMIT_SPAN_MAX: u64 = 1 << 24;

/// Facts are written at least this often while there are any.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// … or when this many wait.
pub const PROGRESS_ENTRIES_MAX: usize = 500;
/// Deliveries of one endpoint an owner hands to its shard at once: so many, or
/// twice what the endpoint may have in flight where that is more, so that its
/// shard never waits for the owner.
pub const OWNER_OUTSTANDING: usize = 64;
/// Timers of one lane partition. Past it the owner moves further ones behind
/// the lane's end, where they are held.
pub const TIMERS_MAX: usize = 50_000;
/// … and of one endpoint.
pub const TIMERS_PER_ENDPOINT_MAX: usize = 10_000;
/// Timers of one partition being moved at once; the others wait for that.
pub const MOVES_MAX: usize = 64;
/// Held deliveries of one endpoint an owner works on at once. At the bound it
/// reads no further.
pub const PAGE_MAX: usize = 2_048;
/// With fewer read and not yet handed out it reads on.
pub const PAGE_LOW: usize = 512;
/// Offsets of the lane read at once for what one endpoint holds.
pub const PAGE_SPAN_MAX: u64 = 16 * 1_024;
/// Reads of one lane partition at once, out of turn; others wait for that.
pub const READS_MAX: usize = 4;
/// Settled offsets above a hold's cursor that an owner lets stand before it
/// moves the cursor.
pub const HOLD_TAKEN_MAX: usize = 256;
/// Expired deliveries in a row that become one dead letter for all; fewer become
/// one each.
pub const DEAD_RANGE_MIN: usize = 16;
/// What cannot be handed out is looked through so often for what expired.
pub const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// A gate stays as it is at least so long.
pub const GATE_DWELL: Duration = Duration::from_secs(1);
/// Commands of one lane partition remembered by their ids; one that is repeated
/// after so many others takes effect again.
pub const COMMANDS_REMEMBERED_MAX: usize = 1_024;

/// Operations of one lane partition of which is remembered how far they are …
pub const MADE_MAX: usize = 1_024;
/// … and ranges of all of them. Past either, the one that made nothing for the
/// longest time is forgotten: if it is not over, it begins again.
pub const MADE_RANGES_MAX: usize = 64 * 1_024;
/// Operations of one lane partition that are carried out at once; the others
/// wait for that.
pub const OPERATIONS_AT_ONCE: usize = 8;
/// Bytes of records an operation reads at once, and keeps until they are
/// written.
pub const OPERATION_READ_BYTES: usize = 256 * 1_024;
/// Deliveries an operation writes at once.
pub const OPERATION_BATCH_MAX: usize = 500;
/// Deliveries one endpoint may hold while an operation makes more of them; from
/// there on it waits until some are taken.
pub const OPERATION_HELD_MAX: u64 = 4_096;
/// An operation says how far it is no more often.
pub const OPERATION_TOLD_EVERY: Duration = Duration::from_secs(1);
/// First pause before a source that cannot be read is read again …
pub const OPERATION_WAIT_FIRST: Duration = Duration::from_millis(100);
/// … and the longest, each one twice the one before it.
pub const OPERATION_WAIT_MAX: Duration = Duration::from_secs(10);

/// A lane partition's snapshot is written so often while there is news …
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// … or when so many bytes stand behind the last one …
pub const SNAPSHOT_TAIL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// … and so often anyhow, well within the lane's retention.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Bytes of one part of it.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 512 * 1024;
/// Parts of one; commit metadata that says more is not believed.
pub const SNAPSHOT_PARTS_MAX: u32 = 4_096;
/// Runs of chunks in one piece of a hold.
pub const SNAPSHOT_RUNS_MAX: usize = 16 * 1024;

/// Payload an owner keeps in memory for deliveries that wait; past it bodies
/// are read again from the log.
pub const OWNER_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = {
    assert!(RETRY_GAP_MIN.as_millis() <= RETRY_GAP_MAX.as_millis());
    assert!(RETRY_GAP_MAX.as_millis() <= DELIVERY_AGE_MAX.as_millis());
    assert!(RETRY_AFTER_MAX.as_millis() <= DELIVERY_AGE_MAX.as_millis());
    assert!(SOURCE_SPAN_MAX <= COMMIT_SPAN_MAX);
    assert!(BREAKER_SLICE_MS * BREAKER_SLICES as u64 == 30_000);
    assert!(BREAKER_FAILURES as u64 <= BREAKER_RATE_MIN && BREAKER_RATE_PERCENT <= 100);
    assert!(COOLDOWN_FIRST.as_millis() <= COOLDOWN_CAP_MIN.as_millis());
    assert!(COOLDOWN_CAP_MIN.as_millis() <= COOLDOWN_CAP_MAX.as_millis());
    assert!(1 <= WINDOW_FIRST && WINDOW_FIRST <= WINDOW_START);
    assert!(WINDOW_START <= IN_FLIGHT_MAX && WINDOW_RECOVERED <= WINDOW_START);
    assert!(SHARD_QUEUED_BYTES_MAX >= QUEUE_BYTES_MAX + BODY_BYTES_MAX);
    assert!(SLOW_MS < VERY_SLOW_MS && SHARD_VERY_SLOW_MAX < SHARD_SLOW_MAX);
    assert!(SHARD_SLOW_MAX < SHARD_IN_FLIGHT_MAX && SHARD_RETRIES_MAX < SHARD_IN_FLIGHT_MAX);
    assert!(PANIC_LEAVE_PERCENT < PANIC_ENTER_PERCENT && PANIC_IN_FLIGHT_MAX > 0);
    assert!(PACE_MIN <= SHARD_IN_FLIGHT_MAX);
    assert!(PACE_LATE.as_millis() < PACE_PROMPT.as_millis());
    assert!(PACE_PROMPT.as_millis() < PACE_QUICK.as_millis());
    assert!(QUEUE_ITEMS_FAIR <= QUEUE_ITEMS_MAX);
    assert!(QUEUE_ITEMS_MAX <= SHARD_QUEUED_MAX);
    assert!(QUEUE_BYTES_MAX >= BODY_BYTES_MAX);
    // What an owner hands over has room in an empty shard: a half in flight, the
    // other in the queue.
    assert!(OWNER_OUTSTANDING <= QUEUE_ITEMS_MAX);
    assert!(IN_FLIGHT_MAX as usize <= QUEUE_ITEMS_MAX);
    assert!(OWNER_OUTSTANDING <= PAGE_LOW && 2 * IN_FLIGHT_MAX as usize <= PAGE_LOW);
    assert!(2 * PAGE_LOW <= PAGE_MAX && HOLD_TAKEN_MAX < PAGE_MAX);
    assert!(TIMERS_PER_ENDPOINT_MAX <= TIMERS_MAX);
    assert!(DEAD_RANGE_MIN <= PAGE_MAX);
    // Whatever is being carried out is remembered.
    assert!(OPERATIONS_AT_ONCE <= MADE_MAX);
    assert!(OPERATIONS_AT_ONCE * OPERATION_RANGES_MAX <= MADE_RANGES_MAX);
    assert!(OWED_PER_REQUEST_MAX <= OPERATION_OFFSETS_MAX);
    assert!(OPERATION_WAIT_FIRST.as_millis() <= OPERATION_WAIT_MAX.as_millis());
    // A run is two numbers of at most ten bytes.
    assert!(SNAPSHOT_RUNS_MAX * 20 + PAGE_MAX * 20 < SNAPSHOT_PART_BYTES_MAX);
    assert!(FILTER_BYTES_MAX <= FILTER_VALUE_BYTES_MAX);
    assert!(FILTER_DEPTH_MAX <= FILTER_NODES_MAX && FILTER_PATH_NAMES_MAX <= 100);
    assert!(EXCERPT_BYTES_MAX <= RESPONSE_BYTES_MAX);
    assert!(HEAD_BYTES_MAX <= RESPONSE_BYTES_MAX);
    assert!(WIRE_BYTES_MAX >= 2 * RESPONSE_BYTES_MAX);
    assert!(LOOKUP_TIME_MAX.as_millis() <= CONNECT_TIMEOUT_DEFAULT.as_millis());
    assert!(COMMIT_METADATA_MAX <= 4_096);
    assert!(DEAD_PAGE_DEFAULT <= DEAD_PAGE_MAX);
    assert!(REPLAY_RATE_DEFAULT <= REPLAY_RATE_MAX);
    assert!(BACKTEST_SAMPLES_DEFAULT <= BACKTEST_SAMPLES_MAX);
    assert!(VERIFICATION_TIME_MAX.as_millis() <= TIMEOUT_MAX.as_millis());
    // The longest form of an answer is JSON.
    assert!(2 * CHALLENGE_RANDOM_BYTES + 64 <= EXCERPT_BYTES_MAX);
    assert!(BACKTEST_READ_BYTES <= BACKTEST_BYTES_MAX);
    assert!(DEAD_READ_BYTES <= DEAD_SCAN_BYTES_MAX);
    assert!(SIGNING_KEYS_MAX <= SIGNATURES_READ_MAX && SECRETS_MAX <= SIGNING_KEYS_MAX);
    assert!(SECRET_OVERLAP_DEFAULT.as_secs() <= SECRET_OVERLAP_MAX.as_secs());
    assert!(TEXT_SECRET_BYTES_MIN <= TEXT_SECRET_BYTES_MAX);
    assert!(CHANGES_PAGE_DEFAULT <= CHANGES_PAGE_MAX && LIST_PAGE_DEFAULT <= LIST_PAGE_MAX);
    assert!(PORTAL_TIME_DEFAULT.as_secs() <= PORTAL_TIME_MAX.as_secs());
    // A portal token names a tenant, in base64.
    assert!(CREDENTIAL_BYTES_MAX > TENANT_BYTES_MAX * 4 / 3 + 128);
    assert!(TIMEOUT_DEFAULT.as_millis() <= TIMEOUT_MAX.as_millis());
};
