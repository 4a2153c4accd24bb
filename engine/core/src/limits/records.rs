//! Bounds of what is said of tenants and event types, and of answers that the
//! API remembers. Where nothing else is said, what is over one is refused.

use std::time::Duration;

use super::{EVENT_TYPE_BYTES_MAX, REQUEST_BYTES_MAX, TENANT_BYTES_MAX};

/// Tenants that have a record; past it no further one is made. Tenants without
/// one are not counted.
pub const TENANTS_MAX: usize = 100_000;
/// Longest name people give a tenant.
pub const TENANT_NAME_BYTES_MAX: usize = 256;
/// Longest description of a tenant or an event type.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Pairs of a tenant's metadata.
pub const METADATA_PAIRS_MAX: usize = 50;
/// Longest key of one.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// Keys and values of all of them.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;
/// Endpoints deleted with their tenant by one request; past it the request is to
/// be repeated.
pub const TENANT_DELETE_PAGE_MAX: usize = 500;

/// Event types that have a record; past it no further one is made.
pub const DECLARED_TYPES_MAX: usize = 2_000;
/// Longest JSON Schema of one.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Examples of one.
pub const EXAMPLES_MAX: usize = 10;
/// Longest example.
pub const EXAMPLE_BYTES_MAX: usize = 8 * 1024;
/// Compiled size of one regular expression in a schema.
pub const SCHEMA_REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Places named where an event does not satisfy its schema; further ones are
/// not looked for.
pub const SCHEMA_FLAWS_MAX: usize = 5;

/// Deleted names of one kind whose versions are remembered; past it the one
/// deleted first is forgotten.
pub const GONE_NAMES_MAX: usize = 1_000;

/// An answer to a request with an `Idempotency-Key` is remembered for so long.
pub const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// A request with a key that is not answered after so long never is: its instance
/// died. Far longer than any request takes.
pub const CLAIM_HELD: Duration = Duration::from_secs(120);
/// Answers that are remembered; past it requests with a new key are answered 503 …
pub const ANSWERS_MAX: usize = 100_000;
/// … as they are past so many bytes of them.
pub const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One caller may fill this part of either.
pub const ANSWERS_CALLER_PART: usize = 8;
/// Longest answer that is remembered; a longer one is given once.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Keys that are over and forgotten with each new one: more than come.
pub const ANSWERS_SWEPT: usize = 8;

const _: () = {
    // A request can carry all that a record may hold.
    assert!(SCHEMA_BYTES_MAX + EXAMPLES_MAX * EXAMPLE_BYTES_MAX < REQUEST_BYTES_MAX / 4);
    assert!(METADATA_PAIRS_MAX * METADATA_KEY_BYTES_MAX <= METADATA_BYTES_MAX);
    assert!(TENANT_BYTES_MAX <= TENANT_NAME_BYTES_MAX && EVENT_TYPE_BYTES_MAX <= 256);
    assert!(ANSWER_BYTES_MAX <= ANSWERS_BYTES_MAX / ANSWERS_CALLER_PART);
};
