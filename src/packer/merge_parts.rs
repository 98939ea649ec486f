//! The parts of a snapshot as one stream of files in path order.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::PackError;
use crate::base::walk::{self, Found, Walked};
use crate::format::index::{Skipped, parent_path};
use crate::state::staged_snapshot::Part;

/// The next thing of the snapshot.
pub enum Item {
    /// A file, directory or other at `path` within the snapshot.
    Found {
        path: Vec<u8>,
        found: Found,
        staged: bool,
    },
    /// A directory on the way to a part, which no part provides.
    Between(Vec<u8>),
    Skipped(Skipped),
    Note(String),
}

impl Item {
    fn path(&self) -> &[u8] {
        match self {
            Self::Found { path, .. } | Self::Between(path) => path,
            // Reports have no place in the order: they go first.
            Self::Skipped(_) | Self::Note(_) => &[],
        }
    }
}

type Items = Box<dyn Iterator<Item = Item> + Send>;

/// One part's items, the next of them at hand.
struct Stream {
    head: Option<Item>,
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
        self.head.as_ref().map(Item::path)
    }
}

/// Merges the parts; each is a stream in path order already.
pub struct Parts {
    streams: Vec<Stream>,
}

impl Parts {
    pub fn open(parts: &[Part]) -> Result<Self, PackError> {
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
        // What the staged snapshot has under the same name is the same directory: it wins.
        let root = parts.iter().find(|part| part.to.is_empty());
        between.retain(|path| {
            let in_root = root.is_some_and(|part| {
                let there = part.root.dir().meta(OsStr::from_bytes(path));
                there.is_ok_and(|meta| meta.is_dir())
            });
            !provided.contains(path.as_slice()) && !in_root
        });
        let between: Vec<Item> = between.into_iter().map(Item::Between).collect();
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
    let staged = part.staged;
    let root = (!part.to.is_empty()).then(|| Item::Found {
        path: part.to.clone(),
        found: Found {
            root: dir.clone(),
            rel: name.as_bytes().to_vec(),
            meta,
        },
        staged,
    });
    if !part.root.is_dir() {
        return Ok(Box::new(root.into_iter()));
    }
    let prefix = match part.to.is_empty() {
        true => Vec::new(),
        false => [part.to.as_slice(), b"/"].concat(),
    };
    let found = walk::walk(dir, &part.filter)?.map(move |walked| match walked {
        Walked::Found(found) => Item::Found {
            path: [prefix.as_slice(), found.rel.as_slice()].concat(),
            found,
            staged,
        },
        Walked::Skipped(skipped) => Item::Skipped(Skipped {
            path: format!("{}{}", String::from_utf8_lossy(&prefix), skipped.path),
            ..skipped
        }),
        Walked::Note(note) => Item::Note(note),
    });
    Ok(Box::new(root.into_iter().chain(found)))
}

impl Iterator for Parts {
    type Item = Item;
    fn next(&mut self) -> Option<Item> {
        let waiting = self.streams.iter_mut().filter(|s| s.head.is_some());
        // Of equals the first: what a part provides goes before what lies between.
        let first = waiting.min_by(|a, b| a.next_path().cmp(&b.next_path()))?;
        std::mem::replace(&mut first.head, first.rest.next())
    }
}
