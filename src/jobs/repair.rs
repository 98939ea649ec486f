//! Brings back objects that a target lost, from other targets and from the spool.
//!
//! No object is believed by its origin: archives and pages must hash to their names, manifests must
//! carry a trusted signature. Each object is read back before it counts as repaired. A manifest
//! comes last, after everything that it names, as in a push.

use std::path::Path;

use bytes::Bytes;
use ssh_key::PublicKey;

use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{ArchiveRow, MAX_SMALL_OBJECT_BYTES, Manifest, ManifestName};
use crate::format::signature::{self, MANIFEST_NAMESPACE};
use crate::repository::read_archive::{ReadArchiveError, read_archive};
use crate::repository::{HostFolder, RepositoryError, parse_page, require_hash};
use crate::shipper::CopyError;
use crate::shipper::copy::copy_archive;
use crate::storage::{Body, ErrorKind, PutMode, TargetError};

/// A place that may have a lost object.
#[derive(Debug, Clone)]
pub struct Donor {
    /// For the operator: a target's name, or the spool.
    pub name: String,
    /// The host's folder there.
    pub folder: HostFolder,
}

/// No donor could supply the object.
#[derive(Debug, Default)]
pub struct Unmended {
    /// The error of each donor that has it, with causes.
    pub why: Vec<String>,
    /// At least one donor that may have it could not be read.
    pub is_undecided: bool,
}

impl Unmended {
    /// Records why `folder` did not get the object from one donor.
    fn note(&mut self, folder: &HostFolder, failed: RepairError) {
        if let RepairError::Copy(CopyError::Target(error))
        | RepairError::Target(error)
        | RepairError::Repository(RepositoryError::Target(error)) = &failed
        {
            if error.kind == ErrorKind::NotFound {
                return;
            }
            // A donor that is not mounted, may not be read or must thaw first may still have it.
            let is_donors = error.target != folder.target.label();
            self.is_undecided |= is_donors || error.kind == ErrorKind::Unavailable;
        }
        self.why.push(with_causes(&failed));
    }
}

#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("the copy on {donor} is no better: {what}")]
    NoBetter { donor: String, what: String },
    #[error("it was put there, and other content is read back")]
    NotKept,
}

/// Returns the first donor from which `copy` succeeds, or why no donor could supply the object.
async fn from_first<'a>(
    folder: &HostFolder,
    donors: &'a [Donor],
    copy: impl AsyncFn(&'a Donor) -> Result<(), RepairError>,
) -> Result<&'a Donor, Unmended> {
    let mut unmended = Unmended::default();
    for donor in donors {
        match copy(donor).await {
            Ok(()) => return Ok(donor),
            Err(error) => unmended.note(folder, error),
        }
    }
    Err(unmended)
}

/// Copies the archive `row` to `folder` from the first donor that has it whole, and returns that
/// donor.
pub async fn bring_archive<'a>(
    folder: &HostFolder,
    row: &ArchiveRow,
    donors: &'a [Donor],
    scratch: &Path,
) -> Result<&'a Donor, Unmended> {
    from_first(folder, donors, async |donor| {
        copy_and_prove(folder, row, donor, scratch).await
    })
    .await
}

async fn copy_and_prove(
    folder: &HostFolder,
    row: &ArchiveRow,
    donor: &Donor,
    scratch: &Path,
) -> Result<(), RepairError> {
    copy_archive(&donor.folder, folder, row, PutMode::Replace, scratch).await?;
    match read_archive(folder, row, &mut tokio::io::sink()).await {
        Ok(()) => Ok(()),
        // If the target does not let it be read, its confirmation must do.
        Err(ReadArchiveError::Target(error))
            if matches!(error.kind, ErrorKind::Frozen | ErrorKind::Denied) =>
        {
            Ok(())
        }
        Err(ReadArchiveError::Target(error)) => Err(error.into()),
        Err(ReadArchiveError::Damaged(_) | ReadArchiveError::Write(_)) => Err(RepairError::NotKept),
    }
}

/// Copies a page of the archive table to `folder`, and returns the donor.
pub async fn bring_page<'a>(
    folder: &HostFolder,
    page: &Hash,
    donors: &'a [Donor],
) -> Result<&'a Donor, Unmended> {
    from_first(folder, donors, async |donor| {
        copy_page(folder, page, donor).await
    })
    .await
}

async fn copy_page(folder: &HostFolder, page: &Hash, donor: &Donor) -> Result<(), RepairError> {
    let key = ObjectKey::table(page);
    let bytes = get(&donor.folder, &key).await?;
    parse_page(page, &bytes)?;
    replace(folder, &key, bytes).await
}

