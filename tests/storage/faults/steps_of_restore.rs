//! A restore from a target that fails at any of its steps: all of it, or nothing and a word why.

use std::fs;
use std::sync::Arc;

use sealift::base::progress::Silent;
use sealift::base::snapshot_choice::SnapshotChoice;
use sealift::restore::open::{Identities, Prompt, SecretString};
use sealift::restore::{self, DatabaseCheck, RestoreError, RestoreReport, RestoreRequest};
use sealift::storage::ErrorKind;

use super::pusher::{Pusher, TARGETS, every_step, run};
use crate::support::tree::describe;
use crate::support::watched_target::Fault;

struct NoAnswer;

impl Prompt for NoAnswer {
    fn passphrase(&self, _: &str) -> Option<SecretString> {
        None
    }
    fn message(&self, _: &str) {}
}

fn restore(
    pusher: &Pusher,
    overwrite: bool,
    fault: Fault,
    kind: ErrorKind,
) -> (Result<RestoreReport, RestoreError>, usize) {
    let (folder, watched) = pusher.watched(TARGETS[0], fault, kind);
    let request = RestoreRequest {
        snapshot: SnapshotChoice::latest(),
        to: pusher.path("place/out"),
        paths: Vec::new(),
        overwrite,
        at_least: None,
        devices: false,
        databases: DatabaseCheck::Repeat,
    };
    let silent: Arc<dyn Prompt> = Arc::new(NoAnswer);
    let identities = Identities::load(&[pusher.path("key.txt")], &silent).unwrap();
    let done = run(async {
        let trust = pusher.trust();
        let plan = restore::plan(&folder, &request, identities.into(), &trust).await?;
        restore::execute(plan, Arc::new(Silent)).await
    });
    (done, watched.calls())
}

fn every_step_of_a_restore(overwrite: bool) {
    let mut pusher = Pusher::new();
    for seed in 0..2 {
        pusher.change(seed);
        pusher.push(Fault::None, ErrorKind::Permanent);
    }
    let place = pusher.path("place");
    let new = describe(&pusher.path("data"));
    let old = ["old"; 1];
    let what = format!(
        "a restore{}",
        if overwrite { " over another tree" } else { "" }
    );
    every_step(&what, |fault, kind| {
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place).unwrap();
        if overwrite {
            fs::create_dir(place.join("out")).unwrap();
            fs::write(place.join("out/old"), old[0]).unwrap();
        }
        let what = format!("{fault:?}, {kind:?}");
        let (done, steps) = restore(&pusher, overwrite, fault, kind);
        if done.is_err() {
            let there = fs::read_dir(&place).unwrap().count();
            assert_eq!(there, usize::from(overwrite), "{what}");
            assert_eq!(place.join("out/old").exists(), overwrite, "{what}");
            restore(&pusher, overwrite, Fault::None, kind).0.unwrap();
        }
        assert_eq!(describe(&place.join("out")), new, "{what}");
        // And the old one, which was moved aside.
        assert_eq!(
            fs::read_dir(&place).unwrap().count(),
            1 + usize::from(overwrite),
            "{what}"
        );
        steps
    });
}

#[test]
fn a_target_that_fails_at_every_step_of_a_restore() {
    every_step_of_a_restore(false);
}

#[test]
fn a_target_that_fails_at_every_step_of_a_restore_over_another_tree() {
    every_step_of_a_restore(true);
}
