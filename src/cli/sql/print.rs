//! Prints rows as they come: as a table, as CSV or as JSON.

use std::io::IsTerminal as _;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::super::failure::Failure;
use super::super::output;
use super::super::visible::{visible, visible_in_line};
use crate::base::sqlite::SqlValue;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Columns below each other.
    Table,
    /// RFC 4180, with a newline alone at the end of a line.
    Csv,
    /// A list of objects.
    Json,
}

/// Rows that decide how wide the columns of a table are.
const MEASURED_ROWS: usize = 500;
/// Longest value in a table, in characters.
const MOST_CHARS: usize = 300;
/// CSV is written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// The rows, or why there are no more.
type Rows<'a> = dyn Iterator<Item = Result<Vec<SqlValue>, Failure>> + 'a;

/// Prints `rows`.
pub(super) fn print(
    format: Format,
    columns: &[String],
    rows: &mut Rows<'_>,
) -> Result<(), Failure> {
    match format {
        Format::Table => print_table(columns, rows),
        Format::Csv => print_csv(columns, rows),
        Format::Json => {
            let names = distinct(columns);
            let named = |values| NamedRow {
                names: &names,
                values,
            };
            output::print_json_list(rows.map(|row| row.map(named)))
        }
    }
}

/// Runs a statement that returns no rows, which may fail.
fn exhaust(rows: &mut Rows<'_>) -> Result<(), Failure> {
    for row in rows {
        row?;
    }
    Ok(())
}

fn print_table(columns: &[String], rows: &mut Rows<'_>) -> Result<(), Failure> {
    if columns.is_empty() {
        return exhaust(rows);
    }
    let cells = |row: Vec<SqlValue>| row.iter().map(cell).collect::<Vec<_>>();
    let names = columns
        .iter()
        .map(|name| visible_in_line(name).into_owned());
    let mut first = vec![names.collect::<Vec<_>>()];
    let mut failed = None;
    for row in Iterator::take(&mut *rows, MEASURED_ROWS) {
        match row {
            Ok(row) => first.push(cells(row)),
            Err(error) => failed = Some(error),
        }
    }
    if first.len() == 1
        && let Some(error) = failed.take()
    {
        return Err(error);
    }
    let mut widths = vec![0; columns.len()];
    for row in &first {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &first {
        output::print_entry(line(row, &widths))?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for row in rows {
        output::print_entry(line(&cells(row?), &widths))?;
    }
    Ok(())
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        let fill = width.saturating_sub(cell.chars().count()) + 2;
        line.push_str(&" ".repeat(fill));
    }
    line.trim_end().to_owned()
}

/// Returns a value in one line of a table.
fn cell(value: &SqlValue) -> String {
    let text = match value {
        SqlValue::Null => return "NULL".to_owned(),
        SqlValue::Text(text) => visible_in_line(text).into_owned(),
        other => text_of(other),
    };
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn print_csv(columns: &[String], rows: &mut Rows<'_>) -> Result<(), Failure> {
    if columns.is_empty() {
        return exhaust(rows);
    }
    // A program reads the bytes as they are; a terminal would obey some of them.
    let is_terminal = std::io::stdout().is_terminal();
    let write = |text: &str| match is_terminal {
        true => output::write_stdout(visible(text).as_bytes()),
        false => output::write_stdout(text.as_bytes()),
    };
    let names = columns.iter().map(|name| csv_text(name));
    let mut text = names.collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                write(&text)?;
                return Err(error);
            }
        };
        let fields = row.iter().map(csv_field);
        text += &fields.collect::<Vec<_>>().join(",");
        text.push('\n');
        if text.len() > PIECE_BYTES {
            write(&text)?;
            text.clear();
        }
    }
    Ok(write(&text)?)
}

/// Returns a field of CSV. NULL is nothing, and an empty text is a pair of quotes.
fn csv_field(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Text(text) => csv_text(text),
        other => text_of(other),
    }
}

fn csv_text(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains([',', '"', '\n', '\r']);
    match is_plain && text.trim() == text {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('"', "\"\"")),
    }
}

/// Returns a number, or a blob as SQL writes it.
fn text_of(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => real(*number),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// Returns the shortest digits that mean this number, with a point or an exponent.
fn real(number: f64) -> String {
    match number.is_infinite() {
        true if number > 0.0 => "Inf".to_owned(),
        true => "-Inf".to_owned(),
        false => format!("{number:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the names of the columns, of which the second `a` is `a_2`: an object has each once.
fn distinct(columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{column}_{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

/// A row as a JSON object, whose keys are in the order of the columns.
struct NamedRow<'a> {
    names: &'a [String],
    values: Vec<SqlValue>,
}

impl Serialize for NamedRow<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut row = to.serialize_map(Some(self.names.len()))?;
        for (name, value) in self.names.iter().zip(&self.values) {
            match value {
                SqlValue::Null => row.serialize_entry(name, &())?,
                SqlValue::Integer(number) => row.serialize_entry(name, number)?,
                // Infinity has no JSON.
                SqlValue::Real(number) if number.is_infinite() => {
                    row.serialize_entry(name, &real(*number))?;
                }
                SqlValue::Real(number) => row.serialize_entry(name, number)?,
                SqlValue::Text(text) => row.serialize_entry(name, text)?,
                SqlValue::Blob(bytes) => {
                    row.serialize_entry(name, &serde_json::json!({ "hex": hex(bytes) }))?;
                }
            }
        }
        row.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_quoted_where_a_reader_needs_it() {
        let text = |text: &str| csv_field(&SqlValue::Text(text.to_owned()));
        for (value, field) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("", "\"\""),
            (" x", "\" x\""),
            ("NULL", "NULL"),
        ] {
            assert_eq!(text(value), field);
        }
        assert_eq!(csv_field(&SqlValue::Null), "");
        assert_eq!(csv_field(&SqlValue::Blob(vec![0, 255])), "x'00ff'");
        assert_eq!(csv_field(&SqlValue::Real(1.0)), "1.0");
        assert_eq!(csv_field(&SqlValue::Real(f64::NEG_INFINITY)), "-Inf");
    }

    #[test]
    fn columns_of_one_name_stay_apart() {
        let names = ["a", "a", "b", "a_2", "a"].map(str::to_owned);
        assert_eq!(distinct(&names), ["a", "a_2", "b", "a_2_2", "a_3"]);
    }
}
