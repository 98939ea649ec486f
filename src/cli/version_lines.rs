//! How versions of files are printed, as lines and as JSON.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::ls::{second_of_ns, time_of_ns};
use super::output::{self, printable, size};
use crate::browse::find::{FindResult, SearchedSnapshot};
use crate::browse::versions::{FileVersion, VersionKind, VersionSpan};

/// Returns a version as JSON.
pub(super) fn span_json(span: &VersionSpan, snapshots: &[SearchedSnapshot]) -> Value {
    let version = &span.version;
    let (first, last) = (
        &snapshots[span.first as usize],
        &snapshots[span.last as usize],
    );
    let value = json!({
        "type": version.kind, "size": version.size,
        "modified": time_of_ns(version.mtime_ns),
        "blake3": version.blake3,
        "first": first.stamp, "first_sequence": first.sequence,
        "last": last.stamp, "last_sequence": last.sequence,
        "snapshots": span.count,
    });
    let Value::Object(mut members) = value else {
        return value;
    };
    put_bytes(&mut members, "path", &version.path);
    if let Some(target) = &version.target {
        put_bytes(&mut members, "target", target);
    }
    Value::Object(members)
}

/// Adds `bytes` as text or, if they are not UTF-8, as base64 under another name.
pub(super) fn put_bytes(members: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let (name, value) = match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.to_owned()),
        Err(_) => (format!("{name}_b64"), base64.encode(bytes)),
    };
    members.insert(name, value.into());
}

/// Returns the size of a file, or what else it is.
pub(super) fn size_of(version: &FileVersion) -> String {
    match version.kind {
        VersionKind::File => size(version.size),
        VersionKind::Dir => "dir".to_owned(),
        VersionKind::Symlink => "symlink".to_owned(),
        VersionKind::Hardlink => "hardlink".to_owned(),
        VersionKind::Fifo => "fifo".to_owned(),
        VersionKind::Chardev | VersionKind::Blockdev => "device".to_owned(),
    }
}

/// Returns `PATH`, or `PATH -> TARGET`.
pub(super) fn with_target(version: &FileVersion) -> String {
    let path = printable(&version.path);
    match &version.target {
        Some(target) => format!("{path} -> {}", printable(target)),
        None => path,
    }
}

/// Returns `BLAKE3-8 SIZE MODIFIED FIRST..LAST`.
pub(super) fn content_line(found: &FindResult, span: &VersionSpan) -> String {
    let version = &span.version;
    let hash = version.blake3.map(|hash| hash.short());
    let hash = hash.as_deref().map_or("-", |hash| &hash[..8]);
    let (first, last) = (
        found.snapshots[span.first as usize].stamp,
        found.snapshots[span.last as usize].stamp,
    );
    let time = second_of_ns(version.mtime_ns);
    format!(
        "{hash:<8}  {:>8}  {time}  {first}..{last}",
        size_of(version)
    )
}

/// Prints the versions of all paths.
pub(super) fn print_contents(found: &FindResult) -> Result<(), Failure> {
    let mut last: Option<&[u8]> = None;
    for span in &found.versions {
        let path = span.version.path.as_slice();
        if last != Some(path) {
            output::print_entry(with_target(&span.version))?;
        }
        last = Some(path);
        output::print_entry(format_args!("  {}", content_line(found, span)))?;
    }
    Ok(())
}
