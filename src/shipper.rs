//! Moves sealed objects from the spool to one target.
//!
//! Archives go up while packing still goes on ([`ship_archives`]); then [`publish`] makes the
//! snapshot visible. A manifest on a target must name only archives that are complete there, so
//! `publish` believes nothing of what was shipped before: it reads the table that the manifest
//! names, lists what is there now, ships what is missing or of the wrong size, then the pages, then
//! the signature, and the manifest last. Whatever step a run dies at, the manifest is not there yet,
//! and the next run finds the rest in the spool, from which nothing is removed here.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::ids::{Hash, MANIFESTS, ObjectKey, TABLES};
use crate::manifest::{ArchiveKind, ArchiveRow, Manifest, ManifestName, TablePage};
use crate::repository::{ArchiveTable, HostFolder, RepositoryError, parse_page};
use crate::spool::{Spool, SpoolError};
use crate::target::{Body, ErrorKind, PutMode, TargetError};

const PUBLISH_CONCURRENCY: usize = 4;
const NAMED_MISSING: usize = 3;
/// A recovery file is text of a few kilobytes.
const MAX_RECOVERY_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("{0} was to be shipped, but is not in the spool")]
    NotInSpool(ObjectKey),
    #[error(
        "cannot publish {manifest} on {target}: {count} of its objects are neither there nor in the spool ({first})"
    )]
    Incomplete {
        manifest: ManifestName,
        target: String,
        count: usize,
        /// Keys of the first few.
        first: String,
    },
    #[error(
        "cannot publish {manifest}: its table names {count} archives that were not handed over ({first})"
    )]
    Unlisted {
        manifest: ManifestName,
        count: usize,
        first: String,
    },
}

/// An archive to ship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    pub key: ObjectKey,
    /// Read by restores only, so it may go into a storage class that is slow to read. An archive of an
    /// index is read by everybody who looks.
    pub cold: bool,
}

impl Shipment {
    /// Of an archive of which nothing but its key is known: not cold.
    pub fn of_unknown(key: ObjectKey) -> Self {
        Self { key, cold: false }
    }
}

impl From<&ArchiveRow> for Shipment {
    fn from(row: &ArchiveRow) -> Self {
        Self {
            key: row.key(),
            cold: row.kind == ArchiveKind::Data,
        }
    }
}

/// A snapshot to make visible. Its signature and pages are in the spool, or on the target already.
#[derive(Debug, Clone)]
pub struct Publication {
    pub manifest: Manifest,
    /// Every archive that the manifest's table names, and its bytes.
    pub archives: Vec<(ObjectKey, u64)>,
}

/// What [`publish`] found afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Other manifests of the same sequence: a revision, or another machine under this name.
    pub siblings: Vec<ManifestName>,
}

/// Ships archives as `requests` announces them, `concurrency` at once, until its senders are gone. With
/// `shared` no other target needs the spool's files, and a folder may keep them ([`Body::Shared`]).
/// `on_shipped` hears of each that is on the target now, with its bytes, whoever put it there. After
/// the first failure nothing new is begun; what is under way is waited for.
pub async fn ship_archives(
    folder: &HostFolder,
    spool: &Spool,
    mut requests: UnboundedReceiver<Shipment>,
    concurrency: usize,
    shared: bool,
    on_shipped: impl Fn(&ObjectKey, u64) + Sync,
) -> Result<(), ShipError> {
    let stopped = AtomicBool::new(false);
    let announced = futures::stream::poll_fn(|context| match stopped.load(Ordering::Relaxed) {
        true => Poll::Ready(None),
        false => requests.poll_recv(context),
    });
    let on_shipped = &on_shipped;
    let mut uploads = announced
        .map(|shipment| async move {
            let shipped = ship(folder, spool, &shipment, PutMode::Create, shared).await?;
            on_shipped(&shipment.key, shipped);
            Ok(())
        })
        .buffer_unordered(concurrency.max(1));
    let mut outcome = Ok(());
    while let Some(uploaded) = uploads.next().await {
        if uploaded.is_err() {
            stopped.store(true, Ordering::Relaxed);
            outcome = outcome.and(uploaded);
        }
    }
    outcome
}

