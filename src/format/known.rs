//! The earlier snapshots that a manifest names, in pages that live in `tables/` (docs/format.md,
//! 3).
//!
//! A page is named by its SHA-256, holds up to 64 rows and is cut by sequence, so an unchanged
//! history costs nothing to restate: a new manifest adds one short page. Once there are more than a
//! few pages, the manifest names *directories* of up to 64 pages instead. A directory never names a
//! directory.
//!
//! *A page that a writer stopped naming is never named by it again.* Each page states which
//! manifest first had exactly its rows (`made`), so rows that return get another page. `prune`
//! relies on that.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::base::ids::{Hash, Stamp, WriterId};
use crate::format::json::{ManifestError, json_line, parse_json};

/// Feature in `requires` of a manifest whose `known` is in pages.
pub const KNOWN_PAGES: &str = "known-pages";
/// Largest page or directory that is read, in bytes.
pub const MAX_KNOWN_OBJECT_BYTES: u64 = 16 << 10;
/// Most rows of one page.
pub const ROWS_PER_KNOWN_PAGE: usize = 64;
/// Most pages of one directory.
pub const PAGES_PER_DIRECTORY: usize = 64;
/// Most directories of one manifest. Together with [`MAX_KNOWN_PAGES`] it limits how much a signer
/// can make a reader fetch.
pub const MAX_DIRECTORIES: usize = 1024;
/// Most pages of one manifest, in its directories and beside them.
pub const MAX_KNOWN_PAGES: usize = 16_384;
/// Most pages that a manifest names without directories.
const MOST_LOOSE_PAGES: usize = 4;

/// An earlier snapshot that the host deems live. Its JSON form is `[sequence, stamp, core hash]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u64, Stamp, Hash)", into = "(u64, Stamp, Hash)")]
pub struct Known {
    /// The snapshot's sequence.
    pub sequence: u64,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// SHA-256 of the core of its manifest.
    pub core: Hash,
}

impl From<(u64, Stamp, Hash)> for Known {
    fn from((sequence, stamp, core): (u64, Stamp, Hash)) -> Self {
        Self {
            sequence,
            stamp,
            core,
        }
    }
}

impl From<Known> for (u64, Stamp, Hash) {
    fn from(known: Known) -> Self {
        (known.sequence, known.stamp, known.core)
    }
}

/// The earlier snapshots that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum KnownRef {
    /// In the manifest itself, as until November 2026.
    Inline(Vec<Known>),
    /// In pages.
    Pages(KnownPages),
}

/// The pages of a manifest's earlier snapshots. The rows are those of the pages that the
/// directories name, in their order, followed by those of `pages`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPages {
    /// Names of the directories.
    pub directories: Vec<Hash>,
    /// Names of the pages that are in no directory.
    pub pages: Vec<Hash>,
}

/// Written by hand, since `untagged` would hold a large list in memory twice.
impl<'de> Deserialize<'de> for KnownRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = KnownRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of snapshots, or directories and pages of them")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<KnownRef, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(KnownRef::Inline)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KnownRef, A::Error> {
                KnownPages::deserialize(MapAccessDeserializer::new(map)).map(KnownRef::Pages)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl KnownRef {
    /// Returns the features that `requires` must name for this form.
    pub fn requires(&self) -> Vec<String> {
        match self {
            Self::Inline(_) => Vec::new(),
            Self::Pages(_) => vec![KNOWN_PAGES.to_owned()],
        }
    }

    /// Returns the pages and directories that the manifest names; `None` in the old form.
    pub fn pages(&self) -> Option<&KnownPages> {
        match self {
            Self::Inline(_) => None,
            Self::Pages(pages) => Some(pages),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let Some(pages) = self.pages() else {
            return Ok(());
        };
        match pages.directories.len() > MAX_DIRECTORIES || pages.pages.len() > MAX_KNOWN_PAGES {
            true => Err(ManifestError::TooManyKnown),
            false => Ok(()),
        }
    }
}

/// The writer, and the sequence of its manifest, that first had exactly a page's rows.
pub type Made = (WriterId, u64);

/// Up to [`ROWS_PER_KNOWN_PAGE`] earlier snapshots, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPage {
    /// The manifest that first had these rows.
    pub made: Made,
    /// The rows, strictly ascending.
    pub known: Vec<Known>,
}

