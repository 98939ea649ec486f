//! Colours of the words that say whether something is well.
//!
//! The words say it without colour. Colours appear on a terminal only, and not if `NO_COLOR` is
//! set (see no-color.org) or the terminal has none.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use super::output;
use crate::jobs::verdict::Severity;

const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const GREEN: &str = "\u{1b}[32m";
const PLAIN: &str = "\u{1b}[0m";

/// Verdicts and their colours. A longer one comes before one that it contains.
const VERDICTS: &[(&str, &str)] = &[
    ("NOT VERIFIED", RED),
    ("NOT VALID", RED),
    ("ATTENTION", RED),
    ("BEHIND", YELLOW),
    ("behind", YELLOW),
    ("ok", GREEN),
];

/// Prints a line or several on stdout, as [`output::print_line`] does, with verdicts in colour.
pub(super) fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    let text = output::visible(&text.to_string()).into_owned();
    let text = match has_colour() {
        true => coloured(&text),
        false => text,
    };
    output::if_read(output::write_stdout(format!("{text}\n").as_bytes()))
}

/// Returns the word for a severity.
pub(super) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Green => "GREEN",
        Severity::Amber => "AMBER",
        Severity::Red => "RED",
    }
}

/// Prints a line about something of this severity: the words up to the first colon are in colour.
pub(super) fn print_judged(severity: Severity, text: &str) -> io::Result<()> {
    let colour = match severity {
        Severity::Green => GREEN,
        Severity::Amber => YELLOW,
        Severity::Red => RED,
    };
    let text = output::visible(text).into_owned();
    let text = match (has_colour(), text.split_once(':')) {
        (false, _) => text,
        (true, Some((begin, rest))) => format!("{colour}{begin}{PLAIN}:{rest}"),
        (true, None) => format!("{colour}{text}{PLAIN}"),
    };
    output::if_read(output::write_stdout(format!("{text}\n").as_bytes()))
}

/// Prints a table, as [`output::table`] returns it, with verdicts in colour.
pub(super) fn print_table(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    print_line(output::table(header, rows).trim_end_matches('\n'))
}

fn has_colour() -> bool {
    static HAS_COLOUR: OnceLock<bool> = OnceLock::new();
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    *HAS_COLOUR.get_or_init(|| io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb())
}

/// Colours the first verdict of each line. What follows it may quote other people's text.
fn coloured(text: &str) -> String {
    let lines = text.split('\n').map(|line| match first_verdict(line) {
        Some((start, word, colour)) => {
            let (before, after) = (&line[..start], &line[start + word.len()..]);
            format!("{before}{colour}{word}{PLAIN}{after}")
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn first_verdict(line: &str) -> Option<(usize, &'static str, &'static str)> {
    let places = VERDICTS.iter().filter_map(|(word, colour)| {
        let mut places = line.match_indices(word).map(|(place, _)| place);
        let place = places.find(|place| is_word(line, *place, word))?;
        Some((place, *word, *colour))
    });
    places.min_by_key(|(place, ..)| *place)
}

/// Whether the `word` at `place` is a whole one, after a space and before a space, a colon or the
/// end.
fn is_word(line: &str, place: usize, word: &str) -> bool {
    let before = line[..place].chars().next_back();
    let after = line[place + word.len()..].chars().next();
    before == Some(' ') && matches!(after, None | Some(' ' | ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_of_a_line_has_its_colour() {
        for (line, expected) in [
            ("s3 (s3://b): ok", "s3 (s3://b): \u{1b}[32mok\u{1b}[0m"),
            (
                "s3: ATTENTION: BEHIND",
                "s3: \u{1b}[31mATTENTION\u{1b}[0m: BEHIND",
            ),
            ("a  NOT VALID  -", "a  \u{1b}[31mNOT VALID\u{1b}[0m  -"),
            ("tok booking ok2 okay", "tok booking ok2 okay"),
            ("ok", "ok"),
        ] {
            assert_eq!(coloured(line), expected);
        }
        assert_eq!(coloured("a: ok\nb: ok").matches(GREEN).count(), 2);
    }
}