/// Puts one object of the spool onto the target; gives its bytes.
async fn ship(
    folder: &HostFolder,
    spool: &Spool,
    shipment: &Shipment,
    mode: PutMode,
    shared: bool,
) -> Result<u64, ShipError> {
    let key = &shipment.key;
    let bytes = spool
        .size(key)
        .ok_or_else(|| ShipError::NotInSpool(key.clone()))?;
    let body = match shared {
        true => Body::Shared(spool.path(key)),
        false => Body::File(spool.path(key)),
    };
    let (target, key) = (&folder.target, folder.key(key));
    match shipment.cold {
        true => target.put_cold(&key, body, mode).await?,
        false => target.put(&key, body, mode).await?,
    };
    Ok(bytes)
}

/// Makes a snapshot visible on the target; see the module's words for the order. `on_shipped` hears
/// of each object put here.
pub async fn publish(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
    on_shipped: impl Fn(&ObjectKey, u64) + Sync,
) -> Result<Published, ShipError> {
    let manifest = &publication.manifest;
    let name = manifest.name();
    let cold = require_all_listed(folder, spool, publication).await?;
    let plan = Plan::make(folder, spool, publication).await?;
    for step in [&plan.archives, &plan.pages, &plan.signature] {
        futures::stream::iter(step)
            .map(|(key, mode)| async {
                let shipment = Shipment {
                    key: key.clone(),
                    cold: cold.contains(key),
                };
                let shipped = ship(folder, spool, &shipment, *mode, false).await?;
                on_shipped(key, shipped);
                Ok::<(), ShipError>(())
            })
            .buffer_unordered(PUBLISH_CONCURRENCY)
            .try_collect::<()>()
            .await?;
    }
    let key = name.key();
    let body = Body::Bytes(Bytes::copy_from_slice(&manifest.bytes));
    let target_key = folder.key(&key);
    folder.target.put(&target_key, body, plan.manifest).await?;
    on_shipped(&key, manifest.bytes.len() as u64);
    let names = folder.manifest_names().await?;
    let is_sibling = |n: &ManifestName| n.sequence == name.sequence && *n != name;
    Ok(Published {
        siblings: names.into_iter().filter(is_sibling).collect(),
    })
}

/// Holds the caller to its word: the archives checked below must be all that the table names. Gives those that
/// may go into cold storage.
async fn require_all_listed(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
) -> Result<HashSet<ObjectKey>, ShipError> {
    let name = publication.manifest.name();
    let pages = futures::stream::iter(&publication.manifest.pages)
        .map(|hash| read_page(folder, spool, &name, hash))
        .buffered(PUBLISH_CONCURRENCY)
        .try_collect::<Vec<_>>()
        .await?;
    let table = ArchiveTable::join(name.clone(), pages)?;
    let handed_over: HashMap<&ObjectKey, u64> = publication
        .archives
        .iter()
        .map(|(key, bytes)| (key, *bytes))
        .collect();
    let rows = table.rows.values().map(|row| (row.key(), row.bytes));
    let unlisted: Vec<ObjectKey> = rows
        .filter(|(key, bytes)| handed_over.get(key) != Some(bytes))
        .map(|(key, _)| key)
        .collect();
    if unlisted.is_empty() {
        let shipments = table.rows.values().map(Shipment::from);
        let cold = shipments.filter(|shipment| shipment.cold);
        return Ok(cold.map(|shipment| shipment.key).collect());
    }
    Err(ShipError::Unlisted {
        manifest: name,
        count: unlisted.len(),
        first: first_of(&unlisted),
    })
}

/// A page from the spool, else from the target.
async fn read_page(
    folder: &HostFolder,
    spool: &Spool,
    manifest: &ManifestName,
    hash: &Hash,
) -> Result<TablePage, ShipError> {
    let key = ObjectKey::table(hash);
    if spool.contains(&key) {
        return Ok(parse_page(hash, &spool.read(&key)?)?);
    }
    match folder.page(hash).await {
        Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {
            Err(incomplete(folder, manifest, &[key]))
        }
        other => Ok(other?),
    }
}

