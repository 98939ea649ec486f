//! Thousands of snapshots: what the newest one costs to publish and to read, and what becomes of the pages that tell
//! of the earlier ones.
//!
//! The everyday form has some hundred snapshots, `SEALIFT_TEST_LONG=1` two thousand.

mod commands;
mod looks;
mod mixed_targets;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealift::base::ids::{Hash, HostName, ObjectKey, Stamp};
use sealift::base::progress::Silent;
use sealift::format::chain::{Chain, Finding};
use sealift::format::known::{Directory, KnownPage};
use sealift::format::manifest::{Manifest, ManifestName};
use sealift::format::signature::{Signer, Trust};
use sealift::jobs::push::PushReport;
use sealift::jobs::push::PushRequest;
use sealift::jobs::push::Target;
use sealift::jobs::push::begin_after;
use sealift::jobs::push::push;
use sealift::jobs::repair::{Donor, bring_history, bring_manifest};
use sealift::packer::PackOptions;
use sealift::packer::seal::Recipients;
use sealift::prune::{PruneReport, PruneRequest};
use sealift::repository::HostFolder;
use sealift::restore::open::generate;
use sealift::retention::Policy;
use sealift::scrub::{self, Problem};
use sealift::shipper::sync::{SyncReport, SyncRequest};
use sealift::storage::{Body, PutMode, Storage, TargetSpec, open};

use crate::support::live_snapshot::snapshot;
use crate::support::memory_target::Shelf;
use crate::support::open_state;
use crate::support::watched_target::{Fault, Watched};
use crate::support::{block_on, is_long};

const HOST: &str = "dalidou";

fn host() -> HostName {
    HOST.parse().unwrap()
}

/// A host with one small file, and how it pushes.
struct Pusher {
    dir: tempfile::TempDir,
    recipients: Arc<Recipients>,
    signer: Signer,
    stamp: Stamp,
    count: u64,
    archive_bytes: u64,
    /// The labels of targets that can only be written to.
    write_only: Vec<String>,
}

impl Pusher {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        Self {
            recipients: Recipients::load(&[generate().1], dir.path())
                .unwrap()
                .into(),
            signer: Signer::generate("test").unwrap(),
            stamp: "20200101T000000Z".parse().unwrap(),
            count: 0,
            archive_bytes: PackOptions::default().archive_bytes,
            write_only: Vec::new(),
            dir,
        }
    }

    fn trust(&self) -> Trust {
        Trust::Key(self.signer.public_key().clone())
    }

    /// A file of the source.
    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The next snapshot begins another page.
    fn skip_a_page(&self) {
        let state = open_state(&self.state()).unwrap();
        let head = state
            .catalog
            .snapshots()
            .unwrap()
            .last()
            .map_or(0, |row| row.known.sequence);
        begin_after(&state, head + 64).unwrap();
    }

    fn push(&mut self, targets: &[&Arc<dyn Storage>]) -> PushReport {
        self.count += 1;
        self.stamp = self.stamp.next();
        let data = self.dir.path().join("data");
        fs::write(data.join("file"), self.count.to_string()).unwrap();
        let (host, snapshot) = (host(), snapshot(data, self.stamp));
        let targets: Vec<Target> = targets
            .iter()
            .map(|target| Target {
                // A label is the name, if the target has one, and the URL.
                name: target.label().split(" (").next().unwrap().to_owned(),
                target: Arc::clone(target),
                concurrency: 2,
                write_only: self.write_only.iter().any(|label| label == target.label()),
            })
            .collect();
        let request = PushRequest {
            host: &host,
            snapshot: &snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            signer_is_listed: true,
            next_signer: None,
            trust: self.trust(),
            targets: &targets,
            next_by: None,
            spool_limit: None,
            resealing: Default::default(),
            options: PackOptions {
                threads: 1,
                archive_bytes: self.archive_bytes,
                ..PackOptions::default()
            },
            recovery: Vec::new(),
        };
        let mut state = open_state(&self.state()).unwrap();
        push(&mut state, &request, Arc::new(Silent)).unwrap()
    }

    fn folder(&self, target: &Arc<dyn Storage>) -> HostFolder {
        HostFolder::new(Arc::clone(target), host())
    }

    fn chain(&self, target: &Arc<dyn Storage>) -> Chain {
        block_on(self.folder(target).chain(&self.trust())).unwrap()
    }

    /// Keeps the last `last` snapshots.
    fn prune(&self, target: &Arc<dyn Storage>, last: u32) -> PruneReport {
        let request = PruneRequest {
            folder: self.folder(target),
            trust: self.trust(),
            policy: Policy {
                last,
                ..Policy::default()
            },
            now: self.stamp.time() + chrono::Duration::days(30),
            tags: Default::default(),
            pins: Default::default(),
            gone: false,
            confirmed: true,
            forget: Vec::new(),
            recovery: Vec::new(),
        };
        block_on(async {
            let plan = request.plan().await?;
            request.run(&plan, &self.signer).await
        })
        .unwrap()
    }

    fn sync(&self, from: &Arc<dyn Storage>, to: &Arc<dyn Storage>) -> SyncReport {
        let request = SyncRequest {
            from: self.folder(from),
            to: self.folder(to),
            trust: self.trust(),
            scratch: self.dir.path().to_owned(),
            concurrency: 2,
        };
        block_on(async {
            let plan = request.plan(&[]).await?;
            request.run(plan, &Silent::shared()).await
        })
        .unwrap()
    }

    fn problems(&self, target: &Arc<dyn Storage>) -> Vec<Problem> {
        let now = self.stamp.time();
        let (folder, trust) = (self.folder(target), self.trust());
        let examined = block_on(scrub::examine(&folder, &trust, &[], now));
        examined.unwrap().problems
    }
}

