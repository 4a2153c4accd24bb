//! The answers that are remembered. Callers share the room, and none of them can
//! fill it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, StatusCode};
use posthaste_core::limits::{ANSWERS_BYTES_MAX, ANSWERS_CALLER_PART, ANSWERS_KEPT, ANSWERS_MAX};
use posthaste_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::api::problem::Body as Told;

/// Answers by caller and key.
#[derive(Default)]
pub(in crate::api) struct Answers(Mutex<Table>);

#[derive(Default)]
struct Table {
    seen: HashMap<Hash, Seen>,
    /// Those that have an answer, the oldest in front.
    kept: VecDeque<(Timestamp, Hash)>,
    all: Usage,
    callers: HashMap<Hash, Usage>,
}

type Hash = [u8; 32];

struct Seen {
    asked: Hash,
    caller: Hash,
    /// None while it is under way.
    answer: Option<Arc<Answer>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Usage {
    entries: usize,
    bytes: usize,
}

/// An answer to be given again. It may show a secret, so it has no `Debug`.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) told: Option<Told>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A request with a key.
pub(super) struct Claim {
    id: Hash,
    caller: Hash,
    asked: Hash,
}

/// Why a request is neither made nor answered as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key came with something else.
    Another,
    /// The key's request has no answer yet.
    UnderWay,
    /// No room for another key.
    Full,
}

impl Claim {
    /// The claim of a caller's request, whose parts tell it from others.
    pub(super) fn of(caller: &str, key: &str, parts: &[&[u8]]) -> Self {
        Self {
            id: hash(&[caller.as_bytes(), key.as_bytes()]),
            caller: hash(&[caller.as_bytes()]),
            asked: hash(parts),
        }
    }
}

/// No two lists of parts run into each other.
fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&part.len().to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

impl Usage {
    /// Whether this part of all the room is filled.
    fn is_full(self, part: usize) -> bool {
        self.entries >= ANSWERS_MAX / part || self.bytes >= ANSWERS_BYTES_MAX / part
    }
}

impl Answers {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer given to this request before; otherwise the request is to be
    /// made, and [`keep`](Self::keep) or [`release`](Self::release) ends it.
    pub(super) fn begin(
        &self,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<Option<Arc<Answer>>, Refused> {
        let mut table = self.table();
        table.forget(now);
        if let Some(seen) = table.seen.get(&claim.id) {
            if seen.asked != claim.asked {
                return Err(Refused::Another);
            }
            return seen.answer.clone().map(Some).ok_or(Refused::UnderWay);
        }
        let own = table
            .callers
            .get(&claim.caller)
            .copied()
            .unwrap_or_default();
        if table.all.is_full(1) || own.is_full(ANSWERS_CALLER_PART) {
            return Err(Refused::Full);
        }
        let seen = Seen {
            asked: claim.asked,
            caller: claim.caller,
            answer: None,
        };
        table.seen.insert(claim.id, seen);
        table.count(claim.caller, |usage| usage.entries += 1);
        Ok(None)
    }

    /// Remembers the answer of a request that was begun at `now`.
    pub(super) fn keep(&self, claim: &Claim, answer: Answer, now: Timestamp) {
        let mut table = self.table();
        let Some(seen) = table.seen.get_mut(&claim.id) else {
            return;
        };
        let bytes = answer.body.len();
        seen.answer = Some(Arc::new(answer));
        table.kept.push_back((now, claim.id));
        table.count(claim.caller, |usage| usage.bytes += bytes);
    }

    /// Frees the key of a request without an answer.
    pub(super) fn release(&self, claim: &Claim) {
        let mut table = self.table();
        if let Entry::Occupied(seen) = table.seen.entry(claim.id)
            && seen.get().answer.is_none()
        {
            seen.remove();
            table.count(claim.caller, |usage| usage.entries -= 1);
        }
    }
}

impl Table {
    /// Drops what is over.
    fn forget(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.kept.front().copied()
            && now.since(at) >= ANSWERS_KEPT
        {
            self.kept.pop_front();
            if let Some(seen) = self.seen.remove(&id) {
                let bytes = seen.answer.map_or(0, |answer| answer.body.len());
                self.count(seen.caller, |usage| {
                    usage.entries -= 1;
                    usage.bytes -= bytes;
                });
            }
        }
    }

