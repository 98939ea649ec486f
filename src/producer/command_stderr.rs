//! Reports the stderr of commands that succeeded.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::command::{CommandLine, Ran};

/// Lines of stderr in a note; the metadata has more.
const SHOWN_LINES: usize = 3;

/// The stderr of a source's commands that succeeded.
#[derive(Default)]
pub(super) struct CommandStderr {
    /// The texts, by `before`, `command` and `after`.
    pub stderr: BTreeMap<String, String>,
    /// Notes for the operator.
    pub notes: BTreeSet<String>,
}

impl CommandStderr {
    /// Adds the run of `line`, under `key`.
    pub(super) fn add(&mut self, key: &str, line: &CommandLine, ran: Ran) {
        self.notes.extend(ran.warning);
        if ran.stderr.is_empty() {
            return;
        }
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        self.notes.insert(format!(
            "`{}` succeeded, and wrote to stderr:\n  {last}",
            line.brief()
        ));
        self.stderr.insert(key.to_owned(), ran.stderr);
    }
}
