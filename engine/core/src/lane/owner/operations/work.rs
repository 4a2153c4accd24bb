//! One operation as its owner carries it out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use posthaste_proto as proto;

use super::{Found, Task};
use crate::lane::fold::{Fold, Made};
use crate::limits::{
    OPERATION_BATCH_MAX, OPERATION_HELD_MAX, OPERATION_TOLD_EVERY, OPERATION_WAIT_FIRST,
    OPERATION_WAIT_MAX,
};
use crate::operation::{Operation, Progress, State};
use crate::rate::Bucket;
use crate::time::Timestamp;

/// What an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its turn.
    Idle,
    /// Its source, which could not be read, for that time.
    Waiting(Timestamp),
    /// Records.
    Reading,
    /// The log, to acknowledge what it makes.
    Writing,
    /// The fold, to pass that offset.
    Written(u64),
    /// Nothing: it is over.
    Over,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) operation: Arc<Operation>,
    pub(super) step: Step,
    pub(super) state: State,
    /// What a command came to.
    pub(super) count: u64,
    pub(super) told: Told,
    /// Of each range: all before is read, and made of it what there is to make.
    next: Vec<u64>,
    /// The range being read.
    turn: usize,
    chunk: Option<Chunk>,
    bucket: Bucket,
    /// It waits until the endpoint has taken half of what it may hold.
    full: bool,
    /// The pause before the source is read again.
    wait: Duration,
    scanned: u64,
    skipped: u64,
    /// Records that are no longer in the log.
    lost: u64,
    detail: String,
}

/// What was published of it.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Progress>,
    pub(super) under_way: bool,
}

/// Records that were read, as far as they are not written.
#[derive(Debug)]
struct Chunk {
    ready: VecDeque<proto::Deliver>,
    /// The place in its range of the last one that is on its way.
    sent: u64,
    next: u64,
    scanned: u64,
    skipped: u64,
}

impl Work {
    /// One that begins, or goes on from what its last owner said of it.
    pub(super) fn new(operation: Arc<Operation>, progress: Option<&Progress>) -> Self {
        let told = |place: usize| progress.and_then(|it| it.next.get(place).copied());
        let next = operation.ranges.iter().enumerate();
        let next = next.map(|(place, range)| {
            let told = told(place).unwrap_or(0);
            told.clamp(range.from, range.to)
        });
        Self {
            next: next.collect(),
            operation,
            step: Step::Idle,
            state: State::Running,
            count: 0,
            told: Told::default(),
            turn: 0,
            chunk: None,
            bucket: Bucket::default(),
            full: false,
            wait: OPERATION_WAIT_FIRST,
            scanned: progress.map_or(0, |it| it.scanned),
            skipped: progress.map_or(0, |it| it.skipped),
            lost: 0,
            detail: String::new(),
        }
    }

    /// The same, wanted otherwise.
    pub(super) fn wanted(self, operation: Arc<Operation>) -> Self {
        Self { operation, ..self }
    }

    /// Whether it keeps records, or is about to.
    pub(super) fn is_busy(&self) -> bool {
        self.chunk.is_some()
            || matches!(self.step, Step::Reading | Step::Writing | Step::Written(_))
    }

    pub(super) fn end(&mut self, state: State, detail: String) {
        self.state = state;
        self.step = Step::Over;
        self.chunk = None;
        self.detail = if detail.is_empty() && self.lost > 0 {
            format!("{} records are no longer in the log", self.lost)
        } else {
            detail
        };
    }

    /// What was read and not written is read again later.
    pub(super) fn pause(&mut self) {
        self.state = State::Paused;
        self.detail.clear();
        self.chunk = None;
    }

    /// It waits, for this reason, and keeps nothing meanwhile.
    pub(super) fn wait(&mut self, why: &str) {
        self.chunk = None;
        self.detail = format!("waits: {why}");
    }

    /// Whether its endpoint takes more of what it makes.
    pub(super) fn has_room(&mut self, held: u64) -> bool {
        self.full = if self.full {
            held > OPERATION_HELD_MAX / 2
        } else {
            held >= OPERATION_HELD_MAX
        };
        if self.full {
            self.wait("the endpoint has yet to take what is held for it");
        } else {
            self.detail.clear();
        }
        !self.full
    }

    /// Writes what was read, or reads on. Answers when to look again.
    pub(super) fn go_on(
        &mut self,
        fold: &Fold,
        room: usize,
        now: Timestamp,
        task: &mut Option<Task>,
    ) -> Option<Timestamp> {
        if let Step::Waiting(until) = self.step
            && now < until
        {
            "its records cannot be read now".clone_into(&mut self.detail);
            return Some(until);
        }
        self.step = Step::Idle;
        let made = fold.made(self.operation.id);
        if self.chunk.is_some() {
            return self.write(made, room, now, task);
        }
        let ranges = self.operation.ranges.len();
        let turns = (self.turn..ranges).chain(0..self.turn);
        let open = |&place: &usize| self.position(place, made) < self.operation.ranges[place].to;
        let Some(turn) = { turns }.find(open) else {
            self.end(State::Succeeded, String::new());
            return None;
        };
        self.turn = turn;
        self.step = Step::Reading;
        *task = Some(Task::Read {
            id: self.operation.id,
            range: number(turn),
            from: self.position(turn, made),
            to: self.operation.ranges[turn].to,
        });
        None
    }

