//! What the thread that reads partitions and the consumer that hears of them
//! share: a reader, and a lease for each partition it reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use super::{CREDIT_BYTES, Epoch, TopicPartition};

/// One assignment of one partition.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) tp: TopicPartition,
    pub(super) epoch: Epoch,
    live: AtomicBool,
    credit: AtomicI64,
}

/// One reader's place: its thread, its leases, and whether it has left.
#[derive(Debug, Default)]
pub(super) struct Reader {
    thread: OnceLock<Thread>,
    left: AtomicBool,
    leases: Mutex<BTreeMap<TopicPartition, Arc<Lease>>>,
}

impl Lease {
    pub(super) fn new(tp: TopicPartition) -> Self {
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        Self {
            tp,
            epoch: Epoch(EPOCHS.fetch_add(1, Ordering::Relaxed)),
            live: AtomicBool::new(true),
            credit: AtomicI64::new(signed(CREDIT_BYTES)),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// From here on nothing is committed under this lease.
    pub(super) fn end(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Bytes that may be handed over; nothing when there is no credit.
    pub(super) fn credit(&self) -> Option<usize> {
        let credit = usize::try_from(self.credit.load(Ordering::Acquire)).ok()?;
        (credit > 0).then_some(credit)
    }

    pub(super) fn give(&self, bytes: usize) {
        self.credit.fetch_add(signed(bytes), Ordering::AcqRel);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.credit.fetch_sub(signed(bytes), Ordering::AcqRel);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Reader {
    /// Names the thread that reads for it.
    pub(super) fn serve(&self, thread: Thread) {
        // Set once, where the reader is made.
        let _ = self.thread.set(thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Ends every lease; none begins any more.
    pub(super) fn leave(&self) {
        let mut leases = lock(&self.leases);
        self.left.store(true, Ordering::Release);
        for lease in leases.values() {
            lease.end();
        }
        leases.clear();
        drop(leases);
        self.wake();
    }

    /// Begins a lease, unless the reader has left.
    pub(super) fn begin(&self, lease: &Arc<Lease>) -> bool {
        let mut leases = lock(&self.leases);
        if self.has_left() {
            return false;
        }
        leases.insert(lease.tp.clone(), Arc::clone(lease));
        true
    }

    pub(super) fn end(&self, lease: &Lease) {
        lock(&self.leases).remove(&lease.tp);
        lease.end();
    }

    /// The lease of that epoch, if it still lasts.
    pub(super) fn lease(&self, tp: &TopicPartition, epoch: Epoch) -> Option<Arc<Lease>> {
        let leases = lock(&self.leases);
        let lease = leases.get(tp).filter(|lease| lease.epoch == epoch);
        lease.cloned()
    }

    /// Gives credit back to an assignment; one that has ended needs none.
    pub(super) fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize) {
        if let Some(lease) = self.lease(tp, epoch) {
            lease.give(bytes);
            self.wake();
        }
    }
}

/// Nothing is left half-changed under these locks, so one who panicked holding
/// it is no reason to stop.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
