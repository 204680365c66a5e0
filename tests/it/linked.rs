//! Which job types a binary has. They are linked in without being named, so that losing one is no compile error.

use crate::support::app;
use coremachine::contract::registry::Registry;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn the_tests_have_their_own_job_types_beside_those_that_ship() {
    let registry = Registry::linked().unwrap();
    assert_eq!(registry.names(), ["hello_world", "list_container", "scripted", "word_count"]);
}

#[test]
fn the_binary_has_the_job_types_that_ship() {
    assert_eq!(shipped(), ["hello_world", "list_container"]);
}

#[test]
fn the_packaged_binary_has_the_job_types_that_ship() {
    assert_eq!(job_types_of(&app::folder().join("coremachine")), shipped());
}

/// The job types that ship, by name.
pub(crate) fn shipped() -> Vec<String> {
    job_types_of(Path::new(env!("CARGO_BIN_EXE_coremachine")))
}

fn job_types_of(binary: &Path) -> Vec<String> {
    let output = Command::new(binary).args(["job-types", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let job_type = |line: &str| serde_json::from_str::<Value>(line).unwrap()["job_type"].as_str().unwrap().to_owned();
    lines.lines().map(job_type).collect()
}
