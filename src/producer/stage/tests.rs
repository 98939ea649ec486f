use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A tree that is staged item by item, so that a test can change it in between.
struct Scene {
    temp: tempfile::TempDir,
    root: Dir,
    snapshot: Dir,
    record: Record,
    filter: Filter,
    roots: Roots,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["tree", "snapshot", "outside"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        let open = |name: &str| Dir::open(&temp.path().join(name)).unwrap();
        Self {
            root: open("tree"),
            snapshot: open("snapshot"),
            record: Record::default(),
            filter: Filter::everything(),
            roots: Roots::default(),
            temp,
        }
    }

    fn job(&self) -> Job<'_> {
        Job {
            root: &self.root,
            filter: &self.filter,
            snapshot: &self.snapshot,
            copy: OsStr::new("files"),
            to: "files",
            record: &self.record,
            roots: &self.roots,
            lock_timeout: Duration::ZERO,
        }
    }

    fn write(&self, rel: &str, content: &str, mode: u32) {
        let path = self.temp.path().join(rel);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn exchange(&self, a: &str, b: &str) {
        let top = Dir::open(self.temp.path()).unwrap();
        top.exchange(a, &top, b).unwrap();
    }

    fn copy(&self, rel: &str) -> PathBuf {
        self.temp.path().join("snapshot/files").join(rel)
    }
}

fn stager<'a>(job: &'a Job<'a>) -> Stager<'a> {
    let mut stager = Stager {
        job,
        record: job.record,
        started: SystemTime::now(),
        staged: Staged::default(),
        links: HashMap::new(),
        databases: HashMap::new(),
        names: DatabaseNames::new(job.roots.clone()),
        directories: Vec::new(),
        patience: job.lock_timeout,
    };
    stager
        .directory(b"", Meta::of_fd(job.root).unwrap())
        .unwrap();
    stager
}

/// Stages all but that `change` comes before the item `at`.
fn stage_with(scene: &Scene, at: &str, change: impl Fn()) -> Result<Staged, SourceError> {
    let job = scene.job();
    let mut stager = stager(&job);
    for walked in walk(&scene.root, &scene.filter).unwrap() {
        match walked {
            Walked::Found(found) => {
                if found.rel == at.as_bytes() {
                    change();
                }
                stager.take(&found)?;
            }
            Walked::Skipped(skipped) => stager.skip(skipped.path.as_bytes(), skipped.reason),
            Walked::Note(note) => drop(stager.staged.notes.insert(note)),
        }
    }
    stager.finish()
}

#[test]
fn a_file_that_took_anothers_name_is_copied_with_its_own_mode_time_and_attributes() {
    let scene = Scene::new();
    scene.write("tree/file", "mine", 0o644);
    scene.write("outside/other", "theirs", 0o600);
    let past = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let other = scene.temp.path().join("outside/other");
    File::open(&other).unwrap().set_modified(past).unwrap();
    let name = OsStr::new("user.mark");
    let marked = crate::openat::set_xattr_fd(File::open(&other).unwrap(), name, b"1").is_ok();
    let staged = stage_with(&scene, "file", || {
        scene.exchange("tree/file", "outside/other")
    });
    assert!(staged.unwrap().skipped.is_empty());
    let copy = scene.copy("file");
    assert_eq!(fs::read(&copy).unwrap(), b"theirs");
    let meta = fs::metadata(&copy).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(meta.modified().unwrap(), past);
    let xattrs = crate::openat::list_xattrs(File::open(&copy).unwrap()).unwrap();
    assert_eq!(xattrs.contains_key(name), marked);
}

#[test]
fn a_file_whose_directory_became_a_link_is_reported_and_nothing_outside_is_read() {
    let scene = Scene::new();
    fs::create_dir(scene.temp.path().join("tree/d")).unwrap();
    scene.write("tree/d/file", "mine", 0o644);
    scene.write("outside/file", "secret", 0o600);
    symlink("../outside", scene.temp.path().join("tree/z")).unwrap();
    let staged = stage_with(&scene, "d/file", || scene.exchange("tree/d", "tree/z")).unwrap();
    assert!(
        staged
            .skipped
            .iter()
            .any(|skipped| skipped.path == "files/d/file"),
        "{:?}",
        staged.skipped
    );
    assert!(!scene.copy("d/file").exists());
}

