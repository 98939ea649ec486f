//! What is still to be put, by what the target has now.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::error::ShipError;
use super::super::upload::Sealed;
use super::there::There;
use super::{Publication, Published, Support, incomplete, is_passed_by};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{ArchiveRow, Manifest};
use crate::repository::HostFolder;
use crate::state::spool::Spool;
use crate::storage::{PutMode, TargetError};

/// A page or a signature to put.
pub(super) struct Small {
    pub key: ObjectKey,
    pub mode: PutMode,
    /// `None`: it is in the spool.
    pub at_hand: Option<Bytes>,
}

/// What is still to be put, and how, in the order of its steps.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub archives: Vec<(Sealed, PutMode)>,
    /// From which of the donors.
    pub copies: Vec<(ArchiveRow, PutMode, usize)>,
    pub pages: Vec<Small>,
    pub signatures: Vec<Small>,
    pub manifests: Vec<(&'a Manifest, PutMode)>,
}

impl<'a> Plan<'a> {
    /// Looks at what the target has now. Nothing of a snapshot is planned unless all of it can be done.
    pub async fn make(
        folder: &HostFolder,
        spool: &Spool,
        publications: &'a [Publication],
        is_in: impl Fn(&usize) -> bool,
        support: &Support,
        shipped: &HashMap<Hash, u64>,
        published: &mut Published,
    ) -> Result<Self, ShipError> {
        let mut there = There::look(folder, publications, support).await?;
        there.archives.extend(shipped);
        let mut plan = Self::default();
        let mut donors: Option<Vec<HashMap<Hash, u64>>> = None;
        let mut donors_away = support.copy_sources_away;
        let mut incomplete_ones = Vec::new();
        let those_in = publications.iter().enumerate();
        for (at, publication) in those_in.filter(|(at, _)| is_in(at)) {
            let mut part = Self::default();
            let mut missing = Vec::new();
            let mut to_copy = Vec::new();
            for row in &publication.archives {
                let mode = match there.archives.get(&row.blake3) {
                    Some(bytes) if *bytes == row.bytes => continue,
                    Some(_) => PutMode::Replace,
                    None => PutMode::Create,
                };
                match spool.size(&row.key()) == Some(row.bytes) {
                    true => part.archives.push((row.into(), mode)),
                    false => to_copy.push((row, mode)),
                }
            }
            if !to_copy.is_empty() && donors.is_none() {
                let looks = what_donors_have(&support.copy_sources).await;
                for error in looks.iter().filter_map(|look| look.as_ref().err()) {
                    tracing::info!(%error, "nothing can be copied from there now");
                    donors_away = true;
                }
                donors = Some(looks.into_iter().map(Result::unwrap_or_default).collect());
            }
            for (row, mode) in to_copy {
                let has = |has: &HashMap<Hash, u64>| has.get(&row.blake3) == Some(&row.bytes);
                let donor = donors.iter().flatten().position(has);
                match donor.filter(|_| !support.damaged.contains(&row.blake3)) {
                    Some(donor) => part.copies.push((row.clone(), mode, donor)),
                    None => missing.push(row.key()),
                }
            }
            part.add_small(spool, publication, &there, &mut missing);
            let name = publication.manifest.name();
            if missing.is_empty() {
                part.note_in(&mut there, spool);
                plan.append(part);
                published.done.push(name);
            } else {
                let error = incomplete(folder, &name, &missing);
                incomplete_ones.push((at, name, error));
            }
        }
        for (at, name, error) in incomplete_ones {
            let is_passed_by = is_passed_by(publications, at, &published.done);
            match donors_away && !is_passed_by {
                true => published.postponed.push((name, error)),
                false => published.incomplete.push((name, error)),
            }
        }
        Ok(plan)
    }

    fn add_small(
        &mut self,
        spool: &Spool,
        publication: &'a Publication,
        there: &There,
        missing: &mut Vec<ObjectKey>,
    ) {
        let manifest = &publication.manifest;
        let name = manifest.name();
        let signature = name.signature_key();
        let pages = manifest.pages.iter().chain(&publication.known);
        let pages = pages.map(|page| (ObjectKey::table(page), publication.at_hand.get(page)));
        for (key, at_hand) in pages.chain([(signature.clone(), None)]) {
            let in_spool = spool.size(&key).or(at_hand.map(|bytes| bytes.len() as u64));
            // Our own copy says how long the object is; without one, what is there must do.
            let mode = match there.small.get(key.as_str()) {
                Some(there) if in_spool.is_none_or(|right| right == *there) => continue,
                Some(_) => PutMode::Replace,
                None => PutMode::Create,
            };
            let is_signature = key == signature;
            let at_hand = at_hand.cloned();
            let small = Small { key, mode, at_hand };
            match in_spool {
                Some(_) if is_signature => self.signatures.push(small),
                Some(_) => self.pages.push(small),
                None => missing.push(small.key),
            }
        }
        let mode = match there.small.get(name.key().as_str()) {
            Some(bytes) if *bytes != manifest.bytes.len() as u64 => PutMode::Replace,
            _ => PutMode::Create,
        };
        self.manifests.push((manifest, mode));
    }

    /// Adds the planned objects to what the target will have.
    fn note_in(&self, there: &mut There, spool: &Spool) {
        for (row, _, _) in &self.copies {
            there.archives.insert(row.blake3, row.bytes);
        }
        for (archive, _) in &self.archives {
            let hash = ObjectKey::archive_hash(archive.key.as_str());
            if let (Some(hash), Some(bytes)) = (hash, spool.size(&archive.key)) {
                there.archives.insert(hash, bytes);
            }
        }
        for one in self.pages.iter().chain(&self.signatures) {
            let at_hand = one.at_hand.as_ref().map(|bytes| bytes.len() as u64);
            if let Some(bytes) = at_hand.or(spool.size(&one.key)) {
                there.small.insert(one.key.as_str().to_owned(), bytes);
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

/// The archives of each.
async fn what_donors_have(donors: &[HostFolder]) -> Vec<Result<HashMap<Hash, u64>, TargetError>> {
    let looks = donors.iter().map(HostFolder::archives_present);
    futures::future::join_all(looks).await
}
