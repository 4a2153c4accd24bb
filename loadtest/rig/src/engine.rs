//! The engine under test.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::http;
use crate::process::Process;

/// Longest wait until it is ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Partitions of the source topic.
pub const PARTITIONS: i32 = 4;

/// Which log it runs on.
#[derive(Debug, Clone)]
pub enum LogKind {
    /// Kafka, by its bootstrap servers.
    Kafka(String),
    /// SQLite in the rig's folder.
    Embedded,
}

/// How to run engines, and where they keep what.
pub struct Setup {
    programs: PathBuf,
    dir: tempfile::TempDir,
    config: PathBuf,
    /// Where its API listens.
    pub api: SocketAddr,
    /// Before the names of its topics.
    pub prefix: String,
    /// The topic it reads.
    pub topic: String,
    /// Which log.
    pub log: LogKind,
}

/// A running engine.
pub struct Engine {
    process: Process,
    api: SocketAddr,
}

impl Setup {
    /// A fresh setup, with topics of its own.
    pub fn new(programs: &Path, log: LogKind) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // The folder's name is unlike any other's, here and on the broker.
        let name = dir.path().file_name().map(|name| name.to_string_lossy());
        let prefix = format!("rig{}-{}", name.unwrap_or_default(), std::process::id());
        let topic = format!("{prefix}.events");
        // Free now; the engine takes it before long.
        let api = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = match &log {
            LogKind::Kafka(bootstrap) => format!("kafka://{bootstrap}"),
            LogKind::Embedded => format!("embedded:{}", dir.path().join("log").display()),
        };
        let text = format!(
            r#"log = "{url}"
instance_id = "rig"
[topics]
prefix = "{prefix}"
lane_partitions = 8
source_partitions = {PARTITIONS}
[ingest]
topics = ["{topic}"]
start = "earliest"
[egress]
allow_http = true
allow = ["127.0.0.0/8"]
[http]
listen = "{api}"
[kafka]
session_timeout = "6s"
{}"#,
            match log {
                LogKind::Kafka(_) => "group_instance_id = \"rig\"\n",
                LogKind::Embedded => "",
            }
        );
        let config = dir.path().join("posthaste.toml");
        std::fs::write(&config, text)?;
        let setup = Self {
            programs: programs.to_owned(),
            dir,
            config,
            api,
            prefix,
            topic,
            log,
        };
        if let LogKind::Kafka(_) = setup.log {
            setup.create_topics()?;
        }
        Ok(setup)
    }

    fn create_topics(&self) -> anyhow::Result<()> {
        let made = self
            .command()
            .args(["topics", "create", "--sources", "--config"])
            .arg(&self.config)
            .output()?;
        if !made.status.success() {
            bail!("topics create: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(())
    }

    fn command(&self) -> Command {
        Command::new(self.programs.join("posthaste"))
    }

    /// The file that holds what engines said.
    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("engine.log")
    }

    /// The folder all files of this setup are in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts an engine and waits until it is ready.
    pub fn start(&self) -> anyhow::Result<Engine> {
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        std::io::Write::write_all(&mut log, b"--- start\n")?;
        let mut serve = self.command();
        serve.args(["serve", "--config"]).arg(&self.config);
        serve.stdout(log.try_clone()?).stderr(log);
        let mut engine = Engine {
            process: Process::start("the engine", &mut serve)?,
            api: self.api,
        };
        let until = Instant::now() + READY_WAIT;
        while http::call("GET", self.api, "/readyz").is_err() {
            if let Err(error) = engine.process.check() {
                let said = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(5).collect();
                bail!("{error}; it said: {}", last.join(" | "));
            }
            if Instant::now() >= until {
                bail!("the engine is not ready within {READY_WAIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(engine)
    }
}

impl Engine {
    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http::call("GET", self.api, "/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            let value = rest.rsplit(' ').next()?;
            labelled.then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// Waits until a metric is at least so large.
    pub fn wait_metric(&self, name: &str, least: f64, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        loop {
            let value = self.metric(name)?;
            if value >= least {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("{name} is {value} after {wait:?}, expected at least {least}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// CPU seconds used so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.process.cpu_seconds()
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Drains it: it must end with 0 within its deadline.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let status = self.process.terminate(Duration::from_secs(40))?;
        if !status.success() {
            bail!("the engine ended with {status}");
        }
        Ok(status)
    }
}

/// Calls until it answers well or time is up.
pub fn patiently<T>(
    wait: Duration,
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let until = Instant::now() + wait;
    loop {
        let asked = ask();
        match asked {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() >= until => bail!("{what}: not within {wait:?}"),
            Err(error) if Instant::now() >= until => return Err(error.context(what.to_owned())),
            Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
