//! Posthaste, the webhook delivery engine: everything that touches the world.

pub mod log;
