//! Bounds of what is set of an endpoint about the age of events and about its
//! failures.

use std::time::Duration;

/// Least an event's age may be bounded to: less is over before a first attempt.
pub const MAX_AGE_MIN: Duration = Duration::from_secs(1);
/// … and most: longer than a source topic usually keeps.
pub const MAX_AGE_MAX: Duration = Duration::from_secs(720 * 3_600);

/// An endpoint that failed for so long, with nothing in between, is disabled
/// unless it says otherwise …
pub const DISABLE_AFTER: Duration = Duration::from_secs(120 * 3_600);
/// … which is so long at most, or never …
pub const DISABLE_AFTER_MAX: Duration = Duration::from_secs(720 * 3_600);
/// … after so many failures …
pub const DISABLE_FAILURES_MIN: u32 = 20;
/// … over at least this time, which is the least it may say.
pub const DISABLE_SPAN_MIN: Duration = Duration::from_secs(12 * 3_600);

const _: () = {
    assert!(MAX_AGE_MIN.as_secs() <= MAX_AGE_MAX.as_secs());
    assert!(DISABLE_SPAN_MIN.as_secs() <= DISABLE_AFTER.as_secs());
    assert!(DISABLE_AFTER.as_secs() <= DISABLE_AFTER_MAX.as_secs());
};
