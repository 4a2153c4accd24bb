//! One endpoint of twenty is down while very many events for it are fed; then it
//! is mended. What was held comes at the pace of its own limit, and the others
//! hardly notice.
//!
//! The others are another tenant's, and have a sink of their own: each side is
//! one workload, which a sink can judge.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{OWED, Rig, Scene, registered};
use crate::engine::{Engine, Shape, patiently};
use crate::feed::{Feed, Workload};
use crate::sink::{Latency, Sink};

/// The endpoint that is down, alone in its tenant.
const DOWN: Workload = Workload {
    tenant: "down",
    endpoints: 1,
    stamp: false,
    // The most the window grows to, so that its limit is what bounds it.
    options: &["--max-in-flight", "64", "--retry-policy", "rig"],
};
/// The few that are attempted while it is down come again soon after, not by a
/// schedule of hours; and so many may fail that none is given up meanwhile.
const GAPS: &[u64] = &[10; 30];
const IN_FLIGHT: f64 = 64.0;
/// The others.
const LIVE: Workload = Workload {
    tenant: "live",
    endpoints: 19,
    stamp: true,
    options: &[],
};
/// How long the mended endpoint takes for a delivery: with its attempts in
/// flight, 3,200 a second.
const ANSWER_MS: u64 = 20;
const ANSWER: &str = "delay:20";
/// How long the others are watched while nothing else happens.
const LIVE_SPAN: Duration = Duration::from_secs(10);
/// Events flow once they take no longer than this.
const FLOWS_MS: u64 = 100;
/// Longest time without any progress.
const STALL_WAIT: Duration = Duration::from_secs(180);
/// Deliveries that waited for their endpoint, where the engine tells.
const HELD: &str = "posthaste_owner_held_deliveries";

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// Events for the endpoint that is down.
    pub held: u64,
    /// … of which so many a second are sent; 0 for no limit.
    pub held_rate: u64,
    /// Events a second for all others together.
    pub live_rate: u64,
}

/// What was measured, phase by phase.
#[derive(Default)]
struct Measured {
    alone: Latency,
    filling: Latency,
    holding: Latency,
    draining: Latency,
    rss_before: u64,
    rss_held: u64,
    rss_drained: u64,
    owed: u64,
    held: Option<u64>,
    drain: Drain,
}

/// How the backlog came.
#[derive(Debug, Default, Clone, Copy)]
struct Drain {
    /// From the mending to the first delivery.
    noticed: Duration,
    /// From the mending to the last.
    whole: Duration,
    /// Deliveries a second from one tenth of all to nine tenths.
    rate: f64,
}

/// Breaks one endpoint, feeds it, mends it; answers what was measured.
pub fn run(rig: &Rig, recovery: Recovery) -> anyhow::Result<Value> {
    let shape = Shape {
        retry_gaps: GAPS,
        ..Shape::default()
    };
    let scene = rig.scene_of("1/100", shape, LIVE)?;
    let down = Sink::start(&rig.programs, "1/100", &DOWN)?;
    let down_feed = Feed::new(&rig.programs, DOWN);
    let engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    down_feed.register(&scene.setup, down.at)?;
    let engines = [engine];
    registered(&engines, LIVE.endpoints + DOWN.endpoints)?;
    let [engine] = engines;
    let live = scene.feed.flow(&scene.setup, recovery.live_rate)?;
    let measured = phases(&scene, &engine, &down, &down_feed, recovery)?;
    let sent = live.end().context("live events")?.events;
    let others = scene.sink.wait_for(sent, 0, STALL_WAIT)?;
    engine.stop()?;
    let held = down.report(recovery.held)?;
    let report = told(
        recovery,
        &measured,
        sent,
        held.duplicates + others.duplicates,
    );
    ensure!(
        held.missing == 0,
        "lost at the one that was down: {held:?} {report}"
    );
    let bad = held.bad_signatures + others.bad_signatures;
    ensure!(bad == 0, "{bad} signed wrong: {report}");
    Ok(report)
}

