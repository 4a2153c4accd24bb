//! The embedded log's folder: damaged, taken, or not one.

use std::path::Path;

use super::program::{Refused, Server, embedded};

fn refused(dir: &Path) -> Refused {
    Refused::serve(&embedded(dir))
}

#[test]
fn a_file_that_is_not_the_log_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posthaste.db");
    let garbage = "not a log\n".repeat(5_000);
    std::fs::write(&file, &garbage).unwrap();
    refused(dir.path()).expect(1, &["log: ", file.to_str().unwrap(), "is damaged"]);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept == garbage, "the file was written to");
}

#[test]
fn a_folder_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(&embedded(dir.path()));
    let path = dir.path().to_str().unwrap();
    refused(dir.path()).expect(1, &["log: ", path, "is in use", "expected another folder"]);
    assert_eq!(first.api.call("GET", "/readyz", "", b"").status, 200);
    first.stop();
    Server::start(&embedded(dir.path())).stop();
}

#[test]
fn what_cannot_be_a_folder_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("data");
    for path in [file.path(), &inside] {
        refused(path).expect(1, &["log: ", path.to_str().unwrap(), "expected a folder"]);
    }
    // A folder stands where the file would be.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("posthaste.db")).unwrap();
    refused(dir.path()).expect(1, &["log: ", dir.path().to_str().unwrap(), "posthaste.db"]);
}
