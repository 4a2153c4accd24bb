//! The tally as JSON: totals, what is missing of an expected range, and the
//! endpoints, worst first.

use std::ops::Range;

use serde::Serialize;

use super::{Counts, Path, Tally};

/// Numbers of missing events shown as examples.
const MISSING_SHOWN_MAX: usize = 20;

/// What is asked of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// Numbers that were sent, to find what is missing.
    pub(crate) expected: Option<Range<u64>>,
    /// Endpoints listed at most.
    pub(crate) endpoints_max: usize,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The run whose ids are counted by number.
    pub(crate) run: Option<String>,
    /// All paths together.
    #[serde(flatten)]
    pub(crate) totals: Counts,
    /// What is missing, if a range was expected.
    pub(crate) expected: Option<Expected>,
    /// Paths that had a request.
    pub(crate) endpoints_seen: usize,
    /// The worst of them: missing, then duplicates, then refused.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An expected range, and how it was met.
#[derive(Debug, Serialize)]
pub(crate) struct Expected {
    /// First number.
    pub(crate) from: u64,
    /// The number after the last.
    pub(crate) to: u64,
    /// Numbers that did not arrive.
    pub(crate) missing: u64,
    /// The first few of them.
    pub(crate) missing_examples: Vec<u64>,
    /// Numbers that arrived and lie outside.
    pub(crate) outside: u64,
}

/// One path.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    /// The request path.
    pub(crate) path: String,
    /// Its counts.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Expected numbers that did not arrive here.
    pub(crate) missing: u64,
}

impl Tally {
    /// The report of what was counted so far.
    pub(crate) fn report(&self, question: &Question) -> Report {
        let range = question.expected.clone().unwrap_or(0..0);
        let mut endpoints: Vec<_> = self
            .paths
            .iter()
            .map(|path| Endpoint {
                path: path.name.to_string(),
                counts: path.counts,
                missing: self.missing_at(path, &range).count,
            })
            .collect();
        endpoints.sort_by_key(|e| {
            let worst = (e.missing, e.counts.duplicates, e.counts.refused);
            std::cmp::Reverse(worst)
        });
        endpoints.truncate(question.endpoints_max);
        Report {
            run: self.run.as_deref().map(str::to_owned),
            totals: self.totals,
            expected: question.expected.as_ref().map(|r| self.expected(r)),
            endpoints_seen: self.paths.len(),
            endpoints,
        }
    }

    fn expected(&self, range: &Range<u64>) -> Expected {
        let mut missing = Missing::default();
        let mut outside = 0;
        // Numbers of an endpoint that had no request at all belong to no path.
        let mut unseen = vec![true; usize::try_from(self.endpoints).unwrap_or(0)];
        for path in &self.paths {
            let Some(residue) = path.residue else {
                continue;
            };
            let owed = self.places(residue, range);
            let here = self.missing_at(path, range);
            outside += path.places.count() - (owed.end - owed.start - here.count);
            missing.add(&here);
            if let Some(unseen) = unseen.get_mut(usize::try_from(residue).unwrap_or(usize::MAX)) {
                *unseen = false;
            }
        }
        for (residue, _) in (0..).zip(&unseen).filter(|(_, unseen)| **unseen) {
            missing.add(&self.missing(residue, self.places(residue, range)));
        }
        Expected {
            from: range.start,
            to: range.end,
            missing: missing.count,
            missing_examples: missing.examples,
            outside,
        }
    }

    fn missing_at(&self, path: &Path, range: &Range<u64>) -> Missing {
        let Some(residue) = path.residue else {
            return Missing::default();
        };
        let gaps = self.places(residue, range).filter(|&p| !path.places.get(p));
        self.missing(residue, gaps)
    }

    fn missing(&self, residue: u64, places: impl Iterator<Item = u64>) -> Missing {
        let mut missing = Missing::default();
        for place in places {
            missing.count += 1;
            if missing.examples.len() < MISSING_SHOWN_MAX {
                missing.examples.push(place * self.endpoints + residue);
            }
        }
        missing
    }
}

#[derive(Debug, Default)]
struct Missing {
    count: u64,
    examples: Vec<u64>,
}

impl Missing {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.examples.extend_from_slice(&other.examples);
        // The least numbers of each path are kept, so the least of all are.
        self.examples.sort_unstable();
        self.examples.truncate(MISSING_SHOWN_MAX);
    }
}
