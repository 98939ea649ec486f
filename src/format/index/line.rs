//! Converts an entry to and from a line of the index: canonical JSON (docs/format.md, 4).
//!
//! A restore parses mostly lines, and a backup writes mostly lines, so both borrow where they can.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use memchr::memchr2;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryType};
use crate::base::ids::Hash;
use crate::format::extent::Extent;
use crate::format::json::json_line;

/// A string that is borrowed from the line unless it has escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct LineText<'a>(#[serde(borrow)] Cow<'a, str>);

impl LineText<'_> {
    fn into_string(self) -> String {
        self.0.into_owned()
    }
}

impl<'a> From<&'a String> for LineText<'a> {
    fn from(text: &'a String) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// An entry's JSON form; field order is the format's key order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    path: Option<LineText<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<LineText<'a>>,
    #[serde(rename = "type")]
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user: Option<LineText<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    group: Option<LineText<'a>>,
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
    target: Option<LineText<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<LineText<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
}

fn has_none(extents: &[Extent]) -> bool {
    extents.is_empty()
}

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;
/// Prefix of a name that is in base64, since it is not UTF-8.
const RAW_NAME: &str = "b64:";

/// Returns `name` as text; if it is not UTF-8, as base64 after `b64:`.
pub(in crate::format) fn name_text(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.starts_with(RAW_NAME) => text.to_owned(),
        _ => format!("{RAW_NAME}{}", BASE64.encode(name)),
    }
}

/// Returns the name that [`name_text`] wrote as `text`.
pub(in crate::format) fn name_bytes(text: String) -> Result<Vec<u8>, String> {
    match text.strip_prefix(RAW_NAME) {
        Some(b64) => BASE64.decode(b64).map_err(|e| e.to_string()),
        None => Ok(text.into_bytes()),
    }
}

/// Returns `bytes` as text or, if they are not UTF-8, as base64.
fn split_text(bytes: &[u8]) -> (Option<LineText<'_>>, Option<LineText<'_>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(LineText(Cow::Borrowed(text))), None),
        Err(_) => (None, Some(LineText(Cow::Owned(BASE64.encode(bytes))))),
    }
}

/// Returns the bytes of a name that is given as text or as base64.
fn join_text(
    text: Option<LineText<'_>>,
    b64: Option<LineText<'_>>,
) -> Result<Option<Vec<u8>>, String> {
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

/// Returns the path of a line that begins with it, as canonical ones do; else `None`.
pub(crate) fn path_of_line(line: &[u8]) -> Result<Option<Cow<'_, [u8]>>, String> {
    const TEXT: &[u8] = b"{\"path\":\"";
    const RAW: &[u8] = b"{\"path_b64\":\"";
    if let Some(rest) = line.strip_prefix(TEXT) {
        return match memchr2(b'"', b'\\', rest) {
            Some(end) if rest[end] == b'"' => Ok(Some(Cow::Borrowed(&rest[..end]))),
            // Its value ends where the parser says.
            _ => {
                let mut values = serde_json::Deserializer::from_slice(&line[TEXT.len() - 1..])
                    .into_iter::<String>();
                let text = values.next().ok_or("a path without an end")?;
                let text = text.map_err(|error| error.to_string())?;
                Ok(Some(Cow::Owned(text.into_bytes())))
            }
        };
    }
    let Some(rest) = line.strip_prefix(RAW) else {
        return Ok(None);
    };
    let end = memchr2(b'"', b'\\', rest).filter(|end| rest[*end] == b'"');
    let text = &rest[..end.ok_or("a path without an end")?];
    let path = BASE64.decode(text);
    Ok(Some(Cow::Owned(path.map_err(|error| error.to_string())?)))
}

impl Entry {
    /// Returns the canonical line, without the newline.
    pub fn to_line(&self) -> Vec<u8> {
        let (path, path_b64) = split_text(&self.path);
        let (target, target_b64) = self.target.as_deref().map_or((None, None), split_text);
        let is_file = self.kind == EntryType::File;
        json_line(&EntryLine {
            path,
            path_b64,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.as_ref().map(LineText::from),
            group: self.group.as_ref().map(LineText::from),
            mtime: self.mtime_ns,
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| (name_text(name), BASE64.encode(value)))
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

    /// Parses and checks one line. The error names the broken rule, without the line's number.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let entry = Self::parse(line)?;
        entry.check()?;
        Ok(entry)
    }

    /// Does the same for a line without extents.
    pub fn from_bare_line(line: &[u8]) -> Result<Self, String> {
        let entry = Self::parse(line)?;
        entry.check_bare()?;
        Ok(entry)
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let raw: EntryLine<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let path = join_text(raw.path, raw.path_b64)?.ok_or("an entry without a path")?;
        let mut xattrs = BTreeMap::new();
        for (name, value) in raw.xattrs {
            xattrs.insert(
                name_bytes(name)?,
                BASE64.decode(value).map_err(|e| e.to_string())?,
            );
        }
        Ok(Self {
            path,
            kind: raw.kind,
            mode: raw.mode,
            uid: raw.uid,
            gid: raw.gid,
            user: raw.user.map(LineText::into_string),
            group: raw.group.map(LineText::into_string),
            mtime_ns: raw.mtime,
            xattrs,
            size: raw.size.unwrap_or(0),
            blake3: raw.blake3,
            extents: raw.extents.into_owned(),
            target: join_text(raw.target, raw.target_b64)?,
            rdev: raw.rdev,
            torn: raw.torn,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_form() {
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
}
