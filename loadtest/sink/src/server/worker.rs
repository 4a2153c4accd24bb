//! One event loop: reads requests, counts them, answers.
//!
//! ```text
//!  events, timers -> requests -> commit the turn -> send the answers
//! ```
//!
//! What it refuses to do: answer a delivery that is not counted and, with a
//! journal, written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token, Waker};
use posthaste_core::time::Timestamp;

use super::Shared;
use super::connection::{Connection, Life, Then};
use crate::ledger::Turn;
use crate::request::{Parsed, parse};

mod answers;

/// Bytes read at once.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS_MAX: usize = 1_024;
const WAKE: Token = Token(usize::MAX);

pub(super) struct Worker {
    shared: Arc<Shared>,
    inbox: Receiver<TcpStream>,
    poll: Poll,
    waker: Arc<Waker>,
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    serials: u64,
    requests: u64,
    scratch: Vec<u8>,
    turn: Turn,
    /// Connections with something to send.
    touched: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, inbox: Receiver<TcpStream>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            shared,
            inbox,
            poll,
            waker,
            slots: Vec::new(),
            free: Vec::new(),
            serials: 0,
            requests: 0,
            scratch: vec![0; SCRATCH_BYTES],
            turn: Turn::default(),
            touched: Vec::new(),
            timers: BinaryHeap::new(),
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until something of our own fails: polling, or the journal.
    pub(super) fn run(&mut self) -> io::Error {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.turn(&mut events) {
                return error;
            }
        }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let next = self.timers.peek().map(|Reverse((due, ..))| *due);
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let now = wall_clock();
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let Token(slot) = event.token();
            let ended = event.is_read_closed() || event.is_error();
            if event.is_writable() || ended {
                self.touched.push(slot);
            }
            if event.is_readable() || ended {
                self.visit(slot, now, ended)?;
            }
        }
        self.fire(now)?;
        self.shared.ledger.commit(&mut self.turn)?;
        for slot in std::mem::take(&mut self.touched) {
            let over = |c: &mut Box<Connection>| c.flush() == Life::Over;
            if self.slots[slot].as_mut().is_some_and(over) {
                self.close(slot);
            }
        }
        // Last, so that no event of this turn finds a new owner of its slot.
        self.take_dealt()
    }

    fn take_dealt(&mut self) -> io::Result<()> {
        while let Ok(stream) = self.inbox.try_recv() {
            // Answers are one write each; without this a dripped byte waits.
            if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
                continue;
            }
            let stream = mio::net::TcpStream::from_std(stream);
            self.serials += 1;
            let mut connection = Box::new(Connection::new(self.serials, stream));
            let slot = self.free.pop().unwrap_or(self.slots.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            registry.register(connection.stream(), Token(slot), both)?;
            if slot == self.slots.len() {
                self.slots.push(None);
            }
            self.slots[slot] = Some(connection);
        }
        Ok(())
    }

    fn close(&mut self, slot: usize) {
        if self.slots[slot].take().is_some() {
            self.free.push(slot);
        }
    }

    /// Reads a connection until nothing is left, or something holds it up.
    /// `ended`: the client will send no more.
    fn visit(&mut self, slot: usize, now: Timestamp, ended: bool) -> io::Result<()> {
        let Some(mut connection) = self.slots[slot].take() else {
            return Ok(());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let life = loop {
            if !connection.is_listening() {
                break if ended && connection.held.is_some() {
                    Life::Over
                } else {
                    Life::Open
                };
            }
            match connection.receive(&mut scratch) {
                Ok(None) => break Life::Open,
                Err(_) => break Life::Over,
                Ok(Some(0)) => {
                    // What it asked before it ended is still answered.
                    connection.then = Then::Close;
                    self.touched.push(slot);
                    break Life::Open;
                }
                Ok(Some(read)) => {
                    self.take_in(&mut connection, slot, &scratch[..read], now)?;
                    // A short read has emptied the socket (epoll(7)).
                    if read < scratch.len() && !ended {
                        break Life::Open;
                    }
                }
            }
        };
        self.scratch = scratch;
        match life {
            Life::Open => self.slots[slot] = Some(connection),
            Life::Over => self.free.push(slot),
        }
        Ok(())
    }

    /// Serves what came, after what was left over from before.
    fn take_in(
        &mut self,
        connection: &mut Connection,
        slot: usize,
        bytes: &[u8],
        now: Timestamp,
    ) -> io::Result<()> {
        if connection.input.is_empty() {
            let used = self.serve_all(connection, slot, bytes, now)?;
            connection.input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        connection.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut connection.input);
        let used = self.serve_all(connection, slot, &input, now)?;
        input.drain(..used);
        connection.input = input;
        Ok(())
    }

    /// Serves whole requests; answers how many bytes they were.
    fn serve_all(
        &mut self,
        connection: &mut Connection,
        slot: usize,
        bytes: &[u8],
        now: Timestamp,
    ) -> io::Result<usize> {
        let mut used = 0;
        while used < bytes.len() && connection.is_listening() {
            match parse(&bytes[used..]) {
                Parsed::Partial => break,
                Parsed::Bad(status) => {
                    self.shared.bad_requests.fetch_add(1, Ordering::Relaxed);
                    connection.answer(status, &[("connection", "close")], b"");
                    connection.then = Then::Close;
                }
                Parsed::Complete(request, len) => {
                    self.serve(connection, slot, &request, now)?;
                    if !request.keep_alive && connection.then == Then::Stay {
                        connection.then = Then::Close;
                    }
                    used += len;
                }
            }
            self.touched.push(slot);
        }
        Ok(used)
    }

    /// Goes on with the connections whose time has come.
    fn fire(&mut self, now: Timestamp) -> io::Result<()> {
        if self.timers.is_empty() {
            return Ok(());
        }
        let instant = Instant::now();
        while let Some(&Reverse((due, slot, serial))) = self.timers.peek() {
            if due > instant {
                break;
            }
            self.timers.pop();
            let Some(mut connection) = self.slots[slot].take_if(|c| c.serial == serial) else {
                continue;
            };
            self.go_on(&mut connection, slot);
            let is_free = connection.is_listening();
            self.slots[slot] = Some(connection);
            self.touched.push(slot);
            if is_free {
                self.resume(slot, now)?;
            }
        }
        Ok(())
    }

    /// Serves what came while the connection was held up.
    fn resume(&mut self, slot: usize, now: Timestamp) -> io::Result<()> {
        if let Some(mut connection) = self.slots[slot].take() {
            self.take_in(&mut connection, slot, &[], now)?;
            self.slots[slot] = Some(connection);
        }
        self.visit(slot, now, false)
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |span| span.as_millis());
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
