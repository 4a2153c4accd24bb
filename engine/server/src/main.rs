//! Posthaste.
fn main() {}
