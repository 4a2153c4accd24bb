//! HTTP/2: many attempts at a time on one connection, which has tasks of its
//! own because no single attempt can drive it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use posthaste_core::limits::{
    BODY_TIME_MAX, EXCERPT_BYTES_MAX, HEAD_BYTES_MAX, HTTP2_CONNECTION_WINDOW, HTTP2_RESETS_MAX,
    HTTP2_STREAM_WINDOW,
};
use posthaste_core::outcome::{Cause, Outcome};
use posthaste_core::time::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::Broken;
use crate::send::Attempted;
use crate::send::dial::Stream;
use crate::send::failure::{exchange_cause, unprocessed};
use crate::send::meter::{Meter, Metered};
use crate::send::prepared::Payload;

/// How long a peer may be silent while it owes a response before it is asked
/// for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long it may take to give one.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// One handle of a connection.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Payload>,
    shared: Rc<Shared>,
}

/// What all handles share. The last one ends the tasks, and with them the
/// connection.
struct Shared {
    retired: Cell<bool>,
    end: Rc<End>,
    _tasks: Rc<Tasks>,
}

/// Whether the connection is over.
#[derive(Default)]
struct End {
    over: Cell<bool>,
    reached: Notify,
}

type Tasks = RefCell<JoinSet<()>>;

/// Spawns the library's tasks among the connection's own.
#[derive(Clone)]
struct Spawner(Weak<Tasks>);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.borrow_mut();
            while tasks.try_join_next().is_some() {}
            tasks.spawn_local(task);
        }
    }
}

impl Http2 {
    pub(super) async fn open(io: TokioIo<Metered<Stream>>) -> hyper::Result<Self> {
        let tasks = Rc::new(Tasks::default());
        let spawner = Spawner(Rc::downgrade(&tasks));
        let (sender, driver) = Builder::new(spawner.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .max_concurrent_reset_streams(HTTP2_RESETS_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await?;
        let end = Rc::new(End::default());
        let ended = Rc::clone(&end);
        spawner.execute(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection broke");
            }
            ended.over.set(true);
            ended.reached.notify_waiters();
        });
        Ok(Self {
            sender,
            shared: Rc::new(Shared {
                retired: Cell::new(false),
                end,
                _tasks: tasks,
            }),
        })
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.shared.retired.get() && !self.shared.end.over.get() && self.sender.is_ready()
    }

    /// Attempts in flight on other handles go on.
    pub(super) fn retire(&self) {
        self.shared.retired.set(true);
    }

    pub(super) async fn closed(&self) {
        let end = &self.shared.end;
        loop {
            let reached = end.reached.notified();
            if end.over.get() {
                return;
            }
            reached.await;
        }
    }

    /// Sends a request and reads its response, the body within a bound of its
    /// own: the verdict falls with the head.
    pub(super) async fn attempt(
        &mut self,
        request: Request<Payload>,
        now: Timestamp,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<Attempted, Broken> {
        let response = match timeout_at(deadline, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(unsent)) => {
                self.retire();
                let taken = unsent.message().is_none();
                return Err(broken(taken, &unsent.into_error(), meter));
            }
            Err(_) => {
                self.retire();
                return Err(Broken::of(Cause::TimeoutHeaders));
            }
        };
        let asked = response.headers().get(RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok());
        let outcome = Outcome::response(response.status().as_u16(), asked, now);
        let excerpt = self.read(response.into_body(), deadline).await;
        Ok(Attempted { outcome, excerpt })
    }

    /// Reads a body to its end and keeps its beginning. A connection whose body
    /// has no end in time and size is given up; the verdict is out already.
    async fn read(&self, mut body: Incoming, deadline: Instant) -> Bytes {
        if body.is_end_stream() {
            return Bytes::new();
        }
        let until = deadline.min(Instant::now() + BODY_TIME_MAX);
        let mut excerpt = Vec::new();
        let ended = timeout_at(until, async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                if let Ok(data) = frame.into_data() {
                    let room = EXCERPT_BYTES_MAX - excerpt.len();
                    excerpt.extend_from_slice(&data[..data.len().min(room)]);
                }
            }
            true
        });
        if !ended.await.unwrap_or(false) {
            self.retire();
        }
        excerpt.into()
    }
}

/// What a request without a response came to.
fn broken(taken: bool, error: &hyper::Error, meter: &Meter) -> Broken {
    if !taken || unprocessed(error) {
        tracing::debug!(%error, "the connection was closed before the request");
        return Broken::unsent();
    }
    let cause = exchange_cause(error, meter);
    let detail = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(%error, detail, cause = cause.code(), "no response");
    Broken::of(cause)
}
