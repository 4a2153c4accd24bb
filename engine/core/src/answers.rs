//! Requests that came with an `Idempotency-Key`, and what each was answered: a
//! part of the endpoints table, so that every instance gives the same answer.
//!
//! ```text
//!  new key:  claim --> the fold takes the first of a key --> request --> answer
//!                                                                 `----> forgotten
//! ```
//!
//! Whoever's claim stands makes the request. A claim that is never answered, as
//! its instance died, is nobody's after [`CLAIM_HELD`]. Time is what the records
//! say, so that the fold is the same everywhere and always.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::endpoint::Sealed;
use crate::id::RequestId;
use crate::limits::{
    ANSWERS_BYTES_MAX, ANSWERS_CALLER_PART, ANSWERS_KEPT, ANSWERS_MAX, CLAIM_HELD,
};
use crate::registry::Applied;
use crate::time::Timestamp;

/// Before a key's hash in the endpoints table's keys.
const PREFIX: &str = "i/";

/// BLAKE3 of a key and its caller, of a caller, or of what was asked.
type Hash = [u8; 32];

/// A request that came with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    id: Hash,
    caller: Hash,
    asked: Hash,
    request: RequestId,
    at: Timestamp,
}

/// The fold: what is claimed, and answered.
#[derive(Default)]
pub struct Answers {
    known: BTreeMap<Hash, Known>,
    ages: BTreeSet<(Timestamp, Hash)>,
    all: Usage,
    callers: BTreeMap<Hash, Usage>,
}

/// Why a request is neither made nor answered as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The key came with something else.
    Another,
    /// The key's request has no answer yet.
    UnderWay,
    /// No room for another key.
    Full,
}

struct Known {
    claim: Claim,
    answer: Option<Sealed>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Usage {
    entries: usize,
    bytes: usize,
}

impl Claim {
    /// The claim of a caller's request, whose parts tell it from others.
    pub fn new(
        caller: &str,
        key: &str,
        parts: &[&[u8]],
        request: RequestId,
        at: Timestamp,
    ) -> Self {
        Self {
            id: hash(&[caller.as_bytes(), key.as_bytes()]),
            caller: hash(&[caller.as_bytes()]),
            asked: hash(parts),
            request,
            at,
        }
    }

    /// What an answer to it is sealed for.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// The table's key.
    pub fn key(&self) -> Bytes {
        key(&self.id)
    }

