//! What the agent says while it runs. A front end writes it.

use serde::Serialize;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    /// It is as it should be.
    Info,
    /// Something may be wrong.
    Warning,
    /// Something failed.
    Error,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogLine {
    pub(crate) level: LogLevel,
    /// What happened, as a word for programs, such as `run_started`.
    pub(crate) event: &'static str,
    /// The run that it is about. `None`: none.
    pub(crate) run: Option<String>,
    pub(crate) text: String,
}

/// Writes the lines of the agent.
pub(crate) trait AgentLog: Send + Sync {
    /// Writes one line.
    fn write(&self, line: &LogLine);
}

impl dyn AgentLog {
    /// Writes that all is as it should be.
    pub(crate) fn info(&self, event: &'static str, text: impl Into<String>) {
        self.line(LogLevel::Info, event, text.into());
    }

    /// Writes that something may be wrong.
    pub(crate) fn warn(&self, event: &'static str, text: impl Into<String>) {
        self.line(LogLevel::Warning, event, text.into());
    }

    fn line(&self, level: LogLevel, event: &'static str, text: String) {
        self.write(&LogLine {
            level,
            event,
            run: None,
            text,
        });
    }

    /// Writes something about a run.
    pub(crate) fn of_run(&self, level: LogLevel, event: &'static str, run: &str, text: String) {
        self.write(&LogLine {
            level,
            event,
            run: Some(run.to_owned()),
            text,
        });
    }
}
