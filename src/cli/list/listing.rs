//! `list` without a target: the snapshots of this host in the order of their making, and what of them is
//! on which target.
//!
//! A target that is a folder here is looked at: what the catalog remembers may have gone, or come by `sync`.
//! Of others it says what this host remembers; `status` asks them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::json;

use super::super::Context;
use super::super::backup::local_snapshots;
use super::super::failure::{Failure, Outcome};
use super::super::output::{self, printable, size};
use super::super::status;
use super::super::target_args;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, Stamp};
use crate::config::{Config, TargetConfig};
use crate::format::manifest::ManifestName;
use crate::jobs::push::OrderedSnapshot;
use crate::producer::LocalSnapshot;
use crate::repository::HostFolder;
use crate::state::catalog::PublicationState;
use crate::state::catalog::{Catalog, SnapshotRow};
use crate::storage::{self, TargetError};

/// One snapshot as this host knows it; at least one of both is there.
struct Row {
    local: Option<LocalSnapshot>,
    known: Option<SnapshotRow>,
    /// Per configured target.
    published: Vec<Option<String>>,
}

impl Row {
    fn stamp(&self) -> Option<Stamp> {
        let local = self.local.as_ref().map(|local| local.stamp);
        local.or(self.known.as_ref().map(|row| row.known.stamp))
    }

    fn tags(&self) -> Vec<&str> {
        let metadata = self
            .local
            .as_ref()
            .and_then(|local| local.metadata.as_ref());
        let tags = metadata.map(|metadata| &metadata["sealift"]["tags"]);
        let tags = tags
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten();
        tags.filter_map(serde_json::Value::as_str).collect()
    }

    /// Names of the sources that it lacks because they failed.
    fn lacks(&self) -> Vec<&str> {
        let local = self.local.as_ref();
        let metadata = local.and_then(|local| local.metadata.as_ref());
        let sources = metadata.map(|metadata| &metadata["sealift"]["sources"]);
        let sources = sources.and_then(serde_json::Value::as_array);
        let names = sources.into_iter().flatten();
        let names = names.filter_map(|source| source["left_out"]["source"].as_str());
        names.collect()
    }
}

pub fn list(context: &Context, config: &Config) -> Result<Outcome, Failure> {
    let catalog = status::open_catalog(config)?;
    let known = catalog.as_ref().map(Catalog::snapshots).transpose()?;
    let mut rows = rows(
        local_snapshots(config)?,
        known.map(|rows| rows.to_vec()).unwrap_or_default(),
    );
    let mut outcome = Outcome::Complete;
    for target in &config.targets {
        let shown = look(config, target, &rows)?;
        if let Some(Err(error)) = &shown {
            outcome = Outcome::Partial;
            output::tell(format_args!("warning: {}", with_causes(error)));
        }
        let shown = shown.as_ref().map(Result::as_ref);
        for row in &mut rows {
            let state = match (&catalog, &row.known) {
                (Some(catalog), Some(known)) => {
                    let remembered = catalog.publication(&target.name, &known.known.core)?;
                    state(remembered, known, shown)
                }
                _ => None,
            };
            row.published.push(state);
        }
    }
    if context.json {
        let rows: Vec<_> = rows.iter().map(|row| to_json(config, row)).collect();
        output::print_json(&json!({
            "backup_dir": config.snapshots_dir.display().to_string(), "backups": rows,
        }))?;
        return Ok(outcome);
    }
    if rows.is_empty() {
        context.note("no snapshot yet; `sealift backup` makes the first");
    }
    let mut header = vec!["STAMP", "SEQUENCE", "SIZE", "NEW", "HERE"];
    header.extend(config.targets.iter().map(|target| target.name.as_str()));
    header.push("TAGS");
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::write_stdout(output::table(&header, &cells).as_bytes())?;
    Ok(outcome)
}

/// Merges what is here with what was packed; a directory belongs to the last snapshot of its stamp.
fn rows(there: Vec<OrderedSnapshot>, known: Vec<SnapshotRow>) -> Vec<Row> {
    let mut by_sequence: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    let mut last_of: HashMap<Stamp, u64> = HashMap::new();
    for row in known {
        let sequence = row.known.sequence;
        last_of.insert(row.known.stamp, sequence);
        by_sequence.entry(sequence).or_default().push(Row {
            local: None,
            known: Some(row),
            published: Vec::new(),
        });
    }
    let mut before = 0;
    for one in there {
        before = one.sequence.unwrap_or(before);
        let (stamp, after) = (one.snapshot.stamp, by_sequence.entry(before).or_default());
        let is_it = |row: &&mut Row| row.stamp() == Some(stamp) && row.local.is_none();
        let its = match one.sequence == last_of.get(&stamp).copied() {
            true => after.iter_mut().rev().find(is_it),
            false => None,
        };
        match its {
            Some(row) => row.local = Some(one.snapshot),
            None => after.push(Row {
                local: Some(one.snapshot),
                known: None,
                published: Vec::new(),
            }),
        }
    }
    by_sequence.into_values().flatten().collect()
}

