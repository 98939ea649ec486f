//! The outcome of a call of rsync: what it did, and what its failure means.

use std::io;
use std::path::Path;

use crate::storage::error::ErrorKind;
use crate::storage::process_failure::{ProcessFailure, last_words};
use crate::storage::ssh;

/// The outcome of a call that did all or a part of its work.
#[derive(Debug)]
pub(super) struct Output {
    pub stdout: String,
    stderr: String,
    /// Why a part of the work is not done. `None`: all is done.
    partial: Option<ProcessFailure>,
}

impl Output {
    /// Reads the end of a call by its exit code (`None`: a signal ended it).
    pub(super) fn of(
        code: Option<i32>,
        stdout: String,
        stderr: String,
    ) -> Result<Self, ProcessFailure> {
        let partial = match code {
            Some(0) => None,
            Some(PARTIAL | VANISHED) => Some(failure(code, &last_words(&stderr))),
            _ => return Err(failure(code, &last_words(&stderr))),
        };
        Ok(Self {
            stdout,
            stderr,
            partial,
        })
    }

    /// Returns the output of a call that did all of its work.
    pub(super) fn complete(self) -> Result<String, ProcessFailure> {
        match self.partial {
            None => Ok(self.stdout),
            Some(failure) => Err(failure),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether the requested folder itself does not exist: the only complaints say so.
    pub(super) fn is_absent(&self) -> bool {
        let complaints = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("rsync: "));
        // The other side ends first, which both sides may report.
        let at_the_end = |line: &&str| {
            line.contains("] read error: ") || line.contains("] write error: Broken pipe")
        };
        let mut complaints = complaints.filter(|line| !at_the_end(line)).peekable();
        let says_so = |line: &str| {
            let of_it = line.contains("change_dir") || line.contains("link_stat");
            of_it && line.contains("failed: No such file or directory")
        };
        !self.is_complete() && complaints.peek().is_some() && complaints.all(says_so)
    }

    /// Returns why the object `name` was not fetched.
    pub(super) fn why_not(&self, name: &str) -> ProcessFailure {
        let quoted = format!("/{name}\"");
        let bare = format!("\"{name}\"");
        let names_it = |line: &&str| line.contains(&quoted) || line.contains(&bare);
        let mut lines = self.stderr.lines().filter(names_it);
        let is_gone = |line: &str| {
            line.contains("No such file or directory") || line.starts_with("file has vanished")
        };
        match lines.next() {
            Some(line) if is_gone(line) => ProcessFailure::not_found(),
            Some(line) => failure(Some(PARTIAL), line),
            // No line names it: either the whole folder is absent, or it was not sent for another
            // reason.
            None if self.stderr.lines().any(reports_absent_folder) => ProcessFailure::not_found(),
            None => failure(Some(PARTIAL), &last_words(&self.stderr)),
        }
    }
}

fn reports_absent_folder(line: &str) -> bool {
    line.contains("change_dir") && line.contains("failed: No such file or directory")
}

/// rsync's exit code for a partial transfer.
const PARTIAL: i32 = 23;
/// rsync's exit code if source files vanished during the transfer.
const VANISHED: i32 = 24;

impl ProcessFailure {
    /// The task that made the call was dropped.
    pub(super) fn interrupted() -> Self {
        Self::new(ErrorKind::Unavailable, "the call of rsync was cancelled")
    }

    /// A temporary folder of this machine failed.
    pub(super) fn local(error: &io::Error) -> Self {
        let what = format!("cannot use a temporary folder: {error}");
        Self::new(ErrorKind::Unavailable, what)
    }

    /// A file to send cannot be read.
    pub(super) fn unreadable(path: &Path) -> Self {
        let what = format!("cannot read {}", path.display());
        Self::new(ErrorKind::Permanent, what)
    }

    /// The object does not exist.
    pub(super) fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "it is not there")
    }

    /// The object was not sent because of its size or type.
    pub(super) fn too_large(most_bytes: u64) -> Self {
        let what = format!("it has more than {most_bytes} bytes, or is not a file");
        Self::new(ErrorKind::Permanent, what)
    }
}

/// What ssh and rsync say if no connection came about.
const NO_CONNECTION: [&str; 3] = [
    "ssh: connect to host ",
    "ssh: Could not resolve hostname ",
    "failed to connect to ",
];

/// Returns why no connection came about, without what follows from it. `None`: there was one, or
/// `said`, lines of stderr with "; " between them, does not say why.
fn why_no_connection(said: &str) -> Option<&str> {
    said.split("; ").find_map(|line| {
        let at = NO_CONNECTION.iter().find_map(|words| line.find(words))?;
        Some(&line[at..])
    })
}

