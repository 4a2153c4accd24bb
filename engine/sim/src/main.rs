//! `posthaste-sim`: runs seeds, compares runs, makes failing plans smaller, runs
//! scenarios.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use posthaste_sim::checker::Violation;
use posthaste_sim::minimise::minimise;
use posthaste_sim::plan::Plan;
use posthaste_sim::seen::{self, Counts};
use posthaste_sim::world::{Verdict, run};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  posthaste-sim run --seeds 0..500
  posthaste-sim run --deliveries 1000000        as many seeds as that takes
  posthaste-sim meta --seeds 0..20              each seed twice, the traces compared
  posthaste-sim minimise 4711                   the smallest plan that breaks the same rule
  posthaste-sim scenario engine/sim/scenarios/outage.toml

Exit codes: 0 all rules hold and every situation was reached; 1 not so; 2 wrong usage.";

/// Simulates Posthaste's core: seeds give worlds, worlds give verdicts.
#[derive(Debug, Parser)]
#[command(name = "posthaste-sim", version, after_help = EXAMPLES)]
struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Deliveries of one world, about.
    #[arg(long, global = true, default_value_t = 2_000, value_name = "N")]
    world: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds; stop at the first rule that is broken.
    Run {
        /// The seeds.
        #[arg(long, default_value = "0..1000000", value_parser = seeds, value_name = "A..B")]
        seeds: std::ops::Range<u64>,
        /// Stop once so many deliveries were simulated.
        #[arg(long, value_name = "N")]
        deliveries: Option<u64>,
        /// Do not fail for situations that were never reached.
        #[arg(long)]
        allow_unseen: bool,
    },
    /// Run each seed twice: both must do the same.
    Meta {
        /// The seeds.
        #[arg(long, default_value = "0..20", value_parser = seeds, value_name = "A..B")]
        seeds: std::ops::Range<u64>,
    },
    /// Make the plan of a failing seed smaller and print it as a scenario.
    Minimise {
        /// The seed.
        seed: u64,
    },
    /// Run a plan that was written down.
    Scenario {
        /// TOML files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(from, to)| {
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        Some(from..to)
    });
    bounds
        .filter(|range| !range.is_empty())
        .ok_or_else(|| format!("`{text}`: expected two numbers as in 0..500, the second greater"))
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let passed = match &cli.command {
        Command::Run {
            seeds,
            deliveries,
            allow_unseen,
        } => run_seeds(&cli, seeds.clone(), *deliveries, *allow_unseen)?,
        Command::Meta { seeds } => meta(&cli, seeds.clone())?,
        Command::Minimise { seed } => minimise_seed(&cli, *seed)?,
        Command::Scenario { files } => scenarios(&cli, files)?,
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// What several runs came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    deliveries: u64,
    attempts: u64,
    duplicates: u64,
    virtual_ms: u64,
    seen: Counts,
}

impl Sum {
    fn add(&mut self, verdict: &Verdict) {
        self.seeds += 1;
        self.deliveries += verdict.deliveries;
        self.attempts += verdict.attempts;
        self.duplicates += verdict.duplicates;
        self.virtual_ms += verdict.virtual_ms;
        self.seen.add(&verdict.seen);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures its own speed"
)]
fn watch() -> Instant {
    Instant::now()
}

