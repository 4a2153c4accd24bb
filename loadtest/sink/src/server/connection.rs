//! One connection: what came and is not read yet, what is to be sent, and what
//! holds it up.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

/// Answers a client may leave unread; past it the connection is closed.
const OUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Tells this connection from another that had the same slot before.
    pub(super) serial: u64,
    /// Bytes of a request that is not complete, or that waits its turn.
    pub(super) input: Vec<u8>,
    /// What holds up further requests.
    pub(super) held: Option<Held>,
    /// What follows once everything is sent.
    pub(super) then: Then,
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
}

/// Why no further request of a connection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// The answer is due at a timer.
    Delayed,
    /// There will be no answer.
    Hung,
    /// The body is sent a byte at a time: how many are left, and the pause.
    Dripping(usize, Duration),
}

/// What follows once everything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    Stay,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

/// Whether a connection lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Over,
}

impl Connection {
    pub(super) fn new(serial: u64, stream: TcpStream) -> Self {
        Self {
            serial,
            input: Vec::new(),
            held: None,
            then: Then::Stay,
            stream,
            out: Vec::new(),
            sent: 0,
        }
    }

    /// Whether the next request may be read.
    pub(super) fn is_listening(&self) -> bool {
        self.held.is_none() && self.then == Then::Stay
    }

    /// Reads what there is into `scratch`; `None` when there is nothing now.
    pub(super) fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match self.stream.read(scratch) {
                Ok(read) => Ok(Some(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Queues an answer of this status.
    pub(super) fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        if status == 200 && headers.is_empty() && body.is_empty() {
            let usual = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            self.out.extend_from_slice(usual);
            return;
        }
        self.head(status, headers, body.len());
        self.out.extend_from_slice(body);
    }

    /// Queues the head alone, announcing a body of so many bytes.
    pub(super) fn head(&mut self, status: u16, headers: &[(&str, &str)], length: usize) {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if status != 204 && status != 304 {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        self.out.extend_from_slice(head.as_bytes());
    }

    /// Queues bytes of a body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Life {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Life::Over,
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let unread = self.out.len() - self.sent;
                    return if unread > OUT_BYTES_MAX {
                        Life::Over
                    } else {
                        Life::Open
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Life::Over,
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.held.is_some() {
            return Life::Open;
        }
        match self.then {
            Then::Stay => Life::Open,
            Then::Close => Life::Over,
            Then::Reset => {
                // Closing with no time to linger sends RST. If it cannot be
                // set, the connection is gone already.
                let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                Life::Over
            }
        }
    }

    /// The socket, to register it.
    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// The usual phrase; clients ignore it, people read it.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
