//! A check by a command of the operator: it passes if the command exits 0.

use std::time::Duration;

use super::Attempt;
use super::expect::printable;
use crate::base::command::{CommandError, CommandLine, StdoutTo, Streams, run_guarded};
use crate::base::error_chain::with_causes;

/// Longest part of what the command wrote in a message, in characters.
const SHOWN_CHARS: usize = 300;

/// Runs the command once.
pub(super) fn attempt(
    line: &CommandLine,
    name: &str,
    base_url: Option<&str>,
    timeout: Duration,
) -> Attempt {
    let environment = [
        ("SEALIFT_CHECK", name),
        ("SEALIFT_BASE_URL", base_url.unwrap_or_default()),
    ];
    let streams = Streams {
        input: None,
        stdout: StdoutTo::Kept,
    };
    match run_guarded(line, streams, &environment, timeout) {
        Ok(ran) => {
            let last = ran.stderr.lines().last().unwrap_or("exit status 0");
            Attempt::passed(printable(last, SHOWN_CHARS))
        }
        Err(error) => {
            let code = match &error {
                CommandError::Failed { code, .. } => *code,
                CommandError::Start { .. } => None,
            };
            let found = printable(&with_causes(&error), SHOWN_CHARS);
            Attempt::wrong(found, vec![code.map(Into::into)])
        }
    }
}
