//! The engine is killed again and again while events flow: nothing is missing,
//! and what comes twice is bounded by what was in flight and what one commit
//! window completed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{COMMIT_WINDOW, LAST_WAIT, Rig};
use crate::engine::{Engine, whole};
use crate::sink::{Report, Sink};

/// How often the sink is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// At the sink, in the end.
    pub report: Report,
    /// Duplicates that were allowed, all kills together.
    pub allowed: u64,
    /// Events the producer sent twice itself, because a kill took the answer.
    pub retried: u64,
    /// Kills while events flowed.
    pub kills: u32,
}

/// Kills the engine `kills` times while `events` flow at `rate` a second.
pub fn run(rig: &Rig, events: u64, rate: u64, kills: u32) -> anyhow::Result<Outcome> {
    let scene = rig.scene("all")?;
    let mut engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    let mut filling = scene.feed.fill(&scene.setup, 0, events, rate)?;
    let mut allowed = 0;
    let mut done = 0;
    while done < kills {
        // Uneven on purpose: not always the same time after a commit.
        let life = Duration::from_millis(900 + u64::from(done) * 377 % 1_400);
        let watched = watch(&engine, &scene.sink, events, life)?;
        engine.kill()?;
        let after = scene.sink.report(events)?.deliveries;
        allowed += watched.in_flight + after.saturating_sub(watched.before_window);
        done += 1;
        eprint!("\rkill {done} of {kills}: {after} deliveries at the sink   ");
        engine = scene.setup.start()?;
        ensure!(
            filling.runs()? || done == kills,
            "all events were sent after {done} kills: lower the rate"
        );
    }
    eprintln!();
    let retried = filling.finish()?.retried;
    let report = scene.sink.wait_for(events, 0, LAST_WAIT)?;
    engine.stop()?;
    let outcome = Outcome {
        report,
        allowed,
        retried,
        kills,
    };
    ensure!(report.missing == 0, "lost: {outcome:?}");
    ensure!(report.bad_signatures == 0, "signed wrong: {outcome:?}");
    ensure!(
        report.duplicates <= allowed + retried,
        "more duplicates than in flight and one commit window: {outcome:?}"
    );
    Ok(outcome)
}

pub(super) struct Watched {
    pub(super) in_flight: u64,
    /// Deliveries at the sink one commit window ago.
    pub(super) before_window: u64,
}

/// Looks on for a while.
pub(super) fn watch(
    engine: &Engine,
    sink: &Sink,
    events: u64,
    life: Duration,
) -> anyhow::Result<Watched> {
    let until = Instant::now() + life;
    let mut seen: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut in_flight: f64 = 0.0;
    loop {
        let now = Instant::now();
        seen.push_back((now, sink.report(events)?.deliveries));
        while seen.len() > 1 && now - seen[1].0 > COMMIT_WINDOW {
            seen.pop_front();
        }
        // The shards' bound, should it be caught between two values.
        in_flight = in_flight.max(engine.metric("posthaste_dispatch_in_flight_attempts")?);
        if now >= until {
            let before_window = seen.front().map_or(0, |(_, deliveries)| *deliveries);
            return Ok(Watched {
                in_flight: whole(in_flight),
                before_window,
            });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
