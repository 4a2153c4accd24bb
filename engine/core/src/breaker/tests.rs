use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::*;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn at(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

/// One that tripped just now.
fn tripped(rng: &mut Rng) -> Breaker {
    let mut breaker = Breaker::default();
    for millis in [0, 250, 500, 750] {
        let change = breaker.failed_elsewhere(at(millis), rng);
        assert_eq!(change, Change::Same);
    }
    let change = breaker.failed_elsewhere(at(1_000), rng);
    assert_eq!(change, Change::Tripped);
    breaker
}

#[test]
fn causes_are_signs_of_the_receiver_or_of_ourselves() {
    let status = |status| Sign::of(&Outcome::response(status, None, START));
    for alive in [200, 204, 429, 410] {
        assert_eq!(status(alive), Sign::Alive, "{alive}");
    }
    for failing in [301, 400, 404, 408, 500, 503, 999] {
        assert_eq!(status(failing), Sign::Failing, "{failing}");
    }
    let cause = |cause| Sign::of(&Outcome::failed(cause));
    for failing in [
        Cause::TimeoutConnect,
        Cause::TimeoutHeaders,
        Cause::ConnectionRefused,
        Cause::ConnectionReset,
        Cause::DnsError,
        Cause::TlsError,
    ] {
        assert_eq!(cause(failing), Sign::Failing, "{failing:?}");
    }
    for unknown in [
        Cause::BlockedAddress,
        Cause::InvalidEndpoint,
        Cause::EgressError,
    ] {
        assert_eq!(cause(unknown), Sign::Unknown, "{unknown:?}");
    }
}

#[test]
fn five_at_one_moment_are_not_five_in_a_row() {
    let (mut breaker, mut rng) = (Breaker::default(), Rng::new(1));
    for _ in 0..10 {
        let change = breaker.failed_elsewhere(at(0), &mut rng);
        assert_eq!(change, Change::Same);
    }
    assert_eq!(
        breaker.failed_elsewhere(at(999), &mut rng),
        Change::Same,
        "the eleventh spans less than a second"
    );
    assert_eq!(
        breaker.failed_elsewhere(at(1_000), &mut rng),
        Change::Tripped
    );
}

#[test]
fn only_the_probe_closes_it() {
    let mut rng = Rng::new(2);
    let mut breaker = Breaker::default();
    let straggler = breaker.admit(at(0)).unwrap();
    for millis in [0, 1, 2, 3, 1_000] {
        breaker.failed_elsewhere(at(millis), &mut rng);
    }
    assert_eq!(breaker.down_since(), Some(at(1_000)));
    assert!(breaker.admit(at(3_499)).is_none() && breaker.refuses(at(3_499)));
    let due = breaker.next_probe().unwrap();
    assert!((at(3_500)..=at(6_000)).contains(&due), "half of 5 s to 5 s");
    let probe = breaker.admit(due).unwrap();
    assert!(breaker.is_probe(probe) && !breaker.is_probe(straggler));
    assert!(breaker.admit(due).is_none() && breaker.refuses(due));
    let late = breaker.ended(straggler, Sign::Alive, due, &mut rng);
    assert_eq!(late, Change::Same);
    assert!(!breaker.is_closed());
    let end = breaker.ended(probe, Sign::Alive, due, &mut rng);
    assert_eq!(end, Change::Closed);
    assert_eq!(
        breaker.ended(probe, Sign::Failing, due, &mut rng),
        Change::Same,
        "a pass of another stay says nothing"
    );
    assert!(breaker.is_closed() && breaker.admit(due).is_some());
}

#[test]
fn a_probe_that_was_not_made_is_made_by_another_at_once() {
    let mut rng = Rng::new(3);
    let mut breaker = tripped(&mut rng);
    let due = breaker.next_probe().unwrap();
    let first = breaker.admit(due).unwrap();
    breaker.returned(first);
    let second = breaker.admit(due).unwrap();
    breaker.returned(first);
    assert!(breaker.is_probe(second), "a pass is given back once");
    // A probe the wall refused says nothing: as long again, not longer.
    let end = breaker.ended(second, Sign::Unknown, due, &mut rng);
    assert_eq!(end, Change::Same);
    let wait = breaker.next_probe().unwrap().since(due);
    assert!((2_500..=5_000).contains(&wait.as_millis()), "{wait:?}");
}

#[test]
fn an_attempt_somebody_else_wanted_is_the_probe() {
    let mut rng = Rng::new(4);
    let mut breaker = tripped(&mut rng);
    let due = breaker.next_probe();
    let early = breaker.admit_always();
    assert!(breaker.is_probe(early));
    assert_eq!(breaker.admit_always(), Pass::default());
    assert_eq!(
        breaker.ended(Pass::default(), Sign::Alive, at(1_001), &mut rng),
        Change::Same
    );
    let end = breaker.ended(early, Sign::Failing, at(1_001), &mut rng);
    assert_eq!((end, breaker.next_probe()), (Change::Reopened, due));
    let early = breaker.admit_always();
    let end = breaker.ended(early, Sign::Alive, at(1_002), &mut rng);
    assert_eq!(end, Change::Closed);
}

#[test]
fn a_clock_set_back_does_not_keep_it_open() {
    let mut breaker = tripped(&mut Rng::new(5));
    let back = Timestamp::from_millis(START.as_millis() - 3_600_000);
    assert!(!breaker.refuses(back) && breaker.admit(back).is_some());
}

/// Probes and how late the return was noticed, of an outage of so long.
fn outage(span: Duration, seed: u64) -> (u32, Duration) {
    let mut rng = Rng::new(seed);
    let mut breaker = tripped(&mut rng);
    let end = START.after(span);
    for probes in 1.. {
        let due = breaker.next_probe().unwrap();
        let probe = breaker.admit(due).unwrap();
        if due >= end {
            return (probes, due.since(end));
        }
        breaker.ended(probe, Sign::Failing, due, &mut rng);
    }
    unreachable!()
}

#[test]
fn an_outage_costs_few_probes_and_its_end_is_noticed_soon() {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let mut late_ms = 0;
    for seed in 0..200 {
        let (probes, _) = outage(hours(72), seed);
        assert!((500..=700).contains(&probes), "{probes}");
        let (_, late) = outage(Duration::from_secs(1_800), seed);
        assert!(late <= Duration::from_secs(90), "{late:?}");
        late_ms += late.as_millis();
    }
    assert!(late_ms / 200 <= 60_000, "{late_ms}");
}

#[test]
fn it_is_small() {
    assert!(size_of::<Breaker>() <= 96, "{}", size_of::<Breaker>());
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    AdmitAlways,
    End(usize, Sign),
    Return(usize),
    Elsewhere,
    Pass(u64),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let sign = prop_oneof![
        3 => Just(Sign::Alive), 4 => Just(Sign::Failing), 1 => Just(Sign::Unknown)
    ];
    prop_oneof![
        20 => Just(Step::Admit),
        2 => Just(Step::AdmitAlways),
        20 => (any::<usize>(), sign).prop_map(|(which, sign)| Step::End(which, sign)),
        1 => any::<usize>().prop_map(Step::Return),
        4 => Just(Step::Elsewhere),
        8 => prop_oneof![0..300_u64, 0..40_000_u64].prop_map(Step::Pass),
        1 => Just(Step::Reload),
    ]
}

/// The rules said plainly: everything is remembered and counted anew.
#[derive(Debug, Default)]
struct Model {
    /// Signs since it closed, but for unknown ones.
    seen: Vec<(Timestamp, bool)>,
    down: Option<ModelDown>,
    /// Attempts on their way; the second part says whether it may count.
    out: Vec<(Pass, Counts)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Closed,
    Probe,
    No,
}

#[derive(Debug, Clone, Copy)]
struct ModelDown {
    since: Timestamp,
    until: Timestamp,
    doubled: u32,
}

impl Model {
    fn probing(&self) -> bool {
        self.out.iter().any(|(_, counts)| *counts == Counts::Probe)
    }

    /// Whatever is on its way began before this moment.
    fn forget_who_is_out(&mut self) {
        self.out
            .iter_mut()
            .for_each(|(_, counts)| *counts = Counts::No);
    }

    fn see(&mut self, failing: bool, now: Timestamp) -> bool {
        self.seen.push((now, failing));
        let row = self.seen.iter().rev().take_while(|(_, failing)| *failing);
        let row: Vec<_> = row.map(|(when, _)| *when).collect();
        let in_a_row = row.len() >= 5 && now.since(row[row.len() - 1]).as_millis() >= 1_000;
        let slice = |when: Timestamp| when.as_millis() / 5_000;
        let recent = self
            .seen
            .iter()
            .filter(|(when, _)| slice(*when) + 6 > slice(now));
        let recent: Vec<_> = recent.map(|(_, failing)| *failing).collect();
        let failed = recent.iter().filter(|failing| **failing).count();
        failing && (in_a_row || recent.len() >= 20 && failed * 2 >= recent.len())
    }

    fn cooldown(&self, down: ModelDown, now: Timestamp) -> std::ops::RangeInclusive<Timestamp> {
        let cap = (now.since(down.since).as_millis() / 20).clamp(60_000, 600_000);
        let whole = (5_000 * 2_u128.pow(down.doubled.min(20))).min(cap);
        let millis = |millis| now.after(Duration::from_millis(u64::try_from(millis).unwrap()));
        millis(whole / 2)..=millis(whole)
    }

    /// After the breaker went from closed or half-open to open.
    fn opened(&mut self, down: ModelDown, now: Timestamp, breaker: &Breaker) {
        let until = breaker.next_probe().expect("it is open");
        assert!(self.cooldown(down, now).contains(&until), "{until:?}");
        self.down = Some(ModelDown { until, ..down });
        self.forget_who_is_out();
    }

    fn closed(&mut self) {
        self.down = None;
        self.seen.clear();
        self.forget_who_is_out();
    }

    fn trip_if(&mut self, failing: bool, change: Change, now: Timestamp, breaker: &Breaker) {
        if self.see(failing, now) {
            assert_eq!(change, Change::Tripped);
            let down = ModelDown {
                since: now,
                until: now,
                doubled: 0,
            };
            self.opened(down, now, breaker);
        } else {
            assert_eq!(change, Change::Same);
        }
    }

    fn end(
        &mut self,
        counts: Counts,
        sign: Sign,
        change: Change,
        now: Timestamp,
        breaker: &Breaker,
    ) {
        match (counts, sign) {
            (Counts::No, _) | (Counts::Closed, Sign::Unknown) => assert_eq!(change, Change::Same),
            (Counts::Closed, sign) => self.trip_if(sign == Sign::Failing, change, now, breaker),
            (Counts::Probe, Sign::Alive) => {
                assert_eq!(change, Change::Closed);
                self.closed();
            }
            (Counts::Probe, sign) => {
                let mut down = self.down.expect("a probe is out");
                let failing = sign == Sign::Failing;
                let expected = if failing {
                    Change::Reopened
                } else {
                    Change::Same
                };
                assert_eq!(change, expected);
                if failing && now < down.until {
                    assert_eq!(breaker.next_probe(), Some(down.until));
                    self.forget_who_is_out();
                } else {
                    down.doubled += u32::from(failing);
                    self.opened(down, now, breaker);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_follows_the_rules(steps in prop::collection::vec(step(), 1..400), seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let (mut breaker, mut model) = (Breaker::default(), Model::default());
        let mut now = START;
        for step in steps {
            match step {
                Step::Admit => {
                    let counts = match model.down {
                        None => Counts::Closed,
                        Some(down) if now >= down.until && !model.probing() => Counts::Probe,
                        Some(_) => Counts::No,
                    };
                    let refused = counts == Counts::No;
                    prop_assert_eq!(breaker.refuses(now), refused);
                    let pass = breaker.admit(now);
                    prop_assert_eq!(pass.is_none(), refused);
                    model.out.extend(pass.map(|pass| (pass, counts)));
                }
                Step::AdmitAlways => {
                    let counts = match model.down {
                        None => Counts::Closed,
                        Some(_) if model.probing() => Counts::No,
                        Some(_) => Counts::Probe,
                    };
                    model.out.push((breaker.admit_always(), counts));
                }
                Step::End(which, sign) if !model.out.is_empty() => {
                    let (pass, counts) = model.out.swap_remove(which % model.out.len());
                    let change = breaker.ended(pass, sign, now, &mut rng);
                    model.end(counts, sign, change, now, &breaker);
                }
                Step::Return(which) if !model.out.is_empty() => {
                    let (pass, _) = model.out.swap_remove(which % model.out.len());
                    breaker.returned(pass);
                }
                Step::Elsewhere => {
                    let change = breaker.failed_elsewhere(now, &mut rng);
                    if model.down.is_none() {
                        model.trip_if(true, change, now, &breaker);
                    } else {
                        prop_assert_eq!(change, Change::Same);
                    }
                }
                Step::End(..) | Step::Return(_) => {}
                Step::Pass(millis) => now = now.after(Duration::from_millis(millis)),
                // What was on its way is lost with the process.
                Step::Reload => {
                    let saved = breaker.save();
                    breaker = Breaker::load(saved);
                    prop_assert_eq!(breaker.save(), saved);
                    model.out.clear();
                }
            }
            prop_assert_eq!(breaker.is_closed(), model.down.is_none());
            prop_assert_eq!(breaker.down_since(), model.down.map(|down| down.since));
            let due = model.down.filter(|_| !model.probing()).map(|down| down.until);
            prop_assert_eq!(breaker.next_probe(), due);
        }
    }
}
