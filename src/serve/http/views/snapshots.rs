//! Snapshots as the API shows them: what the catalog and this host's directory have.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Months, Utc};
use serde::Serialize;
use serde_json::json;

use super::super::problem::HttpProblem;
use super::history;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::{Config, Retention};
use crate::jobs::context::look_into_catalog;
use crate::jobs::error::JobError;
use crate::jobs::local_retention::pins_of;
use crate::jobs::verdict::ProvenSnapshot;
use crate::producer;
use crate::retention::{Candidate, Pins, Reason, Reasons, TagMatch, decide};
use crate::state::catalog::{Catalog, Publications, SnapshotRow};
use crate::state::pins;

/// One snapshot.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct SnapshotView {
    pub(in super::super) stamp: Stamp,
    /// `None`, as the next three: it was never packed.
    pub(in super::super) sequence: Option<u64>,
    pub(in super::super) bytes: Option<u64>,
    pub(in super::super) new_bytes: Option<u64>,
    /// Bytes of its new archives; `None`: the history does not know.
    pub(in super::super) stored_bytes: Option<u64>,
    /// Its state on each target, such as `published`. `None`: the target lacks it.
    pub(in super::super) targets: BTreeMap<String, Option<String>>,
    /// Why it stays on the targets; empty: it may go.
    pub(in super::super) keep: Vec<KeptBy>,
    /// The operator pinned it.
    pub(in super::super) pinned: bool,
    /// His note about the pin. `None`: there is none.
    pub(in super::super) pin_note: Option<String>,
    /// A restore for proof. `None`: this is not the newest proven snapshot.
    pub(in super::super) proven: Option<ProvenSnapshot>,
    /// Its directory is on this host.
    pub(in super::super) local: bool,
}

/// A reason for which a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in super::super) struct KeptBy {
    /// Such as `daily`, or `everything` without a policy.
    pub(in super::super) rule: String,
    /// When the rule no longer keeps it, if backups go on as now; `None`: not known in advance.
    pub(in super::super) until: Option<DateTime<Utc>>,
}

/// Everything that is known of the snapshots of this host.
pub(in super::super) struct KnownSnapshots<'c> {
    config: &'c Config,
    catalog: Option<Catalog>,
    /// By sequence.
    rows: Vec<SnapshotRow>,
    /// By the index of the row. `None`: there is no policy.
    reasons: Option<Vec<Reasons>>,
    local: BTreeSet<Stamp>,
    pins: Pins,
    /// Notes of the operator's pins.
    notes: BTreeMap<Stamp, Option<String>>,
    proof: Option<ProvenSnapshot>,
}

impl<'c> KnownSnapshots<'c> {
    /// Reads them; `proof` is the newest one.
    pub(in super::super) fn read(
        config: &'c Config,
        proof: Option<ProvenSnapshot>,
    ) -> Result<Self, HttpProblem> {
        let catalog = look_into_catalog(config)?;
        let rows = catalog.as_ref().map(Catalog::snapshots).transpose();
        let rows = rows.map_err(JobError::from)?;
        let rows = rows.map_or_else(Vec::new, |rows| rows.to_vec());
        let pins = pins_of(config)?;
        let local = producer::list(&config.snapshots_dir).map_err(JobError::from)?;
        let mut known = Self {
            config,
            catalog,
            rows,
            reasons: None,
            local: local.iter().map(|one| one.stamp).collect(),
            pins,
            notes: pins::read_noted(&config.state).map_err(JobError::from)?,
            proof,
        };
        known.reasons = known.decided()?;
        Ok(known)
    }

