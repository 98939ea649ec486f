//! Pushes to several targets of which each is looked at in another way: in part (a folder), whole
//! (a target that lists everything at once), or from memory (one that can only be written to).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sealift::storage::{Storage, TargetSpec, open};

use super::looks::{MOST_PUSHES, Many, content};
use super::{HOST, Pusher, as_target, put};
use crate::support::files::files;
use crate::support::memory_target::Shelf;
use crate::support::open_state;
use crate::support::watched_target::{Fault, Watched};

/// The folder, which is looked at in part, was away, and the spool lost what it lacks. The probe of the other target reads
/// one of these archives: not one of the many that were not looked at.
#[test]
fn an_archive_that_was_not_looked_at_does_not_count_as_lacking() {
    let shelf = as_target(&Shelf::new("shelf", None));
    let mut many = Many::with(Pusher::new(), &[&shelf]);
    let target = many.target.clone();
    fs::write(many.pusher.data("extra"), content(FIRST_EXTRA)).unwrap();
    let away: Arc<dyn Storage> = Watched::new(target.clone(), Fault::From(0));
    many.pusher.push(&[&away, &shelf]);
    let spooled = files(&many.pusher.state().join("spool/archives"));
    assert!(!spooled.is_empty());
    for file in &spooled {
        fs::remove_file(file).unwrap();
    }
    let watched = Watched::new(shelf, Fault::None);
    let through: Arc<dyn Storage> = watched.clone();
    let report = many.pusher.push(&[&target, &through]);
    let done = watched.done.lock().unwrap();
    let is_read =
        |(what, key): &&(&str, String)| what.starts_with("get") && key.contains("/archives/");
    let (_, probed) = done.iter().find(is_read).unwrap();
    let is_it =
        |file: &std::path::PathBuf| probed.ends_with(file.file_name().unwrap().to_str().unwrap());
    assert!(
        spooled.iter().any(is_it),
        "{probed} is none of {spooled:?}: {report:?}"
    );
}

/// The folder lost an archive, and got it back by hand. Then the other target loses it.
#[test]
fn an_archive_that_a_target_may_have_is_not_forgotten() {
    let shelf = as_target(&Shelf::new("shelf", None));
    let mut many = Many::with(Pusher::new(), &[&shelf]);
    let target = many.target.clone();
    let old = many.old();
    let bytes = fs::read(&old).unwrap();
    fs::remove_file(&old).unwrap();
    let is_noticed = |_: &usize| !many.pusher.push(&[&target, &shelf]).warnings.is_empty();
    assert!((0..MOST_PUSHES).find(is_noticed).is_some());
    // This one takes the share that the archive belongs to, so the next one does not.
    many.pusher.push(&[&target, &shelf]);
    fs::write(&old, &bytes).unwrap();
    let root = many.pusher.dir.path().join("repo");
    let key = old
        .strip_prefix(&root)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    put(&shelf, &key, b"cut short");
    many.pusher.push(&[&target, &shelf]);
    let state = open_state(&many.pusher.state()).unwrap();
    let archives = state.catalog.archives().unwrap();
    let is_it = |key_of_it: &str| key == format!("{HOST}/{key_of_it}");
    assert!(
        archives
            .iter()
            .any(|archive| is_it(archive.row.key().as_str()))
    );
}

fn archives_below(repo: &Path) -> usize {
    let shards = fs::read_dir(repo.join(HOST).join("archives")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    files.count()
}

/// A snapshot whose archives the target confirmed and whose manifest it did not get is forgotten elsewhere. The next
/// push follows the prune mark, and knows still what the target has.
#[test]
fn a_write_only_target_gets_nothing_twice_after_a_prune_elsewhere() {
    let mut pusher = Pusher::new();
    let blind = pusher.dir.path().join("blind");
    let open_blind = || open(&TargetSpec::from_url(blind.to_str().unwrap())).unwrap();
    pusher.write_only = vec![open_blind().label().to_owned()];
    sealift::jobs::push::begin_after(&open_state(&pusher.state()).unwrap(), 0).unwrap();
    let mut many = Many::with(pusher, &[&open_blind()]);
    let target = many.target.clone();
    let add = |many: &Many, n: usize| {
        fs::write(many.pusher.data("extra"), content(FIRST_EXTRA + n)).unwrap();
    };
    // How many requests such a push takes.
    add(&many, 0);
    let counted = Watched::new(open_blind(), Fault::None);
    let through: Arc<dyn Storage> = counted.clone();
    assert!(many.pusher.push(&[&target, &through]).is_complete());
    let last = counted.calls() - 1;
    let done = counted.done.lock().unwrap().last().cloned();
    assert!(done.is_some_and(|(_, key)| key.contains("/manifests/")));

    add(&many, 1);
    let before = archives_below(&blind);
    let failing: Arc<dyn Storage> = Watched::new(open_blind(), Fault::From(last));
    let report = many.pusher.push(&[&target, &failing]);
    assert!(!report.is_complete() && archives_below(&blind) >= before + 2);
    fs::remove_file(many.pusher.data("extra")).unwrap();
    let away: Arc<dyn Storage> = Watched::new(open_blind(), Fault::From(0));
    many.pusher.push(&[&target, &away]);
    many.pusher.prune(&target, 1);
    let report = many.pusher.push(&[&target, &open_blind()]);
    assert!(report.is_complete(), "{report:?}");
    let copied = report.targets.iter().map(|one| one.copied_archives);
    assert_eq!(copied.sum::<u64>(), 0, "{report:?}");
}

/// A number that no file of the first snapshot has.
const FIRST_EXTRA: usize = 10_000;
