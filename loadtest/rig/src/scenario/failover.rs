//! An instance is killed while deliveries it owns wait for their retry: how
//! long until another one makes it.
//!
//! Every endpoint answers its first delivery 503 and then 200. Both instances
//! own some of the retries. One is killed before any is due; the survivor makes
//! its own when they are due, which is before the group can notice the death.
//! The first delivery beyond those is the first retry of what it took over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{LAST_WAIT, OWED, Rig, Scene, registered, settled};
use crate::engine::{Engine, Shape, patiently, whole};
use crate::feed::Workload;

/// One event each.
const ENDPOINTS: u64 = 200;
/// Time after which a silent instance loses its partitions.
const SESSION: Duration = Duration::from_secs(6);
/// What a takeover may take beyond that: the group's rebalance, reading the
/// partitions, and the retry.
const BEYOND: Duration = Duration::from_secs(2);
/// The first gap, with its jitter, ends before a session can: heartbeats come
/// each fifth of it, so a death is noticed after 4.8 s at the earliest.
const GAPS: &[u64] = &[4, 4, 4, 4, 4, 4];
/// Time to write all retries to the lane and to count them there.
const OWED_WAIT: Duration = Duration::from_millis(3_500);

/// What one kill came to.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Deliveries the killed instance owned.
    pub orphaned: u64,
    /// From the kill to the first of them at the sink.
    pub first: Duration,
    /// … and to the last.
    pub last: Duration,
}

impl Round {
    /// What the first retry may take.
    pub const ALLOWED: Duration = SESSION.saturating_add(BEYOND);
}

/// Kills the owner of deliveries that wait, in a fresh world each time.
pub fn run(rig: &Rig, rounds: u32) -> anyhow::Result<Vec<Round>> {
    let mut done = Vec::new();
    for number in 0..rounds {
        let round = kill_owner(rig, number)?;
        eprintln!(
            "round {}: {} orphaned, first retry {:.2} s after the kill, last {:.2} s; allowed {:.0} s",
            number + 1,
            round.orphaned,
            round.first.as_secs_f64(),
            round.last.as_secs_f64(),
            Round::ALLOWED.as_secs_f64(),
        );
        done.push(round);
    }
    let slow = done.iter().find(|round| round.first > Round::ALLOWED);
    ensure!(slow.is_none(), "a takeover took too long: {done:?}");
    Ok(done)
}

fn kill_owner(rig: &Rig, number: u32) -> anyhow::Result<Round> {
    let shape = Shape {
        instances: 2,
        source_partitions: 12,
        lane_partitions: 64,
        session_timeout: SESSION,
        is_static: false,
        retry_gaps: GAPS,
    };
    let workload = Workload {
        endpoints: ENDPOINTS,
        options: &["--retry-policy", "rig"],
        ..Workload::default()
    };
    let scene = rig.scene_of("all", shape, workload)?;
    let mut engines = scene.setup.start_all()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    registered(&engines, ENDPOINTS)?;
    settled(rig, &scene.setup)?;
    for endpoint in 0..ENDPOINTS {
        let once = "status:503&for=1";
        scene.sink.behave(&format!("/e/{endpoint}"), once)?;
    }
    scene.feed.fill(&scene.setup, 0, ENDPOINTS, 0)?.finish()?;
    let owed = patiently(OWED_WAIT, "every delivery waits in the lane", || {
        let owed = owed_by(&engines)?;
        Ok((owed.iter().sum::<u64>() == ENDPOINTS).then_some(owed))
    })?;
    let victim = usize::try_from(number)? % engines.len();
    let orphaned = owed[victim];
    ensure!(orphaned > 0, "the victim owns nothing: {owed:?}");
    let killed = Instant::now();
    engines.remove(victim).kill()?;
    ensure!(
        scene.sink.deliveries()? == 0,
        "a retry came before the kill: this machine is too slow to say anything"
    );
    let (first, last) = watch(&scene, ENDPOINTS - orphaned, killed)?;
    let report = scene.sink.report(ENDPOINTS)?;
    ensure!(report.missing == 0, "lost: {report:?}");
    ensure!(report.bad_signatures == 0, "signed wrong: {report:?}");
    Ok(Round {
        orphaned,
        first,
        last,
    })
}

fn owed_by(engines: &[Engine]) -> anyhow::Result<Vec<u64>> {
    let owed = engines.iter().map(|engine| engine.metric(OWED).map(whole));
    owed.collect()
}

/// When the first delivery beyond the survivor's `own` comes, and the last.
fn watch(scene: &Scene, own: u64, killed: Instant) -> anyhow::Result<(Duration, Duration)> {
    let reach = |count: u64| {
        let until = killed + LAST_WAIT;
        loop {
            let unique = scene.sink.report(ENDPOINTS)?.unique;
            if unique >= count {
                return Ok(killed.elapsed());
            }
            ensure!(Instant::now() < until, "{unique} of {count} delivered");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let first = reach(own + 1).context("no retry of the orphans by the survivor")?;
    let last = reach(ENDPOINTS).context("not all retries by the survivor")?;
    Ok((first, last))
}
