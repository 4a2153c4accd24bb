use std::time::Duration;

use posthaste_proto::Record as _;

use super::*;
use crate::delivery::ReportEnd;
use crate::endpoint::sample;
use crate::gate::GateState;
use crate::lane::settings::Settings;
use crate::limits::{DISABLE_AFTER, OWNER_OUTSTANDING};
use crate::outcome::Cause;
use crate::registry::{Table, table_key};
use crate::retry::Policies;
use proto::progress::Kind;

mod buried;
mod held;
mod model;
mod operations;
mod watch;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn later(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

/// A lane record of an endpoint's delivery.
fn deliver(number: u64, endpoint: u8, due: u64, deadline: Timestamp) -> Bytes {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    proto::Deliver {
        delivery_id: id.to_vec().into(),
        endpoint_id: vec![endpoint; 16].into(),
        due_ms: due,
        deadline_ms: deadline.as_millis(),
        ..Default::default()
    }
    .to_value()
}

fn claim() -> Bytes {
    proto::Claim::default().to_value()
}

fn fact(owner_epoch: u64, kind: Kind, offset: u64, attempt: u32, due: Timestamp) -> Bytes {
    let entry = Entry {
        kind: kind.into(),
        offset,
        attempt,
        due_ms: due.as_millis(),
        ..Entry::default()
    };
    proto::Progress {
        owner_epoch,
        entries: vec![entry],
    }
    .to_value()
}

/// Endpoints that are all alike, but for those with settings of their own.
#[derive(Debug, Default)]
struct World {
    own: BTreeMap<EndpointId, Settings>,
}

const ACTIVE: Settings = Settings {
    standing: Standing::Active,
    ordered: false,
    fifo: false,
    in_flight: 1,
    disable_after: Some(DISABLE_AFTER),
    gate: (GateState::Open, Timestamp::from_millis(0)),
};

impl Endpoints for World {
    fn settings(&self, endpoint: EndpointId) -> Settings {
        *self.own.get(&endpoint).unwrap_or(&ACTIVE)
    }
}

fn id(endpoint: u8) -> EndpointId {
    EndpointId::from_bytes([endpoint; 16])
}

fn alone(position: u64) -> Owner {
    let world = Arc::new(World::default());
    Owner::new(position, world, Rng::new(5))
}

/// One owner and the partition it reads.
struct Lane {
    owner: Owner,
    log: Vec<Bytes>,
    read: usize,
    now: Timestamp,
    /// Everything that was wanted beside dispatches and burials of one.
    wanted: Vec<Action>,
}

impl Lane {
    /// A lane of such records, claimed, and read to its end.
    fn ready(records: Vec<Bytes>) -> Self {
        Self::of(alone(0), records)
    }

    fn of(owner: Owner, records: Vec<Bytes>) -> Self {
        let mut lane = Self {
            owner,
            log: records,
            read: 0,
            now: START,
            wanted: Vec::new(),
        };
        lane.log.push(claim());
        let offset = u64::try_from(lane.log.len() - 1).unwrap();
        lane.owner.claimed(offset);
        lane.read();
        assert!(lane.owner.is_ready());
        lane
    }

    fn settings(&mut self, endpoint: u8, settings: Settings) {
        let own = BTreeMap::from([(id(endpoint), settings)]);
        self.owner.set_endpoints(Arc::new(World { own }));
    }

    fn epoch(&self) -> u64 {
        self.owner.claimed.unwrap()
    }

    fn append(&mut self, value: Bytes) {
        self.log.push(value);
        self.read();
    }

    fn read(&mut self) {
        for at in self.read..self.log.len() {
            let offset = u64::try_from(at).unwrap();
            let value = &self.log[at];
            self.owner.record(offset, value, self.now).unwrap();
        }
        self.read = self.log.len();
    }

    /// Writes the facts that wait and reads them back; answers their entries.
    fn flush(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some(progress) = self.owner.take_facts() {
            assert_eq!(progress.owner_epoch, self.epoch());
            entries.extend(progress.entries.iter().cloned());
            self.append(progress.to_value());
        }
        entries
    }

    /// Reads what is to be read; answers dispatches and burials.
    fn settle(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        let mut kept = Vec::new();
        let mut at = 0;
        while at < actions.len() {
            match actions[at].clone() {
                Action::Read { endpoint, from, to } => {
                    let (from, to) = (from.to_usize(), to.to_usize());
                    let records = (from..to).map(|at| (u64::try_from(at).unwrap(), &self.log[at]));
                    let next = u64::try_from(to).unwrap();
                    self.owner
                        .page(endpoint, next, records, self.now, &mut actions);
                }
                one @ (Action::Dispatch { .. } | Action::Bury { .. }) => kept.push(one),
                other => self.wanted.push(other),
            }
            at += 1;
        }
        kept
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        self.now = now;
        let mut actions = Vec::new();
        self.owner.tick(now, &mut actions);
        self.settle(actions)
    }

    fn report(&mut self, offset: u64, end: ReportEnd, now: Timestamp) -> Vec<Action> {
        self.now = now;
        let mut actions = Vec::new();
        self.owner.report(offset, end, now, &mut actions);
        self.settle(actions)
    }

    fn attempted(&mut self, offset: u64, status: u16, now: Timestamp) -> Vec<Action> {
        let outcome = Outcome::response(status, None, now);
        self.report(offset, ReportEnd::Attempted(outcome), now)
    }

    /// The gates that were published since this was asked last.
    fn gates(&mut self) -> Vec<GateState> {
        let state = |action| match action {
            Action::Gate { gate, .. } => Some(gate.state),
            _ => None,
        };
        self.wanted.drain(..).filter_map(state).collect()
    }
}

trait ToUsize {
    fn to_usize(self) -> usize;
}

impl ToUsize for u64 {
    fn to_usize(self) -> usize {
        usize::try_from(self).unwrap()
    }
}

/// Offsets handed out, in order. Nothing may be buried.
fn dispatched(actions: &[Action]) -> Vec<u64> {
    let offset = |action: &Action| match action {
        Action::Dispatch { offset, .. } => *offset,
        other => panic!("{other:?}"),
    };
    actions.iter().map(offset).collect()
}

fn buried(actions: &[Action]) -> Vec<(u64, GiveUpCause)> {
    let offset = |action: &Action| match action {
        Action::Bury { offset, cause, .. } => (*offset, *cause),
        other => panic!("{other:?}"),
    };
    actions.iter().map(offset).collect()
}

/// The facts about single deliveries.
fn told(entries: Vec<Entry>) -> Vec<Entry> {
    let one = |entry: &Entry| entry.kind() != Kind::Passed;
    entries.into_iter().filter(one).collect()
}

const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);

