//! The rig's promises in short, so that every change is held to them. The long
//! forms are commands: `posthaste-rig --help`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Mutex, PoisonError};

use posthaste_rig::scenario::dead::{self, Death};
use posthaste_rig::scenario::storm::{self, Storm};
use posthaste_rig::scenario::{Rig, deliver, failover, kill, replay};

/// One at a time: each measures, and takes the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// Kafka, where a broker is named; elsewhere a test says so and passes, unless
/// `POSTHASTE_REQUIRE_KAFKA=1` forbids it.
fn kafka() -> Option<Rig> {
    is_kafka_wanted().then(|| Rig::kafka().unwrap())
}

fn is_kafka_wanted() -> bool {
    if std::env::var("POSTHASTE_TEST_KAFKA").is_ok() {
        return true;
    }
    let required = std::env::var("POSTHASTE_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
    assert!(!required, "POSTHASTE_TEST_KAFKA names no broker");
    eprintln!("skipped: POSTHASTE_TEST_KAFKA names no broker");
    false
}

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_event_is_delivered_once_from_the_embedded_log() {
    let _alone = alone();
    let report = deliver::run(&Rig::embedded().unwrap(), 2_000).unwrap();
    assert_eq!((report.unique, report.duplicates), (2_000, 0));
}

#[test]
fn every_event_is_delivered_once_from_kafka() {
    let _alone = alone();
    let Some(rig) = kafka() else { return };
    let report = deliver::run(&rig, 5_000).unwrap();
    assert_eq!((report.unique, report.duplicates), (5_000, 0));
}

#[test]
fn kills_lose_nothing_on_the_embedded_log() {
    let _alone = alone();
    let outcome = kill::run(&Rig::embedded().unwrap(), 4_000, 400, 4).unwrap();
    assert_eq!((outcome.report.missing, outcome.kills), (0, 4));
}

#[test]
fn kills_lose_nothing_on_kafka() {
    let _alone = alone();
    let Some(rig) = kafka() else { return };
    let outcome = kill::run(&rig, 6_000, 300, 4).unwrap();
    assert_eq!((outcome.report.missing, outcome.kills), (0, 4));
}

/// How fast the others are is a matter for the long form.
#[test]
fn what_is_owed_to_a_dead_endpoint_is_in_the_lane() {
    let _alone = alone();
    let Some(rig) = kafka() else { return };
    let outcome = dead::run(&rig, 5_000, Death::Hang, 1).unwrap();
    assert_eq!(outcome.in_lane, 50);
}

#[test]
fn a_killed_owners_retries_are_made_by_another_in_time() {
    let _alone = alone();
    let Some(rig) = kafka() else { return };
    let rounds = failover::run(&rig, 1).unwrap();
    assert_eq!(rounds.len(), 1);
}

#[test]
fn a_replay_is_whole_though_its_owner_is_killed_on_the_embedded_log() {
    let _alone = alone();
    let outcome = replay::run(&Rig::embedded().unwrap(), 2_000, 500, 2).unwrap();
    assert_eq!((outcome.report.missing, outcome.count), (0, 2_000));
}

#[test]
fn a_replay_is_whole_though_its_owner_is_killed_on_kafka() {
    let _alone = alone();
    let Some(rig) = kafka() else { return };
    let outcome = replay::run(&rig, 5_000, 600, 2).unwrap();
    assert_eq!((outcome.report.missing, outcome.count), (0, 5_000));
}

/// It restarts its broker, so it does not use the one that is named.
#[test]
fn a_storm_of_every_fault_loses_nothing() {
    let _alone = alone();
    if !is_kafka_wanted() {
        return;
    }
    let storm = Storm {
        events: 10_000,
        rate: 300,
        seed: 1,
    };
    let outcome = storm::run(&Rig::own_kafka().unwrap(), storm).unwrap();
    assert_eq!(outcome.broken, [""; 0], "{:#}", outcome.report);
}
