use proptest::prelude::*;

use super::*;

const POST: &str = "POST /e/17?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\
                    Webhook-Id: load-1\r\nwebhook-timestamp: 12\r\n\
                    webhook-signature: v1,a v1,b\r\n\r\nbody";

fn complete(buffer: &[u8]) -> (Request<'_>, usize) {
    match parse(buffer) {
        Parsed::Complete(request, len) => (request, len),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_webhook_is_read_whole() {
    let (request, len) = complete(POST.as_bytes());
    assert_eq!(len, POST.len());
    assert_eq!(
        request,
        Request {
            method: "POST",
            path: "/e/17",
            query: "x=1",
            id: Some("load-1"),
            timestamp: Some("12"),
            signature: Some("v1,a v1,b"),
            keep_alive: true,
            body: b"body",
        }
    );
}

#[test]
fn every_shorter_piece_is_partial() {
    for end in 0..POST.len() {
        assert_eq!(parse(&POST.as_bytes()[..end]), Parsed::Partial, "{end}");
    }
}

#[test]
fn pipelined_requests_come_one_after_the_other() {
    let both = format!("{POST}\r\nGET / HTTP/1.0\r\n\r\n");
    let (_, len) = complete(both.as_bytes());
    let (second, rest) = complete(&both.as_bytes()[len..]);
    assert_eq!((second.method, second.path, second.id), ("GET", "/", None));
    assert!(!second.keep_alive);
    assert_eq!(len + rest, both.len());
}

#[test]
fn connection_options_decide_what_follows_the_answer() {
    let keep = |head: &str| complete(format!("{head}\r\n\r\n").as_bytes()).0.keep_alive;
    assert!(keep("GET / HTTP/1.1"));
    assert!(!keep("GET / HTTP/1.1\r\nconnection: TE, Close"));
    assert!(!keep("GET / HTTP/1.0\r\nConnection: Keep-Alive"));
}

#[test]
fn what_cannot_be_read_or_has_two_meanings_is_refused() {
    for (status, text) in [
        (400, "GET /\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\n\r\n"),
        (400, "GET e HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\nhost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nnonsense\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n: a\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\na"),
        (
            400,
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        ),
        (413, "POST / HTTP/1.1\r\ncontent-length: 2097153\r\n\r\n"),
        (
            413,
            "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (505, "GET / HTTP/2.0\r\n\r\n"),
    ] {
        assert_eq!(parse(text.as_bytes()), Parsed::Bad(status), "{text:?}");
    }
    let long = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(parse(long.as_bytes()), Parsed::Bad(431));
    assert_eq!(
        parse(format!("{long}\r\n\r\n").as_bytes()),
        Parsed::Bad(431)
    );
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_reads_past_the_end(bytes in any::<Vec<u8>>()) {
        if let Parsed::Complete(_, len) = parse(&bytes) {
            prop_assert!(len <= bytes.len());
        }
    }

    #[test]
    fn damage_never_panics(at in 0..POST.len(), byte in any::<u8>()) {
        let mut bytes = POST.as_bytes().to_vec();
        bytes[at] = byte;
        if let Parsed::Complete(_, len) = parse(&bytes) {
            prop_assert!(len <= bytes.len());
        }
    }

    #[test]
    fn a_longer_buffer_gives_the_same_request(tail in any::<Vec<u8>>()) {
        let mut bytes = POST.as_bytes().to_vec();
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(complete(&bytes), complete(POST.as_bytes()));
    }
}
