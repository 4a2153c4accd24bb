//! HTTP/1.1: one attempt at a time, driven by the attempt itself.
//!
//! A request is one buffer and, past a bound, the event's own body behind it; a
//! response is read a few KiB at a time and never stored beyond its head. No
//! task, no channel and no header map stand between an attempt and its socket.
//! What it refuses to do: pipeline, follow, upgrade, decode content, or use a
//! connection again on which anything is left unclear.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use posthaste_core::limits::{BODY_TIME_MAX, HEAD_BYTES_MAX};
use posthaste_core::outcome::Cause;
use posthaste_core::time::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use self::response::{Body, Head, HeadError, may_end};
use super::Broken;
use crate::send::Attempted;
use crate::send::failure::stream_cause;
use crate::send::meter::Meter;
use crate::send::prepared::Message;

mod response;
#[cfg(test)]
mod tests;

/// Read at once; a usual response fits, so that one read takes all of it.
const READ_BYTES: usize = 4_096;

/// One connection.
pub(in crate::send) struct Http1<S> {
    io: S,
    /// What was read and not yet understood.
    unread: Vec<u8>,
    /// Whether another request may be sent.
    ready: bool,
}

/// Why no response head came.
enum Unanswered {
    Io(io::Error),
    Head(HeadError),
    /// More than a head may have.
    TooLarge,
    /// The peer closed.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(in crate::send) fn new(io: S) -> Self {
        Self {
            io,
            unread: Vec::new(),
            ready: true,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Resolves when the peer closes, or sends what nobody asked for.
    pub(super) async fn closed(&mut self) {
        if self.ready {
            // An error ends it as well.
            drop(poll_fn(|cx| self.poll_fill(cx)).await);
            self.ready = false;
        }
    }

    /// Sends a request and reads its response, the body within a bound of its
    /// own: the verdict falls with the head.
    pub(in crate::send) async fn attempt(
        &mut self,
        request: &Message,
        now: Timestamp,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<Attempted, Broken> {
        // Set again at the end, when nothing is left unclear.
        if !std::mem::replace(&mut self.ready, false) || !self.is_quiet().await {
            return Err(Broken::unsent());
        }
        let mut sent = Sent::default();
        let exchange = poll_fn(|cx| self.poll_exchange(cx, request, &mut sent, now));
        let head = match timeout_at(deadline, exchange).await {
            Ok(Ok(head)) => head,
            Ok(Err(unanswered)) => {
                let cause = unanswered.cause(meter);
                tracing::debug!(cause = cause.code(), detail = %unanswered, "no response");
                return Err(Broken::of(cause));
            }
            Err(_) => return Err(Broken::of(Cause::TimeoutHeaders)),
        };
        let mut body = head.body;
        let mut excerpt = Vec::new();
        let mut ended = self.take(&mut body, &mut excerpt);
        if ended == Some(false) {
            let until = deadline.min(Instant::now() + BODY_TIME_MAX);
            let rest = poll_fn(|cx| self.poll_body(cx, &mut body, &mut excerpt));
            ended = timeout_at(until, rest).await.unwrap_or(None);
        }
        let whole = ended == Some(true) && sent.all && self.unread.is_empty();
        self.ready = head.keep_alive && whole;
        if self.unread.capacity() > READ_BYTES {
            self.unread = Vec::new();
        }
        Ok(Attempted {
            outcome: head.outcome,
            excerpt: excerpt.into(),
        })
    }

    /// Whether the peer has neither closed nor said anything unasked.
    async fn is_quiet(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_fill(cx).is_pending())).await
    }

    /// Writes what can be written and reads what has come, until a final head is
    /// there. A peer may answer before it has read all, and close.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        request: &Message,
        sent: &mut Sent,
        now: Timestamp,
    ) -> Poll<Result<Head, Unanswered>> {
        if !sent.all && sent.broken.is_none() {
            sent.broken = match self.poll_send(cx, request, &mut sent.bytes) {
                Poll::Ready(Ok(())) => {
                    sent.all = true;
                    None
                }
                Poll::Ready(Err(error)) => Some(error),
                Poll::Pending => None,
            };
        }
        loop {
            if let Some(head) = self.head(&mut sent.partial, now)? {
                return Poll::Ready(Ok(head));
            }
            let end = match ready!(self.poll_fill(cx)) {
                Ok(0) => Unanswered::Closed,
                Ok(_) => continue,
                Err(error) => Unanswered::Io(error),
            };
            return Poll::Ready(Err(match sent.broken.take() {
                Some(first) => Unanswered::Io(first),
                None => end,
            }));
        }
    }

    /// The final head, if what was read holds it; `partial` bytes of that do not.
    fn head(&mut self, partial: &mut usize, now: Timestamp) -> Result<Option<Head>, Unanswered> {
        while may_end(&self.unread, *partial) {
            let read = Head::read(&self.unread, now).map_err(Unanswered::Head)?;
            let Some((bytes, head)) = read else { break };
            self.unread.drain(..bytes);
            *partial = 0;
            if head.is_final {
                return Ok(Some(head));
            }
        }
        *partial = self.unread.len();
        if *partial >= HEAD_BYTES_MAX {
            return Err(Unanswered::TooLarge);
        }
        Ok(None)
    }

    /// Sends the rest of a request, of which so many bytes are sent.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        request: &Message,
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        loop {
            let rest = request.rest(*sent);
            if rest.is_empty() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => *sent += bytes,
            }
        }
    }

    /// Reads a body to its end; `None` if it has none that could be trusted.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        excerpt: &mut Vec<u8>,
    ) -> Poll<Option<bool>> {
        loop {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(_) => match self.take(body, excerpt) {
                    Some(false) => {}
                    ended => return Poll::Ready(ended),
                },
            }
        }
    }

    /// Takes what is there of a body. Whether that was its end; `None` if it is
    /// malformed.
    fn take(&mut self, body: &mut Body, excerpt: &mut Vec<u8>) -> Option<bool> {
        let bytes = body.take(&self.unread, excerpt).ok()?;
        self.unread.drain(..bytes);
        Some(body.has_ended())
    }

    /// Reads once: how many bytes came, none at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.unread.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}

/// How far a request has got, and its response.
#[derive(Default)]
struct Sent {
    bytes: usize,
    all: bool,
    /// It gets no further.
    broken: Option<io::Error>,
    /// Bytes read of a head that has not ended.
    partial: usize,
}

impl Unanswered {
    fn cause(&self, meter: &Meter) -> Cause {
        if meter.is_spent() {
            return Cause::ResponseTooLarge;
        }
        match self {
            Self::Io(error) => stream_cause(error),
            Self::Head(HeadError::Invalid(_)) => Cause::InvalidResponse,
            Self::Head(HeadError::TooManyFields) | Self::TooLarge => Cause::ResponseTooLarge,
            Self::Closed => Cause::ConnectionReset,
        }
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Head(HeadError::Invalid(what)) => f.write_str(what),
            Self::Head(HeadError::TooManyFields) | Self::TooLarge => {
                f.write_str("the response's head is too large")
            }
            Self::Closed => f.write_str("the peer closed the connection"),
        }
    }
}
