//! A run of bytes in an archive: the unit in which manifests and indexes say where content is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::base::ids::ArchiveId;

/// `length` bytes at `offset` of an archive's uncompressed tar stream, or of a hole.
///
/// Its JSON form is `["<archive>", offset, length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ExtentTuple", into = "ExtentTuple")]
pub struct Extent {
    /// `None` for a hole: zeros that no archive stores.
    pub archive: Option<ArchiveId>,
    /// Position in the tar stream, in bytes.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
}

/// Appends `extent`, merging it into the last one if they touch.
pub fn push_extent(extents: &mut Vec<Extent>, extent: Extent) {
    if let Some(last) = extents.last_mut()
        && last.archive == extent.archive
        && (extent.archive.is_none() || last.offset + last.length == extent.offset)
    {
        last.length += extent.length;
        return;
    }
    extents.push(extent);
}

/// An extent's JSON form.
type ExtentTuple = (ArchiveOrHole, u64, u64);

/// An archive's id, or `-` for a hole.
struct ArchiveOrHole(Option<ArchiveId>);

impl Serialize for ArchiveOrHole {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => s.serialize_str("-"),
            Some(id) => id.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for ArchiveOrHole {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ArchiveOrHoleVisitor;
        impl de::Visitor<'_> for ArchiveOrHoleVisitor {
            type Value = ArchiveOrHole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an archive id or -")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ArchiveOrHole, E> {
                match text {
                    "-" => Ok(ArchiveOrHole(None)),
                    id => id.parse().map(Some).map(ArchiveOrHole).map_err(E::custom),
                }
            }
        }
        d.deserialize_str(ArchiveOrHoleVisitor)
    }
}

impl TryFrom<ExtentTuple> for Extent {
    type Error = String;
    fn try_from((archive, offset, length): ExtentTuple) -> Result<Self, String> {
        if length == 0 || offset.checked_add(length).is_none() {
            return Err(format!("extent at {offset} of length {length}"));
        }
        Ok(Self {
            archive: archive.0,
            offset,
            length,
        })
    }
}

impl From<Extent> for ExtentTuple {
    fn from(extent: Extent) -> Self {
        (ArchiveOrHole(extent.archive), extent.offset, extent.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_has_one_form() {
        for wrong in [
            r#"["0011223344556677.012",5,10]"#,
            r#"["0011223344556677.+1",5,10]"#,
            r#"["",5,10]"#,
            r#"["-",5,0]"#,
            r#"["-",18446744073709551615,1]"#,
            r#"["-",5]"#,
            r#"["-",5,1,1]"#,
            "[null,5,1]",
        ] {
            assert!(serde_json::from_str::<Extent>(wrong).is_err(), "{wrong}");
        }
        let escaped: Extent = serde_json::from_str(r#"["\u002d",5,1]"#).unwrap();
        assert_eq!(escaped.archive, None);
    }
}
