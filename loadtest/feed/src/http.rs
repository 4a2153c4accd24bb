//! A small HTTP/1.1 client: one request at a time on a connection that is kept.
//!
//! What it refuses: anything but `http://host:port`, and answers without a
//! `content-length`, which the server always gives.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

/// An answer that takes longer is none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest answer read.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    authority: String,
    address: SocketAddr,
}

/// One connection to it, made when needed.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    server: &'a Server,
    stream: Option<BufReader<TcpStream>>,
    out: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body, as text for people.
    pub(crate) body: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = text
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|rest| !rest.contains('/'))
            .ok_or("expected http://host:port")?;
        let address = authority
            .to_socket_addrs()
            .map_err(|error| format!("{authority}: {error}"))?
            .next()
            .ok_or_else(|| format!("{authority} has no address"))?;
        Ok(Self {
            authority: authority.to_owned(),
            address,
        })
    }
}

impl<'a> Client<'a> {
    /// Not yet connected.
    pub(crate) fn new(server: &'a Server) -> Self {
        Self {
            server,
            stream: None,
            out: Vec::new(),
        }
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// The connection broke; the server may or may not have obeyed.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.out.clear();
        let (authority, length) = (&self.server.authority, body.len());
        write!(
            self.out,
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n"
        )?;
        for (name, value) in headers {
            write!(self.out, "{name}: {value}\r\n")?;
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.server.connect()?,
        };
        stream.get_mut().write_all(&self.out)?;
        let (answer, keep) = read_answer(&mut stream)?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }
}

impl Server {
    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_TIME_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(BufReader::new(stream))
    }
}

fn read_answer(stream: &mut BufReader<impl io::Read>) -> io::Result<(Answer, bool)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = stream.take(ANSWER_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP/1.1"))?;
    let (mut length, mut keep) = (if status == 204 { Some(0) } else { None }, true);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length
        .filter(|length| *length <= ANSWER_BYTES_MAX)
        .ok_or_else(|| bad("the answer has no content-length, or one over 1 MiB"))?;
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    if u64::try_from(body.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((Answer { status, body }, keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<(u16, String, bool)> {
        let mut stream = BufReader::new(text.as_bytes());
        let (answer, keep) = read_answer(&mut stream)?;
        Ok((answer.status, answer.body, keep))
    }

    #[test]
    fn answers_are_read_and_cut_ones_are_errors() {
        let whole = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(whole).unwrap(), (202, "{}".to_owned(), true));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        let closing = "HTTP/1.1 503 Busy\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(read(closing).unwrap(), (503, String::new(), false));
        let empty = "HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(read(empty).unwrap(), (204, String::new(), true));
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_plain_origin_is_a_server() {
        assert!("http://127.0.0.1:8400/".parse::<Server>().is_ok());
        for text in [
            "127.0.0.1:8400",
            "https://127.0.0.1:1",
            "http://127.0.0.1:1/a",
            "http://a b",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
