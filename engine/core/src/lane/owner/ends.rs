//! What comes back: reports, dead letters and moved records.

use posthaste_proto as proto;
use proto::progress::Kind;

use super::line::Line;
use super::{Action, DisableReason, Notice, NoticeKind, Outgoing, Overlay, Owner, Stage, Standing};
use crate::breaker::{Change as Turn, Sign};
use crate::delivery::ReportEnd;
use crate::id::EndpointId;
use crate::lane::fold::Head;
use crate::limits::RETRY_AFTER_MAX;
use crate::outcome::{Outcome, Verdict};
use crate::retry::{Decision, GiveUpCause};
use crate::time::Timestamp;

/// How long a line waits after its shard had no room for it.
const BOUNCE_WAIT: std::time::Duration = std::time::Duration::from_millis(100);

impl Owner {
    /// A delivery that was handed out came back.
    pub fn report(
        &mut self,
        offset: u64,
        end: ReportEnd,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(&Overlay { stage, out }) = self.overlay.get(&offset) else {
            return;
        };
        if stage != Stage::Out {
            return;
        }
        self.overlay.remove(&offset);
        let endpoint = out.owed.endpoint;
        let mut line = self.take(endpoint);
        line.out -= 1;
        let owed = self.fold.is_owed(endpoint, offset);
        match end {
            ReportEnd::Attempted(outcome) => {
                self.seen(endpoint, &mut line, out, &outcome, now, actions);
                // Otherwise it was settled meanwhile.
                if owed {
                    self.attempted(offset, out, &mut line, outcome, now, actions);
                } else {
                    line.release(out.order, offset);
                }
            }
            ReportEnd::Cancelled if owed && self.is_deleted(endpoint) => {
                line.breaker.returned(out.pass);
                self.tell(Kind::Cancelled, offset, out, out.owed.attempts, None);
                line.release(out.order, offset);
            }
            ReportEnd::Bounced | ReportEnd::Cancelled => {
                line.breaker.returned(out.pass);
                line.paused_until = line.paused_until.max(now.after(BOUNCE_WAIT));
                self.give_back(offset, out, &mut line);
            }
        }
        self.put(endpoint, line, None);
        self.serve(endpoint, now, actions);
    }

    fn is_deleted(&self, endpoint: EndpointId) -> bool {
        self.endpoints.settings(endpoint).standing == Standing::Deleted
    }

    /// No attempt was made: it waits as before.
    fn give_back(&mut self, offset: u64, out: Outgoing, line: &mut Line) {
        line.release(out.order, offset);
        if self.fold.timers().contains(offset) {
            self.fold.timers_mut().wait(offset);
        } else if line.page.open.contains(&offset) {
            let head = Head {
                owed: out.owed,
                order: out.order,
            };
            line.page.insert(offset, head);
        }
    }

    /// What an attempt says about its endpoint.
    fn seen(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        out: Outgoing,
        outcome: &Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let sign = Sign::of(outcome);
        let down_since = line.breaker.down_since();
        let turn = line.breaker.ended(out.pass, sign, now, &mut self.rng);
        if turn == Turn::Closed
            && let Some(down_since) = down_since
        {
            actions.push(Action::Notify(Notice {
                endpoint,
                at: now,
                kind: NoticeKind::Recovered { down_since },
            }));
        }
        line.health.note(sign, now);
        line.own_fault = !outcome.counts();
        match outcome.status {
            Some(status @ (401 | 403)) if !line.auth_failing => {
                line.auth_failing = true;
                actions.push(Action::Notify(Notice {
                    endpoint,
                    at: now,
                    kind: NoticeKind::AuthFailing { status },
                }));
            }
            _ => line.auth_failing &= outcome.verdict != Verdict::Delivered,
        }
        if let Some(asked) = outcome.retry_after {
            let asked = asked.min(RETRY_AFTER_MAX);
            let tenth = u64::try_from(asked.as_millis() / 10).unwrap_or(u64::MAX);
            let jitter = std::time::Duration::from_millis(self.rng.below(tenth + 1));
            line.paused_until = line.paused_until.max(now.after(asked + jitter));
        }
        if outcome.verdict == Verdict::Gone {
            self.disable(endpoint, line, DisableReason::Gone, now, actions);
        } else if sign == Sign::Failing
            && let Some(after) = self.endpoints.settings(endpoint).disable_after
            && line.health.is_hopeless(after, now)
        {
            self.disable(endpoint, line, DisableReason::Failing, now, actions);
        }
    }

