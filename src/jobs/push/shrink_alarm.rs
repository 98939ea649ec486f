//! Compares what a push stored of each source with the snapshot before: see
//! [`crate::state::figures`].

use std::collections::BTreeMap;

use super::error::PushError;
use super::request::PushReport;
use super::upload_order::in_order;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::{Config, Source, SourceKind};
use crate::producer;
use crate::state::State;
use crate::state::catalog::Catalog;
use crate::state::catalog::PublicationState;
use crate::state::figures::{
    self, Figures, Kept, Memory, OpenAlarm, Settings, SnapshotTaken, SourceTaken,
};
use crate::state::staged_snapshot::LeftOut;

/// The comparison of a push with the snapshot before.
#[derive(Debug, Default)]
pub struct ShrinkReport {
    /// Sources that shrank, now or earlier, and were not acknowledged.
    pub open: Vec<OpenAlarm>,
    /// Sources that had shrunk and have their size back.
    pub back: Vec<OpenAlarm>,
}

/// Compares the figures of `report`, remembers them, and returns what is open.
///
/// A snapshot that was not `made_now` is not compared for sources whose newer figures are known: it
/// was pushed by hand.
pub fn note_figures(
    state: &State,
    config: &Config,
    report: &PushReport,
    left_out: &[LeftOut],
    made_now: bool,
) -> Result<ShrinkReport, PushError> {
    let name = &report.manifest;
    let rows = state.catalog.snapshots()?;
    let earlier = rows.iter().filter(|row| row.known.sequence < name.sequence);
    let previous = earlier
        .max_by_key(|row| row.known.sequence)
        .map(|row| Kept {
            stamp: row.known.stamp,
            sequence: Some(row.known.sequence),
        });
    let mut taken = taken(
        config,
        name.stamp,
        name.sequence,
        &report.figures,
        left_out,
        previous,
    );
    let mut memory = match figures::load(&state.dir)? {
        Some(memory) => memory,
        None => from_local_snapshots(state, config, name.stamp)?,
    };
    let mut back = Vec::new();
    if made_now || memory.leave_out_known(&mut taken) {
        back = memory.note(taken).back;
        figures::save(&state.dir, &memory)?;
    }
    Ok(ShrinkReport {
        open: memory.open().to_vec(),
        back,
    })
}

fn taken(
    config: &Config,
    stamp: Stamp,
    sequence: u64,
    figures: &BTreeMap<String, Figures>,
    left_out: &[LeftOut],
    previous: Option<Kept>,
) -> SnapshotTaken {
    // A directory that was pushed by hand is no source of this host.
    let sources = figures.iter().filter(|(to, _)| !to.is_empty());
    let sources = sources.map(|(to, figures)| {
        let configured = config.sources.iter().find(|source| source.to == *to);
        let source = SourceTaken {
            name: configured.map_or_else(|| to.clone(), |source| source.name.clone()),
            rings: configured.is_none_or(|source| source.shrink_alarm),
            may_be_empty: configured.is_some_and(|source| source.allow_empty),
            settings: configured.map(settings).unwrap_or_default(),
            figures: figures.clone(),
        };
        (to.clone(), source)
    });
    // A missing optional source is no failure.
    let configured = config.sources.iter();
    let configured = configured.filter(|source| !source.optional || source.on_request);
    SnapshotTaken {
        snapshot: Kept {
            stamp,
            sequence: Some(sequence),
        },
        sources: sources.collect(),
        left_out: left_out.iter().map(|one| one.to.clone()).collect(),
        configured: configured.map(|one| one.to.clone()).collect(),
        previous,
    }
}

/// Returns the settings of a source that decide which files it has.
fn settings(source: &Source) -> Settings {
    let mut settings = Settings::new();
    let mut set = |key: &str, value: String| drop(settings.insert(key.to_owned(), value));
    match &source.kind {
        SourceKind::Sqlite { path } | SourceKind::Json { path } => {
            set("path", path.display().to_string());
        }
        SourceKind::Command { command } => set("command", command.to_string()),
        SourceKind::Tree(tree) => {
            let filter = &tree.filter;
            set("path", tree.path.display().to_string());
            set("exclude", format!("{:?}", filter.excludes));
            set("one_file_system", filter.one_file_system.to_string());
            set("max_file_size", format!("{:?}", filter.max_file_bytes));
            set("cachedir_tag", filter.cachedir_tag.to_string());
            set("nobackup", filter.nobackup.to_string());
        }
    }
    settings
}

/// Learns the figures of each source from the newest local snapshot that has it, if there is no
/// memory of them.
fn from_local_snapshots(state: &State, config: &Config, but: Stamp) -> Result<Memory, PushError> {
    let there = producer::list(&config.snapshots_dir)?;
    let ordered = in_order(there, Some(&state.catalog), clock::now())?;
    let valid = ordered
        .iter()
        .filter(|one| one.snapshot.valid == Some(true) && one.snapshot.stamp != but);
    let mut memory = Memory::default();
    for one in valid {
        let snapshot = Kept {
            stamp: one.snapshot.stamp,
            sequence: one.sequence,
        };
        if let Some(metadata) = &one.snapshot.metadata {
            memory.learn(snapshot, figures::of_metadata(metadata));
        }
    }
    Ok(memory)
}

/// Returns whether a snapshot is neither on this host nor, as far as the catalog knows, on any
/// target.
pub fn is_gone(
    catalog: Option<&Catalog>,
    config: &Config,
    snapshot: &Kept,
) -> Result<bool, PushError> {
    if config
        .snapshots_dir
        .join(snapshot.stamp.to_string())
        .exists()
    {
        return Ok(false);
    }
    let Some(catalog) = catalog else {
        return Ok(false);
    };
    let rows = catalog.snapshots()?;
    let mut rows = rows.iter().filter(|row| row.known.stamp == snapshot.stamp);
    let Some(row) = rows.next() else {
        // A new catalog does not know the snapshot, so it may be on a target.
        return Ok(false);
    };
    for target in &config.targets {
        match catalog.publication(&target.name, &row.known.core)? {
            Some(PublicationState::Published) | None => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(true)
}