#[test]
fn nothing_is_attempted_before_the_own_claim_is_read() {
    let mut owner = alone(0);
    let mut actions = Vec::new();
    owner.record(0, &deliver(1, 1, 1, NEVER), START).unwrap();
    owner.record(1, &claim(), START).unwrap();
    owner.tick(START, &mut actions);
    assert!(
        actions.is_empty() && owner.next_due().is_none(),
        "another's claim"
    );
    owner.claimed(3);
    owner
        .record(2, &fact(1, Kind::Done, 0, 1, START), START)
        .unwrap();
    owner.tick(START, &mut actions);
    assert!(!owner.is_ready());
    owner.record(3, &claim(), START).unwrap();
    owner.tick(START, &mut actions);
    assert!(
        actions.is_empty() && owner.is_ready(),
        "the predecessor had settled it"
    );
}

#[test]
fn a_claim_read_before_it_is_acknowledged_or_skipped_over_counts() {
    let mut owner = alone(7);
    owner.record(7, &claim(), START).unwrap();
    assert!(!owner.is_ready());
    owner.claimed(7);
    assert!(owner.is_ready());
    let mut owner = alone(7);
    owner.claimed(9);
    owner.skip_to(9);
    assert!(!owner.is_ready());
    owner.skip_to(10);
    assert!(owner.is_ready());
}

