//! Why a restore in place did not begin, went back, or has a warning: a code for programs, a text
//! and the next step.

use std::io;

use serde::{Deserialize, Serialize};

use crate::base::error_chain::with_causes;

/// The codes of the failures.
pub(crate) mod code {
    pub(crate) const CHROMA_MISSING: &str = "chroma_snapshot_missing";
    pub(crate) const CHECK_FAILED: &str = "check_failed";
    pub(crate) const COMMAND_MISSING: &str = "command_missing";
    pub(crate) const CONTENT_CHANGED: &str = "content_changed";
    pub(crate) const EXDEV: &str = "exdev";
    pub(crate) const IN_USE: &str = "in_use";
    pub(crate) const INTERRUPTED: &str = "interrupted";
    pub(crate) const IO: &str = "io_error";
    pub(crate) const LIVE_CHANGED: &str = "live_data_changed";
    pub(crate) const MOUNT_POINT: &str = "mount_point";
    pub(crate) const NO_PARENT: &str = "no_directory";
    pub(crate) const NO_RIGHTS: &str = "no_rights";
    pub(crate) const NO_SPACE: &str = "no_space";
    pub(crate) const NOTHING: &str = "nothing_to_restore";
    pub(crate) const OVERLAP: &str = "overlap";
    pub(crate) const PORT_IN_USE: &str = "port_in_use";
    pub(crate) const READ_ONLY: &str = "read_only";
    pub(crate) const SERVICE_STOPPED: &str = "service_stopped";
    pub(crate) const START_FAILED: &str = "service_did_not_start";
    pub(crate) const STOP_FAILED: &str = "stop_failed";
    pub(crate) const WRONG_DEPLOYMENT: &str = "wrong_deployment";
    pub(crate) const WRONG_KIND: &str = "wrong_kind";
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Because {
    /// For programs, such as `stop_failed`.
    pub(crate) code: String,
    /// A sentence without its final period.
    pub(crate) text: String,
    /// The next step for the operator. Empty: there is none.
    pub(crate) next: String,
}

impl Because {
    /// Whether it is that the process of the restore ended.
    pub(crate) fn is_interruption(&self) -> bool {
        self.code == code::INTERRUPTED
    }

    pub(crate) fn new(code: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            text: text.into(),
            next: next.into(),
        }
    }

    /// Makes the reason of a system call that failed; `what` is a clause such as `cannot copy db`.
    pub(super) fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        use io::ErrorKind::{
            CrossesDevices, FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
            StorageFull,
        };
        let (code, next) = match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                (code::NO_SPACE, "make room there, then run it again")
            }
            PermissionDenied => (
                code::NO_RIGHTS,
                "run it as root, or as the owner of the data and of its directory",
            ),
            ReadOnlyFilesystem => (
                code::READ_ONLY,
                "mount it writable, or choose another `preserve_dir` in [restore]",
            ),
            CrossesDevices => (
                code::EXDEV,
                "use `--preserve copy`, or a `preserve_dir` on the file system of the data",
            ),
            _ => (code::IO, "remove that cause, then run it again"),
        };
        Self::new(code, format!("{what}: {}", with_causes(error)), next)
    }
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a restore in place was not begun; nothing was changed.
#[derive(Debug)]
pub(crate) struct InPlaceRefusal {
    /// At least one.
    pub(crate) because: Vec<Because>,
}

impl std::fmt::Display for InPlaceRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, one) in self.because.iter().enumerate() {
            let start = if number == 0 { "" } else { "; " };
            write!(f, "{start}{one}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InPlaceRefusal {}

impl From<Because> for InPlaceRefusal {
    fn from(because: Because) -> Self {
        Self {
            because: vec![because],
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn the_code_of_a_failed_call_says_what_the_operator_can_do() {
        for (errno, expected) in [
            (Errno::NOSPC, code::NO_SPACE),
            (Errno::DQUOT, code::NO_SPACE),
            (Errno::XDEV, code::EXDEV),
            (Errno::ROFS, code::READ_ONLY),
            (Errno::ACCESS, code::NO_RIGHTS),
            (Errno::PERM, code::NO_RIGHTS),
            (Errno::IO, code::IO),
        ] {
            let because = Because::io("cannot do it", &errno.into());
            assert_eq!(because.code, expected);
            assert!(!because.next.is_empty() && because.text.starts_with("cannot do it: "));
        }
    }
}
