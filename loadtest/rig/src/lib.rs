//! The load test's rig: starts broker, engine, sink and feed as processes of
//! their own, and holds the engine to what it must show.
//!
//! ```text
//!  feed ---> Kafka, or the engine's HTTP ingest
//!                |
//!             engine (killed, drained, watched) ---> sink (verifies, counts)
//! ```
//!
//! Nothing is mocked: what runs here is what users run. Figures are ratios
//! within one run, since machines differ and are shared.

pub mod broker;
pub mod dice;
pub mod engine;
pub mod feed;
pub mod http;
pub mod process;
pub mod scenario;
pub mod sink;

/// The signing secret of all endpoints.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Endpoints of the canonical workload.
pub const ENDPOINTS: u64 = 100;