/// Up to [`PAGES_PER_DIRECTORY`] pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Names of the pages, in the order of their rows.
    pub directory: Vec<Hash>,
}

fn encode<T: Serialize>(value: &T) -> (Hash, Vec<u8>) {
    let mut bytes = json_line(value);
    bytes.push(b'\n');
    (Hash::sha256(&bytes), bytes)
}

fn require_count(what: &str, found: usize, most: usize) -> Result<(), ManifestError> {
    match (1..=most).contains(&found) {
        true => Ok(()),
        false => Err(ManifestError::Malformed(format!("{what} has {found}"))),
    }
}

impl KnownPage {
    /// Returns the page's name and bytes.
    pub fn encode(&self) -> (Hash, Vec<u8>) {
        encode(self)
    }

    /// Parses a page; checks its number of rows and their order.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let page: Self = parse_json(bytes)?;
        let what = "a page of earlier snapshots";
        require_count(what, page.known.len(), ROWS_PER_KNOWN_PAGE)?;
        match page.known.is_sorted_by(|a, b| a < b) {
            true => Ok(page),
            false => Err(ManifestError::Malformed(format!("{what} is not in order"))),
        }
    }
}

impl Directory {
    /// Returns the directory's name and bytes.
    pub fn encode(&self) -> (Hash, Vec<u8>) {
        encode(self)
    }

    /// Parses a directory and checks its number of pages.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let directory: Self = parse_json(bytes)?;
        let what = "a directory of pages of earlier snapshots";
        require_count(what, directory.directory.len(), PAGES_PER_DIRECTORY)?;
        Ok(directory)
    }
}

/// Returns the number of the group to which a row belongs. A page holds rows of one group, so it
/// changes only if one of them comes or goes.
pub fn group_of(known: &Known) -> u64 {
    known.sequence / ROWS_PER_KNOWN_PAGE as u64
}

/// Earlier snapshots in pages and directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paged {
    /// The pages and directories for the manifest to name.
    pub named: KnownPages,
    /// Name and bytes of every page and directory.
    pub objects: Vec<(Hash, Vec<u8>)>,
    /// Which manifest first had each of `objects`; `None` for a directory.
    pub made: Vec<Option<Made>>,
}

