//! `posthaste dev` as a person runs it: the real program, its output, its exit
//! code, and what it does with signals.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::receiver::read_request;

/// Far more than anything here takes: a retry comes after 5 to 6 s.
const PATIENCE: Duration = Duration::from_secs(90);

struct Dev {
    process: Child,
    lines: mpsc::Receiver<Value>,
    api: SocketAddr,
}

impl Dev {
    fn start(data: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (heard, lines) = mpsc::sync_channel(100_000);
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            // A killed process can leave a line unfinished.
            for line in out.lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else {
                    return;
                };
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        let started: Value = lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(started["kind"], "started");
        let api = started["api"].as_str().unwrap();
        let api = api.strip_prefix("http://").unwrap().parse().unwrap();
        Self {
            process,
            lines,
            api,
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end within {PATIENCE:?}");
    }

    fn rest(&self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        rest
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test, not an endpoint"
        )]
        let mut stream = TcpStream::connect(self.api).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A receiver that outlives the program: it fails the first request of some
/// deliveries, and remembers the others.
#[derive(Clone, Default)]
pub(crate) struct Outside(Arc<Mutex<BTreeMap<String, u32>>>);

impl Outside {
    pub(crate) fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let outside = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let outside = outside.clone();
                std::thread::spawn(move || while outside.answer(&stream).is_some() {});
            }
        });
        at
    }

    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let id = read_request(&mut reader)?;
        let status = {
            let mut requests = self.0.lock().unwrap();
            let count = requests.entry(id.clone()).or_default();
            *count += 1;
            if id.ends_with('7') && *count == 1 {
                503
            } else {
                200
            }
        };
        write!(&*stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").ok()
    }

    /// Deliveries that came and were taken.
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        let requests = self.0.lock().unwrap();
        let taken = requests
            .iter()
            .filter(|(id, count)| !id.ends_with('7') || **count > 1);
        taken.map(|(id, _)| id.clone()).collect()
    }
}

#[test]
fn delivers_so_many_events_verifies_them_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--events", "20", "--rate", "50"]);
    assert!(dev.end().success());
    let mut lines = dev.rest();
    let summary = lines.pop().unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(
        (&summary["published"], &summary["owed"]),
        (&20.into(), &0.into())
    );
    assert_eq!(summary["refused"], 0);
    assert_eq!(summary["retried"], 5, "one in four is failed on purpose");
    assert!(lines.iter().all(|line| line["kind"] == "attempt"));
    let verified = lines.iter().filter(|line| line["verified"] == true);
    assert_eq!(summary["verified"], verified.clone().count());
    // The flaky endpoint wants all of them.
    let flaky = verified.filter(|line| line["endpoint"] == "flaky");
    let events: BTreeSet<_> = flaky.map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events.len(), 20);
    let failed = lines.iter().filter(|line| line["status"] == 503);
    assert!(
        failed
            .clone()
            .all(|line| line["attempt"] == 1 && line["cause"] == "http_5xx")
    );
    assert_eq!(failed.count(), 5);
}

#[test]
fn what_was_published_before_a_kill_is_delivered_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::default();
    let url = format!("http://{}/hooks", outside.start());
    let mut dev = Dev::start(dir.path(), &["--rate", "0"]);
    let endpoint = format!("{{\"url\":\"{url}\"}}");
    let made = dev.post("/v1/tenants/acme/endpoints", "", &endpoint);
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    let mut published = BTreeSet::new();
    for round in 0..2 {
        if round > 0 {
            dev = Dev::start(dir.path(), &["--rate", "0"]);
        }
        for number in 0..60 {
            let id = format!("evt-{round}-{number}");
            let headers = format!("webhook-id: {id}\r\nwebhook-type: order.created\r\n");
            let taken = dev.post("/v1/tenants/acme/events", &headers, "{\"id\": 1}");
            assert!(taken.starts_with("HTTP/1.1 202 "), "{taken}");
            published.insert(id);
        }
        dev.signal("KILL");
        assert!(!dev.end().success());
    }
    assert_ne!(
        outside.taken(),
        published,
        "the kill came too late to show anything"
    );

    let mut dev = Dev::start(dir.path(), &["--rate", "0"]);
    let until = Instant::now() + PATIENCE;
    while outside.taken() != published {
        assert!(Instant::now() < until, "not delivered in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    dev.signal("TERM");
    assert!(dev.end().success());
}

#[test]
fn an_interrupt_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--rate", "100"]);
    let first = dev.lines.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first["kind"], "attempt");
    dev.signal("INT");
    assert!(dev.end().success());
    let lines = dev.rest();
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["kind"], &summary["refused"]),
        (&"summary".into(), &0.into())
    );
    assert!(summary["verified"].as_u64().unwrap() > 0);
}

#[test]
fn an_unfinished_count_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--events", "1000", "--rate", "20"]);
    dev.lines.recv_timeout(PATIENCE).unwrap();
    dev.signal("TERM");
    assert_eq!(dev.end().code(), Some(1));
}

#[test]
fn foreign_addresses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for option in ["--listen", "--receiver"] {
        let refused = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(["dev", option, "0.0.0.0:0", "--data"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(!refused.status.success());
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(why.contains("expected a loopback address"), "{why}");
    }
}
