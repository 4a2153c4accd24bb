//! How the sick endpoints misbehave: one phase after another, each its own way,
//! with healthy phases between.

use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::sink::Sink;

/// Endpoints of the storm.
pub(super) const ENDPOINTS: u64 = 200;
/// Every so many endpoints one is sick: 20 of 200.
const SICK_EVERY: u64 = 10;
/// The first sick one is gone for good.
pub(super) const GONE: u64 = 3;
/// Sick phases before a healthy one: together they are shorter than the retry
/// policy lasts, so that no delivery is given up.
const SICK_PHASES: u32 = 2;
/// How long a flapping endpoint is up, and down.
const FLAP: Duration = Duration::from_secs(1);

/// One way to be sick: its name, and what the sink is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    /// The same to every request.
    Steady(&'static str),
    /// 503 and 200 in turn.
    Flapping,
}

const ILLNESSES: [Illness; 8] = [
    Illness::Steady("status:503"),
    Illness::Steady("status:503:2"),
    Illness::Steady("hang"),
    Illness::Steady("reset"),
    Illness::Steady("close"),
    Illness::Steady("delay:2000"),
    Illness::Steady("status:429:1"),
    Illness::Flapping,
];

/// All sick endpoints.
pub(super) struct Script {
    sick: Vec<Sick>,
    dice: Dice,
}

struct Sick {
    path: String,
    illness: Option<Illness>,
    /// Sick phases since the last healthy one.
    phases: u32,
    until: Instant,
    /// When a flapping one turns over, and to what.
    flips: (Instant, bool),
}

/// The path of an endpoint.
pub(super) fn path(endpoint: u64) -> String {
    format!("/e/{endpoint}")
}

impl Script {
    /// Everybody ill in some way, each way at least once, and one gone.
    pub(super) fn begin(sink: &Sink, mut dice: Dice) -> anyhow::Result<Self> {
        sink.behave(&path(GONE), "status:410")?;
        let endpoints = (GONE..ENDPOINTS).step_by(usize::try_from(SICK_EVERY)?);
        let mut sick = Vec::new();
        for (endpoint, illness) in endpoints.skip(1).zip(ILLNESSES.iter().cycle()) {
            let mut one = Sick {
                path: path(endpoint),
                illness: None,
                phases: 0,
                until: Instant::now(),
                flips: (Instant::now(), false),
            };
            one.fall_ill(*illness, sink, &mut dice)?;
            sick.push(one);
        }
        Ok(Self { sick, dice })
    }

    /// Begins the phases whose time has come.
    pub(super) fn go_on(&mut self, sink: &Sink) -> anyhow::Result<()> {
        let now = Instant::now();
        for one in &mut self.sick {
            if now >= one.until {
                if one.phases >= SICK_PHASES {
                    one.recover(sink, &mut self.dice)?;
                } else {
                    let illness = ILLNESSES[self.dice.below(ILLNESSES.len())];
                    one.fall_ill(illness, sink, &mut self.dice)?;
                }
            } else if one.illness == Some(Illness::Flapping) && now >= one.flips.0 {
                let up = one.flips.1;
                sink.behave(&one.path, if up { "ok" } else { "status:503" })?;
                one.flips = (now + FLAP, !up);
            }
        }
        Ok(())
    }

    /// Everybody well from now on, but the one that is gone.
    pub(super) fn heal(self, sink: &Sink) -> anyhow::Result<()> {
        self.sick
            .iter()
            .try_for_each(|one| sink.behave(&one.path, "ok"))
    }
}

impl Sick {
    fn fall_ill(&mut self, illness: Illness, sink: &Sink, dice: &mut Dice) -> anyhow::Result<()> {
        let (does, flips) = match illness {
            Illness::Steady(does) => (does, self.flips),
            Illness::Flapping => ("status:503", (Instant::now() + FLAP, true)),
        };
        sink.behave(&self.path, does)?;
        self.illness = Some(illness);
        self.flips = flips;
        self.phases += 1;
        self.until = Instant::now() + dice.millis(5_000, 20_000);
        Ok(())
    }

    fn recover(&mut self, sink: &Sink, dice: &mut Dice) -> anyhow::Result<()> {
        sink.behave(&self.path, "ok")?;
        self.illness = None;
        self.phases = 0;
        self.until = Instant::now() + dice.millis(5_000, 10_000);
        Ok(())
    }
}
