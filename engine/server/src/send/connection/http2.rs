//! HTTP/2: many attempts at a time on one connection, which has tasks of its
//! own because no single attempt can drive it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioTimer;
use posthaste_core::limits::{
    HEAD_BYTES_MAX, HTTP2_CONNECTION_WINDOW, HTTP2_RESETS_MAX, HTTP2_STREAM_WINDOW,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Broken, Io};
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
    pub(super) async fn open(io: Io) -> hyper::Result<Self> {
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

    pub(super) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, Broken> {
        let response = self.sender.try_send_request(request);
        response.await.map_err(Broken::from)
    }
}
