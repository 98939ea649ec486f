//! Extends the configuration that the host has: adds and removes sources and targets.
//!
//! Only the table in question changes. The new text is parsed, and compared with the old one,
//! before it replaces the file in one step. The file keeps its owner and mode; a link to it stays a
//! link. If the file cannot be replaced, the error has the lines to add by hand.

mod replace;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Serialize;

use super::error::JobError;
use crate::base::dir_lock::lock_file;
use crate::base::ownership;
use crate::config::{
    Config, EditError, NewSource, NewTarget, Source, TableKind, TakenPlace, TargetConfig,
    add_table, remove_table, render_source, render_target,
};

/// Largest configuration that is edited, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A configuration file that is about to be edited.
pub(crate) struct EditedConfig {
    /// The file that the text is in: links are followed.
    file: PathBuf,
    /// The text of the file.
    original: String,
    /// The edited text.
    text: String,
    /// The edited configuration.
    config: Config,
}

/// Report of an edited configuration.
#[derive(Debug, Serialize)]
pub(crate) struct EditReport {
    /// Path of the configuration.
    #[serde(rename = "config")]
    pub(crate) config_path: String,
    pub(crate) added: Vec<String>,
    pub(crate) removed: Vec<String>,
}

impl EditedConfig {
    /// Reads the file of `config`, and checks that it can be replaced.
    pub(crate) fn open(config: &Config) -> Result<Self, JobError> {
        let path = &config.file;
        let unread = |error| {
            let text = format!("cannot read {}: {error}", path.display());
            JobError::request(text).with_next("name a regular file with --config")
        };
        let file = path.canonicalize().map_err(unread)?;
        let opened = ownership::open_regular(&file).map_err(unread)?;
        let text = ownership::read_text(&opened, MAX_BYTES).map_err(unread)?;
        let config = Config::parse(&text, path).map_err(JobError::request)?;
        Ok(Self {
            file,
            original: text.clone(),
            text,
            config,
        })
    }

    /// Returns the configuration as it is, or as it is edited so far.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the names and the places in a snapshot that sources have.
    pub(crate) fn taken_places(&self) -> Vec<TakenPlace> {
        let place = |source: &Source| TakenPlace {
            name: source.name.clone(),
            to: source.to.clone(),
        };
        self.config.sources.iter().map(place).collect()
    }

    /// Adds a source. Returns its name.
    pub(crate) fn add_source(&mut self, source: &NewSource) -> Result<String, JobError> {
        let block = render_source(source);
        let edited = self.with_table(TableKind::Source, &block)?;
        let is_new = |one: &&Source| one.to == source.to;
        let name = edited.1.sources.iter().find(is_new);
        let name = name.map_or_else(|| source.to.clone(), |one| one.name.clone());
        self.accept(edited, TableKind::Source, &name)?;
        Ok(name)
    }

    /// Adds a target.
    pub(crate) fn add_target(&mut self, target: &NewTarget) -> Result<(), JobError> {
        let edited = self.with_table(TableKind::Target, &render_target(target))?;
        self.accept(edited, TableKind::Target, &target.name)
    }

    /// Removes the source or target `name`, which must be in the file itself.
    pub(crate) fn remove(&mut self, kind: TableKind, name: &str) -> Result<(), JobError> {
        let written = Config::written_tables(&self.text, &self.config.file, kind);
        let written = written.map_err(JobError::request)?;
        let Some(index) = written.iter().position(|table| table.name == name) else {
            let names: Vec<&str> = written.iter().map(|table| table.name.as_str()).collect();
            return Err(self.no_such_table(kind, name, &names));
        };
        let text = remove_table(&self.text, kind, index).map_err(|error| {
            let line = written[index].line;
            let next = format!(
                "remove it by hand: it is at line {line} of {}",
                self.file.display()
            );
            JobError::request(error).with_next(next)
        })?;
        let config = Config::parse(&text, &self.config.file).map_err(|error| {
            let text = format!("without {name} the configuration would not be valid: {error}");
            JobError::request(text)
        })?;
        self.accept((text, config), kind, name)
    }

