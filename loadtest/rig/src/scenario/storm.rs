//! Several engines on one Kafka, a tenth of the endpoints sick in changing ways,
//! and all the while engines are killed, stopped past their session, drained and
//! restarted, and the broker with them. In the end everybody is well again:
//! nothing is owed, nothing is missing, and what came twice is bounded.
//!
//! The bound is the sum over all deeds, each as `kill` computes it (`faults`
//! says how each differs). A restart that drained allows nothing.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::faults::{Deed, Fault};
use self::script::{ENDPOINTS, GONE, Script, path};
use self::world::World;
use super::{LAST_WAIT, OWED, Rig, Scene, registered, settled};
use crate::dice::Dice;
use crate::engine::Shape;
use crate::feed::Workload;
use crate::sink::{PathReport, Report};

mod faults;
mod script;
mod world;

/// Gaps of the retry policy, in seconds: more than three minutes in all, longer
/// than an endpoint is sick without a break.
const GAPS: &[u64] = &[
    1, 1, 2, 2, 3, 3, 5, 5, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
];
/// Longest time until an endpoint that is gone is disabled.
const GONE_WAIT: Duration = Duration::from_secs(60);
/// Nothing owed must be seen so long, since engines count once a second.
const QUIET: Duration = Duration::from_secs(3);

/// How hard it blows.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Events.
    pub events: u64,
    /// Events a second.
    pub rate: u64,
    /// Decides what befalls whom, and when.
    pub seed: u64,
}

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// Everything, for a machine to read.
    pub report: Value,
    /// Each promise that was not kept; none is what is wanted.
    pub broken: Vec<String>,
}

/// Lets it blow until all events are sent and every fault has befallen once.
pub fn run(rig: &Rig, storm: Storm) -> anyhow::Result<Outcome> {
    let shape = Shape {
        instances: 3,
        source_partitions: 12,
        lane_partitions: 64,
        is_static: false,
        retry_gaps: GAPS,
        ..Shape::default()
    };
    let workload = Workload {
        endpoints: ENDPOINTS,
        options: &["--retry-policy", "rig", "--timeout", "5s"],
        ..Workload::default()
    };
    // Refused now rather than in the middle.
    rig.kafka_broker()?.restart()?;
    let mut scene = rig.scene_of("all", shape, workload)?;
    let outcome = blow(rig, &scene, storm);
    let failed = !outcome
        .as_ref()
        .is_ok_and(|outcome| outcome.broken.is_empty());
    if failed {
        eprintln!("the engines' logs are in {}", scene.setup.keep().display());
    }
    outcome
}

fn blow(rig: &Rig, scene: &Scene, storm: Storm) -> anyhow::Result<Outcome> {
    let engines = scene.setup.start_all()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    registered(&engines, ENDPOINTS)?;
    settled(rig, &scene.setup)?;
    let mut dice = Dice::new(storm.seed);
    let script = Script::begin(&scene.sink, Dice::new(storm.seed.wrapping_add(1)))?;
    let mut world = World::new(rig, scene, engines, script);
    let mut filling = scene.feed.fill(&scene.setup, 0, storm.events, storm.rate)?;
    let mut deeds = Vec::new();
    let mut turn = Vec::new();
    while filling.runs()? || deeds.len() < Fault::ALL.len() {
        world.wait(dice.millis(1_500, 4_000))?;
        let fault = next_fault(&mut turn, &mut dice);
        let deed = fault.befall(&mut world, &mut dice);
        let deed = deed.with_context(|| format!("a {} befell", fault.name()))?;
        tell(&deed);
        deeds.push(deed);
    }
    filling.finish()?;
    world.heal()?;
    let blew = world.elapsed();
    let status = gone_status(&mut world)?;
    // What it was owed when it was disabled stays owed until then.
    world.delete(&gone())?;
    let owed = wait_until_quiet(&mut world)?;
    let stopped = world.stop();
    let seen = Seen {
        deeds,
        blew,
        whole: world.elapsed(),
        owed,
        status,
        ended_badly: stopped.err().map(|error| format!("{error:#}")),
    };
    judge(scene, storm, &seen)
}

