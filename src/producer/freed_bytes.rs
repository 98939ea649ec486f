//! Room that the deletion of snapshot directories makes.

use std::collections::HashMap;
use std::io;

use super::local_snapshots::LocalSnapshot;
use crate::base::openat::{Chosen, Dir, Kind};

/// Returns the bytes of the files that no other directory has once `snapshots` are deleted: an
/// unchanged file is one file with a name in each snapshot. Directories that disappear meanwhile
/// count for nothing.
pub fn freed_bytes<'a>(snapshots: impl IntoIterator<Item = &'a LocalSnapshot>) -> u64 {
    let mut files: HashMap<(u64, u64), LinkedFile> = HashMap::new();
    for snapshot in snapshots {
        let Ok(chosen) = Chosen::open(&snapshot.path) else {
            continue;
        };
        let _ = count_links(chosen.dir(), &mut files);
    }
    let whole = files.values().filter(|file| file.links == file.found);
    whole.map(|file| file.bytes).sum()
}

/// A file with one or more names.
struct LinkedFile {
    bytes: u64,
    /// Number of its names.
    links: u64,
    /// Number of its names that were found.
    found: u64,
}

fn count_links(top: &Dir, files: &mut HashMap<(u64, u64), LinkedFile>) -> io::Result<()> {
    let mut dirs = vec![top.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.entries()? {
            match entry.kind {
                Kind::Dir => dirs.extend(dir.sub(&entry.name).ok()),
                Kind::File => {
                    let Ok(meta) = dir.meta_of_entry(&entry.name) else {
                        continue;
                    };
                    let file = files.entry(meta.id()).or_insert(LinkedFile {
                        bytes: meta.len(),
                        links: meta.nlink(),
                        found: 0,
                    });
                    file.found += 1;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_counts_only_if_all_its_names_go() {
        let temp = tempfile::tempdir().unwrap();
        let snapshot = |stamp: &str| {
            let path = temp.path().join(stamp);
            fs::create_dir_all(path.join("below")).unwrap();
            LocalSnapshot {
                stamp: stamp.parse().unwrap(),
                path,
                metadata: None,
                valid: None,
            }
        };
        let old = snapshot("20260401T060000Z");
        let new = snapshot("20260402T060000Z");
        fs::write(old.path.join("own"), [0; 100]).unwrap();
        fs::write(old.path.join("below/shared"), [0; 1000]).unwrap();
        fs::hard_link(old.path.join("below/shared"), new.path.join("shared")).unwrap();
        assert_eq!(freed_bytes([&old]), 100);
        assert_eq!(freed_bytes([&new]), 0);
        assert_eq!(freed_bytes([&old, &new]), 1100);
    }
}
