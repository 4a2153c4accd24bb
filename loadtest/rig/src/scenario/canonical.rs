//! The canonical workload: 1 KiB events for 100 endpoints, fan-out 1, from a
//! real Kafka to the sink; beside it `wrk`, which POSTs a fixed 1 KiB to the same
//! sink as fast as it can. In turn, so that both meet the same machine.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{LAST_WAIT, Rig, Scene};
use crate::engine::Engine;

/// Connections of `wrk`.
const WRK_CONNECTIONS: &str = "64";

/// One side of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Deliveries or POSTs a second.
    pub rate: f64,
    /// CPU microseconds of the sender for each.
    pub sender_us: f64,
    /// CPU microseconds of the sink for each.
    pub sink_us: f64,
}

/// The engine and `wrk`, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The engine.
    pub engine: Side,
    /// The yardstick.
    pub wrk: Side,
}

impl Pair {
    /// The engine's deliveries a second over `wrk`'s POSTs a second.
    pub fn rate_ratio(&self) -> f64 {
        self.engine.rate / self.wrk.rate
    }

    /// CPU of a delivery over CPU of a POST, senders alone.
    pub fn cpu_ratio(&self) -> f64 {
        self.engine.sender_us / self.wrk.sender_us
    }

    /// `wrk`'s CPU over the engine's, sink included: the rate ratio two cores of
    /// one's own would show.
    pub fn total_ratio(&self) -> f64 {
        (self.wrk.sender_us + self.wrk.sink_us) / (self.engine.sender_us + self.engine.sink_us)
    }
}

/// Runs pairs and tells of each.
pub fn run(rig: &Rig, events: u64, pairs: u32) -> anyhow::Result<Vec<Pair>> {
    let scene = rig.scene("none")?;
    let engine = scene.setup.start()?;
    scene.feed.register(&scene.setup, scene.sink.at)?;
    engine.stop()?;
    let mut done = Vec::new();
    for number in 0..u64::from(pairs) {
        let wrk = wrk(&scene)?;
        scene.sink.reset()?;
        scene
            .feed
            .fill(&scene.setup, number * events, events, 0)?
            .finish()?;
        let engine = scene.setup.start()?;
        let measured = engine_side(&scene, &engine, events);
        engine.stop()?;
        let pair = Pair {
            engine: measured?,
            wrk,
        };
        tell(number + 1, &pair);
        done.push(pair);
    }
    Ok(done)
}

/// Tells the middle of all pairs.
pub fn conclude(pairs: &[Pair]) {
    let of = |ratio: fn(&Pair) -> f64| median(&pairs.iter().map(ratio).collect::<Vec<_>>());
    println!(
        "median of {}: rate {:.2} of wrk's, sender CPU {:.2} of wrk's, total CPU ratio {:.2}",
        pairs.len(),
        of(Pair::rate_ratio),
        of(Pair::cpu_ratio),
        of(Pair::total_ratio)
    );
}

fn tell(number: u64, pair: &Pair) {
    for (name, side) in [("wrk", pair.wrk), ("engine", pair.engine)] {
        println!(
            "pair {number} {name:>6}: {:>7.0}/s, {:>5.1} us sender, {:>5.1} us sink",
            side.rate, side.sender_us, side.sink_us
        );
    }
    println!(
        "pair {number}  ratio: rate {:.2}, sender CPU {:.2}, total CPU {:.2}",
        pair.rate_ratio(),
        pair.cpu_ratio(),
        pair.total_ratio()
    );
}

/// From one tenth of the events to nine tenths: neither start nor end.
fn engine_side(scene: &Scene, engine: &Engine, events: u64) -> anyhow::Result<Side> {
    let from = look(scene, engine, events, events / 10)?;
    let to = look(scene, engine, events, events / 10 * 9)?;
    scene.sink.wait_for(events, u64::MAX, LAST_WAIT)?;
    wait_for(scene, events, events)?;
    let count = to.deliveries - from.deliveries;
    Ok(Side {
        rate: count / (to.at - from.at).as_secs_f64(),
        sender_us: (to.engine_cpu - from.engine_cpu) * 1e6 / count,
        sink_us: (to.sink_cpu - from.sink_cpu) * 1e6 / count,
    })
}

struct Look {
    at: Instant,
    deliveries: f64,
    engine_cpu: f64,
    sink_cpu: f64,
}

fn look(scene: &Scene, engine: &Engine, events: u64, least: u64) -> anyhow::Result<Look> {
    let deliveries = wait_for(scene, events, least)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let deliveries = deliveries as f64;
    Ok(Look {
        at: Instant::now(),
        deliveries,
        engine_cpu: engine.cpu_seconds()?,
        sink_cpu: scene.sink.cpu_seconds()?,
    })
}

fn wait_for(scene: &Scene, events: u64, least: u64) -> anyhow::Result<u64> {
    let until = Instant::now() + LAST_WAIT;
    loop {
        let deliveries = scene.sink.report(events)?.deliveries;
        if deliveries >= least {
            return Ok(deliveries);
        }
        if Instant::now() >= until {
            bail!("{deliveries} of {least} deliveries within {LAST_WAIT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wrk(scene: &Scene) -> anyhow::Result<Side> {
    let script = scene.setup.dir().join("post.lua");
    let body = "x".repeat(1_024);
    std::fs::write(
        &script,
        format!(
            "wrk.method = \"POST\"\nwrk.body = \"{body}\"\n\
             wrk.headers[\"Content-Type\"] = \"application/json\"\n\
             wrk.headers[\"webhook-id\"] = \"wrk\"\n"
        ),
    )?;
    let url = format!("http://{}/wrk", scene.sink.at);
    let sink_before = scene.sink.cpu_seconds()?;
    // The shell's `time` knows what its child used.
    let ran = Command::new("bash")
        .args([
            "-c",
            "TIMEFORMAT='cpu %U %S'; time wrk -t2 -c\"$0\" -d4s -s \"$1\" \"$2\"",
        ])
        .arg(WRK_CONNECTIONS)
        .arg(&script)
        .arg(&url)
        .output()
        .context("cannot run wrk")?;
    let sink_cpu = scene.sink.cpu_seconds()? - sink_before;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let cpu = String::from_utf8_lossy(&ran.stderr).into_owned();
    let field = |text: &str, line: &str, place: usize| {
        let found = text.lines().find(|l| l.trim_start().starts_with(line))?;
        found.split_whitespace().nth(place)?.parse::<f64>().ok()
    };
    let rate = field(&said, "Requests/sec:", 1);
    let count = said.lines().find_map(|line| {
        let (count, rest) = line.trim().split_once(" requests in ")?;
        rest.contains("read").then(|| count.parse::<f64>().ok())?
    });
    let used = field(&cpu, "cpu", 1).zip(field(&cpu, "cpu", 2));
    let (Some(rate), Some(count), Some((user, system))) = (rate, count, used) else {
        bail!("wrk said: {said} {cpu} (is it installed? apt-get install wrk)");
    };
    Ok(Side {
        rate,
        sender_us: (user + system) * 1e6 / count,
        sink_us: sink_cpu * 1e6 / count,
    })
}

/// The middle of some values.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
