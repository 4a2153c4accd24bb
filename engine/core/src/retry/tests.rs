use super::*;
use crate::outcome::Cause;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn failed() -> Outcome {
    Outcome::failed(Cause::ConnectionRefused)
}

#[test]
fn the_table_ends_at_71_hours_35_minutes() {
    let sum: Duration = STANDARD_GAPS.iter().sum();
    assert_eq!(sum.as_secs() / 60, 71 * 60 + 35);
}

#[test]
fn every_gap_is_within_jitter_and_the_last_before_the_deadline() {
    let policy = Rules::STANDARD;
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut now = START;
        let deadline = START.after(DELIVERY_AGE_MAX);
        for attempts in 1..=9 {
            let gap = STANDARD_GAPS[attempts - 1];
            let number = u32::try_from(attempts).unwrap();
            let decision = policy.decide(number, &failed(), now, deadline, &mut rng);
            let Decision::RetryAt(due) = decision else {
                panic!("attempt {attempts}: {decision:?}");
            };
            let waited = due.since(now);
            let clamped = due == Timestamp::from_millis(deadline.as_millis() - 300_000);
            assert!(waited <= gap.mul_f64(1.2), "{attempts}: {waited:?}");
            assert!(
                clamped || waited >= gap.mul_f64(0.8),
                "{attempts}: {waited:?}"
            );
            assert!(attempts > 2 || waited >= gap);
            assert!(due < deadline);
            now = due;
        }
        let end = policy.decide(10, &failed(), now, deadline, &mut rng);
        assert_eq!(end, Decision::GiveUp(GiveUpCause::Exhausted));
    }
}

#[test]
fn a_longer_retry_after_wins_and_a_shorter_one_does_not() {
    let deadline = START.after(DELIVERY_AGE_MAX);
    let of = |text, attempts, seed| {
        let outcome = Outcome::response(503, Some(text), START);
        let policy = Rules::STANDARD;
        match policy.decide(attempts, &outcome, START, deadline, &mut Rng::new(seed)) {
            Decision::RetryAt(due) => due.since(START).as_secs(),
            give_up => panic!("{give_up:?}"),
        }
    };
    for seed in 0..100 {
        assert!((60..=66).contains(&of("60", 1, seed)));
        assert!((300..=360).contains(&of("1", 2, seed)));
    }
}

#[test]
fn gone_and_too_old_are_given_up() {
    let mut rng = Rng::new(1);
    let policy = Rules::STANDARD;
    let deadline = START.after(DELIVERY_AGE_MAX);
    let gone = Outcome::response(410, None, START);
    assert_eq!(
        policy.decide(1, &gone, START, deadline, &mut rng),
        Decision::GiveUp(GiveUpCause::Gone)
    );
    assert_eq!(
        policy.decide(3, &failed(), deadline, deadline, &mut rng),
        Decision::GiveUp(GiveUpCause::Expired)
    );
}

fn policies(name: &str, gaps: &[u64]) -> Result<Policies, PolicyError> {
    let mut policies = Policies::default();
    let gaps = gaps.iter().map(|&secs| Duration::from_secs(secs)).collect();
    policies.define(name, gaps).map(|()| policies)
}

#[test]
fn a_named_policy_is_followed_to_its_end_and_an_unknown_one_is_the_standard() {
    let policies = policies("fast", &[5, 30]).unwrap();
    assert_eq!(policies.names().collect::<Vec<_>>(), ["standard", "fast"]);
    assert!(policies.knows("fast") && policies.knows("standard") && !policies.knows("slow"));
    let deadline = START.after(DELIVERY_AGE_MAX);
    let of = |name, attempts| {
        let rules = policies.rules(name, false);
        rules.decide(attempts, &failed(), START, deadline, &mut Rng::new(1))
    };
    for (name, attempts, least, most) in [
        ("fast", 1, 5, 6),
        ("fast", 2, 30, 36),
        ("slow", 2, 300, 360),
    ] {
        let Decision::RetryAt(due) = of(name, attempts) else {
            panic!("{name} ends after {attempts}");
        };
        let waited = due.since(START).as_secs();
        assert!((least..=most).contains(&waited), "{name}: {waited}");
    }
    assert_eq!(of("fast", 3), Decision::GiveUp(GiveUpCause::Exhausted));
    assert_eq!(of("slow", 9), of("standard", 9));
}

