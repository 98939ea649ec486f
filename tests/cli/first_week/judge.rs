//! What is checked of everything that a command prints.

use regex::Regex;

use crate::terminal::{COLUMNS, ROWS};

/// Words of which none is said where nothing is wrong.
const ALARMS: &str = r"(?i)\b(?:warning|error|alarm|attention|behind|stale|overdue|late|shr[aiu]nk|shrunk|(?:has |have )?changed|failed|missing|damaged|lost|given up|not available|not verified|not seen|cannot|refus\w+|denied|interrupted|partial|incomplete|skipped|invalid|did not|no answer|is full|no space)\b";

/// Words that no message has: house/words of tests/layers, and names of things inside the program.
const NOT_PLAIN: &str = r"(?i)\b(?:whoever|nobody|somebody|anew|vouch\w*|heeds?|hears?|panicked|unwrap|None|Some\(|Err\(|os error|enospc|eio)\b";

/// Nothing in it says that something is wrong, by word or by colour.
pub fn is_calm(raw: &str, lines: &[&str], shown: &str) {
    let alarms = Regex::new(ALARMS).unwrap();
    let found: Vec<&&str> = lines.iter().filter(|line| alarms.is_match(line)).collect();
    assert!(found.is_empty(), "a false alarm: {found:?}\n{shown}");
    assert!(!raw.contains("\u{1b}[31m"), "something is red:\n{shown}");
}

/// It says what is wrong, in each of these words.
pub fn is_alarm(lines: &[&str], words: &[&str], shown: &str) {
    let text = lines.join("\n");
    let alarms = Regex::new(ALARMS).unwrap();
    assert!(alarms.is_match(&text), "no alarm:\n{shown}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing:\n{shown}");
    }
}

/// It can be read without scrolling. A longer line takes several rows.
pub fn fits_a_screen(lines: &[&str], shown: &str) {
    let rows = |line: &&str| line.chars().count().div_ceil(COLUMNS).max(1);
    let rows: usize = lines.iter().map(rows).sum();
    assert!(rows < ROWS, "{rows} rows:\n{shown}");
}

pub fn is_plain_english(said: &str, shown: &str) {
    let found = Regex::new(NOT_PLAIN).unwrap().find(said);
    assert!(found.is_none(), "{found:?} is not plain English:\n{shown}");
}

/// In a pipe: ASCII, and nothing that steers a terminal.
pub fn is_plain_text(raw: &str, shown: &str) {
    let is_plain = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ';
    let found = raw.chars().find(|c| !is_plain(*c));
    assert!(found.is_none(), "{found:?} in a pipe:\n{shown}");
}

/// Tables are at most 80 columns wide. Not limited, because a terminal breaks them like any text: messages, and lines
/// that hold a URL, a path, a key or a fingerprint.
pub fn tables_fit(lines: &[&str], shown: &str) {
    let heading = Regex::new("^[A-Z]{3,} {2,}[A-Z]{3,}").unwrap();
    let mut in_table = false;
    for line in lines {
        let columns = Regex::new(r"\S {2,}\S").unwrap();
        in_table = heading.is_match(line) || (in_table && columns.is_match(line));
        let width = line.chars().count();
        assert!(!in_table || width <= COLUMNS, "{width} columns: {line}\n{shown}");
    }
}
