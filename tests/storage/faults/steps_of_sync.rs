//! A copy from target to target where either side fails at any of its steps: what arrives is whole, and the next
//! run brings the rest.

use std::fs;
use std::path::PathBuf;

use sealift::base::progress::Silent;
use sealift::shipper::ShipError;
use sealift::shipper::sync::{SyncReport, SyncRequest};
use sealift::storage::ErrorKind;

use super::pusher::{Pusher, TARGETS, every_step, run};
use crate::support::files::files;
use crate::support::watched_target::Fault;

const COPY: &str = "copy";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

fn sync(
    pusher: &Pusher,
    failing: Side,
    fault: Fault,
    kind: ErrorKind,
) -> (Result<SyncReport, ShipError>, usize) {
    let fault_of = |side| if side == failing { fault } else { Fault::None };
    let (from, read) = pusher.watched(TARGETS[1], fault_of(Side::From), kind);
    let (to, written) = pusher.watched(COPY, fault_of(Side::To), kind);
    let request = SyncRequest {
        trust: pusher.trust(),
        from,
        to,
        scratch: pusher.path("scratch"),
        concurrency: 2,
    };
    let done = run(async {
        let plan = request.plan(&[]).await?;
        request.run(plan, &Silent::shared()).await
    });
    let calls = match failing {
        Side::From => read.calls(),
        Side::To => written.calls(),
    };
    (done, calls)
}

fn every_step_of_a_sync(failing: Side) {
    let mut pusher = Pusher::new();
    fs::create_dir(pusher.path("scratch")).unwrap();
    fs::create_dir(pusher.path("template")).unwrap();
    for seed in 0..3 {
        pusher.change(seed);
        pusher.push(Fault::None, ErrorKind::Permanent);
        if seed == 0 {
            pusher.copy(TARGETS[1], "template");
        }
    }
    let all = pusher.look(TARGETS[1], false);
    every_step(&format!("a sync, {failing:?}"), |fault, kind| {
        pusher.copy("template", COPY);
        let what = format!("{fault:?}, {kind:?}");
        let (done, steps) = sync(&pusher, failing, fault, kind);
        let is_partial = done
            .as_ref()
            .is_ok_and(|done| !done.failed.is_empty() || !done.unread.is_empty());
        let there = pusher.look(COPY, is_partial);
        assert!(there.manifests.is_subset(&all.manifests), "{what}");
        if done.is_ok() && !is_partial {
            assert_eq!(there, all, "{what}");
        }
        sync(&pusher, failing, Fault::None, kind).0.unwrap();
        assert_eq!(pusher.look(COPY, false), all, "{what}");
        assert_eq!(
            files(&pusher.path("scratch")),
            Vec::<PathBuf>::new(),
            "{what}"
        );
        steps
    });
}

#[test]
fn a_target_that_fails_at_every_step_of_a_sync_from_it() {
    every_step_of_a_sync(Side::From);
}

#[test]
fn a_target_that_fails_at_every_step_of_a_sync_to_it() {
    every_step_of_a_sync(Side::To);
}
