//! The engine under test.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::Process;
use crate::{http, process};

/// Longest wait until it is ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Seals the endpoints' secrets on Kafka, which nobody but the rig reads.
const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// Partitions of the source topic, unless a shape says otherwise.
pub const PARTITIONS: i32 = 4;
/// The retry policy of [`Shape::retry_gaps`].
pub const POLICY: &str = "rig";

/// Which log it runs on.
#[derive(Debug, Clone)]
pub enum LogKind {
    /// Kafka, by its bootstrap servers.
    Kafka(String),
    /// SQLite in the rig's folder.
    Embedded,
}

/// What engines are like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many share the work.
    pub instances: usize,
    /// Partitions of the source topic.
    pub source_partitions: i32,
    /// Partitions of the lane.
    pub lane_partitions: u32,
    /// Time after which a silent instance loses its partitions.
    pub session_timeout: Duration,
    /// Whether an instance that comes back is taken for the one that left.
    pub is_static: bool,
    /// Gaps of the policy [`POLICY`], in seconds; none defines no policy.
    pub retry_gaps: &'static [u64],
}

/// How to run engines, and where they keep what.
pub struct Setup {
    programs: PathBuf,
    dir: tempfile::TempDir,
    instances: Vec<Instance>,
    /// Where the first one's API listens.
    pub api: SocketAddr,
    /// Before the names of its topics.
    pub prefix: String,
    /// The topic it reads.
    pub topic: String,
    /// Which log.
    pub log: LogKind,
    /// What they are like.
    pub shape: Shape,
}

/// One engine's own.
struct Instance {
    config: PathBuf,
    api: SocketAddr,
    log_file: PathBuf,
}

/// A running engine.
pub struct Engine {
    process: Process,
    api: SocketAddr,
    log_file: PathBuf,
}

/// What an engine's `/metrics` says.
pub struct Metrics(String);

impl Default for Shape {
    /// One engine that comes back as itself.
    fn default() -> Self {
        Self {
            instances: 1,
            source_partitions: PARTITIONS,
            lane_partitions: 8,
            session_timeout: Duration::from_secs(6),
            is_static: true,
            retry_gaps: &[],
        }
    }
}

