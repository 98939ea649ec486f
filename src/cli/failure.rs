//! How a command ends badly: the error, its causes, the next step, an exit code.

use std::error::Error;
use std::process::ExitCode;

use rustix::io::Errno;

use super::output;
use crate::jobs::local_retention::LocalRetentionError;
use crate::jobs::push::PushError;
use crate::repository::RepositoryError;
use crate::restore::open::{IdentityError, OpenArchiveError};
use crate::state::StateError;
use crate::state::catalog::CatalogError;
use crate::storage::{ErrorKind, TargetError};

/// How a command ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// Finished, but something was skipped or is stale.
    Partial,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// The work failed.
    pub fn from_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 1,
            error: error.into(),
            hint: None,
        }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 2,
            ..Self::from_error(error)
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn report(&self) -> ExitCode {
        if is_broken_pipe(&*self.error) {
            // Whoever read our output has had enough; that is no failure of ours.
            return ExitCode::SUCCESS;
        }
        output::tell(format_args!("sealift: {}", self.error));
        let mut said = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                output::tell(format_args!("  because: {text}"));
                said.push_str(&text);
            }
            source = cause.source();
        }
        if let Some(hint) = self.next() {
            output::tell(format_args!("  next: {hint}"));
        }
        ExitCode::from(self.code)
    }

    /// The next step, where there is one to name.
    pub fn next(&self) -> Option<&str> {
        let hint = self.hint.as_deref();
        let hint = hint.or_else(|| system_hint(&*self.error).or(prompt_hint(&*self.error)));
        hint.or_else(|| target_hint(&*self.error))
    }
}

impl Failure {
    /// In one line, for whoever goes on nevertheless.
    pub fn with_causes(&self) -> String {
        crate::base::error_chain::with_causes(&*self.error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// The next step where this machine gave less than was asked of it: room, files, memory, permission.
pub fn system_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
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
        if let Some(CatalogError::Sqlite { source, .. }) = catalog {
            if source.to_string().contains("out of memory") {
                return Some(MORE_MEMORY);
            }
            return Some(
                "see that the state directory's disk has room, and that whoever runs sealift may write there; then \
                 run it again",
            );
        }
        next = error.source();
    }
    None
}

fn io_hint(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind::{
        FileTooLarge, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            return Some("make room there (disk, quota, `ulimit -f`), then run it again");
        }
        ReadOnlyFilesystem => return Some("mount it writable, or choose another place"),
        PermissionDenied => {
            return Some("see who owns it and its mode: whoever runs sealift must be allowed to");
        }
        OutOfMemory => return Some(MORE_MEMORY),
        // zstd's word for it.
        _ if error.to_string().contains("not enough memory") => return Some(MORE_MEMORY),
        _ => {}
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(MORE_FILES),
        // Of a thread that could not be started; nothing else waits without blocking and tells of it.
        Errno::AGAIN => Some(MORE_MEMORY),
        _ => None,
    }
}

pub const MORE_FILES: &str =
    "raise the limit of open files: `ulimit -n 1024`, or `LimitNOFILE=1024` in its unit";
pub const MORE_MEMORY: &str = "give it more memory or threads: `ulimit -v`, `ulimit -u`, or `MemoryMax=` and `TasksMax=` in its \
     unit; or let it need less: `threads` in [pack]";

/// The next step where nobody could be asked.
fn prompt_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<IdentityError>()? {
        IdentityError::NoPassphrase(_) => Some(NO_TERMINAL),
        _ => None,
    }
}

pub const NO_TERMINAL: &str = "put it into a file and name that in SEALIFT_PASSPHRASE_FILE";

/// The next step where a target did not do what it was asked to.
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
                    "see that the network and the server are up, and that the URL (and endpoint) are right; then \
                     run it again. A target's `retry` says for how long it is tried (3 minutes)",
                ),
                ErrorKind::Denied => {
                    Some("see that the credentials are this target's, and that they may do this")
                }
                ErrorKind::Frozen => {
                    Some("`sealift restore --thaw` asks for what lies in cold storage")
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
