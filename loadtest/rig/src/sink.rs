//! The receiver under load.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::engine::patiently;
use crate::process::Process;
use crate::{ENDPOINTS, SECRET, http};

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

impl Sink {
    /// Starts one that checks `verify` of the signatures (`all`, `1/N`, `none`).
    pub fn start(programs: &Path, verify: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.join("posthaste-sink"));
        command.args(["--listen", "0.0.0.0:0", "--verify", verify]);
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
        let path = format!("/_sink/report?from=0&to={events}&endpoints={ENDPOINTS}");
        let said: Value = serde_json::from_str(&http::call("GET", self.at, &path)?)?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        Ok(Report {
            deliveries: number(&said["deliveries"]),
            unique: number(&said["unique"]),
            duplicates: number(&said["duplicates"]),
            missing: number(&said["expected"]["missing"]),
            bad_signatures: number(&said["signatures"]["failed"]),
            verified: number(&said["signatures"]["verified"]),
        })
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
