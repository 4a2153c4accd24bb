//! A connection to one endpoint, and one attempt after another made on it.

pub(super) mod http1;
mod http2;

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use posthaste_core::limits::{CONNECTION_AGE_MAX, CONNECTION_ATTEMPTS_MAX};
use posthaste_core::outcome::Cause;
use tokio::time::{Instant, timeout_at};

use self::http1::Http1;
use self::http2::Http2;
use super::dial::{Stream, dial};
use super::egress::Egress;
use super::failure::{Failure, exchange_cause};
use super::meter::{Meter, Metered};
use super::prepared::Prepared;
use super::{Attempt, Attempted};

/// A connection. Dropping it closes it.
pub struct Connection {
    line: Line,
    meter: Arc<Meter>,
    opened: Instant,
}

enum Line {
    Http1(Box<Http1<Metered<Stream>>>),
    Http2(Http2),
}

/// A request that got no response head.
pub(super) struct Broken {
    pub(super) cause: Cause,
    /// The peer never took it: it may be made on another connection.
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
        let io = Metered::new(dialled.stream, Arc::clone(&meter));
        let line = if http2 {
            let opened = Http2::open(TokioIo::new(io)).await;
            Line::Http2(opened.map_err(|error| {
                tracing::debug!(%error, "no HTTP session");
                Failure::of(exchange_cause(&error, &meter))
            })?)
        } else {
            Line::Http1(Box::new(Http1::new(io)))
        };
        Ok(Self {
            line,
            meter,
            opened: Instant::now(),
        })
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

    /// Makes one attempt: signs, sends, reads the response within its bounds,
    /// all until `deadline`.
    ///
    /// `None` when the peer had closed the connection, or refused the request
    /// unread, so that it may be made on another one without being counted.
    pub async fn attempt(
        &mut self,
        prepared: &Prepared,
        attempt: Attempt<'_>,
        deadline: Instant,
    ) -> Option<Attempted> {
        let now = attempt.now;
        let _owed = self.meter.begin();
        let attempted = match &mut self.line {
            Line::Http1(line) => match prepared.message(attempt) {
                Ok(request) => line.attempt(&request, now, deadline, &self.meter).await,
                Err(failure) => return Some(failure.into()),
            },
            Line::Http2(line) => match prepared.request(attempt) {
                Ok(request) => line.attempt(request, now, deadline, &self.meter).await,
                Err(failure) => return Some(failure.into()),
            },
        };
        match attempted {
            Ok(attempted) => Some(attempted),
            Err(broken) if broken.unsent => None,
            Err(broken) => Some(Failure::of(broken.cause).into()),
        }
    }
}

impl Line {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(line) => line.is_ready(),
            Self::Http2(line) => line.is_ready(),
        }
    }

    async fn closed(&mut self) {
        match self {
            Self::Http1(line) => line.closed().await,
            Self::Http2(line) => line.closed().await,
        }
    }
}

impl Broken {
    const fn of(cause: Cause) -> Self {
        Self {
            cause,
            unsent: false,
        }
    }

    const fn unsent() -> Self {
        Self {
            cause: Cause::ConnectionReset,
            unsent: true,
        }
    }
}
