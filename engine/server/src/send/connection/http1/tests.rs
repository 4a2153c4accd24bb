//! The same bytes to this client and to hyper's, which is the oracle: both must
//! see the same response, the same end of its body, and the same future of its
//! connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use posthaste_core::limits::EXCERPT_BYTES_MAX;
use posthaste_core::rng::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
/// No response takes longer, in paused time.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a client saw.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: Option<u16>,
    /// The body's beginning.
    body: Vec<u8>,
    reusable: bool,
}

/// What a peer sends: the pieces in order, a moment between them.
#[derive(Debug, Clone)]
struct Script {
    pieces: Vec<Vec<u8>>,
    closes: bool,
}

impl Script {
    /// A peer that follows the script once it has a request.
    fn play(&self) -> DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let script = self.clone();
        tokio::spawn(async move {
            let mut request = [0; 1_024];
            let _ = theirs.read(&mut request).await;
            for piece in script.pieces {
                if theirs.write_all(&piece).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if !script.closes {
                std::future::pending::<()>().await;
            }
        });
        ours
    }

    async fn by_us(&self) -> Seen {
        let meter = Meter::plain(None);
        let mut line = Http1::new(self.play());
        let request = Message::whole(REQUEST);
        let deadline = Instant::now() + DEADLINE;
        let attempted = line.attempt(&request, NOW, deadline, &meter).await;
        let closed = tokio::time::timeout(DEADLINE, line.closed());
        let reusable = closed.await.is_err();
        let (status, body) = attempted.map_or((None, Vec::new()), |attempted| {
            (attempted.outcome.status, attempted.excerpt.to_vec())
        });
        Seen {
            status,
            body,
            reusable,
        }
    }

    async fn by_hyper(&self) -> Seen {
        let io = TokioIo::new(self.play());
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(posthaste_core::limits::HEAD_FIELDS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(io)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::post("/").header("host", "a");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let mut seen = Seen {
            status: None,
            body: Vec::new(),
            reusable: false,
        };
        let response = tokio::time::timeout(DEADLINE, sender.send_request(request)).await;
        if let Ok(Ok(response)) = response {
            seen.status = Some(response.status().as_u16());
            let mut body = response.into_body();
            let until = Instant::now() + BODY_TIME_MAX;
            while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
                seen.body.extend(frame.into_data().unwrap_or_default());
            }
            seen.body.truncate(EXCERPT_BYTES_MAX);
            tokio::time::sleep(DEADLINE).await;
            seen.reusable = sender.is_ready() && !driver.is_finished();
        }
        driver.abort();
        seen
    }
}

/// Builds responses that are mostly right.
struct Maker {
    rng: Rng,
}

impl Maker {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.rng.below(of.len() as u64)).unwrap()]
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }

    fn response(&mut self) -> Vec<u8> {
        let mut text = String::new();
        while self.chance(6) {
            text += self.pick(&[
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 103 Early\r\nlink: <a>\r\n\r\n",
                "HTTP/1.1 102 \r\n\r\n",
            ]);
        }
        text += self.pick(&["HTTP/1.1 ", "HTTP/1.1 ", "HTTP/1.1 ", "HTTP/1.0 "]);
        text += self.pick(&[
            "200 OK",
            "204 No",
            "500 No",
            "304 No",
            "404",
            "200",
            "299 \u{e9}",
            "600 x",
            "999 y",
        ]);
        text += self.pick(&["\r\n", "\r\n", "\r\n", "\n"]);
        for _ in 0..self.rng.below(4) {
            text += self.pick(&[
                "a: b\r\n",
                "Connection: close\r\n",
                "connection: Keep-Alive\r\n",
                "connection: x, close\r\n",
                "Retry-After: 3\r\n",
                "x-empty:\r\n",
                "x:\ty \r\n",
                "set-cookie: a=b; c\n",
            ]);
        }
        let body = self.pick(&["", "ok", "hello\r\nworld", "0\r\n\r\n"]);
        match self.rng.below(5) {
            0 | 1 => text += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            2 | 3 => {
                text += "transfer-encoding: chunked\r\n\r\n";
                if !body.is_empty() {
                    let extension = self.pick(&["", "", ";a", ";a=b", " ", "\t;q"]);
                    text += &format!("{:x}{extension}\r\n{body}\r\n", body.len());
                }
                text += self.pick(&[
                    "0\r\n\r\n",
                    "000\r\n\r\n",
                    "0;x\r\n\r\n",
                    "0\r\nt: u\r\n\r\n",
                ]);
            }
            _ => text += &format!("\r\n{body}"),
        }
        text.into_bytes()
    }

    /// A response, sometimes damaged, in pieces.
    fn script(&mut self) -> Script {
        let mut bytes = self.response();
        while self.chance(4) {
            let at = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap();
            match self.rng.below(4) {
                0 => bytes.truncate(at + 1),
                1 => {
                    bytes.remove(at);
                }
                2 => bytes[at] = b"\r\n :;,0a\0\x80"[at % 10],
                _ => bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n"),
            }
            if bytes.is_empty() {
                bytes.push(b'H');
            }
        }
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let most = bytes.len() as u64;
            let piece = if self.chance(2) {
                most
            } else {
                1 + self.rng.below(most)
            };
            let rest = bytes.split_off(usize::try_from(piece).unwrap());
            pieces.push(std::mem::replace(&mut bytes, rest));
        }
        Script {
            pieces,
            closes: self.chance(2),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_oracle_sees_the_same() {
    let mut maker = Maker { rng: Rng::new(7) };
    let mut statuses = 0;
    for number in 0..4_000 {
        let script = maker.script();
        let (ours, theirs) = (script.by_us().await, script.by_hyper().await);
        statuses += u32::from(ours.status.is_some());
        let shown: Vec<_> = script
            .pieces
            .iter()
            .map(|p| p.escape_ascii().to_string())
            .collect();
        assert_eq!(
            ours, theirs,
            "{number}: {shown:?}, closes: {}",
            script.closes
        );
    }
    assert!(
        statuses > 2_000,
        "only {statuses} responses were understood"
    );
}
