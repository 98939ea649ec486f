//! Decides what is still to be put, by what the target has now.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::error::ShipError;
use super::super::upload::Sealed;
use super::present::PresentObjects;
use super::{Publication, PublishJob, Published, incomplete};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{ArchiveRow, Manifest};
use crate::repository::HostFolder;
use crate::state::spool::Spool;
use crate::storage::{PutMode, TargetError};

/// A page or a signature to put.
pub(super) struct SmallObject {
    /// Its key below the host's folder.
    pub key: ObjectKey,
    /// How to put it.
    pub mode: PutMode,
    /// Its content; `None`: it is in the spool.
    pub at_hand: Option<Bytes>,
}

/// What is still to be put, in the order of the steps.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Archives to ship from the spool.
    pub archives: Vec<(Sealed, PutMode)>,
    /// Archives to copy, each with the index of its copy source.
    pub copies: Vec<(ArchiveRow, PutMode, usize)>,
    /// Pages and directories.
    pub pages: Vec<SmallObject>,
    /// Signatures of the manifests.
    pub signatures: Vec<SmallObject>,
    /// Manifests, oldest first.
    pub manifests: Vec<(&'a Manifest, PutMode)>,
}

impl<'a> Plan<'a> {
    /// Looks at what the target has now and plans the rest, without the publications that are
    /// `crowded_out`. Plans nothing of a snapshot unless all of it can be put. `shipped` are
    /// archives that earlier rounds put there.
    pub(super) async fn make(
        job: &PublishJob<'a>,
        crowded_out: &BTreeMap<usize, ShipError>,
        shipped: &HashMap<Hash, u64>,
        published: &mut Published,
    ) -> Result<Self, ShipError> {
        let (folder, support) = (job.folder, job.support);
        let mut present = PresentObjects::look(folder, job.publications, support).await?;
        present.archives.extend(shipped);
        let mut plan = Self::default();
        let mut sources = CopySources::default();
        let mut incomplete_ones = Vec::new();
        let publications = job.publications.iter().enumerate();
        for (index, publication) in publications.filter(|(at, _)| !crowded_out.contains_key(at)) {
            let mut part = Self::default();
            let mut missing = Vec::new();
            for (row, mode) in part.add_archives(job.spool, publication, &present) {
                let source = sources.find(&support.copy_sources, row).await;
                match source.filter(|_| !support.damaged.contains(&row.blake3)) {
                    Some(source) => part.copies.push((row.clone(), mode, source)),
                    None => missing.push(row.key()),
                }
            }
            part.add_small(job.spool, publication, &present, &mut missing);
            let name = publication.manifest.name();
            if missing.is_empty() {
                part.note_in(&mut present, job.spool);
                plan.append(part);
                published.done.push(name);
            } else {
                let error = incomplete(folder, &name, &missing);
                incomplete_ones.push((index, name, error));
            }
        }
        let is_any_away = support.copy_sources_away || sources.is_any_away;
        for (index, name, error) in incomplete_ones {
            match is_any_away && !job.is_passed_by(index, &published.done) {
                true => published.postponed.push((name, error)),
                false => published.incomplete.push((name, error)),
            }
        }
        Ok(plan)
    }

