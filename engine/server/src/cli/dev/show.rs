//! The loop that shows what happens, from the first event to the last.

use std::pin::pin;
use std::time::Duration;

use posthaste_proto::Attempt;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::board::Shared;
use super::screen::{Face, Screen, say};
use super::view::Head;
use super::watch::Watch;
use crate::cli::stop_signal;
use crate::clock::Clock;

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(220);
/// The last attempts are waited for this long, here in all …
const LAST_WAIT_MAX: Duration = Duration::from_secs(5);
/// … and so long when none comes.
const QUIET: Duration = Duration::from_millis(300);

/// Shows what happens until the house has stopped.
pub(super) struct Show {
    pub(super) face: Face,
    pub(super) head: Head,
    pub(super) board: Shared,
    pub(super) clock: Clock,
    /// Sample events to stop after.
    pub(super) wanted: Option<u64>,
    /// Cancelled to stop everything.
    pub(super) stop: CancellationToken,
}

impl Show {
    pub(super) async fn run(
        self,
        mut watch: Watch,
        house: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let mut house = pin!(house);
        let mut signal = pin!(stop_signal()?);
        let mut tick = interval(DRAW_EVERY);
        let screen = self.open()?;
        let stopped = loop {
            let shown = tokio::select! {
                stopped = &mut house => break stopped,
                () = &mut signal, if !self.stop.is_cancelled() => {
                    self.stop.cancel();
                    Ok(())
                }
                attempts = watch.next() => self.note(&attempts?),
                _ = tick.tick() => {
                    if self.is_done() {
                        self.stop.cancel();
                    }
                    self.draw(screen.as_ref())
                }
            };
            // Nobody looks any more: stop in order all the same.
            if shown.is_err() {
                self.stop.cancel();
            }
        };
        self.last(&mut watch).await?;
        self.draw(screen.as_ref())?;
        let restored = screen.is_some();
        drop(screen);
        self.close(restored)?;
        stopped
    }

    fn open(&self) -> std::io::Result<Option<Screen>> {
        match self.face {
            Face::Table => return Screen::enter().map(Some),
            Face::Lines => say(&self.head.started())?,
            Face::Json => say(&self.head.started_json().to_string())?,
        }
        Ok(None)
    }

    /// The attempts that came to stand in the log while the house stopped.
    async fn last(&self, watch: &mut Watch) -> anyhow::Result<()> {
        let until = Instant::now() + LAST_WAIT_MAX;
        while Instant::now() < until {
            match timeout(QUIET, watch.next()).await {
                Ok(attempts) => self.note(&attempts?)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn note(&self, attempts: &[Attempt]) -> std::io::Result<()> {
        for attempt in attempts {
            let line = self.board.lock().attempted(attempt);
            match self.face {
                Face::Table => {}
                Face::Lines => say(&line.text())?,
                Face::Json => say(&line.json().to_string())?,
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let settled = self.board.lock().settled;
        self.wanted.is_some_and(|wanted| settled >= wanted)
    }

    fn draw(&self, screen: Option<&Screen>) -> std::io::Result<()> {
        let Some(screen) = screen else {
            return Ok(());
        };
        let state = if self.stop.is_cancelled() {
            "stopping"
        } else {
            "running"
        };
        screen.draw(&self.frame(state))
    }

    fn frame(&self, state: &str) -> Vec<String> {
        self.head.frame(&self.board.lock(), self.clock.now(), state)
    }

    /// How it went.
    fn close(&self, after_table: bool) -> std::io::Result<()> {
        let totals = self.board.lock().totals();
        if after_table {
            let frame = self.frame("stopped");
            // Without the hints, which are for a demo that runs.
            say(&frame[..frame.len().saturating_sub(5)].join("\n"))?;
        }
        match self.face {
            Face::Table | Face::Lines => say(&totals.text()),
            Face::Json => say(&totals.json().to_string()),
        }
    }
}
