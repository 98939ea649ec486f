//! Merges the parts of a snapshot into one stream of files in path order.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::error::PackError;
use super::origin::Origin;
use crate::base::walk::{self, Found, Walked};
use crate::format::index::{Skipped, parent_path};
use crate::state::staged_snapshot::Part;

/// One item of the stream.
pub(super) enum SnapshotItem {
    /// A file, directory or other at `path` within the snapshot.
    Found {
        path: Vec<u8>,
        found: Found,
        origin: Origin,
    },
    /// A directory above a part, which no part provides.
    Between(Vec<u8>),
    /// A file that the walk left out.
    Skipped(Skipped),
    /// A remark of the walk.
    Note(String),
}

impl SnapshotItem {
    fn path(&self) -> &[u8] {
        match self {
            Self::Found { path, .. } | Self::Between(path) => path,
            // Reports have no position in the order: they go first.
            Self::Skipped(_) | Self::Note(_) => &[],
        }
    }
}

type Items = Box<dyn Iterator<Item = SnapshotItem> + Send>;

/// One part's items.
struct Stream {
    /// The next item.
    head: Option<SnapshotItem>,
    rest: Items,
}

impl Stream {
    fn new(mut items: Items) -> Self {
        Self {
            head: items.next(),
            rest: items,
        }
    }

    fn next_path(&self) -> Option<&[u8]> {
        self.head.as_ref().map(SnapshotItem::path)
    }
}

/// The merged parts; each is a stream in path order already.
pub(super) struct Parts {
    streams: Vec<Stream>,
}

impl Parts {
    pub(super) fn open(parts: &[Part]) -> Result<Self, PackError> {
        let mut streams: Vec<Stream> = Vec::new();
        let mut between = BTreeSet::new();
        for part in parts {
            let mut up = part.to.as_slice();
            while let Some(parent) = parent_path(up) {
                between.insert(parent.to_vec());
                up = parent;
            }
            streams.push(Stream::new(open_part(part)?));
        }
        let provided: BTreeSet<&[u8]> = parts.iter().map(|part| part.to.as_slice()).collect();
        // If the root part has a directory of the same name, that is the one.
        let root = parts.iter().find(|part| part.to.is_empty());
        between.retain(|path| {
            let in_root = root.is_some_and(|part| {
                let there = part.root.dir().meta(OsStr::from_bytes(path));
                there.is_ok_and(|meta| meta.is_dir())
            });
            !provided.contains(path.as_slice()) && !in_root
        });
        let between: Vec<SnapshotItem> = between.into_iter().map(SnapshotItem::Between).collect();
        streams.push(Stream::new(Box::new(between.into_iter())));
        Ok(Self { streams })
    }
}

fn open_part(part: &Part) -> Result<Items, PackError> {
    let (dir, name) = (part.root.dir(), part.root.name());
    let meta = dir.meta(name).map_err(|source| PackError::Part {
        path: part.root.path().display().to_string(),
        source,
    })?;
    let origin = Origin::of(part);
    let root = (!part.to.is_empty()).then(|| SnapshotItem::Found {
        path: part.to.clone(),
        found: Found {
            root: dir.clone(),
            rel: name.as_bytes().to_vec(),
            meta,
        },
        origin,
    });
    if !part.root.is_dir() {
        return Ok(Box::new(root.into_iter()));
    }
    let prefix = match part.to.is_empty() {
        true => Vec::new(),
        false => [part.to.as_slice(), b"/"].concat(),
    };
    let found = walk::walk(dir, &part.filter)?.map(move |walked| match walked {
        Walked::Found(found) => SnapshotItem::Found {
            path: [prefix.as_slice(), found.rel.as_slice()].concat(),
            found,
            origin,
        },
        Walked::Skipped(skipped) => SnapshotItem::Skipped(Skipped {
            path: format!("{}{}", String::from_utf8_lossy(&prefix), skipped.path),
            ..skipped
        }),
        Walked::Note(note) => SnapshotItem::Note(note),
    });
    Ok(Box::new(root.into_iter().chain(found)))
}

impl Iterator for Parts {
    type Item = SnapshotItem;
    fn next(&mut self) -> Option<SnapshotItem> {
        let waiting = self.streams.iter_mut().filter(|s| s.head.is_some());
        // Of equal paths the first: an item of a part goes before a directory above parts.
        let first = waiting.min_by(|a, b| a.next_path().cmp(&b.next_path()))?;
        std::mem::replace(&mut first.head, first.rest.next())
    }
}
