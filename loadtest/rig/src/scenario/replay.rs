//! Events of a while ago are replayed to one endpoint, and their owner is killed
//! again and again on the way: each comes again, what comes twice is bounded by
//! what was in flight and not yet told, and the source's group has moved no
//! offset.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::kill::watch;
use super::{LAST_WAIT, OWED, Rig, Scene};
use crate::engine::{Engine, LogKind, Shape, patiently};
use crate::feed::Workload;
use crate::sink::Report;

/// All of it goes to one endpoint.
const ALONE: Workload = Workload {
    tenant: "load",
    endpoints: 1,
    stamp: false,
    options: &["--max-in-flight", "64"],
};
const REPLAYS: &str = "/v1/tenants/load/endpoints/e0/replays";
/// Between the events that are replayed and those that came since.
const PAUSE: Duration = Duration::from_secs(2);
/// Events that came since, and are no part of it.
const LATER: u64 = 1_000;

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// At the sink, of the replay alone.
    pub report: Report,
    /// Deliveries the replay made, as it tells itself.
    pub count: u64,
    /// Duplicates that were allowed, all kills together.
    pub allowed: u64,
    /// What the source's group had committed, before and after.
    pub committed: Vec<Option<i64>>,
}

/// Delivers `events`, replays them at `rate` a second, and kills the engine
/// `kills` times meanwhile.
pub fn run(rig: &Rig, events: u64, rate: u64, kills: u32) -> anyhow::Result<Outcome> {
    let scene = rig.scene_of("all", Shape::default(), ALONE)?;
    let engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    let (all, until) = deliver(&scene, &engine, events)?;
    // Committed once a second.
    patiently(LAST_WAIT, "all is committed", || {
        Ok((lag(rig, &scene)? == 0).then_some(()))
    })?;
    let before = committed(rig, &scene)?;
    scene.sink.reset()?;

    let ago = format!("{}ms", until.elapsed().as_millis());
    let asked = json!({ "since": "90m", "until": ago, "rate_per_second": rate });
    let begun: Value = serde_json::from_str(&engine.post(REPLAYS, &asked.to_string())?)?;
    let id = begun["id"].as_str().context("the replay's id")?.to_owned();
    let (engine, allowed) = kill(&scene, engine, events, kills)?;
    let over = patiently(LAST_WAIT, "the replay is over", || {
        let told: Value = serde_json::from_str(&engine.get(&format!("/v1/operations/{id}"))?)?;
        let open = matches!(told["state"].as_str(), Some("pending" | "running"));
        Ok((!open).then_some(told))
    })?;
    // An owner that has not read its lane yet owes nothing either.
    patiently(LAST_WAIT, "each has come again", || {
        let report = scene.sink.report(events)?;
        Ok((report.missing == 0).then_some(()))
    })?;
    patiently(LAST_WAIT, "nothing is owed", || {
        Ok((engine.metric(OWED)? == 0.0).then_some(()))
    })?;
    let report = scene.sink.report(events)?;
    let after = committed(rig, &scene)?;
    engine.stop()?;
    let outcome = Outcome {
        report,
        count: over["progress"]["deliveries"].as_u64().unwrap_or_default(),
        allowed,
        committed: after,
    };
    ensure!(over["state"] == "succeeded", "{over}");
    ensure!(outcome.count == events, "counted wrong: {outcome:?}");
    ensure!(report.missing == 0, "lost: {outcome:?}");
    ensure!(
        report.unique == events,
        "others came, too ({all} in all): {outcome:?}"
    );
    ensure!(report.bad_signatures == 0, "signed wrong: {outcome:?}");
    ensure!(
        report.duplicates <= allowed,
        "more duplicates than in flight and not told: {outcome:?}"
    );
    ensure!(
        outcome.committed == before,
        "the source's group moved from {before:?}: {outcome:?}"
    );
    Ok(outcome)
}

/// Kills the engine each time a further part of the replay has come; answers the
/// last one, and how many duplicates are allowed.
fn kill(
    scene: &Scene,
    mut engine: Engine,
    events: u64,
    kills: u32,
) -> anyhow::Result<(Engine, u64)> {
    let mut allowed = 0;
    for number in 1..=kills {
        let part = events * u64::from(number) / u64::from(kills + 1);
        patiently(LAST_WAIT, "a part of it has come", || {
            let unique = scene.sink.report(events)?.unique;
            Ok((unique >= part).then_some(()))
        })?;
        let watched = watch(&engine, &scene.sink, events, Duration::from_millis(700))?;
        engine.kill()?;
        let after = scene.sink.report(events)?;
        ensure!(
            after.missing > 0,
            "all came before it was killed: lower the rate"
        );
        allowed += watched.in_flight + after.deliveries.saturating_sub(watched.before_window);
        eprintln!("kill {number} of {kills}: {} at the sink", after.deliveries);
        engine = scene.setup.start()?;
    }
    Ok((engine, allowed))
}

/// Delivers what is replayed, and some that came since; answers how many, and
/// when the former had come.
fn deliver(scene: &Scene, engine: &Engine, events: u64) -> anyhow::Result<(u64, Instant)> {
    scene.feed.fill(&scene.setup, 0, events, 0)?.finish()?;
    std::thread::sleep(PAUSE);
    let until = Instant::now();
    std::thread::sleep(PAUSE);
    scene.feed.fill(&scene.setup, events, LATER, 0)?.finish()?;
    let all = events + LATER;
    scene.sink.wait_for(all, 0, LAST_WAIT)?;
    patiently(LAST_WAIT, "nothing is owed", || {
        Ok((engine.metric(OWED)? == 0.0).then_some(()))
    })?;
    Ok((all, until))
}

fn lag(rig: &Rig, scene: &Scene) -> anyhow::Result<i64> {
    let LogKind::Kafka(_) = scene.setup.log else {
        return Ok(0);
    };
    let setup = &scene.setup;
    let group = format!("{}.ingest", setup.prefix);
    let partitions = setup.shape.source_partitions;
    Ok(rig.kafka_broker()?.lag(&group, &setup.topic, partitions)?.0)
}

/// What the source's group has committed; nothing on the embedded log.
fn committed(rig: &Rig, scene: &Scene) -> anyhow::Result<Vec<Option<i64>>> {
    let LogKind::Kafka(_) = scene.setup.log else {
        return Ok(Vec::new());
    };
    let setup = &scene.setup;
    let group = format!("{}.ingest", setup.prefix);
    let partitions = setup.shape.source_partitions;
    rig.kafka_broker()?
        .committed(&group, &setup.topic, partitions)
}
