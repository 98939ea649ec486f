//! Restore against repositories made by hand: the whole tree comes back, or nothing changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealift::base::error_chain::with_causes as told;
use sealift::base::progress::Silent;
use sealift::base::snapshot_choice::SnapshotChoice;
use sealift::format::index::DatabaseRecord;
use sealift::format::signature::Trust;
use sealift::restore::{self, DatabaseCheck, RestoreRequest};

use crate::support::handmade_repo::{Repo, request, restore};
use crate::support::tree::{describe, make_tree, noise, scan};

/// Names in `dir` that a restore left behind.
fn leftovers(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names
        .filter(|name| name.contains("sealift-partial"))
        .collect()
}

/// A repository of one snapshot of everything, and the tree it was made from.
fn full_repo() -> (Repo, PathBuf) {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    repo.push(&tree);
    (repo, tree)
}

#[test]
fn everything_comes_back() {
    let (repo, tree) = full_repo();
    let out = repo.path("out");
    let report = restore(&repo, &request(&out)).unwrap();
    assert_eq!(describe(&out), describe(&tree));
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(leftovers(repo.temp.path()), Vec::<String>::new());
    use std::os::unix::fs::MetadataExt as _;
    let sparse = fs::metadata(out.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{}", sparse.blocks());
}

#[test]
fn every_increment_restores() {
    let (mut repo, tree) = full_repo();
    let mut states = vec![describe(&tree)];
    for step in 0..3u8 {
        let mut big = fs::read(tree.join("big.bin")).unwrap();
        big[100_000 * usize::from(step)] ^= 0xff;
        fs::write(tree.join("big.bin"), &big).unwrap();
        fs::write(
            tree.join(format!("new-{step}")),
            noise(u64::from(step) + 50, 30_000),
        )
        .unwrap();
        repo.push(&tree);
        states.push(describe(&tree));
    }
    for (number, state) in states.iter().enumerate() {
        let out = repo.path(&format!("out-{number}"));
        let snapshot = SnapshotChoice::parse(&(number + 1).to_string()).unwrap();
        let report = restore(
            &repo,
            &RestoreRequest {
                snapshot,
                ..request(&out)
            },
        )
        .unwrap();
        assert_eq!(report.sequence as usize, number + 1);
        assert_eq!(&describe(&out), state);
    }
}

/// The hash of a database proves it if the host checked it before; a check that runs again compares its rows.
#[test]
fn a_database_is_checked_again_only_if_that_is_asked_for() {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    let app = rusqlite::Connection::open(tree.join("app.db")).unwrap();
    app.execute_batch("create table t(x); insert into t values (1), (2);")
        .unwrap();
    app.close().unwrap();
    let record = |rows, integrity: &str| DatabaseRecord {
        path: "app.db".to_owned(),
        page_size: 4096,
        tables: [("t".to_owned(), rows)].into(),
        integrity: integrity.to_owned(),
        schema: None,
    };
    let mut restored = |record, databases, out: &str| {
        repo.databases = vec![record];
        repo.push(&tree);
        let request = RestoreRequest {
            databases,
            ..request(&repo.path(out))
        };
        restore(&repo, &request)
    };
    let app = vec!["app.db".to_owned()];
    let report = restored(record(2, "ok"), DatabaseCheck::Repeat, "checked").unwrap();
    assert_eq!(
        (report.databases, report.databases_as_sealed),
        (app.clone(), vec![])
    );
    let report = restored(record(2, "ok"), DatabaseCheck::AsSealed, "sealed").unwrap();
    assert_eq!(
        (report.databases, report.databases_as_sealed),
        (vec![], app.clone())
    );
    // Only a check that runs finds that the record is of other rows.
    let report = restored(record(3, "ok"), DatabaseCheck::AsSealed, "other").unwrap();
    assert_eq!(report.databases_as_sealed, app);
    let error = restored(record(3, "ok"), DatabaseCheck::Repeat, "refused").unwrap_err();
    assert!(told(&error).contains("2 rows instead of 3"), "{error:?}");
    // One that was not sound when it was sealed is named either way.
    for (databases, out) in [
        (DatabaseCheck::Repeat, "bad"),
        (DatabaseCheck::AsSealed, "bad-too"),
    ] {
        let report = restored(record(2, "row 1 missing"), databases, out).unwrap();
        assert_eq!(
            (report.databases, report.databases_as_sealed),
            (vec![], vec![])
        );
        assert!(
            report.problems[0].contains("row 1 missing"),
            "{:?}",
            report.problems
        );
    }
}

#[test]
fn a_part_comes_back_alone() {
    let (repo, tree) = full_repo();
    let out = repo.path("out");
    let paths = vec![b"./dir/".to_vec(), b"hard".to_vec()];
    restore(
        &repo,
        &RestoreRequest {
            paths,
            ..request(&out)
        },
    )
    .unwrap();
    // `big.bin`, the first name, is not wanted: the content comes under the other two.
    let names: Vec<String> = scan(&out)
        .iter()
        .map(|e| e.path_lossy().into_owned())
        .collect();
    assert!(!names.contains(&"big.bin".to_owned()) && !names.contains(&"dir-beside".to_owned()));
    assert_eq!(
        fs::read(out.join("hard")).unwrap(),
        fs::read(tree.join("big.bin")).unwrap()
    );
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("hard"), inode("dir/hard2"));
    assert_eq!(
        fs::metadata(out.join("hard")).unwrap().mode() & 0o7777,
        0o444
    );
}

#[test]
fn an_unknown_path_is_named_with_what_was_meant() {
    let (repo, _) = full_repo();
    let paths = vec![b"dir/notes.text".to_vec()];
    let error = restore(
        &repo,
        &RestoreRequest {
            paths,
            ..request(&repo.path("out"))
        },
    )
    .unwrap_err();
    let text = told(&error);
    assert!(
        text.contains("dir/notes.text") && text.contains("\"notes.txt\""),
        "{text}"
    );
    assert!(!repo.path("out").exists());
}

#[test]
fn one_thread_for_what_blocks_is_enough() {
    let (repo, tree) = full_repo();
    let request = request(&repo.path("out"));
    let trust = Trust::Fingerprint(repo.signer.fingerprint());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let restored = runtime.block_on(async {
        let folder = repo.target();
        let work = async {
            let plan = restore::plan(&folder, &request, repo.identities(), &trust).await?;
            restore::execute(plan, Arc::new(Silent)).await
        };
        tokio::time::timeout(Duration::from_secs(60), work).await
    });
    // Where it hangs, not all of it ends.
    runtime.shutdown_background();
    restored.expect("it hangs").unwrap();
    assert_eq!(describe(&request.to), describe(&tree));
}
