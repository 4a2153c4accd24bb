//! What all threads count into, once a turn of their event loops.
//!
//! ```text
//!  turn: read requests -> commit (journal, then tally) -> send the answers
//! ```
//!
//! With a journal, every delivery stands in the file before its answer is sent,
//! so a sink that is killed has forgotten nothing it answered for. The file is
//! written but not synced: it survives the process, not the machine.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::latency::{Latencies, Summary};
use crate::tally::Tally;
use crate::tally::report::{Question, Report};
use crate::verify::Signatures;

/// What one thread counted in one turn. Paths and ids stand as lines,
/// `path TAB id`, which is also how the journal has them.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    accepted: Vec<u8>,
    refused: Vec<u8>,
    /// Checked signatures.
    pub(crate) signatures: Signatures,
    /// How old stamped deliveries were.
    pub(crate) ages_ms: Vec<u64>,
}

/// The counts of the whole process.
#[derive(Debug)]
pub(crate) struct Ledger {
    endpoints: u64,
    counts: Mutex<Counts>,
    journal: Option<Mutex<File>>,
}

#[derive(Debug)]
struct Counts {
    tally: Tally,
    signatures: Signatures,
    latencies: Latencies,
}

impl Turn {
    /// Notes a request and whether it counts as delivered. An id that would not
    /// stand on one line counts as none.
    pub(crate) fn note(&mut self, path: &str, id: Option<&str>, accepted: bool) {
        let id = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()));
        let lines = if accepted {
            &mut self.accepted
        } else {
            &mut self.refused
        };
        lines.extend_from_slice(path.as_bytes());
        lines.push(b'\t');
        lines.extend_from_slice(id.unwrap_or_default().as_bytes());
        lines.push(b'\n');
    }
}

impl Ledger {
    /// An empty ledger without a journal.
    pub(crate) fn new(endpoints: u64) -> Self {
        Self {
            endpoints,
            counts: Mutex::new(Counts {
                tally: Tally::new(endpoints),
                signatures: Signatures::default(),
                latencies: Latencies::default(),
            }),
            journal: None,
        }
    }

    /// A ledger that goes on where its journal ends: what stands in the file is
    /// counted first.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn with_journal(endpoints: u64, path: &Path) -> io::Result<Self> {
        let mut ledger = Self::new(endpoints);
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        // A line that a kill cut short was not answered for.
        file.set_len(ledger.replay(&file)?)?;
        ledger.journal = Some(Mutex::new(file));
        Ok(ledger)
    }

    /// Counts a turn and empties it.
    ///
    /// # Errors
    /// The journal cannot be written: nothing of this turn may be answered.
    pub(crate) fn commit(&self, turn: &mut Turn) -> io::Result<()> {
        if let Some(journal) = self.journal.as_ref().filter(|_| !turn.accepted.is_empty()) {
            let mut file = journal.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&turn.accepted)?;
        }
        let mut counts = self.counts();
        for (path, id) in lines(&turn.accepted) {
            counts.tally.accept(path, id);
        }
        for (path, _) in lines(&turn.refused) {
            counts.tally.refuse(path);
        }
        counts.signatures.add(&mut turn.signatures);
        for age in turn.ages_ms.drain(..) {
            counts.latencies.record(age);
        }
        turn.accepted.clear();
        turn.refused.clear();
        Ok(())
    }

    /// The report, and the signatures' counts.
    pub(crate) fn report(&self, question: &Question) -> (Report, Signatures) {
        let counts = self.counts();
        (counts.tally.report(question), counts.signatures.clone())
    }

    /// How old stamped deliveries were since the last time this was asked.
    pub(crate) fn take_latency(&self) -> Summary {
        std::mem::take(&mut self.counts().latencies).summary()
    }

    /// Counts from zero. The journal keeps what it has.
    pub(crate) fn reset(&self) {
        let mut counts = self.counts();
        counts.tally = Tally::new(self.endpoints);
        counts.signatures = Signatures::default();
        counts.latencies = Latencies::default();
    }

    /// Counts the whole lines of a journal; answers how many bytes they are.
    fn replay(&self, file: &File) -> io::Result<u64> {
        let mut reader = BufReader::new(file);
        let mut counts = self.counts();
        let mut line = Vec::new();
        let mut whole = 0;
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Ok(whole);
            }
            whole += u64::try_from(read).unwrap_or(0);
            for (path, id) in lines(&line) {
                counts.tally.accept(path, id);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    std::str::from_utf8(text)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Question {
        Question {
            expected: Some(0..3),
            endpoints_max: 10,
        }
    }

    #[test]
    fn a_journal_is_counted_again_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let ledger = Ledger::with_journal(1, &path).unwrap();
        let mut turn = Turn::default();
        turn.note("/e/0", Some("run-0"), true);
        turn.note("/e/0", Some("run-1"), false);
        turn.note("/e/0", Some("a\tb"), true);
        ledger.commit(&mut turn).unwrap();
        drop(ledger);
        assert_eq!(std::fs::read(&path).unwrap(), b"/e/0\trun-0\n/e/0\t\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"/e/0\trun-2").unwrap();
        for _ in 0..2 {
            let ledger = Ledger::with_journal(1, &path).unwrap();
            let mut turn = Turn::default();
            turn.note("/e/0", Some("run-1"), true);
            ledger.commit(&mut turn).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "/e/0\trun-0\n/e/0\t\n/e/0\trun-1\n/e/0\trun-1\n");
        let ledger = Ledger::with_journal(1, &path).unwrap();
        let report = ledger.report(&all()).0;
        assert_eq!(report.expected.expect("asked for").missing_examples, [2]);
        assert_eq!(report.totals.duplicates, 1);
    }

    #[test]
    fn a_reset_forgets_and_an_unwritable_journal_is_an_error() {
        let ledger = Ledger::new(1);
        let mut turn = Turn::default();
        turn.note("/e/0", Some("run-0"), true);
        ledger.commit(&mut turn).unwrap();
        assert_eq!(ledger.report(&all()).0.totals.unique, 1);
        ledger.reset();
        assert_eq!(ledger.report(&all()).0.totals.unique, 0);
        let mut full = Ledger::new(1);
        let device = File::options().write(true).open("/dev/full").unwrap();
        full.journal = Some(Mutex::new(device));
        turn.note("/e/0", Some("run-0"), true);
        assert!(full.commit(&mut turn).is_err());
    }
}