/// Puts `known`, which is in order, into pages. `made` returns for a group of rows which manifest
/// first had exactly these rows.
///
/// The last group's pages change with every snapshot, so the manifest names them itself; a
/// directory changes only when another group is full.
pub fn paginate_known(known: &[Known], made: impl Fn(u64, &[Known]) -> Made) -> Paged {
    let mut paged = Paged::default();
    let mut pages: Vec<(u64, Hash)> = Vec::new();
    for rows in known.chunk_by(|a, b| group_of(a) == group_of(b)) {
        let group = group_of(&rows[0]);
        let made = made(group, rows);
        for rows in rows.chunks(ROWS_PER_KNOWN_PAGE) {
            let known = rows.to_vec();
            let (hash, bytes) = KnownPage { made, known }.encode();
            pages.push((group, hash));
            paged.objects.push((hash, bytes));
            paged.made.push(Some(made));
        }
    }
    let last = pages.last().map(|(group, _)| *group);
    let full = pages.partition_point(|(group, _)| Some(*group) != last);
    let loose = pages.split_off(full);
    let hashes = |pages: &[(u64, Hash)]| pages.iter().map(|(_, hash)| *hash).collect::<Vec<_>>();
    if pages.len() <= MOST_LOOSE_PAGES {
        paged.named.pages = hashes(&pages);
    } else {
        let shelf = |page: &(u64, Hash)| page.0 / PAGES_PER_DIRECTORY as u64;
        for alike in pages.chunk_by(|a, b| shelf(a) == shelf(b)) {
            for some in alike.chunks(PAGES_PER_DIRECTORY) {
                let (hash, bytes) = Directory {
                    directory: hashes(some),
                }
                .encode();
                paged.named.directories.push(hash);
                paged.objects.push((hash, bytes));
                paged.made.push(None);
            }
        }
    }
    paged.named.pages.extend(hashes(&loose));
    paged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(sequence: u64) -> Known {
        Known {
            sequence,
            stamp: "20260407T060000Z".parse().unwrap(),
            core: Hash::sha256(&sequence.to_le_bytes()),
        }
    }

    fn paged(sequences: impl Iterator<Item = u64>) -> Paged {
        let rows: Vec<Known> = sequences.map(known).collect();
        paginate_known(&rows, |_, rows| (WriterId([7; 8]), rows.len() as u64))
    }

    fn rows(paged: &Paged) -> Vec<u64> {
        let find = |hash: &Hash| {
            &paged
                .objects
                .iter()
                .find(|(name, _)| name == hash)
                .unwrap()
                .1
        };
        let mut pages = Vec::new();
        for directory in &paged.named.directories {
            pages.extend(Directory::parse(find(directory)).unwrap().directory);
        }
        pages.extend(&paged.named.pages);
        let pages = pages
            .iter()
            .map(|page| KnownPage::parse(find(page)).unwrap());
        pages
            .flat_map(|page| page.known)
            .map(|known| known.sequence)
            .collect()
    }

    #[test]
    fn every_row_is_in_one_page_in_order() {
        for count in [0, 1, 63, 64, 65, 320, 384, 385, 2000, 9000] {
            let paged = paged(1..=count);
            assert_eq!(rows(&paged), (1..=count).collect::<Vec<_>>(), "{count}");
            assert!(
                paged.named.directories.len() + paged.named.pages.len() <= 8,
                "{count}"
            );
            let most = MAX_KNOWN_OBJECT_BYTES as usize;
            assert!(paged.objects.iter().all(|(_, bytes)| bytes.len() <= most));
        }
    }

    #[test]
    fn one_more_snapshot_changes_one_page_and_one_less_its_page_and_directory() {
        let (before, after) = (paged(1..=2000), paged(1..=2001));
        let new = |a: &Paged, b: &Paged| {
            b.objects
                .iter()
                .filter(|object| !a.objects.contains(object))
                .count()
        };
        assert_eq!(new(&before, &after), 1);
        let without = paged((1..=2000).filter(|n| *n != 700));
        assert_eq!(new(&before, &without), 2);
    }

    #[test]
    fn siblings_beyond_a_page_get_another() {
        let mut rows: Vec<Known> = (0..100u64)
            .map(|n| Known {
                core: Hash::sha256(&n.to_le_bytes()),
                ..known(5)
            })
            .collect();
        rows.sort();
        let paged = paginate_known(&rows, |_, _| (WriterId([7; 8]), 6));
        assert_eq!(paged.named.pages.len(), 2);
    }

    #[test]
    fn pages_out_of_bounds_or_order_are_refused() {
        let made = (WriterId([7; 8]), 1);
        let page = |known: Vec<Known>| KnownPage { made, known }.encode().1;
        assert!(KnownPage::parse(&page((1..=64).map(known).collect())).is_ok());
        assert!(KnownPage::parse(&page((1..=65).map(known).collect())).is_err());
        assert!(KnownPage::parse(&page(Vec::new())).is_err());
        assert!(KnownPage::parse(&page(vec![known(2), known(1)])).is_err());
        assert!(KnownPage::parse(&page(vec![known(2), known(2)])).is_err());
        let directory = |count| {
            Directory {
                directory: vec![Hash::sha256(b"x"); count],
            }
            .encode()
            .1
        };
        assert!(Directory::parse(&directory(64)).is_ok());
        assert!(Directory::parse(&directory(65)).is_err());
        assert!(Directory::parse(&directory(0)).is_err());
        assert!(KnownPage::parse(&directory(1)).is_err());
    }
}
