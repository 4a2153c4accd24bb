//! Operations: carried out by the owner of their endpoint's partition.
//!
//! ```text
//!  table: what is wanted --> Work --> Task::Read --> what is found
//!                             ^         Task::Append --> the log --> the fold
//!                             +---- what the fold says was made -------+
//!                             `--> Task::Tell: how far it is
//! ```
//!
//! Nothing that counts is kept here: what an operation made stands in the fold,
//! and a successor goes on behind it. It is also asked after every write: what it
//! does not show was not made, whoever wrote it.
//!
//! What it refuses to do: write the next deliveries of an operation before the
//! last are read back, more than [`OPERATION_HELD_MAX`] that the endpoint has not
//! taken, or anything for one that is disabled or paused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use posthaste_proto as proto;

use super::{Action, Owner, Standing};
use crate::gate::GateState;
use crate::id::OperationId;
use crate::limits::{OPERATION_HELD_MAX, OPERATION_KEPT, OPERATIONS_AT_ONCE};
use crate::operation::{Known, Operation, Progress, State, Wanted};
use crate::time::Timestamp;

mod work;

use work::{Step, Work};

/// How soon to look again whether an endpoint has taken enough.
const HELD_WAIT: std::time::Duration = std::time::Duration::from_millis(200);
/// An endpoint the table does not know by then does not exist.
const UNKNOWN_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What an owner wants done for an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Read records of a range from `from` to before `to`, as far as is
    /// convenient, and call [`Owner::operation_read`].
    Read {
        /// Which operation.
        id: OperationId,
        /// Which of its ranges.
        range: u32,
        /// From here.
        from: u64,
        /// Up to here, exclusive.
        to: u64,
    },
    /// Append these to the lane in order, each of them again, with all behind it,
    /// until the log has acknowledged it; then call [`Owner::operation_written`].
    Append {
        /// Which operation.
        id: OperationId,
        /// What it makes.
        deliveries: Vec<proto::Deliver>,
    },
    /// Append this command to the lane; then call [`Owner::operation_written`].
    Command {
        /// Which operation.
        id: OperationId,
        /// Its command.
        command: proto::Command,
    },
    /// Publish in the endpoints table how far it is; then call
    /// [`Owner::operation_told`].
    Tell {
        /// Which operation.
        id: OperationId,
        /// How far.
        progress: Progress,
    },
    /// Take the operation, then its progress, out of the endpoints table.
    Forget {
        /// Which operation.
        id: OperationId,
    },
}

/// What a [`Task::Read`] came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Records were read.
    Records {
        /// What the operation makes of them, in the order of the range.
        deliveries: Vec<proto::Deliver>,
        /// The next record.
        next: u64,
        /// How many were read.
        scanned: u64,
        /// … of which so many are nothing that can be delivered.
        skipped: u64,
    },
    /// The log's retention has passed everything before this offset.
    Passed(u64),
    /// They cannot be read now.
    Unreadable,
    /// They can never be read, for this reason.
    Never(String),
}

/// The operations of one partition.
#[derive(Debug, Default)]
pub(super) struct Operations {
    works: BTreeMap<OperationId, Work>,
    /// When those that are over may be forgotten.
    over: BTreeSet<(Timestamp, OperationId)>,
    /// When to look at them; `None` for not before something happens.
    wake: Option<Timestamp>,
}

impl Operations {
    pub(super) fn touch(&mut self) {
        self.wake = Some(Timestamp::default());
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let forgotten = self.over.first().map(|&(at, _)| at);
        self.wake.into_iter().chain(forgotten).min()
    }
}

impl Owner {
    /// These are the operations of the partition's endpoints, as they are now.
    pub fn set_operations(&mut self, known: impl IntoIterator<Item = Known>) {
        let operations = &mut self.operations;
        let mut before = std::mem::take(&mut operations.works);
        operations.over.clear();
        for Known {
            operation,
            progress,
        } in known
        {
            let id = operation.id;
            match progress.as_ref().filter(|progress| progress.is_ended()) {
                Some(end) => {
                    operations.over.insert((end.at.after(OPERATION_KEPT), id));
                }
                None => {
                    let work = match before.remove(&id) {
                        Some(work) => work.wanted(operation),
                        None => Work::new(operation, progress.as_deref()),
                    };
                    operations.works.insert(id, work);
                }
            }
        }
        operations.touch();
    }

    /// Something was folded that an operation may wait for.
    pub(super) fn operations_fold(&mut self) {
        let next = self.fold.next();
        let mut works = self.operations.works.values();
        if works.any(|work| matches!(work.step, Step::Written(at) if at < next)) {
            self.operations.touch();
        }
    }

    /// Does what is to be done for operations now.
    pub fn operate(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.ready || self.draining {
            return;
        }
        while let Some(&(at, id)) = self.operations.over.first()
            && at <= now
        {
            self.operations.over.pop_first();
            actions.push(Action::Operate(Task::Forget { id }));
        }
        if self.operations.wake.is_none_or(|wake| wake > now) {
            return;
        }
        let mut works = std::mem::take(&mut self.operations.works);
        let (mut wake, mut busy) = (None::<Timestamp>, 0);
        for work in works.values_mut() {
            let mut task = None;
            let mut again = None;
            // Whatever it waits for, it is written down first.
            if busy < OPERATIONS_AT_ONCE || work.is_busy() {
                again = self.carry_out(work, now, &mut task);
            }
            busy += usize::from(work.is_busy());
            actions.extend(task.map(Action::Operate));
            let tell = self.tell_progress(work, now, actions);
            wake = again.into_iter().chain(tell).chain(wake).min();
        }
        self.operations.works = works;
        self.operations.wake = wake;
    }

