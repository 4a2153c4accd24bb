//! Posthaste, the webhook delivery engine: everything that touches the world.
//!
//! ```text
//!  log ---> ingest ---> dispatch (shards) ---> send ---> receivers
//!   ^          ^            |      ^
//!   |          +-- tickets -+      |
//!   +-- lane <--- appends --+      +--- owner <--- lane
//! ```
//!
//! [`app`] starts the rooms; [`cli`] is the command line. The state machines
//! are `posthaste-core`'s.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dispatch;
pub mod ingest;
pub mod listen;
pub mod log;
mod operational;
pub mod owner;
pub mod send;
pub mod telemetry;
pub mod vault;
