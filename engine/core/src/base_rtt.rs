//! How soon one endpoint answers when nothing waits: Vegas' BaseRTT (Brakmo,
//! O'Malley, Peterson 1994), the lowest mean of late. What comes later than that
//! waited somewhere, perhaps in our own queues.

use std::time::Duration;

use crate::time::Timestamp;

/// Answers to a mean: of fewer, the lowest would be a matter of luck.
const ANSWERS: u32 = 128;
/// The lowest is that of this many spans …
const SPANS: u8 = 3;
/// … of this length or of one mean, whichever is longer.
const SPAN: Duration = Duration::from_secs(10);

/// The lowest mean answer time of late.
#[derive(Debug, Default)]
pub struct BaseRtt {
    answers: u32,
    took_ms: u64,
    spans: [Option<Duration>; SPANS as usize],
    at: Timestamp,
}

impl BaseRtt {
    /// An answer took so long.
    pub fn answered(&mut self, took: Duration, now: Timestamp) {
        self.answers += 1;
        self.took_ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX / 256);
        if self.answers < ANSWERS {
            return;
        }
        let mean = Duration::from_millis(self.took_ms) / ANSWERS;
        (self.answers, self.took_ms) = (0, 0);
        let age = now.since(self.at);
        if age >= SPAN * u32::from(SPANS) {
            self.spans = [None; SPANS as usize];
        }
        if age >= SPAN {
            self.spans.rotate_right(1);
            self.spans[0] = None;
            self.at = now;
        }
        self.spans[0] = Some(self.spans[0].map_or(mean, |lowest| lowest.min(mean)));
    }

    /// The lowest, once there were enough answers.
    pub fn lowest(&self) -> Option<Duration> {
        self.spans.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(base: &mut BaseRtt, took_ms: u64, at_secs: u64) -> Option<u128> {
        for _ in 0..ANSWERS {
            let now = Timestamp::from_millis(1_000_000 + at_secs * 1_000);
            base.answered(Duration::from_millis(took_ms), now);
        }
        base.lowest().map(|lowest| lowest.as_millis())
    }

    #[test]
    fn the_lowest_mean_counts_until_it_is_old() {
        let mut base = BaseRtt::default();
        assert_eq!(base.lowest(), None);
        assert_eq!(answers(&mut base, 20, 0), Some(20));
        assert_eq!(answers(&mut base, 5, 1), Some(5));
        assert_eq!(answers(&mut base, 30, 11), Some(5));
        assert_eq!(answers(&mut base, 30, 21), Some(5));
        assert_eq!(answers(&mut base, 30, 31), Some(30));
        // What was before a long silence says nothing.
        assert_eq!(answers(&mut base, 50, 99), Some(50));
    }

    #[test]
    fn one_quick_answer_is_no_base() {
        let mut base = BaseRtt::default();
        base.answered(Duration::ZERO, Timestamp::from_millis(1_000_000));
        assert_eq!(base.lowest(), None);
        assert_eq!(answers(&mut base, 128, 0).map(|ms| ms > 100), Some(true));
    }
}
