//! Data on stdout, in the form that was asked for; sizes and times as people read them.

use std::io::{self, Write as _};
use std::time::Duration;

use super::visible::{VisibleFormatter, visible_in_line};
pub use super::visible::{printable, visible};
use serde::ser::{Serialize, SerializeSeq as _, Serializer as _};

pub fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| io::Error::new(error.kind(), Unwritten(error)))
}

/// What could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output")]
struct Unwritten(#[source] io::Error);

/// A line on stderr, or several; much of it quotes what stands on a target, which anyone may have written. Whether
/// anybody reads it is no concern of the work: a pipe that is closed ends nothing.
pub fn tell(text: impl std::fmt::Display) {
    let line = format!("{}\n", visible(&text.to_string()));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

pub fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    write_stdout(format!("{}\n", visible(&text.to_string())).as_bytes())
}

pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = Vec::new();
    let formatter = VisibleFormatter::default();
    let mut json = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut json).map_err(io::Error::other)?;
    text.push(b'\n');
    write_stdout(&text)
}

/// As [`print_json`] of a list, whose values need not be in memory at once.
pub fn print_json_list<T: Serialize, E: From<io::Error>>(
    values: impl Iterator<Item = Result<T, E>>,
) -> Result<(), E> {
    let unwritten = |error: io::Error| io::Error::new(error.kind(), Unwritten(error));
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

/// `1.5 MB`, `283 MB`, `97 B`: decimal units, three digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `0.4 s`, `12 s`, `3 min 20 s`, `5 h`, `3 days`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `1 file`, `2 files`.
pub fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Columns, each as wide as its widest cell; the last as it is.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
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
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < columns {
                let fill = widths[at] - cell.chars().count() + 2;
                line.push_str(&" ".repeat(fill));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (5_460_000, "5.46 MB"),
            (99_960_000, "100 MB"),
            (999_900_000, "1.00 GB"),
            (u64::MAX, "18447 PB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }
}
