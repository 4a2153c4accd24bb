//! Bad input of every kind, given to the real program: each is a clear error
//! that names the thing and what would be right, and nothing is lost by it.

mod config;
mod endpoints;
mod events;
mod folder;
mod kafka;
pub(crate) mod program;
mod requests;
pub(crate) mod tls;
