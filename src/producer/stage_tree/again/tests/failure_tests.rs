use super::*;

#[path = "../../../../../tests/support/small_disk.rs"]
mod small_disk;

/// Whatever fails in a further attempt, the first copy stays, and the entries that may not fit are
/// reported with the cause.
#[test]
fn an_attempt_on_a_full_disk_keeps_the_earlier_copy() {
    let mut scene = Scene::new();
    let at = scene.temp.path().join("snapshot");
    let Some(disk) = small_disk::SmallDisk::mount(&at) else {
        return;
    };
    scene.snapshot = Dir::open(&at).unwrap();
    let text = |byte: &str| byte.repeat(2 << 20);
    fs::create_dir(scene.temp.path().join("tree/d")).unwrap();
    fs::create_dir(scene.temp.path().join("tree/gone")).unwrap();
    scene.write("tree/gone/x", "x", 0o644);
    scene.write("tree/a", "small", 0o644);
    scene.write("tree/d/big", &text("1"), 0o644);
    scene.write("tree/z", "z", 0o644);
    settle_clock();
    let job = scene.job();
    let one = first(&job);
    disk.fill(1 << 20);
    scene.write("tree/a", "other", 0o644);
    scene.write("tree/d/big", &text("2"), 0o600);
    scene.write("tree/d/new", "new", 0o600);
    fs::remove_dir_all(scene.temp.path().join("tree/gone")).unwrap();
    settle_clock();
    let aside = OnceCell::new();
    let mut staged = settle(&job, one, &aside);
    aside.into_inner().unwrap().remove().unwrap();
    finish(&job, &mut staged).unwrap();
    assert_eq!(staged.files, 4);
    let [skipped] = &staged.skipped[..] else {
        panic!("{:?}", staged.skipped);
    };
    assert_eq!(skipped.path, "files");
    for word in ["d/big", "d/new", "gone/x", "No space left", "make room"] {
        assert!(skipped.reason.contains(word), "{}", skipped.reason);
    }
    assert_eq!(fs::read_to_string(scene.copy("a")).unwrap(), "other");
    assert!(fs::read_to_string(scene.copy("d/big")).unwrap() == text("1"));
    assert!(scene.copy("gone/x").exists() && scene.copy("z").exists());
    let mut names: Vec<_> = fs::read_dir(scene.copy(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "d", "gone", "z"]);
}

#[test]
fn a_tree_that_cannot_be_walked_again_keeps_its_copy() {
    let scene = Scene::new();
    scene.write("tree/a", "a", 0o644);
    fs::create_dir(scene.temp.path().join("tree/d")).unwrap();
    scene.write("tree/d/b", "b", 0o644);
    settle_clock();
    let job = scene.job();
    let one = first(&job);
    // The walk of a root that is removed fails.
    fs::remove_dir_all(scene.temp.path().join("tree")).unwrap();
    let bad = Filter {
        excludes: vec!["[".to_owned()],
        ..Filter::everything()
    };
    let job = Job {
        filter: &bad,
        ..job
    };
    let staged = settle(&job, one, &OnceCell::new());
    assert_eq!((staged.files, staged.skipped.len()), (2, 1));
    let reason = &staged.skipped[0].reason;
    assert!(reason.contains("could not be copied again"), "{reason}");
    assert_eq!(fs::read(scene.copy("d/b")).unwrap(), b"b");
}
