//! Why a call of another machine's programs failed, before it becomes a [`super::TargetError`].

use super::ErrorKind;

/// Of what a program said, so much is told.
pub(super) const MOST_SAID_BYTES: usize = 600;

#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub(super) struct Failure {
    pub kind: ErrorKind,
    pub what: String,
}

impl Failure {
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }
}

impl Failure {
    /// Whether a disk is full for certain: waiting makes no room.
    pub fn is_full(&self) -> bool {
        self.what.starts_with(DISK_IS_FULL)
    }
}

pub(super) const DISK_IS_FULL: &str = "a disk is full";

/// The end of what was said, on one line.
pub(super) fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let joined = lines.join("; ");
    let mut start = joined.len().saturating_sub(MOST_SAID_BYTES);
    while !joined.is_char_boundary(start) {
        start += 1;
    }
    joined[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_shortly() {
        let long = "é".repeat(2000);
        assert!(shortened(&long).len() <= MOST_SAID_BYTES);
        assert_eq!(shortened("a\n\n b \n"), "a; b");
    }
}
