//! What holds only where several rooms, or a real disk or broker, meet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod contract;
mod access;
mod again;
mod alone;
mod cli;
mod commands;
mod concurrent;
mod dead;
mod deliveries;
mod dev;
mod embedded;
mod event_types;
mod fields;
mod filters;
mod health;
mod idempotency;
mod instances;
mod kafka;
mod leaks;
mod listen;
mod operations;
mod ordered;
mod outage;
mod owed;
mod pause;
mod pull;
mod ranges;
mod receiver;
mod refusals;
mod replay;
mod retention;
mod retry_policies;
mod secrets;
mod sources;
mod tenants;
mod verification;
