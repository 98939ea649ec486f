//! A check by a command of the operator: it passes if the command exits 0.

use std::time::Duration;

use super::expect::printable;
use super::{CheckAttempt, CheckSubject};
use crate::base::command::{CommandError, CommandLine, StdoutTo, Streams, run_guarded};
use crate::base::error_chain::with_causes;

/// Longest part of what the command wrote in a message, in characters.
const SHOWN_CHARS: usize = 300;

/// Runs the command once.
pub(super) fn attempt(
    line: &CommandLine,
    name: &str,
    subject: &CheckSubject<'_>,
    timeout: Duration,
) -> CheckAttempt {
    let restored = subject.restored.map(|dir| dir.display().to_string());
    let mut environment = vec![
        ("SEALIFT_CHECK", name),
        ("SEALIFT_BASE_URL", subject.base_url.unwrap_or_default()),
    ];
    environment.extend(
        restored
            .iter()
            .map(|dir| ("SEALIFT_RESTORED", dir.as_str())),
    );
    let streams = Streams {
        input: None,
        stdout: StdoutTo::Kept,
    };
    match run_guarded(line, streams, &environment, timeout) {
        Ok(ran) => {
            let last = ran.stderr.lines().last().unwrap_or("exit status 0");
            CheckAttempt::passed(printable(last, SHOWN_CHARS))
        }
        Err(error) => {
            let code = match &error {
                CommandError::Failed { code, .. } => *code,
                CommandError::Start { .. } => None,
            };
            let found = printable(&with_causes(&error), SHOWN_CHARS);
            CheckAttempt::wrong(found, vec![code.map(Into::into)])
        }
    }
}
