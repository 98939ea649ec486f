//! The `[restore]` table: how `restore --in-place` stops and starts what uses the data, and where
//! the old content goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::CommandLine;
use super::document::ConfigDocument;
use super::error::ConfigError;
use super::raw_command::RawCommand;
use super::value::{self, ValueText, optional};

/// How long `stop` and `start` may take, each.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the checks are repeated until they pass.
const CHECK_TIMEOUT: Duration = Duration::from_secs(180);
/// Age from which a safety copy may be deleted.
const KEEP_PRESERVED: Duration = Duration::from_secs(7 * 86_400);

/// What becomes of the old content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preserve {
    /// It is renamed, which needs no room.
    Move,
    /// It is copied (as a reflink where the file system can), and the copy is the safety copy.
    Copy,
}

/// `[restore]`: the settings of a restore in place.
#[derive(Debug, Clone)]
pub struct RestoreSettings {
    /// Stops what uses the data. `None`: nothing is to be stopped.
    pub stop: Option<CommandLine>,
    /// Starts it again. `None`: nothing is to be started.
    pub start: Option<CommandLine>,
    /// Exits 0 once it is stopped. `None`: it is when `stop` has succeeded.
    pub stopped: Option<CommandLine>,
    /// How long `stop` may take, and `stopped` after it.
    pub stop_timeout: Duration,
    /// How long `start` may take.
    pub start_timeout: Duration,
    /// What becomes of the old content.
    pub preserve: Preserve,
    /// The directory of the safety copies. `None`: beside the data.
    pub preserve_dir: Option<PathBuf>,
    /// Age from which `rollback --clean` deletes a safety copy.
    pub keep_preserved: Duration,
    /// Time between the start and the checks.
    pub settle: Duration,
    /// How long the checks are repeated until they pass.
    pub check_timeout: Duration,
    /// Where a source's data is, by the source's name, if that is not the source's own path.
    pub map: BTreeMap<String, PathBuf>,
    /// The URL before the paths of HTTP checks, without a slash at its end. `None`: they cannot
    /// run.
    pub base_url: Option<String>,
    /// A check that failed before the restore counts after it, too.
    pub strict: bool,
    /// After a power cut the agent may roll back by itself if checks fail.
    pub rollback_after_boot: bool,
}

impl Default for RestoreSettings {
    fn default() -> Self {
        Self {
            stop: None,
            start: None,
            stopped: None,
            stop_timeout: COMMAND_TIMEOUT,
            start_timeout: COMMAND_TIMEOUT,
            preserve: Preserve::Move,
            preserve_dir: None,
            keep_preserved: KEEP_PRESERVED,
            settle: Duration::ZERO,
            check_timeout: CHECK_TIMEOUT,
            map: BTreeMap::new(),
            base_url: None,
            strict: false,
            rollback_after_boot: false,
        }
    }
}

/// `[restore]` as the file has it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRestore {
    stop: Option<Spanned<RawCommand>>,
    start: Option<Spanned<RawCommand>>,
    stopped: Option<Spanned<RawCommand>>,
    stop_timeout: Option<Spanned<ValueText>>,
    start_timeout: Option<Spanned<ValueText>>,
    preserve: Option<Spanned<String>>,
    preserve_dir: Option<String>,
    keep_preserved: Option<Spanned<ValueText>>,
    settle: Option<Spanned<ValueText>>,
    check_timeout: Option<Spanned<ValueText>>,
    map: Option<Spanned<BTreeMap<Spanned<String>, String>>>,
    base_url: Option<Spanned<String>>,
    strict: Option<bool>,
    rollback_after_boot: Option<bool>,
}

impl RawRestore {
    /// Validates the table; what it does not say is as in `defaults`.
    pub(super) fn validate(
        &self,
        document: &ConfigDocument<'_>,
        sources: &[super::Source],
        defaults: RestoreSettings,
    ) -> Result<RestoreSettings, ConfigError> {
        let duration = |value| optional(document, value, value::parse_duration);
        let line = |key: &str, raw: &Option<Spanned<RawCommand>>| match raw {
            None => Ok(None),
            Some(raw) if raw.get_ref().is_empty() => {
                Err(document.invalid(&raw.span(), format!("`{key}` names no program")))
            }
            Some(raw) => Ok(Some(raw.get_ref().line())),
        };
        if let (Some(stop), None) = (&self.stop, &self.start) {
            let what = "`stop` without `start`: a restore in place would leave the service down";
            return Err(document.invalid(&stop.span(), what));
        }
        let base_url = self.base_url.as_ref();
        let base_url = base_url.map(|url| base_url_of(document, url)).transpose()?;
        Ok(RestoreSettings {
            stop: line("stop", &self.stop)?.or(defaults.stop),
            start: line("start", &self.start)?.or(defaults.start),
            stopped: line("stopped", &self.stopped)?.or(defaults.stopped),
            stop_timeout: duration(&self.stop_timeout)?.unwrap_or(defaults.stop_timeout),
            start_timeout: duration(&self.start_timeout)?.unwrap_or(defaults.start_timeout),
            preserve: self.preserve(document)?.unwrap_or(defaults.preserve),
            preserve_dir: self
                .preserve_dir
                .as_deref()
                .map(|path| document.resolve(path))
                .or(defaults.preserve_dir),
            keep_preserved: duration(&self.keep_preserved)?.unwrap_or(defaults.keep_preserved),
            settle: duration(&self.settle)?.unwrap_or(defaults.settle),
            check_timeout: duration(&self.check_timeout)?.unwrap_or(defaults.check_timeout),
            map: self.map(document, sources)?,
            base_url: base_url.or(defaults.base_url),
            strict: self.strict.unwrap_or(defaults.strict),
            rollback_after_boot: self
                .rollback_after_boot
                .unwrap_or(defaults.rollback_after_boot),
        })
    }

    fn preserve(&self, document: &ConfigDocument<'_>) -> Result<Option<Preserve>, ConfigError> {
        let Some(raw) = &self.preserve else {
            return Ok(None);
        };
        match raw.get_ref().as_str() {
            "move" => Ok(Some(Preserve::Move)),
            "copy" => Ok(Some(Preserve::Copy)),
            other => {
                let what = format!("preserve is \"move\" or \"copy\", not {other:?}");
                Err(document.invalid(&raw.span(), what))
            }
        }
    }

    fn map(
        &self,
        document: &ConfigDocument<'_>,
        sources: &[super::Source],
    ) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let Some(raw) = &self.map else {
            return Ok(BTreeMap::new());
        };
        let entries = raw.get_ref().iter().map(|(name, path)| {
            match sources.iter().any(|source| source.name == *name.get_ref()) {
                true => Ok((name.get_ref().clone(), document.resolve(path))),
                false => {
                    let what = format!("map: there is no source {:?}", name.get_ref());
                    Err(document.invalid(&name.span(), what))
                }
            }
        });
        entries.collect()
    }
}

/// Returns the URL without a slash at its end. Only `http` and `https` are accepted, and no
/// password.
pub(super) fn base_url_of(
    document: &ConfigDocument<'_>,
    raw: &Spanned<String>,
) -> Result<String, ConfigError> {
    let text = raw.get_ref();
    let is_good = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    match is_good {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => {
            let what =
                "this is not a URL such as \"http://127.0.0.1:8100\", without user and password";
            Err(document.invalid(&raw.span(), what))
        }
    }
}
