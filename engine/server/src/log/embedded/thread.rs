//! What the log's threads share, and how they wait: each parks, and whoever
//! has something for it unparks it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;

use super::super::lease::lock;
use super::catalog::Topic;
use super::group::Groups;
use super::writer::Op;
use super::{Clock, LogError};

/// What every thread of one log knows.
pub(super) struct Shared {
    pub(super) file: PathBuf,
    pub(super) clock: Clock,
    pub(super) ops: mpsc::Sender<Op>,
    pub(super) topics: RwLock<BTreeMap<ByteString, Arc<Topic>>>,
    pub(super) groups: Mutex<Groups>,
    pub(super) closing: AtomicBool,
    pub(super) finishing: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(name).cloned()
    }

    pub(super) fn add(&self, topic: Arc<Topic>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.name.clone(), topic);
    }

    /// Whether everybody but the writer must end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether the writer must end once nothing waits.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// Starts a thread that ends when the log closes.
    pub(super) fn start(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Thread, LogError> {
        let mut threads = lock(&self.threads);
        if self.is_closing() {
            return Err(super::closed());
        }
        let started = start(name, work)?;
        let thread = started.thread().clone();
        threads.retain(|thread| !thread.is_finished());
        threads.push(started);
        Ok(thread)
    }

    /// Ends all threads but the writer, and waits for them.
    pub(super) fn stop_all(&self) {
        let threads = {
            let mut threads = lock(&self.threads);
            self.closing.store(true, Ordering::Release);
            std::mem::take(&mut *threads)
        };
        for thread in &threads {
            thread.thread().unpark();
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(file = %self.file.display(), "a thread of the log panicked");
            }
        }
    }

    pub(super) fn stop_writer(&self) {
        self.finishing.store(true, Ordering::Release);
    }
}

pub(super) fn start(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, LogError> {
    let started = thread::Builder::new().name(name.into()).spawn(work);
    started.map_err(|error| LogError::Other(format!("thread `{name}` did not start: {error}")))
}

/// Wakes a parked thread from async code.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker for the thread that asks.
pub(super) fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// A queue whose end can be waited on along with other reasons to wake.
pub(super) struct Inbox<T>(mpsc::Receiver<T>);

impl<T> Inbox<T> {
    pub(super) fn new(receiver: mpsc::Receiver<T>) -> Self {
        Self(receiver)
    }

    pub(super) fn now(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// The next item, or nothing when woken for another reason or after
    /// `at_most`. `waker` must wake this thread.
    pub(super) fn wait(&mut self, waker: &Waker, at_most: Duration) -> Option<T> {
        match self.0.poll_recv(&mut Context::from_waker(waker)) {
            Poll::Ready(item) => item,
            Poll::Pending => {
                thread::park_timeout(at_most);
                self.now()
            }
        }
    }
}
