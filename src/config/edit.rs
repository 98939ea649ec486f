//! Adds and removes whole `[[source]]` and `[[target]]` tables in the text of a configuration.
//!
//! No other byte of the text changes: comments, order and line ends stay as their author wrote
//! them. To remove what was added last returns the text as it was. The caller validates the result
//! before it replaces a file.
//!
//! The text is a sequence of *sections*: the keys before the first header, then each header line
//! with what follows it. Comment lines belong to the header right below them, else to the section
//! above them.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::written::TableKind;

/// Why the text of a configuration cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is not valid TOML.
    #[error("the text is not valid TOML")]
    Syntax,
    /// The tables are written as one array, not under headers.
    #[error("the file has `{0} = [...]` in one array; only [[{0}]] tables can be added or removed")]
    Inline(&'static str),
    /// There is no such table.
    #[error("the file has no [[{0}]] at this place")]
    Absent(&'static str),
}

/// Returns `text` with the table `block` behind the last one of its kind. `block` is the table's
/// lines from its header on, each with its line end `\n`.
pub fn add_table(text: &str, kind: TableKind, block: &str) -> Result<String, EditError> {
    let sections = sections(text)?;
    refuse_inline(text, kind, &sections)?;
    let after = sections
        .iter()
        .rposition(|section| section.is_of(kind.key()));
    let after = after.or_else(|| last_before(kind, &sections)).unwrap_or(0);
    let at = sections[after].end;
    let line_end = match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    };
    let (before, rest) = text.split_at(at);
    let mut block = block.trim_end_matches('\n');
    if !rest.is_empty() && !rest.starts_with(['\n', '\r']) {
        // Comments at its end would belong to the header that follows.
        block = without_comments_at_end(block);
    }
    let block = block.replace('\n', line_end);
    Ok(match before.is_empty() || before.ends_with('\n') {
        true => format!("{before}{line_end}{block}{line_end}{rest}"),
        // The text ends without a line end, and does so again.
        false => format!("{before}{line_end}{line_end}{block}{rest}"),
    })
}

/// Returns `text` without its table number `index` of this kind, from 0: its comments, the tables
/// below it, and one empty line above it are removed, too.
pub fn remove_table(text: &str, kind: TableKind, index: usize) -> Result<String, EditError> {
    let sections = sections(text)?;
    refuse_inline(text, kind, &sections)?;
    let mut number = None;
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut goes_on = false;
    for section in &sections {
        if section.is_of(kind.key()) && section.is_element {
            number = Some(number.map_or(0, |number: usize| number + 1));
        }
        let is_part = section.is_of(kind.key()) && number == Some(index);
        match (is_part, cuts.last_mut()) {
            (true, Some(cut)) if goes_on => cut.end = section.end,
            (true, _) => cuts.push(section.start..section.end),
            (false, _) => {}
        }
        goes_on = is_part;
    }
    if cuts.is_empty() {
        return Err(EditError::Absent(kind.key()));
    }
    let mut text = text.to_owned();
    for cut in cuts.into_iter().rev() {
        let cut = with_gap(&text, cut);
        text.replace_range(cut, "");
    }
    Ok(text)
}

fn without_comments_at_end(block: &str) -> &str {
    let mut block = block;
    while let Some((above, last)) = block.rsplit_once('\n') {
        if !last.starts_with('#') {
            break;
        }
        block = above;
    }
    block
}

/// Extends a range of whole lines by the empty line above it.
fn with_gap(text: &str, cut: Range<usize>) -> Range<usize> {
    let without_line_end = |text: &str| {
        let rest = text.strip_suffix('\n')?;
        Some(rest.strip_suffix('\r').unwrap_or(rest).len())
    };
    let mut start = cut.start;
    // At the end of a text without a last line end, the line end above the table goes.
    if cut.end == text.len() && !text.ends_with('\n') {
        start = without_line_end(&text[..start]).unwrap_or(start);
        let is_line_start = text[..start].ends_with('\n');
        return match without_line_end(&text[..start]).filter(|_| is_line_start) {
            Some(above) => above..cut.end,
            None => start..cut.end,
        };
    }
    match without_line_end(&text[..start]) {
        Some(above) if above == 0 || text[..above].ends_with('\n') => above..cut.end,
        _ => cut,
    }
}

/// Returns the section behind which the first table of this kind goes: sources behind `[snapshots]`
/// or the keys of the file itself, targets behind the sources.
fn last_before(kind: TableKind, sections: &[Section]) -> Option<usize> {
    let above: &[&str] = match kind {
        TableKind::Source => &["", "snapshots"],
        TableKind::Target => &["", "snapshots", "source"],
    };
    sections
        .iter()
        .rposition(|section| above.iter().any(|key| section.is_of(key)))
}