    fn write(
        &mut self,
        made: Option<&Made>,
        room: usize,
        now: Timestamp,
        task: &mut Option<Task>,
    ) -> Option<Timestamp> {
        let chunk = self.chunk.as_mut()?;
        let rate = self.operation.rate_per_second;
        let most = chunk.ready.len().min(room).min(OPERATION_BATCH_MAX);
        let mut count = 0;
        while count < most && self.bucket.has_one(rate, now) {
            self.bucket.take(rate);
            count += 1;
        }
        if count == 0 {
            return Some(self.bucket.next(rate));
        }
        let mut after = made.map_or(0, |made| made.next(number(self.turn)));
        let mut deliveries: Vec<_> = chunk.ready.drain(..count).collect();
        for delivery in &mut deliveries {
            delivery.range_after = after;
            after = delivery.range_offset;
        }
        chunk.sent = after;
        self.step = Step::Writing;
        *task = Some(Task::Append {
            id: self.operation.id,
            deliveries,
        });
        None
    }

    /// The fold has passed what was written. Where it shows something else,
    /// another owner's came first: then it goes on behind that.
    pub(super) fn read_back(&mut self, fold: &Fold) {
        self.step = Step::Idle;
        let made = fold.made(self.operation.id);
        let stands = made.map_or(0, |made| made.next(number(self.turn)));
        match &self.chunk {
            Some(chunk) if chunk.sent != stands => self.chunk = None,
            Some(chunk) if chunk.ready.is_empty() => self.chunk_done(),
            _ => {}
        }
    }

    fn chunk_done(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.next[self.turn] = chunk.next;
            self.scanned += chunk.scanned;
            self.skipped += chunk.skipped;
            self.turn = (self.turn + 1) % self.next.len();
        }
    }

    pub(super) fn found(&mut self, found: Found, now: Timestamp) {
        if self.step != Step::Reading {
            return;
        }
        self.step = Step::Idle;
        let to = self.operation.ranges[self.turn].to;
        match found {
            Found::Records {
                deliveries,
                next,
                scanned,
                skipped,
            } => {
                self.wait = OPERATION_WAIT_FIRST;
                self.chunk = Some(Chunk {
                    ready: deliveries.into(),
                    sent: 0,
                    next: next.min(to),
                    scanned,
                    skipped,
                });
                if self.chunk.as_ref().is_some_and(|it| it.ready.is_empty()) {
                    self.chunk_done();
                }
            }
            Found::Passed(start) => {
                let start = start.min(to);
                let records = start.saturating_sub(self.next[self.turn]);
                // Of the lane's records not all were the endpoint's.
                let lost = match self.operation.ranges[self.turn].count {
                    0 => records,
                    count => records.min(count),
                };
                self.lost += lost;
                self.skipped += lost;
                self.next[self.turn] = start;
            }
            Found::Unreadable => {
                self.step = Step::Waiting(now.after(self.wait));
                self.wait = (self.wait * 2).min(OPERATION_WAIT_MAX);
            }
            Found::Never(reason) => self.end(State::Failed, reason),
        }
    }

    /// All of a range before this is done.
    fn position(&self, place: usize, made: Option<&Made>) -> u64 {
        let made = made.map_or(0, |made| made.next(number(place)));
        self.next[place].max(made)
    }

    /// What is to be published now; otherwise when, if it is to be at all.
    pub(super) fn news(
        &mut self,
        fold: &Fold,
        owner_epoch: u64,
        now: Timestamp,
    ) -> Result<Progress, Option<Timestamp>> {
        if self.told.under_way {
            return Err(None);
        }
        let made = fold.made(self.operation.id);
        let next = (0..self.next.len()).map(|place| self.position(place, made));
        let progress = Progress {
            state: self.state,
            owner_epoch,
            at: now,
            next: next.collect(),
            scanned: self.scanned,
            count: made.map_or(self.count, Made::count),
            skipped: self.skipped,
            detail: self.detail.clone(),
        };
        if let Some(last) = &self.told.last {
            let at = last.at;
            let anew = Progress {
                at,
                ..progress.clone()
            };
            if anew == *last {
                return Err(None);
            }
            let due = at.after(OPERATION_TOLD_EVERY);
            // A clock that was set back delays nothing for long.
            if self.state == last.state && now < due && at <= now {
                return Err(Some(due));
            }
        }
        self.told.under_way = true;
        self.told.last = Some(progress.clone());
        Ok(progress)
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("fewer ranges than OPERATION_RANGES_MAX")
}
