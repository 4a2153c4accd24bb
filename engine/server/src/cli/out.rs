//! The one way to standard output. `println!` panics where nobody reads any
//! further, as behind `| head`; this ends the command instead.

use std::fmt::Display;
use std::io::{Error, ErrorKind, Result, Write as _, stdout};

/// Nobody reads standard output any further.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any further")]
struct Closed;

/// Writes a text, at once.
pub(super) fn write(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::new(ErrorKind::BrokenPipe, Closed),
        kind => Error::new(kind, format!("standard output: {error}")),
    })
}

/// Writes a text and the end of its line, at once.
pub(super) fn line(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Whether a command ended because nobody reads what it says.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<Error>();
    let inner = io.and_then(Error::get_ref);
    inner.is_some_and(|inner| inner.is::<Closed>())
}
