//! Repositories by a hostile host (the attacker has its signer, and seals what he likes), and a cage to open
//! them in: limits on memory, time and file sizes, and a look at everything that lies outside.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use sealift::base::error_chain::with_causes;
use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::index::{EntryType, Extent};
use sealift::format::manifest::{ArchiveKind, Manifest, ManifestCore, ManifestName};
use sealift::format::signature::MANIFEST_NAMESPACE;

use super::handmade_repo::{self, Draft, Repo};
use super::is_long;
use super::tree::noise;

/// What opening a hostile repository may take, debug build and all. The address space holds threads' stacks and
/// four zstd windows of 128 MiB too.
pub const ADDRESS_BYTES: u64 = 1536 << 20;
pub const PEAK_BYTES: u64 = 300 << 20;
/// Of one file.
pub const FILE_BYTES: u64 = 64 << 20;
pub const SECONDS: u64 = 60;

/// Runs a program within limits and says what it took. A shell cannot say the peak.
const KEEPER: &str = r#"
import json, os, resource, signal, subprocess, sys
report, address, file, seconds = sys.argv[1:5]
def limit():
    resource.setrlimit(resource.RLIMIT_AS, (int(address),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
child = subprocess.Popen(sys.argv[5:], preexec_fn=limit, start_new_session=True)
try:
    code = child.wait(float(seconds))
except subprocess.TimeoutExpired:
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    code = "timeout"
with open(report, "w") as out:
    json.dump({"code": code, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}, out)
"#;

pub struct Ran {
    /// An exit code; a signal's number, negative; or `timeout`.
    pub code: serde_json::Value,
    pub out: String,
    pub err: String,
    pub peak_bytes: u64,
}

impl Ran {
    pub fn said(&self) -> String {
        format!("{}\n{}\n{}", self.code, self.out, self.err)
    }

    /// It ended by itself, with one of `codes`, and within its bounds.
    pub fn ended(&self, what: &str, codes: &[i64]) -> &Self {
        let shown: String = self.said().chars().take(3000).collect();
        let code = self.code.as_i64();
        assert!(code.is_some_and(|c| codes.contains(&c)), "{what}: {shown}");
        for bad in ["panicked", "Traceback", "overflow"] {
            assert!(!self.err.contains(bad), "{what}: {shown}");
        }
        let peak = self.peak_bytes;
        assert!(peak < PEAK_BYTES, "{what} took {peak} bytes: {shown}");
        // Nothing that a terminal would obey.
        let harmless = |c: char| matches!(c, '\n' | '\t' | '\r') || !c.is_control();
        assert!(self.out.chars().all(harmless), "{what}: {shown:?}");
        assert!(self.err.chars().all(harmless), "{what}: {shown:?}");
        self
    }
}

/// A repository with a tree of `a/file` and `z`, something beside it that must not change, and where to restore.
pub struct Cage {
    pub repo: Repo,
    pub tree: PathBuf,
    /// File sizes that a run may reach.
    pub file_bytes: u64,
}

impl Cage {
    pub fn new() -> Self {
        let repo = Repo::new();
        let (tree, canary) = (repo.path("tree"), repo.path("dest/canary"));
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(tree.join("a/file"), noise(1, 50_000)).unwrap();
        fs::write(tree.join("z"), noise(2, 500)).unwrap();
        fs::create_dir_all(canary.join("dir")).unwrap();
        fs::create_dir(repo.path("tmp")).unwrap();
        fs::write(canary.join("file"), noise(3, 600)).unwrap();
        symlink("file", canary.join("link")).unwrap();
        fs::write(
            repo.path("recover.py"),
            include_str!("../../deploy/recover.py"),
        )
        .unwrap();
        let file_bytes = FILE_BYTES;
        Self {
            repo,
            tree,
            file_bytes,
        }
    }

    /// One snapshot whose index was changed before it was sealed.
    pub fn lying(change: impl FnOnce(&mut Draft)) -> Self {
        let mut cage = Self::new();
        let tree = cage.tree.clone();
        cage.repo.push_changed(&tree, change);
        cage
    }

    /// One snapshot with these lines behind the honest ones; `Words` has what they may quote.
    pub fn with_lines(lines: impl FnOnce(&Words) -> Vec<Vec<u8>>) -> Self {
        let mut cage = Self::new();
        let canary = cage.canary().display().to_string();
        let tree = cage.tree.clone();
        cage.repo.push_changed(&tree, |draft| {
            let z = draft.entries.last().unwrap();
            let words = Words {
                canary,
                extent: serde_json::to_string(&z.extents[0]).unwrap(),
                blake3: z.blake3.unwrap().to_string(),
            };
            draft.raw_lines = lines(&words);
        });
        cage
    }

    pub fn canary(&self) -> PathBuf {
        self.repo.path("dest/canary")
    }

    pub fn restored(&self) -> PathBuf {
        self.repo.path("dest/out")
    }

    /// Everything but what was restored: kind, mode, owner, size, links, times, and the canary's content.
    pub fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.repo.temp.path().to_owned()];
        let kept = [self.restored(), self.repo.path("keeper.json")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if kept.contains(&path) {
                    continue;
                }
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = match path.starts_with(self.canary()) && meta.is_file() {
                    true => Hash::blake3(&fs::read(&path).unwrap()).short(),
                    false => String::new(),
                };
                let times = match meta.is_dir() {
                    // Where something grows for a while.
                    true if ["dest", "tmp"].iter().any(|name| path.ends_with(name)) => (0, 0),
                    _ => (meta.mtime(), meta.mtime_nsec()),
                };
                let (mode, links) = (meta.mode(), meta.nlink() * u64::from(meta.is_file()));
                let (uid, len) = (meta.uid(), meta.len() * u64::from(!meta.is_dir()));
                let text = format!("{mode:o} {links} {uid} {len} {times:?} {content}");
                if meta.is_dir() {
                    dirs.push(path.clone());
                }
                found.insert(path, text);
            }
        }
        found
    }

    /// Runs a program in the cage; nothing outside may change, and nothing may be left lying about.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Ran {
        let before = self.outside();
        let report = self.repo.path("keeper.json");
        let output = Command::new("python3")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.repo.temp.path())
            .env("TMPDIR", self.repo.path("tmp"))
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.repo.temp.path())
            .stdin(Stdio::null())
            .args(["-B", "-c", KEEPER])
            .arg(&report)
            .args([ADDRESS_BYTES, self.file_bytes, SECONDS].map(|n| n.to_string()))
            .arg(program)
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let said = fs::read_to_string(&report).unwrap_or_else(|_| panic!("{out}{err}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let mut after = self.outside();
        // `-wal` and the like, or a part of a tree: nothing of it may be there.
        let new: Vec<_> = after.keys().filter(|k| !before.contains_key(*k)).collect();
        assert!(new.is_empty(), "{new:?} came: {err}");
        after.retain(|path, now| before.get(path) != Some(now));
        assert!(after.is_empty(), "changed: {after:?} {err}");
        assert_eq!(
            self.outside().len(),
            before.len(),
            "something is gone: {err}"
        );
        Ran {
            code: said["code"].clone(),
            peak_bytes: said["peak"].as_u64().unwrap(),
            out,
            err,
        }
    }

    /// Removes what was restored, however deep it is.
    fn clear(&self) {
        let removed = Command::new("rm").arg("-rf").arg(self.restored()).status();
        assert!(removed.unwrap().success());
    }

    fn sealift(&self, command: &[&str], more: &[&str]) -> Ran {
        let signer = self.repo.signer.fingerprint();
        let from = ["--from", "repo", "--signer", &signer];
        let arguments = [command, &from, more].concat();
        self.run(Path::new(env!("CARGO_BIN_EXE_sealift")), &arguments)
    }

    pub fn restore(&self, more: &[&str]) -> Ran {
        self.clear();
        let command = ["restore", "--identity", "key.txt", "--to", "dest/out"];
        self.sealift(&command, more)
    }

    pub fn recover(&self, more: &[&str]) -> Ran {
        self.clear();
        let signer = self.repo.signer.fingerprint();
        let arguments = ["-B", "recover.py", "repo/dalidou", "--identity", "key.txt"];
        let to = ["--signer", &signer, "--to", "dest/out"];
        self.run(Path::new("python3"), &[&arguments, &to[..], more].concat())
    }

    pub fn ls(&self) -> Ran {
        self.sealift(&["ls", "--identity", "key.txt"], &[])
    }

    pub fn list(&self) -> Ran {
        self.sealift(&["list"], &[])
    }

    /// With an identity it restores to nowhere.
    pub fn verify(&self) -> Ran {
        let opened = ["--data", "--identity", "key.txt", "--scratch", "tmp"];
        self.sealift(&["verify"], &opened)
    }

    /// `sealift open` on an archive; its tar goes nowhere.
    pub fn open(&self, archive: &Path) -> Ran {
        let line = "exec \"$@\" >/dev/null";
        let archive = archive.to_str().unwrap();
        let open = [
            env!("CARGO_BIN_EXE_sealift"),
            "open",
            "--identity",
            "key.txt",
        ];
        let arguments = [&["-c", line, "sh"], &open[..], &[archive]].concat();
        self.run(Path::new("/bin/sh"), &arguments)
    }

    /// Neither the program nor the script makes anything of it. The one says `says`, the other `by_hand`.
    /// In everyday runs only each eighth goes through them; the library alone receives every one.
    pub fn refuses(&self, what: &str, says: &str, by_hand: &str) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) && !is_long() {
            self.clear();
            let before = self.outside();
            let refused =
                handmade_repo::restore(&self.repo, &handmade_repo::request(&self.restored()));
            let told = with_causes(&refused.expect_err(what));
            assert!(told.contains(says), "{what}: {says:?} is not in {told}");
            assert!(!self.restored().exists(), "{what}");
            assert_eq!(self.outside(), before, "{what}");
            return;
        }
        let ran = self.restore(&[]);
        ran.ended(what, &[1]);
        assert!(
            ran.err.contains(says),
            "{what}: {says:?} is not in {}",
            ran.said()
        );
        assert!(!self.restored().exists(), "{what}");
        let ran = self.recover(&[]);
        ran.ended(&format!("{what} by hand"), &[1]);
        assert!(
            ran.err.contains(by_hand),
            "{what}: {by_hand:?} is not in {}",
            ran.said()
        );
        assert!(!self.restored().exists(), "{what} by hand");
    }

    /// Looking at it does no harm either, whatever it brings.
    pub fn bears_looking(&self, what: &str) {
        self.list().ended(what, &[0, 1, 3]);
        self.ls().ended(what, &[0, 1]);
        self.verify().ended(what, &[1, 3]);
    }
}

