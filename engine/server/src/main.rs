//! The `posthaste` command.

use std::process::ExitCode;

use clap::Parser as _;
use posthaste::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    posthaste::cli::run(Cli::parse())
}
