//! Parts of a line of progress.

use std::time::Duration;

use crate::cli::output::{size, visible};
use crate::cli::visible::{cut, visible_in_line, width};

/// Returns `text` without what steers a terminal, cut to `columns` columns.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    let text = visible_in_line(text);
    match width(&text) <= columns {
        true => text.into_owned(),
        false => {
            let kept = cut(&text, columns.saturating_sub(3));
            cut(&format!("{}...", kept.trim_end()), columns).to_owned()
        }
    }
}

/// Returns the first line of a text that may have several.
pub(super) fn first_line(text: &str) -> String {
    let text = visible(text);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Returns `0:07`, `12:30`, `1:02:03`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transferred {
    /// Bytes that moved.
    pub done: u64,
    /// All bytes, or those that are known so far.
    pub total: u64,
    /// Whether no more bytes will become known.
    pub is_final: bool,
    /// Bytes per second. `None`: not known yet.
    pub rate: Option<u64>,
}

impl Transferred {
    /// Returns `23.0 MB of 64.0 MB, 36 %, 4.10 MB/s, ETA 0:10`. Without a final total there is
    /// neither a percentage nor an ETA.
    pub(super) fn text(&self) -> String {
        let done = self.done;
        let mut text = match (self.is_final, self.total > 0) {
            (true, true) => {
                let percent = u128::from(done.min(self.total)) * 100 / u128::from(self.total);
                format!("{} of {}, {percent} %", size(done), size(self.total))
            }
            (false, true) if self.total > done => {
                format!("{}, {} queued", size(done), size(self.total - done))
            }
            _ => size(done),
        };
        if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
            text.push_str(&format!(", {}/s", size(rate)));
            let left = self.total.saturating_sub(done);
            if self.is_final && left > 0 {
                let eta = clock(Duration::from_secs(left.div_ceil(rate)));
                text.push_str(&format!(", ETA {eta}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_needs_a_final_total() {
        let extent = |done, total, is_final, rate| {
            let extent = Transferred {
                done,
                total,
                is_final,
                rate,
            };
            extent.text()
        };
        let mb = 1_000_000;
        assert_eq!(
            extent(23 * mb, 64 * mb, true, Some(4 * mb)),
            "23.0 MB of 64.0 MB, 35 %, 4.00 MB/s, ETA 0:11"
        );
        assert_eq!(
            extent(23 * mb, 64 * mb, false, Some(4 * mb)),
            "23.0 MB, 41.0 MB queued, 4.00 MB/s"
        );
        assert_eq!(extent(23 * mb, 0, true, None), "23.0 MB");
        assert_eq!(
            extent(64 * mb, 64 * mb, true, None),
            "64.0 MB of 64.0 MB, 100 %"
        );
    }

    #[test]
    fn a_long_line_is_cut_and_steers_nothing() {
        assert_eq!(fitted("abcdefghij", 8), "abcde...");
        assert_eq!(fitted("a\x1b[2Jb", 80), "a\\u{1b}[2Jb");
        assert_eq!(fitted("abc", 2), "..");
        // Each of these takes two columns.
        assert_eq!(fitted("備份備份備份", 12), "備份備份備份");
        assert_eq!(fitted("備份備份備份", 11), "備份備份...");
    }

    #[test]
    fn times_are_short() {
        let text = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!([7, 750, 3723].map(text), ["0:07", "12:30", "1:02:03"]);
    }
}
