//! What the sink makes of bytes that come in other pieces than requests.

use std::time::Duration;

use crate::client::{SECRET, Sink, post, signed};

#[test]
fn split_requests_are_put_together() {
    let sink = Sink::start(&["--verify", "all", "--secret", SECRET]);
    let mut client = sink.client();
    let request = signed("/e/1", "load-1", &"x".repeat(100_000));
    for piece in [0..10, 10..200, 200..1_000, 1_000..request.len()] {
        client.send(&request[piece]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.answer().0, 200);
    let report = sink.report("");
    assert_eq!(report["signatures"]["verified"], 1);
    assert_eq!(report["bad_requests"], 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let sink = Sink::start(&[]);
    let mut client = sink.client();
    let mut burst = String::new();
    for n in 0..3_000 {
        let method = if n % 2 == 0 { post("/e/1", "a") } else { get() };
        burst.push_str(&method);
    }
    client.send(&burst);
    for n in 0..3_000 {
        let expected = if n % 2 == 0 { 200 } else { 405 };
        assert_eq!(client.answer().0, expected, "{n}");
    }
    let report = sink.report("");
    assert_eq!(
        (&report["unique"], &report["duplicates"]),
        (&1.into(), &1_499.into())
    );
}

#[test]
fn garbage_is_refused_and_harms_nobody_else() {
    let sink = Sink::start(&[]);
    let mut good = sink.client();
    for (garbage, status) in [
        ("hello\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n", 413),
    ] {
        let mut client = sink.client();
        assert_eq!(client.ask(garbage).0, status);
        assert!(client.is_gone(Duration::from_secs(10)));
        assert_eq!(good.ask(&post("/e/1", "a-1")).0, 200);
    }
    assert_eq!(sink.report("")["bad_requests"], 3);
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    let sink = Sink::start(&[]);
    let mut client = sink.client();
    client.send(&format!("{}{}", post("/e/1", "a-1"), post("/e/1", "a-2")));
    client.end();
    assert_eq!(client.rest(), 2);
    let mut client = sink.client();
    let last = post("/e/1", "a-3").replace("webhook-id", "connection: close\r\nwebhook-id");
    assert_eq!(client.ask(&last).0, 200);
    assert!(client.is_gone(Duration::from_secs(10)));
}

fn get() -> String {
    "GET /e/1 HTTP/1.1\r\n\r\n".to_owned()
}
