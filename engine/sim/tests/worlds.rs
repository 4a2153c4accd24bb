//! The simulator at work: seeds keep every rule, planted bugs are caught, and
//! what was written down still holds.

use std::fmt::Write as _;

use posthaste_sim::plan::Plan;
use posthaste_sim::plant::Plant;
use posthaste_sim::world::run;

/// Deliveries of one world, about.
const WORLD: u64 = 400;
/// A bug must be caught within so many seeds.
const SEEDS_MAX: u64 = 1_000;

#[test]
fn seeds_keep_every_rule_and_run_the_same_twice() {
    for seed in 0..40 {
        let plan = Plan::draw(seed, WORLD);
        let verdict = run(&plan, None);
        assert_eq!(verdict.violation, None, "seed {seed}");
        if seed < 5 {
            assert_eq!(verdict.trace, run(&plan, None).trace, "seed {seed}");
        }
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let mut table = String::new();
    let mut missed = Vec::new();
    for plant in Plant::ALL {
        let caught = (0..SEEDS_MAX).find_map(|seed| {
            let verdict = run(&Plan::draw(seed, WORLD), Some(plant));
            verdict.violation.map(|violation| (seed, violation))
        });
        match caught {
            Some((seed, violation)) => {
                let (numbers, name) = violation.rule.row();
                let seeds = seed + 1;
                let _ = writeln!(table, "{plant:?} | [{numbers}] {name} | {seeds}");
            }
            None => missed.push(plant),
        }
    }
    println!("plant | caught by | seeds\n{table}");
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn scenarios_hold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let plan: Plan = toml::from_str(&text).unwrap();
        assert_eq!(run(&plan, None).violation, None, "{}", path.display());
        count += 1;
    }
    assert!(count >= 9);
}