fn run_seeds(
    cli: &Cli,
    seeds: std::ops::Range<u64>,
    deliveries: Option<u64>,
    allow_unseen: bool,
) -> anyhow::Result<bool> {
    let started = watch();
    let mut shown = started;
    let mut sum = Sum::default();
    let mut failed: Option<(u64, Violation)> = None;
    for seed in seeds {
        let verdict = run(&Plan::draw(seed, cli.world), None);
        sum.add(&verdict);
        if let Some(violation) = verdict.violation {
            failed = Some((seed, violation));
            break;
        }
        if std::io::stderr().is_terminal() && shown.elapsed().as_millis() > 500 {
            shown = watch();
            eprint!("\r{} seeds, {} deliveries", sum.seeds, sum.deliveries);
        }
        if deliveries.is_some_and(|most| sum.deliveries >= most) {
            break;
        }
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let unseen = sum.seen.unseen();
    let seconds = started.elapsed().as_secs_f64();
    report(cli, &sum, seconds, failed.as_ref(), &unseen)?;
    Ok(failed.is_none() && (unseen.is_empty() || allow_unseen))
}

fn report(
    cli: &Cli,
    sum: &Sum,
    seconds: f64,
    failed: Option<&(u64, Violation)>,
    unseen: &[&str],
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let per_second = sum.deliveries as f64 / seconds;
    if cli.json {
        let counts: serde_json::Map<_, _> = seen::ALL
            .iter()
            .map(|(seen, name)| ((*name).to_owned(), sum.seen.of(*seen).into()))
            .collect();
        let value = json!({
            "seeds": sum.seeds, "deliveries": sum.deliveries, "attempts": sum.attempts,
            "duplicates": sum.duplicates, "virtual_hours": sum.virtual_ms / 3_600_000,
            "seconds": seconds, "deliveries_per_second": per_second,
            "violation": failed.map(|(seed, violation)| json!({
                "seed": seed, "rule": violation.rule.row().0, "found": violation.to_string(),
            })),
            "seen": counts,
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} seeds, {} deliveries, {} attempts, {} duplicates, {} h of virtual time",
        sum.seeds,
        sum.deliveries,
        sum.attempts,
        sum.duplicates,
        sum.virtual_ms / 3_600_000
    )?;
    writeln!(out, "{seconds:.1} s, {per_second:.0} deliveries/s")?;
    for (seen, name) in seen::ALL {
        writeln!(out, "{:>10}  {name}", sum.seen.of(seen))?;
    }
    if let Some((seed, violation)) = failed {
        writeln!(out, "seed {seed}: {violation}")?;
    } else if !unseen.is_empty() {
        writeln!(out, "never reached: {}", unseen.join("; "))?;
    }
    Ok(())
}

fn meta(cli: &Cli, seeds: std::ops::Range<u64>) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut steps = 0;
    for seed in seeds.clone() {
        let plan = Plan::draw(seed, cli.world);
        let (once, again) = (run(&plan, None).trace, run(&plan, None).trace);
        steps += once.steps();
        if once != again {
            writeln!(out, "seed {seed}: two runs differ: {once:?}, {again:?}")?;
            return Ok(false);
        }
    }
    let count = seeds.end - seeds.start;
    if cli.json {
        writeln!(out, "{}", json!({ "seeds": count, "steps": steps }))?;
    } else {
        writeln!(out, "{count} seeds twice: the same {steps} steps")?;
    }
    Ok(true)
}

fn minimise_seed(cli: &Cli, seed: u64) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let Some(found) = minimise(&Plan::draw(seed, cli.world), None) else {
        writeln!(out, "seed {seed} breaks no rule")?;
        return Ok(true);
    };
    let text = toml::to_string(&found.plan)?;
    if cli.json {
        let value = json!({
            "seed": seed, "found": found.violation.to_string(), "runs": found.runs, "plan": text,
        });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "# seed {seed}, after {} runs", found.runs)?;
        writeln!(out, "# {}\n{text}", found.violation)?;
    }
    Ok(false)
}

fn scenarios(cli: &Cli, files: &[PathBuf]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut passed = true;
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let plan: Plan =
            toml::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?;
        let verdict = run(&plan, None);
        passed &= verdict.violation.is_none();
        let found = verdict.violation.as_ref().map(ToString::to_string);
        if cli.json {
            let value = json!({
                "scenario": file, "deliveries": verdict.deliveries, "attempts": verdict.attempts,
                "duplicates": verdict.duplicates, "violation": found,
            });
            writeln!(out, "{value}")?;
        } else {
            writeln!(
                out,
                "{}: {} deliveries, {} attempts, {} duplicates: {}",
                file.display(),
                verdict.deliveries,
                verdict.attempts,
                verdict.duplicates,
                found.as_deref().unwrap_or("every rule holds"),
            )?;
        }
    }
    Ok(passed)
}
