//! HTTP/2: chosen by ALPN where the endpoint asks for it, shared, and bounded.

use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::Authority;
use super::*;

/// An HTTP/2 receiver: what becomes of each connection is up to `serve`.
async fn receiver<F>(
    authority: &Authority,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + 'static,
) -> (Receiver, Egress, Prepared)
where
    F: Future<Output = ()> + 'static,
{
    let config = authority.server("localhost", &["h2"]);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::start(move |stream| {
        let acceptor = acceptor.clone();
        let serve = serve.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2" as &[u8]));
            serve(stream).await;
        }
    })
    .await;
    let egress = authority.egress();
    let url = format!("https://localhost:{}/hook?key=1", receiver.at.port());
    let endpoint = endpoint(&url, |record| record.http2 = true);
    let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
    (receiver, egress, prepared)
}

#[test]
fn attempts_share_one_connection() {
    local(async {
        let authority = Authority::new();
        // Answers none before two are there.
        let both = Rc::new(tokio::sync::Barrier::new(2));
        let heads: Rc<RefCell<Vec<http::request::Parts>>> = Rc::default();
        let seen = Rc::clone(&heads);
        let serve = move |stream| {
            let both = Rc::clone(&both);
            let seen = Rc::clone(&seen);
            async move {
                let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    seen.borrow_mut().push(request.into_parts().0);
                    let both = Rc::clone(&both);
                    async move {
                        both.wait().await;
                        Ok::<_, std::convert::Infallible>(Response::new("ok".to_owned()))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(Local);
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            }
        };
        let (receiver, egress, prepared) = receiver(&authority, serve).await;
        let mut first = open(&egress, &prepared).await.unwrap();
        let mut second = first.share().expect("HTTP/2 is shared");
        for _ in 0..2 {
            let both = tokio::join!(send(&mut first, &prepared), send(&mut second, &prepared));
            for attempted in [both.0, both.1] {
                let attempted = attempted.unwrap();
                assert_eq!(attempted.outcome.status, Some(200));
                assert_eq!(attempted.excerpt, "ok");
            }
        }
        assert!(first.reusable(Instant::now()) && second.reusable(Instant::now()));
        assert_eq!(receiver.connections.get(), 1);
        let closed = timeout(Duration::from_millis(20), first.closed());
        closed.await.expect_err("still open");

        let head = heads.borrow_mut().pop().unwrap();
        assert_eq!(
            head.uri.to_string(),
            format!("https://localhost:{}/hook?key=1", receiver.at.port())
        );
        let names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
        assert!(!names.contains(&"host"), "{names:?}");
        assert_eq!(head.headers["webhook-id"], "evt_1");
        assert_eq!(head.headers["content-length"], "2");
    });
}

/// Answers the handshake, then does as `then` says with each request.
async fn each(stream: TlsStream<TcpStream>, then: impl Fn(h2::server::SendResponse<Bytes>, usize)) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut number = 0;
    while let Some(Ok((_, respond))) = connection.accept().await {
        then(respond, number);
        number += 1;
    }
}

#[test]
fn a_refused_stream_does_not_count_and_a_reset_one_does() {
    local(async {
        let authority = Authority::new();
        for (reason, expected) in [
            (h2::Reason::REFUSED_STREAM, None),
            (
                h2::Reason::INTERNAL_ERROR,
                Some(Some(Cause::ConnectionReset)),
            ),
        ] {
            let serve = move |stream| async move {
                each(stream, |mut respond, _| respond.send_reset(reason)).await;
            };
            let (_receiver, egress, prepared) = receiver(&authority, serve).await;
            let mut connection = open(&egress, &prepared).await.unwrap();
            let attempted = send(&mut connection, &prepared).await;
            assert_eq!(attempted.map(|attempted| attempted.outcome.cause), expected);
        }
    });
}

