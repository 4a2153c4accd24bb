//! The receiver under load.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::engine::patiently;
use crate::feed::Workload;
use crate::process::Process;
use crate::{SECRET, http};

/// A running sink.
pub struct Sink {
    process: Process,
    /// Where it listens.
    pub at: SocketAddr,
}

/// What it received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests it took.
    pub deliveries: u64,
    /// Different events among them.
    pub unique: u64,
    /// The rest.
    pub duplicates: u64,
    /// Expected and not received.
    pub missing: u64,
    /// Signatures that did not verify.
    pub bad_signatures: u64,
    /// Signatures that did.
    pub verified: u64,
}

/// How old stamped events were when they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Half were no older.
    pub p50_ms: u64,
    /// 99 of 100 were no older.
    pub p99_ms: u64,
    /// The oldest.
    pub max_ms: u64,
}

/// One path's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReport {
    /// The path.
    pub path: String,
    /// Requests it answered 2xx.
    pub deliveries: u64,
    /// Different events among them.
    pub unique: u64,
    /// Requests it answered otherwise, or not at all.
    pub refused: u64,
    /// Events that were for it and did not come.
    pub missing: u64,
}

impl Sink {
    /// Starts one for a workload that checks `verify` of the signatures (`all`,
    /// `1/N`, `none`).
    pub fn start(programs: &Path, verify: &str, workload: &Workload) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.join("posthaste-sink"));
        command.args(["--listen", "0.0.0.0:0", "--verify", verify]);
        command.args(["--endpoints", &workload.endpoints.to_string()]);
        if workload.stamp {
            command.arg("--latency");
        }
        if verify != "none" {
            command.args(["--secret", SECRET]);
        }
        let mut process = Process::start("the sink", command.stdout(Stdio::piped()))?;
        let stdout = process.child().stdout.take().context("the sink's output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)?;
        let listening = said["listening"]
            .as_str()
            .context("where the sink listens")?;
        let listening: SocketAddr = listening.parse()?;
        Ok(Self {
            process,
            at: SocketAddr::from(([127, 0, 0, 1], listening.port())),
        })
    }

    /// What it has received of the events `0..events`.
    pub fn report(&self, events: u64) -> anyhow::Result<Report> {
        let said = self.ask("GET", &format!("report?from=0&to={events}&endpoints=0"))?;
        Ok(Report {
            deliveries: number(&said["deliveries"]),
            unique: number(&said["unique"]),
            duplicates: number(&said["duplicates"]),
            missing: number(&said["expected"]["missing"]),
            bad_signatures: number(&said["signatures"]["failed"]),
            verified: number(&said["signatures"]["verified"]),
        })
    }

    /// Requests it took so far.
    pub fn deliveries(&self) -> anyhow::Result<u64> {
        Ok(number(
            &self.ask("GET", "report?endpoints=0")?["deliveries"],
        ))
    }

    /// The counts of every path, of the events `0..events`. What is missing at
    /// one that took nothing is not known.
    pub fn paths(&self, events: u64) -> anyhow::Result<Vec<PathReport>> {
        let asked = format!("report?from=0&to={events}&endpoints=1000000");
        let said = self.ask("GET", &asked)?;
        let paths = said["endpoints"].as_array().context("no endpoints")?;
        let read = |path: &Value| PathReport {
            path: path["path"].as_str().unwrap_or_default().to_owned(),
            deliveries: number(&path["deliveries"]),
            unique: number(&path["unique"]),
            refused: number(&path["refused"]),
            missing: number(&path["missing"]),
        };
        Ok(paths.iter().map(read).collect())
    }

    /// How old stamped events were that came since this was last asked.
    pub fn take_latency(&self) -> anyhow::Result<Latency> {
        let said = self.ask("POST", "latency")?;
        Ok(Latency {
            count: number(&said["count"]),
            p50_ms: number(&said["p50_ms"]),
            p99_ms: number(&said["p99_ms"]),
            max_ms: number(&said["max_ms"]),
        })
    }

    fn ask(&self, method: &str, what: &str) -> anyhow::Result<Value> {
        let answer = http::call(method, self.at, &format!("/_sink/{what}"))?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Waits until it has received all of `0..events`, but for `missing`.
    pub fn wait_for(&self, events: u64, missing: u64, wait: Duration) -> anyhow::Result<Report> {
        patiently(wait, "all events at the sink", || {
            let report = self.report(events)?;
            Ok((report.missing <= missing).then_some(report))
        })
        .with_context(|| format!("{:?}", self.report(events)))
    }

    /// Misbehaves from now on, as its README says.
    pub fn behave(&self, path: &str, how: &str) -> anyhow::Result<()> {
        let asked = format!("/_sink/behave?path={path}&do={how}");
        http::call("POST", self.at, &asked).map(drop)
    }

    /// Forgets what it has received.
    pub fn reset(&self) -> anyhow::Result<()> {
        http::call("POST", self.at, "/_sink/reset").map(drop)
    }

    /// CPU seconds used so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.process.cpu_seconds()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
