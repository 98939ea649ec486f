//! Real directory trees: made, described for comparison, filled with noise.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sealift::base::ids::Hash;
use sealift::format::index::{Entry, EntryType};
use sealift::format::restored::RESTORED;

/// The entries of a real directory, without content, and without the record that a restore writes at its root.
pub fn scan(tree: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut paths = Vec::new();
    list(tree, b"", &mut paths);
    paths.retain(|path| path != RESTORED.as_bytes());
    paths.sort();
    for path in paths {
        let full = tree.join(std::ffi::OsStr::from_bytes(&path));
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let mut entry = Entry {
            kind: match () {
                () if kind.is_dir() => EntryType::Dir,
                () if kind.is_symlink() => EntryType::Symlink,
                () if kind.is_fifo() => EntryType::Fifo,
                () if kind.is_char_device() => EntryType::Chardev,
                () if kind.is_file() => EntryType::File,
                () => panic!("{full:?}"),
            },
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            user: None,
            group: None,
            mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            xattrs: BTreeMap::new(),
            size: 0,
            blake3: None,
            extents: Vec::new(),
            target: None,
            rdev: None,
            torn: false,
            path,
        };
        for name in xattr::list(&full).unwrap() {
            let value = xattr::get(&full, &name).unwrap().unwrap();
            entry.xattrs.insert(name.as_bytes().to_vec(), value);
        }
        match entry.kind {
            EntryType::File => {
                let inode = (meta.dev(), meta.ino());
                if let Some(first) = first_names.get(&inode) {
                    entry.kind = EntryType::Hardlink;
                    entry.target = Some(first.clone());
                } else {
                    first_names.insert(inode, entry.path.clone());
                    entry.size = meta.size();
                }
            }
            EntryType::Symlink => {
                let text = fs::read_link(&full).unwrap();
                entry.target = Some(text.as_os_str().as_bytes().to_vec());
            }
            EntryType::Chardev => {
                let (major, minor) = (
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev()),
                );
                entry.rdev = Some((major, minor));
            }
            _ => {}
        }
        entries.push(entry);
    }
    entries
}

fn list(tree: &Path, below: &[u8], paths: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(tree.join(std::ffi::OsStr::from_bytes(below))).unwrap() {
        let entry = entry.unwrap();
        let mut path = below.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(entry.file_name().as_bytes());
        if entry.file_type().unwrap().is_dir() {
            list(tree, &path, paths);
        }
        paths.push(path);
    }
}

/// Everything a restore must bring back, one line per entry.
pub fn describe(tree: &Path) -> Vec<String> {
    let line = |entry: Entry| {
        let full = tree.join(std::ffi::OsStr::from_bytes(&entry.path));
        let content = match entry.kind {
            EntryType::File => Hash::blake3(&fs::read(&full).unwrap()).short(),
            _ => String::new(),
        };
        // A hard link has no time of its own worth comparing, but it has its file's: compare all.
        format!("{entry:?} {content}")
    };
    scan(tree).into_iter().map(line).collect()
}

/// A tree with everything a Unix file system holds.
pub fn make_tree(tree: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let make = |name: &[u8], content: &[u8]| {
        let path = tree.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    make(b"notes.txt", b"plain\n");
    make(b"empty", b"");
    make(b"dir/deep/er/file", &noise(1, 9000));
    make(b"dir-beside", b"sorts between dir and dir/");
    make(b"big.bin", &noise(2, 700_000));
    make(b"copy-of-big.bin", &noise(2, 700_000));
    make(b"not-utf8-\xff\xfe", b"raw name");
    make(b"dir/\xc3\xa4\xc3\xb6.txt", b"umlauts");
    make(
        format!("long/{}/end", vec!["x".repeat(200); 12].join("/")).as_bytes(),
        b"far",
    );
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20..(1 << 20) + 5000].copy_from_slice(&noise(3, 5000));
    make(b"sparse", b"");
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(tree.join("sparse"))
        .unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&sparse[1 << 20..(1 << 20) + 5000], 1 << 20)
        .unwrap();
    fs::hard_link(tree.join("big.bin"), tree.join("hard")).unwrap();
    fs::hard_link(tree.join("big.bin"), tree.join("dir/hard2")).unwrap();
    symlink("notes.txt", tree.join("link")).unwrap();
    symlink("/nowhere/at/all", tree.join("dangling")).unwrap();
    symlink(
        std::ffi::OsStr::from_bytes(b"raw-\xfe"),
        tree.join("raw-link"),
    )
    .unwrap();
    fs::create_dir(tree.join("empty-dir")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let owner_only = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), fifo, owner_only, 0).unwrap();
    let _ = xattr::set(tree.join("notes.txt"), "user.note", b"\x00\xffvalue");
    let _ = xattr::set(tree.join("dir"), "user.on-dir", b"yes");
    mode("notes.txt", 0o4640);
    mode("big.bin", 0o444);
    mode("fifo", 0o620);
    mode("empty-dir", 0o1777);
    if rustix::process::geteuid().is_root() {
        let chown = |name: &str| std::os::unix::fs::lchown(tree.join(name), Some(1000), Some(1001));
        chown("dir/deep").unwrap();
        chown("link").unwrap();
        chown("empty").unwrap();
    }
    let back = |name: &str, seconds: i64, nanos: i64| {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, tree.join(name), &times, flags).unwrap();
    };
    back("notes.txt", 1_500_000_000, 123_456_789);
    back("link", 1_400_000_000, 1);
    back("empty", -5, 999_999_999);
    back("dir/deep", 1_300_000_000, 987_654_321);
    mode("dir/deep", 0o555);
}

/// Bytes that do not compress and differ by `seed`.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}
