//! The demo's receiver: verifies every request byte for byte, as a customer's
//! would. It knows deliveries by their `webhook-id`.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use posthaste_core::limits::BODY_BYTES_MAX;
use posthaste_core::signature::Verifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::board::{Found, Shared};
use super::demo::Demo;
use crate::clock::Clock;

/// Connections at once; past it new ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// What verifies, and where it is noted.
pub(super) struct Receiver {
    doors: Vec<Door>,
    board: Shared,
    clock: Clock,
}

/// One endpoint's path, in the order of the board's rows.
struct Door {
    path: String,
    verifier: Verifier,
}

impl Receiver {
    pub(super) fn new(demos: Vec<Demo>, board: Shared, clock: Clock) -> Self {
        let doors = demos.into_iter().map(|demo| Door {
            path: format!("/{}", demo.endpoint.uid),
            verifier: demo.verifier,
        });
        Self {
            doors: doors.collect(),
            board,
            clock,
        }
    }

    /// Answers for as long as it is polled.
    pub(super) async fn serve(self, listener: TcpListener) {
        let receiver = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let receiver = Arc::clone(&receiver);
                    tokio::spawn(async move {
                        receiver.connection(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the demo receiver cannot accept");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // Without it an answer may wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| async {
            Ok::<_, std::convert::Infallible>(self.answer(request).await)
        });
        let served = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the demo receiver ended");
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        let Some(place) = self.doors.iter().position(|door| door.path == path) else {
            return plain(StatusCode::NOT_FOUND, "no such endpoint");
        };
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "expected POST");
        }
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large, or broke off",
            );
        };
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let id = header("webhook-id");
        let verified = self.doors[place].verifier.verify(
            id,
            header("webhook-timestamp"),
            header("webhook-signature"),
            &body.to_bytes(),
            self.clock.now(),
        );
        if let Err(refusal) = verified {
            self.board.lock().refused(place);
            tracing::warn!(%refusal, id, "the demo receiver refused a delivery");
            return plain(StatusCode::UNAUTHORIZED, &refusal.to_string());
        }
        match self.board.lock().received(place, id.unwrap_or_default()) {
            Found::Verified => plain(StatusCode::OK, "verified"),
            Found::Tripped => {
                let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "failing on purpose");
                let wait = header::HeaderValue::from_static("1");
                answer.headers_mut().insert(header::RETRY_AFTER, wait);
                answer
            }
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests;
