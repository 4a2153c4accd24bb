//! From an endpoint's host to a connected stream, through the wall.
//!
//! [`Vetted`] is the wall's mark: only [`vet`] makes one, and nothing else is
//! connected to. Every connection is judged anew, on the address that is
//! dialled, whatever a look-up said before.

mod names;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use posthaste_core::outcome::Cause;
use posthaste_core::target::Host;
use posthaste_core::wall::Wall;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) use self::names::Names;
use super::egress::Egress;
use super::failure::{Failure, connect_cause, stream_cause};
use super::meter::{Meter, Metered};

/// Where to connect to and how.
pub(super) struct Route {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Whom to expect; `None` for a connection in the clear.
    pub(super) tls: Option<ServerName<'static>>,
    /// Offer HTTP/2.
    pub(super) http2: bool,
}

/// A connection in the clear or over TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Metered<TcpStream>>>, Rc<Meter>),
}

/// An address the wall let through.
struct Vetted(SocketAddr);

impl Stream {
    /// What counts the bytes of its socket; `None` in the clear.
    pub(super) fn wire(&self) -> Option<Rc<Meter>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, meter) => Some(Rc::clone(meter)),
        }
    }

    /// Whether the peer chose HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream, _) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
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

/// Connects, over TLS if the route says so. The caller holds the deadline, which
/// `until` tells so that several addresses can share the time.
pub(super) async fn dial(
    egress: &Egress,
    route: &Route,
    until: Instant,
) -> Result<Stream, Failure> {
    let addresses = vet(egress, route).await?;
    let stream = connect(&addresses, until).await?;
    let Some(name) = &route.tls else {
        return Ok(Stream::Plain(stream));
    };
    let connector = TlsConnector::from(egress.tls(route.http2));
    let wire = Meter::wire();
    let stream = Metered::new(stream, Rc::clone(&wire));
    match connector.connect(name.clone(), stream).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream), wire)),
        Err(error) => {
            let cause = if wire.is_spent() {
                Cause::TlsError
            } else {
                stream_cause(&error)
            };
            tracing::debug!(host = %route.host, cause = cause.code(), %error, "no TLS session");
            Err(Failure::of(cause))
        }
    }
}

/// The route's addresses, all of which the wall lets through.
async fn vet(egress: &Egress, route: &Route) -> Result<Vec<Vetted>, Failure> {
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
fn judge(wall: &Wall, answers: Vec<SocketAddr>) -> Result<Vec<Vetted>, &'static str> {
    match wall.judge_all(&answers) {
        Ok(()) => Ok(answers.into_iter().map(Vetted).collect()),
        Err(refused) => Err(refused.reason.as_str()),
    }
}

/// The first of them that answers; each has its share of the time left.
async fn connect(addresses: &[Vetted], until: Instant) -> Result<TcpStream, Failure> {
    let mut failed = Cause::EgressError;
    for (place, address) in addresses.iter().enumerate() {
        let waiting = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / waiting;
        let cause = match timeout(share, address.connect()).await {
            Ok(Ok(stream)) => return Ok(stream),
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

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
