//! Counts the content of each source while the snapshot is packed.

use std::collections::BTreeMap;

use super::{Database, Figures, Grain};
use crate::format::index::{DatabaseRecord, SourceRecord};

/// A regular file that was packed.
#[derive(Debug, Clone, Copy)]
pub struct FileSeen {
    /// Size in bytes.
    pub bytes: u64,
    /// It begins like a SQLite database.
    pub is_database: bool,
    /// The class of its content.
    pub grain: Grain,
    /// The class in the snapshot before, if the content changed since; `None`: it did not, or the
    /// file is new.
    pub was: Option<Grain>,
}

/// The figures of a snapshot that is being packed.
#[derive(Debug, Default)]
pub struct Tally {
    sources: Vec<Counted>,
    /// The index of the last thing's source: most things belong to the same source as the one
    /// before.
    last: usize,
}

#[derive(Debug)]
struct Counted {
    /// The source's path in the snapshot; empty: the whole snapshot.
    to: String,
    figures: Figures,
    /// Sizes of its databases in bytes, by path.
    databases: BTreeMap<String, u64>,
}

impl Counted {
    fn holds(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(self.to.as_bytes());
        rest.is_some_and(|rest| self.to.is_empty() || rest.is_empty() || rest[0] == b'/')
    }
}

impl Tally {
    /// Begins with zero for each of `sources`.
    pub fn new(sources: &[SourceRecord]) -> Self {
        let counted = sources.iter().map(|source| Counted {
            to: source.to.clone(),
            figures: Figures {
                kind: source.kind.clone(),
                ..Figures::default()
            },
            databases: BTreeMap::new(),
        });
        Self {
            sources: counted.collect(),
            last: 0,
        }
    }

    fn source(&mut self, path: &[u8]) -> Option<&mut Counted> {
        let is_last = self
            .sources
            .get(self.last)
            .is_some_and(|one| one.holds(path));
        if !is_last {
            self.last = self.sources.iter().position(|one| one.holds(path))?;
        }
        self.sources.get_mut(self.last)
    }

    /// Counts a regular file.
    pub fn file(&mut self, path: &[u8], seen: FileSeen) {
        let Some(source) = self.source(path) else {
            return;
        };
        let figures = &mut source.figures;
        figures.files += 1;
        figures.bytes += seen.bytes;
        if seen.grain == Grain::Noise {
            figures.noise.add(seen.bytes);
        }
        // Content that was noise before cannot turn into noise.
        if matches!(seen.was, Some(Grain::Plain | Grain::Packed)) {
            figures.changed.add(seen.bytes);
            if seen.grain == Grain::Noise {
                figures.turned.add(seen.bytes);
            }
        }
        if seen.is_database {
            let path = String::from_utf8_lossy(path).into_owned();
            source.databases.insert(path, seen.bytes);
        }
    }

    /// Counts a link, a FIFO or a device.
    pub fn other(&mut self, path: &[u8]) {
        if let Some(source) = self.source(path) {
            source.figures.files += 1;
        }
    }

    /// Returns the figures by source, with the rows that `records` has.
    pub fn finish(self, records: &[DatabaseRecord]) -> BTreeMap<String, Figures> {
        let rows: BTreeMap<&str, &DatabaseRecord> = records
            .iter()
            .map(|record| (record.path.as_str(), record))
            .collect();
        let finished = self.sources.into_iter().map(|source| {
            let mut figures = source.figures;
            for (path, bytes) in source.databases {
                // Of a damaged database no rows are counted.
                let counted = rows
                    .get(path.as_str())
                    .filter(|record| record.integrity == "ok");
                let tables = counted.map(|record| record.tables.clone());
                figures.databases.insert(path, Database { bytes, tables });
            }
            (source.to, figures)
        });
        finished.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: &str, to: &str) -> SourceRecord {
        SourceRecord {
            kind: kind.to_owned(),
            path: format!("/{to}"),
            to: to.to_owned(),
            stage: true,
        }
    }

    #[test]
    fn each_thing_counts_for_its_own_source_only() {
        let mut tally = Tally::new(&[
            source("tree", "a"),
            source("tree", "ab"),
            source("sqlite", "db/x.db"),
        ]);
        let seen = FileSeen {
            bytes: 100,
            is_database: false,
            grain: Grain::Noise,
            was: Some(Grain::Plain),
        };
        for path in ["a/1", "a/1.d/2", "ab/1", "abc", "a-b", "metadata.json"] {
            tally.file(path.as_bytes(), seen);
        }
        tally.other(b"ab/link");
        let database = FileSeen {
            is_database: true,
            grain: Grain::Plain,
            was: None,
            ..seen
        };
        tally.file(b"db/x.db", database);
        tally.file(b"a/y.db", database);
        let record = DatabaseRecord {
            path: "db/x.db".to_owned(),
            page_size: 4096,
            tables: BTreeMap::from([("t".to_owned(), 7)]),
            schema: None,
            integrity: "ok".to_owned(),
        };
        let damaged = DatabaseRecord {
            path: "a/y.db".to_owned(),
            integrity: "page 1 is never used".to_owned(),
            ..record.clone()
        };
        let figures = tally.finish(&[record, damaged]);
        let of = |to: &str| &figures[to];
        assert_eq!((of("a").files, of("a").bytes), (3, 300));
        assert_eq!(
            (
                of("a").noise.files,
                of("a").turned.files,
                of("a").changed.bytes
            ),
            (2, 2, 200)
        );
        assert_eq!((of("ab").files, of("ab").bytes), (2, 100));
        assert_eq!(of("a").databases["a/y.db"].tables, None);
        let tables = of("db/x.db").databases["db/x.db"].tables.as_ref();
        assert_eq!(tables.unwrap()["t"], 7);
        assert_eq!(figures.len(), 3);
    }

    #[test]
    fn a_source_that_is_the_whole_snapshot_counts_everything() {
        let mut tally = Tally::new(&[source("tree", "")]);
        tally.other(b"x");
        tally.other(b"y/z");
        assert_eq!(tally.finish(&[])[""].files, 2);
    }
}
