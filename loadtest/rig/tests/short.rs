//! The rig's promises in short, so that every change is held to them. The long
//! forms are commands: `posthaste-rig --help`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use posthaste_rig::scenario::dead::{self, Death};
use posthaste_rig::scenario::{Rig, deliver, kill};

/// Kafka, where a broker is named; elsewhere a test says so and passes, unless
/// `POSTHASTE_REQUIRE_KAFKA=1` forbids it.
fn kafka() -> Option<Rig> {
    if std::env::var("POSTHASTE_TEST_KAFKA").is_ok() {
        return Some(Rig::kafka().unwrap());
    }
    let required = std::env::var("POSTHASTE_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
    assert!(!required, "POSTHASTE_TEST_KAFKA names no broker");
    eprintln!("skipped: POSTHASTE_TEST_KAFKA names no broker");
    None
}

#[test]
fn every_event_is_delivered_once_from_the_embedded_log() {
    let report = deliver::run(&Rig::embedded().unwrap(), 2_000).unwrap();
    assert_eq!((report.unique, report.duplicates), (2_000, 0));
}

#[test]
fn every_event_is_delivered_once_from_kafka() {
    let Some(rig) = kafka() else { return };
    let report = deliver::run(&rig, 5_000).unwrap();
    assert_eq!((report.unique, report.duplicates), (5_000, 0));
}

#[test]
fn kills_lose_nothing_on_the_embedded_log() {
    let outcome = kill::run(&Rig::embedded().unwrap(), 4_000, 400, 4).unwrap();
    assert_eq!((outcome.report.missing, outcome.kills), (0, 4));
}

#[test]
fn kills_lose_nothing_on_kafka() {
    let Some(rig) = kafka() else { return };
    let outcome = kill::run(&rig, 6_000, 300, 4).unwrap();
    assert_eq!((outcome.report.missing, outcome.kills), (0, 4));
}

/// How fast the others are is a matter for the long form.
#[test]
fn what_is_owed_to_a_dead_endpoint_is_in_the_lane() {
    let Some(rig) = kafka() else { return };
    let outcome = dead::run(&rig, 5_000, Death::Hang, 1).unwrap();
    assert_eq!(outcome.in_lane, 50);
}