impl Setup {
    /// A fresh setup, with topics of its own.
    pub fn new(programs: &Path, log: LogKind, shape: Shape) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // The folder's name is unlike any other's, here and on the broker.
        let name = dir.path().file_name().map(|name| name.to_string_lossy());
        let prefix = format!("rig{}-{}", name.unwrap_or_default(), std::process::id());
        let mut setup = Self {
            programs: programs.to_owned(),
            instances: Vec::new(),
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            topic: format!("{prefix}.events"),
            dir,
            prefix,
            log,
            shape,
        };
        for number in 0..setup.shape.instances {
            let instance = setup.instance(number)?;
            setup.instances.push(instance);
        }
        setup.api = setup.first().api;
        if let LogKind::Kafka(_) = setup.log {
            setup.create_topics()?;
        }
        Ok(setup)
    }

    /// Lays down one engine's settings.
    fn instance(&self, number: usize) -> anyhow::Result<Instance> {
        // Free now; the engine takes it before long.
        let api = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let dir = self.dir.path();
        let url = match &self.log {
            LogKind::Kafka(bootstrap) => format!("kafka://{bootstrap}"),
            LogKind::Embedded => format!("embedded:{}", dir.join("log").display()),
        };
        let (prefix, topic, shape) = (&self.prefix, &self.topic, &self.shape);
        let mut text = format!(
            r#"log = "{url}"
instance_id = "rig{number}"
[topics]
prefix = "{prefix}"
lane_partitions = {}
source_partitions = {}
[ingest]
topics = ["{topic}"]
start = "earliest"
[egress]
allow_http = true
allow = ["127.0.0.0/8"]
[http]
listen = "{api}"
[kafka]
session_timeout = "{}ms"
"#,
            shape.lane_partitions,
            shape.source_partitions,
            shape.session_timeout.as_millis(),
        );
        if shape.is_static && matches!(self.log, LogKind::Kafka(_)) {
            let _ = writeln!(text, "group_instance_id = \"rig{number}\"");
        }
        if !shape.retry_gaps.is_empty() {
            let gaps = shape.retry_gaps.iter().map(|gap| format!("\"{gap}s\""));
            let gaps = gaps.collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "[retry_policies.{POLICY}]\ngaps = [{gaps}]");
        }
        if matches!(self.log, LogKind::Kafka(_)) {
            let key = dir.join("secrets.key");
            std::fs::write(&key, MASTER_KEY)?;
            let _ = writeln!(text, "[secrets]\nkeys = [\"file:{}\"]", key.display());
        }
        let config = dir.join(format!("posthaste-{number}.toml"));
        std::fs::write(&config, text)?;
        Ok(Instance {
            config,
            api,
            log_file: dir.join(format!("engine-{number}.log")),
        })
    }

    fn first(&self) -> &Instance {
        &self.instances[0]
    }

    fn create_topics(&self) -> anyhow::Result<()> {
        let made = self
            .command()
            .args(["topics", "create", "--sources", "--config"])
            .arg(&self.first().config)
            .output()?;
        if !made.status.success() {
            bail!("topics create: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(())
    }

    fn command(&self) -> Command {
        Command::new(self.programs.join("posthaste"))
    }

    /// The folder all files of this setup are in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the folder, for somebody to look into, and answers where it is.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    /// Starts the first engine and waits until it is ready.
    pub fn start(&self) -> anyhow::Result<Engine> {
        let mut engine = self.launch(0)?;
        engine.wait_ready()?;
        Ok(engine)
    }

    /// Starts all engines and waits until all are ready.
    pub fn start_all(&self) -> anyhow::Result<Vec<Engine>> {
        let numbers = 0..self.instances.len();
        let mut engines = numbers
            .map(|number| self.launch(number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        engines.iter_mut().try_for_each(Engine::wait_ready)?;
        Ok(engines)
    }

    /// Starts the engine of this number and does not wait.
    pub fn launch(&self, number: usize) -> anyhow::Result<Engine> {
        let instance = &self.instances[number];
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&instance.log_file)?;
        std::io::Write::write_all(&mut log, b"--- start\n")?;
        let mut serve = self.command();
        serve.args(["serve", "--config"]).arg(&instance.config);
        serve.stdout(log.try_clone()?).stderr(log);
        Ok(Engine {
            process: Process::start("the engine", &mut serve)?,
            api: instance.api,
            log_file: instance.log_file.clone(),
        })
    }
}

impl Metrics {
    /// The sum of a metric over all its labels; nothing if there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            let value = rest.rsplit(' ').next()?;
            labelled.then(|| value.parse::<f64>().ok())?
        });
        let mut values = values.peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The same of a metric that counts things.
    pub fn count(&self, name: &str) -> u64 {
        whole(self.sum(name).unwrap_or_default())
    }
}

/// A metric that counts things, as a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, not negative and far below 2^53"
)]
pub fn whole(value: f64) -> u64 {
    value as u64
}

impl Engine {
    /// Whether it works.
    ///
    /// # Errors
    /// It has ended; the error has its last words.
    pub fn is_ready(&mut self) -> anyhow::Result<bool> {
        self.check()?;
        Ok(http::call("GET", self.api, "/readyz").is_ok())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WAIT;
        while !self.is_ready()? {
            if Instant::now() >= until {
                bail!("the engine is not ready within {READY_WAIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Fails with its last words if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.check().map_err(|error| {
            let said = std::fs::read_to_string(&self.log_file).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(5).collect();
            error.context(format!("it said: {}", last.join(" | ")))
        })
    }

    /// All metrics at this moment.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        http::call("GET", self.api, "/metrics").map(Metrics)
    }

    /// What its API answers.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        http::call("GET", self.api, path)
    }

    /// Sends a body, and answers what its API does.
    pub fn post(&self, path: &str, body: &str) -> anyhow::Result<String> {
        http::send("POST", self.api, path, body)
    }

    /// Deletes what the path names.
    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        http::call("DELETE", self.api, path).map(drop)
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        Ok(self.metrics()?.sum(name).unwrap_or_default())
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

    /// Memory it holds now, in bytes.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        self.process.rss_bytes()
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        process::signal(self.id(), name)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
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
