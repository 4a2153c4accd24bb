//! Where it is shown: a terminal that is drawn over, or lines.

use std::io::{IsTerminal as _, stdout};

use crate::cli::out::{self, write};

/// Alternate screen, no cursor, no wrapping of long lines (xterm's control
/// sequences; every terminal of today knows them).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// All of that undone.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How deliveries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// A table that is drawn again and again.
    Table,
    /// One plain line an attempt.
    Lines,
    /// One JSON line an attempt.
    Json,
}

impl Face {
    pub(super) fn choose(json: bool) -> Self {
        if json {
            Self::Json
        } else if stdout().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb") {
            Self::Table
        } else {
            Self::Lines
        }
    }
}

/// A terminal under our hands; dropping it gives it back.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn enter() -> std::io::Result<Self> {
        write(ENTER)?;
        Ok(Self(()))
    }

    /// Draws over what is there. Each line is placed, so that a screen with
    /// too few lines does not scroll.
    pub(super) fn draw(&self, lines: &[String]) -> std::io::Result<()> {
        let mut out = String::new();
        for (place, line) in lines.iter().enumerate() {
            out.push_str(&format!("\x1b[{};1H{line}\x1b[K", place + 1));
        }
        write(&out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = write(LEAVE);
    }
}

/// One line to standard output, at once.
pub(super) fn say(line: &str) -> std::io::Result<()> {
    out::line(line)
}