fn as_target(shelf: &Arc<Shelf>) -> Arc<dyn Storage> {
    Arc::clone(shelf) as Arc<dyn Storage>
}

/// Pages of earlier snapshots and directories of them.
fn history(shelf: &Shelf) -> BTreeSet<String> {
    let is_one = |bytes: &Bytes| KnownPage::parse(bytes).is_ok() || Directory::parse(bytes).is_ok();
    let objects = shelf.objects().into_iter();
    let tables = objects.filter(|(key, bytes)| key.contains("/tables/") && is_one(bytes));
    tables.map(|(key, _)| key).collect()
}

/// What manifests name of them, itself or through a directory.
fn named_history(shelf: &Shelf) -> BTreeSet<String> {
    let objects = shelf.objects();
    let key = |name: &Hash| format!("{HOST}/{}", ObjectKey::table(name));
    let mut named = BTreeSet::new();
    for (name, bytes) in &objects {
        let below = name.strip_prefix("dalidou/");
        if below.and_then(ManifestName::from_key).is_none() {
            continue;
        }
        let manifest = Manifest::parse(bytes).unwrap();
        let pages = manifest.core.known.pages().unwrap();
        named.extend(pages.pages.iter().map(key));
        for directory in &pages.directories {
            named.insert(key(directory));
            let inner = Directory::parse(&objects[&key(directory)]).unwrap();
            named.extend(inner.directory.iter().map(key));
        }
    }
    named
}

/// What this process has used of the processor: other processes take their share of the clock's time.
fn processor() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Bytes of what a push puts except archives.
fn small_bytes(before: &Shelf, known: &BTreeSet<String>) -> u64 {
    let objects = before.objects().into_iter();
    let new = objects.filter(|(key, _)| !known.contains(key) && !key.contains("/archives/"));
    new.map(|(_, bytes)| bytes.len() as u64).sum()
}

/// The newest push costs what an early one did in bytes and in requests.
#[test]
fn the_newest_of_many_snapshots_costs_no_more_than_an_early_one() {
    let count = if is_long() { 2000 } else { 150 };
    let shelf = Shelf::new("near", None);
    let mut pusher = Pusher::new();
    let (mut bytes, mut requests) = (HashMap::new(), HashMap::new());
    for n in 1..=count {
        let known: BTreeSet<String> = shelf.objects().into_keys().collect();
        let watched = Watched::new(as_target(&shelf), Fault::None);
        let target: Arc<dyn Storage> = watched.clone();
        let report = pusher.push(&[&target]);
        assert!(report.is_complete(), "{report:?}");
        bytes.insert(n, small_bytes(&shelf, &known));
        requests.insert(n, watched.calls());
    }
    println!(
        "small bytes {} and {}, requests {} and {}",
        bytes[&20], bytes[&count], requests[&20], requests[&count]
    );
    assert!(
        bytes[&count] * 2 <= bytes[&20] * 3,
        "{} {}",
        bytes[&20],
        bytes[&count]
    );
    assert!(
        requests[&count] <= requests[&20] + 2,
        "{} {}",
        requests[&20],
        requests[&count]
    );

    let watched = Watched::new(as_target(&shelf), Fault::None);
    let target: Arc<dyn Storage> = watched.clone();
    let chain = pusher.chain(&target);
    assert_eq!((chain.findings.len(), chain.snapshots.len()), (0, count));
    assert_eq!(chain.known.len(), count - 1);
    let tables = |key: &&(&str, String)| key.1.contains("/tables/");
    let read = watched.done.lock().unwrap().iter().filter(tables).count();
    assert!(read <= count / 64 + 3, "{read} pages of earlier snapshots");
    assert_eq!(shelf.look(HOST).1, [""; 0]);
    assert_eq!(pusher.problems(&target), []);
}