#[test]
fn the_end_of_a_connection_is_noticed() {
    local(async {
        let authority = Authority::new();
        let serve = |stream: TlsStream<TcpStream>| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let head = Response::builder().status(204).body(()).unwrap();
            respond.send_response(head, true).unwrap();
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        };
        let (_receiver, egress, prepared) = receiver(&authority, serve).await;
        let mut connection = open(&egress, &prepared).await.unwrap();
        let mut other = connection.share().unwrap();
        let attempted = send(&mut connection, &prepared).await.unwrap();
        assert_eq!(attempted.outcome.status, Some(204));
        let closed = timeout(Duration::from_secs(10), other.closed());
        closed.await.expect("the peer went away");
        assert!(!connection.reusable(Instant::now()) && !other.reusable(Instant::now()));
        assert!(send(&mut other, &prepared).await.is_none());
    });
}

#[test]
fn the_last_handle_closes_the_connection() {
    local(async {
        let authority = Authority::new();
        let ended: Rc<tokio::sync::Notify> = Rc::default();
        let ending = Rc::clone(&ended);
        let serve = move |stream| {
            let ending = Rc::clone(&ending);
            async move {
                each(stream, |_, _| ()).await;
                ending.notify_one();
            }
        };
        let (_receiver, egress, prepared) = receiver(&authority, serve).await;
        let connection = open(&egress, &prepared).await.unwrap();
        let other = connection.share().unwrap();
        drop(connection);
        let closed = timeout(Duration::from_millis(20), ended.notified());
        closed.await.expect_err("the other handle is there");
        drop(other);
        let closed = timeout(Duration::from_secs(10), ended.notified());
        closed.await.expect("closed");
    });
}

/// Reads what comes, so that nothing stalls, and floods with one frame.
async fn flood(stream: TlsStream<TcpStream>, frame: &'static [u8]) {
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::task::spawn_local(async move {
        let mut sink = [0; 4096];
        while from.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {}
    });
    // SETTINGS, then a promise kept: the request comes.
    to.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    to.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let much = frame.repeat(100);
    while to.write_all(&much).await.is_ok() {}
}

#[test]
fn floods_end_by_their_bytes() {
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const WINDOW: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const UNKNOWN: &[u8] = &[0, 0, 1, 0x42, 0, 0, 0, 0, 0, 9];
    // HEADERS of stream 1 with `:status: 100` as a literal.
    const INTERIM: &[u8] = &[0, 0, 5, 1, 4, 0, 0, 0, 1, 0x48, 3, b'1', b'0', b'0'];
    local(async {
        let authority = Authority::new();
        for frame in [PING, SETTINGS, WINDOW, UNKNOWN, INTERIM] {
            let serve = move |stream| flood(stream, frame);
            let (_receiver, egress, prepared) = receiver(&authority, serve).await;
            let mut connection = open(&egress, &prepared).await.unwrap();
            let began = Instant::now();
            let outcome = send(&mut connection, &prepared).await.unwrap().outcome;
            assert_eq!(outcome.cause, Some(Cause::ResponseTooLarge), "{frame:?}");
            assert!(began.elapsed() < Duration::from_secs(5));
            assert!(!connection.reusable(Instant::now()));
        }
    });
}

#[test]
fn an_idle_connection_takes_no_flood() {
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    local(async {
        let authority = Authority::new();
        let serve = |stream| flood(stream, PING);
        let (_receiver, egress, prepared) = receiver(&authority, serve).await;
        let mut connection = open(&egress, &prepared).await.unwrap();
        let closed = timeout(Duration::from_secs(10), connection.closed());
        closed.await.expect("closed for what it was sent");
    });
}

#[test]
fn silence_ends_at_the_deadline_and_retires_the_connection() {
    local(async {
        let authority = Authority::new();
        let kept: Rc<RefCell<Vec<_>>> = Rc::default();
        let serve = move |stream| {
            let kept = Rc::clone(&kept);
            async move { each(stream, |respond, _| kept.borrow_mut().push(respond)).await }
        };
        let (_receiver, egress, prepared) = receiver(&authority, serve).await;
        let mut connection = open(&egress, &prepared).await.unwrap();
        let event = event("{}");
        let attempt = connection.attempt(&prepared, first(&event), soon(200));
        let outcome = attempt.await.unwrap().outcome;
        assert_eq!(outcome.cause, Some(Cause::TimeoutHeaders));
        assert!(!connection.reusable(Instant::now()));
    });
}

/// Runs the server's tasks where the test runs.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
