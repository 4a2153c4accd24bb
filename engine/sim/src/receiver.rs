//! The receivers: what each answers, and when.

use posthaste_core::limits::TIMEOUT_DEFAULT;
use posthaste_core::outcome::{Cause, Outcome};
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;

use crate::plan::{START_MS, Script};

/// One endpoint's receiver.
#[derive(Debug)]
pub struct Receiver {
    script: Script,
    /// The second counted, and requests taken in it.
    second: (u64, u64),
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// How long it takes.
    pub after_ms: u64,
    /// What the sender sees.
    pub outcome: Outcome,
    /// It took the event, whatever the sender sees.
    pub taken: bool,
}

impl Receiver {
    /// A receiver that follows a script.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            second: (0, 0),
        }
    }

    /// Answers an attempt that begins at `now_ms`. `healed`: faults are over;
    /// `first`: it has the first ordering key.
    pub fn answer(&mut self, now_ms: u64, healed: bool, first: bool, rng: &mut Rng) -> Reply {
        let since = now_ms.saturating_sub(START_MS);
        let quick = 1 + rng.below(20);
        let script = self.script;
        match script {
            Script::Gone(from) if since >= from => status(410, None, quick, now_ms),
            Script::Dead => failed(Cause::ConnectionRefused, quick),
            Script::Healthy(ms) => status(200, None, 1 + rng.below(ms.max(1)), now_ms),
            Script::Back(until, _) if since < until => failed(Cause::ConnectionRefused, quick),
            Script::Back(_, ms) => status(200, None, ms, now_ms),
            _ if healed => status(200, None, quick, now_ms),
            Script::Slow(ms) => status(200, None, ms / 2 + rng.below(ms), now_ms).in_time(),
            Script::Flaky(percent, bad) => {
                let good = rng.below(100) >= percent;
                status(if good { 200 } else { bad }, None, quick, now_ms)
            }
            Script::Down(from, until, bad) if (from..until).contains(&since) => match bad {
                0 => failed(Cause::ConnectionRefused, quick),
                bad => status(bad, None, quick, now_ms),
            },
            Script::Hang(from, until) if (from..until).contains(&since) => hang(),
            Script::ResetAfter(percent) if rng.below(100) < percent => Reply {
                taken: true,
                ..failed(Cause::ConnectionReset, quick)
            },
            Script::Flapping(period) if (since / period.max(1)) % 2 == 1 => {
                status(503, None, quick, now_ms)
            }
            Script::Limited(per_second, retry_after) if !self.has_budget(now_ms, per_second) => {
                let text = retry_after.to_string();
                let asked = (retry_after > 0).then_some(text.as_str());
                status(429, asked, quick, now_ms)
            }
            Script::BadKey(from, bad) if first && since >= from => status(bad, None, quick, now_ms),
            Script::Gone(_)
            | Script::BadKey(..)
            | Script::Down(..)
            | Script::Hang(..)
            | Script::ResetAfter(_)
            | Script::Flapping(_)
            | Script::Limited(..) => status(200, None, quick, now_ms),
        }
    }

    fn has_budget(&mut self, now_ms: u64, per_second: u64) -> bool {
        let second = now_ms / 1_000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.second.1 <= per_second
    }
}

impl Reply {
    /// Too late is no answer, though it was taken.
    fn in_time(self) -> Self {
        if u128::from(self.after_ms) < TIMEOUT_DEFAULT.as_millis() {
            return self;
        }
        Self {
            taken: true,
            ..hang()
        }
    }
}

fn hang() -> Reply {
    let after_ms = u64::try_from(TIMEOUT_DEFAULT.as_millis()).unwrap_or(u64::MAX);
    failed(Cause::TimeoutHeaders, after_ms)
}

fn status(status: u16, retry_after: Option<&str>, after_ms: u64, now_ms: u64) -> Reply {
    let at = Timestamp::from_millis(now_ms + after_ms);
    Reply {
        after_ms,
        outcome: Outcome::response(status, retry_after, at),
        taken: (200..300).contains(&status),
    }
}

fn failed(cause: Cause, after_ms: u64) -> Reply {
    Reply {
        after_ms,
        outcome: Outcome::failed(cause),
        taken: false,
    }
}

#[cfg(test)]
mod tests {
    use posthaste_core::outcome::Verdict;

    use super::*;

    fn answer(script: Script, since: u64, healed: bool) -> Reply {
        Receiver::new(script).answer(START_MS + since, healed, true, &mut Rng::new(1))
    }

    #[test]
    fn scripts_do_as_they_say_until_faults_end() {
        let delivered = |reply: Reply| reply.outcome.verdict == Verdict::Delivered;
        for (script, bad_at) in [
            (Script::Down(5, 9, 503), 5),
            (Script::Down(5, 9, 0), 8),
            (Script::Hang(5, 9), 5),
            (Script::Flapping(10), 15),
            (Script::Limited(0, 3), 1),
            (Script::Flaky(100, 500), 0),
            (Script::ResetAfter(100), 0),
            (Script::BadKey(5, 500), 5),
        ] {
            assert!(!delivered(answer(script, bad_at, false)), "{script:?}");
            assert!(delivered(answer(script, bad_at, true)), "{script:?}");
        }
        assert!(delivered(answer(Script::Down(5, 9, 503), 9, false)));
        assert_eq!(
            answer(Script::Gone(5), 5, true).outcome.verdict,
            Verdict::Gone
        );
        assert!(!delivered(answer(Script::Dead, 0, true)));
        assert!(!delivered(answer(Script::Back(5, 50), 4, true)));
        assert_eq!(answer(Script::Back(5, 50), 5, false).after_ms, 50);
        let reset = answer(Script::ResetAfter(100), 0, false);
        assert!(reset.taken && !delivered(reset));
        let asked = answer(Script::Limited(0, 3), 0, false).outcome.retry_after;
        assert_eq!(asked.map(|span| span.as_secs()), Some(3));
    }
}
