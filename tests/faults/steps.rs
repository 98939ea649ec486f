//! A push to two targets of which one fails at its nth step, for every n: before the step is done, with the step
//! done and its answer lost, or from there on.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sealift::agent::{NamedTarget, PushReport, PushRequest, Reporter, State, TargetState, push};
use sealift::ids::{HostName, ObjectKey, Stamp};
use sealift::index::ValidationRecord;
use sealift::manifest::signature::{Signer, Trust};
use sealift::packer::seal::Recipients;
use sealift::packer::{PackOptions, PackProgress};
use sealift::restore::open::generate;
use sealift::snapshot::{Part, Snapshot};
use sealift::target::{ErrorKind, Target, TargetSpec, open};
use sealift::walk::Filter;

use crate::checker::assert_sound;
use crate::host::files;
use crate::tree::noise;
use crate::watched::{Fault, Watched};

struct Silent;

impl Reporter for Silent {
    fn shipped(&self, _: &str, _: u64) {}
    fn stage(&self, _: &str) {}
}

/// Whoever pushes, without a command line: keys, data, a state directory and two folders as targets.
struct Pusher {
    dir: tempfile::TempDir,
    host: HostName,
    recipients: Arc<Recipients>,
    signer: Signer,
    stamp: Stamp,
}

const TARGETS: [&str; 2] = ["faulty", "healthy"];

impl Pusher {
    fn new() -> Self {
        // In memory where there is such a place: flushing is most of what hundreds of pushes do.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let recipients = Recipients::load(&[generate().1], dir.path()).unwrap();
        let pusher = Self {
            dir,
            host: "dalidou".parse().unwrap(),
            recipients: recipients.into(),
            signer: Signer::generate("test").unwrap(),
            stamp: "20260407T060000Z".parse().unwrap(),
        };
        pusher.change(0);
        pusher
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn folder(&self, target: &str) -> PathBuf {
        self.path(target).join(self.host.as_str())
    }

    /// New content for a few archives.
    fn change(&self, seed: u64) {
        let data = self.path("data");
        fs::write(data.join("kept"), "kept").unwrap();
        for n in 0..4 {
            let content = noise(10 * seed + n, 70_000);
            fs::write(data.join(format!("changed-{n}")), content).unwrap();
        }
    }

    /// One push with a state directory opened anew, where the first target has `fault`. Gives its report, and how
    /// often the first target was asked for something.
    fn push(&mut self, fault: Fault, kind: ErrorKind) -> (PushReport, usize) {
        let opened = |name: &str| {
            open(&TargetSpec::from_url(
                &self.path(name).display().to_string(),
            ))
        };
        let faulty = Watched::failing(opened(TARGETS[0]).unwrap(), fault, kind);
        let named = |name: &str, target: Arc<dyn Target>| NamedTarget {
            name: name.to_owned(),
            target,
            concurrency: 2,
            write_only: false,
        };
        let targets = [
            named(TARGETS[0], faulty.clone()),
            named(TARGETS[1], opened(TARGETS[1]).unwrap()),
        ];
        self.stamp = self.stamp.next();
        let snapshot = self.snapshot();
        let request = PushRequest {
            host: &self.host,
            snapshot: &snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            next_signer: None,
            trust: Trust::Key(self.signer.public_key().clone()),
            targets: &targets,
            next_by: None,
            spool_limit: None,
            options: PackOptions {
                archive_bytes: 64 << 10,
                threads: 1,
                ..PackOptions::default()
            },
            recovery: vec![(
                ObjectKey::fixed("RECOVER.md"),
                Bytes::from_static(b"how to"),
            )],
        };
        let mut state = State::open(&self.path("state")).unwrap();
        let report = push(
            &mut state,
            &request,
            &PackProgress::default(),
            Arc::new(Silent),
        );
        (report.unwrap(), faulty.calls())
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            stamp: self.stamp,
            parts: vec![Part {
                to: Vec::new(),
                root: self.path("data"),
                filter: Filter::everything(),
                staged: false,
            }],
            tags: Vec::new(),
            note: None,
            sources: Vec::new(),
            validation: ValidationRecord {
                valid: true,
                checked_at: self.stamp.time(),
                errors: Vec::new(),
            },
            databases: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// A push without a fault, after which both targets have all of `snapshots`.
    fn converges(&mut self, snapshots: usize, what: &str) {
        let (report, _) = self.push(Fault::None, ErrorKind::Unavailable);
        assert!(report.is_complete(), "{what}: {report:#?}");
        let published = TARGETS.map(|name| assert_sound(&self.folder(name)));
        assert_eq!(published[0].manifests.len(), snapshots, "{what}");
        assert_eq!(published[0], published[1], "{what}");
        let waiting = files(&self.path("state/spool"));
        assert_eq!(waiting, Vec::<PathBuf>::new(), "{what}");
    }
}

/// Tries every step of a push that comes after `earlier` good ones.
fn every_step_of_a_push(earlier: usize, kind: ErrorKind) {
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
        for fault in [Fault::Before(step), Fault::After(step), Fault::From(step)] {
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
