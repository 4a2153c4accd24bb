//! Parts of the slots that whole classes of attempts share: slow ones, and
//! retries. Whatever a receiver does, what is left is for the others.
//!
//! The class is decided when an attempt begins and carried by it: read at its
//! end, an endpoint that changed meanwhile would give back a slot of another
//! class, and slots would be lost.

use std::collections::VecDeque;

use crate::delivery::Class;
use crate::limits::{SHARD_RETRIES_MAX, SHARD_SLOW_MAX, SHARD_VERY_SLOW_MAX};
use crate::registry::EndpointIx;

/// Attempts in flight by class, and the endpoints that wait for a place in one.
#[derive(Debug, Default)]
pub(super) struct Quota {
    slow: usize,
    very_slow: usize,
    retries: usize,
    waits_slow: VecDeque<EndpointIx>,
    waits_very_slow: VecDeque<EndpointIx>,
    waits_retry: VecDeque<EndpointIx>,
}

impl Quota {
    /// Whether an attempt of this class may begin.
    pub(super) fn has_room(&self, class: Class) -> bool {
        self.room(class) > 0
    }

    fn room(&self, class: Class) -> usize {
        let slow = SHARD_SLOW_MAX.saturating_sub(self.slow + self.very_slow);
        match class {
            Class::Quick => usize::MAX,
            Class::Slow => slow,
            Class::VerySlow => slow.min(SHARD_VERY_SLOW_MAX.saturating_sub(self.very_slow)),
        }
    }

    /// Whether a retry may begin while so many first attempts wait.
    pub(super) fn has_retry_room(&self, fresh: usize) -> bool {
        self.retry_room(fresh) > 0
    }

    fn retry_room(&self, fresh: usize) -> usize {
        if fresh == 0 {
            usize::MAX
        } else {
            SHARD_RETRIES_MAX.saturating_sub(self.retries)
        }
    }

    /// One begins.
    pub(super) fn begin(&mut self, class: Class, retry: bool) {
        self.retries += usize::from(retry);
        match class {
            Class::Quick => {}
            Class::Slow => self.slow += 1,
            Class::VerySlow => self.very_slow += 1,
        }
    }

    /// One that began so ends.
    pub(super) fn end(&mut self, class: Class, retry: bool) {
        self.retries -= usize::from(retry);
        match class {
            Class::Quick => {}
            Class::Slow => self.slow -= 1,
            Class::VerySlow => self.very_slow -= 1,
        }
    }

    /// Whether nothing is in flight and nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let waits = self.waits_slow.len() + self.waits_very_slow.len() + self.waits_retry.len();
        self.slow + self.very_slow + self.retries + waits == 0
    }

    /// The endpoint waits for a place among its class.
    pub(super) fn wait(&mut self, ix: EndpointIx, class: Class) {
        match class {
            Class::VerySlow => self.waits_very_slow.push_back(ix),
            Class::Quick | Class::Slow => self.waits_slow.push_back(ix),
        }
    }

    /// The endpoint waits for a place among the retries.
    pub(super) fn wait_retry(&mut self, ix: EndpointIx) {
        self.waits_retry.push_back(ix);
    }

    /// An endpoint for which there may be a place again. `tried` were woken already:
    /// no more are than there are places.
    pub(super) fn woken(&mut self, fresh: usize, tried: usize) -> Option<EndpointIx> {
        if self.room(Class::VerySlow) > tried
            && let Some(ix) = self.waits_very_slow.pop_front()
        {
            return Some(ix);
        }
        if self.room(Class::Slow) > tried
            && let Some(ix) = self.waits_slow.pop_front()
        {
            return Some(ix);
        }
        if self.retry_room(fresh) > tried {
            return self.waits_retry.pop_front();
        }
        None
    }
}