/// Copies a page of earlier snapshots, or a directory of such pages, to `folder`, and returns the
/// donor.
pub async fn bring_history<'a>(
    folder: &HostFolder,
    page: &Hash,
    donors: &'a [Donor],
) -> Result<&'a Donor, Unmended> {
    from_first(folder, donors, async |donor| {
        copy_history(folder, page, donor).await
    })
    .await
}

async fn copy_history(folder: &HostFolder, page: &Hash, donor: &Donor) -> Result<(), RepairError> {
    let key = ObjectKey::table(page);
    let bytes = get(&donor.folder, &key).await?;
    require_hash(page, &bytes)?;
    replace(folder, &key, bytes).await
}

/// Copies the pages of earlier snapshots that `manifest` names and `folder` lacks, then the
/// directories.
async fn copy_all_history(
    folder: &HostFolder,
    manifest: &Manifest,
    donor: &Donor,
) -> Result<(), RepairError> {
    let Some(named) = manifest.core.known.pages() else {
        return Ok(());
    };
    let mut pages = donor.folder.known_page_names(named).await?;
    pages.extend(&named.directories);
    for page in &pages {
        match folder.is_history(page).await {
            Ok(true) => {}
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error.into()),
            _ => copy_history(folder, page, donor).await?,
        }
    }
    Ok(())
}

/// Copies everything that the manifest `name` needs and `folder` lacks, then its signature, then
/// the manifest; returns the donor. `accepts` decides whether a signer is trusted.
pub async fn bring_manifest<'a>(
    folder: &HostFolder,
    name: &ManifestName,
    accepts: &(dyn Fn(&PublicKey) -> bool + Sync),
    donors: &'a [Donor],
    scratch: &Path,
) -> Result<&'a Donor, Unmended> {
    from_first(folder, donors, async |donor| {
        copy_manifest(folder, name, accepts, donor, scratch).await
    })
    .await
}

async fn copy_manifest(
    folder: &HostFolder,
    name: &ManifestName,
    accepts: &(dyn Fn(&PublicKey) -> bool + Sync),
    donor: &Donor,
    scratch: &Path,
) -> Result<(), RepairError> {
    let no_better = |what: String| RepairError::NoBetter {
        donor: donor.name.clone(),
        what,
    };
    let bytes = get(&donor.folder, &name.key()).await?;
    let signature = get(&donor.folder, &name.signature_key()).await?;
    let manifest =
        Manifest::parse_named(name, &bytes).map_err(|error| no_better(error.to_string()))?;
    if manifest.core.host != folder.host {
        return Err(no_better(format!("it is of host {}", manifest.core.host)));
    }
    let key = signature::verify(&signature, MANIFEST_NAMESPACE, &manifest.bytes)
        .map_err(|error| no_better(error.to_string()))?;
    if !accepts(&key) {
        return Err(no_better("its signer is not trusted".to_owned()));
    }
    let table = donor.folder.table(&manifest).await?;
    let present = folder.archives_present().await?;
    for row in table.rows.values() {
        if present.get(&row.blake3) != Some(&row.bytes) {
            copy_and_prove(folder, row, donor, scratch).await?;
        }
    }
    for page in &manifest.pages {
        match folder.page(page).await {
            Ok(_) => {}
            Err(RepositoryError::Target(error)) if error.kind == ErrorKind::Unavailable => {
                return Err(error.into());
            }
            Err(_) => copy_page(folder, page, donor).await?,
        }
    }
    copy_all_history(folder, &manifest, donor).await?;
    replace(folder, &name.signature_key(), signature).await?;
    replace(folder, &name.key(), bytes).await
}

async fn get(folder: &HostFolder, key: &ObjectKey) -> Result<Bytes, TargetError> {
    let key = folder.key(key);
    folder.target.get(&key, MAX_SMALL_OBJECT_BYTES).await
}

/// Puts a small object and reads it back, unless it is there already.
async fn replace(folder: &HostFolder, key: &ObjectKey, bytes: Bytes) -> Result<(), RepairError> {
    match get(folder, key).await {
        Ok(there) if there == bytes => return Ok(()),
        Err(error) if error.kind == ErrorKind::Unavailable => return Err(error.into()),
        _ => {}
    }
    let (body, at) = (Body::Bytes(bytes.clone()), folder.key(key));
    folder.target.put(&at, body, PutMode::Replace).await?;
    match get(folder, key).await? == bytes {
        true => Ok(()),
        false => Err(RepairError::NotKept),
    }
}
