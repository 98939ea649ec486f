//! Reads archives, and remembers which were read when.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::super::error::JobError;
use super::{Run, Subject, TargetVerdict};
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::progress::{ProgressEvent, Stage};
use crate::scrub::{self, Needed, Problem, Share};
use crate::state::catalog::{ArchiveCheck, Catalog, CatalogError};
use crate::storage::{Meter, metered};

/// A full reading that broke off longer ago than this starts again from the beginning.
const FULL_READING_DAYS: i64 = 30;

impl Run<'_> {
    /// Reads this share of the archives. Notes each result as it comes, so that the next run
    /// continues after an interruption.
    pub(super) async fn read(
        &self,
        share: Share,
        subject: &Subject,
        verdict: &mut TargetVerdict,
    ) -> Result<(), JobError> {
        let Some(examined) = &verdict.examined else {
            return Ok(());
        };
        let is_full = share == Share::ALL && self.request.snapshots.is_empty();
        let chosen = match &self.catalog {
            None => scrub::choose_by_week(&examined.whole, share, self.now),
            Some(catalog) => {
                let begun = match is_full {
                    true => self.resume(catalog, &subject.name)?,
                    false => None,
                };
                let memory = catalog.checks(&subject.name)?;
                let chosen = scrub::choose(&examined.whole, share, &memory, begun);
                if is_full {
                    let all = examined.whole.len() as u64;
                    verdict.read_before = all.saturating_sub(chosen.len() as u64);
                }
                chosen
            }
        };
        let bytes = chosen.iter().map(|needed| needed.row.bytes).sum();
        let named = format!("{} on {}", subject.folder.host, subject.name);
        let display = self.front.show_transfer(Stage::Reading, &named, bytes);
        let mut noted = Ok(());
        let on_read = |needed: &Needed, read: scrub::Reading| {
            display.progress.report(&ProgressEvent::BytesFetched {
                bytes: needed.row.bytes,
            });
            if noted.is_ok() {
                noted = self.note_check(&subject.name, needed, &read);
            }
            verdict.take(needed, read);
        };
        let read = scrub::read_archives(&subject.folder, chosen, subject.concurrency, on_read);
        let meter = Meter::of_reads(&display.progress, &subject.name);
        let read = metered(Some(&meter), read).await;
        meter.close();
        drop(display);
        noted?;
        match (read, &self.catalog) {
            (Err(error), _) => {
                let why = with_causes(&error);
                verdict.problems.push(Problem::BrokeOff(why));
            }
            (Ok(()), Some(catalog)) if is_full => catalog.set_full_reading(&subject.name, None)?,
            (Ok(()), _) => {}
        }
        Ok(())
    }

    /// Returns when the full reading began that this run continues, `None` if this run begins one.
    fn resume(&self, catalog: &Catalog, target: &str) -> Result<Option<DateTime<Utc>>, JobError> {
        let oldest = self.now - chrono::Duration::days(FULL_READING_DAYS);
        let begun = catalog.full_reading(target)?;
        if let Some(begun) = begun.filter(|begun| (oldest..=self.now).contains(begun)) {
            return Ok(Some(begun));
        }
        catalog.set_full_reading(target, Some(self.now))?;
        Ok(None)
    }

    fn note_check(
        &self,
        target: &str,
        needed: &Needed,
        read: &scrub::Reading,
    ) -> Result<(), CatalogError> {
        let Some(catalog) = &self.catalog else {
            return Ok(());
        };
        let whole = match read {
            scrub::Reading::Whole => Some(true),
            scrub::Reading::Wrong(problem) if problem.lost().is_some() => Some(false),
            scrub::Reading::Frozen | scrub::Reading::Wrong(_) => None,
        };
        let at = crate::base::clock::now();
        catalog.set_check(target, &needed.row.blake3, &ArchiveCheck { at, whole })
    }

    /// Adds the archives that an earlier reading found damaged, that were not read again or
    /// repaired since.
    pub(super) fn recall_damage(
        &self,
        subject: &Subject,
        verdict: &mut TargetVerdict,
    ) -> Result<(), JobError> {
        let (Some(catalog), Some(examined)) = (&self.catalog, &verdict.examined) else {
            return Ok(());
        };
        let found = verdict.problems.iter().filter_map(Problem::lost);
        let found: Vec<Hash> = found.map(|row| row.blake3).collect();
        let memory: HashMap<Hash, ArchiveCheck> = catalog.checks(&subject.name)?;
        for (hash, needed) in &examined.whole {
            let bad = memory.get(hash).filter(|c| c.whole == Some(false));
            if let Some(bad) = bad.filter(|_| !found.contains(hash)) {
                verdict.problems.push(Problem::KnownDamaged {
                    needed: needed.clone(),
                    at: bad.at,
                });
            }
        }
        Ok(())
    }
}

impl TargetVerdict {
    fn take(&mut self, needed: &Needed, read: scrub::Reading) {
        match read {
            scrub::Reading::Frozen => {
                self.frozen.0 += 1;
                self.frozen.1 += needed.row.bytes;
                return;
            }
            scrub::Reading::Whole => {}
            scrub::Reading::Wrong(problem) => self.problems.push(*problem),
        }
        self.read_archives += 1;
        self.read_bytes += needed.row.bytes;
    }
}
