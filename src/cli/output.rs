//! Data on stdout, as text or JSON, and messages on stderr.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::ser::{Serialize, SerializeSeq as _, Serializer as _};
use serde_json::{Value, json};

use super::screen;
use super::visible::{VisibleFormatter, visible_in_line};
pub(super) use super::visible::{printable, visible};
pub(super) use crate::base::units::{count, duration, size};

/// Writes `bytes` to stdout.
pub(super) fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let _paused = screen::pause();
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| io::Error::new(error.kind(), Unwritten(error)))
}

/// An output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output")]
struct Unwritten(#[source] io::Error);

/// Prints a line or several on stderr, without what steers a terminal: much of the text quotes
/// objects on targets, which anyone may have written. A closed pipe is no error.
pub(super) fn tell(text: impl std::fmt::Display) {
    let line = format!("{}\n", visible(&text.to_string()));
    let _paused = screen::pause();
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Returns a path as a shell takes it: in quotes if it needs them.
pub(super) fn shell_word(path: &std::path::Path) -> String {
    let text = printable(path.as_os_str().as_encoded_bytes());
    crate::base::shell_word::shell_word(&text).into_owned()
}

/// Prints a line or several on stdout, without what steers a terminal.
///
/// A reader that closed its pipe has read enough. That changes nothing of how the command ends.
pub(super) fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    if_read(print_entry(text))
}

/// Prints one line of a long list. Fails if the reader closed its pipe, which ends the list.
pub(super) fn print_entry(text: impl std::fmt::Display) -> io::Result<()> {
    write_stdout(format!("{}\n", visible(&text.to_string())).as_bytes())
}

/// Ignores that the reader closed its pipe.
pub(super) fn if_read(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What `--json` prints in this run: one JSON value, so that any reader can parse it as a whole.
enum PendingJson {
    None,
    /// Not written yet: the command may still fail.
    Report(Value),
    /// A list that was written element by element.
    Streamed,
}

static DOCUMENT: Mutex<PendingJson> = Mutex::new(PendingJson::None);

/// Sets `value` as the report of this run, which [`write_document`] prints when the command ends.
pub(super) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let value = serde_json::to_value(value).map_err(io::Error::other)?;
    *document() = PendingJson::Report(value);
    Ok(())
}

/// Takes the report of this run, which is then not printed. `None`: there is none.
pub(super) fn take_document() -> Option<Value> {
    match std::mem::replace(&mut *document(), PendingJson::None) {
        PendingJson::Report(report) => Some(report),
        PendingJson::None | PendingJson::Streamed => None,
    }
}

fn document() -> MutexGuard<'static, PendingJson> {
    DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the report of this run as JSON on stdout, with its keys in alphabetical order. A failure
/// becomes its member `error`.
pub(super) fn write_document(error: Option<impl Serialize>) -> io::Result<()> {
    let error = error.map(serde_json::to_value).transpose()?;
    let document = std::mem::replace(&mut *document(), PendingJson::None);
    let value = match (document, error) {
        (PendingJson::Report(Value::Object(mut report)), Some(error)) => {
            report.insert("error".to_owned(), error);
            Value::Object(report)
        }
        (PendingJson::Report(report), _) => report,
        (PendingJson::None, Some(error)) => json!({ "error": error }),
        // Neither a second value nor one within the list could be parsed.
        (PendingJson::Streamed, _) | (PendingJson::None, None) => return Ok(()),
    };
    let mut text = Vec::new();
    let formatter = VisibleFormatter::default();
    let mut json = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut json).map_err(io::Error::other)?;
    text.push(b'\n');
    write_stdout(&text)
}

/// Prints a list as JSON on stdout, one value at a time, so that they need not be in memory at
/// once.
pub(super) fn print_json_list<T: Serialize, E: From<io::Error>>(
    values: impl Iterator<Item = Result<T, E>>,
) -> Result<(), E> {
    *document() = PendingJson::Streamed;
    let unwritten = |error: io::Error| io::Error::new(error.kind(), Unwritten(error));
    let _paused = screen::pause();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut json = serde_json::Serializer::with_formatter(&mut out, VisibleFormatter::default());
    let mut list = json.serialize_seq(None).map_err(|e| unwritten(e.into()))?;
    for value in values {
        list.serialize_element(&value?)
            .map_err(|e| unwritten(e.into()))?;
    }
    list.end().map_err(|e| unwritten(e.into()))?;
    let written = out.write_all(b"\n").and_then(|()| out.flush());
    Ok(written.map_err(unwritten)?)
}

/// Returns a table in which each column except the last is as wide as its widest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let visible = |cell: &String| visible_in_line(cell).into_owned();
    let rows = rows.iter().map(|row| row.iter().map(visible).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < columns {
                let fill = widths[index] - cell.chars().count() + 2;
                line.push_str(&" ".repeat(fill));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