/// Measures processor time, because other processes take their share of the clock's. The goal for
/// the program is 1.5; docs/benchmarks.md has the figure that it reaches.
#[test]
fn the_newest_of_many_snapshots_takes_about_as_long_as_an_early_one() {
    let count = if is_long() { 2000 } else { 60 };
    let mut pusher = Pusher::new();
    let repo = pusher.dir.path().join("repo");
    let target = open(&TargetSpec::from_url(repo.to_str().unwrap())).unwrap();
    let mut times = Vec::new();
    for _ in 0..count {
        let began = processor();
        let report = pusher.push(&[&target]);
        times.push(processor() - began);
        assert!(report.is_complete(), "{report:?}");
    }
    let window = |at: usize| *times[at - 10..(at + 10).min(count)].iter().min().unwrap();
    let (early, late) = (window(20), window(count - 10));
    println!("{early:?} and {late:?}");
    // A release build takes 1.7 times as long (docs/benchmarks.md; the goal is 1.5). The debug build's loops over all
    // snapshots are slower: 3.2 here. Before, when each push looked at every archive, it was 9.
    assert!(late < early * 5, "{early:?} {late:?}");
}

/// After a prune, a push that takes notice and another prune, a page is there if and only if a manifest names it.
#[test]
fn pages_of_earlier_snapshots_go_with_the_last_manifest_that_names_them() {
    let shelf = Shelf::new("near", None);
    let target = as_target(&shelf);
    let mut pusher = Pusher::new();
    for _ in 0..20 {
        pusher.push(&[&target]);
    }
    let all = history(&shelf);
    assert_eq!(all, named_history(&shelf));
    pusher.prune(&target, 3);
    assert_eq!(history(&shelf), all, "no push took notice yet");
    pusher.prune(&target, 3);
    assert_eq!(history(&shelf), all);
    let report = pusher.push(&[&target]);
    assert!(report.is_complete(), "{report:?}");
    pusher.prune(&target, 4);
    let left = history(&shelf);
    assert_eq!(left, named_history(&shelf));
    assert!(left.len() < all.len(), "{} of {}", left.len(), all.len());
    assert_eq!(shelf.look(HOST).1, [""; 0]);
    assert_eq!(pusher.problems(&target), []);
    // Marks are signed, and nothing of them stays.
    let marks = shelf
        .objects()
        .into_keys()
        .filter(|key| key.contains("/marks/"));
    assert_eq!(marks.collect::<Vec<_>>(), [""; 0]);
}

/// A page that was left by a push that died is deleted, too; one whose directory cannot be read is not.
#[test]
fn while_a_directory_cannot_be_read_no_page_is_deleted() {
    let shelf = Shelf::new("near", None);
    let target = as_target(&shelf);
    let mut pusher = Pusher::new();
    for _ in 0..9 {
        pusher.push(&[&target]);
        pusher.skip_a_page();
    }
    pusher.prune(&target, 7);
    pusher.push(&[&target]);
    let newest = pusher.chain(&target).latest().unwrap().manifest.clone();
    let directory = newest.core.known.pages().unwrap().directories[0];
    let directory = format!("{HOST}/{}", ObjectKey::table(&directory));
    let good = shelf.objects()[&directory].clone();
    put(&target, &directory, b"damaged");
    let before = history(&shelf);
    pusher.prune(&target, 8);
    assert_eq!(history(&shelf), before);
    put(&target, &directory, &good);
    pusher.prune(&target, 8);
    assert_eq!(history(&shelf), named_history(&shelf));
    assert!(!before.is_subset(&history(&shelf)));
    assert_eq!(shelf.look(HOST).1, [""; 0]);
}

fn put(target: &Arc<dyn Storage>, key: &str, bytes: &[u8]) {
    let body = Body::Bytes(Bytes::copy_from_slice(bytes));
    block_on(target.put(key, body, PutMode::Replace)).unwrap();
}

/// A sync brings pages, directories and then the manifest; from a side that lacks a page it brings no manifest that
/// names it.
#[test]
fn a_sync_brings_the_pages_before_the_manifest() {
    let (near, far) = (Shelf::new("near", None), Shelf::new("far", None));
    let (from, to) = (as_target(&near), as_target(&far));
    let mut pusher = Pusher::new();
    for _ in 0..5 {
        pusher.push(&[&from]);
    }
    let watched = Watched::new(to.clone(), Fault::None);
    let watched_to: Arc<dyn Storage> = watched.clone();
    let report = pusher.sync(&from, &watched_to);
    assert_eq!((report.copied, report.failed.len()), (5, 0), "{report:?}");
    assert_eq!(history(&near), history(&far));
    assert_eq!(far.look(HOST).1, [""; 0]);
    assert_eq!(pusher.problems(&to), []);
    let puts = watched.puts();
    let place = |part: &str| puts.iter().position(|key| key.contains(part)).unwrap();
    let manifest = |sequence: u64| format!("/manifests/{sequence:08}");
    let last_page = puts
        .iter()
        .rposition(|key| key.contains("/tables/"))
        .unwrap();
    assert!(last_page < place(&manifest(5)) || place(&manifest(1)) < place(&manifest(5)));

    let new = as_target(&Shelf::new("new", None));
    let lost = history(&near).into_iter().next().unwrap();
    block_on(from.delete(&lost)).unwrap();
    let report = pusher.sync(&from, &new);
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert_eq!(pusher.chain(&new).snapshots.len(), 4);
}