    fn attempted(
        &mut self,
        offset: u64,
        out: Outgoing,
        line: &mut Line,
        outcome: Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        // The number it went out with: what another owner tried since does not
        // make this attempt a later one.
        let attempts = out.owed.attempts + 1;
        if outcome.verdict == Verdict::Delivered {
            self.tell(Kind::Done, offset, out, attempts, None);
            line.release(out.order, offset);
            return;
        }
        let endpoints = std::sync::Arc::clone(&self.endpoints);
        let rules = endpoints.rules(out.owed.endpoint);
        match rules.decide(attempts, &outcome, now, out.owed.deadline, &mut self.rng) {
            // Its key stays busy until the fact is read: only then the timer
            // that bars the way stands.
            Decision::RetryAt(due) => self.tell(Kind::Retry, offset, out, attempts, Some(due)),
            // Nothing happened that the log should know.
            Decision::PauseUntil(due) => {
                line.paused_until = line.paused_until.max(due);
                self.give_back(offset, out, line);
            }
            Decision::GiveUp(cause) => {
                let out = Outgoing {
                    owed: crate::timers::Owed {
                        attempts,
                        ..out.owed
                    },
                    ..out
                };
                self.bury(offset, out, line, cause, Some(outcome), actions);
                if cause != GiveUpCause::Gone {
                    actions.push(Action::Notify(Notice {
                        endpoint: out.owed.endpoint,
                        at: now,
                        kind: NoticeKind::Exhausted {
                            offset,
                            attempts,
                            cause,
                        },
                    }));
                }
            }
        }
    }

    /// Gives a delivery up.
    pub(super) fn bury(
        &mut self,
        offset: u64,
        out: Outgoing,
        line: &mut Line,
        cause: GiveUpCause,
        last: Option<Outcome>,
        actions: &mut Vec<Action>,
    ) {
        line.out += 1;
        let stage = Stage::Burying(cause);
        self.overlay.insert(offset, Overlay { stage, out });
        actions.push(Action::Bury {
            offset,
            attempts: out.owed.attempts,
            cause,
            last,
        });
    }

    /// The dead letter of this offset is in the log.
    pub fn buried(&mut self, offset: u64) {
        let Some(&Overlay { stage, out }) = self.overlay.get(&offset) else {
            return;
        };
        let Stage::Burying(cause) = stage else {
            return;
        };
        let kind = match cause {
            GiveUpCause::Expired => Kind::Expired,
            GiveUpCause::Exhausted | GiveUpCause::Gone | GiveUpCause::Rejected => Kind::Dead,
        };
        self.tell(kind, offset, out, out.owed.attempts, None);
        let endpoint = out.owed.endpoint;
        if let Some(line) = self.lines.get_mut(&endpoint) {
            line.out -= 1;
            line.release(out.order, offset);
        }
        self.touch(endpoint);
    }

    /// The record of this offset stands in the lane again, at `to`.
    pub fn moved(&mut self, offset: u64, to: u64) {
        let Some(&Overlay { stage, out }) = self.overlay.get(&offset) else {
            return;
        };
        if stage != Stage::Moving {
            return;
        }
        // It counts until the fact is read: so long its timer stands.
        self.tell(Kind::Moved, offset, out, out.owed.attempts, None);
        if let Some(fact) = self.facts.back_mut() {
            fact.moved_to = to;
        }
    }
}
