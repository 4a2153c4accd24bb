//! The program as a process: started to be refused, or to serve; and the
//! requests a test makes of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// 32 bytes, as the program's environment has them.
pub(crate) const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// What a configuration on Kafka needs: that key.
pub(crate) const SECRETS: &str = "[secrets]\nkeys = [\"env:POSTHASTE_TEST_KEY\"]\n";

/// The program, about to be run.
pub(crate) fn posthaste(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    // A backtrace would be printed if the program could print one.
    command.args(words).env("RUST_BACKTRACE", "1");
    command
        .env("POSTHASTE_TEST_KEY", MASTER_KEY)
        .env_remove("POSTHASTE_SERVER")
        .env_remove("POSTHASTE_API_KEY")
        .env_remove("POSTHASTE_LOG");
    command
}

/// A run that was refused.
pub(crate) struct Refused {
    pub(crate) code: i32,
    /// What it said last, without the program's name.
    pub(crate) why: String,
    /// Everything on standard error.
    pub(crate) log: String,
}

impl Refused {
    /// Runs `posthaste` with these words and holds the answer to one readable
    /// line.
    pub(crate) fn from(words: &[&str]) -> Self {
        Self::of(posthaste(words).stdin(Stdio::null()).output().unwrap())
    }

    /// As [`from`](Self::from), for a `serve` with this configuration, on any
    /// free port unless it says otherwise.
    pub(crate) fn serve(config: &str) -> Self {
        let file = match config.contains("[http]") {
            true => file(config),
            false => file(&format!("{config}\n[http]\nlisten = \"127.0.0.1:0\"\n")),
        };
        let mut process = posthaste(&["serve", "--config"])
            .arg(file.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        while process.try_wait().unwrap().is_none() {
            if Instant::now() >= until {
                process.kill().unwrap();
                let said = process.wait_with_output().unwrap();
                panic!("not refused: {config}\n{}", text(&said.stderr));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Self::of(process.wait_with_output().unwrap())
    }

    fn of(output: Output) -> Self {
        let log = text(&output.stderr);
        let said: Vec<_> = log
            .lines()
            .filter_map(|line| line.strip_prefix("posthaste: "))
            .collect();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with("posthaste: "), "{log}");
        assert_eq!(said.len(), 1, "more than one line: {log}");
        assert!(
            !log.contains("panicked") && !log.contains("backtrace"),
            "{log}"
        );
        let levels = [" INFO ", " WARN ", "ERROR "];
        let others = log.lines().filter(|line| !line.starts_with("posthaste: "));
        for line in others {
            assert!(levels.iter().any(|level| line.contains(level)), "{line}");
        }
        assert_eq!(text(&output.stdout), "", "nothing on standard output");
        Self {
            code: output.status.code().expect("it ends by itself"),
            why: said[0].to_owned(),
            log,
        }
    }

    /// The exit code, and words the one line must hold.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.why.contains(word), "no `{word}` in: {}", self.why);
        }
        assert_eq!(self.code, code, "{}", self.why);
        self
    }
}

/// A configuration file.
pub(crate) fn file(config: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    file
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it speaks UTF-8")
}

/// A running `posthaste serve`.
pub(crate) struct Server {
    process: Child,
    log: Arc<Mutex<String>>,
    pub(crate) api: Api,
    _config: tempfile::NamedTempFile,
}

impl Server {
    /// Starts it, on any free port, and waits until it works.
    pub(crate) fn start(config: &str) -> Self {
        Self::run("serve", config, &[])
    }

    /// As [`start`](Self::start), for any command that serves, with more in its
    /// environment.
    pub(crate) fn run(word: &str, config: &str, environment: &[(&str, &str)]) -> Self {
        let config = match config.contains("[http]") {
            true => file(config),
            false => file(&format!("{config}\n[http]\nlisten = \"127.0.0.1:0\"\n")),
        };
        let mut process = posthaste(&[word, "--json", "--config"])
            .arg(config.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (heard, running) = std::sync::mpsc::sync_channel(1);
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                let fields = &said["fields"];
                if fields["message"] == "posthaste is running" {
                    let api = fields["api"].as_str().unwrap_or_default();
                    let _ = heard.send(api.parse::<SocketAddr>());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let running = running.recv_timeout(PATIENCE);
        let Ok(Ok(at)) = running else {
            let _ = process.kill();
            panic!("it does not run: {}", log.lock().unwrap());
        };
        Self {
            process,
            log,
            api: Api(at),
            _config: config,
        }
    }

    /// What it has logged so far, a JSON object a line.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(told.unwrap().success());
    }

    /// Tells it to stop and waits until it has, in order.
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        let mut status = None;
        eventually("it ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{}", self.log());
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks again until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where an API listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api(pub(crate) SocketAddr);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn post(self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.call("POST", path, headers, body)
    }

    /// One request on a connection of its own; `headers` end with `\r\n` each.
    pub(crate) fn call(self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.begin(method, path, headers, body);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = text(&answer);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Answer {
            status: head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0),
            head: head.to_ascii_lowercase(),
            text: text.to_owned(),
        }
    }

    /// Sends a request and does not wait for its answer.
    pub(crate) fn begin(self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test, not an endpoint"
        )]
        let mut stream = TcpStream::connect(self.0).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             {headers}content-length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    /// Makes an endpoint.
    pub(crate) fn endpoint(self, tenant: &str, url: &str) {
        let body = serde_json::json!({ "url": url }).to_string();
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let made = self.post(&path, "", body.as_bytes());
        assert_eq!(made.status, 201, "{}", made.text);
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(self, name: &str) -> Option<f64> {
        let page = self.call("GET", "/metrics", "", b"").text;
        let mut lines = page.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

impl Answer {
    /// A problem (RFC 9457) of this status and code; answers its `param` and
    /// `detail`.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> (String, String) {
        let Self { head, text, .. } = self;
        assert_eq!(self.status, status, "{head}\n{text}");
        assert!(
            head.contains("content-type: application/problem+json"),
            "{head}\n{text}"
        );
        let problem: Value = serde_json::from_str(text).unwrap();
        assert_eq!(problem["status"], status, "{text}");
        assert_eq!(problem["code"], code, "{text}");
        let member = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert!(!member("detail").is_empty(), "{text}");
        (member("param"), member("detail"))
    }
}

/// A configuration on the embedded log in that folder; tables may follow.
pub(crate) fn embedded(dir: &Path) -> String {
    format!("log = \"embedded:{}\"\nshards = 1\n", dir.display())
}
