use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn open(root: &Path) -> Folder {
    let spec = TargetSpec {
        name: "here".to_owned(),
        ..TargetSpec::from_url("/folder")
    };
    Folder::open(root, &spec).unwrap()
}

fn bytes(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

#[test]
fn files_of_killed_puts_are_cleared_and_of_running_puts_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("h/.tmp");
    std::fs::create_dir_all(&scratch).unwrap();
    let file = |name: &str, age: u64| {
        let file = File::create(scratch.join(name)).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(time).unwrap();
        file
    };
    drop(file("put-dead", 120));
    drop(file("put-young", 10));
    let running = file("put-running", 7200);
    rustix::fs::flock(&running, FlockOperation::NonBlockingLockExclusive).unwrap();
    open(dir.path());
    let mut left: Vec<_> = std::fs::read_dir(&scratch)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["put-running", "put-young"]);
    drop(running);
    open(dir.path());
    assert!(!scratch.join("put-running").exists());
}

/// There is one copy on the disk, but its mode is that of the folder's files, not of the spool's.
#[test]
fn a_shared_file_is_linked_and_equals_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let source = dir.path().join("in-the-spool");
    std::fs::write(&source, "sealed").unwrap();
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o600)).unwrap();
    let put = |key, body| block_on(folder.put(key, body, PutMode::Create)).unwrap();
    assert_eq!(
        put("h/a/copy", Body::File(source.clone())),
        PutOutcome::Written
    );
    assert_eq!(
        put("h/a/link", Body::Shared(source.clone())),
        PutOutcome::Written
    );
    assert_eq!(
        put("h/a/link", Body::Shared(source.clone())),
        PutOutcome::Existed
    );
    let meta = |name| std::fs::metadata(dir.path().join("h/a").join(name)).unwrap();
    assert_eq!(
        meta("link").ino(),
        std::fs::metadata(&source).unwrap().ino()
    );
    assert_eq!(meta("link").mode(), meta("copy").mode());
    std::fs::remove_file(&source).unwrap();
    assert_eq!(
        &block_on(folder.get("h/a/link", 100)).unwrap()[..],
        b"sealed"
    );
    let left = std::fs::read_dir(dir.path().join("h/.tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_failed_put_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    // This file opens, and then cannot be read.
    let unreadable = Body::File("/proc/self/mem".into());
    let error = block_on(folder.put("h/a/x", unreadable, PutMode::Create)).unwrap_err();
    assert_eq!(error.to_string(), "cannot put h/a/x on here (/folder)");
    assert_eq!(block_on(folder.list("")).unwrap(), []);
    let left = std::fs::read_dir(dir.path().join("h/.tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

/// `mount -t tmpfs -o size=256k tmpfs DIR`, and DIR in `SEALIFT_TEST_SMALL_DISK`.
#[test]
#[ignore = "needs a disk of 256 KiB"]
fn a_full_disk_is_named_and_leaves_nothing() {
    let dir = std::env::var("SEALIFT_TEST_SMALL_DISK").unwrap();
    let folder = open(Path::new(&dir));
    let large = Body::Bytes(vec![1; 1 << 20].into());
    let error = block_on(folder.put("h/a/x", large, PutMode::Create)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.source.to_string().contains("No space left"));
    assert_eq!(block_on(folder.list("")).unwrap(), []);
    block_on(folder.put("h/a/x", bytes("fits"), PutMode::Create)).unwrap();
    block_on(folder.delete("h/a/x")).unwrap();
}

#[test]
fn no_symlink_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    let folder = open(dir.path());
    block_on(folder.put("h/real", bytes("r"), PutMode::Create)).unwrap();
    symlink(outside.path(), dir.path().join("h/out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("h/file")).unwrap();
    symlink(outside.path(), dir.path().join("g")).unwrap();

    for key in ["h/out/secret", "h/file", "g/secret"] {
        assert!(block_on(folder.get(key, 100)).is_err(), "{key}");
        assert!(block_on(folder.stream(key, 0)).is_err(), "{key}");
        for mode in [PutMode::Create, PutMode::Replace] {
            assert!(
                block_on(folder.put(key, bytes("x"), mode)).is_err(),
                "{key}"
            );
        }
    }
    assert!(block_on(folder.put("h/out/new", bytes("x"), PutMode::Create)).is_err());
    assert!(block_on(folder.delete("h/out/secret")).is_err());
    let listed = block_on(folder.list("")).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(block_on(folder.list_folders()).unwrap(), ["h"]);
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"s");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_fifo_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    std::fs::create_dir(dir.path().join("h")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("h/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let error = block_on(folder.get("h/fifo", 10)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert_eq!(block_on(folder.list("h/")).unwrap(), []);
}

/// Kind: a cheaper lookup on a target disagrees with its listing.
#[test]
fn single_lookups_agree_with_the_listing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    for (key, content) in [("h/a/x", "12"), ("h/a/b/y", "345"), ("h/z", "")] {
        block_on(folder.put(key, bytes(content), PutMode::Create)).unwrap();
    }
    std::fs::create_dir_all(dir.path().join("h/a/folder")).unwrap();
    symlink(dir.path().join("h/a/x"), dir.path().join("h/a/link")).unwrap();
    let listed = block_on(folder.list("h/")).unwrap();
    let mut listed: Vec<(String, u64)> = listed.into_iter().map(|o| (o.key, o.bytes)).collect();
    listed.sort();
    let mut keys = block_on(folder.list_keys("h/")).unwrap();
    keys.sort();
    let listed_keys: Vec<&String> = listed.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.iter().collect::<Vec<_>>(), listed_keys);
    for from in [
        "", "h", "h/a/b/y", "h/a/b/z", "h/a/c", "h/a/x", "h/b", "h/z", "h/zz", "i",
    ] {
        let mut tail = block_on(folder.list_keys_from("h/", from)).unwrap();
        tail.sort();
        keys.retain(|key| key.as_str() >= from);
        assert_eq!(tail, keys, "{from}");
    }
    keys.extend(listed.iter().map(|(key, _)| key.clone()));
    let others = ["h/a/none", "h/none/x", "g/x", "h/a/folder", "h/a/link"];
    keys.extend(others.map(str::to_owned));
    let sizes = block_on(folder.sizes(&keys)).unwrap().unwrap();
    let mut sizes: Vec<(String, u64)> = sizes.into_iter().collect();
    sizes.sort();
    assert_eq!(sizes, listed);
    assert_eq!(block_on(folder.list_keys("none/")).unwrap(), [""; 0]);
    assert!(block_on(folder.sizes(&["h/../x".to_owned()])).is_err());
}