    /// Its record, with its answer once there is one.
    pub fn to_proto(&self, answer: Option<Sealed>) -> proto::Answered {
        proto::Answered {
            asked: self.asked.to_vec().into(),
            caller: self.caller.to_vec().into(),
            request: self.request.as_bytes().to_vec().into(),
            at_ms: self.at.as_millis(),
            answer: answer.map(Sealed::into),
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

fn key(id: &Hash) -> Bytes {
    format!("{PREFIX}{}", blake3::Hash::from_bytes(*id)).into()
}

fn id_of(key: &[u8]) -> Option<Result<Hash, String>> {
    let id = blake3::Hash::from_hex(key.strip_prefix(PREFIX.as_bytes())?);
    Some(id.map(Hash::from).map_err(|error| format!("key: {error}")))
}

impl Usage {
    /// Whether this part of all the room is filled.
    fn is_full(self, part: usize) -> bool {
        self.entries >= ANSWERS_MAX / part || self.bytes >= ANSWERS_BYTES_MAX / part
    }
}

impl Known {
    fn of(id: Hash, record: proto::Answered) -> Option<Self> {
        Some(Self {
            claim: Claim {
                id,
                caller: record.caller.as_ref().try_into().ok()?,
                asked: record.asked.as_ref().try_into().ok()?,
                request: RequestId::from_bytes(record.request.as_ref().try_into().ok()?),
                at: Timestamp::from_millis(record.at_ms),
            },
            answer: record.answer.map(Sealed::from),
        })
    }

    /// Whether its key is free for another request.
    fn is_over(&self, now: Timestamp) -> bool {
        let held = match self.answer {
            Some(_) => ANSWERS_KEPT,
            None => CLAIM_HELD,
        };
        now.since(self.claim.at) >= held
    }

    fn bytes(&self) -> usize {
        self.answer.as_ref().map_or(0, |answer| answer.text.len())
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answers({})", self.known.len())
    }
}

impl Answers {
    /// Folds one record of the table; `None` when it is about something else. An
    /// empty value forgets a key.
    ///
    /// # Errors
    /// What cannot be read: it changes nothing.
    pub fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<Option<Applied>, String> {
        let Some(id) = id_of(key).transpose()? else {
            return Ok(None);
        };
        if value.is_empty() {
            self.remove(&id);
            return Ok(Some(Applied::Taken));
        }
        let record = proto::Answered::from_value(value).map_err(|error| error.to_string())?;
        let new = Known::of(id, record).ok_or("a hash or an id has another length")?;
        let Some(present) = self.known.get(&id) else {
            self.insert(new);
            return Ok(Some(Applied::Taken));
        };
        let own = present.claim.request == new.claim.request;
        if own && (present.answer.is_some() || new.answer.is_none()) {
            return Ok(Some(Applied::Nothing));
        }
        // An answer is only to the claim that stands.
        if !own && (new.answer.is_some() || !present.is_over(new.claim.at)) {
            return Ok(Some(Applied::Refused { present: None }));
        }
        self.remove(&id);
        self.insert(new);
        Ok(Some(Applied::Taken))
    }

    fn insert(&mut self, new: Known) {
        let claim = &new.claim;
        self.ages.insert((claim.at, claim.id));
        let bytes = new.bytes();
        for usage in [&mut self.all, self.callers.entry(claim.caller).or_default()] {
            usage.entries += 1;
            usage.bytes += bytes;
        }
        self.known.insert(new.claim.id, new);
    }

    fn remove(&mut self, id: &Hash) {
        let Some(known) = self.known.remove(id) else {
            return;
        };
        let claim = &known.claim;
        self.ages.remove(&(claim.at, claim.id));
        let own = self.callers.entry(claim.caller).or_default();
        for usage in [&mut self.all, &mut *own] {
            usage.entries -= 1;
            usage.bytes -= known.bytes();
        }
        if *own == Usage::default() {
            self.callers.remove(&claim.caller);
        }
    }

    /// The answer given to this request before; without one the request is to be
    /// made, if its claim is taken.
    ///
    /// # Errors
    /// The key is another request's, or under way, or has no room.
    pub fn look(&self, claim: &Claim) -> Result<Option<Sealed>, Refused> {
        let known = self.known.get(&claim.id);
        if let Some(known) = known.filter(|known| !known.is_over(claim.at)) {
            if known.claim.asked != claim.asked {
                return Err(Refused::Another);
            }
            return known.answer.clone().map(Some).ok_or(Refused::UnderWay);
        }
        let own = self.callers.get(&claim.caller).copied();
        if self.all.is_full(1) || own.unwrap_or_default().is_full(ANSWERS_CALLER_PART) {
            return Err(Refused::Full);
        }
        Ok(None)
    }

    /// The table's keys of those that are over, the oldest first.
    pub fn over(&self, now: Timestamp) -> impl Iterator<Item = Bytes> {
        let oldest = self.ages.iter();
        let over = oldest.take_while(move |(at, _)| now.since(*at) >= ANSWERS_KEPT);
        over.map(|(_, id)| key(id))
    }

    /// The present state of a key of this kind as a record, to be written behind
    /// one that was refused; `None` for a key of another kind.
    pub fn restated(&self, key: &[u8]) -> Option<Bytes> {
        let id = id_of(key)?.ok()?;
        let known = self.known.get(&id);
        let value = known.map(|known| known.claim.to_proto(known.answer.clone()).to_value());
        Some(value.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