fn incomplete(folder: &HostFolder, manifest: &ManifestName, missing: &[ObjectKey]) -> ShipError {
    ShipError::Incomplete {
        manifest: manifest.clone(),
        target: folder.target.label().to_owned(),
        count: missing.len(),
        first: first_of(missing),
    }
}

fn first_of(keys: &[ObjectKey]) -> String {
    let first = keys.iter().take(NAMED_MISSING).map(ObjectKey::as_str);
    first.collect::<Vec<_>>().join(", ")
}

/// What is still to be put, and how, in the order of its steps.
struct Plan {
    archives: Vec<(ObjectKey, PutMode)>,
    pages: Vec<(ObjectKey, PutMode)>,
    signature: Vec<(ObjectKey, PutMode)>,
    manifest: PutMode,
}

impl Plan {
    /// Looks at what the target has now. Nothing is planned unless all of it can be done.
    async fn make(
        folder: &HostFolder,
        spool: &Spool,
        publication: &Publication,
    ) -> Result<Self, ShipError> {
        let name = publication.manifest.name();
        let listings = (folder.archives_present(), folder.list(TABLES));
        let (archives, mut small, manifests) =
            futures::future::try_join3(listings.0, listings.1, folder.list(MANIFESTS)).await?;
        small.extend(manifests);
        let mut missing = Vec::new();
        let mut needed = |key: ObjectKey, there: Option<u64>, bytes: Option<u64>| {
            let in_spool = spool.size(&key);
            // Without a promise, the spool's copy says how long the object is.
            let right = bytes.or(in_spool);
            let mode = match there {
                Some(there) if right.is_none_or(|right| right == there) => return None,
                Some(_) => PutMode::Replace,
                None => PutMode::Create,
            };
            if in_spool.is_none() || in_spool != right {
                missing.push(key);
                return None;
            }
            Some((key, mode))
        };
        let planned_archives = publication.archives.iter().filter_map(|(key, bytes)| {
            let hash = ObjectKey::archive_hash(key.as_str());
            let there = hash.and_then(|hash| archives.get(&hash).copied());
            needed(key.clone(), there, Some(*bytes))
        });
        let planned_archives = planned_archives.collect();
        let pages = publication.manifest.pages.iter().filter_map(|hash| {
            let key = ObjectKey::table(hash);
            let there = small.get(key.as_str()).copied();
            needed(key, there, None)
        });
        let pages = pages.collect();
        let signature = name.signature_key();
        let there = small.get(signature.as_str()).copied();
        let signature = needed(signature, there, None).into_iter().collect();
        if !missing.is_empty() {
            return Err(incomplete(folder, &name, &missing));
        }
        let bytes = publication.manifest.bytes.len() as u64;
        Ok(Self {
            archives: planned_archives,
            pages,
            signature,
            manifest: match small.get(name.key().as_str()) {
                Some(there) if *there != bytes => PutMode::Replace,
                _ => PutMode::Create,
            },
        })
    }
}

/// Puts the files that tell how to get everything back without Sealift, unless they are there.
pub async fn publish_recovery(
    folder: &HostFolder,
    files: &[(ObjectKey, Bytes)],
) -> Result<(), ShipError> {
    futures::stream::iter(files)
        .map(|(key, bytes)| put_unless_there(folder, key, bytes))
        .buffer_unordered(PUBLISH_CONCURRENCY)
        .try_collect()
        .await
}

/// For what is not named by its content, so looked at first: what is there stays, whatever it is.
async fn put_unless_there(
    folder: &HostFolder,
    key: &ObjectKey,
    bytes: &Bytes,
) -> Result<(), ShipError> {
    let key = folder.key(key);
    match folder.target.get(&key, MAX_RECOVERY_BYTES).await {
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Ok(_) => return Ok(()),
        Err(error) if [ErrorKind::Permanent, ErrorKind::Frozen].contains(&error.kind) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let body = Body::Bytes(bytes.clone());
    folder.target.put(&key, body, PutMode::Create).await?;
    Ok(())
}
