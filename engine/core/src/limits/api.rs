//! Bounds of what the API is asked for.

use std::time::Duration;

/// Items on one page of a list unless the request says otherwise.
pub const LIST_PAGE_DEFAULT: usize = 50;
/// Most on one page.
pub const LIST_PAGE_MAX: usize = 250;
/// API keys at once; past it no further one is made.
pub const API_KEYS_MAX: usize = 10_000;
/// Longest description of one.
pub const KEY_DESCRIPTION_BYTES_MAX: usize = 256;
/// A portal token is good for so long unless the request says otherwise …
pub const PORTAL_TIME_DEFAULT: Duration = Duration::from_secs(3_600);
/// … and at most.
pub const PORTAL_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest credential that is looked at; a longer one is none.
pub const CREDENTIAL_BYTES_MAX: usize = 512;
/// Changes of the endpoints table on one page unless the request says otherwise.
pub const CHANGES_PAGE_DEFAULT: usize = 50;
/// Most on one page.
pub const CHANGES_PAGE_MAX: usize = 250;
/// Offsets of changes read at once.
pub const CHANGES_READ_SPAN: u64 = 1_024;
/// … and looked through for one page; past it the page ends, and may be empty.
pub const CHANGES_SCAN_SPAN_MAX: u64 = 64 * CHANGES_READ_SPAN;
/// Changes are kept for so long.
pub const CHANGES_KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Backtests of filters that run at once in one process; a further one is
/// answered 503.
pub const BACKTESTS_MAX: usize = 2;
/// Bytes of events one backtest reads; past it, it answers how far it came …
pub const BACKTEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// … as it does after this time.
pub const BACKTEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of one partition it reads at once.
pub const BACKTEST_READ_BYTES: usize = 256 * 1024;
/// Events it shows unless the request says otherwise.
pub const BACKTEST_SAMPLES_DEFAULT: usize = 20;
/// Most it shows.
pub const BACKTEST_SAMPLES_MAX: usize = 250;

/// Why an operator disables an endpoint, in their words.
pub const DISABLED_REASON_BYTES_MAX: usize = 256;
/// Deliveries a replay or a redrive writes a second unless the request says
/// otherwise: what most endpoints take beside what comes …
pub const REPLAY_RATE_DEFAULT: u32 = 500;
/// … and at most.
pub const REPLAY_RATE_MAX: u32 = 100_000;
/// Endpoints whose owners one request asks for something.
pub const OPERATIONS_PER_REQUEST_MAX: usize = 100;
/// Deliveries one request names; more are refused.
pub const OWED_PER_REQUEST_MAX: usize = 100;

/// Receivers asked at once, by a ping or a challenge, in one process; a further
/// one is not asked, and its caller told so.
pub const VERIFICATIONS_MAX: usize = 32;
/// Longest time for one of them: a caller waits for it.
pub const VERIFICATION_TIME_MAX: Duration = Duration::from_secs(10);
/// Random bytes of a challenge, sent in hexadecimal digits.
pub const CHALLENGE_RANDOM_BYTES: usize = 24;
