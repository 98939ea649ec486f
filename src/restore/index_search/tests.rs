use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::base::ids::Hash;
use crate::format::index::{Extent, ValidationRecord};
use crate::format::json::json_line;

/// An index in memory, which counts what is read of it.
struct Plain {
    bytes: Vec<u8>,
    cuts: Vec<u64>,
    read: Cell<u64>,
}

impl IndexSource for Plain {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, NotFound> {
        let end = range.end.min(self.bytes());
        let part = &self.bytes[range.start as usize..end as usize];
        self.read.set(self.read.get() + part.len() as u64);
        Ok(part.to_vec())
    }

    async fn cuts(&self, at: u64) -> Result<Vec<u64>, NotFound> {
        let next = self.cuts.partition_point(|cut| *cut <= at);
        let around = self.cuts[next.saturating_sub(1)..].iter().take(2);
        Ok(around.copied().collect())
    }
}

fn archive() -> ArchiveStream {
    ArchiveStream {
        archive: "0011223344556677.1".parse().unwrap(),
        tar_bytes: 1 << 30,
        tar_blake3: Hash([7; 32]),
    }
}

fn entry(path: &[u8], kind: EntryType) -> Entry {
    let size = u64::from(kind == EntryType::File) * 10;
    let extent = Extent {
        archive: Some(archive().archive),
        offset: 512,
        length: size,
    };
    Entry {
        size,
        extents: if size > 0 { vec![extent] } else { Vec::new() },
        ..Entry::example(path, kind)
    }
}

/// Returns an index of `entries`.
fn index(entries: &BTreeMap<Vec<u8>, Entry>, cuts: Vec<u64>) -> Plain {
    let header = IndexHeader {
        format: 1,
        host: "host".parse().unwrap(),
        stamp: "20260407T060000Z".parse().unwrap(),
        salt: "00".repeat(32),
        tags: Vec::new(),
        note: None,
        sources: Vec::new(),
        validation: ValidationRecord {
            valid: true,
            checked_at: chrono::DateTime::UNIX_EPOCH,
            errors: Vec::new(),
        },
        databases: Vec::new(),
        skipped: Vec::new(),
        archives: 1,
        entries: entries.len() as u64,
    };
    let mut lines = vec![json_line(&header), json_line(&archive())];
    lines.extend(entries.values().map(Entry::to_line));
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend(line);
        bytes.push(b'\n');
    }
    let mut cuts: Vec<u64> = cuts
        .into_iter()
        .map(|cut| cut * bytes.len() as u64 / 1000)
        .collect();
    cuts.push(0);
    cuts.sort_unstable();
    Plain {
        bytes,
        cuts,
        read: Cell::new(0),
    }
}

/// Names whose order next to `/` matters, and such as need escapes or base64.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'a'),
        Just(b'b'),
        Just(b'-'),
        Just(b'.'),
        Just(b'0'),
        Just(b'"'),
        Just(b'\n'),
        Just(0xff),
    ];
    let name = proptest::collection::vec(byte, 1..4);
    name.prop_filter("is a name", |name| name != b"." && name != b"..")
}