/// Returns the failure that the end of a call means, by its exit code and stderr.
fn failure(code: Option<i32>, said: &str) -> ProcessFailure {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if let Some(why) = why_no_connection(said) {
        return ProcessFailure::new(ErrorKind::Unavailable, why);
    }
    // The last line repeats the exit code in words, with a place in rsync's source.
    let lines = said.split("; ");
    let causes: Vec<&str> = lines
        .filter(|line| !line.starts_with("rsync error: "))
        .collect();
    let shown = match causes.is_empty() {
        true => said.to_owned(),
        false => causes.join("; "),
    };
    let ended = |kind, hint: &str| ProcessFailure::ended(kind, hint, "rsync", code, &shown);
    if let Some((kind, hint)) = ssh::refusal(said) {
        return ended(kind, hint);
    }
    if says(&["Another instance of rrsync"]) {
        return ended(
            ErrorKind::Unavailable,
            "the server's rrsync accepts one call at a time; ",
        );
    }
    // `rrsync` of rsync 3.5 says this of an absent folder, instead of rsync's own complaint.
    if says(&["rrsync error: post-realpath open failed"]) && says(&["No such file or directory"]) {
        return ended(ErrorKind::NotFound, "");
    }
    if says(&["@ERROR: auth failed", "rrsync error", "is read only"]) {
        return ended(ErrorKind::Denied, "");
    }
    if says(&["Unknown module", "command not found", "unknown option"]) {
        return ended(ErrorKind::Permanent, "");
    }
    if says(&["No space left on device", "Disk quota exceeded"]) {
        return ended(
            ErrorKind::Unavailable,
            "a disk is full (the target's, or the one here for temporary files); ",
        );
    }
    match code {
        // Usage error, incompatible protocol, unsupported action.
        Some(1..=4) => ended(ErrorKind::Permanent, ""),
        _ => ended(ErrorKind::Unavailable, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_classified() {
        for (code, said, kind) in [
            (
                255,
                "ssh: connect to host x port 22: Connection refused",
                ErrorKind::Unavailable,
            ),
            (255, "Could not resolve hostname x", ErrorKind::Unavailable),
            (
                255,
                "me@x: Permission denied (publickey).",
                ErrorKind::Denied,
            ),
            (255, "Host key verification failed.", ErrorKind::Denied),
            (
                11,
                "write failed on \"x\": No space left on device (28)",
                ErrorKind::Unavailable,
            ),
            (
                12,
                "/usr/bin/rrsync error: post-realpath open failed (race detected): /h/ No such file or directory",
                ErrorKind::NotFound,
            ),
            (5, "@ERROR: Unknown module 'x'", ErrorKind::Permanent),
            (5, "@ERROR: auth failed on module x", ErrorKind::Denied),
            (
                30,
                "io timeout after 5 seconds -- exiting",
                ErrorKind::Unavailable,
            ),
            (1, "syntax or usage error", ErrorKind::Permanent),
        ] {
            assert_eq!(failure(Some(code), said).kind, kind, "{code} {said}");
        }
        assert_eq!(failure(None, "").to_string(), "rsync ended with a signal");
    }

    #[test]
    fn a_failure_says_its_cause_without_what_follows_from_it() {
        let refused = "ssh: connect to host x port 22: Connection refused";
        let closed = "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]";
        let end = "rsync error: unexplained error (code 255) at io.c(285) [Receiver=3.5.0]";
        let of = |code, lines: &[&str]| failure(Some(code), &lines.join("; ")).to_string();
        assert_eq!(of(255, &[refused, closed, end]), refused);
        assert_eq!(of(12, &[refused, closed, end]), refused);
        assert_eq!(
            of(12, &[closed, end]),
            format!("rsync ended with code 12: {closed}")
        );
        assert_eq!(of(30, &[end]), format!("rsync ended with code 30: {end}"));
        let daemon =
            "rsync: [Receiver] failed to connect to x (192.0.2.7): Connection refused (111)";
        assert_eq!(of(10, &[daemon, end]), &daemon[18..]);
        for line in [refused, daemon] {
            assert!(failure(Some(10), line).is_unreached(), "{line}");
        }
    }

    #[test]
    fn absent_objects_are_distinguished_from_unreadable_ones() {
        let partial = |stderr: &str| Output {
            stdout: String::new(),
            stderr: stderr.to_owned(),
            partial: Some(failure(Some(PARTIAL), stderr)),
        };
        let absent = "rsync: [sender] change_dir \"/b/h\" failed: No such file or directory (2)\n\
                      rsync error: some files/attrs were not transferred (code 23)\n";
        assert!(partial(absent).is_absent());
        for other in [
            "rsync: [sender] opendir \"/b/h/x\" failed: Permission denied (13)\n",
            "rsync: [sender] opendir \"/b/h/x\" failed: No such file or directory (2)\n",
            "file has vanished: \"/b/h/x\"\n",
            "Warning: Identity file x not accessible: No such file or directory.\n",
            "rsync: [sender] change_dir \"/b\" failed: No such file or directory (2)\n\
             rsync: [sender] read errors mapping \"/b/y\": Input/output error (5)\n",
        ] {
            assert!(!partial(other).is_absent(), "{other}");
        }
        let some = partial(
            "rsync: [sender] link_stat \"/b/h/gone\" failed: No such file or directory (2)\n\
             rsync: [sender] send_files failed to open \"/b/h/closed\": Permission denied (13)\n\
             rsync: [sender] read errors mapping \"/b/h/broken\": Input/output error (5)\n",
        );
        assert_eq!(some.why_not("h/gone").kind, ErrorKind::NotFound);
        assert_eq!(some.why_not("h/closed").kind, ErrorKind::Denied);
        assert_eq!(some.why_not("h/broken").kind, ErrorKind::Unavailable);
        assert_ne!(some.why_not("h/other").kind, ErrorKind::NotFound);
        // Absent objects say nothing about one that was too large.
        let others = partial(
            "rsync: [sender] link_stat \"/b/h/gone\" failed: No such file or directory (2)\n",
        );
        assert_ne!(others.why_not("h/large").kind, ErrorKind::NotFound);
        assert_eq!(partial(absent).why_not("h/x").kind, ErrorKind::NotFound);
    }
}