fn phases(
    scene: &Scene,
    engine: &Engine,
    down: &Sink,
    down_feed: &Feed,
    recovery: Recovery,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    // The first connections are not what is measured.
    patiently(STALL_WAIT, "live events flow", || {
        std::thread::sleep(Duration::from_secs(1));
        let latency = scene.sink.take_latency()?;
        Ok((latency.count > 0 && latency.max_ms <= FLOWS_MS).then_some(()))
    })?;
    std::thread::sleep(LIVE_SPAN);
    measured.alone = scene.sink.take_latency()?;
    measured.rss_before = engine.rss_bytes()?;
    say("the others alone", measured.alone);

    down.behave("/e/0", "status:503")?;
    let filling = down_feed.fill(&scene.setup, 0, recovery.held, recovery.held_rate)?;
    filling.finish()?;
    let owed = wait_until_owed(engine, recovery.held)?;
    measured.filling = scene.sink.take_latency()?;
    say("while it filled up", measured.filling);

    std::thread::sleep(LIVE_SPAN);
    measured.holding = scene.sink.take_latency()?;
    measured.rss_held = engine.rss_bytes()?;
    measured.owed = owed;
    let held = engine.metrics()?.sum(HELD);
    measured.held = held.map(crate::engine::whole);
    say("while it was held", measured.holding);

    down.behave("/e/0", ANSWER)?;
    measured.drain = drain(down, recovery.held)?;
    measured.draining = scene.sink.take_latency()?;
    say("while it drained", measured.draining);

    patiently(STALL_WAIT, "nothing is owed to it any more", || {
        let owed = engine.metric(OWED)?;
        Ok((owed == 0.0).then_some(()))
    })?;
    measured.rss_drained = engine.rss_bytes()?;
    Ok(measured)
}

fn say(when: &str, latency: Latency) {
    eprintln!(
        "{when}: {} live deliveries, p50 {} ms, p99 {} ms, most {} ms",
        latency.count, latency.p50_ms, latency.p99_ms, latency.max_ms
    );
}

/// Waits until the lane owes all, as long as it owes more and more.
fn wait_until_owed(engine: &Engine, wanted: u64) -> anyhow::Result<u64> {
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let owed = engine.metrics()?.count(OWED);
        if owed >= wanted {
            return Ok(owed);
        }
        if owed > most {
            (most, since) = (owed, Instant::now());
        }
        if since.elapsed() > STALL_WAIT {
            bail!("the lane owes {owed} of {wanted} and no more");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until the sink has all, as long as more and more come.
fn drain(down: &Sink, wanted: u64) -> anyhow::Result<Drain> {
    let start = Instant::now();
    let mut drain = Drain::default();
    let (mut most, mut since) = (0, start);
    let mut tenth = None;
    loop {
        let unique = down.report(wanted)?.unique;
        let now = Instant::now();
        if unique > most {
            if most == 0 {
                drain.noticed = now - start;
            }
            (most, since) = (unique, now);
        }
        if unique >= wanted / 10 {
            tenth.get_or_insert((now, unique));
        }
        if let Some((from, at_tenth)) = tenth
            && drain.rate == 0.0
            && unique >= wanted / 10 * 9
        {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let count = (unique - at_tenth) as f64;
            drain.rate = count / (now - from).as_secs_f64();
        }
        if unique >= wanted {
            drain.whole = now - start;
            eprintln!();
            return Ok(drain);
        }
        if since.elapsed() > STALL_WAIT {
            bail!("{unique} of {wanted} came and no more");
        }
        eprint!("\r{unique} of {wanted} came   ");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn told(recovery: Recovery, measured: &Measured, live: u64, duplicates: u64) -> Value {
    let latency = |one: Latency| {
        json!({
            "deliveries": one.count, "p50_ms": one.p50_ms, "p99_ms": one.p99_ms, "max_ms": one.max_ms
        })
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let limit = IN_FLIGHT * 1_000.0 / ANSWER_MS as f64;
    let drain = measured.drain;
    json!({
        "held_events": recovery.held,
        "live_events": live,
        "owed_in_lane": measured.owed,
        "held_by_engine": measured.held,
        "duplicates": duplicates,
        "drain": {
            "noticed_after_seconds": drain.noticed.as_secs_f64(),
            "whole_seconds": drain.whole.as_secs_f64(),
            "rate": drain.rate.round(),
            "limit": limit,
            "rate_over_limit": (drain.rate / limit * 100.0).round() / 100.0,
        },
        "live_latency": {
            "alone": latency(measured.alone),
            "filling": latency(measured.filling),
            "holding": latency(measured.holding),
            "draining": latency(measured.draining),
        },
        "rss_bytes": {
            "before": measured.rss_before,
            "held": measured.rss_held,
            "drained": measured.rss_drained,
        },
    })
}
