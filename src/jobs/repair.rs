//! Bringing what a target lost from where it is whole: other targets, and the spool.
//!
//! Nothing is believed by where it comes from: archives and pages must hash to their names, manifests must
//! carry a signature that is trusted. What was put is read back before it is called whole. A manifest comes last,
//! after everything that it names, as in a push.

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

/// Where something may be had from.
#[derive(Debug, Clone)]
pub struct Donor {
    pub name: String,
    pub folder: HostFolder,
}

/// Nobody could give it.
#[derive(Debug, Default)]
pub struct Unmended {
    /// What each said that had it.
    pub why: Vec<String>,
    /// Somebody who may have it could not be asked.
    pub is_undecided: bool,
}

impl Unmended {
    /// Notes why `folder` did not get it from one of them.
    fn note(&mut self, folder: &HostFolder, failed: RepairError) {
        if let RepairError::Copy(CopyError::Target(error))
        | RepairError::Target(error)
        | RepairError::Repository(RepositoryError::Target(error)) = &failed
        {
            if error.kind == ErrorKind::NotFound {
                return;
            }
            // One that is not mounted, may not be read or must thaw first may have it all the same.
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
    #[error("what {donor} has of it is no better: {what}")]
    NoBetter { donor: String, what: String },
    #[error("what was put there is not what is read back")]
    NotKept,
}

/// Brings the archive `row` to `folder`; gives who had it.
pub async fn bring_archive<'a>(
    folder: &HostFolder,
    row: &ArchiveRow,
    donors: &'a [Donor],
    scratch: &Path,
) -> Result<&'a Donor, Unmended> {
    let mut unmended = Unmended::default();
    for donor in donors {
        match copy_and_prove(folder, row, donor, scratch).await {
            Ok(()) => return Ok(donor),
            Err(error) => unmended.note(folder, error),
        }
    }
    Err(unmended)
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
        // Where it cannot be read the target's word must do.
        Err(ReadArchiveError::Target(error))
            if matches!(error.kind, ErrorKind::Frozen | ErrorKind::Denied) =>
        {
            Ok(())
        }
        Err(ReadArchiveError::Target(error)) => Err(error.into()),
        Err(ReadArchiveError::Damaged(_) | ReadArchiveError::Write(_)) => Err(RepairError::NotKept),
    }
}

/// Brings a page of the archive table.
pub async fn bring_page<'a>(
    folder: &HostFolder,
    page: &Hash,
    donors: &'a [Donor],
) -> Result<&'a Donor, Unmended> {
    let mut unmended = Unmended::default();
    for donor in donors {
        match copy_page(folder, page, donor).await {
            Ok(()) => return Ok(donor),
            Err(error) => unmended.note(folder, error),
        }
    }
    Err(unmended)
}

async fn copy_page(folder: &HostFolder, page: &Hash, donor: &Donor) -> Result<(), RepairError> {
    let key = ObjectKey::table(page);
    let bytes = get(&donor.folder, &key).await?;
    parse_page(page, &bytes)?;
    replace(folder, &key, bytes).await
}

/// Brings a page of earlier snapshots, or a directory of such pages.
pub async fn bring_history<'a>(
    folder: &HostFolder,
    page: &Hash,
    donors: &'a [Donor],
) -> Result<&'a Donor, Unmended> {
    let mut unmended = Unmended::default();
    for donor in donors {
        match copy_history(folder, page, donor).await {
            Ok(()) => return Ok(donor),
            Err(error) => unmended.note(folder, error),
        }
    }
    Err(unmended)
}

async fn copy_history(folder: &HostFolder, page: &Hash, donor: &Donor) -> Result<(), RepairError> {
    let key = ObjectKey::table(page);
    let bytes = get(&donor.folder, &key).await?;
    require_hash(page, &bytes)?;
    replace(folder, &key, bytes).await
}

/// Brings what `manifest` names of earlier snapshots, unless it is there: the pages, then the directories.
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

/// Brings a manifest and its signature, and first everything that they need and `folder` lacks. `accepts` says
/// whose signature is trusted.
pub async fn bring_manifest<'a>(
    folder: &HostFolder,
    name: &ManifestName,
    accepts: &(dyn Fn(&PublicKey) -> bool + Sync),
    donors: &'a [Donor],
    scratch: &Path,
) -> Result<&'a Donor, Unmended> {
    let mut unmended = Unmended::default();
    for donor in donors {
        match copy_manifest(folder, name, accepts, donor, scratch).await {
            Ok(()) => return Ok(donor),
            Err(error) => unmended.note(folder, error),
        }
    }
    Err(unmended)
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

/// Puts a small object, unless it is as it should be.
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
