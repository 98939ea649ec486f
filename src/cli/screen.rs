//! The lines at the bottom of a terminal that change in place.
//!
//! There is one screen for the process, because there is one terminal. Whatever else is printed
//! makes the lines go first ([`pause`]); the next [`draw`] puts them below it. A draw is one write,
//! so nothing flickers. No line is wider than the terminal, so each takes one row, and the cursor
//! finds its way back up; after a change of the width, the rows that the old lines take now count.
//!
//! A terminal that knows no escape sequences (`TERM=dumb`) gets one line, which a carriage return
//! overwrites.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::visible::{cut, width};

/// Widest line, also on wider terminals.
const MOST_COLUMNS: usize = 79;
/// Columns and rows of a terminal that does not report its size.
const USUAL_SIZE: (usize, usize) = (80, 24);

static SCREEN: Mutex<Screen> = Mutex::new(Screen {
    kind: ScreenKind::Closed,
    shown: Vec::new(),
    lines: Vec::new(),
    size: USUAL_SIZE,
    pauses: 0,
});

/// What the terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScreenKind {
    /// Nothing is drawn.
    Closed,
    /// It knows no escape sequences.
    Dumb,
    /// It knows the escape sequences of a VT100.
    Full,
}

struct Screen {
    kind: ScreenKind,
    /// The widths of the lines that are shown.
    shown: Vec<usize>,
    /// The lines of the last draw, and the size of the terminal then.
    lines: Vec<String>,
    size: (usize, usize),
    /// Number of those that print something else now.
    pauses: usize,
}

/// Begins to draw, if stderr is a terminal. Returns whether it is.
pub(super) fn open() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let kind = match (io::stderr().is_terminal(), is_dumb) {
        (false, _) => ScreenKind::Closed,
        (true, true) => ScreenKind::Dumb,
        (true, false) => ScreenKind::Full,
    };
    lock().kind = kind;
    kind != ScreenKind::Closed
}

/// Removes the lines and draws nothing any more.
pub(super) fn close() {
    let mut screen = lock();
    screen.erase();
    screen.kind = ScreenKind::Closed;
}

/// Removes the lines until the returned value is dropped: something else is printed or asked.
pub(super) fn pause() -> Paused {
    let mut screen = lock();
    screen.erase();
    screen.pauses += 1;
    Paused(())
}

/// While it lives, nothing is drawn.
#[must_use]
pub(super) struct Paused(());

impl Drop for Paused {
    fn drop(&mut self) {
        lock().pauses -= 1;
    }
}

/// Returns the most columns that a line may have.
pub(super) fn columns() -> usize {
    size().0.saturating_sub(1).clamp(1, MOST_COLUMNS)
}

/// Replaces the lines. None may be wider than [`columns`].
pub(super) fn draw(lines: &[String]) {
    let mut screen = lock();
    if screen.kind == ScreenKind::Closed || screen.pauses > 0 || is_in_background() {
        return;
    }
    let size = size();
    if screen.lines == lines && screen.size == size {
        return;
    }
    let text = screen.replaced_by(lines, size);
    screen.lines = lines.to_vec();
    screen.size = size;
    write(&text);
}

/// Whether the shell has given the terminal to another job.
fn is_in_background() -> bool {
    rustix::termios::tcgetpgrp(io::stderr()).is_ok_and(|group| group != rustix::process::getpgrp())
}

impl Screen {
    /// Returns what to write to show `lines` on a terminal of this size, instead of what is shown.
    fn replaced_by(&mut self, lines: &[String], (columns, rows): (usize, usize)) -> String {
        // One row stays for the cursor.
        let most = rows.saturating_sub(1).max(1);
        let lines = &lines[..lines.len().min(most)];
        if self.kind == ScreenKind::Dumb {
            let parts: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
            let most = columns.saturating_sub(1).clamp(1, MOST_COLUMNS);
            let line = parts.join("; ");
            let line = cut(&line, most);
            let width = width(line);
            let before = self.shown.first().copied().unwrap_or(0);
            self.shown = vec![width];
            return format!("\r{line}{}", " ".repeat(before.saturating_sub(width)));
        }
        let mut text = self.up(columns);
        for line in lines {
            text.push_str(line);
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.shown = lines.iter().map(|line| width(line)).collect();
        text
    }

    /// Returns the way from below the lines to the beginning of the first.
    fn up(&self, columns: usize) -> String {
        let rows = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        match self.shown.iter().map(rows).sum::<usize>() {
            0 => String::new(),
            rows => format!("\r\x1b[{rows}A"),
        }
    }

    fn erase(&mut self) {
        if self.shown.is_empty() {
            return;
        }
        let text = match self.kind {
            ScreenKind::Closed => String::new(),
            ScreenKind::Dumb => format!("\r{}\r", " ".repeat(self.shown[0])),
            ScreenKind::Full => format!("{}\x1b[J", self.up(size().0)),
        };
        self.shown.clear();
        self.lines.clear();
        write(&text);
    }
}

/// Returns the columns and rows of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    size.filter(|(columns, rows)| *columns > 0 && *rows > 0)
        .unwrap_or(USUAL_SIZE)
}

/// Writes to stderr. If the terminal is gone, there is nothing to show.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

fn lock() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(kind: ScreenKind) -> Screen {
        Screen {
            kind,
            shown: Vec::new(),
            lines: Vec::new(),
            size: USUAL_SIZE,
            pauses: 0,
        }
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn lines_are_written_over_the_lines_before() {
        let mut screen = screen(ScreenKind::Full);
        let first = screen.replaced_by(&lines(&["one", "two"]), (80, 24));
        assert_eq!(first, "one\x1b[K\ntwo\x1b[K\n\x1b[J");
        let second = screen.replaced_by(&lines(&["three"]), (80, 24));
        assert_eq!(second, "\r\x1b[2Athree\x1b[K\n\x1b[J");
    }

    #[test]
    fn after_the_terminal_became_narrow_a_wide_line_takes_more_rows() {
        let mut screen = screen(ScreenKind::Full);
        screen.replaced_by(&lines(&[&"x".repeat(70), "y"]), (80, 24));
        let narrow = screen.replaced_by(&lines(&["z"]), (30, 24));
        assert!(narrow.starts_with("\r\x1b[4A"), "{narrow:?}");
    }

    #[test]
    fn a_low_terminal_shows_the_first_lines() {
        let mut screen = screen(ScreenKind::Full);
        let low = screen.replaced_by(&lines(&["one", "two", "three"]), (80, 2));
        assert_eq!(low, "one\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_dumb_terminal_gets_one_line_without_escapes() {
        let mut screen = screen(ScreenKind::Dumb);
        let first = screen.replaced_by(&lines(&["long line", "  two"]), (80, 24));
        let second = screen.replaced_by(&lines(&["short"]), (80, 24));
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("\rlong line; two", "\rshort         ")
        );
    }
}