    fn count(&mut self, caller: Hash, change: impl Fn(&mut Usage)) {
        change(&mut self.all);
        let own = self.callers.entry(caller).or_default();
        change(own);
        if *own == Usage::default() {
            self.callers.remove(&caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

    fn claim(caller: &str, key: &str, body: &str) -> Claim {
        Claim::of(caller, key, &[b"/v1/keys", body.as_bytes()])
    }

    fn answer(length: usize) -> Answer {
        Answer {
            status: StatusCode::CREATED,
            headers: HeaderMap::new(),
            told: None,
            body: Zeroizing::new(vec![b'x'; length]),
        }
    }

    fn begin(answers: &Answers, claim: &Claim, now: Timestamp) -> Result<Option<usize>, Refused> {
        let begun = answers.begin(claim, now)?;
        Ok(begun.map(|answer| answer.body.len()))
    }

    #[test]
    fn an_answer_is_given_again_until_a_day_is_over() {
        let answers = Answers::default();
        let one = claim("a", "1", "{}");
        assert_eq!(begin(&answers, &one, NOW), Ok(None));
        assert_eq!(begin(&answers, &one, NOW), Err(Refused::UnderWay));
        answers.keep(&one, answer(3), NOW);
        // One that was kept is not released.
        answers.release(&one);
        assert_eq!(begin(&answers, &one, NOW), Ok(Some(3)));
        assert_eq!(
            begin(&answers, &claim("a", "1", "[]"), NOW),
            Err(Refused::Another)
        );
        assert_eq!(begin(&answers, &claim("b", "1", "[]"), NOW), Ok(None));
        let late = NOW.after(ANSWERS_KEPT - Duration::from_millis(1));
        assert_eq!(begin(&answers, &one, late), Ok(Some(3)));
        let over = NOW.after(ANSWERS_KEPT);
        assert_eq!(begin(&answers, &one, over), Ok(None));
        answers.release(&one);
        answers.release(&claim("b", "1", "[]"));
        let table = answers.table();
        assert!(table.seen.is_empty() && table.callers.is_empty() && table.kept.is_empty());
        assert_eq!(table.all, Usage::default());
    }

    #[test]
    fn what_runs_into_each_other_is_told_apart() {
        let answers = Answers::default();
        assert_eq!(begin(&answers, &claim("a", "bc", ""), NOW), Ok(None));
        assert_eq!(begin(&answers, &claim("ab", "c", ""), NOW), Ok(None));
        let (left, right) = (
            Claim::of("a", "1", &[b"x", b"yz"]),
            Claim::of("a", "1", &[b"xy", b"z"]),
        );
        assert_eq!(begin(&answers, &left, NOW), Ok(None));
        assert_eq!(begin(&answers, &right, NOW), Err(Refused::Another));
    }

    #[test]
    fn one_caller_fills_its_part_alone() {
        let answers = Answers::default();
        let most = ANSWERS_MAX / ANSWERS_CALLER_PART;
        for number in 0..most {
            assert_eq!(
                begin(&answers, &claim("a", &number.to_string(), ""), NOW),
                Ok(None)
            );
        }
        assert_eq!(
            begin(&answers, &claim("a", "more", ""), NOW),
            Err(Refused::Full)
        );
        assert_eq!(begin(&answers, &claim("b", "more", ""), NOW), Ok(None));
        answers.release(&claim("a", "0", ""));
        assert_eq!(begin(&answers, &claim("a", "more", ""), NOW), Ok(None));

        let long = claim("c", "1", "");
        assert_eq!(begin(&answers, &long, NOW), Ok(None));
        answers.keep(&long, answer(ANSWERS_BYTES_MAX / ANSWERS_CALLER_PART), NOW);
        assert_eq!(
            begin(&answers, &claim("c", "2", ""), NOW),
            Err(Refused::Full)
        );
        assert_eq!(begin(&answers, &claim("b", "2", ""), NOW), Ok(None));
        let over = NOW.after(ANSWERS_KEPT);
        assert_eq!(begin(&answers, &claim("c", "2", ""), over), Ok(None));
    }
}
