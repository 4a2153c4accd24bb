//! Counts the bytes a receiver sends, and stops reading at a bound.
//!
//! One stands above TLS and below HTTP, so that it bounds whatever a receiver
//! can flood us with: interim responses, headers, bodies, HTTP/2 frames that
//! belong to no stream. Another stands below TLS, for records that hold no
//! plaintext. Without them a flood costs a core until the deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use posthaste_core::limits::{IDLE_BYTES_MAX, RESPONSE_BYTES_MAX, WIRE_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One connection's count, shared by who reads and who makes attempts. They are
/// on one thread; the counts are atomic because the TLS connector asks for a
/// socket that could be sent to another.
#[derive(Debug)]
pub(super) struct Meter {
    /// The one below TLS.
    below: Option<Arc<Self>>,
    /// What a receiver may send that owes nothing.
    idle_max: usize,
    /// … and for each response it owes.
    response_max: usize,
    left: AtomicUsize,
    spent: AtomicBool,
    in_flight: AtomicUsize,
    begun: AtomicU32,
}

/// An attempt in flight: the receiver may send a response until it is dropped.
pub(super) struct Owed(Arc<Meter>);

/// A stream whose reads are counted.
pub(super) struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl Meter {
    /// For plaintext, above TLS or without it.
    pub(super) fn plain(below: Option<Arc<Self>>) -> Arc<Self> {
        Self::new(IDLE_BYTES_MAX, RESPONSE_BYTES_MAX, below)
    }

    /// For a socket below TLS. What a session needs now and then, such as
    /// tickets, fits an idle connection too.
    pub(super) fn wire() -> Arc<Self> {
        Self::new(WIRE_BYTES_MAX, WIRE_BYTES_MAX, None)
    }

    fn new(idle_max: usize, response_max: usize, below: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            below,
            idle_max,
            response_max,
            left: AtomicUsize::new(idle_max),
            spent: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            begun: AtomicU32::new(0),
        })
    }

    /// An attempt begins: one more response may come.
    pub(super) fn begin(self: &Arc<Self>) -> Owed {
        self.owe();
        Owed(Arc::clone(self))
    }

    fn owe(&self) {
        let before = match self.in_flight.fetch_add(1, Relaxed) {
            0 => 0,
            _ => self.left.load(Relaxed),
        };
        self.left.store(before + self.response_max, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        if let Some(below) = &self.below {
            below.owe();
        }
    }

    /// One response less may come; what it left over is not kept.
    fn settle(&self) {
        let in_flight = self.in_flight.fetch_sub(1, Relaxed) - 1;
        let bound = match in_flight {
            0 => self.idle_max,
            _ => in_flight * self.response_max,
        };
        self.left.fetch_min(bound, Relaxed);
        if let Some(below) = &self.below {
            below.settle();
        }
    }

    /// Attempts begun on the connection.
    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Relaxed)
    }

    /// Whether the receiver sent more than it may.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Relaxed) || self.below.as_ref().is_some_and(|below| below.is_spent())
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.settle();
    }
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.meter.left.load(Relaxed);
        if left == 0 {
            self.meter.spent.store(true, Relaxed);
            return Poll::Ready(Err(io::Error::other("the receiver sent too much")));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        let bytes = into.filled().len() - before;
        self.meter.left.store(left.saturating_sub(bytes), Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The TLS connector asks, and adds the HTTP version that was agreed on.
impl<S> Connection for Metered<S> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Reads until the meter objects; answers how many bytes came through.
    async fn read_all(stream: &mut Metered<impl AsyncRead + Unpin>) -> usize {
        let mut buffer = [0; 512];
        let mut bytes = 0;
        while let Ok(read) = stream.read(&mut buffer).await {
            assert_ne!(read, 0, "the stream is endless");
            bytes += read;
        }
        bytes
    }

    #[tokio::test]
    async fn each_response_has_its_own_bound() {
        let meter = Meter::plain(None);
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Arc::clone(&meter));
        assert_eq!(read_all(&mut stream).await, IDLE_BYTES_MAX);
        assert!(meter.is_spent());
        let owed = meter.begin();
        assert_eq!(read_all(&mut stream).await, RESPONSE_BYTES_MAX);
        drop(owed);
        assert_eq!(read_all(&mut stream).await, 0);
        assert_eq!(meter.begun(), 1);
    }

    #[tokio::test]
    async fn a_flood_below_is_seen_above() {
        let wire = Meter::wire();
        let plain = Meter::plain(Some(Arc::clone(&wire)));
        let mut socket = Metered::new(tokio::io::repeat(b'x'), Arc::clone(&wire));
        let owed = plain.begin();
        assert!(!plain.is_spent());
        assert_eq!(read_all(&mut socket).await, WIRE_BYTES_MAX);
        assert!(plain.is_spent());
        drop(owed);
        assert_eq!(wire.in_flight.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn what_one_response_leaves_over_is_not_kept() {
        let meter = Meter::plain(None);
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Arc::clone(&meter));
        let first = meter.begin();
        let second = meter.begin();
        drop(first);
        assert_eq!(meter.left.load(Relaxed), RESPONSE_BYTES_MAX);
        drop(second);
        assert_eq!(read_all(&mut stream).await, IDLE_BYTES_MAX);
    }
}
