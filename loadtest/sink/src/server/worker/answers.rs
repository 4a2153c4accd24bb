//! What one request gets: a command's answer, a refusal, or whatever the rules
//! say.

use std::cmp::Reverse;
use std::io;
use std::time::{Duration, Instant};

use posthaste_core::time::Timestamp;

use super::super::connection::{Connection, Held, Then};
use super::Worker;
use crate::behave::Act;
use crate::control;
use crate::latency;
use crate::request::Request;

/// Body bytes of a dripping answer.
const DRIP_BYTES: usize = 64;
/// Answers that are due later, of one loop, those of closed connections
/// included; past it the connection is closed instead.
const TIMERS_MAX: usize = 1_000_000;

impl Worker {
    /// Answers one request, or lets it hold up its connection.
    pub(super) fn serve(
        &mut self,
        connection: &mut Connection,
        slot: usize,
        request: &Request<'_>,
        now: Timestamp,
    ) -> io::Result<()> {
        if request.path.starts_with(control::PREFIX) {
            // What came before on this connection is in the report.
            self.shared.ledger.commit(&mut self.turn)?;
            let (status, json) = control::obey(&self.shared, request);
            let headers = [("content-type", "application/json")];
            connection.answer(status, &headers, json.as_bytes());
            return Ok(());
        }
        if request.method != "POST" {
            connection.answer(405, &[("allow", "POST")], b"");
            return Ok(());
        }
        self.requests += 1;
        let signatures = &mut self.turn.signatures;
        let verification = &self.shared.verification;
        if !verification.check(request, self.requests, now, signatures) {
            self.turn.note(request.path, request.id, false);
            connection.answer(401, &[], b"");
            return Ok(());
        }
        let act = self.shared.behaviour.next(request.path);
        self.turn.note(request.path, request.id, act.accepts());
        if self.shared.latency
            && act.accepts()
            && let Some(sent) = latency::sent_ms(request.body)
        {
            let age = now.as_millis().saturating_sub(sent);
            self.turn.ages_ms.push(age);
        }
        self.act(connection, slot, act);
        Ok(())
    }

    fn act(&mut self, connection: &mut Connection, slot: usize, act: Act) {
        match act {
            Act::Ok => connection.answer(200, &[], b""),
            Act::Status(status, None) => connection.answer(status, &[], b""),
            Act::Status(status, Some(after_s)) => {
                let after_s = after_s.to_string();
                connection.answer(status, &[("retry-after", &after_s)], b"");
            }
            Act::Delay(wait) => {
                connection.held = Some(Held::Delayed);
                self.arm(connection, slot, wait);
            }
            Act::Hang => connection.held = Some(Held::Hung),
            Act::Drip(each) => {
                connection.head(200, &[], DRIP_BYTES);
                connection.held = Some(Held::Dripping(DRIP_BYTES, each));
                self.arm(connection, slot, each);
            }
            Act::Reset => connection.then = Then::Reset,
            Act::Close => connection.then = Then::Close,
            Act::CloseAfter => {
                connection.answer(200, &[], b"");
                connection.then = Then::Close;
            }
        }
    }

    /// The time a held connection waited for has come.
    pub(super) fn go_on(&mut self, connection: &mut Connection, slot: usize) {
        match connection.held {
            Some(Held::Delayed) => {
                connection.held = None;
                connection.answer(200, &[], b"");
            }
            Some(Held::Dripping(left, each)) => {
                connection.push(b".");
                connection.held = (left > 1).then_some(Held::Dripping(left - 1, each));
                if left > 1 {
                    self.arm(connection, slot, each);
                }
            }
            Some(Held::Hung) | None => {}
        }
    }

    /// Lets the connection go on after `wait`.
    fn arm(&mut self, connection: &mut Connection, slot: usize, wait: Duration) {
        if self.timers.len() >= TIMERS_MAX {
            connection.held = None;
            connection.then = Then::Close;
            return;
        }
        let due = Instant::now() + wait;
        self.timers.push(Reverse((due, slot, connection.serial)));
    }
}