/// What a crafted line may quote.
pub struct Words {
    pub canary: String,
    /// Of `z`, which has 500 bytes.
    pub extent: String,
    pub blake3: String,
}

/// An entry line; `path` is JSON with its key, `rest` begins with a comma.
pub fn line(path: &str, kind: &str, rest: &str) -> Vec<u8> {
    let common = r#""mode":493,"uid":0,"gid":0,"mtime":0"#;
    format!(r#"{{{path},"type":"{kind}",{common}{rest}}}"#).into_bytes()
}

/// A manifest that is signed as it is, however odd; gives its name.
pub fn publish_bytes(repo: &Repo, sequence: &str, stamp: &str, bytes: &[u8]) -> String {
    let hash16 = Hash::sha256(bytes).short();
    let name = format!("{sequence}-{stamp}-{hash16}");
    let signature = repo.signer.sign(MANIFEST_NAMESPACE, bytes).unwrap();
    repo.write(&format!("manifests/{name}.json"), bytes);
    repo.write(&format!("manifests/{name}.json.sig"), signature.as_bytes());
    name
}

/// The newest manifest again, changed and signed: as JSON, so that it may be anything.
pub fn republish(
    repo: &Repo,
    manifest: &Manifest,
    change: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value),
) -> String {
    remove(repo, &manifest.name());
    let mut lines = manifest.bytes.split(|byte| *byte == b'\n');
    let mut next = || serde_json::from_slice(lines.next().unwrap()).unwrap();
    let (mut core, mut tables): (serde_json::Value, serde_json::Value) = (next(), next());
    change(&mut core, &mut tables);
    let sequence: u128 = core["sequence"].to_string().parse().unwrap_or(1);
    let stamp = core["stamp"]
        .as_str()
        .unwrap_or("20260407T060000Z")
        .to_owned();
    let bytes = format!("{core}\n{tables}\n");
    publish_bytes(repo, &format!("{sequence:08}"), &stamp, bytes.as_bytes())
}

