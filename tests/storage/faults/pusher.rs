//! A pusher without a command line, to two folders of which one can be watched and made to fail.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sealift::base::ids::{HostName, ObjectKey, Stamp};
use sealift::base::progress::Silent;
use sealift::format::signature::{Signer, Trust};
use sealift::jobs::push::PushReport;
use sealift::jobs::push::PushRequest;
use sealift::jobs::push::Target;
use sealift::jobs::push::push;
use sealift::packer::PackOptions;
use sealift::packer::seal::Recipients;
use sealift::repository::HostFolder;
use sealift::restore::open::generate;
use sealift::storage::{ErrorKind, Storage, TargetSpec, open};

use crate::support::checker::{Published, assert_sound};
use crate::support::files::files;
use crate::support::is_long;
use crate::support::live_snapshot::snapshot;
use crate::support::open_state;
use crate::support::tree::noise;
use crate::support::watched_target::{Fault, Watched};

/// A pusher without a command line: keys, data, a state directory and two folders as targets.
pub struct Pusher {
    dir: tempfile::TempDir,
    pub host: HostName,
    recipients: Arc<Recipients>,
    pub signer: Signer,
    pub stamp: Stamp,
}

pub const TARGETS: [&str; 2] = ["faulty", "healthy"];

impl Pusher {
    pub fn new() -> Self {
        // In memory where there is such a place: flushing is most of what hundreds of pushes do.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let (identity, recipient) = generate();
        fs::write(dir.path().join("key.txt"), identity).unwrap();
        let recipients = Recipients::load(&[recipient], dir.path()).unwrap();
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn folder(&self, target: &str) -> PathBuf {
        self.path(target).join(self.host.as_str())
    }

    /// New content for a few archives.
    pub fn change(&self, seed: u64) {
        let data = self.path("data");
        fs::write(data.join("kept"), "kept").unwrap();
        for n in 0..4 {
            let content = noise(10 * seed + n, 70_000);
            fs::write(data.join(format!("changed-{n}")), content).unwrap();
        }
    }

    /// One push with a state directory that was opened again, where the first target has `fault`. Gives its report, and how
    /// often the first target was asked for something.
    pub fn push(&mut self, fault: Fault, kind: ErrorKind) -> (PushReport, usize) {
        let opened = |name: &str| {
            open(&TargetSpec::from_url(
                &self.path(name).display().to_string(),
            ))
        };
        let faulty = Watched::failing(opened(TARGETS[0]).unwrap(), fault, kind);
        let named = |name: &str, target: Arc<dyn Storage>| Target {
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
        let snapshot = snapshot(self.path("data"), self.stamp);
        let request = PushRequest {
            host: &self.host,
            snapshot: &snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            signer_is_listed: true,
            next_signer: None,
            trust: Trust::Key(self.signer.public_key().clone()),
            targets: &targets,
            next_by: None,
            spool_limit: None,
            resealing: Default::default(),
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
        let mut state = open_state(&self.path("state")).unwrap();
        let report = push(&mut state, &request, Arc::new(Silent));
        (report.unwrap(), faulty.calls())
    }

    /// A push without a fault, after which both targets have all of `snapshots`.
    pub fn converges(&mut self, snapshots: usize, what: &str) {
        let (report, _) = self.push(Fault::None, ErrorKind::Unavailable);
        assert!(report.is_complete(), "{what}: {report:#?}");
        let published = TARGETS.map(|name| assert_sound(&self.folder(name)));
        assert_eq!(published[0].manifests.len(), snapshots, "{what}");
        assert_eq!(published[0], published[1], "{what}");
        let waiting = files(&self.path("state/spool"));
        assert_eq!(waiting, Vec::<PathBuf>::new(), "{what}");
    }

    pub fn trust(&self) -> Trust {
        Trust::Key(self.signer.public_key().clone())
    }

    /// The host's folder on a target, watched.
    pub fn watched(&self, name: &str, fault: Fault, kind: ErrorKind) -> (HostFolder, Arc<Watched>) {
        let spec = TargetSpec::from_url(&self.path(name).display().to_string());
        let watched = Watched::failing(open(&spec).unwrap(), fault, kind);
        let folder = HostFolder::new(watched.clone(), self.host.clone());
        (folder, watched)
    }

    /// What is on a target, where nothing may be wrong, or strange, if it is not `partial`.
    pub fn look(&self, name: &str, partial: bool) -> Published {
        let published = assert_sound(&self.folder(name));
        if !published.manifests.is_empty() {
            let (folder, _) = self.watched(name, Fault::None, ErrorKind::Permanent);
            let chain = run(folder.chain(&self.trust())).unwrap();
            assert!(
                chain.findings.is_empty() || partial,
                "{:#?}",
                chain.findings
            );
        }
        published
    }

    /// Makes a target what another one is.
    pub fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        let _ = fs::remove_dir_all(&to);
        for file in files(&from) {
            let to = to.join(file.strip_prefix(&from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Tries every step of `attempt`, which gives how many there were: with errors of every kind in the long form, else
/// with those of a network.
pub fn every_step(what: &str, mut attempt: impl FnMut(Fault, ErrorKind) -> usize) {
    let steps = attempt(Fault::None, ErrorKind::Unavailable);
    let kinds = match is_long() {
        true => &[
            ErrorKind::Unavailable,
            ErrorKind::Denied,
            ErrorKind::Permanent,
        ][..],
        false => &[ErrorKind::Unavailable],
    };
    let mut points = 0;
    for kind in kinds {
        for step in 0..steps {
            for fault in [Fault::Before(step), Fault::After(step), Fault::From(step)] {
                attempt(fault, *kind);
                points += 1;
            }
        }
    }
    println!("{what}: {steps} steps, {points} points");
}
