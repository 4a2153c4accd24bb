//! Whether it is us: when many endpoints stop being reachable at once, the way
//! out is broken rather than they.
//!
//! Then nobody is blamed: no breaker trips, no attempt is spent, and only a
//! tenth of the slots goes on, to see when it is over (Envoy's panic threshold,
//! turned round: there too many ejected hosts mean that none is).

use crate::limits::{
    PANIC_ENDPOINTS_MIN, PANIC_ENTER_PERCENT, PANIC_LEAVE_AFTER, PANIC_LEAVE_PERCENT, PANIC_MAX,
    PANIC_SPAN,
};
use crate::outcome::{Cause, Outcome};
use crate::queue::Health;
use crate::time::Timestamp;

/// Whether we suspect ourselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Panic {
    /// No.
    #[default]
    Calm,
    /// Since then. `better`: since when it looks as if it were over.
    Suspecting {
        since: Timestamp,
        better: Option<Timestamp>,
    },
}

/// Endpoints counted for a judgement.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Census {
    active: u64,
    lost: u64,
}

/// Whether an attempt ended before it reached a receiver's application: no
/// address, no connection, no TLS session.
pub(super) fn is_lost(outcome: &Outcome) -> bool {
    matches!(
        outcome.cause,
        Some(
            Cause::TimeoutConnect
                | Cause::DnsNxdomain
                | Cause::DnsError
                | Cause::ConnectionRefused
                | Cause::TlsError
                | Cause::EgressError
        )
    )
}

/// Whether an attempt got nowhere or nothing came back: while the way out is
/// suspected that is its fault too, since what hangs on a connection made before
/// breaks with it.
pub(super) fn is_unanswered(outcome: &Outcome) -> bool {
    let broke = matches!(
        outcome.cause,
        Some(Cause::TimeoutHeaders | Cause::ConnectionReset)
    );
    broke || is_lost(outcome)
}

impl Health {
    /// An attempt ended.
    pub(super) fn ended(&mut self, lost: bool, now: Timestamp) {
        self.ended = now;
        if !lost {
            self.lost_since = Timestamp::default();
        } else if self.lost_since == Timestamp::default() {
            self.lost_since = now;
        }
    }
}

impl Panic {
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::Suspecting { .. })
    }

    /// Counts one endpoint. Who was lost long before says nothing about us.
    pub(super) fn count(self, health: &Health, now: Timestamp, census: &mut Census) {
        if health.ended == Timestamp::default() || now.since(health.ended) >= PANIC_SPAN {
            return;
        }
        let recent = match self {
            Self::Calm => now,
            Self::Suspecting { since, .. } => since,
        };
        let lost = health.lost_since;
        census.active += 1;
        census.lost += u64::from(lost > Timestamp::default() && recent.since(lost) < PANIC_SPAN);
    }

    /// What to think of it now.
    pub(super) fn judged(self, census: Census, now: Timestamp) -> Self {
        let Census { active, lost } = census;
        match self {
            Self::Calm => {
                let many = lost * 100 > active * PANIC_ENTER_PERCENT;
                if active >= PANIC_ENDPOINTS_MIN && many {
                    Self::Suspecting {
                        since: now,
                        better: None,
                    }
                } else {
                    Self::Calm
                }
            }
            Self::Suspecting { since, .. } if now.since(since) >= PANIC_MAX => Self::Calm,
            Self::Suspecting { since, better } => {
                if lost * 100 >= active * PANIC_LEAVE_PERCENT && active > 0 {
                    return Self::Suspecting {
                        since,
                        better: None,
                    };
                }
                let better = better.unwrap_or(now);
                if now.since(better) >= PANIC_LEAVE_AFTER {
                    Self::Calm
                } else {
                    Self::Suspecting {
                        since,
                        better: Some(better),
                    }
                }
            }
        }
    }
}
