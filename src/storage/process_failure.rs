//! Why a call of rsync or ssh failed, before it becomes a [`TargetError`](super::TargetError).

use super::error::ErrorKind;

/// Maximum bytes of a program's stderr to quote in an error.
pub(super) const MOST_SAID_BYTES: usize = 600;

/// The failure of a call of a program, or of a request over its connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub(super) struct ProcessFailure {
    pub kind: ErrorKind,
    /// The cause, as one line.
    pub what: String,
}

impl ProcessFailure {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    /// Returns the failure of `program`, which ended with `code` (`None`: a signal) and these last
    /// words. `hint` goes before them; may be empty.
    pub(super) fn ended(
        kind: ErrorKind,
        hint: &str,
        program: &str,
        code: Option<i32>,
        said: &str,
    ) -> Self {
        let code = code.map_or("a signal".to_owned(), |code| format!("code {code}"));
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(": {said}"),
        };
        Self::new(kind, format!("{hint}{program} ended with {code}{said}"))
    }

    /// Whether the machine was not reached: no connection came about, or no request passed it.
    pub(super) fn is_unreached(&self) -> bool {
        UNREACHED.iter().any(|words| self.what.contains(words))
    }

    /// Whether a disk is certainly full, so that waiting does not help.
    pub(super) fn is_full(&self) -> bool {
        self.what.starts_with(DISK_IS_FULL)
    }
}

/// The beginning of a failure's text if a disk is certainly full.
const DISK_IS_FULL: &str = "a disk is full";

/// What ssh and rsync say of a machine that they cannot reach. They end with these codes too if a
/// connection breaks, which is no matter: it only counts before the first answer.
const UNREACHED: [&str; 17] = [
    "ssh: connect to host ",
    "ssh: Could not resolve hostname ",
    "Connection refused",
    "No route to host",
    "Network is unreachable",
    "Could not resolve hostname",
    "Name or service not known",
    "name resolution",
    "timed out",
    "failed to connect",
    "code 255",
    "code 10",
    "code 35",
    "no sftp after",
    // Something takes the connection and closes it: no rsync, and no ssh, is behind it.
    "did not see server greeting",
    "kex_exchange_identification",
    "(0 bytes received so far)",
];

/// Returns the end of a program's stderr on one line.
pub(super) fn last_words(text: &str) -> String {
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
    fn a_machine_that_was_not_reached_is_distinguished_from_a_request_that_failed() {
        let is_unreached = |what: &str| {
            let failure = ProcessFailure::new(ErrorKind::Unavailable, what);
            failure.is_unreached()
        };
        for what in [
            "ssh ended with code 255: ssh: connect to host x port 22: Connection refused",
            "rsync ended with code 10: rsync: getaddrinfo: x 873: Name or service not known",
            "rsync ended with code 35: rsync error: timeout waiting for daemon connection",
            "no sftp after 7 s",
        ] {
            assert!(is_unreached(what), "{what}");
        }
        for what in ["rsync ended with code 23: read errors", "no end after 20 s"] {
            assert!(!is_unreached(what), "{what}");
        }
    }

    #[test]
    fn long_output_is_cut_to_its_end() {
        let long = "é".repeat(2000);
        assert!(last_words(&long).len() <= MOST_SAID_BYTES);
        assert_eq!(last_words("a\n\n b \n"), "a; b");
    }
}
