//! The feed as a process: against a broker, and against a server that fails.

#[expect(clippy::unwrap_used, reason = "only tests call it")]
mod broker;
#[expect(clippy::unwrap_used, reason = "only tests call it")]
mod server;

use std::process::{Command, Output};

fn feed(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste-feed"));
    command.args(arguments).output().expect("the feed starts")
}

/// The summary of a feed that succeeded.
fn summary(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("a summary")
}