    /// One operation's turn; answers when it wants another.
    fn carry_out(
        &self,
        work: &mut Work,
        now: Timestamp,
        task: &mut Option<Task>,
    ) -> Option<Timestamp> {
        if let Step::Written(at) = work.step
            && self.fold.next() > at
        {
            work.read_back(&self.fold);
        }
        // Out there is something that comes back.
        if !matches!(work.step, Step::Idle | Step::Waiting(_)) {
            return None;
        }
        let operation = Arc::clone(&work.operation);
        // What it came to stands, whatever is wanted meanwhile.
        if let Some(count) = self.fold.commanded(operation.id.as_bytes()) {
            work.count = count;
            work.end(State::Succeeded, String::new());
            return None;
        }
        let settings = self.endpoints.settings(operation.endpoint);
        let unknown = settings.standing == Standing::Unknown
            && now.since(operation.created_at) >= UNKNOWN_WAIT;
        if settings.standing == Standing::Deleted || unknown {
            work.end(State::Failed, "the endpoint is deleted".to_owned());
            return None;
        }
        match operation.wanted {
            Wanted::Cancel => {
                work.end(State::Cancelled, String::new());
                return None;
            }
            Wanted::Pause => {
                work.pause();
                return None;
            }
            Wanted::Unspecified => work.state = State::Running,
        }
        if settings.standing == Standing::Unknown {
            return Some(now.after(HELD_WAIT));
        }
        if let Some(command) = command_of(&operation, now) {
            work.step = Step::Writing;
            *task = Some(Task::Command {
                id: operation.id,
                command,
            });
            return None;
        }
        let shut = match (settings.standing, settings.gate.0) {
            (Standing::Disabled, _) => Some("the endpoint is disabled"),
            (_, GateState::Paused) => Some("the endpoint is paused"),
            (_, GateState::Held | GateState::Open) => None,
        };
        if let Some(why) = shut {
            work.wait(why);
            return None;
        }
        // After a command, the count of what is held can be too high.
        let hold = self.fold.hold_of(operation.endpoint);
        let held = hold.map_or(0, |hold| hold.count().min(hold.last() + 1 - hold.cursor()));
        if !work.has_room(held) {
            return Some(now.after(HELD_WAIT));
        }
        let room = usize::try_from(OPERATION_HELD_MAX - held).unwrap_or(0);
        work.go_on(&self.fold, room, now, task)
    }

    /// Publishes how far an operation is, where that is news and not too soon.
    /// Answers when it would be.
    fn tell_progress(
        &self,
        work: &mut Work,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        let epoch = self.claimed.unwrap_or(0);
        match work.news(&self.fold, epoch, now) {
            Ok(progress) => {
                let id = work.operation.id;
                actions.push(Action::Operate(Task::Tell { id, progress }));
                None
            }
            Err(at) => at,
        }
    }

    /// What was read of a range.
    pub fn operation_read(&mut self, id: OperationId, found: Found, now: Timestamp) {
        if let Some(work) = self.operations.works.get_mut(&id) {
            work.found(found, now);
        }
        self.operations.touch();
    }

    /// All that was to be appended stands in the lane, the last at this offset.
    pub fn operation_written(&mut self, id: OperationId, at: u64) {
        if let Some(work) = self.operations.works.get_mut(&id)
            && work.step == Step::Writing
        {
            work.step = Step::Written(at);
        }
        self.operations.touch();
    }

    /// How far it is was published.
    pub fn operation_told(&mut self, id: OperationId) {
        if let Some(work) = self.operations.works.get_mut(&id) {
            work.told.under_way = false;
        }
        self.operations.touch();
    }

    /// An operation that is to be carried out.
    pub fn operation(&self, id: OperationId) -> Option<&Arc<Operation>> {
        self.operations.works.get(&id).map(|work| &work.operation)
    }
}

/// What stands in the lane for an operation on what is owed.
fn command_of(operation: &Operation, now: Timestamp) -> Option<proto::Command> {
    use crate::operation::Kind;
    use proto::command::Kind as Does;
    let kind = match operation.kind {
        Kind::Unspecified | Kind::Replay | Kind::Redrive => return None,
        // Without offsets a command of this kind would cancel everything.
        Kind::Cancel if operation.offsets.is_empty() => Does::SkipTo,
        Kind::Cancel => Does::Cancel,
        Kind::RetryNow => Does::RetryNow,
        Kind::Probe => Does::Probe,
    };
    Some(proto::Command {
        id: operation.id.as_bytes().to_vec().into(),
        endpoint_id: operation.endpoint.as_bytes().to_vec().into(),
        kind: kind.into(),
        offsets: operation.offsets.clone(),
        before: operation.before,
        actor: operation.actor.clone(),
        at_ms: now.as_millis(),
    })
}
