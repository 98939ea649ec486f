//! An entry as a line of the index: canonical JSON (docs/format.md, 4).
//!
//! Lines are most of what a restore parses and a backup writes, so both borrow where they can.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Entry, EntryType, Extent};
use crate::base::ids::{ArchiveId, Hash};

/// An extent's JSON form: `["<archive>", offset, length]`.
pub(super) type ExtentTuple = (Place, u64, u64);

/// An archive's id, or `-` for a hole.
pub(super) struct Place(Option<ArchiveId>);

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => s.serialize_str("-"),
            Some(id) => id.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Place;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an archive id or -")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Place, E> {
                match text {
                    "-" => Ok(Place(None)),
                    id => id.parse().map(Some).map(Place).map_err(E::custom),
                }
            }
        }
        d.deserialize_str(Text)
    }
}

impl TryFrom<ExtentTuple> for Extent {
    type Error = String;
    fn try_from((place, offset, length): ExtentTuple) -> Result<Self, String> {
        if length == 0 || offset.checked_add(length).is_none() {
            return Err(format!("extent at {offset} of length {length}"));
        }
        Ok(Self {
            archive: place.0,
            offset,
            length,
        })
    }
}

impl From<Extent> for ExtentTuple {
    fn from(extent: Extent) -> Self {
        (Place(extent.archive), extent.offset, extent.length)
    }
}

/// A string that is borrowed from the line unless it has escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    fn into_string(self) -> String {
        self.0.into_owned()
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(text: &'a String) -> Self {
        Self(Cow::Borrowed(text))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    path: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    group: Option<Text<'a>>,
    mtime: i128,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<Hash>,
    #[serde(default, skip_serializing_if = "has_none")]
    extents: Cow<'a, [Extent]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    target: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
}

fn has_none(extents: &[Extent]) -> bool {
    extents.is_empty()
}

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;
const RAW_NAME: &str = "b64:";

fn split_text(bytes: &[u8]) -> (Option<Text<'_>>, Option<Text<'_>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Text(Cow::Borrowed(text))), None),
        Err(_) => (None, Some(Text(Cow::Owned(BASE64.encode(bytes))))),
    }
}

fn join_text(text: Option<Text<'_>>, b64: Option<Text<'_>>) -> Result<Option<Vec<u8>>, String> {
    match (text, b64) {
        (Some(_), Some(_)) => Err("a name given twice".to_owned()),
        (Some(text), None) => Ok(Some(text.into_string().into_bytes())),
        (None, Some(b64)) => BASE64
            .decode(b64.0.as_bytes())
            .map(Some)
            .map_err(|e| e.to_string()),
        (None, None) => Ok(None),
    }
}

impl Entry {
    /// The canonical line, without the newline.
    pub fn to_line(&self) -> Vec<u8> {
        let (path, path_b64) = split_text(&self.path);
        let (target, target_b64) = self.target.as_deref().map_or((None, None), split_text);
        let is_file = self.kind == EntryType::File;
        let xattr_name = |name: &[u8]| match std::str::from_utf8(name) {
            Ok(text) if !text.starts_with(RAW_NAME) => text.to_owned(),
            _ => format!("{RAW_NAME}{}", BASE64.encode(name)),
        };
        crate::format::manifest::json_line(&EntryLine {
            path,
            path_b64,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.as_ref().map(Text::from),
            group: self.group.as_ref().map(Text::from),
            mtime: self.mtime_ns,
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| (xattr_name(name), BASE64.encode(value)))
                .collect(),
            size: is_file.then_some(self.size),
            blake3: self.blake3,
            extents: Cow::Borrowed(&self.extents),
            target,
            target_b64,
            rdev: self.rdev,
            torn: self.torn,
        })
    }

    /// Parses and checks one line; the error says what is wrong, without the line's number.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let raw: EntryLine<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let path = join_text(raw.path, raw.path_b64)?.ok_or("an entry without a path")?;
        let mut xattrs = BTreeMap::new();
        for (name, value) in raw.xattrs {
            let name = match name.strip_prefix(RAW_NAME) {
                Some(b64) => BASE64.decode(b64).map_err(|e| e.to_string())?,
                None => name.into_bytes(),
            };
            xattrs.insert(name, BASE64.decode(value).map_err(|e| e.to_string())?);
        }
        let entry = Self {
            path,
            kind: raw.kind,
            mode: raw.mode,
            uid: raw.uid,
            gid: raw.gid,
            user: raw.user.map(Text::into_string),
            group: raw.group.map(Text::into_string),
            mtime_ns: raw.mtime,
            xattrs,
            size: raw.size.unwrap_or(0),
            blake3: raw.blake3,
            extents: raw.extents.into_owned(),
            target: join_text(raw.target, raw.target_b64)?,
            rdev: raw.rdev,
            torn: raw.torn,
        };
        entry.check()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_they_always_were() {
        let hash = "00ff".repeat(16);
        let lines = [
            format!(
                r#"{{"path":"a \"b\"\n/ü","type":"file","mode":420,"uid":0,"gid":1000,"user":"röt","mtime":-1,"xattrs":{{"b64:/w==":"AA==","user.x":""}},"size":12,"blake3":"{hash}","extents":[["0011223344556677.12",5,10],["-",0,2]],"torn":true}}"#
            ),
            r#"{"path_b64":"/w==","type":"symlink","mode":511,"uid":1,"gid":2,"group":"g","mtime":0,"target_b64":"/i8="}"#.to_owned(),
            r#"{"path":"d","type":"chardev","mode":384,"uid":1,"gid":2,"mtime":9223372036854775807,"rdev":[1,3]}"#.to_owned(),
            format!(
                r#"{{"path":"e","type":"file","mode":0,"uid":1,"gid":2,"mtime":0,"size":0,"blake3":"{hash}"}}"#
            ),
        ];
        for line in lines {
            let entry = Entry::from_line(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(entry.to_line()).unwrap(), line);
        }
    }

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
