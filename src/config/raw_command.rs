//! A command as the file has it.

use serde::Deserialize;

use super::CommandLine;

/// A command: a line for the shell, or a program and its arguments.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum RawCommand {
    Shell(String),
    Words(Vec<String>),
}

impl RawCommand {
    pub(super) fn line(&self) -> CommandLine {
        match self {
            Self::Shell(line) => CommandLine::Shell(line.clone()),
            Self::Words(words) => CommandLine::Words(words.clone()),
        }
    }

    /// Returns whether it names no program.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Shell(line) => line.trim().is_empty(),
            Self::Words(words) => words
                .first()
                .is_none_or(|program| program.trim().is_empty()),
        }
    }
}
