//! Joins scanned segments to indexes, and counts what each snapshot has.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::index_lines::{LinePart, ScannedPiece, wanted};
use super::query::FindQuery;
use super::versions::{VersionSpan, VersionTable};

/// What is known of a segment.
struct SegmentContent {
    newlines: u64,
    head: LinePart,
    tail: LinePart,
    /// Numbers of the versions in its complete lines.
    found: Box<[u32]>,
    broken: Option<String>,
}

/// The segments that were scanned, and the versions in them.
pub(super) struct Attribution<'a> {
    query: &'a FindQuery,
    /// `None`: it could not be read.
    segments: Vec<Option<SegmentContent>>,
    versions: VersionTable,
    /// The version in the line that begins in one segment and ends in another, for pairs that are
    /// neighbours in an index.
    joints: HashMap<(u32, u32), Option<u32>, RandomState>,
}

/// An index that was put together.
pub(super) struct JoinedIndex {
    /// Its first line.
    pub(super) header: Vec<u8>,
    /// Number of its lines.
    pub(super) lines: u64,
    /// Numbers of the versions in it.
    pub(super) found: Vec<u32>,
}

impl<'a> Attribution<'a> {
    /// Returns it without segments; there will be `segments`.
    pub(super) fn new(query: &'a FindQuery, segments: u32) -> Self {
        let mut all = Vec::new();
        all.resize_with(segments as usize, || None);
        Self {
            query,
            segments: all,
            versions: VersionTable::default(),
            joints: HashMap::default(),
        }
    }

    /// Adds a segment that was scanned.
    pub(super) fn add(&mut self, number: u32, piece: ScannedPiece) {
        let versions = &mut self.versions;
        let found = piece.found.into_iter().map(|one| versions.number(one));
        self.segments[number as usize] = Some(SegmentContent {
            found: found.collect(),
            newlines: piece.newlines,
            head: piece.head,
            tail: piece.tail,
            broken: piece.broken,
        });
    }

    /// Puts together the index that the segments `runs` make. The error is the rule that it breaks.
    pub(super) fn join(
        &mut self,
        runs: impl Iterator<Item = Range<u32>>,
    ) -> Result<JoinedIndex, String> {
        let mut index = JoinedIndex {
            header: Vec::new(),
            lines: 0,
            found: Vec::new(),
        };
        // The last segment with a newline, and those without one since then.
        let mut last: Option<u32> = None;
        let mut between = LinePart::default();
        for number in runs.flatten() {
            let segment = self.segments.get(number as usize).and_then(Option::as_ref);
            let segment = segment.ok_or("a part of it was not read")?;
            if let Some(broken) = &segment.broken {
                return Err(broken.clone());
            }
            if segment.newlines == 0 {
                between.append(&segment.head)?;
                continue;
            }
            match last {
                None => {
                    between.append(&segment.head)?;
                    index.header = between.bytes().to_vec();
                }
                Some(before) => {
                    let known = match between.is_empty() {
                        true => self.joints.get(&(before, number)).copied(),
                        false => None,
                    };
                    let joint = match known {
                        Some(joint) => joint,
                        None => self.joint(before, &between, number)?,
                    };
                    index.found.extend(joint);
                }
            }
            // The borrow of the segment ended with the joint.
            if let Some(Some(segment)) = self.segments.get(number as usize) {
                index.found.extend_from_slice(&segment.found);
                index.lines += segment.newlines;
            }
            between = LinePart::default();
            last = Some(number);
        }
        let open = last.and_then(|last| self.segments[last as usize].as_ref());
        if !between.is_empty() || open.is_some_and(|open| !open.tail.is_empty()) || last.is_none() {
            return Err("it ends within a line".to_owned());
        }
        Ok(index)
    }

    /// Returns the version in the line that begins in segment `before` and ends in `after`, with
    /// `between` in the middle of it.
    fn joint(
        &mut self,
        before: u32,
        between: &LinePart,
        after: u32,
    ) -> Result<Option<u32>, String> {
        let of = |number: u32| self.segments[number as usize].as_ref();
        let mut line = of(before).map(|one| one.tail.clone()).unwrap_or_default();
        line.append(between)?;
        if let Some(after) = of(after) {
            line.append(&after.head)?;
        }
        let found = wanted(self.query, line.bytes())?;
        let number = found.map(|found| self.versions.number(found));
        if between.is_empty() {
            self.joints.insert((before, after), number);
        }
        Ok(number)
    }

    /// Counts snapshot `position`, whose index has the versions `found`. Positions must ascend.
    pub(super) fn count(&mut self, position: u32, found: &[u32]) {
        self.versions.count(position, found);
    }

    /// Returns the versions that a counted snapshot has.
    pub(super) fn into_spans(self) -> Vec<VersionSpan> {
        self.versions.into_spans()
    }
}