/// What was seen besides the sink's report.
struct Seen {
    deeds: Vec<Deed>,
    blew: Duration,
    whole: Duration,
    owed: Owed,
    status: String,
    ended_badly: Option<String>,
}

/// What the engines still have to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owed {
    /// Source records not committed.
    lag: u64,
    /// Deliveries in the lane that are not settled.
    lane: u64,
}

/// The next of a shuffled round of all faults.
fn next_fault(turn: &mut Vec<Fault>, dice: &mut Dice) -> Fault {
    if turn.is_empty() {
        turn.extend(Fault::ALL);
        dice.shuffle(turn);
    }
    turn.pop().unwrap_or(Fault::Kill)
}

fn tell(deed: &Deed) {
    let whom = deed
        .instance
        .map_or("all".to_owned(), |n| format!("instance {n}"));
    let drained = match deed.drained {
        Some(false) => ", it failed to drain",
        Some(true) | None => "",
    };
    eprintln!(
        "\r{:>5} s  {:<8} {whom:<12} {:>5.1} s, {} duplicates allowed{drained}",
        deed.at.as_secs(),
        deed.fault.name(),
        deed.took.as_secs_f64(),
        deed.allowed,
    );
}

/// Waits until nothing is owed for a while, or time is up.
fn wait_until_quiet(world: &mut World<'_>) -> anyhow::Result<Owed> {
    let until = Instant::now() + LAST_WAIT;
    let mut quiet_since = None;
    loop {
        world.wait(Duration::from_secs(1))?;
        let setup = &world.scene.setup;
        let group = format!("{}.ingest", setup.prefix);
        let partitions = setup.shape.source_partitions;
        let broker = world.rig.kafka_broker()?;
        let (lag, _) = broker.lag(&group, &setup.topic, partitions)?;
        let owed = Owed {
            lag: u64::try_from(lag)?,
            lane: world.sum(OWED)?,
        };
        let now = Instant::now();
        if owed != Owed::default() {
            quiet_since = None;
            if now >= until {
                return Ok(owed);
            }
            eprint!(
                "  {} source records, {} in the lane to go    ",
                owed.lag, owed.lane
            );
            continue;
        }
        if now - *quiet_since.get_or_insert(now) >= QUIET {
            eprintln!();
            return Ok(owed);
        }
    }
}

/// The endpoint that answers 410.
fn gone() -> String {
    format!("/v1/tenants/load/endpoints/e{GONE}")
}

/// How it stands once its last attempts have ended.
fn gone_status(world: &mut World<'_>) -> anyhow::Result<String> {
    let until = Instant::now() + GONE_WAIT;
    loop {
        let shown: Value = serde_json::from_str(&world.get(&gone())?)?;
        let status = shown["status"].as_str().unwrap_or_default();
        if status == "disabled" || Instant::now() >= until {
            return Ok(status.to_owned());
        }
        world.wait(Duration::from_secs(1))?;
    }
}

fn judge(scene: &Scene, storm: Storm, seen: &Seen) -> anyhow::Result<Outcome> {
    let received = scene.sink.report(storm.events)?;
    let paths = scene.sink.paths(storm.events)?;
    let gone = paths.iter().find(|one| one.path == path(GONE));
    let gone = gone.context("the endpoint that is gone was never asked")?;
    let most = most_attempts(&paths).context("no path was asked")?;
    // It took nothing, so all that was for it is missing.
    let for_gone = (storm.events + ENDPOINTS - 1 - GONE) / ENDPOINTS;
    let missing = received.missing.saturating_sub(for_gone - gone.unique);
    let missing_at = paths.iter().filter(|one| one.missing > 0);
    let missing_at = missing_at.map(|one| (one.path.clone(), one.missing.into()));
    let mut report = json!({
        "events": storm.events,
        "rate": storm.rate,
        "seed": storm.seed,
        "storm_seconds": seen.blew.as_secs(),
        "whole_seconds": seen.whole.as_secs(),
        "faults": Fault::ALL.map(|fault| row(fault, &seen.deeds)),
        "deliveries": received.deliveries,
        "missing": missing,
        "missing_at": Value::Object(missing_at.collect()),
        "duplicates": received.duplicates,
        "duplicates_allowed": seen.allowed(),
        "signatures_verified": received.verified,
        "signatures_failed": received.bad_signatures,
        "owed": { "source_records": seen.owed.lag, "lane_deliveries": seen.owed.lane },
        "most_attempts": {
            "path": most.path, "attempts": most.attempts(), "deliveries": most.unique
        },
        "gone": { "path": gone.path, "status": seen.status, "asked": gone.refused },
    });
    let broken = seen.broken(&received, missing, most);
    report["broken"] = json!(broken);
    Ok(Outcome { report, broken })
}

