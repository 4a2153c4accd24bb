//! Nothing fails: every event is delivered once, signed right, and committed.

use anyhow::{Context as _, ensure};

use super::{LAST_WAIT, Rig};
use crate::engine::{PARTITIONS, patiently};
use crate::sink::Report;

/// Sends so many events through.
pub fn run(rig: &Rig, events: u64) -> anyhow::Result<Report> {
    let scene = rig.scene("all")?;
    let engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    scene.feed.fill(&scene.setup, 0, events, 0)?.finish()?;
    let report = scene.sink.wait_for(events, 0, LAST_WAIT)?;
    engine.stop().context("a clean stop")?;
    let report = Report {
        ..scene.sink.report(events).unwrap_or(report)
    };
    ensure!(
        report.deliveries == events,
        "{report:?}: duplicates though nothing failed"
    );
    ensure!(
        report.verified == events,
        "{report:?}: signatures not verified"
    );
    if let Some(broker) = &rig.broker {
        let group = format!("{}.ingest", scene.setup.prefix);
        let topic = &scene.setup.topic;
        let held = patiently(LAST_WAIT, "everything committed", || {
            let (lag, held) = broker.lag(&group, topic, PARTITIONS)?;
            Ok((lag == 0).then_some(held))
        })?;
        ensure!(
            held == i64::try_from(events)?,
            "the topic holds {held} of {events}"
        );
    }
    Ok(report)
}
