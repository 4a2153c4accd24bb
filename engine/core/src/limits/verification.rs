//! Bounds of asking receivers whether they want what they would get.

use std::time::Duration;

use super::{EXCERPT_BYTES_MAX, TIMEOUT_MAX};

/// Receivers asked at once, by a ping or a challenge, in one process; a further
/// one is not asked, and its caller told so.
pub const VERIFICATIONS_MAX: usize = 32;
/// Longest time for one of them: a caller waits for it.
pub const VERIFICATION_TIME_MAX: Duration = Duration::from_secs(10);
/// Random bytes of a challenge, sent in hexadecimal digits.
pub const CHALLENGE_RANDOM_BYTES: usize = 24;

const _: () = {
    assert!(VERIFICATION_TIME_MAX.as_millis() <= TIMEOUT_MAX.as_millis());
    // An answer fits what is kept of a response: its longest form is JSON.
    assert!(2 * CHALLENGE_RANDOM_BYTES + 64 <= EXCERPT_BYTES_MAX);
};
