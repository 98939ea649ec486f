use super::*;
use crate::base::ids::WriterId;
use crate::format::index::{has_wide_time, is_wide_time};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no path has it", |b| !matches!(b, 0 | b'/' | b'.'));
    let name = prop::collection::vec(byte, 1..12);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

fn extent() -> impl Strategy<Value = Extent> {
    let archive = prop::option::of((0u8..3, 1u64..200));
    (archive, 0..u64::MAX / 4, 1u64..1 << 40).prop_map(|(archive, offset, length)| Extent {
        archive: archive.map(|(writer, counter)| ArchiveId {
            writer: WriterId([writer; 8]),
            counter,
        }),
        offset,
        length,
    })
}

prop_compose! {
    fn entry()(
        path in path(),
        kind in 0usize..7,
        (mode, uid, gid) in (0u32..0o10000, prop_oneof![0u32..3, any::<u32>()], any::<u32>()),
        (user, group) in (prop::option::of("[a-c]{1,2}"), prop::option::of(".{0,8}")),
        mtime_ns in prop_oneof![
            any::<i64>().prop_map(i128::from),
            (any::<i64>(), 0i128..1_000_000_000)
                .prop_map(|(seconds, rest)| i128::from(seconds) * 1_000_000_000 + rest),
            Just(i128::from(i64::MIN)),
            Just(i128::from(i64::MAX) + 1),
        ],
        xattrs in prop::collection::btree_map(text(), text(), 0..3),
        hash in any::<[u8; 32]>(),
        extents in prop::collection::vec(extent(), 0..60),
        target in path(),
        rdev in any::<(u32, u32)>(),
        torn in any::<bool>(),
    ) -> Entry {
        let kind = KINDS[kind];
        let is_file = kind == EntryType::File;
        let extents = if is_file { extents } else { Vec::new() };
        let is_device = matches!(kind, EntryType::Chardev | EntryType::Blockdev);
        let has_target = matches!(kind, EntryType::Symlink | EntryType::Hardlink);
        Entry {
            path, kind, mode, uid, gid, user, group, mtime_ns, xattrs, torn,
            size: extents.iter().map(|extent| extent.length).sum(),
            blake3: is_file.then_some(Hash(hash)),
            extents,
            target: has_target.then_some(target),
            rdev: is_device.then_some(rdev),
        }
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(entry(), 0..40).prop_map(|mut entries| {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        entries
    })
}

proptest! {
    #[test]
    fn every_entry_comes_back_from_list_and_line(entries in entries()) {
        let mut list = EntryList::default();
        list.extend(&entries);
        prop_assert_eq!(list.len(), entries.len());
        let back: Vec<Entry> = list.iter().map(|entry| entry.to_entry()).collect();
        prop_assert_eq!(&back, &entries);
        for entry in &entries {
            let line = entry.to_line();
            prop_assert_eq!(&Entry::from_line(&line), &Ok(entry.clone()));
            prop_assert_eq!(has_wide_time(&line), is_wide_time(entry.mtime_ns));
        }
    }

    #[test]
    fn a_search_finds_what_a_linear_one_finds(entries in entries(), other in path()) {
        let mut list = EntryList::default();
        list.extend(&entries);
        for path in entries.iter().map(|entry| &entry.path).chain([&other, &Vec::new()]) {
            let linear = entries.iter().find(|entry| entry.path == *path);
            let found = list.find(path).map(|entry| entry.to_entry());
            prop_assert_eq!(found.as_ref(), linear);
        }
    }
}

fn ordinary(number: u64) -> Entry {
    let writer = WriterId([7; 8]);
    Entry {
        path: format!("srv/documents/2026/archive-{number:08}/report.txt").into_bytes(),
        kind: EntryType::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        user: Some("atocore".to_owned()),
        group: Some("atocore".to_owned()),
        mtime_ns: 1_775_000_000_123_456_789 + i128::from(number),
        xattrs: BTreeMap::new(),
        size: 2000,
        blake3: Some(Hash::blake3(&number.to_le_bytes())),
        extents: vec![Extent {
            archive: Some(ArchiveId {
                writer,
                counter: 1 + number / 1000,
            }),
            offset: number % 1000 * 60_000,
            length: 2000,
        }],
        target: None,
        rdev: None,
        torn: false,
    }
}

#[test]
fn an_ordinary_file_takes_little_and_blocks_follow_each_other() {
    let (mut list, count) = (EntryList::default(), 40_000);
    for number in 0..count {
        list.push(&ordinary(number));
    }
    assert!(list.blocks.len() > 2);
    for number in 0..count {
        assert_eq!(list.get(number as usize).to_entry(), ordinary(number));
    }
    let (one, path) = (list.memory_bytes() / count as usize, list.path(0).len());
    assert!(one <= 120, "{one} bytes with a path of {path}");
}

#[test]
fn an_entry_larger_than_a_block_fits_among_others() {
    let mut large = ordinary(1);
    let hole = Extent {
        archive: None,
        offset: 0,
        length: 9,
    };
    large.extents = vec![hole; BLOCK_BYTES];
    let entries = [ordinary(0), large, ordinary(2)];
    let mut list = EntryList::default();
    list.extend(&entries);
    assert!(list.iter().map(|entry| entry.to_entry()).eq(entries));
}
