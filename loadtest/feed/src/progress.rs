//! A bar on stderr, for people; nothing when stderr is no terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

/// How far the work is.
#[derive(Debug)]
pub(crate) struct Progress {
    total: u64,
    done: AtomicU64,
}

impl Progress {
    /// Nothing of `total` done.
    pub(crate) fn new(total: u64) -> Self {
        Self {
            total,
            done: AtomicU64::new(0),
        }
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// So many are done.
    pub(crate) fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// How many are done.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Does the work and shows how far it is.
    pub(crate) fn shown_while<T>(&self, work: impl FnOnce() -> T) -> T {
        if !std::io::stderr().is_terminal() {
            return work();
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.show_until(&ended));
            let result = work();
            ended.store(true, Ordering::Relaxed);
            result
        })
    }

    fn show_until(&self, ended: &AtomicBool) {
        let start = Instant::now();
        let mut stderr = std::io::stderr();
        loop {
            let over = ended.load(Ordering::Relaxed);
            let line = self.line(start.elapsed());
            // A bar that cannot be shown is no reason to stop.
            let _ = write!(stderr, "\r{line}{}", if over { "\n" } else { "" });
            if over {
                return;
            }
            std::thread::sleep(EVERY);
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let (done, total) = (self.done(), self.total.max(1));
        let full = usize::try_from(WIDTH * done / total).unwrap_or(0);
        let empty = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(full);
        let rate = u128::from(done) * 1_000 / elapsed.as_millis().max(1);
        let percent = done * 100 / total;
        let bar = "#".repeat(full);
        format!(
            "[{bar}{:empty$}] {percent:3}% {done}/{} {rate}/s ",
            "", self.total
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let progress = Progress::new(10);
        for _ in 0..5 {
            progress.step();
        }
        let line = progress.line(Duration::from_millis(500));
        let bar = format!("[{}{}]  50% 5/10 10/s ", "#".repeat(15), " ".repeat(15));
        assert_eq!(line, bar);
        assert!(Progress::new(0).line(Duration::ZERO).contains("0/0 0/s"));
    }
}
