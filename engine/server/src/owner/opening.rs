//! From a committed position to the state as of it: by the snapshot that the
//! commit names, or, where that cannot be had, by folding the log from its
//! start, which is always right and only slower.

use std::time::Duration;

use posthaste_core::lane::fold::Fold;
use posthaste_core::lane::snapshot::{Assembly, Loaded, SnapshotRef};

use crate::log::{APPEND_WAIT_MAX, Log, LogError, Offset, Record, TopicPartition};

const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The state before the record at `position`. Reads until the log answers.
///
/// # Errors
/// A record that this version does not know: skipping it could lose what it
/// settles or owes.
pub(super) async fn open(
    log: &dyn Log,
    tp: &TopicPartition,
    position: Offset,
    metadata: &str,
) -> Result<Loaded, LogError> {
    if let Ok(place) = metadata.parse::<SnapshotRef>() {
        match snapshot(log, tp, position, place).await {
            Some(loaded) => return Ok(loaded),
            None => tracing::warn!(
                %tp, position, metadata,
                "the snapshot cannot be read, folding the partition from its start"
            ),
        }
    }
    fold(log, tp, position).await
}

async fn snapshot(
    log: &dyn Log,
    tp: &TopicPartition,
    position: Offset,
    place: SnapshotRef,
) -> Option<Loaded> {
    let (start, end) = bounds(log, tp).await;
    let mut assembly = Assembly::new(place);
    let mut next = place.part0.max(start);
    while !assembly.is_complete() && next < end {
        let (records, after) = read(log, tp, next).await;
        for record in &records {
            assembly.push(record.offset, &record.value);
        }
        next = after.max(next + 1);
    }
    let loaded = assembly.load().ok()?;
    (loaded.fold.next() == position).then_some(loaded)
}

async fn fold(log: &dyn Log, tp: &TopicPartition, position: Offset) -> Result<Loaded, LogError> {
    let start = match position {
        0 => 0,
        _ => bounds(log, tp).await.0,
    };
    let mut fold = Fold::new(start.min(position));
    while fold.next() < position {
        let (records, after) = read(log, tp, fold.next()).await;
        for record in records {
            if record.offset < position {
                let folded = fold.apply(record.offset, &record.value);
                folded.map_err(|error| {
                    LogError::Other(format!("{tp} offset {}: {error}", record.offset))
                })?;
            }
        }
        fold.skip_to(after.min(position));
    }
    Ok(Loaded {
        fold,
        standings: Vec::new(),
    })
}

async fn bounds(log: &dyn Log, tp: &TopicPartition) -> (Offset, Offset) {
    surely(tp, || log.bounds(tp)).await
}

async fn read(log: &dyn Log, tp: &TopicPartition, from: Offset) -> (Vec<Record>, Offset) {
    surely(tp, || log.read(tp, from, CHUNK_BYTES)).await
}

/// Asks the log until it answers.
async fn surely<T, F>(tp: &TopicPartition, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, LogError>>,
{
    let mut wait = FIRST_WAIT;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(
                %tp, %error, "cannot read the lane, trying again in {wait:?}"
            ),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(APPEND_WAIT_MAX);
    }
}