    fn decided(&self) -> Result<Option<Vec<Reasons>>, HttpProblem> {
        let Some(policy) = &self.config.retention else {
            return Ok(None);
        };
        let kept_tags = self.config.kept_tags();
        let mut candidates = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let tags = match (&self.catalog, kept_tags.is_empty()) {
                (Some(catalog), false) => {
                    let about = catalog.about(&row.known.core).map_err(JobError::from)?;
                    kept_tags.of_tags(about.as_ref().map(|about| about.tags.as_slice()))
                }
                _ => TagMatch::None,
            };
            candidates.push(Candidate {
                sequence: row.known.sequence,
                stamp: row.known.stamp,
                pinned: self.pins.holds(&row.known.stamp),
                tags,
                proven: self.is_proven(row),
                late: false,
                whole: true,
            });
        }
        Ok(Some(decide(&candidates, policy, clock::now())))
    }

    fn note(&self, stamp: &Stamp) -> Option<String> {
        self.notes.get(stamp).cloned().flatten()
    }

    fn is_proven(&self, row: &SnapshotRow) -> bool {
        let proof = self.proof.as_ref();
        proof.is_some_and(|proof| proof.sequence == row.known.sequence)
    }

    /// Returns at most `limit` snapshots with sequences below `before` (`None`: all), newest first.
    /// Those that were never packed come first.
    pub(in super::super) fn page(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<SnapshotView>, HttpProblem> {
        let rows = self.rows.iter().enumerate().rev();
        let rows = rows.filter(|(_, row)| before.is_none_or(|before| row.known.sequence < before));
        let unpacked = self.unpacked().filter(|_| before.is_none());
        let mut views: Vec<SnapshotView> = unpacked.take(limit).collect();
        let chosen: Vec<(usize, &SnapshotRow)> = rows.take(limit - views.len()).collect();
        views.extend(self.views(&chosen)?);
        Ok(views)
    }

    /// Returns the local snapshots that were never packed, newest first.
    fn unpacked(&self) -> impl Iterator<Item = SnapshotView> {
        let packed: BTreeSet<Stamp> = self.rows.iter().map(|row| row.known.stamp).collect();
        let unpacked = self
            .local
            .iter()
            .rev()
            .filter(move |stamp| !packed.contains(stamp));
        unpacked.map(|stamp| SnapshotView {
            stamp: *stamp,
            sequence: None,
            bytes: None,
            new_bytes: None,
            stored_bytes: None,
            targets: self
                .config
                .targets
                .iter()
                .map(|target| (target.name.clone(), None))
                .collect(),
            keep: Vec::new(),
            pinned: self.pins.by_hand.contains(stamp),
            pin_note: self.note(stamp),
            proven: None,
            local: true,
        })
    }

    /// Returns the snapshot with this sequence or stamp.
    pub(in super::super) fn find(&self, id: &str) -> Result<SnapshotView, HttpProblem> {
        let sequence = id.parse::<u64>().ok();
        let stamp = id.parse::<Stamp>().ok();
        let is_meant = |row: &SnapshotRow| {
            sequence == Some(row.known.sequence) || stamp == Some(row.known.stamp)
        };
        let rows = self.rows.iter().enumerate();
        let found: Vec<(usize, &SnapshotRow)> = rows.filter(|(_, row)| is_meant(row)).collect();
        match &found[..] {
            [] => self
                .unpacked()
                .find(|view| Some(view.stamp) == stamp)
                .ok_or_else(|| unknown(id)),
            [_] => self.views(&found)?.pop().ok_or_else(|| unknown(id)),
            several => {
                let sequences = several.iter().map(|(_, row)| row.known.sequence);
                let sequences: Vec<u64> = sequences.collect();
                let detail = format!("{id} names {} snapshots", sequences.len());
                Err(HttpProblem::ambiguous(detail, json!(sequences))
                    .with_next("name one by its sequence"))
            }
        }
    }

    fn views(&self, rows: &[(usize, &SnapshotRow)]) -> Result<Vec<SnapshotView>, HttpProblem> {
        let sequences = || rows.iter().map(|(_, row)| row.known.sequence);
        let bounds = sequences().min().zip(sequences().max());
        let stored = match (history(self.config)?, bounds) {
            (Some(history), Some((first, last))) => history.stored_bytes(first, last)?,
            _ => BTreeMap::new(),
        };
        let states = self.states()?;
        let views = rows.iter().map(|(index, row)| {
            let targets = states.iter().map(|(name, states)| {
                let state = states.get(&row.known.core).map(ToString::to_string);
                (name.clone(), state)
            });
            SnapshotView {
                stamp: row.known.stamp,
                sequence: Some(row.known.sequence),
                bytes: Some(row.bytes),
                new_bytes: Some(row.new_bytes),
                stored_bytes: stored.get(&row.known.sequence).copied(),
                targets: targets.collect(),
                keep: self.kept_by(*index, row.known.stamp),
                pinned: self.pins.by_hand.contains(&row.known.stamp),
                pin_note: self.note(&row.known.stamp),
                proven: self.proof.clone().filter(|_| self.is_proven(row)),
                local: self.local.contains(&row.known.stamp),
            }
        });
        Ok(views.collect())
    }

    fn states(&self) -> Result<Vec<(String, Publications)>, HttpProblem> {
        let Some(catalog) = &self.catalog else {
            return Ok(Vec::new());
        };
        let names = self.config.targets.iter().map(|target| target.name.clone());
        let states = names.map(|name| {
            let states = catalog.publications(&name).map_err(JobError::from)?;
            Ok((name, states))
        });
        states.collect()
    }

    fn kept_by(&self, index: usize, stamp: Stamp) -> Vec<KeptBy> {
        let (Some(reasons), Some(policy)) = (&self.reasons, &self.config.retention) else {
            return vec![KeptBy {
                rule: "everything".to_owned(),
                until: None,
            }];
        };
        let reasons = reasons.get(index).into_iter().flatten();
        let kept = reasons.map(|reason| KeptBy {
            rule: reason.to_string(),
            until: until(*reason, stamp.time(), policy),
        });
        kept.collect()
    }
}

/// Returns when `reason` no longer keeps a snapshot of the time `made`, if each period gets one.
fn until(reason: Reason, made: DateTime<Utc>, policy: &Retention) -> Option<DateTime<Utc>> {
    match reason {
        Reason::Hourly => made.checked_add_signed(Duration::hours(policy.hourly.into())),
        Reason::Daily => made.checked_add_signed(Duration::days(policy.daily.into())),
        Reason::Weekly => made.checked_add_signed(Duration::weeks(policy.weekly.into())),
        Reason::Monthly => made.checked_add_months(Months::new(policy.monthly)),
        Reason::Yearly => made.checked_add_months(Months::new(policy.yearly.checked_mul(12)?)),
        Reason::Within => made.checked_add_signed(Duration::from_std(policy.within?).ok()?),
        _ => None,
    }
}

fn unknown(id: &str) -> HttpProblem {
    let shown: String = id.chars().take(40).collect();
    let detail = format!("this host knows no snapshot {shown:?}");
    HttpProblem::not_found("no_such_snapshot", detail)
        .with_next("name one by its sequence or its stamp; /api/v1/snapshots lists them")
}
