//! A push to two targets of which one fails at its nth step, for every n: before the step is done, with the step
//! done and its answer lost, or from there on.

use sealift::jobs::push::TargetState;
use sealift::storage::ErrorKind;

use super::pusher::{Pusher, TARGETS};
use crate::support::checker::assert_sound;
use crate::support::watched_target::Fault;

/// Tries every step of a push that comes after `earlier` good ones.
fn every_step_of_a_push(earlier: usize, kind: ErrorKind) {
    every_step(earlier, kind, |step| {
        vec![Fault::Before(step), Fault::After(step), Fault::From(step)]
    });
}

fn every_step(earlier: usize, kind: ErrorKind, faults: impl Fn(usize) -> Vec<Fault>) {
    let prepare = || {
        let mut pusher = Pusher::new();
        for n in 0..earlier {
            pusher.change(n as u64);
            pusher.push(Fault::None, kind);
        }
        pusher.change(100);
        pusher
    };
    let (report, steps) = prepare().push(Fault::None, kind);
    assert!(
        report.is_complete() && steps >= 10,
        "{steps} steps: {report:#?}"
    );
    let mut points = 0;
    for step in 0..steps {
        for fault in faults(step) {
            let what = format!("{fault:?} of {steps}, {kind:?}, after {earlier} pushes");
            let mut pusher = prepare();
            let (report, _) = pusher.push(fault, kind);
            let [faulty, healthy] = &report.targets[..] else {
                panic!("{what}: {report:#?}");
            };
            assert_eq!(healthy.state, TargetState::Published, "{what}");
            if let TargetState::Behind(cause) = &faulty.state {
                assert!(cause.contains("made to fail"), "{what}: {cause}");
            }
            let published = TARGETS.map(|name| assert_sound(&pusher.folder(name)));
            assert_eq!(published[1].manifests.len(), earlier + 1, "{what}");
            pusher.change(101);
            pusher.converges(earlier + 2, &what);
            points += 1;
        }
    }
    println!("{kind:?} after {earlier} pushes: {steps} steps, {points} points");
}

#[test]
fn an_unavailable_target_at_every_step_of_a_first_push() {
    every_step_of_a_push(0, ErrorKind::Unavailable);
}

#[test]
fn an_unavailable_target_at_every_step_of_a_second_push() {
    every_step_of_a_push(1, ErrorKind::Unavailable);
}

#[test]
fn a_target_that_denies_at_every_step_of_a_push() {
    every_step_of_a_push(0, ErrorKind::Denied);
    every_step_of_a_push(1, ErrorKind::Denied);
}

#[test]
fn a_target_that_fails_for_good_at_every_step_of_a_push() {
    every_step_of_a_push(0, ErrorKind::Permanent);
    every_step_of_a_push(1, ErrorKind::Permanent);
}

/// Whatever is behind a target may panic, and so may what we do with its answers.
#[test]
fn a_target_that_panics_at_every_step_of_a_push() {
    for earlier in [0, 1] {
        every_step(earlier, ErrorKind::Permanent, |step| {
            vec![Fault::Panic(step), Fault::PanicFrom(step)]
        });
    }
}