    fn no_such_table(&self, kind: TableKind, name: &str, names: &[&str]) -> JobError {
        let key = kind.key();
        let sources = &self.config.sources;
        if kind == TableKind::Source && sources.iter().any(|source| source.name == name) {
            let text = format!("the source {name} comes from the preset, not from a [[source]]");
            return JobError::request(text).with_next(
                "to take it on request only, write a [[source]] with its `to` and `on_request = true`",
            );
        }
        let text = match names {
            [] => format!("no {key} is named {name}: the file has no [[{key}]]"),
            names => format!("no {key} is named {name}; there are: {}", names.join(", ")),
        };
        JobError::request(text)
    }

    fn with_table(&self, kind: TableKind, block: &str) -> Result<(String, Config), JobError> {
        let by_hand = |error: EditError| {
            let next = format!("add by hand:\n{block}");
            JobError::request(error).with_next(next)
        };
        let text = add_table(&self.text, kind, block).map_err(by_hand)?;
        let config = Config::parse(&text, &self.config.file).map_err(JobError::request)?;
        Ok((text, config))
    }

    /// Takes the edited text if nothing but the source or target `name` differs.
    fn accept(
        &mut self,
        (text, config): (String, Config),
        kind: TableKind,
        name: &str,
    ) -> Result<(), JobError> {
        let is_atocore = [&self.config, &config].into_iter().any(|config| {
            let named = config.atocore.as_ref().map(|source| source.name.as_str());
            kind == TableKind::Source && named == Some(name)
        });
        let rest = |config: &Config| {
            let mut rest = config.clone();
            if is_atocore {
                // Its URL and token are the defaults of the preset's checks.
                rest.atocore = None;
                rest.restore.base_url = None;
                rest.checks.clear();
            }
            without(&rest, kind, name)
        };
        if rest(&self.config) != rest(&config) {
            let file = self.file.display();
            let what = format!(
                "an edit of {file} would change more than the {} {name}",
                kind.key()
            );
            return Err(JobError::work(what).with_next("nothing was changed; edit it by hand"));
        }
        (self.text, self.config) = (text, config);
        Ok(())
    }

    /// Replaces the file by the edited text. `by_hand` are the lines to add if that is not allowed.
    pub(crate) fn save(&self, by_hand: Option<&str>) -> Result<(), JobError> {
        let next = match by_hand {
            Some(lines) => format!("as a user who may write it, add:\n{}", lines.trim_end()),
            None => "run it as a user who may write it, or remove the lines by hand".to_owned(),
        };
        let failed = |error: std::io::Error| {
            let text = format!("cannot replace {}: {error}", self.file.display());
            JobError::request(text).with_next(next.clone())
        };
        let now = ownership::open_regular(&self.file).map_err(failed)?;
        // Until the file is replaced. A process that waits for it finds another file then.
        lock_file(&now).map_err(failed)?;
        let there = self.file.metadata().map_err(failed)?;
        let held = now.metadata().map_err(failed)?;
        let is_there = (there.dev(), there.ino()) == (held.dev(), held.ino());
        let now_text = ownership::read_text(&now, MAX_BYTES).map_err(failed)?;
        if !is_there || now_text != self.original {
            let text = format!(
                "{} was changed meanwhile; nothing was written",
                self.file.display()
            );
            return Err(JobError::work(text).with_next("run it again"));
        }
        replace::replace(&self.file, &now, self.text.as_bytes()).map_err(failed)
    }

    /// Returns the report of an edit.
    pub(crate) fn report(&self, added: Vec<String>, removed: Vec<String>) -> EditReport {
        EditReport {
            config_path: self.config.file.display().to_string(),
            added,
            removed,
        }
    }
}

/// Returns all of `config` but this source or target, as text.
fn without(config: &Config, kind: TableKind, name: &str) -> String {
    let mut rest = config.clone();
    match kind {
        TableKind::Source => rest.sources.retain(|source| source.name != name),
        TableKind::Target => rest
            .targets
            .retain(|target: &TargetConfig| target.name != name),
    }
    format!("{rest:?}")
}