impl Seen {
    fn allowed(&self) -> u64 {
        self.deeds.iter().map(|deed| deed.allowed).sum()
    }

    /// The promises that were not kept.
    fn broken(&self, received: &Report, missing: u64, most: &PathReport) -> Vec<String> {
        let (allowed, twice) = (self.allowed(), received.duplicates);
        let bad = received.bad_signatures;
        let (attempts, of, at) = (most.attempts(), most.unique, &most.path);
        let each = u64::try_from(GAPS.len()).unwrap_or(u64::MAX) + 1;
        let status = &self.status;
        let mut broken = Vec::new();
        let mut promise = |kept: bool, said: String| {
            if !kept {
                broken.push(said);
            }
        };
        let owed = self.owed;
        let said = format!("still owed after {LAST_WAIT:?}: {owed:?}");
        promise(owed == Owed::default(), said);
        promise(missing == 0, format!("{missing} deliveries are missing"));
        promise(bad == 0, format!("{bad} signatures are wrong"));
        let said = format!("{twice} came twice, {allowed} are allowed");
        promise(twice <= allowed, said);
        // The sink counts by path, not by event: all of a path together. An
        // attempt that a deed left without a record is made again.
        let said = format!("{attempts} attempts of {of} deliveries at {at}, the policy has {each}");
        promise(attempts <= each * of + allowed, said);
        let said = format!("the endpoint that answers 410 is {status}");
        promise(status == "disabled", said);
        let stuck = self.deeds.iter().filter(|deed| deed.drained == Some(false));
        let stuck = stuck.count();
        promise(
            stuck == 0,
            format!("{stuck} instances did not drain in time"),
        );
        if let Some(error) = &self.ended_badly {
            promise(false, format!("an instance did not end well: {error}"));
        }
        broken
    }
}

/// One kind of fault in the table.
fn row(fault: Fault, deeds: &[Deed]) -> Value {
    let of_kind = || deeds.iter().filter(|deed| deed.fault == fault);
    let undrained = of_kind().filter(|deed| deed.drained == Some(false));
    json!({
        "fault": fault.name(),
        "times": of_kind().count(),
        "seconds": of_kind().map(|deed| deed.took.as_secs_f64().round()).sum::<f64>(),
        "duplicates_allowed": of_kind().map(|deed| deed.allowed).sum::<u64>(),
        "failed_to_drain": undrained.count(),
    })
}

/// The path that was asked most often.
fn most_attempts(paths: &[PathReport]) -> Option<&PathReport> {
    let taking = paths.iter().filter(|one| one.path != path(GONE));
    taking.max_by_key(|one| one.attempts())
}

impl PathReport {
    fn attempts(&self) -> u64 {
        self.deliveries + self.refused
    }
}

impl Outcome {
    /// The faults, as a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<10}{:>7}{:>9}{:>22}{:>18}\n",
            "fault", "times", "seconds", "duplicates allowed", "failed to drain"
        );
        let rows = self.report["faults"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        for row in rows {
            let fault = row["fault"].as_str().unwrap_or_default();
            let _ = writeln!(
                text,
                "{fault:<10}{:>7}{:>9}{:>22}{:>18}",
                row["times"].to_string(),
                row["seconds"].to_string(),
                row["duplicates_allowed"].to_string(),
                row["failed_to_drain"].to_string()
            );
        }
        text
    }

    /// Fails with every promise that was not kept.
    pub fn ensure_kept(&self) -> anyhow::Result<()> {
        ensure!(self.broken.is_empty(), "{}", self.broken.join("; "));
        Ok(())
    }
}
