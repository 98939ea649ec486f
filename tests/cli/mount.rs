//! `mount`: what it shows is the source, what it cannot read is EIO, and it ends whatever the target does. Skipped where
//! there is no FUSE.

mod failures;
mod large;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::strace::{traced, written};
use crate::support::tree::{make_tree, noise};
use crate::support::{is_long, is_root_for};

/// Whether this test can mount. Prints that `what` is skipped if not.
fn can_mount(what: &str) -> bool {
    let has_fuse = Path::new("/dev/fuse").exists();
    if !has_fuse {
        eprintln!("SKIPPED: {what} takes FUSE (/dev/fuse)");
    }
    has_fuse && is_root_for(what)
}

/// A mount by the program, which ends when this is dropped.
struct Mounting {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl Mounting {
    /// Mounts the folder target of `host` on a new directory.
    fn of(host: &Host, more: &[&str]) -> Self {
        let signer = host.signer.clone();
        let from = ["--from", "repo", "--signer", &signer];
        Self::by(host, &[&from, more].concat(), |_| {})
    }

    fn by(host: &Host, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let words = ["mount", "mnt", "--identity", "key.txt"];
        let mut command = host.command(&[&words, more].concat());
        prepare(&mut command);
        Self::start(host.temp.path(), command)
    }

