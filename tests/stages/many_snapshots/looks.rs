//! What a push looks at on a target of many archives: every archive that the new snapshot may
//! reuse, and a share of the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sealift::jobs::push::PushReport;
use sealift::scrub::Problem;
use sealift::storage::{Storage, TargetSpec, open};

use super::{HOST, Pusher};
use crate::support::watched_target::{Fault, Watched};

/// Number of files of the first snapshot, each in an archive of its own. A push looks at all of at
/// most 256 archives.
const FILES: usize = 600;
pub(super) const MOST_PUSHES: usize = 16;

/// A host whose folder holds many archives that only its first snapshot needs.
pub(super) struct Many {
    pub(super) pusher: Pusher,
    pub(super) target: Arc<dyn Storage>,
    first: Vec<PathBuf>,
}

impl Many {
    fn new() -> Self {
        Self::with(Pusher::new(), &[])
    }

    /// `others` get every snapshot too.
    pub(super) fn with(mut pusher: Pusher, others: &[&Arc<dyn Storage>]) -> Self {
        pusher.archive_bytes = 1;
        let repo = pusher.dir.path().join("repo");
        let target = open(&TargetSpec::from_url(repo.to_str().unwrap())).unwrap();
        let targets = [&[&target], others].concat();
        for n in 0..FILES {
            fs::write(pusher.data(&n.to_string()), content(n)).unwrap();
        }
        pusher.push(&targets);
        for n in 1..FILES {
            fs::remove_file(pusher.data(&n.to_string())).unwrap();
        }
        let mut many = Self {
            pusher,
            target: target.clone(),
            first: Vec::new(),
        };
        many.first = many.archives();
        let report = many.pusher.push(&targets);
        assert!(report.is_complete(), "{report:?}");
        many
    }

