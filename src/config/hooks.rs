//! The `[hooks]` table: commands around a whole run.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::ConfigError;
use super::raw_command::RawCommand;
use super::value::{self, ValueText, optional};
use super::{COMMAND_TIMEOUT, CommandLine};

/// Commands around a run of `backup` or `push`.
#[derive(Debug, Clone)]
pub struct RunHooks {
    /// Runs first. If it fails, so does the run. `None`: none.
    pub before: Option<CommandLine>,
    /// Runs last, whatever happened since `before` began. `None`: none.
    pub after: Option<CommandLine>,
    /// Runs after a run that was not complete. `None`: none.
    pub failed: Option<CommandLine>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Default for RunHooks {
    fn default() -> Self {
        Self {
            before: None,
            after: None,
            failed: None,
            timeout: COMMAND_TIMEOUT,
        }
    }
}

/// `[hooks]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHooks {
    before: Option<Spanned<RawCommand>>,
    after: Option<Spanned<RawCommand>>,
    failed: Option<Spanned<RawCommand>>,
    timeout: Option<Spanned<ValueText>>,
}

impl RawHooks {
    pub(super) fn validate(&self, document: &ConfigDocument<'_>) -> Result<RunHooks, ConfigError> {
        let line = |key: &str, raw: &Option<Spanned<RawCommand>>| {
            let Some(raw) = raw else { return Ok(None) };
            match raw.get_ref().is_empty() {
                true => {
                    let what = format!("`{key}` names no program");
                    Err(document.invalid(&raw.span(), what))
                }
                false => Ok(Some(raw.get_ref().line())),
            }
        };
        let timeout = optional(document, &self.timeout, value::parse_duration)?;
        Ok(RunHooks {
            before: line("before", &self.before)?,
            after: line("after", &self.after)?,
            failed: line("failed", &self.failed)?,
            timeout: timeout.unwrap_or(COMMAND_TIMEOUT),
        })
    }
}