#[test]
fn a_success_is_told_once_and_settles_when_read_back() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    let actions = lane.tick(START);
    assert!(matches!(&actions[..], [Action::Dispatch { offset: 0, owed }] if owed.attempts == 0));
    assert!(lane.tick(later(60_000)).is_empty(), "it is out");
    assert!(lane.attempted(0, 200, START).is_empty());
    assert!(
        lane.attempted(0, 500, START).is_empty(),
        "it is out no longer"
    );
    assert!(lane.tick(later(60_000)).is_empty(), "it is told");
    assert_eq!(
        (lane.owner.fold().len(), lane.owner.facts_waiting()),
        (1, 1)
    );
    let entries = lane.flush();
    assert_eq!(
        (entries.len(), entries[0].kind(), entries[0].attempt),
        (1, Kind::Done, 1)
    );
    assert!(lane.owner.fold().is_empty() && lane.owner.overlay.is_empty());
    lane.tick(later(60_000));
    assert!(
        lane.owner.lines.is_empty(),
        "an idle endpoint costs nothing"
    );
}

#[test]
fn a_failure_waits_for_its_fact_and_its_time() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    assert_eq!(dispatched(&lane.tick(START)), [0]);
    lane.attempted(0, 503, START);
    assert!(
        lane.tick(later(3_600_000)).is_empty(),
        "the fact is not read back"
    );
    let entries = lane.flush();
    assert_eq!((entries[0].kind(), entries[0].attempt), (Kind::Retry, 1));
    let due = Timestamp::from_millis(entries[0].due_ms);
    assert!(lane.tick(START).is_empty());
    assert_eq!(lane.owner.next_due(), Some(due));
    assert!(
        lane.tick(Timestamp::from_millis(due.as_millis() - 1))
            .is_empty()
    );
    let actions = lane.tick(due);
    assert!(matches!(&actions[..], [Action::Dispatch { owed, .. }] if owed.attempts == 1));
}

#[test]
fn what_fails_on_our_side_waits_without_a_fact_and_spends_no_attempt() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    let mut now = START;
    for _ in 0..20 {
        assert_eq!(dispatched(&lane.tick(now)), [0]);
        let failed = Outcome::failed(Cause::EgressError);
        assert_eq!(lane.report(0, ReportEnd::Attempted(failed), now), []);
        assert_eq!(lane.flush(), []);
        assert_eq!(lane.tick(now.after(Duration::from_secs(59))), []);
        now = now.after(Duration::from_secs(90));
    }
    let actions = lane.tick(now);
    assert!(matches!(&actions[..], [Action::Dispatch { owed, .. }] if owed.attempts == 0));
    lane.attempted(0, 500, now);
    assert_eq!(lane.flush()[0].attempt, 1);
}

#[test]
fn the_endpoints_own_rules_decide() {
    let mut table = Table::default();
    for number in [1, 2] {
        let mut record = sample(number, "acme", &[]);
        record.retry_policy = "once".to_owned();
        record.fail_fast_4xx = true;
        table
            .apply(&table_key(id(number)), &record.to_value())
            .unwrap();
    }
    let mut policies = Policies::default();
    policies
        .define("once", vec![Duration::from_secs(7)])
        .unwrap();
    table.set_policies(policies.into());
    let owner = Owner::new(0, table.snapshot(), Rng::new(5));
    let mut lane = Lane::of(
        owner,
        vec![deliver(1, 1, 1, NEVER), deliver(2, 2, 1, NEVER)],
    );
    assert_eq!(dispatched(&lane.tick(START)), [0, 1]);
    assert_eq!(
        buried(&lane.attempted(0, 422, START)),
        [(0, GiveUpCause::Rejected)]
    );
    assert_eq!(buried(&lane.attempted(1, 500, START)), []);
    let due = lane.flush()[0].due_ms - START.as_millis();
    assert!((7_000..=8_400).contains(&due), "{due}");
}

