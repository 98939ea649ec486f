//! The frames between this process and the child that queries a database by its pages: a kind, a
//! length, and that many bytes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Longest query, in bytes: it is in the child's environment.
pub const MOST_QUERY_BYTES: usize = 64 << 10;
/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 5;
/// Longest frame: a row, whose values the limits of SQLite's memory bound.
pub(super) const MOST_FRAME_BYTES: usize = 320 << 20;
/// Most bytes of one read: a page.
pub(super) const MOST_READ_BYTES: u64 = 1 << 20;

/// The task of the child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PagedRequest {
    /// The version of the parent's program.
    pub version: String,
    /// The parent's process id: the child ends with it.
    pub parent: i32,
    /// Length of the database.
    pub bytes: u64,
    /// Processor time in seconds that the child may use.
    pub cpu_seconds: u64,
    /// The operator's query.
    pub query: String,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// From the child: a read, as position (8 bytes) and length (4 bytes).
    Read = 1,
    /// To the child: the bytes of its last read.
    Bytes,
    /// From the child: the names of the columns, as JSON.
    Columns,
    /// From the child: the values of a row.
    Row,
    /// From the child: why the query failed, as JSON.
    Failed,
    /// From the child: there are no more rows.
    End,
}

const KINDS: [FrameKind; 6] = [
    FrameKind::Read,
    FrameKind::Bytes,
    FrameKind::Columns,
    FrameKind::Row,
    FrameKind::Failed,
    FrameKind::End,
];

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, or infinity.
    Real(f64),
    /// A text, in which bytes that are not UTF-8 are replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Returns the header of a frame with `length` bytes.
pub(super) fn header(kind: FrameKind, length: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [kind as u8, length[0], length[1], length[2], length[3]]
}

/// Parses a header into kind and length.
pub(super) fn parse_header(header: &[u8]) -> Option<(FrameKind, usize)> {
    let (kind, length) = header.split_first()?;
    let kind = KINDS.into_iter().find(|known| *known as u8 == *kind)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    Some((kind, usize::try_from(length).ok()?))
}

/// Returns the payload of a read.
pub(super) fn read(offset: u64, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [&offset.to_le_bytes()[..], &length].concat()
}

/// Parses the payload of a read.
pub(super) fn parse_read(payload: &[u8]) -> Option<Range<u64>> {
    let (offset, length) = payload.split_at_checked(8)?;
    let offset = u64::from_le_bytes(offset.try_into().ok()?);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    Some(offset..offset.checked_add(length.into())?)
}

/// Parses a row of `columns` values.
pub(super) fn parse_row(mut payload: &[u8], columns: usize) -> Option<Vec<SqlValue>> {
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        let (kind, rest) = payload.split_first()?;
        let number = |rest: &[u8]| <[u8; 8]>::try_from(rest.get(..8)?).ok();
        let (value, used) = match kind {
            b'n' => (SqlValue::Null, 0),
            b'i' => (SqlValue::Integer(i64::from_le_bytes(number(rest)?)), 8),
            b'r' => (SqlValue::Real(f64::from_le_bytes(number(rest)?)), 8),
            b't' | b'b' => {
                let length = u64::from_le_bytes(number(rest)?);
                let end = usize::try_from(length).ok()?.checked_add(8)?;
                let bytes = rest.get(8..end)?;
                let value = match kind {
                    b't' => SqlValue::Text(String::from_utf8_lossy(bytes).into_owned()),
                    _ => SqlValue::Blob(bytes.to_vec()),
                };
                (value, end)
            }
            _ => return None,
        };
        row.push(value);
        payload = &rest[used..];
    }
    payload.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_no_child_sends_are_refused() {
        assert_eq!(
            parse_header(&header(FrameKind::Row, 7)),
            Some((FrameKind::Row, 7))
        );
        for bad in [&[0, 0, 0, 0, 0][..], &[7, 0, 0, 0, 0], &[1, 0, 0], &[]] {
            assert_eq!(parse_header(bad), None, "{bad:?}");
        }
        assert_eq!(parse_read(&read(5, 3)), Some(5..8));
        assert_eq!(parse_read(&read(u64::MAX, 1)), None);
        assert_eq!(parse_read(&[0; 11]), None);
        assert_eq!(
            parse_row(b"nn", 2),
            Some(vec![SqlValue::Null, SqlValue::Null])
        );
        let huge = [&b"b"[..], &u64::MAX.to_le_bytes()].concat();
        for bad in [&b"n"[..], b"nnn", b"ni\0", b"xn", &huge] {
            assert_eq!(parse_row(bad, 2), None, "{bad:?}");
        }
    }
}
