//! What is checked of everything that a command prints. Each check returns what is wrong.

use regex::Regex;

use crate::terminal::{COLUMNS, ROWS};

/// Words of which none is said where nothing is wrong.
const ALARMS: &str = r"(?i)\b(?:warning|error|alarm|attention|behind|stale|overdue|late|shr[aiu]nk|changed|failed|missing|damaged|lost|given up|not available|not verified|not seen|cannot|refus\w+|denied|interrupted|partial|incomplete|skipped|invalid|did not|no answer|is full|no space)\b";

/// Words that no message has: some of those that `tests/layers` does not allow, and names of things inside the program.
const NOT_PLAIN: &str = r"\b(?:[Ww]hoever|[Nn]obody|[Ss]omebody|anew|vouch\w*|heeds?|hears?|panicked|unwrap|None|Some\(|Err\(|ENOSPC|EIO)\b";

/// Texts with such a word that are no alarm: of `backup --dry-run`, of `status` after a recipient was added, and of the
/// backup after one that failed.
const NO_ALARMS: &[&str] = &[
    "new or changed",
    "cannot decrypt what is there",
    "of runs that did not finish deleted on this host",
];

pub type Verdict = Result<(), String>;

/// Nothing in it says that something is wrong, by word or by colour.
pub fn is_calm(raw: &str, lines: &[&str]) -> Verdict {
    let alarms = Regex::new(ALARMS).unwrap();
    let is_alarm = |line: &&&str| {
        let mut line = (**line).to_owned();
        NO_ALARMS
            .iter()
            .for_each(|text| line = line.replace(text, ""));
        alarms.is_match(&line)
    };
    if let Some(line) = lines.iter().find(is_alarm) {
        return Err(format!("a false alarm: {line}"));
    }
    match raw.contains("\u{1b}[31m") {
        true => Err("something is red".to_owned()),
        false => Ok(()),
    }
}

/// It says what is wrong, in each of these words.
pub fn is_alarm(said: &str, words: &[&str]) -> Verdict {
    if !Regex::new(ALARMS).unwrap().is_match(said) {
        return Err("no alarm".to_owned());
    }
    match words.iter().find(|word| !said.contains(*word)) {
        Some(word) => Err(format!("it does not say {word:?}")),
        None => Ok(()),
    }
}

/// It can be read without scrolling. A longer line takes several rows.
pub fn fits_a_screen(lines: &[&str]) -> Verdict {
    let rows = |line: &&str| line.chars().count().div_ceil(COLUMNS).max(1);
    let rows: usize = lines.iter().map(rows).sum();
    match rows < ROWS {
        true => Ok(()),
        false => Err(format!("{rows} rows")),
    }
}

pub fn is_plain_english(said: &str) -> Verdict {
    match Regex::new(NOT_PLAIN).unwrap().find(said) {
        Some(found) => Err(format!("{:?} is not plain English", found.as_str())),
        None => Ok(()),
    }
}

/// In a pipe: ASCII, and nothing that steers a terminal.
pub fn is_plain_text(raw: &str) -> Verdict {
    let is_plain = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ';
    match raw.chars().find(|c| !is_plain(*c)) {
        Some(found) => Err(format!("{found:?} in a pipe")),
        None => Ok(()),
    }
}

/// Tables are at most 80 columns wide. Not limited, because a terminal breaks them like any text: messages, and lines
/// that hold a URL, a path, a key or a fingerprint.
pub fn tables_fit(lines: &[&str]) -> Verdict {
    let heading = Regex::new("^[A-Z]{3,} {2,}[A-Z]{3,}").unwrap();
    let columns = Regex::new(r"\S {2,}\S").unwrap();
    let mut in_table = false;
    for line in lines {
        in_table = heading.is_match(line) || (in_table && columns.is_match(line));
        let width = line.chars().count();
        if in_table && width > COLUMNS {
            return Err(format!("{width} columns: {line}"));
        }
    }
    Ok(())
}

#[test]
fn each_fault_is_found() {
    let calm = "s3 (s3://b/x): ok\n  newest: 20260407T060000Z, sequence 1, 3 h ago";
    let lines: Vec<&str> = calm.lines().collect();
    assert_eq!(is_calm(calm, &lines), Ok(()));
    for alarm in [
        "warning: the clock",
        "laptop: BEHIND: x",
        "STALE: the next",
        "photos shrank",
        "the signer HAS CHANGED",
        "2 archives missing",
    ] {
        assert!(is_calm(alarm, &[alarm]).is_err(), "{alarm}");
        assert_eq!(is_alarm(alarm, &[alarm]), Ok(()));
    }
    assert!(is_calm("\u{1b}[31mok\u{1b}[0m", &["ok"]).is_err());
    assert!(is_alarm(calm, &["s3"]).is_err());
    assert!(is_alarm("warning: x", &["laptop"]).is_err());
    assert_eq!(fits_a_screen(&["a"; ROWS - 1]), Ok(()));
    assert!(fits_a_screen(&["a"; ROWS]).is_err());
    let long = "a".repeat(COLUMNS * 2 + 1);
    assert!(fits_a_screen(&[long.as_str(); 8]).is_err());
    assert!(is_plain_text("caf\u{e9}").is_err() && is_plain_text("a\u{1b}[0m").is_err());
    let wide = format!("x  {}", "a".repeat(COLUMNS));
    assert!(tables_fit(&["HOST  STATE", &wide]).is_err());
    assert_eq!(tables_fit(&["HOST  STATE", "x  ok", &long]), Ok(()));
}
