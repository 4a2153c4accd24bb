//! A connection to one endpoint, and one attempt after another made on it.

mod http1;
mod http2;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::TrySendError;
use hyper_util::rt::TokioIo;
use posthaste_core::event::Event;
use posthaste_core::limits::{
    BODY_TIME_MAX, CONNECTION_AGE_MAX, CONNECTION_ATTEMPTS_MAX, EXCERPT_BYTES_MAX,
};
use posthaste_core::outcome::{Cause, Outcome};
use posthaste_core::time::Timestamp;
use tokio::time::{Instant, timeout_at};

use self::http1::Http1;
use self::http2::Http2;
use super::Attempted;
use super::dial::{Stream, dial};
use super::egress::Egress;
use super::failure::{Failure, exchange_cause, unprocessed};
use super::meter::{Meter, Metered};
use super::prepared::{Payload, Prepared};

/// A connection. Dropping it closes it.
pub struct Connection {
    line: Line,
    meter: Arc<Meter>,
    opened: Instant,
}

/// What HTTP is spoken over.
type Io = TokioIo<Metered<Stream>>;

enum Line {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// A request that got no response head.
struct Broken {
    error: hyper::Error,
    /// Nothing of it was sent.
    unsent: bool,
}

impl Connection {
    /// Connects to an endpoint: looks its host up, has the wall judge the
    /// addresses, connects and, for `https`, agrees on TLS and HTTP version.
    /// Takes as long as the endpoint grants, and never past `deadline`.
    ///
    /// HTTP/2 needs a [`LocalSet`](tokio::task::LocalSet) around it.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(
        egress: &Egress,
        prepared: &Prepared,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let until = deadline.min(Instant::now() + prepared.connect_timeout());
        let opening = Self::establish(egress, prepared, until);
        match timeout_at(until, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::of(Cause::TimeoutConnect)),
        }
    }

    async fn establish(
        egress: &Egress,
        prepared: &Prepared,
        until: Instant,
    ) -> Result<Self, Failure> {
        let dialled = dial(egress, prepared.route(), until).await?;
        let http2 = dialled.is_http2();
        let meter = Meter::plain(Some(dialled.wire));
        let io = TokioIo::new(Metered::new(dialled.stream, Arc::clone(&meter)));
        let line = if http2 {
            Http2::open(io).await.map(Line::Http2)
        } else {
            Http1::open(io)
                .await
                .map(|line| Line::Http1(Box::new(line)))
        };
        match line {
            Ok(line) => Ok(Self {
                line,
                meter,
                opened: Instant::now(),
            }),
            Err(error) => {
                tracing::debug!(%error, "no HTTP session");
                Err(Failure::of(exchange_cause(&error, &meter)))
            }
        }
    }

    /// Whether another attempt may be made on it: the last response was read to
    /// its end, the peer has not closed it as far as is known, and it is neither
    /// too old nor too much used.
    pub fn reusable(&self, now: Instant) -> bool {
        self.line.is_ready()
            && self.meter.begun() < CONNECTION_ATTEMPTS_MAX
            && now.saturating_duration_since(self.opened) <= CONNECTION_AGE_MAX
    }

    /// Resolves when the idle connection is closed, by the peer or for what it
    /// sent unasked. Dropping the future loses nothing.
    pub async fn closed(&mut self) {
        self.line.closed().await;
    }

    /// The same connection for another attempt at the same time; `None` if it
    /// speaks HTTP/1.1, which makes one attempt after another.
    pub fn share(&self) -> Option<Self> {
        match &self.line {
            Line::Http1(_) => None,
            Line::Http2(line) => Some(Self {
                line: Line::Http2(line.clone()),
                meter: Arc::clone(&self.meter),
                opened: self.opened,
            }),
        }
    }

    /// Makes one attempt: signs at `now`, sends, reads the response within its
    /// bounds, all until `deadline`. `number` counts the delivery's attempts
    /// from 1.
    ///
    /// `None` when the peer had closed the connection, or refused the request
    /// unread, so that it may be made on another one without being counted.
    pub async fn attempt(
        &mut self,
        prepared: &Prepared,
        event: &Event,
        number: u32,
        now: Timestamp,
        deadline: Instant,
    ) -> Option<Attempted> {
        let request = match prepared.request(event, now, self.line.is_http2()) {
            Ok(request) => request,
            Err(failure) => return Some(failure.into()),
        };
        let _owed = self.meter.begin();
        let response = match timeout_at(deadline, self.line.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(broken)) => return self.broken(&broken, number).map(Attempted::from),
            Err(_) => {
                self.line.retire();
                return Some(Failure::of(Cause::TimeoutHeaders).into());
            }
        };
        let asked = response.headers().get(RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok());
        let outcome = Outcome::response(response.status().as_u16(), asked, now);
        let last = smuggles(response.headers());
        let excerpt = self.read(response.into_body(), deadline).await;
        if last {
            self.line.retire();
        }
        Some(Attempted { outcome, excerpt })
    }

    /// What a request without a response came to; `None` if it was not taken.
    fn broken(&mut self, broken: &Broken, number: u32) -> Option<Failure> {
        self.line.retire();
        let error = &broken.error;
        if broken.unsent || unprocessed(error) {
            tracing::debug!(%error, "the connection was closed before the request");
            return None;
        }
        let cause = exchange_cause(error, &self.meter);
        let detail = std::error::Error::source(error).map(ToString::to_string);
        tracing::debug!(%error, detail, number, cause = cause.code(), "no response");
        Some(Failure::of(cause))
    }

    /// Reads a body to its end and keeps its beginning. A connection whose body
    /// has no end in time and size is given up; the verdict is out already.
    async fn read(&mut self, mut body: Incoming, deadline: Instant) -> Bytes {
        if body.is_end_stream() {
            return Bytes::new();
        }
        let until = deadline.min(Instant::now() + BODY_TIME_MAX);
        let mut excerpt = Vec::new();
        let ended = timeout_at(until, async {
            while let Some(frame) = self.line.frame(&mut body).await {
                let Ok(frame) = frame else { return false };
                if let Ok(data) = frame.into_data() {
                    let room = EXCERPT_BYTES_MAX - excerpt.len();
                    excerpt.extend_from_slice(&data[..data.len().min(room)]);
                }
            }
            true
        });
        if !ended.await.unwrap_or(false) {
            self.line.retire();
        }
        excerpt.into()
    }
}

