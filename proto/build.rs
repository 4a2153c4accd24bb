//! Generates the wire types with a pure-Rust protobuf compiler, so that a build
//! needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=posthaste/log.proto");
    let files = protox::compile(["posthaste/log.proto"], ["."])?;
    prost_build::Config::new()
        .bytes(["."])
        // They hold secrets: lib.rs gives them a Debug that shows none.
        .skip_debug([
            ".posthaste.log.Secret",
            ".posthaste.log.Header",
            ".posthaste.log.ApiKey",
        ])
        .compile_fds(files)?;
    Ok(())
}
