//! Counts the plaintext bytes a receiver sends, and stops reading at a bound.
//!
//! It stands above TLS and below HTTP, so that it bounds whatever a receiver
//! can flood us with: interim responses, headers, bodies, HTTP/2 frames that
//! belong to no stream. Without it a flood costs a core until the deadline.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use posthaste_core::limits::{IDLE_BYTES_MAX, RESPONSE_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One connection's count, shared by who reads and who makes attempts.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<usize>,
    spent: Cell<bool>,
    in_flight: Cell<usize>,
    begun: Cell<u32>,
}

/// An attempt in flight: the receiver may send a response until it is dropped.
pub(super) struct Owed(Rc<Meter>);

/// A stream whose reads are counted.
pub(super) struct Metered<S> {
    inner: S,
    meter: Rc<Meter>,
}

impl Meter {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(IDLE_BYTES_MAX),
            spent: Cell::new(false),
            in_flight: Cell::new(0),
            begun: Cell::new(0),
        })
    }

    /// An attempt begins: one more response may come.
    pub(super) fn begin(self: &Rc<Self>) -> Owed {
        let before = match self.in_flight.get() {
            0 => 0,
            _ => self.left.get(),
        };
        self.left.set(before + RESPONSE_BYTES_MAX);
        self.in_flight.set(self.in_flight.get() + 1);
        self.begun.set(self.begun.get() + 1);
        Owed(Rc::clone(self))
    }

    /// Attempts begun on the connection.
    pub(super) fn begun(&self) -> u32 {
        self.begun.get()
    }

    /// Whether the receiver sent more than it may.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get()
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let meter = &self.0;
        let in_flight = meter.in_flight.get() - 1;
        let bound = match in_flight {
            0 => IDLE_BYTES_MAX,
            _ => in_flight * RESPONSE_BYTES_MAX,
        };
        meter.in_flight.set(in_flight);
        meter.left.set(meter.left.get().min(bound));
    }
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, meter: Rc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.meter.left.get();
        if left == 0 {
            self.meter.spent.set(true);
            return Poll::Ready(Err(io::Error::other("the receiver sent too much")));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        let bytes = into.filled().len() - before;
        self.meter.left.set(left.saturating_sub(bytes));
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
        let meter = Meter::new();
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Rc::clone(&meter));
        assert_eq!(read_all(&mut stream).await, IDLE_BYTES_MAX);
        assert!(meter.is_spent());
        let owed = meter.begin();
        assert_eq!(read_all(&mut stream).await, RESPONSE_BYTES_MAX);
        drop(owed);
        assert_eq!(read_all(&mut stream).await, 0);
        assert_eq!(meter.begun(), 1);
    }

    #[tokio::test]
    async fn what_one_response_leaves_over_is_not_kept() {
        let meter = Meter::new();
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Rc::clone(&meter));
        let first = meter.begin();
        let second = meter.begin();
        drop(first);
        assert_eq!(meter.left.get(), RESPONSE_BYTES_MAX);
        drop(second);
        assert_eq!(read_all(&mut stream).await, IDLE_BYTES_MAX);
    }
}
