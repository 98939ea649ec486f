//! Damage is EIO for the files that need it, and a target that stops answering holds up no reader for long.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealift::base::ids::Hash;

use super::{Mounting, can_mount, libc_errno};
use crate::support::files::files;
use crate::support::handmade_repo::Repo;
use crate::support::host::{Host, SEALIFT};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::noise;

#[test]
fn damage_is_eio_for_exactly_the_files_that_need_it() {
    if !can_mount("a mount of a damaged archive") {
        return;
    }
    let host = Host::new();
    for n in 0..5 {
        fs::write(host.data().join(format!("first-{n}")), noise(n, 100_000)).unwrap();
    }
    host.backup();
    let before = files(&host.folder().join("archives"));
    fs::write(host.data().join("second"), noise(9, 300_000)).unwrap();
    host.backup();
    let after = files(&host.folder().join("archives"));
    let new = after.iter().filter(|path| !before.contains(path));
    // The other new one holds the index.
    let damaged = new
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(damaged)
        .unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();

    let mounting = Mounting::of(&host, &["--cache", "none"]);
    let data = mounting.latest().join("data");
    let error = fs::read(data.join("second")).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(libc_errno("EIO")),
        "{}",
        mounting.said()
    );
    for n in 0..5 {
        assert_eq!(
            fs::read(data.join(format!("first-{n}"))).unwrap(),
            noise(n, 100_000)
        );
    }
    let said = mounting.said();
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("repo"), "{said}");
    assert!(said.contains("data/second of "), "{said}");
    assert!(said.contains("another target may have it"), "{said}");
    // Repaired, it is read.
    file.write_all_at(&byte, at).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fs::read(data.join("second")).unwrap(), noise(9, 300_000));
    mounting.unmount();
}

/// Kind: content that the index does not mean counts as the file.
#[test]
fn a_file_that_is_not_what_the_index_says_is_eio() {
    if !can_mount("a mount of wrong content") {
        return;
    }
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    let sizes = [50_000, 500_001, 3 << 20];
    for (n, size) in sizes.into_iter().enumerate() {
        fs::write(tree.join(format!("right-{n}")), noise(1, size)).unwrap();
        fs::write(tree.join(format!("wrong-{n}")), noise(2, size)).unwrap();
    }
    repo.push_changed(&tree, |draft| {
        let mut entries = draft.entries.iter_mut();
        while let Some(wrong) = entries.find(|one| one.path.starts_with(b"wrong")) {
            wrong.blake3 = Some(Hash([1; 32]));
        }
    });
    let mut command = Command::new(SEALIFT);
    command
        .args(["mount", "mnt", "--from", "repo", "--accept-signer"])
        .args(["--identity", "key.txt", "--cache", "none"])
        .current_dir(repo.temp.path())
        .env("HOME", repo.temp.path());
    let mounting = Mounting::start(repo.temp.path(), command);
    let open = |name: &str| fs::File::open(mounting.latest().join(name)).unwrap();
    // From the end to the begin, in pieces, by one reader.
    let backwards = |name: &str, size: usize| {
        let (file, mut whole) = (open(name), vec![0; size]);
        for at in (0..size).step_by(40_000).rev() {
            let until = size.min(at + 40_000);
            file.read_exact_at(&mut whole[at..until], at as u64)?;
        }
        Ok::<_, std::io::Error>(whole)
    };
    for (n, size) in sizes.into_iter().enumerate() {
        let (right, wrong) = (format!("right-{n}"), format!("wrong-{n}"));
        assert!(backwards(&right, size).unwrap() == noise(1, size));
        assert!(fs::read(mounting.latest().join(&right)).unwrap() == noise(1, size));
        let read = match n % 2 {
            0 => fs::read(mounting.latest().join(&wrong)),
            _ => backwards(&wrong, size),
        };
        let error = read.map(|_| wrong.as_str()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc_errno("EIO")), "{wrong}");
        let said = mounting.said();
        let expected = format!("the content of {wrong} of ");
        assert!(
            said.contains(&expected) && said.contains("its index"),
            "{said}"
        );
    }
    // A part of a wrong file is what was sealed as this part.
    let mut part = [0; 4096];
    open("wrong-2").read_exact_at(&mut part, 8192).unwrap();
    assert_eq!(part, noise(2, 3 << 20)[8192..12288]);
    mounting.unmount();
}

/// A host whose backups are on a server that stops answering when the test wants it.
struct Stopping {
    server: S3Server,
    host: Host,
    is_stopped: Arc<AtomicBool>,
}

impl Stopping {
    fn new(files: u64) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let server = S3Server::start_with(Arc::new(move |_| {
            while stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            None
        }));
        let host = Host::new();
        for n in 0..files {
            fs::write(host.data().join(format!("file-{n}")), noise(n, 200_000)).unwrap();
        }
        host.backup();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(host.folder())
            .arg(server.bucket_dir())
            .status();
        assert!(copied.unwrap().success());
        Self {
            server,
            host,
            is_stopped,
        }
    }

    fn mount(&self, timeout: &str) -> Mounting {
        let (url, endpoint) = (format!("s3://{BUCKET}"), self.server.endpoint());
        let words = [
            "--from",
            &url,
            "--endpoint",
            &endpoint,
            "--signer",
            &self.host.signer,
            "--cache",
            "none",
            "--timeout",
            timeout,
        ];
        Mounting::by(&self.host, &words, |command| {
            command.envs(self.server.variables());
        })
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.is_stopped.store(false, Ordering::Relaxed);
    }
}

fn reader(path: &std::path::Path) -> Child {
    let mut command = Command::new("cat");
    command
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_target_that_stops_holds_up_no_reader_for_longer_than_the_timeout() {
    if !can_mount("a mount of a target that stops") {
        return;
    }
    let stopping = Stopping::new(8);
    let mounting = stopping.mount("3s");
    let data = mounting.latest().join("data");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 8);
    stopping.is_stopped.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let readers: Vec<Child> = (0..8)
        .map(|n| reader(&data.join(format!("file-{n}"))))
        .collect();
    for one in readers {
        let output = one.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && err.contains("Input/output error"),
            "{err}"
        );
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(12),
        "{took:?}"
    );
    assert!(
        mounting.said().contains("did not deliver"),
        "{}",
        mounting.said()
    );
    // It can be unmounted while the target is away.
    let began = Instant::now();
    mounting.unmount();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_reader_that_waits_can_be_interrupted() {
    if !can_mount("a reader that waits") {
        return;
    }
    let stopping = Stopping::new(1);
    let mounting = stopping.mount("10m");
    // Once before the index is there, and once while content is read.
    for is_listed in [false, true] {
        let path = mounting.latest().join("data/file-0");
        if is_listed {
            assert!(fs::metadata(&path).is_ok());
        }
        stopping.is_stopped.store(true, Ordering::Relaxed);
        let mut waiting = reader(&path);
        std::thread::sleep(Duration::from_millis(600));
        assert!(waiting.try_wait().unwrap().is_none());
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let began = Instant::now();
        let status = waiting.wait().unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(status.signal(), Some(2));
        stopping.is_stopped.store(false, Ordering::Relaxed);
        if is_listed {
            assert_eq!(fs::read(&path).unwrap(), noise(0, 200_000));
        }
    }
    mounting.unmount();
}
