//! How a command ends: complete, partly, or with an error, its causes, the next step and an exit
//! code.

use std::error::Error;
use std::process::ExitCode;

use rustix::io::Errno;
use serde::Serialize;

use super::output;
use crate::base::no_memory::is_lack_of_memory;
use crate::jobs::error::{FaultOrigin, JobError};
use crate::jobs::local_retention::LocalRetentionError;
use crate::jobs::push::PushError;
use crate::jobs::run_report::ErrorText;
use crate::repository::RepositoryError;
use crate::restore::open::{IdentityError, OpenArchiveError};
use crate::state::StateError;
use crate::state::catalog::CatalogError;
use crate::storage::{ErrorKind, TargetError};

/// The exit code if the command line or the configuration is wrong.
pub(super) const USAGE: u8 = 2;

/// A failure as JSON: the member `error` of what `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct ErrorObject {
    /// What failed.
    pub(super) text: String,
    /// Why, from the outermost cause on.
    pub(super) causes: Vec<String>,
    /// The next step.
    pub(super) next: Option<String>,
    pub(super) exit_code: u8,
}

/// Ends the run: prints the failure, and the report if the command `prints_json`. Returns the exit
/// code.
pub(super) fn conclude(result: Result<Outcome, Failure>, prints_json: bool) -> ExitCode {
    let (code, failure) = match result {
        Ok(Outcome::Complete) => (0, None),
        Ok(Outcome::Partial) => (3, None),
        Ok(Outcome::Plugin(code)) => (code, None),
        // The reader of our output closed the pipe, which is no failure of ours.
        Err(failure) if is_broken_pipe(&*failure.error) => return ExitCode::SUCCESS,
        Err(failure) => (failure.code, Some(failure)),
    };
    if let Some(failure) = &failure {
        failure.report();
    }
    if !prints_json {
        return ExitCode::from(code);
    }
    match output::write_document(failure.as_ref().map(Failure::object)) {
        Err(error) if failure.is_none() && !is_broken_pipe(&error) => {
            let unwritten = Failure::from_error(error);
            unwritten.report();
            ExitCode::from(unwritten.code)
        }
        _ => ExitCode::from(code),
    }
}

/// Result of a command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was done, and nothing needs attention.
    Complete,
    /// The command finished, but something was skipped or is stale.
    Partial,
    /// The command finished as a plugin of Nagios, with this exit code.
    Plugin(u8),
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// The work failed.
    pub(super) fn from_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 1,
            error: error.into(),
            hint: None,
        }
    }

    /// The command line or the configuration is wrong.
    pub(super) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: USAGE,
            ..Self::from_error(error)
        }
    }

    /// Adds the next step.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints the error, its causes and the next step on stderr.
    fn report(&self) {
        output::tell(format_args!("sealift: {}", self.error));
        for cause in self.causes() {
            output::tell(format_args!("  because: {cause}"));
        }
        if let Some(hint) = self.next() {
            output::tell(format_args!("  next: {hint}"));
        }
    }

    /// Returns the causes that the texts before them do not contain, from the outermost on.
    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut said = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                said.push_str(&text);
                causes.push(text);
            }
            source = cause.source();
        }
        causes
    }

    fn object(&self) -> ErrorObject {
        ErrorObject {
            text: self.error.to_string(),
            causes: self.causes(),
            next: self.next().map(str::to_owned),
            exit_code: self.code,
        }
    }

    /// Returns the exit code.
    pub(super) fn code(&self) -> u8 {
        match is_broken_pipe(&*self.error) {
            true => 0,
            false => self.code,
        }
    }

    /// Whether nothing was done because another process is at work.
    pub(super) fn is_locked(&self) -> bool {
        is_locked(&*self.error)
    }

    /// Returns the error, its causes and the next step as text.
    pub(super) fn text(&self) -> ErrorText {
        ErrorText::of(&*self.error, self.next())
    }

    fn next(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| advice(&*self.error))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// Returns the next step for an error whose own message names none.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if is_locked(error) {
        return Some(WAIT);
    }
    let of_host = system_hint(error).or_else(|| prompt_hint(error));
    of_host.or_else(|| target_hint(error))
}