fn entries() -> impl Strategy<Value = BTreeMap<Vec<u8>, Entry>> {
    let one = (
        proptest::collection::vec(name(), 1..4),
        0..6_u8,
        0..12_000_usize,
    );
    proptest::collection::vec(one, 1..150).prop_map(|all| {
        let mut entries = BTreeMap::new();
        for (names, kind, attribute) in all {
            let path = names.join(&b'/');
            let mut above = parent_path(&path);
            while let Some(dir) = above {
                entries.insert(dir.to_vec(), entry(dir, EntryType::Dir));
                above = parent_path(dir);
            }
            let first = entries
                .values()
                .find(|one: &&Entry| one.kind == EntryType::File);
            let first = first.map(|one| one.path.clone());
            let mut made = entry(&path, EntryType::File);
            if let Some(first) = first.filter(|first| kind == 0 && *first < path) {
                made = entry(&path, EntryType::Hardlink);
                made.target = Some(first);
            }
            // A long line.
            made.xattrs
                .insert(b"user.x".to_vec(), vec![attribute as u8; attribute]);
            entries.entry(path).or_insert(made);
        }
        // What became a directory later is no first name any more.
        let files: Vec<Vec<u8>> = entries
            .values()
            .filter(|one| one.kind == EntryType::File)
            .map(|one| one.path.clone())
            .collect();
        entries.retain(|_, one| {
            one.target
                .as_ref()
                .is_none_or(|first| files.contains(first))
        });
        entries
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

proptest! {
    /// Kind: a search misses an entry, or returns one that the whole index does not have.
    #[test]
    fn a_search_finds_what_the_whole_index_has(
        entries in entries(),
        cuts in proptest::collection::vec(0..1000_u64, 0..40),
        picked in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..5),
        absent in name(),
        with_trees: bool,
    ) {
        let source = index(&entries, cuts);
        let paths: Vec<&Vec<u8>> = entries.keys().collect();
        let mut wanted = WantedPaths { with_trees, ..WantedPaths::default() };
        for (index, is_required) in picked {
            let path = paths[index.index(paths.len())].clone();
            match is_required {
                true => wanted.required.push(path),
                false => wanted.optional.push(path),
            }
        }
        wanted.optional.push(absent.clone());
        let found = match block_on(search(&source, &wanted)) {
            Ok(found) => found,
            // Most of a small index is wanted.
            Err(NotFound::ReadWhole) => return Ok(()),
            Err(NotFound::Range(error)) => panic!("{error}"),
        };
        let above = |path: &[u8], dir: &[u8]| path.starts_with(&[dir, b"/"].concat());
        let mut expected: BTreeMap<&Vec<u8>, &Entry> = BTreeMap::new();
        for (path, entry) in &entries {
            let is_named = wanted.required.contains(path) || wanted.optional.contains(path);
            let is_tree = wanted.required.iter().any(|one| above(path, one) || above(one, path));
            if is_named || with_trees && is_tree {
                expected.insert(path, entry);
            }
        }
        let firsts: Vec<Vec<u8>> = expected.values().filter_map(|one| one.target.clone()).collect();
        expected.extend(firsts.iter().map(|first| entries.get_key_value(first).unwrap()));
        let found: Vec<Entry> = found.entries.iter().map(|entry| entry.to_entry()).collect();
        let expected: Vec<Entry> = expected.values().map(|entry| (*entry).clone()).collect();
        prop_assert!(found == expected, "{found:?}\n{expected:?}");
        if !entries.contains_key(&absent) {
            wanted.required.push(absent);
            prop_assert!(matches!(block_on(search(&source, &wanted)), Err(NotFound::ReadWhole)));
        }
    }
}

/// Kind: a search reads most of what it searches.
#[test]
fn a_search_reads_little() {
    let mut entries = BTreeMap::new();
    for dir in 0..300 {
        let dir = format!("{dir:03}").into_bytes();
        entries.insert(dir.clone(), entry(&dir, EntryType::Dir));
        for file in 0..300 {
            let path = [&dir[..], format!("/{file:03}").as_bytes()].concat();
            entries.insert(path.clone(), entry(&path, EntryType::File));
        }
    }
    let source = index(&entries, (0..1000).step_by(13).collect());
    for path in ["000", "123", "123/000", "299/299", "150/151"] {
        source.read.set(0);
        let found = block_on(search(&source, &WantedPaths::trees(&[path.into()]))).unwrap();
        let expected = if path.contains('/') { 2 } else { 301 };
        assert_eq!(found.entries.len(), expected, "{path}");
        let (read, all) = (source.read.get(), source.bytes());
        assert!(read * 20 < all, "{path}: {read} of {all}");
    }
}