impl Line {
    fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(line) => line.is_ready(),
            Self::Http2(line) => line.is_ready(),
        }
    }

    /// No further attempt is made on it.
    fn retire(&mut self) {
        match self {
            Self::Http1(line) => line.retire(),
            Self::Http2(line) => line.retire(),
        }
    }

    async fn closed(&mut self) {
        match self {
            Self::Http1(line) => line.closed().await,
            Self::Http2(line) => line.closed().await,
        }
    }

    async fn send(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, Broken> {
        match self {
            Self::Http1(line) => line.send(request).await,
            Self::Http2(line) => line.send(request).await,
        }
    }

    async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_frame(Pin::new(body), cx)).await
    }

    fn poll_frame(
        &mut self,
        mut body: Pin<&mut Incoming>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = body.as_mut().poll_frame(cx);
        match self {
            // The connection reads only when somebody asks for the body, and
            // somebody must let it.
            Self::Http1(line) if frame.is_pending() => {
                line.drive(cx);
                body.poll_frame(cx)
            }
            _ => frame,
        }
    }
}

impl From<TrySendError<Request<Payload>>> for Broken {
    fn from(error: TrySendError<Request<Payload>>) -> Self {
        Self {
            unsent: error.message().is_some(),
            error: error.into_error(),
        }
    }
}

/// Both ways of saying how long a body is: two readers may see two responses in
/// it, so the next one is not read from there (RFC 9112, section 6.1).
fn smuggles(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH)
}
