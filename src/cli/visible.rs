//! Text without characters that a terminal obeys or hides.
//!
//! The authors of files and objects choose their names. Control characters steer a terminal, and
//! format characters (such as U+202E) make it show one name as another. They are printed as Rust
//! escapes, in JSON as JSON escapes.

use std::borrow::Cow;
use std::io;

use serde_json::ser::{Formatter, PrettyFormatter};

/// Unicode's format characters (general category Cf), line and paragraph separators.
const INVISIBLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    // Tags, and the code points that Unicode reserves for more of them, but no variation selectors.
    ('\u{e0000}', '\u{e00ff}'),
];

/// Whether a terminal would obey or hide `c` rather than show it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || !c.is_ascii()
            && INVISIBLE
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&c))
}

/// Returns text of several lines for a terminal.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !matches!(c, '\n' | '\t') && is_obeyed(c))
}

/// Returns text for one cell of a table.
pub(super) fn visible_in_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Returns the columns that `text` takes on a terminal: letters of East Asian scripts take two.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' => 0,
        '\u{1100}'.. => 2,
        _ => 1,
    }
}

/// Returns the beginning of `text` that takes at most `columns` columns.
pub(super) fn cut(text: &str, columns: usize) -> &str {
    let mut left = columns;
    for (at, c) in text.char_indices() {
        match left.checked_sub(width_of(c)) {
            Some(less) => left = less,
            None => return &text[..at],
        }
    }
    text
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Returns a path's raw bytes for a terminal; bad UTF-8 is shown as `\xff`.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&visible_in_line(chunk.valid()));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Formats pretty JSON with the same meaning and without characters that a terminal obeys.
#[derive(Default)]
pub(super) struct VisibleFormatter(PrettyFormatter<'static>);

impl Formatter for VisibleFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !fragment.contains(is_obeyed) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            let mut buffer = [0; 4];
            if is_obeyed(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                writer.write_all(c.encode_utf8(&mut buffer).as_bytes())?;
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use icu_properties::props::GeneralCategory;
    use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};
    use proptest::prelude::*;
    use serde::Serialize as _;

    use super::*;

    fn categories() -> CodePointMapDataBorrowed<'static, GeneralCategory> {
        CodePointMapData::<GeneralCategory>::new()
    }

    fn steers(c: char) -> bool {
        use GeneralCategory as Category;
        let category = categories().get(c);
        matches!(
            category,
            Category::Control
                | Category::Format
                | Category::LineSeparator
                | Category::ParagraphSeparator
        )
    }

    #[test]
    fn every_character_that_unicode_calls_a_control_or_format_is_escaped_and_no_letter_is() {
        for c in '\0'..=char::MAX {
            let category = categories().get(c);
            let is_unassigned = category == GeneralCategory::Unassigned;
            assert!(
                is_obeyed(c) == steers(c) || is_unassigned,
                "{c:?} {category:?}"
            );
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\xff"), "a\\u{1b}[2Jb\\xff");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(visible("ä\n\té\u{9b}"), "ä\n\té\\u{9b}");
        assert_eq!(visible_in_line("a\nb"), "a\\nb");
    }

    /// Names with many characters that steer.
    fn name() -> impl Strategy<Value = String> {
        let steering = prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{a0}'),
            proptest::char::range('\u{2000}', '\u{2070}'),
            proptest::char::range('\u{e0000}', '\u{e0080}'),
        ];
        proptest::collection::vec(steering, 0..20).prop_map(|chars| chars.into_iter().collect())
    }

    fn json(value: &serde_json::Value) -> String {
        let mut out = Vec::new();
        let formatter = VisibleFormatter::default();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        value.serialize(&mut serializer).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn no_name_steers_a_terminal_and_json_means_the_same(name in name(), key in name()) {
            prop_assert!(!printable(name.as_bytes()).contains(steers));
            prop_assert!(!visible_in_line(&name).contains(steers));
            let lines = visible(&name).into_owned();
            prop_assert!(!lines.replace(['\n', '\t'], "").contains(steers));
            let value = serde_json::json!({ key.clone(): [name.clone(), 1, {}], "x": name });
            let text = json(&value);
            prop_assert!(!text.replace('\n', "").contains(steers), "{text}");
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, value);
            // Where nothing steers it is what serde_json writes.
            let plain = serde_json::json!({ "a": [1, { "b": [] }], "c": {} });
            prop_assert_eq!(json(&plain), serde_json::to_string_pretty(&plain).unwrap());
        }
    }
}
