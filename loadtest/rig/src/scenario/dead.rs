//! One endpoint of all is dead: the others keep their pace, and what is owed to
//! it waits in the lane.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{LAST_WAIT, Rig};
use crate::ENDPOINTS;
use crate::sink::Sink;

/// The dead one.
const DEAD: &str = "/e/7";

/// How it is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Death {
    /// Answers nothing until the attempt times out.
    Hang,
    /// Resets every connection.
    Reset,
    /// Closes every connection before it answers.
    Close,
}

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// The others' deliveries a second with the dead one, over without it; one
    /// a pair of runs.
    pub ratios: Vec<f64>,
    /// Deliveries waiting in the lane for the dead one, of how many owed.
    pub in_lane: u64,
    /// What was owed to it.
    pub owed: u64,
}

impl Death {
    fn word(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::Close => "close",
        }
    }
}

impl Outcome {
    /// The middle ratio.
    pub fn median(&self) -> f64 {
        super::canonical::median(&self.ratios)
    }
}

/// Runs pairs, with and without a dead endpoint, in turn.
pub fn run(rig: &Rig, events: u64, death: Death, pairs: u32) -> anyhow::Result<Outcome> {
    let owed = events / ENDPOINTS;
    let mut outcome = Outcome {
        ratios: Vec::new(),
        in_lane: 0,
        owed,
    };
    for pair in 0..pairs {
        let (healthy, _) = pace(rig, events, None)?;
        let (with_dead, in_lane) = pace(rig, events, Some(death))?;
        outcome.ratios.push(with_dead / healthy);
        outcome.in_lane = in_lane;
        eprintln!(
            "pair {}: {healthy:.0}/s without, {with_dead:.0}/s with a dead endpoint",
            pair + 1
        );
    }
    ensure!(
        outcome.in_lane == owed,
        "not everything owed to the dead endpoint is in the lane: {outcome:?}"
    );
    Ok(outcome)
}

/// The pace of all endpoints but the dead one, and what waits in the lane.
fn pace(rig: &Rig, events: u64, death: Option<Death>) -> anyhow::Result<(f64, u64)> {
    let scene = rig.scene("none")?;
    let engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    if let Some(death) = death {
        scene.sink.behave(DEAD, death.word())?;
    }
    let missing = if death.is_some() {
        events / ENDPOINTS
    } else {
        0
    };
    engine.stop()?;
    // Everything is there before the engine is: what is measured is its pace.
    scene.feed.fill(&scene.setup, 0, events, 0)?.finish()?;
    let engine = scene.setup.start()?;
    let started = first_delivery(&scene.sink, events)?;
    scene.sink.wait_for(events, missing, LAST_WAIT)?;
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let pace = (events - missing) as f64 / seconds;
    let mut in_lane = 0;
    if death.is_some() {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let least = missing as f64;
        engine
            .wait_metric(
                "posthaste_owner_owed_deliveries",
                least,
                Duration::from_secs(60),
            )
            .context("the dead endpoint's deliveries are not in the lane")?;
        in_lane = missing;
    }
    drop(engine);
    Ok((pace, in_lane))
}

fn first_delivery(sink: &Sink, events: u64) -> anyhow::Result<Instant> {
    let until = Instant::now() + LAST_WAIT;
    while Instant::now() < until {
        if sink.report(events)?.deliveries > 0 {
            return Ok(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("nothing was delivered")
}