/// What made files outside of the snapshot: a directory that was a link when it was looked at.
#[test]
fn no_copy_is_made_through_a_copied_link() {
    let scene = Scene::new();
    let outside = scene.temp.path().join("outside");
    fs::create_dir(scene.temp.path().join("tree/d")).unwrap();
    scene.write("tree/d/file", "mine", 0o644);
    symlink(&outside, scene.temp.path().join("tree/z")).unwrap();
    let job = scene.job();
    let mut stager = stager(&job);
    let found = |rel: &str| Found {
        root: scene.root.clone(),
        rel: rel.as_bytes().to_vec(),
        meta: scene.root.meta(rel).unwrap(),
    };
    scene.exchange("tree/d", "tree/z");
    stager.take(&found("d")).unwrap();
    scene.exchange("tree/d", "tree/z");
    assert!(stager.take(&found("d/file")).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // The walk does not even ask for it: what was a link when it was looked at is not entered.
    let mut walk = walk(&scene.root, &scene.filter).unwrap();
    scene.exchange("tree/d", "tree/z");
    let Some(Walked::Found(link)) = walk.next() else {
        panic!("no entry");
    };
    assert!(link.meta.is_symlink());
    scene.exchange("tree/d", "tree/z");
    let rest: Vec<Walked> = walk.collect();
    assert!(
        matches!(&rest[..], [Walked::Found(found)] if found.rel == b"z"),
        "{rest:?}"
    );
}

#[test]
fn a_link_that_took_another_ones_name_is_copied_whole_and_a_fifo_makes_nothing_wait() {
    let scene = Scene::new();
    symlink("first", scene.temp.path().join("tree/link")).unwrap();
    scene.write("tree/file", "x", 0o644);
    let replace = || {
        fs::remove_file(scene.temp.path().join("tree/link")).unwrap();
        symlink("second", scene.temp.path().join("tree/link")).unwrap();
    };
    stage_with(&scene, "link", replace).unwrap();
    assert_eq!(
        fs::read_link(scene.copy("link")).unwrap(),
        Path::new("second")
    );

    let scene = Scene::new();
    scene.write("tree/file", "x", 0o644);
    let fifo = || {
        scene.root.remove_file("file").unwrap();
        scene.root.make_node("file", Kind::Fifo, None).unwrap();
    };
    let staged = stage_with(&scene, "file", fifo).unwrap();
    assert_eq!(staged.skipped[0].reason, "it is not a regular file");
    assert!(!scene.copy("file").exists());
}

/// What moved while a tree was copied is copied again, and the rest linked.
#[test]
fn a_further_attempt_has_what_moved_and_links_the_rest() {
    use std::os::unix::fs::MetadataExt as _;
    let scene = Scene::new();
    for name in ["moves", "stays", "goes"] {
        scene.write(&format!("tree/{name}"), "first", 0o644);
    }
    // So long that a change since would show.
    std::thread::sleep(Duration::from_millis(2100));
    let job = scene.job();
    let first = stage_once(&job, job.record).unwrap();
    assert!(first.seen.moved(job.root, job.filter).unwrap().is_empty());
    let inode = |name: &str| fs::metadata(scene.copy(name)).unwrap().ino();
    let before = [inode("moves"), inode("stays")];
    scene.write("tree/moves", "other", 0o644);
    scene.write("tree/comes", "new", 0o644);
    fs::remove_file(scene.temp.path().join("tree/goes")).unwrap();
    let moved = first.seen.moved(job.root, job.filter).unwrap();
    let moved: Vec<&[u8]> = moved.iter().map(Vec::as_slice).collect();
    assert_eq!(moved, [&b"comes"[..], b"goes", b"moves"]);

    let second = stage_again(&job, first).unwrap();
    assert_eq!(second.files, 3);
    assert_eq!(fs::read(scene.copy("moves")).unwrap(), b"other");
    assert_eq!(fs::read(scene.copy("comes")).unwrap(), b"new");
    assert!(!scene.copy("goes").exists());
    assert_ne!(inode("moves"), before[0]);
    assert_eq!(inode("stays"), before[1]);
    assert_eq!(
        fs::read_dir(scene.temp.path().join("snapshot"))
            .unwrap()
            .count(),
        1
    );
}
