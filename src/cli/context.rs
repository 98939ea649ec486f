//! What every command gets: the global options, the displays and the report of the run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::events::EventSink;
use super::failure::Failure;
use super::output;
use super::retry_notes::{self, RetryNotes};
use super::terminal::displays::Displays;
use crate::base::ids::Stamp;
use crate::base::progress::Stage;
use crate::config::{Config, ConfigError};
use crate::jobs::backup::report::BackupReport;
use crate::jobs::catch_up::CatchUpReport;
use crate::jobs::context::{Display, FrontEnd};
use crate::jobs::restore_in_place::InPlaceReport;
use crate::jobs::run_history::RunRecorder;
use crate::jobs::run_report::RunReport;
use crate::jobs::signer_memory::SignerMemory;
use crate::storage::Patience;

/// Most warnings in the report of the run.
const MOST_WARNINGS: usize = 100;
/// Most damaged lines of the file of known signers that are named.
const MOST_DAMAGED: usize = 5;

/// The global options.
pub(super) struct Context {
    pub(super) config: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) quiet: bool,
    /// `--verbose`.
    pub(super) verbose: bool,
    /// `--retry`.
    pub(super) retry: Option<Duration>,
    /// Whether the warnings about the configuration were printed already.
    pub(super) has_warned: AtomicBool,
    pub(super) displays: Displays,
    /// Receives the events of the run.
    pub(super) events: Option<Arc<EventSink>>,
    /// The report of the run, for `--events-fd`.
    pub(super) report: Arc<Mutex<RunReport>>,
    /// The configuration of a run that no agent watches, whose messages this process sends.
    pub(super) unattended: OnceLock<Config>,
    /// Records the run in the history of the host.
    pub(super) recorder: Arc<RunRecorder>,
    /// Takes events on standard output, in a command that answers with them.
    pub(super) stream: Option<Arc<EventSink>>,
    /// The signers that this machine remembers, once a command looked one up.
    pub(super) signers: OnceLock<SignerMemory>,
}

impl Context {
    pub(super) fn load_config(&self) -> Result<Config, Failure> {
        let found = Config::find(self.config.as_deref()).map_err(Failure::usage)?;
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            for warning in &found.warnings {
                output::tell(format_args!("warning: {warning}"));
            }
        }
        let mut config = found.config;
        lock(&self.report).host = Some(config.host.clone());
        config.set_patience(&self.patience());
        Ok(config)
    }

    /// Loads the configuration for a command that the schedule also runs.
    pub(super) fn load_config_of_schedule(&self) -> Result<Config, Failure> {
        let mut config = self.load_config()?;
        if self.retry.is_none() && !retry_notes::is_read() {
            config.set_patience(&self.reporting(Patience::of_a_schedule()));
        }
        Ok(config)
    }

    /// Loads the configuration, if this machine has one. One that is named, or that cannot be used,
    /// is a failure: it may have pins and signers that count here.
    pub(super) fn load_config_if_any(&self) -> Result<Option<Config>, Failure> {
        match Config::find(self.config.as_deref()) {
            // Nor has a machine that drills one of a host.
            Err(ConfigError::NotFound { .. } | ConfigError::ForDrills { .. }) => Ok(None),
            _ => self.load_config().map(Some),
        }
    }

    /// Returns how long a command that a person waits for tries to reach a target.
    pub(super) fn patience(&self) -> Patience {
        self.reporting(self.retry.map_or_else(Patience::of_a_person, Patience::of))
    }

    /// Returns `patience` with notes for those who read them.
    pub(super) fn reporting(&self, patience: Patience) -> Patience {
        let notes = RetryNotes {
            is_printed: !self.quiet && retry_notes::is_read(),
            events: self.events.clone(),
        };
        match notes.is_printed || notes.events.is_some() {
            true => patience.with_progress(Arc::new(notes)),
            false => patience,
        }
    }

    /// Returns the signers that this machine remembers. Warns once about lines without effect.
    pub(super) fn signers(&self) -> &SignerMemory {
        self.signers.get_or_init(|| {
            let signers = SignerMemory::load();
            for line in signers.damaged().take(MOST_DAMAGED) {
                output::tell(format_args!("warning: {line}"));
            }
            signers
        })
    }

    /// Prints a note on stderr, unless `--quiet` is given.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        match &self.stream {
            // The other side shows it.
            Some(stream) => stream.note(&text.to_string()),
            None if !self.quiet => output::tell(format_args!("{text}")),
            None => {}
        }
    }

    /// Warns of something that is not the command's own.
    pub(super) fn warn_now(&self, text: &str) {
        <Self as FrontEnd>::warn(self, text);
    }

    /// Begins the row of the run in the history of the state directory `dir`, unless it has begun.
    pub(super) fn begin_record(&self, dir: &Path) {
        let report = lock(&self.report).clone();
        for warning in self.recorder.begin(dir, &report) {
            self.warn_now(&warning);
        }
    }

    /// Keeps why the run is not complete for the report of the run.
    pub(super) fn report_warnings(&self, warnings: impl IntoIterator<Item = String>) {
        let warnings = warnings.into_iter().take(MOST_WARNINGS);
        lock(&self.report).warnings.extend(warnings);
    }

    /// Keeps what a restore in place did for the report of the run.
    pub(super) fn report_restore(&self, restore: &InPlaceReport) {
        lock(&self.report).restore = serde_json::to_value(restore).ok();
    }

    /// Keeps what a backup did for the report of the run.
    pub(super) fn report_backup(&self, backup: &BackupReport) {
        backup.add_to(&mut lock(&self.report));
    }
}

impl Context {
    /// Keeps what a push from the spool did for the report of the run.
    pub(super) fn report_catch_up(&self, done: &CatchUpReport) {
        done.add_to(&mut lock(&self.report));
    }
}

impl FrontEnd for Context {
    fn warn(&self, text: &str) {
        self.displays.warning(text);
        if self.stream.is_none() {
            output::tell(format_args!("warning: {text}"));
        }
    }

    fn note(&self, text: &str) {
        if self.stream.is_none() {
            self.displays.note(text);
        }
        Self::note(self, text);
    }

    fn stage(&self, stage: Stage, subject: Option<&str>) {
        self.displays.stage(stage, subject);
    }

    fn stage_bytes(&self, bytes: u64, bytes_total: Option<u64>) {
        self.displays.stage_bytes(bytes, bytes_total);
    }

    fn snapshot_ready(&self, stamp: Stamp, dir: &Path, metadata: &serde_json::Value) {
        if let Some(events) = &self.events {
            events.snapshot(stamp, dir, metadata);
        }
    }

    fn show_push(&self) -> Display {
        self.displays.show_push()
    }

    fn show_transfer(&self, stage: Stage, subject: &str, bytes: u64) -> Display {
        self.displays.show_transfer(stage, Some(subject), bytes)
    }

    fn show_restore(&self) -> Display {
        self.displays.show_transfer(Stage::Restoring, None, 0)
    }

    fn run_report(&self) -> RunReport {
        lock(&self.report).clone()
    }

    fn state_opened(&self, dir: &Path) {
        self.begin_record(dir);
    }
}

/// Locks `mutex`. A thread that panicked while it held the lock changes nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