/// The same with a core of the right shape.
pub fn republish_core(
    repo: &Repo,
    manifest: &Manifest,
    change: impl FnOnce(&mut ManifestCore),
) -> String {
    remove(repo, &manifest.name());
    let mut core = manifest.core.clone();
    change(&mut core);
    let made = Manifest::new(core, manifest.pages.clone());
    let name = made.name();
    publish_bytes(
        repo,
        &format!("{:08}", name.sequence),
        &name.stamp.to_string(),
        &made.bytes,
    )
}

fn remove(repo: &Repo, name: &ManifestName) {
    for key in [name.key(), name.signature_key()] {
        let _ = fs::remove_file(repo.folder().join(key.as_str()));
    }
}

/// The table's only page again, changed; the manifest names it.
pub fn replace_page(repo: &Repo, manifest: &Manifest, change: impl FnOnce(&mut serde_json::Value)) {
    let old = repo
        .folder()
        .join(ObjectKey::table(&manifest.pages[0]).as_str());
    let mut page = serde_json::from_slice(&fs::read(old).unwrap()).unwrap();
    change(&mut page);
    let bytes = format!("{page}\n").into_bytes();
    let hash = Hash::sha256(&bytes);
    repo.write(ObjectKey::table(&hash).as_str(), &bytes);
    republish(repo, manifest, |_, tables| {
        tables["tables"] = serde_json::json!([hash.to_string()]);
    });
}

