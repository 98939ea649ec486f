//! Shows what a backup would take. Nothing is written, no command runs, and no target is contacted.

use serde::Serialize;

use super::backup::BackupRequest;
use super::error::JobError;
use crate::base::error_chain::with_causes;
use crate::config::{Config, Source, SourceKind};
use crate::format::index::Skipped;
use crate::packer::files_cache::CacheReader;
use crate::producer::{DroppedTotal, ProduceError, SourceSurvey, Surveyor, wanted_sources};
use crate::storage::TargetSpec;

/// What a backup would take.
#[derive(Debug, Serialize)]
pub(crate) struct DryRunReport {
    pub(crate) sources: Vec<PlannedSource>,
    /// Files of all sources. A snapshot also has its own `backup-metadata.json`.
    pub(crate) files: u64,
    /// Sum of their sizes, as far as it is known.
    pub(crate) bytes: u64,
    /// Whether a backup would take as many bytes.
    pub(crate) is_exact: bool,
    /// Bytes of new and changed files: an upper limit of what is stored. `None`: not known.
    pub(crate) changed_bytes: Option<u64>,
    /// Name and URL of each target, without secrets.
    pub(crate) targets: Vec<String>,
    /// Whether a source fails that is required, or all do.
    pub(crate) makes_no_snapshot: bool,
}

/// What a backup would take of one source.
#[derive(Debug, Serialize)]
pub(crate) struct PlannedSource {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// The path that is read, or the program of the command.
    pub(crate) from: String,
    /// Its path in the snapshot.
    pub(crate) to: String,
    pub(crate) files: u64,
    /// `None` for a command: only running it shows.
    pub(crate) bytes: Option<u64>,
    pub(crate) is_exact: bool,
    /// Bytes of new and changed files. `None`: not known.
    pub(crate) changed_bytes: Option<u64>,
    pub(crate) dropped: Vec<PlannedDrop>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) notes: Vec<String>,
    /// The commands that a backup would run, without their arguments.
    pub(crate) would_run: Vec<String>,
    /// Why it is not taken at all. `None`: it is.
    pub(crate) left_out: Option<String>,
    /// Whether it is left out because it failed, and not on purpose.
    pub(crate) fails: bool,
}

