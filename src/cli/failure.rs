//! How a command ends badly: the error, its causes, the next step, an exit code.

use std::error::Error;
use std::process::ExitCode;

use super::output;
use crate::repository::RepositoryError;
use crate::target::{ErrorKind, TargetError};

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
        output::say(format_args!("sealift: {}", self.error));
        let mut said = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                output::say(format_args!("  because: {text}"));
                said.push_str(&text);
            }
            source = cause.source();
        }
        let hint = self.hint.as_deref();
        if let Some(hint) = hint.or_else(|| target_hint(&*self.error)) {
            output::say(format_args!("  next: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

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
