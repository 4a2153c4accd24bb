//! What the storm blows on: the engines, the script of the sick, and what was
//! seen of both in the last commit window.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::super::{COMMIT_WINDOW, Rig, Scene};
use super::script::Script;
use crate::engine::Engine;

/// How often engines and sink are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest start of an engine.
const START_WAIT: Duration = Duration::from_secs(90);
/// Looks between two lines of progress.
const TOLD_EVERY: u32 = 20;

/// Everything, while the storm blows.
pub(super) struct World<'a> {
    pub(super) rig: &'a Rig,
    pub(super) scene: &'a Scene,
    seats: Vec<Seat>,
    script: Option<Script>,
    seen: VecDeque<Look>,
    looks: u32,
    started: Instant,
}

/// One instance's place.
enum Seat {
    Up(Engine),
    /// Stopped, or asked to end: it says nothing.
    Silent(Engine),
    Empty,
}

/// What was seen at one moment.
struct Look {
    at: Instant,
    /// At the sink.
    deliveries: u64,
    loads: Vec<Load>,
}

/// What an engine has in its hands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// Attempts that have begun and not ended.
    pub(super) in_flight: u64,
    /// Deliveries waiting in memory.
    pub(super) queued: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(
        rig: &'a Rig,
        scene: &'a Scene,
        engines: Vec<Engine>,
        script: Script,
    ) -> Self {
        Self {
            rig,
            scene,
            seats: engines.into_iter().map(Seat::Up).collect(),
            script: Some(script),
            seen: VecDeque::new(),
            looks: 0,
            started: Instant::now(),
        }
    }

    /// Time since the storm began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Instances there are.
    pub(super) fn instances(&self) -> usize {
        self.seats.len()
    }

    /// Looks once at everything, and lets the script go on.
    ///
    /// # Errors
    /// An engine has ended that nobody ended.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        if let Some(script) = &mut self.script {
            script.go_on(&self.scene.sink)?;
        }
        let mut loads = Vec::new();
        for (number, seat) in self.seats.iter_mut().enumerate() {
            let mut load = Load::default();
            if let Seat::Up(engine) = seat {
                let ended = || format!("instance {number} ended by itself");
                engine.check().with_context(ended)?;
                // One that is starting, or busy, says nothing.
                if let Ok(metrics) = engine.metrics() {
                    load.in_flight = metrics.count("posthaste_dispatch_in_flight_attempts");
                    load.queued = metrics.count("posthaste_dispatch_queued_deliveries");
                }
            }
            loads.push(load);
        }
        let (at, deliveries) = (Instant::now(), self.scene.sink.deliveries()?);
        self.seen.push_back(Look {
            at,
            deliveries,
            loads,
        });
        while self.seen.len() > 1 && at - self.seen[1].at > COMMIT_WINDOW {
            self.seen.pop_front();
        }
        self.looks += 1;
        if self.looks.is_multiple_of(TOLD_EVERY) {
            let seconds = self.elapsed().as_secs();
            eprint!("\r{seconds:>5} s  {deliveries} deliveries at the sink   ");
        }
        Ok(())
    }

    /// Looks on for so long.
    pub(super) fn wait(&mut self, span: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.look()?;
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Looks on until something has come about.
    pub(super) fn until<T>(
        &mut self,
        wait: Duration,
        what: &str,
        mut has: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + wait;
        loop {
            self.look()?;
            if let Some(found) = has(self)? {
                return Ok(found);
            }
            ensure!(Instant::now() < until, "{what}: not within {wait:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Deliveries at the sink one commit window ago.
    pub(super) fn before_window(&self) -> u64 {
        self.seen.front().map_or(0, |look| look.deliveries)
    }

    /// The most an instance had in its hands within the commit window, lest it
    /// be caught between two values.
    pub(super) fn load(&self, number: usize) -> Load {
        let loads = self.seen.iter().filter_map(|look| look.loads.get(number));
        loads.fold(Load::default(), |most, load| Load {
            in_flight: most.in_flight.max(load.in_flight),
            queued: most.queued.max(load.queued),
        })
    }

    /// Deliveries at the sink now.
    pub(super) fn deliveries(&self) -> anyhow::Result<u64> {
        self.scene.sink.deliveries()
    }

    /// Takes an instance out of its place, to end it.
    pub(super) fn take(&mut self, number: usize) -> anyhow::Result<Engine> {
        match std::mem::replace(&mut self.seats[number], Seat::Empty) {
            Seat::Up(engine) | Seat::Silent(engine) => Ok(engine),
            Seat::Empty => bail!("instance {number} is not there"),
        }
    }

    /// Puts it back and listens to it again.
    pub(super) fn put(&mut self, number: usize, engine: Engine) {
        self.seats[number] = Seat::Up(engine);
    }

    /// Sends it a signal after which it says nothing.
    pub(super) fn silence(&mut self, number: usize, signal: &str) -> anyhow::Result<()> {
        let engine = self.take(number)?;
        engine.signal(signal)?;
        self.seats[number] = Seat::Silent(engine);
        Ok(())
    }

    /// Whether a silent one has ended, and well.
    pub(super) fn ended(&mut self, number: usize) -> anyhow::Result<Option<bool>> {
        let Seat::Silent(engine) = &mut self.seats[number] else {
            bail!("instance {number} is not silent");
        };
        Ok(engine.ended()?.map(|status| status.success()))
    }

    /// Starts the instance and waits until it is ready.
    pub(super) fn bring_up(&mut self, number: usize) -> anyhow::Result<()> {
        let engine = self.scene.setup.launch(number)?;
        self.put(number, engine);
        self.until(START_WAIT, "an instance is ready", |world| {
            let Seat::Up(engine) = &mut world.seats[number] else {
                return Ok(None);
            };
            Ok(engine.is_ready()?.then_some(()))
        })
    }

    /// Ends the script: everybody is well.
    pub(super) fn heal(&mut self) -> anyhow::Result<()> {
        match self.script.take() {
            Some(script) => script.heal(&self.scene.sink),
            None => Ok(()),
        }
    }

    /// The sum of a metric over all instances that are up.
    pub(super) fn sum(&self, metric: &str) -> anyhow::Result<u64> {
        let up = self.seats.iter().filter_map(|seat| match seat {
            Seat::Up(engine) => Some(engine),
            Seat::Silent(_) | Seat::Empty => None,
        });
        up.map(|engine| Ok(engine.metrics()?.count(metric))).sum()
    }

    /// What the first instance's API answers.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<String> {
        self.first()?.get(path)
    }

    /// Has the first instance delete what the path names.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.first()?.delete(path)
    }

    fn first(&self) -> anyhow::Result<&Engine> {
        match self.seats.first() {
            Some(Seat::Up(engine)) => Ok(engine),
            _ => bail!("the first instance is not up"),
        }
    }

    /// Ends every instance as an operator does.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        for number in 0..self.seats.len() {
            let engine = self.take(number)?;
            let ended = || format!("instance {number}");
            engine.stop().with_context(ended)?;
        }
        Ok(())
    }
}
