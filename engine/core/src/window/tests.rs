use std::time::Duration;

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert, prop_oneof, proptest};

use super::*;
use crate::limits::IN_FLIGHT_MAX;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

/// A round in which every place is used and everything is served.
fn full_round(window: &mut Window, most: u32, round: u64) {
    for in_flight in (1..=window.limit(most)).rev() {
        // Each place is taken again at once.
        let full = in_flight.max(window.limit(most));
        window.ended(Load::Served, full, most, at(round), at(round + 1));
    }
}

#[test]
fn statuses_and_causes_say_whether_it_is_too_much() {
    let status = |status| Load::of(&Outcome::response(status, None, at(0)));
    for too_much in [408, 425, 429, 502, 503, 504] {
        assert_eq!(status(too_much), Load::TooMuch, "{too_much}");
    }
    for unknown in [301, 400, 404, 410, 500, 501, 505, 600] {
        assert_eq!(status(unknown), Load::Unknown, "{unknown}");
    }
    assert_eq!(status(204), Load::Served);
    let cause = |cause| Load::of(&Outcome::failed(cause));
    assert_eq!(cause(Cause::TimeoutConnect), Load::TooMuch);
    assert_eq!(cause(Cause::TimeoutHeaders), Load::TooMuch);
    assert_eq!(cause(Cause::ConnectionRefused), Load::TooMuch);
    assert_eq!(cause(Cause::ConnectionReset), Load::TooMuch);
    for unknown in [Cause::TlsError, Cause::DnsError, Cause::EgressError] {
        assert_eq!(cause(unknown), Load::Unknown, "{unknown:?}");
    }
}

#[test]
fn it_is_one_until_something_was_served_and_then_four() {
    let mut window = Window::default();
    assert_eq!(window.limit(64), 1);
    window.ended(Load::Unknown, 1, 64, at(0), at(1));
    assert_eq!(window.limit(64), 1);
    window.ended(Load::Served, 1, 64, at(0), at(1));
    assert_eq!((window.limit(64), window.limit(3)), (4, 3));
    full_round(&mut window, 64, 1);
    assert_eq!(window.limit(64), 8, "it doubles each round");
}

#[test]
fn attempts_of_one_round_halve_it_once() {
    let mut window = Window::full();
    for _ in 0..64 {
        window.ended(Load::TooMuch, 64, 256, at(0), at(10));
    }
    assert_eq!(window.limit(256), 128);
    window.ended(Load::TooMuch, 64, 256, at(10), at(20));
    assert_eq!(window.limit(256), 128, "it began in the same round");
    window.ended(Load::TooMuch, 64, 256, at(11), at(20));
    assert_eq!(window.limit(256), 64);
}

#[test]
fn it_comes_back_quickly_to_half_of_what_it_had() {
    let mut window = Window::full();
    for second in 0..10 {
        let start = at(second * 1_000 + 1);
        window.ended(
            Load::TooMuch,
            1,
            256,
            start,
            start.after(Duration::from_millis(9)),
        );
    }
    assert_eq!(window.limit(256), 1);
    window.recovered();
    assert_eq!(window.limit(256), 2);
    let rounds = (0..).take_while(|&round| {
        full_round(&mut window, 256, 20_000 + round);
        window.limit(256) < 128
    });
    assert!(rounds.count() <= 6);
    full_round(&mut window, 256, 30_000);
    assert!(window.limit(256) <= 131, "from there by one a round");
}

#[derive(Debug, Clone)]
enum End {
    Full(Load),
    Idle(Load),
}

fn end() -> impl Strategy<Value = End> {
    let load = || {
        prop_oneof![
            20 => proptest::strategy::Just(Load::Served),
            1 => proptest::strategy::Just(Load::TooMuch),
            2 => proptest::strategy::Just(Load::Unknown),
        ]
    };
    prop_oneof![5 => load().prop_map(End::Full), 1 => load().prop_map(End::Idle)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However it came to be as wide as it is, a round of full use opens it
    /// by one at least, up to the bound: it never stalls.
    #[test]
    fn it_never_stalls(ends in prop::collection::vec(end(), 0..300), most in 1..=IN_FLIGHT_MAX) {
        let mut window = Window::default();
        for (n, end) in (0..).zip(ends) {
            let limit = window.limit(most);
            let (load, in_flight) = match end {
                End::Full(load) => (load, limit),
                End::Idle(load) => (load, limit.saturating_sub(1).max(1)),
            };
            window.ended(load, in_flight, most, at(n), at(n));
        }
        window.ended(Load::Served, 1, most, at(0), at(1_000));
        let before = window.limit(most);
        for round in 0..2 {
            full_round(&mut window, most, 1_000 + round);
        }
        prop_assert!(window.limit(most) > before || before == most);
    }

    /// The same rule with real numbers.
    #[test]
    fn it_follows_the_rule(
        ends in prop::collection::vec((end(), any::<bool>()), 1..400),
        most in 1..=IN_FLIGHT_MAX,
    ) {
        let mut window = Window::default();
        let (mut width, mut threshold) = (1.0_f64, f64::MAX);
        let (mut served, mut failing, mut shrank) = (false, false, 0);
        for (n, (end, late)) in (1_u64..).zip(ends) {
            let limit = window.limit(most);
            prop_assert!((1..=most).contains(&limit));
            prop_assert!((f64::from(limit) - width.min(f64::from(most))).abs() < 1.01);
            let (load, full) = match end {
                End::Full(load) => (load, true),
                End::Idle(load) => (load, limit == 1),
            };
            let began = if late && shrank > 0 { shrank } else { n };
            let in_flight = if full { limit } else { limit - 1 };
            window.ended(load, in_flight, most, at(began), at(n));
            match load {
                Load::Served if !served => {
                    (served, failing, width) = (true, false, width.max(f64::from(most.min(4))));
                }
                Load::Served => {
                    failing = false;
                    if full {
                        width += if width < threshold { 1.0 } else { 1.0 / width };
                        width = width.min(f64::from(most));
                    }
                }
                Load::TooMuch if began > shrank => {
                    if !failing {
                        threshold = (width / 2.0).max(1.0);
                    }
                    (width, failing, shrank) = ((width / 2.0).max(1.0), true, n);
                }
                Load::TooMuch | Load::Unknown => {}
            }
            // Where a step begins may differ by a rounding.
            let own = f64::from(window.width) / f64::from(ONE);
            prop_assert!((own - width).abs() < 1.01, "{} against {}", own, width);
            width = own;
            if threshold < f64::MAX {
                threshold = f64::from(window.threshold) / f64::from(ONE);
            }
        }
    }
}
