//! Where the API is heard: accepts connections, in the clear or over TLS, and
//! bounds how many there are and how long one may take to say what it wants.
//!
//! ```text
//!  accept -> (TLS: handshake) -> HTTP/1.1, or h2 where ALPN says so -> routes
//! ```
//!
//! It looks at no request: who may do what is the API's to judge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use posthaste_core::limits::listen::{
    CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX, HEAD_BYTES_MAX, HEAD_TIME_MAX, STREAMS_MAX,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

mod tls;

pub use tls::Identity;

/// Pause after the system could not give a connection, such as for want of file
/// descriptors.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);
/// Between pings on an h2 connection: a peer that is gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(20);
/// First byte of a TLS connection (RFC 8446, 5.1: `handshake`).
const TLS_HANDSHAKE: u8 = 22;
/// What a client that speaks HTTP to a port of TLS hears.
const NOT_TLS: &str = concat!(
    r#"{"type":"about:blank","title":"Bad Request","status":400,"#,
    r#""code":"tls_required","detail":"this port speaks TLS: expected https://"}"#
);

/// An address that is listened on.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Identity>>,
}

/// What all connections share.
struct Shared {
    routes: Router,
    tls: Option<Arc<Identity>>,
    handshakes: Semaphore,
    until: CancellationToken,
}

impl Listener {
    /// Listens there; with an identity, over TLS alone.
    ///
    /// # Errors
    /// The system does not give the address.
    pub async fn bind(address: SocketAddr, tls: Option<Arc<Identity>>) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket, tls })
    }

    /// The address, with the port that was given for port 0.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Answers requests until it is told to stop; ends when those under way are
    /// answered.
    pub async fn serve(self, routes: Router, until: CancellationToken) {
        if let Some(tls) = &self.tls {
            tokio::spawn(Arc::clone(tls).follow(until.clone()));
        }
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Arc::new(Shared {
            routes,
            tls: self.tls,
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            until: until.clone(),
        });
        let accept = async {
            loop {
                // Never closed; and at the bound the system's queue holds the rest.
                let Ok(place) = Arc::clone(&free).acquire_owned().await else {
                    return;
                };
                match self.socket.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(Arc::clone(&shared).take(stream, place));
                    }
                    Err(error) if is_the_peers(&error) => {}
                    Err(error) => {
                        tracing::error!(%error, "the API cannot take a connection");
                        sleep(ACCEPT_WAIT).await;
                    }
                }
            }
        };
        tokio::select! {
            () = until.cancelled() => {}
            () = accept => {}
        }
        // Every place is free again when nobody is left.
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let _ = free.acquire_many(all).await;
    }
}

/// It failed for this one connection.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

impl Shared {
    /// One connection, from its first byte to its last.
    async fn take(self: Arc<Self>, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Small answers are not to wait for more.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else {
            self.http1(stream).await;
            return;
        };
        let begun = timeout(HANDSHAKE_TIME_MAX, self.handshake(tls, stream));
        match begun.await {
            Ok(Ok(Some(stream))) => match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => self.http2(stream).await,
                _ => self.http1(stream).await,
            },
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no TLS session with a client"),
            Err(_) => tracing::debug!("no TLS session with a client: not in time"),
        }
    }

    /// A session, or nothing where the client speaks something else and was told.
    async fn handshake(
        &self,
        tls: &Identity,
        mut stream: TcpStream,
    ) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            tell_not_tls(&mut stream).await?;
            return Ok(None);
        }
        tls.accept(stream).await.map(Some)
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.routes.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            // What goes wrong here the client has seen.
            _ = &mut connection => return,
            () = self.until.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.routes.clone());
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(HEAD_TIME_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = self.until.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// Says in its own language that this is not it, and reads on until it hangs up:
/// closed at once, the answer could be lost.
async fn tell_not_tls(stream: &mut TcpStream) -> io::Result<()> {
    let length = NOT_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{NOT_TLS}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(64 * 1024);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}
