//! A sink process and a client that sends exactly the bytes it is told to.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use posthaste_core::signature::{Signer, SigningKey};
use serde_json::Value;

/// Vector key of Standard Webhooks.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running sink; killed when dropped.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Sink {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = sink(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap();
        let mut address: SocketAddr = first["listening"].as_str().unwrap().parse().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Self {
            address,
            child,
            stdout,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn ask(&self, method: &str, target: &str) -> (u16, Value) {
        let mut client = self.client();
        client.send(&format!("{method} {target} HTTP/1.1\r\nhost: sink\r\n\r\n"));
        let (status, _, body) = client.whole_answer();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) fn report(&self, query: &str) -> Value {
        let (status, report) = self.ask("GET", &format!("/_sink/report?{query}"));
        assert_eq!(status, 200, "{report}");
        report
    }

    pub(crate) fn behave(&self, query: &str) {
        let (status, answer) = self.ask("POST", &format!("/_sink/behave?{query}"));
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM; answers the exit code and the last report.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Value) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, serde_json::from_str(&text).unwrap())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.stream.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    pub(crate) fn ask(&mut self, request: &str) -> (u16, String) {
        self.send(request);
        self.answer()
    }

    /// Whether the answer is 200; no answer is no.
    pub(crate) fn try_ask(&mut self, request: &str) -> bool {
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        sent.is_ok() && self.read_answer().is_ok_and(|(status, ..)| status == 200)
    }

    pub(crate) fn answer(&mut self) -> (u16, String) {
        let (status, head, _) = self.whole_answer();
        (status, head)
    }

    pub(crate) fn whole_answer(&mut self) -> (u16, String, Vec<u8>) {
        self.read_answer().expect("an answer")
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Answers that still come before the connection ends.
    pub(crate) fn rest(&mut self) -> u64 {
        let mut answers = 0;
        while self.read_answer().is_ok() {
            answers += 1;
        }
        answers
    }

    /// Whether the other side ends the connection within `wait`, saying nothing.
    pub(crate) fn is_gone(&mut self, wait: Duration) -> bool {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(wait)).unwrap();
        match stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn read_answer(&mut self) -> std::io::Result<(u16, String, Vec<u8>)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, head, body))
    }
}

/// A webhook without a signature.
pub(crate) fn post(path: &str, id: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nwebhook-id: {id}\r\ncontent-length: 2\r\n\r\n{{}}")
}

/// A webhook signed now with [`SECRET`].
pub(crate) fn signed(path: &str, id: &str, body: &str) -> String {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let signer = Signer::new(vec![SigningKey::parse(SECRET).unwrap()]);
    let mut signature = vec![];
    signer.sign_into(id.as_bytes(), now_s, body.as_bytes(), &mut signature);
    let signature = String::from_utf8(signature).unwrap();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: sink\r\ncontent-type: application/json\r\n\
         webhook-id: {id}\r\nwebhook-timestamp: {now_s}\r\nwebhook-signature: {signature}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// The exit code of a sink that ends by itself.
pub(crate) fn exit_code(arguments: &[&str]) -> Option<i32> {
    let output = sink(arguments).output().unwrap();
    assert!(!output.stderr.is_empty());
    output.status.code()
}

fn sink(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste-sink"));
    command.args(arguments);
    command
}
