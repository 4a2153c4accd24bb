//! Sends events to a server's HTTP ingest, one at a time on each of several
//! connections.
//!
//! An event whose answer does not come, or is 429 or 5xx, is sent again under
//! the same id until the server takes it. The server may then hold it twice:
//! the summary's `retried` bounds how often.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use crate::http::{Client, Server};
use crate::{Pace, Run, Sent};

/// How long one event is tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

struct Work<'a> {
    server: &'a Server,
    run: &'a Run<'a>,
    pace: Pace,
    next: AtomicU64,
    retried: AtomicU64,
    stop: AtomicBool,
}

/// Sends the events.
///
/// # Errors
/// The server refused an event, or did not take one within a minute.
pub(crate) fn fill(server: &Server, connections: u16, run: &Run<'_>) -> anyhow::Result<Sent> {
    let work = Work {
        server,
        run,
        pace: run.pace(),
        next: AtomicU64::new(run.numbers.start),
        retried: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                if let Err(error) = work.lane() {
                    work.stop.store(true, Ordering::Relaxed);
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(error);
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(None) => Ok(Sent {
            // Every number that was taken was sent.
            events: work.next.into_inner().min(run.numbers.end) - run.numbers.start,
            retried: work.retried.into_inner(),
        }),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(anyhow!("a connection's thread panicked")),
    }
}

impl Work<'_> {
    fn lane(&self) -> anyhow::Result<()> {
        let mut client = Client::new(self.server);
        let Run {
            workload,
            numbers,
            progress,
            ..
        } = self.run;
        let path = format!("/v1/tenants/{}/events", workload.tenant);
        let mut body = String::new();
        while !self.stop.load(Ordering::Relaxed) && !self.run.is_over() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= numbers.end {
                break;
            }
            self.pace.wait_for(n - numbers.start);
            workload.body_into(n, &mut body);
            self.send(&mut client, &path, n, body.as_bytes())?;
            progress.step();
        }
        Ok(())
    }

    fn send(&self, client: &mut Client<'_>, path: &str, n: u64, body: &[u8]) -> anyhow::Result<()> {
        let workload = self.run.workload;
        let (id, event_type) = (workload.id(n), workload.event_type(n));
        let headers = [("webhook-id", &*id), ("webhook-type", &*event_type)];
        let start = Instant::now();
        loop {
            let problem = match client.ask("POST", path, &headers, body) {
                Ok(answer) if answer.status == 202 => return Ok(()),
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    format!("{}: {}", answer.status, answer.body)
                }
                Ok(answer) => bail!("event {id} refused, {}: {}", answer.status, answer.body),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > PATIENCE || self.stop.load(Ordering::Relaxed) {
                bail!("event {id} not taken within {PATIENCE:?}: {problem}");
            }
            self.retried.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }
}
