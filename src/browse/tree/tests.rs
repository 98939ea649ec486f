use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::ids::{ArchiveId, WriterId};
use crate::format::index::{Entry, Extent};

fn tree(entries: &[Entry]) -> SnapshotTree {
    let mut list = EntryList::default();
    list.extend(entries);
    SnapshotTree::new(list).unwrap()
}

/// Names that sort around a slash.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![b'a', b'b', b'-', b'.', b'0', b'~', 0xff]);
    prop::collection::vec(byte, 1..4)
        .prop_filter("no path has it", |name| name != b"." && name != b"..")
}

/// Directories and files, of which every second file may be a further name of an earlier one.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let paths = prop::collection::vec(prop::collection::vec(name(), 1..4), 0..30);
    (paths, any::<u64>()).prop_map(|(paths, seed)| {
        let mut dirs = BTreeSet::new();
        let mut all = BTreeSet::new();
        for path in paths {
            for length in 1..=path.len() {
                let joined = path[..length].join(&b'/');
                if length < path.len() {
                    dirs.insert(joined.clone());
                }
                all.insert(joined);
            }
        }
        let mut first_file: Option<Vec<u8>> = None;
        let made = all.iter().enumerate().map(|(n, path)| {
            if dirs.contains(path) {
                return Entry::example(path, EntryType::Dir);
            }
            match &first_file {
                Some(first) if seed >> (n % 64) & 1 == 1 => Entry {
                    target: Some(first.clone()),
                    ..Entry::example(path, EntryType::Hardlink)
                },
                _ => {
                    first_file = Some(path.clone());
                    Entry::example(path, EntryType::File)
                }
            }
        });
        made.collect()
    })
}

/// The names in a directory, found without any order.
fn names_in(entries: &[Entry], directory: &[u8]) -> Vec<(Vec<u8>, Entry)> {
    let inside = entries.iter().filter_map(|entry| {
        let parent = parent_path(&entry.path).unwrap_or_default();
        let name = entry.path.rsplit(|byte| *byte == b'/').next()?;
        (parent == directory).then(|| (name.to_vec(), entry.clone()))
    });
    inside.collect()
}

proptest! {
    #[test]
    fn a_walk_finds_what_the_paths_say(entries in entries(), step in 1usize..4) {
        let tree = tree(&entries);
        let mut left = vec![(TreeNode::ROOT, Vec::new())];
        let mut seen = 0;
        while let Some((node, path)) = left.pop() {
            let expected = names_in(&entries, &path);
            // In steps, as a listing is continued.
            let (mut found, mut from) = (Vec::new(), 0);
            loop {
                let some: Vec<_> = tree.children(node, from).take(step).collect();
                let Some(last) = some.last() else { break };
                from = last.position + 1;
                found.extend(some.iter().map(|one| (one.name.to_vec(), one.node, one.kind)));
            }
            let names: Vec<_> = found.iter().map(|(name, ..)| name.clone()).collect();
            let expected_names: Vec<_> = expected.iter().map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(names, expected_names);
            for ((name, child, kind), (_, entry)) in found.iter().zip(&expected) {
                seen += 1;
                prop_assert_eq!(tree.lookup(node, name), Some(*child));
                let first = entry.target.as_ref().unwrap_or(&entry.path);
                prop_assert_eq!(tree.entry(*child).unwrap().path, &first[..]);
                let names = 1 + entries.iter().filter(|e| e.target.as_ref() == Some(first)).count();
                let attributes = tree.attributes(*child).unwrap();
                prop_assert_eq!(attributes.kind, *kind);
                if entry.kind == EntryType::Dir {
                    prop_assert_eq!(tree.parent(*child), node);
                    let inside = names_in(&entries, &entry.path);
                    let dirs = inside.iter().filter(|(_, e)| e.kind == EntryType::Dir).count();
                    prop_assert_eq!(attributes.links as usize, 2 + dirs);
                    left.push((*child, entry.path.clone()));
                } else {
                    prop_assert_eq!(attributes.links as usize, names);
                    prop_assert_eq!(tree.children(*child, 0).count(), 0);
                    prop_assert_eq!(tree.lookup(*child, b"a"), None);
                }
            }
            prop_assert_eq!(tree.lookup(node, b"no-such-name"), None);
        }
        prop_assert_eq!(seen, entries.len());
        prop_assert!(tree.entry(TreeNode(entries.len() as u64 + 1)).is_none());
    }
}

#[test]
fn holes_take_no_blocks() {
    let archive = Some(ArchiveId {
        writer: WriterId([1; 8]),
        counter: 1,
    });
    let with = |extents: &[(bool, u64)]| {
        let extents = extents.iter().map(|(is_hole, length)| Extent {
            archive: archive.filter(|_| !is_hole),
            offset: 0,
            length: *length,
        });
        let extents: Vec<Extent> = extents.collect();
        let size = extents.iter().map(|extent| extent.length).sum();
        let file = Entry {
            size,
            extents,
            ..Entry::example(b"f", EntryType::File)
        };
        let tree = tree(&[file]);
        let attributes = tree.attributes(TreeNode(1)).unwrap();
        assert_eq!(attributes.size, size);
        attributes.sectors
    };
    assert_eq!(with(&[]), 0);
    assert_eq!(with(&[(false, 1)]), 8);
    assert_eq!(with(&[(false, 4096), (false, 1)]), 16);
    assert_eq!(with(&[(true, 1 << 30)]), 0);
    assert_eq!(
        with(&[(true, 8192), (false, 10), (true, 4000), (false, 4)]),
        8
    );
    assert_eq!(with(&[(false, 10), (true, 10), (false, 10)]), 8);
}

#[test]
fn a_hard_link_to_no_earlier_file_is_refused() {
    for target in [&b"a"[..], b"z", b"d", b"b"] {
        let link = Entry {
            target: Some(target.to_vec()),
            ..Entry::example(b"b", EntryType::Hardlink)
        };
        let mut list = EntryList::default();
        list.extend(&[
            Entry::example(b"a.txt", EntryType::File),
            link,
            Entry::example(b"d", EntryType::Dir),
            Entry::example(b"z", EntryType::File),
        ]);
        assert!(matches!(
            SnapshotTree::new(list),
            Err(TreeError::HardLink { .. })
        ));
    }
}