/// A page that is damaged or gone is found by every look, keeps nothing from being restored, and comes back from another
/// target.
#[test]
fn a_page_that_is_lost_is_named_and_brought_back() {
    let (near, far) = (Shelf::new("near", None), Shelf::new("far", None));
    let (target, other) = (as_target(&near), as_target(&far));
    let mut pusher = Pusher::new();
    for _ in 0..5 {
        let report = pusher.push(&[&target, &other]);
        assert!(report.is_complete(), "{report:?}");
    }
    let newest = pusher.chain(&target).latest().unwrap().manifest.clone();
    let page = newest.core.known.pages().unwrap().pages[0];
    let key = format!("{HOST}/{}", ObjectKey::table(&page));
    let donor = Donor {
        name: "far".to_owned(),
        folder: pusher.folder(&other),
    };
    for damage in [Some(&b"damaged"[..]), None] {
        match damage {
            Some(bytes) => put(&target, &key, bytes),
            None => block_on(target.delete(&key)).unwrap(),
        }
        let chain = pusher.chain(&target);
        let findings = &chain.findings;
        assert!(
            matches!(findings[..], [Finding::History(..)]),
            "{findings:?}"
        );
        assert_eq!(chain.latest().unwrap().manifest.name(), newest.name());
        let problems = pusher.problems(&target);
        assert!(
            matches!(problems[..], [Problem::History { .. }]),
            "{problems:?}"
        );
        let donors = [donor.clone()];
        block_on(bring_history(&pusher.folder(&target), &page, &donors)).unwrap();
        assert_eq!(pusher.problems(&target), []);
    }
    // With the manifest itself comes what it names.
    for key in near.objects().into_keys() {
        if key.contains("/manifests/00000005") || key.contains("/tables/") {
            block_on(target.delete(&key)).unwrap();
        }
    }
    let signer = pusher.signer.public_key().key_data().clone();
    let accepts = move |key: &ssh_key::PublicKey| *key.key_data() == signer;
    let (folder, name, donors) = (pusher.folder(&target), newest.name(), [donor]);
    let scratch = pusher.dir.path();
    block_on(bring_manifest(&folder, &name, &accepts, &donors, scratch)).unwrap();
    let chain = pusher.chain(&target);
    assert_eq!(chain.findings, []);
}

/// Two targets, of which one was away for a while: it gets each manifest with its pages.
#[test]
fn a_target_that_was_away_gets_the_pages_of_what_it_missed() {
    let (near, far) = (Shelf::new("near", None), Shelf::new("far", None));
    let (target, other) = (as_target(&near), as_target(&far));
    let mut pusher = Pusher::new();
    pusher.push(&[&target, &other]);
    for _ in 0..70 {
        let away: Arc<dyn Storage> = Watched::new(other.clone(), Fault::From(0));
        pusher.push(&[&target, &away]);
    }
    let report = pusher.push(&[&target, &other]);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(history(&near), history(&far));
    assert_eq!(far.look(HOST).1, [""; 0]);
    assert_eq!(pusher.problems(&other), []);
    assert_eq!(spooled(&pusher), BTreeSet::new());
}

fn spooled(pusher: &Pusher) -> BTreeSet<String> {
    let tables = fs::read_dir(pusher.state().join("spool/tables")).unwrap();
    tables
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// A lost state directory, and a target that is new: the pages are made again, and all of them come.
#[test]
fn a_new_state_directory_and_a_new_target_get_all_pages() {
    let near = Shelf::new("near", None);
    let target = as_target(&near);
    let mut pusher = Pusher::new();
    for _ in 0..70 {
        pusher.push(&[&target]);
    }
    fs::remove_dir_all(pusher.state()).unwrap();
    let far = Shelf::new("far", None);
    let other = as_target(&far);
    pusher.push(&[&target, &other]);
    let report = pusher.push(&[&target, &other]);
    assert!(report.is_complete(), "{report:?}");
    for shelf in [&near, &far] {
        assert_eq!(shelf.look(HOST).1, [""; 0]);
    }
    assert_eq!(pusher.problems(&target), []);
    assert_eq!(pusher.chain(&target).known.len(), 71);
}
