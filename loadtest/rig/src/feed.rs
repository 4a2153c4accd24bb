//! The producer of the canonical workload.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::engine::{LogKind, Setup};
use crate::{ENDPOINTS, SECRET};

/// How to run it.
pub struct Feed {
    program: PathBuf,
    /// What it sends.
    pub workload: Workload,
}

/// What is sent, and the endpoints it goes to.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Whose events and endpoints they are.
    pub tenant: &'static str,
    /// Event `n` goes to endpoint `n % endpoints`.
    pub endpoints: u64,
    /// Whether bodies say when they were sent.
    pub stamp: bool,
    /// Further options of `posthaste-feed endpoints`.
    pub options: &'static [&'static str],
}

/// A fill that runs beside everything else.
pub struct Filling(Child);

/// What a fill came to.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// Events sent and acknowledged.
    pub events: u64,
    /// How many were sent again because their first answer was lost.
    pub retried: u64,
}

impl Default for Workload {
    /// The canonical one.
    fn default() -> Self {
        Self {
            tenant: "load",
            endpoints: ENDPOINTS,
            stamp: false,
            options: &[],
        }
    }
}

impl Feed {
    /// With the programs in a folder.
    pub fn new(programs: &Path, workload: Workload) -> Self {
        Self {
            program: programs.join("posthaste-feed"),
            workload,
        }
    }

    /// Registers the endpoints at a running engine.
    pub fn register(&self, setup: &Setup, sink: SocketAddr) -> anyhow::Result<()> {
        let mut register = Command::new(&self.program);
        register.args(["endpoints", "--server", &format!("http://{}", setup.api)]);
        register.args(["--sink", &sink.to_string(), "--secret", SECRET]);
        register.args(["--tenant", self.workload.tenant]);
        register.args(["--count", &self.workload.endpoints.to_string()]);
        register.args(self.workload.options);
        Filling(register.stdout(Stdio::piped()).spawn()?).finish()?;
        Ok(())
    }

    /// Starts sending the events `from..from + events`, `rate` a second (0 for
    /// no limit).
    pub fn fill(
        &self,
        setup: &Setup,
        from: u64,
        events: u64,
        rate: u64,
    ) -> anyhow::Result<Filling> {
        let mut fill = self.command(setup, from, events, rate);
        Ok(Filling(fill.stdout(Stdio::piped()).spawn()?))
    }

    /// Starts sending `rate` events a second from the first on, until
    /// [`Filling::end`].
    pub fn flow(&self, setup: &Setup, rate: u64) -> anyhow::Result<Filling> {
        let mut flow = self.command(setup, 0, u64::from(u32::MAX), rate);
        flow.arg("--until-stdin-closes");
        let flow = flow.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Filling(flow.spawn()?))
    }

    fn command(&self, setup: &Setup, from: u64, events: u64, rate: u64) -> Command {
        let mut fill = Command::new(&self.program);
        fill.args(["--run", "rig", "--from", &from.to_string()]);
        fill.args(["--events", &events.to_string(), "--rate", &rate.to_string()]);
        fill.args(["--tenant", self.workload.tenant]);
        fill.args(["--endpoints", &self.workload.endpoints.to_string()]);
        if self.workload.stamp {
            fill.arg("--stamp");
        }
        match &setup.log {
            LogKind::Kafka(bootstrap) => {
                fill.args(["--bootstrap", bootstrap, "--topic", &setup.topic]);
            }
            LogKind::Embedded => {
                fill.args(["--http", &format!("http://{}", setup.api)]);
            }
        }
        fill
    }
}

impl Filling {
    /// Has it send no more, then [finishes](Self::finish).
    pub fn end(mut self) -> anyhow::Result<Filled> {
        drop(self.0.stdin.take());
        self.finish()
    }

    /// Waits until every event is acknowledged.
    pub fn finish(mut self) -> anyhow::Result<Filled> {
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().context("the feed's output")?;
        std::io::Read::read_to_string(&mut stdout, &mut said)?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the feed ended with {status}");
        }
        let said: Value = serde_json::from_str(&said)?;
        let of = |name: &str| said[name].as_u64().unwrap_or_default();
        Ok(Filled {
            events: of("events"),
            retried: of("retried"),
        })
    }

    /// Whether it still sends.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
