//! What is done to the engines and their broker, and the duplicates each deed
//! allows.

use std::process::Stdio;
use std::time::Duration;

use super::super::COMMIT_WINDOW;
use super::world::World;
use crate::dice::Dice;
use crate::process::Process;

/// Longest graceful end: the drain deadline is 25 s.
const STOP_WAIT: Duration = Duration::from_secs(40);
/// Longest stop and start of the broker.
const BROKER_WAIT: Duration = Duration::from_secs(120);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of an instance, then a start.
    Kill,
    /// An instance is stopped for longer than its session and goes on as if
    /// nothing had happened.
    Zombie,
    /// SIGTERM of an instance, then a start.
    Restart,
    /// The broker ends and starts again.
    Broker,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Deed {
    pub(super) fault: Fault,
    /// The instance; none for the broker.
    pub(super) instance: Option<usize>,
    /// When, since the storm began.
    pub(super) at: Duration,
    /// How long it took, until all were up again.
    pub(super) took: Duration,
    /// Duplicates it allows.
    pub(super) allowed: u64,
    /// Whether an instance that was asked to end ended well.
    pub(super) drained: Option<bool>,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Kill, Self::Zombie, Self::Restart, Self::Broker];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Zombie => "zombie",
            Self::Restart => "restart",
            Self::Broker => "broker",
        }
    }

    /// Does it.
    pub(super) fn befall(self, world: &mut World<'_>, dice: &mut Dice) -> anyhow::Result<Deed> {
        let number = dice.below(world.instances());
        let at = world.elapsed();
        let (allowed, drained) = match self {
            Self::Kill => (kill(world, number, dice)?, None),
            Self::Zombie => (zombie(world, number, dice)?, None),
            Self::Restart => restart(world, number)?,
            Self::Broker => (broker(world)?, None),
        };
        Ok(Deed {
            fault: self,
            instance: (self != Self::Broker).then_some(number),
            at,
            took: world.elapsed().saturating_sub(at),
            allowed,
            drained,
        })
    }
}

/// Allows what the instance had in flight, and what all completed within the
/// commit window before.
fn kill(world: &mut World<'_>, number: usize, dice: &mut Dice) -> anyhow::Result<u64> {
    let (in_flight, before) = (world.load(number).in_flight, world.before_window());
    world.take(number)?.kill()?;
    let allowed = in_flight + world.deliveries()?.saturating_sub(before);
    world.wait(dice.millis(0, 2_000))?;
    world.bring_up(number)?;
    Ok(allowed)
}

/// Allows what a kill at the stop would, what waited in memory, and what all
/// completed within one commit window after it went on: until it hears that
/// others have its partitions, it delivers what they have delivered.
fn zombie(world: &mut World<'_>, number: usize, dice: &mut Dice) -> anyhow::Result<u64> {
    let (load, before) = (world.load(number), world.before_window());
    world.silence(number, "STOP")?;
    let stopped = world.deliveries()?;
    let session = world.scene.setup.shape.session_timeout;
    world.wait(session + dice.millis(2_000, 5_000))?;
    let engine = world.take(number)?;
    let back = world.deliveries()?;
    engine.signal("CONT")?;
    world.put(number, engine);
    world.wait(COMMIT_WINDOW)?;
    let after = world.deliveries()?.saturating_sub(back);
    Ok(load.in_flight + load.queued + stopped.saturating_sub(before) + after)
}

/// Allows nothing, unless the instance failed to drain: then what a kill does.
fn restart(world: &mut World<'_>, number: usize) -> anyhow::Result<(u64, Option<bool>)> {
    world.silence(number, "TERM")?;
    let ended = world.until(STOP_WAIT, "an instance ends", |world| world.ended(number));
    let (in_flight, before) = (world.load(number).in_flight, world.before_window());
    let drained = matches!(ended, Ok(true));
    let engine = world.take(number)?;
    let mut allowed = 0;
    if !drained {
        // It may have ended already, only not well.
        engine.kill()?;
        allowed = in_flight + world.deliveries()?.saturating_sub(before);
    }
    world.bring_up(number)?;
    Ok((allowed, Some(drained)))
}

/// Allows what all had in flight, and what all completed from one commit window
/// before the broker went until one after it came back: nobody could commit.
fn broker(world: &mut World<'_>) -> anyhow::Result<u64> {
    let loads = (0..world.instances()).map(|number| world.load(number).in_flight);
    let (in_flight, before) = (loads.sum::<u64>(), world.before_window());
    let mut restart = world.rig.kafka_broker()?.restart()?;
    let restart = restart.stdout(Stdio::null()).stderr(Stdio::null());
    let mut restart = Process::start("the broker's restart", restart)?;
    world.until(BROKER_WAIT, "the broker is back", |_| restart.ended())?;
    world.wait(COMMIT_WINDOW)?;
    Ok(in_flight + world.deliveries()?.saturating_sub(before))
}