/// What a target shows.
struct Shown {
    manifests: HashSet<ManifestName>,
    /// Core hashes of what believable tombstones say was deleted on purpose.
    deleted: HashSet<Hash>,
}

/// Looks at a target, if it is a folder here that this host may look at.
fn look(
    config: &Config,
    target: &TargetConfig,
    rows: &[Row],
) -> Result<Option<Result<Shown, TargetError>>, Failure> {
    if target.write_only || storage::folder_path(&target.url).is_none() {
        return Ok(None);
    }
    let named = target_args::open_target(target)?;
    let folder = HostFolder::new(named.target, config.host.clone());
    // Without its own signer this host knows nothing of deletions.
    let trust = target_args::own_trust(config).ok();
    let shown = target_args::runtime()?.block_on(async {
        let manifests = HashSet::from_iter(folder.manifest_names().await?);
        let known = rows.iter().filter_map(|row| row.known.as_ref());
        let absent = known.filter(|known| !manifests.contains(&known.name));
        let absent = absent.map(|known| (known.known.sequence, known.known.stamp));
        let deleted = match &trust {
            Some(trust) => folder.deletions(trust, &[], &absent.collect()).await?,
            None => HashSet::new(),
        };
        Ok(Shown { manifests, deleted })
    });
    Ok(Some(shown))
}

/// What a cell says: `published`, `behind` and so on.
fn state(
    remembered: Option<PublicationState>,
    row: &SnapshotRow,
    shown: Option<Result<&Shown, &TargetError>>,
) -> Option<String> {
    match (shown, remembered) {
        (Some(Ok(shown)), _) if shown.manifests.contains(&row.name) => Some("published".to_owned()),
        (Some(Ok(shown)), _) if shown.deleted.contains(&row.known.core) => {
            Some("pruned".to_owned())
        }
        (Some(Ok(_)), Some(PublicationState::Published)) => Some("gone".to_owned()),
        (Some(Err(_)), Some(PublicationState::Published)) => Some("not seen".to_owned()),
        _ => remembered.map(|state| state.to_string()),
    }
}

fn cells(row: &Row) -> Vec<String> {
    let dash = || "-".to_owned();
    let here = match row.local.as_ref().map(|local| local.valid) {
        None => dash(),
        Some(Some(true)) if !row.lacks().is_empty() => {
            format!("lacks {}", printable(row.lacks().join(",").as_bytes()))
        }
        Some(Some(true)) => "valid".to_owned(),
        Some(Some(false)) => "NOT VALID".to_owned(),
        Some(None) => "not validated".to_owned(),
    };
    let known = row.known.as_ref();
    let mut cells = vec![
        row.stamp().map_or_else(dash, |stamp| stamp.to_string()),
        known.map_or_else(dash, |row| row.known.sequence.to_string()),
        known.map_or_else(dash, |row| size(row.bytes)),
        known.map_or_else(dash, |row| size(row.new_bytes)),
        here,
    ];
    cells.extend(row.published.iter().map(|state| match known {
        Some(_) => state.clone().unwrap_or_else(|| "behind".to_owned()),
        None => dash(),
    }));
    cells.push(printable(row.tags().join(" ").as_bytes()));
    cells
}

fn to_json(config: &Config, row: &Row) -> serde_json::Value {
    let targets = config.targets.iter().zip(&row.published);
    let targets: BTreeMap<&str, &Option<String>> = targets
        .map(|(target, state)| (target.name.as_str(), state))
        .collect();
    let (local, known) = (row.local.as_ref(), row.known.as_ref());
    json!({
        "stamp": row.stamp(), "sequence": known.map(|row| row.known.sequence),
        "bytes": known.map(|row| row.bytes), "new_bytes": known.map(|row| row.new_bytes),
        "path": local.map(|local| local.path.display().to_string()),
        "valid": local.and_then(|local| local.valid), "lacks": row.lacks(),
        "targets": targets, "metadata": local.and_then(|local| local.metadata.as_ref()),
    })
}
