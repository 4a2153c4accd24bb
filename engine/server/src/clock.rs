//! The one place that reads the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use posthaste_core::time::Timestamp;

/// How far the wall clock may wander from ours before we follow it.
const SKEW_MAX: Duration = Duration::from_millis(500);

/// Wall-clock time that advances with the monotonic clock, so that a jump of
/// the wall clock fires no timer early. [`reanchor`](Self::reanchor), called
/// about every minute, follows lasting corrections.
#[derive(Debug, Clone)]
pub struct Clock {
    started: Instant,
    /// Milliseconds since the epoch at `started`, as we hold it.
    base_ms: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            base_ms: Arc::new(AtomicU64::new(wall_ms())),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let base = self.base_ms.load(Ordering::Relaxed);
        Timestamp::from_millis(base.saturating_add(elapsed))
    }

    /// Follows the wall clock if it has moved away. Answers by how many
    /// milliseconds it was corrected, 0 if not.
    pub fn reanchor(&self) -> i64 {
        let ours = self.now().as_millis();
        let wall = wall_ms();
        if Duration::from_millis(ours.abs_diff(wall)) < SKEW_MAX {
            return 0;
        }
        let correction = i64::try_from(wall).unwrap_or(0) - i64::try_from(ours).unwrap_or(0);
        let base = self.base_ms.load(Ordering::Relaxed);
        self.base_ms
            .store(base.saturating_add_signed(correction), Ordering::Relaxed);
        correction
    }
}

fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |span| {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A seed for jitter and ids.
pub fn random_seed() -> u64 {
    getrandom::u64().expect("the operating system gives randomness")
}