    /// Runs `command`, which mounts on `mnt` in `place`.
    fn start(place: &Path, mut command: Command) -> Self {
        let dir = place.join("mnt");
        let log = place.join("mount.log");
        let _ = fs::create_dir(&dir);
        command.stderr(fs::File::create(&log).unwrap());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut mounting = Self { child, dir, log };
        let until = Instant::now() + Duration::from_secs(60);
        while !mounting.said().contains(" mounted on ") {
            let ended = mounting.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", mounting.said());
            assert!(Instant::now() < until, "{}", mounting.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        mounting
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn latest(&self) -> PathBuf {
        self.dir.join("latest")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process.
    fn end_within(&mut self, most: Duration) -> ExitStatus {
        let until = Instant::now() + most;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "no end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by SIGTERM, and checks that nothing is left.
    fn unmount(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.end_within(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{}", self.said());
        assert_eq!(fs::read_dir(&self.dir).unwrap().count(), 0);
    }
}

impl Drop for Mounting {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = Command::new("umount")
            .args([OsStr::new("-l"), self.dir.as_os_str()])
            .stderr(Stdio::null())
            .status();
    }
}

/// Runs a script that must print nothing and end with exit code 0.
fn silent(script: &str, source: &Path, mounted: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command.env("SOURCE", source).env("MOUNTED", mounted);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.is_empty() && output.status.success(),
        "{script}\n{said}"
    );
}

/// What users and stock tools see of a tree is equal on the source and on the mount.
fn is_equal(source: &Path, mounted: &Path) {
    for script in [
        "diff -r --no-dereference --exclude=fifo \"$SOURCE\" \"$MOUNTED\"",
        "rsync -naHAX --checksum --delete --itemize-changes \"$SOURCE/\" \"$MOUNTED/\"",
        "rsync -naHAX --checksum --delete --itemize-changes \"$MOUNTED/\" \"$SOURCE/\"",
        "tar -C \"$SOURCE\" --sparse -c . | tar -C \"$MOUNTED\" --compare",
        "a=$(du -s --apparent-size -B1 \"$SOURCE\" | cut -f1)
        b=$(du -s --apparent-size -B1 \"$MOUNTED\" | cut -f1)
        [ \"$a\" = \"$b\" ] || echo \"$a $b\"",
        "a=$(cd \"$SOURCE\" && find . -printf '%P %y %m %U %G %s %T@ %l\\n' | sort | md5sum)
        b=$(cd \"$MOUNTED\" && find . -printf '%P %y %m %U %G %s %T@ %l\\n' | sort | md5sum)
        [ \"$a\" = \"$b\" ] || echo \"$a $b\"",
    ] {
        silent(script, source, mounted);
    }
}

/// The hard tree of the restores, and what only root can make.
fn make_hard_tree(tree: &Path) {
    make_tree(tree);
    let sh = "cd \"$SOURCE\" && mknod device c 1 3 && chmod 640 device &&
        setfacl -m u:1000:rw,g:1001:r notes.txt && setfacl -d -m u:1000:rwx dir &&
        setfattr -n security.note -v secure notes.txt && setfattr -n trusted.note -v t dir/deep &&
        chown 5:6 big.bin && chmod 2755 long && ln not-utf8-* dir/raw-too && touch -d '1931-05-06 07:08:09.123' dir-beside";
    silent(sh, tree, tree);
}

#[test]
fn what_it_shows_is_the_source() {
    if !can_mount("a mount of the hard tree") {
        return;
    }
    let host = Host::new();
    make_hard_tree(&host.data());
    host.backup();
    let mounting = Mounting::of(&host, &[]);
    let mounted = mounting.latest().join("data");
    is_equal(&host.data(), &mounted);

    // Hard links are one file, with the number of its names.
    for (a, b) in [("big.bin", "hard"), ("big.bin", "dir/hard2")] {
        let (a, b) = (mounted.join(a), mounted.join(b));
        let (a, b) = (fs::metadata(a).unwrap(), fs::metadata(b).unwrap());
        assert_eq!((a.ino(), a.nlink()), (b.ino(), 3));
    }
    let found = Command::new("find")
        .arg(&mounted)
        .arg("-samefile")
        .arg(mounted.join("hard"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).lines().count(), 3);

    // A sparse file has its hole, and takes as little as the source.
    for name in ["sparse", "big.bin", "empty", "dir/deep/er/file"] {
        let blocks = |tree: &Path| fs::metadata(tree.join(name)).unwrap().blocks();
        assert_eq!(blocks(&mounted), blocks(&host.data()), "{name}");
    }
    let sparse = fs::File::open(mounted.join("sparse")).unwrap();
    let seek = |from| rustix::fs::seek(&sparse, from);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(0)), Ok(0));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), Ok(1 << 20));
    assert_eq!(
        seek(rustix::fs::SeekFrom::Hole(1 << 20))
            .unwrap()
            .div_ceil(4096),
        258
    );
    let end = seek(rustix::fs::SeekFrom::Data(2 << 20));
    assert_eq!(end, Err(rustix::io::Errno::NXIO));
    drop(sparse);

    // Devices are shown and cannot be opened; nothing can be changed.
    let kind = |error: std::io::Error| error.raw_os_error();
    let device = fs::File::open(mounted.join("device")).unwrap_err();
    assert_eq!(kind(device), Some(libc_errno("EACCES")));
    let write = fs::write(mounted.join("notes.txt"), "x").unwrap_err();
    assert_eq!(kind(write), Some(libc_errno("EROFS")));
    let make = fs::write(mounted.join("new"), "x").unwrap_err();
    assert_eq!(kind(make), Some(libc_errno("EROFS")));
    mounting.unmount();
}

/// The number of an error, without another dependency.
fn libc_errno(name: &str) -> i32 {
    match name {
        "EACCES" => rustix::io::Errno::ACCESS.raw_os_error(),
        "EROFS" => rustix::io::Errno::ROFS.raw_os_error(),
        "EIO" => rustix::io::Errno::IO.raw_os_error(),
        _ => panic!("{name}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn its_top_has_the_snapshots_by_time_and_by_sequence() {
    if !can_mount("the top of a mount") {
        return;
    }
    let mut host = Host::new();
    for (day, text) in [("07", "one"), ("08", "two"), ("09", "three")] {
        host.clock = Some(format!("2026-04-{day}T06:00:00Z"));
        fs::write(host.data().join("file"), text).unwrap();
        host.backup();
    }
    host.clock = None;
    let mounting = Mounting::of(&host, &[]);
    let top = mounting.dir.clone();
    assert_eq!(
        names(&top),
        [".sealift", "by-sequence", "by-time", "latest"]
    );
    let times = ["07", "08", "09"].map(|day| format!("2026-04-{day}T06:00:00Z"));
    assert_eq!(names(&top.join("by-time")), times);
    let sequences = names(&top.join("by-sequence"));
    assert_eq!(sequences.len(), 3);
    let texts = ["one", "two", "three"];
    for ((sequence, time), text) in sequences.iter().zip(&times).zip(texts) {
        let by_sequence = top.join("by-sequence").join(sequence);
        let link = fs::read_link(&by_sequence).unwrap();
        assert_eq!(link, Path::new("../by-time").join(time));
        assert_eq!(
            fs::read_to_string(by_sequence.join("data/file")).unwrap(),
            text
        );
        let by_time = top.join("by-time").join(time);
        assert_eq!(fs::read_to_string(by_time.join("data/file")).unwrap(), text);
    }
    let latest = fs::read_link(top.join("latest")).unwrap();
    assert_eq!(latest, Path::new("by-time").join(&times[2]));
    let version = fs::read_to_string(top.join(".sealift/version")).unwrap();
    assert_eq!(version, format!("sealift {}\n", env!("CARGO_PKG_VERSION")));
    let list = fs::read(top.join(".sealift/snapshots.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[1]["path"], format!("by-time/{}", times[1]));
    assert_eq!(list[1]["signer"], host.signer);

    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let real = top.canonicalize().unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(real.to_str().unwrap()));
    let words: Vec<&str> = line.unwrap().split(' ').collect();
    assert_eq!((words[0], words[2]), ("sealift:dalidou", "fuse.sealift"));
    for option in ["ro", "nosuid", "nodev", "noexec", "default_permissions"] {
        assert!(words[3].split(',').any(|one| one == option), "{words:?}");
    }
    assert_eq!(
        fs::metadata(top.join("by-time/none")).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
    if is_long() {
        // A new snapshot appears within a minute, and one that was pruned disappears.
        fs::write(host.data().join("file"), "four").unwrap();
        host.backup();
        host.ok(&["prune", "--policy", "last=2", "--target", "folder", "--yes"]);
        let until = Instant::now() + Duration::from_secs(60);
        while names(&top.join("by-time")).contains(&times[0]) {
            assert!(Instant::now() < until, "{:?}", names(&top.join("by-time")));
            std::thread::sleep(Duration::from_secs(1));
        }
        let four = fs::read_to_string(top.join("latest/data/file")).unwrap();
        assert_eq!(four, "four");
    }
    mounting.unmount();
    let only = Mounting::of(&host, &["--snapshot", &sequences[2]]);
    assert_eq!(names(&only.dir.join("by-time")), times[2..]);
    only.unmount();
}

#[test]
fn a_database_in_it_can_be_queried() {
    if !can_mount("a mounted database") {
        return;
    }
    let rows = if is_long() { 400_000 } else { 20_000 };
    let host = Host::new();
    let script = "import sqlite3, sys, hashlib
db = sqlite3.connect(sys.argv[1])
db.execute('create table t (id integer primary key, a text, b text)')
db.execute('create index i on t (a)')
noise = lambda n: hashlib.sha256(str(n).encode()).hexdigest()
db.executemany('insert into t values (?, ?, ?)', ((n, noise(n), noise(-n) * 8) for n in range(int(sys.argv[2]))))
db.commit()";
    python(
        script,
        &[
            host.data().join("d.db").to_str().unwrap(),
            &rows.to_string(),
        ],
    );
    host.backup();
    let mounting = Mounting::of(&host, &[]);
    let script = "import sqlite3, sys, hashlib, urllib.parse
db = sqlite3.connect('file:' + urllib.parse.quote(sys.argv[1]) + '?immutable=1', uri=True)
noise = lambda n: hashlib.sha256(str(n).encode()).hexdigest()
rows = int(sys.argv[2])
for n in range(0, rows, rows // 1000):
    assert db.execute('select id from t where a = ?', (noise(n),)).fetchall() == [(n,)]
assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
assert db.execute('select count(*) from t').fetchone() == (rows,)";
    let database = mounting.latest().join("data/d.db");
    python(script, &[database.to_str().unwrap(), &rows.to_string()]);
    mounting.unmount();
}

fn python(script: &str, arguments: &[&str]) {
    let mut command = Command::new("python3");
    let output = command
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn nothing_decrypted_is_written_anywhere() {
    if !can_mount("what a mount writes") {
        return;
    }
    const PLANTED: &str = "planted-plaintext-0123456789";
    let host = Host::new();
    let text = format!("{PLANTED}\n").repeat(50_000);
    fs::write(host.data().join("planted-name-0123"), &text).unwrap();
    fs::write(host.data().join("other"), noise(1, 3 << 20)).unwrap();
    host.backup();
    fs::remove_file(host.data().join("planted-name-0123")).unwrap();
    let temp = host.path("temp");
    fs::create_dir(&temp).unwrap();
    let words = ["--from", "repo", "--signer", &host.signer.clone()];
    let trace = host.path("trace");
    let mounting = Mounting::by(&host, &words, |command| {
        command.env("TMPDIR", &temp);
        *command = traced(command, &trace);
    });
    let read = fs::read_to_string(mounting.latest().join("data/planted-name-0123")).unwrap();
    assert_eq!(read, text);
    assert_eq!(
        fs::read(mounting.latest().join("data/other")).unwrap(),
        noise(1, 3 << 20)
    );
    let mut looked_at = 0;
    for path in files_beside(host.temp.path(), &mounting.dir) {
        looked_at += 1;
        let bytes = fs::read(&path).unwrap();
        let has = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
        assert!(!has(PLANTED.as_bytes()), "{path:?}");
        let name = b"planted-name-0123";
        let is_the_hosts =
            path.starts_with(host.path("c.state")) || path.starts_with(host.path("data"));
        assert!(is_the_hosts || !has(name), "{path:?}");
    }
    assert!(looked_at > 5);
    mounting.unmount();
    let calls = fs::read_to_string(&trace).unwrap();
    assert!(calls.contains("/dev/fuse"), "{calls}");
    let known = [
        host.path(".cache/sealift"),
        host.path(".config/sealift"),
        PathBuf::from("/dev"),
        // How far the kernel reads ahead of programs.
        PathBuf::from("/sys/class/bdi"),
    ];
    let mut opened = 0;
    for path in written(&calls, host.temp.path()) {
        let is_known = known.iter().any(|dir| path.starts_with(dir));
        assert!(is_known, "the mount opens {}", path.display());
        opened += 1;
    }
    assert!(opened > 1, "{calls}");
}

/// The files below `dir`, without those below `other`.
fn files_beside(dir: &Path, other: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let beside = entries.filter(|path| path != other);
    let all = beside.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    all.filter(|path| path.is_file()).collect()
}

#[test]
fn it_ends_when_it_is_not_used_and_waits_for_what_uses_it() {
    if !can_mount("the end of a mount") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("file"), "text").unwrap();
    host.backup();
    let mut idle = Mounting::of(&host, &["--idle", "1s"]);
    let open = fs::File::open(idle.latest().join("data/file")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(idle.child.try_wait().unwrap().is_none(), "a file is open");
    drop(open);
    assert_eq!(idle.end_within(Duration::from_secs(20)).code(), Some(0));
    drop(idle);

    // By another program.
    let mut taken = Mounting::of(&host, &[]);
    assert!(
        Command::new("umount")
            .arg(&taken.dir)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(taken.end_within(Duration::from_secs(20)).code(), Some(0));
    drop(taken);

    // While a file is open: detached, and it is still read.
    let mut busy = Mounting::of(&host, &[]);
    let open = fs::File::open(busy.latest().join("data/file")).unwrap();
    busy.signal(rustix::process::Signal::INT);
    let until = Instant::now() + Duration::from_secs(20);
    while !busy.said().contains("is in use: it is detached") {
        assert!(Instant::now() < until, "{}", busy.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_dir(&busy.dir).unwrap().count(), 0);
    assert_eq!(std::io::read_to_string(open).unwrap(), "text");
    assert_eq!(busy.end_within(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn where_it_cannot_mount_it_says_why() {
    let host = Host::new();
    fs::write(host.data().join("file"), "text").unwrap();
    host.backup();
    let words = |dir| {
        [
            "mount",
            dir,
            "--from",
            "repo",
            "--identity",
            "key.txt",
            "--accept-signer",
        ]
    };
    if Path::new("/dev/fuse").exists() {
        for (dir, says) in [
            ("none", "cannot mount on none"),
            ("c.toml", "c.toml is no directory"),
            ("data", "data is not empty"),
        ] {
            let (_, err) = host.exits(&words(dir), 1);
            assert!(
                err.contains(says) && err.contains("empty directory"),
                "{err}"
            );
        }
    }
    if !is_root_for("a system without FUSE") {
        return;
    }
    let bare = host.path("dev");
    fs::create_dir(&bare).unwrap();
    fs::create_dir(host.path("mnt")).unwrap();
    let inner = host.command(&words("mnt"));
    let script = "for one in null zero random urandom; do cp -a /dev/$one \"$BARE\"; done
        mount --bind \"$BARE\" /dev && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("BARE", &bare).env("HOME", host.temp.path());
    let output = command.current_dir(host.temp.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    for words in [
        "there is no FUSE here (/dev/fuse)",
        "restore, cat or browse",
        "--device /dev/fuse",
    ] {
        assert!(err.contains(words), "{err}");
    }
}