#[test]
fn a_policy_keeps_to_its_bounds() {
    let day = 24 * 3_600;
    for good in [&[1][..], &[day, day, day], &[1; 30]] {
        assert!(policies("fast", good).is_ok(), "{good:?}");
    }
    let told = |name: &str, gaps: &[u64]| policies(name, gaps).expect_err(name).to_string();
    assert!(told("standard", &[1]).starts_with("`standard` is built in"));
    for bad in ["", "a b", "a/b", "ä", &"n".repeat(129)] {
        assert!(
            told(bad, &[1]).contains("expected a name of 1 to 128"),
            "{bad}"
        );
    }
    assert_eq!(told("a", &[]), "`a` has 0 gaps: expected 1 to 30");
    assert_eq!(told("a", &[1; 31]), "`a` has 31 gaps: expected 1 to 30");
    assert_eq!(
        told("a", &[5, 0]),
        "`a`, gap 2: 0ns: expected 1s to 24 hours"
    );
    let long = told("a", &[day + 1]);
    assert_eq!(long, "`a`, gap 1: 86401s: expected 1s to 24 hours");
    let sum = told("a", &[day, day, day, 1]);
    assert_eq!(sum, "`a` takes 259201s: expected at most 72 hours");
    let mut many = Policies::default();
    for number in 0..RETRY_POLICIES_MAX {
        many.define(&number.to_string(), vec![RETRY_GAP_MIN])
            .unwrap();
    }
    let more = many.define("more", vec![RETRY_GAP_MIN]);
    assert_eq!(more, Err(PolicyError::TooMany));
}

#[test]
fn who_fails_fast_gives_up_on_what_no_retry_cures() {
    let deadline = START.after(DELIVERY_AGE_MAX);
    let of = |status, fail_fast_4xx| {
        let rules = Rules {
            fail_fast_4xx,
            ..Rules::STANDARD
        };
        let outcome = Outcome::response(status, None, START);
        rules.decide(1, &outcome, START, deadline, &mut Rng::new(1))
    };
    let rejected = Decision::GiveUp(GiveUpCause::Rejected);
    for status in 300..600 {
        let fast = [400, 404, 405, 413, 415, 422].contains(&status);
        assert_eq!(of(status, true) == rejected, fast, "{status}");
        assert_ne!(of(status, false), rejected, "{status}");
    }
}

#[test]
fn our_own_failures_spend_no_attempt_and_end_at_the_deadline() {
    let deadline = START.after(DELIVERY_AGE_MAX);
    for cause in [
        Cause::EgressError,
        Cause::BlockedAddress,
        Cause::InvalidEndpoint,
    ] {
        let of = |attempts, now, seed| {
            let outcome = Outcome::failed(cause);
            Rules::STANDARD.decide(attempts, &outcome, now, deadline, &mut Rng::new(seed))
        };
        for seed in 0..100 {
            let Decision::PauseUntil(due) = of(10, START, seed) else {
                panic!("an attempt was spent");
            };
            assert!((60..=90).contains(&due.since(START).as_secs()));
        }
        let last = Timestamp::from_millis(deadline.as_millis() - millis(FINAL_MARGIN));
        let just_before = Timestamp::from_millis(last.as_millis() - 1);
        assert_eq!(of(1, just_before, 1), Decision::PauseUntil(last));
        assert_eq!(of(1, last, 1), Decision::GiveUp(GiveUpCause::Expired));
    }
}

#[test]
fn of_a_short_life_all_but_a_tenth_is_left_for_retries() {
    let age = Duration::from_secs(60);
    let (rules, deadline) = (Rules::STANDARD.within(Some(age)), START.after(age));
    let of = |attempts, passed| {
        let now = START.after(Duration::from_secs(passed));
        rules.decide(attempts, &failed(), now, deadline, &mut Rng::new(1))
    };
    let Decision::RetryAt(due) = of(1, 0) else {
        panic!("there is time");
    };
    assert!((5..=6).contains(&due.since(START).as_secs()));
    // The schedule's next one would come too late.
    let last = Decision::RetryAt(START.after(Duration::from_secs(54)));
    assert_eq!(of(2, 6), last);
    assert_eq!(of(3, 54), Decision::GiveUp(GiveUpCause::Expired));
    for age in [None, Some(Duration::from_secs(720 * 3_600))] {
        assert_eq!(Rules::STANDARD.within(age).margin, FINAL_MARGIN);
    }
}

proptest::proptest! {
    /// Whatever was asked and however late it is: never before its time,
    /// never in the past, and with time left before the deadline.
    #[test]
    fn a_retry_is_neither_early_nor_too_late(
        attempts in 0..12_u32,
        age in 0..300_000_000_u64,
        asked in proptest::option::of(0..200_000_u64),
        seed in proptest::prelude::any::<u64>(),
    ) {
        let deadline = START.after(DELIVERY_AGE_MAX);
        let now = START.after(Duration::from_millis(age));
        let text = asked.map(|seconds| seconds.to_string());
        let outcome = Outcome::response(503, text.as_deref(), now);
        let decision = Rules::STANDARD
            .decide(attempts, &outcome, now, deadline, &mut Rng::new(seed));
        let last = deadline.as_millis() - millis(FINAL_MARGIN);
        match decision {
            Decision::RetryAt(due) => {
                assert!(now < due && due.as_millis() <= last);
                let asked = outcome.retry_after.unwrap_or_default();
                let early = due.since(now) < asked;
                assert!(!early || due.as_millis() == last, "{due:?} of {asked:?}");
            }
            Decision::PauseUntil(_) => panic!("the failure was the receiver's"),
            Decision::GiveUp(GiveUpCause::Exhausted) => assert!(attempts > 9),
            Decision::GiveUp(cause) => {
                assert!(cause == GiveUpCause::Expired && now.as_millis() >= last);
            }
        }
    }
}
