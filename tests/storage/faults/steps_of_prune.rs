//! A prune of a target that fails at any of its steps: what stays is whole, and the next one ends it.

use std::collections::BTreeSet;
use std::path::Path;

use sealift::prune::{PruneError, PruneReport, PruneRequest};
use sealift::retention::Policy;
use sealift::storage::ErrorKind;

use super::pusher::{Pusher, TARGETS, every_step, run};
use crate::support::files::files;
use crate::support::watched_target::Fault;

/// Keys; of marks and tombstones, whose names are random or dated, only how many.
fn held(folder: &Path) -> (BTreeSet<String>, usize) {
    let below = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    let all: BTreeSet<String> = files(folder).iter().map(|path| below(path)).collect();
    let is_statement = |key: &String| key.starts_with("marks/") || key.starts_with("tombstones/");
    let (statements, named): (BTreeSet<String>, BTreeSet<String>) =
        all.into_iter().partition(is_statement);
    (named, statements.len())
}

/// Leaves the two newest; gives how often the target was asked for something, too.
fn prune(
    pusher: &Pusher,
    fault: Fault,
    kind: ErrorKind,
) -> (Result<PruneReport, PruneError>, usize) {
    let (folder, watched) = pusher.watched(TARGETS[0], fault, kind);
    let request = PruneRequest {
        folder,
        trust: pusher.trust(),
        policy: Policy {
            last: 2,
            ..Policy::default()
        },
        forget: Vec::new(),
        now: pusher.stamp.time() + chrono::Duration::hours(1),
        tags: Default::default(),
        pins: Default::default(),
        gone: false,
        confirmed: true,
        recovery: Vec::new(),
    };
    let done = run(async {
        let plan = request.plan().await?;
        request.run(&plan, &pusher.signer).await
    });
    (done, watched.calls())
}

/// Snapshots that were forgotten before, whose archives are free to go; two to forget, and two that stay.
#[test]
fn a_target_that_fails_at_every_step_of_a_prune() {
    let mut pusher = Pusher::new();
    for seed in 0..6 {
        if seed == 4 {
            prune(&pusher, Fault::None, ErrorKind::Permanent).0.unwrap();
        }
        pusher.change(seed);
        let (report, _) = pusher.push(Fault::None, ErrorKind::Permanent);
        assert!(report.is_complete() || seed > 3, "{report:#?}");
    }
    pusher.copy(TARGETS[0], "template");
    let before = held(&pusher.path("template/dalidou")).0;
    let (done, _) = prune(&pusher, Fault::None, ErrorKind::Permanent);
    let done = done.unwrap();
    assert!(
        done.swept_archives > 0 && done.marked_archives > 0,
        "{done:#?}"
    );
    let after = held(&pusher.folder(TARGETS[0]));
    let is_manifest = |key: &&String| key.ends_with(".json") && key.starts_with("manifests/");
    assert_eq!(before.iter().filter(is_manifest).count(), 4);
    every_step("a prune", |fault, kind| {
        pusher.copy("template", TARGETS[0]);
        let what = format!("{fault:?}, {kind:?}");
        let (done, steps) = prune(&pusher, fault, kind);
        let published = pusher.look(TARGETS[0], false);
        assert!(published.manifests.len() >= 2, "{what}: {published:#?}");
        let now = held(&pusher.folder(TARGETS[0]));
        assert!(
            now.0.is_superset(&after.0) && now.0.is_subset(&before),
            "{what}: {now:#?}"
        );
        // A mark that may not be read is as if it were not there.
        let all_read = kind == ErrorKind::Unavailable || fault == Fault::None;
        if all_read && done.is_ok_and(|done| done.stuck.is_empty()) {
            assert_eq!(now, after, "{what}");
        }
        prune(&pusher, Fault::None, kind).0.unwrap();
        assert_eq!(held(&pusher.folder(TARGETS[0])), after, "{what}");
        pusher.look(TARGETS[0], false);
        steps
    });
}