#[test]
fn a_delivery_is_given_up_when_gone_exhausted_or_too_old() {
    let deadline = later(1_000);
    let mut lane = Lane::ready(vec![
        deliver(1, 2, 1, NEVER),
        deliver(2, 1, 1, NEVER),
        deliver(3, 1, 1, deadline),
    ]);
    assert_eq!(dispatched(&lane.tick(START)), [1, 2, 0]);
    let gone = lane.attempted(0, 410, START);
    assert_eq!(buried(&gone), [(0, GiveUpCause::Gone)]);
    let last = [Outcome::response(410, None, START)];
    assert!(matches!(&gone[0], Action::Bury { attempts: 1, last: Some(o), .. } if *o == last[0]));
    let epoch = lane.epoch();
    // Another owner told of nine attempts; ours was the tenth.
    lane.report(1, ReportEnd::Bounced, START);
    lane.append(fact(epoch, Kind::Retry, 1, 9, START));
    assert_eq!(dispatched(&lane.tick(later(2_000))), [1]);
    let exhausted = lane.attempted(1, 500, later(2_000));
    assert_eq!(buried(&exhausted), [(1, GiveUpCause::Exhausted)]);
    // Bounced until it was too old to go out again.
    assert!(lane.report(2, ReportEnd::Bounced, later(500)).is_empty());
    assert_eq!(
        buried(&lane.tick(later(2_000))),
        [(2, GiveUpCause::Expired)]
    );
    assert!(!lane.owner.is_drained());
    assert_eq!(
        lane.flush(),
        [],
        "nothing is told before the dead letter is in the log"
    );
    for offset in 0..3 {
        lane.owner.buried(offset);
        lane.owner.buried(offset);
    }
    let entries = lane.flush();
    let kinds: Vec<_> = entries.iter().map(Entry::kind).collect();
    assert_eq!(kinds, [Kind::Dead, Kind::Dead, Kind::Expired]);
    assert!(lane.owner.fold().is_empty() && lane.owner.is_drained());
}

#[test]
fn a_bounced_delivery_comes_round_soon() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    assert_eq!(dispatched(&lane.tick(START)), [0]);
    assert!(lane.report(0, ReportEnd::Bounced, START).is_empty());
    assert_eq!(lane.owner.facts_waiting(), 0, "no attempt was made");
    assert_eq!(lane.owner.next_due(), Some(later(100)));
    assert!(lane.tick(later(99)).is_empty());
    assert_eq!(dispatched(&lane.tick(later(100))), [0]);
}

#[test]
fn a_cancelled_delivery_is_settled() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.tick(START);
    lane.report(0, ReportEnd::Cancelled, START);
    assert_eq!(lane.flush(), [], "its shard knows of no deletion");
    assert_eq!(dispatched(&lane.tick(later(1_000))), [0]);
    let standing = Standing::Deleted;
    lane.settings(1, Settings { standing, ..ACTIVE });
    lane.report(0, ReportEnd::Cancelled, START);
    assert_eq!(lane.flush()[0].kind(), Kind::Cancelled);
    assert!(lane.owner.fold().is_empty());
}

#[test]
fn one_endpoint_has_no_more_out_than_allowed_and_others_do_not_wait_for_it() {
    let count = u64::try_from(OWNER_OUTSTANDING).unwrap() + 3;
    let mut records: Vec<_> = (0..count).map(|n| deliver(n, 1, 1, NEVER)).collect();
    records.push(deliver(count, 2, 1, NEVER));
    let mut lane = Lane::ready(records);
    let out = dispatched(&lane.tick(START));
    assert_eq!(out.len(), OWNER_OUTSTANDING + 1);
    assert_eq!(out.last(), Some(&count));
    assert_eq!(dispatched(&lane.attempted(5, 200, START)), [count - 3]);
    let bounced = lane.report(6, ReportEnd::Bounced, START);
    assert!(bounced.is_empty(), "its shard has no room for the endpoint");
    assert_eq!(dispatched(&lane.tick(later(1_000))), [6]);
}

#[test]
fn dead_letters_are_written_a_bounded_number_at_a_time() {
    let most = u64::try_from(OWNER_OUTSTANDING).unwrap();
    let mut lane = Lane::ready((0..most + 2).map(|n| deliver(n, 1, 1, START)).collect());
    assert_eq!(buried(&lane.tick(START)).len(), OWNER_OUTSTANDING);
    assert!(lane.tick(later(10_000)).is_empty());
    lane.owner.buried(0);
    assert_eq!(lane.owner.next_due(), Some(Timestamp::default()));
    assert_eq!(buried(&lane.tick(START)), [(most, GiveUpCause::Expired)]);
}

