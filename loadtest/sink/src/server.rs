//! Listening, and dealing connections round-robin to the event loops.
//!
//! Dealing is done by a thread of its own: several loops accepting from one
//! socket, or `SO_REUSEPORT`, spread few connections unevenly.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use mio::Waker;
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc::Sender;

use self::worker::Worker;
use crate::behave::Behaviour;
use crate::ledger::Ledger;
use crate::verify::Verification;

mod connection;
mod worker;

/// Connections not yet accepted.
const BACKLOG: i32 = 4_096;
/// Connections dealt to a loop that it has not taken yet. At the bound nothing
/// is accepted.
const DEALT_MAX: usize = 1_024;
/// Pause after a failed accept, which is nearly always a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every thread sees.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counts and journal.
    pub(crate) ledger: Ledger,
    /// Rules of misbehaviour.
    pub(crate) behaviour: Behaviour,
    /// Which signatures are checked.
    pub(crate) verification: Verification,
    /// Whether bodies are searched for the time they were sent.
    pub(crate) latency: bool,
    /// Connections accepted.
    pub(crate) connections: AtomicU64,
    /// Requests that were none, or refused as such.
    pub(crate) bad_requests: AtomicU64,
    /// Failed accepts.
    pub(crate) accept_errors: AtomicU64,
}

/// Why the process cannot go on; sent once by whoever finds out.
pub(crate) type Fatal = Sender<io::Error>;

impl Shared {
    /// Nothing counted yet.
    pub(crate) fn new(ledger: Ledger, verification: Verification, latency: bool) -> Self {
        Self {
            ledger,
            behaviour: Behaviour::default(),
            verification,
            latency,
            connections: AtomicU64::new(0),
            bad_requests: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
        }
    }
}

/// A loop connections are dealt to.
struct Seat {
    dealt: SyncSender<TcpStream>,
    waker: Arc<Waker>,
}

/// Listens on `address` and serves from `threads` event loops until the process
/// ends. Answers the bound address.
///
/// # Errors
/// The address cannot be bound, or there are no descriptors for the loops.
pub(crate) fn start(
    address: SocketAddr,
    threads: usize,
    shared: &Arc<Shared>,
    fatal: &Fatal,
) -> io::Result<SocketAddr> {
    let listener = listen(address)?;
    let bound = listener.local_addr()?;
    let mut seats = Vec::with_capacity(threads);
    for n in 0..threads {
        let (dealt, inbox) = mpsc::sync_channel(DEALT_MAX);
        let mut worker = Worker::new(Arc::clone(shared), inbox)?;
        let waker = worker.waker();
        let fatal = fatal.clone();
        thread::Builder::new()
            .name(format!("loop-{n}"))
            .spawn(move || {
                let error = worker.run();
                // If another said so first, the process is ending anyway.
                let _ = fatal.try_send(error);
            })?;
        seats.push(Seat { dealt, waker });
    }
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || deal(&listener, &seats, &shared))?;
    Ok(bound)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A sink that was killed starts again on its own port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn deal(listener: &TcpListener, seats: &[Seat], shared: &Shared) {
    for seat in seats.iter().cycle() {
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => {
                    shared.accept_errors.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if seat.dealt.send(stream).is_err() || seat.waker.wake().is_err() {
            // The loop is gone, and said why.
            return;
        }
    }
}
