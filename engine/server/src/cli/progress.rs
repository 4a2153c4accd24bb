//! How far long work is: one line on standard error that renews itself. Where
//! that is no terminal, or nobody asked for words, there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// So often the line moves though nothing is done, to show that it waits.
const TICK_EVERY: Duration = Duration::from_millis(200);
const OPEN: &str = "{spinner} {msg} ({per_sec}, {elapsed})";
const COUNTED: &str = "{spinner} [{bar:30}] {percent}% {msg} ({per_sec}, {eta} left)";

/// A line of progress. It is gone when this is dropped, before anything else is
/// written.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many, where that is known. With `quiet` there is no line.
    pub(crate) fn new(total: Option<u64>, quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            // Hidden too, where it is no terminal.
            false => ProgressDrawTarget::stderr(),
        };
        let progress = Self::on(target, total);
        if !progress.0.is_hidden() {
            progress.0.enable_steady_tick(TICK_EVERY);
        }
        progress
    }

    fn on(target: ProgressDrawTarget, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() { COUNTED } else { OPEN };
        let style = ProgressStyle::with_template(template).expect("a constant, and tested");
        bar.set_style(style.tick_chars("-\\|/ ").progress_chars("=> "));
        Self(bar)
    }

    /// So many are done, which is to say that.
    pub(crate) fn set(&self, done: u64, words: impl Into<String>) {
        self.0.set_message(words.into());
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of one line.
    #[derive(Debug, Clone, Default)]
    struct Line(Arc<Mutex<Vec<String>>>);

    impl Line {
        fn write(&self, text: &str) {
            let mut shown = self.0.lock().unwrap();
            let mut line = shown.pop().unwrap_or_default();
            line.push_str(text);
            shown.push(line);
        }

        fn shown(&self) -> Vec<String> {
            let shown = self.0.lock().unwrap();
            let lines = shown.iter().map(|line| line.trim_end().to_owned());
            lines.filter(|line| !line.is_empty()).collect()
        }
    }

    impl TermLike for Line {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write(text);
            self.0.lock().unwrap().push(String::new());
            Ok(())
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.write(text);
            Ok(())
        }

        /// Only what was cleared before the last look is forgotten.
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().push(String::new());
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn drawn(total: Option<u64>) -> Vec<String> {
        let line = Line::default();
        // As often as it changes.
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(line.clone()), u8::MAX);
        let progress = Progress::on(target, total);
        progress.set(7, "7 redriven");
        progress.0.tick();
        let shown = line.shown();
        drop(progress);
        let after = line.0.lock().unwrap().last().cloned();
        assert_eq!(
            after.as_deref().map(str::trim),
            Some(""),
            "the line is gone"
        );
        shown
    }

    #[test]
    fn it_says_how_far_it_is_and_goes() {
        let shown = drawn(None);
        assert!(
            shown.iter().any(|line| line.contains("7 redriven (")),
            "{shown:?}"
        );
        let shown = drawn(Some(14));
        let half = |line: &String| line.contains("=>") && line.contains("50% 7 redriven (");
        assert!(shown.iter().any(half), "{shown:?}");
    }

    #[test]
    fn there_is_none_for_those_who_want_none() {
        // A test's standard error may be a terminal.
        assert!(Progress::new(None, true).0.is_hidden());
    }
}