#[test]
fn a_draining_owner_hands_nothing_out_and_tells_what_comes_back() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER), deliver(2, 2, 1, NEVER)]);
    assert_eq!(dispatched(&lane.tick(START)), [0, 1]);
    lane.owner.drain();
    assert!(!lane.owner.is_drained() && lane.owner.next_due().is_none());
    assert!(lane.report(1, ReportEnd::Bounced, START).is_empty());
    assert!(lane.tick(later(5_000)).is_empty());
    assert!(lane.attempted(0, 200, START).is_empty());
    assert!(!lane.owner.is_drained(), "a fact waits");
    assert_eq!(lane.flush().len(), 1);
    assert!(lane.owner.is_drained());
    assert!(
        lane.owner.fold().owed(1).is_some(),
        "the other is left to a successor"
    );
}

#[test]
fn facts_leave_in_bounded_batches() {
    let count = u64::try_from(PROGRESS_ENTRIES_MAX).unwrap() + 1;
    let spread = |n: u64| u8::try_from(n % 100).unwrap();
    let mut lane = Lane::ready(
        (0..count)
            .map(|n| deliver(n, spread(n), 1, NEVER))
            .collect(),
    );
    for offset in dispatched(&lane.tick(START)) {
        lane.attempted(offset, 200, START);
    }
    let first = lane.owner.take_facts().unwrap();
    assert_eq!(
        (first.entries.len(), lane.owner.facts_waiting()),
        (PROGRESS_ENTRIES_MAX, 1)
    );
    assert_eq!(lane.owner.take_facts().unwrap().entries.len(), 1);
    assert!(lane.owner.take_facts().is_none());
}

#[test]
fn what_another_owner_put_off_while_it_stood_in_line_is_not_early() {
    let most = u64::try_from(OWNER_OUTSTANDING).unwrap();
    let mut lane = Lane::ready((0..=most).map(|n| deliver(n, 1, 1, NEVER)).collect());
    assert_eq!(dispatched(&lane.tick(START)).len(), OWNER_OUTSTANDING);
    lane.append(fact(0, Kind::Retry, most, 1, later(5_000)));
    assert!(
        lane.attempted(0, 200, START).is_empty(),
        "its turn, but not its time"
    );
    assert_eq!(dispatched(&lane.tick(later(5_000))), [most]);
}

#[test]
fn another_owners_fact_does_not_hide_what_we_know() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.tick(START);
    lane.attempted(0, 200, START);
    lane.append(fact(0, Kind::Retry, 0, 1, later(10)));
    assert!(
        lane.tick(later(60_000)).is_empty(),
        "we know it is delivered"
    );
    lane.flush();
    assert!(lane.owner.fold().is_empty());
}

#[test]
fn an_attempt_keeps_the_number_it_went_out_with() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.tick(START);
    lane.append(fact(0, Kind::Retry, 0, 1, later(7_000)));
    lane.report(
        0,
        ReportEnd::Attempted(Outcome::failed(Cause::TlsError)),
        START,
    );
    assert_eq!(lane.flush()[0].attempt, 1);
    assert_eq!(lane.owner.fold().owed(0).map(|owed| owed.attempts), Some(1));
    assert_eq!(
        dispatched(&lane.tick(later(7_000))),
        [0],
        "of equals the first one's time"
    );
}

#[test]
fn a_copy_of_an_earlier_fact_does_not_hide_what_was_told_since() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.tick(START);
    lane.attempted(0, 500, START);
    let entries = lane.flush();
    let due = Timestamp::from_millis(entries[0].due_ms);
    assert_eq!(dispatched(&lane.tick(due)), [0]);
    lane.attempted(0, 200, due);
    let owner_epoch = lane.epoch();
    let copy = proto::Progress {
        owner_epoch,
        entries,
    };
    lane.append(copy.to_value());
    assert!(lane.tick(later(600_000)).is_empty(), "it is delivered");
}