/// An archive that opens to `bytes` zeros: a few dozen kB for a gigabyte.
pub fn bomb(repo: &mut Repo, kind: ArchiveKind, bytes: u64) -> sealift::base::ids::ArchiveId {
    let zeros = std::io::Read::take(std::io::repeat(0), bytes);
    let packed = zstd::encode_all(zeros, 1).unwrap();
    let sealed = handmade_repo::encrypt(&packed, &repo.recipients.clone());
    repo.add_archive(&sealed, kind)
}

/// An archive that cannot be opened as others: its zstd frame wants a window of 2 GiB.
pub fn wide(repo: &mut Repo, kind: ArchiveKind) -> sealift::base::ids::ArchiveId {
    // Magic, a frame header without size and checksum, windowLog 31, one empty last block.
    let frame = [
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x00,
        (31 - 10) << 3,
        0x01,
        0x00,
        0x00,
    ];
    let sealed = handmade_repo::encrypt(&frame, &repo.recipients.clone());
    repo.add_archive(&sealed, kind)
}

/// An age header of this number of stanzas that no identity can open, and the payload of a real file.
pub fn crowded(
    repo: &mut Repo,
    kind: ArchiveKind,
    stanzas: usize,
) -> sealift::base::ids::ArchiveId {
    let sealed = handmade_repo::seal_tar(&[0; 1024], &repo.recipients.clone());
    let cut = sealed.windows(4).position(|w| w == b"\n---").unwrap() + 1;
    let stanza = "-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\nEmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n";
    let head = format!("age-encryption.org/v1\n{}", stanza.repeat(stanzas));
    let sealed = [head.as_bytes(), &sealed[cut..]].concat();
    repo.add_archive(&sealed, kind)
}

pub fn hole(length: u64) -> Extent {
    let (archive, offset) = (None, 0);
    Extent {
        archive,
        offset,
        length,
    }
}

/// The kind, mode and inode of what was restored at `path`.
pub fn made(cage: &Cage, path: &str) -> Option<(EntryType, u32)> {
    let meta = fs::symlink_metadata(cage.restored().join(path)).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_dir() => EntryType::Dir,
        kind if kind.is_symlink() => EntryType::Symlink,
        kind if kind.is_file() => EntryType::File,
        kind => match std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
            true => EntryType::Fifo,
            false => EntryType::Chardev,
        },
    };
    Some((kind, meta.permissions().mode() & 0o7777))
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.clear();
    }
}
