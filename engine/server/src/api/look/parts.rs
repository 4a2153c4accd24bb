//! Partitions read as one: a piece of each in turn, always of those that came
//! least far, so that a look that ends early has seen about the same time of
//! each.

use futures_util::future::try_join_all;
use posthaste_core::limits::LOOK_READS_MAX;

use super::{Bound, Budget, Piece};
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// Partitions, each on its way.
pub(in crate::api) struct Parts<'a, P> {
    pub(super) log: &'a dyn Log,
    pub(super) parts: Vec<P>,
    /// What ended it before it had read all.
    pub(in crate::api) ended_by: Option<Bound>,
}

/// One partition on its way.
pub(in crate::api) trait Part: Send {
    /// Whether all of it was read.
    fn is_over(&self) -> bool;

    /// How far it came, against others: those that came least far are read first.
    fn came(&self) -> u64;

    /// Reads the next piece. Where it is given up in the middle, it is read again.
    fn read(&mut self, log: &dyn Log) -> impl Future<Output = Result<Piece, LogError>> + Send;
}

impl<'a, P: Part> Parts<'a, P> {
    pub(super) fn new(log: &'a dyn Log, parts: Vec<P>) -> Self {
        Self {
            log,
            parts,
            ended_by: None,
        }
    }

    /// The next pieces; `None` at the end, and when the budget is spent.
    pub(in crate::api) async fn next(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<Vec<Piece>>, LogError> {
        let mut unread: Vec<_> = self.parts.iter_mut().filter(|p| !p.is_over()).collect();
        if unread.is_empty() {
            return Ok(None);
        }
        self.ended_by = budget.spent();
        if self.ended_by.is_some() {
            return Ok(None);
        }
        unread.sort_by_key(|part| part.came());
        unread.truncate(LOOK_READS_MAX);
        let log = self.log;
        let reads = unread.into_iter().map(|part| part.read(log));
        let Some(pieces) = budget.within(try_join_all(reads)).await? else {
            self.ended_by = Some(Bound::Time);
            return Ok(None);
        };
        for piece in &pieces {
            budget.charge(&piece.records);
        }
        Ok(Some(pieces))
    }

    pub(super) fn unread(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().filter(|part| !part.is_over())
    }
}

/// Records from an offset on, the offset behind them, which is the same where there
/// are none, and whether some grew too old meanwhile.
pub(super) async fn read(
    log: &dyn Log,
    tp: &TopicPartition,
    from: Offset,
    bytes: usize,
) -> Result<(Vec<Record>, Offset, bool), LogError> {
    match log.read(tp, from, bytes).await {
        Err(LogError::OutOfRange { start, .. }) if start > from => Ok((Vec::new(), start, true)),
        read => read.map(|(records, next)| (records, next, false)),
    }
}