/// A part of the text: a header line and the lines that belong to it.
struct Section {
    /// The first key of the header; empty for the keys before the first header.
    key: String,
    /// The header is `[[key]]`.
    is_element: bool,
    /// Where its first line begins.
    start: usize,
    /// Where the line after its last one begins; empty lines at its end do not belong to it.
    end: usize,
}

impl Section {
    fn is_of(&self, key: &str) -> bool {
        self.key == key
    }
}

/// A line of the text, without its line end, and what it is.
struct TextLine {
    start: usize,
    /// Where the next line begins.
    end: usize,
    what: LineKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Empty,
    Comment,
    Header,
    Content,
}

fn sections(text: &str) -> Result<Vec<Section>, EditError> {
    let table = DeTable::parse(text).map_err(|_| EditError::Syntax)?;
    let mut strings = Vec::new();
    collect_strings(table.get_ref(), &mut strings);
    let lines = lines(text, &strings);
    let headers = lines.iter().enumerate();
    let headers = headers.filter(|(_, line)| line.what == LineKind::Header);
    let headers: Vec<usize> = headers.map(|(at, _)| at).collect();
    let is_comment = |line: &&TextLine| line.what == LineKind::Comment;
    // Comment lines right above a header belong to it.
    let begins = headers.iter().map(|header| {
        let above = lines[..*header].iter().rev().take_while(is_comment);
        header - above.count()
    });
    let mut begins: Vec<usize> = begins.collect();
    begins.insert(0, 0);
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let mut found = Vec::new();
    for (number, (begin, end)) in begins.iter().copied().zip(ends).enumerate() {
        let header = number.checked_sub(1).map(|number| &lines[headers[number]]);
        let (key, is_element) = match header {
            Some(line) => header_key(&text[line.start..line.end])?,
            None => (String::new(), false),
        };
        let own = &lines[begin..end];
        let last = own.iter().rposition(|line| line.what != LineKind::Empty);
        // Comments after an empty line are about what follows, not about this table.
        let content = own
            .iter()
            .rposition(|line| matches!(line.what, LineKind::Content | LineKind::Header));
        let attached = content.map_or(0, |content| {
            content + own[content + 1..].iter().take_while(is_comment).count()
        });
        let last = match header {
            Some(_) => Some(attached),
            None => content.map(|_| attached).or(last),
        };
        let start = own.first().map_or(text.len(), |line| line.start);
        let end = last.map_or(start, |last| own[last].end);
        found.push(Section {
            key,
            is_element,
            start,
            end,
        });
    }
    Ok(found)
}

/// Splits `text` into lines. A line that begins within one of `strings` is content, whatever it
/// looks like.
fn lines(text: &str, strings: &[Range<usize>]) -> Vec<TextLine> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let is_within = strings
            .iter()
            .any(|string| string.start < start && start < string.end);
        let what = match line.trim().as_bytes().first() {
            _ if is_within => LineKind::Content,
            None => LineKind::Empty,
            Some(b'#') => LineKind::Comment,
            Some(b'[') => LineKind::Header,
            Some(_) => LineKind::Content,
        };
        lines.push(TextLine { start, end, what });
        start = end;
    }
    lines
}

/// Adds the places of all strings below `table`: only they may have lines of any look.
fn collect_strings(table: &DeTable<'_>, strings: &mut Vec<Range<usize>>) {
    for (_, value) in table {
        collect_strings_of(value, strings);
    }
}

fn collect_strings_of(value: &toml::Spanned<DeValue<'_>>, strings: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::String(_) => strings.push(value.span()),
        DeValue::Array(items) => items
            .iter()
            .for_each(|item| collect_strings_of(item, strings)),
        DeValue::Table(table) => collect_strings(table, strings),
        _ => {}
    }
}

/// Returns the first key of a header line, and whether it is `[[key]]` itself.
fn header_key(line: &str) -> Result<(String, bool), EditError> {
    let table = DeTable::parse(line).map_err(|_| EditError::Syntax)?;
    let (key, value) = table.get_ref().iter().next().ok_or(EditError::Syntax)?;
    let is_element = matches!(value.get_ref(), DeValue::Array(_));
    Ok((key.get_ref().to_string(), is_element))
}

/// Refuses tables of this kind that have no header.
fn refuse_inline(text: &str, kind: TableKind, sections: &[Section]) -> Result<(), EditError> {
    let table = DeTable::parse(text).map_err(|_| EditError::Syntax)?;
    let is_there = table
        .get_ref()
        .iter()
        .any(|(key, _)| key.get_ref() == kind.key());
    match is_there && !sections.iter().any(|section| section.is_of(kind.key())) {
        true => Err(EditError::Inline(kind.key())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