/// Returns the next step if this machine lacks room, open files, memory or permission.
pub(super) fn system_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(hint) = io_hint(io)
        {
            return Some(hint);
        }
        if let Some(OpenArchiveError::NoMemory) = error.downcast_ref::<OpenArchiveError>() {
            return Some(MORE_MEMORY);
        }
        let of_push = match error.downcast_ref::<PushError>() {
            Some(PushError::Catalog(error)) => Some(error),
            _ => None,
        };
        let of_retention = match error.downcast_ref::<LocalRetentionError>() {
            Some(LocalRetentionError::Catalog(error)) => Some(error),
            _ => None,
        };
        let of_state = match error.downcast_ref::<StateError>() {
            Some(StateError::Catalog(error)) => Some(error),
            _ => None,
        };
        let catalog = error.downcast_ref::<CatalogError>();
        let catalog = of_push.or(of_retention).or(of_state).or(catalog);
        if let Some(CatalogError::DiskFull { .. }) = catalog {
            return Some(MORE_ROOM);
        }
        if let Some(CatalogError::Sqlite { source, .. }) = catalog {
            if source.to_string().contains("out of memory") {
                return Some(MORE_MEMORY);
            }
            return Some(
                "check that the state directory's disk has room, and that this user can write there; then run it \
                 again",
            );
        }
        next = error.source();
    }
    None
}

fn io_hint(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind::{
        FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            return Some(MORE_ROOM);
        }
        ReadOnlyFilesystem => return Some("mount it writable, or choose another place"),
        PermissionDenied => {
            return Some("check owner and mode: this user has no permission");
        }
        _ if is_lack_of_memory(error) => return Some(MORE_MEMORY),
        _ => {}
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(MORE_FILES),
        // A thread could not be started: no other call of ours returns EAGAIN.
        Errno::AGAIN => Some(MORE_MEMORY),
        _ => None,
    }
}

/// The advice for a full disk.
const MORE_ROOM: &str = "make room there (disk, quota, `ulimit -f`), then run it again";
/// The advice for too few open files.
pub(super) const MORE_FILES: &str =
    "raise the limit of open files: `ulimit -n 1024`, or `LimitNOFILE=1024` in its unit";
/// The advice for too little memory or too few threads.
pub(super) const MORE_MEMORY: &str = "give it more memory or threads: `ulimit -v`, `ulimit -u`, or `MemoryMax=` and `TasksMax=` in its \
     unit; or let it need less: `threads` in [pack]";

/// The advice while another process is at work.
const WAIT: &str = "wait for it to end; a backup can do so itself: `sealift backup --wait 2h`";

/// Whether another process holds the state directory.
fn is_locked(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<StateError>();
    matches!(error, Some(StateError::Locked(_)))
}

/// Returns the next step if there was no terminal to ask on.
fn prompt_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<IdentityError>()? {
        IdentityError::NoPassphrase(_) => Some(NO_TERMINAL),
        IdentityError::WrongPassphrase(_) => Some(
            "check spaces at its ends, Caps Lock and the keyboard layout; the paper page has the key without a passphrase",
        ),
        _ => None,
    }
}

/// The advice for a passphrase prompt without a terminal.
pub(super) const NO_TERMINAL: &str = "put it into a file and name that in SEALIFT_PASSPHRASE_FILE";

/// Returns the next step if a target refused or did not answer.
fn target_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_repository = match error.downcast_ref::<RepositoryError>() {
            Some(RepositoryError::Target(error)) => Some(error),
            _ => None,
        };
        if let Some(failed) = of_repository.or(error.downcast_ref::<TargetError>()) {
            return match failed.kind {
                ErrorKind::Unavailable => Some(
                    "check that the network and the server are up, and that the URL (and endpoint) are right; \
                     then run it again; `--retry 5m` tries for longer",
                ),
                ErrorKind::Denied => {
                    Some("check that the credentials are this target's, and that they allow this")
                }
                ErrorKind::Frozen => {
                    Some("`sealift restore --thaw` requests what is in cold storage")
                }
                ErrorKind::NotFound | ErrorKind::Permanent => None,
            };
        }
        next = error.source();
    }
    None
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::from_error(error)
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let (fault, error, hint) = error.into_parts();
        let failure = match fault {
            FaultOrigin::Request => Self::usage(error),
            FaultOrigin::Work => Self::from_error(error),
        };
        Self { hint, ..failure }
    }
}
