//! Why a job did not do its work, with the next step if there is one to name.

use std::error::Error;

use crate::base::error_chain;

/// Whose turn it is after a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultOrigin {
    /// The request or the configuration is wrong.
    Request,
    /// The request is right, and the work failed.
    Work,
}

/// Why a job did not do its work.
///
/// It holds the error itself, so that a front end can look for a cause that it has advice for.
#[derive(Debug)]
pub(crate) struct JobError {
    fault: FaultOrigin,
    error: Box<dyn Error + Send + Sync>,
    next: Option<String>,
}

impl JobError {
    /// The work failed.
    pub(crate) fn work(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            fault: FaultOrigin::Work,
            error: error.into(),
            next: None,
        }
    }

    /// The request or the configuration is wrong.
    pub(crate) fn request(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            fault: FaultOrigin::Request,
            ..Self::work(error)
        }
    }

    /// Adds the next step for the operator.
    pub(crate) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Returns the fault, the error and the next step, `None` if the job names none.
    pub(crate) fn into_parts(self) -> (FaultOrigin, Box<dyn Error + Send + Sync>, Option<String>) {
        (self.fault, self.error, self.next)
    }

    /// Returns whether the request or the configuration is wrong.
    pub(crate) fn is_request(&self) -> bool {
        self.fault == FaultOrigin::Request
    }

    /// Returns the error itself.
    pub(crate) fn error(&self) -> &(dyn Error + 'static) {
        &*self.error
    }

    /// Returns the next step for the operator, `None` if the job names none.
    pub(crate) fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// Returns the error and its causes in one line.
    pub(crate) fn with_causes(&self) -> String {
        error_chain::with_causes(&*self.error)
    }
}

impl std::fmt::Display for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::work(error)
    }
}