    fn archives(&self) -> Vec<PathBuf> {
        let folder = self.pusher.dir.path().join("repo").join(HOST);
        let shards = fs::read_dir(folder.join("archives")).unwrap();
        let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    fn push(&mut self) -> PushReport {
        let target = self.target.clone();
        self.pusher.push(&[&target])
    }

    fn push_well(&mut self) -> PushReport {
        let report = self.push();
        assert!(report.is_complete(), "{report:?}");
        report
    }

    /// The archives that the newest snapshot needs.
    fn needed(&self) -> Vec<PathBuf> {
        let chain = self.pusher.chain(&self.target);
        let folder = self.pusher.folder(&self.target);
        let table =
            crate::support::block_on(folder.table(&chain.latest().unwrap().manifest)).unwrap();
        let root = self.pusher.dir.path().join("repo").join(HOST);
        let keys = table.rows.values().map(|row| row.key());
        keys.map(|key| root.join(key.as_str())).collect()
    }

    /// An archive that the newest snapshot needs, and the next one too.
    fn lasting(&mut self) -> PathBuf {
        let before = self.needed();
        self.push_well();
        let mut now = self.needed().into_iter();
        now.find(|path| before.contains(path)).unwrap()
    }

    /// An archive that only the first snapshot needs.
    pub(super) fn old(&self) -> PathBuf {
        let needed = self.needed();
        let old = self.first.iter().find(|path| !needed.contains(path));
        old.unwrap().clone()
    }
}

/// Returns a content that is long enough for an archive that is not mostly headers: such an archive
/// would be packed again.
pub(super) fn content(n: usize) -> String {
    let lines = (0..500).map(|line| format!("line {line} of file {n} of the first snapshot\n"));
    lines.collect()
}

fn reports_a_loss(report: &PushReport) -> bool {
    let mut warnings = report.warnings.iter();
    warnings.any(|text| text.contains("lost 1 of the archives it had"))
}

#[test]
fn within_sixteen_pushes_every_archive_is_looked_at() {
    let mut many = Many::new();
    let (mut seen, mut most) = (BTreeSet::new(), 0);
    for _ in 0..MOST_PUSHES {
        let watched = Watched::new(many.target.clone(), Fault::None);
        let target: Arc<dyn Storage> = watched.clone();
        assert!(many.pusher.push(&[&target]).is_complete());
        let done = watched.done.lock().unwrap();
        let listed = done.iter().filter(|(what, _)| *what == "list");
        let shards: BTreeSet<String> = listed
            .filter_map(|(_, key)| Some(key.split_once("/archives/")?.1.to_owned()))
            .collect();
        most = most.max(shards.len());
        seen.extend(shards);
    }
    // The publication lists all of `archives/` through this wrapper.
    seen.remove("");
    assert_eq!(seen.len(), 256);
    assert!(most < 200, "{most} shards at once");
}

#[test]
fn an_archive_of_an_earlier_snapshot_that_is_lost_is_reported_within_sixteen_pushes() {
    let mut many = Many::new();
    for damage in ["deleted", "cut short"] {
        let lost = many.old();
        match damage {
            "deleted" => fs::remove_file(&lost).unwrap(),
            _ => fs::write(&lost, b"short").unwrap(),
        }
        many.first.retain(|path| *path != lost);
        let name = lost.file_name().unwrap().to_string_lossy();
        // `verify` reports it at once.
        let problems = many.pusher.problems(&many.target);
        let names_it = |problem: &Problem| problem.to_string().contains(&name[..12]);
        assert!(problems.iter().any(names_it), "{damage}: {problems:?}");
        let reported = (0..MOST_PUSHES).find(|_| reports_a_loss(&many.push()));
        assert!(reported.is_some(), "{damage}: no push reported it");
        for _ in 0..MOST_PUSHES {
            many.push_well();
        }
    }
}

#[test]
fn every_push_looks_at_the_archives_that_the_new_snapshot_may_reuse() {
    let mut many = Many::new();
    for damage in ["deleted", "cut short"] {
        let lost = many.lasting();
        match damage {
            "deleted" => fs::remove_file(&lost).unwrap(),
            _ => fs::write(&lost, b"short").unwrap(),
        }
        let report = many.push();
        assert!(reports_a_loss(&report), "{damage}: {report:?}");
        assert!(report.is_published_somewhere());
        assert!(!many.needed().contains(&lost), "{damage}");
        many.push_well();
    }
}

#[test]
fn content_that_comes_back_reuses_an_archive_only_if_the_target_has_it() {
    let mut many = Many::new();
    let restored = ["17", "18", "19"];
    for n in restored {
        fs::write(many.pusher.data(n), content(n.parse().unwrap())).unwrap();
    }
    let report = many.push_well();
    let new_file = report.totals.new_bytes;
    assert!(new_file < content(17).len() as u64, "{new_file} bytes");
    for n in restored {
        fs::remove_file(many.pusher.data(n)).unwrap();
    }
    many.push_well();
    // All that the first snapshot needed, except what the newest needs as well.
    let needed = many.needed();
    for path in many.first.iter().filter(|path| !needed.contains(path)) {
        fs::remove_file(path).unwrap();
    }
    for n in restored {
        fs::write(many.pusher.data(n), content(n.parse().unwrap())).unwrap();
    }
    let report = many.push();
    assert!(report.is_published_somewhere(), "{report:?}");
    assert!(report.totals.new_bytes > 3 * content(17).len() as u64);
    let incomplete = many.needed().into_iter().find(|path| !path.is_file());
    assert_eq!(incomplete, None);
}

/// The second target fails from some request on: at the first look, at the later one, or afterwards.
#[test]
fn a_target_that_fails_on_the_way_does_not_cost_the_reuse() {
    let mut many = Many::new();
    let second = many.pusher.dir.path().join("second");
    let second = open(&TargetSpec::from_url(second.to_str().unwrap())).unwrap();
    many.pusher.sync(&many.target, &second);
    let target = many.target.clone();
    let mut failed = 0;
    for request in (0..).step_by(3) {
        for _ in 0..2 {
            let report = many.pusher.push(&[&target, &second]);
            assert!(report.is_complete(), "{report:?}");
        }
        fs::write(many.pusher.data("17"), content(17)).unwrap();
        let watched = Watched::new(second.clone(), Fault::From(request));
        let failing: Arc<dyn Storage> = watched.clone();
        let report = many.pusher.push(&[&target, &failing]);
        assert!(report.is_published_somewhere(), "{request}: {report:?}");
        let new_bytes = report.totals.new_bytes;
        assert!(new_bytes < 1000, "{request}: {new_bytes} bytes are new");
        fs::remove_file(many.pusher.data("17")).unwrap();
        if report.is_complete() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
}
