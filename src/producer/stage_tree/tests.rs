use super::*;
use crate::base::openat::Kind;
use std::fs;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A tree that is staged item by item, so that a test can change it between two items.
pub(super) struct Scene {
    pub temp: tempfile::TempDir,
    pub root: Dir,
    pub snapshot: Dir,
    pub record: StagedFiles,
    pub filter: Filter,
    pub roots: Roots,
    pub meter: CopyMeter,
}

impl Scene {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["tree", "snapshot", "outside"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        let open = |name: &str| Dir::open(&temp.path().join(name)).unwrap();
        Self {
            root: open("tree"),
            snapshot: open("snapshot"),
            record: StagedFiles::default(),
            filter: Filter::everything(),
            roots: Roots::default(),
            meter: CopyMeter::default(),
            temp,
        }
    }

    pub(super) fn job(&self) -> Job<'_> {
        Job {
            root: &self.root,
            filter: &self.filter,
            snapshot: &self.snapshot,
            copy: OsStr::new("files"),
            to: "files",
            previous: &self.record,
            roots: &self.roots,
            lock_timeout: Duration::ZERO,
            meter: &self.meter,
        }
    }

    pub(super) fn write(&self, rel: &str, content: &str, mode: u32) {
        let path = self.temp.path().join(rel);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn exchange(&self, a: &str, b: &str) {
        let top = Dir::open(self.temp.path()).unwrap();
        top.exchange(a, &top, b).unwrap();
    }

    pub(super) fn copy(&self, rel: &str) -> PathBuf {
        self.temp.path().join("snapshot/files").join(rel)
    }
}

/// Stages the tree; `change` runs before the item `at`.
fn stage_with(scene: &Scene, at: &str, change: impl Fn()) -> Result<Staged, SourceError> {
    let job = scene.job();
    let mut staged = pass_with(&job, WalkKind::First, &OnceCell::new(), at, change)?;
    finish(&job, &mut staged)?;
    Ok(staged)
}

/// [`pass`], with `change` before the item `at`.
pub(super) fn pass_with(
    job: &Job<'_>,
    kind: WalkKind<'_>,
    aside: &OnceCell<PrivateDir>,
    at: &str,
    change: impl Fn(),
) -> Result<Staged, SourceError> {
    let mut stager = Stager::new(job, kind, aside);
    stager.root(Meta::of_fd(job.root).unwrap())?;
    for walked in walk(job.root, job.filter).unwrap() {
        if matches!(&walked, Walked::Found(found) if found.rel == at.as_bytes()) {
            change();
        }
        stager.walked(walked)?;
    }
    stager.end()
}

#[test]
fn a_file_renamed_over_another_is_copied_with_its_own_mode_time_and_attributes() {
    let scene = Scene::new();
    scene.write("tree/file", "mine", 0o644);
    scene.write("outside/other", "theirs", 0o600);
    let past = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let other = scene.temp.path().join("outside/other");
    File::open(&other).unwrap().set_modified(past).unwrap();
    let name = OsStr::new("user.mark");
    let marked = crate::base::openat::set_xattr_fd(File::open(&other).unwrap(), name, b"1").is_ok();
    let staged = stage_with(&scene, "file", || {
        scene.exchange("tree/file", "outside/other")
    });
    assert!(staged.unwrap().skipped.is_empty());
    let copy = scene.copy("file");
    assert_eq!(fs::read(&copy).unwrap(), b"theirs");
    let meta = fs::metadata(&copy).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(meta.modified().unwrap(), past);
    let xattrs = crate::base::openat::list_xattrs(File::open(&copy).unwrap()).unwrap();
    assert_eq!(xattrs.contains_key(name), marked);
}

#[test]
fn a_file_whose_directory_became_a_symlink_is_reported_and_nothing_outside_is_read() {
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

/// Once this made files outside of the snapshot: a directory that was a symlink when it was looked
/// at.
#[test]
fn no_copy_is_made_through_a_copied_symlink() {
    let scene = Scene::new();
    let outside = scene.temp.path().join("outside");
    fs::create_dir(scene.temp.path().join("tree/d")).unwrap();
    scene.write("tree/d/file", "mine", 0o644);
    symlink(&outside, scene.temp.path().join("tree/z")).unwrap();
    let job = scene.job();
    let aside = OnceCell::new();
    let mut stager = Stager::new(&job, WalkKind::First, &aside);
    stager.root(Meta::of_fd(job.root).unwrap()).unwrap();
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
    // The walk does not enter it: it was a symlink when it was looked at.
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
fn a_symlink_renamed_over_another_is_copied_whole_and_a_fifo_blocks_nothing() {
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