    /// Plans the archives that the spool has and the target lacks. Returns those that the spool
    /// lacks as well.
    fn add_archives<'p>(
        &mut self,
        spool: &Spool,
        publication: &'p Publication,
        present: &PresentObjects,
    ) -> Vec<(&'p ArchiveRow, PutMode)> {
        let mut to_copy = Vec::new();
        for row in &publication.archives {
            let mode = match present.archives.get(&row.blake3) {
                Some(bytes) if *bytes == row.bytes => continue,
                Some(_) => PutMode::Replace,
                None => PutMode::Create,
            };
            match spool.size(&row.key()) == Some(row.bytes) {
                true => self.archives.push((row.into(), mode)),
                false => to_copy.push((row, mode)),
            }
        }
        to_copy
    }

    /// Plans pages, signature and manifest, and adds to `missing` the keys of those that are
    /// nowhere.
    fn add_small(
        &mut self,
        spool: &Spool,
        publication: &'a Publication,
        present: &PresentObjects,
        missing: &mut Vec<ObjectKey>,
    ) {
        let manifest = &publication.manifest;
        let name = manifest.name();
        let signature = name.signature_key();
        let pages = manifest.pages.iter().chain(&publication.known);
        let pages = pages.map(|page| (ObjectKey::table(page), publication.at_hand.get(page)));
        for (key, at_hand) in pages.chain([(signature.clone(), None)]) {
            let in_spool = spool.size(&key).or(at_hand.map(|bytes| bytes.len() as u64));
            // Our own copy says how long the object is. Without one, the object that is there must
            // do.
            let mode = match present.small.get(key.as_str()) {
                Some(bytes) if in_spool.is_none_or(|right| right == *bytes) => continue,
                Some(_) => PutMode::Replace,
                None => PutMode::Create,
            };
            let is_signature = key == signature;
            let at_hand = at_hand.cloned();
            let object = SmallObject { key, mode, at_hand };
            match in_spool {
                Some(_) if is_signature => self.signatures.push(object),
                Some(_) => self.pages.push(object),
                None => missing.push(object.key),
            }
        }
        let mode = match present.small.get(name.key().as_str()) {
            Some(bytes) if *bytes != manifest.bytes.len() as u64 => PutMode::Replace,
            _ => PutMode::Create,
        };
        self.manifests.push((manifest, mode));
    }

    /// Adds the planned objects to what the target will have.
    fn note_in(&self, present: &mut PresentObjects, spool: &Spool) {
        for (row, _, _) in &self.copies {
            present.archives.insert(row.blake3, row.bytes);
        }
        for (archive, _) in &self.archives {
            let hash = ObjectKey::archive_hash(archive.key.as_str());
            if let (Some(hash), Some(bytes)) = (hash, spool.size(&archive.key)) {
                present.archives.insert(hash, bytes);
            }
        }
        for object in self.pages.iter().chain(&self.signatures) {
            let at_hand = object.at_hand.as_ref().map(|bytes| bytes.len() as u64);
            if let Some(bytes) = at_hand.or(spool.size(&object.key)) {
                present.small.insert(object.key.as_str().to_owned(), bytes);
            }
        }
    }

    fn append(&mut self, other: Self) {
        self.archives.extend(other.archives);
        self.copies.extend(other.copies);
        self.pages.extend(other.pages);
        self.signatures.extend(other.signatures);
        self.manifests.extend(other.manifests);
    }
}

/// The archives on the copy sources, listed when the first one is needed.
#[derive(Default)]
struct CopySources {
    /// In the sources' order; `None`: not listed yet.
    archives: Option<Vec<HashMap<Hash, u64>>>,
    /// A source could not be listed.
    is_any_away: bool,
}

impl CopySources {
    /// Returns the index of the first source that has the archive `row` in full.
    async fn find(&mut self, sources: &[HostFolder], row: &ArchiveRow) -> Option<usize> {
        if self.archives.is_none() {
            let listed = list_archives(sources).await;
            for error in listed.iter().filter_map(|listed| listed.as_ref().err()) {
                tracing::info!(%error, "nothing can be copied from there now");
                self.is_any_away = true;
            }
            let listed = listed.into_iter().map(Result::unwrap_or_default);
            self.archives = Some(listed.collect());
        }
        let has = |has: &HashMap<Hash, u64>| has.get(&row.blake3) == Some(&row.bytes);
        self.archives.iter().flatten().position(has)
    }
}

async fn list_archives(sources: &[HostFolder]) -> Vec<Result<HashMap<Hash, u64>, TargetError>> {
    let lists = sources.iter().map(HostFolder::archives_present);
    futures::future::join_all(lists).await
}