/// What one exclude pattern, or another setting, leaves out.
#[derive(Debug, Serialize)]
pub(crate) struct PlannedDrop {
    pub(crate) why: String,
    pub(crate) is_pattern: bool,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl From<DroppedTotal> for PlannedDrop {
    fn from(total: DroppedTotal) -> Self {
        Self {
            why: total.why,
            is_pattern: total.is_pattern,
            files: total.files,
            bytes: total.bytes,
        }
    }
}

impl DryRunReport {
    /// Whether everything would be taken.
    pub(crate) fn is_complete(&self) -> bool {
        let is_whole = |source: &PlannedSource| !source.fails && source.skipped.is_empty();
        self.sources.iter().all(is_whole)
    }
}

/// Returns what a backup would take now.
pub(crate) fn run(config: &Config, request: &BackupRequest) -> Result<DryRunReport, JobError> {
    let wanted = wanted_sources(config, &request.include).map_err(|error| match error {
        ProduceError::UnknownInclude { .. } | ProduceError::NoSources => JobError::request(error),
        error => JobError::from(error),
    })?;
    let cache = config.state.join("last-snapshot.cache");
    let mut cache = CacheReader::open_to_estimate(&cache);
    let mut surveyor = Surveyor::new(config);
    let mut planned: Vec<Option<PlannedSource>> = Vec::new();
    planned.resize_with(config.sources.len(), || None);
    // In the order of the paths in the snapshot, which the cache has, too.
    let mut order: Vec<usize> = (0..config.sources.len()).collect();
    order.sort_by_key(|at| format!("{}/", config.sources[*at].to));
    for at in order {
        let source = &config.sources[at];
        let is_wanted = wanted.iter().any(|one| one.name == source.name);
        planned[at] = Some(match is_wanted {
            true => {
                let mut planned = plan(source, &mut surveyor, cache.as_mut());
                planned.notes.extend(config.atocore.as_ref().map(|atocore| {
                    format!(
                        "AtoCore at {} is asked to copy {}",
                        atocore.url, source.name
                    )
                }));
                planned
            }
            false => {
                let why = format!("taken on request only: --include {}", source.name);
                PlannedSource::of(source, SourceSurvey::default(), None).left_out(why, false)
            }
        });
    }
    let sources: Vec<PlannedSource> = planned.into_iter().flatten().collect();
    let taken = || sources.iter().filter(|source| source.left_out.is_none());
    let failed = |source: &PlannedSource| {
        let is_required = |one: &Source| one.name == source.name && one.required;
        source.fails && config.sources.iter().any(is_required)
    };
    let label = |name: &str, url: &str| {
        TargetSpec {
            name: name.to_owned(),
            ..TargetSpec::from_url(url)
        }
        .label()
    };
    let targets = config.targets.iter();
    Ok(DryRunReport {
        files: taken().map(|source| source.files).sum(),
        bytes: taken().filter_map(|source| source.bytes).sum(),
        is_exact: taken().all(|source| source.is_exact),
        changed_bytes: taken().map(|source| source.changed_bytes).sum(),
        targets: targets
            .map(|target| label(&target.name, &target.url))
            .collect(),
        makes_no_snapshot: sources.iter().any(failed)
            || (taken().next().is_none() && sources.iter().any(|source| source.fails)),
        sources,
    })
}

fn plan(
    source: &Source,
    surveyor: &mut Surveyor<'_>,
    cache: Option<&mut CacheReader>,
) -> PlannedSource {
    let is_in_place = matches!(&source.kind, SourceKind::Tree(tree) if !tree.stage);
    let is_estimated = cache.is_some() && is_in_place;
    let mut cache = cache;
    let mut changed = 0;
    let survey = surveyor.survey(source, &mut |path, meta| {
        let unchanged = cache
            .as_mut()
            .is_some_and(|cache| cache.has_unchanged(path, meta));
        changed += if unchanged { 0 } else { meta.len() };
    });
    match survey {
        Ok(survey) if survey.files == 0 && is_absent(source) => {
            PlannedSource::of(source, survey, Some(0))
                .left_out("it does not exist, and is optional".to_owned(), false)
        }
        Ok(survey) => PlannedSource::of(source, survey, is_estimated.then_some(changed)),
        Err(error) => {
            let why = format!("{}; next: {}", with_causes(&error), error.next());
            PlannedSource::of(source, SourceSurvey::default(), None).left_out(why, true)
        }
    }
}

/// Whether an optional source does not exist.
fn is_absent(source: &Source) -> bool {
    let path = match &source.kind {
        SourceKind::Command { .. } => return false,
        SourceKind::Sqlite { path } | SourceKind::Json { path } => path,
        SourceKind::Tree(tree) => &tree.path,
    };
    source.optional && !source.is_of_snapshot() && !path.exists()
}

impl PlannedSource {
    fn of(source: &Source, survey: SourceSurvey, changed_bytes: Option<u64>) -> Self {
        let (from, command) = match &source.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => {
                (path.display().to_string(), None)
            }
            SourceKind::Tree(tree) => (tree.path.display().to_string(), None),
            SourceKind::Command { command } => (command.brief(), Some(command)),
        };
        let commands = [
            ("before", source.before.as_ref()),
            ("command", command),
            ("after", source.after.as_ref()),
        ];
        let would_run = commands.iter().filter_map(|(key, line)| {
            let line = line.as_ref()?;
            Some(format!("{key}: {}", line.brief()))
        });
        Self {
            name: source.name.clone(),
            kind: source.kind.name(),
            from,
            to: source.to.clone(),
            files: survey.files,
            bytes: (command.is_none() && !source.is_of_snapshot()).then_some(survey.bytes),
            is_exact: survey.is_exact,
            changed_bytes,
            dropped: survey.dropped.into_iter().map(Into::into).collect(),
            skipped: survey.skipped,
            notes: survey.notes,
            would_run: would_run.collect(),
            left_out: None,
            fails: false,
        }
    }

    fn left_out(self, why: String, fails: bool) -> Self {
        Self {
            would_run: match fails {
                true => self.would_run,
                false => Vec::new(),
            },
            bytes: Some(0),
            left_out: Some(why),
            fails,
            ..self
        }
    }
}
