//! `restore --in-place` and `rollback`: a running service's data is replaced as a whole, or is what it was.

mod content;
mod damaged;
mod disks;
mod hot;
mod interrupted;
mod outcomes;
mod refusals;
mod rolled_back;

use crate::support::service::Deployment;

/// A check that passes with generation 2 only.
const ONLY_SECOND: &str = "[[check]]\nname = \"second\"\nsql = { database = \"one\", query = \"SELECT value FROM generation\", ge = 2 }";

/// Asserts that the data is the one from before, and that the service runs on it.
fn assert_unchanged(deployment: &Deployment, before: &[String], what: &str) {
    assert_eq!(deployment.generations(), [2, 2, 2, 2], "{what}");
    assert_eq!(deployment.state(), before, "{what}");
    assert!(deployment.is_running(), "{what}");
}

/// The code of the first reason in a report.
fn code(report: &serde_json::Value) -> &str {
    report["because"][0]["code"].as_str().unwrap_or("none")
}
