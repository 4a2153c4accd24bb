//! From an endpoint's host to a connected stream, through the wall.
//!
//! [`Vetted`] is the wall's mark: only [`vet`] makes one, and nothing else is
//! connected to. Every connection is judged anew, on the address that is
//! dialled, whatever a look-up said before.

mod names;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioIo;
use posthaste_core::outcome::Cause;
use posthaste_core::target::Host;
use posthaste_core::wall::Wall;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_service::Service;

pub(super) use self::names::Names;
use super::egress::Egress;
use super::failure::{Failure, connect_cause, session_cause};
use super::meter::{Meter, Metered};

/// Where to connect to and how.
pub(super) struct Route {
    /// The whole URL.
    pub(super) url: Uri,
    pub(super) host: Host,
    pub(super) port: u16,
    /// Whom to expect; `None` for a connection in the clear.
    pub(super) tls: Option<ServerName<'static>>,
    /// Offer HTTP/2.
    pub(super) http2: bool,
}

/// A connection, and what counts the bytes of its socket.
pub(super) struct Dialled {
    pub(super) stream: Stream,
    pub(super) wire: Arc<Meter>,
}

/// In the clear or over TLS.
pub(super) type Stream = TokioIo<MaybeHttpsStream<Socket>>;

/// What either stands on.
type Socket = TokioIo<Metered<TcpStream>>;

/// An address the wall let through.
struct Vetted(SocketAddr);

/// Where TLS gets its socket from: these addresses, whatever the URL says.
struct Door {
    addresses: Arc<[Vetted]>,
    until: Instant,
    wire: Arc<Meter>,
}

impl Dialled {
    /// Whether the peer chose HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.stream.inner().connected().is_negotiated_h2()
    }
}

impl Vetted {
    async fn connect(&self) -> io::Result<TcpStream> {
        #[expect(clippy::disallowed_methods, reason = "the one place behind the wall")]
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Service<Uri> for Door {
    type Response = Socket;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let addresses = Arc::clone(&self.addresses);
        let wire = Arc::clone(&self.wire);
        Box::pin(connect(addresses, self.until, wire))
    }
}

/// Connects, over TLS if the route says so. The caller holds the deadline, which
/// `until` tells so that several addresses can share the time.
pub(super) async fn dial(
    egress: &Egress,
    route: &Route,
    until: Instant,
) -> Result<Dialled, Failure> {
    let addresses = vet(egress, route).await?;
    let wire = Meter::wire();
    let stream = if let Some(name) = &route.tls {
        let door = Door {
            addresses,
            until,
            wire: Arc::clone(&wire),
        };
        let name = Arc::new(FixedServerNameResolver::new(name.clone()));
        let mut connector = HttpsConnector::new(door, egress.tls(route.http2), true, name);
        connector.call(route.url.clone()).await.map_err(|error| {
            let cause = session_cause(&*error, &wire);
            tracing::debug!(host = %route.host, cause = cause.code(), %error, "no TLS session");
            Failure::of(cause)
        })?
    } else {
        connect(addresses, until, Arc::clone(&wire)).await?.into()
    };
    Ok(Dialled {
        stream: TokioIo::new(stream),
        wire,
    })
}

/// The route's addresses, all of which the wall lets through.
async fn vet(egress: &Egress, route: &Route) -> Result<Arc<[Vetted]>, Failure> {
    let at = |ip: IpAddr| SocketAddr::new(ip, route.port);
    let answers: Vec<SocketAddr> = match &route.host {
        Host::V4(address) => vec![at((*address).into())],
        Host::V6(address) => vec![at((*address).into())],
        Host::Name(name) => {
            let found = egress.names().look_up(name).await;
            found
                .map_err(Failure::of)?
                .iter()
                .copied()
                .map(at)
                .collect()
        }
    };
    judge(egress.wall(), answers).map_err(|reason| {
        tracing::debug!(host = %route.host, reason, "the wall refused an address");
        Failure::of(Cause::BlockedAddress)
    })
}

/// All of them or, with the reason, none.
fn judge(wall: &Wall, answers: Vec<SocketAddr>) -> Result<Arc<[Vetted]>, &'static str> {
    match wall.judge_all(&answers) {
        Ok(()) => Ok(answers.into_iter().map(Vetted).collect()),
        Err(refused) => Err(refused.reason.as_str()),
    }
}

/// The first of them that answers; each has its share of the time left.
async fn connect(
    addresses: Arc<[Vetted]>,
    until: Instant,
    wire: Arc<Meter>,
) -> Result<Socket, Failure> {
    let mut failed = Cause::EgressError;
    for (place, address) in addresses.iter().enumerate() {
        let waiting = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / waiting;
        let cause = match timeout(share, address.connect()).await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(Metered::new(stream, wire))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no connection");
                connect_cause(&error)
            }
            Err(_) => Cause::TimeoutConnect,
        };
        // A family we have no route for says nothing about the receiver.
        if failed == Cause::EgressError {
            failed = cause;
        }
    }
    Err(Failure::of(failed))
}
