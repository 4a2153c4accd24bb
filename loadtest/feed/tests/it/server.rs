//! Against a server that fails as servers do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::{feed, summary};

/// Requests by their first line, and the bodies that came with it.
type Seen = Arc<Mutex<HashMap<String, Vec<(String, Value)>>>>;
/// From the method and path, and how often the id came before, the status; 0
/// closes the connection.
type Rule = fn(&str, usize) -> u16;

fn serve(rule: Rule) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = Arc::clone(&shared);
            std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &seen, rule) {});
        }
    });
    (url, seen)
}

fn answer(mut stream: &TcpStream, seen: &Seen, rule: Rule) -> bool {
    let mut reader = BufReader::new(stream);
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        let found = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        found.unwrap_or_default().to_owned()
    };
    let mut body = vec![0; header("content-length").parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let request = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let id = header("webhook-id");
    let status = {
        let mut seen = seen.lock().unwrap();
        let before = seen.entry(request.clone()).or_default();
        let earlier = before.iter().filter(|(other, _)| *other == id).count();
        before.push((id, body));
        rule(&request, earlier)
    };
    let text = format!("HTTP/1.1 {status} -\r\ncontent-length: 4\r\n\r\nwhy?");
    let text = if status == 204 {
        "HTTP/1.1 204 -\r\n\r\n".to_owned()
    } else {
        text
    };
    status != 0 && stream.write_all(text.as_bytes()).is_ok()
}

#[test]
fn every_event_is_taken_though_the_server_fails() {
    // Each event fails twice: no answer, then 503.
    let (url, seen) = serve(|_, earlier| [0, 503, 202][earlier.min(2)]);
    let output = feed(&["--http", &url, "--events", "40", "--connections", "8"]);
    let summary = summary(&output);
    assert_eq!(
        (&summary["events"], &summary["retried"]),
        (&40.into(), &80.into())
    );
    let seen = seen.lock().unwrap();
    let events = &seen["POST /v1/tenants/load/events"];
    assert_eq!(events.len(), 120);
    for n in 0..40 {
        let id = format!("load-{n}");
        assert_eq!(events.iter().filter(|(other, _)| *other == id).count(), 3);
    }
    assert!(events.iter().all(|(_, body)| body["data"]["run"] == "load"));
}

#[test]
fn a_refused_event_ends_it_with_the_reason() {
    let (url, _) = serve(|_, _| 422);
    let output = feed(&["--http", &url, "--events", "5"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("refused, 422: why?"), "{stderr}");
}

#[test]
fn endpoints_are_registered_and_replaced_only_when_asked() {
    let (url, seen) = serve(|request, _| {
        if request.starts_with("DELETE") {
            204
        } else {
            201
        }
    });
    let common = [
        "endpoints",
        "--server",
        &*url,
        "--sink",
        "127.0.0.1:9000",
        "--count",
        "3",
    ];
    let more = ["--replace", "--secret", "whsec_x"];
    let output = feed(&[&common[..], &more[..]].concat());
    let summary = summary(&output);
    assert_eq!(
        (&summary["endpoints"], &summary["replaced"]),
        (&3.into(), &3.into())
    );
    let seen = seen.lock().unwrap();
    let made = &seen["POST /v1/tenants/load/endpoints"];
    assert_eq!(made[2].1["url"], "http://127.1.0.3:9000/e/2");
    assert_eq!(made[2].1["secret"], "whsec_x");
    assert!(seen.contains_key("DELETE /v1/tenants/load/endpoints/e2"));

    let (url, _) = serve(|_, _| 409);
    let output = feed(&["endpoints", "--server", &url, "--sink", "127.0.0.1:9000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--replace")
    );
}
